"""Commits as folders: each in a temporary work tree of its own, which is gone afterwards however the comparison ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

_AUTHOR = {f"GIT_{who}_{what}": "benchmarks" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


class BadInput(Exception):
    """What was asked for cannot be compared; the message says why, and what to do."""


class Commit(Struct, frozen=True):
    """``name``: what a reader is told it is."""

    name: str
    id: str


class Tree(Struct, frozen=True):
    """A commit checked out. ``role``: base or head."""

    role: str
    commit: Commit
    folder: Path


def commit(repository: Path, name: str) -> Commit:
    """The commit of that name. Raises :class:`BadInput` where there is none."""
    try:
        found = _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except subprocess.CalledProcessError as error:
        raise BadInput(f"no commit is called {name!r} here: give a branch, a tag or a hash (see git log)") from error
    return Commit(_git(repository, "rev-parse", "--short", found), found)


def working_tree(repository: Path, *, is_dirty_allowed: bool = False) -> Commit:
    """The working tree as a commit. Raises :class:`BadInput` where it has uncommitted changes that were not allowed for."""
    head = commit(repository, "HEAD")
    changed = _git(repository, "status", "--porcelain").splitlines()
    if not changed:
        return head
    if not is_dirty_allowed:
        raise BadInput(
            f"the working tree has uncommitted changes ({len(changed)} paths, the first is {changed[0][3:]}): commit them, "
            "name a commit as HEAD, or compare them as they are with --dirty"
        )
    return Commit(f"{head.name} with uncommitted changes", _snapshot(repository, head))


def _snapshot(repository: Path, head: Commit) -> str:
    """A commit of everything that git would add, by an index of its own: branch, index and files stay as they are."""
    with tempfile.TemporaryDirectory(prefix="agentbudget-index-") as folder:
        own = {"GIT_INDEX_FILE": f"{folder}/index", **_AUTHOR}
        _git(repository, "read-tree", head.id, more=own)
        _git(repository, "add", "--all", ":/", more=own)
        tree = _git(repository, "write-tree", more=own)
        return _git(repository, "commit-tree", tree, "-p", head.id, "-m", "compared", more=own)


@contextmanager
def checked_out(repository: Path, commits: Mapping[str, Commit]) -> Iterator[list[Tree]]:
    """A tree for each role, in its order."""
    root = Path(tempfile.mkdtemp(prefix="agentbudget-compare-"))
    trees = [Tree(role, one, root / role) for role, one in commits.items()]
    try:
        for tree in trees:
            _git(repository, "worktree", "add", "--quiet", "--detach", str(tree.folder), tree.commit.id)
        yield trees
    finally:
        shutil.rmtree(root, ignore_errors=True)
        _git(repository, "worktree", "prune", "--expire=now")


def differs(repository: Path, base: Commit, head: Commit, path: str) -> bool:
    """Whether that file or folder is another one in the two commits."""
    return bool(_git(repository, "diff", "--name-only", base.id, head.id, "--", path))


def _git(repository: Path, *arguments: str, more: Mapping[str, str] | None = None) -> str:
    quiet = ("-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false")
    done = subprocess.run(
        ["git", *quiet, *arguments],
        cwd=repository,
        env={**os.environ, **(more or {})},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip("\n")

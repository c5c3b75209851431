"""Where the socket is, and who may use it: as the database file says."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from agentbudget.errors import OwnerUnavailable
from agentbudget.runtime.machine import path as socket_path
from agentbudget.runtime.machine.host import MachineHost
from agentbudget.runtime.machine.path import SocketPath
from tests.sockets.support import Child, balance, begin, open_host, own, spend

Opened = Callable[..., MachineHost]
STRANGER = 12_345
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")


def test_the_socket_is_beside_the_file_and_goes_with_its_owner(owner: MachineHost, path: Path) -> None:
    beside = Path(f"{path}.sock")
    assert stat.S_ISSOCK(beside.stat().st_mode)
    owner.close()
    assert not beside.exists()


def test_two_names_of_one_file_meet(owner: MachineHost, path: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    alias = tmp_path / "folder" / "other.db"
    alias.symlink_to(path)
    host = open_host(alias)
    assert not host.is_owner
    spend(host, "a")
    host.close()


@pytest.mark.parametrize(
    ("depth", "name"),
    [(1, "budget.db"), (3, "budget.db"), (0, "b" * 200 + ".db"), (1, "b" * 200 + ".db")],
    ids=["long-folder", "very-long-folder", "long-name", "both"],  # SQLite takes some 500 bytes
)
def test_a_path_longer_than_an_address_takes_works(tmp_path: Path, depth: int, name: str) -> None:
    folder = tmp_path.joinpath(*["f" * 120] * depth)
    folder.mkdir(parents=True, exist_ok=True)
    owner = begin(open_host(folder / name))
    client = open_host(folder / name)
    assert not client.is_owner
    spend(client, "a")
    owner.close()
    spend(client, "b")
    client.close()
    assert [entry for entry in folder.iterdir() if "sock" in entry.name] == []


def test_without_descriptors_to_go_by_the_socket_is_in_the_users_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere than on Linux."""
    monkeypatch.setattr(socket_path, "DESCRIPTORS", str(tmp_path / "nothing"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.delenv("TMPDIR", raising=False)
    folder = tmp_path / ("f" * 120)
    folder.mkdir()
    owner = begin(open_host(folder / "budget.db"))
    client = open_host(folder / "budget.db")
    spend(client, "a")
    place = Path(SocketPath(str(folder / "budget.db")).path)
    assert place.parent == Path(f"/tmp/agentbudget-{os.getuid()}")
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    client.close()
    owner.close()
    assert not place.exists()


def test_what_a_dead_owner_left_is_replaced(path: Path, opened: Opened) -> None:
    with own(path) as first:
        first.kill()
        first.end()
    assert Path(f"{path}.sock").exists()
    host = begin(opened())
    assert host.is_owner
    assert balance(opened()).held == 0


def test_a_file_in_the_place_of_the_socket_is_replaced(path: Path, opened: Opened) -> None:
    Path(f"{path}.sock").write_text("something else")
    begin(opened())
    assert not opened().is_owner


def test_where_no_socket_can_be_made_the_owner_works_alone(
    path: Path, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    Path(f"{path}.sock").mkdir()
    host = begin(opened())
    assert host.is_owner
    assert "cannot reach this ledger" in caplog.text
    with pytest.raises(OwnerUnavailable) as alone:
        opened(timeout_seconds=0.05)
    assert str(os.getpid()) in alone.value.owner


def test_one_owner_never_removes_anothers_socket(tmp_path: Path) -> None:
    """A socket of the same name, made after somebody removed the first."""
    (tmp_path / "a.db").touch()
    place = SocketPath(str(tmp_path / "a.db"))
    first, ours = place.listen()
    second, theirs = place.listen()
    place.remove(ours)
    assert Path(place.path).exists()
    place.remove(theirs)
    assert not Path(place.path).exists()
    first.close()
    second.close()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o660, 0o664, 0o666])
def test_the_socket_is_open_to_whom_the_file_is(tmp_path: Path, mode: int) -> None:
    database = tmp_path / "a.db"
    database.touch()
    database.chmod(mode)
    place = SocketPath(str(database))
    listening, _ = place.listen()
    assert stat.S_IMODE(os.stat(place.path).st_mode) == mode
    assert os.stat(place.path).st_gid == database.stat().st_gid
    listening.close()


@needs_root
@pytest.mark.parametrize(("mode", "is_let_in"), [(0o644, False), (0o660, False), (0o666, True)])
def test_a_stranger_is_let_in_where_it_may_write_the_file(tmp_path: Path, mode: int, is_let_in: bool) -> None:
    assert _connects(tmp_path, mode, owner=0, group=0) is is_let_in


@needs_root
def test_the_files_group_is_let_in_and_so_is_its_owner(tmp_path: Path) -> None:
    assert _connects(tmp_path, 0o660, owner=0, group=STRANGER)
    assert _connects(tmp_path, 0o600, owner=STRANGER, group=0)
    assert not _connects(tmp_path, 0o640, owner=0, group=STRANGER)


def _connects(folder: Path, mode: int, *, owner: int, group: int) -> bool:
    """Whether user and group ``STRANGER`` reach an owner of a file with these rights."""
    database = folder / "a.db"
    database.touch()
    os.chown(database, owner, group)
    database.chmod(mode)
    place = SocketPath(str(database))
    listening, ours = place.listen()
    for parent in [folder, *folder.parents]:
        if parent.stat().st_uid == 0 and not stat.S_IMODE(parent.stat().st_mode) & 0o001:
            parent.chmod(stat.S_IMODE(parent.stat().st_mode) | 0o011)

    def work(child: Child) -> None:
        os.setgroups([])
        os.setgid(STRANGER)
        os.setuid(STRANGER)
        try:
            place.connect(5).close()
        except PermissionError:
            child.say(False)
        else:
            child.say(True)

    try:
        with Child(work) as child:
            connected: bool = child.hear()
            return connected
    finally:
        place.remove(ours)
        listening.close()


@needs_root
def test_without_the_files_group_our_own_is_not_let_in(tmp_path: Path) -> None:
    """A socket that could not be given to the file's group has the maker's, whose members have no right to the file."""
    database = tmp_path / "a.db"
    database.touch()
    os.chown(database, STRANGER, STRANGER + 1)
    database.chmod(0o660)
    tmp_path.chmod(0o777)

    def work(child: Child) -> None:
        os.setgroups([])
        os.setgid(STRANGER + 2)
        os.setuid(STRANGER)
        place = SocketPath(str(database))
        listening, _ = place.listen()
        child.say(stat.S_IMODE(os.stat(place.path).st_mode))
        listening.close()

    for parent in tmp_path.parents:
        if not stat.S_IMODE(parent.stat().st_mode) & 0o001:
            parent.chmod(stat.S_IMODE(parent.stat().st_mode) | 0o011)
    with Child(work) as child:
        assert child.hear() == 0o600


def test_sockets_are_not_inherited_by_programs(owner: MachineHost, client: MachineHost) -> None:
    """Only forked children are looked after by ``machine/descriptors.py``."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                assert not os.get_inheritable(int(name)) or int(name) < 3
        except OSError:
            continue

"""Where the peers are installed: never in our environment, never among our dependencies."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Final

VARIABLE: Final = "AGENTBUDGET_PEERS_PYTHON"
REQUIREMENTS: Final = Path(__file__).with_name("requirements.txt")


class NoInterpreter(Exception):
    """What AGENTBUDGET_PEERS_PYTHON names is not there."""


def interpreter(environment: Mapping[str, str] = os.environ) -> Path:
    """The one that AGENTBUDGET_PEERS_PYTHON names, else the installed one, else ours (and the peers are named as missing).
    Raises NoInterpreter."""
    if stated := environment.get(VARIABLE):
        if not Path(stated).is_file():
            raise NoInterpreter(
                f"{VARIABLE} names {stated}, where no file is. Name a Python, or unset it and --install."
            )
        return Path(stated)
    where = folder(environment)
    return _python(where) if _mark(where).exists() else Path(sys.executable)


def folder(environment: Mapping[str, str] = os.environ) -> Path:
    """In the user's cache, else in the folder for temporary files; another one for other versions."""
    wanted = f"{REQUIREMENTS.read_text('utf-8')} {sys.version_info[:2]}"
    stated, home = environment.get("XDG_CACHE_HOME"), environment.get("HOME")
    base = Path(stated) if stated else Path(home, ".cache") if home else Path(tempfile.gettempdir())
    return base / "agentbudget" / f"peers-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"


def install(environment: Mapping[str, str] = os.environ) -> Path:
    """A new environment with the pinned versions, from the index that pip is set up for. Some 750 MB, most of it LiteLLM's proxy.
    Raises subprocess.CalledProcessError when pip cannot."""
    where = folder(environment)
    if not _mark(where).exists():
        venv.EnvBuilder(with_pip=True, clear=True).create(where)
        pip = [str(_python(where)), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "--requirement", str(REQUIREMENTS)], check=True)
        _mark(where).touch()  # only now: half an installation is none
    return _python(where)


def _python(where: Path) -> Path:
    return where / "bin" / "python"


def _mark(where: Path) -> Path:
    return where / "complete"

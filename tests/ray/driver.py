"""A driver of its own on the run's cluster, which drains a wallet with the others: a program, given its handle by a file."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

from agentbudget import SessionHandle
from tests.ray import work

ROOT = Path(__file__).parents[2]


def started(
    address: str, handle: SessionHandle, folder: Path, seed: int, most: int, threads: int
) -> subprocess.Popen[str]:
    """It says what it has spent when it ends."""
    kept = folder / f"{seed}.handle"
    kept.write_bytes(pickle.dumps(handle))
    program = [
        sys.executable,
        "-m",
        "tests.ray.driver",
        address,
        str(kept),
        str(folder),
        str(seed),
        str(most),
        str(threads),
    ]
    return subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _drive(address: str, kept: str, folder: str, seed: str, most: str, threads: str) -> None:
    import ray

    ray.init(address=address, log_to_driver=False, configure_logging=False)
    handle: SessionHandle = pickle.loads(Path(kept).read_bytes())
    spent = work.drain_together(handle, folder, int(most), int(seed), int(threads))
    print(f"spent {spent}", flush=True)


if __name__ == "__main__":
    _drive(*sys.argv[1:])

"""One Ray cluster for a whole test run, however many workers pytest has.

Every worker that needs it holds a lock of the kernel's for as long as it lives. A process of its own has the cluster, and ends
it as soon as it gets that lock alone: also when the workers were killed.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CORES = 4
"""More than there are, so that nothing waits for a place: the workers of these tests mostly wait for each other."""
QUIET = {  # of the whole test run, see tests/conftest.py
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",
    "RAY_AUTH_MODE": "disabled",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_event_stats": "0",
    "RAY_enable_timeline": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}


@contextmanager
def shared_cluster(folder: Path) -> Iterator[str]:
    """The cluster's address. ``folder`` is the same for all workers of the run."""
    with open(folder / "ray-users", "a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        with open(folder / "ray-start", "a") as start:
            fcntl.flock(start, fcntl.LOCK_EX)
            address = _address(folder) or _started(folder)
        yield address


def _address(folder: Path) -> str:
    try:
        return (folder / "ray-address").read_text()
    except FileNotFoundError:
        return ""


def _started(folder: Path) -> str:
    keeper = subprocess.Popen(
        [sys.executable, __file__, str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert keeper.stdout is not None
    with keeper.stdout:
        address = keeper.stdout.readline().decode().strip()
    assert address, "the cluster did not start"
    return address


def _keep(folder: Path) -> None:
    """Have the cluster until nobody uses it."""
    import ray

    ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    address = folder / "ray-address"
    address.write_text(ray.get_runtime_context().gcs_address)
    print(address.read_text(), flush=True)
    with open(folder / "ray-users", "a") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        address.unlink()
        ray.shutdown()


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))

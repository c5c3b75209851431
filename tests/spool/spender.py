"""A process that spends until it is killed: ``spender.py <folder> <name> <ready>``. It says so after so many steps, and goes on.
How many steps it has ended, and begun, stands in the file ``<name>`` in the folder: see :func:`counts`."""

from __future__ import annotations

import mmap
import os
import struct
import sys

from agentbudget import Runtime


def counts(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Steps that had ended, and steps that had begun, when it was killed. Storing a number is not one step of the processor: a
    kill may leave zeros or half of it. So each stands in two places in turn, and the one before is whole."""
    with open(path, "rb") as file:
        ended, before_ended, begun, before_begun = struct.unpack("@QQQQ", file.read(32))
    return max(ended, before_ended), max(begun, before_begun)


def main(folder: str, name: str, ready: int) -> None:
    fd = os.open(os.path.join(folder, name), os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, mmap.PAGESIZE)
    stored, pack = mmap.mmap(fd, mmap.PAGESIZE), struct.Struct("@Q").pack_into
    with Runtime.open(f"sqlite:///{folder}/ledger.db") as runtime, runtime.customer("acme").session(id=name) as session:
        for number in range(1, 10**9):
            pack(stored, 16 + number % 2 * 8, number)
            with session.step("tool", name="search", amount="0.001") as step:
                step.settle(amount="0.001")
            pack(stored, number % 2 * 8, number)
            if number == ready:
                print("ready", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

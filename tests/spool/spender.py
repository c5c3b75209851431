"""A process that spends until it is killed: ``spender.py <folder> <name> <ready>``. It says so after so many steps, and goes on.
How many steps it has ended, and begun, stands in the first sixteen bytes of the file ``<name>`` in the folder."""

from __future__ import annotations

import mmap
import os
import struct
import sys

from agentbudget import Runtime


def main(folder: str, name: str, ready: int) -> None:
    fd = os.open(os.path.join(folder, name), os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, mmap.PAGESIZE)
    counts, pack = mmap.mmap(fd, mmap.PAGESIZE), struct.Struct("@Q").pack_into
    with Runtime.open(f"sqlite:///{folder}/ledger.db") as runtime, runtime.customer("acme").session(id=name) as session:
        for number in range(1, 10**9):
            pack(counts, 8, number)
            with session.step("tool", name="search", amount="0.001") as step:
                step.settle(amount="0.001")
            pack(counts, 0, number)
            if number == ready:
                print("ready", flush=True)


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

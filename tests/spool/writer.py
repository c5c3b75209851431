"""A process that writes a spool until it is killed: ``writer.py <folder> <seed> <ready> <most>``. It says so when it has done
``ready`` operations, and goes on. How many are complete stands in the first sixteen bytes of the file ``done`` in the folder,
stored without a system call, as the spool's own bytes are: in two numbers by turns, since one that is being stored is 0."""

from __future__ import annotations

import mmap
import os
import struct
import sys

from agentbudget.runtime.spool.writing import Spool
from tests.spool.life import HOLDER, Life


def main(folder: str, seed: int, ready: int, most: int) -> None:
    fd = os.open(os.path.join(folder, "done"), os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, mmap.PAGESIZE)
    done, pack = mmap.mmap(fd, mmap.PAGESIZE), struct.Struct("@Q").pack_into
    spool = Spool.open(os.path.join(folder, "spool"), HOLDER, segment_bytes=1 << 16, max_bytes=64 << 20)
    life = Life(seed)
    for number in life.play(most, spool, lambda number: pack(done, number % 2 * 8, number)):
        if number == ready:
            print("ready", flush=True)


main(sys.argv[1], *map(int, sys.argv[2:]))

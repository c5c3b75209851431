"""A worker process: spends random amounts on leased sessions, telling each settled step, until it is refused or killed."""

from __future__ import annotations

import os
import random
import sys
import threading

from agentbudget import BudgetDenied, OwnerUnavailable, Runtime


def spend(runtime: Runtime, seed: int, out: int) -> None:
    chance = random.Random(seed)
    session = runtime.customer("acme").session().open()
    refused = 0
    while refused < 3:
        nano = chance.randint(1, 40_000_000)
        try:
            step = session.reserve("tool", name="search", amount=f"{nano / 10**9:.9f}", dispatched=True)
            step.settle(amount=f"{nano // 2 / 10**9:.9f}")
        except BudgetDenied:
            refused += 1
            continue
        except OwnerUnavailable:
            continue
        os.write(out, f"{step.id} {nano // 2}\n".encode())
    session.close()


def main(url: str, seed: int, threads: int) -> None:
    runtime = Runtime.open(url)
    os.write(1, b"ready\n")
    workers = [threading.Thread(target=spend, args=(runtime, seed + n, 1)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    runtime.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

"""What a cache on disk gains where every request takes 20 ms or more.

``python -m benchmarks.disk [DELAY]``: seconds of the first and of the fastest later epoch without a
cache, with ``cache=True`` and with a folder, and those of a new process that finds the folder. The
store is that of the quick `remote` workload; the decoded values take 0.25 GB.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from dataclasses import replace
from typing import Any

from .contenders import Ours
from .server import Server
from .stores import bench_dir
from .workloads import make_workload

EPOCHS = 6


def epochs(endpoint: str, cache: Any, count: int) -> tuple[list[float], list[int]]:
    """Seconds of some epochs, and bytes that were read in them."""
    workload = make_workload("remote", True, endpoint)

    class Contender(Ours):
        memory = 3 * workload.store.nbytes

    Contender.cache = cache
    contender = Contender(workload)
    contender.open()
    seconds, read = [], []
    for _ in range(count):
        begin = time.perf_counter()
        for _ in contender.epoch():
            pass
        seconds.append(time.perf_counter() - begin)
        read.append(contender.details()["decoded"])
    return seconds, read


def _told(queue: Any, *arguments: Any) -> None:
    queue.put(epochs(*arguments))


def alone(*arguments: Any) -> tuple[list[float], list[int]]:
    """The same in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_told, args=(queue, *arguments))
    process.start()
    found = queue.get(timeout=600)
    process.join()
    return found  # type: ignore[no-any-return]


def main() -> None:
    """Print a table."""
    delay = float(sys.argv[1]) if len(sys.argv) > 1 else 0.02
    store = replace(make_workload("remote", True)).store
    store.make()
    print("| cache | first epoch, s | later epochs, s | MB fetched in a later one |")
    print("| --- | --- | --- | --- |")
    with Server(bench_dir(), delay) as server, tempfile.TemporaryDirectory() as folder:
        ways = {"False": False, "True": True, "a folder": folder, "the folder, found": folder}
        for name, cache in ways.items():
            seconds, read = alone(server.endpoint, cache, EPOCHS)
            row = name, f"{seconds[0]:.2f}", f"{min(seconds[1:]):.2f}", f"{read[-1] / 1e6:,.0f}"
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()

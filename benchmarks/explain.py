"""The memory that `explain` predicts, and what a process then takes of the system."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from .targets import MIB, Target
from .workloads import make_workload

MEMORY = 128 * MIB
BATCHES = 40  # that are taken, with a pause after each, so that all is there that may be
PAUSE = 0.05
PERCENT = 10
POLL = 0.002

# Workload, and arguments of the dataset.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "shuffled": ("forecast-16", {"shuffle": True}),
    "in order": ("forecast-16", {}),
    "a step a chunk": ("forecast-1", {"shuffle": True}),
    "long chunks": ("forecast-64", {"shuffle": True}),
    "not compressed": ("forecast-64-raw", {"shuffle": True}),
    "shards": ("forecast-sharded", {"shuffle": True}),
    "packed": ("packed", {"shuffle": True}),
    "bfloat16": ("forecast-16", {"shuffle": True, "dtype": "bfloat16"}),
    "float64": ("forecast-16", {"shuffle": True, "dtype": "float64"}),
    "kept": ("forecast-16", {"shuffle": True, "cache": True, "memory": 1024 * MIB}),
    "patches of fields": ("patches-field", {"shuffle": True}),
    "patches of tiles": ("patches-tiles", {"shuffle": True}),
    "patches in order": ("patches-tiles", {}),
    "stations": ("stations", {"shuffle": True, "memory": 32 * MIB}),
}


def table(quick: bool) -> tuple[str, list[Target]]:
    """What was predicted and counted, each in a fresh process; small stores in any case."""
    from . import report

    text = (
        f"\n### explain\n\n`peak_memory` as predicted, and the highest resident memory of a "
        f"process above what it took with the store opened, over {BATCHES} batches with a pause of "
        f"{PAUSE:.2f} s after each; `memory` of {MEMORY / MIB:.0f} MiB unless it says otherwise. "
        f"Wanted: within {PERCENT} %.\n\n"
    )
    head = ["case", "workload", "data, MiB", "memory, MiB", "predicted, MiB", "in blocks",
            "in batches", "passing", "counted, MiB", "predicted / counted"]  # fmt: skip
    body, found = [], []
    for title, (name, arguments) in CASES.items():
        work = make_workload(name, quick=True)
        work.store.make()
        command = [sys.executable, "-m", "benchmarks.explain", name, json.dumps(arguments)]
        folder = Path(__file__).parent.parent
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
        counted = json.loads(done.stdout)
        ratio = counted["predicted"] / counted["counted"]
        off = 100 * abs(ratio - 1)
        found.append(Target("explain", f"{title}: off by, %", PERCENT, off, at_most=True))
        keys = ("predicted", "blocks", "batches", "passing", "counted")
        figures = [f"{counted[key] / MIB:,.0f}" for key in keys]
        memory = arguments.get("memory", MEMORY)
        body.append(
            [title, name, f"{work.store.nbytes / MIB:,.0f}", f"{memory / MIB:,.0f}", *figures]
            + [f"{ratio:.2f}"]
        )
    return text + report.rows(head, body), found


def _count(name: str, arguments: dict[str, Any]) -> dict[str, float]:
    import psutil
    import torch

    import xtorch_data as xtd
    from xtorch_data.datasets.page import part_of

    work = make_workload(name, quick=True)
    if "dtype" in arguments:
        arguments["dtype"] = getattr(torch, arguments["dtype"])
    options = {"batch_size": work.batch_size, "memory": MEMORY, **arguments}

    def make() -> Any:
        return xtd.IterableDataset(
            xtd.open_zarr(work.store.path, consolidated=False),
            work.input_dims,
            work.input_overlap,
            inputs=work.store.names,
            **options,
        )

    some = make()
    some = part_of(some, some.plan.windows.within("time", [(0, work.size("time"))]))
    next(iter(some))  # what is imported late, and the stacks of threads
    del some
    dataset = make()
    predicted = dataset.explain().peak_memory
    process, going_on, peak = psutil.Process(), True, 0

    def poll() -> None:
        nonlocal peak
        while going_on:
            peak = max(peak, process.memory_info().rss)
            time.sleep(POLL)

    before = process.memory_info().rss
    thread = threading.Thread(target=poll)
    thread.start()
    for number, _batch in enumerate(dataset):
        time.sleep(PAUSE)
        if number == BATCHES and not options.get("cache"):
            break
    going_on = False
    thread.join()
    return {
        "predicted": predicted.nbytes,
        "blocks": predicted.blocks,
        "batches": predicted.batches,
        "passing": predicted.passing,
        "counted": peak - before,
    }


if __name__ == "__main__":
    print(json.dumps(_count(sys.argv[1], json.loads(sys.argv[2]))))

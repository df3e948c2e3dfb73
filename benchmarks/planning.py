"""Planning a petabyte: from making the dataset to what the last worker reads first."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

from .targets import Target

RANKS, WORKERS = 4096, 8
SECONDS, MB = 1.0, 200.0
RUNS = 3

# Zarr arrays without a single chunk written; a sample is float32.
CASES: dict[str, dict[str, Any]] = {
    "stations": {
        "sizes": {"time": 1_000_029, "station": 1_000_000},
        "chunks": (1_000, 1_000),
        "variables": 250,  # 4 TB each
        "input_dims": {"time": 30},
        "input_overlap": {"time": 29},
        "batch_size": 1024,
    },
    "gridded": {
        "sizes": {"time": 256_007, "y": 20_000, "x": 50_000},
        "chunks": (16, 1_000, 1_000),
        "variables": 1,
        "input_dims": {"time": 8, "y": 32, "x": 32},
        "input_overlap": {"time": 7, "y": 16, "x": 16},
        "batch_size": 64,
    },
}


def table(quick: bool) -> tuple[str, list[Target]]:
    """Time and memory of each case, each in a fresh process; as quick as can be in any case."""
    from . import report

    text = (
        f"\n### planning\n\nFrom making the dataset to the plan of the first stage, for the last "
        f"of {RANKS:,} ranks × {WORKERS} workers; no data is read; medians of {RUNS} processes. "
        f"Wanted: under {SECONDS:.0f} s and {MB:.0f} MB. RSS is what resident memory grew by; "
        "tracemalloc is on in a run of its own.\n\n"
    )
    head = ["case", "samples", "bytes", "opening, s", "planning, s", "RSS, MB",
            "tracemalloc, MB"]  # fmt: skip
    body, found = [], []
    for name in CASES:
        for order in ("shuffled", "in order"):
            runs = [_measured(name, order, False) for _ in range(RUNS)]
            plain = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            traced = _measured(name, order, True)
            most = max(plain["rss"], traced["traced"])
            found += [
                Target("planning", f"{name}, {order}, s", SECONDS, plain["seconds"], True),
                Target("planning", f"{name}, {order}, MB", MB, most, True),
            ]
            body.append(
                [
                    f"{name}, {order}",
                    f"{plain['samples']:.3g}",
                    f"{plain['bytes']:.3g}",
                    f"{plain['opening']:.2f}",
                    f"{plain['seconds']:.3f}",
                    f"{plain['rss']:.0f}",
                    f"{traced['traced']:.0f}",
                ]
            )
    return text + report.rows(head, body), found


def _measured(name: str, order: str, traced: bool) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.planning", name, order, str(int(traced))]
    folder = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _plan(name: str, order: str, traced: bool, folder: str) -> dict[str, float]:
    import numpy as np
    import psutil
    import xarray as xr
    import zarr

    import xtorch_data as xtd

    case = CASES[name]
    sizes = case["sizes"]
    coords = {dim: np.arange(size) for dim, size in sizes.items()}
    coords["time"] = np.datetime64("1980-01-01", "ns") + coords["time"] * np.timedelta64(1, "h")
    xr.Dataset(coords=coords).to_zarr(folder, consolidated=False, zarr_format=3)
    group = zarr.open_group(folder, mode="a")
    for number in range(case["variables"]):
        group.create_array(
            f"v{number:03d}",
            shape=tuple(sizes.values()),
            chunks=case["chunks"],
            dtype="float32",
            dimension_names=list(sizes),
        )
    begin = time.perf_counter()
    data = xtd.open_zarr(folder, consolidated=False)
    opening = time.perf_counter() - begin
    process = psutil.Process()
    before, peak = process.memory_info().rss, 0
    if traced:
        tracemalloc.start()
    begin = time.perf_counter()
    dataset = xtd.IterableDataset(
        data,
        input_dims=case["input_dims"],
        input_overlap=case["input_overlap"],
        batch_size=case["batch_size"],
        shuffle=order == "shuffled",
    )
    intervals = dataset.plan.intervals(0, RANKS - 1, RANKS, WORKERS - 1, WORKERS)
    next(dataset.plan.stages(0, intervals)).order()
    seconds = time.perf_counter() - begin
    if traced:
        peak = tracemalloc.get_traced_memory()[1]
    return {
        "samples": len(dataset.windows),
        "bytes": data.nbytes,
        "opening": opening,
        "seconds": seconds,
        "rss": (process.memory_info().rss - before) / 1e6,
        "traced": peak / 1e6,
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(_plan(sys.argv[1], sys.argv[2], sys.argv[3] == "1", folder)))

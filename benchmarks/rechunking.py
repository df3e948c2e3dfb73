"""A store whose chunks do not fit the windows: before `rechunk`, after it, and what it takes."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import zarr

from .report import MIB, Target, in_turns, median, rounds, rows
from .stores import ZARRS, Store, bench_dir
from .workloads import Workload

SECONDS = 5.0
MEMORY, COPY_MEMORY = 32 * MIB, 512 * MIB  # of the dataset, and of the copy


def table_rechunk(quick: bool) -> tuple[str, list[Target]]:
    """Samples a second and amplification before and after; the copy next to a bare one."""
    import xtorch_data as xtd

    sizes = {"time": 2048 if quick else 4096, "latitude": 121, "longitude": 240}
    store = Store("rechunk", sizes, (1, 121, 240), variables=1)
    store.make()
    work = Workload("rechunk", store, {"time": 365}, {"time": 182}, 256, MEMORY)
    count = rounds(quick, 3)

    def epoch(path: Path) -> tuple[float, float]:
        """Samples a second, from the second batch on; and what is decoded for what is used."""
        data = xtd.open_zarr(path, consolidated=False)
        dataset = work.dataset(data, shuffle=True, memory=MEMORY)
        samples, batches = 0, iter(dataset)
        next(batches)
        begun = time.perf_counter()
        for batch in batches:
            samples += len(batch)
            if time.perf_counter() - begun > SECONDS:
                break
        seconds = time.perf_counter() - begun
        batches.close()
        return samples / seconds, dataset.explain().amplification

    with TemporaryDirectory(dir=bench_dir()) as folder, zarr.config.set(ZARRS):
        names = (Path(folder, f"{n}.zarr") for n in range(10_000))

        def rechunk(verify: bool) -> Path:
            how = {"memory": COPY_MEMORY, "verify": verify, "progress": False}
            path = next(names)
            xtd.rechunk(work.opened(), work.dataset(shuffle=True, memory=MEMORY), path, **how)
            return path

        copy = rechunk(True)
        like = zarr.open_group(copy)["v00"]
        held: list[Any] = []

        def write() -> None:
            made = zarr.create_array(
                next(names), shape=like.shape, chunks=like.chunks, dtype=like.dtype,
                compressors=like.compressors,
            )  # fmt: skip
            made[:] = held.pop()

        ways = {
            "rechunk": lambda: rechunk(True),
            "rechunk, verify=False": lambda: rechunk(False),
            "bare read": lambda: held.append(zarr.open_group(store.path)["v00"][:]),
            "bare write": write,
        }
        took = {name: median(runs, "seconds") for name, runs in in_turns(ways, count).items()}
        epochs = in_turns(
            {"before": lambda: epoch(store.path), "after": lambda: epoch(copy)}, count
        )
    took["bare read and write"] = took["bare read"] + took["bare write"]
    body, rate, amplification = [], {}, {}
    for name, shape in (("before", store.chunks), ("after", like.chunks)):
        rate[name] = median([{"rate": run["value"][0]} for run in epochs[name]], "rate")
        amplification[name] = epochs[name][0]["value"][1]
        chunks = " × ".join(map(str, shape))
        body.append([name, chunks, f"{amplification[name]:.2f}", f"{rate[name]:,.0f}"])
    text = (
        f"\n### rechunk\n\n{' × '.join(f'{dim} {n}' for dim, n in sizes.items())} float32 "
        f"({store.nbytes / MIB:,.0f} MiB); windows of 365 steps of single places, every 183 steps, "
        f"shuffled, `memory` of {MEMORY // MIB} MiB; copied with {COPY_MEMORY // MIB} MiB. Medians "
        f"of {count} rounds, of {SECONDS:.0f} s for samples. Bare: all fields are read in order by "
        "zarr with zarrs, and an array in memory is written in the chunks of the copy.\n\n"
    )
    text += rows(["store", "chunks", "decoded / used", "samples/s"], body) + "\n"
    speeds = [[name, f"{store.nbytes / each / 1e6:,.0f}"] for name, each in took.items()]
    copying = took["bare read and write"] / took["rechunk, verify=False"]
    return text + rows(["copy", "MB/s"], speeds), [
        Target("rechunk", "decoded / used after it", 1.25, amplification["after"], at_most=True),
        Target("rechunk", "samples/s after / before", 2.0, rate["after"] / rate["before"]),
        Target("rechunk", "speed without verify / bare read and write", 0.5, copying),
    ]

"""A store whose chunks do not fit the windows: before `rechunk`, after it, and what it takes."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zarr

from .stores import Store, bench_dir
from .targets import MIB, Target

ROUNDS = 3
SECONDS = 5.0
MEMORY = 32 * MIB  # of the dataset
COPY_MEMORY = 512 * MIB
ARGUMENTS: dict[str, Any] = {
    "input_dims": {"time": 365},
    "input_overlap": {"time": 182},
    "batch_size": 256,
    "shuffle": True,
    "memory": MEMORY,
}


def table(quick: bool) -> tuple[str, list[Target]]:
    """Samples a second and amplification before and after; the copy next to a bare one."""
    from . import report

    sizes = {"time": 2048 if quick else 4096, "latitude": 121, "longitude": 240}
    store = Store("rechunk", sizes, (1, 121, 240), variables=1)
    store.make()
    rounds = 1 if quick else ROUNDS
    with tempfile.TemporaryDirectory(dir=bench_dir()) as folder:
        copies = [
            _timed(lambda n=n: _rechunk(store, Path(folder, f"{n}.zarr"))) for n in range(rounds)
        ]
        unverified = [
            _timed(lambda n=n: _rechunk(store, Path(folder, f"u{n}.zarr"), verify=False))
            for n in range(rounds)
        ]
        copy = Path(folder, "0.zarr")
        bare = [_bare(store, copy, Path(folder, f"bare{n}.zarr")) for n in range(rounds)]
        runs = {
            "before": [_epoch(store.path) for _ in range(rounds)],
            "after": [_epoch(copy) for _ in range(rounds)],
        }
        chunks = " × ".join(map(str, zarr.open_group(copy)["v00"].chunks))
    rates = {name: statistics.median(rate for rate, _ in found) for name, found in runs.items()}
    times = {name: found[0][1] for name, found in runs.items()}
    body = [
        [name, shape, f"{times[name]:.2f}", f"{rates[name]:,.0f}"]
        for name, shape in (("before", "1 × 121 × 240"), ("after", chunks))
    ]
    head = ["store", "chunks", "decoded / used", "samples/s"]
    speed = {
        "rechunk": store.nbytes / statistics.median(copies) / 1e6,
        "rechunk, verify=False": store.nbytes / statistics.median(unverified) / 1e6,
        "bare read and write": store.nbytes / statistics.median(map(sum, bare)) / 1e6,
        "bare read": store.nbytes / statistics.median(each[0] for each in bare) / 1e6,
        "bare write": store.nbytes / statistics.median(each[1] for each in bare) / 1e6,
    }
    text = (
        f"\n### rechunk\n\n{' × '.join(f'{dim} {n}' for dim, n in sizes.items())} float32 "
        f"({store.nbytes / MIB:,.0f} MiB); windows of 365 steps of single places, every 183 steps, "
        f"shuffled, `memory` of {MEMORY // MIB} MiB; copied with {COPY_MEMORY // MIB} MiB. Medians "
        f"of {rounds} rounds of {SECONDS:.0f} s. Bare: all fields are read in order by zarr with "
        "zarrs, and an array in memory is written by zarr in the chunks of the copy.\n\n"
    )
    text += report.rows(head, body) + "\n"
    text += report.rows(["copy", "MB/s"], [[k, f"{v:,.0f}"] for k, v in speed.items()])
    return text, [
        Target("rechunk", "decoded / used after it", 1.25, times["after"], at_most=True),
        Target("rechunk", "samples/s after / before", 2.0, rates["after"] / rates["before"]),
        Target(
            "rechunk",
            "speed without verify / bare read and write",
            0.5,
            speed["rechunk, verify=False"] / speed["bare read and write"],
        ),
    ]


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _dataset(path: Path) -> Any:
    import xtorch_data as xtd

    return xtd.IterableDataset(xtd.open_zarr(path, consolidated=False), **ARGUMENTS)


def _rechunk(store: Store, path: Path, verify: bool = True) -> None:
    import xtorch_data as xtd

    ds = xtd.open_zarr(store.path, consolidated=False)
    xtd.rechunk(ds, _dataset(store.path), path, memory=COPY_MEMORY, verify=verify, progress=False)


def _bare(store: Store, copy: Path, path: Path) -> tuple[float, float]:
    """Seconds to read all of a store, and to write it in the chunks of the copy."""
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        source = zarr.open_group(store.path)["v00"]
        found: list[Any] = []
        read = _timed(lambda: found.append(source[:]))
    like = zarr.open_group(copy)["v00"]
    target = zarr.create_array(
        path, shape=like.shape, chunks=like.chunks, dtype=like.dtype, compressors=like.compressors
    )
    write = _timed(lambda: target.__setitem__(slice(None), found[0]))
    shutil.rmtree(path)
    return read, write


def _epoch(path: Path) -> tuple[float, float]:
    """Samples a second, from the second batch on; and what is decoded for what is used."""
    dataset = _dataset(path)
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

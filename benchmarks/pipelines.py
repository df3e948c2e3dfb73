"""Every chunk read once: by our reader of chunks, and by the pipelines that zarr can have."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from .contenders import Contender
from .limit import slabs
from .race import race, rounds
from .report import Table, costs
from .stores import OPEN, ZARRS
from .workloads import NAMES, Workload, make_workload

MODULE, FUSED = "zarr.core.codec_pipeline", "FusedCodecPipeline"  # since zarr 3.3
PIPELINES: dict[str, dict[str, Any]] = {
    "zarr": {},
    "zarr, fused": {"codec_pipeline.path": f"{MODULE}.{FUSED}"},
    "zarrs": ZARRS,
}
STORES = [name for name in NAMES if name.partition("-")[0] in ("forecast", "packed", "giant")]


@dataclass
class Pipeline(Contender):
    """All of a store in slabs of whole chunks, through zarr's arrays, into the same warm memory."""

    modules: ClassVar[tuple[str, ...]] = ("torch", "xtorch_data", "zarr", "zarrs")
    checked: ClassVar[bool] = False  # it is here

    def open(self, work: Workload) -> None:
        import xarray as xr
        import zarr

        super().open(work)
        if self.title == "zarr, fused" and not hasattr(importlib.import_module(MODULE), FUSED):
            raise RuntimeError("this zarr has none")
        with zarr.config.set(PIPELINES.get(self.title, {})):
            group = zarr.open_group(work.store.path, mode="r")
            self.arrays = [group[name] for name in work.store.names]
        along = (work.store.shards or work.store.chunks)[0]
        self.cuts = slabs(work.store.shape, along, self.arrays[0].dtype.itemsize)
        self.ready_to_read(work, (self.cuts[0].stop, *work.store.shape[1:]))
        packed = xr.open_zarr(work.store.path, **OPEN, mask_and_scale=False)
        for array, name in zip(self.arrays, work.store.names, strict=True):
            values = self.read(array, self.cuts[-1])
            np.testing.assert_array_equal(values, packed[name][self.cuts[-1]])

    def ready_to_read(self, work: Workload, shape: tuple[int, ...]) -> None:
        """Memory and whatever else it reads with."""
        self.warm = np.ones(shape, self.arrays[0].dtype)

    def read(self, array: Any, cut: slice) -> Any:
        """The values of some steps."""
        from zarr.core.buffer.cpu import NDBuffer

        out = self.warm[: cut.stop - cut.start]
        array.get_basic_selection(cut, out=NDBuffer(out))
        return out

    def epoch(self) -> Iterator[Any]:
        begun, used = time.perf_counter(), time.process_time()
        for array in self.arrays:
            for cut in self.cuts:
                self.read(array, cut)
        self.took = {"seconds": time.perf_counter() - begun, "CPU s": time.process_time() - used}
        return iter(())

    def details(self) -> dict[str, Any]:
        return self.took

    def expected(self) -> None:
        return None


@dataclass
class ChunkReader(Pipeline):
    """The same through what reads chunks for an epoch."""

    def ready_to_read(self, work: Workload, shape: tuple[int, ...]) -> None:
        from xtorch_data.common.buffers import Buffers
        from xtorch_data.iteration.threads import decode_threads
        from xtorch_data.reading.zarr_chunks import DirectReader

        self.readers = {array.path: DirectReader.of(array) for array in self.arrays}
        self.buffers, self.runner = Buffers(work.memory), asyncio.Runner()
        threads = ThreadPoolExecutor(decode_threads())
        self.runner.get_loop().set_default_executor(threads)

    def read(self, array: Any, cut: slice) -> Any:
        key = (cut, *(slice(None),) * (array.ndim - 1))
        return self.runner.run(self.readers[array.path].read_async(key, self.buffers))


def table_pipelines(quick: bool) -> Table:
    """Seconds to read each store, and CPU seconds."""
    count, found = rounds(quick, 3), []
    for name in STORES:
        racing = {title: Pipeline(title) for title in PIPELINES}
        racing = {"ours": ChunkReader("the chunk reader"), **racing}
        work = make_workload(name, quick)
        frame = race(racing, work, count, check=False)
        row = {"title": name, "GiB": work.store.nbytes / 2**30}
        for figure, unit in (("seconds", "s"), ("CPU s", "CPU s")):
            row |= {f"{frame['title'][key]}, {unit}": frame[figure][key] for key in racing}
        found.append(row)
    frame = pd.DataFrame(found)
    text = (
        "Each store read once in slabs of 64 MiB, variable by variable, files in the page cache; "
        f"medians of {count} rounds. The last slabs are compared with those of xarray."
    )
    return costs("pipelines", text, frame, list(frame)[1:])

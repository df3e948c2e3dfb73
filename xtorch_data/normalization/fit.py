"""Moments of what a dataset's windows cover: each chunk read once, each value counted once.

The covered places are a sample space of their own, of windows of one step that do not overlap. It
is cut into blocks like any other.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.delayed import delayed

from ..common.buffers import Buffers
from ..common.progress import bar
from ..common.random import BLOCK_TRANSFORM, generator
from ..common.recorder import Recorder
from ..planning.coverage import covered, places_covered, wanted_along
from ..planning.plan import Plan
from ..planning.selection import SampleTable
from ..planning.stages import BlockRead
from ..planning.windows import IntArray, Windows
from ..reading.dask_graphs import Graphs, active_client, threads_for_graphs
from ..reading.lazy_arrays import with_recycled_memory
from ..reading.regions import Reader
from ..reading.variables import CONCURRENT_READS, SourceReader
from ..samples.definition import Samples
from ..samples.preprocessing import Preprocessor, check_preprocessed
from ..samples.transforms import Transform
from ..samples.trials import labels_of, require_labels_kept
from ..sources.source import layout_of
from .moments import Moments

__all__ = ["moments_of"]

WORK_THREADS = 8
# Blocks in one graph for dask, if the memory allows as many.
BLOCKS_IN_A_GRAPH = 256

Found = dict[Hashable, tuple[tuple[slice, ...], Moments]]


def moments_of(
    samples: Samples,
    wanted: SampleTable | None,
    names: Sequence[Hashable],
    per: Sequence[Hashable],
    *,
    memory: int,
    retries: int,
    progress: bool | None,
) -> dict[Hashable, Moments]:
    """Moments of variables, over what windows cover.

    Parameters
    ----------
    samples : Samples
        The data, its windows and its preprocess.
    wanted : SampleTable, optional
        Which of the windows count; all by default.
    names : sequence of Hashable
        Variables of the samples, as they are after preprocess.
    per : sequence of Hashable
        Dims that are kept, where variables have them.
    memory : int
        Bytes of blocks held and read ahead.
    retries : int
        How often a read is tried again.
    progress : bool, optional
        Whether to show a bar; None for what `set_options` says.

    Returns
    -------
    dict of Hashable to Moments
        By variable, with the kept dims in the order of `per`, at the places that are covered.
    """
    groups = _groups(samples, names)
    walks = [_Walk.of(group, samples, wanted, names, per, memory) for group in groups]
    axes = {axis.dim: covered(axis) for axis in samples.recipe.windows.axes}
    found = {
        name: Moments.none([len(axes[dim]) for dim in walk.kept[name]])
        for walk in walks
        for name in walk.kept
    }

    def blocks() -> int:
        return sum(1 for walk in walks for _ in walk.loads())

    with bar(blocks, "block", "fitting", progress) as done:
        for walk in walks:

            def take(block: Found) -> None:
                for name, (place, moments) in block.items():
                    found[name].update(place, moments)
                done(1)

            if walk.is_dask:
                _compute(walk, take)
            else:
                _read(walk, take, samples.origin, retries)
    return found


def _groups(samples: Samples, names: Sequence[Hashable]) -> list[list[Hashable]]:
    """Variables that are read together: those stored alike, or with a preprocess all."""
    if samples.preprocess is not None:
        return [list(samples.data.data_vars)]
    dims = [axis.dim for axis in samples.recipe.windows.axes]
    alike: dict[Hashable, list[Hashable]] = {}
    for name in names:
        variable = samples.data.variables[name]
        grids = layout_of(variable, name, dims).chunks
        key = (variable.chunks is None, tuple((dim, grid.key) for dim, grid in grids.items()))
        alike.setdefault(key, []).append(name)
    return list(alike.values())


@dataclass(frozen=True, eq=False)
class _Walk:
    """Blocks of some variables, and what is counted of each.

    Attributes
    ----------
    data : xarray.Dataset
        What is read.
    plan : Plan
        The covered places of the dims that the variables have, and the blocks they are cut into.
    preprocess : Transform, optional
        Function for every block.
    seed : int
        What a random preprocess depends on.
    dims : mapping of Hashable to frozenset
        Dims of the variables that are counted, after preprocess.
    dtypes : mapping of Hashable to numpy.dtype
        Their dtypes.
    kept : mapping of Hashable to tuple of Hashable
        Which of these are kept.
    samples : Windows
        The sample space.
    wanted : mapping of Hashable to SampleTable
        By variable, which windows count along its dims; empty where all do.
    """

    data: xr.Dataset
    plan: Plan
    preprocess: Transform | None
    seed: int
    dims: Mapping[Hashable, frozenset[Hashable]]
    dtypes: Mapping[Hashable, np.dtype[Any]]
    kept: Mapping[Hashable, tuple[Hashable, ...]]
    samples: Windows
    wanted: Mapping[Hashable, SampleTable]

    @classmethod
    def of(
        cls,
        group: Sequence[Hashable],
        samples: Samples,
        wanted: SampleTable | None,
        names: Sequence[Hashable],
        per: Sequence[Hashable],
        memory: int,
    ) -> _Walk:
        data = samples.data[list(group)]
        if samples.preprocess is None:
            data = data.drop_vars(list(data.coords))
        counted = [name for name in names if samples.preprocess is not None or name in group]
        dims = {name: samples.variable_dims[name] for name in counted}
        used = {dim for name in group for dim in data.variables[name].dims}.union(*dims.values())
        axes = [  # a preprocess may take means and the like along dims that samples have whole
            axis if axis.whole and samples.preprocess is not None else covered(axis)
            for axis in samples.recipe.windows.axes
            if axis.dim in used
        ]
        order = [axis.dim for axis in axes]
        layouts = [layout_of(data.variables[name], name, order) for name in group]
        tables = {}  # a table may be large: once for all variables of the same dims
        if wanted is not None:
            windows = samples.recipe.windows
            tables = {own: wanted_along(wanted, windows, own) for own in set(dims.values())}
        return cls(
            data=data,
            # Places are counted as eight bytes each: the room for their values in float64.
            plan=Plan.of(Windows.of(axes), layouts, memory=memory, shuffle=True),
            preprocess=samples.preprocess,
            seed=samples.recipe.seed,
            dims=dims,
            dtypes={name: samples.variable_dtypes[name] for name in counted},
            kept={name: tuple(dim for dim in per if dim in dims[name]) for name in counted},
            samples=samples.recipe.windows,
            wanted={name: tables[dims[name]] for name in counted if tables},
        )

    @property
    def windows(self) -> Windows:
        """The covered places."""
        return self.plan.grid.windows

    @property
    def is_dask(self) -> bool:
        """Whether dask computes whatever is not in memory."""
        lazy = [each for each in self.data.variables.values() if not each._in_memory]
        return bool(lazy) and all(variable.chunks is not None for variable in lazy)

    @property
    def room(self) -> int:
        """Blocks for which there is memory."""
        return int(max(1, self.plan.budget // max(1, self.plan.grid.nbytes)))

    def loads(self) -> Iterator[BlockRead]:
        """What is read, block by block."""
        for block in range(len(self.plan.grid)):
            load = BlockRead.whole(block, self.plan.grid.box(block), self.plan.frame)
            if any(self._counts(name, load) for name in self.kept):
                yield load

    def _positions(self, load: BlockRead) -> dict[Hashable, IntArray]:
        """Data positions of the covered places of a block."""
        box = load.pieces[0].box
        return {
            axis.dim: np.add.outer(axis.start(np.arange(*numbers)), np.arange(axis.size)).ravel()
            for axis, numbers in zip(self.windows.axes, box, strict=True)
        }

    def _mask(
        self, name: Hashable, load: BlockRead
    ) -> tuple[list[Hashable], npt.NDArray[np.bool_]]:
        """Which places of a variable count, where not all of a block do."""
        positions = self._positions(load)
        return places_covered(self.wanted[name], self.samples, positions)

    def _counts(self, name: Hashable, load: BlockRead) -> bool:
        """Whether any value of a variable in a block counts, and has not been counted before."""
        numbers = zip(self.windows.axes, load.pieces[0].box, strict=True)
        if any(first for axis, (first, _) in numbers if axis.dim not in self.dims[name]):
            return False  # it lacks a dim, and comes with every block along it
        return name not in self.wanted or bool(self._mask(name, load)[1].any())

    def moments(self, load: BlockRead, block: xr.Dataset) -> Found:
        """Moments of the variables of a block, and their place among all that are kept."""
        starts = {
            axis.dim: start for axis, (start, _) in zip(self.windows.axes, load.region, strict=True)
        }
        place = {
            axis.dim: slice(first * axis.size, last * axis.size)
            for axis, (first, last) in zip(self.windows.axes, load.pieces[0].box, strict=True)
        }
        positions = self._positions(load)
        found: Found = {}
        for name, kept in self.kept.items():
            if not self._counts(name, load):
                continue
            variable = block.variables[name]
            indexers = {
                dim: at - starts[dim]
                for dim, at in positions.items()
                if dim in variable.dims and len(at) < variable.sizes[dim]  # there are holes
            }
            variable = variable.isel(indexers)
            if name in self.wanted:
                mask = xr.Variable(*self._mask(name, load))
                variable = variable.where(mask)  # type: ignore[no-untyped-call]
            reduced = [dim for dim in variable.dims if dim not in kept]
            values = variable.transpose(*reduced, *kept).to_numpy()
            at = tuple(place[dim] for dim in kept)
            found[name] = at, Moments.of(values, len(reduced))
        return found

    def preprocessed_moments(self, load: BlockRead, block: xr.Dataset) -> Found:
        """Likewise, of a block as it is before preprocess."""
        if self.preprocess is None:
            return self.moments(load, block)
        block = block.copy(deep=True)  # it may be the user's, and the function work in place
        labels = labels_of(block)
        try:
            result = self.preprocess(
                block, lambda: generator(self.seed, 0, BLOCK_TRANSFORM, load.block)
            )
            dims = [axis.dim for axis in self.windows.axes]
            check_preprocessed(result, block, dims, self.dims)
            require_labels_kept("preprocess", labels, result)
        except Exception as error:
            error.add_note(f"in preprocess of block {load.block}")
            raise
        return self.moments(load, result)


def _compute(walk: _Walk, take: Callable[[Found], None]) -> None:
    """Let dask compute blocks and their moments, wherever it runs."""
    # It may be sent to other processes, and with it what windows are wanted, but not the data.
    counting = delayed(replace(walk, data=xr.Dataset()), pure=False, traverse=False)
    loads = walk.loads()
    with (
        ThreadPoolExecutor(1, "xtorch_data-work") as work,
        threads_for_graphs() as threads,
    ):
        graphs = Graphs(threads, work)
        # A cluster holds blocks in memory of its own.
        room = walk.room if active_client() is None else BLOCKS_IN_A_GRAPH
        while some := list(itertools.islice(loads, min(room, BLOCKS_IN_A_GRAPH))):
            tasks = []
            for load in some:
                block = walk.data.isel(load.slices(), missing_dims="ignore")
                tasks.append(_counted(counting, load, block))
            found = graphs.on_cluster_now(tasks)
            for each in graphs.here(tasks) if found is None else found:
                take(each)


@partial(delayed, pure=False)
def _counted(walk: _Walk, load: BlockRead, block: xr.Dataset) -> Found:
    """Moments of a block, as a task of dask that gets the walk from another."""
    return walk.preprocessed_moments(load, block)


def _read(walk: _Walk, take: Callable[[Found], None], origin: str, retries: int) -> None:
    """Read blocks ahead, and work out their moments beside that."""
    memory = walk.plan.memory
    stopped = threading.Event()
    with (
        ThreadPoolExecutor(1, "xtorch_data-fit") as own,  # there may be an event loop on this one
        ThreadPoolExecutor(WORK_THREADS, "xtorch_data-work") as work,
        threads_for_graphs() as threads,
    ):

        async def one(reader: Reader, load: BlockRead) -> Found:
            region = await reader.read(load)
            block = await reader.preprocessed(load, region.block)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(work, walk.moments, load, block)

        async def every() -> None:
            recorder = Recorder(0)
            source = SourceReader(
                dataset=with_recycled_memory(walk.data, Buffers(memory, total=memory), {}),
                origin=origin,
                windows=walk.windows,
                recorder=recorder,
                executor=work,
                graphs=Graphs(threads, work),
                retries=retries,
            )
            preprocess = None
            if walk.preprocess is not None:
                preprocess = Preprocessor(
                    source.dataset,
                    walk.windows,
                    walk.dims,
                    walk.dtypes,
                    walk.preprocess,
                    walk.seed,
                    0,
                    recorder,
                )
            reader = Reader(source, preprocess)
            loads, ahead = walk.loads(), min(walk.room, CONCURRENT_READS)
            waiting: deque[asyncio.Task[Found]] = deque()
            try:
                while not stopped.is_set():
                    for load in itertools.islice(loads, ahead - len(waiting)):
                        waiting.append(asyncio.ensure_future(one(reader, load)))
                    if not waiting:
                        return
                    take(await waiting.popleft())
            finally:
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)

        try:
            own.submit(asyncio.run, every()).result()
        finally:
            stopped.set()

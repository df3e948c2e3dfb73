"""Statistics of what a dataset's windows cover: each chunk read once, each value counted once.

The covered places are a sample space of their own, of windows of one step that do not overlap. It
is cut into blocks like any other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from dask.delayed import delayed

from ..common.buffers import Buffers
from ..common.progress import bar
from ..common.recorder import Recorder
from ..iteration.budget import StageBudget
from ..iteration.read_ahead import PendingStage, ReadAhead
from ..iteration.threads import Threads, waited
from ..planning.blocks import INDEX_BYTES
from ..planning.coverage import covered, places_covered, wanted_along
from ..planning.edges import ExtendedDim
from ..planning.index_maps import Regular
from ..planning.intervals import Box
from ..planning.plan import Plan
from ..planning.selection import SampleTable
from ..planning.stages import BlockRead, Stage
from ..planning.windows import Axis, IntArray, Windows
from ..reading.dask_graphs import active_client
from ..reading.recycled import with_recycled_memory
from ..reading.regions import Reader
from ..reading.variables import CONCURRENT_READS, SourceReader
from ..samples.definition import SampleDefinition
from ..samples.preprocessing import Preprocessor
from ..samples.transforms import Transform
from ..sources.lazy_arrays import in_memory, is_computed
from ..sources.source import layout_of
from .date_groups import DateGroups, by_group
from .moments import Place, Tally

__all__ = ["tallies_of"]

# Blocks in one graph for dask, if the memory allows as many.
BLOCKS_IN_A_GRAPH = 256

# Of variables of a block: which, where among all places that are kept, and the statistics.
Found = list[tuple[Hashable, Place, Tally]]


def tallies_of(
    tally: type[Tally],
    samples: SampleDefinition,
    wanted: Sequence[SampleTable],
    names: Sequence[Hashable],
    per: Sequence[Hashable],
    grouped: Sequence[DateGroups],
    *,
    memory: int,
    retries: int,
    progress: bool | None,
) -> dict[Hashable, Tally]:
    """Statistics of variables after preprocess, over what the windows cover that all tables want.

    Groups come first, of dims that a variable has. Of the dims in `per` that it has, all places
    that are covered are kept, in this order. Blocks held and read ahead take `memory` bytes.
    """
    walks = [
        _Walk.of(together, samples, wanted, names, tally, per, grouped, memory)
        for together in _read_together(samples, names)
    ]
    beyond = samples.beyond
    axes = {axis.dim: covered(axis, beyond.get(axis.dim)) for axis in samples.windows.axes}
    found = {
        name: tally.none(
            [
                *(len(each.labels) for each in walk.grouped[name]),
                *(len(axes[dim]) for dim in walk.kept[name]),
            ]
        )
        for walk in walks
        for name in walk.kept
    }

    def blocks() -> int:
        return sum(1 for walk in walks for _ in walk.loads())

    with bar(blocks, "block", "fitting", progress) as done:
        for walk in walks:

            def take(block: Found) -> None:
                for name, place, more in block:
                    found[name].update(place, more)
                done(1)

            if walk.is_dask:
                _compute(walk, take)
            else:
                _read(walk, take, samples, retries)
    return found


def _read_together(samples: SampleDefinition, names: Sequence[Hashable]) -> list[list[Hashable]]:
    """Variables that are read together: those stored alike, or with a preprocess all."""
    if samples.preprocess is not None:
        return [samples.values]
    dims = [axis.dim for axis in samples.windows.axes]
    alike: dict[Hashable, list[Hashable]] = {}
    for name in names:
        variable = samples.data.variables[name]
        grids = layout_of(variable, name, dims).chunks
        key = (is_computed(variable), tuple((dim, grid.key) for dim, grid in grids.items()))
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
    tally : type of Tally
        What counts them.
    kept : mapping of Hashable to tuple of Hashable
        Which of these are kept.
    grouped : mapping of Hashable to tuple of DateGroups
        Groups of steps along others of them.
    samples : Windows
        The sample space.
    beyond : mapping of Hashable to ExtendedDim
        What windows find beyond the ends of dims.
    wanted : mapping of Hashable to tuple of SampleTable
        By variable, which windows count along its dims.
    """

    data: xr.Dataset
    plan: Plan
    preprocess: Transform | None
    seed: int
    dims: Mapping[Hashable, frozenset[Hashable]]
    dtypes: Mapping[Hashable, np.dtype[Any]]
    tally: type[Tally]
    kept: Mapping[Hashable, tuple[Hashable, ...]]
    grouped: Mapping[Hashable, tuple[DateGroups, ...]]
    samples: Windows
    beyond: Mapping[Hashable, ExtendedDim]
    wanted: Mapping[Hashable, tuple[SampleTable, ...]]

    @classmethod
    def of(
        cls,
        group: Sequence[Hashable],
        samples: SampleDefinition,
        wanted: Sequence[SampleTable],
        names: Sequence[Hashable],
        tally: type[Tally],
        per: Sequence[Hashable],
        grouped: Sequence[DateGroups],
        memory: int,
    ) -> _Walk:
        data = samples.data[list(group)]
        if samples.preprocess is None:
            data = data.drop_vars(list(data.coords))
        counted = [name for name in names if samples.preprocess is not None or name in group]
        dims = {name: samples.variable_dims[name] for name in counted}
        used = {dim for name in group for dim in data.variables[name].dims}.union(*dims.values())
        axes = [  # a preprocess may take means and the like along dims that samples have whole
            _whole(axis, samples.beyond.get(axis.dim))
            if axis.whole and samples.preprocess is not None
            else covered(axis, samples.beyond.get(axis.dim))
            for axis in samples.windows.axes
            if axis.dim in used
        ]
        order = [axis.dim for axis in axes]
        layouts = [layout_of(data.variables[name], name, order) for name in group]
        tables = {  # a table may be large: once for all variables of the same dims
            own: tuple(wanted_along(table, samples.windows, own) for table in wanted)
            for own in set(dims.values())
        }
        return cls(
            data=data,
            # Places are counted as eight bytes each: the room for their values in float64.
            plan=Plan.of(Windows.of(axes), layouts, memory=memory, shuffle=True),
            preprocess=samples.preprocess,
            seed=samples.seed,
            dims=dims,
            dtypes={name: samples.variable_dtypes[name] for name in counted},
            tally=tally,
            kept={name: tuple(dim for dim in per if dim in dims[name]) for name in counted},
            grouped={
                name: tuple(each for each in grouped if each.dim in dims[name]) for name in counted
            },
            samples=samples.windows,
            beyond=samples.beyond,
            wanted={name: tables[dims[name]] for name in counted},
        )

    @property
    def windows(self) -> Windows:
        """The covered places."""
        return self.plan.grid.windows

    @property
    def is_dask(self) -> bool:
        """Whether dask computes whatever is not in memory."""
        lazy = [each for each in self.data.variables.values() if not in_memory(each)]
        return bool(lazy) and all(is_computed(variable) for variable in lazy)

    @property
    def room(self) -> int:
        """Blocks for which there is memory."""
        return int(max(1, self.plan.budget // max(1, self.plan.grid.nbytes)))

    def nbytes(self, load: BlockRead) -> int:
        """Bytes that a block takes, with room for its values in float64."""
        return self.plan.nbytes(load) + INDEX_BYTES * load.pieces[0].samples

    def stages(self) -> Iterator[Stage]:
        """The blocks, each as one sample on a line."""
        choice = self.plan.line(0).choice
        for place, load in enumerate(self.loads()):
            yield Stage((load,), place, place, place + 1, None, choice)

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

    def _masks(self, name: Hashable, load: BlockRead) -> Iterator[xr.Variable]:
        """Which places of a variable count, where not all of a block do: those of all masks."""
        positions = self._positions(load)
        for table in self.wanted[name]:
            yield xr.Variable(*places_covered(table, self.samples, positions, self.beyond))

    def _counts(self, name: Hashable, load: BlockRead) -> bool:
        """Whether any value of a variable in a block counts, and has not been counted before."""
        numbers = zip(self.windows.axes, load.pieces[0].box, strict=True)
        if any(first for axis, (first, _) in numbers if axis.dim not in self.dims[name]):
            return False  # it lacks a dim, and comes with every block along it
        return all(mask.values.any() for mask in self._masks(name, load))

    def counted(self, load: BlockRead, block: xr.Dataset) -> Found:
        """Statistics of the variables of a block, and their place among all that are kept."""
        starts = {
            axis.dim: start for axis, (start, _) in zip(self.windows.axes, load.region, strict=True)
        }
        place = {
            axis.dim: slice(first * axis.size, last * axis.size)
            for axis, (first, last) in zip(self.windows.axes, load.pieces[0].box, strict=True)
        }
        positions = self._positions(load)
        found: Found = []
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
            for mask in self._masks(name, load):
                variable = variable.where(mask)  # type: ignore[no-untyped-call]
            reduced = [dim for dim in variable.dims if dim not in kept]
            variable = variable.transpose(*reduced, *kept)
            at = tuple(place[dim] for dim in kept)
            for numbers, some in by_group(variable, self.grouped[name], positions):
                more = self.tally.of(some.to_numpy(), len(reduced))
                found.append((name, (*numbers, *at), more))
        return found

    def preprocessor(self, data: xr.Dataset, recorder: Recorder) -> Preprocessor | None:
        """What applies the user's function to blocks of `data`, if there is one."""
        if self.preprocess is None:
            return None
        return Preprocessor(
            data,
            self.windows,
            self.dims,
            self.dtypes,
            self.preprocess,
            self.seed,
            0,
            recorder,
        )


def _whole(axis: Axis, beyond: ExtendedDim | None) -> Axis:
    """A dim that samples have whole, without what lies beyond its ends."""
    if beyond is None:
        return axis
    return replace(axis, size=beyond.length, starts=Regular(beyond.before, beyond.before + 1))


def _compute(walk: _Walk, take: Callable[[Found], None]) -> None:
    """Let dask compute blocks and their statistics, wherever it runs."""
    # It may be sent to other processes, and with it what windows are wanted, but not the data.
    counting = delayed(replace(walk, data=xr.Dataset()), pure=False, traverse=False)
    loads = walk.loads()
    # A cluster holds blocks in memory of its own.
    room = walk.room if active_client() is None else BLOCKS_IN_A_GRAPH
    threads = Threads()
    threads.begin()
    try:
        while some := list(itertools.islice(loads, min(room, BLOCKS_IN_A_GRAPH))):
            tasks = []
            for load in some:
                block = walk.data.isel(load.slices(), missing_dims="ignore")
                tasks.append(_counted(counting, load.block, load.box, block))
            found = threads.graphs.on_cluster_now(tasks)
            for each in threads.graphs.here(tasks) if found is None else found:
                take(each)
    finally:
        threads.close()


@partial(delayed, pure=False)
def _counted(walk: _Walk, number: int, box: Box, block: xr.Dataset) -> Found:
    """Statistics of a block, as a task of dask that gets the walk from another."""
    load = BlockRead.whole(number, box, walk.plan.frame)  # tasks are sent without the frame
    preprocess = walk.preprocessor(block, Recorder(0))
    if preprocess is not None:
        block = preprocess(load, block.copy(deep=False))
    return walk.counted(load, block)


def _read(
    walk: _Walk, take: Callable[[Found], None], samples: SampleDefinition, retries: int
) -> None:
    """Read blocks ahead, and work out their statistics beside that."""
    memory = walk.plan.memory
    threads, recorder = Threads(), Recorder(0)
    data = with_recycled_memory(walk.data, Buffers(memory, total=memory), {})
    source = SourceReader(
        dataset=data,
        origin=samples.origin,
        windows=walk.windows,
        recorder=recorder,
        executor=threads.work,
        graphs=threads.graphs,
        retries=retries,
        laid=samples.labels.laid,
    )
    reader = Reader(source, walk.preprocessor(data, recorder))

    async def counted(pending: PendingStage, before: PendingStage | None) -> Found:
        (load,) = pending.stage.loads
        region = await reader.read(load)
        block = await reader.preprocessed(load, region.block)
        found: Found = await source.on_thread(walk.counted, load, block)
        return found

    budget = StageBudget(walk.plan.budget, walk.nbytes, most=CONCURRENT_READS)
    read_ahead = ReadAhead(walk.stages(), budget, counted, threads)
    threads.begin(read_ahead.close)
    try:
        for pending in read_ahead:
            found = waited(pending.loaded)
            read_ahead.done(pending, pending.left)
            take(found)
    finally:
        threads.close()

"""Memory that an epoch will take, from its plan: what is allotted and let go, in turn."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import xarray as xr
from dask.system import CPU_COUNT as CORES

from ..common.buffers import LARGER, allotted
from ..gathering.halo import joins
from ..iteration.budget import BlockCache, StageBudget, StageClaim
from ..iteration.lookahead import Lookahead
from ..planning.chunks import merged
from ..planning.companions import region_nbytes
from ..planning.intervals import Interval, total
from ..planning.plan import Plan
from ..planning.stages import BlockRead, Stage, shared_box
from ..reading.variables import concurrent_reads
from ..samples.definition import SampleDefinition
from .footprint import Footprint, alike, values_in

__all__ = ["PeakMemory", "batch_nbytes", "peak_memory"]

# Loads that are walked through; in an epoch of many more, they are much the same.
WALKED_LOADS = 500
# Integers that it takes to find out where a sample lies, and for each axis of the sample space.
PLACES, PLACES_OF_AXIS = 6, 3
# Batches that torch lets each worker process send before they are asked for.
PREFETCHED = 2


@dataclass(frozen=True)
class PeakMemory:
    """Most bytes that one process allots at a time, above its imports and what it was given.

    What functions of the user allot, and libraries in other languages for themselves, is not known
    and not counted.

    Attributes
    ----------
    nbytes : int
        All of it, at the worst moment: that of a consumer that is slow, so that all is there that
        may be read ahead, and that holds one batch.
    blocks : int
        Of this, blocks in use, read ahead, kept or left for the next ones, and what is kept of
        other sources.
    batches : int
        Of this, batches: gathered ahead, and the one in use.
    passing : int
        Of this, what is there for a while: chunks as they are stored, values before they are cast,
        what waits to be written to a cache on disk, and where the samples of a batch lie.
    """

    nbytes: int
    blocks: int
    batches: int
    passing: int


def peak_memory(
    samples: SampleDefinition, data: xr.Dataset, plan: Plan, epoch: int, part: Sequence[Interval],
    in_worker: bool = False, waiting: int = 0, on_device: bool = False, pinned: bool = False,
) -> PeakMemory:  # fmt: skip
    """Work out the peak of one process, which walks `part` of an epoch's line.

    Parameters
    ----------
    samples : SampleDefinition
        What a sample is.
    data : xarray.Dataset
        What is read, as it is read.
    plan : Plan
        The plan of its epochs.
    epoch : int
        Which one.
    part : sequence of Interval
        What the process walks.
    in_worker : bool
        Whether it is a worker process, of which some batches wait in a queue.
    waiting : int
        Bytes that wait until a cache on disk has written them, at most.
    on_device : bool
        Whether batches are made on a device, of blocks that are sent there.
    pinned : bool
        Whether what is sent, blocks or else batches, lies in page-locked memory.
    """
    size = plan.batch_size or 1
    recipe = samples
    batch = samples.nbytes * size
    lookahead = Lookahead.of(batch, samples.transformed)
    most = 0 if on_device else lookahead.jobs * lookahead.together + 1 + PREFETCHED * in_worker
    index = np.dtype(np.int64).itemsize
    cast = 0  # of the batches that are being gathered, before they are cast or transformed
    if recipe.cast is not None or recipe.batch_transform is not None:
        cast = 2 * sum(_tensors(samples, size, pinned))
    each = batch_nbytes(samples, size, pinned)
    places = PLACES + PLACES_OF_AXIS * len(recipe.windows.axes)
    locating = min(total(part), lookahead.together * size) * places * index

    variables = [
        Footprint.of(layout, data.variables[layout.name], samples, plan) for layout in plan.layouts
    ]
    pinned_blocks = pinned and on_device
    if not pinned_blocks:  # of which each has a size of its own
        variables = alike(variables)
    decoding = CORES * max((each.scratch for each in variables), default=0)
    lasting = plan.cached or on_device  # blocks hold nothing of each other's memory
    process = _Process(plan, samples, variables, concurrent_reads(data), lasting, pinned_blocks)
    worst = PeakMemory(0, 0, 0, 0)
    kept = plan.beside.nbytes
    for blocks, passing, walked in process.moments(_some(plan.stages(epoch, part), plan)):
        blocks += kept
        ready = min(most, -(-walked // size))
        batches = ready * (each + index * size) + (cast if ready else 0)
        passing += decoding + waiting + (locating if walked else 0)
        if blocks + batches + passing > worst.nbytes:
            worst = PeakMemory(blocks + batches + passing, blocks, batches, passing)
    return worst


def batch_nbytes(samples: SampleDefinition, size: int, pinned: bool) -> int:
    """Bytes that the tensors of a batch of `size` samples take, perhaps in page-locked memory."""
    recipe = samples
    if recipe.cast is None:
        return sum(_tensors(samples, size, pinned))
    plain = _tensors(samples, size * recipe.cast.itemsize, False)
    tensors = [nbytes // recipe.floating.itemsize for nbytes in plain]
    return sum(map(allotted, tensors)) if pinned else sum(tensors)


def _tensors(samples: SampleDefinition, size: int, pinned: bool) -> list[int]:
    """Bytes that each tensor of a batch takes before it is cast."""
    tensors = [
        math.prod(each.shape(part)) * part.dtype.itemsize * size
        for each, part in samples.every_part
    ]
    return [allotted(nbytes) for nbytes in tensors] if pinned else tensors


def _some(stages: Iterable[Stage], plan: Plan) -> Iterator[Stage]:
    """The first stages of a walk."""
    loads = 0
    for stage in stages:
        yield stage
        loads += len(stage.loads)
        if loads > WALKED_LOADS and not plan.cached:
            return


@dataclass(eq=False)
class _HeldStage(StageClaim):
    """A stage that would be read or held."""

    # Bytes, and whether they are used again; and of what is joined, which is let go of earlier:
    # where that is handed on, what it was made of counts instead.
    taken: list[tuple[int, bool]] = field(default_factory=list)
    joined: list[tuple[int, bool]] = field(default_factory=list)
    # Variables that loads share.
    boxes: list[tuple[Hashable, object, int]] = field(default_factory=list)


class _Process:
    """A dry run: asks the engine's own budget what would be read, and counts what that takes."""

    def __init__(
        self,
        plan: Plan,
        samples: SampleDefinition,
        variables: Sequence[Footprint],
        concurrent: int,
        lasting: bool,
        pinned: bool,
    ) -> None:
        # Of many variables, most are planned alike.
        self._plan = replace(plan, layouts=tuple(merged(plan.layouts)))
        self._variables = variables
        self._concurrent, self._lasting, self._pinned = concurrent, lasting, pinned
        self._parts = samples.parts
        self._transformed = frozenset(samples.transforms)
        self._lent = 0
        self._idle: dict[int, int] = {}  # how many of so many bytes
        self._other = 0
        cache = BlockCache.of(plan) if plan.cached else None
        self._budget = StageBudget(plan.budget, self._nbytes, cache)
        self._held: list[_HeldStage] = []  # all that need memory

    def moments(self, stages: Iterator[Stage]) -> Iterator[tuple[int, int, int]]:
        """Bytes of blocks and what passes, and samples that have been gathered, in turn."""
        walked = 0
        begun: deque[_HeldStage] = deque()
        planned = map(self._planned, stages)
        following = next(planned, None)
        while following is not None or begun:
            fresh = []
            while following is not None and self._budget.fits(following):
                self._budget.begin(following)
                fresh.append(following)
                following = next(planned, None)
            begun.extend(fresh)
            self._held.extend(fresh)
            for passing in self._read(fresh):
                yield self._blocks(), passing, walked
            first = begun.popleft()
            walked += first.stage.stop - first.stage.start
            yield self._blocks(), 0, walked
            self._give_all(first.joined)
            for free in self._budget.end(first):
                assert isinstance(free, _HeldStage)
                self._free(free)

    def _planned(self, stage: Stage) -> _HeldStage:
        found = _HeldStage(stage)
        self._budget.plan(found)
        return found

    def _blocks(self) -> int:
        shared = {(name, box): size for each in self._held for name, box, size in each.boxes}
        idle = sum(size * count for size, count in self._idle.items())
        return self._lent + idle + self._other + sum(shared.values())

    def _nbytes(self, load: BlockRead) -> int:
        return self._plan.nbytes(load, self._joins(load))

    def _joins(self, load: BlockRead) -> bool:
        windows = self._plan.windows
        return joins(self._parts, self._transformed, windows, load, self._lasting)

    def _free(self, held: _HeldStage) -> None:
        """Give back what a stage has taken."""
        self._held.remove(held)
        self._give_all(held.taken)
        held.boxes = []

    def _beside(self, stage: Stage) -> int:
        """Bytes of the samples of a stage in other sources that are not kept whole."""
        frames = self._plan.passing
        pieces = [piece for load in stage.loads for piece in load.pieces] if frames else []
        return sum(region_nbytes(frames, piece.box) for piece in pieces)

    # As `Buffers`.

    def _take(self, nbytes: int) -> int:
        nbytes = allotted(nbytes) if self._pinned else nbytes
        for size in sorted(self._idle):
            if nbytes <= size <= LARGER * nbytes and self._idle[size]:
                self._idle[size] -= 1
                self._lent += size
                return size
        for size in list(self._idle):
            while self._idle[size] and self._room() < nbytes:
                self._idle[size] -= 1
        self._lent += nbytes
        return nbytes

    def _give_all(self, taken: list[tuple[int, bool]]) -> None:
        for nbytes, recycled in taken:
            if recycled:
                self._give(nbytes)
            else:
                self._other -= nbytes
        taken.clear()

    def _give(self, nbytes: int) -> None:
        self._lent -= nbytes
        if nbytes <= self._room():
            self._idle[nbytes] = self._idle.get(nbytes, 0) + 1

    def _room(self) -> int:
        idle = sum(size * count for size, count in self._idle.items())
        return min(self._plan.memory - idle, self._plan.memory - idle - self._lent)

    # As `Reader` and `HaloJoiner`.

    def _read(self, fresh: Sequence[_HeldStage]) -> Iterator[int]:
        """Read what was begun at the same time; bytes of what passes after each step."""
        for held in fresh:
            nbytes = 8 * (held.stage.stop - held.stage.start) if held.stage.shuffle else 0
            nbytes += self._beside(held.stage)
            held.taken.append((nbytes, False))
            self._other += nbytes
        loads = deque((held, load) for held in fresh for load in held.stage.loads)
        under_way: deque[tuple[_HeldStage, BlockRead, list[tuple[int, bool]]]] = deque()
        while loads or under_way:
            while loads and len(under_way) < self._concurrent:
                held, load = loads.popleft()
                if not self._budget.is_cached(load):
                    under_way.append((held, load, self._begin(load)))
            if not under_way:
                return
            yield self._passing(under_way)
            # Each core decodes one.
            done = [(*each, *self._finish(*each[:2])) for each in islice(under_way, CORES)]
            yield self._passing(under_way)
            for held, load, lent, taken, joined in done:
                under_way.popleft()
                for size, recycled in lent:
                    if recycled:
                        self._give(size)
                if not self._budget.offer(held, load, None):
                    held.taken += taken
                    held.joined += joined

    def _passing(
        self, under_way: Iterable[tuple[_HeldStage, BlockRead, list[tuple[int, bool]]]]
    ) -> int:
        """Bytes that are there while loads are read, and those fetched for them and not decoded."""
        passing = fetched = 0
        for _, load, lent in under_way:
            passing += sum(size for size, recycled in lent if not recycled)
            fetched += sum(
                each.fetched * values_in(each.layout, self._extents(load, each), decoded=True)
                for each in self._variables
                if each.fetched
            )
        return passing + min(fetched, max((each.room for each in self._variables), default=0))

    def _begin(self, load: BlockRead) -> list[tuple[int, bool]]:
        """What it takes until a load is read, beside what stays."""
        lent = []
        for each in self._variables:
            extents = self._extents(load, each)
            if each.read and not each.lasts:  # before it is cast
                nbytes = each.read * values_in(each.layout, extents)
                lent.append((self._take(nbytes) if each.recycled else nbytes, each.recycled))
            if each.graph:  # dask puts chunks together
                lent.append((each.read * values_in(each.layout, extents, decoded=True), False))
            elif each.stored:
                nbytes = each.stored * values_in(each.layout, extents)
                lent.append((self._take(nbytes) if each.recycled else nbytes, each.recycled))
        return lent

    def _finish(
        self, held: _HeldStage, load: BlockRead
    ) -> tuple[list[tuple[int, bool]], list[tuple[int, bool]]]:
        """Bytes that stay of a load, and those that are joined of it with the one before."""
        taken: list[tuple[int, bool]] = []
        joined: list[tuple[int, bool]] = []
        axes = self._plan.windows.axes
        for each in self._variables:
            extents = self._extents(load, each)
            itemsize = each.handed_on if load.keep is not None else each.kept
            nbytes = itemsize * values_in(each.layout, extents)
            if len(each.layout.chunks) < len(axes):
                box = shared_box(each.layout.chunks, load.slices())
                held.boxes.append((each.layout.name, box, nbytes))
                continue
            taken += self._stays(each, nbytes)
            if load.carried is not None and self._joins(load):
                along = axes[load.axis].dim
                steps = sum(piece.region[load.axis][1] - load.carried for piece in load.pieces[:1])
                more = dict(extents) | {along: (load.carried, load.carried + steps)}
                joined += self._stays(each, each.kept * values_in(each.layout, more))
        return taken, joined

    def _stays(self, of: Footprint, nbytes: int) -> list[tuple[int, bool]]:
        if not nbytes:
            return []
        recycled = of.recycled or of.cast > 0
        if recycled:
            return [(self._take(nbytes), True)]
        self._other += nbytes
        return [(nbytes, False)]

    def _extents(self, load: BlockRead, each: Footprint) -> Mapping[Hashable, Interval]:
        """Positions of a variable that are read for a load, or handed on and put next to it."""
        axes = self._plan.windows.axes
        extents = {axis.dim: box for axis, box in zip(axes, load.region, strict=True)}
        if each.layout.name in load.whole_chunks:
            dim = axes[load.axis].dim
            start, stop = extents[dim]
            extents[dim] = start, max(stop, load.whole_chunks[each.layout.name][1])
        return extents

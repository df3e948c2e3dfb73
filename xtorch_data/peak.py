"""How much memory an epoch will take, from its plan: what is allotted and let go, in turn."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import xarray as xr
from dask.system import CPU_COUNT as CORES

from .awaiting import FETCHED_BYTES, FEWEST_FETCHED
from .buffers import LARGER
from .chunks import Layout, merged
from .epoch import Load, Stage, shared_box
from .intervals import Interval, total
from .jobs import Lookahead
from .lazy import is_fetched, is_lazy, read_path, stored_dtype
from .plan import Plan
from .prepare import joins
from .reader import concurrent_reads
from .samples import Samples
from .shards import MOST_BYTES
from .windows import Windows

__all__ = ["PeakMemory", "peak_memory"]

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
        Of this, blocks in use, read ahead, kept or left for the next ones.
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
    samples: Samples, data: xr.Dataset, plan: Plan, epoch: int, part: Sequence[Interval],
    in_worker: bool = False, waiting: int = 0,
) -> PeakMemory:  # fmt: skip
    """Work out the peak of a walk over part of an epoch's line.

    Parameters
    ----------
    samples : Samples
        What a sample is.
    data : xarray.Dataset
        What is read, as it is read.
    plan : Plan
        The plan of its epochs.
    epoch : int
        Which one.
    part : sequence of Interval
        What one process walks.
    in_worker : bool
        Whether it is a worker process, of which some batches wait in a queue.
    waiting : int
        Bytes that wait until a cache on disk has written them, at most.
    """
    size = plan.batch_size or 1
    recipe = samples.recipe
    batch = samples.nbytes * size
    lookahead = Lookahead.of(batch, bool(samples.functions()))
    most = lookahead.jobs * lookahead.together + 1 + PREFETCHED * in_worker
    index = np.dtype(np.int64).itemsize
    cast = 0  # of the batches that are being gathered, before they are cast or transformed
    if recipe.cast is not None or recipe.batch_transform is not None:
        cast = 2 * batch
    each = batch
    if recipe.cast is not None:
        each = batch * recipe.cast.itemsize // recipe.floating.itemsize
    places = PLACES + PLACES_OF_AXIS * len(recipe.windows.axes)
    locating = min(total(part), lookahead.together * size) * places * index

    variables = _alike(
        _Footprint.of(layout, data.variables[layout.name], samples, plan) for layout in plan.layouts
    )
    decoding = CORES * max((each.scratch for each in variables), default=0)
    process = _Process(plan, samples, variables, concurrent_reads(data))
    worst = PeakMemory(0, 0, 0, 0)
    for blocks, passing, walked in process.moments(_some(plan.stages(epoch, part), plan)):
        ready = min(most, -(-walked // size))
        batches = ready * (each + index * size) + (cast if ready else 0)
        passing += decoding + waiting + (locating if ready else 0)
        if blocks + batches + passing > worst.nbytes:
            worst = PeakMemory(blocks + batches + passing, blocks, batches, passing)
    return worst


def _some(stages: Iterable[Stage], plan: Plan) -> Iterator[Stage]:
    """The first stages of a walk."""
    loads = 0
    for stage in stages:
        yield stage
        loads += len(stage.loads)
        if loads > WALKED_LOADS and not plan.cached:
            return


@dataclass(frozen=True)
class _Footprint:
    """What a variable takes, in bytes of one value, or of all places outside the sample space.

    Attributes
    ----------
    layout : Layout
        How it is stored.
    read : int
        As it is read; 0 where that is a view of memory that was there before.
    cast : int
        Of copies in the dtypes of parts.
    lasts : bool
        Whether what is read is needed beside the copies.
    stored : int
        As it comes from the store, before it is decoded to what is read; 0 if it is not decoded.
    recycled : bool
        Whether what it is read into is used again.
    graph : bool
        Whether dask puts it together from chunks.
    scratch : int
        Bytes of a chunk, or two, that each thread needs to decode one.
    fetched : int
        As it comes from a store that is asked for each chunk; 0 for others.
    room : int
        Bytes, not of one value, that may be fetched and not decoded at a time.
    """

    layout: Layout
    read: int
    cast: int
    lasts: bool
    stored: int
    recycled: bool
    graph: bool
    scratch: int
    fetched: int = 0
    room: int = 0

    @classmethod
    def of(cls, layout: Layout, variable: xr.Variable, samples: Samples, plan: Plan) -> _Footprint:
        """What a variable takes."""
        outside = math.prod(
            size for dim, size in variable.sizes.items() if dim not in layout.chunks
        )
        recipe = samples.recipe
        wanted = [part for part in recipe.parts if layout.name in part.variables]
        labelled = any(part.name in recipe.transforms for part in wanted)
        dtypes = {part.dtype for part in wanted if part.name not in recipe.transforms}
        lazy = is_lazy(variable)
        # Copied, unless values are and lie as windows want them.
        as_is = set() if _is_reordered(variable, plan.windows) else {variable.dtype}
        cast = sum(dtype.itemsize for dtype in dtypes - as_is)
        path = read_path(variable) if lazy else ""
        stored = stored_dtype(variable) if lazy else None
        chunk = math.prod(grid.largest for grid in layout.chunks.values()) * outside
        scratch = 0
        if path in ("directly", "by zarr"):
            # The chunk as it is stored, and decoded where only part of it is wanted.
            copies = 2 if plan.shuffle or not _in_rows(layout) else 1
            encoded = (stored or variable.dtype).itemsize
            scratch = 0 if _needs_no_scratch(variable, layout) else copies * chunk * encoded
        fetched = (stored or variable.dtype).itemsize if lazy and is_fetched(variable) else 0
        most = chunk * fetched
        if variable.encoding.get("shards"):  # of which chunks are fetched together
            most = max(most, MOST_BYTES)
        return cls(
            layout=layout,
            read=0 if variable._in_memory else variable.dtype.itemsize * outside,
            cast=cast * outside,
            lasts=labelled or not cast or not dtypes.isdisjoint(as_is),
            stored=0 if stored is None else stored.itemsize * outside,
            recycled=path in ("directly", "by zarr") or stored is not None,
            graph=variable.chunks is not None,
            scratch=scratch,
            fetched=fetched * outside,
            room=max(FETCHED_BYTES, FEWEST_FETCHED * most) if fetched else 0,
        )

    @property
    def handed_on(self) -> int:
        """What it takes in the load after the one that reads it, or in later epochs."""
        return self.read + self.cast

    @property
    def kept(self) -> int:
        """What it takes as long as windows are gathered."""
        return self.cast + (self.read if self.lasts else 0)


def _alike(variables: Iterable[_Footprint]) -> list[_Footprint]:
    """Variables that are stored and held alike as one, as large as all of them."""
    found: dict[Hashable, _Footprint] = {}
    for each in variables:
        grids = tuple((dim, grid.key) for dim, grid in each.layout.chunks.items())
        key = grids, each.lasts, each.recycled, each.graph, bool(each.stored), bool(each.cast)
        before = found.get(key)
        if before is not None:
            each = replace(
                each,
                read=before.read + each.read,
                cast=before.cast + each.cast,
                stored=before.stored + each.stored,
                scratch=max(before.scratch, each.scratch),
                fetched=before.fetched + each.fetched,
                room=max(before.room, each.room),
            )
        found[key] = each
    return list(found.values())


def _is_reordered(variable: xr.Variable, windows: Windows) -> bool:
    """Whether values lie in another order than samples."""
    dims = [axis.dim for axis in windows.axes if variable.sizes.get(axis.dim, 1) > 1]
    return dims != [dim for dim in variable.dims if dim in dims]


def _in_rows(layout: Layout) -> bool:
    """Whether chunks follow each other along the first dim alone."""
    return all(grid.count == 1 for grid in islice(layout.chunks.values(), 1, None))


def _needs_no_scratch(variable: xr.Variable, layout: Layout) -> bool:
    """Whether chunks are read straight to where they belong."""
    codecs = variable.encoding.get("compressors", variable.encoding.get("compressor"))
    return not codecs and _in_rows(layout)


@dataclass(eq=False)
class _Flight:
    """A stage that is being read or held."""

    stage: Stage
    nbytes: int  # as the engine counts
    taken: list[tuple[int, bool]]  # bytes, and whether they are used again
    boxes: list[tuple[Hashable, object, int]]  # variables that loads share
    carries: tuple[_Flight, ...] = ()
    users: int = 1


class _Process:
    """What the engine does with memory, as `pipeline` and `Buffers` do it, without doing it."""

    def __init__(
        self, plan: Plan, samples: Samples, variables: Sequence[_Footprint], concurrent: int
    ) -> None:
        # Of many variables, most are planned alike.
        self._plan = replace(plan, layouts=tuple(merged(plan.layouts)))
        self._variables = variables
        self._concurrent = concurrent
        self._parts = samples.recipe.parts
        self._transformed = frozenset(samples.recipe.transforms)
        self._lent = 0
        self._idle: dict[int, int] = {}  # how many of so many bytes
        self._other = 0
        self._held = 0
        self._begun: deque[_Flight] = deque()
        self._carrying: list[_Flight] = []  # all that need memory
        self._last: _Flight | None = None
        self._cached: set[Hashable] = set()
        self._cached_nbytes = 0
        self._moments: list[tuple[int, int, int]] = []

    def moments(self, stages: Iterator[Stage]) -> Iterator[tuple[int, int, int]]:
        """Bytes of blocks and what passes, and samples that have been gathered, in turn."""
        walked = 0
        flights = map(self._flight, stages)
        following = next(flights, None)
        while following is not None or self._begun:
            fresh = []
            while following is not None and (not self._begun or self._fits(following)):
                self._held += following.nbytes
                self._begun.append(following)
                self._carrying.append(following)
                fresh.append(following)
                following = next(flights, None)
            for passing in self._read(fresh):
                yield self._blocks(), passing, walked
            first = self._begun.popleft()
            walked += first.stage.stop - first.stage.start
            yield self._blocks(), 0, walked
            for each in (first, *first.carries):
                each.users -= 1
                if not each.users:
                    self._free(each)
            first.carries = ()

    def _blocks(self) -> int:
        shared = {(name, box): size for each in self._carrying for name, box, size in each.boxes}
        idle = sum(size * count for size, count in self._idle.items())
        return self._lent + idle + self._other + sum(shared.values())

    def _fits(self, flight: _Flight) -> bool:
        return self._cached_nbytes + self._held + flight.nbytes <= self._plan.budget

    def _flight(self, stage: Stage) -> _Flight:
        """A stage, with what the engine thinks that it takes."""
        nbytes = sum(
            self._plan.nbytes(load, self._joins(load))
            for load in stage.loads
            if load.key not in self._cached
        )
        if stage.shuffle:
            nbytes += 8 * (stage.stop - stage.start)
        carries: tuple[_Flight, ...] = ()
        carried = stage.loads[0].carried if len(stage.loads) == 1 else None
        if carried is not None and self._last is not None:
            for each in (*self._last.carries, self._last):
                (load,) = each.stage.loads
                if each.users and load.region[load.axis][1] > carried:
                    carries += (each,)
        for each in carries:
            each.users += 1
        self._last = _Flight(stage, nbytes, [], [], carries)
        return self._last

    def _joins(self, load: Load) -> bool:
        windows = self._plan.windows
        return joins(self._parts, self._transformed, windows, load, self._plan.cached)

    def _free(self, flight: _Flight) -> None:
        self._carrying.remove(flight)
        self._held -= flight.nbytes
        for nbytes, recycled in flight.taken:
            if recycled:
                self._give(nbytes)
            else:
                self._other -= nbytes
        flight.taken, flight.boxes = [], []

    # As `Buffers`.

    def _take(self, nbytes: int) -> int:
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

    def _give(self, nbytes: int) -> None:
        self._lent -= nbytes
        if nbytes <= self._room():
            self._idle[nbytes] = self._idle.get(nbytes, 0) + 1

    def _room(self) -> int:
        idle = sum(size * count for size, count in self._idle.items())
        return min(self._plan.memory - idle, self._plan.memory - idle - self._lent)

    # As `Reader` and `Preparer`.

    def _read(self, flights: Sequence[_Flight]) -> Iterator[int]:
        """Read what was begun at the same time; bytes of what passes after each step."""
        for flight in flights:
            if flight.stage.shuffle:
                nbytes = 8 * (flight.stage.stop - flight.stage.start)
                flight.taken.append((nbytes, False))
                self._other += nbytes
        loads = deque((flight, load) for flight in flights for load in flight.stage.loads)
        under_way: deque[tuple[_Flight, Load, list[tuple[int, bool]]]] = deque()
        while loads or under_way:
            while loads and len(under_way) < self._concurrent:
                flight, load = loads.popleft()
                if load.key not in self._cached:
                    under_way.append((flight, load, self._begin(load)))
            if not under_way:
                return
            yield self._passing(under_way)
            # Each core decodes one.
            done = [(*each, self._finish(*each[:2])) for each in islice(under_way, CORES)]
            yield self._passing(under_way)
            for flight, load, lent, taken in done:
                under_way.popleft()
                for size, recycled in lent:
                    if recycled:
                        self._give(size)
                if self._keeps(load):
                    nbytes = self._plan.nbytes(load)
                    flight.nbytes -= nbytes
                    self._held -= nbytes
                else:
                    flight.taken += taken

    def _passing(self, under_way: Iterable[tuple[_Flight, Load, list[tuple[int, bool]]]]) -> int:
        """Bytes that are there while loads are read, and those fetched for them and not decoded."""
        passing = fetched = 0
        for _, load, lent in under_way:
            passing += sum(size for size, recycled in lent if not recycled)
            fetched += sum(
                each.fetched * _values(each.layout, self._extents(load, each), decoded=True)
                for each in self._variables
                if each.fetched
            )
        return passing + min(fetched, max((each.room for each in self._variables), default=0))

    def _keeps(self, load: Load) -> bool:
        """Whether a cache keeps what was made of a load."""
        plan = self._plan
        if not plan.cached or load.key in self._cached:
            return False
        everything = plan.block_nbytes * len(plan.grid)
        kept = self._cached_nbytes + plan.nbytes(load)
        if kept + min(plan.working_nbytes, everything - kept) > plan.memory:
            return False
        self._cached.add(load.key)
        self._cached_nbytes = kept
        return True

    def _begin(self, load: Load) -> list[tuple[int, bool]]:
        """What it takes until a load is read, beside what stays."""
        lent = []
        for each in self._variables:
            extents = self._extents(load, each)
            if each.read and not each.lasts:  # before it is cast
                nbytes = each.read * _values(each.layout, extents)
                lent.append((self._take(nbytes) if each.recycled else nbytes, each.recycled))
            if each.graph:  # dask puts chunks together
                lent.append((each.read * _values(each.layout, extents, decoded=True), False))
            elif each.stored:
                nbytes = each.stored * _values(each.layout, extents)
                lent.append((self._take(nbytes) if each.recycled else nbytes, each.recycled))
        return lent

    def _finish(self, flight: _Flight, load: Load) -> list[tuple[int, bool]]:
        """What stays of a load."""
        taken = []
        axes = self._plan.windows.axes
        for each in self._variables:
            extents = self._extents(load, each)
            itemsize = each.handed_on if load.keep is not None else each.kept
            nbytes = itemsize * _values(each.layout, extents)
            if len(each.layout.chunks) < len(axes):
                box = shared_box(each.layout.chunks, load.slices(self._plan.windows))
                flight.boxes.append((each.layout.name, box, nbytes))
                continue
            if load.carried is not None and self._joins(load):
                along = axes[load.axis].dim
                joined = sum(piece.region[load.axis][1] - load.carried for piece in load.pieces[:1])
                more = dict(extents) | {along: (load.carried, load.carried + joined)}
                nbytes += each.kept * _values(each.layout, more)
            if nbytes:
                recycled = each.recycled or each.cast > 0
                size = self._take(nbytes) if recycled else nbytes
                self._other += 0 if recycled else nbytes
                taken.append((size, recycled))
        return taken

    def _extents(self, load: Load, each: _Footprint) -> Mapping[Hashable, Interval]:
        """Positions of a variable that are read for a load, or handed on and put next to it."""
        axes = self._plan.windows.axes
        extents = {axis.dim: box for axis, box in zip(axes, load.region, strict=True)}
        if each.layout.name in load.whole_chunks:
            dim = axes[load.axis].dim
            start, stop = extents[dim]
            extents[dim] = start, max(stop, load.whole_chunks[each.layout.name][1])
        return extents


def _values(layout: Layout, extents: Mapping[Hashable, Interval], decoded: bool = False) -> int:
    """Values of a variable in a region, or in the chunks that it touches."""
    return math.prod(
        int(grid.decoded(*extents[dim])) if decoded else extents[dim][1] - extents[dim][0]
        for dim, grid in layout.chunks.items()
    )

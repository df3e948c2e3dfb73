"""One region of the data in memory: read through xarray, each chunk decoded once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field

import xarray as xr

from ..common.recorder import Way
from ..planning.stages import BlockRead, shared_box
from ..planning.windows import Windows
from ..sources.lazy_arrays import is_computed, must_be_read
from .concurrency import together
from .disk_cells import DiskCells, Found
from .variables import ReadError, Regions, SourceReader

__all__ = ["Reader", "Region", "Rest"]

# Steps of variables behind a region that were in the last chunk: where they begin, and the values.
Rest = dict[Hashable, tuple[int, xr.Variable]]

# A variable that several blocks want, for which box of them, and when it has been read.
_Held = tuple[object, xr.Variable, asyncio.Future[None]]


@dataclass(frozen=True, eq=False)
class Region:
    """The variables that were read for a load over its region, and those of which other steps were.

    It was `on_disk` if nothing had to be read from the source.
    """

    block: xr.Dataset
    whole_chunks: dict[Hashable, xr.Variable]
    on_disk: bool


@dataclass(eq=False)
class Reader:
    """Reads the regions of loads, what neighboring ones share once.

    Made and used like its `SourceReader`.
    """

    source: SourceReader  # of variables and, for functions in xarray's API, their coordinates
    preprocess: Callable[[BlockRead, xr.Dataset], xr.Dataset] | None = None  # of the user
    disk: Mapping[Hashable, DiskCells] = field(default_factory=dict)
    _last: dict[Hashable, _Held] = field(default_factory=dict)

    @property
    def dataset(self) -> xr.Dataset:
        """The variables, lazily."""
        return self.source.dataset

    @property
    def windows(self) -> Windows:
        """The sample space."""
        return self.source.windows

    async def read(self, load: BlockRead) -> Region:
        """Read the region of a load."""
        region = load.slices()
        block = self.dataset.isel(region, missing_dims="ignore").copy(deep=False)
        along = self.windows.axes[load.axis].dim if load.whole_chunks else None
        own: dict[Hashable, xr.Variable] = {}
        whole: dict[Hashable, xr.Variable] = {}
        regions: dict[Hashable, Mapping[Hashable, slice]] = {}
        shared: dict[Hashable, xr.Variable] = {}
        for name, variable in block.variables.items():
            if not must_be_read(variable):
                continue
            if name in load.whole_chunks:
                begin, end = load.whole_chunks[name]
                if begin < end:
                    wider = {**region, along: slice(begin, end)}
                    found = self.dataset.variables[name].isel(wider, missing_dims="ignore")
                    own[name] = whole[name] = found.copy(deep=False)
                    regions[name] = wider
            elif all(axis.dim in variable.dims for axis in self.windows.axes):
                own[name], regions[name] = variable, region
            else:
                shared[name], regions[name] = variable, region
        graphs = {name: each for name, each in own.items() if self._computes(name, each)}
        others = {name: each for name, each in own.items() if name not in graphs}
        computing = self._begin(graphs, shared, regions)
        jobs = [self._copy_shared(name, each, self._last[name]) for name, each in shared.items()]
        *_, read = await together([*computing, *jobs, self._read_own(others, regions)])
        if self.source.blank:
            for name, variable in [*own.items(), *shared.items()]:
                variable.data = self.source.blanked(variable, regions[name])
        return Region(block, whole, on_disk=bool(own) and len(others) == len(own) and not read)

    async def aligned(
        self, load: BlockRead, found: Region, earlier: Rest
    ) -> tuple[xr.Dataset, Rest]:
        """The block of a load, from what it has read and what the load before has left over."""
        return await self.source.on_thread(self._aligned, load, found, earlier)  # type: ignore[no-any-return]

    def _aligned(self, load: BlockRead, found: Region, earlier: Rest) -> tuple[xr.Dataset, Rest]:
        dim = self.windows.axes[load.axis].dim
        start, stop = load.region[load.axis]
        block, rest = found.block, Rest()
        for name, (begin, end) in load.whole_chunks.items():
            parts = []
            if begin > start:
                origin, left = earlier[name]
                parts.append(left.isel({dim: slice(start - origin, None)}))
            if begin < end:
                parts.append(found.whole_chunks[name])
            values = (
                parts[0] if len(parts) == 1 else xr.Variable.concat(parts, dim)  # type: ignore[no-untyped-call]
            )
            inside = values.isel({dim: slice(0, stop - start)})
            block[name] = block.variables[name].copy(deep=False, data=inside.data)
            rest[name] = stop, values.isel({dim: slice(stop - start, None)})
        return block, rest

    async def preprocessed(self, load: BlockRead, block: xr.Dataset) -> xr.Dataset:
        """A block after the user's function."""
        if self.preprocess is None:
            return block
        return await self.source.on_thread(self.preprocess, load, block)  # type: ignore[no-any-return]

    async def _read_own(
        self,
        variables: Mapping[Hashable, xr.Variable],
        regions: Regions,
    ) -> bool:
        """Read what dask does not compute with others; whether any of it is from the source."""
        read: dict[Hashable, xr.Variable] = {}
        rest = dict(variables)
        if self.disk:
            rest = await self._read_through_disk(variables, regions, read)
        read.update(rest)
        if rest:
            await self.source.read(rest, regions)
        self._note_read(read)
        return bool(read)

    def _note_read(self, variables: Mapping[Hashable, xr.Variable]) -> None:
        self.source.recorder.add(bytes_read=sum(variable.nbytes for variable in variables.values()))

    async def _read_through_disk(
        self,
        variables: Mapping[Hashable, xr.Variable],
        regions: Regions,
        read: dict[Hashable, xr.Variable],
    ) -> dict[Hashable, xr.Variable]:
        """Take from disk what is there, and keep there what must be read; those left to read."""
        found: dict[Hashable, Found] = {}

        async def take(name: Hashable) -> None:
            found[name] = await self.source.on_thread(self.disk[name].take, regions[name])

        with self.source.recorder.timed("read"):
            await together([take(name) for name in variables if name in self.disk])
        rest = {name: variable for name, variable in variables.items() if name not in found}
        boxes: dict[Hashable, Mapping[Hashable, slice]] = {}
        for name, each in found.items():
            if each.missing is not None:
                boxes[name] = each.missing
            elif each.values is not None:
                variables[name].data = each.values
                self.source.recorder.took({Way.FROM_DISK: 1})
            else:  # an empty region
                rest[name] = variables[name]
        missing = {
            name: self.dataset.variables[name].isel(box).copy(deep=False)
            for name, box in boxes.items()
        }
        if not missing:
            return rest
        failed: dict[Hashable, ReadError] = {}
        await self.source.read(missing, boxes, failed)
        final: list[ReadError] = []
        for name, error in failed.items():
            # Of what cannot be read there may be more in whole cells, and some is left out.
            if missing.pop(name).shape == variables[name].shape and not self.source.skipping:
                final.append(error)
            rest[name] = variables[name]
        read.update(missing)

        async def give(name: Hashable) -> None:
            variables[name].data = await self.source.on_thread(
                self.disk[name].give, found[name], missing[name].data
            )

        await together([give(name) for name in missing])
        for error in final:
            raise error
        return rest

    def _computes(self, name: Hashable, variable: xr.Variable) -> bool:
        """Whether a variable is computed with the others of its block that dask has."""
        return is_computed(variable) and name not in self.disk

    def _begin(
        self,
        graphs: dict[Hashable, xr.Variable],
        shared: Mapping[Hashable, xr.Variable],
        regions: Regions,
    ) -> list[Awaitable[None]]:
        """Begin to compute graphs of a block, and to read what lacks a dim.

        The latter is what neighboring blocks ask for, too: only the first of them reads it.
        """
        wanted = {}
        for name, variable in shared.items():
            box = shared_box(variable.dims, regions[name])
            if name not in self._last or self._last[name][0] != box:
                wanted[name] = box
                if self._computes(name, variable):
                    graphs[name] = variable

        async def compute() -> None:
            await self.source.compute(graphs, regions)
            self._note_read(graphs)

        async def read(name: Hashable) -> None:
            await self._read_own({name: shared[name]}, regions)

        computing = [asyncio.ensure_future(compute())] if graphs else []
        for name, box in wanted.items():
            reading = computing[0] if name in graphs else asyncio.ensure_future(read(name))
            self._last[name] = box, shared[name], reading
        # If this block is given up, others may still want what is shared.
        return [asyncio.shield(each) if wanted else each for each in computing]

    async def _copy_shared(self, name: Hashable, variable: xr.Variable, held: _Held) -> None:
        """Take a variable that lacks a dim from the block that reads it."""
        try:
            await asyncio.shield(held[2])
        except Exception:
            if self._last.get(name) is held:  # the next one tries again
                del self._last[name]
            raise
        variable.data = held[1].data

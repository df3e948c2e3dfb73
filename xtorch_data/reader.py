"""One region of the data in memory: read through xarray, each chunk decoded once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from .awaiting import together
from .direct import ChunkError
from .disk_cells import DiskCells, Found
from .epoch import Load, shared_box
from .failures import Failure, cause_of, first_failure, read_by_chunks
from .graphs import Graphs
from .lazy import decodes_on_the_loop, is_fetched, read_path
from .redact import without_secrets
from .retry import RETRIES, is_transient, retried
from .sources import layout_of
from .stats import Recorder
from .streams import BLOCK_TRANSFORM, generator
from .transforms import Transform
from .windows import Windows

__all__ = ["ReadError", "Reader", "Region", "Rest", "check_preprocessed", "concurrent_reads"]

logger = logging.getLogger(__name__)

# Reads under way at the same time; each already uses every core to decode its chunks.
CONCURRENT_READS = 4
# Of stores that are asked for chunks, which wait more than they work.
CONCURRENT_FETCHES = 32


def concurrent_reads(dataset: xr.Dataset) -> int:
    """How many regions of a dataset are read at the same time.

    Parameters
    ----------
    dataset : xarray.Dataset
        What is read, as it is read.
    """
    fetched = any(map(is_fetched, dataset.variables.values()))
    return CONCURRENT_FETCHES if fetched else CONCURRENT_READS


class ReadError(RuntimeError):
    """A region of a variable could not be read.

    The message names the variable, the region, the file or store and, of a Zarr array that is not
    read by dask, the key of the chunk; ``__cause__`` is the error itself.
    """


# Steps of variables behind a region that were in the last chunk: where they begin, and the values.
Rest = dict[Hashable, tuple[int, xr.Variable]]

# A variable that several blocks want, for which box of them, and when it has been read.
_Held = tuple[object, xr.Variable, asyncio.Future[None]]


@dataclass(frozen=True, eq=False)
class Region:
    """What was read for a load: variables over its region, and those of which other steps were.

    It was `on_disk` if nothing had to be read from the source.
    """

    block: xr.Dataset
    whole_chunks: dict[Hashable, xr.Variable]
    on_disk: bool


@dataclass(eq=False)
class Reader:
    """Reads regions of a dataset and makes their windows ready to be gathered.

    Attributes
    ----------
    dataset : xarray.Dataset
        What is read: the variables needed and, for functions in xarray's API, their coordinates.
    origin : str
        Where it comes from, for messages.
    windows : Windows
        The sample space.
    variable_dims : mapping of Hashable to frozenset
        Dims of the variables of the parts, after preprocess.
    variable_dtypes : mapping of Hashable to numpy.dtype
        Their dtypes, after preprocess.
    preprocess : Transform, optional
        Function for every region that is read.
    seed, epoch : int
        What a random preprocess depends on.
    recorder : Recorder
        Notes what it takes.
    executor : concurrent.futures.Executor
        Where work runs that would block the event loop.
    graphs : Graphs
        Where dask computes.
    retries : int
        Attempts after the first to read what fails in passing.
    disk : mapping of Hashable to DiskCells
        Variables that are kept on disk.
    skipping : bool
        Whether to go on without what cannot be read, which is an error otherwise.
    failures : list of Failure
        What could not be read so far.
    """

    dataset: xr.Dataset
    origin: str
    windows: Windows
    variable_dims: Mapping[Hashable, frozenset[Hashable]]
    variable_dtypes: Mapping[Hashable, np.dtype[Any]]
    preprocess: Transform | None
    seed: int
    epoch: int
    recorder: Recorder
    executor: Executor
    graphs: Graphs
    retries: int = RETRIES
    disk: Mapping[Hashable, DiskCells] = field(default_factory=dict)
    skipping: bool = False
    failures: list[Failure] = field(default_factory=list)
    _blocking: set[Hashable] = field(default_factory=set)
    _last: dict[Hashable, _Held] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(concurrent_reads(self.dataset))

    async def read(self, load: Load) -> Region:
        """Read the region of a load."""
        region = load.slices(self.windows)
        block = self.dataset.isel(region, missing_dims="ignore").copy(deep=False)
        along = self.windows.axes[load.axis].dim if load.whole_chunks else None
        own: dict[Hashable, xr.Variable] = {}
        whole: dict[Hashable, xr.Variable] = {}
        regions: dict[Hashable, Mapping[Hashable, slice]] = {}
        shared: dict[Hashable, xr.Variable] = {}
        for name, variable in block.variables.items():
            if variable._in_memory or isinstance(variable, xr.IndexVariable):
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
        return Region(block, whole, on_disk=bool(own) and len(others) == len(own) and not read)

    async def aligned(self, load: Load, found: Region, earlier: Rest) -> tuple[xr.Dataset, Rest]:
        """The block of a load, from what it has read and what the load before has left over."""
        return await self._run(self._aligned, load, found, earlier)  # type: ignore[no-any-return]

    def _aligned(self, load: Load, found: Region, earlier: Rest) -> tuple[xr.Dataset, Rest]:
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

    async def preprocessed(self, load: Load, block: xr.Dataset) -> xr.Dataset:
        """What the user's function makes of a block."""
        if self.preprocess is None:
            return block
        return await self._run(self._preprocessed, block, load)  # type: ignore[no-any-return]

    async def _run(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.executor, function, *args)

    async def _read_own(
        self,
        variables: Mapping[Hashable, xr.Variable],
        regions: Mapping[Hashable, Mapping[Hashable, slice]],
    ) -> bool:
        """Read what dask does not compute with others; whether any of it is from the source."""
        read: dict[Hashable, xr.Variable] = {}
        rest = dict(variables)
        if self.disk:
            rest = await self._read_through_disk(variables, regions, read)
        read.update(rest)
        if rest:
            await self._read_source(rest, regions)
        self._note_read(read)
        return bool(read)

    def _note_read(self, variables: Mapping[Hashable, xr.Variable]) -> None:
        self.recorder.add(bytes_read=sum(variable.nbytes for variable in variables.values()))

    async def _read_through_disk(
        self,
        variables: Mapping[Hashable, xr.Variable],
        regions: Mapping[Hashable, Mapping[Hashable, slice]],
        read: dict[Hashable, xr.Variable],
    ) -> dict[Hashable, xr.Variable]:
        """Take from disk what is there, and keep there what must be read; those left to read."""
        found: dict[Hashable, Found] = {}

        async def take(name: Hashable) -> None:
            found[name] = await self._run(self.disk[name].take, regions[name])

        with self.recorder.timed("read"):
            await together([take(name) for name in variables if name in self.disk])
        rest = {name: variable for name, variable in variables.items() if name not in found}
        boxes: dict[Hashable, Mapping[Hashable, slice]] = {}
        for name, each in found.items():
            if each.missing is not None:
                boxes[name] = each.missing
            elif each.values is not None:
                variables[name].data = each.values
                self.recorder.add(**{"taken from disk": 1})
            else:  # an empty region
                rest[name] = variables[name]
        missing = {
            name: self.dataset.variables[name].isel(box).copy(deep=False)
            for name, box in boxes.items()
        }
        if not missing:
            return rest
        failed: dict[Hashable, ReadError] = {}
        await self._read_source(missing, boxes, failed)
        final: list[ReadError] = []
        for name, error in failed.items():
            # Of what cannot be read there may be more in whole cells, and some is left out.
            if missing.pop(name).shape == variables[name].shape and not self.skipping:
                final.append(error)
            rest[name] = variables[name]
        read.update(missing)

        async def give(name: Hashable) -> None:
            values, region = missing[name].data, regions[name]
            variables[name].data = await self._run(
                self.disk[name].give, found[name], values, region
            )

        await together([give(name) for name in missing])
        for error in final:
            raise error
        return rest

    async def _read_source(
        self,
        variables: Mapping[Hashable, xr.Variable],
        regions: Mapping[Hashable, Mapping[Hashable, slice]],
        failed: dict[Hashable, ReadError] | None = None,
    ) -> None:
        """Read some variables; those that cannot be are noted in `failed`, if there is one.

        Else that is an error, or they are skipped in part.
        """
        whole = failed is not None

        async def noted(reading: Coroutine[Any, Any, None], names: Iterable[Hashable]) -> None:
            try:
                await reading
            except ReadError as error:
                if failed is None:
                    raise
                failed.update(dict.fromkeys(names, error))

        graphs = {name: each for name, each in variables.items() if each.chunks is not None}
        if graphs:
            plain = {name: each for name, each in variables.items() if name not in graphs}
            computing = noted(self._compute(graphs, regions, whole), graphs)
            await together([computing, self._read_source(plain, regions, failed)])
            return
        async with self._slots:  # before there are coroutines, which would be left if cancelled
            jobs = [
                noted(self._read_one(name, variable, regions[name], whole), [name])
                for name, variable in variables.items()
            ]
            with self.recorder.timed("read"):
                await together(jobs)

    def _computes(self, name: Hashable, variable: xr.Variable) -> bool:
        """Whether a variable is computed with the others of its block that dask has."""
        return variable.chunks is not None and name not in self.disk

    def _begin(
        self,
        graphs: dict[Hashable, xr.Variable],
        shared: Mapping[Hashable, xr.Variable],
        regions: Mapping[Hashable, Mapping[Hashable, slice]],
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
            await self._compute(graphs, regions)
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

    async def _read_one(
        self,
        name: Hashable,
        variable: xr.Variable,
        region: Mapping[Hashable, slice],
        whole: bool = False,
    ) -> None:
        async def load(part: xr.Variable) -> None:
            if name not in self._blocking and not decodes_on_the_loop(part):
                try:
                    await part.load_async()
                    return
                except NotImplementedError:  # the backend has no asynchronous reads
                    self._blocking.add(name)
                    logger.debug("%r has no asynchronous reads: threads read it", name)
            await self._run(part.load)

        self.recorder.add(**{f"read {read_path(variable)}": 1})
        try:
            await self._retried(lambda: load(variable), [name], region)
        except Exception as error:
            await self._failed({name: variable}, {name: region}, load, error, whole)

    async def _failed(
        self,
        variables: Mapping[Hashable, xr.Variable],
        regions: Mapping[Hashable, Mapping[Hashable, slice]],
        load: Callable[[xr.Variable], Coroutine[Any, Any, None]],
        error: Exception,
        whole: bool,
    ) -> None:
        """Go on without the chunks that cannot be read, if that is wanted, or say which it was."""
        cause, dims = cause_of(error), [axis.dim for axis in self.windows.axes]

        async def load_part(part: xr.Variable, cell: Mapping[Hashable, slice]) -> None:
            # What fails in passing does so with a part, too, and is no damage.
            await self._retried(lambda: load(part), variables, cell)

        if whole and self.skipping:  # less is asked for once more
            raise ReadError(f"could not read {', '.join(map(repr, variables))}") from cause
        every = self.dataset.variables
        grids = {name: layout_of(every[name], name, dims).chunks for name in variables}
        if self.skipping and not isinstance(cause, MemoryError):
            for name, variable in variables.items():
                found = await read_by_chunks(
                    name, variable, regions[name], grids[name], load_part, self.origin
                )
                self.failures.extend(found)
                self.recorder.fail(found)
            return
        failures = [
            Failure.of(name, variable, regions[name], self.origin, error)
            for name, variable in variables.items()
        ]
        # If memory or the store is to blame, no chunk is; and some errors name theirs.
        if not isinstance(error, ChunkError | MemoryError) and not is_transient(error):
            for failure in failures:
                name = failure.variable
                part = await first_failure(variables[name], regions[name], grids[name], load_part)
                if part is not None:
                    failures = [Failure.of(name, *part, self.origin, error)]
                    break
        message = f"could not read {'; '.join(map(str, failures[:3]))}"
        raise ReadError(message) from without_secrets(cause)

    async def _compute(
        self,
        graphs: Mapping[Hashable, xr.Variable],
        regions: Mapping[Hashable, Mapping[Hashable, slice]],
        whole: bool = False,
    ) -> None:
        """Compute variables of dask together, so that they share what their graphs share."""

        async def compute(variables: Sequence[xr.Variable]) -> None:
            lazy = [variable.data for variable in variables]
            # Elsewhere as many blocks at a time as there is memory for.
            results, path = await self.graphs.on_cluster(lazy), "computed on a dask cluster"
            if results is None:
                async with self._slots:
                    results, path = await self._run(self.graphs.here, lazy), "computed by dask"
            for variable, result in zip(variables, results, strict=True):
                variable.data = result
            self.recorder.add(**{path: len(lazy)})

        every = list(graphs.values())
        with self.recorder.timed("read"):
            try:
                await self._retried(lambda: compute(every), graphs, regions[next(iter(graphs))])
            except Exception as error:
                await self._failed(graphs, regions, lambda part: compute([part]), error, whole)

    async def _retried(
        self,
        load: Callable[[], Coroutine[Any, Any, None]],
        names: Iterable[Hashable],
        region: Mapping[Hashable, slice],
    ) -> None:
        """Load, again if that fails in passing."""
        where = ", ".join(f"{dim}={part.start}:{part.stop}" for dim, part in region.items())
        what = f"{', '.join(repr(name) for name in names)} at isel({where}) from {self.origin}"
        await retried(load, self.retries, lambda: self.recorder.add(retries=1), what)

    def _preprocessed(self, block: xr.Dataset, load: Load) -> xr.Dataset:
        assert self.preprocess is not None
        for name, variable in block.data_vars.items():
            source = self.dataset.variables[name]
            if source._in_memory or any(axis.dim not in source.dims for axis in self.windows.axes):
                # It is also the user's, or another block's, and the function may work in place.
                block[name] = variable.variable.copy(deep=True)

        def rng() -> np.random.Generator:
            return generator(self.seed, self.epoch, BLOCK_TRANSFORM, load.block)

        try:
            with self.recorder.timed("preprocess"):
                result = self.preprocess(block, rng)
            dims = [axis.dim for axis in self.windows.axes]
            check_preprocessed(result, block, dims, self.variable_dims)
            for name, expected in self.variable_dims.items():
                if set(result[name].dims) != expected:
                    raise ValueError(
                        f"preprocess gave variable {name!r} the dims {list(result[name].dims)}; on "
                        f"the block it was tried on, it was {sorted(map(str, expected))}"
                    )
                dtype, tried = result[name].dtype, self.variable_dtypes[name]
                if not np.can_cast(dtype, tried, "same_kind"):
                    raise TypeError(
                        f"preprocess gave variable {name!r} the dtype {dtype}; on the block it was "
                        f"tried on, it was {tried}: let it give every block the same"
                    )
        except Exception as error:
            error.add_note(f"in preprocess of block {load.block}")
            raise
        return result  # type: ignore[no-any-return]


def check_preprocessed(
    result: Any, block: xr.Dataset, dims: Iterable[Hashable], variables: Iterable[Hashable]
) -> None:
    """Raise if a preprocess has changed what it must keep.

    Parameters
    ----------
    result : Any
        What it returned.
    block : xarray.Dataset
        What it was given.
    dims : iterable of Hashable
        Dims that must keep their size.
    variables : iterable of Hashable
        Variables that must be there.

    Raises
    ------
    TypeError
        If the result is not a Dataset.
    ValueError
        If a variable is missing, or a dim is or has another size.
    """
    if not isinstance(result, xr.Dataset):
        raise TypeError(f"preprocess must return an xarray Dataset, not {type(result).__name__}")
    for dim in dims:
        if dim in block.sizes and result.sizes.get(dim) != block.sizes[dim]:
            raise ValueError(
                f"preprocess must keep the dims of the samples, but it was given "
                f"{block.sizes[dim]} steps of {dim!r} and returned {result.sizes.get(dim, 'none')}"
            )
    for name in variables:
        if name not in result.data_vars:
            raise ValueError(
                f"no data variable {name!r} after preprocess, which has {list(result.data_vars)}"
                + (": it is a coordinate, and needs another name" if name in result.coords else "")
            )

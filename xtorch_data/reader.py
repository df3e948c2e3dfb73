"""One region of the data in memory: read through xarray, each chunk decoded once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import dask.base
import dask.threaded
import numpy as np
import xarray as xr

from .chunks import Chunks
from .direct import together
from .epoch import Load, shared_box
from .failures import Failure, read_by_chunks
from .lazy import decodes_on_the_loop, is_fetched, read_path
from .redact import without_secrets, words_of
from .retry import RETRIES, retried
from .stats import Recorder
from .streams import BLOCK_TRANSFORM, generator
from .transforms import Transform
from .windows import Windows

__all__ = ["ReadError", "Reader", "Region", "Rest", "check_preprocessed", "computed"]

# Reads under way at the same time; each already uses every core to decode its chunks.
CONCURRENT_READS = 4
# Of stores that are asked for chunks, which wait more than they work.
CONCURRENT_FETCHES = 32


class ReadError(RuntimeError):
    """A region of a variable could not be read.

    The message names the variable, the region and the source; ``__cause__`` is the error itself.
    """


# Steps of variables behind a region that were in the last chunk: where they begin, and the values.
Rest = dict[Hashable, tuple[int, xr.Variable]]


@dataclass(frozen=True, eq=False)
class Region:
    """What was read for a load: variables over its region, and those of which other steps were."""

    block: xr.Dataset
    whole_chunks: dict[Hashable, xr.Variable]


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
    graphs : concurrent.futures.Executor
        Where dask computes, unless it has been given a scheduler.
    retries : int
        Attempts after the first to read what fails in passing.
    skipping : mapping of Hashable to mapping of Hashable to Chunks, optional
        To go on without what cannot be read: the chunk grids of the variables. Without it, that is
        an error.
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
    graphs: Executor
    retries: int = RETRIES
    skipping: Mapping[Hashable, Mapping[Hashable, Chunks]] | None = None
    failures: list[Failure] = field(default_factory=list)
    _blocking: set[Hashable] = field(default_factory=set)
    _last: dict[Hashable, tuple[object, xr.Variable, asyncio.Future[None]]] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        fetched = any(map(is_fetched, self.dataset.variables.values()))
        self._slots = asyncio.Semaphore(CONCURRENT_FETCHES if fetched else CONCURRENT_READS)

    async def read(self, load: Load) -> Region:
        """Read the region of a load."""
        region = load.slices(self.windows)
        block = self.dataset.isel(region, missing_dims="ignore").copy(deep=False)
        along = self.windows.axes[load.axis].dim if load.whole_chunks else None
        own: dict[Hashable, xr.Variable] = {}
        whole: dict[Hashable, xr.Variable] = {}
        regions: dict[Hashable, Mapping[Hashable, slice]] = {}
        shared = []
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
                shared.append(self._read_shared(name, variable, region))
        await together([*shared, self._read_own(own, regions)])
        self.recorder.add(bytes_read=sum(variable.nbytes for variable in own.values()))
        return Region(block, whole)

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
            block[name] = block[name].copy(deep=False, data=inside.data)
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
    ) -> None:
        """Read what no other block reads but for its halo."""
        graphs = {name: each for name, each in variables.items() if each.chunks is not None}
        async with self._slots:  # before there are coroutines, which would be left if cancelled
            jobs = [
                self._read_one(name, variable, regions[name])
                for name, variable in variables.items()
                if name not in graphs
            ]
            if graphs:
                jobs.append(self._compute(graphs, regions))
            with self.recorder.timed("read"):
                await together(jobs)

    async def _read_shared(
        self, name: Hashable, variable: xr.Variable, region: Mapping[Hashable, slice]
    ) -> None:
        """Read a variable that lacks a dim, so that neighboring blocks ask for the same of it."""
        box = shared_box(variable.dims, region)
        held = self._last.get(name)
        if held is None or held[0] != box:
            reading = (
                self._read_one(name, variable, region)
                if variable.chunks is None
                else self._compute({name: variable}, {name: region})
            )
            held = self._last[name] = box, variable, asyncio.ensure_future(reading)
        try:
            # If this block is given up, others may still want it.
            await asyncio.shield(held[2])
        except Exception:
            if self._last.get(name) is held:  # the next one tries again
                del self._last[name]
            raise
        variable.data = held[1].data

    async def _read_one(
        self, name: Hashable, variable: xr.Variable, region: Mapping[Hashable, slice]
    ) -> None:
        async def load(part: xr.Variable) -> None:
            if name not in self._blocking and not decodes_on_the_loop(part):
                try:
                    await part.load_async()
                    return
                except NotImplementedError:  # the backend has no asynchronous reads
                    self._blocking.add(name)
            await self._run(part.load)

        self.recorder.add(**{f"read {read_path(variable)}": 1})
        try:
            await self._retried(lambda: load(variable), [name], region)
        except ReadError as error:
            await self._skip(name, variable, region, load, error)

    async def _skip(
        self,
        name: Hashable,
        variable: xr.Variable,
        region: Mapping[Hashable, slice],
        load: Callable[[xr.Variable], Coroutine[Any, Any, None]],
        error: ReadError,
    ) -> None:
        """Go on without the chunks that cannot be read, if that is wanted."""
        if self.skipping is None or isinstance(error.__cause__, MemoryError):
            raise error
        found = await read_by_chunks(name, variable, region, self.skipping.get(name, {}), load)
        self.failures.extend(found)
        self.recorder.fail(found)

    async def _compute(
        self,
        graphs: Mapping[Hashable, xr.Variable],
        regions: Mapping[Hashable, Mapping[Hashable, slice]],
    ) -> None:
        """Compute variables backed by dask together, so that they share what their graphs share."""

        def compute(variables: Sequence[xr.Variable]) -> None:
            lazy = [variable.data for variable in variables]
            results = computed(lazy, self.graphs)
            for variable, result in zip(variables, results, strict=True):
                variable.data = result

        async def load(part: xr.Variable) -> None:
            await self._run(compute, [part])

        self.recorder.add(**{"computed by dask": len(graphs)})
        every, first = list(graphs.values()), next(iter(regions.values()))
        try:
            await self._retried(lambda: self._run(compute, every), graphs, first)
        except ReadError as error:
            for name, variable in graphs.items():
                await self._skip(name, variable, regions[name], load, error)

    async def _retried(
        self,
        load: Callable[[], Coroutine[Any, Any, None]],
        names: Iterable[Hashable],
        region: Mapping[Hashable, slice],
    ) -> None:
        """Load, again if that fails in passing."""
        where = ", ".join(f"{dim}={part.start}:{part.stop}" for dim, part in region.items())
        what = f"{', '.join(repr(name) for name in names)} at isel({where}) from {self.origin}"
        try:
            await retried(load, self.retries, lambda: self.recorder.add(retries=1), what)
        except Exception as error:
            raise ReadError(f"could not read {what}: {words_of(error)}") from without_secrets(error)

    def _preprocessed(self, block: xr.Dataset, load: Load) -> xr.Dataset:
        assert self.preprocess is not None
        for name, variable in block.data_vars.items():
            source = self.dataset.variables[name]
            if source._in_memory or any(axis.dim not in source.dims for axis in self.windows.axes):
                # It is also the user's, or another block's, and the function may work in place.
                block[name] = variable.copy(deep=True)

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


def computed(collections: Sequence[Any], threads: Executor) -> Sequence[Any]:
    """What dask makes of some collections: on these threads, unless it has been given others.

    By default dask would start a pool for each thread that calls it, and keep it.
    """
    scheduler = dask.base.get_scheduler(collections=collections)  # type: ignore[no-untyped-call]
    plain = scheduler in (None, dask.threaded.get)
    options = {"scheduler": "threads", "pool": threads} if plain else {}
    return dask.base.compute(*collections, **options)  # type: ignore[no-untyped-call, no-any-return]


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
            )

"""Variables read from where they are, again if that fails in passing, or without what is lost."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import traceback
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from ..common.buffers import Buffers
from ..common.options import options
from ..common.recorder import Recorder, Way
from ..common.redact import without_secrets
from ..common.retry import RETRIES, is_transient, retried
from ..planning.edges import ExtendedDim, Laid
from ..planning.windows import Windows
from ..sources.declared_dtypes import UndeclaredError, as_declared
from ..sources.file_maps import FileMap, maps_of
from ..sources.lazy_arrays import contiguous, is_computed
from ..sources.source import layout_of
from .concurrency import on_executor, together
from .dask_graphs import DaskCompute
from .failures import (
    Failure,
    cause_of,
    first_failure,
    in_data,
    in_words,
    read_by_chunks,
)
from .laying import laid_out
from .recycled import decodes_on_the_loop, is_fetched, read_path
from .zarr_chunks import ChunkError, noting_missing

__all__ = ["ReadError", "Regions", "SourceReader", "concurrent_reads", "require_whole"]

logger = logging.getLogger(__name__)

# What is read of each variable.
Regions = Mapping[Hashable, Mapping[Hashable, slice]]

# Reads under way at the same time; each already uses every core to decode its chunks.
CONCURRENT_READS = 4
# Of stores that are asked for chunks, which wait more than they work.
CONCURRENT_FETCHES = 32


def concurrent_reads(dataset: xr.Dataset) -> int:
    """Number of regions of a dataset that are read at the same time."""
    fetched = any(map(is_fetched, dataset.variables.values()))
    return CONCURRENT_FETCHES if fetched else CONCURRENT_READS


class ReadError(RuntimeError):
    """A region of a variable could not be read.

    The message names the variable, the region, the file or store and, of a Zarr array that is not
    read by dask, the key of the chunk; ``__cause__`` is the error itself.
    """


def require_whole(maps: Iterable[FileMap]) -> None:
    """Raise if a file that is mapped into memory has been cut."""
    for each in maps:
        try:
            each.require_whole()
        except ValueError as error:
            raise ReadError(f"could not read: {error}") from error


@dataclass(eq=False)
class SourceReader:
    """Reads variables over their regions, in place.

    Made for an iteration, or the fetches of a process, by whoever owns the event loop on which its
    coroutines run.
    """

    dataset: xr.Dataset  # lazy
    origin: str  # of the data, for messages
    windows: Windows
    recorder: Recorder
    executor: Executor  # for work that would block the event loop
    graphs: DaskCompute
    retries: int = RETRIES  # attempts after the first, where a read fails in passing
    skipping: bool = False  # whether to go on without what cannot be read, else an error
    # Seconds until a request counts as failed.
    timeout: float | None = field(default_factory=lambda: options["read_timeout"])
    failures: list[Failure] = field(default_factory=list)  # so far
    # Dims beyond whose ends there is nothing.
    blank: Mapping[Hashable, ExtendedDim] = field(default_factory=dict)
    buffers: Buffers = field(default_factory=lambda: Buffers(0))  # memory for what is laid out anew
    laid: Laid = field(default_factory=dict)  # for messages
    _blocking: set[Hashable] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._maps = maps_of(self.dataset.variables.values())
        self._slots = asyncio.Semaphore(concurrent_reads(self.dataset))

    def require_maps(self) -> None:
        """Raise if a file that a variable in memory is a map of has been cut."""
        require_whole(self._maps)

    def blanked(self, variable: xr.Variable, region: Mapping[Hashable, slice]) -> Any:
        """The values that were read over a region, but none beyond the ends of the data."""
        values, copied = variable.data, False
        for dim, extended in self.blank.items():
            if dim not in variable.dims:
                continue
            cut = region[dim]
            nothing = np.flatnonzero(extended.steps[cut] < 0)
            if len(nothing):
                values = values if copied else np.array(values)
                copied = True
                at: tuple[Any, ...] = (slice(None),) * variable.dims.index(dim)
                kind = values.dtype.kind
                values[(*at, nothing)] = np.array("NaT", values.dtype) if kind in "mM" else np.nan
        return values

    def _note_missing(self, chunks: int) -> None:
        self.recorder.add(chunks_missing=chunks)

    async def on_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function on a thread that would block the event loop."""
        return await on_executor(self.executor, function, *args)

    async def read(
        self,
        variables: Mapping[Hashable, xr.Variable],
        regions: Regions,
        failed: dict[Hashable, ReadError] | None = None,
    ) -> None:
        """Read some variables; those that cannot be are noted in `failed`, if there is one.

        Else that is an error, or they are skipped in part.
        """
        whole = failed is not None

        # Given a function: a coroutine would be left if this is cancelled before it begins.
        async def noted(
            read: Callable[..., Coroutine[Any, Any, None]], names: Iterable[Hashable], *how: Any
        ) -> None:
            try:
                await read(*how)
            except ReadError as error:
                if failed is None:
                    raise
                failed.update(dict.fromkeys(names, error))

        graphs = {name: each for name, each in variables.items() if is_computed(each)}
        if graphs:
            plain = {name: each for name, each in variables.items() if name not in graphs}
            computing = noted(self.compute, graphs, graphs, regions, whole)
            await together([computing, self.read(plain, regions, failed)])
            return
        async with self._slots:  # before there are coroutines, which would be left if cancelled
            jobs = [
                noted(self._read_one, [name], name, variable, regions[name], whole)
                for name, variable in variables.items()
            ]
            with self.recorder.timed("read"):
                await together(jobs)

    async def _read_one(
        self,
        name: Hashable,
        variable: xr.Variable,
        region: Mapping[Hashable, slice],
        whole: bool = False,
    ) -> None:
        async def read(part: xr.Variable) -> None:
            noting_missing.set(self._note_missing)
            if name not in self._blocking and not decodes_on_the_loop(part):
                try:
                    await part.load_async()
                    return
                except NotImplementedError:  # the backend has no asynchronous reads
                    self._blocking.add(name)
                    logger.debug("%r has no asynchronous reads: threads read it", name)
            await self.on_thread(_load, part)

        async def load(_: Hashable, part: xr.Variable) -> None:
            declared = part.dtype
            plain, wanted = contiguous(part)
            await read(plain)
            if plain is not part:
                part.data = await self.on_thread(laid_out, plain, wanted, self.buffers)
            if part.dtype != declared:
                part.data = await self.on_thread(as_declared, part.data, declared)

        self.recorder.took({Way(f"read {read_path(variable)}"): 1})
        try:
            await self._retried(lambda: load(name, variable), [name], region)
        except Exception as error:
            await self._failed({name: variable}, {name: region}, load, error, whole)

    async def _failed(
        self,
        variables: Mapping[Hashable, xr.Variable],
        regions: Regions,
        load: Callable[[Hashable, xr.Variable], Coroutine[Any, Any, None]],
        error: Exception,
        whole: bool,
    ) -> None:
        """Go on without the chunks that cannot be read, if that is wanted, or say which it was."""
        cause, dims = cause_of(error), [axis.dim for axis in self.windows.axes]
        if isinstance(error, UndeclaredError):  # no damage, which may be skipped
            names = ", ".join(map(repr, variables))
            raise ReadError(f"could not read {names} from {self.origin}: {error}") from error

        async def load_part(
            name: Hashable, part: xr.Variable, cell: Mapping[Hashable, slice]
        ) -> None:
            # What fails in passing does so with a part, too, and is no damage.
            await self._retried(lambda: load(name, part), variables, cell)

        if whole and self.skipping:  # less is asked for once more
            raise ReadError(f"could not read {', '.join(map(repr, variables))}") from cause
        every = self.dataset.variables
        grids = {name: layout_of(every[name], name, dims).chunks for name in variables}
        if self.skipping and not isinstance(cause, MemoryError):
            for name, variable in variables.items():
                found = await read_by_chunks(
                    name,
                    variable,
                    regions[name],
                    grids[name],
                    partial(load_part, name),
                    self.origin,
                    self.laid,
                )
                self.failures.extend(found)
                self.recorder.fail(found)
            return
        failures = [
            Failure.of(name, variable, regions[name], self.origin, error, self.laid)
            for name, variable in variables.items()
        ]
        # If memory or the store is to blame, no chunk is; and some errors name theirs.
        if not isinstance(error, ChunkError | MemoryError) and not is_transient(error):
            for failure in failures:
                name = failure.variable
                load_own = partial(load_part, name)
                part = await first_failure(variables[name], regions[name], grids[name], load_own)
                if part is not None:
                    failures = [Failure.of(name, *part, self.origin, error, self.laid)]
                    break
        message = f"could not read {'; '.join(map(str, failures[:3]))}"
        raise ReadError(message) from without_secrets(cause)

    async def compute(
        self,
        graphs: Mapping[Hashable, xr.Variable],
        regions: Regions,
        whole: bool = False,
    ) -> None:
        """Compute variables of dask together, so that they share what their graphs share."""

        async def compute(variables: Mapping[Hashable, xr.Variable]) -> None:
            lazy = [variable.data for variable in variables.values()]
            # Elsewhere as many blocks at a time as there is memory for.
            results, way = await self.graphs.on_cluster(lazy), Way.COMPUTED_ON_CLUSTER
            if results is None:
                async with self._slots:
                    results, way = await self.on_thread(self.graphs.here, lazy), Way.COMPUTED_HERE
            for variable, result in zip(variables.values(), results, strict=True):
                declared, variable.data = variable.dtype, result
                if variable.dtype != declared:
                    variable.data = await self.on_thread(as_declared, variable.data, declared)
            self.recorder.took({way: len(lazy)})

        with self.recorder.timed("read"):
            try:
                await self._retried(lambda: compute(graphs), graphs, regions[next(iter(graphs))])
            except Exception as error:
                await self._failed(
                    graphs, regions, lambda name, part: compute({name: part}), error, whole
                )

    async def _retried(
        self,
        load: Callable[[], Coroutine[Any, Any, None]],
        names: Iterable[Hashable],
        region: Mapping[Hashable, slice],
    ) -> None:
        """Load, again if that fails in passing."""
        where = in_words(in_data(region, self.laid))
        what = f"{', '.join(repr(name) for name in names)} at isel({where}) from {self.origin}"

        def note() -> None:
            self.recorder.add(retries=1)

        await retried(load, self.retries, note, what, self.timeout)


def _load(part: xr.Variable) -> None:
    """Load a variable; if that fails, let go here of what the calls have held.

    Left to the garbage collector, objects of HDF5 may be freed on the thread of a file system,
    which then waits for HDF5's lock, while whoever has that waits for the file system.
    """
    try:
        part.load()
    except Exception as error:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if not frame.f_code.co_flags & _GOES_ON:  # to clear such a frame would end it
                with contextlib.suppress(RuntimeError):  # it is not over
                    frame.clear()
        raise


_GOES_ON = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR

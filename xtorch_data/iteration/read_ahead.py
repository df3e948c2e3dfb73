"""Stages on their way: planned, being read, held until their last sample is gathered."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from ..common.recorder import Recorder
from ..device.gather import DeviceGather
from ..gathering.assembly import Assembly
from ..gathering.halo import Preparer, Tail
from ..gathering.located import Located
from ..gathering.stage import Loaded
from ..gathering.views import PieceInMemory
from ..planning.blocks import INDEX_BYTES
from ..planning.stages import BlockRead, Stage
from ..reading.failures import reaching
from ..reading.regions import Reader, Rest
from ..reading.variables import ReadError
from .cache import BlockCache
from .single_reads import first_that_is_there
from .substitutes import StandIn

__all__ = ["Flight", "Flights", "Portion"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Block:
    """What was made of a load: its pieces, and what the next load needs of it."""

    pieces: list[PieceInMemory]
    tail: Tail
    rest: Rest


@dataclass(eq=False)
class Flight:
    """A stage from its planning to its last sample."""

    stage: Stage
    nbytes: int
    left: int  # samples that are still to be gathered
    # Earlier ones that have read what it needs, too; and how many, with itself, need its memory.
    carries: tuple[Flight, ...] = ()
    users: int = 1
    there: int = 0  # bytes on the device
    loaded: Future[Loaded] = field(default_factory=Future)
    # What the next stage needs of this one, before and after preprocess.
    rest: Future[Rest] = field(default_factory=Future)
    tail: Future[Tail] = field(default_factory=Future)
    stand_in: StandIn | None = None  # where what cannot be read is skipped

    def drop(self) -> None:
        """Free the blocks."""
        self.loaded = Future()
        self.loaded.cancel()

    def release(self) -> int:
        """Note that one that needs its memory does so no more; how many bytes are free by that."""
        self.users -= 1
        if self.users:
            return 0
        self.tail = Future()  # before the next one takes memory
        self.tail.set_result(())
        return self.nbytes


@dataclass(eq=False)
class Portion:
    """Samples of one stage that go into one batch."""

    flight: Flight
    start: int
    stop: int


class Flights:
    """The stages that are planned, being read or held, within the memory budget."""

    def __init__(
        self,
        stages: Iterator[Stage],
        nbytes: Callable[[BlockRead], int],
        memory: int,
        loop: asyncio.AbstractEventLoop,
        reader: Reader,
        preparer: Preparer,
        cache: BlockCache | None,
        recorder: Recorder,
        gather: DeviceGather | None,
        all_stages: Callable[[], Iterator[Stage]],
    ) -> None:
        self._stages, self._all_stages = stages, all_stages
        self._nbytes = nbytes
        self._memory = memory
        self._loop = loop
        self._reader = reader
        self._preparer = preparer
        self._cache = cache
        self._recorder = recorder
        self._gather = gather
        self._context = contextvars.copy_context()
        # The garbage collector may close an iteration in the middle of a locked stretch.
        self._lock = threading.RLock()
        self._searching = threading.Lock()
        self._searched = False
        self._found: tuple[Loaded, Located] | None = None
        self._untaken: deque[Flight] = deque()  # planned, no batch takes from them yet
        self._unread: deque[Flight] = deque()  # planned, reading has not begun
        self._live: set[Flight] = set()
        self._held = 0  # bytes of stages held or being read
        self._there = 0  # bytes of these on the device
        self._begun = 0  # stages being read, or read and with samples left
        self._before: Flight | None = None  # the one that was last begun
        self._last: Flight | None = None  # the one that was last planned
        self._closed = False

    def portions(self, batches: Iterator[int]) -> Iterator[list[Portion]]:
        """What each batch takes from which stages."""
        flight: Flight | None = None
        position = 0
        for size in batches:
            taken: list[Portion] = []
            while size > 0:
                if flight is None:
                    flight, position = self._next(), 0
                stop = min(position + size, flight.stage.stop - flight.stage.start)
                taken.append(Portion(flight, position, stop))
                size -= stop - position
                position = stop
                if position == flight.stage.stop - flight.stage.start:
                    flight = None
            yield taken

    def _next(self) -> Flight:
        with self._lock:
            if not self._untaken:
                self._plan()
            self._read_ahead()
            return self._untaken.popleft()

    def done(self, portion: Portion, assemble: Callable[[int], Assembly]) -> None:
        """Note that a portion has been gathered; free its stage if it was the last one."""
        flight = portion.flight
        with self._lock:
            flight.left -= portion.stop - portion.start
            if flight.left:
                return
        if flight.stand_in is not None:
            flight.stand_in.end(assemble)
        with self._lock:
            self._live.discard(flight)
            flight.drop()
            self._begun -= 1
            self._held -= sum(each.release() for each in (flight, *flight.carries))
            self._there -= flight.there
            flight.carries = ()
            self._read_ahead()

    def require_maps(self) -> None:
        """Raise if a file that is mapped into memory, and gathered from, has been cut."""
        self._reader.source.require_maps()

    def stand_in(
        self, flight: Flight, assembly: Assembly, assemble: Callable[[int], Assembly]
    ) -> None:
        """Put a sample that is there into a batch of which nothing could be read.

        The batch cannot be left out: all ranks must have as many, and a state counts them.
        """
        assert flight.stand_in is not None
        kept = flight.stand_in.find() or self._later(assemble)
        if kept is None:
            what = "; ".join(map(str, self._reader.source.failures[:3]))
            raise ReadError(f"no sample of a whole batch could be read, nor any other: {what}")
        assembly.add(0, *kept)
        number = int(kept[1].numbers[0])
        logger.warning("sample %d stands in for a batch of which nothing could be read", number)
        self._recorder.add(repeated=1)

    def _later(self, assemble: Callable[[int], Assembly]) -> tuple[Loaded, Located] | None:
        """A sample that can be read where there was none so far; looked for once."""
        with self._searching:
            if not self._searched:
                with self._lock:
                    if self._closed:
                        raise CancelledError
                    search = asyncio.run_coroutine_threadsafe(self._search(), self._loop)
                found = search.result()
                if found is not None:  # without the memory that it was read into
                    self._found = assemble(1).alone(*found), found[1]
                self._searched = True
            return self._found

    async def _search(self) -> tuple[Loaded, Located] | None:
        found = await first_that_is_there(self._all_stages, self._reader, self._preparer)
        if found is None or self._gather is None:
            return found
        return await self._loop.run_in_executor(None, self._gather.send, found[0]), found[1]

    def close(self) -> None:
        """Read nothing more and wake whoever waits for a stage."""
        with self._lock:
            self._closed = True
            for flight in list(self._live):
                flight.loaded.cancel()
                flight.rest.cancel()
                flight.tail.cancel()

    # With the lock held:

    def _plan(self) -> bool:
        stage = next(self._stages, None)
        if stage is None:
            return False
        samples = stage.stop - stage.start
        nbytes = sum(
            self._nbytes(load)
            for load in stage.loads
            if self._cache is None or load.key not in self._cache
        )
        nbytes += INDEX_BYTES * samples if stage.shuffle else 0
        flight = Flight(stage, nbytes, samples, self._carried(stage))
        if self._gather is not None:  # also what is in the cache is sent
            flight.there = sum(map(self._nbytes, stage.loads))
        for each in flight.carries:
            each.users += 1
        if self._reader.source.skipping:
            before = None if self._last is None else self._last.stand_in
            flight.stand_in = StandIn(flight.loaded, before)
        self._last = flight
        self._live.add(flight)
        self._untaken.append(flight)
        self._unread.append(flight)
        return True

    def _carried(self, stage: Stage) -> tuple[Flight, ...]:
        """The stages before this one that have read what it needs."""
        found: tuple[Flight, ...] = ()
        carried = stage.loads[0].carried if len(stage.loads) == 1 else None
        if carried is not None and self._last is not None:
            for each in (*self._last.carries, self._last):
                (load,) = each.stage.loads
                if each.users and load.region[load.axis][1] > carried:
                    found += (each,)
        return found

    def _read_ahead(self) -> None:
        while not self._closed and (self._unread or self._plan()):
            flight = self._unread[0]
            cached = 0 if self._cache is None else self._cache.nbytes
            if self._begun and cached + self._held + flight.nbytes > self._memory:
                return
            if self._begun and self._gather is not None:
                if self._there + flight.there > self._gather.memory:
                    return
            self._unread.popleft()
            self._begun += 1
            self._held += flight.nbytes
            self._there += flight.there
            before, self._before = self._before, flight
            loading = self._load(flight, before)
            # Reads go on on several threads, but all of them as that of the consumer would.
            self._context.copy().run(asyncio.run_coroutine_threadsafe, loading, self._loop)

    # On the event loop:

    async def _load(self, flight: Flight, before: Flight | None) -> None:
        try:
            order = self._loop.run_in_executor(None, flight.stage.order)
            loads = [self._pieces(load, flight, before) for load in flight.stage.loads]
            pieces = [piece for found in await asyncio.gather(*loads) for piece in found]
            windows = self._reader.windows
            regions = [piece.piece.region for piece in pieces]
            failures = reaching(self._reader.source.failures, regions, windows)
            loaded = Loaded(windows, pieces, await order, failures)
            del pieces
            if self._gather is not None:
                loaded = await self._loop.run_in_executor(None, self._gather.send, loaded)
            _settle(flight.loaded, loaded)
        except BaseException as error:
            _settle(flight.rest, error)
            _settle(flight.tail, error)
            _settle(flight.loaded, error)
            if not isinstance(error, Exception):
                raise

    async def _pieces(
        self, load: BlockRead, flight: Flight, before: Flight | None
    ) -> list[PieceInMemory]:
        kept = None if self._cache is None else self._cache.get(load.key)
        if kept is not None:
            self._recorder.add(blocks_cached=1)
        else:
            kept = await self._read(load, before)
            logger.debug("block %d is read: %s", load.block, load.region)
            nbytes = self._nbytes(load)
            # What is not all there, or may hold on to such, is read again in the next epoch.
            cache = None if self._reader.source.failures else self._cache
            if cache is not None and cache.offer(load.key, kept, nbytes):
                with self._lock:  # now the cache counts them
                    flight.nbytes -= nbytes
                    self._held -= nbytes
        if len(flight.stage.loads) == 1:
            _settle(flight.rest, kept.rest)
            _settle(flight.tail, kept.tail)
        return kept.pieces

    async def _read(self, load: BlockRead, before: Flight | None) -> _Block:
        reader = self._reader
        found = await reader.read(load)
        self._recorder.add(**{"blocks_cached" if found.on_disk else "blocks_read": 1})
        block, rest = found.block, Rest()
        if load.whole_chunks:
            earlier = Rest() if before is None else await asyncio.wrap_future(before.rest)
            block, rest = await reader.aligned(load, found, earlier)
        block = await reader.preprocessed(load, block)
        tail: Tail = ()
        if load.carried is not None and before is not None:
            tail = await asyncio.wrap_future(before.tail)
        prepared = self._loop.run_in_executor(None, self._prepare, load, block, tail)
        return _Block(*await prepared, rest)

    def _prepare(
        self, load: BlockRead, block: xr.Dataset, tail: Tail
    ) -> tuple[list[PieceInMemory], Tail]:
        self._reader.source.require_maps()
        with self._recorder.timed("prepare"):
            return self._preparer.pieces(load, block, tail)


def _settle(future: Future[Any], outcome: Any) -> None:
    """Give a future its outcome, unless it has one or has been given up."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(outcome, asyncio.CancelledError):
            future.cancel()
        elif isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

"""Blocks are read ahead, batches are gathered beside the consumer, order is kept."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import itertools
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from .assembly import Assembly
from .batch import Batch
from .blocks import INDEX_BYTES
from .cache import BlockCache
from .device_gather import DeviceGather
from .epoch import Load, Stage
from .failures import reaching
from .gather import PieceInMemory
from .graphs import threads_for_graphs
from .loaded import Loaded, Located
from .prepare import Preparer, Tail
from .reader import Reader, ReadError, Rest
from .stand_ins import StandIn
from .stats import Recorder

__all__ = ["Lookahead", "run"]

logger = logging.getLogger(__name__)

GATHER_THREADS = 2
# Threads for reads without async, preprocess and preparation.
WORK_THREADS = 8
# Of larger batches, fewer are gathered ahead.
LARGE_BATCH_BYTES = 16 * 2**20
# Small batches are gathered several at a time: as many as this, or as make so many bytes.
SMALL_BATCHES, JOB_BYTES = 64, 2**20


@dataclass(frozen=True)
class Lookahead:
    """How far batches are gathered ahead.

    Attributes
    ----------
    jobs : int
        Jobs of gathering that are begun ahead.
    together : int
        Batches gathered in one job.
    """

    jobs: int
    together: int

    @classmethod
    def of(cls, batch_nbytes: int, functions: bool) -> Lookahead:
        """For batches of some bytes, and whether the user has functions for them."""
        small = max(1, min(SMALL_BATCHES, JOB_BYTES // max(1, batch_nbytes)))
        return cls(2 if batch_nbytes > LARGE_BATCH_BYTES else 4, 1 if functions else small)


@dataclass(frozen=True, eq=False)
class _Block:
    """What was made of a load: its pieces, and what the next load needs of it."""

    pieces: list[PieceInMemory]
    tail: Tail
    rest: Rest


@dataclass(eq=False)
class _Flight:
    """A stage from its planning to its last sample."""

    stage: Stage
    nbytes: int
    left: int  # samples that are still to be gathered
    # Earlier ones that have read what it needs, too; and how many, with itself, need its memory.
    carries: tuple[_Flight, ...] = ()
    users: int = 1
    there: int = 0  # bytes on the device
    loaded: Future[Loaded] = field(default_factory=Future)
    # What the next stage needs of this one, before and after preprocess.
    rest: Future[Rest] = field(default_factory=Future)
    tail: Future[Tail] = field(default_factory=Future)

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
class _Portion:
    """Samples of one stage that go into one batch."""

    flight: _Flight
    start: int
    stop: int


def run(
    stages: Iterator[Stage],
    batches: Iterator[int],
    make_reader: Callable[[_Threads], Reader],
    preparer: Preparer,
    assemble: Callable[[int], Assembly],
    single: bool,
    lookahead: Lookahead,
    nbytes: Callable[[Load], int],
    memory: int,
    cache: BlockCache | None,
    recorder: Recorder,
    gather: DeviceGather | None = None,
) -> Generator[Batch, None, None]:
    """Read the stages of a walk along the line and yield their samples in batches.

    Threads are there while the generator is: it may be closed at any time.

    Parameters
    ----------
    stages : iterator of Stage
        What to read, in order.
    batches : iterator of int
        Number of samples of every batch.
    make_reader : callable
        Makes the reader from an object with the executors ``work`` and ``dask``.
    preparer : Preparer
        Makes what was read ready to be gathered.
    assemble : callable
        Begins a batch of so many samples.
    single : bool
        Whether batches are single samples without the batch dimension.
    lookahead : Lookahead
        How far batches are gathered ahead.
    nbytes : callable
        Bytes that a load takes in memory.
    memory : int
        Bytes of all stages held or being read, and of the cache, at most; a single stage may
        exceed it.
    cache : BlockCache, optional
        Where blocks are kept for later epochs.
    recorder : Recorder
        What has been done is noted here.
    gather : DeviceGather, optional
        Where stages are sent to be gathered on a device.
    """
    threads = _Threads(None if gather is None else gather.gathering.begin)
    reader = make_reader(threads)
    flights = _Flights(
        stages, nbytes, memory, threads.loop, reader, preparer, cache, recorder, gather
    )
    threads.begin(flights)
    jobs = _jobs(flights.portions(batches), lookahead.together)
    waiting: deque[Future[list[Batch | Exception]]] = deque()
    stand_in: StandIn | None = None
    try:
        while True:
            while len(waiting) < lookahead.jobs:
                taken = next(jobs, None)
                if taken is None:
                    break
                stand_in = StandIn(stand_in)
                how = flights, assemble, single, recorder
                waiting.append(threads.gather.submit(_gather_all, taken, stand_in, *how))
            if not waiting:
                return
            with recorder.timed("wait"):
                gathered = deque(waiting.popleft().result())
            while gathered:
                batch = gathered.popleft()
                if isinstance(batch, Exception):
                    raise batch
                recorder.add(batches=1, samples=batch.index.numel())
                yield batch
                del batch  # its memory can be used again, if the consumer has let go of it, too
    finally:
        threads.close()
        recorder.end()


class _Threads:
    """The threads of one iteration: an event loop, and pools for what would block it."""

    def __init__(self, begin_gathering: Callable[[], None] | None = None) -> None:
        self.work = ThreadPoolExecutor(WORK_THREADS, "xtorch_data-work")
        self.dask = threads_for_graphs()
        self.gather = ThreadPoolExecutor(GATHER_THREADS, "xtorch_data-gather", begin_gathering)
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(self.work)
        self._thread = threading.Thread(target=self._run, name="xtorch_data-reader", daemon=True)
        self._process = os.getpid()
        self._flights: _Flights | None = None

    def begin(self, flights: _Flights) -> None:
        """Start the event loop."""
        self._flights = flights
        _open.add(self)
        self._thread.start()

    def _run(self) -> None:
        self.loop.run_forever()
        self.loop.close()  # and with it the pool of work
        self.dask.shutdown(wait=False)

    def close(self) -> None:
        """Let every thread come to its end, and wait for it; may be called again.

        First all that does not wait, so that threads end also if waiting is interrupted.
        """
        if self._process != os.getpid():
            return  # a fork has the object, but not the threads
        if self._flights is not None:
            self._flights.close()
            self._flights = None
            self.gather.shutdown(wait=False, cancel_futures=True)
            asyncio.run_coroutine_threadsafe(_stop(), self.loop)
        if threading.current_thread().name.startswith("xtorch_data-"):
            return  # the garbage collector may run this on one of the threads
        self.gather.shutdown(wait=True)
        self._thread.join()
        self.work.shutdown(wait=True, cancel_futures=True)
        self.dask.shutdown(wait=True, cancel_futures=True)
        _open.discard(self)


_open: weakref.WeakSet[_Threads] = weakref.WeakSet()


def _close_all() -> None:
    """End iterations that are still open, while there are threads to end them."""
    for threads in list(_open):
        threads.close()


# Before executors wait for their threads, which may wait for what a cluster no longer computes.
getattr(threading, "_register_atexit", atexit.register)(_close_all)


async def _stop() -> None:
    """Cancel everything on the event loop and let it end."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    asyncio.get_running_loop().stop()


def _jobs(batches: Iterator[list[_Portion]], together: int) -> Iterator[list[list[_Portion]]]:
    """Batches that are gathered in one job: several, if what they take from is in memory."""
    job: list[list[_Portion]] = []
    for portions in batches:
        ready = all(portion.flight.loaded.done() for portion in portions)
        if job and (not ready or len(job) == together):
            yield job
            job = []
        job.append(portions)
        if not ready:
            yield job
            job = []
    if job:
        yield job


def _gather_all(
    batches: list[list[_Portion]], stand_in: StandIn, *how: Any
) -> list[Batch | Exception]:
    """Gather some batches, on a thread; what went wrong comes after those before it."""
    try:
        return _gathered(batches, stand_in, *how)
    finally:
        stand_in.end()


def _gathered(batches: list[list[_Portion]], *how: Any) -> list[Batch | Exception]:
    stretches: dict[_Flight, tuple[int, int]] = {}
    for portion in itertools.chain.from_iterable(batches):
        start, _ = stretches.get(portion.flight, (portion.start, 0))
        stretches[portion.flight] = start, portion.stop
    located: dict[_Flight, Located] = {}
    found: list[Batch | Exception] = []
    for portions in batches:
        try:
            found.append(_gather(portions, stretches, located, *how))
        except Exception as error:
            found.append(error)
            break
    return found


def _gather(
    portions: list[_Portion],
    stretches: dict[_Flight, tuple[int, int]],
    located: dict[_Flight, Located],
    stand_in: StandIn,
    flights: _Flights,
    assemble: Callable[[int], Assembly],
    single: bool,
    recorder: Recorder,
) -> Batch:
    """Gather one batch, from one stage after the other.

    Where samples lie is worked out for all batches of a job at once: their stretches of the stages.
    """
    assembly = assemble(sum(portion.stop - portion.start for portion in portions))
    row, seconds = 0, 0.0
    skipped: list[int] = []
    for portion in portions:
        flight, count = portion.flight, portion.stop - portion.start
        loaded = flight.loaded.result()
        begun = time.perf_counter()
        if flight not in located:
            located[flight] = loaded.locate(*stretches[flight])
        first = portion.start - stretches[flight][0]
        wanted = located[flight].part(first, first + count)
        found = wanted.there()
        skipped += wanted.not_there()
        assembly.add(row, loaded, found)
        row += len(found.numbers)
        if len(found.numbers):
            flights.keep(stand_in, loaded, found)
        elif portion is portions[-1] and row == 0:
            flights.stand_in(stand_in, assembly, loaded)
        del loaded
        seconds += time.perf_counter() - begun
        flights.done(portion)
    begun = time.perf_counter()
    batch = assembly.finish(single, skipped)
    seconds += time.perf_counter() - begun
    transform = assembly.transform_seconds
    nbytes = sum(tensor.nbytes for tensor in batch)
    recorder.add(
        gather=seconds - transform,
        transform=transform,
        bytes_gathered=nbytes,
        skipped=len(skipped),
        **assembly.paths,
    )
    return batch


class _Flights:
    """The stages that are planned, being read or held, within the memory budget."""

    def __init__(
        self,
        stages: Iterator[Stage],
        nbytes: Callable[[Load], int],
        memory: int,
        loop: asyncio.AbstractEventLoop,
        reader: Reader,
        preparer: Preparer,
        cache: BlockCache | None,
        recorder: Recorder,
        gather: DeviceGather | None,
    ) -> None:
        self._stages = stages
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
        self._untaken: deque[_Flight] = deque()  # planned, no batch takes from them yet
        self._unread: deque[_Flight] = deque()  # planned, reading has not begun
        self._live: set[_Flight] = set()
        self._held = 0  # bytes of stages held or being read
        self._there = 0  # bytes of these on the device
        self._begun = 0  # stages being read, or read and with samples left
        self._before: _Flight | None = None  # the one that was last begun
        self._last: _Flight | None = None  # the one that was last planned
        self._closed = False

    def portions(self, batches: Iterator[int]) -> Iterator[list[_Portion]]:
        """What each batch takes from which stages."""
        flight: _Flight | None = None
        position = 0
        for size in batches:
            taken: list[_Portion] = []
            while size > 0:
                if flight is None:
                    flight, position = self._next(), 0
                stop = min(position + size, flight.stage.stop - flight.stage.start)
                taken.append(_Portion(flight, position, stop))
                size -= stop - position
                position = stop
                if position == flight.stage.stop - flight.stage.start:
                    flight = None
            yield taken

    def _next(self) -> _Flight:
        with self._lock:
            if not self._untaken:
                self._plan()
            self._read_ahead()
            return self._untaken.popleft()

    def done(self, portion: _Portion) -> None:
        """Note that a portion has been gathered; free its stage if it was the last one."""
        flight = portion.flight
        with self._lock:
            flight.left -= portion.stop - portion.start
            if flight.left == 0:
                self._live.discard(flight)
                flight.drop()
                self._begun -= 1
                self._held -= sum(each.release() for each in (flight, *flight.carries))
                self._there -= flight.there
                flight.carries = ()
                self._read_ahead()

    def keep(self, stand_in: StandIn, loaded: Loaded, found: Located) -> None:
        """Keep a sample in case nothing of a later batch can be read."""
        if self._reader.skipping:
            stand_in.keep(loaded, found.part(0, 1))

    def stand_in(self, stand_in: StandIn, assembly: Assembly, loaded: Loaded) -> None:
        """Put a sample that is there into a batch of which nothing could be read.

        The batch cannot be left out: all ranks must have as many, and a state counts them.
        """
        found = loaded.one_that_is_there()
        if found is not None:
            stand_in.keep(loaded, found)
        kept = stand_in.last()
        if kept is None:
            what = "; ".join(map(str, self._reader.failures[:3]))
            raise ReadError(f"no sample of a whole batch could be read, nor one before it: {what}")
        assembly.add(0, *kept)
        number = int(kept[1].numbers[0])
        logger.warning("sample %d stands in for a batch of which nothing could be read", number)
        self._recorder.add(repeated=1)

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
        flight = _Flight(stage, nbytes, samples, self._carried(stage))
        if self._gather is not None:  # also what is in the cache is sent
            flight.there = sum(map(self._nbytes, stage.loads))
        for each in flight.carries:
            each.users += 1
        self._last = flight
        self._live.add(flight)
        self._untaken.append(flight)
        self._unread.append(flight)
        return True

    def _carried(self, stage: Stage) -> tuple[_Flight, ...]:
        """The stages before this one that have read what it needs."""
        found: tuple[_Flight, ...] = ()
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

    async def _load(self, flight: _Flight, before: _Flight | None) -> None:
        try:
            order = self._loop.run_in_executor(None, flight.stage.order)
            loads = [self._pieces(load, flight, before) for load in flight.stage.loads]
            pieces = [piece for found in await asyncio.gather(*loads) for piece in found]
            windows = self._reader.windows
            regions = [piece.piece.region for piece in pieces]
            failures = reaching(self._reader.failures, regions, windows)
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
        self, load: Load, flight: _Flight, before: _Flight | None
    ) -> list[PieceInMemory]:
        kept = None if self._cache is None else self._cache.get(load.key)
        if kept is not None:
            self._recorder.add(blocks_cached=1)
        else:
            kept = await self._read(load, before)
            logger.debug("block %d is read: %s", load.block, load.region)
            nbytes = self._nbytes(load)
            # What is not all there, or may hold on to such, is read again in the next epoch.
            cache = None if self._reader.failures else self._cache
            if cache is not None and cache.offer(load.key, kept, nbytes):
                with self._lock:  # now the cache counts them
                    flight.nbytes -= nbytes
                    self._held -= nbytes
        if len(flight.stage.loads) == 1:
            _settle(flight.rest, kept.rest)
            _settle(flight.tail, kept.tail)
        return kept.pieces

    async def _read(self, load: Load, before: _Flight | None) -> _Block:
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
        self, load: Load, block: xr.Dataset, tail: Tail
    ) -> tuple[list[PieceInMemory], Tail]:
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

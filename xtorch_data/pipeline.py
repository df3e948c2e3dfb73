"""Blocks are read ahead, batches are gathered beside the consumer, order is kept."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .assembly import Assembly
from .batch import Batch
from .buffers import Buffers
from .epoch import Load, Stage, as_indices
from .gather import PieceInMemory
from .reader import Reader, Rest, Tail
from .windows import IntArray

__all__ = ["run"]

# Batches gathered ahead of the one that is handed out.
BATCHES_AHEAD = 3
GATHER_THREADS = 2
# Threads for reads without async, preprocess and preparation.
WORK_THREADS = 8


@dataclass(eq=False)
class _Loaded:
    """A stage whose blocks are in memory."""

    pieces: list[PieceInMemory]
    begins: IntArray  # number, among all samples of the stage, of each piece's first sample
    order: IntArray | range


@dataclass(eq=False)
class _Flight:
    """A stage from its planning to its last sample."""

    stage: Stage
    nbytes: int
    left: int  # samples that are still to be gathered
    loaded: Future[_Loaded] = field(default_factory=Future)
    # What the next stage needs of this one, before and after preprocess.
    rest: Future[Rest] = field(default_factory=Future)
    tail: Future[Tail | None] = field(default_factory=Future)

    def drop(self) -> None:
        """Free the blocks."""
        self.loaded = Future()
        self.loaded.cancel()


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
    assemble: Callable[[Buffers, int], Assembly],
    single: bool,
    nbytes: Callable[[Stage], int],
    memory: int,
) -> Iterator[Batch]:
    """Read the stages of a walk along the line and yield their samples in batches.

    Threads are there while the generator is: it may be closed at any time.

    Parameters
    ----------
    stages : iterator of Stage
        What to read, in order.
    batches : iterator of int
        Number of samples of every batch.
    make_reader : callable
        Makes the reader from an object with the executors ``work`` and ``graphs``.
    assemble : callable
        Begins a batch of so many samples.
    single : bool
        Whether batches are single samples without the batch dimension.
    nbytes : callable
        Bytes that a stage takes in memory.
    memory : int
        Bytes of all stages held or being read, at most; a single stage may exceed it.
    """
    threads = _Threads()
    flights = _Flights(stages, nbytes, memory, threads.loop, make_reader(threads))
    threads.begin(flights)
    buffers = Buffers()
    portions = flights.portions(batches)
    waiting: deque[Future[Batch]] = deque()
    try:
        while True:
            while len(waiting) < BATCHES_AHEAD:
                taken = next(portions, None)
                if taken is None:
                    break
                waiting.append(
                    threads.gather.submit(_gather, taken, flights, assemble, buffers, single)
                )
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        threads.close()


class _Threads:
    """The threads of one iteration: an event loop, and pools for what would block it."""

    def __init__(self) -> None:
        self.work = ThreadPoolExecutor(WORK_THREADS, "xtorch_data-work")
        # Of its own: work that waits for a graph must not take the threads that compute it.
        self.graphs = ThreadPoolExecutor(os.cpu_count(), "xtorch_data-dask")
        self.gather = ThreadPoolExecutor(GATHER_THREADS, "xtorch_data-gather")
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(self.work)
        self._thread = threading.Thread(
            target=self.loop.run_forever, name="xtorch_data-reader", daemon=True
        )
        self._flights: _Flights | None = None

    def begin(self, flights: _Flights) -> None:
        """Start the event loop."""
        self._flights = flights
        _open.add(self)
        self._thread.start()

    def close(self) -> None:
        """Let every thread come to its end; may be called again."""
        if self._flights is None:
            return
        self._flights.close()
        self._flights = None
        _open.discard(self)
        self.gather.shutdown(wait=True, cancel_futures=True)
        asyncio.run_coroutine_threadsafe(_cancel_all(), self.loop).result()
        self.work.shutdown(wait=True, cancel_futures=True)
        self.graphs.shutdown(wait=True, cancel_futures=True)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


_open: weakref.WeakSet[_Threads] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End iterations that are still open, while there are threads to end them."""
    for threads in list(_open):
        threads.close()


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _gather(
    portions: list[_Portion],
    flights: _Flights,
    assemble: Callable[[Buffers, int], Assembly],
    buffers: Buffers,
    single: bool,
) -> Batch:
    """Gather one batch, from one stage after the other; on a thread."""
    assembly = assemble(buffers, sum(portion.stop - portion.start for portion in portions))
    row = 0
    for portion in portions:
        loaded = portion.flight.loaded.result()
        order = as_indices(loaded.order[portion.start : portion.stop])
        if len(loaded.pieces) == 1:
            assembly.add(np.arange(row, row + len(order)), loaded.pieces[0], order)
        else:
            of_piece = np.searchsorted(loaded.begins, order, side="right") - 1
            for piece in np.unique(of_piece).tolist():
                rows = np.flatnonzero(of_piece == piece)
                assembly.add(rows + row, loaded.pieces[piece], order[rows] - loaded.begins[piece])
        row += len(order)
        del loaded
        flights.done(portion)
    return assembly.finish(single)


class _Flights:
    """The stages that are planned, being read or held, within the memory budget."""

    def __init__(
        self,
        stages: Iterator[Stage],
        nbytes: Callable[[Stage], int],
        memory: int,
        loop: asyncio.AbstractEventLoop,
        reader: Reader,
    ) -> None:
        self._stages = stages
        self._nbytes = nbytes
        self._memory = memory
        self._loop = loop
        self._reader = reader
        self._lock = threading.Lock()
        self._untaken: deque[_Flight] = deque()  # planned, no batch takes from them yet
        self._unread: deque[_Flight] = deque()  # planned, reading has not begun
        self._live: set[_Flight] = set()
        self._held = 0  # bytes of stages held or being read
        self._before: _Flight | None = None
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
                self._held -= flight.nbytes
                self._read_ahead()

    def close(self) -> None:
        """Read nothing more and wake whoever waits for a stage."""
        with self._lock:
            self._closed = True
            for flight in self._live:
                flight.loaded.cancel()
                flight.rest.cancel()
                flight.tail.cancel()

    # With the lock held:

    def _plan(self) -> bool:
        stage = next(self._stages, None)
        if stage is None:
            return False
        flight = _Flight(stage, self._nbytes(stage), stage.stop - stage.start)
        self._live.add(flight)
        self._untaken.append(flight)
        self._unread.append(flight)
        return True

    def _read_ahead(self) -> None:
        while not self._closed and (self._unread or self._plan()):
            flight = self._unread[0]
            if self._held and self._held + flight.nbytes > self._memory:
                return
            self._unread.popleft()
            self._held += flight.nbytes
            before, self._before = self._before, flight
            asyncio.run_coroutine_threadsafe(self._load(flight, before), self._loop)

    # On the event loop:

    async def _load(self, flight: _Flight, before: _Flight | None) -> None:
        try:
            order = self._loop.run_in_executor(None, flight.stage.order)
            loads = [self._pieces(load, flight, before) for load in flight.stage.loads]
            pieces = [piece for found in await asyncio.gather(*loads) for piece in found]
            begins = np.cumsum([0, *(each.piece.samples for each in pieces)])[:-1]
            _settle(flight.loaded, _Loaded(pieces, begins, await order))
        except BaseException as error:
            _settle(flight.rest, error)
            _settle(flight.tail, error)
            _settle(flight.loaded, error)
            if not isinstance(error, Exception):
                raise

    async def _pieces(
        self, load: Load, flight: _Flight, before: _Flight | None
    ) -> list[PieceInMemory]:
        found = await self._reader.read(load)
        block = found.block
        if load.whole_chunks:
            earlier = Rest() if before is None else await asyncio.wrap_future(before.rest)
            block, rest = await self._reader.aligned(load, found, earlier)
            _settle(flight.rest, rest)
        block = await self._reader.preprocessed(load, block)
        tail = None
        if load.carried is not None and before is not None:
            tail = await asyncio.wrap_future(before.tail)
        pieces, kept = await self._reader.pieces(load, block, tail)
        if len(flight.stage.loads) == 1:
            _settle(flight.tail, kept)
        return pieces


def _settle(future: Future[Any], outcome: Any) -> None:
    """Give a future its outcome, unless it has one or has been given up."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(outcome, asyncio.CancelledError):
            future.cancel()
        elif isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

"""Blocks are read ahead, batches are gathered beside the consumer, order is kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future

from ..common.recorder import Recorder
from ..device.gather import DeviceGather
from ..gathering.assembly import Assembly
from ..gathering.halo import Preparer
from ..planning.stages import BlockRead, Stage
from ..reading.regions import Reader
from ..samples.batch import Batch
from .cache import BlockCache
from .jobs import Gathering, Lookahead, in_jobs
from .read_ahead import Flights
from .threads import Threads

__all__ = ["run"]


def run(
    stages: Iterator[Stage],
    all_stages: Callable[[], Iterator[Stage]],
    batches: Iterator[int],
    make_reader: Callable[[Threads], Reader],
    preparer: Preparer,
    assemble: Callable[[int], Assembly],
    single: bool,
    lookahead: Lookahead,
    nbytes: Callable[[BlockRead], int],
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
    all_stages : callable
        Begins them anew, and others behind them, of which any sample may stand in for those that
        cannot be read.
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
    threads = Threads(None if gather is None else gather.gathering.begin)
    reader = make_reader(threads)
    flights = Flights(
        stages, nbytes, memory, threads.loop, reader, preparer, cache, recorder, gather, all_stages
    )
    threads.begin(flights.close)
    gathering = Gathering(flights, assemble, single, recorder)
    jobs = in_jobs(flights.portions(batches), lookahead.together)
    waiting: deque[Future[list[Batch | Exception]]] = deque()
    try:
        while True:
            while len(waiting) < lookahead.jobs:
                taken = next(jobs, None)
                if taken is None:
                    break
                waiting.append(threads.gather.submit(gathering.run, taken))
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

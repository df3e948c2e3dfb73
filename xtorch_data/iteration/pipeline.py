"""One iteration: blocks are read ahead, batches gathered beside the consumer, order is kept."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import xarray as xr

from ..common.buffers import Buffers
from ..common.cached import cached_property
from ..common.recorder import Recorder
from ..gathering.assembly import Assembly
from ..gathering.destination import Destination
from ..gathering.halo import HaloJoiner
from ..gathering.sample_indices import SampleIndices
from ..gathering.stage import StageInMemory
from ..planning.intervals import Interval, cut, total
from ..planning.plan import Plan
from ..planning.stages import BlockRead, Stage
from ..reading.concurrency import fetched_bytes
from ..reading.disk_cells import DiskCells
from ..reading.regions import Reader
from ..reading.variables import SourceReader
from ..samples.batch import Batch
from ..samples.definition import SampleDefinition
from .budget import BlockCache, StageBudget
from .companions import Companions
from .lookahead import Lookahead, ahead
from .read_ahead import BatchSlice, PendingStage, ReadAhead
from .stage_reader import StageReader
from .substitutes import Substitutes
from .threads import Threads, waited

__all__ = ["Request", "run"]

# Places all over an epoch's line, of which any sample may be a substitute.
SPREAD = 64

# Slices of the batches that are gathered in one job, batch by batch.
Job = list[list[BatchSlice]]


@dataclass(frozen=True, eq=False)
class Request:
    """Request for one iteration: what it reads and makes; made by `EpochReader`.

    The last samples of the intervals may be `repeated`, so many of them. The data is read into
    memory of `blocks`; `disk` has the variables that are kept on disk, and the cache blocks for
    later epochs. A read that fails in passing is tried again `retries` times;
    then, with `skipping`, the iteration goes on without what cannot be read.
    """

    samples: SampleDefinition
    plan: Plan
    epoch: int
    intervals: Sequence[Interval]
    repeated: int
    data: xr.Dataset
    disk: Mapping[Hashable, DiskCells]
    blocks: Buffers
    cache: BlockCache | None
    destination: Destination
    retries: int
    skipping: bool
    recorder: Recorder
    companions: Companions | None
    buffers: Buffers

    def stages(self) -> Iterator[Stage]:
        """What is read, in order."""
        if not self.repeated:
            return self.plan.stages(self.epoch, self.intervals)
        samples = total(self.intervals)
        own = cut(self.intervals, 0, samples - self.repeated)
        others = cut(self.intervals, samples - self.repeated, samples)
        marked = (replace(each, repeated=True) for each in self.plan.stages(self.epoch, others))
        return itertools.chain(self.plan.stages(self.epoch, own), marked)

    def stages_everywhere(self) -> Iterator[Stage]:
        """The same anew, and some all over the epoch behind them."""
        samples = self.plan.samples
        places = sorted({place * samples // SPREAD for place in range(SPREAD)})
        spread = [(place, place + 1) for place in places if place < samples]
        return itertools.chain(self.stages(), self.plan.stages(self.epoch, spread))

    @cached_property
    def joiner(self) -> HaloJoiner:
        """What makes pieces of blocks."""
        recipe, sent = self.samples, self.destination.memory is not None
        return HaloJoiner(
            recipe.windows,
            recipe.sample_dims,
            recipe.parts,
            frozenset(recipe.transforms),
            self.blocks,
            lasting=self.cache is not None or sent,
            sent=sent,
        )

    def reader(self, threads: Threads) -> Reader:
        """What reads regions, on threads of this iteration."""
        samples = self.samples
        source = SourceReader(
            dataset=self.data,
            origin=samples.origin,
            windows=samples.windows,
            recorder=self.recorder,
            executor=threads.work,
            graphs=threads.graphs,
            retries=self.retries,
            skipping=self.skipping,
            timeout=samples.read_timeout,
            blank=samples.blank,
            buffers=self.blocks,
            laid=samples.labels.laid,
        )
        return Reader(source, samples.preprocessor(self.data, self.epoch, self.recorder), self.disk)

    def nbytes(self, load: BlockRead) -> int:
        """Bytes that a load takes in memory."""
        return self.plan.nbytes(load, self.joiner.joins(load))

    def assemble(self, samples: int) -> Assembly:
        """A batch of so many samples in the making."""
        return self.destination.assembly(self.samples, samples, self.epoch)

    @property
    def lookahead(self) -> Lookahead:
        """How far batches are gathered ahead."""
        nbytes = self.samples.nbytes * (self.plan.batch_size or 1)  # before any transform
        return Lookahead.of(nbytes, self.samples.transformed)


def run(request: Request) -> Generator[Batch, None, None]:
    """Read the stages of a walk along the line and yield their samples in batches.

    Threads are there while the generator is: it may be closed at any time.
    """
    recorder, destination = request.recorder, request.destination
    lookahead = request.lookahead
    fetched = fetched_bytes(request.plan.memory)
    threads = Threads(destination.begin_thread, lookahead.threads, fetched)
    reader = request.reader(threads)
    budget = StageBudget(request.plan.budget, request.nbytes, request.cache, destination.memory)
    stages = StageReader(
        reader,
        request.joiner,
        destination,
        request.cache,
        budget,
        recorder,
        request.companions,
        request.plan.order,
    )
    substitutes = None
    if request.skipping:
        substitutes = Substitutes(
            request.assemble,
            lambda: threads.start(stages.search(request.stages_everywhere)),
            reader.source.failures,
        )
    read_ahead = ReadAhead(request.stages(), budget, stages.read, threads, substitutes)
    threads.begin(read_ahead.close)
    gathering = _Gathering(request, reader, read_ahead, substitutes)
    slices = read_ahead.slices(request.plan.batch_sizes(request.intervals))

    def gathered(future: Future[deque[Batch | Exception]]) -> deque[Batch | Exception]:
        with recorder.timed("wait"):
            return waited(future)

    try:
        for batches in ahead(
            _in_jobs(slices, lookahead.together),
            lambda job: threads.gather.submit(gathering.run, job),
            gathered,
            lookahead.jobs - 1,
        ):
            while batches:
                batch = batches.popleft()
                if isinstance(batch, Exception):
                    raise batch
                recorder.add(batches=1, samples=batch.index.numel())
                yield batch
                del batch  # its memory can be used again, if the consumer has let go of it, too
    finally:
        threads.close()
        recorder.end()


def _in_jobs(batches: Iterator[list[BatchSlice]], together: int) -> Iterator[Job]:
    """Batches that are gathered in one job: several, if what they take from is in memory."""
    job: Job = []
    for slices in batches:
        ready = all(each.pending.loaded.done() for each in slices)
        if job and (not ready or len(job) == together):
            yield job
            job = []
        job.append(slices)
        if not ready:
            yield job
            job = []
    if job:
        yield job


@dataclass(frozen=True, eq=False)
class _Gathering:
    """Makes the batches of one iteration, on any thread."""

    request: Request
    reader: Reader
    read_ahead: ReadAhead
    substitutes: Substitutes | None

    def run(self, job: Job) -> deque[Batch | Exception]:
        """The batches of a job; what went wrong comes after those before it."""
        # Where samples lie is worked out for all of them at once: their stretches of the stages.
        stretches: dict[PendingStage, tuple[int, int]] = {}
        for each in itertools.chain.from_iterable(job):
            start, _ = stretches.get(each.pending, (each.start, 0))
            stretches[each.pending] = start, each.stop
        located: dict[PendingStage, SampleIndices] = {}

        def locate(each: BatchSlice, stage: StageInMemory) -> SampleIndices:
            start, stop = stretches[each.pending]
            if each.pending not in located:
                located[each.pending] = stage.locate(start, stop)
            return located[each.pending].part(each.start - start, each.stop - start)

        found: deque[Batch | Exception] = deque()
        for slices in job:
            try:
                found.append(self._batch(slices, locate))
            except Exception as error:
                found.append(error)
                break
        return found

    def _batch(
        self,
        slices: list[BatchSlice],
        locate: Callable[[BatchSlice, StageInMemory], SampleIndices],
    ) -> Batch:
        """Gather one batch, from one stage after the other."""
        recorder = self.request.recorder
        samples = sum(each.stop - each.start for each in slices)
        assembly, companions = self.request.assemble(samples), self.request.companions
        beside: Sequence[Assembly] = ()
        if companions is not None:
            beside = companions.assemblies(self.request.buffers, samples, self.request.epoch)
        row, seconds = 0, 0.0
        skipped: list[int] = []
        for each in slices:
            stage: StageInMemory = each.pending.loaded.result()
            self.reader.source.require_maps()  # a file that is mapped and gathered from
            begun = time.perf_counter()
            wanted = locate(each, stage)
            found = wanted.there()
            skipped += wanted.not_there()
            assembly.add(row, stage, found, each.pending.stage.repeated)
            for other, own in zip(beside, stage.beside, strict=True):
                other.add(row, own, own.same(found))
            row += len(found.numbers)
            if each is slices[-1] and row == 0:
                assert self.substitutes is not None
                assert each.pending.substitute is not None
                self.substitutes.put(each.pending.substitute, assembly)
                recorder.add(repeated=1)
            del stage
            seconds += time.perf_counter() - begun
            self.read_ahead.done(each.pending, each.stop - each.start)
        begun = time.perf_counter()
        batch = assembly.finish(self.request.plan.batch_size is None, skipped)
        if companions is not None:
            batch = companions.join(batch, beside, self.request.plan.batch_size is None)
        seconds += time.perf_counter() - begun
        assemblies = (assembly, *beside)
        transform = sum(filled.transform_seconds for filled in assemblies)
        recorder.add(
            gather=seconds - transform,
            transform=transform,
            bytes_gathered=sum(tensor.nbytes for tensor in batch),
            skipped=len(skipped),
        )
        for filled in assemblies:
            recorder.took(filled.ways)
        return batch

"""The epochs of an `IterableDataset`: begun, made into batches, counted, gone on with."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.utils.data

from ..common.buffers import Buffers
from ..common.user_warnings import warn_user
from ..gathering.destination import Destination
from ..gathering.first_samples import require_functions_keep_places
from ..iteration.epoch_reader import EpochReader
from ..planning.intervals import cut, total
from ..planning.plan import Plan
from ..planning.resume import Position, WorkerProgress
from ..planning.states import as_number, part_of, require_no_part
from ..planning.worker_states import progress_of, require_progress, state_of_worker
from ..processes.orphans import watch_in_worker
from ..processes.shared_memory import SharedBuffers
from ..processes.workers import sent
from ..reading.disk_cells import OnDisk
from ..samples.batch import Batch
from ..samples.definition import SampleDefinition
from ..samples.phases import phase_at, phases_of
from .conditions import answers
from .fetching import Fetching
from .how import HOW_ARGUMENTS, How
from .topology import EpochCounter, different_batches, ranks_wait
from .what import What, parted, require_same_samples
from .where_and_weights import as_weights

__all__ = ["Epochs"]

logger = logging.getLogger(__name__)


class Epochs:
    """Inside of an `IterableDataset`, for itself, loaders and other rooms.

    Made by the constructor of a dataset, which has it as ``_inside`` for life; a part of a split,
    or the copy in a worker process, has one of its own. The thread that iterates touches it.

    Attributes
    ----------
    what : What
        The samples, as those of a `MapDataset` may be.
    how : How
        The arguments of the epochs.
    definition : SampleDefinition
        What is made of the samples here: with the function of batches, and the seed.
    plan : Plan
        What is read in which order; another one after a resumed epoch.
    reader : EpochReader
        Makes the batches.
    on_disk : OnDisk, optional
        Where decoded chunks are kept.
    times_set : int
        How often a user has set the epoch, by which loaders notice.
    phases : mapping of int to SampleDefinition
        By the epoch at which it begins, what is made of the samples in each phase; there is none
        unless a part has a `Schedule`.
    """

    def __init__(self, what: What, how: How, plan: Plan, on_disk: OnDisk | None) -> None:
        self.what, self.how, self.plan, self.on_disk = what, how, plan, on_disk
        self.retries, self.skipping, self._topology = how.retries, how.skipping, how.topology
        self.definition = _definition(what, how)
        if self._topology.explicit is not None:
            self.plan.require_shares(self._topology.explicit[1])
        self._followed: weakref.ref[Fetching] | None = None
        self._followed_times = 0
        self.times_set = 0
        self.phases = phases_of(self.definition)
        self._counter = EpochCounter()
        self._position = Position()
        self._taken = 0  # batches that the next iteration in a worker passes over
        self._warned = False  # that ranks would wait for each other
        self._phase = self.phase(0)
        self.reader = self.streaming(self.seen(0)[0], self.on_disk)

    @classmethod
    def of(cls, what: What, how: How) -> Epochs:
        """Plan the epochs of some samples; that reads only where `where` asks the data."""
        definition = _definition(what, how)
        if definition.others and how.skipping:
            raise ValueError(
                "on_error='skip' goes on without chunks of one source; with several, errors are "
                "raised"
            )
        require_functions_keep_places(definition)
        definition.require_batches(how.batch_size)
        cached, folder, nbytes = how.cache
        on_disk = OnDisk.of(
            folder, nbytes, how.memory, definition.primary.data, definition.origin, how.retries
        )
        weights = as_weights(how.weights, definition)
        what = what.answered(
            lambda where, samples: answers(
                where, samples, how.memory, on_disk, how.retries, how.skipping
            )
        )
        plan = Plan.of(
            definition.windows,
            definition.layouts,
            memory=how.memory,
            shuffle=how.shuffle,
            seed=how.seed,
            batch_size=how.batch_size,
            drop_last=how.drop_last,
            uneven=how.uneven,
            independent=definition.random_blocks,
            cached=cached and not definition.random_blocks,
            where=what.table,
            weights=weights,
            epoch_size=how.epoch_size,
            labels=definition.label_digests,
            others=definition.layouts_beside,
        )
        return cls(what, replace(how, weights=None), plan, on_disk)

    def part(self, what: What) -> Epochs:
        """Inside of a dataset of some of the samples, or all, with epochs from 0 on."""
        plan = self.plan.over(what.definition.windows, where=what.table)
        return Epochs(what, self.how, plan, self.on_disk)

    def replaced(self, options: Mapping[str, Any]) -> Epochs:
        """Inside of a dataset with other arguments, with epochs from 0 on."""
        samples, own = parted(options, HOW_ARGUMENTS, "IterableDataset")
        what = self.what.replaced(samples) if samples else self.what
        weights = self.plan.weights
        if weights is not None and "weights" not in own:
            require_same_samples("weights", samples, self.definition, what.definition)
            if not {"targets", "parts"}.isdisjoint(samples):  # which weights of steps are of
                raise ValueError("weights was given for other targets: give it again for these")
        made = self.of(what, self.how.replaced(own, weights))
        followed = self._samples
        if followed is not None and not samples:
            made.follow(followed)
        return made

    def streaming(self, definition: SampleDefinition, on_disk: OnDisk | None = None) -> EpochReader:
        """Reader of these samples, or of other values of them, with memory of its own."""
        return EpochReader(definition, self.plan, on_disk, self.retries, self.skipping)

    @property
    def rank(self) -> int:
        """Number of the share of the epoch that this process gets."""
        return self._topology.current()[0]

    @property
    def world_size(self) -> int:
        """Number of shares of the epoch."""
        return self._topology.current()[1]

    # Which epoch it is.

    def follow(self, samples: Fetching) -> None:
        """Take over the epochs that a user sets, or has set, of the samples' `MapDataset`."""
        self._followed, self._followed_times = weakref.ref(samples), 0
        self._catch_up()

    @property
    def _samples(self) -> Fetching | None:
        """Inside of the `MapDataset` that is followed, while there is one."""
        return None if self._followed is None else self._followed()

    def _catch_up(self) -> None:
        followed = self._samples  # while anybody can set its epoch
        if followed is not None and self._followed_times != followed.times_set:
            self._followed_times = followed.times_set
            self.set(followed.epoch)

    @property
    def next(self) -> int:
        """Number of the epoch that the next iteration will be."""
        self._catch_up()
        return self._counter.next

    def set(self, epoch: int) -> None:
        """Make the next iteration a certain epoch, a whole one if one has begun since."""
        self._catch_up()  # with what was set of the samples before
        if self._position.reached:
            self.plan = self.plan.afresh()
        self.times_set += 1
        self._counter.next, self._counter.set_last = epoch, epoch + 1
        self._position = Position()

    def begin(self) -> int:
        """Take the next epoch; what was resumed is over with the epochs that follow."""
        self._catch_up()
        info = torch.utils.data.get_worker_info()
        epoch = self._counter.claim() if info is None else self._counter.claim_in_worker(info)
        self._position.begin(epoch)
        self.plan = self.plan.at(epoch)
        self._enter(epoch)
        self.reader.recorder = None
        self._warn_of_waiting(epoch)
        return epoch

    def _warn_of_waiting(self, epoch: int) -> None:
        """Warn, once, if ranks that wait for each other have different numbers of batches."""
        if self._warned or self.plan.uneven != "keep" or not ranks_wait():
            return
        ranks = range(self.world_size)
        found = different_batches([self.plan.batches(epoch, rank, len(ranks)) for rank in ranks])
        if found is not None:
            self._warned = True
            warn_user(f"uneven='keep': {found}")

    @property
    def set_last(self) -> int:
        """One more than the epoch that a user has set last, 0 if none was: phases go by it."""
        return self._counter.set_last

    def go_to(self, epoch: int, phase: int, plan: Plan) -> None:
        """Make the next iteration an epoch, for a mixture whose phases go by an epoch of its own.

        A whole one, unless it is the one that the plan resumes.
        """
        self._counter.next, self._counter.set_last = epoch, phase + 1
        self.plan = plan
        self._position = Position()

    def phase(self, epoch: int) -> int | None:
        """The epoch at which the phase of an epoch begins, None where there are no phases."""
        return phase_at(self.phases, epoch, self.set_last)

    def seen(self, epoch: int) -> tuple[SampleDefinition, Plan]:
        """What is made of the samples in an epoch, and the plan that reads what that takes."""
        begin = self.phase(epoch)
        if begin is None:
            return self.definition, self.plan
        return self.phases[begin], self.plan.reading(self.phases[begin].windows)

    def _enter(self, epoch: int) -> None:
        """Read from now on what the phase of an epoch takes."""
        begin = self.phase(epoch)
        if begin != self._phase:
            self._phase = begin
            self.reader = self.streaming(self.seen(epoch)[0], self.on_disk)

    def tell(self, told: torch.Tensor | tuple[int, int]) -> None:
        """Tell the copy in a worker which epoch to yield, and `set_last`, or memory with both.

        Memory is looked into whenever an iteration begins.
        """
        self._counter.tell(told)

    # Where an epoch is.

    def _part(self) -> WorkerProgress | None:
        """The loader worker that this process is, if it is one."""
        info = torch.utils.data.get_worker_info()
        if info is None:
            return None
        return progress_of(self.plan, self.rank, self.world_size, info.id, info.num_workers)

    def state(self) -> dict[str, Any]:
        """State of the latest iteration in this process."""
        self._catch_up()
        epoch, batches = self._position.reached or (self._counter.next, 0)
        part = self._part()
        if part is None:
            return self.state_after(epoch, batches)
        state = state_of_worker(self.plan, epoch, replace(part, batches=batches))
        return state | self._phase_set()

    def state_after(self, epoch: int, batches: int, num_workers: int = 1) -> dict[str, Any]:
        """State after so many batches of an epoch, as so many workers yield it."""
        state = self.plan.state_after(epoch, batches, self.world_size, num_workers)
        return state | self._phase_set()

    def _phase_set(self) -> dict[str, int]:
        """What a state has besides, if a user has set the phase."""
        return {"set": self.set_last - 1} if self.phases and self.set_last else {}

    def resume(self, state: Mapping[str, Any], strict: bool) -> None:
        """Go on where a state was taken; ValueError if it is none, or of other samples."""
        plan, part = self.plan.resume(state, strict), self._part()
        if part is None:
            require_no_part(state)
            self._counter.next = plan.resumed[0]
        else:  # torchdata's StatefulDataLoader asks and tells each of its workers
            taken = part_of(state, part).batches
            if strict:
                require_progress(plan, plan.resumed[0], replace(part, batches=taken))
            self._taken = taken
            self._counter.go_on(plan.resumed[0])
        self.plan = plan
        given = state.get("set")
        self._counter.set_last = 0 if given is None else as_number(given, "set") + 1
        self._position = Position()
        followed = self._samples
        if followed is not None:  # what was set before is over
            self._followed_times = followed.times_set

    def __getstate__(self) -> dict[str, Any]:
        self._catch_up()
        return {**self.__dict__, "_followed": None}  # in this process alone

    def __copy__(self) -> Epochs:
        self._catch_up()
        made = Epochs(self.what, self.how, self.plan, self.on_disk)
        made._counter.next, made._counter.set_last = self._counter.next, self.set_last
        return made

    # Its batches.

    def __iter__(self) -> Iterator[Batch]:
        """The next epoch, or in a loader's worker its share of it."""
        info = torch.utils.data.get_worker_info()
        if info is None:
            epoch = self.begin()
            return self._position.counted(epoch, self._batches(self.reader, epoch))
        watch_in_worker()
        self.reader.make_batches_in(SharedBuffers)
        epoch = self._counter.claim_in_worker(info)
        self.plan = self.plan.at(epoch)
        self._enter(epoch)
        taken, self._taken = self._taken, 0
        self._position.begin(epoch, taken)
        worker = info.id, info.num_workers
        batches = sent(self._batches(self.reader, epoch, worker, taken))
        return self._position.counted(epoch, batches, taken)

    def batches(
        self,
        epoch: int,
        stream: EpochReader | None = None,
        destination: Destination | None = None,
        buffers: type[Buffers] | None = None,
    ) -> Generator[Batch, None, None]:
        """An epoch that was begun, as a loader wants it made; not counted yet.

        Parameters
        ----------
        epoch : int
            From `begin`.
        stream : EpochReader, optional
            From `streaming`; `reader` by default.
        destination : Destination, optional
            Where windows are cut, unless on the host.
        buffers : type of Buffers, optional
            Memory from which a device is sent batches, or blocks if windows are cut there.
        """
        stream = stream or self.reader
        if buffers is not None and destination is not None:
            stream.read_blocks_into(buffers)
        elif buffers is not None:
            stream.make_batches_in(buffers)
        info = torch.utils.data.get_worker_info()
        worker = (0, 1) if info is None else (info.id, info.num_workers)
        batches = self._batches(stream, epoch, worker, destination=destination)
        self.reader.recorder = stream.recorder
        return batches

    def stretch(
        self, epoch: int, phase: int, plan: Plan, first: int, last: int
    ) -> Generator[Batch, None, None]:
        """Batches ``[first, last)`` of this rank in an epoch, in the worker of a mixture.

        Of what the plan resumes, if that is this epoch.
        """
        self._counter.tell((epoch, phase + 1))
        self.plan = plan.at(epoch)
        self._enter(epoch)
        self.reader.make_batches_in(SharedBuffers)
        return self._batches(self.reader, epoch, taken=first, upto=last)

    def counted(self, epoch: int, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Batches of an epoch that was begun, which count as they are handed out from here."""
        return self._position.counted(epoch, batches)

    def _batches(
        self,
        stream: EpochReader,
        epoch: int,
        worker: tuple[int, int] = (0, 1),
        taken: int = 0,
        destination: Destination | None = None,
        upto: int | None = None,
    ) -> Generator[Batch, None, None]:
        plan, (rank, world_size) = self.plan, self._topology.current()
        plan.require_shares(world_size)
        intervals, size = plan.intervals(epoch, rank, world_size, *worker), plan.batch_size or 1
        count = total(intervals)
        own = count - plan.repeated(epoch, rank, world_size, *worker)
        first, last = taken * size, count if upto is None else min(upto * size, count)
        intervals = cut(intervals, first, last)
        repeated = max(0, last - max(first, own))
        logger.debug(
            "epoch %d begins: worker %d of %d on rank %d of %d, %d samples",
            epoch, *worker, rank, world_size, total(intervals),
        )  # fmt: skip
        _, reading = self.seen(epoch)
        return stream.batches(reading, epoch, intervals, destination, repeated)


def _definition(what: What, how: How) -> SampleDefinition:
    """Definition of samples in batches: with a function of these, and a seed."""
    return what.definition.in_batches(how.batch_transform, how.seed)

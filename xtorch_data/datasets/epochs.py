"""The epochs of an `IterableDataset`: begun, made into batches, counted, gone on with."""

from __future__ import annotations

import copy
import logging
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any, Self

import torch
import torch.utils.data
import xarray as xr

from ..common.buffers import Buffers
from ..gathering.destination import Destination
from ..gathering.first_samples import require_functions_keep_places
from ..iteration.epoch_reader import EpochReader
from ..planning.intervals import cut, total
from ..planning.plan import Plan
from ..planning.resume import Position, WorkerProgress, require_no_part
from ..planning.windows import Windows
from ..processes.orphans import watch_in_worker
from ..processes.shared_memory import SharedBuffers
from ..processes.workers import sent
from ..reading.disk_cells import OnDisk
from ..samples.batch import Batch
from ..samples.definition import SampleDefinition
from .how import How
from .topology import EpochCounter, Topology
from .where_and_weights import answers, as_weights, as_where

__all__ = ["Epochs"]

logger = logging.getLogger(__name__)


class Epochs:
    """Inside of an `IterableDataset`, for itself, loaders and other rooms.

    Made by the constructor of a dataset, which has it as ``_inside`` for life; a part of a split,
    or the copy in a worker process, has one of its own. The thread that iterates touches it.

    Attributes
    ----------
    definition : SampleDefinition
        What the samples are.
    plan : Plan
        What is read in which order; another one after a resumed epoch.
    reader : EpochReader
        Makes the batches.
    on_disk : OnDisk, optional
        Where decoded chunks are kept.
    """

    def __init__(
        self,
        definition: SampleDefinition,
        plan: Plan,
        topology: Topology,
        on_disk: OnDisk | None,
        retries: int,
        skipping: bool,
    ) -> None:
        self.definition, self.plan, self.on_disk = definition, plan, on_disk
        self.retries, self.skipping, self._topology = retries, skipping, topology
        self._begin_anew()

    def _begin_anew(self) -> None:
        if self._topology.explicit is not None:
            self.plan.require_shares(self._topology.explicit[1])
        self._counter = EpochCounter()
        self._position = Position()
        self._taken = 0  # batches that the next iteration in a worker passes over
        self.reader = self.streaming(self.definition, self.on_disk)

    @classmethod
    def of(cls, definition: SampleDefinition, how: How) -> Epochs:
        """Plan the epochs of some samples; that reads only if `where` is a function.

        Called by constructors alone: warnings name the line two calls above.
        """
        definition = replace(definition, batch_transform=how.batch_transform, seed=how.seed)
        require_functions_keep_places(definition)
        definition.require_batches(how.batch_size)
        windows, labels = definition.windows, definition.labelled
        cached, folder, nbytes = how.cache
        on_disk = OnDisk.of(
            folder, nbytes, how.memory, definition.data, definition.origin, how.retries
        )
        if how.weights is not None and not how.shuffle:
            raise ValueError("weights draw samples at random, which needs shuffle=True")
        weights, where = as_weights(how.weights, windows, labels), how.where
        if callable(where) and not isinstance(where, xr.DataArray):
            where = answers(where, definition, how.memory, on_disk, how.retries, how.skipping)
        plan = Plan.of(
            windows,
            definition.layouts,
            memory=how.memory,
            shuffle=how.shuffle,
            seed=how.seed,
            batch_size=how.batch_size,
            drop_last=how.drop_last,
            uneven=how.uneven,
            independent=definition.random_blocks,
            cached=cached and not definition.random_blocks,
            where=as_where(where, windows, labels),
            weights=weights,
            labels=definition.label_digests,
            stacklevel=4,
        )
        return cls(definition, plan, how.topology, on_disk, how.retries, how.skipping)

    def over(self, windows: Windows) -> Self:
        """Inside of a dataset of some of the windows, numbered anew, with epochs from 0 on."""
        part = copy.copy(self)
        part.definition, part.plan = self.definition.over(windows), self.plan.over(windows)
        part._begin_anew()
        return part

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

    @property
    def next(self) -> int:
        """Number of the epoch that the next iteration will be."""
        return self._counter.next

    def set(self, epoch: int) -> None:
        """Make the next iteration a certain epoch, a whole one if one has begun since."""
        if self._position.reached:
            self.plan = self.plan.afresh()
        self._counter.next = epoch
        self._position = Position()

    def begin(self) -> int:
        """Take the next epoch; what was resumed is over with the epochs that follow."""
        info = torch.utils.data.get_worker_info()
        epoch = self._counter.claim() if info is None else self._counter.claim_in_worker(info)
        self._position.begin(epoch)
        if self.plan.resumed[0] != epoch:
            self.plan = self.plan.afresh()
        self.reader.recorder = None
        return epoch

    def tell(self, epoch: torch.Tensor | int) -> None:
        """Tell the copy in a worker which epoch to yield: its number, or memory that will hold it.

        Memory is looked into whenever an iteration begins.
        """
        self._counter.tell(epoch)

    # Where an epoch is.

    def _part(self) -> WorkerProgress | None:
        """The loader worker that this process is, if it is one."""
        info = torch.utils.data.get_worker_info()
        if info is None:
            return None
        return self.plan.part(self.rank, self.world_size, info.id, info.num_workers)

    def state(self) -> dict[str, Any]:
        """State of the latest iteration in this process."""
        epoch, batches = self._position.reached or (self.next, 0)
        part = self._part()
        if part is not None:
            return self.plan.state_of_part(epoch, replace(part, batches=batches))
        return self.plan.state_after(epoch, batches, self.world_size)

    def resume(self, state: Mapping[str, Any], strict: bool) -> None:
        """Go on where a state was taken; ValueError if it is none, or of other samples."""
        plan, part = self.plan.resume(state, strict), self._part()
        if part is None:
            require_no_part(state)
            self._counter.next = plan.resumed[0]
        else:  # torchdata's StatefulDataLoader asks and tells each of its workers
            taken = part.of_state(state).batches
            if strict:
                plan.require_part(plan.resumed[0], replace(part, batches=taken))
            self._taken = taken
            self._counter.go_on(plan.resumed[0])
        self.plan = plan
        self._position = Position()

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
    ) -> Generator[Batch, None, None]:
        plan, (rank, world_size) = self.plan, self._topology.current()
        plan.require_shares(world_size)
        intervals = plan.intervals(epoch, rank, world_size, *worker)
        intervals = cut(intervals, taken * (plan.batch_size or 1), total(intervals))
        logger.debug(
            "epoch %d begins: worker %d of %d on rank %d of %d, %d samples",
            epoch, *worker, rank, world_size, total(intervals),
        )  # fmt: skip
        return stream.batches(plan, epoch, intervals, destination)

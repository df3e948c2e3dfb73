"""The reader of a dataset's iterations, and the memory that they use again."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from typing import Any

from ..common.buffers import Buffers
from ..common.recorder import Recorder
from ..gathering.destination import Destination, Host
from ..planning.intervals import Interval
from ..planning.plan import Plan
from ..reading.disk_cells import OnDisk
from ..reading.forks import let_forks_wait_for_reads, make_safe
from ..reading.recycled import with_recycled_memory
from ..samples.batch import Batch
from ..samples.definition import SampleDefinition
from .budget import BlockCache
from .companions import Companions
from .pipeline import Request, run

__all__ = ["EpochReader"]


class EpochReader:
    """Reads stretches of an epoch's line as batches.

    Made by a dataset, and as long there: iterations share its memory and its cache. Copies in other
    processes begin with none.

    Attributes
    ----------
    data : xarray.Dataset
        What is read, into memory that is used again.
    recorder : Recorder or None
        What the latest iteration has done.
    """

    def __init__(
        self,
        samples: SampleDefinition,
        plan: Plan,
        on_disk: OnDisk | None,
        retries: int,
        skipping: bool,
    ) -> None:
        plan = plan.held_as(samples.layouts)
        self._samples, self._on_disk = samples, on_disk
        self._retries, self._skipping = retries, skipping
        self._memory = plan.memory
        self._idle_batches = 4 * samples.nbytes * (plan.batch_size or 1)
        self._cache = BlockCache.of(plan) if plan.cached else None
        self._read_into(Buffers(self._memory, total=self._memory))
        self._buffers: Buffers = Buffers(idle=self._idle_batches)
        self._process = os.getpid()
        self._companions: Companions | None = None  # of an epoch, where blocks are random
        self._of_epoch = 0
        self.recorder: Recorder | None = None

    def _read_into(self, buffers: Buffers) -> None:
        self._block_buffers = buffers
        self.data = with_recycled_memory(self._samples.data, buffers, self._samples.dtypes)
        own = self._on_disk if self._samples.centers is None else None
        self._disk = own.cells(self.data, buffers) if own else {}

    def make_batches_in(self, kind: type[Buffers]) -> None:
        """Gather batches from now on in memory of a kind, such as other processes can have."""
        if not isinstance(self._buffers, kind):
            self._buffers = kind(idle=self._idle_batches)

    def read_blocks_into(self, kind: type[Buffers]) -> None:
        """Read blocks from now on into memory of a kind."""
        if not isinstance(self._block_buffers, kind):
            self._read_into(kind(self._memory, total=self._memory))

    def batches(
        self,
        plan: Plan,
        epoch: int,
        intervals: Sequence[Interval],
        destination: Destination | None = None,
        repeated: int = 0,
    ) -> Generator[Batch, None, None]:
        """The samples of some intervals of an epoch's line, in batches.

        The plan may have been resumed since the dataset was made. Batches are made on the host,
        unless there is another destination. So many of the last samples are marked as repeated.
        """
        if self._process != os.getpid():  # inherited by a fork, not sent to this process
            make_safe(self.data)
            self._process, self._companions = os.getpid(), None
        let_forks_wait_for_reads()
        self.recorder = Recorder(epoch)
        request = Request(
            samples=self._samples,
            plan=plan.held_as(self._samples.layouts),
            epoch=epoch,
            intervals=intervals,
            repeated=repeated,
            data=self.data,
            disk=self._disk,
            blocks=self._block_buffers,
            cache=self._cache,
            destination=destination or Host(self._buffers),
            retries=self._retries,
            skipping=self._skipping,
            recorder=self.recorder,
            companions=self._beside(plan, epoch),
            buffers=self._buffers,
        )
        return run(request)

    def _beside(self, plan: Plan, epoch: int) -> Companions | None:
        """What reads the other sources, with what it has kept of earlier epochs."""
        samples = self._samples
        if not samples.others:
            return None
        epoch = epoch if any(each.random_blocks for each in samples.others) else 0
        if self._companions is None or self._of_epoch != epoch:
            self._companions = Companions(
                samples,
                plan.beside.passing,
                plan.beside.resident,
                epoch,
                self._retries,
                plan.order,
                self._on_disk if samples.centers is not None else None,
            )
            self._of_epoch = epoch
        return self._companions

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "recorder": None, "_companions": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _process=os.getpid())

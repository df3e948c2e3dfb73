"""What iterations of a process read with, and the memory that they use again."""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Sequence
from typing import Any

from ..common.buffers import Buffers
from ..common.recorder import Recorder
from ..device.gather import DeviceGather
from ..device.streams import PinnedBuffers
from ..gathering.assembly import Assembly
from ..gathering.halo import Preparer
from ..planning.intervals import Interval
from ..planning.plan import Plan
from ..processes.shared_memory import SharedBuffers
from ..reading.dask_graphs import Graphs
from ..reading.disk_cells import OnDisk
from ..reading.forks import let_forks_wait_for_reads, make_safe
from ..reading.lazy_arrays import with_recycled_memory
from ..reading.regions import Reader
from ..reading.variables import SourceReader
from ..samples.batch import Batch
from ..samples.definition import SampleDefinition
from .cache import BlockCache
from .jobs import Lookahead
from .pipeline import run

__all__ = ["Stream"]


# Places all over an epoch's line.
SPREAD = 64


def _spread(samples: int) -> list[Interval]:
    places = sorted({place * samples // SPREAD for place in range(SPREAD)})
    return [(place, place + 1) for place in places if place < samples]


class Stream:
    """Batches of stretches of an epoch's line.

    Parameters
    ----------
    samples : SampleDefinition
        What a sample is.
    plan : Plan
        The plan of their epochs.
    on_disk : OnDisk, optional
        Where decoded chunks are kept for other processes.
    retries : int
        Attempts after the first to read what fails in passing.
    skipping : bool
        Whether to go on without what cannot be read.

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
        self._batch_nbytes = samples.nbytes * (plan.batch_size or 1)  # before any transform
        self._cache: BlockCache | None = None
        if plan.cached:
            everything = plan.block_nbytes * len(plan.grid)
            self._cache = BlockCache(plan.memory, plan.working_nbytes, everything)
        self._read_into(Buffers(self._memory, total=self._memory))
        self._buffers: Buffers = Buffers(idle=4 * self._batch_nbytes)
        self._process = os.getpid()
        self.recorder: Recorder | None = None

    def _read_into(self, buffers: Buffers) -> None:
        self._block_buffers = buffers
        self.data = with_recycled_memory(self._samples.data, buffers, self._samples.dtypes)
        self._disk = self._on_disk.cells(self.data, buffers) if self._on_disk else {}

    def share_batches(self) -> None:
        """Gather batches from now on in memory that other processes can have."""
        if not isinstance(self._buffers, SharedBuffers):
            self._buffers = SharedBuffers(idle=4 * self._batch_nbytes)

    def pin_batches(self) -> None:
        """Gather batches in page-locked memory from now on."""
        if not isinstance(self._buffers, PinnedBuffers):
            self._buffers = PinnedBuffers(idle=4 * self._batch_nbytes)

    def pin_blocks(self) -> None:
        """Read blocks into page-locked memory from now on."""
        if not isinstance(self._block_buffers, PinnedBuffers):
            self._read_into(PinnedBuffers(self._memory, total=self._memory))

    def batches(
        self,
        plan: Plan,
        epoch: int,
        intervals: Sequence[Interval],
        gather: DeviceGather | None = None,
    ) -> Generator[Batch, None, None]:
        """The samples of some intervals of an epoch's line, in batches.

        Parameters
        ----------
        plan : Plan
            The plan, which may have been resumed since.
        epoch : int
            Number of the epoch.
        intervals : sequence of Interval
            Places on its line.
        gather : DeviceGather, optional
            Where blocks are sent to be gathered on a device.
        """
        if self._process != os.getpid():  # inherited by a fork, not sent to this process
            make_safe(self.data)
            self._process = os.getpid()
        let_forks_wait_for_reads()
        plan = plan.held_as(self._samples.layouts)
        recipe = samples = self._samples
        recorder = self.recorder = Recorder(epoch)
        preparer = Preparer(
            recipe.windows,
            recipe.sample_dims,
            recipe.parts,
            frozenset(recipe.transforms),
            self._block_buffers,
            lasting=self._cache is not None or gather is not None,
            sent=gather is not None,
        )
        return run(
            plan.stages(epoch, intervals),
            lambda: itertools.chain(
                plan.stages(epoch, intervals), plan.stages(epoch, _spread(plan.samples))
            ),
            plan.batch_sizes(intervals),
            lambda threads: Reader(
                SourceReader(
                    dataset=self.data,
                    origin=samples.origin,
                    windows=recipe.windows,
                    recorder=recorder,
                    executor=threads.work,
                    graphs=Graphs(threads.dask, threads.work),
                    retries=self._retries,
                    skipping=self._skipping,
                    timeout=samples.read_timeout,
                ),
                samples.preprocessor(self.data, epoch, recorder),
                self._disk,
            ),
            preparer,
            lambda count: (
                Assembly(recipe, self._buffers, count, epoch)
                if gather is None
                else gather.assembly(recipe, count, epoch)
            ),
            plan.batch_size is None,
            Lookahead.of(self._batch_nbytes, samples.transformed),
            lambda load: plan.nbytes(load, preparer.joins(load)),
            plan.budget,
            self._cache,
            recorder,
            gather,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "recorder": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _process=os.getpid())

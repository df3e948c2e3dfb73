"""The inside of a `MapDataset`: one reader in each process, and the epoch that is told it."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any, Self

import torch

from ..common.buffers import Buffers
from ..common.recorder import Recorder
from ..gathering.first_samples import require_functions_keep_places
from ..iteration.by_number import Fetcher
from ..planning.plan import Plan
from ..planning.windows import Windows
from ..processes.orphans import Watch, watch_in_worker
from ..processes.shared_memory import SharedBuffers
from ..processes.unnamed_memory import SharedIntegers
from ..reading.disk_cells import OnDisk
from ..reading.forks import let_forks_wait_for_reads, make_safe
from ..samples.arguments import as_bytes, as_cache, as_numbers, as_retries
from ..samples.batch import Batch
from ..samples.definition import SampleDefinition

__all__ = ["Fetching"]

# Memory of batches that is kept while nobody uses it.
IDLE_BYTES = 2**28

# Threads of a parent process, which are not here; to end them would wait for them.
_inherited: list[Any] = []


class Fetching:
    """Inside of a `MapDataset`, for itself, loaders and other rooms.

    Made by the constructor of a dataset, which has it as ``_inside`` for life. Any thread may use
    it. Copies in other processes, forked or sent there, read on threads of their own.

    Attributes
    ----------
    definition : SampleDefinition
        What the samples are.
    plan : Plan
        The order of a `ChunkSampler`.
    on_disk : OnDisk, optional
        Where decoded chunks are kept.
    keeps : bool
        Whether decoded chunks are kept for later samples.
    times_set : int
        How often a user has set the epoch, by which loaders notice.
    """

    def __init__(
        self,
        definition: SampleDefinition,
        plan: Plan,
        on_disk: OnDisk | None,
        retries: int,
        keeps: bool,
    ) -> None:
        self.definition, self.plan, self.on_disk = definition, plan, on_disk
        self.retries, self.keeps = retries, keeps
        self.times_set = 0
        self._shared = SharedIntegers(1)  # with workers of torch's loader, also such as live on
        self._epoch: int | torch.Tensor = self._shared.values
        self._shares_memory = False
        self._watch = Watch()
        self._reading: tuple[int, Fetcher, Buffers] | None = None
        self._process = os.getpid()
        self._lock = threading.Lock()

    @classmethod
    def of(
        cls,
        definition: SampleDefinition,
        *,
        memory: int | str,
        cache: bool | str | os.PathLike[str],
        cache_size: int | str | None,
        retries: int,
    ) -> Fetching:
        """Check the arguments of a `MapDataset` that do not say what its samples are.

        Called by constructors alone: warnings name the line two calls above.
        """
        retries = as_retries(retries)
        keep, folder, size = as_cache(cache, cache_size)
        require_functions_keep_places(definition)
        plan = Plan.of(
            definition.windows,
            definition.layouts,
            memory=as_bytes(memory),
            shuffle=True,
            batch_size=None,
            labels=definition.label_digests,
            stacklevel=4,
        )
        on_disk = OnDisk.of(folder, size, plan.memory, definition.data, definition.origin, retries)
        return cls(definition, plan, on_disk, retries, keep or folder is not None)

    def over(self, windows: Windows) -> Self:
        """Inside of a dataset of some of the windows, numbered anew."""
        return type(self)(
            self.definition.over(windows),
            self.plan.over(windows),
            self.on_disk,
            self.retries,
            self.keeps,
        )

    @property
    def epoch(self) -> int:
        """The epoch, on which random functions depend."""
        return int(self._epoch)

    def begin(self, epoch: int) -> None:
        """Note the epoch of a loader's pass, for workers as well."""
        self._shared.values[0] = epoch
        self._epoch = self._shared.values

    def tell(self, epoch: torch.Tensor | int) -> None:
        """Tell the copy in a worker which epoch it is, and that batches leave the process.

        The epoch is its number, or memory from which it is read.
        """
        self._epoch = epoch
        self._shares_memory = True

    def fetch(self, indices: Sequence[int], epoch: int | None) -> Batch:
        """Some samples as a batch; see `MapDataset.fetch`."""
        numbers = as_numbers(indices, len(self.definition.windows))
        if not len(numbers):
            raise ValueError("a batch has one sample or more; no index was given")
        epoch = self.epoch if epoch is None else epoch
        fetcher, buffers = self._fetch_with(epoch)
        return fetcher.fetch(numbers, epoch, buffers)

    @property
    def recorder(self) -> Recorder:
        """Record of what fetching has taken in this process."""
        return self._fetch_with(self.epoch)[0].recorder

    def _fetch_with(self, epoch: int) -> tuple[Fetcher, Buffers]:
        """Reader and buffers of this process, made when they are first needed."""
        if self._process != os.getpid():  # inherited by a fork, not sent to this process
            make_safe(self.definition.data)
            _inherited.append(self._reading)
            self._process, self._reading, self._lock = os.getpid(), None, threading.Lock()
        # Where blocks are random, they are others in every epoch.
        epoch = epoch if self.definition.random_blocks else 0
        with self._lock:
            if self._reading is None or self._reading[0] != epoch:
                let_forks_wait_for_reads()
                watch_in_worker()
                memory = self.plan.memory
                buffers = SharedBuffers if self._shares_memory else Buffers
                self._reading = (
                    epoch,
                    Fetcher(self.definition, memory, epoch, self.retries, self.keeps, self.on_disk),
                    buffers(min(memory, IDLE_BYTES)),
                )
            return self._reading[1:]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_epoch": self.epoch, "_reading": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        made_in, epoch = state["_process"], state["_epoch"]
        self.__dict__.update(state, _lock=threading.Lock(), _process=os.getpid())
        if made_in == os.getpid():  # a copy, which goes its own way
            self._shared = SharedIntegers(1)
            self._shared.values[0] = epoch
        self._epoch = self._shared.values

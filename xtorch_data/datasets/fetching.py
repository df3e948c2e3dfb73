"""The inside of a `MapDataset`: one reader in each process, and the epoch that is told it."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..common.buffers import Buffers
from ..common.recorder import Recorder
from ..common.retry import RETRIES
from ..gathering.first_samples import require_functions_keep_places
from ..iteration.by_number import Fetcher
from ..iteration.companions import Companions
from ..planning.plan import Plan
from ..processes.orphans import Watch, watch_in_worker
from ..processes.shared_memory import SharedBuffers
from ..processes.unnamed_memory import SharedIntegers
from ..reading.disk_cells import OnDisk
from ..reading.forks import let_forks_wait_for_reads, make_safe
from ..samples.arguments import as_bytes, as_cache, as_numbers, as_retries
from ..samples.batch import Batch
from ..samples.definition import SampleDefinition
from ..samples.phases import phase_at, phases_of
from .conditions import answers
from .how import HOW_ARGUMENTS
from .what import What, parted

__all__ = ["ACCESS_ARGUMENTS", "Access", "Fetching", "require_none_of_epochs"]

# Memory of batches that is kept while nobody uses it.
IDLE_BYTES = 2**28

# Threads of a parent process, which are not here; to end them would wait for them.
_inherited: list[Any] = []


@dataclass(frozen=True, eq=False)
class Access:
    """The arguments of a `MapDataset` that do not say what its samples are, checked."""

    memory: int
    cache: tuple[bool, str | None, int]  # in memory; in which folder, and up to so many bytes
    retries: int
    arguments: Mapping[str, Any]  # as they were given

    @classmethod
    def of(
        cls,
        *,
        memory: int | str = "1 GiB",
        cache: bool | str | os.PathLike[str] = True,
        cache_size: int | str | None = None,
        retries: int = RETRIES,
    ) -> Access:
        """Check the arguments of those names."""
        arguments = {name: value for name, value in locals().items() if name in ACCESS_ARGUMENTS}
        cached = as_cache(cache, cache_size)
        return cls(as_bytes(memory), cached, as_retries(retries), arguments)

    def replaced(self, options: Mapping[str, Any]) -> Access:
        """The arguments with some changed."""
        return self.of(**{**self.arguments, **options})


ACCESS_ARGUMENTS = frozenset(inspect.signature(Access.of).parameters)


def require_none_of_epochs(names: Iterable[str]) -> None:
    """Raise TypeError, naming where they belong, if there are arguments of epochs."""
    for name in names:
        if name in HOW_ARGUMENTS - ACCESS_ARGUMENTS:
            raise TypeError(
                f"MapDataset does not take {name}, which belongs to epochs of its samples: give "
                "it to the xtorch_data.DataLoader or IterableDataset that takes the dataset"
            )


class Fetching:
    """Inside of a `MapDataset`, for itself, loaders and other rooms.

    Made by the constructor of a dataset, which has it as ``_inside`` for life. Any thread may use
    it. Copies in other processes, forked or sent there, read on threads of their own.

    Attributes
    ----------
    what : What
        The samples.
    access : Access
        The other arguments of the dataset.
    plan : Plan
        The order of a `ChunkSampler`.
    on_disk : OnDisk, optional
        Where decoded chunks are kept.
    times_set : int
        How often a user has set the epoch, by which loaders notice.
    """

    def __init__(self, what: What, access: Access, plan: Plan, on_disk: OnDisk | None) -> None:
        self.what, self.access, self.plan, self.on_disk = what, access, plan, on_disk
        self.definition, self.retries = what.definition, access.retries
        self.times_set = 0
        self.phases = phases_of(self.definition)
        # The epoch and `set_last`; shared with workers of torch's loader, also such as live on.
        self._shared = SharedIntegers(2)
        self._told: tuple[int, int] | torch.Tensor = self._shared.values
        self._shares_memory = False
        self._watch = Watch()
        self._reading: tuple[Any, Fetcher, Companions | None, Buffers] | None = None
        self._process = os.getpid()
        self._lock = threading.Lock()

    @classmethod
    def of(cls, what: What, access: Access) -> Fetching:
        """Plan the access to some samples; that reads only where `where` asks the data."""
        definition, memory, retries = what.definition, access.memory, access.retries
        require_functions_keep_places(definition)
        _, folder, size = access.cache
        data = definition.primary.data
        on_disk = OnDisk.of(folder, size, memory, data, definition.origin, retries)
        what = what.answered(
            lambda where, samples: answers(where, samples, memory, on_disk, retries)
        )
        plan = Plan.of(
            definition.windows,
            definition.layouts,
            memory=memory,
            shuffle=True,
            batch_size=None,
            where=what.table,
            labels=definition.label_digests,
            others=definition.layouts_beside,
        )
        return cls(what, access, plan, on_disk)

    def part(self, what: What) -> Fetching:
        """Inside of a dataset of some of the samples, or all, with a reader and an epoch anew."""
        plan = self.plan.over(what.definition.windows, where=what.table)
        return Fetching(what, self.access, plan, self.on_disk)

    def replaced(self, options: Mapping[str, Any]) -> Fetching:
        """Inside of a dataset with other arguments."""
        require_none_of_epochs(options)
        samples, own = parted(options, ACCESS_ARGUMENTS, "MapDataset")
        what = self.what.replaced(samples) if samples else self.what
        return self.of(what, self.access.replaced(own))

    @property
    def keeps(self) -> bool:
        """Whether decoded chunks are kept for later samples."""
        in_memory, folder, _ = self.access.cache
        return in_memory or folder is not None

    @property
    def epoch(self) -> int:
        """The epoch, on which random functions depend."""
        return int(self._told[0])

    @property
    def set_last(self) -> int:
        """One more than the epoch that a user has set last, 0 if none was: phases go by it."""
        return int(self._told[1])

    def begin(self, epoch: int) -> None:
        """Note the epoch of a loader's pass, for workers as well."""
        self._shared.values[0] = epoch
        self._told = self._shared.values

    def set(self, epoch: int) -> None:
        """Note an epoch that a user sets."""
        self.begin(epoch)
        self._shared.values[1] = epoch + 1
        self.times_set += 1

    def seen(self, epoch: int) -> SampleDefinition:
        """What is made of the samples in an epoch."""
        begin = phase_at(self.phases, epoch, self.set_last)
        return self.definition if begin is None else self.phases[begin]

    def tell(self, told: torch.Tensor | tuple[int, int]) -> None:
        """Tell the copy in a worker which epoch it is, and that batches leave the process.

        The epoch and `set_last` are numbers, or memory from which they are read.
        """
        self._told = told
        self._shares_memory = True

    def fetch(self, indices: Sequence[int], epoch: int | None) -> Batch:
        """Some samples as a batch; see `MapDataset.fetch`."""
        numbers = as_numbers(indices, self.plan.samples)
        if not len(numbers):
            raise ValueError("a batch has one sample or more; no index was given")
        if self.plan.kept is not None:
            numbers = self.plan.kept.samples(numbers)
        epoch = self.epoch if epoch is None else epoch
        fetcher, companions, buffers = self._fetch_with(epoch)
        batch = fetcher.fetch(numbers, epoch, buffers)
        if companions is not None:
            batch = companions.fetch(batch, epoch, buffers)
            companions.report(fetcher.recorder)
        return batch

    @property
    def recorder(self) -> Recorder:
        """Record of what fetching has taken in this process."""
        return self._fetch_with(self.epoch)[0].recorder

    def _fetch_with(self, epoch: int) -> tuple[Fetcher, Companions | None, Buffers]:
        """Reader and buffers of this process, made when they are first needed."""
        if self._process != os.getpid():  # inherited by a fork, not sent to this process
            make_safe(self.definition.data)
            _inherited.append(self._reading)
            self._process, self._reading, self._lock = os.getpid(), None, threading.Lock()
        definition = self.seen(epoch)
        # Where blocks are random, they are others in every epoch.
        epoch = epoch if any(each.random_blocks for each in definition.sources) else 0
        with self._lock:
            if self._reading is None or self._reading[0] != (epoch, definition.labels.token):
                let_forks_wait_for_reads()
                watch_in_worker()
                memory = self.plan.memory
                others = definition.others
                beside = memory // 4 if others else 0
                if definition.centers is not None:  # of the events nothing is read
                    beside = memory
                buffers = SharedBuffers if self._shares_memory else Buffers
                self._reading = (
                    (epoch, definition.labels.token),
                    Fetcher(
                        definition,
                        memory - beside,
                        epoch,
                        self.retries,
                        self.keeps,
                        self.on_disk if definition.centers is None else None,
                    ),
                    self._companions(definition, beside, epoch) if others else None,
                    buffers(min(memory, IDLE_BYTES)),
                )
            return self._reading[1:]

    def _companions(self, definition: SampleDefinition, memory: int, epoch: int) -> Companions:
        """What reads the other sources, each in an equal share of the memory."""
        count = len([each for each in definition.others if not each.in_memory]) or 1
        shares = [memory // count] * len(definition.others)
        return Companions(
            definition, shares, (), epoch, self.retries, on_disk=self.on_disk, keep=self.keeps
        )

    def __getstate__(self) -> dict[str, Any]:
        told = self.epoch, self.set_last
        return {**self.__dict__, "_told": told, "_reading": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        made_in, told = state["_process"], state["_told"]
        self.__dict__.update(state, _lock=threading.Lock(), _process=os.getpid())
        if made_in == os.getpid():  # a copy, which goes its own way
            self._shared = SharedIntegers(len(told))
            self._shared.values[0], self._shared.values[1] = told
        self._told = self._shared.values

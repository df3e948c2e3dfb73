"""The rank and the worker of this process, and the epoch that its siblings are in."""

from __future__ import annotations

import multiprocessing
import operator
import os
import time
from collections.abc import Sequence
from multiprocessing.context import get_spawning_popen
from typing import Any

import torch
import torch.distributed
import torch.utils.data

from ..common.text import number_of
from ..processes.orphans import Watch
from ..processes.unnamed_memory import SharedIntegers

__all__ = [
    "EpochCounter",
    "Topology",
    "as_topology",
    "current_topology",
    "different_batches",
    "ranks_wait",
]

_PATIENCE_SECONDS = 60.0
# Ranks that are listed.
SHOWN_RANKS = 8


def as_topology(rank: int | None, world_size: int | None) -> tuple[int, int] | None:
    """A rank and a world size given explicitly, or None if neither is.

    Raises
    ------
    ValueError
        If only one is given or the rank does not fit.
    """
    if rank is None and world_size is None:
        return None
    if rank is None or world_size is None:
        raise ValueError("give rank and world_size together, or neither")
    rank, world_size = operator.index(rank), operator.index(world_size)
    if world_size < 1 or not 0 <= rank < world_size:
        raise ValueError(f"rank must be 0 to world_size - 1, got rank {rank} of {world_size}")
    return rank, world_size


def current_topology() -> tuple[int, int]:
    """Rank and world size of torch.distributed, else of torchrun's environment, else 0 of 1."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return _told_by_torchrun(os.environ["RANK"], os.environ["WORLD_SIZE"])
    return 0, 1


def ranks_wait() -> bool:
    """Whether this process is one of several that torch.distributed lets wait for each other."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return False
    return distributed.get_world_size() > 1


def different_batches(batches_per_rank: Sequence[int]) -> str | None:
    """Which ranks have how many batches, and what would help; None if all have as many."""
    ranks: dict[int, list[int]] = {}
    for rank, count in enumerate(batches_per_rank):
        ranks.setdefault(count, []).append(rank)
    if len(ranks) < 2:
        return None
    each = (
        f"{_listed(some)} {'has' if len(some) == 1 else 'have'} "
        f"{number_of(count, 'batch', 'batches')}"
        for count, some in sorted(ranks.items())
    )
    return (
        f"{', '.join(each)}: ranks that wait for each other at every batch, as with "
        "DistributedDataParallel, would wait forever. uneven='pad' gives all as many, with some "
        "samples repeated, 'drop' with some left out; or wrap the loop in the model's join()"
    )


def _listed(ranks: Sequence[int]) -> str:
    """Ranks in words, not all of very many."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    *names, last = map(str, ranks[:SHOWN_RANKS])
    if len(ranks) > SHOWN_RANKS:
        names, last = [*names, last], f"{len(ranks) - SHOWN_RANKS:,} more"
    return f"ranks {', '.join(names)} and {last}"


def _told_by_torchrun(rank: str, world_size: str) -> tuple[int, int]:
    """Rank and world size of the environment, which others may have set."""
    if rank.isdecimal() and world_size.isdecimal() and int(rank) < int(world_size):
        return int(rank), int(world_size)
    raise ValueError(
        f"the environment has RANK={rank!r} and WORLD_SIZE={world_size!r}, but a rank is 0 to "
        "WORLD_SIZE - 1: unset them, or give rank= and world_size="
    )


class Topology:
    """Rank and world size of this process, or of the process whose loader worker it is.

    What is given explicitly, else what is in force when it is asked.
    """

    def __init__(self, rank: int | None = None, world_size: int | None = None) -> None:
        self.explicit = as_topology(rank, world_size)
        self._inherited: tuple[int, int] | None = None
        self._process = os.getpid()

    def current(self) -> tuple[int, int]:
        """Rank and world size."""
        if self.explicit is not None:
            return self.explicit
        sent_here = self._inherited is not None and self._process == os.getpid()
        if sent_here and torch.utils.data.get_worker_info() is not None:
            assert self._inherited is not None
            return self._inherited
        return current_topology()

    def __getstate__(self) -> dict[str, Any]:
        # A worker process knows nothing of torch.distributed: tell it who its parent is.
        return {"explicit": self.explicit, "_inherited": self.current()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _process=os.getpid())


class EpochCounter:
    """Counts the iterations of a process, and tells its loader workers which one they are in.

    Workers of one iteration must agree on its epoch. Under our loader the parent tells them. Under
    a plain torch loader nobody does: the first worker takes the parent's next number and publishes
    it in shared memory with the base seed that all workers of the iteration know, the others look
    it up. Other processes, such as ranks that were started with a copy of the dataset, count for
    themselves.
    """

    # A row for each process that has loader workers: its number, its next epoch, one more than the
    # last that a user has set, what its latest first worker has published, and which publication
    # each worker has taken last.
    _ROWS, _WORKERS = 64, 128
    _PID, _NEXT, _SET, _SERIAL, _KEY, _EPOCH, _TAKEN = range(7)

    def __init__(self, start: int = 0, set_last: int = 0) -> None:
        self._start, self._set_last = start, set_last
        self._home = os.getpid()
        self._shared = SharedIntegers(self._ROWS * (self._TAKEN + self._WORKERS))
        self._watch = Watch()
        self._iterations: dict[int, int] = {}
        self._told: torch.Tensor | tuple[int, int] | None = None
        self._rest: int | None = None  # the epoch that the next iteration in a worker goes on with

    @property
    def _rows(self) -> Any:
        """The numbers as NumPy sees them: torch would let go of the GIL, and wait for it again."""
        return self._shared.values.numpy().reshape(self._ROWS, -1)

    def _row(self, process: int) -> Any:
        """Row of a process; begun anew if there is none."""
        rows = self._rows
        known = rows[:, self._PID].tolist()
        if process in known:
            return rows[known.index(process)]
        # From its own place on, so that processes which begin together take different rows.
        places = [(process + step) % self._ROWS for step in range(self._ROWS)]
        row = rows[next((place for place in places if known[place] == 0), places[0])]
        row[:] = 0
        row[self._NEXT], row[self._SET] = self._start, self._set_last
        row[self._PID] = process
        return row

    def _known(self, process: int) -> bool:
        return process in self._rows[:, self._PID].tolist()

    @property
    def next(self) -> int:
        """Number of the epoch that the next iteration will be."""
        return int(self._row(_main_process())[self._NEXT])

    @next.setter
    def next(self, epoch: int) -> None:
        self._row(_main_process())[self._NEXT] = self._start = epoch
        self._iterations.clear()

    @property
    def set_last(self) -> int:
        """One more than the epoch that a user has set last, 0 if none was."""
        if self._told is not None:
            return int(self._told[1])
        return int(self._row(_main_process())[self._SET])

    @set_last.setter
    def set_last(self, number: int) -> None:
        self._row(_main_process())[self._SET] = self._set_last = number

    def claim(self) -> int:
        """Take the next epoch."""
        row = self._row(_main_process())
        epoch = int(row[self._NEXT])
        row[self._NEXT] = self._start = epoch + 1
        return epoch

    def tell(self, told: torch.Tensor | tuple[int, int]) -> None:
        """Tell a worker the epoch and `set_last`: numbers, or memory where the parent writes."""
        self._told = told

    def go_on(self, epoch: int) -> None:
        """Let the next iteration in this worker, and in its siblings, be the rest of an epoch."""
        self._rest = epoch

    def claim_in_worker(self, info: Any) -> int:
        """The epoch of a loader's iteration, the same in all of its workers."""
        if self._rest is not None:
            epoch, self._rest = self._rest, None
            if info.id == 0:
                self.next = epoch + 1
            return epoch
        if self._told is not None:
            return int(self._told[0])
        count = self._iterations.get(info.id, 0)
        self._iterations[info.id] = count + 1
        if multiprocessing.parent_process() is None:  # workers that are not processes
            return self.next + count
        if self._home == os.getpid():  # made in this worker: its siblings know nothing of it
            return self.claim()
        main = _main_process()
        taken = self._TAKEN + info.id % self._WORKERS
        key = (info.seed - info.id + count) % 2**62
        deadline = time.monotonic() + _PATIENCE_SECONDS
        if info.id == 0:
            row = self._row(main)
            row[self._EPOCH] = self.claim()
            row[self._KEY] = key
            row[self._SERIAL] += 1  # last: it tells the others that the rest is there
        while True:
            if self._known(main):
                row = self._row(main)
                if row[self._SERIAL] > row[taken] and row[self._KEY] == key:
                    row[taken] = row[self._SERIAL]
                    return int(row[self._EPOCH])
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"worker {info.id} waited {_PATIENCE_SECONDS:.0f} s for worker 0 to begin the "
                    "epoch; it seems to have died"
                )
            time.sleep(0.001)

    def __getstate__(self) -> dict[str, Any]:
        sent = get_spawning_popen() is not None  # to a process that is being started
        return {
            **self.__dict__,
            "_shared": self._shared if sent else None,
            "_start": self.next,
            "_set_last": self.set_last,
            "_iterations": {},
            "_told": None,
            "_rest": None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._shared is None:
            self.__init__(self._start, self._set_last)


def _main_process() -> int:
    """The process that iterates: this one, or the parent of a loader worker."""
    parent = multiprocessing.parent_process()
    if torch.utils.data.get_worker_info() is None or parent is None or parent.pid is None:
        return os.getpid()
    return parent.pid

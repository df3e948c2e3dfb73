"""The place where an epoch was left: a few integers, valid on any other topology."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any, Protocol, TypeVar, get_args

import numpy as np

from ..common.integers import as_integer
from ..common.redact import printable
from .intervals import Interval, Uneven, cut, share, share_total, sharing, total, worker_share
from .intervals import batches as count_batches
from .intervals import repeated as count_repeated
from .line import Line

__all__ = [
    "DimLabels",
    "Position",
    "Progress",
    "WorkerProgress",
    "as_number",
    "as_state",
    "entries",
    "fingerprint",
    "from_state",
    "remaining",
    "require_batches",
    "require_no_part",
    "require_possible",
    "require_same",
    "samples_left",
]

T = TypeVar("T")

# Numbers of states are kept in int64, with room for one more.
LARGEST = 2**62
# Each of them is looked at when a state is taken up.
MOST_READERS = 2**24
# Their other numbers may be 0.
AT_LEAST_ONE = {"world_size", "num_workers", "batch_size"}


class DimLabels(Protocol):
    """The labels of the dims of samples, as far as states know them."""

    @property
    def found(self) -> Mapping[str, Sequence[str]]:
        """By dim, a digest and what the first and the last label are."""


class Position:
    """Number of batches of an epoch that the latest iteration in this process has handed out."""

    def __init__(self) -> None:
        self.reached: tuple[int, int] | None = None

    def begin(self, epoch: int, taken: int = 0) -> None:
        """Note that an epoch has begun, or goes on after so many batches."""
        self.reached = epoch, taken

    def counted(self, epoch: int, batches: Iterable[T], taken: int = 0) -> Generator[T, None, None]:
        """Batches, counted as they are handed out, not as they are loaded ahead."""
        try:
            for batch in batches:
                taken += 1
                self.reached = epoch, taken
                yield batch
                del batch
        finally:
            if isinstance(batches, Generator):
                batches.close()


@dataclass(frozen=True)
class Progress:
    """The way that all ranks together have walked along what was left of an epoch.

    `num_workers` is 1 for none; `batches` is how many every rank has yielded.
    """

    world_size: int
    num_workers: int
    batch_size: int
    uneven: Uneven
    drop_last: bool
    batches: int

    def parts(self, left: Sequence[Interval], rank: int) -> list[list[Interval]]:
        """What each worker of a rank gets of what is left."""
        return self._cut(share(left, rank, self.world_size, self.sharing(total(left))))

    def _cut(self, mine: Sequence[Interval]) -> list[list[Interval]]:
        """What each worker gets of its rank's share."""
        return [
            worker_share(mine, worker, self.num_workers, self.batch_size, self.drop_last)
            for worker in range(self.num_workers)
        ]

    def sharing(self, count: int) -> Uneven:
        """How ranks share so many samples in fact."""
        return sharing(count, self.world_size, self.uneven, self.batch_size, self.drop_last)

    def done(self, left: Sequence[Interval]) -> list[Interval]:
        """What all ranks have yielded of what was left.

        Without what was marked as repeated: the rank that has it as its own may not have come to
        it, and it is to come once without that mark.
        """
        found: list[Interval] = []
        count = total(left)
        for rank in range(self.world_size):
            repeated = self._repeated(count, rank)
            for (part, taken), last in zip(self._taken(left, rank), repeated, strict=True):
                found += cut(part, 0, min(taken, total(part) - last))
        return found

    def rest(self, left: Sequence[Interval], rank: int) -> list[list[Interval]]:
        """What each worker of a rank gets if the walk goes on as it was, with the next batch.

        The worker whose turn it is comes first, because a loader begins with the first.
        """
        return self._in_turn(
            [cut(part, taken, total(part)) for part, taken in self._taken(left, rank)]
        )

    def repeated(self, left: Sequence[Interval], rank: int) -> list[int]:
        """How many samples, the last ones, are repeated of what `rest` gives each worker."""
        rest = [max(0, total(part) - taken) for part, taken in self._taken(left, rank)]
        return self._in_turn(list(map(min, rest, self._repeated(total(left), rank))))

    def _repeated(self, count: int, rank: int) -> list[int]:
        """How many samples, the last ones, are repeated of what each worker of a rank gets."""
        uneven = self.sharing(count)
        last = count_repeated(count, rank, self.world_size, uneven)
        if not last:
            return [0] * self.num_workers
        mine = share_total(count, rank, self.world_size, uneven)
        own = mine - last
        return [
            sum(max(0, stop - max(start, own)) for start, stop in part)
            for part in self._cut([(0, mine)])
        ]

    def left_out(self, count: int) -> int:
        """How many of so many samples no rank gets as its own."""
        uneven, own = self.sharing(count), 0
        for rank in range(self.world_size):
            mine = share_total(count, rank, self.world_size, uneven)
            if self.drop_last:
                mine = mine // self.batch_size * self.batch_size
            own += max(0, mine - count_repeated(count, rank, self.world_size, uneven))
        return count - own

    def _in_turn(self, of_workers: list[T]) -> list[T]:
        """What is for each worker, in the order of their turns."""
        turn = self.batches % self.num_workers
        return of_workers[turn:] + of_workers[:turn]

    def goes_on(self, other: Progress) -> bool:
        """Whether another walk is on the same topology, with the same batches."""
        return replace(self, batches=0) == replace(other, batches=0)

    def _taken(self, left: Sequence[Interval], rank: int) -> list[tuple[list[Interval], int]]:
        """What each worker of a rank gets, and how many samples of it were yielded."""
        parts = self.parts(left, rank)
        counts = [-(-total(part) // self.batch_size) for part in parts]
        taken = _round_robin(counts, self.batches)
        return [(part, each * self.batch_size) for part, each in zip(parts, taken, strict=True)]


@dataclass(frozen=True)
class WorkerProgress:
    """The progress of one loader worker of one rank, for a loader that asks each of its workers.

    `batches` is how many this worker has yielded.
    """

    rank: int
    world_size: int
    worker: int
    num_workers: int
    batch_size: int
    uneven: Uneven
    drop_last: bool
    batches: int = 0

    def of_state(self, state: Mapping[str, Any]) -> WorkerProgress:
        """The part of a worker's state; ValueError if it is of another worker, or of none."""
        if "part" not in state:
            raise ValueError(
                "this state is not of a loader worker; xtorch_data.DataLoader takes it, or the "
                "dataset itself, before workers begin"
            )
        found = _from_list(state["part"], WorkerProgress)
        different = [
            f"{name} {value} in the state, {getattr(self, name)} here"
            for name, value in asdict(replace(found, batches=self.batches)).items()
            if value != getattr(self, name)
        ]
        if different:
            raise ValueError(
                "a state that was taken in loader workers goes on in the same ones only, but: "
                + "; ".join(different)
                + ". A state of xtorch_data.DataLoader goes on with any ranks and workers"
            )
        return found


def require_no_part(state: Mapping[str, Any]) -> None:
    """Raise ValueError if a state is of one worker alone."""
    if "part" in state:
        raise ValueError(
            "this state was taken in a loader worker and is of its share alone: it goes on in that "
            "worker only. Take the state from the loader"
        )


def _round_robin(counts: Sequence[int], taken: int) -> list[int]:
    """Batches that come from each worker, as torch takes them in turns.

    Workers have equally many, or one more than others.
    """
    workers, common = len(counts), min(counts)
    if taken <= common * workers:
        return [max(0, -(-(taken - worker) // workers)) for worker in range(workers)]
    extra = taken - common * workers
    found = []
    for count in counts:
        more = min(count - common, max(extra, 0))
        found.append(common + more)
        extra -= more
    return found


# Kept: states are taken at every batch, and thousands of workers leave thousands of intervals.
@lru_cache(maxsize=8)
def remaining(samples: int, walks: tuple[Progress, ...]) -> tuple[Interval, ...]:
    """Stretches of the line that are left after some walks, one after the other."""
    left: tuple[Interval, ...] = ((0, samples),)
    for walk in walks:
        left = tuple(_without(left, walk.done(left)))
    return left


@lru_cache(maxsize=8)
def samples_left(samples: int, walks: tuple[Progress, ...]) -> int:
    """Number of samples that are left after some walks."""
    return total(remaining(samples, walks))


def _without(intervals: Iterable[Interval], done: Iterable[Interval]) -> Iterator[Interval]:
    """Intervals, ascending and apart, less others."""
    out = deque(sorted(done))
    for start, stop in intervals:
        while out and out[0][0] < stop:
            if start < out[0][0]:
                yield start, out[0][0]
            start = max(start, out[0][1])
            if out[0][1] > stop:  # it may reach into the next one
                break
            out.popleft()
        if start < stop:
            yield start, stop


def fingerprint(line: Line) -> dict[str, Any]:
    """What a line depends on, but for its epoch."""
    windows = line.grid.windows
    digest = hashlib.sha256()
    for each in windows.frame.maps:
        digest.update(each.digest())
    found = {
        "samples": len(windows),
        "windows": digest.hexdigest()[:16],
        "shuffle": line.shuffle,
        "seed": line.seed,
    }
    if line.shuffle:  # in order the line is the same however it is cut into blocks
        blocks = hashlib.sha256()
        for cuts in line.grid.cuts:
            blocks.update(np.asarray(cuts).tobytes())
        found["blocks"] = blocks.hexdigest()[:16]
        found["blocks in a pool"] = min(line.pool_blocks, len(line.grid))
    return found


def require_same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise ValueError, saying what differs, if a state is not one of this dataset."""
    reasons = {
        "blocks": "the order of blocks (it depends on chunks and memory)",
        "blocks in a pool": "the number of blocks in a pool (it depends on memory)",
        "windows": "the windows, or the sizes of the dims",
        "subset": "the indices of the Subset",
    }
    different = [
        f"{reasons.get(name, printable(name))}: {printable(found.get(name))} in the "
        f"state, {printable(expected.get(name))} here"
        for name in {**expected, **found}
        if name != "labels" and found.get(name) != expected.get(name)
    ]
    different += _other_labels(found.get("labels") or {}, expected.get("labels") or {})
    if different:
        raise ValueError(
            "this state is of another dataset. What differs: "
            + "; ".join(different)
            + ". strict=False takes it all the same"
        )


def _other_labels(found: Any, expected: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Dims with other labels; states of before know none, and not all data has some."""
    if not isinstance(found, Mapping) or not all(
        isinstance(of_dim, list | tuple) and len(of_dim) == 3 for of_dim in found.values()
    ):
        raise ValueError(
            "this is not a state of a dataset: its 'labels' must have a digest, the first and the "
            f"last label of each dim, not {printable(found)}"
        )
    for dim in found:
        if dim in expected and found[dim][0] != expected[dim][0]:
            (_, *before), (_, *now) = found[dim], expected[dim]
            before = [printable(label) for label in before]
            ends = f"{before[0]} to {before[1]} in the state, {now[0]} to {now[1]} here"
            inside = ", and others in between" if before == now else ""
            yield f"the labels of dim {dim!r}: {ends}{inside}"


def as_state(
    epoch: int, walks: Iterable[Progress], fingerprint: Mapping[str, Any]
) -> dict[str, Any]:
    """A JSON-able state."""
    return {
        "version": 1,
        "epoch": epoch,
        "walks": [list(asdict(walk).values()) for walk in walks],
        "dataset": dict(fingerprint),
    }


def from_state(
    state: Mapping[str, Any], fingerprint: Mapping[str, Any], strict: bool
) -> tuple[int, list[Progress]]:
    """Epoch and walks of a state; ValueError if it is none, or, if `strict`, of another dataset."""
    keys = "version", "epoch", "walks", "dataset"
    version, epoch, walks, found = entries(state, keys, "an xtorch_data dataset")
    if version != 1:
        raise ValueError(f"the state has version {version!r}; this release reads version 1")
    if not isinstance(found, Mapping) or not isinstance(walks, Sequence) or isinstance(walks, str):
        raise ValueError(
            "this is not a state of an xtorch_data dataset: its 'walks' must be a list and its "
            f"'dataset' a mapping, not {walks!r} and {found!r}"
        )
    if strict:
        require_same(found, fingerprint)
    return as_number(epoch, "epoch"), [_walk(walk) for walk in walks]


def entries(state: Any, keys: Sequence[str], what: str) -> list[Any]:
    """Some entries of a state; ValueError if it lacks one, or is none at all."""
    if not isinstance(state, Mapping) or any(key not in state for key in keys):
        raise ValueError(f"this is not a state of {what}: {state!r} lacks some of {list(keys)}")
    return [state[key] for key in keys]


def as_number(value: Any, name: str, least: int = 0, most: int = LARGEST) -> int:
    """A number of a state, which a file may have changed: ValueError if it cannot be one."""
    try:
        number = as_integer(value, name)
    except TypeError:
        raise ValueError(f"{name} is {value!r} in the state; it must be an integer") from None
    if not least <= number <= most:
        raise ValueError(f"{name} is {number} in the state; it must be {least} to {most}")
    return number


def _walk(values: Any) -> Progress:
    """A walk from the list of its values."""
    walk = _from_list(values, Progress)
    if walk.world_size * walk.num_workers > MOST_READERS:
        raise ValueError(
            f"the state is of {walk.world_size} ranks with {walk.num_workers} workers each, more "
            f"than {MOST_READERS:,} together"
        )
    return walk


def _from_list(values: Any, kind: type[T]) -> T:
    """A walk or part from the list of its values, each of which is checked."""
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != len(names):
        raise ValueError(f"the state must have the values of {names} in a list, not {values!r}")
    return kind(*map(_checked, names, values))


def _checked(name: str, value: Any) -> Any:
    """A value of a walk or part; ValueError if it cannot be one."""
    if name == "uneven":
        if not isinstance(value, str) or value not in get_args(Uneven):
            raise ValueError(
                f"uneven is {value!r} in the state; it must be one of {list(get_args(Uneven))}"
            )
        return value
    if name == "drop_last":
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"drop_last is {value!r} in the state; it must be True or False")
        return bool(value)
    return as_number(value, name, least=int(name in AT_LEAST_ONE))


def require_batches(samples: int, part: WorkerProgress) -> None:
    """Raise ValueError if a worker has yielded more batches than so many samples make."""
    most = count_batches(samples, part.batch_size, part.drop_last)
    if part.batches > most:
        raise ValueError(
            f"batches is {part.batches} in the state, but worker {part.worker} of rank {part.rank} "
            f"has {most}"
        )


def require_possible(samples: int, walks: Iterable[Progress]) -> None:
    """Raise ValueError if more batches were walked than there were."""
    before: list[Progress] = []
    for walk in walks:
        left = samples_left(samples, tuple(before))
        most = max(
            count_batches(
                share_total(left, rank, walk.world_size, walk.uneven),
                walk.batch_size,
                walk.drop_last,
            )
            for rank in (0, walk.world_size - 1)
        )
        if walk.batches > most:
            raise ValueError(
                f"batches is {walk.batches} in the state, but {left} samples on {walk.world_size} "
                f"ranks make {most} batches of {walk.batch_size}"
            )
        before.append(walk)

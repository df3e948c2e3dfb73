"""In which order a loader walks through samples by number, and how it goes on there."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.utils.data
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler, SubsetRandomSampler

from ..common.cached import cached_property
from ..datasets.iterable import IterableDataset
from ..planning.states import as_number, entries, kind_of, require_same
from ..samples.arguments import as_numbers

__all__ = [
    "Order",
    "OwnOrder",
    "Shuffled",
    "behind",
    "gets_items_as",
    "numbers_behind",
    "require_there",
]

# An epoch that has begun, and how many of its batches were handed out.
Reached: TypeAlias = tuple[int, int] | None

AT_ONCE = 2**16  # indices that are Python integers at the same time

# What the order of samplers with `set_epoch`, such as torch's DistributedSampler or Accelerate's,
# depends on besides; not the rank, because the state of one serves every rank.
_SETTINGS = ("seed", "initial_seed", "num_replicas", "shuffle")


class Shuffled(RandomSampler):
    """Every sample once, in a random order of a seed that is known.

    The order that torch's sampler makes after the same draw from the generator, torch's global
    one by default.
    """

    def __init__(self, data_source: Sized, generator: torch.Generator | None) -> None:
        super().__init__(data_source, generator=generator)
        self.seed: int | None = None  # of the next pass, once it is known

    def draw(self) -> None:
        """Draw the seed of the next pass, unless it is known."""
        if self.seed is None:
            # The attribute, because Accelerate puts a generator there that all ranks share.
            drawn = torch.empty((), dtype=torch.int64, device="cpu").random_(
                generator=self.generator
            )
            self.seed = int(drawn.item())

    def __iter__(self) -> Iterator[int]:
        self.draw()
        assert self.seed is not None
        generator = torch.Generator()
        generator.manual_seed(self.seed)
        self.seed = None
        order = torch.randperm(len(self.data_source), generator=generator, device="cpu").numpy()
        for start in range(0, len(order), AT_ONCE):
            yield from order[start : start + AT_ONCE].tolist()


class Order:
    """The batches of indices that a loader asks for, from where it goes on.

    A state holds what the order of the epoch depends on, and how many of its batches are over.
    These are passed over, not fetched. Made by a loader, of its batch sampler and its dataset,
    which says which samples the indices are of; the thread that iterates touches it.
    """

    def __init__(self, batches: Any, dataset: Any) -> None:
        self._batches = batches
        self._sampler = batches
        while type(self._sampler) is BatchSampler:
            self._sampler = self._sampler.sampler
        self._dataset = dataset
        self._inside = behind(dataset)[1]._inside
        self._times_set = 0  # how often the epoch had been set before the latest pass
        self._depends: dict[str, int] | None = None  # what the latest pass depends on
        self._pass: Iterator[list[int]] = iter(())
        self._over: list[int] = []  # how many batches the latest pass had, once it is over
        # An epoch that is resumed: its number, its batches that are over, and what it depends on.
        self._resumed: tuple[int, int, dict[str, int] | None] = 0, 0, None

    def __len__(self) -> int:
        return len(self._batches) - self.passed

    @property
    def passed(self) -> int:
        """Batches that the next pass leaves out: none if it is not what is resumed any more."""
        epoch, batches, depends = self._resumed
        goes_on = epoch == self._inside.epoch and depends == _depends_on(self._sampler)
        return batches if goes_on else 0

    def begin(self, reached: Reached) -> tuple[int, int]:
        """Begin a pass, its epoch and the batches that are over of it.

        It is the next epoch if this one was reached, unless that was set again. Until the next
        pass begins, iterating gives what is left of this one. Not when iterating begins: torch's
        loader does that twice.
        """
        epoch, taken, times_set = self._inside.epoch, self.passed, self._inside.times_set
        if reached is not None and reached[0] == epoch and self._times_set == times_set:
            epoch += 1
        self._times_set = times_set
        self._inside.begin(epoch)
        self._begin_pass()
        return epoch, taken

    def _begin_pass(self) -> None:
        passed, (_, resumed, _) = self.passed, self._resumed
        self._resumed = 0, 0, None
        if isinstance(self._sampler, Shuffled):
            if resumed and not passed:
                self._sampler.seed = None  # of an epoch that was left
            self._sampler.draw()
        self._depends = _depends_on(self._sampler)
        batches = itertools.islice(iter(self._batches), passed, None)
        # The sampler's pass begins now, so that it is the one that was noted.
        first = list(itertools.islice(batches, 1))
        self._over = []
        self._pass = _counted(itertools.chain(first, batches), passed, self._over)

    def __iter__(self) -> Iterator[list[int]]:
        return self._pass

    def state(self, reached: Reached, num_workers: int) -> dict[str, Any]:
        """A JSON-able state after so many batches of an epoch; of the next one if None is reached.

        There is always one, so that no checkpoint fails; `resume` may refuse it.
        """
        if reached is not None and self._times_set != self._inside.times_set:
            # Set during a pass of this very epoch, that goes on; else it is the next one.
            goes_on = reached[0] == self._inside.epoch and not self._is_over(reached[1])
            reached = reached if goes_on else None
        if reached is None:
            epoch, batches, depends = self._inside.epoch, self.passed, _depends_on(self._sampler)
        elif self._is_over(reached[1]):
            epoch, batches, depends = reached[0] + 1, 0, _depends_on(self._sampler)
        else:
            epoch, batches, depends = *reached, self._depends
        return {
            "version": 1,
            "epoch": epoch,
            "batches": batches,
            "order": depends,
            "dataset": self._fingerprint(),
        }

    def _is_over(self, batches: int) -> bool:
        """Whether the latest pass has no more batches than that."""
        length = _length(self._batches)
        return batches in self._over if length is None else batches >= length

    def resume(self, state: Mapping[str, Any], strict: bool) -> None:
        """Let the next pass go on where a state was taken.

        Raises
        ------
        ValueError
            If it is no state, or, if `strict`, one of another order, or of the middle of an epoch
            whose order cannot be made again: without `strict` that epoch begins anew.
        """
        keys = "version", "epoch", "batches", "order", "dataset"
        what = "a loader of a MapDataset"
        version, epoch, batches, depends, found = entries(state, keys, what)
        if version != 1:
            raise ValueError(f"the state has version {version!r}; this release reads version 1")
        epoch, batches = as_number(epoch, "epoch"), as_number(batches, "batches")
        if not isinstance(found, Mapping) or not isinstance(depends, Mapping | None):
            raise ValueError(
                f"this is not a state of {what}: its 'dataset' must be a mapping and its 'order' "
                f"one or None, not {kind_of(found)} and {kind_of(depends)}"
            )
        for name in {"seed", "epoch"} & (depends or {}).keys():
            as_number((depends or {})[name], f"the {name} of the order", -(2**63), 2**64 - 1)
        if strict:
            require_same(found, self._fingerprint())
        if batches and depends is None:
            if strict:
                raise ValueError(
                    f"the state was taken in the middle of an epoch, and the order of "
                    f"{found['sampler']} cannot be made again; that in order, of shuffle=True and "
                    "of samplers with set_epoch, such as ChunkSampler, can. strict=False begins "
                    "the epoch anew"
                )
            batches = 0
        length = _length(self._batches)
        if strict and length is not None and batches > length:
            raise ValueError(f"batches is {batches} in the state, but an epoch has {length}")
        if isinstance(self._sampler, Shuffled):
            if batches and "seed" not in (depends or {}):
                raise ValueError("the state lacks the seed of the epoch that it was taken in")
            self._sampler.seed = (depends or {}).get("seed")
        elif "epoch" in (depends or {}):
            self._sampler.set_epoch(depends["epoch"])
        self._resumed = epoch, batches, _depends_on(self._sampler)
        self._inside.begin(epoch)
        self._times_set = self._inside.times_set

    def _fingerprint(self) -> dict[str, Any]:
        """What the order depends on, but for the epoch."""
        if hasattr(self._sampler, "fingerprint"):
            own = self._sampler.fingerprint()
        else:
            own = {"samples": _length(self._sampler), **_settings(self._sampler)}
        return {
            **self._samples,
            **own,
            "sampler": type(self._sampler).__name__,
            "batch_size": getattr(self._batches, "batch_size", None),
            "drop_last": getattr(self._batches, "drop_last", None),
        }

    @cached_property
    def _samples(self) -> dict[str, Any]:
        """Entries of a state that tell the samples of the indices from others."""
        digest, (subsets, dataset) = hashlib.sha256(), behind(self._dataset)
        for indices in (subset.indices for subset in subsets):
            digest.update(len(indices).to_bytes(8, "little"))
            for start in range(0, len(indices), AT_ONCE):
                digest.update(np.asarray(indices[start : start + AT_ONCE], np.int64).tobytes())
        whole = dataset.plan.fingerprint()
        found = {name: whole[name] for name in ("windows", "labels", "where") if name in whole}
        if subsets:
            found["subset"] = digest.hexdigest()[:16]
        return found


class OwnOrder:
    """The order of an `IterableDataset`, which knows itself where it goes on.

    Made by a loader, in the place of an `Order`.
    """

    def __init__(self, dataset: IterableDataset) -> None:
        self._dataset, self._times_set = dataset, 0

    def begin(self, reached: Reached) -> tuple[int, int]:
        """Begin the next epoch; no batch is over of what it yields."""
        epoch = self._dataset._inside.begin()
        self._times_set = self._dataset._inside.times_set
        return epoch, 0

    def state(self, reached: Reached, num_workers: int) -> dict[str, Any]:
        """A JSON-able state after so many batches of an epoch, as so many workers yield it."""
        dataset, upcoming = self._dataset, self._dataset.epoch
        if reached is None or self._times_set != dataset._inside.times_set:
            reached = upcoming, 0  # another epoch was set since that one had begun
        epoch, batches = reached
        workers = max(1, num_workers)
        return dataset._inside.state_after(epoch, batches, workers)

    def resume(self, state: Mapping[str, Any], strict: bool) -> None:
        """Let the next epoch go on where a state was taken."""
        self._dataset.load_state_dict(state, strict)


def _counted(batches: Iterable[list[int]], count: int, over: list[int]) -> Iterator[list[int]]:
    """Batches; when they are over, their number goes into a list."""
    for batch in batches:
        count += 1
        yield batch
    over.append(count)


def _length(sized: Any) -> int | None:
    """The length of a sampler, if it has one: torch does not ask for it."""
    try:
        return len(sized)
    except (TypeError, NotImplementedError):
        return None


def _settings(sampler: Any) -> dict[str, int]:
    """Settings on which the order of a sampler with epochs depends, besides these."""
    if not hasattr(sampler, "set_epoch"):
        return {}
    found = {name: getattr(sampler, name, None) for name in _SETTINGS}
    return {n: int(value) for n, value in found.items() if isinstance(value, (int, np.integer))}


def _depends_on(sampler: Any) -> dict[str, int] | None:
    """Numbers on which the next pass of a sampler depends; None if they are not known."""
    if isinstance(sampler, Shuffled):
        return {} if sampler.seed is None else {"seed": sampler.seed}
    if hasattr(sampler, "set_epoch") and hasattr(sampler, "epoch"):
        return {"epoch": int(sampler.epoch)}
    return {} if type(sampler) is SequentialSampler else None


def behind(dataset: Any) -> tuple[list[Any], Any]:
    """Subsets, from the outermost one on, and the dataset behind them; no subset may be there.

    One of a class that makes items in its own way is no subset here, but a dataset of its own.
    """
    subsets = []
    while gets_items_as(torch.utils.data.Subset, dataset):
        subsets.append(dataset)
        dataset = dataset.dataset
    return subsets, dataset


def gets_items_as(kind: Any, dataset: Any) -> bool:
    """Whether it is of a kind, and not of a subclass that makes samples otherwise."""
    return isinstance(dataset, kind) and type(dataset).__getitems__ is kind.__getitems__


def numbers_behind(dataset: Any, indices: Sequence[int]) -> Sequence[int]:
    """Sample numbers of indices, which may be those of a subset."""
    for subset in behind(dataset)[0]:
        own = subset.indices
        indices = [own[index] for index in indices]
    return indices


def require_there(dataset: Any, sampler: Any, batch_sampler: Any) -> None:
    """Raise IndexError if indices, as far as they are known, are of samples that are not there.

    Raises
    ------
    TypeError
        If they are not integers.
    """
    for subset in behind(dataset)[0]:
        _require_within(subset.indices, len(subset.dataset), "Subset")
    samples = len(dataset)
    if isinstance(batch_sampler, Sequence):
        for batch in batch_sampler:
            _require_within(batch, samples, "batch_sampler")
    elif batch_sampler is not None:
        sampler = getattr(batch_sampler, "sampler", None)
    if isinstance(sampler, SubsetRandomSampler):
        _require_within(sampler.indices, samples, "SubsetRandomSampler")
    elif isinstance(sampler, (Sequence, np.ndarray, torch.Tensor)):
        _require_within(sampler, samples, "sampler")
    for name in ("weights", "data_source", "dataset"):
        drawn_from = getattr(sampler, name, None)
        if drawn_from is not None and len(drawn_from) > samples:
            raise IndexError(
                f"{type(sampler).__name__} draws from {len(drawn_from)} samples (its {name}), but "
                f"the dataset has {samples}"
            )


def _require_within(indices: Any, samples: int, what: str) -> None:
    try:
        as_numbers(indices, samples)
    except (IndexError, TypeError) as error:
        raise type(error)(f"{what}: {error}") from None

"""In which order a loader walks through samples by number, and how it goes on there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
import torch.utils.data
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler, SubsetRandomSampler

from .arguments import as_numbers
from .plan import Plan
from .resume import require_same

__all__ = ["Order", "Shuffled", "numbers_behind", "require_there"]

AT_ONCE = 2**16  # indices that are Python integers at the same time


class Shuffled(RandomSampler):
    """Every sample once, in a random order of a seed that is known.

    The order that torch's sampler makes after the same draw.

    Parameters
    ----------
    data_source : sized
        What is sampled.
    generator : torch.Generator, optional
        Draws the seeds; torch's global one by default.
    """

    def __init__(self, data_source: Sized, generator: torch.Generator | None) -> None:
        super().__init__(data_source, generator=generator)
        self.seed: int | None = None  # of the next pass, once it is known

    def draw(self) -> None:
        """Draw the seed of the next pass, unless it is known."""
        if self.seed is None:
            # The attribute, because Accelerate puts a generator there that all ranks share.
            drawn = torch.empty((), dtype=torch.int64).random_(generator=self.generator)
            self.seed = int(drawn.item())

    def __iter__(self) -> Iterator[int]:
        self.draw()
        assert self.seed is not None
        generator = torch.Generator()
        generator.manual_seed(self.seed)
        self.seed = None
        order = torch.randperm(len(self.data_source), generator=generator).numpy()
        for start in range(0, len(order), AT_ONCE):
            yield from order[start : start + AT_ONCE].tolist()


class Order:
    """The batches of indices that a loader asks for, from where it goes on.

    A state holds what the order of the epoch depends on, and how many of its batches are over.
    These are passed over, not fetched.

    Parameters
    ----------
    batches : iterable of list of int
        The batch sampler, as torch's loader has it.
    plan : Plan
        Says which windows the samples are.
    """

    def __init__(self, batches: Any, plan: Plan) -> None:
        self._batches = batches
        self._sampler = batches
        while type(self._sampler) is BatchSampler:
            self._sampler = self._sampler.sampler
        self._plan = plan
        self._depends: dict[str, int] | None = None  # what the latest pass depends on
        self._pass: Iterator[list[int]] = iter(())
        self.passed = 0  # batches that the next pass leaves out

    def __len__(self) -> int:
        return len(self._batches) - self.passed

    def begin(self) -> None:
        """Begin a pass; until the next one begins, iterating gives what is left of it.

        Not when iterating begins: torch's loader does that twice.
        """
        if isinstance(self._sampler, Shuffled):
            self._sampler.draw()
        self._depends = _depends_on(self._sampler)
        passed, self.passed = self.passed, 0
        batches = itertools.islice(iter(self._batches), passed, None)
        # The sampler's pass begins now, so that it is the one that was noted.
        first = list(itertools.islice(batches, 1))
        self._pass = itertools.chain(first, batches)

    def __iter__(self) -> Iterator[list[int]]:
        return self._pass

    def state(self, epoch: int, batches: int | None) -> dict[str, Any]:
        """A JSON-able state after so many batches of an epoch; None if it has not begun.

        There is always one, so that no checkpoint fails; `resume` may refuse it.
        """
        depends = self._depends
        if batches is None:
            batches, depends = self.passed, _depends_on(self._sampler)
        elif batches >= len(self._batches):
            epoch, batches, depends = epoch + 1, 0, _depends_on(self._sampler)
        return {
            "version": 1,
            "epoch": epoch,
            "batches": batches,
            "order": depends,
            "dataset": self._fingerprint(),
        }

    def resume(self, state: Mapping[str, Any], strict: bool) -> int:
        """Let the next pass go on where a state was taken, and give the number of its epoch.

        Raises
        ------
        ValueError
            If it is no state, or, if `strict`, one of another order, or of the middle of an epoch
            whose order cannot be made again: without `strict` that epoch begins anew.
        """
        try:
            version, epoch, batches = state["version"], state["epoch"], state["batches"]
            depends, found = state["order"], state["dataset"]
        except (KeyError, TypeError):
            raise ValueError(
                f"this is not a state of a loader of a MapDataset: {state!r}"
            ) from None
        if version != 1:
            raise ValueError(f"the state has version {version!r}; this release reads version 1")
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
        if isinstance(self._sampler, Shuffled):
            self._sampler.seed = (depends or {}).get("seed")
        elif "epoch" in (depends or {}):
            self._sampler.set_epoch(depends["epoch"])
        self.passed = int(batches)
        return int(epoch)

    def _fingerprint(self) -> dict[str, Any]:
        """What the order depends on, but for the epoch."""
        if hasattr(self._sampler, "fingerprint"):
            own = self._sampler.fingerprint()
        else:
            own = {"samples": len(self._sampler), "windows": self._plan.fingerprint()["windows"]}
        return {
            **own,
            "sampler": type(self._sampler).__name__,
            "batch_size": getattr(self._batches, "batch_size", None),
            "drop_last": getattr(self._batches, "drop_last", None),
        }


def _depends_on(sampler: Any) -> dict[str, int] | None:
    """What the next pass of a sampler depends on; None if that is not known."""
    if isinstance(sampler, Shuffled):
        return {} if sampler.seed is None else {"seed": sampler.seed}
    if hasattr(sampler, "set_epoch") and hasattr(sampler, "epoch"):
        return {"epoch": int(sampler.epoch)}
    return {} if type(sampler) is SequentialSampler else None


def numbers_behind(dataset: Any, indices: Sequence[int]) -> Sequence[int]:
    """Sample numbers of indices, which may be those of a subset."""
    while isinstance(dataset, torch.utils.data.Subset):
        own = dataset.indices
        indices = [own[index] for index in indices]
        dataset = dataset.dataset
    return indices


def require_there(dataset: Any, sampler: Any, batch_sampler: Any) -> None:
    """Raise IndexError if indices, as far as they are known, are of samples that are not there.

    Raises
    ------
    TypeError
        If they are not integers.
    """
    within: Any = dataset
    while isinstance(within, torch.utils.data.Subset):
        subset, within = within, within.dataset
        _require_within(subset.indices, len(within), "Subset")
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

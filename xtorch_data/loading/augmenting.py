"""The function by which a loader changes each batch before it hands it out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import Any, TypeAlias

import torch

from ..common.text import number_of
from ..samples.augment import RandomFlip
from ..samples.batch import Batch
from ..samples.definition import SampleDefinition

__all__ = ["Augment", "augmented", "require_augment"]

# Takes a batch and returns one of the same samples.
Augment: TypeAlias = Callable[[Batch], Batch]


def require_augment(augment: Any, samples: SampleDefinition) -> None:
    """Raise if it is no function of a batch, or one of ours that does not fit the samples."""
    if augment is None:
        return
    if not callable(augment):
        raise TypeError(f"augment must be a function of a batch that returns one, not {augment!r}")
    if isinstance(augment, type):
        raise TypeError(f"augment must be an object of class {augment.__name__}, not the class")
    try:
        signature = inspect.signature(augment)
    except (TypeError, ValueError):  # built in, without a signature
        return
    try:
        signature.bind(None)
    except TypeError:
        raise TypeError(
            f"augment takes one argument, a batch, and returns one, as lambda batch: "
            f"batch.replace(x=batch.x.abs()) does; {augment!r} takes {signature}"
        ) from None
    if isinstance(augment, RandomFlip):
        augment._require_fit(samples)


def augmented(
    augment: Augment, batches: Generator[Batch, None, None], pinned: bool
) -> Generator[Batch, None, None]:
    """Batches as a function changes them, again in page-locked memory if they were there.

    Whatever goes wrong ends the epoch at once.
    """
    with closing(batches):
        yield from map(partial(_augmented, augment, pinned), batches)


def _augmented(augment: Augment, pinned: bool, batch: Batch) -> Batch:
    made = augment(batch)
    if not isinstance(made, Batch):
        raise TypeError(
            "augment must return a Batch, such as batch.replace(x=…) gives, not "
            f"{type(made).__name__}"
        )
    if made.index is not batch.index and not torch.equal(made.index, batch.index):
        raise ValueError(
            f"augment must keep the samples of a batch in their order: it was given "
            f"{number_of(batch.index.numel(), 'sample')}, and returned others"
        )
    return made.pin_memory() if pinned else made

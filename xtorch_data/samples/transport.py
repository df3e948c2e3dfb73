"""Batches on their way: stacked of single samples by torch's loader, and sent between processes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch

from ..processes.internals import collate_with
from ..processes.shared_memory import shareable
from .draws import Draws
from .labels import BoolArray, Labels
from .part_labels import PartLabels

__all__ = ["between_processes"]


def between_processes(kind: type[Any]) -> None:
    """Let torch's loader stack single samples of a class of batches, and workers send batches.

    Coordinates stay at home between processes; a batch that is pickled to a file keeps them.
    """
    collate_with(kind, _collate)
    ForkingPickler.register(kind, _reduce)


def _collate(samples: list[Any], *, collate_fn_map: Any = None) -> Any:
    """Stack single samples: what ``DataLoader(dataset, batch_size=…)`` of torch calls."""
    first = samples[0]
    if first.index.ndim:
        raise TypeError(
            "these are batches already: give the torch DataLoader batch_size=None, or the dataset "
            "batch_size=None for single samples"
        )
    parts = {name: torch.stack([sample[name] for sample in samples]) for name in first.keys()}
    index = torch.stack([sample.index for sample in samples])
    skipped = [number for sample in samples for number in sample.skipped]
    repeated = None
    if any(sample._repeated is not None for sample in samples):
        repeated = torch.stack([sample.repeated for sample in samples])
    draws = Draws(first._draws.seed, first._draws.epoch, max(each._draws.calls for each in samples))
    flipped = {
        dim: np.stack([each._flipped.get(dim, np.False_) for each in samples])
        for dim in dict.fromkeys(dim for each in samples for dim in each._flipped)
    }
    known = first._part_labels, first._labels, skipped, repeated, draws, flipped
    return type(first)(parts, index, *known)


def _rebuild(
    kind: type[Any],
    parts: dict[str, torch.Tensor],
    index: np.ndarray[Any, Any],
    part_labels: dict[str, PartLabels],
    token: str | None,
    skipped: Sequence[int],
    repeated: np.ndarray[Any, Any] | None,
    draws: Draws,
    flipped: Mapping[Hashable, BoolArray],
) -> Any:
    labels = Labels.find(token) if token is not None else None
    marks = None if repeated is None else torch.from_numpy(repeated)
    known = part_labels, labels, skipped, marks, draws, flipped
    return kind(parts, torch.from_numpy(index), *known)


def _reduce(batch: Any) -> tuple[Any, ...]:
    token = None if batch._labels is None else batch._labels.token
    parts = {name: shareable(tensor) for name, tensor in batch._parts.items()}
    index = batch.index.numpy()
    repeated = None if batch._repeated is None else batch._repeated.numpy()
    rest = token, batch.skipped, repeated, batch._draws, batch._flipped
    return _rebuild, (type(batch), parts, index, batch._part_labels, *rest)

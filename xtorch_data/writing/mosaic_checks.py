"""What is laid: batches of the samples of a mosaic, each once, and predictions that are numbers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..common.text import number_of
from ..planning.windows import SourceWindows
from ..samples.batch import Batch
from ..samples.labels import Labels
from ..samples.select import Part
from ..samples.tensors import as_numpy
from .mosaic_layout import MosaicLayout

__all__ = [
    "as_predictions",
    "dtype_of_sums",
    "require_fit",
    "require_like_before",
    "require_new",
    "without_repeated",
]

BoolArray = npt.NDArray[np.bool_]


def require_fit(batch: Batch, layout: MosaicLayout) -> None:
    """Raise ValueError if a batch is of other samples than a layout, or lies otherwise.

    TypeError if it is no batch.
    """
    if not isinstance(batch, Batch):
        raise TypeError(
            "add takes a batch of xtorch_data, which knows its samples, and predictions, not "
            f"{type(batch).__name__}"
        )
    _require_alike(batch, layout.part)
    labels = batch._labels
    if labels is not None and labels.token not in layout.known:
        _require_of(labels, layout.first.labels, layout.source)
        layout.known.add(labels.token)


def _require_alike(batch: Batch, part: Part) -> None:
    """Raise ValueError if samples were flipped, or the part is cut otherwise."""
    flipped = [dim for dim, flags in batch._flipped.items() if np.any(flags)]
    if flipped:
        raise ValueError(
            f"samples of this batch were flipped along {flipped}: predictions are laid of batches "
            "without augment=, since nobody knows which of them changed their signs. To average "
            "over flips, flip in forward"
        )
    own = batch._part_labels.get(part.name)
    if own and (own.variables, own.indexers) != (part.variables, part.indexers):
        if part.scheduled:
            raise ValueError(
                f"part {part.name!r} follows a Schedule, and this batch is of a phase that lacks "
                "steps of the longest one. For predictions give the steps themselves: "
                "dataset.replace(targets=Select(…)); or dataset.set_epoch(…) to the longest phase"
            )
        raise ValueError(
            f"part {part.name!r} of this batch has other variables or steps than that of the "
            "mosaic's dataset: take batches of a loader over the same dataset"
        )


def _require_of(own: Labels, labels: Labels, source: str | None) -> None:
    """Raise ValueError if samples lie elsewhere, or have other labels.

    `source` is that of which predictions are, if it is not the first one.
    """
    if own is not labels and not _alike(own, labels, source):
        raise ValueError(
            "this batch is of another dataset than the mosaic: its samples lie elsewhere, or have "
            "other labels"
        )


def _alike(one: Labels, other: Labels, source: str | None) -> bool:
    """Whether samples lie at the same places, with the same labels along their dims."""
    if source is not None and source not in one.others:
        return False
    if source is not None and not _alike(one.others[source], other.others[source], None):
        return False
    if not _lie_alike(one.windows, other.windows):
        return False
    indexes = one.coords.xindexes, other.coords.xindexes
    names = [axis.dim for axis in one.windows.axes]
    return all(
        (name in indexes[0]) == (name in indexes[1])
        and (name not in indexes[0] or one.coords[name].equals(other.coords[name]))
        for name in names
    )


def _lie_alike(one: SourceWindows, other: SourceWindows) -> bool:
    mine, theirs = one.frame.maps, other.frame.maps
    return (
        one.shape == other.shape
        and len(mine) == len(theirs)
        and all(
            replace(own, terms={}) == replace(each, terms={})
            and own.terms.keys() == each.terms.keys()
            and all(own.terms[axis].same_as(each.terms[axis]) for axis in own.terms)
            for own, each in zip(mine, theirs, strict=True)
        )
    )


def require_new(
    numbers: npt.NDArray[np.int64], samples: BoolArray | None, added: BoolArray
) -> None:
    """Raise ValueError if a sample is in `added`, is given twice, or is none of `samples`."""
    if samples is not None and not (there := samples.reshape(-1)[numbers]).all():
        raise ValueError(f"sample {numbers[~there][0]} is none of this dataset")
    before = added[numbers]
    if np.count_nonzero(before):
        raise ValueError(f"sample {numbers[before][0]} was added before")
    if np.count_nonzero(numbers[1:] <= numbers[:-1]) and len(np.unique(numbers)) < len(numbers):
        different, often = np.unique(numbers, return_counts=True)
        raise ValueError(f"sample {different[often > 1][0]} is in the batch twice")


def require_like_before(
    others: Mapping[Hashable, int],
    before: Mapping[Hashable, int],
    dtype: np.dtype[Any],
    sums: np.dtype[Any],
) -> None:
    """Raise ValueError if predictions have other dims than those before, TypeError for a dtype."""
    if others != before:
        raise ValueError(f"y has dims {others}, and the predictions before {before}")
    if dtype != sums and not np.can_cast(dtype, sums):
        raise TypeError(f"y has dtype {dtype}, which {sums} of the predictions before cannot hold")


def without_repeated(
    batch: Batch, values: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Numbers of the samples of a batch, and their predictions, but for those that are repeated.

    ValueError if there are not as many of both.
    """
    numbers = batch.index.numpy().reshape(-1)
    if len(values) != len(numbers):
        raise ValueError(f"y has {number_of(len(values), 'sample')}, and the batch {len(numbers)}")
    if batch._repeated is not None and batch.repeated.any():
        chosen = ~batch.repeated.numpy().reshape(-1)
        numbers, values = numbers[chosen], values[chosen]
    return numbers, values


def as_predictions(y: Any) -> npt.NDArray[Any]:
    """Predictions as an array of numbers; TypeError or ValueError if they are none."""
    if isinstance(y, torch.Tensor):
        if y.is_meta:
            raise ValueError("predictions are on the meta device, where tensors have no values")
        try:
            return as_numpy(y)
        except TypeError as error:
            raise TypeError(
                f"predictions are a tensor of dtype {y.dtype} and layout {y.layout}: {error}"
            ) from None
    if np.ma.is_masked(y):
        raise TypeError(
            "predictions are a masked array, and what it masks is missing: y.filled(numpy.nan) "
            "says so"
        )
    found = np.asarray(y)
    if found.dtype.kind not in "fciub":
        raise TypeError(
            f"predictions are numbers in a tensor or an array, not {type(y).__name__} of dtype "
            f"{found.dtype}"
        )
    return found


def dtype_of_sums(dtype: np.dtype[Any], overlaps: bool) -> np.dtype[Any]:
    """The dtype in which predictions are summed; TypeError if integers overlap."""
    if dtype.kind in "iub" and overlaps:
        raise TypeError(f"predictions of dtype {dtype} cannot be blended: make them floating")
    if dtype.kind == "f" and dtype.itemsize < 4:
        return np.dtype("float32")
    return dtype.newbyteorder("=")

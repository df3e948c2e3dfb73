"""Offsets of normalized values: what is added when the value behind them changes its sign."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..common.redact import printable
from .batch import Batch
from .date_parts import labels_for
from .labels import Labels
from .part_labels import PartLabels

__all__ = ["offset_at", "offset_of", "require_statistics_alike"]


def offset_of(labels: Labels, part: str, name: Hashable, odd: bool) -> xr.Variable | None:
    """Offset of a variable in a part, over dims of the data; None if there is none.

    Of a value that has become ``a * value + b`` it is twice ``b``: with another sign of the value,
    that would be ``2 * b`` less what it is. With `odd`, functions of the user give the negative of
    what they gave for the opposite value.

    Raises ValueError where a function of the user may have done anything else.
    """
    zero = xr.Variable((), 0.0)  # what the value 0 has become
    for change in labels.changes:
        if change.part not in (None, part):
            continue
        if change.statistics is not None:
            mean, std = change.statistics
            if name in mean.data_vars:
                zero = zero - _along_data(mean[name], labels)
                zero = zero / _along_data(std[name], labels)
        elif not odd:
            raise ValueError(
                f"RandomFlip changes the sign of {name!r}, but {change.what} may have changed its "
                f"values, nobody knows how. If it gives -v where it gave v for the opposite value "
                f"(or leaves {name!r} alone), say so: RandomFlip(…, odd=[{name!r}])"
            )
        elif (zero.values != 0).any():
            raise ValueError(
                f"RandomFlip changes the sign of {name!r}, but {change.what} takes its values when "
                f"they are normalized and 0 stands for a mean: normalize {name!r} with a mean of "
                "0, or last"
            )
    return 2 * zero if (zero.values != 0).any() else None


def offset_at(offset: xr.Variable, batch: Batch, own: PartLabels) -> npt.NDArray[np.float64]:
    """Offsets at the places of the samples of a batch, to be broadcast to ``(sample, *dims)``."""
    assert batch._labels is not None
    labels = batch._labels.of_part(own)
    if not offset.ndim:
        return np.full([1] * (1 + own.axes), offset.to_numpy())
    numbers = np.atleast_1d(batch.index.numpy())
    flipped = {dim: np.atleast_1d(flags) for dim, flags in batch._flipped.items()}
    starts = labels.windows.starts(numbers)
    found = labels.of_samples(offset, own, starts, ("sample",), flipped)
    dims = ("sample", *own.dims)
    found = found.transpose(*[dim for dim in dims if dim in found.dims])
    array: npt.NDArray[np.float64] = found.to_numpy()
    array = array[tuple(slice(None) if dim in found.dims else None for dim in dims)]
    if own.unflattened is None:
        return array
    array = np.broadcast_to(array, (len(array), *own.unflattened))
    return array.reshape(len(array), -1, *own.unflattened[own.flattened :])


def require_statistics_alike(
    labels: Labels, part: str, own: PartLabels, dims: Iterable[Hashable]
) -> None:
    """Raise ValueError if values of a part are normalized by their places along one of the dims."""
    for change in labels.changes:
        if change.statistics is None or change.part not in (None, part):
            continue
        mean, _ = change.statistics
        for name in own.variables:
            found = _along_data(mean[name], labels).dims if name in mean.data_vars else ()
            for dim in dims:
                if dim in found and dim in own.dims:
                    raise ValueError(
                        f"RandomFlip cannot flip {name!r} of part {part!r} along {dim!r}: "
                        f"{change.what} has other statistics at each place along it, and a value "
                        "normalized for one place would lie at another. Fit them without "
                        f"per={dim!r}, or do not flip along it"
                    )


def _along_data(statistic: xr.DataArray, labels: Labels) -> xr.Variable:
    """Statistics at every place of the data, found by label as `Normalize` finds them."""
    places: dict[Any, xr.Variable] = {}
    there = xr.Variable((), True)
    for dim in statistic.dims:
        try:
            coord = labels_for(statistic.coords[dim], labels.coords.coords)
        except KeyError as error:
            (lacked,) = error.args
            raise ValueError(
                f"RandomFlip cannot tell the statistics of {statistic.name!r} that hold for a "
                f"sample: they are per {printable(lacked)!r}, a coordinate that the data lacks"
            ) from None
        at = statistic.indexes[dim].get_indexer(pd.Index(coord.to_numpy().ravel()))
        places[dim] = xr.Variable(coord.dims, at.reshape(coord.shape))
        there = there & (places[dim] >= 0)
    found = statistic.variable.isel(places)
    return found if there.values.all() else found.where(there)  # type: ignore[no-untyped-call]

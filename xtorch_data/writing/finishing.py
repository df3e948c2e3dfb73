"""From sums of predictions to labeled values: divided by weights, labeled, in units."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..planning.field import Field
from ..samples.transforms import Compose, Transform
from .encodings import MASKED, RELATED, kept
from .mosaic_layout import MosaicLayout, Values
from .partial_sums import PartialSums, Tile

__all__ = ["Finishing", "divided", "inverted", "with_nan"]

FloatArray = npt.NDArray[np.float64]
Finish = Callable[[xr.Dataset], xr.Dataset]


@dataclass(eq=False)
class Finishing:
    """A maker of labeled values from sums.

    Attributes
    ----------
    layout : MosaicLayout
        Where samples lie.
    inverse : callable
        What brings a labeled Dataset to units.
    others : dict of Hashable to int
        Dims of predictions that the part lacks, with their sizes; those of the first batch.
    """

    layout: MosaicLayout
    inverse: Finish
    others: dict[Hashable, int] = field(default_factory=dict)

    @classmethod
    def of(cls, layout: MosaicLayout, inverse: Any) -> Finishing:
        """That of what a user gives as `inverse`."""
        return cls(layout, inverted(inverse, layout, layout.part.variables))

    def labeled(self, region: tuple[slice, ...], values: Values) -> xr.Dataset:
        """Values of a region of the field, ``(variable, *others, *dims)``, in units."""
        return self.inverse(_labeled(self.layout, self.others, region, values))

    def of_tile(
        self, field: Field, tile: Tile, sums: Values, added: npt.NDArray[np.bool_] | None
    ) -> xr.Dataset:
        """The sums of a tile, divided by those of weights: of all samples, or of those added."""
        values = divided(sums, field.weights_in(tile, added), field.overlaps)
        return self.labeled(field.region(tile), values)

    def nothing(self, sums: PartialSums, tile: Tile) -> xr.Dataset:
        """A tile of which no sample came: all of it is missing."""
        nothing = np.full(sums.shape(tile), np.nan, sums.dtype)
        return self.labeled(sums.field.region(tile), nothing)


def divided(values: Values, weights: Sequence[FloatArray], overlaps: bool) -> Values:
    """Sums divided by those of weights, NaN where these are 0; in place where they are floating.

    `weights` are factors, each shaped as the last dims of the sums, or of size 1 along some. What
    does not overlap is no sum. Integers become floating where one is missing.
    """
    if values.dtype.kind not in "fc" and not all(each.all() for each in weights):
        values = values.astype(with_nan(values.dtype))
    for each in weights:
        if overlaps and not (each == 1).all():
            with np.errstate(invalid="ignore", divide="ignore"):
                values /= each.astype(values.dtype)
        if not each.all():
            np.copyto(values, np.nan, where=each == 0)
    return values


def with_nan(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A floating dtype for integers of which some are missing."""
    return np.dtype("float32" if dtype.itemsize < 3 else "float64")


def inverted(inverse: Any, layout: MosaicLayout, names: Sequence[Hashable]) -> Finish:
    """A function that brings a labeled Dataset to units, by what a user gives.

    TypeError if that is no function, nor has a method ``inverse``; ValueError if it is what made
    the values that are to be brought back.
    """
    if inverse is None:
        return lambda dataset: dataset
    definition = layout.definition
    _require_backwards(inverse, definition.preprocess)
    if hasattr(inverse, "_of_source") and definition.source is not None:  # of several sources
        first = definition is layout.first.primary
        inverse = inverse._of_source(definition.source, first, names) or inverse
    function = getattr(inverse, "inverse", inverse)
    if not callable(function):
        raise TypeError(
            "inverse must be a Normalize, or a function from a Dataset to a Dataset, not "
            f"{type(inverse).__name__}"
        )

    def finish(dataset: xr.Dataset) -> xr.Dataset:
        found = function(dataset)
        if not isinstance(found, xr.Dataset):
            raise TypeError(f"inverse must return a Dataset, not {type(found).__name__}")
        return found

    return finish


def _require_backwards(inverse: Any, preprocess: Transform | None) -> None:
    """Raise ValueError if a function would go forwards once more, which nobody would see."""
    if hasattr(inverse, "inverse"):
        return
    members = inverse.transforms if isinstance(inverse, Compose) else ()
    if any(hasattr(each, "inverse") for each in members):
        raise ValueError(
            "inverse is a Compose, which would normalize once more: give the Normalize that is in "
            "it, or a function that undoes each step, the last one first"
        )
    if preprocess is not None and inverse is preprocess.function:
        raise ValueError(
            "inverse is the preprocess of the dataset, which would be applied once more: give a "
            "Normalize, or a function that undoes it"
        )


def _labeled(
    layout: MosaicLayout,
    others: Mapping[Hashable, int],
    region: tuple[slice, ...],
    values: Values,
) -> xr.Dataset:
    """Values of a region of the field, ``(variable, *others, *dims)``, with coordinates."""
    part, labels, data = layout.part, layout.definition.labels, layout.definition.data
    dims = (*others, *layout.dims)
    variables = {}
    for name, own in zip(part.variables, values, strict=True):
        attrs = labels.attrs.get(name) or {}
        # Of a source that was opened as it is packed: predictions are not, and none is masked.
        attrs = {key: value for key, value in attrs.items() if key not in MASKED}
        variables[name] = xr.Variable(dims, own, attrs)
        if name in data.variables:
            variables[name].encoding = kept(data.variables[name], RELATED)
    inside = dict(zip(layout.dims, region, strict=True))
    coords = layout.coords.isel(inside, missing_dims="ignore")
    return xr.Dataset(variables, coords.coords, data.attrs)

"""Validity of samples: which of their values are present in the data."""

from __future__ import annotations

from collections.abc import Hashable
from numbers import Real

import numpy as np
import xarray as xr

from .presence import Takes
from .select import Select

__all__ = ["NotNull"]


class NotNull(Select):
    """Presence of variables in the data: not NaN, or NaT, once fill values are decoded.

    As a part of a sample, a boolean tensor of the shape that the part of the same `Select` would
    have: True where the data has a value *before* `preprocess`, so that it stays right beside one
    that fills what is missing. As ``where=``, samples of which at least the share `min` is present.

    Parameters
    ----------
    variables : Hashable, list of Hashable or Select
        The variables, as `inputs` takes them: several are stacked on a ``variable`` axis, and a
        `Select` cuts them inside the window. Variables of other sources are named like
        ``"sst/tos"``.
    min : float
        Of ``where=``, the share of a sample's values that must be present, above 0 and at most 1:
        1, the default, means all of them. Of several variables, that is the share in all of them
        together. A part has no such share.

    Raises
    ------
    TypeError
        If `min` is no number, or `variables` are no names.
    ValueError
        If `min` is not above 0 and at most 1.

    Examples
    --------
    The values, with 0 where there is none, and where there is one:

    >>> import numpy as np, xarray as xr, xtorch_data as xtd
    >>> sst = xr.DataArray([280.0, np.nan, np.nan, 283.0, 284.0], dims="time", name="sst")
    >>> parts = {"x": "sst", "mask": NotNull("sst")}
    >>> def filled(block):
    ...     return block.fillna(0.0)
    >>> xtd.MapDataset(sst, {"time": 2}, parts=parts, preprocess=filled)[0]
    (tensor([280.,   0.]), tensor([ True, False]))

    Samples of which at least half is present:

    >>> samples = xtd.MapDataset(
    ...     sst, {"time": 2}, {"time": 1}, where=NotNull("sst", min=0.5)
    ... )
    >>> samples.fetch(range(len(samples))).index
    tensor([0, 2, 3])
    """

    takes: Takes = "presence"

    def __init__(self, variables: Hashable | list[Hashable] | Select, *, min: float = 1.0) -> None:
        if isinstance(variables, NotNull):
            raise TypeError(f"NotNull takes names or a Select, not {variables!r}")
        if isinstance(variables, xr.DataArray | xr.Dataset):
            raise TypeError(
                f"NotNull takes names of variables or a Select, not a {type(variables).__name__}"
            )
        if isinstance(variables, Select):
            super().__init__(variables.variables, variables.indexers)
        else:
            super().__init__(variables)
        if isinstance(min, bool | np.bool_) or not isinstance(min, Real):
            raise TypeError(f"min of NotNull must be a number, not {min!r}")
        if not 0 < min <= 1:
            raise ValueError(
                f"min of NotNull is the share of values that must be present, above 0 and at most "
                f"1, not {min!r}"
            )
        self.min: float = float(min)

    def __repr__(self) -> str:
        selected = Select(self.variables, self.indexers)
        shown = repr(selected) if self.indexers else repr(self.variables)
        return f"NotNull({shown}{'' if self.min == 1 else f', min={self.min!r}'})"

"""Presence of values in the data as it was read, noted for each block before any function of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

__all__ = ["Presence", "Present", "Takes", "not_null", "presence_of"]

# From values of a variable as they are read: where it is present.
Present = Callable[[npt.NDArray[Any]], npt.NDArray[np.bool_]]

# What a part takes of its variables: their values, whether they are there, or how many are.
Takes = Literal["values", "presence", "count"]


@dataclass(frozen=True)
class Presence:
    """Name, in a block, of the booleans that say where a variable is present.

    No variable of a user has such a name.
    """

    variable: Hashable


def not_null(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where decoded values are present: not NaN, NaT or None."""
    if values.dtype.kind in "fcMm":  # NaN and NaT do not equal themselves
        equal: npt.NDArray[np.bool_] = np.equal(values, values)
        return equal
    return np.asarray(xr.Variable([*map(str, range(values.ndim))], values).notnull())


def presence_of(
    block: Mapping[Any, xr.Variable],
    present: Mapping[Hashable, Present],
    made_up: Mapping[Hashable, npt.NDArray[np.bool_]] | None = None,
) -> dict[Presence, xr.Variable]:
    """Where some variables of a block are present, each by a function of its values.

    The block is in memory, and as it was read: `Preprocessor` asks before it calls the function of
    the user. Along the dims in `made_up`, steps that are True are no data: those beyond its ends.
    """
    found = {}
    for name, function in present.items():
        dims, values = block[name].dims, function(block[name].to_numpy())
        for dim, nothing in (made_up or {}).items():
            if dim in dims and nothing.any():
                at: tuple[Any, ...] = (slice(None),) * dims.index(dim)
                values = values.copy()
                values[(*at, nothing)] = False
        found[Presence(name)] = xr.Variable(dims, values)
    return found

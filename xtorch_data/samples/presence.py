"""Presence of values in the data as it was read, noted for each block before any function of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

__all__ = ["Presence", "Takes", "presence_of"]

# What a part takes of its variables: their values, whether they are there, or how many are.
Takes = Literal["values", "presence", "count"]


@dataclass(frozen=True)
class Presence:
    """Name, in a block, of the booleans that say where a variable is present.

    No variable of a user has such a name.
    """

    variable: Hashable


def presence_of(
    block: Mapping[Any, xr.Variable], names: Iterable[Hashable]
) -> dict[Presence, xr.Variable]:
    """Where some variables of a block are present: not NaN, NaT or None.

    The block is in memory, decoded, and as it was read: `Preprocessor` asks before it calls the
    function of the user. Places that are no data, such as padded ones, are to be made False here,
    and nowhere else.
    """
    found = {}
    for name in names:
        variable = block[name]
        if variable.dtype.kind in "fcMm":  # NaN and NaT do not equal themselves
            values = variable.to_numpy()
            present = np.equal(values, values)
        else:
            present = variable.notnull().to_numpy()
        found[Presence(name)] = xr.Variable(variable.dims, present)
    return found

"""The dims and coordinates along which splits can cut."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Any

import pandas as pd
import xarray as xr

from ..planning.edges import ExtendedDim
from ..samples.definition import SampleDefinition
from ..sources.coordinates import RankedLabels

__all__ = ["MOST_ENTRIES", "dim_of", "is_centered", "is_dim", "ranked", "require_entries"]

# Entries of a table over two axes, or labels of a coordinate of two dims.
MOST_ENTRIES = 2**28


def is_dim(samples: SampleDefinition, name: Hashable) -> bool:
    """Whether a name is that of a dim of the samples."""
    return is_centered(samples, name) or any(axis.dim == name for axis in samples.windows.axes)


def is_centered(samples: SampleDefinition, name: Hashable) -> bool:
    """Whether events have labels of a dim."""
    return samples.centers is not None and name in samples.centers.names


def dim_of(
    samples: SampleDefinition, dim: Hashable
) -> tuple[int, pd.Index[Any] | None, ExtendedDim | None]:
    """Length and labels of a dim of the data, and what lies beyond its ends for windows."""
    beyond = samples.beyond.get(dim)
    length = samples.axis(dim).length if beyond is None else beyond.length
    return length, samples.labelled.data_index(dim), beyond


def ranked(samples: SampleDefinition, name: Hashable) -> RankedLabels:
    """A coordinate of one or two dims of the samples; ValueError if there is none of that name."""
    dims = [axis.dim for axis in samples.windows.axes]
    known: dict[Hashable, xr.Variable] = dict(samples.labels.coords.variables)
    if samples.centers is not None:  # of the data, those along one dim of the events at most
        known = {
            each: coord
            for each, coord in samples.primary.labels.coords.variables.items()
            if len(set(coord.dims) & set(samples.centers.names)) < 2
        } | known
        dims += samples.centers.names
    fitting = [each for each, coord in known.items() if each not in dims and coord.ndim in (1, 2)]
    if name not in fitting:
        others = f", and their coordinates of one or two dims {fitting}" if fitting else ""
        raise ValueError(f"there is no dim {name!r} in the samples; theirs are {dims}{others}")
    variable = known[name]
    require_entries(name, variable.shape)
    return RankedLabels.of(name, variable)


def require_entries(name: Hashable, sizes: Iterable[int]) -> None:
    """Raise ValueError if a table of such sizes is too large."""
    sizes = list(sizes)
    if math.prod(sizes) > MOST_ENTRIES:
        raise ValueError(
            f"a split along {name!r} needs a table of {' × '.join(f'{size:,}' for size in sizes)} "
            f"entries, and {MOST_ENTRIES:,} are the most: split along one of its dims before"
        )

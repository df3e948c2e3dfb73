"""Groups of steps by parts of their dates: all Januaries, all noons."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..planning.coverage import covered
from ..planning.index_maps import IntArray
from ..samples.date_parts import parts_of_dates, split_name
from ..samples.definition import SampleDefinition

__all__ = ["DateGroups", "by_group", "date_groups"]


@dataclass(frozen=True, eq=False)
class DateGroups:
    """Groups of the steps of a dim, of which each has statistics of its own.

    Attributes
    ----------
    of : str
        What steps are grouped by, such as ``"time.month"``.
    dim : Hashable
        The dim whose steps are grouped.
    numbers : ndarray of int64
        Number of the group of each step, as windows count steps; -1 of those in no window.
    labels : pandas.Index
        What the groups have in common, in order: the months that there are.
    """

    of: str
    dim: Hashable
    numbers: IntArray
    labels: pd.Index[int] | pd.Index[str]

    @property
    def name(self) -> str:
        """Name of the dim of the statistics, as `xarray.Dataset.groupby` gives it."""
        return self.of.rpartition(".")[2]


def date_groups(samples: SampleDefinition, of: str) -> DateGroups | None:
    """Groups of the steps that windows cover; None if samples have no such coordinate.

    ValueError if it has other than one dim, labels that are no dates, or are missing.
    """
    split = split_name(of)
    assert split is not None
    name, part = split
    coordinate = samples.primary.labels.coords.variables.get(name)
    if coordinate is None:
        return None
    if coordinate.ndim != 1:
        raise ValueError(
            f"per={of!r} groups the steps of one dim, and coordinate {name!r} has dims "
            f"{coordinate.dims}"
        )
    (dim,) = coordinate.dims
    if samples.centers is not None:
        raise ValueError(
            f"per={of!r} cannot group the steps of windows around events: take statistics of "
            "the data itself, Normalize.fit(ds, …), or without this"
        )
    axis = covered(samples.windows.axis(dim), samples.beyond.get(dim))
    steps = axis.start(np.arange(len(axis)))
    try:
        parts = parts_of_dates(coordinate[steps], part)
    except TypeError as error:
        raise ValueError(f"per={of!r} goes by parts of dates: {error}") from error
    if pd.isna(parts).any():
        step = int(steps[pd.isna(parts)][0])
        raise ValueError(f"per={of!r} goes by dates, and step {step} of {name!r} has none (NaT)")
    different, found = np.unique(parts, return_inverse=True)
    numbers = np.full(axis.length, -1, dtype=np.int64)
    numbers[steps] = found.ravel()
    return DateGroups(of, dim, numbers, pd.Index(different))


def by_group(
    variable: xr.Variable, groups: Sequence[DateGroups], positions: Mapping[Hashable, IntArray]
) -> Iterator[tuple[tuple[int, ...], xr.Variable]]:
    """Values of each combination of groups that there is, with the numbers of these.

    `positions` has which steps the variable has along the dims.
    """
    dims = list(dict.fromkeys(each.dim for each in groups))
    along = [_together(groups, dim, positions[dim]) for dim in dims]
    for combination in itertools.product(*along):
        numbers = dict(itertools.chain.from_iterable(found for found, _ in combination))
        rows = {
            dim: steps
            for dim, (_, steps) in zip(dims, combination, strict=True)
            if len(steps) < variable.sizes[dim]
        }
        yield tuple(numbers[each.of] for each in groups), variable.isel(rows)


def _together(
    groups: Sequence[DateGroups], dim: Hashable, positions: IntArray
) -> list[tuple[list[tuple[str, int]], npt.NDArray[np.intp]]]:
    """Which groups steps along a dim are in, and places of the steps that are in the same."""
    own = [each for each in groups if each.dim == dim]
    numbers = np.stack([each.numbers[positions] for each in own])
    different, of = np.unique(numbers, axis=1, return_inverse=True)
    order = np.argsort(of.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(of.ravel()))
    return [
        ([(each.of, int(number)) for each, number in zip(own, column, strict=True)], steps)
        for column, steps in zip(different.T, np.split(order, ends[:-1]), strict=True)
    ]

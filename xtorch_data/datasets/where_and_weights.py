"""Filters and weights of samples, as a user gives them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..common.redact import printable
from ..planning.selection import SampleTable
from ..planning.windows import Axis, IntArray, Windows
from ..samples.definition import SampleDefinition
from ..samples.labels import LabelledWindows
from ..samples.losses import CENTERS

__all__ = ["as_weights", "as_where", "labeled", "target_steps"]


def as_where(where: Any, samples: SampleDefinition) -> SampleTable | None:
    """A table of booleans from what a user gives: which samples are wanted.

    Raises
    ------
    TypeError
        If the values are not booleans.
    ValueError
        If their dims, sizes or labels are not those of the samples.
    """
    if where is None:
        return None
    table = _as_table(where, "where", samples)
    if table.values.dtype != bool:
        raise TypeError(
            f"where has dtype {table.values.dtype}; it says True for each sample that is wanted, "
            "else False"
        )
    return table


def as_weights(weights: Any, samples: SampleDefinition) -> SampleTable | None:
    """A table of floats from what a user gives: how much samples weigh.

    Along dims with a value for each step of the data, that is the mean over the steps of the part
    ``y``, or of the window where there is none.

    Raises
    ------
    TypeError
        If the values are no numbers.
    ValueError
        If their dims, sizes or labels are not those of the samples, one is negative or not finite,
        or all are 0.
    """
    if weights is None or isinstance(weights, SampleTable):  # that of a dataset of these samples
        return weights
    table = _as_table(weights, "weights", samples)
    _require_numbers(table.values.dtype)
    values = table.values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("weights must be finite; some are NaN or infinite")
    if (values < 0).any():
        raise ValueError(f"weights must not be negative; the least is {values.min()}")
    if not values.any():
        raise ValueError("the weights of all samples are 0: there is none to draw")
    return SampleTable(table.axes, values / values.max())


def _require_numbers(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biuf":
        raise TypeError(f"weights are numbers, not of dtype {dtype}")


def _as_table(given: Any, argument: str, samples: SampleDefinition) -> SampleTable:
    windows = samples.windows
    if isinstance(given, xr.Dataset):
        raise TypeError(f"{argument} must be a DataArray, not a Dataset: select a variable of it")
    if not isinstance(given, xr.DataArray):
        return _per_sample(np.asarray(given), argument, windows)
    if given.dims == ("sample",) and all(axis.dim != "sample" for axis in windows.axes):
        return _per_sample(given.values, argument, windows)
    places = {axis.dim: place for place, axis in enumerate(windows.axes)}
    for dim in given.dims:
        if dim not in places:
            raise ValueError(
                f"{argument} has dim {dim!r}, which the samples do not have; theirs are "
                f"{list(places)}"
            )
    dims = sorted(given.dims, key=places.__getitem__)
    values = given.transpose(*dims).values
    for number, dim in enumerate(dims):
        axis = windows.axes[places[dim]]
        if _has_steps(given, argument, axis, samples):
            _require_numbers(values.dtype)
            starts = axis.start(np.arange(len(axis)))
            beyond, steps = samples.beyond.get(dim), target_steps(axis, samples)
            there: npt.NDArray[Any] = np.ones(axis.length, dtype=bool)
            if beyond is not None:
                values, there = values.take(beyond.nearest, axis=number), beyond.steps >= 0
            values = _mean(values, there, number, starts, steps)
    return SampleTable(tuple(places[dim] for dim in dims), values)


def _per_sample(values: npt.NDArray[Any], argument: str, windows: Windows) -> SampleTable:
    if values.shape != (len(windows),):
        raise ValueError(
            f"{argument} has shape {values.shape}; it needs a value for each of the "
            f"{len(windows)} samples, or is a DataArray along dims of the samples: "
            f"{dict(_sizes(windows))}"
        )
    return SampleTable(tuple(range(len(windows.axes))), values.reshape(windows.shape))


def _sizes(windows: Windows) -> Iterable[tuple[Hashable, int]]:
    return ((axis.dim, len(axis)) for axis in windows.axes)


def _has_steps(given: xr.DataArray, argument: str, axis: Axis, samples: SampleDefinition) -> bool:
    """Whether there is a value for each step of a dim, as weights may have, not for each window.

    Raises ValueError if it is neither, or for other labels.
    """
    dim, size, labels = axis.dim, given.sizes[axis.dim], samples.labelled
    starts = axis.start(np.arange(len(axis)))
    beyond = samples.beyond.get(dim)
    length = axis.length if beyond is None else beyond.length
    steps = argument == "weights" and size == length
    if size != len(axis) and not steps:
        more = (
            ", or for each step of the data"
            if argument == "weights"
            else ". From a mask of steps, one for windows that lie wholly in it is "
            f"mask.rolling({{{dim!r}: {axis.size}}}).min().astype(bool)"
            f".isel({{{dim!r}: dataset.windows.first_steps({dim!r}) + {axis.size - 1}}}), "
            f"with the dataset that has no {argument}"
        )
        raise ValueError(
            f"{argument} has {size} values along {dim!r}; it needs one for each of the "
            f"{len(axis)} windows{more}"
        )
    ours = labels.index(dim)
    if ours is not None and dim in given.indexes:
        theirs = given.indexes[dim]
        fitting = [ours[starts], ours[starts + axis.size - 1]]
        if steps:
            fitting = [ours if beyond is None else ours[slice(*beyond.inside)]]
        if not any(theirs.equals(labels) for labels in fitting):
            raise ValueError(
                f"{argument} is labeled along {dim!r} from {printable(theirs[0])} to "
                f"{printable(theirs[-1])}, but the first steps of the windows from "
                f"{printable(fitting[0][0])} to {printable(fitting[0][-1])}; it must have the "
                f"labels of their first or last steps, or none, as of .drop_vars({dim!r})"
            )
    return steps


def target_steps(axis: Axis, samples: SampleDefinition) -> IntArray:
    """Steps inside a window that its target has, counted from the first; all without a target.

    Of an event, a variable of it is a target at the step that has it.
    """
    steps = np.arange(axis.size)
    of = {part.name: (each, part) for each, part in samples.every_part}
    if "y" not in of:
        return steps
    source, part = of["y"]
    if samples.centers is not None and source.source == CENTERS:
        return (
            steps[samples.anchors[axis.dim]][None] if axis.dim in samples.centers.names else steps
        )
    if source is not samples.primary:
        return steps
    return np.atleast_1d(steps[part.indexers.get(axis.dim, slice(None))])


def _mean(
    values: npt.NDArray[Any],
    there: npt.NDArray[Any],
    along: int,
    starts: IntArray,
    steps: IntArray,
) -> npt.NDArray[np.float64]:
    """Mean along an axis over some steps from each start on, of those that are `there`; else 0."""
    total = np.zeros((len(starts), *values.shape[:along], *values.shape[along + 1 :]))
    counts = np.zeros((len(starts), *[1] * (values.ndim - 1)))
    first = np.moveaxis(values, along, 0)
    for step in steps.tolist():
        counted = there[starts + step].reshape(counts.shape)
        total += first[starts + step] * counted
        counts += counted
    return np.moveaxis(total / np.maximum(counts, 1), 0, along)


def labeled(table: SampleTable, windows: Windows, labels: LabelledWindows) -> xr.DataArray:
    """A table as a DataArray, labeled with the first step of each window."""
    axes = [windows.axes[place] for place in table.axes]
    coords = {}
    for axis in axes:
        index = labels.index(axis.dim)
        if index is not None:
            coords[axis.dim] = index[axis.start(np.arange(len(axis)))]
    return xr.DataArray(table.values, coords, [axis.dim for axis in axes])

"""Filters and weights of samples, as a user gives them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..common.progress import bar
from ..common.redact import printable
from ..iteration.epoch_reader import EpochReader
from ..planning.plan import Plan
from ..planning.selection import SampleTable
from ..planning.windows import Axis, IntArray, Windows
from ..reading.disk_cells import OnDisk
from ..samples.definition import SampleDefinition
from ..samples.labels import LabelledWindows
from ..samples.losses import CENTERS
from ..samples.transforms import Transform

__all__ = ["answers", "as_weights", "as_where", "labeled", "target_steps"]

logger = logging.getLogger(__name__)


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
        if _has_steps(given, argument, axis, samples.labelled):
            _require_numbers(values.dtype)
            starts = axis.start(np.arange(len(axis)))
            values = _mean(values, number, starts, target_steps(axis, samples))
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


def _has_steps(given: xr.DataArray, argument: str, axis: Axis, labels: LabelledWindows) -> bool:
    """Whether there is a value for each step of a dim, as weights may have, not for each window.

    Raises ValueError if it is neither, or for other labels.
    """
    dim, size = axis.dim, given.sizes[axis.dim]
    starts = axis.start(np.arange(len(axis)))
    steps = argument == "weights" and size == axis.length
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
        fitting = [ours] if steps else [ours[starts], ours[starts + axis.size - 1]]
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
    values: npt.NDArray[Any], along: int, starts: IntArray, steps: IntArray
) -> npt.NDArray[np.float64]:
    """Mean along an axis over some steps from each start on."""
    total = np.zeros((*values.shape[:along], len(starts), *values.shape[along + 1 :]))
    for step in steps.tolist():
        total += values.take(starts + step, axis=along)
    return total / len(steps)


def labeled(table: SampleTable, windows: Windows, labels: LabelledWindows) -> xr.DataArray:
    """A table as a DataArray, labeled with the first step of each window."""
    axes = [windows.axes[place] for place in table.axes]
    coords = {}
    for axis in axes:
        index = labels.index(axis.dim)
        if index is not None:
            coords[axis.dim] = index[axis.start(np.arange(len(axis)))]
    return xr.DataArray(table.values, coords, [axis.dim for axis in axes])


@dataclass
class _Flag:
    """The answer of a user's function for a window, as the tensor of a part."""

    where: Callable[[xr.Dataset], Any]

    _untried = True  # the function is asked about each window once

    def __call__(self, window: xr.Dataset) -> xr.DataArray:
        answer = self.where(window)
        if isinstance(answer, xr.Dataset) or np.ndim(answer) or np.asarray(answer).dtype != bool:
            raise TypeError(
                f"where returns True or False for a window, not {type(answer).__name__} "
                f"{answer!r:.200}"
            )
        return xr.DataArray(bool(answer))


def answers(
    where: Callable[[xr.Dataset], Any],
    definition: SampleDefinition,
    memory: int,
    on_disk: OnDisk | None,
    retries: int,
    skipping: bool = False,
) -> npt.NDArray[np.bool_]:
    """For each sample, whether a function wants it: one pass over the data.

    Raises
    ------
    TypeError
        If it does not return a bool, or takes random numbers.
    ValueError
        If samples are others in every epoch.
    """
    if definition.random_blocks:
        raise ValueError(
            "where is asked once for all epochs, but preprocess draws other random numbers "
            "in each: give where as a DataArray of booleans"
        )
    function = Transform.of(where, "where")
    if function is not None and function.takes_rng:
        raise TypeError("where cannot take random numbers: it is asked once, for all epochs")
    asked = definition.whole_windows(Transform(_Flag(where), "where", takes_rng=False))
    windows = asked.windows
    size = max(1, min(256, math.isqrt(len(windows))))
    plan = Plan.of(
        windows,
        asked.layouts,
        memory=memory,
        batch_size=size,
        others=asked.layouts_beside,
        warn=False,
    )
    reader = EpochReader(asked, plan, on_disk, retries, skipping)
    # What cannot be read, and is skipped, has no answer: it is wanted, and skipped whenever it is
    # read, on every rank.
    kept = np.ones(len(windows), dtype=bool)
    batches = reader.batches(plan, 0, plan.intervals(0, 0, 1))  # all, also in a loader's worker
    with bar(len(windows), "sample", "where") as done, closing(batches):
        for batch in batches:
            # Broadcast over dims that no variable has.
            kept[batch.index.numpy()] = batch["x"].numpy().reshape(len(batch.index), -1)[:, 0]
            done(len(batch.index))
    logger.info("where leaves out %d of %d samples", len(kept) - kept.sum(), len(kept))
    return kept

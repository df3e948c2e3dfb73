"""Parts of samples, made of what a user selects and checked against the data."""

from __future__ import annotations

import itertools
import math
import operator
import reprlib
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from ..common.redact import printable
from ..planning.windows import Windows
from ..sources.conventions import fields
from .schedule import Schedule
from .select import Indexer, Part, Select, label_of, names_of
from .tensor_dtypes import NoTensorsError, common_dtype, is_numeric

__all__ = ["make_part"]


def make_part(
    name: str,
    select: Select,
    data: xr.Dataset,
    windows: Windows,
    sample_dims: Sequence[Hashable],
    dtype: np.dtype[Any],
) -> Part:
    """Check one selection against the data and the windows; it is that of the longest phase."""
    schedules = {dim: each for dim, each in select.indexers.items() if isinstance(each, Schedule)}
    if not schedules:
        return _made(name, select, data, windows, sample_dims, dtype)
    sizes = {axis.dim: axis.size for axis in windows.axes}
    phases = []
    for epoch in sorted({epoch for each in schedules.values() for epoch in each}):
        phases.append((epoch, _made(name, select._at(epoch), data, windows, sample_dims, dtype)))
    longest = max((part for _, part in phases), key=lambda part: math.prod(part.shape))
    for epoch, part in phases:
        for dim in schedules:
            _require_inside(label_of(name), dim, sizes[dim], (epoch, part), longest)
    if select.takes == "count":
        return longest
    dims = tuple(schedules)
    found = tuple((epoch, replace(part, scheduled=dims)) for epoch, part in phases)
    return replace(longest, phases=found, scheduled=dims)


def _require_inside(
    label: str, dim: Hashable, size: int, phase: tuple[int, Part], longest: Part
) -> None:
    """Raise ValueError if a phase has steps that the longest one lacks, or other dims."""
    epoch, part = phase
    if part.dims != longest.dims:
        raise ValueError(
            f"{label}: the phases of {printable(dim)} are single steps and several; give single "
            "ones as slices of one step, so that the dim stays"
        )
    own, all_of_them = (
        set(np.atleast_1d(np.arange(size)[each.indexers[dim]]).tolist()) for each in (part, longest)
    )
    if not own <= all_of_them:
        raise ValueError(
            f"{label}: the phase of {printable(dim)} from epoch {epoch} on has steps "
            f"{sorted(own - all_of_them)}, which the longest phase lacks: it must have all steps"
        )


def _made(
    name: str,
    select: Select,
    data: xr.Dataset,
    windows: Windows,
    sample_dims: Sequence[Hashable],
    dtype: np.dtype[Any],
) -> Part:
    """A part of a selection without schedules."""
    label = label_of(name)
    names = names_of(select)
    windowed = {axis.dim: axis.size for axis in windows.axes if axis.windowed}
    for dim in select.indexers:
        if dim not in windowed:
            raise ValueError(
                f"{label} selects along dim {dim!r}, which is not in input_dims ({list(windowed)})"
            )
    indexers: dict[Hashable, Indexer] = {}
    sizes: dict[Hashable, int] = {}
    for dim in sample_dims:
        size, indexer = windowed[dim], select.indexers.get(dim)
        if indexer is not None:
            indexer = indexers[dim] = _as_indexer(label, dim, indexer, size)
        if not isinstance(indexer, int):
            sizes[dim] = size if indexer is None else len(np.arange(size)[indexer])
    dtypes = []
    for variable in names:
        dtypes.append(data.variables[variable].dtype)
        if select.takes == "values" and not is_numeric(dtypes[-1]):
            usable = fields(data, windowed) or [
                each for each, var in data.data_vars.items() if is_numeric(var.dtype)
            ]
            raise NoTensorsError(name, variable, data.variables[variable], usable)
    have = {dim for variable in names for dim in data.variables[variable].dims}
    part = Part(
        name=name,
        variables=tuple(names),
        stacked=isinstance(select.variables, list),
        indexers=indexers,
        dims=tuple(sizes),
        shape=tuple(sizes.values()),
        dtype=common_dtype(dtypes, dtype) if select.takes == "values" else np.dtype(bool),
        lacking=tuple(dim for dim in sizes if dim not in have),
        takes=select.takes,
    )
    if part.takes != "count":
        return part
    values = len(names) * math.prod(part.shape)
    dtype = np.dtype(np.int64)
    return replace(part, dims=(), shape=(), dtype=dtype, lacking=(), values=values)


def _as_indexer(part: str, dim: Hashable, indexer: Any, size: int) -> Indexer:
    """Positions inside a window of `size` steps; of equal steps, equal ones whatever was given.

    None is negative, and slices tell their steps whatever the size of the window.
    """
    if isinstance(indexer, slice):
        try:
            steps = range(size)[indexer]
        except TypeError:
            raise TypeError(
                f"{part}: {printable(dim)}={indexer} must be positions inside the window, 0 to "
                f"{size}, not labels"
            ) from None
        if max(indexer.start or 0, (indexer.stop or 0) - 1) >= size:
            raise ValueError(
                f"{part}: {printable(dim)}={indexer} goes beyond a window of {size} steps, which "
                f"are positions 0 to {size - 1}"
            )
        if not steps:
            raise ValueError(
                f"{part}: {printable(dim)}={indexer} takes no step of a window of {size}"
            )
        stop = None if steps.stop < 0 else steps.stop
        return slice(steps.start, stop, steps.step)
    if isinstance(indexer, (int, np.integer)) and not isinstance(indexer, bool):
        if not -size <= indexer < size:
            raise ValueError(
                f"{part}: {printable(dim)}={indexer} is outside a window of {size} steps"
            )
        return int(indexer) % size
    listed = indexer.tolist() if isinstance(indexer, np.ndarray) else indexer
    if isinstance(listed, Sequence) and not isinstance(listed, str | bytes):
        return _as_steps(f"{part}: {printable(dim)}={reprlib.repr(listed)}", listed, size)
    raise TypeError(
        f"{part}: {dim}={indexer!r} must be an integer, a slice or a list of positions inside the "
        "window"
    )


def _as_steps(given: str, listed: Sequence[Any], size: int) -> slice | list[int]:
    """Several positions inside a window: a slice if they are evenly spaced, else a list."""
    if any(isinstance(each, bool | np.bool_) for each in listed):
        raise TypeError(
            f"{given} must be positions inside the window, not booleans; np.flatnonzero(mask) "
            "gives those where a mask is True"
        )
    try:
        steps = [operator.index(each) for each in listed]
    except TypeError:
        raise TypeError(
            f"{given} must be positions inside the window, integers one after the other"
        ) from None
    if not steps:
        raise ValueError(f"{given} takes no step of a window of {size}")
    beyond = [step for step in steps if not -size <= step < size]
    if beyond:
        raise ValueError(
            f"{given} goes beyond a window of {size} steps, which are positions 0 to {size - 1}: "
            f"there is no {beyond[0]}"
        )
    steps = [step % size for step in steps]
    step, times = Counter(steps).most_common(1)[0]
    if times > 1:  # two values would have one label
        raise ValueError(
            f"{given} takes step {step} of the window {times} times; each may be taken once"
        )
    apart, *others = {after - before for before, after in itertools.pairwise(steps)} or {1}
    if others:
        return steps
    stop = steps[-1] + (1 if apart > 0 else -1)
    return slice(steps[0], None if stop < 0 else stop, apart)

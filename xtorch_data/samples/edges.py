"""Edges of the data: arguments for them, checked, and data with what lies beyond its ends."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, get_args

import numpy as np
import pandas as pd
import xarray as xr

from ..common.integers import as_integer
from ..common.spelling import spelled
from ..planning.edges import Boundary, EdgeRule, ExtendedDim, Remainder
from ..sources.conventions import circle_of, is_north, text_of
from ..sources.label_steps import LabelSteps
from ..sources.lazy_arrays import deferred, in_memory, is_computed

__all__ = ["Halo", "edge_rules", "extended", "require_blanks", "require_circles"]

# Steps that samples have in addition along a dim, on each side or before and behind.
Halo = int | tuple[int, int]

# A last step within so much of the others leads back to the first one.
CLOSING = 0.5


def edge_rules(
    boundary: Mapping[Any, Boundary] | None,
    remainder: Remainder | Mapping[Any, Remainder] | None,
    halo: Mapping[Any, Halo] | None,
    input_dims: Mapping[Any, Any],
) -> dict[Hashable, EdgeRule]:
    """The rule for the ends of each dim for which there is one, from what a user gives.

    TypeError or ValueError if that is no rule, or is for a dim that is not windowed.
    """
    boundaries = _by_dim(boundary, "boundary", input_dims)
    for dim, given in boundaries.items():
        _require_one_of(given, get_args(Boundary), spelled("boundary", dim))
    halos = {
        dim: _sides(given, spelled("halo", dim))
        for dim, given in _by_dim(halo, "halo", input_dims).items()
    }
    if remainder is None or isinstance(remainder, Mapping):
        remainders = _by_dim(remainder, "remainder", input_dims)
    else:
        remainders = dict.fromkeys(input_dims, remainder)
    for dim, given in remainders.items():
        _require_one_of(given, get_args(Remainder), spelled("remainder", dim))
        if given == "pad" and dim not in boundaries:
            raise ValueError(
                f"{spelled('remainder', dim)} is 'pad', and nothing says what lies beyond the end "
                f"of {dim!r}: {spelled('boundary', dim)} is one of {list(get_args(Boundary))}"
            )
    found = {}
    for dim in input_dims:
        otherwise = "pad" if dim in boundaries else "drop"
        rule = EdgeRule(
            boundaries.get(dim), remainders.get(dim, otherwise), *halos.get(dim, (0, 0))
        )
        if rule != EdgeRule():
            found[dim] = rule
    return found


def _by_dim(given: Any, argument: str, input_dims: Mapping[Any, Any]) -> dict[Hashable, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        example = {next(reversed(list(input_dims)), "x"): given}
        raise TypeError(
            f"{spelled(argument)} must be a mapping of dims, such as {example}, not {given!r}"
        )
    for dim in given:
        if dim not in input_dims:
            raise ValueError(
                f"{spelled(argument)} names dim {dim!r}, which is not in {spelled('input_dims')} "
                f"({list(input_dims)}): windows alone have edges"
            )
    return {dim: each for dim, each in given.items() if each is not None}


def _require_one_of(given: Any, known: tuple[str, ...], what: str) -> None:
    if not isinstance(given, str) or given not in known:
        raise ValueError(f"{what} must be one of {list(known)}, not {given!r}")


def _sides(given: Any, what: str) -> tuple[int, int]:
    """Steps of a halo before and behind."""
    sides = tuple(given) if isinstance(given, tuple | list) else (given, given)
    if len(sides) != 2:
        raise ValueError(f"{what} is a number of steps, or (before, behind), not {given!r}")
    before, after = (as_integer(side, what) for side in sides)
    if before < 0 or after < 0:
        raise ValueError(f"{what} must not be negative, but is {given!r}")
    return before, after


def require_circles(data: xr.Dataset, rules: Mapping[Hashable, EdgeRule]) -> None:
    """Raise ValueError if labels along a dim that is wrapped do not close a circle.

    Longitudes go around 360 degrees. Other numbers must be evenly spaced: then they close one.
    """
    for dim, rule in rules.items():
        if rule.boundary != "wrap" or dim not in data.coords:
            continue
        what, steps = spelled("boundary", dim), LabelSteps.of(data, dim)
        if is_north(dim, data):
            raise ValueError(
                f"{what} is 'wrap', and latitudes are on no circle: beyond a pole does not lie the "
                "other one. 'edge' or 'reflect' gives values there"
            )
        remedy = f"ds.drop_vars({dim!r}) leaves the labels out"
        if steps is None or steps.times:
            raise ValueError(
                f"{what} is 'wrap', and the labels along {dim!r} are on no circle, where the first "
                f"would follow the last: {remedy}"
            )
        if data.sizes[dim] < 2:
            continue
        if not steps.regular.all():
            at = int(np.flatnonzero(~steps.regular)[0])
            labels = data.coords[dim].values
            raise ValueError(
                f"{what} is 'wrap', and the labels along {dim!r} are not evenly spaced: they are "
                f"mostly {steps.text(abs(steps.step))} apart, but not {text_of(labels[at])} and "
                f"{text_of(labels[at + 1])}"
            )
        circle = circle_of(dim, data)
        if circle is not None:
            _require_closed(data, dim, steps, circle)


def _require_closed(data: xr.Dataset, dim: Hashable, steps: LabelSteps, circle: float) -> None:
    """Raise ValueError if longitudes do not go around once; they may begin anywhere."""
    labels = data.coords[dim].values
    step = abs(steps.step)
    # The way on from the last label to the first one.
    closing = circle - abs(float(steps.values.sum()))
    if abs(closing - step) <= CLOSING * step:
        return
    ends = f"{text_of(labels[0])} to {text_of(labels[-1])}"
    message = (
        f"{spelled('boundary', dim)} is 'wrap', and the labels along {dim!r}, {ends}, do not close "
        "the circle"
    )
    if abs(closing) <= CLOSING * step:
        message += f": the last is the first again, and ds.isel({{{dim!r}: slice(-1)}}) drops it"
    raise ValueError(message)


def require_blanks(
    data: xr.Dataset, names: Iterable[Hashable], beyond: Mapping[Hashable, ExtendedDim]
) -> None:
    """Raise ValueError if a variable that is read, or a label, cannot be missing."""
    blank = {dim for dim, each in beyond.items() if each.blank}
    for dim in blank:
        if isinstance(data.indexes.get(dim), pd.MultiIndex):
            raise ValueError(
                f"{spelled('boundary', dim)} is 'constant', where labels are missing, and those "
                f"along {dim!r} are a MultiIndex, which has none: ds.reset_index({dim!r})"
            )
    for name in names:
        variable = data.variables[name]
        if blank.intersection(variable.dims) and variable.dtype.kind not in "fcmM":
            dim = next(dim for dim in variable.dims if dim in blank)
            raise ValueError(
                f"{spelled('boundary', dim)} is 'constant', which is NaN, and variable {name!r} of "
                f"dtype {variable.dtype} has none: make it floating, ds.assign({{{name!r}: "
                f"ds[{name!r}].astype('float32')}}), or take another boundary"
            )


def extended(data: xr.Dataset, beyond: Mapping[Hashable, ExtendedDim]) -> xr.Dataset:
    """Data laid out anew along some dims, with what lies beyond their ends.

    Nothing is read or copied but coordinates. Labels are those of `xarray.Dataset.pad`. Where there
    is nothing, they are missing, and values are whatever is nearest, until they are read.
    """
    if not beyond:
        return data
    dims = set(beyond)
    lazy = {
        name: deferred(variable)
        for name, variable in data.data_vars.variables.items()
        if dims.intersection(variable.dims)
    }
    graphs = {name: each for name, each in lazy.items() if is_computed(each)}
    padded = {name: _padded(each, beyond) for name, each in graphs.items()}
    others = data.assign({name: lazy[name] for name in lazy if name not in graphs})
    order = list(data.data_vars)
    laid = {dim: each.nearest for dim, each in beyond.items()}
    found = others.drop_vars(list(graphs)).isel(laid, missing_dims="ignore")
    found = found.assign(padded)[order]
    for dim, each in beyond.items():
        if each.blank:
            found = _without_labels(found, dim, each)
    found.encoding = data.encoding
    return found


def _padded(variable: xr.Variable, beyond: Mapping[Hashable, ExtendedDim]) -> xr.Variable:
    """A variable of dask, extended by slices of its chunks."""
    for dim, each in beyond.items():
        if dim not in variable.dims:
            continue
        begin, end = each.inside
        ends = each.nearest[:begin], each.nearest[end:]
        parts = [variable.isel({dim: steps}) for steps in ends]
        variable = xr.Variable.concat(  # type: ignore[no-untyped-call]
            [part for part in (parts[0], variable, parts[1]) if part.sizes[dim]], dim
        )
    return variable


def _without_labels(data: xr.Dataset, dim: Hashable, beyond: ExtendedDim) -> xr.Dataset:
    """Data that has no labels where there is nothing, nor values that need not be read."""
    there = xr.Variable((dim,), beyond.steps >= 0)
    for name, variable in data.variables.items():
        if dim in variable.dims and (in_memory(variable) or name in data.coords):
            base = variable.to_base_variable()
            masked = base.where(there).transpose(*variable.dims)  # type: ignore[no-untyped-call]
            if name in data.coords:
                data = data.drop_vars([name]).assign_coords({name: masked})
            else:
                data = data.assign({name: masked})
    return data

"""Arguments of a dataset, checked against its data: which windows, and what is read for them."""

from __future__ import annotations

from collections.abc import Collection, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import xarray as xr

from ..common.redact import printable_lines
from ..common.spelling import did_you_mean
from ..common.user_warnings import warn_user
from ..planning.edges import EdgeRule, ExtendedDim
from ..planning.windows import Windows, require_steps
from ..sources.lazy_arrays import in_memory
from ..sources.source import Source
from .breaks import SampleBreaks, windows_between_breaks
from .durations import Length, in_steps
from .edges import edge_rules, extended, require_blanks, require_circles
from .generator_items import Items
from .preprocessing import check_preprocessed
from .select import Select, label_of, names_of
from .transforms import Transform
from .unused import for_trial

__all__ = [
    "CheckedSpace",
    "checked_space",
    "coords_of",
    "names_in",
    "reads_of",
    "require_dims",
    "warn_of_relabelled",
]


# Arguments that say what samples find at the ends of the data.
EDGES = ("boundary", "remainder", "halo")


@dataclass(frozen=True, eq=False)
class CheckedSpace:
    """Result of `checked_space`; a definition is made of it at once."""

    windows: Windows
    breaks: SampleBreaks
    sample_dims: tuple[Hashable, ...]
    items: Items | None
    reads: tuple[Hashable, ...]  # what preprocess gets, or parts have the values of
    template: xr.Dataset  # the variables of the parts as they are after preprocess
    constants: Mapping[Hashable, Any]  # a value of each variable that a trial cannot make up
    # Of the data that is given: the same, or with what lies beyond its ends, and that by dim.
    source: Source
    beyond: Mapping[Hashable, ExtendedDim] = field(default_factory=dict)
    halos: Mapping[Hashable, tuple[int, int]] = field(default_factory=dict)  # by dim, both sides
    # What is asked of the ends of dims along which events say where windows lie.
    edges: Mapping[Hashable, EdgeRule] = field(default_factory=dict)


def checked_space(
    source: Source,
    input_dims: Mapping[Any, Length] | None,
    input_overlap: Mapping[Any, Length] | None,
    selections: Mapping[str, Any],
    preprocess: Transform | None,
    breaks: Any = None,
    edges: Mapping[str, Any] | None = None,
    conditions: Mapping[str, Select] | None = None,
    centered: Container[Hashable] = (),
) -> CheckedSpace:
    """The windows over the data and what is read for them; arguments that do not fit raise.

    `edges` are the arguments `boundary`, `remainder` and `halo`. Some `conditions` ask what is
    present in the samples, and add nothing to these. Along dims that are `centered`, windows are
    laid as if there were no edges: events say where they lie.
    """
    data = source.dataset
    given = {name: each for name, each in (edges or {}).items() if each is not None}
    if source.generator is not None:
        if input_dims is not None or input_overlap is not None:
            raise ValueError(
                "an xbatcher.BatchGenerator has input_dims and input_overlap of its own"
            )
        if breaks not in (None, "ignore"):
            raise ValueError(
                "an xbatcher.BatchGenerator counts windows by position, whatever their labels: "
                f"breaks={breaks!r} cannot be given with one"
            )
        if given:
            raise ValueError(
                f"{next(iter(given))} cannot be given with an xbatcher.BatchGenerator, which has "
                "windows of its own"
            )
        # An item may have any dim; a preprocess is tried on windows of the generator's size.
        inner = source.generator.input_dims
        input_dims = dict.fromkeys(source.sizes, 2)
        input_dims |= {source.names.get(dim, dim): size for dim, size in inner.items()}
    if input_dims is None:
        raise ValueError("input_dims is missing: the size of one sample, {dim: steps}")
    if not isinstance(input_dims, Mapping):
        raise TypeError(f"input_dims must be a mapping of dims to sizes, not {input_dims!r}")
    if not isinstance(input_overlap, Mapping | None):
        raise TypeError(f"input_overlap must be a mapping of dims to steps, not {input_overlap!r}")
    sizes_in_steps, overlaps = in_steps(input_dims, input_overlap, data, breaks)
    conditions = conditions or {}
    for part, select in {**selections, **conditions}.items():
        if not names_of(select):
            raise ValueError(f"{label_of(part)} selects no variable")
    selected, present = names_in(selections)
    asked = names_in(conditions)[1]
    for name in (*present, *asked):
        if name not in data.data_vars:
            raise ValueError(_unknown(name, data))
    require_other_names(input_dims, [*selected, *present])
    _require_different_dims(data, [*selected, *present])
    constants: dict[Hashable, Any] = {}
    rules = edge_rules(**{name: given.get(name) for name in EDGES}, input_dims=input_dims)
    with_halos = _with_halos(sizes_in_steps, rules, data)
    reads, template = reads_of(data, selected, with_halos, preprocess, constants)
    _require_different_dims(data, reads)
    used = {dim for name in selected for dim in template.variables[name].dims} | set(input_dims)
    used |= {dim for name in present for dim in data.variables[name].dims}
    require_dims(conditions, data, used)
    if None in used and None in source.sizes:
        raise ValueError(
            "a dim of the samples is named None, which elsewhere means that there is none: "
            "ds.rename_dims({None: 'NAME'}) gives it another name"
        )
    if source.generator is not None:
        items = _items(source, selections, template, conditions)
        ignored = SampleBreaks({}, items.windows)
        return CheckedSpace(
            items.windows, ignored, items.region_dims, items, reads, template, constants, source
        )
    sizes = {dim: size for dim, size in source.sizes.items() if dim in used}
    longer = [dim for dim, rule in rules.items() if rule.remainder == "pad"]
    of_events = {dim: rule for dim, rule in rules.items() if dim in centered}
    laid = {dim: rule for dim, rule in rules.items() if dim not in centered}
    by_position = Windows.from_sizes(sizes, sizes_in_steps, overlaps, longer)
    require_circles(data, rules)
    windows, found, beyond = windows_between_breaks(by_position, data, breaks, laid)
    require_blanks(data, [*reads, *present, *asked], beyond)
    return CheckedSpace(
        windows,
        found,
        tuple(input_dims),
        None,
        reads,
        template,
        constants,
        replace(source, dataset=extended(data, beyond)),
        beyond,
        {dim: (rule.before, rule.after) for dim, rule in rules.items() if rule.halo},
        of_events,
    )


def _with_halos(
    sizes: Mapping[Any, int], rules: Mapping[Hashable, EdgeRule], data: xr.Dataset
) -> Mapping[Any, int]:
    """Sizes of windows with their halos."""
    found = dict(sizes)
    for dim, rule in rules.items():
        if rule.halo and isinstance(sizes[dim], int) and dim in data.sizes:
            found[dim] = (data.sizes[dim] if sizes[dim] == -1 else sizes[dim]) + rule.halo
    return found


def require_other_names(windowed: Container[Hashable], selected: Container[Hashable]) -> None:
    """Raise ValueError if a dim of samples, or a variable, is named like the batch dimension."""
    if "sample" in windowed or "sample" in selected:
        raise ValueError(
            "'sample' is the name of the batch dimension: rename the windowed dim or variable "
            "of the data that has it"
        )


def require_regular(data: xr.Dataset) -> None:
    """Raise ValueError if data has a dim twice, or one that is empty or of unknown size."""
    _require_different_dims(data, list(data.data_vars))
    if None in data.sizes:
        raise ValueError(
            "a dim is named None, which elsewhere means that there is none: "
            "ds.rename_dims({None: 'NAME'}) gives it another name"
        )
    require_steps(data.sizes)


def require_dims(
    conditions: Mapping[str, Select], data: xr.Dataset, dims: Collection[Hashable]
) -> None:
    """Raise ValueError if conditions are of variables with dims that samples do not have."""
    for condition, select in conditions.items():
        for name in names_of(select):
            for dim in data.variables[name].dims:
                if dim not in dims:
                    raise ValueError(
                        f"{condition}: variable {name!r} has dim {dim!r}, which the samples do "
                        f"not have; theirs are {sorted(map(str, dims))}"
                    )


def _require_different_dims(data: xr.Dataset, names: Iterable[Hashable]) -> None:
    """Raise ValueError if a variable has a dim twice: xarray cannot index it."""
    for name in names:
        dims = data.variables[name].dims if name in data.variables else ()
        for dim in dims:
            if dims.count(dim) > 1:
                raise ValueError(
                    f"variable {name!r} has the dim {dim!r} twice, in dims={dims}, and xarray "
                    "cannot index it so: give its variable other dims, "
                    f"ds.assign({{{name!r}: (({dim!r}, …), ds[{name!r}].values)}}), or leave it out"
                )


def names_in(selections: Mapping[str, Select]) -> tuple[list[Hashable], list[Hashable]]:
    """Variables of which some selections take the values, and of which the presence."""
    found: tuple[list[Hashable], list[Hashable]] = [], []
    for select in selections.values():
        found[select.takes != "values"].extend(names_of(select))
    return found


def _items(
    source: Source,
    selections: Mapping[str, Select],
    template: xr.Dataset,
    conditions: Mapping[str, Select],
) -> Items:
    """The items of a generator, for some parts."""
    parts = {
        part: [
            (template if select.takes == "values" else source.dataset).variables[name]
            for name in names_of(select)
        ]
        for part, select in selections.items()
    }
    used = [variable for variables in parts.values() for variable in variables]
    items = Items.of(source.generator, source.sizes, source.names, used)
    for part, select in selections.items():
        if items.patches is not None and select.indexers:
            raise ValueError(
                f"part {part!r} selects steps inside a window, but concat_input_dims=True makes an "
                "item of many windows"
            )
    if items.patches is not None and conditions:
        raise ValueError(
            f"{next(iter(conditions))} cannot be asked of items of many windows, as "
            "concat_input_dims=True makes them: give where as a function"
        )
    return items.for_parts({**parts, **dict.fromkeys(conditions, ())})


def reads_of(
    data: xr.Dataset,
    selected: Sequence[Hashable],
    input_dims: Mapping[Any, int],
    preprocess: Transform | None,
    constants: dict[Hashable, Any],
) -> tuple[tuple[Hashable, ...], xr.Dataset]:
    """The variables to read, and a Dataset that has the selected ones with their dims and dtypes.

    A preprocess is tried on a block of ones: with the selected variables, or if that fails because
    it needs or makes others, with all variables. Of text and the like, which has no ones,
    `constants` gets what stands for them.
    """
    unknown = [name for name in selected if name not in data.data_vars]
    unique = tuple(dict.fromkeys(selected))
    if preprocess is None or not selected:
        if unknown:
            raise ValueError(_unknown(unknown[0], data))
        return unique, data
    if not unknown:
        try:
            return unique, _tried(preprocess, data[list(unique)], input_dims, selected, constants)
        except Exception as error:
            if set(unique) == set(data.data_vars):
                raise _refused(error) from error
    try:
        return tuple(data.data_vars), _tried(preprocess, data, input_dims, selected, constants)
    except Exception as error:
        raise _refused(error) from error


def _unknown(name: Hashable, data: xr.Dataset) -> str:
    """Message that there is no such data variable, and how there can be."""
    if name not in data.coords:
        known = list(data.data_vars)
        return f"no data variable {name!r}; the data variables are {known}" + did_you_mean(
            name, known
        )
    if name not in data.dims:
        return f"{name!r} is a coordinate; ds.reset_coords({name!r}) makes a data variable of it"
    new = f"{name}_value"
    return (
        f"{name!r} is a coordinate: ds.assign({{{new!r}: ds[{name!r}]}}) makes a data variable "
        "of it, which needs another name"
    )


def _refused(error: Exception) -> Exception:
    kind = TypeError if isinstance(error, TypeError) else ValueError
    shown = printable_lines(str(error))
    return kind(f"preprocess does not work on a block of ones: {type(error).__name__}: {shown}")


def _tried(
    preprocess: Transform,
    data: xr.Dataset,
    input_dims: Mapping[Any, int],
    selected: Sequence[Hashable],
    constants: dict[Hashable, Any],
) -> xr.Dataset:
    """Result of preprocess on the smallest block of ones, checked."""
    # Two places of other dims, so that a function that drops dims of size 1 drops none here.
    first = {
        dim: slice(0, size if input_dims.get(dim) == -1 else max(1, input_dims.get(dim, 2)))
        for dim, size in data.sizes.items()
    }
    block = data.isel(first)
    block = block.assign(
        {
            name: (variable.dims, _ones(variable), variable.attrs)
            for name, variable in block.data_vars.items()
        }
    )
    for name, variable in block.variables.items():
        if name in block.data_vars and variable.dtype.kind not in "fiubcmM" and variable.size:
            constants[name] = variable.to_numpy().flat[0]
    with for_trial():
        result = preprocess(block, lambda: np.random.default_rng(0))
    check_preprocessed(result, block, input_dims, selected)
    for name in selected:
        new = [dim for dim in result[name].dims if dim not in data.dims]
        if new:
            raise ValueError(f"preprocess gave variable {name!r} the new dims {new}")
    return cast(xr.Dataset, result)


def warn_of_relabelled(
    template: xr.Dataset,
    data: xr.Dataset,
    windows: Windows,
    beyond: Mapping[Hashable, ExtendedDim],
) -> None:
    """Warn if a preprocess gives other labels along dims of samples, which keep those of the data.

    `template` is what it has made of the first places of the data, before which there are others
    `beyond` its ends.
    """
    dims = {axis.dim for axis in windows.axes}
    for name, coord in template.coords.items():
        before = data.coords.variables.get(name)
        if before is None or not coord.dims or not dims.issuperset(coord.dims):
            continue
        begins = {dim: beyond[dim].before if dim in beyond else 0 for dim in coord.sizes}
        first = {dim: slice(at, at + coord.sizes[dim]) for dim, at in begins.items()}
        before = before.isel(first, missing_dims="ignore")
        if not in_memory(before) or not in_memory(coord.variable):
            continue
        if not before.equals(coord.variable):  # type: ignore[no-untyped-call]
            warn_user(
                f"preprocess changes the coordinate {name!r}, but samples and predictions have the "
                "labels of the data: do that to the data before the dataset is made, such as by "
                f"ds.assign_coords({{{name!r}: …}})"
            )


def _ones(array: xr.DataArray) -> np.ndarray[Any, Any]:
    """Ones of the dtype of an array; its first value for dates of other calendars, and for text."""
    dtype = array.dtype
    if dtype.kind in "fiubcmM" or not array.size:
        return np.full(array.shape, np.ones((), dtype if dtype.kind in "fiubcmM" else object))
    ones = np.empty(array.shape, dtype)
    ones[...] = array.isel(dict.fromkeys(array.dims, 0)).to_numpy()[()]
    return ones


def coords_of(data: xr.Dataset, windows: Windows) -> xr.Dataset:
    """The coordinates along the dims of the sample space."""
    dims = {axis.dim for axis in windows.axes}
    _require_different_dims(
        data, [name for name, coord in data.coords.items() if set(coord.dims) <= dims]
    )
    found = data.coords.to_dataset().drop_vars(
        [name for name, coord in data.coords.items() if not set(coord.dims) <= dims]
    )
    if "sample" in found.coords and found["sample"].dims != ("sample",):
        raise ValueError(
            "the data has a coordinate 'sample' that is not along a dim of that name, where "
            "batches have the numbers of their samples: rename or drop it"
        )
    return found


def repeated_along(
    windows: Windows, variables: Mapping[Hashable, frozenset[Hashable]]
) -> dict[Hashable, list[Hashable]]:
    """By dims of which each place is a sample: variables that lack them, if others do not."""
    lacking = {
        axis.dim: [name for name, dims in variables.items() if axis.dim not in dims]
        for axis in windows.axes
        if not axis.windowed and len(axis) > 1
    }
    return {dim: names for dim, names in lacking.items() if names}

"""Samples as maps and series."""

from __future__ import annotations

import textwrap
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..common.figures import (
    COLORS,
    Axes,
    as_axes,
    formula,
    ink,
    label_dates,
    label_numbers,
    label_steps,
    open_frame,
    plain,
)
from ..planning.windows import Windows
from ..sources.conventions import is_east, is_north, is_time, text_of
from .labels import BoolArray, Labels
from .part_labels import PartLabels

__all__ = [
    "MARKED_POINTS",
    "OF_COLORS",
    "Panel",
    "SampleArray",
    "alike",
    "chosen",
    "draw",
    "finish",
    "limits_of",
    "name_of",
    "panel_of",
    "plot_samples",
    "ratio_of",
    "required_dims",
    "sample_arrays",
    "with_steps",
]

# Panels of a sample that are drawn if nobody says which.
MAX_PANELS = 12
# Steps of a map along each dim; of longer ones every second, third, … is drawn.
MAX_STEPS = 2000
# With fewer points, each is marked.
MARKED_POINTS = 40
# Arguments of xarray that say which colors are which values.
OF_COLORS = {"cmap", "vmin", "vmax", "center", "robust", "levels", "norm", "colors", "extend"}
UPRIGHT = {"z", "lev", "level", "plev", "pressure", "height", "depth", "altitude", "layer"}


@dataclass(frozen=True)
class SampleArray:
    """One variable of a part of one sample, with the labels that there are."""

    part: str
    array: xr.DataArray
    number: int  # of the sample
    place: Mapping[Hashable, int]  # where it lies along dims that are not windowed


def sample_arrays(
    parts: Mapping[str, tuple[npt.NDArray[Any], PartLabels]],
    labels: Labels | None,
    number: int,
    flipped: Mapping[Hashable, BoolArray],
) -> list[SampleArray]:
    """The variables of one sample, with as many labels as there are.

    A part whose shape is not that of its labels has none.
    """
    where = {}
    if labels is not None:
        region = labels.labelled[number]
        where = {dim: at for dim, at in region.items() if isinstance(at, int)}
    known = labels or Labels(Windows.of(()), xr.Dataset(), {})
    found = []
    for part, (array, own) in parts.items():
        dims = [f"dim_{place}" for place in range(array.ndim)]
        dataset = xr.Dataset({part: (dims, array)})
        if own.fit(array.shape, ()):
            of = known if own.source is None else known.others[own.source]
            dataset = of.to_dataset({part: (array, own)}, np.array(number), False, flipped)
        found += [SampleArray(part, each, number, where) for each in dataset.data_vars.values()]
    return found


@dataclass(frozen=True)
class Panel:
    """Contents of one Axes: 0, 1 or 2 dims (y, x) of a variable."""

    part: str
    array: xr.DataArray
    dims: tuple[Hashable, ...]
    title: str
    label: str
    difference: bool = False  # of two arrays, in colors of their own


def plot_samples(
    samples: Sequence[Sequence[SampleArray]],
    parts: Sequence[str],
    *,
    variables: Hashable | Iterable[Hashable] | None,
    dims: Hashable | Sequence[Hashable] | None,
    isel: Mapping[Any, int] | None,
    axes: Any,
    figsize: tuple[float, float] | None,
    kwargs: Mapping[str, Any],
) -> npt.NDArray[Any]:
    """Draw samples, one a row, and their variables side by side; see `xtorch_data.Batch.plot`.

    `samples` has the variables of each, with every part's names the same; series of different
    `parts` differ in color.
    """
    rows, left_out = chosen(samples, variables)
    wanted = required_dims(rows[0], dims, isel)
    panels = [[panel_of(found, wanted, isel or {}) for found in row] for row in rows]
    limits = limits_of(panels)
    ratio = max((ratio_of(panel) for panel in panels[0]), default=0.7)
    drawn_on = as_axes(axes, len(panels), len(panels[0]), ratio, figsize)
    for row, axes_of_row in zip(panels, drawn_on, strict=True):
        for panel, ax in zip(row, axes_of_row, strict=True):
            color = COLORS[parts.index(panel.part) % len(COLORS)]
            draw(panel, ax, limits.get(alike(panel)), color, kwargs)
    if left_out and axes is None:
        drawn_on[0, 0].figure.supxlabel(
            f"{left_out:,} more variables: choose with variables=…", fontsize="small"
        )
    return drawn_on


def chosen(
    samples: Sequence[Sequence[SampleArray]],
    variables: Hashable | Iterable[Hashable] | None,
    most: int = MAX_PANELS,
) -> tuple[list[list[SampleArray]], int]:
    """The variables that are drawn, and how many are not."""
    if variables is None:
        left_out = max(0, len(samples[0]) - most)
        return [list(row[:most]) for row in samples], left_out
    known = {found.array.name for found in samples[0]}
    single = isinstance(variables, str) or (isinstance(variables, Hashable) and variables in known)
    names = [variables] if single else list(cast(Iterable[Hashable], variables))
    for name in names:
        if name not in known:
            there = sorted(map(str, known))
            raise ValueError(f"there is no variable {name!r} here; there are {there}")
    if not names:
        raise ValueError("variables is empty: there is nothing to draw")
    return [[found for found in row if found.array.name in names] for row in samples], 0


def required_dims(
    row: Sequence[SampleArray],
    dims: Hashable | Sequence[Hashable] | None,
    isel: Mapping[Any, int] | None,
) -> tuple[Hashable, ...] | None:
    """The dims that are to be drawn, if any are named; ValueError if no variable has them."""
    known = {dim for found in row for dim in found.array.dims}
    wanted = _as_dims(dims)
    for argument, names in (("dims", wanted or ()), ("isel", isel or {})):
        for dim in names:
            if dim not in known:
                raise ValueError(
                    f"{argument} names dim {dim!r}, which no variable here has; theirs are "
                    f"{sorted(map(str, known))}"
                )
    return wanted


def _as_dims(dims: Hashable | Sequence[Hashable] | None) -> tuple[Hashable, ...] | None:
    if dims is None:
        return None
    found = tuple(dims) if isinstance(dims, (list, tuple)) else (dims,)
    if not 1 <= len(found) <= 2 or len(set(found)) < len(found):
        raise ValueError(f"dims are one dim for a series or two for a map, (y, x), not {dims!r}")
    return found


def panel_of(
    found: SampleArray, wanted: tuple[Hashable, ...] | None, isel: Mapping[Any, int]
) -> Panel:
    """What is drawn of a variable, along the dims that are wanted, or those that suit it."""
    array = _drawable(found.array)
    dims = tuple(dim for dim in wanted or () if dim in array.dims) or _dims_of(array, isel)
    steps = {dim: int(isel.get(dim, 0)) for dim in array.dims if dim not in dims}
    place = {**found.place, **{dim: step % array.sizes[dim] for dim, step in steps.items()}}
    array = array.isel(steps)
    head = f"{found.part}: {plain(array.name, 24)} (sample {found.number})"
    where = textwrap.wrap(", ".join(_where(array, dims, place)), 46)
    label = _label(array.attrs, array.name)
    return Panel(found.part, array, dims, "\n".join([head, *where[:3]]), label)


def _drawable(array: xr.DataArray) -> xr.DataArray:
    """Array of a dtype that matplotlib draws: absolute values of complex numbers."""
    if array.dtype.kind == "c":
        return xr.DataArray(np.abs(array.variable), array.coords, name=array.name)
    if array.dtype.kind == "b" or array.dtype == np.float16:
        return array.astype(np.uint8 if array.dtype.kind == "b" else np.float32)
    return array


def _dims_of(array: xr.DataArray, isel: Mapping[Any, int]) -> tuple[Hashable, ...]:
    """The dims of a map, (y, x), or the only one of a series."""
    dims = [dim for dim, size in array.sizes.items() if size > 1 and dim not in isel]
    flat = [dim for dim in dims if not is_time(dim, array) and not _is_upright(dim, array)]
    if len(flat) >= 2:
        y, x = flat[-2:]
        return (x, y) if is_east(y, array) and not is_east(x, array) else (y, x)
    if len(dims) >= 2:  # time runs to the right
        y, x = dims[-2:]
        return (x, y) if is_time(y, array) else (y, x)
    return tuple(dims)


def _is_upright(dim: Hashable, array: xr.DataArray) -> bool:
    attrs = array.coords[dim].attrs if dim in array.coords else {}
    return attrs.get("axis") == "Z" or "positive" in attrs or str(dim).lower() in UPRIGHT


def _where(
    array: xr.DataArray, dims: tuple[Hashable, ...], place: Mapping[Hashable, int]
) -> list[str]:
    """The time and the place of what is drawn."""
    times, others = [], []
    for dim in dims:
        if dim in array.coords and is_time(dim, array):
            ends = (text_of(array.coords[dim].values[at]) for at in (0, -1))
            times.append(" to ".join(ends))
    found = {
        name: each for name, each in array.coords.items() if not each.dims and name != "sample"
    }
    for name, coord in found.items():
        value, named = coord.values[()], name in place
        if is_time(name, array):
            times += [text_of(value)] if named or not times else []
        elif is_north(name, array) or is_east(name, array):
            text = text_of(value, coord.attrs.get("units"))
            others.append(text if text.endswith(("N", "S", "E", "W")) else f"{name} {text}")
        elif named or isinstance(value, str):
            others.append(f"{name} {text_of(value)}")
    others += [f"{dim} {at}" for dim, at in place.items() if dim not in found]
    return [plain(text, 44) for text in times + others]


def _label(attrs: Mapping[Any, Any], name: Hashable) -> str:
    """A name and units as CF conventions give them."""
    found = attrs.get("long_name") or attrs.get("standard_name") or plain(name, 40)
    units = attrs.get("units")
    text = f"{found} [{units}]" if units not in (None, "", "1") else f"{found}"
    return "\n".join(map(formula, textwrap.wrap(text, 34)[:2]))


def limits_of(panels: Sequence[Sequence[Panel]]) -> dict[Hashable, tuple[float, float]]:
    """The least and the greatest value of each variable over all that is drawn of it."""
    limits: dict[Hashable, tuple[float, float]] = {}
    for panel in (panel for row in panels for panel in row):
        values = panel.array.values
        values = values[np.isfinite(values)]
        if values.size:
            low, high = limits.get(alike(panel), (np.inf, -np.inf))
            limits[alike(panel)] = min(low, values.min()), max(high, values.max())
    return limits


def alike(panel: Panel) -> Hashable:
    """A key of panels that are drawn in the same colors: values of a variable, or where it is."""
    return panel.array.name, panel.array.dtype.kind, panel.difference


def ratio_of(panel: Panel) -> float:
    """Height over width of an Axes that suits a panel."""
    if len(panel.dims) < 2:
        return 0.65
    return min(max(_slope(panel), 0.3), 1.4) if _is_even(panel) else 0.75


def _is_even(panel: Panel) -> bool:
    """Whether a step to the north is as long as one to the east, for all that is known."""
    y, x = panel.dims
    on_earth = is_north(y, panel.array) and is_east(x, panel.array)
    return 0.2 < _slope(panel) < 5 and (on_earth or not {y, x} & set(panel.array.coords))


def _slope(panel: Panel) -> float:
    """Height of the area that is drawn over its width, in degrees or else in steps."""
    extents = []
    for dim in panel.dims:
        extents.append(float(panel.array.sizes[dim]))
        if dim in panel.array.coords and panel.array.coords[dim].dtype.kind in "fiu":
            if is_north(dim, panel.array) or is_east(dim, panel.array):
                extents[-1] = float(np.ptp(panel.array.coords[dim].values))
    return extents[0] / extents[1] if extents[1] else 0.0


def draw(
    panel: Panel,
    ax: Axes,
    limits: tuple[float, float] | None,
    color: str,
    kwargs: Mapping[str, Any],
) -> None:
    """Draw a panel: a number, a series or a map."""
    if not panel.dims:
        value = panel.array.values.reshape(-1)[0]
        ax.text(0.5, 0.5, text_of(value), ha="center", va="center", fontsize="x-large")
        ax.set_axis_off()
        # An axis that is off hides its label.
        ax.text(0.5, 0.3, panel.label, ha="center", va="center", fontsize="small")
    elif len(panel.dims) == 1:
        _draw_series(panel, ax, limits, color, kwargs)
    else:
        _draw_map(panel, ax, limits, kwargs)
    ax.set_title(panel.title, fontsize=9)


def _draw_series(
    panel: Panel,
    ax: Axes,
    limits: tuple[float, float] | None,
    color: str,
    kwargs: Mapping[str, Any],
) -> None:
    [dim] = panel.dims
    array, texts = with_steps(panel.array, panel.dims)
    marker = "." if array.size <= MARKED_POINTS else None
    given = {"color": color, "marker": marker, **kwargs}
    array.plot.line(ax=ax, x=name_of(dim), add_legend=False, **given)
    if limits is not None and limits[0] < limits[1]:  # the same for all of the variable
        margin = 0.05 * (limits[1] - limits[0])
        ax.set_ylim(limits[0] - margin, limits[1] + margin)
    finish(panel, ax, texts, panel.dims[::-1])
    ax.set_ylabel(panel.label)
    open_frame(ax)
    ax.grid(alpha=0.3)


def _draw_map(
    panel: Panel, ax: Axes, limits: tuple[float, float] | None, kwargs: Mapping[str, Any]
) -> None:
    every = {dim: slice(None, None, -(-panel.array.sizes[dim] // MAX_STEPS)) for dim in panel.dims}
    array, texts = with_steps(panel.array.isel(every), panel.dims)
    y, x = panel.dims
    given = dict(kwargs)
    if limits is not None and not OF_COLORS & set(given):
        low, high = limits
        if low < 0 < high or panel.difference:
            most = max(-low, high) or 1.0
            given |= {"vmin": -most, "vmax": most, "cmap": "RdBu_r"}
        else:
            given |= {"vmin": low, "vmax": high, "cmap": "viridis"}
    if given.get("add_colorbar", True) and "cbar_ax" not in given:  # as high as the map
        given["cbar_ax"] = ax.inset_axes((1.03, 0, 0.045, 1))
        given["cbar_kwargs"] = {"label": panel.label, **(given.get("cbar_kwargs") or {})}
    array.plot.pcolormesh(ax=ax, x=name_of(x), y=name_of(y), **given)
    if "cbar_ax" in given:
        given["cbar_ax"].yaxis.label.set_size("small")  # it is to fit beside a map that is not high
    ax.set_facecolor(ink(0.2))  # where there is no value
    if _is_even(panel) and ax.name == "rectilinear":
        ax.set_aspect("equal")
    finish(panel, ax, texts, (x, y))


def with_steps(
    array: xr.DataArray, dims: Iterable[Hashable]
) -> tuple[xr.DataArray, dict[Hashable, list[str]]]:
    """The array with coordinates that can be drawn, and texts for steps where these are numbered.

    Numbered are steps whose coordinate has gaps or no order, or is text, durations or dates of a
    calendar that matplotlib does not know.
    """
    texts: dict[Hashable, list[str]] = {}
    coords: dict[str, Any] = {}
    for dim in dims:
        values = array.coords[dim].values if dim in array.coords else np.arange(array.sizes[dim])
        if not _is_ordered(values):
            texts[dim] = [text_of(value) for value in values]
            values = np.arange(len(values))
        coords[name_of(dim)] = values
    sizes = [name_of(dim) for dim in array.dims]
    return xr.DataArray(array.values, coords, sizes, name="values"), texts


def _is_ordered(values: npt.NDArray[Any]) -> bool:
    if values.ndim != 1 or values.dtype.kind not in "fiuM":
        return False
    steps = np.diff(values.astype("int64" if values.dtype.kind == "M" else "float64"))
    whole = not np.isnat(values).any() if values.dtype.kind == "M" else np.isfinite(values).all()
    return bool(whole and ((steps > 0).all() or (steps < 0).all()))


def name_of(dim: Hashable) -> str:
    """A name of a dim that xarray takes as text; no two dims have the same."""
    return dim if isinstance(dim, str) else repr(dim)


def finish(
    panel: Panel, ax: Axes, texts: Mapping[Hashable, list[str]], dims: Sequence[Hashable]
) -> None:
    """Name the axes by the attributes of their coordinates."""
    for dim, axis in zip(dims, (ax.xaxis, ax.yaxis), strict=False):
        attrs = panel.array.coords[dim].attrs if dim in panel.array.coords else {}
        axis.set_label_text(_label(attrs, dim))
        if dim in texts:
            label_steps(axis, texts[dim].__getitem__, 0, len(texts[dim]), ticks=4)
        elif dim in panel.array.coords and panel.array.coords[dim].dtype.kind == "M":
            label_dates(axis)
        elif axis is ax.xaxis:
            label_numbers(axis)

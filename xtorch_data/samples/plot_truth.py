"""Predictions beside the truth."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from ..common.figures import COLORS, Axes, as_axes, ink, open_frame, pyplot
from ..common.redact import printable
from ..sources.conventions import text_of
from .plot_batch import (
    MARKED_POINTS,
    OF_COLORS,
    Panel,
    SampleArray,
    alike,
    chosen,
    draw,
    finish,
    limits_of,
    name_of,
    panel_of,
    ratio_of,
    required_dims,
    with_steps,
)

__all__ = ["plot_truth", "truth_of"]

# Variables of a sample that are drawn if nobody says which.
MAX_VARIABLES = 6
# Width of a map, and of a row of series, in inches; height of lines and of differences below.
MAP_WIDTH = 3.0
SERIES_WIDTH = 8.0
SERIES_HEIGHTS = (2.4, 1.4)
# What the maps of a row show.
MAPS = ("input", "prediction", "truth", "difference")


def truth_of(batch: Any, truth: Any, part: str) -> Any:
    """The batch of the truth; TypeError or ValueError if it is not that of a part of `batch`."""
    predicted = batch[part]
    if isinstance(truth, torch.Tensor):
        shape, found = tuple(truth.shape), None
    elif isinstance(truth, type(batch)):
        shape, found = tuple(truth[part].shape), truth
    else:
        raise TypeError(
            f"truth must be a Batch of the same samples, or a tensor like part {part!r}, not "
            f"{type(truth).__name__}"
        )
    if shape != tuple(predicted.shape):
        raise ValueError(
            f"part {part!r} has shape {tuple(predicted.shape)}, but the truth {shape}: of a dim "
            "more, such as members, choose one or take the mean before"
        )
    if found is None:
        return batch.replace(**{part: truth})
    if not torch.equal(batch.index, found.index):
        raise ValueError(
            f"truth is of other samples: {_listed(found.index)}, not {_listed(batch.index)}"
        )
    dims = {*batch._flipped, *found._flipped}
    if any(np.any(batch._flipped.get(d, False) != found._flipped.get(d, False)) for d in dims):
        raise ValueError(f"truth is not flipped along {sorted(map(str, dims))} as this batch is")
    return found


def _listed(index: torch.Tensor) -> str:
    numbers = index.reshape(-1).tolist()
    return ", ".join(map(str, numbers[:8])) + ", …" * (len(numbers) > 8)


@dataclass(frozen=True)
class _Row:
    """Panels of one variable of one sample."""

    panels: tuple[Panel | None, ...]  # those of maps, in the order of `MAPS`

    @property
    def series(self) -> bool:
        """Whether lines are drawn instead, and their difference below."""
        predicted = self.panels[1]
        return predicted is not None and len(predicted.dims) == 1


def plot_truth(
    samples: Sequence[Sequence[SampleArray]],
    truths: Sequence[Sequence[SampleArray]],
    part: str,
    *,
    variables: Hashable | Iterable[Hashable] | None,
    dims: Hashable | Sequence[Hashable] | None,
    isel: Mapping[Any, int] | None,
    axes: Any,
    figsize: tuple[float, float] | None,
    kwargs: Mapping[str, Any],
) -> npt.NDArray[Any]:
    """Draw a part of samples beside its truth, variable by variable; see `xtorch_data.Batch.plot`.

    `samples` and `truths` have the variables of each sample, with every part's names the same.
    """
    predicted, left_out = chosen(
        [[each for each in sample if each.part == part] for sample in samples],
        variables,
        MAX_VARIABLES,
    )
    wanted = required_dims(samples[0], dims, isel)
    rows = []
    for sample, own, others in zip(samples, predicted, truths, strict=True):
        beside = {each.array.name: each for each in others if each.part == part}
        inputs = {each.array.name: each for each in sample[::-1] if each.part != part}
        for each in own:
            name = each.array.name
            rows.append(_row(inputs.get(name), each, beside.get(name), wanted, isel or {}))
    panels = [[panel for panel in row.panels if panel is not None] for row in rows]
    limits = limits_of(panels)
    with_inputs = any(row.panels[0] is not None for row in rows if not row.series)
    drawn_on = _axes(rows, with_inputs, axes, figsize)
    for row, own_axes in zip(rows, drawn_on, strict=True):
        if row.series:
            _draw_lines(row, own_axes[:2], limits, kwargs, shared=axes is None)
            continue
        first = next(each for each in row.panels if each is not None)
        for panel, ax in zip(row.panels[not with_inputs :], own_axes, strict=True):
            if panel is None:
                continue
            _draw(panel, ax, limits, kwargs)
            if axes is None and panel is not first and panel.dims:  # as on the left
                ax.set_ylabel("")
                ax.tick_params(labelleft=False)
    if left_out and axes is None:
        _figure(drawn_on).supxlabel(
            f"{left_out:,} more variables: choose with variables=…", fontsize="small"
        )
    return drawn_on


def _row(
    given: SampleArray | None,
    predicted: SampleArray,
    truth: SampleArray | None,
    wanted: tuple[Hashable, ...] | None,
    isel: Mapping[Any, int],
) -> _Row:
    """Panels of a variable: its input where there is one, prediction, truth and difference."""
    name = predicted.array.name
    if truth is None:
        raise ValueError(f"truth lacks variable {name!r} of part {predicted.part!r}")
    _require_labels_alike(predicted, truth)
    array = predicted.array
    kind = np.result_type(array.dtype, truth.array.dtype, np.float32)
    apart = array.values.astype(kind) - truth.array.values.astype(kind)
    attrs = {"long_name": "difference"}
    attrs |= {key: array.attrs[key] for key in ("units",) if key in array.attrs}
    difference = xr.DataArray(apart, array.coords, array.dims, name=name, attrs=attrs)

    def panel(found: SampleArray, part: str, of: tuple[Hashable, ...] | None) -> Panel:
        own = {dim: step for dim, step in isel.items() if dim in found.array.dims}
        made = panel_of(found, of, own)
        _, *where = made.title.splitlines()  # the variable is named beside its colors
        return replace(made, title="\n".join([f"{part} (sample {found.number})", *where]))

    main = panel(predicted, "prediction", wanted)
    of = main.dims or wanted
    panels = [main, panel(truth, "truth", of)]
    apart_panel = panel(replace(predicted, array=difference), "difference", of)
    panels.append(replace(apart_panel, difference=True))
    before = None
    if given is not None and set(main.dims) <= set(given.array.dims):
        before = panel(given, "input", of)
    return _Row((before, *panels))


def _require_labels_alike(predicted: SampleArray, truth: SampleArray) -> None:
    """Raise ValueError if what is labeled has another place in the truth."""
    own, others = predicted.array.coords, truth.array.coords
    for name in own.keys() & others.keys():
        if not own[name].variable.equals(others[name].variable):
            raise ValueError(
                f"truth is of other samples: {printable(name)!r} of sample {predicted.number} is "
                "not the same there"
            )


def _axes(
    rows: Sequence[_Row], with_inputs: bool, axes: Any, figsize: tuple[float, float] | None
) -> npt.NDArray[Any]:
    """Axes by row and panel, those of the user or of a new figure; None where there are fewer."""
    columns = len(MAPS) - (not with_inputs)
    used = [
        [each is not None for each in row.panels[not with_inputs :]]
        if not row.series
        else [True, True]
        for row in rows
    ]
    found = np.full((len(rows), max(map(len, used))), None, dtype=object)
    places = [(row, at) for row, own in enumerate(used) for at, there in enumerate(own) if there]
    if axes is not None:
        flat = as_axes(axes, 1, len(places), 1.0, None)[0]
        for place, ax in zip(places, flat, strict=True):
            found[place] = ax
        return found
    heights, maps = [], not all(row.series for row in rows)
    for row in rows:
        [panel] = [each for each in row.panels[1:2] if each is not None]
        high = sum(SERIES_HEIGHTS) if row.series else 0.8 * MAP_WIDTH * ratio_of(panel) + 0.9
        heights.append(high)
    size = figsize or (MAP_WIDTH * columns if maps else SERIES_WIDTH, sum(heights))
    figure = pyplot().figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(len(rows), 1, height_ratios=heights)
    for number, row in enumerate(rows):
        if row.series:
            inside = grid[number].subgridspec(2, 1, height_ratios=SERIES_HEIGHTS)
            found[number, 0] = figure.add_subplot(inside[0])
            found[number, 1] = figure.add_subplot(inside[1], sharex=found[number, 0])
            continue
        inside = grid[number].subgridspec(1, columns)
        for at in range(columns):
            if used[number][at]:
                found[number, at] = figure.add_subplot(inside[at])
    return found


def _figure(axes: npt.NDArray[Any]) -> Any:
    return next(ax for ax in axes.flat if ax is not None).figure


def _draw(
    panel: Panel, ax: Axes, limits: Mapping[Hashable, Any], kwargs: Mapping[str, Any]
) -> None:
    if panel.difference:  # whose values others' colors do not fit
        kwargs = {key: value for key, value in kwargs.items() if key not in OF_COLORS}
    draw(panel, ax, limits.get(alike(panel)), COLORS[1], kwargs)


def _draw_lines(
    row: _Row,
    axes: Sequence[Axes],
    limits: Mapping[Hashable, tuple[float, float]],
    kwargs: Mapping[str, Any],
    shared: bool,
) -> None:
    """Draw a series and its truth, behind the input where that has labels, and the difference."""
    given, predicted, truth, difference = row.panels
    assert predicted is not None and truth is not None and difference is not None
    lines = [("truth", truth, ink()), ("prediction", predicted, COLORS[1])]
    [dim] = predicted.dims
    steps: dict[str, int] = {}
    if given is not None and given.dims == (dim,):
        labeled = [dim in panel.array.coords for panel in (given, predicted)]
        if all(labeled):
            lines.insert(0, ("input", given, ink(0.45)))
            steps = _numbered((given, predicted))
    ax, below = axes
    for name, panel, color in lines:
        own = dict(kwargs) if panel is predicted else {**kwargs, "color": color}
        _draw_line(panel, ax, color, steps, {"label": name, **own})
    low, high = limits.get(alike(predicted), (0.0, 0.0))
    if low < high:
        margin = 0.05 * (high - low)
        ax.set_ylim(low - margin, high + margin)
    ax.set_ylabel(predicted.label, fontsize="small")
    ax.set_title(predicted.title, fontsize=9)
    ax.legend(fontsize="small", frameon=False)
    below.axhline(0, color=ink(0.45), linewidth=0.8)
    _draw_line(difference, below, COLORS[1], steps, kwargs)
    most = max(map(abs, limits.get(alike(difference), (0.0, 0.0)))) or 1.0
    below.set_ylim(-1.05 * most, 1.05 * most)
    below.set_ylabel(difference.label, fontsize="small")
    if shared:
        ax.set_xlabel("")
        ax.tick_params(labelbottom=False)


def _numbered(panels: Iterable[Panel]) -> dict[str, int]:
    """Numbers of the labels of series in one Axes, if they are to be numbered; else none."""
    found = [(each, with_steps(each.array, each.dims)[1]) for each in panels]
    if not any(texts for _, texts in found):
        return {}
    labels = itertools.chain(*(_texts(each) for each, _ in found))
    return {label: number for number, label in enumerate(dict.fromkeys(labels))}


def _texts(panel: Panel) -> list[str]:
    return [text_of(label) for label in panel.array.coords[panel.dims[0]].values]


def _draw_line(
    panel: Panel, ax: Axes, color: str, steps: Mapping[str, int], kwargs: Mapping[str, Any]
) -> None:
    [dim] = panel.dims
    array, texts = with_steps(panel.array, panel.dims)
    if steps:
        array = array.assign_coords({name_of(dim): [steps[text] for text in _texts(panel)]})
        texts = {dim: list(steps)}
    marker = "." if array.size <= MARKED_POINTS else None
    given = {"color": color, "marker": marker, **kwargs}
    array.plot.line(ax=ax, x=name_of(dim), add_legend=False, **given)
    finish(panel, ax, texts, panel.dims)
    open_frame(ax)
    ax.grid(alpha=0.3)

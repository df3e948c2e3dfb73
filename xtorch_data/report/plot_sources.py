"""A picture of when the steps are that a sample has of each source."""

from __future__ import annotations

import textwrap
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.figures import COLORS, Axes, axes_or_new, ink, label_dates, open_frame, paper, plain
from ..planning.plan import Plan
from ..samples.aligning import in_units
from ..samples.definition import SampleDefinition
from ..samples.select import Part
from ..samples.source_rules import AsOf, ValidTime, in_short
from ..sources.comparable import Comparable, comparable

__all__ = ["plot_sources"]

# Of more steps, one bar is drawn from the first to the last.
MOST_STEPS = 200
DAY = 86_400e6  # microseconds
STANDARD = "times of the standard calendar"

Times = npt.NDArray[Any]  # microseconds, as `Comparable` has them


@dataclass(frozen=True, eq=False)
class _Row:
    """The steps of a sample in one source: when they are, and the parts that have them."""

    name: str
    rules: str
    kind: str = ""  # what its times are
    times: Times | None = None
    # Where a step bears the begin of what it sums up: when each ends.
    ends: Times | None = None
    # From the end of the newest step until it was known.
    unknown: tuple[int, int] | None = None
    parts: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)


def plot_sources(samples: SampleDefinition, plan: Plan, sample: int, ax: Axes | None) -> Axes:
    """Draw when the steps of a sample are, by source: see `WindowPlots.sources`."""
    number = plan.windows.normalize(sample)
    dim, primary, events = _anchor_dim(samples), samples.primary, samples.centers
    labels = comparable(primary.labels.coords, dim)
    assert labels is not None
    axis = primary.windows.axis(dim)
    (place,) = [at for at, each in enumerate(primary.windows.axes) if each.dim == dim]
    start = int(primary.windows.starts(number)[place])
    step = samples.anchors.get(dim, axis.size - 1)
    anchor = int(labels.values[start + step])
    if events is not None and dim in events.names:  # the event's own label
        event = int(samples.windows.starts(number)[0])
        anchor = int(events.label(dim, primary.labels.coords).values[event])
    rows = [_row(each, primary, number) for each in samples.sources if each.parts]
    other = {each.kind for each in rows if each.times is not None} - {labels.kind}
    if other:
        raise ValueError(
            f"sources have {' and '.join(sorted({labels.kind, *other}))}: no axis shows both"
        )
    ax = axes_or_new(ax, 1.4 + 0.7 * len(rows))
    scale = _Scale(labels.kind == STANDARD, anchor)
    colors = {
        part.name: COLORS[at % len(COLORS)] for at, (_, part) in enumerate(samples.every_part)
    }
    for at, row in enumerate(rows):
        _draw(ax, at, row, scale, colors)
    text = samples.labelled.texts(dim)
    shown = f"step {start + step:,}" if text is None else text(start + step)
    ax.axvline(scale(anchor), color=ink(), linewidth=1.4, zorder=3, label="anchor")
    ax.set_yticks(range(len(rows)), [_named(row) for row in rows], fontsize="small")
    ax.set_ylim(len(rows) - 0.4, -0.6)
    if scale.dates:
        label_dates(ax.xaxis)
    else:
        ax.set_xlabel("days from the anchor")
    handles, names = ax.get_legend_handles_labels()
    unique = dict(zip(names, handles, strict=True))
    ax.legend(
        unique.values(), unique.keys(), loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False,
        fontsize="small",
    )  # fmt: skip
    ax.set_title(f"sample {number:,} of {len(plan.windows):,}, anchor {plain(shown)}", fontsize=10)
    ax.grid(axis="x", color=ink(0.15), linewidth=0.6)
    ax.set_axisbelow(True)
    open_frame(ax)
    return ax


@dataclass(frozen=True)
class _Scale:
    """From microseconds to what is on the axis: dates, or days from the anchor."""

    dates: bool
    anchor: int

    def __call__(self, times: Any) -> Any:
        days = (np.asarray(times) - (0 if self.dates else self.anchor)) / DAY
        return days  # matplotlib counts dates in days since 1970


def _anchor_dim(samples: SampleDefinition) -> Hashable:
    """The dim of the first source whose labels are anchors."""
    coords = samples.primary.labels.coords
    times = [
        axis.dim
        for axis in samples.primary.windows.axes
        if (found := comparable(coords, axis.dim)) is not None and found.is_time
    ]
    named = [
        rule.of
        for each in samples.others
        for rule in each.rules.values()
        if isinstance(rule, AsOf) and rule.of in times
    ]
    if not times:
        dims = [axis.dim for axis in samples.primary.windows.axes]
        raise ValueError(
            f"none of the dims {dims} has times as labels, on which steps could be drawn: "
            "plot.windows() shows positions"
        )
    return (named or times)[0]


def _row(each: SampleDefinition, first: SampleDefinition, number: int) -> _Row:
    """What a sample has of a source."""
    name = str(each.source or "data")
    rules = "" if each is first else in_short(each.rules, each.windows, first.windows)
    row = _Row(name, rules)
    window = each.windows[number]
    for dim, rule in each.rules.items():
        if isinstance(rule, AsOf):
            lead = next((d for d, r in each.rules.items() if isinstance(r, ValidTime)), None)
            return _as_of(row, each, window, dim, rule, lead)
    found = _times(each, window)
    if found is None:
        return row
    dim, times, kind = found
    return replace(row, times=times, kind=kind, parts=_parts(each, dim, len(times)))


def _as_of(
    row: _Row, each: SampleDefinition, window: Any, dim: Hashable, rule: AsOf, lead: Hashable | None
) -> _Row:
    """Steps that are looked up as of the anchor; of forecasts, when they are valid."""
    labels = comparable(each.labels.coords, dim)
    assert labels is not None
    times, ends = labels.values[window[dim]], None
    known = int(times[-1])
    if rule.label == "left":
        following = np.append(labels.values[1:], labels.values[-1] + int(labels.step))
        ends = following[window[dim]]
        known = int(ends[-1])
    unknown = known, known + int(in_units(rule.latency, labels, "latency"))
    along = dim
    if lead is not None:
        leads = comparable(each.labels.coords, lead)
        assert leads is not None
        times, ends, along = times[-1] + leads.values[window[lead]], None, lead
    parts = _parts(each, along, len(times))
    return replace(row, times=times, ends=ends, kind=labels.kind, unknown=unknown, parts=parts)


def _times(each: SampleDefinition, window: Any) -> tuple[Hashable, Times, str] | None:
    """The dim along which a sample has times, when its steps are, and what times these are."""
    coords = each.labels.coords.isel(window, missing_dims="ignore")
    kept = [axis.dim for axis in each.windows.axes if axis.windowed]
    found: dict[Hashable, Comparable] = {}
    for name, coord in coords.coords.items():
        labels = comparable(coords, name) if coord.ndim <= 1 else None
        if labels is not None and (labels.is_time or labels.kind == "duration"):
            found[name] = labels
    for name, labels in found.items():
        dims = coords[name].dims
        if labels.is_time and dims and dims[0] in kept:
            return dims[0], labels.values, labels.kind
    base = next((labels for labels in found.values() if labels.is_time), None)
    if base is None:
        return None
    time = base.values.reshape(-1)[:1]
    for name, labels in found.items():  # leads of one init
        if labels.kind == "duration" and coords[name].dims:
            return coords[name].dims[0], time + labels.values, base.kind
    return "", time, base.kind


def _parts(each: SampleDefinition, dim: Hashable, count: int) -> dict[str, npt.NDArray[np.bool_]]:
    """By part, which of the steps along a dim it has."""
    return {part.name: _has(part, dim, count) for part in each.parts}


def _has(part: Part, dim: Hashable, count: int) -> npt.NDArray[np.bool_]:
    there = np.zeros(count, dtype=bool)
    there[np.atleast_1d(np.arange(count)[part.indexers.get(dim, slice(None))])] = True
    return there


def _named(row: _Row) -> str:
    lines = textwrap.wrap(row.rules, 44, max_lines=2, placeholder=" …")
    return "\n".join([plain(row.name, 24), *map(plain, lines)])


def _draw(ax: Axes, at: int, row: _Row, scale: _Scale, colors: dict[str, str]) -> None:
    """Draw the steps of a source: those of each part in a lane of their own, from above."""
    if row.times is None:
        ax.annotate(
            "no times: not looked up by them", (0.01, at), xycoords=("axes fraction", "data"),
            va="center", fontsize="small", color=ink(0.6), style="italic",
        )  # fmt: skip
        return
    lanes = len(row.parts)
    for lane, (part, has) in enumerate(row.parts.items()):
        middle = at + (lane - (lanes - 1) / 2) * 0.6 / lanes
        height = 0.5 / lanes
        times, color = row.times[has], colors[part]
        if not len(times):
            continue
        if row.ends is not None or len(times) > MOST_STEPS:
            ends = times if row.ends is None else row.ends[has]
            if len(times) > MOST_STEPS:
                times, ends = times[:1], ends[-1:]
            width = scale(ends) - scale(times)
            bars = list(zip(scale(times), width, strict=True))
            ax.broken_barh(
                bars, (middle - height / 2, height), facecolor=color, edgecolor=paper(),
                linewidth=0.6, zorder=2, label=part, gid=f"{row.name}: {part}",
            )  # fmt: skip
        else:
            ax.plot(
                scale(times), np.full(len(times), middle), linestyle="", marker="o", markersize=5,
                color=color, zorder=2, label=part, gid=f"{row.name}: {part}",
            )  # fmt: skip
    if row.unknown is not None and row.unknown[1] > row.unknown[0]:
        begin, end = map(scale, row.unknown)
        ax.broken_barh(
            [(begin, end - begin)], (at - 0.3, 0.6), facecolor="none", edgecolor=ink(0.55),
            hatch="////", linewidth=0.8, zorder=1, label="latency: not known yet",
            gid=f"{row.name}: latency",
        )  # fmt: skip

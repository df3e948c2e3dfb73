"""From the labels of events to the windows around them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..common.redact import printable
from ..common.text import number_of
from ..planning import alignment
from ..planning.edges import EdgeRule, ExtendedDim
from ..planning.index_maps import IntArray
from ..sources.comparable import Comparable, comparable
from ..sources.label_steps import LabelSteps
from .aligning import ROUNDING, in_units, range_of
from .centers import Centers
from .losses import CENTERS, Loss

__all__ = ["Placed", "placed"]

BoolArray = npt.NDArray[np.bool_]

NO_BREAKS: IntArray = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Placed:
    """The windows around events.

    Attributes
    ----------
    starts : mapping of Hashable to ndarray of int64
        By dim, where the window of each event begins, as windows count; 0 for those that are left
        out.
    kept : ndarray of bool
        Which events have a window.
    losses : tuple of Loss
        Why the others have none.
    beyond : mapping of Hashable to ExtendedDim
        By dim, what windows find beyond its ends, where any reaches there.
    """

    starts: Mapping[Hashable, IntArray]
    kept: BoolArray
    losses: tuple[Loss, ...]
    beyond: Mapping[Hashable, ExtendedDim]


def placed(
    centers: Centers,
    data: xr.Dataset,
    sizes: Mapping[Hashable, int],
    anchors: Mapping[Hashable, int],
    breaks: Any,
    edges: Mapping[Hashable, EdgeRule],
) -> Placed:
    """Find the window of each event, and leave out those that have none.

    Parameters
    ----------
    centers : Centers
        The events.
    data : xarray.Dataset
        The data, of which the coordinates are looked at.
    sizes : mapping of Hashable to int
        By dim that they have labels of, the size of a window with its halo.
    anchors : mapping of Hashable to int
        By dim, the step of a window that has the event.
    breaks : str or mapping, optional
        What the user says is to become of breaks, which no window crosses unless they are ignored.
    edges : mapping of Hashable to EdgeRule
        By dim, what lies beyond its ends. Without a boundary no window reaches there.

    Raises
    ------
    TypeError, ValueError
        If labels do not compare with those of the data, or no event is left.
    """
    count = centers.events.sizes[centers.dim]
    kept, losses = np.ones(count, dtype=bool), list[Loss]()

    def leave_out(lacking: BoolArray, reason: str) -> None:
        gone = np.flatnonzero(kept & lacking)
        if len(gone):
            losses.append(Loss(CENTERS, centers.dim, reason, len(gone), gone))
            kept[gone] = False

    starts: dict[Hashable, IntArray] = {}
    found = {}
    for name in centers.names:
        own = centers.label(name, data)
        leave_out(own.missing, f"no label along {name!r}")
        found[name] = own
    for name, own in found.items():
        boundary = edges.get(name, EdgeRule()).boundary
        size, length = sizes[name], data.sizes[name]
        # Labels that close a circle have no breaks.
        positions = NO_BREAKS if boundary == "wrap" else _breaks(data, name, breaks)
        steps = _steps(centers, name, own, data, positions)
        near = (
            "outside the data" if name not in centers.tolerance else "no step within the tolerance"
        )
        leave_out(steps < 0, f"{near} along {name!r}")
        begins = steps - anchors[name]
        if boundary is None:
            leave_out(
                (begins < 0) | (begins + size > length),
                f"the window is not wholly inside along {name!r}",
            )
        before, after = (
            np.searchsorted(positions, at, side="right") for at in (begins, begins + size - 1)
        )
        crossing = before < after
        if boundary == "reflect" and len(positions):
            # What is turned back at an end must not lie beyond a break.
            crossing |= -begins >= positions[0]
            crossing |= 2 * (length - 1) - (begins + size - 1) < positions[-1]
        leave_out(crossing, f"the window would cross a break along {name!r}")
        starts[name] = begins
    if not kept.any():
        reasons = "; ".join(f"{each.count:,}: {each.reason}" for each in losses)
        whole = [name for name in starts if sizes[name] == data.sizes[name]]
        hint = f". Windows have all of {whole}: centers need no labels of it" if whole else ""
        ranges = "; ".join(f"{name!r} goes {range_of(data, name)}" for name in centers.names)
        raise ValueError(
            f"no event of centers has a window: of {number_of(count, 'event')}, {reasons}. "
            f"In the data, {ranges}{hint}"
        )
    beyond: dict[Hashable, ExtendedDim] = {}
    for name, begins in starts.items():
        rule, length = edges.get(name, EdgeRule()), data.sizes[name]
        first, stop = int(begins[kept].min()), int(begins[kept].max()) + sizes[name]
        if rule.boundary is not None and (first < 0 or stop > length):
            made = ExtendedDim(rule.boundary, length, max(0, -first), max(0, stop - length))
            beyond[name], starts[name] = made, begins + made.before
    starts = {name: np.where(kept, each, 0) for name, each in starts.items()}
    return Placed(starts, kept, tuple(losses), beyond)


def _breaks(data: xr.Dataset, name: Hashable, rules: Any) -> IntArray:
    """First steps after breaks in the labels of the data along a dim."""
    rule = rules.get(name) if isinstance(rules, Mapping) else rules
    steps = None if rule == "ignore" else LabelSteps.of(data, name)
    breaks = None if steps is None else steps.breaks()
    return NO_BREAKS if breaks is None else breaks.positions


def _steps(
    centers: Centers, name: Hashable, own: Comparable, data: xr.Dataset, breaks: IntArray
) -> IntArray:
    """Step of the data in whose cell each event lies, or which is nearest; -1 for none."""
    labels = comparable(data, name)
    if labels is None:
        raise ValueError(
            f"centers needs labels along {name!r} of the data, which has none: "
            f"ds.assign_coords({{{name!r}: …}})"
        )
    labels.require_same_kind(own, (f"the data along {name!r}", "centers"))
    tolerance = centers.tolerance.get(name)
    if labels.is_text:
        return _of_text(labels, own, name, tolerance)
    if tolerance is not None:
        given, tolerance = tolerance, in_units(tolerance, labels, f"tolerance along {name!r}")
        if tolerance < 0:
            raise ValueError(f"tolerance along {name!r} is negative: {given!r}")
    period = labels.period or own.period
    values, descending = _ascending(labels, name, period)
    asked = (
        own.values
        if values.dtype.kind == "i" == own.values.dtype.kind
        else (own.values.astype(np.float64))
    )
    lacking = own.missing | ~np.isfinite(asked)
    asked = np.where(lacking, values[0], asked)
    # Counted from the first label, so that times are exact as floats.
    origin = values[0]
    values, asked = (values - origin).astype(np.float64), (asked - origin).astype(np.float64)
    holes = len(values) - breaks[::-1] if descending else breaks
    steps = (
        _in_cell(values, asked, period, holes)
        if tolerance is None
        else _nearest_step(values, asked, period, float(tolerance))
    )
    if descending:
        steps = np.where(steps >= 0, len(values) - 1 - steps, -1)
    return np.where(lacking, -1, steps)


def _ascending(
    labels: Comparable, name: Hashable, period: float | None
) -> tuple[npt.NDArray[Any], bool]:
    """Labels of the data, ascending, and whether they are so backwards."""
    values = labels.values
    if period is not None and len(values):  # a region may lie across the date line
        steps = (np.diff(values.astype(np.float64)) + period / 2) % period - period / 2
        values = values[0] + np.append(0.0, np.cumsum(steps))
    descending = len(values) > 1 and bool(values[0] > values[-1])
    if descending:
        values = values[::-1]
    if labels.missing.any() or not (values[1:] > values[:-1]).all():
        raise ValueError(
            f"centers needs labels along {name!r} of the data that are sorted, each once, none "
            f"missing: ds.sortby({name!r}).drop_duplicates({name!r})"
        )
    return values, descending


def _in_cell(
    labels: npt.NDArray[np.float64],
    asked: npt.NDArray[np.float64],
    period: float | None,
    holes: IntArray,
) -> IntArray:
    """The cell, from half-way to half-way between labels, in which each lies; -1 for none.

    At a hole of the labels cells end half a step behind it.
    """
    if len(labels) == 1:
        return _nearest_step(labels, asked, period, ROUNDING * max(1.0, abs(float(labels[0]))))
    edges = alignment.cell_edges(labels)
    if period is not None:
        asked = alignment.turned(asked, edges[0])
        if abs(period - (edges[-1] - edges[0])) < ROUNDING * period:
            edges[-1] = edges[0] + period  # a circle has no gap, however its labels are rounded
    found = np.searchsorted(edges, asked, side="right") - 1
    found = np.where((found < 0) | (found >= len(labels)), -1, found).astype(np.int64)
    if len(holes):
        half = float(np.median(np.diff(labels))) / 2
        far = np.abs(asked - labels[found]) > half
        beside = np.isin(found, holes) | np.isin(found, holes - 1)
        found[far & beside] = -1
    return found


def _nearest_step(
    labels: npt.NDArray[np.float64],
    asked: npt.NDArray[np.float64],
    period: float | None,
    tolerance: float,
) -> IntArray:
    """The label nearest to each, if it is not farther than a tolerance; -1 for none."""
    order = np.arange(len(labels))
    if period is not None:
        labels, asked = labels % period, asked % period
        order = np.argsort(labels, kind="stable")
        labels = labels[order]
    reach = np.full(len(labels), tolerance)
    found = alignment.nearest(labels, asked, reach, np.full(len(asked), tolerance), period)
    return np.where(found >= 0, order[found], -1)


def _of_text(labels: Comparable, own: Comparable, name: Hashable, tolerance: Any) -> IntArray:
    """The step with the same label."""
    if tolerance is not None:
        raise TypeError(
            f"tolerance along {name!r} is a distance, and its labels are such as "
            f"{printable(labels.values[0])}, which have none"
        )
    index = pd.Index(labels.values)
    if not index.is_unique:
        raise ValueError(
            f"the data has labels along {name!r} more than once: ds.drop_duplicates({name!r})"
        )
    found = index.get_indexer(pd.Index(own.values)).astype(np.int64)
    return np.where(own.missing, -1, found)

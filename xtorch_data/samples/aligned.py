"""Other sources of a sample: which of their steps belong to it, found from labels alone."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..planning.edges import ExtendedDim, Laid
from ..planning.frames import Frame, SampleSpace
from ..planning.index_maps import IndexMap, term_of
from ..planning.selection import SampleTable
from ..planning.windows import Axis, Windows
from ..sources.comparable import Comparable
from .align_labels import at_labels, same_labels
from .align_times import as_of, valid_time
from .align_within import within
from .aligning import AlignedDim, OtherSource, SampleAxes
from .losses import Loss
from .source_rules import AsOf, At, Rule, ValidTime, Within

__all__ = ["Aligned", "Around", "Loss", "OtherData", "aligned"]


@dataclass(frozen=True, eq=False)
class OtherData:
    """Another source as the user gives it, and the rules of its dims."""

    name: str
    data: xr.Dataset  # lazy
    rules: Mapping[Hashable, Rule]
    ignores_breaks: bool = False

    def __post_init__(self) -> None:
        for dim in self.rules:
            if dim not in self.data.dims:
                raise ValueError(
                    f"source {self.name!r} has a rule for dim {dim!r}, which it lacks; its dims "
                    f"are {list(self.data.dims)}"
                )


@dataclass(frozen=True, eq=False)
class Aligned:
    """What `aligned` finds.

    Attributes
    ----------
    windows : Windows
        Those of the first source of which every source has its part; a frame for each source.
    data : tuple of xarray.Dataset
        The other sources, lazily, in the order in which their frames count their steps.
    laid : tuple of mapping
        By dim of these that is laid out otherwise than the user's data: the dim there, and the step
        of each step.
    where : SampleTable, optional
        Which samples there are, where that is not a matter of single dims.
    losses : tuple of Loss
        What was left out, source by source.
    """

    windows: Windows
    data: tuple[xr.Dataset, ...]
    laid: tuple[Laid, ...]
    where: SampleTable | None
    losses: tuple[Loss, ...]


@dataclass(frozen=True, eq=False)
class Around:
    """Windows around events: the first source is then one more that lies beside these.

    Attributes
    ----------
    axes : tuple of Axis
        The dims of the first source. Those that events have labels of begin where each event says.
    labels : mapping of Hashable to Comparable
        By such a dim, the labels of the events.
    kept : ndarray of bool
        Which events have a window.
    variables : bool
        Whether samples have other variables of events.
    """

    axes: tuple[Axis, ...]
    labels: Mapping[Hashable, Comparable]
    kept: npt.NDArray[np.bool_]
    variables: bool

    def frames(self, windows: Windows) -> list[list[AlignedDim]]:
        """The dims of the first source, and those of the events if samples have variables."""
        places = {axis.dim: place for place, axis in enumerate(windows.axes)}
        data = []
        for axis in self.axes:
            made = IndexMap(axis.dim, axis.length, axis.size, {}, axis.windowed)
            if axis.dim in self.labels:
                data.append(AlignedDim(made, {0: axis.start(np.arange(len(axis)))}))
            else:
                data.append(AlignedDim(made, term=(places[axis.dim], axis.starts)))
        if not self.variables:
            return [data]
        events = windows.axes[0]
        made = IndexMap(events.dim, events.length, 1, {}, windowed=False)
        return [data, [AlignedDim(made, term=(0, events.starts))]]


def aligned(
    windows: Windows,
    first: xr.Dataset,
    others: tuple[OtherData, ...],
    anchor: Mapping[Hashable, int],
    beyond: Mapping[Hashable, ExtendedDim],
    around: Around | None = None,
) -> Aligned:
    """Find what samples have of other sources, and leave out those that lack something.

    Parameters
    ----------
    windows : Windows
        The windows of the first source.
    first : xarray.Dataset
        Its data, of which the coordinates are looked at.
    others : tuple of OtherData
        The other sources.
    anchor : mapping of Hashable to int
        By dim, the step of a window that a sample is at.
    beyond : mapping of Hashable to ExtendedDim
        By dim, what windows find beyond the ends of the first source.
    around : Around, optional
        Where `windows` are those of events, what lies around them.

    Returns
    -------
    Aligned
        The windows that are left, and the data as frames count it.

    Raises
    ------
    TypeError
        If a rule has a number where labels need a duration, or the other way round.
    ValueError
        If labels cannot be compared, a rule does not fit, or no window is left; the message names
        the source, the dim and both ranges of labels.
    """
    axes = SampleAxes(windows, first, anchor, beyond)
    before: list[list[AlignedDim]] = []
    if around is not None:
        own = {axis.dim: axis for axis in around.axes if axis.dim in around.labels}
        axes = SampleAxes(windows, first, anchor, beyond, own, around.labels)
        axes.kept[0] &= around.kept
        before = around.frames(windows)
    # Dims whose labels are anchors, along which nobody may look ahead.
    anchored = {
        rule.of for other in others for rule in other.rules.values() if isinstance(rule, AsOf)
    }
    sources = [OtherSource(other.name, other.data) for other in others]
    found = [
        _dims(source, axes, other, anchored) for source, other in zip(sources, others, strict=True)
    ]
    space = windows.space
    for place, kept in enumerate(axes.kept):
        if not kept.all():
            space = space.restrict(place, term_of(np.flatnonzero(kept)))
    frames = [
        Frame(tuple(each.of_windows(axes.kept) for each in dims)) for dims in [*before, *found]
    ]
    return Aligned(
        Windows(SampleSpace(space.axes, (*space.frames, *frames))),
        tuple(source.data for source in sources),
        tuple(source.laid for source in sources),
        axes.table(),
        tuple(axes.losses),
    )


def _dims(
    source: OtherSource, axes: SampleAxes, other: OtherData, anchored: set[Hashable | None]
) -> list[AlignedDim]:
    """The place of each dim of a source in samples, in the order of its dims."""
    given, rules = list(other.data.dims), other.rules
    found: dict[Hashable, AlignedDim] = {}
    # Leads are counted from the init that is chosen.
    for dim in sorted(given, key=lambda dim: isinstance(rules.get(dim), ValidTime)):
        rule = rules.get(dim)
        if isinstance(rule, AsOf):
            found[dim] = as_of(source, axes, dim, rule, other.ignores_breaks)
        elif isinstance(rule, ValidTime):
            found[dim] = valid_time(source, axes, dim, rule, rules, found)
        elif isinstance(rule, Within):
            if dim in anchored:
                raise ValueError(
                    f"source {source.name!r}: Within along {dim!r}, whose labels are anchors, "
                    "would look ahead: AsOf looks back"
                )
            found[dim] = within(source, axes, dim, rule)
        elif isinstance(rule, At):
            found[dim] = at_labels(source, axes, dim, rule)
        elif dim in axes.dims:
            found[dim] = same_labels(source, axes, dim)
        else:  # whole
            size = source.data.sizes[dim]
            found[dim] = AlignedDim(IndexMap(dim, size, size, {}))
    return [found[dim] for dim in given]

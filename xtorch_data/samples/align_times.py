"""Steps of other sources that are known, or valid, at the anchor of a sample."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..planning import alignment
from ..planning.index_maps import IndexMap, IntArray
from ..sources.comparable import Comparable
from ..sources.label_steps import LabelSteps
from .aligning import AlignedDim, OtherSource, SampleAxes, in_units
from .losses import BREAKS
from .source_rules import AsOf, Rule, ValidTime

__all__ = ["as_of", "valid_time"]


def as_of(
    source: OtherSource, axes: SampleAxes, dim: Hashable, rule: AsOf, ignores_breaks: bool
) -> AlignedDim:
    """The last steps along a dim that are known at each anchor."""
    of = _anchored(source, axes, rule.of)
    place = axes.place(of)
    assert place is not None
    labels = source.ascending(dim)
    anchors = _anchors(source, axes, of, dim, labels)
    steps = _steps(source, rule, labels, dim)
    latency = in_units(rule.latency, labels, f"source {source.name!r}: latency along {dim!r}")
    if latency < 0:
        raise ValueError(
            f"source {source.name!r}: latency along {dim!r} is {rule.latency!r}, and nothing is "
            "known before its label; 0 or more is"
        )
    known = alignment.known_from(labels.values, latency, rule.label == "left")
    age = rule.max_age
    if age is not None:
        age = in_units(age, labels, f"source {source.name!r}: max_age along {dim!r}")
    begins, old = alignment.as_of(anchors, labels.values, known, steps, age)
    missing = (begins < 0) & (old < 0)
    axes.leave_out(source, dim, place, missing, f"fewer than {steps} known at the anchor")
    axes.leave_out(source, dim, place, old >= 0, f"newest known is older than {rule.max_age}")
    if steps > 1 and not ignores_breaks:
        crossing = _crossing(LabelSteps.of(source.data, dim), begins, steps)
        axes.leave_out(source, dim, place, crossing, BREAKS)
    return AlignedDim(IndexMap(dim, len(labels.values), steps, {}), {place: begins})


def _anchored(source: OtherSource, axes: SampleAxes, of: Hashable | None) -> Hashable:
    """The dim whose labels are anchors."""
    if of is None:
        times = axes.times()
        if len(times) != 1:
            raise ValueError(
                f"source {source.name!r}: the first source has {len(times)} dims with times"
                f"{f', {times}' if times else ''}; AsOf(…, of=DIM) says whose label is the anchor, "
                f"of {axes.dims}"
            )
        (of,) = times
    if axes.place(of) is None:
        raise ValueError(
            f"source {source.name!r}: AsOf(of={of!r}) is no dim of the samples, {axes.dims}"
        )
    return of


def _anchors(
    source: OtherSource, axes: SampleAxes, of: Hashable, dim: Hashable, labels: Comparable
) -> npt.NDArray[np.int64]:
    """Label of the anchor of each window along a dim, which must compare with some labels."""
    found, place = axes.anchors(of), axes.place(of)
    if found is None or place is None:
        raise ValueError(
            f"source {source.name!r} needs labels along {of!r} of the first source, which has "
            f"none: ds.assign_coords({{{of!r}: …}})"
        )
    mine, anchors, missing = found
    labels.require_same_kind(
        mine, (f"source {source.name!r} along {dim!r}", f"the first source along {of!r}")
    )
    axes.leave_out(source, dim, place, missing, "an anchor without a label")
    return np.asarray(anchors)


def _steps(source: OtherSource, rule: AsOf, labels: Comparable, dim: Hashable) -> int:
    """How many steps a rule asks for."""
    if isinstance(rule.steps, int | np.integer) and not isinstance(rule.steps, np.timedelta64):
        return int(rule.steps)
    span = in_units(rule.steps, labels, f"source {source.name!r}: AsOf along {dim!r}")
    steps = span / labels.step if labels.step else 0.0
    if steps < 1 or abs(steps - round(steps)) > 1e-6:
        step = f"{labels.step:g}"
        if labels.in_microseconds:
            step = str(pd.Timedelta(labels.step, "us"))
        raise ValueError(
            f"source {source.name!r}: AsOf({rule.steps!r}) is no whole number of the steps along "
            f"{dim!r}, which are {step} apart"
        )
    return round(steps)


def _crossing(found: LabelSteps | None, begins: IntArray, steps: int) -> npt.NDArray[np.bool_]:
    """Which windows of steps would cross a hole of their source."""
    breaks = None if found is None else found.breaks()
    if breaks is None:
        return np.zeros(len(begins), dtype=bool)
    before, after = (
        np.searchsorted(breaks.positions, last, side="right")
        for last in (begins, begins + steps - 1)
    )
    return np.asarray((begins >= 0) & (before < after))


def valid_time(
    source: OtherSource,
    axes: SampleAxes,
    dim: Hashable,
    rule: ValidTime,
    rules: Mapping[Hashable, Rule],
    found: Mapping[Hashable, AlignedDim],
) -> AlignedDim:
    """The leads along a dim that are valid from one time after the anchor to another."""
    inits = [each for each, of in rules.items() if isinstance(of, AsOf)]
    if len(inits) != 1:
        raise ValueError(
            f"source {source.name!r}: ValidTime counts from the init that an AsOf(1, …) of another "
            f"dim chooses, of which there are {len(inits)}"
        )
    (init,) = inits
    chosen = found[init]
    if chosen.map.size != 1:
        raise ValueError(
            f"source {source.name!r}: ValidTime counts from one init, and AsOf of {init!r} takes "
            f"{chosen.map.size}"
        )
    ((place, begins),) = chosen.begins.items()
    leads, labels = source.ascending(dim), source.labels(init)
    if leads.in_microseconds != labels.in_microseconds or leads.is_time:
        raise ValueError(
            f"source {source.name!r}: the leads along {dim!r} must be durations, such as "
            f"ds.assign_coords({{{dim!r}: pd.to_timedelta(ds[{dim!r}].values, 'h')}})"
        )
    of = _anchored(source, axes, rules[init].of)  # type: ignore[union-attr]
    anchors = _anchors(source, axes, of, init, labels)
    start, stop = (
        in_units(each, labels, f"source {source.name!r}: ValidTime along {dim!r}")
        for each in (rule.start, rule.stop)
    )
    if not start < stop:
        raise ValueError(
            f"source {source.name!r}: ValidTime must start before it stops, and "
            f"{rule.start!r} is not before {rule.stop!r}"
        )
    there = axes.kept[place]
    first = np.full(len(begins), -1, dtype=np.int64)
    first[there], size = alignment.valid_leads(
        anchors[there], labels.values[begins[there]], leads.values, start, stop
    )
    reason = f"another number of leads than {size} valid from {rule.start} to {rule.stop}"
    axes.leave_out(source, dim, place, first < 0, reason)
    return AlignedDim(IndexMap(dim, len(leads.values), size, {}), {place: first})

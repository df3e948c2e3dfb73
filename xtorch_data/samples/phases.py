"""Definitions of the phases of samples: the same samples, of which parts have fewer steps."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from ..planning.frames import SampleSpace
from ..planning.windows import SourceWindows, Windows
from .definition import SampleDefinition
from .leads import Anchors
from .select import Part

__all__ = ["phase_at", "phases_of"]


def phases_of(samples: SampleDefinition) -> dict[int, SampleDefinition]:
    """By the epoch at which it begins, the definition of each phase; none where parts never change.

    Samples, their numbers and their first steps are the same; windows end with the last step that
    is used. Labels are kept with the definition, so that they are known by the same token wherever
    it is sent.
    """
    begins = {epoch for _, part in samples.every_part for epoch, _ in part.phases}
    return {epoch: _at(samples, epoch) for epoch in sorted(begins)}


def phase_at(begins: Iterable[int], epoch: int, set_last: int) -> int | None:
    """The epoch at which the phase of an epoch begins, None where there are no phases.

    Once a user has set an epoch, phases go by that; `set_last` is one more, 0 if none was.
    """
    at = set_last - 1 if set_last else epoch
    return max((begin for begin in begins if begin <= at), default=None)


def _at(samples: SampleDefinition, epoch: int) -> SampleDefinition:
    """The definition of the phase of an epoch."""
    if all(part.at(epoch).indexers == part.indexers for _, part in samples.every_part):
        return samples  # the longest one
    found = [_with_parts(each, epoch) for each in samples.sources]
    space = _shorter(samples.windows.space, found)
    own, *others = (_over(each, space) for each in found)
    labels = {str(each.source): each.labels for each in others}
    return replace(
        own,
        labels=replace(own.labels, others=labels),
        others=tuple(others),
        conditions=None,
    )


def _with_parts(each: SampleDefinition, epoch: int) -> SampleDefinition:
    """The definition of a source with the parts of an epoch."""
    return replace(each, parts=tuple(part.at(epoch) for part in each.parts))


def _shorter(space: SampleSpace, sources: Iterable[SampleDefinition]) -> SampleSpace:
    """The space with windows that end with the last step which parts of a source have.

    Windows around events stay as they are, for their plan has groups of them.
    """
    frames = [*space.frames]
    if any(axis.scattered for axis in space.axes):
        return space
    for each in sources:
        place = each.windows.place
        sizes = _used(each)
        maps = (
            replace(along, size=sizes.get(along.dim, along.size)) for along in frames[place].maps
        )
        frames[place] = replace(frames[place], maps=tuple(maps))
    return SampleSpace(space.axes, tuple(frames))


def _used(each: SampleDefinition) -> Mapping[Hashable, int]:
    """By dim along which some part changes, how many steps of a window are used."""
    sizes = {axis.dim: axis.size for axis in each.windows.axes}
    dims = {dim for part in each.parts for dim in part.scheduled}
    return {dim: max(_end(part, dim, sizes[dim]) for part in each.parts) for dim in dims}


def _end(part: Part, dim: Hashable, size: int) -> int:
    """Steps of a window up to the last one that a part has."""
    return int(np.max(np.arange(size)[part.indexers.get(dim, slice(None))])) + 1


def _over(each: SampleDefinition, space: SampleSpace) -> SampleDefinition:
    """The definition of a source over other windows, of which the parts are cut as before."""
    place = each.windows.place
    windows = Windows(space) if isinstance(each.windows, Windows) else SourceWindows(space, place)
    anchors = Anchors.of(each.labels.anchors.steps, each.parts)
    return replace(each, labels=replace(each.labels, windows=windows, anchors=anchors))

"""Labels of a field: the coordinates of the data at the places that samples predict."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from ..planning.index_maps import IndexMap
from ..planning.overlap_add import FieldDim
from .definition import SampleDefinition
from .labels import Labels
from .leads import STEPS, are_dates, leads

__all__ = ["AnchorLabels", "field_coords"]

# What the labels of anchors are called by the CF conventions.
INIT = {"standard_name": "forecast_reference_time", "long_name": "time of the forecast"}
# Attributes of labels that say what the labels of anchors are not.
DROPPED = ("standard_name", "long_name", "axis", "bounds", "climatology")


@dataclass(frozen=True, eq=False)
class AnchorLabels:
    """The anchors of windows that stay apart, made by `of`.

    Attributes
    ----------
    labels : xarray.Variable
        Their labels in the first source; numbers of steps where it has none.
    labelled : bool
        Whether it has.
    step : int
        Which step of a window the anchor is; of another source, from which one steps are counted.
    """

    labels: xr.Variable
    labelled: bool
    step: int

    @classmethod
    def of(
        cls, first: SampleDefinition, owner: SampleDefinition, along: IndexMap, each: FieldDim
    ) -> AnchorLabels:
        """Those of windows of a source along a dim that follows a sample axis.

        ValueError if several dims of the first source follow this, none of them of that name.
        """
        data = first.primary
        (axis,) = along.terms
        beside = {own.dim: own for own in data.windows.frame.maps if axis in own.terms}
        if each.dim not in beside and len(beside) > 1:
            raise ValueError(
                f"keep={each.dim!r} cannot tell the anchors of source {owner.source!r}, which "
                f"could lie along each of {list(beside)} of the first source"
            )
        own = beside.get(each.dim) or next(iter(beside.values()))
        anchor = first.anchors[own.dim]
        steps = own.base + own.terms[axis].at(each.numbers) + anchor
        known = data.labels.coords.variables.get(own.dim)
        labels = xr.Variable(("init",), steps) if known is None else known[steps]
        return cls(labels, known is not None, anchor if owner is data else 0)


def field_coords(
    labels: Labels,
    dims: Sequence[FieldDim],
    kept: Mapping[Hashable, tuple[Hashable, Hashable]],
    anchors: Mapping[Hashable, AnchorLabels],
) -> xr.Dataset:
    """The coordinates of a field, lazy where those of the data are.

    `kept` has the names of the two dims that stand in the place of one that is kept: one for the
    `anchors` of windows, one for the steps from these on. Its own labels, and all others along it,
    are coordinates of both.

    ValueError if a name of these is taken.
    """
    coords = labels.coords
    found = coords.isel(
        {each.dim: _slice(labels, each) for each in dims if not each.kept}, missing_dims="ignore"
    )
    for each in dims:
        if not each.kept:
            continue
        init, lead = kept[each.dim]
        taken = {*found.variables, *found.dims, *(other.dim for other in dims)} - {each.dim}
        for name in (init, lead):
            if name in taken or name == each.dim or init == lead:
                raise ValueError(
                    f"keep={each.dim!r} needs two names, and {name!r} is taken: "
                    f"keep={{{each.dim!r}: (…, …)}} gives others"
                )
        steps = each.starts[each.numbers][:, None] + each.steps
        made = _forecast(coords, each, anchors[each.dim])
        if each.dim in found.dims:
            found = found.isel({each.dim: xr.Variable((init, lead), steps)})
        for name, (values, attrs, encoding) in zip((init, lead), made, strict=True):
            found = found.assign_coords({name: xr.Variable((name,), values, attrs, encoding)})
    return found


def _slice(labels: Labels, each: FieldDim) -> slice:
    """Where the places of a field lie in the data as windows count it."""
    beyond = labels.beyond.get(each.dim)
    first = each.first + (0 if beyond is None else beyond.before)
    return slice(first, first + each.length)


def _forecast(coords: xr.Dataset, each: FieldDim, anchors: AnchorLabels) -> list[Any]:
    """Values, attributes and encoding of the labels of anchors, and of the steps from these on.

    Where labels are not as far apart in every window, as months are, these are counted.
    """
    inits, of_inits = anchors.labels.to_numpy(), anchors.labels
    if not anchors.labelled:
        return [(inits, {}, {}), (each.steps - anchors.step, STEPS, {})]
    kept = {key: value for key, value in of_inits.attrs.items() if key not in DROPPED}
    encoding = {
        key: of_inits.encoding[key] for key in ("units", "calendar") if key in of_inits.encoding
    }
    times = INIT if are_dates(of_inits) or inits.dtype.kind == "m" else {}
    first = (inits, {**kept, **times}, encoding)
    labels = coords.variables.get(each.dim)
    if labels is None:
        return [first, (each.steps - anchors.step, STEPS, {})]
    begins = each.starts[each.numbers]
    return [first, (*leads(labels, begins, each.steps, inits, anchors.step, each.valid), {})]

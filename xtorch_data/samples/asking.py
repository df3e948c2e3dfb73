"""Definitions of what tells which samples there are: answers of functions, counts of values."""

from __future__ import annotations

from dataclasses import replace

from ..planning.frames import SampleSpace
from ..planning.windows import SourceWindows, Windows
from .definition import SampleDefinition
from .layouts import layouts_of
from .select import Part
from .transforms import Transform

__all__ = ["around_events", "asked"]


def asked(samples: SampleDefinition, function: Transform | None) -> SampleDefinition:
    """Definition of what tells which samples there are.

    That is part ``x``, the scalar that a function makes of all variables of a window, and the
    counts of the `conditions`, which are of the same blocks.
    """
    counted = samples.conditions
    if function is None:
        assert counted is not None
        return counted
    if samples.centers is None:
        return _also(_whole_windows(samples, function), counted)
    own = None if counted is None else counted.primary
    whole = _also(_whole_windows(samples.primary, function), own)
    if counted is None:
        return around_events(samples, whole)
    name, others = str(whole.source), counted.others[1:]
    labels = replace(counted.labels, others={**counted.labels.others, name: whole.labels})
    order = ("x", *(part.name for _, part in counted.every_part))
    return replace(counted, labels=labels, others=(whole, *others), order=order)


def around_events(samples: SampleDefinition, data: SampleDefinition) -> SampleDefinition:
    """Definition of the same events with nothing but the data around them, of one part."""
    own = samples.windows.space
    space = SampleSpace(own.axes, own.frames[:2])
    of_data = replace(data.labels, windows=SourceWindows(space, 1))
    others = {str(data.source): of_data}
    labels = replace(samples.labels, windows=Windows(space), others=others)
    order = tuple(part.name for part in data.parts)
    return replace(samples, labels=labels, others=(replace(data, labels=of_data),), order=order)


def _also(whole: SampleDefinition, counted: SampleDefinition | None) -> SampleDefinition:
    """Definition of the answers of a function, and of some counts of the same samples."""
    if counted is None:
        return whole
    more = [name for name in counted.data.data_vars if name not in whole.data.data_vars]
    data = whole.data.assign({name: counted.data.variables[name] for name in more})
    parts = (*whole.parts, *counted.parts)
    labels = whole.labels
    if labels.items is not None and counted.items is not None:
        orders = {**labels.items.orders, **counted.items.orders}
        labels = replace(labels, items=replace(labels.items, orders=orders))
    return replace(
        whole,
        data=data,
        layouts=layouts_of(data, whole.windows, parts, {}),
        labels=labels,
        parts=parts,
        present=counted.present,
        unread=frozenset(more),
        others=counted.others,
        order=("x", *(part.name for _, part in counted.every_part)),
    )


def _whole_windows(samples: SampleDefinition, function: Transform) -> SampleDefinition:
    """Definition of one part: the scalar that a function makes of all variables of a window."""
    names = tuple(samples.variable_dims)
    sizes = {axis.dim: axis.size for axis in samples.windows.axes}
    shape = tuple(sizes[dim] for dim in samples.sample_dims)
    part = Part("x", names, True, {}, samples.sample_dims, shape, samples.floating)
    labels, items, data = samples.labels, samples.items, samples.data[samples.values]
    if not data.coords:  # which functions may use
        others = [
            name
            for name, coord in labels.coords.coords.items()
            if not set(coord.dims) <= set(data.dims)
        ]
        data = data.assign_coords(labels.coords.drop_vars(others).coords)
    if items is not None:
        items = replace(items, orders={part.name: items.order})
    return replace(
        samples,
        data=data,
        layouts=layouts_of(data, samples.windows, (part,), {}),
        dtypes={},
        labels=replace(labels, items=items),
        parts=(part,),
        transforms={part.name: function},
        present={},
        unread=frozenset(),
        batch_transform=None,
        cast=None,
        others=(),
        order=(),
        conditions=None,
    )

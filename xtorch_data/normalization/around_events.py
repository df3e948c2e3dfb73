"""Statistics of what windows around events hold: a value counts as often as windows have it."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np

from ..common.progress import bar
from ..iteration.epoch_reader import EpochReader
from ..planning.plan import Plan
from ..planning.selection import SampleTable
from ..samples.asking import around_events
from ..samples.definition import SampleDefinition
from ..samples.select import Part
from .moments import Tally

__all__ = ["tallies_around_events"]

# Bytes of a batch, and samples in it, that are looked at together.
TOGETHER, SAMPLES = 2**25, 1024


def tallies_around_events(
    tally: type[Tally],
    samples: SampleDefinition,
    wanted: Sequence[SampleTable],
    names: Sequence[Hashable],
    per: Sequence[Hashable],
    *,
    memory: int,
    retries: int,
    progress: bool | None,
) -> dict[Hashable, Tally]:
    """Statistics of variables after preprocess, over all windows that are wanted.

    Of the dims in `per` that a variable has, all places are kept, in this order: dims that events
    have no labels of, and of which samples have a place or the whole.
    """
    primary, floating = samples.primary, np.dtype(np.float64)
    sizes = {axis.dim: axis.size for axis in primary.windows.axes}
    shape = tuple(sizes[dim] for dim in primary.sample_dims)
    part = Part("x", tuple(names), True, {}, primary.sample_dims, shape, floating)
    asked = around_events(
        samples,
        replace(
            primary, parts=(part,), transforms={}, dtypes={}, cast=None, floating=floating, order=()
        ),
    )
    nbytes = max(1, asked.nbytes)
    plan = Plan.of(
        asked.windows,
        asked.layouts,
        memory=memory,
        shuffle=True,  # cell by cell of the chunks
        batch_size=max(1, min(SAMPLES, TOGETHER // nbytes)),
        where=next(iter(wanted), None),
        others=asked.layouts_beside,
        warn=False,
    )
    places = {axis.dim: place for place, axis in enumerate(asked.windows.axes)}
    kept = {name: [dim for dim in per if dim in primary.variable_dims[name]] for name in names}
    found = {
        name: tally.none(
            [sizes[dim] if dim in primary.sample_dims else len(asked.axis(dim)) for dim in dims]
        )
        for name, dims in kept.items()
    }
    made_up = {
        dim: beyond.made_up(0, len(beyond))
        for dim, beyond in primary.beyond.items()
        if dim in primary.sample_dims
    }
    reader = EpochReader(asked, plan, None, retries, skipping=False)
    batches = reader.batches(plan, 0, plan.intervals(0, 0, 1))
    with bar(plan.samples, "sample", "fitting", progress) as done, closing(batches):
        for batch in batches:
            numbers = asked.windows.space.numbers(batch.index.numpy())
            values = np.moveaxis(batch["x"].numpy(), 1, 0)
            starts = asked.primary.windows.starts(batch.index.numpy())
            for axis, begins in zip(primary.windows.axes, starts, strict=True):
                if axis.dim in made_up:  # which is none of the data
                    gone = made_up[axis.dim][begins[:, None] + np.arange(axis.size)]
                    place = 2 + primary.sample_dims.index(axis.dim)
                    own = [1] * values.ndim
                    own[1], own[place] = gone.shape
                    values = np.where(gone.reshape(own), np.nan, values)
            for own, (name, dims) in zip(values, kept.items(), strict=True):
                apart = [dim for dim in dims if dim not in primary.sample_dims]
                within = [dim for dim in dims if dim in primary.sample_dims]
                last = [1 + primary.sample_dims.index(dim) for dim in within]
                turned = np.moveaxis(own, last, range(own.ndim - len(last), own.ndim))
                along = [numbers[places[dim]] for dim in apart]
                for where in itertools.product(*(np.unique(each).tolist() for each in along)):
                    rows = np.ones(len(own), dtype=bool)
                    for each, at in zip(along, where, strict=True):
                        rows &= each == at
                    if rows.any():
                        at = dict(zip(apart, where, strict=True))
                        cut = tuple(at.get(dim, slice(None)) for dim in dims)
                        found[name].update(cut, tally.of(turned[rows], own.ndim - len(last)))
            done(len(batch.index))
    return found

"""The result of a split: its datasets, and what there is to say of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, TypeVar

import numpy as np

from ..common import html
from ..common.redact import printable
from ..common.text import number_of
from ..planning.index_maps import apart
from ..sources.conventions import text_of
from .iterable import IterableDataset
from .map import MapDataset
from .split_dims import is_dim
from .split_parts import ends_of, reach_of

__all__ = ["Either", "Split"]

Either = IterableDataset | MapDataset
D = TypeVar("D", bound=Either)


class Split(tuple[D, ...]):
    """The datasets of a split, in order; it unpacks like the tuple that it is.

    Shown, it says how many samples each part has, of those that ``where`` keeps, and from which
    label to which they reach, or their targets where the split goes by these.

    Attributes
    ----------
    left_out : int
        Samples that are in none of them: their windows cross a boundary, or lie in a gap or outside
        the ranges. Those that ``where`` leaves out are not counted.
    dim : Hashable
        The dim, or the coordinate, that was cut.
    """

    left_out: int
    dim: Hashable

    def __new__(cls, datasets: Iterable[D], left_out: int, dim: Hashable) -> Split[D]:
        """Take the datasets."""
        made = super().__new__(cls, datasets)
        made.left_out, made.dim = left_out, dim
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self), self.left_out, self.dim

    @property
    def _by_targets(self) -> bool:
        return any(dataset._inside.what.parts[-1].by == "targets" for dataset in self)

    def _head(self) -> str:
        by = " by targets" if self._by_targets else ""
        head = f"{number_of(len(self), 'part')} along {self.dim!r}{by}"
        out = [f"{self.left_out:,} in no part"] if self.left_out else []
        by_where = sum(dataset.plan.left_out - dataset._inside.what.outside for dataset in self)
        out += [f"{by_where:,} by where"] if by_where else []
        return f"{head}; samples left out: {', '.join(out) or 'none'}"

    def _rows(self) -> list[tuple[str, str]]:
        """Samples of each part, and from where to where they or their targets reach."""
        return [(f"{dataset.plan.there:,}", _reach(dataset)) for dataset in self]

    def __repr__(self) -> str:
        rows = self._rows()
        width = max((len(samples) for samples, _ in rows), default=0)
        what = "samples, targets" if self._by_targets else "samples"
        lines = [f"  {samples:>{width}} {what}: {reach}" for samples, reach in rows]
        return "\n".join([f"<xtorch_data.Split into {self._head()}", *lines]) + ">"

    def _repr_html_(self) -> str:
        rows = [(str(number), *row) for number, row in enumerate(self._rows(), 1)]
        what = printable(self.dim) + " of targets" * self._by_targets
        parts = [html.table(("part", "samples", what), rows)]
        return html.page("xtorch_data.Split", self._head(), parts, repr(self))


def _reach(dataset: Either) -> str:
    """From which label to which the samples of a part reach, or their targets; or which steps."""
    plan, samples = dataset.plan, dataset._inside.definition
    part = dataset._inside.what.parts[-1]
    if not is_dim(samples, part.along):
        found = reach_of(samples, plan.where, part)
        if found is None:
            return "none"
        coords = samples.labels.coords
        if part.along not in coords.variables:  # of the data around events
            coords = samples.primary.labels.coords
        units = coords.variables[part.along].attrs.get("units")
        ends, stretches = [text_of(end, units) for end in found], len(part.intervals)
    else:
        axis = samples.axis(part.along)
        place = samples.place(part.along)
        begin, end = ends_of(samples, axis, part.by)
        numbers = np.arange(len(axis))
        if plan.where is not None:
            numbers = plan.where.along(place, len(axis))
        if not len(numbers):
            return "none"
        if axis.starts.ascending:
            numbers = numbers[[0, -1]]
        begun = axis.start(numbers)
        first, last = int(begun.min()) + begin, int(begun.max()) + end
        label = dataset.windows.texts(part.along)
        ends = [f"step {first:,}", f"step {last - 1:,}"]
        if label is not None:
            ends = [label(first), label(last - 1)]
        begins, lasts = map(np.sort, axis.starts.bounds)
        stretches = len(apart(begins + begin, lasts + end)[0])
        if place == 0 and samples.centers is not None:  # events are anywhere
            stretches = len(part.intervals)
    holes = f", in {stretches:,} stretches" if stretches > 1 and plan.where is None else ""
    return " to ".join(dict.fromkeys(ends)) + holes

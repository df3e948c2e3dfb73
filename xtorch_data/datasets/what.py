"""What the samples of a dataset are, which of them there are, and the arguments that said so.

A `MapDataset` has it; an `IterableDataset` is given one, or takes the same arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..common.redact import printable
from ..common.spelling import require_known
from ..planning.intervals import Interval
from ..planning.selection import SampleTable, product
from ..planning.windows import Axis, Windows
from ..processes.workers import starts_workers
from ..samples.breaks import BreakRule
from ..samples.definition import SampleDefinition
from .where_and_weights import as_where

__all__ = [
    "SAMPLE_ARGUMENTS",
    "SampleArguments",
    "What",
    "parted",
    "require_same_samples",
    "show_all",
]

# From a function and the samples: for each of these, whether the function wants it.
Answers = Callable[[Callable[[xr.Dataset], Any], SampleDefinition], npt.NDArray[np.bool_]]


class SampleArguments(TypedDict, total=False):
    """Arguments of a dataset that say what its samples are; see `MapDataset`."""

    breaks: BreakRule | Mapping[Any, BreakRule | None] | None
    anchor: Mapping[Any, int] | None
    inputs: Any
    targets: Any
    parts: Mapping[str, Any] | None
    preprocess: Callable[..., xr.Dataset] | None
    transform: Callable[..., Any] | Mapping[str, Callable[..., Any]] | None
    target_transform: Callable[..., Any] | None
    where: Any
    dtype: Any
    dims: Sequence[Hashable] | None


SAMPLE_ARGUMENTS = frozenset(
    ["ds", "input_dims", "input_overlap", *SampleArguments.__annotations__]
)


@dataclass(frozen=True, eq=False)
class Stretches:
    """What a split leaves of a dim: data positions ``[start, stop)``, ascending and apart.

    The length of the dim, and its index if it has one, tell where they are in other data.
    """

    dim: Hashable
    intervals: tuple[Interval, ...]
    length: int
    index: pd.Index[Any] | None

    @property
    def ends(self) -> tuple[str, str]:
        """First and last label, or step, of what is left."""
        first, last = self.intervals[0][0], self.intervals[-1][1] - 1
        if self.index is None:
            return str(first), str(last)
        return printable(self.index[first]), printable(self.index[last])

    def found(self, axis: Axis, index: pd.Index[Any] | None) -> list[Interval]:
        """Data positions of the same labels, or the same ones if neither data has labels.

        Raises ValueError if they cannot be told.
        """
        mine = self.index
        if mine is None and index is None and axis.length == self.length:
            return list(self.intervals)
        if mine is None or index is None:
            raise ValueError(
                f"a part of a split is found again by its labels along {self.dim!r}, which the "
                "data lacks: split a dataset of the new data"
            )
        if index.equals(mine):
            return list(self.intervals)
        if str(self.dim).lower() in ("lon", "longitude"):
            self._require_same_circle(mine, index)
        if mine.dtype.kind == "f" and index.dtype.kind in "iuf" and len(mine) > 1:
            return self._near(index)
        if not (index.is_monotonic_increasing or index.is_monotonic_decreasing):
            raise ValueError(
                f"a part of a split is found again by its labels along {self.dim!r}, which are in "
                f"no order in the new data: ds.sortby({self.dim!r})"
            )
        found = []
        for start, stop in self.intervals:
            ends = [mine[start], mine[stop - 1]]
            try:
                steps = index.slice_indexer(
                    *sorted(ends, reverse=not index.is_monotonic_increasing)
                )
            except (TypeError, KeyError) as error:
                raise ValueError(
                    f"a part of a split, {printable(ends[0])} to {printable(ends[1])} along "
                    f"{self.dim!r}, cannot be found among labels such as {printable(index[0])}: "
                    f"{printable(error)}"
                ) from error
            if steps.start < steps.stop:
                found.append((int(steps.start), int(steps.stop)))
        return sorted(found)

    def _require_same_circle(self, mine: pd.Index[Any], index: pd.Index[Any]) -> None:
        """Raise ValueError if longitudes are counted from another meridian."""
        for start, stop in self.intervals:
            for label in (mine[start], mine[stop - 1]):
                other = label - 360 if label > index.max() else label + 360
                outside = not index.min() <= label <= index.max()
                if outside and index.min() <= other <= index.max():
                    raise ValueError(
                        f"a part of a split has {label} along {self.dim!r}, which is {other} in "
                        "the new data: count its longitudes as those of the data that was split"
                    )

    def _near(self, index: pd.Index[Any]) -> list[Interval]:
        """Data positions of numbers of another precision: within a hundredth of a step."""
        assert self.index is not None
        mine = self.index.to_numpy().astype(np.float64)
        theirs = index.to_numpy().astype(np.float64)
        slack = 0.01 * float(np.median(np.abs(np.diff(mine))))
        found = []
        for start, stop in self.intervals:
            low, high = sorted((mine[start], mine[stop - 1]))
            inside = (theirs >= low - slack) & (theirs <= high + slack)
            edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]])))
            found += [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
        return sorted(found)


@dataclass(frozen=True, eq=False)
class What:
    """The samples of a dataset; made by its constructor, and shared with datasets made of it.

    Attributes
    ----------
    definition : SampleDefinition
        What a sample is made of.
    where : SampleTable, callable or None
        Which samples there are; a function of the user until it was asked, by `answered`.
    arguments : mapping
        All arguments as they were given, for `replaced`; a worker process gets none.
    parts : tuple of Stretches
        What splits have left of the data.
    """

    definition: SampleDefinition
    where: SampleTable | Callable[[xr.Dataset], Any] | None
    arguments: Mapping[str, Any]
    parts: tuple[Stretches, ...] = ()

    @classmethod
    def of(cls, where: Any = None, **arguments: Any) -> What:
        """Check the arguments against the data, which is not read."""
        definition = SampleDefinition.of(**arguments)
        return cls(definition, _where(where, definition), arguments)

    def answered(self, answers: Answers) -> What:
        """The same samples, once the function that says which there are was asked about each."""
        if not callable(self.where):
            return self
        found = answers(self.where, self.definition)
        return replace(self, where=_where(found, self.definition))

    @property
    def table(self) -> SampleTable | None:
        """Which samples there are; None for every one."""
        assert not callable(self.where)
        return self.where

    def over(self, windows: Windows) -> What:
        """Some of the samples, numbered anew."""
        before = self.definition
        where = self.table and self.table.over(before.windows, windows)
        return replace(self, definition=before.over(windows), where=where)

    def within(self, dim: Hashable, intervals: Sequence[Interval]) -> What:
        """The samples whose windows lie wholly inside intervals of a dim, numbered anew."""
        before = self.definition
        length, index = before.windows.axis(dim).length, before.labelled.index(dim)
        part = Stretches(dim, tuple(intervals), length, index)
        found = self.over(before.windows.within(dim, intervals))
        return replace(found, parts=(*self.parts, part))

    def stretches(self) -> dict[Hashable, list[Interval]]:
        """Data positions that the latest split along each dim that was split has left."""
        windows, labelled = self.definition.windows, self.definition.labelled
        return {
            part.dim: part.found(windows.axis(part.dim), labelled.index(part.dim))
            for part in self.parts
        }

    def replaced(self, options: Mapping[str, Any]) -> What:
        """Samples with some arguments changed: of the same part of the data, if it is a part.

        A `where` that is not given holds for the same windows of the same data alone.
        """
        if not self.arguments:
            raise RuntimeError("a worker of a loader cannot replace what samples are")
        arguments = {**self.arguments, **options}
        where = arguments.pop("where", None)
        definition = SampleDefinition.of(**arguments)
        for part in self.parts:
            axis, index = definition.windows.axis(part.dim), definition.labelled.index(part.dim)
            within = definition.windows.within(part.dim, part.found(axis, index))
            if not len(within):
                first, last = part.ends
                raise ValueError(
                    f"there is no sample of the part that a split has left along {part.dim!r}, "
                    f"{first} to {last}, in the new data or with the new windows"
                )
            definition = definition.over(within)
        if "where" in options:
            where = _where(where, definition)
        elif self.table is not None:
            require_same_samples("where", options, self.definition, definition)
            where = self.table
        return replace(self, definition=definition, where=where, arguments=arguments)

    def __getstate__(self) -> dict[str, Any]:
        # Data that no sample has would go to the workers of a loader as well.
        return {**self.__dict__, "arguments": {} if starts_workers() else self.arguments}


def require_same_samples(
    argument: str, options: Collection[str], before: SampleDefinition, now: SampleDefinition
) -> None:
    """Raise ValueError if what was given for the samples of one does not fit another's."""
    if "ds" in options:
        raise ValueError(
            f"{argument} was given for other data: give it again for this, or {argument}=None"
        )
    if not now.windows.same_as(before.windows):
        raise ValueError(
            f"{argument} was given for {len(before.windows)} windows, and now there are "
            f"{len(now.windows)} others: give it again for these, or {argument}=None"
        )


def parted(
    options: Mapping[str, Any], own: Collection[str], kind: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options that say what samples are, and a dataset's own; TypeError if there are others."""
    require_known(options, SAMPLE_ARGUMENTS.union(own), kind)
    samples = {name: options[name] for name in options if name in SAMPLE_ARGUMENTS}
    return samples, {name: options[name] for name in options if name in own}


def show_all(constructor: Callable[..., None]) -> None:
    """Let the signature of a constructor show the arguments that it takes as ``**samples``."""
    own = inspect.signature(constructor)
    samples = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in SampleArguments.__annotations__.items()
    ]
    *first, _ = own.parameters.values()
    cast(Any, constructor).__signature__ = own.replace(parameters=[*first, *samples])


def _where(given: Any, definition: SampleDefinition) -> Any:
    """A table of what a user gives, or a function as it is."""
    if callable(given) and not isinstance(given, xr.DataArray):
        return given
    table, whole = as_where(given, definition), definition.whole
    if table is None or whole is None:
        return table or whole
    return product(table, whole, definition.windows.shape)

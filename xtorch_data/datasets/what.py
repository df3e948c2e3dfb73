"""What the samples of a dataset are, which of them there are, and the arguments that said so.

A `MapDataset` has it; an `IterableDataset` is given one, or takes the same arguments.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.context import get_spawning_popen
from typing import Any, TypedDict, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..planning.intervals import Interval
from ..planning.selection import SampleTable
from ..planning.windows import Axis, Windows
from ..samples.definition import SampleDefinition
from .where_and_weights import as_where

__all__ = [
    "SAMPLE_ARGUMENTS",
    "SampleArguments",
    "What",
    "parted",
    "require_same_windows",
    "show_all",
]

# From a function and the samples: for each of these, whether the function wants it.
Answers = Callable[[Callable[[xr.Dataset], Any], SampleDefinition], npt.NDArray[np.bool_]]


class SampleArguments(TypedDict, total=False):
    """Arguments of a dataset that say what its samples are; see `MapDataset`."""

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
        if not (index.is_monotonic_increasing or index.is_monotonic_decreasing):
            raise ValueError(
                f"a part of a split is found again by its labels along {self.dim!r}, which are in "
                f"no order in the new data: ds.sortby({self.dim!r})"
            )
        found = []
        for start, stop in self.intervals:
            ends = sorted([mine[start], mine[stop - 1]], reverse=not index.is_monotonic_increasing)
            steps = index.slice_indexer(*ends)
            if steps.start < steps.stop:
                found.append((int(steps.start), int(steps.stop)))
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

        A `where` that is not given holds for the same windows alone.
        """
        if not self.arguments:
            raise RuntimeError("a worker process cannot replace what samples are")
        arguments = {**self.arguments, **options}
        where = arguments.pop("where", None)
        definition = SampleDefinition.of(**arguments)
        for part in self.parts:
            axis, index = definition.windows.axis(part.dim), definition.labelled.index(part.dim)
            within = definition.windows.within(part.dim, part.found(axis, index))
            definition = definition.over(within)
        if "where" in options:
            where = _where(where, definition)
        elif self.table is not None:
            require_same_windows("where", self.definition, definition)
            where = self.table
        return replace(self, definition=definition, where=where, arguments=arguments)

    def __getstate__(self) -> dict[str, Any]:
        # Data that no sample has would go to the process as well.
        started = get_spawning_popen() is not None
        return {**self.__dict__, "arguments": {} if started else self.arguments}


def require_same_windows(argument: str, before: SampleDefinition, now: SampleDefinition) -> None:
    """Raise ValueError if what was given for the samples of one does not fit another's."""
    if not now.windows.same_as(before.windows):
        raise ValueError(
            f"{argument} was given for {len(before.windows)} windows, and now there are "
            f"{len(now.windows)} others: give it again for these, or {argument}=None"
        )


def parted(
    options: Mapping[str, Any], own: Collection[str], kind: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options that say what samples are, and a dataset's own; TypeError if there are others."""
    names = SAMPLE_ARGUMENTS.union(own)
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{kind} got an unexpected keyword argument {name!r}{hint}")
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
    return as_where(given, definition)

"""What the samples of a dataset are, which of them there are, and the arguments that said so.

A `MapDataset` has it; an `IterableDataset` is given one, or takes the same arguments.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, cast

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..common.cached import cached_property
from ..common.spelling import require_known
from ..planning.selection import SampleTable, product
from ..planning.windows import Windows
from ..processes.workers import starts_workers
from ..report.explain import PartOfSplit
from ..samples.breaks import BreakRule
from ..samples.definition import SampleDefinition
from ..sources.coordinates import RankedLabels
from .split_parts import MOST_ENTRIES, Stretches, left_by
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
    centers: Any
    tolerance: Mapping[Any, Any] | None
    inputs: Any
    targets: Any
    parts: Mapping[str, Any] | None
    preprocess: Callable[..., xr.Dataset] | Mapping[str, Callable[..., xr.Dataset]] | None
    transform: Callable[..., Any] | Mapping[str, Callable[..., Any]] | None
    target_transform: Callable[..., Any] | None
    where: Any
    dtype: Any
    dims: Sequence[Hashable] | None


SAMPLE_ARGUMENTS = frozenset(
    ["ds", "input_dims", "input_overlap", *SampleArguments.__annotations__]
)


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
    members : SampleTable, optional
        Which samples are in these parts, where two dims decide together.
    """

    definition: SampleDefinition
    where: SampleTable | Callable[[xr.Dataset], Any] | None
    arguments: Mapping[str, Any]
    parts: tuple[Stretches, ...] = ()
    members: SampleTable | None = None

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

    @cached_property
    def table(self) -> SampleTable | None:
        """Which samples there are; None for every one."""
        assert not callable(self.where)
        windows = self.definition.windows
        return _both(_both(self.where, self.members, windows), self.definition.whole, windows)

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return _count(self.table, self.definition.windows)

    @property
    def outside(self) -> int:
        """How many of the numbered samples splits have left out, whatever `where` says."""
        windows = self.definition.windows
        return len(windows) - _count(self.members, windows)

    def over(self, windows: Windows) -> What:
        """Some of the samples, numbered anew."""
        assert not callable(self.where)
        before = self.definition
        where, members = (
            table and table.over(before.windows, windows) for table in (self.where, self.members)
        )
        return replace(self, definition=before.over(windows), where=where, members=members)

    def within(self, part: Stretches, labels: RankedLabels | None = None) -> What:
        """The samples of a part of the data, numbered anew; there may be none.

        `labels` are those of the coordinate that was split, if they are known.
        """
        windows, members = part.kept(self.definition, labels)
        found = self.over(windows)
        members = _both(found.members, members, windows)
        return replace(found, members=members, parts=(*self.parts, part))

    def stretches(self) -> PartOfSplit:
        """What splits have left of the data, for `explain`."""
        return left_by(self.definition, self.parts, self.outside)

    def replaced(self, options: Mapping[str, Any]) -> What:
        """Samples with some arguments changed: of the same part of the data, if it is a part.

        A `where` that is not given holds for the same windows of the same data alone.
        """
        if not self.arguments:
            raise RuntimeError("a worker of a loader cannot replace what samples are")
        arguments = {**self.arguments, **options}
        where = arguments.pop("where", None)
        found = What(SampleDefinition.of(**arguments), None, arguments)
        for part in self.parts:
            found = found.within(part)
            if not found.samples:
                first, last = part.ends
                raise ValueError(
                    f"there is no sample of the part that a split has left along {part.along!r}, "
                    f"{first} to {last}, in the new data or with the new windows"
                )
        if "where" in options:
            where = _where(where, found.definition)
        elif self.where is not None:
            require_same_samples("where", options, self.definition, found.definition)
            where = self.where
        return replace(found, where=where)

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
    return as_where(given, definition)


def _both(
    one: SampleTable | None, other: SampleTable | None, windows: Windows
) -> SampleTable | None:
    """The samples that are in both of two tables."""
    if one is None or other is None:
        return one or other
    entries = math.prod(windows.shape[place] for place in {*one.axes, *other.axes})
    if entries > max(MOST_ENTRIES, one.values.size, other.values.size):
        raise ValueError(
            f"which samples there are takes a table of {entries:,} entries, and "
            f"{MOST_ENTRIES:,} are the most: where, or a split along a coordinate of two dims, "
            "goes by too many dims together"
        )
    return product(one, other, windows.shape)


def _count(table: SampleTable | None, windows: Windows) -> int:
    """How many samples are in a table."""
    if table is None:
        return len(windows)
    others = (size for place, size in enumerate(windows.shape) if place not in table.axes)
    return int(np.count_nonzero(table.values)) * math.prod(others)

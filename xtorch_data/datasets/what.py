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
import xarray as xr

from ..common.cached import cached_property
from ..common.spelling import require_known
from ..planning.edges import Boundary, Remainder
from ..planning.selection import SampleTable
from ..planning.windows import Windows
from ..processes.workers import starts_workers
from ..report.uncovered import PartOfSplit
from ..samples.breaks import BreakRule
from ..samples.definition import SampleDefinition
from ..samples.edges import Halo
from ..sources.coordinates import RankedLabels
from .conditions import Conditions, both
from .split_parts import Stretches, left_by

__all__ = [
    "SAMPLE_ARGUMENTS",
    "SampleArguments",
    "What",
    "parted",
    "require_same_samples",
    "show_all",
]

# From conditions and the samples: those that meet them.
Answers = Callable[[Conditions, SampleDefinition], SampleTable]


class SampleArguments(TypedDict, total=False):
    """Arguments of a dataset that say what its samples are; see `MapDataset`."""

    breaks: BreakRule | Mapping[Any, BreakRule | None] | None
    boundary: Mapping[Any, Boundary] | None
    remainder: Remainder | Mapping[Any, Remainder] | None
    halo: Mapping[Any, Halo] | None
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
    where : SampleTable, Conditions or None
        Which samples there are; conditions until the data was asked, by `answered`.
    arguments : mapping
        All arguments as they were given, for `replaced`; a worker process gets none.
    parts : tuple of Stretches
        What splits have left of the data.
    members : SampleTable, optional
        Which samples are in these parts, where two dims decide together.
    """

    definition: SampleDefinition
    where: SampleTable | Conditions | None
    arguments: Mapping[str, Any]
    parts: tuple[Stretches, ...] = ()
    members: SampleTable | None = None

    @classmethod
    def of(cls, where: Any = None, **arguments: Any) -> What:
        """Check the arguments against the data, which is not read."""
        conditions = Conditions.of(where)
        definition = SampleDefinition.of(**arguments, conditions=conditions.not_null)
        return cls(definition, conditions.known(definition), arguments)

    def answered(self, answers: Answers) -> What:
        """The same samples, once the data was asked which there are."""
        if not isinstance(self.where, Conditions):
            return self
        found = both(
            self.where.table, answers(self.where, self.definition), self.definition.windows
        )
        return replace(self, where=found, definition=replace(self.definition, conditions=None))

    @cached_property
    def table(self) -> SampleTable | None:
        """Which samples there are; None for every one."""
        assert not isinstance(self.where, Conditions)
        windows = self.definition.windows
        return both(both(self.where, self.members, windows), self.definition.whole, windows)

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
        assert not isinstance(self.where, Conditions)
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
        members = both(found.members, members, windows)
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
        conditions = Conditions.of(arguments.pop("where", None))
        definition = SampleDefinition.of(**arguments, conditions=conditions.not_null)
        found = What(definition, None, arguments)
        for part in self.parts:
            found = found.within(part)
            if not found.samples:
                first, last = part.ends
                raise ValueError(
                    f"there is no sample of the part that a split has left along {part.along!r}, "
                    f"{first} to {last}, in the new data or with the new windows"
                )
        where = conditions.known(found.definition)
        if "where" not in options and self.where is not None:
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


def _count(table: SampleTable | None, windows: Windows) -> int:
    """How many samples are in a table."""
    if table is None:
        return len(windows)
    others = (size for place, size in enumerate(windows.shape) if place not in table.axes)
    return int(np.count_nonzero(table.values)) * math.prod(others)


def require_none(given: Mapping[str, Any]) -> None:
    """Raise TypeError if arguments that belong to a MapDataset are given with one."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise TypeError(
            f"a MapDataset says itself what its samples are: {', '.join(names)} cannot be given "
            f"with one; its replace({names[0]}=…) can"
        )

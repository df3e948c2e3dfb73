"""Variables, and steps of the window, that make up one part of a sample."""

from __future__ import annotations

import copy
import itertools
import reprlib
from collections import Counter
from collections.abc import Container, Hashable, KeysView, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..common.cached import cached_property
from ..common.redact import printable
from .presence import Presence, Takes
from .schedule import Schedule

__all__ = [
    "Part",
    "Select",
    "Stretch",
    "as_counts",
    "label_of",
    "named",
    "names_of",
    "resolve_parts",
]

# What takes steps of a window: as a user gives it, and once it is checked.
GivenIndexer = int | slice | Sequence[int] | npt.NDArray[np.integer[Any]] | Schedule
Indexer = int | slice | list[int]


class Select:
    """Variables, cut further inside the window.

    Parameters
    ----------
    variables : Hashable or list of Hashable
        A list is stacked on a ``variable`` axis; a single name has no such axis.
    indexers : mapping of Hashable to int, slice, sequence of int, ndarray of int or Schedule
        Positions *inside the window*, as ``isel`` takes them, none beyond its end; negative ones
        count from there. An integer drops the dim. Several, such as ``[0, 3, 7]`` or a range, may
        stand in any order, each once. A `Schedule` has others from some epoch on.
    **indexers_kwargs : int, slice, sequence of int, ndarray of int or Schedule
        The same, as keywords.

    Examples
    --------
    Two steps in, the following six out:

    >>> Select(["t2m", "z500"], time=slice(0, 2))
    Select(['t2m', 'z500'], time=slice(0, 2, None))
    >>> Select("t2m", time=slice(2, 8))
    Select('t2m', time=slice(2, 8, None))

    Steps that are unevenly apart, such as those of a few lead times:

    >>> import numpy as np, xarray as xr, xtorch_data as xtd
    >>> t2m = xr.DataArray(np.arange(12.0), dims="time", name="t2m")
    >>> samples = xtd.MapDataset(t2m, {"time": 8}, inputs=Select("t2m", time=[0, 3, -1]))
    >>> samples[0]
    (tensor([0., 3., 7.]),)
    """

    takes: Takes = "values"

    def __init__(
        self,
        variables: Hashable | list[Hashable],
        indexers: Mapping[Any, GivenIndexer] | None = None,
        **indexers_kwargs: GivenIndexer,
    ) -> None:
        self.variables = variables
        self.indexers: dict[Any, GivenIndexer] = {**(indexers or {}), **indexers_kwargs}

    def _of(self, variables: Hashable | list[Hashable], takes: Takes | None = None) -> Self:
        """The same selection of variables under other names, or of something else of them."""
        found = copy.copy(self)
        found.variables, found.takes = variables, takes or self.takes
        return found

    def _at(self, epoch: int) -> Self:
        """The selection in an epoch, without schedules."""
        found = copy.copy(self)
        found.indexers = {
            dim: each._at(epoch) if isinstance(each, Schedule) else each
            for dim, each in self.indexers.items()
        }
        return found

    def __repr__(self) -> str:
        indexers = "".join(
            f", {printable(dim)}={indexer}" for dim, indexer in self.indexers.items()
        )
        return f"Select({self.variables!r}{indexers})"


@dataclass(frozen=True)
class Part:
    """One named part of a sample, checked against the data."""

    name: str  # ``"x"``, ``"y"`` or the name given in ``parts``
    variables: tuple[Hashable, ...]
    stacked: bool  # whether they are stacked on a ``variable`` axis
    # Of dims that are cut; no integer is negative, and a list is not evenly spaced.
    indexers: dict[Hashable, Indexer]
    dims: tuple[Hashable, ...]  # of one sample, without the ``variable`` axis
    shape: tuple[int, ...]  # sizes of `dims`
    dtype: np.dtype[Any]  # of the values as they are gathered
    # Dims which none of the variables has: values are broadcast over them.
    lacking: tuple[Hashable, ...] = field(default=())
    takes: Takes = "values"  # what of the variables
    values: int = 0  # of a count, how many there may be in a sample
    # Where a schedule has other steps: the part from some epochs on, and dims along which it does.
    phases: tuple[tuple[int, Part], ...] = ()
    scheduled: tuple[Hashable, ...] = ()

    def at(self, epoch: int) -> Part:
        """The part in an epoch; this is that of the longest phase."""
        now = [part for begin, part in self.phases if begin <= epoch]
        return now[-1] if now else self

    @property
    def arrays(self) -> tuple[Hashable, ...]:
        """Names that the variables, or their presence, have in a block."""
        if self.takes == "values":
            return self.variables
        return tuple(map(Presence, self.variables))

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample's tensor."""
        return (len(self.variables), *self.shape) if self.stacked else self.shape

    @cached_property
    def stretches(self) -> tuple[Stretch, ...]:
        """The part as parts that are gathered one by one: neighboring steps where it has a list.

        A window is then a view of memory in each. Without a list it is one, the part itself.
        """
        listed = {dim: each for dim, each in self.indexers.items() if isinstance(each, list)}
        if not listed or self.takes == "count":
            return (Stretch(self, (slice(None),) * len(self.dims)),)
        runs = [
            _neighbors(listed[dim]) if dim in listed else [(slice(None), slice(None))]
            for dim in self.dims
        ]
        found = []
        for number, chosen in enumerate(itertools.product(*runs)):
            cuts = {dim: cut for dim, (cut, _) in zip(self.dims, chosen, strict=True)}
            where = tuple(where for _, where in chosen)
            shape = [len(range(*at.indices(n))) for at, n in zip(where, self.shape, strict=True)]
            part = replace(
                self,
                name=f"{self.name}[{number}]",  # no part of a user is named so
                indexers={**self.indexers, **{dim: cuts[dim] for dim in listed}},
                shape=tuple(shape),
            )
            found.append(Stretch(part, where))
        return tuple(found)

    def take(self, sample: xr.Dataset) -> xr.Dataset | xr.DataArray:
        """The part of a labeled sample, without broadcasting.

        Values are copied: a transform may work in place, and neighbors share the block.
        """
        if not self.stacked:
            array = sample[self.arrays[0]].rename(self.variables[0])
            array = array.isel(self.indexers, missing_dims="ignore") if self.indexers else array
            return array.copy(deep=False, data=array.to_numpy().copy())
        chosen = sample[list(self.arrays)]
        if self.takes != "values":
            chosen = chosen.rename(dict(zip(self.arrays, self.variables, strict=True)))
        chosen = chosen.isel(self.indexers, missing_dims="ignore") if self.indexers else chosen
        values = {name: each.to_numpy().copy() for name, each in chosen.data_vars.items()}
        return chosen.copy(deep=False, data=values)


@dataclass(frozen=True)
class Stretch:
    """Steps of a part that are gathered together.

    Attributes
    ----------
    part : Part
        They as a part of their own, whose indexers are no lists.
    where : tuple of slice
        Where they lie in a sample of the whole part, along each of its dims.
    """

    part: Part
    where: tuple[slice, ...]


def _neighbors(steps: Sequence[int]) -> list[tuple[slice, slice]]:
    """Runs of neighboring steps: those of the window, and their places in the list."""
    begins = [0, *(np.flatnonzero(np.diff(steps) != 1) + 1).tolist(), len(steps)]
    return [
        (slice(steps[begin], steps[end - 1] + 1), slice(begin, end))
        for begin, end in itertools.pairwise(begins)
    ]


def resolve_parts(
    data: xr.Dataset,
    single: Hashable | None,
    inputs: Any,
    targets: Any,
    parts: Mapping[str, Any] | None,
    reserved: Container[str],
) -> dict[str, Select]:
    """The named selections that ``inputs``, ``targets`` and ``parts`` ask for.

    `single` is the name of the only variable of data that was given as one array, `reserved` holds
    names that no part may have.
    """
    if parts is not None:
        if inputs is not None or targets is not None:
            raise ValueError(
                "give either parts or inputs and targets, not both: "
                "parts={'x': …, 'y': …} says the same as inputs=…, targets=…"
            )
        if not isinstance(parts, Mapping) or not parts:
            raise ValueError(f"parts must be a mapping of names to selections, not {parts!r}")
        specifications = dict(parts)
    else:
        if inputs is None:
            inputs = list(data.data_vars) if single is None else single
        specifications = {"x": inputs}
        if targets is not None:
            specifications["y"] = targets
    return {
        name: _as_select(name, specification, data, reserved)
        for name, specification in specifications.items()
    }


def _as_select(part: str, specification: Any, data: xr.Dataset, reserved: Container[str]) -> Select:
    """One selection, its names checked as far as they can be without the windows."""
    if not isinstance(part, str) or not part.isidentifier() or part.startswith("_"):
        raise ValueError(f"the name of a part must be an identifier, not {part!r}")
    if part in reserved:
        raise ValueError(f"a part cannot be named {part!r}: a batch has something else there")
    select = specification if isinstance(specification, Select) else Select(specification)
    if getattr(select, "min", 1) != 1:
        raise ValueError(
            f"part {part!r}: {select!r} says how much of a sample must be present, as where= "
            "takes it; a part says where values are, without min"
        )
    return named(f"part {part!r}", select, data)


def named(label: str, select: Select, data: xr.Dataset) -> Select:
    """A selection with its variables as a name or a list of names; TypeError if they are none."""
    given: Any = select.variables
    names = given
    if not isinstance(given, Hashable) or (isinstance(given, tuple) and given not in [*data]):
        unordered = isinstance(given, (Set, Mapping)) and not isinstance(given, KeysView)
        names = None if unordered or isinstance(given, xr.DataArray) else list(given)
    each = names if isinstance(names, list) else [names]
    if not all(isinstance(name, Hashable) and not isinstance(name, Select) for name in each):
        names = None
    if names is None:
        raise TypeError(
            f"{label}: give a name, a list of names or Select, not {type(given).__name__} "
            + reprlib.repr(given)
        )
    twice = [name for name, times in Counter(each).items() if times > 1]
    if twice:
        raise ValueError(f"{label} names variable {twice[0]!r} twice")
    return select._of(names)


def as_counts(conditions: Mapping[str, Select], data: xr.Dataset) -> dict[str, Select]:
    """Selections of how many values are present, for presences by what messages call them."""
    found = {label: named(label, select, data) for label, select in conditions.items()}
    return {label: each._of(each.variables, "count") for label, each in found.items()}


def names_of(select: Select) -> list[Hashable]:
    """The variables that a selection names."""
    return list(select.variables) if isinstance(select.variables, list) else [select.variables]


def label_of(part: str) -> str:
    """A part in messages: by its name, if a user has given it one."""
    return f"part {part!r}" if part.isidentifier() else part

"""Conditions that samples must meet, as a user gives them, asked of the data in one pass."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..common.progress import bar
from ..common.user_warnings import warn_user
from ..iteration.epoch_reader import EpochReader
from ..planning.index_maps import Regular
from ..planning.plan import Plan
from ..planning.selection import SampleTable, product
from ..planning.windows import IntArray, Windows
from ..reading.disk_cells import OnDisk
from ..samples.asking import asked
from ..samples.batch import Batch
from ..samples.definition import SampleDefinition
from ..samples.not_null import NotNull
from ..samples.select import Part, Select
from ..samples.transforms import Transform
from .split_dims import MOST_ENTRIES
from .where_and_weights import as_where

__all__ = ["Conditions", "answers", "both"]

logger = logging.getLogger(__name__)

# Samples that are asked about together, where a function is called for each.
CALLS_TOGETHER = 256
# The same where their counts are there.
COUNTS_TOGETHER = 2**16


@dataclass(frozen=True, eq=False)
class Conditions:
    """What a user gives as ``where``: all of it holds for the samples that there are.

    Made with a dataset, whose `What` has it until the data was asked.

    Attributes
    ----------
    masks : tuple
        Booleans, as they are given.
    functions : tuple of callable
        What is asked about each window.
    not_null : mapping of str to NotNull
        What must be present, by what messages call it.
    table : SampleTable, optional
        The samples in all masks, once the samples are known.
    """

    masks: tuple[Any, ...]
    functions: tuple[Callable[[xr.Dataset], Any], ...]
    not_null: Mapping[str, NotNull]
    table: SampleTable | None = None

    @classmethod
    def of(cls, where: Any) -> Conditions:
        """Tell the kinds apart of what a user gives."""
        each = list(where) if _is_several(where) else [] if where is None else [where]
        for given in each:
            if given is None or isinstance(given, str | bytes | Mapping) and not callable(given):
                raise TypeError(f"where takes functions, booleans and NotNull, not {given!r}")
            if isinstance(given, Select) and not isinstance(given, NotNull):
                raise TypeError(f"where takes NotNull({given!r}), not what it selects")
        not_null = [given for given in each if isinstance(given, NotNull)]
        functions = [
            given for given in each if callable(given) and not isinstance(given, xr.DataArray)
        ]
        known = {id(given) for given in (*not_null, *functions)}
        return cls(
            tuple(given for given in each if id(given) not in known),
            tuple(functions),
            {f"where={given!r}": given for given in not_null},
        )

    def known(self, samples: SampleDefinition) -> SampleTable | Conditions | None:
        """The samples that there are, if no data must be read to tell; else what is asked of it."""
        table = None
        for mask in self.masks:
            table = both(table, as_where(mask, samples), samples.windows)
        if not self.functions and not self.not_null:
            return table
        return replace(self, masks=(), table=table)


def _is_several(where: Any) -> bool:
    """Whether what is given are several conditions, not a boolean for each sample."""
    return isinstance(where, list | tuple) and not all(
        isinstance(each, bool | np.bool_ | int | float | np.number) for each in where
    )


def both(
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


@dataclass
class _Flag:
    """The answer of a user's functions for a window, as the tensor of a part."""

    functions: Sequence[Callable[[xr.Dataset], Any]]

    _untried = True  # the functions are asked about each window once

    def __call__(self, window: xr.Dataset) -> xr.DataArray:
        return xr.DataArray(all(self._answer(function, window) for function in self.functions))

    def _answer(self, function: Callable[[xr.Dataset], Any], window: xr.Dataset) -> bool:
        answer = function(window)
        if isinstance(answer, xr.Dataset) or np.ndim(answer) or np.asarray(answer).dtype != bool:
            raise TypeError(
                f"where returns True or False for a window, not {type(answer).__name__} "
                f"{answer!r:.200}"
            )
        return bool(answer)


@dataclass
class _Answer:
    """What samples have shown of one condition so far."""

    condition: NotNull
    part: Part
    may_lack: bool  # whether there are values that say that one is missing
    left_out: int = 0
    most: int = 0  # values that are present in a sample

    def take(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Which samples of a batch meet it."""
        counts = batch[self.part.name].numpy().reshape(len(batch.index), -1).sum(axis=1)
        # The quotient is the nearest number to the share, as a literal of the user's is.
        met: npt.NDArray[np.bool_] = counts / self.part.values >= self.condition.min
        self.left_out += int(np.count_nonzero(~met & ~batch.repeated.numpy()))
        self.most = max(self.most, int(counts.max(initial=0)))
        return met

    def require_some(self, shown: int, samples: int) -> None:
        """Raise ValueError if no sample meets it, and warn if all do.

        So many were asked about, and all others are like one of these.
        """
        if self.left_out == shown:
            raise ValueError(
                f"{self.part.name} leaves none of the {samples:,} samples: of none is more than "
                f"the share {self.most / self.part.values:.3g} present in the data"
            )
        if not self.left_out:
            warn_user(
                f"{self.part.name} leaves out none of the {samples:,} samples: of each, as much "
                "is present in the data" + ("" if self.may_lack else "; integers are never missing")
            )


def answers(
    conditions: Conditions,
    definition: SampleDefinition,
    memory: int,
    on_disk: OnDisk | None,
    retries: int,
    skipping: bool = False,
) -> SampleTable:
    """The samples that meet all conditions: one pass over the data.

    Raises
    ------
    TypeError
        If a function does not return a bool, or takes random numbers.
    ValueError
        If functions are given and samples are others in every epoch, or no sample has enough.
    """
    function = _asking(conditions.functions, definition)
    asking = asked(definition, function)
    found = [
        _Answer(conditions.not_null[part.name], part, _may_lack(each, part))
        for each, part in asking.every_part
        if part.name in conditions.not_null
    ]
    if function is None and not any(answer.may_lack for answer in found):
        for answer in found:
            answer.require_some(len(asking.windows), len(asking.windows))
        return SampleTable((), np.ones((), dtype=bool))
    axes: Sequence[int] = range(len(definition.windows.shape))
    if function is None:
        axes = _axes(asking)
        asking = asking.over(_first_ones(asking.windows, axes))
    windows = asking.windows
    size = COUNTS_TOGETHER
    if function is not None:
        size = max(1, min(CALLS_TOGETHER, math.isqrt(len(windows))))
    # The order makes no difference, but in one of the two less may have to be read.
    plans = (
        Plan.of(
            windows,
            asking.layouts,
            memory=memory,
            shuffle=shuffle,
            batch_size=size,
            warn=False,
            others=asking.layouts_beside,
        )
        for shuffle in (False, True)
    )
    plan = min(plans, key=lambda plan: plan.grid.amplification)
    reader = EpochReader(asking, plan, on_disk, retries, skipping)
    # What cannot be read, and is skipped, has no answer: it is wanted, and skipped whenever it is
    # read, on every rank.
    kept = np.ones(len(windows), dtype=bool)
    batches = reader.batches(plan, 0, plan.intervals(0, 0, 1))  # all, also in a loader's worker
    with bar(len(windows), "sample", "where") as done, closing(batches):
        for batch in batches:
            numbers: IntArray = batch.index.numpy()
            for answer in found:
                kept[numbers] &= answer.take(batch)
            if function is not None:
                # Broadcast over dims that no variable has.
                kept[numbers] &= batch["x"].numpy().reshape(len(numbers), -1)[:, 0]
            done(len(numbers))
    for answer in found:
        answer.require_some(len(windows), len(definition.windows))
    logger.info("where leaves out %d of %d samples", len(kept) - kept.sum(), len(kept))
    return SampleTable(tuple(axes), kept.reshape([windows.shape[place] for place in axes]))


def _asking(
    functions: Sequence[Callable[[xr.Dataset], Any]], definition: SampleDefinition
) -> Transform | None:
    """A function that asks those of the user, checked; None if there is none."""
    if not functions:
        return None
    if definition.primary.random_blocks:
        raise ValueError(
            "where is asked once for all epochs, but preprocess draws other random numbers "
            "in each: give where as a DataArray of booleans"
        )
    for each in functions:
        function = Transform.of(each, "where")
        if function is not None and function.takes_rng:
            raise TypeError("where cannot take random numbers: it is asked once, for all epochs")
    return Transform(_Flag(functions), "where", takes_rng=False)


def _may_lack(samples: SampleDefinition, part: Part) -> bool:
    """Whether variables of a part have values that say that one is missing."""
    dtypes = (samples.data.variables[name].dtype for name in part.variables)
    return any(dtype.kind not in "iub" for dtype in dtypes)


def _axes(samples: SampleDefinition) -> list[int]:
    """Sample axes on which it depends where the variables of some sources lie."""
    found: set[int] = set()
    for each in samples.sources:
        dims = {dim for variable in each.data.data_vars.values() for dim in variable.dims}
        for along in each.windows.frame.maps:
            if along.dim in dims:
                found.update(along.terms)
    return sorted(found)


def _first_ones(windows: Windows, axes: Sequence[int]) -> Windows:
    """Only the first window along all but some axes."""
    space = windows.space
    for place, count in enumerate(windows.shape):
        if place not in axes and count > 1:
            space = space.restrict(place, Regular(0, 1))
    return windows if space is windows.space else Windows(space)

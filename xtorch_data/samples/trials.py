"""Trials of the user's functions, on made-up values: whether what comes back lies where it was.

Labels are computed from sample numbers, so a function must leave values at their places; and a
function for blocks must not look at other steps along a dim on which blocks are cut. Both are seen
from which places of the result change when values of some steps change.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from ..planning.windows import Axis, Windows
from .made_up import Budget, Flags, Values, half_of, numbered, on_trial, unnoticed, variables_of
from .transforms import Transform

__all__ = ["labels_of", "require_blocks_independent", "require_labels_kept", "require_places_kept"]

Labels = tuple[Mapping[Hashable, Any], Mapping[Hashable, xr.Variable]]
Constants = Mapping[Hashable, Any]

# Magnitudes of the values, one after the other until a result depends on them: a threshold, say
# in kelvin, may hide the smaller ones. What one of them seems to show must not be refuted by the
# next: a function may look at a block's values to tell their units.
SCALES = 1, 300, 100_000
# Numbers that a random function draws: a coin that is fair shows both sides but once in 32.
DRAWS = 6
# Of one that exchanges samples: mixup with Beta(0.05, 0.05) seldom mixes, of two samples.
MIXED_DRAWS = 40
# Steps of the dims that are not looked at, unless the function needs them all.
FEW_STEPS = 8
# Steps of the dim that is: enough for a climatology by day, and for lags.
MANY_STEPS = 1000
LAGS = 16
# Values of each variable in a trial that is small.
FEW_VALUES = 2**16
# Bytes of all variables in the largest trial there is, which takes about ten times as many.
MOST_BYTES = 2**26
# Of a slow function, not everything is tried: no call begins when so much time is spent.
SECONDS = 3.0


def require_labels_kept(argument: str, labels: Labels, found: Any) -> None:
    """Raise ValueError if a function has put the labels along a dim in another order.

    `labels` is what `labels_of` says of what the function, given as `argument`, gets.
    """
    for dim in _reordered_dims(labels, found):
        raise ValueError(_moves(argument, dim))


def labels_of(obj: Any) -> Labels:
    """Labels along the dims of an object, as indexes where it has them, and others."""
    indexes = dict(obj.indexes)
    others = [dim for dim in obj.dims if dim not in indexes and dim in obj.coords]
    return indexes, {dim: obj.coords[dim].variable for dim in others}  # one for each sample


def _reordered_dims(labels: Labels, found: Any) -> Iterator[Hashable]:
    """Dims whose labels are the same as before, but in another order."""
    indexes, others = labels
    for dim, index in found.indexes.items():
        old = indexes.get(dim)
        if old is None or old is index or len(old) != len(index) or old.equals(index):
            continue
        if _reordered(np.asarray(old), np.asarray(index), 0):
            yield dim
    for dim, before in others.items():
        after = found.coords[dim].variable if dim in found.coords else None
        if after is None or after.dims != before.dims or after.shape != before.shape:
            continue
        if _reordered(before.to_numpy(), after.to_numpy(), before.dims.index(dim)):
            yield dim


def _reordered(old: Values, new: Values, axis: int) -> bool:
    """Whether labels are the same as before along an axis, but in another order."""
    if bool((old == new).all()):
        return False
    try:
        return bool((np.sort(old, axis=axis) == np.sort(new, axis=axis)).all())
    except TypeError:  # of several types
        return old.ndim == 1 and Counter(old.tolist()) == Counter(new.tolist())


def _moves(argument: str, dim: Hashable, name: Hashable = None, random: bool = False) -> str:
    what = "values" if name is None else f"values of variable {name!r}"
    if dim == "sample":
        remedy = "keep the samples of a batch in their order, which shuffle=True makes random"
    elif random:
        remedy = (
            "flip or move tensors at random instead, as xtorch_data.DataLoader does with "
            f"augment=xtorch_data.RandomFlip({dim!r}), where labels go along"
        )
    else:
        remedy = (
            f"move the data before the dataset is made, such as by ds.sortby({dim!r}), "
            f"ds.isel({{{dim!r}: slice(None, None, -1)}}), ds.roll({{{dim!r}: steps}}) or, for "
            f"lags, ds.shift({{{dim!r}: steps}}), and leave that out of {argument}"
        )
    return (
        f"{argument} moves {what} to other places along dim {dim!r}, but to_xarray labels samples "
        f"by their places in the data: {remedy}"
    )


def _mixes(dim: Hashable, name: Hashable, lags: bool) -> str:
    # A transform of samples must not move values either.
    transform = "" if lags else ", or in transform if it is meant for each window by itself"
    return (
        f"preprocess makes values of variable {name!r} from those of other steps along dim "
        f"{dim!r}, on which blocks are cut: samples would depend on memory and chunks. Do this to "
        f"the data before the dataset is made (lazily, after ds.chunk()){transform}; or let each "
        f"sample have all of {dim!r}, input_dims={{{dim!r}: -1}}"
    )


def require_blocks_independent(
    function: Transform,
    data: xr.Dataset,
    windows: Windows,
    names: Iterable[Hashable],
    constants: Constants,
) -> None:
    """Try a function for blocks, and raise if what samples get is not as it must be.

    Of the data that is read only dims and dtypes matter; `names` are the variables of samples,
    `constants` a value of each variable that is no number, date or duration. A function that does
    not work on made-up values is not judged.

    Raises
    ------
    ValueError
        If values move along a dim, or depend on other steps along one on which blocks are cut.
    """
    if not function.is_tried:
        return
    wanted, budget = set(names), Budget(SECONDS)
    for axis in sorted(windows.axes, key=lambda axis: axis.whole):
        if axis.length > 1 and axis.dim in data.dims:
            crops = _crops_of_block(data, windows, axis)
            trials = _Trials(function, axis.dim, wanted, constants, not axis.whole, budget)
            trials.require_none_moved(crops)


def require_places_kept(function: Transform, given: xr.Dataset | xr.DataArray) -> None:
    """Try a function for samples or batches, and raise ValueError if it moves values along a dim.

    The values of what is `given` do not matter. A function that does not work on made-up values
    is not judged.
    """
    if not function.is_tried:
        return
    budget = Budget(SECONDS)
    for dim, size in given.sizes.items():
        if size > 1:
            thin = {other: slice(0, FEW_STEPS) for other in given.dims if other != dim}
            # A corner of an image may come of one sample, where the image is mixed of several.
            crops = (given.isel(cut) for cut in ((thin, {}) if dim != "sample" else ({},)))
            _Trials(function, dim, None, {}, False, budget).require_none_moved(crops)


def _crops_of_block(data: xr.Dataset, windows: Windows, along: Axis) -> Iterator[xr.Dataset]:
    """Blocks to try a function on: one with few steps of other dims, one with all of most.

    Larger ones than there is memory for are left out.
    """
    axes = {axis.dim: axis for axis in windows.axes}
    most = {  # two places of other dims, so that a function that drops dims of size 1 drops none
        dim: size if dim not in axes or axes[dim].whole else min(size, max(2, axes[dim].size))
        for dim, size in data.sizes.items()
    }
    few = {
        dim: min(size, FEW_STEPS) if dim not in axes or axes[dim].whole else size
        for dim, size in most.items()
    }
    lags, fewer = 2 * along.size + LAGS, along.size + LAGS // 4
    for least, others in ((lags, few), (fewer, most), (most[along.dim], most)):
        rest = math.prod(size for dim, size in others.items() if dim != along.dim)
        steps = max(least, min(MANY_STEPS, FEW_VALUES // max(1, rest))) if others is few else least
        steps = along.length if along.whole else min(steps, along.length)
        cut = {dim: slice(0, size) for dim, size in {**others, along.dim: steps}.items()}
        crop = data.isel(cut)
        if sum(each.nbytes for each in crop.data_vars.values()) <= MOST_BYTES:
            yield crop


@dataclass(frozen=True)
class _Found:
    """Result of one trial: variables whose values moved, or depend on those of other steps.

    Lags are new variables, beside those that are given, with the values of other steps.
    """

    moved: tuple[Hashable, ...]
    mixed: tuple[Hashable, ...]
    lags: tuple[Hashable, ...]
    answered: bool


@dataclass(frozen=True, eq=False)
class _Trials:
    """Trials of a function along one dim."""

    function: Transform
    dim: Hashable
    wanted: set[Hashable] | None  # variables of the result that matter; None for all
    constants: Constants  # values of variables that cannot be made up
    cut: bool  # whether blocks are cut along the dim
    budget: Budget

    def require_none_moved(self, crops: Iterable[xr.Dataset | xr.DataArray]) -> None:
        """Raise if values move, or are mixed where blocks are cut.

        Of the objects to try it on, the first that gives an answer counts.
        """
        seeds = range(DRAWS) if self.function.takes_rng else range(1)
        for given in crops:
            found = [self._judged(given, seed, holes=False) for seed in seeds]
            if self.cut and any(found):
                found.append(self._judged(given, 0, holes=True))
            for each in filter(None, found):
                for name in each.moved:
                    if self.dim == "sample" and self._is_mixed_at_times(given, name, found):
                        continue
                    random = self.function.takes_rng
                    raise ValueError(_moves(self.function.argument, self.dim, name, random))
                for name in each.mixed if self.cut else ():
                    raise ValueError(_mixes(self.dim, name, name in each.lags))
            if any(found) or self.budget.spent:
                return

    def _is_mixed_at_times(self, given: Any, name: Hashable, found: list[_Found | None]) -> bool:
        """Whether a random function mixes samples, though one draw may take all of another."""
        if not self.function.takes_rng:
            return False
        more = (self._judged(given, seed, holes=False) for seed in range(DRAWS, MIXED_DRAWS))
        return any(
            each is not None and name in each.mixed and name not in each.moved
            for each in itertools.chain(found, more)
        )

    def _judged(self, given: Any, seed: int, holes: bool) -> _Found | None:
        """Result of trials, if they show anything."""
        suspected: _Found | None = None
        for scale in SCALES:
            if self.budget.spent:
                break
            found = self._look(given, scale, seed, holes)
            if found is None or not found.answered:
                continue
            if suspected is not None or not (found.moved or (self.cut and found.mixed)):
                return found
            suspected = found
        return suspected

    def _look(self, given: Any, scale: int, seed: int, holes: bool) -> _Found | None:
        """Dependence of places on others, from four calls at most; None if these do not tell."""
        plain, other = (
            numbered(given, self.constants, scale, seed=each, holes=holes) for each in (0, 1)
        )
        half = half_of(given.sizes[self.dim])

        def result(changed: Flags) -> dict[Hashable, xr.Variable] | None:
            values = {}
            for name, each in variables_of(given).items():
                if self.dim in each.dims:
                    chosen = changed.reshape([-1 if d == self.dim else 1 for d in each.dims])
                    values[name] = np.where(chosen, other[name], plain[name])
                else:
                    values[name] = plain[name].copy()
            data = values if isinstance(given, xr.Dataset) else values[given.name]
            return self._applied(given.copy(deep=False, data=data), seed)

        calls = []
        for flags in (np.zeros_like(half), half, ~half):
            call = result(flags)
            if call is None or self.budget.spent:
                return None
            calls.append(call)
        before, first, second = calls
        moved: list[Hashable] = []
        mixed: list[Hashable] = []
        lags: list[Hashable] = []
        answered = False
        # A variable under a new name may be made of another one that stays, or be that one.
        renamed = not set(variables_of(given)) <= set(before)
        before = {n: each for n, each in before.items() if self.wanted is None or n in self.wanted}
        for name, variable in before.items():
            if variable.sizes.get(self.dim) != given.sizes[self.dim]:
                continue
            one, two = (_changed(variable, each.get(name)) for each in (first, second))
            if one is None or two is None:
                return None
            axis = variable.dims.index(self.dim)
            flags = half.reshape([-1 if place == axis else 1 for place in range(variable.ndim)])
            own, others = np.where(flags, one, two), np.where(flags, two, one)
            answered |= bool(own.any() or others.any())
            if others.any():
                mixed.append(name)
                if not holes and self._has_moved(variable, own, others, flags):
                    kept = renamed or name in variables_of(given)
                    (moved if kept else lags).append(name)
        if mixed:
            again = result(np.zeros_like(half))
            if again is None or any(_differ(each, again.get(n)) for n, each in before.items()):
                return None  # random by itself: nothing can be told
        return _Found(tuple(moved), tuple(mixed), tuple(lags), answered or not self._along(before))

    def _along(self, variables: Mapping[Hashable, xr.Variable]) -> bool:
        return any(self.dim in variable.dims for variable in variables.values())

    def _has_moved(self, variable: xr.Variable, own: Flags, others: Flags, flags: Flags) -> bool:
        """Whether places have values of other places instead of their own, in both directions."""
        if self.dim == "sample":  # a batch may be mixed, but not put in another order
            rest = tuple(place for place, dim in enumerate(variable.dims) if dim != self.dim)
            own = np.asarray(own.any(rest, keepdims=True))
            others = np.asarray(others.any(rest, keepdims=True))
        alone = others & ~own
        both = bool((own & others).any())
        return not both and bool((alone & flags).any()) and bool((alone & ~flags).any())

    def _applied(self, given: Any, seed: int) -> dict[Hashable, xr.Variable] | None:
        """Variables of what the function returns; None if it fails on made-up values."""
        labels, steps = labels_of(given), given.sizes[self.dim]
        try:
            with unnoticed():
                result = on_trial(self.function, given, seed)
                found = variables_of(result)
                for variable in found.values():
                    variable.load()
        except Exception:
            return None
        if self.wanted is not None:
            if not self.wanted <= set(found):
                return None
            if any(found[name].sizes.get(self.dim, steps) != steps for name in self.wanted):
                return None
        for dim in _reordered_dims(labels, result):
            raise ValueError(_moves(self.function.argument, dim, random=self.function.takes_rng))
        return found


def _changed(before: xr.Variable, after: xr.Variable | None) -> Flags | None:
    """Flags of values that differ; None if they cannot be compared."""
    if after is None or after.dims != before.dims or after.shape != before.shape:
        return None
    old, new = before.to_numpy(), after.to_numpy()
    if old.dtype.kind == "O" or new.dtype.kind == "O":
        return np.zeros(old.shape, bool)
    return np.asarray((old != new) & ~((old != old) & (new != new)))


def _differ(before: xr.Variable, after: xr.Variable | None) -> bool:
    changed = _changed(before, after)
    return changed is None or bool(changed.any())

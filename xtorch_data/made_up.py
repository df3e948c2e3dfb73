"""Made-up values, on which functions of the user are tried."""

from __future__ import annotations

import copy
import functools
import itertools
import random
import warnings
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from .transforms import Compose, Transform

__all__ = ["Flags", "Values", "half_of", "numbered", "on_trial", "unnoticed", "variables_of"]

Flags = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]

# Different numbers, which are repeated in larger arrays: a prime, so that neighbors along any dim
# are others each time.
NUMBERS = 65_521
HOLES = 0.3


def variables_of(obj: Any) -> dict[Hashable, xr.Variable]:
    """The variables of a Dataset, or the one of a DataArray, by name."""
    if isinstance(obj, xr.DataArray):
        return {obj.name: obj.variable}
    return {name: obj.variables[name] for name in obj.data_vars}


def numbered(
    obj: xr.Dataset | xr.DataArray,
    constants: Mapping[Hashable, Any],
    scale: int = 1,
    *,
    seed: int = 0,
    holes: bool = False,
) -> dict[Hashable, Values]:
    """Values for an object's variables, hardly any two of them alike where the dtype allows.

    Parameters
    ----------
    obj : xarray.Dataset or xarray.DataArray
        Of which only dims and dtypes matter.
    constants : mapping of Hashable to object
        A value of each variable that is no number, date or duration.
    scale : int
        About how large they are.
    seed : int
        0 or 1, which give different values everywhere.
    holes : bool
        Whether some floats are NaN, in the same places for any seed.
    """
    return {
        name: _values(each, constants.get(name), scale, seed, holes, place)
        for place, (name, each) in enumerate(variables_of(obj).items())
    }


def _values(
    variable: xr.Variable, constant: Any, scale: int, seed: int, holes: bool, place: int
) -> Values:
    shape, dtype = variable.shape, variable.dtype

    def resized(pool: Values) -> Values:
        return np.resize(np.roll(pool, place * 9973), shape)

    if dtype.kind in "fc":
        values = ((_pool(seed) + np.float32(0.5)) * scale).astype(dtype)
        if holes:
            values[_pool(2) < HOLES] = np.nan
        return resized(values)
    if dtype.kind in "mM":
        days = 1 + (_pool(seed) * 1000 * min(scale, 100)).astype("m8[D]")
        return resized(
            days.astype(dtype) if dtype.kind == "m" else days.astype("M8[D]").astype(dtype)
        )
    if dtype.kind == "b" or (dtype.kind in "iu" and scale == 1):  # they may be places in a table
        return resized(((_pool(2) < 0.5) ^ bool(seed)).astype(dtype))
    if dtype.kind in "iu":
        high = min(scale, int(np.iinfo(dtype).max) // 2)
        return resized(((_pool(seed) + 0.5) * high).astype(dtype))
    values = np.empty(shape, dtype)
    values[...] = constant
    return values


@functools.lru_cache(maxsize=3)
def _pool(seed: int) -> npt.NDArray[np.float32]:
    """Different numbers of at least 0 and below 1, in random order."""
    order = np.random.default_rng(seed).permutation(NUMBERS)
    numbers = ((order + 0.5 * (seed % 2)) / NUMBERS).astype(np.float32)
    numbers.flags.writeable = False
    return numbers


@functools.lru_cache(maxsize=64)
def half_of(size: int) -> Flags:
    """About half of the steps of a dim: others of them when the dim is turned or rolled.

    Parameters
    ----------
    size : int
        Number of steps, 2 or more.
    """
    if size <= 3:
        return np.asarray(np.arange(size) == 0)
    for seed in itertools.count():
        flags: Flags = np.random.default_rng(seed).permutation(size) < size // 2
        rolled = (np.roll(flags, steps) for steps in range(1, min(size, 512)))
        if not any((flags == each).all() for each in (flags[::-1], *rolled)):
            return flags
    raise AssertionError


@contextmanager
def unnoticed() -> Iterator[None]:
    """Functions of the user are called without a trace: no warnings, no random numbers taken."""
    legacy, builtin, of_torch = np.random.get_state(), random.getstate(), torch.get_rng_state()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        np.random.set_state(legacy)
        random.setstate(builtin)
        torch.set_rng_state(of_torch)


def on_trial(transform: Transform, given: Any, seed: int = 0) -> Any:
    """What a function makes of an object; generators that the user has bound stay as they are."""
    function = _with_own_generators(transform.function)
    return Transform(function, transform.argument, transform.takes_rng)(
        given, lambda: np.random.default_rng(seed)
    )


def _with_own_generators(function: Any) -> Any:
    if isinstance(function, Compose):
        return Compose([_with_own_generators(each) for each in function.transforms])
    if isinstance(function, functools.partial):
        arguments = [_own(each) for each in function.args]
        keywords = {name: _own(each) for name, each in function.keywords.items()}
        return functools.partial(function.func, *arguments, **keywords)
    return function


def _own(value: Any) -> Any:
    generators = np.random.Generator, np.random.RandomState, random.Random
    return copy.deepcopy(value) if isinstance(value, generators) else value

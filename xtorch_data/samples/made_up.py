"""Made-up values, on which functions of the user are tried."""

from __future__ import annotations

import copy
import functools
import itertools
import operator
import random
import time
import types
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from ..sources.lazy_arrays import in_memory
from .transforms import Compose, Transform

__all__ = [
    "Budget",
    "Flags",
    "Values",
    "half_of",
    "numbered",
    "on_trial",
    "random_state_kept",
    "unnoticed",
    "variables_of",
]

Flags = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]

# Different numbers, which are repeated in larger arrays: a prime, so that neighbors along any dim
# are others each time.
NUMBERS = 65_521
HOLES = 0.3
# How many times as long a call may take where it waits, or where the machine is busy.
WAITING = 10
# Arrays of more bytes, which functions hold, are not copied for trials.
LARGE = 2**22


class Budget:
    """Seconds for calls of the user's functions, counted from when it is made.

    A busy machine must not decide what is found, so what counts is time of this thread's work;
    of waiting, ten times as much.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = time.thread_time(), time.perf_counter()

    @property
    def spent(self) -> bool:
        """Whether no time is left."""
        worked, passed = time.thread_time() - self._began[0], time.perf_counter() - self._began[1]
        return worked > self._seconds or passed > WAITING * self._seconds


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

    Of the object, only dims and dtypes matter; `constants` has a value of each variable that is no
    number, date or duration. The values are about as large as `scale`, different everywhere for
    `seed` 0 and 1; with `holes`, some floats are NaN, in the same places for any seed.
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
        days = (1 + (_pool(seed) * 1000 * min(scale, 100)).astype("i8")).astype("m8[D]")
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
    """About half of the 2 or more steps of a dim: others of them when it is turned or rolled."""
    if size <= 3:
        return np.asarray(np.arange(size) == 0)
    for seed in itertools.count():
        flags: Flags = np.random.default_rng(seed).permutation(size) < size // 2
        rolled = (np.roll(flags, steps) for steps in range(1, min(size, 512)))
        if not any((flags == each).all() for each in (flags[::-1], *rolled)):
            return flags
    raise AssertionError


# What gets and sets the state of a global random generator, and compares two.
_Generator = tuple[Callable[[], Any], Callable[[Any], None], Callable[[Any, Any], bool]]


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Global random generators, of CUDA as well, stay as they were, whoever draws of them.

    They belong to all threads, so one that was not drawn of is left alone.
    """
    generators: list[_Generator] = [
        (lambda: np.random.get_state(legacy=False), np.random.set_state, _equal_of_numpy),
        (random.getstate, random.setstate, operator.eq),
        (torch.get_rng_state, torch.set_rng_state, torch.equal),
    ]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        generators.append(
            (torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all, _equal_of_devices)
        )
    kept = [(*generator, generator[0]()) for generator in generators]
    try:
        yield
    finally:
        for get, put, equal, before in kept:
            if not equal(get(), before):
                put(before)


def _equal_of_numpy(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal_of_numpy(one[k], other[k]) for k in one)
    return np.array_equal(one, other)


def _equal_of_devices(one: Any, other: Any) -> bool:
    return all(map(torch.equal, one, other))


@contextmanager
def unnoticed() -> Iterator[None]:
    """Functions of the user are called without a trace: no warnings, no random numbers taken."""
    with random_state_kept(), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def on_trial(transform: Transform, given: Any, seed: int = 0) -> Any:
    """Apply a copy of a function, so that the user's has no trace of it.

    Raises
    ------
    Exception
        Whatever the function raises, or what it holds when it cannot be copied.
    """
    function = _copied(transform.function, {})
    return Transform(function, transform.argument, transform.takes_rng)(
        given, lambda: np.random.default_rng(seed)
    )


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """A function with a state of its own: what it is bound to, encloses or has as defaults.

    What it reaches by the names of modules is not copied.
    """
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, Compose):
        made: Any = Compose([_copied(each, memo) for each in value.transforms])
    elif isinstance(value, functools.partial):
        made = functools.partial(
            _copied(value.func, memo),
            *(_copied(each, memo) for each in value.args),
            **{name: _copied(each, memo) for name, each in value.keywords.items()},
        )
    elif isinstance(value, types.MethodType):
        made = types.MethodType(value.__func__, _copied(value.__self__, memo))
    elif isinstance(value, types.FunctionType):
        return _function_copied(value, memo)
    elif isinstance(value, (types.ModuleType, types.BuiltinFunctionType)):
        return value
    else:
        _share_large(value, memo, set())
        return copy.deepcopy(value, memo)
    memo[id(value)] = made
    return made


def _function_copied(function: types.FunctionType, memo: dict[int, Any]) -> types.FunctionType:
    if not (function.__closure__ or function.__defaults__ or function.__kwdefaults__):
        return function
    cells = tuple(types.CellType() for _ in function.__closure__ or ())
    made = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, None, cells or None
    )
    memo[id(function)] = made  # before what it encloses, which may be itself
    for new, old in zip(cells, function.__closure__ or (), strict=True):
        try:
            contents = old.cell_contents
        except ValueError:  # not yet assigned
            continue
        new.cell_contents = _copied(contents, memo)
    if function.__defaults__:
        made.__defaults__ = tuple(_copied(each, memo) for each in function.__defaults__)
    if function.__kwdefaults__:
        made.__kwdefaults__ = {n: _copied(v, memo) for n, v in function.__kwdefaults__.items()}
    made.__dict__.update(function.__dict__)
    return made


def _share_large(value: Any, memo: dict[int, Any], seen: set[int]) -> None:
    """Let copies see large arrays in place, where they cannot be changed.

    Raises
    ------
    ValueError
        If something must not be copied.
    """
    if id(value) in seen or isinstance(value, type):
        return
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        if value.nbytes > LARGE and value.dtype.kind != "O":
            view = value.view()
            view.flags.writeable = False
            memo[id(value)] = view
    elif isinstance(value, torch.Tensor):
        if value.nbytes > 16 * LARGE:
            raise ValueError("too large to be copied for a trial")
    elif isinstance(value, (xr.Dataset, xr.DataArray)):
        for variable in variables_of(value).values():
            if in_memory(variable):
                _share_large(variable.data, memo, seen)
    elif isinstance(value, (dict, list, tuple)):
        for each in value.values() if isinstance(value, dict) else value:
            _share_large(each, memo, seen)
    elif hasattr(type(value), "__del__"):  # a copy would close what the user's holds, at its end
        raise ValueError("holds something that is closed when it is deleted")
    elif hasattr(value, "__dict__"):
        _share_large(vars(value), memo, seen)

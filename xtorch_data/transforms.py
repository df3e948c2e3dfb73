"""Functions of the user, written in xarray's API, and the random numbers they may take."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Transform"]


@dataclass(frozen=True)
class Transform:
    """A function of xarray objects which may take a parameter named ``rng``.

    Attributes
    ----------
    function : callable
        Takes and returns an xarray object.
    argument : str
        Name of the argument it was given as, for messages.
    takes_rng : bool
        Whether the function has a parameter ``rng``.
    """

    function: Callable[..., Any]
    argument: str
    takes_rng: bool

    @classmethod
    def of(cls, function: Callable[..., Any] | None, argument: str) -> Transform | None:
        """Wrap a function; None stays None.

        Raises
        ------
        TypeError
            If `function` is not callable, or needs arguments beyond the object and ``rng``.
        """
        if function is None:
            return None
        if not callable(function):
            raise TypeError(f"{argument} must be a function, not {function!r}")
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):  # built in, without a signature
            return cls(function, argument, takes_rng=False)
        bound = function.keywords if isinstance(function, functools.partial) else {}
        takes_rng = "rng" in parameters and "rng" not in bound
        required = [
            name
            for name, parameter in parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            and name != "rng"
        ]
        if len(required) > 1:
            raise TypeError(
                f"{argument} takes one xarray object and, if it wants, a parameter named 'rng'; "
                f"{function!r} also needs {required[1:]}"
            )
        return cls(function, argument, takes_rng)

    def __call__(self, obj: Any, rng: Callable[[], np.random.Generator]) -> Any:
        """Apply the function; `rng` makes the generator if the function takes one."""
        return self.function(obj, rng=rng()) if self.takes_rng else self.function(obj)

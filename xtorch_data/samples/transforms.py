"""Functions of the user, written in xarray's API, and the random numbers they may take."""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Compose", "Transform", "name_of", "transforms_of"]


@dataclass(frozen=True)
class Transform:
    """A function of xarray objects which may take a parameter named ``rng``."""

    function: Callable[..., Any]
    argument: str  # which it was given as, for messages
    takes_rng: bool

    @classmethod
    def of(cls, function: Callable[..., Any] | None, argument: str) -> Transform | None:
        """Wrap a function; None stays None, and what is wrapped keeps the name of its argument.

        Raises
        ------
        TypeError
            If `function` is not callable, or needs arguments beyond the object and ``rng``.
        """
        if function is None or isinstance(function, Transform):
            return function
        if not callable(function):
            raise TypeError(f"{argument} must be a function, not {function!r}")
        if isinstance(function, Compose):
            return cls(function, argument, function.takes_rng)
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
        if not any(
            name != "rng" and parameter.kind not in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD)
            for name, parameter in parameters.items()
        ):
            raise TypeError(f"{argument} takes one xarray object, which {function!r} does not")
        if len(required) > 1:
            raise TypeError(
                f"{argument} takes one xarray object and, if it wants, a parameter named 'rng'; "
                f"{function!r} also needs {required[1:]}"
            )
        return cls(function, argument, takes_rng)

    def __call__(self, obj: Any, rng: Callable[[], np.random.Generator]) -> Any:
        """Apply the function; `rng` makes the generator if the function takes one."""
        return self.function(obj, rng=rng()) if self.takes_rng else self.function(obj)

    @property
    def is_tried(self) -> bool:
        """Whether it is tried on made-up values, which functions of ours need not be."""
        return not all(getattr(each.function, "_untried", False) for each in self.functions())

    def functions(self) -> Iterator[Transform]:
        """The function, or those that it is composed of."""
        if isinstance(self.function, Compose):
            for member in self.function.members:
                yield from member.functions()
        else:
            yield self


class Compose:
    """Functions of xarray objects, one after the other, as one.

    For `preprocess`, `transform` and the other arguments that take a function, as
    `torchvision.transforms.Compose
    <https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.v2.Compose.html>`_ is
    for images. It can be part of another one, and be sent to workers if its functions can.

    Parameters
    ----------
    transforms : iterable of callable
        Functions that take and return an xarray object. Those which have a parameter ``rng`` draw
        from one `numpy.random.Generator`, in turn. Without any, an object stays as it is.

    Raises
    ------
    TypeError
        If one of them is no function, or needs arguments beyond the object and ``rng``.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xtorch_data as xtd
    >>> def celsius(block):
    ...     return block - 273.15
    >>> def noisy(block, rng):
    ...     return block + rng.normal(scale=0.1, size=block.shape)
    >>> augment = xtd.Compose([celsius, noisy])
    >>> augment
    Compose([
        celsius,
        noisy,
    ])
    >>> t2m = xr.DataArray([280.0, 290.0], dims="time")
    >>> augment(t2m, rng=np.random.default_rng(0)).round(2).values
    array([ 6.86, 16.84])
    """

    def __init__(self, transforms: Iterable[Callable[..., Any]]) -> None:
        if callable(transforms) or not isinstance(transforms, Iterable):
            raise TypeError(f"Compose takes a list of functions, not {transforms!r}")
        self.transforms = tuple(transforms)
        members = []
        for place, function in enumerate(self.transforms):
            member = Transform.of(function, f"transforms[{place}]")
            if member is None:
                raise TypeError(f"transforms[{place}] must be a function, not None")
            members.append(member)
        self.members = tuple(members)

    @property
    def takes_rng(self) -> bool:
        """Whether any of the functions draws random numbers."""
        return any(member.takes_rng for member in self.members)

    def __call__(self, obj: Any, rng: np.random.Generator | None = None) -> Any:
        """Apply the functions in their order."""
        if rng is None and self.takes_rng:
            raise TypeError("some of the functions draw random numbers: give rng=…, a Generator")
        for member in self.members:
            try:
                obj = member.function(obj, rng=rng) if member.takes_rng else member.function(obj)
            except Exception as error:
                error.add_note(f"in {member.argument}, {name_of(member.function)}")
                raise
        return obj

    def __repr__(self) -> str:
        lines = "".join(f"{name_of(function)},\n" for function in self.transforms)
        return f"Compose([\n{textwrap.indent(lines, '    ')}])" if lines else "Compose([])"


def name_of(function: Callable[..., Any]) -> str:
    """Name of a function in messages."""
    return function.__qualname__ if inspect.isroutine(function) else repr(function)


def transforms_of(
    transform: Any, target_transform: Any, parts: Sequence[str]
) -> dict[str, Transform]:
    """The functions of the user for samples, by the part that each works on."""
    if isinstance(transform, Mapping):
        if target_transform is not None and "y" in transform:
            raise ValueError("part 'y' has two functions: that of transform, and target_transform")
        functions = {
            part: Transform.of(function, f"transform[{part!r}]")
            for part, function in transform.items()
        }
    else:
        functions = {"x": Transform.of(transform, "transform")}
    if target_transform is not None:
        functions["y"] = Transform.of(target_transform, "target_transform")
    given = {part: each for part, each in functions.items() if each is not None}
    for part, function in given.items():
        if part not in parts:
            raise ValueError(
                f"{function.argument} works on part {part!r}, but the parts are {list(parts)}"
            )
    return given

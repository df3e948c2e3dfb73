"""Names of arguments: in messages as whoever gave them has written them, and mistaken ones."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["did_you_mean", "require_known", "spelled", "spelling"]


def _as_python(argument: str, *keys: Any) -> str:
    return argument + "".join(f"[{key!r}]" for key in keys)


_spelling: ContextVar[Callable[..., str]] = ContextVar("spelling", default=_as_python)


def spelled(argument: str, *keys: Any) -> str:
    """An argument of the user's, or what it has for a key, such as ``"input_dims['x']"``."""
    return _spelling.get()(argument, *keys)


@contextmanager
def spelling(spell: Callable[..., str]) -> Iterator[None]:
    """Spell arguments in messages in another way, as on a command line, in this context."""
    token = _spelling.set(spell)
    try:
        yield
    finally:
        _spelling.reset(token)


def did_you_mean(name: Any, names: Iterable[Any]) -> str:
    """The end of a message about an unknown name: the nearest of those that there are, if any is.

    Examples
    --------
    >>> did_you_mean("ssst", ["sst", "t2m"])
    ": did you mean 'sst'?"
    """
    known = [each for each in names if isinstance(each, str)]
    near = difflib.get_close_matches(name, known, n=1) if isinstance(name, str) else []
    return f": did you mean {near[0]!r}?" if near else ""


def require_known(given: Iterable[str], names: Collection[str], of: str) -> None:
    """Raise TypeError if keyword arguments are none of those that there are; it names the nearest.

    Examples
    --------
    >>> require_known(["batchsize"], ["batch_size", "shuffle"], "DataLoader")
    Traceback (most recent call last):
    TypeError: DataLoader got an unexpected keyword argument 'batchsize': did you mean 'batch_size'?
    """
    for name in given:
        if name not in names:
            hint = did_you_mean(name, names)
            raise TypeError(f"{of} got an unexpected keyword argument {name!r}{hint}")

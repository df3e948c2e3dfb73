"""Names of arguments in messages, as whoever gave the arguments has written them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["spelled", "spelling"]


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

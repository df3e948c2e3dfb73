"""Warnings that name the line of the user's code, and are given once where that is enough."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import TypeAlias

__all__ = ["Told", "about", "telling_once", "warn_user"]

# Warnings that were given, each with what it was about.
Told: TypeAlias = set[Hashable]

_PACKAGE = str(Path(__file__).parents[1]) + os.sep

_told: ContextVar[Told | None] = ContextVar("told", default=None)
_about: ContextVar[Hashable] = ContextVar("about", default=None)


@contextmanager
def telling_once(told: Told) -> Iterator[None]:
    """Leave out, in this context, warnings that were given before in the same words.

    Words have the numbers and names that matter: where these are others, so are the words.
    """
    token = _told.set(told)
    try:
        yield
    finally:
        _told.reset(token)


@contextmanager
def about(what: object) -> Iterator[None]:
    """Tell warnings in this context from those in the same words about another object."""
    token = _about.set(id(what))
    try:
        yield
    finally:
        _about.reset(token)


def warn_user(message: str, key: Hashable = None) -> None:
    """Warn, and name the first line of the call that is not this package's.

    However many of our own calls are in between: a dataset is made by its constructor, by a split,
    by `replace` or by a loader. A key stands for the words where they have numbers that do not
    matter.
    """
    told, words = _told.get(), (message if key is None else key, _about.get())
    if told is not None and words in told:
        return
    level, frame = 1, _caller(inspect.currentframe())
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, _caller(frame)
    warnings.warn(message, stacklevel=level + 1)
    if told is not None:
        told.add(words)


def _caller(frame: FrameType | None) -> FrameType | None:
    return None if frame is None else frame.f_back

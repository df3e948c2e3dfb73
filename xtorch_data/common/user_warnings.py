"""Warnings that name the line of the user's code."""

from __future__ import annotations

import inspect
import os
import warnings
from pathlib import Path
from types import FrameType

__all__ = ["warn_user"]

_PACKAGE = str(Path(__file__).parents[1]) + os.sep


def warn_user(message: str) -> None:
    """Warn, and name the first line of the call that is not this package's.

    However many of our own calls are in between: a dataset is made by its constructor, by a split,
    by `replace` or by a loader.
    """
    level, frame = 1, _caller(inspect.currentframe())
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, _caller(frame)
    warnings.warn(message, stacklevel=level + 1)


def _caller(frame: FrameType | None) -> FrameType | None:
    return None if frame is None else frame.f_back

"""Stamps of local files, which change when these are written again, also in place."""

from __future__ import annotations

import os
import time
from typing import Any

from ..common.redact import printable

__all__ = ["Unidentified", "file_stamp", "look_at", "stamp_of", "unsettled"]

# Clocks of file systems tick a few hundred times a second; some, in whole seconds.
TICK_NS, COARSE_TICK_NS = 20_000_000, 2_000_000_000
# How often a file is looked at that is being written all the time.
LOOKS = 5


class Unidentified(ValueError):
    """Something that cannot be told from others surely; the message says what and why."""


def file_stamp(path: str) -> Any:
    """Path and stamp of a local file, which tell it from others and later ones."""
    path = os.path.realpath(path)
    try:
        return path, look_at(path)
    except OSError as error:
        raise Unidentified(f"{printable(path)} cannot be looked at: {printable(error)}") from error


def look_at(path: str) -> tuple[int, ...]:
    """The stamp of a file.

    Of one that has changed a moment ago it is waited until a next change would have another time.
    """
    for _ in range(LOOKS):
        found = os.stat(path)
        if not (pause := unsettled(found)):
            break
        time.sleep(pause)
    return stamp_of(found)


def stamp_of(found: os.stat_result) -> tuple[int, ...]:
    """The stamp of a file by its status."""
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def unsettled(found: os.stat_result) -> float:
    """Seconds for which another change of a file could have the same time as its last one."""
    changed = found.st_ctime_ns if os.name == "posix" else found.st_mtime_ns
    tick = TICK_NS if changed % 10**9 else COARSE_TICK_NS
    age = time.time_ns() - changed
    return (tick - age) / 1e9 if 0 <= age < tick else 0.0

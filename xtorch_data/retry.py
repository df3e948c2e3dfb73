"""Reads that fail in passing are tried again, a few times, after growing pauses."""

from __future__ import annotations

import asyncio
import errno
import logging
import random
from collections.abc import Awaitable, Callable
from http.client import IncompleteRead
from typing import TypeVar

__all__ = ["RETRIES", "is_transient", "pause_before", "retried"]

T = TypeVar("T")

# Attempts after the first, unless it is said otherwise.
RETRIES = 3
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0

_ERRORS = (TimeoutError, ConnectionError, IncompleteRead, asyncio.IncompleteReadError)
_NUMBERS = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,  # what s3fs makes of "slow down"
        errno.EINTR,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.ESTALE,  # a network file system has lost the file for a moment
    }
)
# Of HTTP: timeouts, too many requests, and what a server could not do just then.
_STATUS = frozenset({408, 429, 500, 502, 503, 504})
# Of packages that need not be installed, and that do not derive them from those of Python.
_NAMES = {
    "aiohttp": {"ClientConnectionError", "ClientPayloadError"},
    "botocore": {"HTTPClientError", "IncompleteReadError", "ResponseStreamingError"},
    "httpx": {"TransportError"},
    "requests": {"ConnectionError", "ChunkedEncodingError", "Timeout"},
    "urllib3": {"ProtocolError", "TimeoutError", "NewConnectionError"},
}

_random = random.Random()  # nobody's seed is drawn from
logger = logging.getLogger(__name__)


def is_transient(error: BaseException) -> bool:
    """Whether the same read may succeed if it is tried again: timeouts, connections cut off.

    What caused an error counts as well, because packages wrap the errors of others. A missing file,
    a refused permission or damaged data stays what it is.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _ERRORS) or getattr(cause, "errno", None) in _NUMBERS:
            return True
        if getattr(cause, "status", None) in _STATUS or getattr(cause, "code", None) in _STATUS:
            return True
        for kind in type(cause).__mro__:
            if kind.__name__ in _NAMES.get(kind.__module__.partition(".")[0], ()):
                return True
        cause = cause.__cause__
    return False


def pause_before(attempt: int) -> float:
    """Seconds before an attempt, counted from 1 for the first that repeats one.

    Twice as long each time, up to half a minute, and less by a random part: processes that failed
    together should not try again together.
    """
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1))
    return longest * _random.uniform(0.5, 1.0)


async def retried(
    read: Callable[[], Awaitable[T]], retries: int, note: Callable[[], None], what: str
) -> T:
    """What a read gives, tried again if it fails in passing.

    Parameters
    ----------
    read : callable
        Begins the read.
    retries : int
        Attempts after the first.
    note : callable
        Called before each of these.
    what : str
        What is read, for the log.

    Returns
    -------
    Any
        What `read` gives.

    Raises
    ------
    Exception
        The error of the last attempt, or the first that will not pass; a note on it says how often
        it was tried.
    """
    for attempt in range(1, retries + 2):
        try:
            return await read()
        except Exception as error:
            if attempt > retries or not is_transient(error):
                if attempt > 1:
                    error.add_note(f"tried {attempt} times")
                raise
            pause = pause_before(attempt)
            logger.warning(
                "reading %s failed (%s: %s); trying again in %.1f s, %d of %d",
                what, type(error).__name__, error, pause, attempt, retries,
            )  # fmt: skip
        note()
        await asyncio.sleep(pause)
    raise AssertionError("unreachable")

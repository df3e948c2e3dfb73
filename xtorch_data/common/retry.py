"""Reads that fail in passing are tried again, a few times, after growing pauses."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import random
import re
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from http.client import IncompleteRead
from typing import TypeVar

from .redact import words_of

__all__ = [
    "RETRIES",
    "GivenUp",
    "answered",
    "given_up",
    "is_transient",
    "pause_before",
    "retried",
    "retried_alone",
]

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
    "botocore": {
        "ConnectionError",
        "HTTPClientError",
        "IncompleteReadError",
        "ResponseStreamingError",
    },
    "httpx": {"TransportError"},
    "requests": {"ConnectionError", "ChunkedEncodingError", "Timeout"},
    "urllib3": {"ProtocolError", "TimeoutError", "NewConnectionError"},
}
# obstore has one class for all that is not a missing object or a refused permission, and says in
# words what it was.
_OBSTORE = re.compile(r"HTTP error: |status code: (408|429|50[0234])\b")

_random = random.Random()  # nobody's seed is drawn from
logger = logging.getLogger(__name__)


def is_transient(error: BaseException) -> bool:
    """Whether a read may succeed when it is tried again: after timeouts, connections cut off.

    Causes of the error count as well, because packages wrap the errors of others. A missing file, a
    refused permission or damaged data stays what it is.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _ERRORS) or getattr(cause, "errno", None) in _NUMBERS:
            return True
        if not _STATUS.isdisjoint(_statuses(cause)):
            return True
        for kind in type(cause).__mro__:
            package = kind.__module__.partition(".")[0]
            if kind.__name__ in _NAMES.get(package, ()):
                return True
            if package == "obstore" and kind.__name__ == "GenericError":
                return _OBSTORE.search(str(cause)) is not None
        cause = cause.__cause__
    return False


def _statuses(error: BaseException) -> Iterator[int]:
    """Status codes of the answer that an error is about."""
    for name in ("status", "code"):
        found = getattr(error, name, None)
        if isinstance(found, int):
            yield found
            return  # aiohttp warns of who looks at the other as well
    try:  # of botocore's ClientError, from which s3fs makes an OSError
        yield error.response["ResponseMetadata"]["HTTPStatusCode"]  # type: ignore[attr-defined]
    except (AttributeError, KeyError, TypeError):
        pass


def pause_before(attempt: int) -> float:
    """Seconds before an attempt, counted from 1 for the first that repeats one.

    Doubled each time, up to half a minute, and shortened by a random part: processes that failed
    together should not try again together.
    """
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1))
    return longest * _random.uniform(0.5, 1.0)


@dataclass(frozen=True)
class _Policy:
    """Settings of a read for the requests inside it, which are tried again themselves."""

    retries: int
    note: Callable[[], None]
    what: str
    timeout: float | None = None


_policy: ContextVar[_Policy | None] = ContextVar("policy", default=None)


class GivenUp(Exception):
    """Carries, as its cause, the error of a request that has been tried often enough."""


async def retried(
    read: Callable[[], Awaitable[T]],
    retries: int,
    note: Callable[[], None],
    what: str,
    timeout: float | None = None,
) -> T:
    """Result of a read, tried again up to `retries` times while it fails in passing.

    `note` is called before each of these; `answered` waits `timeout` seconds inside. Raises the
    error of the last attempt, or the first that will not pass; a note on it says how often it was
    tried.
    """
    policy = _Policy(retries, note, what, timeout)
    token = _policy.set(policy)
    try:
        return await _attempts(read, policy)
    except GivenUp as error:
        assert error.__cause__ is not None
        given_up = error.__cause__
    finally:
        with contextlib.suppress(ValueError):  # given up, and ended in another context
            _policy.reset(token)
    try:
        raise given_up
    finally:  # its traceback has this frame, and frames that have what was read
        del given_up


async def retried_alone(read: Callable[[], Awaitable[T]], what: str) -> T:
    """Result of one of the requests of a read, tried again by itself and not by the whole read.

    Of hundreds of requests some may fail each time that all of them are sent.
    """
    policy = _policy.get()
    if policy is None:
        return await read()
    try:
        return await _attempts(read, replace(policy, what=f"{what} of {policy.what}"))
    except Exception as error:
        raise GivenUp from error


async def answered(request: Awaitable[T]) -> T:
    """Result of a request, if it takes no longer than the read around it allows."""
    policy = _policy.get()
    seconds = None if policy is None else policy.timeout
    try:
        async with asyncio.timeout(seconds) as waiting:
            return await request
    except TimeoutError as error:
        if not waiting.expired():
            raise
        raise TimeoutError(
            f"no whole answer within {seconds:g} s, which "
            "xtorch_data.set_options(read_timeout=...) sets"
        ) from error


def given_up(error: GivenUp) -> Exception:
    """Error of a read that has waited for a request of another one, which was given up.

    The same if this read is tried again, too, and must not be; else its cause.
    """
    cause = error.__cause__
    return cause if _policy.get() is None and isinstance(cause, Exception) else error


async def _attempts(read: Callable[[], Awaitable[T]], policy: _Policy) -> T:
    for attempt in range(1, policy.retries + 2):
        try:
            return await read()
        except GivenUp:
            raise
        except Exception as error:
            if attempt > policy.retries or not is_transient(error):
                if attempt > 1:
                    error.add_note(f"tried {attempt} times")
                raise
            pause = pause_before(attempt)
            logger.warning(
                "reading %s failed (%s); trying again in %.1f s, %d of %d",
                policy.what, words_of(error), pause, attempt, policy.retries,
            )  # fmt: skip
        policy.note()
        await asyncio.sleep(pause)
    raise AssertionError("unreachable")

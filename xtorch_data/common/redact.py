"""Texts that may be shown: without control characters, and without secrets of remote stores."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = [
    "hiding_secrets",
    "printable",
    "printable_lines",
    "redacted",
    "without_secrets",
    "words_of",
]

E = TypeVar("E", bound=BaseException)

HIDDEN = "***"
# What obstore puts behind its messages: many lines of internals.
_INTERNALS = "\n\nDebug source:"

# Of texts longer than the one, no more than the other is kept. What lies between is looked at with
# the rest, so that no secret is cut in two, and only its end left to be found.
LONGEST, KEPT = 8192, 4096

# No pattern may look far ahead from many places: they see what servers send, on the event loop.

# Of an address, who asks and the query, up to what ends it in messages, Python and XML. In its path
# there may be another.
_USER = re.compile(r"://(?P<user>[^\s\"'<>`/?]*)@")
_QUERY = re.compile(r"(?P<before>://(?:(?!://)[^\s\"'<>`?])*\?)(?P<query>[^\s\"'<>`]+)")
# Quoted, up to the quote that is not escaped, or to the end of a text that was cut.
_QUOTED = r"(?:\"(?:[^\"\\]|\\.?)*(?:\"|\Z)|'(?:[^'\\]|\\.?)*(?:'|\Z))"
# The last words of names of options, headers, attributes and elements whose values are secret, with
# what stands between name and value: `secret=…`, `'aws_session_token': '…'`, `<AWSAccessKeyId>…`.
_NAMED = re.compile(
    r"(?P<name>access_?key(?:_?id)?|account_?key|api_?key|private_?key|secret[a-z_]{0,30}|password|"
    r"passwd|passphrase|token|signature|credentials?|authorization|cookie|bearer|"
    r"(?<![a-z0-9])(?:pass|pwd|auth|sas|sig))"
    r"(?P<between>[\"']?\s*[:=>(]\s*(?:Some\()?(?:(?:bearer|basic)\s+)?b?)"
    rf"(?P<value>{_QUOTED}|[(\[](?:{_QUOTED}|[^\"')\]])*(?:[)\]]|\Z)|[^\s\"',;<>&)}}\]]+)",
    re.IGNORECASE | re.DOTALL,
)
# Numbers of keys of Amazon, which say themselves what they are.
_KEY = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}")
ENDS = {"(": ")", "[": "]"}
# What may follow a name without being secret.
_HARMLESS = frozenset({"none", "true", "false", "null"})

# Categories of Unicode whose characters act on what shows them, or are not seen: control, format
# (which reverse the direction, or have no width), halves of a pair, ends of lines and paragraphs.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(what: Any) -> str:
    r"""A name, a path or another text of the data, as one line that any terminal can show.

    Control characters, such as those that begin a command to a terminal, line breaks, marks that
    reverse the direction of writing, characters without width and bytes that are no text are shown
    as Python writes them. All else stays as it is, in any language. Use it where such a text is
    shown by `str`; `repr` does the same.

    Examples
    --------
    >>> printable("t2m\x1b[2J in °C, 気温")
    't2m\\x1b[2J in °C, 気温'
    """
    text = str(what)
    if text.isprintable():
        return text
    return "".join(
        repr(each)[1:-1] if unicodedata.category(each) in _UNSEEN else each for each in text
    )


def printable_lines(text: str) -> str:
    """A text of several lines that any terminal can show; see `printable`."""
    if text.isprintable():
        return text
    return "\n".join(map(printable, text.replace("\r\n", "\n").split("\n")))


def redacted(text: str) -> str:
    """A text for messages, without secrets and, but for its lines, without control characters.

    Users and passwords in addresses, queries of addresses (which hold the signature where one is
    signed), and what is named as a secret, a token, a key and the like become ``***``. Of a text
    that is longer than any message should be, the end is left out.

    Examples
    --------
    >>> redacted("https://me:geheim@host/era5.zarr?X-Amz-Signature=abc: not found")
    'https://***@host/era5.zarr?***: not found'
    >>> redacted("{'key': 'AKIA', 'secret': 'geheim'}")
    "{'key': 'AKIA', 'secret': '***'}"
    """
    if len(text) > LONGEST:
        text = f"{_hidden(text[:LONGEST])[:KEPT]} … (cut)"
    return printable_lines(_hidden(text))


def _hidden(text: str) -> str:
    for _ in range(3):  # what is hidden may have stood between parts of an address
        before = text
        text = _QUERY.sub(_hide_query, _USER.sub(_hide_user, text))
        text = _KEY.sub(HIDDEN, _NAMED.sub(_hide_value, text))
        if text == before:
            break
    return text


def _hide_user(found: re.Match[str]) -> str:
    scheme = found.string[max(0, found.start() - len("https")) : found.start()].lower()
    # Without a password it is a container of Azure, or a token where it is sent to a web server.
    secret = ":" in found["user"] or scheme.endswith(("http", "https"))
    return f"://{HIDDEN}@" if secret else found.group()


def _hide_query(found: re.Match[str]) -> str:
    query = found["query"]
    return f"{found['before']}{HIDDEN}{query[len(query.rstrip(').,:;]}')) :]}"


def _hide_value(found: re.Match[str]) -> str:
    value = found["value"]
    if value.lower() not in _HARMLESS:
        begin = value[0] if value[0] in "\"'([" else ""
        value = f"{begin}{HIDDEN}{ENDS.get(begin, begin)}"
    return f"{found['name']}{found['between']}{value}"


def words_of(error: BaseException) -> str:
    """Kind, message and notes of an error, without secrets and internals."""
    message = str(error).partition(_INTERNALS)[0].rstrip()
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return redacted(f"{type(error).__name__}: {message}{notes}")


def without_secrets(error: E) -> E | RuntimeError:
    """An error that shows no secret when it is printed, with what has caused it.

    Nearly always the error itself, as it is. Else its texts are changed, and where its class makes
    its message of something else, what is returned stands in for it.
    """
    try:
        chain = list(_chain(error))
        if all(_is_clean(each) for each in chain):
            return error
        for each in chain:
            each.args = tuple(redacted(a) if isinstance(a, str) else a for a in each.args)
            for name in ("filename", "filename2"):
                if isinstance(value := getattr(each, name, None), str):
                    setattr(each, name, redacted(value))
            if notes := getattr(each, "__notes__", None):
                each.__notes__ = [redacted(str(note)) for note in notes]
        if all(_is_clean(each) for each in chain):
            return error
    except Exception:  # of a class that is not as others are
        pass
    return RuntimeError(words_of(error)).with_traceback(error.__traceback__)


@contextmanager
def hiding_secrets() -> Iterator[None]:
    """Replace errors that would show a secret when they are printed; see `without_secrets`."""
    try:
        yield
    except Exception as error:
        shown = without_secrets(error)
        if shown is error:
            raise
        raise shown from None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that are printed before it."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            left += [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]
            yield each


def _is_clean(error: BaseException) -> bool:
    texts = [str(error), *map(str, error.args), *map(str, getattr(error, "__notes__", ()))]
    return all(redacted(text) == text for text in texts)

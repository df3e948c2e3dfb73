"""Labels that are alive in this process, found by their token."""

from __future__ import annotations

import weakref
from typing import Any

__all__ = ["register", "registered"]

# Every copy, and of each token the one made last. Entries go with them, on whatever thread that
# happens, also in the middle of what is done here: no lock could be held.
_copies: weakref.WeakValueDictionary[tuple[str, int], Any] = weakref.WeakValueDictionary()
_latest: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


def register(token: str, labels: Any) -> None:
    """Note labels, or a copy of them, for as long as they live."""
    _copies[token, id(labels)] = labels
    _latest[token] = labels


def registered(token: str) -> Any:
    """The labels with a token, or a copy of them; None if there is none in this process."""
    found = _latest.get(token)
    if found is None:  # the latest copy may be gone, and another still there
        for alive in (reference() for reference in _copies.valuerefs()):
            if alive is not None and alive.token == token:
                found = _latest[token] = alive
    return found

"""Blocks kept in memory for later epochs."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any

__all__ = ["BlockCache"]


class BlockCache:
    """Keeps what was made of blocks while it fits; nothing is thrown out for something else.

    An epoch visits every block once, so no block is better worth keeping than another, and throwing
    out what was kept would only make work. Copies in other processes begin empty.

    Parameters
    ----------
    memory : int
        Bytes for blocks kept and blocks in use.
    working : int
        Bytes of blocks in use at the same time.
    total : int
        Bytes of all blocks.
    """

    def __init__(self, memory: int, working: int, total: int) -> None:
        self.nbytes = 0
        self._memory, self._working, self._total = memory, working, total
        self._kept: dict[Hashable, Any] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        """What was kept under a key, or None."""
        return self._kept.get(key)

    def offer(self, key: Hashable, value: Any, nbytes: int) -> bool:
        """Keep a value if that leaves room to work on what is not kept; whether it was kept."""
        with self._lock:
            kept = self.nbytes + nbytes
            if key in self._kept or kept + min(self._working, self._total - kept) > self._memory:
                return False
            self._kept[key] = value
            self.nbytes = kept
            return True

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def __reduce__(self) -> tuple[Any, ...]:
        return BlockCache, (self._memory, self._working, self._total)

"""A lock on the folder of a local store: one process has it alone, or several share it."""

from __future__ import annotations

import os
import time
from contextlib import suppress

try:
    import fcntl
except ImportError:  # on Windows: that nobody else writes there is up to the user
    fcntl = None  # type: ignore[assignment]

__all__ = ["StoreLock"]

# Seconds for which others may have it alone that share it: while they begin a store.
PATIENCE = 10.0


class StoreLock:
    """Keeps a folder from other calls, in this process or others, as far as it can be.

    It ends with the process. The folder is made if it is not there, and is gone with the lock if
    nothing was written into it. Where the file system has no locks, and for what is no folder, it
    is given to whoever asks.

    Parameters
    ----------
    folder : str, optional
        An absolute path.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._descriptor: int | None = None
        self._process = os.getpid()
        self._new: list[str] = []
        self.works = False  # whether the file system has locks

    def take(self, share: bool = False) -> bool:
        """Take it alone, or `share` it where others do; whether it was to be had."""
        if self._folder is None:
            return True
        folder = self._folder
        while not os.path.exists(folder):
            self._new.append(folder)
            folder = os.path.dirname(folder)
        os.makedirs(self._folder, exist_ok=True)
        if fcntl is None:
            return True
        self._descriptor = os.open(self._folder, os.O_RDONLY)
        deadline = time.monotonic() + (PATIENCE if share else 0.0)
        while not self._locked(fcntl.LOCK_EX) and not (share and self._locked(fcntl.LOCK_SH)):
            if time.monotonic() >= deadline:
                self.release()
                return False
            time.sleep(0.01)
        return True

    def share(self) -> None:
        """Let others share it, too."""
        if self._descriptor is not None:
            self._locked(fcntl.LOCK_SH)

    def take_alone(self) -> bool:
        """Give it up, and take it alone if nobody else has it; whether that was so."""
        if self._descriptor is None:
            return True
        with suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return self._locked(fcntl.LOCK_EX)

    def _locked(self, kind: int) -> bool:
        """Take a lock of some kind; True also where the file system has none."""
        assert self._descriptor is not None
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
            self.works = True
        except BlockingIOError:
            return False
        except OSError:  # some file systems have those that are shared alone
            self.works = False
        return True

    def release(self) -> None:
        """Let go of it; may be called again."""
        mine = os.getpid() == self._process
        if self._descriptor is not None:
            # Processes that were forked have the descriptor: the lock is not theirs to end, and
            # closing it would not end it here.
            if mine:
                with suppress(OSError):
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None
        with suppress(OSError):  # unless something was written
            for folder in self._new if mine else ():
                os.rmdir(folder)
        self._new = []

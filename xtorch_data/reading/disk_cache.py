"""A folder that keeps arrays by name, for all processes of a node and those that come after.

Each entry is a file: a header with its own name, its size and a checksum, and the values as they
are in memory. What is read is compared with the header first, so that whatever befalls a file, a
torn write, a lost block, a renamed file, it is as if it were not there. That is why nothing is
synced to the disk: only time is lost with an entry that a power cut has torn.

Entries are written to a temporary file that takes its name when it is whole, on a thread of its
own, from a copy: readers need no lock, and the values may be changed meanwhile. The bytes of all
entries are counted in one small file, whose lock is held while room is made. Bytes are counted
before they are written, so that a process killed in between leaves a count that is too large, and
all is counted afresh every few minutes and whenever there is no room. Such a recount may miss what
other processes are writing at that moment: by one entry of each, the bound can be passed.

Room is made of entries that nobody has used since this cache was opened, the one used least
recently first. What this run has used stays: an epoch uses everything once, and where that does
not fit, throwing out for the next entry what the next epoch wants would end with no hits at all.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import secrets
import shutil
import stat
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..common.redact import printable

try:
    import fcntl
except ImportError:  # on Windows: processes may pass the bound by what they write side by side
    fcntl = None  # type: ignore[assignment]

__all__ = ["DiskCache", "entry_name"]

logger = logging.getLogger(__name__)

# Goes up whenever older entries must not be read.
FORMAT = 1
# Magic and format, name, bytes of the values, their checksum.
HEADER = struct.Struct("<8s20sQI")
MAGIC = b"xtdata" + bytes([0, FORMAT])
VALUES_AT = 64
# Bytes of all entries, and when they were counted.
COUNT = struct.Struct("<Qd")
COUNT_AGAIN = 600.0  # seconds
# Of the disk, this much stays free: a part, but no more than so many bytes.
FREE_PART, FREE_BYTES = 0.05, 10 * 2**30
# Once room is made it is made for more than one entry.
ROOM_PART = 0.05
# What is opened is no link to a file elsewhere; on Windows these are rare.
NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
# How long another process may hold the lock of the count.
LOCK_SECONDS = 60.0
# Errors of a disk that may have room later.
FULL = (errno.ENOSPC, errno.EDQUOT)
# Seconds until writing is tried again where there was no room.
PAUSE = 60.0
# A use is noted in an entry's time of modification, unless it has one this recent.
NOTED = 60.0
# A temporary file that nobody has written to for so many seconds is of a process that was killed.
STALE = 600.0


def entry_name(*what: bytes) -> str:
    """The name of an entry, from all that tells it from others."""
    found = hashlib.blake2b(digest_size=20)
    for each in what:
        found.update(struct.pack("<Q", len(each)))
        found.update(each)
    return found.hexdigest()


class DiskCache:
    """Arrays in files, by name; see the module. A copy in another process writes by itself.

    In the folder, all entries, of `size` bytes at most, lie in one named after the format, and
    nothing else is ever touched. At most `waiting` bytes wait until they are written: more are not
    kept, so that nobody waits for the disk. Any thread may use it. Raises ValueError if the folder
    is none and cannot become one, or has no entries and takes none.
    """

    def __init__(self, folder: str, size: int, waiting: int) -> None:
        self.folder, self.size, self.waiting = folder, size, waiting
        self._entries = os.path.join(folder, f"xtorch_data-{FORMAT}")
        # Files are stamped by a clock that lags behind by some milliseconds.
        self._opened = time.time() - 0.1
        self._begin()
        if os.path.exists(folder) and not os.path.isdir(folder):
            raise ValueError(f"cache must be a folder, but {printable(folder)} is a file")
        if os.path.islink(self._entries):
            raise ValueError(
                f"{printable(self._entries)} is a symbolic link, and nothing outside the folder of "
                "a cache is touched: remove it, or give the folder that it points to"
            )
        try:
            # If it is there, it may be one that others fill, which serves without being written to.
            _make_folder(self._entries)
        except OSError as error:
            if error.errno in FULL:  # there may be room later
                self._stop_writing(error)
                return
            raise ValueError(
                f"cache={folder!r} cannot be written to: {error.strerror}; give a folder that can"
            ) from error

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()
        self._pending: dict[str, npt.NDArray[np.uint8]] = {}
        self._pending_nbytes = 0
        self._writes_from = 0.0  # when, by the monotonic clock, writing is tried again
        self._told = False  # that it cannot be

    def __getstate__(self) -> dict[str, Any]:
        kept = ("folder", "size", "waiting", "_entries", "_opened")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    # Reading.

    def __contains__(self, name: str) -> bool:
        return name in self._pending or os.path.exists(self._path(name))

    def read(self, name: str, out: npt.NDArray[Any]) -> bool:
        """Fill an array with an entry; whether there was one, whole and of that size.

        The array is contiguous in C order; if there was no such entry, it holds anything.
        """
        values = _bytes_of(out)
        pending = self._pending.get(name)
        if pending is not None:
            if pending.nbytes != values.nbytes:
                return False
            values[:] = pending
            return True
        path = self._path(name)
        if os.path.islink(os.path.dirname(path)):
            return False
        try:
            # Neither what a link points to, nor what would have to be waited for.
            flags = os.O_RDONLY | NO_LINKS | getattr(os, "O_NONBLOCK", 0)
            with open(os.open(path, flags), "rb", buffering=0) as file:
                if self._is_whole(file, name, values):
                    return True
        except OSError:
            return False
        with contextlib.suppress(OSError):  # so that it is written again
            os.unlink(path)
        return False

    def _is_whole(self, file: Any, name: str, values: npt.NDArray[np.uint8]) -> bool:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size != VALUES_AT + values.nbytes:
            return False
        header = file.read(VALUES_AT)
        if len(header) < VALUES_AT:
            return False
        magic, own, nbytes, checksum = HEADER.unpack_from(header)
        if (magic, own, nbytes) != (MAGIC, bytes.fromhex(name), values.nbytes):
            return False
        target, filled = values.data, 0
        while filled < values.nbytes:
            count = file.readinto(target[filled:])
            if not count:
                return False
            filled += count
        if zlib.crc32(values.data) != checksum:
            return False
        if found.st_mtime < max(self._opened, time.time() - NOTED):
            with contextlib.suppress(OSError):  # a folder that others write to
                os.utime(file.fileno())
        return True

    # Writing.

    def offer(self, name: str, values: npt.NDArray[Any]) -> None:
        """Keep a copy of an array, if there is room for it; it is written in passing."""
        if self._process != os.getpid():  # a fork has the object, but not its thread
            self._begin()
        nbytes = values.nbytes
        if not nbytes or time.monotonic() < self._writes_from or name in self:
            return
        with self._lock:
            full = self._pending_nbytes + nbytes > self.waiting
            if name in self._pending or (full and self._pending):
                return
            self._pending_nbytes += nbytes
        copy = np.empty(values.shape, values.dtype)
        np.copyto(copy, values)
        with self._lock:
            if name in self._pending:
                self._pending_nbytes -= nbytes
                return
            self._pending[name] = _bytes_of(copy)
            begin = self._idle.is_set()
            self._idle.clear()
        if begin:
            try:
                # Not a daemon: the end of the process waits for what is to be written.
                threading.Thread(target=self._write_all, name="xtorch_data-disk").start()
            except RuntimeError:  # the interpreter is about to end
                self._forget_pending()

    def wait(self) -> None:
        """Wait until everything is written that was offered in this process."""
        if self._process == os.getpid():
            self._idle.wait()

    def _forget_pending(self) -> None:
        with self._lock:
            self._pending.clear()
            self._pending_nbytes = 0
            self._idle.set()

    def _write_all(self) -> None:
        while True:
            with self._lock:
                name = next(iter(self._pending), None)
                if name is None:
                    self._idle.set()
                    return
                values = self._pending[name]
            try:
                if time.monotonic() >= self._writes_from and not os.path.exists(self._path(name)):
                    self._write(name, values)
            except Exception as error:
                self._stop_writing(error)
            finally:
                with self._lock:
                    if self._pending.pop(name, None) is not None:
                        self._pending_nbytes -= values.nbytes
            del values

    def _stop_writing(self, error: Exception) -> None:
        full = isinstance(error, OSError) and error.errno in FULL
        if not self._told:
            self._told = True
            logger.warning(
                "the cache in %s cannot be written to, so that what is read is not kept%s: %s",
                printable(self.folder),
                " until there is room" if full else "",
                printable(error),
            )
        self._writes_from = time.monotonic() + PAUSE if full else float("inf")

    def _write(self, name: str, values: npt.NDArray[np.uint8]) -> None:
        if not self._reserve(VALUES_AT + values.nbytes):
            self._writes_from = time.monotonic() + PAUSE
            return
        path = self._path(name)
        folder = os.path.dirname(path)
        _make_folder(folder)
        header = HEADER.pack(MAGIC, bytes.fromhex(name), values.nbytes, zlib.crc32(values.data))
        temporary = os.path.join(folder, f"{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            with open(temporary, "xb") as file:
                file.write(header.ljust(VALUES_AT, b"\0"))
                file.write(values.data)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    # Room. One process at a time:

    def _reserve(self, nbytes: int) -> bool:
        """Count so many bytes more, making room for them; whether there is."""
        with self._count() as file:
            found = file.read(COUNT.size)
            used, counted = COUNT.unpack(found) if len(found) == COUNT.size else (0, 0.0)
            now = time.time()
            if not abs(now - counted) <= COUNT_AGAIN or not self._fits(used, nbytes):  # nan, too
                used, counted = self._make_room(nbytes), now
            fits = self._fits(used, nbytes)
            file.seek(0)
            file.write(COUNT.pack(used + nbytes if fits else used, counted))
        return fits

    def _fits(self, used: int, nbytes: int) -> bool:
        disk = shutil.disk_usage(self._entries)
        keep = min(FREE_PART * disk.total, FREE_BYTES)
        return used + nbytes <= self.size and disk.free - nbytes >= keep

    def _make_room(self, nbytes: int) -> int:
        """Count all entries, and remove as many as need be and may; the bytes left."""
        used, now = 0, time.time()
        unused = []
        for path, status in self._files():
            if path.endswith(".tmp") and status.st_mtime < now - STALE:
                _remove(path)
                continue
            used += status.st_size
            if status.st_mtime < self._opened and not path.endswith(".tmp"):
                unused.append((status.st_mtime, status.st_size, path))
        if self._fits(used, nbytes):
            return used
        more = nbytes + int(ROOM_PART * self.size)
        for _, size, path in sorted(unused):
            if _remove(path):
                used -= size
            if self._fits(used, more):
                break
        return used

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(self._entries) as folders:
            inside = [each.path for each in folders if each.is_dir(follow_symlinks=False)]
        for folder in inside:
            # Some may be of others, or removed by another process.
            with contextlib.suppress(OSError), os.scandir(folder) as files:
                for file in files:
                    if file.name.endswith((".cell", ".tmp")):
                        with contextlib.suppress(FileNotFoundError):
                            yield file.path, file.stat(follow_symlinks=False)

    @contextlib.contextmanager
    def _count(self) -> Iterator[BinaryIO]:
        """The file that holds the count, locked where the file system has locks."""
        _make_folder(self._entries)  # someone may have removed it
        flags = os.O_RDWR | os.O_CREAT | NO_LINKS | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(os.path.join(self._entries, "count"), flags, 0o666)
        with open(descriptor, "r+b", buffering=0) as file:
            if fcntl is not None:
                self._lock_count(descriptor)
            yield file

    def _lock_count(self, descriptor: int) -> None:
        """Wait for a lock, but not for ever: a process that was stopped may hold it."""
        end = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TimeoutError(
                        f"another process has held its lock for {LOCK_SECONDS:.0f} s"
                    ) from None
            except OSError:  # a file system without locks
                return
            time.sleep(0.005)

    def _path(self, name: str) -> str:
        return os.path.join(self._entries, name[:2], f"{name}.cell")


def _bytes_of(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The memory of an array that is contiguous in C order."""
    return values.reshape(-1).view(np.uint8)


def _make_folder(path: str) -> None:
    """Make a folder if it is not there; OSError if it would be one elsewhere."""
    os.makedirs(path, exist_ok=True)
    if os.path.islink(path):
        raise OSError(errno.ELOOP, "it is a symbolic link", path)


def _remove(path: str) -> bool:
    with contextlib.suppress(OSError):
        os.unlink(path)
        return True
    return False

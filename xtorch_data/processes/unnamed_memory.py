"""Memory that processes share, without a name that could be left behind."""

from __future__ import annotations

import errno
import multiprocessing
import os
import weakref
from collections import deque
from functools import cache
from multiprocessing import reduction
from multiprocessing.context import get_spawning_popen
from typing import Any, TypeAlias

import torch

__all__ = [
    "Address", "Memory", "SharedIntegers", "UnnamedMemory", "has_unnamed_memory", "new_memory",
    "opened",
]  # fmt: skip

# Integers of many datasets lie side by side: each piece of memory is an open file.
_ARENA_BYTES, _MOST_PLACES = 2**20, 1024


@cache
def has_unnamed_memory(process: int) -> bool:
    """Whether the memory of this process can be opened by its parent: through /proc, on Linux.

    `process` is this one, so that a fork asks anew. Raises OSError if it has too many open files to
    find out.
    """
    parent = multiprocessing.parent_process()
    known = process if parent is None else parent.pid
    if not hasattr(os, "memfd_create"):
        return False
    try:
        os.close(os.memfd_create("xtorch_data"))  # which a sandbox may forbid
        # What this process may do with its parent, its parent may do with it.
        folder = f"/proc/{known}/fd"
        os.readlink(f"{folder}/{os.listdir(folder)[0]}")
    except OSError as error:
        if error.errno == errno.EMFILE:
            raise _too_many_files() from error
        return False
    except IndexError:
        return False
    return True


class NamedMemory:
    """Memory of torch, `bytes`, zeros at first; where there can be none without a name."""

    def __init__(self, nbytes: int) -> None:
        zeros = torch.zeros(nbytes, dtype=torch.uint8, device="cpu")
        self.bytes: torch.Tensor = zeros.share_memory_()  # type: ignore[no-untyped-call]

    def address(self) -> NamedMemory:
        """Itself, which is sent as torch sends tensors."""
        return self


class UnnamedMemory:
    """Memory in a file without a name: it is gone with the last process that has mapped it.

    It takes none of the room in ``/dev/shm``, which containers often have little of. Its `bytes`
    are a tensor, zeros at first. Raises MemoryError if there is not as much, and OSError if this
    process has too many open files.
    """

    def __init__(self, nbytes: int) -> None:
        try:
            file = os.memfd_create("xtorch_data")
        except OSError as error:
            if error.errno == errno.EMFILE:
                raise _too_many_files() from error
            raise
        try:
            os.posix_fallocate(file, 0, nbytes)  # or a later write would end the process
        except OSError as error:
            os.close(file)
            raise MemoryError(
                f"there are no {nbytes:,} bytes of memory for a worker process to share "
                f"({error.strerror}): use fewer workers, a smaller memory= or smaller batches"
            ) from error
        self._own(file, nbytes)

    def _own(self, file: int, nbytes: int) -> None:
        self.file = file
        weakref.finalize(self, os.close, file).atexit = False  # also if it cannot be mapped
        self.bytes = _mapped(f"/proc/self/fd/{file}", nbytes)

    @classmethod
    def inherited(cls, handle: Any, nbytes: int) -> UnnamedMemory:
        """That of the process that has started this one."""
        memory = cls.__new__(cls)
        memory._own(handle.detach(), nbytes)
        return memory

    def address(self) -> tuple[str, int]:
        """Path and size by which `opened` finds it elsewhere, as long as this one keeps it."""
        return f"/proc/{os.getpid()}/fd/{self.file}", self.bytes.nbytes

    def __reduce__(self) -> tuple[Any, ...]:
        return UnnamedMemory.inherited, (reduction.DupFd(self.file), self.bytes.nbytes)


Memory: TypeAlias = UnnamedMemory | NamedMemory
Address: TypeAlias = tuple[str, int] | NamedMemory


def new_memory(nbytes: int) -> Memory:
    """Memory that processes can share, without a name where that can be."""
    return UnnamedMemory(nbytes) if has_unnamed_memory(os.getpid()) else NamedMemory(nbytes)


def opened(address: Address) -> torch.Tensor:
    """The memory of another process."""
    return address.bytes if isinstance(address, NamedMemory) else _mapped(*address)


def _mapped(path: str, nbytes: int) -> torch.Tensor:
    # Keeps no file open, of which a process may have few.
    try:
        return torch.from_file(path, shared=True, size=nbytes, dtype=torch.uint8, device="cpu")
    except RuntimeError as error:  # of torch, which has no class for it
        if os.strerror(errno.EMFILE) in str(error):
            raise _too_many_files() from error
        raise


def _too_many_files() -> OSError:
    return OSError(
        errno.EMFILE,
        f"there can be no memory for processes to share ({os.strerror(errno.EMFILE)}): raise the "
        "limit (ulimit -n), or keep fewer files, datasets or workers at a time",
    )


# In each process: places in memory that are left, by their size.
_places: dict[tuple[int, int], deque[tuple[UnnamedMemory, int]]] = {}


def _place(nbytes: int) -> tuple[UnnamedMemory, int]:
    """Memory, and the begin of a place there that nobody has had: it is zeros."""
    left = _places.setdefault((os.getpid(), nbytes), deque())
    try:
        return left.popleft()
    except IndexError:
        count = min(max(1, _ARENA_BYTES // nbytes), _MOST_PLACES)
        memory = UnnamedMemory(count * nbytes)
        left.extend((memory, place * nbytes) for place in range(1, count))
        return memory, 0


class SharedIntegers:
    """Integers, int64, that a process shares with those it starts; other copies are apart.

    Their `values` are a tensor, zeros at first.
    """

    def __init__(self, count: int) -> None:
        nbytes = 8 * count
        if has_unnamed_memory(os.getpid()):
            self._share(*_place(nbytes), nbytes)
        else:
            self._share(NamedMemory(nbytes), 0, nbytes)

    def _share(self, memory: Memory, begin: int, nbytes: int) -> None:
        self._memory, self._begin = memory, begin
        self.values = memory.bytes[begin : begin + nbytes].view(torch.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        if get_spawning_popen() is None:
            return _copied, (self.values.tolist(),)
        return _inherited, (self._memory, self._begin, self.values.nbytes)


def _inherited(memory: Memory, begin: int, nbytes: int) -> SharedIntegers:
    found = SharedIntegers.__new__(SharedIntegers)
    found._share(memory, begin, nbytes)
    return found


def _copied(values: list[int]) -> SharedIntegers:
    found = SharedIntegers(len(values))
    found.values[:] = torch.tensor(values, dtype=torch.int64, device="cpu")
    return found

"""Memory that processes share, without a name that could be left behind."""

from __future__ import annotations

import multiprocessing
import os
import weakref
from functools import cache
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import Any

import torch

__all__ = ["SharedIntegers", "UnnamedMemory", "has_unnamed_memory"]


@cache
def has_unnamed_memory(process: int) -> bool:
    """Whether the memory of this process can be opened by its parent: through /proc, on Linux.

    Parameters
    ----------
    process : int
        This one. A fork asks anew.
    """
    parent = multiprocessing.parent_process()
    known = process if parent is None else parent.pid
    if not hasattr(os, "memfd_create"):
        return False
    try:  # what this process may do with its parent, its parent may do with it
        folder = f"/proc/{known}/fd"
        os.readlink(f"{folder}/{os.listdir(folder)[0]}")
    except (OSError, IndexError):
        return False
    return True


class UnnamedMemory:
    """Memory in a file without a name: it is gone with the last process that has mapped it.

    It takes none of the room in ``/dev/shm``, which containers often have little of.

    Parameters
    ----------
    nbytes : int
        Its size.

    Attributes
    ----------
    bytes : torch.Tensor
        The memory, zeros at first.

    Raises
    ------
    MemoryError
        If there is not as much.
    """

    def __init__(self, nbytes: int) -> None:
        file = os.memfd_create("xtorch_data")
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
        self.file, self.bytes = file, _mapped(f"/proc/self/fd/{file}", nbytes)
        weakref.finalize(self, os.close, file).atexit = False

    @classmethod
    def inherited(cls, handle: Any, nbytes: int) -> UnnamedMemory:
        """That of the process that has started this one.

        Parameters
        ----------
        handle : DupFd
            Its file.
        nbytes : int
            Its size.
        """
        memory = cls.__new__(cls)
        memory._own(handle.detach(), nbytes)
        return memory

    def address(self) -> tuple[str, int]:
        """Where another process finds it, for `opened`, while this one keeps it; and its size."""
        return f"/proc/{os.getpid()}/fd/{self.file}", self.bytes.nbytes

    @staticmethod
    def opened(address: tuple[str, int]) -> torch.Tensor:
        """The memory of another process.

        Parameters
        ----------
        address : tuple of str and int
            From `address`, there.
        """
        return _mapped(*address)

    def __reduce__(self) -> tuple[Any, ...]:
        return UnnamedMemory.inherited, (DupFd(self.file), self.bytes.nbytes)


def _mapped(path: str, nbytes: int) -> torch.Tensor:
    # Keeps no file open, of which a process may have few.
    return torch.from_file(path, shared=True, size=nbytes, dtype=torch.uint8, device="cpu")


class SharedIntegers:
    """Integers, int64, that a process shares with those it starts; other copies are apart.

    Parameters
    ----------
    count : int
        How many.

    Attributes
    ----------
    values : torch.Tensor
        The integers, zeros at first.
    """

    def __init__(self, count: int) -> None:
        nbytes = 8 * count
        if has_unnamed_memory(os.getpid()):
            self._share(UnnamedMemory(nbytes))
        else:
            zeros = torch.zeros(nbytes, dtype=torch.uint8, device="cpu")
            self._share(zeros.share_memory_())  # type: ignore[no-untyped-call]

    def _share(self, memory: UnnamedMemory | torch.Tensor) -> None:
        self._memory = memory
        found = memory.bytes if isinstance(memory, UnnamedMemory) else memory
        self.values = found.view(torch.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        if get_spawning_popen() is None:
            return _copied, (self.values.tolist(),)
        return _inherited, (self._memory,)


def _inherited(memory: UnnamedMemory | torch.Tensor) -> SharedIntegers:
    found = SharedIntegers.__new__(SharedIntegers)
    found._share(memory)
    return found


def _copied(values: list[int]) -> SharedIntegers:
    found = SharedIntegers(len(values))
    found.values[:] = torch.tensor(values, dtype=torch.int64, device="cpu")
    return found

"""Files that are mapped into memory, and may be cut while somebody looks at them.

Beyond the end of its file a map ends the process, without a word.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.lib.array_utils import byte_bounds

from ..common.redact import printable
from .lazy_arrays import in_memory, layers

__all__ = ["FileMap", "maps_of"]


@dataclass(frozen=True, eq=False)
class FileMap:
    """The map of a file that an array is a view of, and the bytes that it needs of the file."""

    map: mmap.mmap
    offset: int  # of the first value of the array in the file
    end: int  # bytes that the file must have
    name: str  # of the file, where it is known

    @classmethod
    def of(cls, array: Any, name: str = "") -> FileMap | None:
        """The map that an array is a view of; None if there is none, or nothing in it.

        A `np.memmap` knows the name of its file.
        """
        if not isinstance(array, np.ndarray) or not array.size:
            return None
        begin = 0
        found: Any = array
        while found is not None and not isinstance(found, mmap.mmap):
            if isinstance(found, np.memmap) and found.offset is not None:  # no map if it was sent
                begin = found.offset - found.offset % mmap.ALLOCATIONGRANULARITY
                name = name if found.filename is None else os.fspath(found.filename)
            found = found.obj if isinstance(found, memoryview) else getattr(found, "base", None)
        if found is None:
            return None
        origin = np.frombuffer(found, np.uint8).__array_interface__["data"][0]
        offset = begin + array.__array_interface__["data"][0] - origin
        return cls(found, offset, begin + byte_bounds(array)[1] - origin, name)

    def require_whole(self) -> None:
        """Raise ValueError if the file has been cut.

        It costs one question to the system. What is cut later still ends the process: copy what is
        needed at once.
        """
        with contextlib.suppress(OSError):  # such as a map that does not hold on to its file
            nbytes = self.map.size()
            if nbytes < self.end:
                what = printable(self.name) if self.name else "the file"
                raise ValueError(
                    f"{what} was cut off: it has {nbytes} bytes, and {self.end} were mapped into "
                    "memory"
                )


def maps_of(variables: Iterable[xr.Variable]) -> tuple[FileMap, ...]:
    """The maps that variables in memory are views of."""
    found = (FileMap.of(layers(each)[0]) for each in variables if in_memory(each))
    return tuple(each for each in found if each is not None)

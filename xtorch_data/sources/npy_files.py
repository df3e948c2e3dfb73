"""Arrays in ``.npy`` files, read through the file or mapped into memory."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from ..common.redact import printable
from .file_reads import Array, StoredArray, read_array

__all__ = ["NpyFile", "Stamp"]

# Size in bytes, and time of the last change in ns. Not that of the last change of its status: files
# that are linked or get other permissions in the middle of an epoch are no error.
Stamp: TypeAlias = tuple[int, int]


class NpyFile:
    """The place of the values in a ``.npy`` file. It is not open: each look opens it anew.

    Raises ValueError if it is no whole ``.npy`` file, or of a dtype that xarray cannot hold.
    """

    def __init__(self, path: str) -> None:
        self.path, shown = path, printable(path)
        if path.endswith(".npz"):
            raise ValueError(
                f"{shown} is an archive, whose arrays cannot be memory-mapped: save each with "
                "numpy.save, or make a Dataset of what numpy.load reads"
            )
        try:
            mapped = np.lib.format.open_memmap(path, mode="r")
        except OSError:
            raise
        except Exception as error:  # of whatever reads the header as Python
            if "Python objects" in str(error):
                raise ValueError(
                    f"{shown} holds Python objects, which would have to be unpickled and could run "
                    "any code: save numbers or text"
                ) from error
            raise ValueError(f"{shown} is not a whole .npy file: {printable(error)}") from error
        self.shape, self.dtype = mapped.shape, mapped.dtype
        self._order: Any = "C" if mapped.flags.c_contiguous else "F"
        self._strides, self._end = mapped.strides, mapped.offset + mapped.nbytes
        with open(path, "rb") as file:
            self._header = file.read(mapped.offset)
        for dtype in [self.dtype] if self.fields is None else self.fields.values():
            if dtype.base.kind == "V":
                raise ValueError(
                    f"{shown} has dtype {self.dtype}: xarray cannot hold raw bytes, nor records "
                    "inside records. Save plain numbers, such as float32 for bfloat16"
                )

    @property
    def fields(self) -> dict[str, np.dtype[Any]] | None:
        """The dtypes of the fields of an array of records."""
        if self.dtype.names is None:
            return None
        return {name: self.dtype[name] for name in self.dtype.names}

    def stored(self, field: str | None = None) -> StoredArray:
        """The place in the file of the array, or of a field of its records."""
        begin, dtype = len(self._header), self.dtype
        if field is not None:
            assert dtype.fields is not None
            dtype, within = dtype.fields[field][:2]
            begin += within
        nothing = np.empty(dtype.shape, dtype.base)  # of one record
        shape, strides = (*self.shape, *dtype.shape), (*self._strides, *nothing.strides)
        return StoredArray(begin, dtype.base, shape, strides)

    def read(self, stored: StoredArray, key: Sequence[Any], dtype: np.dtype[Any]) -> Array:
        """The selection of a key, read from the file, which may be cut at any time.

        Raises ValueError if the file has been cut, or holds another array now.
        """
        with open(self.path, "rb", buffering=0) as file:
            self._require_same(file)
            return read_array(file, stored, key, dtype)

    def mapped(self) -> np.memmap[Any, Any]:
        """The array, mapped as long as somebody refers to it.

        Who looks at it while the file is cut ends the process. Raises ValueError if the file has
        been cut, or holds another array now.
        """
        with open(self.path, "rb", buffering=0) as file:
            self._require_same(file)
            return np.memmap(file, self.dtype, "r", len(self._header), self.shape, self._order)

    def _require_same(self, file: io.FileIO) -> None:
        if file.read(len(self._header)) != self._header:
            raise ValueError(f"{printable(self.path)} holds another array than when it was opened")
        if (nbytes := os.fstat(file.fileno()).st_size) < self._end:
            raise ValueError(
                f"{printable(self.path)} was cut off: it has {nbytes} bytes of {self._end}"
            )

    def stamp(self) -> Stamp:
        """A stamp of the file, which changes when it is written."""
        found = os.stat(self.path)
        return found.st_size, found.st_mtime_ns

    def require_unchanged(self, stamp: Stamp) -> None:
        """Raise ValueError if the file has changed since it had a stamp.

        A map shows other values then, and beyond the end of the file it would end the process.
        """
        if self.stamp() != stamp:
            raise ValueError(
                f"{printable(self.path)} has changed since it was mapped into memory: open it "
                "again, and make a dataset of that"
            )

"""Arguments of a dataset, checked."""

from __future__ import annotations

import os
from typing import Any, cast, get_args

import dask.utils
import numpy as np
import numpy.typing as npt
import torch

from ..common.integers import as_integer
from ..common.spelling import spelled
from ..planning.intervals import Uneven

__all__ = [
    "as_batch_size",
    "as_bytes",
    "as_cache",
    "as_epoch",
    "as_epoch_size",
    "as_flag",
    "as_num_workers",
    "as_numbers",
    "as_on_error",
    "as_prefetch",
    "as_ranks_and_workers",
    "as_retries",
    "as_seed",
    "as_uneven",
    "numpy_dtype",
]


# Bytes of a cache on disk, unless the user says otherwise.
CACHE_SIZE = "64 GiB"


def as_batch_size(batch_size: int | None) -> int | None:
    """A batch size, 1 or more, or None."""
    if batch_size is None:
        return None
    name = spelled("batch_size")
    if isinstance(batch_size, bool):
        raise TypeError(f"{name} must be an integer or None, not a bool")
    size = as_integer(batch_size, name, " or None")
    if size < 1:
        raise ValueError(f"{name} must be 1 or more, or None, got {size}")
    return size


def as_flag(value: bool, name: str) -> bool:
    """True or False, as a bool of Python or numpy."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return bool(value)


def as_seed(seed: int) -> int:
    """A seed as numpy takes it: an integer that is not negative."""
    return _not_negative(seed, "seed")


def as_epoch(epoch: int) -> int:
    """The number of an epoch."""
    return _not_negative(epoch, "epoch")


def as_epoch_size(size: int | None) -> int | None:
    """Number of samples in an epoch, 1 or more, or None for all."""
    if size is None:
        return None
    number = as_integer(size, "epoch_size", " or None")
    if number < 1 or isinstance(size, bool):
        raise ValueError(f"epoch_size must be 1 or more, or None, got {size}")
    return number


def as_retries(retries: int) -> int:
    """Number of times that a read is tried again."""
    return _not_negative(retries, "retries")


def as_prefetch(prefetch: int) -> int:
    """Number of batches on the device ahead: 0 or more."""
    return _count(prefetch, "prefetch")


def as_num_workers(num_workers: int) -> int:
    """Number of processes that load: 0 or more."""
    return _count(num_workers, "num_workers")


def as_on_error(on_error: str) -> str:
    """Rule for chunks that cannot be read."""
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
    return on_error


def as_ranks_and_workers(world_size: int, num_workers: int) -> tuple[int, int]:
    """Numbers of ranks, 1 or more, and of workers."""
    if world_size < 1 or num_workers < 0:
        raise ValueError("world_size must be 1 or more and num_workers 0 or more")
    return world_size, num_workers


def _count(value: int, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} must be an integer, 0 or more, not {value!r}")
    return value


def _not_negative(value: int, name: str) -> int:
    number = as_integer(value, name)
    if number < 0:
        raise ValueError(f"{name} must not be negative, got {number}")
    return number


def as_numbers(indices: Any, samples: int) -> npt.NDArray[np.int64]:
    """Sample numbers from indices, which may be negative: shape ``(index,)``.

    Raises
    ------
    TypeError
        If they are not integers, one after the other.
    IndexError
        If there is no such sample.
    """
    found = np.asarray(indices)
    if found.size == 0:
        return np.empty(0, np.int64)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise TypeError(f"indices must be integers, one after the other, not {indices!r}")
    found = found.astype(np.int64)
    outside = found[(found < -samples) | (found >= samples)]
    if len(outside):
        raise IndexError(f"sample {outside[0]} is out of range for {samples} samples")
    return np.where(found < 0, found + samples, found)


def as_cache(cache: Any, cache_size: int | str | None) -> tuple[bool, str | None, int]:
    """Whether memory keeps blocks; the folder that keeps chunks, if any; bytes it may take.

    Raises
    ------
    TypeError
        If `cache` is neither a bool nor a path.
    ValueError
        If it is no local path, or `cache_size` is given without one.
    """
    if isinstance(cache, (bool, np.bool_)):
        if cache_size is not None:
            raise ValueError("cache_size bounds a folder: give cache=, its path")
        return bool(cache), None, 0
    if not isinstance(cache, (str, os.PathLike)):
        raise TypeError(f"cache must be True, False or the path of a folder, not {cache!r}")
    path = os.fspath(cache)
    if not isinstance(path, str) or not path or "://" in path:
        raise ValueError(f"cache must be a local folder, not {cache!r}")
    size = as_bytes(CACHE_SIZE if cache_size is None else cache_size, "cache_size")
    return False, os.path.abspath(os.path.expanduser(path)), size


def as_bytes(memory: int | str, name: str = "memory") -> int:
    """Bytes from a number or from text such as ``"1 GiB"``."""
    try:
        if isinstance(memory, bool):
            raise TypeError
        given = memory.item() if isinstance(memory, np.number) else memory
        nbytes = int(dask.utils.parse_bytes(given))
    except (ValueError, TypeError, AttributeError):
        raise ValueError(
            f"{name} must be a number of bytes or text such as '1 GiB', not {memory!r}"
        ) from None
    if nbytes < 1:
        raise ValueError(f"{name} must be positive, got {memory!r}")
    return nbytes


def as_uneven(uneven: str | None, shuffle: bool) -> Uneven:
    """Rule for samples that cannot be shared equally; the default depends on `shuffle`."""
    if uneven is None:
        return "drop" if shuffle else "pad"
    if uneven not in get_args(Uneven):
        raise ValueError(f"uneven must be one of {list(get_args(Uneven))}, not {uneven!r}")
    return cast(Uneven, uneven)


def numpy_dtype(dtype: Any) -> tuple[np.dtype[Any], torch.dtype | None]:
    """The numpy dtype to gather floating data in, and the torch dtype to cast to afterwards."""
    if dtype is None:
        return np.dtype(np.float32), None
    if isinstance(dtype, torch.dtype):
        if not dtype.is_floating_point:
            raise TypeError(f"dtype is that of floating data, not {dtype}")
        try:
            return torch.empty(0, dtype=dtype, device="cpu").numpy().dtype, None
        except TypeError:  # bfloat16 and the like: numpy does not have them
            return np.dtype(np.float32), dtype
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype must be a torch or numpy dtype, not {dtype!r}") from None
    if found.kind != "f" or found.itemsize > 8:
        raise TypeError(f"dtype is that of floating data, float16, float32 or float64, not {found}")
    return found.newbyteorder("="), None

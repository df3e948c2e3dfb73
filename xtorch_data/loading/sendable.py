"""Whether a dataset and its functions can be sent to worker processes that are started afresh."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from io import RawIOBase
from multiprocessing.context import get_spawning_popen, set_spawning_popen
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
import xarray as xr

from ..common.redact import printable
from ..samples.transforms import Transform

__all__ = ["require_sendable"]

_OR = "or use num_workers=0, which loads ahead on threads"


def require_sendable(
    dataset: Any, functions: Iterable[Transform], data: xr.Dataset, worker_init_fn: Any
) -> None:
    """Raise if workers cannot be started with a dataset, saying why and what to do instead.

    Sent with it are `functions` of the user, the `data` and `worker_init_fn`.

    Raises
    ------
    TypeError
        If something cannot be sent.
    RuntimeError
        If the script cannot be run by workers.
    """
    _require_main_module()
    given = [(each.argument, each.function) for each in functions]
    for argument, function in [*given, ("worker_init_fn", worker_init_fn)]:
        try:
            _pickle(function)
            if getattr(function, "__module__", None) == "__main__":
                if not hasattr(sys.modules["__main__"], "__file__"):
                    raise TypeError("it was typed at a prompt or in a notebook")
        except Exception as error:
            raise TypeError(
                f"{argument} cannot be sent to worker processes ({printable(error)}): "
                f"{_advice(error)}, or use num_workers=0"
            ) from error
    try:
        _pickle(dataset)
    except Exception as error:
        _require_variables(data)
        raise TypeError(
            f"the dataset cannot be sent to worker processes ({printable(error)}): make it of "
            "data that is opened by its path or URL, and without open files, locks or generators, "
            f"{_OR}"
        ) from error


def _advice(error: Exception) -> str:
    """Advice for a function that cannot be sent."""
    if "fork context" in str(error):  # as multiprocessing says of its locks, and what has one
        return (
            "make what it shares with the context by which workers start, such as "
            "multiprocessing.get_context('forkserver').Value('i')"
        )
    return (
        "define it at the top level of a module that can be imported, not inside a function or as "
        "a lambda, and let it hold no lock of threads, open file or generator"
    )


def _require_variables(data: xr.Dataset) -> None:
    for name, variable in data.variables.items():
        try:
            _pickle(variable)
        except Exception as error:
            raise TypeError(
                f"variable {name!r} cannot be sent to worker processes ({printable(error)}): open "
                "the data by its path or URL, not from a file that is open already or an object of "
                f"this process, {_OR}"
            ) from error


def _require_main_module() -> None:
    """Raise if workers cannot run the script, as `multiprocessing` lets them."""
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if getattr(main, "__spec__", None) is not None or path is None or os.path.exists(path):
        return
    if os.path.splitext(os.path.basename(path))[0] == "ipython":  # which they do not run
        return
    raise RuntimeError(
        f"worker processes run the script again, but it was read from {path!r}, such as standard "
        f"input, which is no file that they can read: save it in a file, {_OR}"
    )


class _Pickler(ForkingPickler):
    """Tries to pickle, but for numbers in memory, which may be many and can always be sent."""

    def reducer_override(self, obj: Any) -> Any:
        """Nothing in the place of arrays and tensors."""
        if isinstance(obj, torch.Tensor):
            return int, ()
        if type(obj) is np.ndarray and not obj.dtype.hasobject:
            return int, ()
        return NotImplemented


class _Nowhere(RawIOBase):
    """A file of which nothing is kept."""

    def write(self, data: Any) -> int:
        """Take bytes."""
        return len(data)


class _Start:
    """Stands for a process that is being started, which alone gets what processes share."""

    DupFd = int

    def duplicate_for_child(self, handle: int) -> int:
        """Nothing new."""
        return handle


def _pickle(something: Any) -> None:
    before = get_spawning_popen()
    start: Any = _Start()
    set_spawning_popen(start)  # of this thread alone
    try:
        _Pickler(_Nowhere()).dump(something)
    finally:
        set_spawning_popen(before)

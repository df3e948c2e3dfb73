"""Files written by ``torch.save``, whose tensors are mapped into memory while they are used."""

from __future__ import annotations

import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.redact import printable, printable_lines
from .file_stamps import file_stamp, stamp_of

if TYPE_CHECKING:  # torch is slow to import, and xarray asks all engines about any file
    import torch

__all__ = ["Like", "PtFiles", "file_names"]

Array = np.ndarray[Any, np.dtype[Any]]
# A tensor has no name if the file holds nothing else.
Entries = dict[str | None, "torch.Tensor"]
Held = tuple[Entries, tuple[int, ...]]  # and the stamp of the file

# Files kept mapped for what is read of them next; mapped, they take no memory of their own.
MAPPED_FILES = 256


@dataclass(frozen=True)
class Like:
    """Shape and dtypes that all tensors of an entry must have."""

    shape: tuple[int, ...]
    stored: torch.dtype  # in the files
    dtype: np.dtype[Any]  # in memory


class PtFiles:
    """Files that hold tensors like those of the first one; made when they are opened.

    Variables are read one by one or side by side. A file is loaded once for all of them, if they do
    not come too far apart. Any number of threads may read. Entries that are `dropped` are left out;
    `first` are those of the first file. Raises ValueError if that holds anything but tensors and
    numbers.
    """

    def __init__(self, paths: Sequence[str], dropped: frozenset[str] = frozenset()) -> None:
        # One array, as a list of a million objects would be copied bit by bit in forked workers.
        self._paths = np.array([os.fsencode(path) for path in paths])
        self._dropped = dropped
        self._begin()
        entries, _ = self._load(0)
        self.first = {
            entry: Like(
                tuple(tensor.shape), tensor.dtype, _numpy_dtype(tensor, self.path(0), entry)
            )
            for entry, tensor in entries.items()
        }

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._held: OrderedDict[int, Future[Held]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, place: int) -> str:
        """Path of a file."""
        return os.fsdecode(bytes(self._paths[place]))

    def stamps(self) -> list[Any]:
        """Stamps of all files, as they are read from now on."""
        found = [file_stamp(self.path(place)) for place in range(len(self))]
        with self._lock:
            self._held.clear()  # they may map files that had these paths before
        return found

    def values(self, place: int, entry: str | None, select: Callable[[Array], Array]) -> Array:
        """Some values of a tensor, copied out of its file.

        `select` takes what is wanted of an array of the tensor's shape. Raises ValueError if the
        file is unlike the first one; the message names it.
        """
        found, like = self._entries(place), self.first[entry]
        here, first = printable(self.path(place)), printable(self.path(0))
        if found.keys() != self.first.keys():
            raise ValueError(
                f"{here} has the entries {list(found)}, but {first} has "
                f"{list(self.first)}: all files must have the same"
            )
        tensor = found[entry]
        if (tuple(tensor.shape), tensor.dtype) != (like.shape, like.stored):
            what = "its tensor" if entry is None else f"its {entry!r}"
            raise ValueError(
                f"{here}: {what} is {tensor.dtype} of shape {tuple(tensor.shape)}, but "
                f"in {first} it is {like.stored} of shape {like.shape}: all must be alike"
            )
        return _copied(tensor, like, select)

    def _entries(self, place: int) -> Entries:
        """The tensors of a file, for all threads that ask while it is held."""
        if self._process != os.getpid():  # a fork may have inherited a lock that is held
            self._begin()
        stamp = stamp_of(os.stat(self.path(place)))
        with self._lock:
            held = self._held.get(place)
            # Of a file that was cut, what is mapped would end the process.
            if held is not None and held.done() and held.result()[1] != stamp:
                held = None
            loads = held is None
            if held is None:
                held = self._held[place] = Future()
                if len(self._held) > MAPPED_FILES:
                    self._held.popitem(last=False)
        if loads:
            mapped = False
            try:
                entries, mapped = self._load(place)
                held.set_result((entries, stamp))
            except BaseException as error:
                held.set_exception(error)
            if not mapped:
                with self._lock:
                    self._held.pop(place, None)
        return held.result()[0]

    def _load(self, place: int) -> tuple[Entries, bool]:
        """The tensors of a file, and whether they are mapped."""
        import torch

        path, mapped = self.path(place), True
        shown = printable(path)
        try:
            try:
                loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError as error:
                if "mmap can only be used" not in str(error):
                    raise
                mapped = False  # the format of torch before 1.6
                loaded = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{shown} is no file of tensors, or holds objects that are not loaded because they "
                "could run any code: save a tensor, or a dict of tensors "
                f"({printable(_first_line(error))})"
            ) from error
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{shown} has bytes in its path that are no text, and torch opens none such: "
                "rename it"
            ) from error
        except OSError:
            raise
        except Exception as error:  # torch takes what the file says of itself for granted
            what = f"{type(error).__name__}: {printable_lines(str(error))}"
            raise ValueError(f"{shown} is not a whole file of tensors: {what}") from error
        return self._as_entries(loaded, path), mapped

    def _as_entries(self, loaded: Any, path: str) -> Entries:
        import torch

        shown = printable(path)
        if isinstance(loaded, torch.Tensor):
            return {None: _plain(loaded, path, None)}
        if not isinstance(loaded, Mapping):
            raise ValueError(
                f"{shown} holds a {type(loaded).__name__}: save a tensor, or a dict of tensors"
            )
        entries: Entries = {}
        for name, value in loaded.items():
            if name in self._dropped:
                continue
            if isinstance(value, (bool, int, float)):
                value = torch.from_numpy(np.array(value))
            if not isinstance(name, str) or not isinstance(value, torch.Tensor):
                raise ValueError(
                    f"{shown}: entry {name!r} is a {type(value).__name__}; entries must have text "
                    f"as keys and be tensors or numbers. drop_variables=[{name!r}] leaves it out"
                )
            entries[name] = _plain(value, path, name)
        if not entries:
            raise ValueError(f"{shown} holds no tensor")
        return entries

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        for name in ("_process", "_lock", "_held"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()


def file_names(paths: Sequence[str]) -> Array:
    """Names of files without their suffix; with their folders where they would not differ."""
    stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    if len(set(stems)) < len(stems):
        folder = os.path.commonpath([os.path.dirname(path) for path in paths])
        stems = [os.path.splitext(os.path.relpath(path, folder))[0] for path in paths]
    return np.array(stems)


def _plain(tensor: torch.Tensor, path: str, entry: str | None) -> torch.Tensor:
    """A tensor that an array can view."""
    import torch

    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        what = "the tensor" if entry is None else f"entry {entry!r}"
        raise ValueError(
            f"{printable(path)}: {what} is sparse, nested or quantized: save it dense, as numbers"
        )
    return tensor.detach().resolve_conj().resolve_neg()


def _numpy_dtype(tensor: torch.Tensor, path: str, entry: str | None) -> np.dtype[Any]:
    """Dtype in memory: NumPy's own, or float32 for narrow floating ones that it lacks."""
    import torch

    nothing = torch.empty(0, dtype=tensor.dtype, device="cpu")
    try:
        return nothing.numpy().dtype
    except TypeError as error:
        if tensor.dtype.is_floating_point:
            return nothing.float().numpy().dtype
        what = "the tensor" if entry is None else repr(entry)
        raise ValueError(
            f"{printable(path)}: {what} has dtype {tensor.dtype}, "
            "which NumPy lacks; save it as another"
        ) from error


def _copied(tensor: torch.Tensor, like: Like, select: Callable[[Array], Array]) -> Array:
    import torch

    if like.dtype == np.float32 and like.stored != torch.float32:
        # NumPy can move these numbers only as integers of their width.
        bits = {1: torch.int8, 2: torch.int16}[like.stored.itemsize]
        moved = np.array(select(tensor.view(bits).numpy()), order="C")
        return torch.from_numpy(moved).view(like.stored).float().numpy()
    return np.array(select(tensor.numpy()), order="C")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

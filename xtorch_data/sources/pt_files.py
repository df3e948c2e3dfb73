"""Files written by ``torch.save``, of whose tensors is read what is wanted."""

from __future__ import annotations

import mmap
import os
import pickle
import struct
import sys
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.redact import printable, printable_lines
from .file_reads import StoredArray, read_array, selected
from .file_stamps import file_stamp, stamp_of

if TYPE_CHECKING:  # torch is slow to import, and xarray asks all engines about any file
    import torch

__all__ = ["Like", "PtFiles", "file_names"]

Array = np.ndarray[Any, np.dtype[Any]]
# A tensor has no name if the file holds nothing else.
Tensors = dict[str | None, "torch.Tensor"]

# Files of which is kept where their tensors lie, for what is read of them next.
KNOWN_FILES = 4096


@dataclass(frozen=True)
class Like:
    """Shape and dtypes that all tensors of an entry must have."""

    shape: tuple[int, ...]
    stored: torch.dtype  # in the files
    dtype: np.dtype[Any]  # in memory


@dataclass(frozen=True)
class Entry:
    """A tensor of a file: where its values lie or, where that is not known, the values.

    Of floats that NumPy lacks, they are integers of their width.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    values: StoredArray | Array


Entries = dict[str | None, Entry]
Held = tuple[Entries, tuple[int, ...]]  # and the stamp of the file


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
            name: Like(entry.shape, entry.dtype, _numpy_dtype(entry.dtype, self.path(0), name))
            for name, entry in entries.items()
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
            self._held.clear()  # they may be of files that had these paths before
        return found

    def values(self, place: int, name: str | None, key: Sequence[Any]) -> Array:
        """The selection of a key of a tensor, read from its file.

        Raises ValueError if the file is unlike the first one, or has been cut; the message names
        it.
        """
        (found, stamp), like = self._known(place), self.first[name]
        here, first = printable(self.path(place)), printable(self.path(0))
        if found.keys() != self.first.keys():
            raise ValueError(
                f"{here} has the entries {list(found)}, but {first} has "
                f"{list(self.first)}: all files must have the same"
            )
        entry = found[name]
        if (entry.shape, entry.dtype) != (like.shape, like.stored):
            what = "its tensor" if name is None else f"its {name!r}"
            raise ValueError(
                f"{here}: {what} is {entry.dtype} of shape {entry.shape}, but "
                f"in {first} it is {like.stored} of shape {like.shape}: all must be alike"
            )
        if not isinstance(entry.values, StoredArray):
            return _as_declared(np.array(selected(entry.values, key), order="C"), like)
        with open(self.path(place), "rb", buffering=0) as file:
            if stamp_of(os.fstat(file.fileno())) != stamp:
                raise ValueError(f"{here} has changed while it was read")
            values = read_array(file, entry.values, key, entry.values.dtype)
        return _as_declared(values, like)

    def _known(self, place: int) -> Held:
        """The tensors of a file, for all threads that ask while it is held, and its stamp."""
        if self._process != os.getpid():  # a fork may have inherited a lock that is held
            self._begin()
        stamp = stamp_of(os.stat(self.path(place)))
        with self._lock:
            held = self._held.get(place)
            # In a file that was written anew they may lie elsewhere.
            if held is not None and held.done() and held.result()[1] != stamp:
                held = None
            loads = held is None
            if held is None:
                held = self._held[place] = Future()
                if len(self._held) > KNOWN_FILES:
                    self._held.popitem(last=False)
        if loads:
            in_file = False
            try:
                entries, in_file = self._load(place)
                held.set_result((entries, stamp))
            except BaseException as error:
                held.set_exception(error)
            if not in_file:
                with self._lock:
                    self._held.pop(place, None)
        return held.result()

    def _load(self, place: int) -> tuple[Entries, bool]:
        """The tensors of a file, and whether their values have stayed in it."""
        path = self.path(place)
        records = _records(path)
        if records is not None:
            storages: dict[int, int] = {}  # bytes of each, by its address in the map

            def note(storage: torch.UntypedStorage, location: str) -> torch.UntypedStorage:
                if storage.nbytes():
                    storages[storage.data_ptr()] = storage.nbytes()
                return storage

            # Nobody looks at the map: a file that is cut would end the process.
            tensors = self._tensors(_loaded(path, map_location=note, mmap=True), path)
            begin = _begin_of_map(storages, records)
            if begin is not None and not any(t.is_conj() or t.is_neg() for t in tensors.values()):
                return {
                    name: _in_file(tensor, begin)
                    if not tensor.numel() or tensor.untyped_storage().data_ptr() in storages
                    else _in_memory(tensor)
                    for name, tensor in tensors.items()
                }, True
        # Of torch before 1.6, or otherwise unusual: it is loaded whole, each time.
        tensors = self._tensors(_loaded(path, map_location="cpu"), path)
        return {name: _in_memory(tensor) for name, tensor in tensors.items()}, False

    def _tensors(self, loaded: Any, path: str) -> Tensors:
        import torch

        shown = printable(path)
        if isinstance(loaded, torch.Tensor):
            return {None: _plain(loaded, path, None)}
        if not isinstance(loaded, Mapping):
            raise ValueError(
                f"{shown} holds a {type(loaded).__name__}: save a tensor, or a dict of tensors"
            )
        entries: Tensors = {}
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


def _loaded(path: str, **how: Any) -> Any:
    """The content of a file, loaded by torch."""
    import torch

    shown = printable(path)
    try:
        return torch.load(path, weights_only=True, **how)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{shown} is no file of tensors, or holds objects that are not loaded because they "
            "could run any code: save a tensor, or a dict of tensors "
            f"({printable(_first_line(error))})"
        ) from error
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{shown} has bytes in its path that are no text, and torch opens none such: rename it"
        ) from error
    except OSError:
        raise
    except Exception as error:  # torch takes what the file says of itself for granted
        what = f"{type(error).__name__}: {printable_lines(str(error))}"
        raise ValueError(f"{shown} is not a whole file of tensors: {what}") from error


def _records(path: str) -> dict[int, int] | None:
    """Bytes of each storage of a file by its place in the file, which is a zip archive.

    None if it is none, or if torch would change the bytes before it has the values.
    """
    found: dict[int, int] = {}
    order: bytes | None = None
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                for record in archive.infolist():
                    _, inside, last = record.filename.rpartition("/data/")
                    if record.filename.endswith("/byteorder") and record.file_size < 16:
                        order = archive.read(record)
                    if not inside or "/" in last or not record.file_size:
                        continue
                    if record.compress_type != zipfile.ZIP_STORED:
                        return None
                    file.seek(record.header_offset + 26)
                    name, extra = struct.unpack("<HH", file.read(4))
                    found[record.header_offset + 30 + name + extra] = record.file_size
        except OSError:
            raise
        except Exception:  # whatever is wrong with it, torch says what
            return None
    return found if order == sys.byteorder.encode() else None


def _begin_of_map(storages: Mapping[int, int], records: Mapping[int, int]) -> int | None:
    """The address of the first byte of a file that torch has mapped, by all its storages.

    None if they do not lie as the records of the file do.
    """
    begin = min(storages, default=0) - min(records, default=0)
    alike = {at - begin: nbytes for at, nbytes in storages.items()} == records
    return begin if alike and begin % mmap.PAGESIZE == 0 else None


def _plain(tensor: torch.Tensor, path: str, name: str | None) -> torch.Tensor:
    """A tensor that an array can view."""
    import torch

    unlike = tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized
    if unlike or tensor.device.type != "cpu":
        what = "the tensor" if name is None else f"entry {name!r}"
        raise ValueError(
            f"{printable(path)}: {what} is sparse, nested or quantized, or has no values: save it "
            "dense, as numbers"
        )
    return tensor.detach()


def _in_file(tensor: torch.Tensor, begin: int) -> Entry:
    """The entry of a tensor that is a view of the map of its file."""
    shape, dtype = tuple(tensor.shape), _bits(tensor.dtype)
    strides = tuple(stride * dtype.itemsize for stride in tensor.stride())
    storage = tensor.untyped_storage().data_ptr() - begin
    offset = storage + int(tensor.storage_offset()) * dtype.itemsize
    return Entry(shape, tensor.dtype, StoredArray(offset, dtype, shape, strides))


def _in_memory(tensor: torch.Tensor) -> Entry:
    import torch

    values = tensor.resolve_conj().resolve_neg()
    try:
        array = values.numpy()
    except TypeError:
        array = values.view(getattr(torch, f"int{8 * values.itemsize}")).numpy()
    return Entry(tuple(tensor.shape), tensor.dtype, array)


def _bits(dtype: torch.dtype) -> np.dtype[Any]:
    """The dtype of NumPy, or of integers as wide as numbers that it lacks."""
    import torch

    try:
        return torch.empty(0, dtype=dtype, device="cpu").numpy().dtype
    except TypeError:
        return np.dtype(f"i{dtype.itemsize}")


def _numpy_dtype(dtype: torch.dtype, path: str, name: str | None) -> np.dtype[Any]:
    """Dtype in memory: NumPy's own, or float32 for narrow floating ones that it lacks."""
    import torch

    nothing = torch.empty(0, dtype=dtype, device="cpu")
    try:
        return nothing.numpy().dtype
    except TypeError as error:
        if dtype.is_floating_point:
            return nothing.float().numpy().dtype
        what = "the tensor" if name is None else repr(name)
        raise ValueError(
            f"{printable(path)}: {what} has dtype {dtype}, which NumPy lacks; save it as another"
        ) from error


def _as_declared(values: Array, like: Like) -> Array:
    """Values of a tensor as numbers that NumPy has."""
    import torch

    if like.dtype == np.float32 and like.stored != torch.float32:
        return torch.from_numpy(values).view(like.stored).float().numpy()
    return values


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

"""xarray engines for the files of PyTorch tutorials: arrays in ``.npy``, tensors in ``.pt``."""

from __future__ import annotations

import glob
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendEntrypoint

from ..common.redact import printable, redacted
from .file_reads import selected
from .file_stamps import file_stamp
from .lazy_arrays import SlicedArray, lazily
from .npy_files import NpyFile
from .pt_files import PtFiles, file_names

__all__ = ["NpyBackendEntrypoint", "PtBackendEntrypoint"]

Array = np.ndarray[Any, np.dtype[Any]]


class NpyBackendEntrypoint(BackendEntrypoint):
    """Opens ``.npy`` files lazily.

    ``xarray.open_dataset("features.npy", engine="npy", dims=("time", "station"))``. No file is
    held open: each read opens the file, reads what it wants and closes it. So the dataset can be
    pickled, forked and used by any number of threads, and a file that is cut is an error.
    """

    description = "Open NumPy .npy files lazily"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "dims", "name")

    def open_dataset(  # engines may add parameters of their own
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        dims: Hashable | Sequence[Hashable] | None = None,
        name: Hashable | None = None,
    ) -> xr.Dataset:
        """Open a file.

        Parameters
        ----------
        filename_or_obj : str or path
            A local ``.npy`` file.
        drop_variables : str or iterable of str, optional
            Variables to leave out.
        dims : sequence of Hashable, optional
            Names of the dims; ``dim_0``, ``dim_1``, … by default.
        name : Hashable, optional
            Name of the variable; that of the file without ``.npy`` by default. An array of records
            (a structured dtype) becomes a variable for every field, named as the fields are.

        Returns
        -------
        xarray.Dataset
            Its variables are read when they are used.

        Raises
        ------
        ValueError
            If it is no ``.npy`` file, is cut off, holds Python objects, which are never unpickled,
            or if `dims` or `name` do not fit.
        """
        path = _local(filename_or_obj, "npy")
        file = NpyFile(path)
        own = _dims(dims, file.shape, path)
        if file.fields is None:
            label = _stem(path) if name is None else name
            return _dataset({label: lazily(own, _NpyArray(file))}, drop_variables, path)
        if name is not None:
            raise ValueError(
                f"name={name!r} names one array, but {printable(path)} has records of "
                f"{list(file.fields)}"
            )
        variables: dict[Hashable, xr.Variable] = {}
        for field, dtype in file.fields.items():
            inner = [f"{field}_dim_{place}" for place in range(len(dtype.shape))]
            variables[field] = lazily((*own, *inner), _NpyArray(file, field))
        return _dataset(variables, drop_variables, path)

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether it is named like a ``.npy`` file.

        Parameters
        ----------
        filename_or_obj : Any
            What is to be opened.
        """
        return _is_named(filename_or_obj, ".npy")


class PtBackendEntrypoint(BackendEntrypoint):
    """Opens ``.pt`` files: a folder of samples, each a tensor or a dict of tensors, or one file.

    ``xarray.open_dataset("folder", engine="pt")``. Each file is a place along the dim ``sample``,
    whose coordinate is the name of the file without ``.pt``, and each entry of the dict is a
    variable. The first file is looked at when the folder is opened; the others are read when they
    are used, each as a whole, and must be like it. Files are loaded with ``weights_only=True``, so
    that no code in them is run.
    """

    description = "Open tensors written by torch.save: a folder of samples, or one file"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "dims", "name")

    def open_dataset(  # engines may add parameters of their own
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        dims: Sequence[Hashable] | Mapping[Any, Sequence[Hashable]] | None = None,
        name: Hashable | None = None,
    ) -> xr.Dataset:
        """Open a folder of samples, or one file.

        Parameters
        ----------
        filename_or_obj : str, path or sequence of these
            A folder, of which all ``.pt`` files are samples, sorted by name; a pattern such as
            ``"folder/*/x_*.pt"``, sorted likewise; a list of files, in its order; or one file,
            which makes a Dataset without the dim ``sample``.
        drop_variables : str or iterable of str, optional
            Entries to leave out, also such as hold no tensor.
        dims : sequence of Hashable, or mapping of str to sequence of Hashable, optional
            Names of the dims of one tensor (by default ``dim_0``, …), or of those of entries (by
            default ``NAME_dim_0``, …).
        name : Hashable, optional
            Name of the variable if each file holds one tensor; by default that of the folder, or of
            the one file without ``.pt``.

        Returns
        -------
        xarray.Dataset
            Its variables are read when they are used. Floating dtypes that NumPy lacks, such as
            ``bfloat16``, become ``float32``.

        Raises
        ------
        FileNotFoundError
            If there is no file.
        ValueError
            If the first file holds something else, or if `dims` or `name` do not fit; and when
            others are read, if one is unlike the first. The message names the file.
        """
        paths, folder = _sample_files(filename_or_obj)
        dropped = [drop_variables] if isinstance(drop_variables, str) else drop_variables or ()
        files = PtFiles(paths, frozenset(dropped))
        entries = files.first
        if name is not None and None not in entries:
            raise ValueError(
                f"name={name!r} names one tensor, but {printable(paths[0])} has {list(entries)}"
            )
        given = _dims_of_entries(dims, list(entries), paths[0])
        if name is None:
            name = os.path.basename(folder) if folder else _stem(paths[0])
        variables: dict[Hashable, xr.Variable] = {}
        for entry, like in entries.items():
            label, prefix = (name, "") if entry is None else (entry, f"{entry}_")
            own = _dims(given.get(entry), like.shape, paths[0], prefix)
            if folder is None:
                variables[label] = lazily(own, _PtArray(files, entry))
                continue
            if "sample" in (label, *own):
                raise ValueError(
                    f"'sample' is the dim along the files, but {printable(paths[0])} has a "
                    "variable or dim of that name"
                )
            chunks = (1, *like.shape)  # a file is read as a whole
            variable = lazily(("sample", *own), _PtArray(files, entry, stacked=True))
            variable.encoding = {
                "chunksizes": chunks,
                "preferred_chunks": dict(zip(variable.dims, chunks, strict=True)),
            }
            variables[label] = variable
        if folder is not None:
            variables["sample"] = xr.Variable("sample", file_names(paths))
        return _dataset(variables, drop_variables, folder or paths[0])

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether it is named like a ``.pt`` file; a folder needs ``engine="pt"``.

        Parameters
        ----------
        filename_or_obj : Any
            What is to be opened.
        """
        return _is_named(filename_or_obj, ".pt")


class _NpyArray(SlicedArray):
    """The lazy array of a file, or of one field of its records."""

    def __init__(self, file: NpyFile, field: str | None = None) -> None:
        self.file, self._field = file, field
        self._stored = file.stored(field)
        self.shape = self._stored.shape
        self.dtype = _of_known_unit(self._stored.dtype)

    def identity(self) -> Any:
        """Its identity, another one when its file has been written anew."""
        return file_stamp(self.file.path), self._field

    def mapped(self) -> Array:
        """All values as they are in the file, without reading them."""
        mapped = self.file.mapped()
        return np.asarray(mapped if self._field is None else mapped[self._field])

    def read(self, key: tuple[Any, ...]) -> Array:
        """The selection of a key, read from the file."""
        return self.file.read(self._stored, key, self.dtype)


class _PtArray(SlicedArray):
    """The lazy array of one entry of all files, or of the one file there is."""

    def __init__(self, files: PtFiles, entry: str | None, stacked: bool = False) -> None:
        self._files, self._entry, self._stacked = files, entry, stacked
        like = files.first[entry]
        self.shape = (len(files), *like.shape) if stacked else like.shape
        self.dtype = like.dtype

    def identity(self) -> Any:
        """Its identity, another one when a file has been written anew."""
        return self._files.stamps(), self._entry, self._stacked

    def read(self, key: tuple[Any, ...]) -> Array:
        """The selection of a key, read from the files."""
        if not self._stacked:
            return self._of_file(0, key)
        along, inner = key[0], key[1:]
        if isinstance(along, (int, np.integer)):
            return self._of_file(range(len(self._files))[along], inner)
        places = np.arange(len(self._files))[along]
        nothing = np.broadcast_to(np.zeros((), self.dtype), self.shape[1:])
        out = np.empty((len(places), *selected(nothing, inner).shape), self.dtype)
        for row, place in enumerate(places.tolist()):
            out[row] = self._of_file(place, inner)
        return out

    def _of_file(self, place: int, key: tuple[Any, ...]) -> Array:
        return self._files.values(place, self._entry, key)


def _of_known_unit(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Seconds for times in coarser units, with which xarray does not compute."""
    if dtype.kind in "mM" and np.datetime_data(dtype)[0] in ("Y", "M", "W", "D", "h", "m"):
        return np.dtype(f"{dtype.kind}8[s]")
    return dtype


def _dataset(
    variables: Mapping[Hashable, xr.Variable], drop: str | Iterable[str] | None, path: str
) -> xr.Dataset:
    dropped = [drop] if isinstance(drop, str) else list(drop or ())
    ds = xr.Dataset({name: each for name, each in variables.items() if name not in dropped})
    ds.encoding["source"] = path
    return ds


def _dims(
    given: Hashable | Sequence[Hashable] | None,
    shape: tuple[int, ...],
    path: str,
    prefix: str = "",
) -> tuple[Hashable, ...]:
    """Names for the dims of an array: those given, if they fit."""
    if given is None:
        return tuple(f"{prefix}dim_{place}" for place in range(len(shape)))
    names = (given,) if isinstance(given, str) or not isinstance(given, Sequence) else tuple(given)
    if len(names) != len(shape) or len(set(names)) != len(names):
        raise ValueError(
            f"dims must name {len(shape)} different dims for {printable(path)}, an array of "
            f"shape {shape}; got {given!r}"
        )
    return names


def _dims_of_entries(dims: Any, entries: Sequence[str | None], path: str) -> Mapping[Any, Any]:
    """Dims of each entry, as they are given."""
    if dims is None:
        return {}
    if entries == [None]:
        if isinstance(dims, Mapping):
            raise ValueError(
                f"dims must be a sequence of names, for {printable(path)} holds one tensor"
            )
        return {None: dims}
    if not isinstance(dims, Mapping) or not set(dims) <= set(entries):
        raise ValueError(
            f"dims must be a mapping with keys of {list(entries)}, the entries of "
            f"{printable(path)}; got {dims!r}"
        )
    return dims


# Paths.


def _local(path: Any, engine: str) -> str:
    """An absolute path on this machine."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"engine {engine!r} opens paths, not {type(path).__name__}")
    found = os.fspath(path)
    if "://" in found:
        raise ValueError(f"engine {engine!r} opens local files; download {redacted(found)!r} first")
    return os.path.abspath(os.path.expanduser(found))


def _sample_files(given: Any) -> tuple[list[str], str | None]:
    """The files of samples and their folder; no folder for one file that is no sample."""
    if isinstance(given, Sequence) and not isinstance(given, str):
        paths = [_local(path, "pt") for path in given]
        folder = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
        where = "an empty list"
    else:
        folder = where = _local(given, "pt")
        if os.path.isfile(folder):
            return [folder], None
        if os.path.isdir(folder):
            with os.scandir(folder) as found:
                paths = sorted(each.path for each in found if each.name.endswith(".pt"))
        elif glob.has_magic(folder):
            paths = sorted(glob.glob(folder, recursive=True))
            folder = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
        else:
            raise FileNotFoundError(f"no such file or folder: {printable(folder)}")
    if not paths:
        raise FileNotFoundError(f"there is no .pt file: {printable(where)}")
    return paths, folder


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _is_named(given: Any, suffix: str) -> bool:
    return isinstance(given, (str, os.PathLike)) and os.fspath(given).endswith(suffix)

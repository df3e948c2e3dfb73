"""Metadata of Zarr stores that says what cannot be: found, and named with its variable."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore, MemoryStore

from ..common.redact import printable, redacted, words_of
from .lazy_arrays import is_lazy, zarr_array
from .zarr_grids import sizes_of_chunks
from .zarr_stores import wait_for

__all__ = ["malformed", "require_all", "require_sound"]

# Errors of programs that took metadata for what it is not, beside ValueError and TypeError, which
# wrong arguments raise, too.
MISTAKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    json.JSONDecodeError,
    struct.error,
)
# No codec takes a chunk of so many bytes, and no machine has the memory to decode it.
LARGEST_CHUNK = 2**40
# Documents that a node has in either format.
V3 = "zarr.json"
DOCUMENTS = (V3, ".zarray", ".zattrs", ".zgroup")
V3_GROUP, V2_GROUP = b'{"zarr_format": 3, "node_type": "group"}', b'{"zarr_format": 2}'
# Attributes of packed values, by which they are multiplied and moved.
SCALES = ("scale_factor", "add_offset")


def malformed(store: Any, kwargs: Mapping[str, Any], error: Exception) -> ValueError | None:
    """The error of a store that could not be opened, if it is one of its metadata.

    The arguments are those of `xarray.open_zarr`, and the error is what that raised. It is an error
    that names the store and its variables whose metadata raises the same, or the store alone where
    it is that of the store. None where other reasons are more likely.
    """
    if isinstance(error, OSError | ImportError | MemoryError) or not isinstance(
        error, (*MISTAKEN, ValueError, TypeError, RuntimeError)
    ):
        return None
    where = f"the Zarr store {printable(redacted(str(store)))}"
    try:
        names = sorted(_at_fault(store, kwargs, error))
    except Exception:  # of a store that cannot be looked into, or an argument that is wrong
        names = []
    if names:
        what = f"the metadata of {', '.join(map(repr, names))} in {where} cannot be understood"
    elif isinstance(error, MISTAKEN):
        what = f"the metadata in {where} cannot be understood"
    elif isinstance(error, ValueError):
        what = f"{where} cannot be opened"
    else:
        return None
    return ValueError(f"{what}: {words_of(error)}")


def _at_fault(store: Any, kwargs: Mapping[str, Any], error: Exception) -> Iterator[str]:
    """Names of arrays that raise the same error when each is opened alone, from memory."""
    options = {key: kwargs[key] for key in ("zarr_format", "storage_options") if kwargs.get(key)}
    group = zarr.open_group(
        store, path=kwargs.get("group") or "", mode="r", use_consolidated=False, **options
    )
    own = {
        key: each for key, each in kwargs.items() if key.startswith(("decode_", "mask_", "use_"))
    }
    buffers = default_buffer_prototype().buffer
    for name, documents in _documents(group).items():
        root = {V3: V3_GROUP} if V3 in documents else {".zgroup": V2_GROUP}
        found = {key: buffers.from_bytes(each) for key, each in root.items()}
        found |= {f"{name}/{key}": buffers.from_bytes(each) for key, each in documents.items()}
        try:
            xr.open_zarr(MemoryStore(found), chunks=None, consolidated=False, **own)
        except Exception as other:
            if type(other) is type(error):
                yield name


def _documents(group: zarr.Group) -> dict[str, dict[str, bytes]]:
    """The metadata of the arrays of a group by their names: consolidated, where it is, or own."""
    consolidated: dict[str, dict[str, bytes]] = {}
    for document, path in ((V3, "consolidated_metadata"), (".zmetadata", None)):
        content = _read(group, document)
        try:
            every = json.loads(content) if content else {}
            for key, each in (every[path] if path else every)["metadata"].items():
                name, _, own = (key, "", V3) if path else key.rpartition("/")
                if name:
                    consolidated.setdefault(name, {})[own] = json.dumps(each).encode()
        except (LookupError, AttributeError, TypeError, ValueError):
            pass  # it is not consolidated, or no metadata at all
    found = {}
    for name in wait_for(_listed(group)):
        own = {each: _read(group, f"{name}/{each}") for each in DOCUMENTS}
        found[name] = {key: each for key, each in own.items() if each is not None}
    return {name: each for name, each in {**found, **consolidated}.items() if each}


async def _listed(group: zarr.Group) -> list[str]:
    return [name async for name in group.store.list_dir(group.path)]


def _read(group: zarr.Group, key: str) -> bytes | None:
    path = f"{group.path}/{key}" if group.path else key
    found = wait_for(group.store.get(path, default_buffer_prototype()))
    return None if found is None else found.to_bytes()


def require_all(ds: xr.Dataset, store: Any, kwargs: Mapping[str, Any]) -> None:
    """Raise ValueError if arrays of a local folder are not among what was opened.

    Zarr passes over those whose metadata lacks something, with a warning. It was opened without
    consolidated metadata, by the arguments of `xarray.open_zarr`.
    """
    store = store.root if isinstance(store, LocalStore) else store
    if not isinstance(store, (str, os.PathLike)) or not os.path.isdir(store):
        return
    group, dropped = str(kwargs.get("group") or ""), kwargs.get("drop_variables")
    folder = os.path.join(store, group.strip("/"))
    known = {*ds.variables, *([dropped] if isinstance(dropped, str) else dropped or ())}
    # Zarr looks for v3 first; arrays of another format than the group's are no part of it.
    is_v3 = kwargs.get("zarr_format") == 3 or (
        kwargs.get("zarr_format") is None and os.path.exists(os.path.join(folder, V3))
    )
    with os.scandir(folder) as found:
        others = sorted(each.name for each in found if each.name not in known and each.is_dir())
    is_array = _is_v3_array if is_v3 else _is_v2_array
    lost = [name for name in others if is_array(os.path.join(folder, name))]
    if lost:
        raise ValueError(
            f"the metadata of {', '.join(map(repr, lost))} in the Zarr store "
            f"{printable(redacted(str(store)))} lacks what an array must have, or is of another "
            "version; drop_variables leaves an array out"
        )


def _is_v2_array(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, ".zarray"))


def _is_v3_array(folder: str) -> bool:
    """Whether it says that it is an array, or says nothing that can be understood."""
    try:
        with open(os.path.join(folder, V3), "rb") as file:
            content = json.loads(file.read())
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return isinstance(content, dict) and content.get("node_type") == "array"


def require_sound(ds: xr.Dataset) -> None:
    """Raise ValueError if the metadata of a lazy variable says what cannot be read."""
    for name, variable in ds.variables.items():
        if not is_lazy(variable):
            continue
        for scale in SCALES:
            if not _is_number(variable.encoding.get(scale)):
                raise ValueError(
                    f"variable {name!r}{_place(variable)} is packed with "
                    f"{scale}={variable.encoding[scale]!r}, which is no number"
                )
        array = zarr_array(variable)
        if array is None:
            continue
        for what in ("chunks", "shards"):
            sizes = sizes_of_chunks(array, stored=what == "shards")
            edges = [each if isinstance(each, Sequence) else (each,) for each in sizes]
            if any(
                min(each, default=1) < 1 for each, n in zip(edges, array.shape, strict=True) if n
            ):
                raise ValueError(
                    f"variable {name!r}{_place(variable)} has {what} of {sizes} steps by its "
                    "metadata; each must have 1 or more along every dim"
                )
            largest = math.prod(max(each, default=0) for each in edges)
            if largest * array.dtype.itemsize > LARGEST_CHUNK and what == "chunks":
                raise ValueError(
                    f"variable {name!r}{_place(variable)} has chunks of {sizes} steps by its "
                    "metadata, larger than any memory"
                )


def _place(variable: xr.Variable) -> str:
    """The place where a variable is stored, as far as it says."""
    array = zarr_array(variable)
    where = variable.encoding.get("source") if array is None else array.store
    return "" if where is None else f" of {printable(redacted(str(where)))}"


def _is_number(value: Any) -> bool:
    """Whether a value may be a scale: a number, also as the only one of an array, or nothing."""
    if value is None or isinstance(value, Real | np.number | np.bool_):
        return True
    found = np.asarray(value)
    return found.size == 1 and found.dtype.kind in "biuf"

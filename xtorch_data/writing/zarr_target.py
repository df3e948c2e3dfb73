"""The Zarr store that data is copied into, and its record of what is done, so that it can go on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.errors import ContainsArrayError, ContainsGroupError
from zarr.storage import MemoryStore, StorePath

from ..common.redact import printable, redacted
from ..sources.opening import open_zarr
from ..sources.source import UNFINISHED
from ..sources.zarr_stores import wait_for
from .copy_tasks import Task, VariableCopy, tasks
from .encodings import RELATED, kept, stored_as
from .identity import identity_of
from .notes import first_note
from .store_lock import StoreLock

__all__ = ["Target", "not_computed", "quiet"]

# The group in which is kept what is done, until all is.
RECORD = "rechunk_record"
# In it, what ranks keep for each other.
PARTS = "parts"
# Marks a store that was put there to keep a place, of which not all is known.
RESERVED = "reserved"
# Marks a store that has all of its values, and may have lost a part of its record.
WHOLE = "whole"
# How names of files end that Zarr has not written to their end.
PARTIAL = ".partial"


# How names of files end that are no folders.
_FILES = (".nc", ".nc4", ".cdf", ".h5", ".hdf5", ".he5", ".grib", ".grib2", ".grb", ".grb2")


class Target:
    """A store that is written to, region by region, and keeps a record of what is done."""

    def __init__(
        self,
        store: Any,
        storage_options: Mapping[str, Any] | None,
        what: str = "copy",
        maker: str = "xtorch_data.rechunk",
    ) -> None:
        if isinstance(store, (str, os.PathLike)) and "://" not in os.fspath(store):
            store = os.path.abspath(os.path.expanduser(store))  # wherever a cluster's workers run
        if isinstance(store, str) and store.lower().endswith(_FILES):
            raise ValueError(
                f"a {what} is written as a Zarr store, and {printable(redacted(store))} is named "
                "like a file of another format: end it with '.zarr'. The Dataset that is returned "
                "has to_netcdf()"
            )
        self.store, self.what, self.maker = store, what, maker
        self.options: dict[str, Any] = (
            {} if storage_options is None else {"storage_options": storage_options}
        )
        self._is_local = isinstance(store, str) and "://" not in store
        self.lock = StoreLock(store if self._is_local else None)

    def __str__(self) -> str:
        return printable(redacted(str(self.store)))

    @contextlib.contextmanager
    def held(self, share: bool = False) -> Iterator[None]:
        """Keep a local folder from other calls, in this process or others, as far as it can be.

        Those that `share` it do so with each other.

        Raises
        ------
        FileExistsError
            If one copies into it, or if it is a file.
        """
        if self._is_local and os.path.isfile(self.store):
            raise FileExistsError(
                f"{self} is a file, and a {self.what} is a folder: give another path"
            )
        if not self.lock.take(share):
            raise FileExistsError(
                f"another {self.maker.rpartition('.')[2]} copies into {self} at this moment: wait "
                "until it has finished, or give another path"
            )
        try:
            yield
        finally:
            self.lock.release()

    def begin(
        self,
        whole: xr.Dataset,
        copies: Sequence[VariableCopy],
        ds: xr.Dataset,
        encoding: Mapping[Any, Mapping[str, Any]],
        content: Mapping[str, str | None],
        known: Mapping[str, Any] | None = None,
        replace: bool = False,
        join: bool = False,
    ) -> tuple[VariableCopy, ...]:
        """Write what there is to begin with, unless that was done before.

        `whole` are variables in memory, which are written as a whole, `copies` how the others of
        `ds` are copied, `encoding` what the user wants by variable, and `content` what tells their
        values from any others; None where nothing does. `known` is what else must be the same to go
        on, `replace` whether a store that is there is replaced, and `join` whether other processes
        may begin it at the same time, for which it is `reserved`. Returns how they are copied, as
        was decided when it was begun.

        Raises
        ------
        FileExistsError
            If there is something else, finished or not.
        """
        # A store that is not consolidated may list its variables in any order.
        copies = sorted(copies, key=lambda copy: copy.name)
        encodings = _encodings(copies, ds, encoding)
        identity = self._identity(whole, ds, encodings, known)
        is_full = isinstance(self.store, str) and _is_full(self.store)
        there = self._tidied()
        if there is None and is_full:
            raise FileExistsError(f"{self} is a folder that has other files in it")
        if there is not None and not replace:
            self._require_same(there, identity)
            if f"{RECORD}/done" in there:
                if not join:  # without what ranks have left that were interrupted
                    self._group("r+").create_group(f"{RECORD}/{PARTS}", overwrite=True)
                cuts: Any = there[RECORD].attrs["cuts"]
                return tuple(
                    VariableCopy(
                        copy.name,
                        copy.chunks,
                        copy.shards,
                        tuple(map(tuple, cuts[copy.name])),
                    )
                    for copy in copies
                )
        template = {}
        for copy in copies:
            variable = ds.variables[copy.name]
            nothing = not_computed(variable.shape, variable.dtype)
            template[copy.name] = xr.Variable(variable.dims, nothing, variable.attrs)
        made = whole.assign({k: v for k, v in template.items() if k not in ds.coords})
        made = made.assign_coords({k: v for k, v in template.items() if k in ds.coords})
        for name, variable in whole.variables.items():
            if variable.dtype.kind == "U":  # of fixed length it is no part of Zarr's specification
                made[name] = made[name].astype(object)
        mark = {UNFINISHED: {**identity, "content": dict(content)}}
        made = made.drop_encoding().assign_attrs(mark)
        for name, variable in made.variables.items():
            variable.encoding = kept(ds.variables[name], RELATED)
        # Made where it costs nothing, so that an error leaves all as it is.
        draft: dict[str, Any] = {}
        group = zarr.create_group(MemoryStore(draft), zarr_format=3, attributes=mark)
        made.to_zarr(group.store, mode="a", compute=False, consolidated=False, encoding=encodings)
        record = group.create_group(
            RECORD, attributes={"cuts": {copy.name: list(copy.cuts) for copy in copies}}
        )
        record.create_group(PARTS)  # here, as ranks that do so at once disturb each other
        count = sum(1 for _ in tasks(copies, ds))
        record.create_array("done", shape=(count,), chunks=(1,), dtype="uint64", compressors=None)
        if join:  # nothing of it unless it is what the first one begins
            self.require_like(first_note(self.place("begun"), identity), identity)
        else:  # marked from the first moment on
            self._marked(mark[UNFINISHED], overwrite=there is not None)
        wait_for(_written(self._group("r+").store_path, draft))
        return tuple(copies)

    def require_same(
        self,
        whole: xr.Dataset,
        copies: Sequence[VariableCopy],
        ds: xr.Dataset,
        encoding: Mapping[Any, Mapping[str, Any]],
        content: Mapping[str, str | None],
        known: Mapping[str, Any],
    ) -> None:
        """Raise FileExistsError unless the store was begun by `begin` with these arguments."""
        identity = self._identity(whole, ds, _encodings(copies, ds, encoding), known)
        self._require_same(self._group("r"), identity)

    def _identity(
        self,
        whole: xr.Dataset,
        ds: xr.Dataset,
        encodings: Mapping[Any, Mapping[str, Any]],
        known: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        return {**identity_of(ds, whole, encodings), "made by": self.maker, **(known or {})}

    def _require_same(self, there: zarr.Group, identity: Mapping[str, Any]) -> None:
        begun = self._mark_of(there)
        known = [key for key in identity if key in begun or not begun.get(RESERVED)]
        self.require_like(begun, {key: identity[key] for key in known})

    def _mark_of(self, there: zarr.Group) -> dict[str, Any]:
        begun: Any = there.attrs.get(UNFINISHED)
        if begun is None:
            raise FileExistsError(
                f"{self} exists, and is not a {self.what} that was interrupted: open it with "
                "xtorch_data.open_zarr, remove it, or give another path"
            )
        return dict(begun)

    def require_like(self, begun: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        """Raise FileExistsError unless what is known of a store is the same."""
        differ = [key for key in identity if begun.get(key) != identity[key]]
        if differ:
            raise FileExistsError(
                f"{self} is the unfinished {self.what} of something else: {', '.join(differ)} "
                "differ. "
                "Remove it, give another path, or the data and arguments that it was begun with"
            )

    def unfinished(self, mode: str, join: bool = False) -> dict[str, Any] | None:
        """What is known of the unfinished store that is there, if it is to go on by ``mode="a"``.

        With `join`, it does whatever the mode, as other processes may have begun it. One that is
        `WHOLE` is only to be finished.

        Raises
        ------
        FileExistsError
            If there is a store that `mode` does not allow, or a folder that is none.
        """
        # Asked first, as another process may put a store there between both.
        is_full = isinstance(self.store, str) and _is_full(self.store)
        there = self._there()
        if there is None:
            if is_full:
                raise FileExistsError(f"{self} is a folder that has other files in it")
            return None
        begun: Any = there.attrs.get(UNFINISHED)
        mine = begun is not None and begun.get("made by") == self.maker
        if mode == "w-" and not join:
            more = "; mode='a' goes on with it" if mine else ""
            raise FileExistsError(f"{self} exists{more}, and mode='w' replaces it")
        if mode == "w":
            return None
        if not mine:
            more = "remove it, or give another path" if join else "mode='w' replaces it"
            raise FileExistsError(f"{self} exists, and is no unfinished {self.what}: {more}")
        return dict(begun) if WHOLE in begun or f"{RECORD}/done" in there else None

    def sweep(self) -> None:
        """Remove files that a process was writing when it was killed, of a local store."""
        if self._is_local:
            for folder, _, names in os.walk(self.store):
                for name in names:
                    if name.endswith(PARTIAL):
                        os.remove(os.path.join(folder, name))

    def _there(self) -> zarr.Group | None:
        try:
            return self._group("r")
        except FileNotFoundError:
            return None
        except ContainsArrayError:
            raise FileExistsError(
                f"{self} is a Zarr array, and a {self.what} is a group: remove it, or give another "
                "path"
            ) from None

    def _tidied(self) -> zarr.Group | None:
        """The group that is there, finished if a kill left only its record to be done."""
        there = self._there()
        mark: Any = {} if there is None else there.attrs.get(UNFINISHED, {})
        if WHOLE not in mark:
            return there
        self.finish()
        return self._there()

    def _group(self, mode: Any) -> zarr.Group:
        return zarr.open_group(self.store, mode=mode, use_consolidated=False, **self.options)

    @property
    def done(self) -> Any:
        """The record: for each task, 1 + the checksum of what it has written; 0 if it has not."""
        return self._group("r+")[f"{RECORD}/done"]

    @property
    def mark(self) -> dict[str, Any]:
        """What is known of a store that is not finished; FileExistsError if it is."""
        return self._mark_of(self._group("r"))

    def content(self) -> dict[str, str | None]:
        """What `begin` was told of the values of variables when the copy was begun."""
        return dict(self.mark.get("content", {}))

    def write(self, task: Task, variable: xr.Variable) -> None:
        """Write a region, of whole chunks or shards."""
        region: Any = dict(task.region)
        xr.Dataset({task.name: variable}).to_zarr(
            self.store, region=region, mode="r+", consolidated=False, **self.options
        )

    @property
    def begun(self) -> bool:
        """Whether `begin` has written all that there is to begin with."""
        there = self._there()
        return there is not None and f"{RECORD}/done" in there

    def reserve(self) -> None:
        """Put an empty store that is not finished in the place of whatever is there."""
        self._marked({"made by": self.maker, RESERVED: True}, overwrite=True)

    def join(self, known: Mapping[str, Any]) -> None:
        """Put an empty store that is not finished there, unless one is.

        What is `known` of it must be the same for all that begin it.

        Raises
        ------
        FileExistsError
            If there is a store of something else.
        """
        mark = {**known, "made by": self.maker, RESERVED: True}
        with suppress(ContainsGroupError):
            self._marked(mark, overwrite=False)
        begun = self.mark
        self.require_like(begun, known)
        if begun.get(RESERVED):  # here, as processes that do so later disturb each other
            with suppress(ContainsGroupError):  # made at the same moment
                self._group("r+").require_group(f"{RECORD}/{PARTS}")

    def _marked(self, mark: Mapping[str, Any], overwrite: bool) -> zarr.Group:
        attributes = {UNFINISHED: dict(mark)}
        return zarr.create_group(
            self.store, zarr_format=3, overwrite=overwrite, attributes=attributes, **self.options
        )

    def keep(self, name: str, values: Any) -> None:
        """Keep an array with the record."""
        path = f"{RECORD}/{PARTS}/{name}"
        self._group("r+").create_array(path, data=values, compressors=None, overwrite=True)

    def kept(self, name: str) -> Any:
        """An array that was kept with the record."""
        return self._group("r")[f"{RECORD}/{PARTS}/{name}"][...]  # type: ignore[index]

    def place(self, name: str) -> StorePath:
        """Where something is kept with the record."""
        return self._group("r+").store_path / RECORD / PARTS / name

    @property
    def is_finished(self) -> bool:
        """Whether there is a store that is not marked."""
        there = self._there()
        return there is not None and UNFINISHED not in there.attrs

    @property
    def is_whole(self) -> bool:
        """Whether all values are there; what is kept with the record may not be any more."""
        there = self._there()
        if there is None:
            return False
        mark: Any = there.attrs.get(UNFINISHED, {WHOLE: True})
        return WHOLE in mark

    def array(self, name: str) -> Any:
        """A stored array, for values that need no encoding."""
        return self._group("r+")[name]

    def open(self) -> xr.Dataset:
        """What has been written so far, lazily; in any thread."""
        opened: xr.Dataset = xr.open_zarr(
            self.store, chunks=None, consolidated=False, **self.options
        )
        return opened

    def finish(self) -> xr.Dataset:
        """Leave nothing but the data, and open it."""
        group = self._group("r+")
        group.attrs[UNFINISHED] = {**self.mark, WHOLE: True}
        del group[RECORD]
        if group.store.supports_consolidated_metadata:
            with quiet():
                group = zarr.consolidate_metadata(group.store, path=group.path or None)
        del group.attrs[UNFINISHED]  # from here on, it is finished
        return self.opened()

    def opened(self) -> xr.Dataset:
        """The data once it is finished."""
        consolidated = bool(self._group("r").store.supports_consolidated_metadata)
        return open_zarr(self.store, consolidated=consolidated, **self.options)


async def _written(path: StorePath, draft: Mapping[str, Any]) -> None:
    """Write objects below a path, the record of what is done last: by it a store has begun."""
    last = f"{RECORD}/done/zarr.json"
    await asyncio.gather(*((path / key).set(draft[key]) for key in draft if key != last))
    await (path / last).set(draft[last])


def _encodings(
    copies: Sequence[VariableCopy], ds: xr.Dataset, encoding: Mapping[Any, Mapping[str, Any]]
) -> dict[Any, dict[str, Any]]:
    """What each variable is stored as, and how it is chunked."""
    found = {
        name: stored_as(variable, encoding.get(name, {})) for name, variable in ds.variables.items()
    }
    for copy in copies:
        dims, own = ds.variables[copy.name].dims, found[copy.name]
        own["chunks"] = tuple(copy.chunks[dim] for dim in dims)
        own["shards"] = copy.shards and tuple(copy.shards[dim] for dim in dims)
    return found


def _is_full(path: str) -> bool:
    """Whether a folder has files, but for those that Zarr was writing when it was killed."""
    return os.path.isdir(path) and any(not name.endswith(PARTIAL) for name in os.listdir(path))


def not_computed(shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
    """An array of dask that says what is written, and is never computed."""
    import dask.array

    return dask.array.zeros(shape, dtype=dtype, chunks=-1)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing said of what is not the user's to change: that Zarr's specification is young."""
    with warnings.catch_warnings():
        for message in (
            "(?s).*does not have a Zarr V3 specification",
            "Consolidated metadata is currently not part in the Zarr format 3",
        ):
            warnings.filterwarnings("ignore", message=message)
        yield

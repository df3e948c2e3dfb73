"""Zarr stores, opened lazily and to be decoded fast."""

from __future__ import annotations

import difflib
import inspect
import os
import threading
import unicodedata
import zipfile
from collections.abc import Hashable, Mapping
from typing import Any

import xarray as xr
import zarr

from ..common.redact import hiding_secrets, printable, without_secrets
from .codecs import FAST_PIPELINE
from .zarr_metadata import malformed, require_all

__all__ = ["open_zarr"]

CONNECTIONS = 128  # of s3fs, to one host


def open_zarr(store: Any, **kwargs: Any) -> xr.Dataset:
    """Open a Zarr store lazily, with the fast codec pipeline and without dask.

    `xarray.open_zarr` with ``chunks=None`` and the codec pipeline of `zarrs`, which decodes chunks
    in parallel outside the GIL. Datasets of this package read most arrays without any pipeline;
    this one is for the others, such as those with rare codecs, and for what you read yourself.
    Arrays which it does not support (strings, some stores, big-endian ones of Zarr v2) or does not
    verify (checksums inside shards) fall back to zarr's own. The pipeline stays with the dataset,
    also when it is pickled.

    Without consolidated metadata a store lists its variables in any order, another one each time.
    They are put in alphabetical order then, as zarr consolidates them, because samples and channels
    are numbered in the order of dims and variables.

    An address ``s3://…`` is opened by s3fs, with 128 connections unless ``storage_options`` says
    otherwise: its own 10 would not hide the delay of requests.

    Parameters
    ----------
    store : str, path or zarr store
        What `xarray.open_zarr` takes.
    **kwargs
        Passed on to `xarray.open_zarr`; ``chunks`` may be given after all. Without
        ``consolidated``, a store need not have its metadata in one place.

    Returns
    -------
    xarray.Dataset
        Its variables are read when they are used.

    Raises
    ------
    TypeError
        If `xarray.open_zarr` has no such argument.
    ValueError
        If there is a file of another format, or the metadata of the store says what cannot be; the
        message names the variable.

    Examples
    --------
    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/small.zarr"
    >>> _ = xr.Dataset({"t2m": ("time", [1.0, 2.0, 3.0, 4.0])}).to_zarr(path, consolidated=False)
    >>> open_zarr(path).sizes["time"]
    4
    """
    _require_known(kwargs)
    kwargs.setdefault("chunks", None)
    if isinstance(store, str) and store.startswith(("s3://", "s3a://")):
        kwargs["storage_options"] = _with_connections(kwargs.get("storage_options") or {})
    with _fast_pipeline:
        try:
            with hiding_secrets():
                opened, is_consolidated = _opened(store, kwargs)
        except Exception as error:
            if not _is_other_file(store):
                refused = malformed(store, kwargs, error)
                if refused is None:
                    raise
                raise refused from without_secrets(error)
            raise ValueError(
                f"{printable(os.fspath(store))} is a file, and no Zarr store: if it is NetCDF, "
                f"HDF5 or GRIB, xarray.open_dataset({os.fspath(store)!r}) opens it"
            ) from error
    if is_consolidated:
        return opened
    require_all(opened, store, kwargs)
    return _in_order(opened)


def _require_known(kwargs: Mapping[str, Any]) -> None:
    """Raise TypeError for an argument that xarray does not take, before the store is looked at."""
    parameters = inspect.signature(xr.open_zarr).parameters.values()
    known = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD][1:]
    for name in kwargs:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"open_zarr got an unexpected keyword argument {name!r}{hint}")


def _opened(store: Any, kwargs: Mapping[str, Any]) -> tuple[xr.Dataset, bool]:
    """The dataset as xarray opens it, and whether by consolidated metadata."""
    consolidated = kwargs.get("consolidated")
    if not getattr(store, "supports_consolidated_metadata", True):
        consolidated = False
    if consolidated is not False:
        try:
            return xr.open_zarr(store, **{**kwargs, "consolidated": True}), True
        except (ValueError, KeyError):  # so xarray does, which then warns
            if consolidated:
                raise
    return xr.open_zarr(store, **{**kwargs, "consolidated": False}), False


class _FastPipeline:
    """Within this context zarr opens arrays with the fast pipeline.

    Its configuration is that of the process: the first thread that is within sets it, and the last
    one that leaves sets it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = 0
        self._set: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._within:
                self._set = zarr.config.set({"codec_pipeline.path": FAST_PIPELINE})
            self._within += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._within -= 1
            if not self._within:
                self._set.__exit__(*error)


_fast_pipeline = _FastPipeline()


def _in_order(ds: xr.Dataset) -> xr.Dataset:
    """A dataset with its variables in the order in which zarr consolidates them."""

    def place(name: Hashable) -> tuple[str, str]:
        return unicodedata.normalize("NFKC", str(name)).casefold(), str(name)

    coords = {name: ds.variables[name] for name in sorted(ds.coords, key=place)}
    ordered = xr.Dataset(
        {name: ds.variables[name] for name in sorted(ds.data_vars, key=place)},
        xr.Coordinates(coords, indexes=ds.xindexes),
        ds.attrs,
    )
    ordered.encoding = ds.encoding
    ordered.set_close(ds.close)
    return ordered


def _is_other_file(store: Any) -> bool:
    """Whether it is the path of a file that holds no store, as a ZIP file may."""
    if not isinstance(store, (str, os.PathLike)) or not os.path.isfile(store):
        return False
    return not zipfile.is_zipfile(store)


def _with_connections(storage_options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of s3fs with as many connections as reads make use of."""
    config = {"max_pool_connections": CONNECTIONS, **storage_options.get("config_kwargs", {})}
    return {**storage_options, "config_kwargs": config}

"""The lazy arrays that xarray puts around what a backend has opened."""

from __future__ import annotations

from typing import Any

from xarray.core.indexing import PandasIndexingAdapter

__all__ = ["layers"]


def layers(data: Any) -> list[Any]:
    """Lazy arrays, each around the next, and at the end the array of the backend.

    xarray has no public way to ask for it. What is in memory, or of dask, is one layer.

    Parameters
    ----------
    data : Any
        What a variable holds: ``variable._data``.
    """
    found = [data]
    # An index is no lazy array, though it is in an attribute of that name.
    while hasattr(found[-1], "array") and not isinstance(found[-1], PandasIndexingAdapter):
        found.append(found[-1].array)
    return found

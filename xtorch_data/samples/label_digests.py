"""Digests of the labels of dims, by which states tell data from other data of the same size.

Equal labels have equal digests in every process and release: dates in whatever resolution, also as
those of cftime, numbers in whatever width, text however it is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..common.cached import cached_property
from ..planning.windows import Windows
from ..sources.conventions import text_of
from ..sources.lazy_arrays import in_memory

__all__ = ["LabelDigests"]

# Whole numbers up to these are exact in four and in eight bytes.
MOST_SINGLE, MOST_DOUBLE = 2**24, 2**53
AT_ONCE = 2**20  # labels that are made comparable at the same time


class LabelDigests:
    """The labels of the dims of samples, digested when a state is first taken or loaded."""

    def __init__(self, coords: xr.Dataset, windows: Windows) -> None:
        self._coords = {
            axis.dim: coords.variables[axis.dim]
            for axis in windows.axes
            if axis.dim in coords.variables and coords.variables[axis.dim].dims == (axis.dim,)
        }

    @cached_property
    def found(self) -> dict[str, list[str]]:
        """By dim, a digest and what the first and the last label are.

        Dims without labels, or with such as are not in memory or cannot be compared, are not there.
        """
        found = {}
        for dim, coord in self._coords.items():
            digest = _digest(coord)
            if digest is not None:
                found[str(dim)] = [digest, *(_text(coord, place) for place in (0, -1))]
        return found


def _text(coord: xr.Variable, place: int) -> str:
    return text_of(coord.values[place], coord.attrs.get("units"))


def _digest(coord: xr.Variable) -> str | None:
    """Digest that equal labels share; None where labels cannot be compared."""
    if not (isinstance(coord, xr.IndexVariable) or in_memory(coord)) or not coord.size:
        return None
    levels: Sequence[Any] = [coord.to_base_variable()]
    if isinstance(coord, xr.IndexVariable):
        index = coord.to_index()
        if isinstance(index, pd.MultiIndex):
            levels = [index.get_level_values(level) for level in range(index.nlevels)]
    found = hashlib.blake2b(digest_size=8)
    for level in levels:
        for start in range(0, len(level), AT_ONCE):
            part = level[start : start + AT_ONCE]
            pieces = _pieces(np.asarray(part.values if isinstance(part, xr.Variable) else part))
            for piece in pieces or ():
                found.update(piece)
            if pieces is None:
                return None
    return found.hexdigest()


def _pieces(values: npt.NDArray[Any]) -> list[bytes] | None:
    """Bytes that are the same for the same labels; None for objects of an unknown kind."""
    kind = values.dtype.kind
    if kind in "mM":  # seconds, and what is left of them, for no unit has room for all
        seconds = values.astype(f"{kind}8[s]")
        rest = (values - seconds).astype("m8[ns]")
        return [b"time", _little(seconds.astype("i8")), _little(rest.astype("i8"))]
    if kind in "iub":
        return [b"integers", _little(values.astype("i8"))]
    if kind == "f":
        with np.errstate(over="ignore"):
            # Kept or computed with more digits they are the same; and there is one 0, and one NaN.
            single = values.astype("f4") + np.float32(0)
        single[np.isnan(single)] = np.nan
        exact = (single if (abs(single) <= MOST_SINGLE).all() else values).astype("f8")
        if (exact == np.rint(exact)).all() and (abs(exact) <= MOST_DOUBLE).all():
            return _pieces(exact.astype("i8"))
        return [b"floats", _little(single)]
    if kind == "c":
        return [b"complex", _little(values.astype("c16"))]
    labels = values.tolist()
    if all(map(_is_usual_date, labels)):
        return _pieces(np.array([each.isoformat() for each in labels], "M8[us]"))
    texts = list(_texts(labels))
    return None if None in texts else [b"texts", "\0".join(map(str, texts)).encode()]


def _is_usual_date(label: Any) -> bool:
    """Whether it is a date of cftime that NumPy has as well."""
    calendar, year = str(getattr(label, "calendar", "")), getattr(label, "year", 0)
    # Before 1582, the standard calendar has other dates.
    first = {"standard": 1583, "gregorian": 1583, "proleptic_gregorian": 1}.get(calendar, np.inf)
    return bool(first <= year <= 9999)


def _little(values: npt.NDArray[Any]) -> bytes:
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def _texts(labels: Sequence[Hashable]) -> Iterator[str | None]:
    """Each label as text; None where its text depends on the process."""
    for each in labels:
        label: Any = each.item() if isinstance(each, np.generic) else each
        if isinstance(label, str):
            yield label
        elif isinstance(label, bytes):
            yield label.decode("latin-1")
        elif isinstance(label, tuple):
            inner = list(_texts(label))
            yield None if None in inner else repr(inner)
        elif label is None or label is pd.NA or label is pd.NaT or label != label:
            yield "none"
        elif hasattr(label, "isoformat"):  # of cftime, with its calendar, or of Python
            yield f"{getattr(label, 'calendar', '')} {label.isoformat()}"
        else:
            text = repr(label)
            yield None if f"{id(label):x}" in text else text

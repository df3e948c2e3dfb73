"""Values that turn out to have another dtype than their variable has declared.

A dask array knows no more of its chunks than it was told, nor does xarray of what a backend reads.
Everything is planned with what is declared; cast to it, values could be cut off.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["UndeclaredError", "as_declared", "keeps_values"]


class UndeclaredError(TypeError):
    """Values of a variable are not of the dtype that it has declared, nor can they become it."""


def keeps_values(found: np.dtype[Any], declared: np.dtype[Any]) -> bool:
    """Whether any values of a dtype are kept by a cast, but for digits of floating ones."""
    floating = found.kind + declared.kind in ("ff", "fc", "cc")
    return floating or np.can_cast(found, declared, "safe")


def as_declared(values: Any, declared: np.dtype[Any], alone: bool = True) -> Any:
    """Values as their variable has declared them; floating ones may keep digits that it has not.

    They are all there is, or, if not `alone`, may be cast to the dtype of others. UndeclaredError
    if the cast would change a value.
    """
    found = values.dtype
    if found == declared or declared.kind not in "biufc":
        return values
    if found.kind in "fc" and keeps_values(found, declared):
        with np.errstate(all="ignore"):
            if alone or np.array_equal(np.isfinite(values), np.isfinite(values.astype(declared))):
                return values  # what gathers them casts them to floats of the user's
    elif found.kind in "biuf":
        with np.errstate(all="ignore"):  # of NaN, which is no integer
            cast = values.astype(declared)
            if keeps_values(found, declared) or _are_equal(cast, values):
                return cast
    raise UndeclaredError(
        f"dtype {declared} is declared, but there are values of {found} that are no {declared}: "
        f"whatever made it, such as map_blocks or apply_ufunc, must say dtype={str(found)!r}, or "
        f"return .astype({str(declared)!r})"
    )


def _are_equal(cast: Any, values: Any) -> bool:
    """Whether a cast has kept values: the way back gives them again, too.

    2**63 as a float is equal to the largest integer, which it is not.
    """
    same = cast == values
    if values.dtype.kind == "f" and cast.dtype.kind == "f":
        same |= np.isnan(values)
    return bool(same.all()) and np.array_equal(
        cast.astype(values.dtype), values, equal_nan=values.dtype.kind == "f"
    )

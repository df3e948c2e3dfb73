"""Changes of values on their way from the data to a batch, as far as they are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import xarray as xr

from .transforms import Transform, name_of

__all__ = ["Change", "changes_of"]


@dataclass(frozen=True, eq=False)
class Change:
    """Change of values by one function; it can be sent and kept where the function cannot."""

    what: str  # argument and name of the function, for messages
    part: str | None  # the part whose values it takes; None if it takes all
    # Offset and scale by variable, where that is all that it does: (value - offset) / scale.
    statistics: tuple[xr.Dataset, xr.Dataset] | None


def changes_of(
    preprocess: Transform | None,
    transforms: Mapping[str, Transform],
    batch_transform: Transform | None = None,
) -> tuple[Change, ...]:
    """Changes that the functions of a dataset make, in their order."""
    found = list(_changes(preprocess, None))
    for part, transform in transforms.items():
        found += _changes(transform, part)
    return (*found, *_changes(batch_transform, None))


def _changes(given: Transform | None, part: str | None) -> Iterator[Change]:
    for each in () if given is None else given.functions():
        assert given is not None
        # Of a function of ours that normalizes, whose repr lists all variables.
        statistics = getattr(each.function, "_normalizes_by", None)
        name = name_of(each.function) if statistics is None else type(each.function).__name__
        yield Change(f"{given.argument} ({name})", part, statistics)

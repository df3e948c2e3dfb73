"""Notes that processes leave each other in a store: one object each, there as a whole or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import zarr
from zarr.storage import MemoryStore, StorePath

from ..sources.zarr_stores import wait_for

__all__ = ["first_note", "leave_note", "note_at", "notes_at"]

_OBJECT = "zarr.json"


def leave_note(path: StorePath, told: Mapping[str, Any]) -> None:
    """Leave a note at a path, which is a group with these attributes."""
    wait_for((path / _OBJECT).set(_encoded(told)))


def first_note(path: StorePath, told: Mapping[str, Any]) -> dict[str, Any]:
    """Leave a note unless there is one, and return what is there.

    Of several processes at the same moment one is the first, but for stores of fsspec: there each
    may find its own, until all of them have left theirs.
    """
    wait_for((path / _OBJECT).set_if_not_exists(_encoded(told)))
    found = note_at(path)
    assert found is not None
    return found


def note_at(path: StorePath) -> dict[str, Any] | None:
    """The content of a note, or None if there is none."""
    return notes_at([path])[0]


def notes_at(paths: Sequence[StorePath]) -> list[dict[str, Any] | None]:
    """The contents of notes; None for those that are not there."""

    async def found() -> Sequence[Any]:
        return await asyncio.gather(*((path / _OBJECT).get() for path in paths))

    return [each and json.loads(each.to_bytes())["attributes"] for each in wait_for(found())]


def _encoded(told: Mapping[str, Any]) -> Any:
    draft: dict[str, Any] = {}
    zarr.create_group(MemoryStore(draft), zarr_format=3, attributes=dict(told))
    return draft[_OBJECT]

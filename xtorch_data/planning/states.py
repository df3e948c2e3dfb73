"""States: small JSON-able dicts of where an epoch was left, written, read and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any, Protocol, TypeVar, get_args

import numpy as np

from ..common.integers import as_integer
from ..common.redact import printable
from .frames import Frame
from .intervals import Uneven
from .line import Line
from .resume import Progress, WorkerProgress

__all__ = [
    "DimLabels",
    "as_number",
    "as_state",
    "digest",
    "digest_of",
    "entries",
    "fingerprint",
    "from_state",
    "kind_of",
    "part_of",
    "require_no_part",
    "require_same",
]

T = TypeVar("T")

# Numbers of states are kept in int64, with room for one more.
LARGEST = 2**62
# Each of them is looked at when a state is taken up.
MOST_READERS = 2**24
# Their other numbers may be 0.
AT_LEAST_ONE = {"world_size", "num_workers", "batch_size"}
# Parts of a fingerprint that are digests: what is said where they differ.
_DIGESTS = {
    "windows": "the windows, or the sizes of the dims",
    "blocks": "the order of blocks (it depends on chunks and memory)",
    "where": "the samples that where leaves",
    "weights": "the weights",
    "cells": "the order of events by chunks",
    "subset": "the indices of the Subset",
}
_NAMES = {"blocks in a pool": "the number of blocks in a pool (it depends on memory)"}


class DimLabels(Protocol):
    """The labels of the dims of samples, as far as states know them."""

    @property
    def found(self) -> Mapping[str, Sequence[str]]:
        """By dim, a digest and what the first and the last label are."""


def require_no_part(state: Mapping[str, Any]) -> None:
    """Raise ValueError if a state is of one worker alone."""
    if "part" in state:
        raise ValueError(
            "this state was taken in a loader worker and is of its share alone: it goes on in that "
            "worker only. Take the state from the loader"
        )


def part_of(state: Mapping[str, Any], here: WorkerProgress) -> WorkerProgress:
    """The part of a worker's state; ValueError if it is of another worker than here, or of none."""
    if "part" not in state:
        raise ValueError(
            "this state is not of a loader worker; xtorch_data.DataLoader takes it, or the "
            "dataset itself, before workers begin"
        )
    found = _from_list(state["part"], "part", WorkerProgress)
    different = [
        f"{name} {value} in the state, {getattr(here, name)} here"
        for name, value in asdict(replace(found, batches=here.batches)).items()
        if value != getattr(here, name)
    ]
    if different:
        raise ValueError(
            "a state that was taken in loader workers goes on in the same ones only, but: "
            + "; ".join(different)
            + ". A state of xtorch_data.DataLoader goes on with any ranks and workers"
        )
    return found


def digest(found: bytes) -> str:
    """What tells some bytes from others."""
    return hashlib.sha256(found).hexdigest()[:16]


def digest_of(frames: Iterable[Frame]) -> str:
    """What tells where windows lie in some sources."""
    return digest(b"".join(each.digest() for frame in frames for each in frame.maps))


def fingerprint(line: Line) -> dict[str, Any]:
    """What a line depends on, but for its epoch."""
    windows = line.grid.windows
    found = {
        "samples": len(windows),
        "windows": digest_of([windows.frame]),
        "shuffle": line.shuffle,
        "seed": line.seed,
    }
    if line.shuffle:  # in order the line is the same however it is cut into blocks
        cuts = (np.asarray(each).tobytes() for each in line.grid.cuts)
        found["blocks"] = digest(b"".join(cuts))
        found["blocks in a pool"] = min(line.pool_blocks, len(line.grid))
    return found


def require_same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise ValueError, saying what differs, if a state is not one of this dataset."""
    different = list(_different(found, expected))
    different += _other_labels(found.get("labels") or {}, expected.get("labels") or {})
    if different:
        raise ValueError(
            "this state is of another dataset. What differs: "
            + "; ".join(different)
            + ". strict=False takes it all the same"
        )


def _different(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    """What differs, field by field, but for labels: numbers and names as they were and as they are.

    Where a shuffled epoch is compared with one in order, or windows are others, blocks are, too.
    """
    follows = {"windows", "shuffle"}
    same = all(found.get(name) == expected.get(name) for name in follows)
    for name in {**expected, **found}:
        if found.get(name) == expected.get(name) or name == "labels":
            continue
        if name in ("blocks", "cells", "blocks in a pool") and not same:
            continue
        if name in _DIGESTS:
            only = "" if name in expected else ", in the state only"
            only = only if name in found else ", here only"
            yield f"{_DIGESTS[name]}{only}"
        else:
            yield (
                f"{_NAMES.get(name, printable(name))}: {_value(found, name)} in the state, "
                f"{_value(expected, name)} here"
            )


def _value(of: Mapping[str, Any], name: str) -> str:
    """A number or name of a fingerprint; of what is neither, what it is."""
    value = of.get(name, "none")
    return printable(value) if isinstance(value, str | int | float | None) else kind_of(value)


def kind_of(value: Any) -> str:
    """What a value is, for messages that must not be as long as the value."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    return f"a {type(value).__name__}"


def _other_labels(found: Any, expected: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Dims with other labels; states of before know none, and not all data has some."""
    if not isinstance(found, Mapping) or not all(
        isinstance(of_dim, list | tuple) and len(of_dim) == 3 for of_dim in found.values()
    ):
        raise ValueError(
            "this is not a state of a dataset: its 'labels' must have a digest, the first and the "
            f"last label of each dim, not {kind_of(found)}"
        )
    for dim in found:
        if dim in expected and found[dim][0] != expected[dim][0]:
            (_, *before), (_, *now) = found[dim], expected[dim]
            before = [printable(label) for label in before]
            ends = f"{before[0]} to {before[1]} in the state, {now[0]} to {now[1]} here"
            inside = ", and others in between" if before == now else ""
            yield f"the labels of dim {dim!r}: {ends}{inside}"


def as_state(
    epoch: int, walks: Iterable[Progress], fingerprint: Mapping[str, Any]
) -> dict[str, Any]:
    """A JSON-able state."""
    return {
        "version": 1,
        "epoch": epoch,
        "walks": [list(asdict(walk).values()) for walk in walks],
        "dataset": dict(fingerprint),
    }


def from_state(
    state: Mapping[str, Any], fingerprint: Mapping[str, Any], strict: bool
) -> tuple[int, list[Progress]]:
    """Epoch and walks of a state; ValueError if it is none, or, if `strict`, of another dataset."""
    keys = "version", "epoch", "walks", "dataset"
    version, epoch, walks, found = entries(state, keys, "an xtorch_data dataset")
    if version != 1:
        raise ValueError(f"the state has version {version!r}; this release reads version 1")
    if not isinstance(found, Mapping) or not isinstance(walks, Sequence) or isinstance(walks, str):
        raise ValueError(
            "this is not a state of an xtorch_data dataset: its 'walks' must be a list and its "
            f"'dataset' a mapping, not {kind_of(walks)} and {kind_of(found)}"
        )
    if strict:
        require_same(found, fingerprint)
    return as_number(epoch, "epoch"), [_walk(walk) for walk in walks]


def entries(state: Any, keys: Sequence[str], what: str) -> list[Any]:
    """Some entries of a state; ValueError if it lacks one, or is none at all."""
    if not isinstance(state, Mapping):
        raise ValueError(f"this is not a state of {what}: it is {kind_of(state)}, not a mapping")
    absent = [repr(key) for key in keys if key not in state]
    if absent:
        raise ValueError(f"this is not a state of {what}: it lacks {', '.join(absent)}")
    return [state[key] for key in keys]


def as_number(value: Any, name: str, least: int = 0, most: int = LARGEST) -> int:
    """A number of a state, which a file may have changed: ValueError if it cannot be one."""
    try:
        number = as_integer(value, name)
    except TypeError:
        raise ValueError(f"{name} is {value!r} in the state; it must be an integer") from None
    if not least <= number <= most:
        raise ValueError(f"{name} is {number} in the state; it must be {least} to {most}")
    return number


def _walk(values: Any) -> Progress:
    """A walk from the list of its values."""
    walk = _from_list(values, "each of its walks", Progress)
    if walk.world_size * walk.num_workers > MOST_READERS:
        raise ValueError(
            f"the state is of {walk.world_size} ranks with {walk.num_workers} workers each, more "
            f"than {MOST_READERS:,} together"
        )
    return walk


def _from_list(values: Any, what: str, kind: type[T]) -> T:
    """A walk or part from the list of its values, each of which is checked."""
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != len(names):
        found = f"{len(values)} values" if isinstance(values, list | tuple) else kind_of(values)
        raise ValueError(f"in a state, {what} must be a list, values of {names}, not {found}")
    return kind(*map(_checked, names, values))


def _checked(name: str, value: Any) -> Any:
    """A value of a walk or part; ValueError if it cannot be one."""
    if name == "uneven":
        if not isinstance(value, str) or value not in get_args(Uneven):
            raise ValueError(
                f"uneven is {value!r} in the state; it must be one of {list(get_args(Uneven))}"
            )
        return value
    if name == "drop_last":
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"drop_last is {value!r} in the state; it must be True or False")
        return bool(value)
    return as_number(value, name, least=int(name in AT_LEAST_ONE))

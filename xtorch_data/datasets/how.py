"""The arguments of an epoch, whatever its samples are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..planning.intervals import Uneven
from ..samples.transforms import Transform
from .topology import Topology

__all__ = ["How"]


@dataclass(frozen=True, eq=False, kw_only=True)
class How:
    """The arguments of an `IterableDataset` that do not say what its samples are, checked.

    Made by its constructor, and over with it: `where` and `weights` may be large.
    """

    batch_transform: Transform | None
    batch_size: int | None
    shuffle: bool
    seed: int
    drop_last: bool
    uneven: Uneven
    weights: Any  # these two as the user gives them: only the windows tell whether they fit
    where: Any
    memory: int
    cache: tuple[bool, str | None, int]  # in memory; in which folder, and up to so many bytes
    skipping: bool
    retries: int
    topology: Topology

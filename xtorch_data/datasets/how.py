"""How an epoch of samples goes, whatever the samples are."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import xarray as xr

from ..planning.intervals import Uneven
from ..samples.arguments import (
    as_batch_size,
    as_bytes,
    as_cache,
    as_flag,
    as_retries,
    as_seed,
    as_uneven,
)
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
    cached: bool  # whether blocks are kept in memory
    folder: str | None  # in which chunks are kept, up to `folder_size` bytes
    folder_size: int
    skipping: bool
    retries: int
    topology: Topology

    @classmethod
    def of(
        cls,
        *,
        batch_transform: Callable[..., xr.Dataset] | None,
        batch_size: int | None,
        shuffle: bool,
        seed: int,
        drop_last: bool,
        uneven: str | None,
        weights: Any,
        where: Any,
        memory: int | str,
        cache: bool | str | os.PathLike[str],
        cache_size: int | str | None,
        on_error: Literal["raise", "skip"],
        retries: int,
        rank: int | None,
        world_size: int | None,
    ) -> How:
        """Check the arguments by themselves.

        Raises
        ------
        ValueError, TypeError
            If one is not what it should be, or some do not go together.
        """
        shuffle = as_flag(shuffle, "shuffle")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
        if weights is not None and not shuffle:
            raise ValueError("weights draw samples at random, which needs shuffle=True")
        cached, folder, folder_size = as_cache(cache, cache_size)
        return cls(
            batch_transform=Transform.of(batch_transform, "batch_transform"),
            batch_size=as_batch_size(batch_size),
            shuffle=shuffle,
            seed=as_seed(seed),
            drop_last=as_flag(drop_last, "drop_last"),
            uneven=as_uneven(uneven, shuffle),
            weights=weights,
            where=where,
            memory=as_bytes(memory),
            cached=cached,
            folder=folder,
            folder_size=folder_size,
            skipping=on_error == "skip",
            retries=as_retries(retries),
            topology=Topology(rank, world_size),
        )

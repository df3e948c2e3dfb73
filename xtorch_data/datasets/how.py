"""How an epoch goes, whatever its samples are: batches, order, memory, errors, shares."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import xarray as xr

from ..common.retry import RETRIES
from ..planning.intervals import Uneven
from ..samples.arguments import (
    as_batch_size,
    as_bytes,
    as_cache,
    as_epoch_size,
    as_flag,
    as_on_error,
    as_retries,
    as_seed,
    as_uneven,
)
from ..samples.transforms import Transform
from .topology import Topology

__all__ = ["HOW_ARGUMENTS", "How"]


@dataclass(frozen=True, eq=False, kw_only=True)
class How:
    """The arguments of an `IterableDataset` that do not say what its samples are, checked.

    Made by its constructor. A part of a split has the same ones, but for `weights`.
    """

    batch_transform: Transform | None
    batch_size: int | None
    shuffle: bool
    seed: int
    drop_last: bool
    epoch_size: int | None
    uneven: Uneven
    weights: Any = field(repr=False)  # as the user gives them: the windows tell whether they fit
    memory: int
    cache: tuple[bool, str | None, int]  # in memory; in which folder, and up to so many bytes
    skipping: bool
    retries: int
    topology: Topology
    arguments: Mapping[str, Any]  # as they were given, but for weights

    @classmethod
    def of(
        cls,
        *,
        batch_size: int | None = 1,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        weights: Any = None,
        epoch_size: int | None = None,
        batch_transform: Callable[..., xr.Dataset] | None = None,
        memory: int | str = "1 GiB",
        cache: bool | str | os.PathLike[str] = False,
        cache_size: int | str | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        retries: int = RETRIES,
        uneven: Uneven | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> How:
        """Check the arguments of those names, as far as that takes no data."""
        arguments = {name: value for name, value in locals().items() if name in HOW_ARGUMENTS}
        del arguments["weights"]
        shuffle = as_flag(shuffle, "shuffle")
        if weights is not None and not shuffle:
            raise ValueError("weights draw samples at random, which needs shuffle=True")
        return cls(
            batch_transform=Transform.of(batch_transform, "batch_transform"),
            batch_size=as_batch_size(batch_size),
            shuffle=shuffle,
            seed=as_seed(seed),
            drop_last=as_flag(drop_last, "drop_last"),
            epoch_size=as_epoch_size(epoch_size),
            uneven=as_uneven(uneven, shuffle),
            weights=weights,
            memory=as_bytes(memory),
            cache=as_cache(cache, cache_size),
            skipping=as_on_error(on_error) == "skip",
            retries=as_retries(retries),
            topology=Topology(rank, world_size),
            arguments=arguments,
        )

    def replaced(self, options: Mapping[str, Any], weights: Any) -> How:
        """The arguments with some changed; `weights` unless they are among these."""
        return self.of(**{**self.arguments, "weights": weights, **options})


HOW_ARGUMENTS = frozenset(inspect.signature(How.of).parameters)

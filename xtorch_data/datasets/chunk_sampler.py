"""A sampler for MapDataset whose random order reads chunks in a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch.utils.data

from ..planning.index_maps import IntArray
from ..planning.intervals import Uneven, total
from ..samples.arguments import as_epoch, as_seed, as_uneven
from .map import MapDataset
from .topology import Topology

__all__ = ["ChunkSampler"]


class ChunkSampler(torch.utils.data.Sampler[int]):
    """Every sample of a `MapDataset` once, in a random order that is cheap to read.

    A sampler that draws from all samples lets each batch read chunks from all over the data. This
    one shuffles blocks of chunks, takes as many at a time as a part of the dataset's `memory`
    holds, and shuffles the samples in these: the order of a shuffled `IterableDataset` with the
    same seed and memory. It serves every rank of a distributed run a share of its own.

    Parameters
    ----------
    dataset : MapDataset
        What is sampled.
    seed : int
        What the order depends on, besides the epoch.
    rank, world_size : int, optional
        Which share this process gets. By default those of ``torch.distributed``, else of
        torchrun's environment, else 0 of 1.
    uneven : {"drop", "pad", "keep"}, optional
        What happens to samples that cannot be shared equally, as for `IterableDataset`; "drop" by
        default. With "pad", `Batch.repeated` does not tell which are repeated: a loader gets their
        numbers alone.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> t2m = xr.DataArray(np.arange(10.0), dims="time", name="t2m")
    >>> dataset = MapDataset(t2m, input_dims={"time": 4}, input_overlap={"time": 3})
    >>> sampler = ChunkSampler(dataset, seed=1)
    >>> sorted(sampler), len(sampler)
    ([0, 1, 2, 3, 4, 5, 6], 7)
    """

    def __init__(
        self,
        dataset: MapDataset,
        *,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: Uneven | None = None,
    ) -> None:
        if not isinstance(dataset, MapDataset):
            raise TypeError(
                f"dataset must be an xtorch_data.MapDataset, not {type(dataset).__name__}"
            )
        self.dataset = dataset
        self._plan = replace(
            dataset.plan, seed=as_seed(seed), uneven=as_uneven(uneven, shuffle=True)
        )
        self._topology = Topology(rank, world_size)
        if self._topology.explicit is not None:
            self._plan.require_shares(self._topology.explicit[1])
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """Number of the epoch that the next iteration will be."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration a certain epoch; later ones go on from there.

        Parameters
        ----------
        epoch : int
            Its number, 0 or more.
        """
        epoch = as_epoch(epoch)
        self._epoch = epoch

    def fingerprint(self) -> dict[str, Any]:
        """What the order depends on, but for the epoch: equal for samplers with equal orders."""
        plan, (_, world_size) = self._plan, self._topology.current()
        return {**plan.fingerprint(), "world_size": world_size, "uneven": plan.uneven}

    def __len__(self) -> int:
        return total(self._plan.intervals(self._epoch, *self._topology.current()))

    def __iter__(self) -> Iterator[int]:
        plan, epoch = self._plan, self._epoch
        self._epoch += 1
        rank, world_size = self._topology.current()
        plan.require_shares(world_size)
        stages = plan.stages(epoch, plan.intervals(epoch, rank, world_size))
        found: Iterator[IntArray] = (plan.numbers(stage) for stage in stages)
        if plan.kept is not None:  # the dataset counts those alone
            found = map(plan.kept.positions, found)
        return (position for some in found for position in some.tolist())

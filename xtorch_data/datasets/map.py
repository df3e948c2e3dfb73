"""MapDataset: samples of an xarray object by number, in any order."""

from __future__ import annotations

import difflib
import inspect
import operator
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Never

import torch
import torch.utils.data
import xarray as xr

from ..common.retry import RETRIES
from ..common.text import format_bytes, number_of
from ..iteration.by_number import Fetched
from ..planning.plan import Plan
from ..processes.workers import sendable_errors
from ..report.plots import WindowPlots
from ..samples.arguments import as_epoch
from ..samples.batch import Batch
from ..samples.definition import SampleDefinition
from ..samples.labels import LabelledWindows
from .fetching import Fetching
from .page import Dataset

__all__ = ["MapDataset"]

_OF_LOADER = "give it to the DataLoader, whose sampler decides the order"
# What takes the place of arguments that only an IterableDataset has.
_ELSEWHERE = {
    "where": "take torch.utils.data.Subset(dataset, indices)",
    "weights": "give the DataLoader a torch.utils.data.WeightedRandomSampler",
    "batch_size": _OF_LOADER,
    "shuffle": _OF_LOADER,
    "drop_last": _OF_LOADER,
    "batch_transform": "give the dataset a transform, or torch's DataLoader a collate_fn",
    "seed": "give the DataLoader a ChunkSampler(dataset, seed=…)",
    "uneven": "give the DataLoader a ChunkSampler(dataset, uneven=…)",
    "rank": "give the DataLoader a ChunkSampler(dataset, rank=…, world_size=…)",
    "world_size": "give the DataLoader a ChunkSampler(dataset, rank=…, world_size=…)",
    "on_error": "catch ReadError where a sample is asked for; an IterableDataset can skip samples",
}


class MapDataset(Dataset, torch.utils.data.Dataset[tuple[torch.Tensor, ...]]):
    """Samples of labeled arrays by number, for samplers that decide on the order.

    ``dataset[i]`` is a tuple of tensors without the batch dimension, ``(x, y)`` or ``(x,)``. It
    works with torch's samplers, ``Subset``, ``random_split`` and ``DataLoader``, and with
    scikit-learn's splitters. Samples of a batch are fetched together: each chunk is read once for
    all of them, and kept for later ones while `memory` lasts.

    Where the order is the dataset's to decide, `IterableDataset` reads far less: a random sample
    costs all the chunks that it lies in. `ChunkSampler` makes a random order that does not.

    Parameters
    ----------
    ds : xarray.Dataset, DataArray or DataTree, zarr.Array, zarr.Group or xbatcher.BatchGenerator
        The data, as for `IterableDataset`.
    input_dims : mapping of Hashable to int
        Size of one sample along each windowed dim, -1 for the whole dim.
    input_overlap : mapping of Hashable to int, optional
        Overlap of neighboring windows.
    inputs : Hashable, list of Hashable or Select, optional
        Variables of the part ``x``. Every data variable, as a list, by default.
    targets : Hashable, list of Hashable or Select, optional
        Variables of the part ``y``.
    parts : mapping of str to Hashable, list of Hashable or Select, optional
        Any number of named parts instead of `inputs` and `targets`.
    preprocess : callable, optional
        ``Dataset → Dataset``, once for every chunk (or some small ones) that is read.
    transform, target_transform : callable, optional
        xarray object → xarray object, for every sample of the part ``x`` or ``y``.
    memory : int or str
        Bytes, or text such as ``"1 GiB"``, that decoded chunks may take, per process.
    cache : bool or path
        Whether decoded chunks are kept for later samples while they fit in `memory`. If not, they
        serve those alone that are asked for together. With the path of a local folder, they are
        kept there as well, as for `IterableDataset`.
    cache_size : int or str, optional
        Bytes that may be kept in that folder, ``"64 GiB"`` by default.
    retries : int
        How often a read is tried again that fails in passing, as for `IterableDataset`.
    dtype : torch.dtype or numpy.dtype, optional
        What floating data becomes, float32 by default. Integers and booleans keep their dtype.
    dims : sequence of Hashable, optional
        Names of the dims of a ``zarr.Array`` that does not name them.
    **others : Never
        None. For arguments that only an `IterableDataset` has, such as ``where``, the error says
        what takes their place.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit the data; the message names the dim or variable and says what
        would.

    Notes
    -----
    A function that has a parameter named ``rng`` draws the same numbers for the same sample in
    the same epoch. `DataLoader` counts epochs; elsewhere `set_epoch` tells the dataset.

    Any number of threads may use a dataset. Copies in other processes, forked or started afresh,
    read on threads of their own.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> t2m = xr.DataArray(np.arange(10.0), dims="time", name="t2m")
    >>> dataset = MapDataset(t2m, input_dims={"time": 4}, input_overlap={"time": 3})
    >>> len(dataset)
    7
    >>> dataset[-1]
    (tensor([6., 7., 8., 9.]),)
    """

    _inside: Fetching

    def __init__(
        self,
        ds: Any,
        input_dims: Mapping[Any, int] | None = None,
        input_overlap: Mapping[Any, int] | None = None,
        *,
        inputs: Any = None,
        targets: Any = None,
        parts: Mapping[str, Any] | None = None,
        preprocess: Callable[..., xr.Dataset] | None = None,
        transform: Callable[..., Any] | None = None,
        target_transform: Callable[..., Any] | None = None,
        memory: int | str = "1 GiB",
        cache: bool | str | os.PathLike[str] = True,
        cache_size: int | str | None = None,
        retries: int = RETRIES,
        dtype: Any = None,
        dims: Sequence[Hashable] | None = None,
        **others: Never,
    ) -> None:
        _refuse(others)
        what = SampleDefinition.of(
            ds,
            input_dims,
            input_overlap,
            inputs=inputs,
            targets=targets,
            parts=parts,
            preprocess=preprocess,
            transform=transform,
            target_transform=target_transform,
            dtype=dtype,
            dims=dims,
        )
        self._inside = Fetching.of(
            what, memory=memory, cache=cache, cache_size=cache_size, retries=retries
        )
        self.retries, self.cache = self._inside.retries, self._inside.keeps
        self._warn()  # of a ChunkSampler; other orders read more

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__getitem__" in cls.__dict__ and "__getitems__" not in cls.__dict__:
            raise TypeError(
                f"{cls.__name__} overrides __getitem__ alone, but loaders call __getitems__: "
                "override that, too, or give the dataset a transform"
            )

    # What there is.

    @property
    def windows(self) -> LabelledWindows:
        """The samples: ``len(windows)``, ``windows[i]`` for ``isel``, ``windows.coords(i)``."""
        return self._inside.definition.labelled

    @property
    def plan(self) -> Plan:
        """The blocks and the random order in which `ChunkSampler` walks through the samples."""
        return self._inside.plan

    @property
    def plot(self) -> WindowPlots:
        """Pictures: ``plot.windows(i)``, where samples lie on the data."""
        return WindowPlots(self.windows, self.plan)

    def __len__(self) -> int:
        return len(self.plan.windows)

    def __repr__(self) -> str:
        return (
            f"<xtorch_data.MapDataset {self.windows!r}\n"
            f"  {self._inside.definition!r}\n"
            f"  from {self._inside.definition.origin}>"
        )

    def _facts(self) -> list[tuple[str, Any]]:
        kept = "decoded chunks are kept" if self.cache else "nothing is kept"
        return [
            ("samples", f"{len(self):,}, in the order that a sampler asks for"),
            ("memory", f"{format_bytes(self.plan.memory)}, {kept}"),
            ("errors", f"raised, after {number_of(self.retries, 'more try', 'more tries')}"),
        ]

    @property
    def epoch(self) -> int:
        """What random functions depend on, besides the sample."""
        return self._inside.epoch

    def set_epoch(self, epoch: int) -> None:
        """Let random functions draw the numbers of a certain epoch.

        The next pass of a `DataLoader` is that epoch, also if the one before was; later ones go on
        from there. Elsewhere it holds until another is set.

        Parameters
        ----------
        epoch : int
            Its number, 0 or more.
        """
        self._inside.begin(as_epoch(epoch))
        self._inside.times_set += 1

    def fetch(self, indices: Sequence[int], epoch: int | None = None) -> Batch:
        """Some samples as a batch with labels.

        Parameters
        ----------
        indices : sequence of int
            Sample numbers, in any order, also repeated or negative.
        epoch : int, optional
            What random functions depend on, besides the sample; `epoch` of the dataset by default.

        Returns
        -------
        Batch
            The samples in that order.

        Raises
        ------
        IndexError
            If there is no such sample.
        TypeError
            If they are not integers, one after the other.
        ReadError
            If their data cannot be read.
        ValueError
            If there is no index, or a memory-mapped file has changed since it was mapped.
        """
        return self._inside.fetch(indices, epoch)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        try:
            number = operator.index(index)
        except TypeError:
            raise TypeError(
                f"a sample is asked for by an integer, not {index!r}; fetch(indices) gives several "
                "as a batch, __getitems__(indices) as a list, and torch.utils.data.Subset(dataset, "
                "indices) is a part of the dataset"
            ) from None
        return tuple(tensor[0] for tensor in self.fetch([number]))

    def __getitems__(self, indices: Sequence[int]) -> Sequence[tuple[torch.Tensor, ...]]:
        """Some samples, fetched together, as torch's loader asks for them."""
        with sendable_errors():
            return Fetched(self.fetch(indices)) if len(indices) else []


def _refuse(others: Mapping[str, Any]) -> None:
    """Raise TypeError, naming the alternative, if there are other arguments."""
    for name in others:
        if name in _ELSEWHERE:
            raise TypeError(f"MapDataset does not take {name}: {_ELSEWHERE[name]}")
        near = difflib.get_close_matches(name, inspect.signature(MapDataset).parameters, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise TypeError(f"MapDataset got an unexpected keyword argument {name!r}{hint}")

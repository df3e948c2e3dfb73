"""MapDataset: samples of an xarray object by number, in any order."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Never

import torch
import torch.utils.data
import xarray as xr

from ..common.retry import RETRIES
from ..common.text import format_bytes, number_of
from ..common.user_warnings import telling_once
from ..iteration.by_number import Fetched
from ..planning.edges import Boundary, Remainder
from ..planning.plan import Plan
from ..processes.workers import sendable_errors
from ..report.plots import WindowPlots
from ..samples.arguments import as_epoch
from ..samples.batch import Batch
from ..samples.breaks import BreakRule
from ..samples.durations import Length
from ..samples.edges import Halo
from ..samples.facts import described
from .fetching import ACCESS_ARGUMENTS, Access, Fetching, require_none_of_epochs
from .page import Dataset
from .what import What, parted

__all__ = ["MapDataset"]


class MapDataset(Dataset, torch.utils.data.Dataset[tuple[torch.Tensor, ...]]):
    """Samples of labeled arrays: what they are, and each of them by number.

    It is defined once, then split, normalized, and gone through in epochs: `DataLoader` and
    `IterableDataset` take it, read it chunk by chunk and shuffle it. `split`, `kfold` and
    `random_split` make parts of it, and `replace` the same samples with another option.

    ``dataset[i]`` is a tuple of tensors without the batch dimension, ``(x, y)`` or ``(x,)``. It
    works with torch's samplers, ``Subset``, ``random_split`` and ``DataLoader``, and with
    scikit-learn's splitters. Samples of a batch are fetched together: each chunk is read once for
    all of them, and kept for later ones while `memory` lasts. In the order of such a sampler a
    sample costs all the chunks that it lies in; `ChunkSampler` makes a random order that does not.

    Parameters
    ----------
    ds : xarray.Dataset, DataArray or DataTree, zarr.Array, zarr.Group or xbatcher.BatchGenerator
        The data, as for `IterableDataset`; or a mapping of names to several of these, or to a
        `Source` of one. The first gives the samples; each sample has of the others what their rules
        say, and without a rule the same labels, or all of a dim that the first source lacks.
        Variables of others are named like ``"sst/tos"``. A source that no part names is a part of
        its own name: ``(sample, variable, …)`` and the dims that samples have of it.
    input_dims : mapping of Hashable to int or duration
        Size of one sample along each windowed dim, -1 for the whole dim; steps, or along times a
        duration such as ``"48h"``, as for `IterableDataset`.
    input_overlap : mapping of Hashable to int or duration, optional
        Overlap of neighboring windows.
    breaks : {"split", "raise", "ignore"} or mapping of Hashable to these, optional
        What becomes of places where the labels of a windowed dim jump, go back or are repeated,
        as for `IterableDataset`.
    boundary : mapping of Hashable to {"wrap", "edge", "reflect", "constant"}, optional
        What windows find beyond the ends of the data along a dim, as for `IterableDataset`.
    remainder : {"drop", "pad", "shift"} or mapping of Hashable to these, optional
        What becomes of the last, partial window, as for `IterableDataset`.
    halo : mapping of Hashable to int or (int, int), optional
        Steps that each sample has in addition on both sides, or before and behind.
    anchor : mapping of Hashable to int, optional
        The step that a sample is at along a dim, counted from the first step of its window or, if
        negative, from its end. Of other sources, `AsOf` and `ValidTime` take what belongs to its
        label; events lie there. By default the last step of ``x`` where `Select` cuts that dim,
        else the middle, ``size // 2`` behind the `halo`, where `centers` have labels of it, else
        the last one.
    centers : Dataset, DataFrame or mapping of Hashable to array_like, optional
        Events, each of which is a sample: one-dimensional labels named like the dims of the data
        that they are of. The window of an event has its cell at the anchor; events outside, or
        whose window would cross a break or, without a `boundary`, an end of the data, are left out,
        with a warning that counts them. Longitudes are compared modulo 360. The events' dim comes
        first and takes the place of these dims, which must be in `input_dims`. Other variables of
        the events are those of a source ``"centers"``, named like ``"centers/wind"``; batches have
        all as labels, and splits go by them.
    tolerance : mapping of Hashable to number or duration, optional
        By dim of such labels, how far the nearest step may be, instead of the cell that holds the
        label: edges of cells lie half-way between labels.
    inputs : Hashable, list of Hashable or Select, optional
        Variables of the part ``x``. Every data variable, as a list, by default.
    targets : Hashable, list of Hashable or Select, optional
        Variables of the part ``y``.
    parts : mapping of str to Hashable, list of Hashable, Select or NotNull, optional
        Any number of named parts instead of `inputs` and `targets`.
    preprocess : callable or mapping of str to callable, optional
        ``Dataset → Dataset``, once for every chunk (or some small ones) that is read. For several
        sources, a mapping of their names to such functions, or a `Normalize` of all of them.
    transform, target_transform : callable, optional
        xarray object → xarray object, for every sample of the part ``x`` or ``y``. As `transform`,
        a mapping of names of parts to such functions serves any part.
    where : xarray.DataArray, array_like of bool, callable, NotNull or list of these, optional
        Which samples there are, as for `IterableDataset`. `len` and ``dataset[i]`` count those that
        are left; `windows` and `Batch.index` have the numbers that all samples have without it.
    memory : int or str
        Bytes, or text such as ``"1 GiB"``, that decoded chunks may take, per process. Like `cache`
        and `retries`, it holds for access by number; a stream of the samples has its own.
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
        None. For arguments of epochs, such as ``batch_size``, the error says where they belong.

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

    Two days of six-hourly steps, and of a daily series the last three that were known by then:

    >>> from xtorch_data import AsOf, Source
    >>> hours = xr.date_range("2020-01-01", periods=40, freq="6h")
    >>> t2m = xr.DataArray(np.arange(40.0), {"time": hours}, name="t2m")
    >>> days = xr.date_range("2019-12-25", periods=20)
    >>> sst = xr.DataArray(np.arange(20.0), {"time": days}, name="sst")
    >>> rule = AsOf(3, latency="0h", label="left")
    >>> joined = MapDataset({"t2m": t2m, "sst": Source(sst, time=rule)}, input_dims={"time": 8})
    >>> joined[0]
    (tensor([0., 1., 2., 3., 4., 5., 6., 7.]), tensor([5., 6., 7.]))

    Three steps around each of two events, and what was measured there:

    >>> events = {"time": hours[[5, 20]], "wind": [12.0, 30.0]}
    >>> around = MapDataset(t2m, {"time": 3}, centers=events, targets="centers/wind")
    >>> around[1]
    (tensor([19., 20., 21.]), tensor(30.))
    """

    _inside: Fetching

    def __init__(
        self,
        ds: Any,
        input_dims: Mapping[Any, Length] | None = None,
        input_overlap: Mapping[Any, Length] | None = None,
        *,
        breaks: BreakRule | Mapping[Any, BreakRule | None] | None = None,
        boundary: Mapping[Any, Boundary] | None = None,
        remainder: Remainder | Mapping[Any, Remainder] | None = None,
        halo: Mapping[Any, Halo] | None = None,
        anchor: Mapping[Any, int] | None = None,
        centers: Any = None,
        tolerance: Mapping[Any, Any] | None = None,
        inputs: Any = None,
        targets: Any = None,
        parts: Mapping[str, Any] | None = None,
        preprocess: Callable[..., xr.Dataset]
        | Mapping[str, Callable[..., xr.Dataset]]
        | None = None,
        transform: Callable[..., Any] | Mapping[str, Callable[..., Any]] | None = None,
        target_transform: Callable[..., Any] | None = None,
        where: Any = None,
        memory: int | str = "1 GiB",
        cache: bool | str | os.PathLike[str] = True,
        cache_size: int | str | None = None,
        retries: int = RETRIES,
        dtype: Any = None,
        dims: Sequence[Hashable] | None = None,
        **others: Never,
    ) -> None:
        require_none_of_epochs(others)
        parted(others, ACCESS_ARGUMENTS, "MapDataset")
        access = Access.of(memory=memory, cache=cache, cache_size=cache_size, retries=retries)
        self._told = set()
        with telling_once(self._told):
            what = What.of(
                ds=ds,
                input_dims=input_dims,
                input_overlap=input_overlap,
                breaks=breaks,
                boundary=boundary,
                remainder=remainder,
                halo=halo,
                anchor=anchor,
                centers=centers,
                tolerance=tolerance,
                inputs=inputs,
                targets=targets,
                parts=parts,
                preprocess=preprocess,
                transform=transform,
                target_transform=target_transform,
                where=where,
                dtype=dtype,
                dims=dims,
            )
            self._inside = Fetching.of(what, access)
            self._check()  # of a ChunkSampler; other orders read more

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__getitem__" in cls.__dict__ and "__getitems__" not in cls.__dict__:
            raise TypeError(
                f"{cls.__name__} overrides __getitem__ alone, but loaders call __getitems__: "
                "override that, too, or give the dataset a transform"
            )

    def _require_own_samples(self) -> None:
        """Raise TypeError if a subclass makes samples otherwise, which no stream does."""
        for name in ("__getitem__", "__getitems__", "fetch"):
            if getattr(type(self), name) is not getattr(MapDataset, name):
                raise TypeError(
                    f"{type(self).__name__} overrides {name}, which a stream of its samples does "
                    "not call: give a sampler, or the dataset a transform"
                )

    # What there is.

    @property
    def plan(self) -> Plan:
        """The blocks and the random order in which `ChunkSampler` walks through the samples."""
        return self._inside.plan

    @property
    def plot(self) -> WindowPlots:
        """Pictures: ``plot.windows(i)``, where samples lie; ``plot.sources(i)``, and when."""
        return WindowPlots(self._inside.definition, self.plan)

    @property
    def cache(self) -> bool:
        """Whether decoded chunks are kept for later samples."""
        return self._inside.keeps

    @property
    def retries(self) -> int:
        """How often a read is tried again that fails in passing."""
        return self._inside.retries

    def __len__(self) -> int:
        """Number of samples, of those that ``where`` keeps."""
        return self.plan.samples

    def __repr__(self) -> str:
        return (
            f"<xtorch_data.MapDataset {self.windows!r}{self._left_out}\n"
            f"  {described(self._inside.definition)}\n"
            + "".join(f"  {line}\n" for line in self._uncovered)
            + f"  from {self._inside.definition.origin}>"
        )

    def _facts(self) -> list[tuple[str, Any]]:
        kept = "decoded chunks are kept" if self.cache else "nothing is kept"
        out = "" if self.plan.where is None else f", {self.plan.left_out:,} left out"
        return [
            ("samples", f"{len(self):,}{out}, in the order that is asked for"),
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
        self._inside.set(as_epoch(epoch))

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

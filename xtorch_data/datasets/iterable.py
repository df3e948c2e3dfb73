"""IterableDataset: an xarray object as a stream of batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Unpack

import torch
import torch.utils.data
import xarray as xr

from ..common import html
from ..common.retry import RETRIES
from ..common.text import format_bytes
from ..common.user_warnings import telling_once
from ..planning.intervals import Uneven
from ..planning.plan import Plan
from ..report.explain import explain
from ..report.explanation import Explanation
from ..report.plots import PlanPlots
from ..report.stats import Stats, stats_of
from ..report.unfit_chunks import warn_of_chunks
from ..samples.arguments import as_epoch, as_ranks_and_workers
from ..samples.batch import Batch
from ..samples.durations import Length
from .epochs import Epochs
from .fitted_labels import warn_of_statistics
from .how import How
from .map import MapDataset
from .page import Dataset
from .stream_facts import facts_of_stream, text_of_stream
from .what import SampleArguments, What, parted, require_none, show_all

__all__ = ["IterableDataset"]


class IterableDataset(Dataset, torch.utils.data.IterableDataset[Batch]):  # numpydoc ignore=PR02
    """Batches of windows over labeled arrays, read chunk by chunk.

    Iterating yields `Batch` objects. Every sample of the epoch comes exactly once, over all ranks
    and workers, and every iteration is the next epoch with an order of its own.

    The arguments from `batch_size` to `world_size` say how an epoch goes. All others say what the
    samples are; a `MapDataset` that is given has them, and then they are left out.

    Parameters
    ----------
    ds : MapDataset, xarray object, zarr.Array, zarr.Group or xbatcher.BatchGenerator
        The samples; or the data, however opened: a ``Dataset``, ``DataArray`` or, of a
        ``DataTree``, the node that is given. A ``BatchGenerator`` brings its own ``input_dims`` and
        ``input_overlap``, and every item it would yield is a sample. Or several sources by name, as
        for `MapDataset`.
    input_dims : mapping of Hashable to int or duration
        Size of one sample along each windowed dim, -1 for the whole dim. These dims are kept, in
        this order; each place along every other dim is a sample of its own. Along labels that are
        times or durations, evenly spaced but for breaks, it may be a duration: text that
        ``pandas.Timedelta`` reads, such as ``"48h"``, a ``datetime.timedelta`` or a
        ``numpy.timedelta64``. Of 6-hourly labels that is 8 steps; ``replace`` with other data
        counts them anew. Months and years, which differ in length, are no duration.
    input_overlap : mapping of Hashable to int or duration, optional
        Overlap of neighboring windows. Windows begin every ``size - overlap`` steps; one that
        would pass the end of the data is dropped (xbatcher's rules).
    breaks : {"split", "raise", "ignore"} or mapping of Hashable to these, optional
        What becomes of breaks: places where the labels of a windowed dim jump, go back or are
        repeated. Where at least 90 % of the steps between labels are within 50 % of their median,
        the others are breaks; months and years are regular, longitudes go around the circle. No
        window crosses a break, and windows begin anew after it. By default that is warned of once;
        with "split" it is not; "raise" is an error if there are any; "ignore" counts windows by
        position, as for a ``BatchGenerator`` in any case: then sizes are numbers of steps, since
        windows across breaks are of no one duration. For all dims, or by dim.
    boundary : mapping of Hashable to {"wrap", "edge", "reflect", "constant"}, optional
        What windows find beyond the ends of the data along a dim: with "wrap" the other end, and
        windows begin at every stride of the circle, which labels must close; with "edge" the last
        step again; with "reflect" those before it, backwards; with "constant" NaN, for floating
        data. Labels are those of `xarray.Dataset.pad`. By default windows lie in the data.
    remainder : {"drop", "pad", "shift"} or mapping of Hashable to these, optional
        What becomes of the last window, where the steps that are left make no whole one: it is left
        out; it reaches beyond the data, along dims with a `boundary`, where that is the default; or
        it is moved back to end with the data, or with the stretch before a break.
    halo : mapping of Hashable to int or (int, int), optional
        Steps that each sample has in addition on both sides, or before and behind: it is that much
        larger, and windows begin as far apart as without it. `Select` and `anchor` count from its
        first step. Without a `boundary`, samples whose halo would pass the ends are left out.
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
        Variables of the part ``x``. A list is stacked on a ``variable`` axis after ``sample``; a
        single name has no such axis. Every data variable, as a list, by default.
    targets : Hashable, list of Hashable or Select, optional
        Variables of the part ``y``.
    parts : mapping of str to Hashable, list of Hashable, Select or NotNull, optional
        Any number of named parts instead of `inputs` and `targets`.
    preprocess : callable, optional
        ``Dataset → Dataset``, once for each block that is read, before windows are cut: for work
        on single values, such as units, normalization, derived variables. Gets the selected
        variables, or all if it needs more than these. It is tried on made-up values: an error if
        a result depends on other steps along a dim of which samples have a part.
    transform, target_transform : callable, optional
        xarray object → xarray object, for every sample of the part ``x`` or ``y``: a ``Dataset``
        where variables are stacked, else a ``DataArray``. As `transform`, a mapping of names of
        parts to such functions serves any part.
    batch_transform : callable, optional
        ``Dataset → Dataset``, for every batch, labeled as by `Batch.to_xarray`. None of these
        functions may put values, or their labels, in another order along a dim.
    batch_size : int or None
        Samples in a batch. None yields samples one at a time, without the batch dimension.
    shuffle : bool
        Whether the order is random. It depends on `seed`, the epoch, the chunks and `memory`.
    seed : int
        Seed of the order and of random transforms.
    drop_last : bool
        Whether a rank's last batch is left out if it is smaller.
    weights : xarray.DataArray or array_like of float, optional
        Samples are drawn by these, with replacement, instead of taken once each: an epoch has as
        many as there are, or `epoch_size`, and in the mean each comes in proportion to its weight.
        One for each sample in the order of their numbers, or a DataArray along dims of the sample
        space, with one for each window, or one for each step of the data: then a sample's weight
        is the mean over the steps of its targets (the part ``y``; of its window if there is none).
        Needs ``shuffle=True``.
    epoch_size : int, optional
        Samples in an epoch, over all ranks; as many as there are by default. Shuffled, the next
        epoch goes on where the last one ended, so that every sample comes before any comes again;
        with `weights` it is the number of draws. In order, every epoch begins with the first
        sample. A multiple of ``batch_size * world_size`` leaves nothing out.
    where : xarray.DataArray, array_like of bool, callable, NotNull or list of these, optional
        Which samples there are; others are neither yielded nor counted by `len`, and blocks that
        hold only such are not read. A boolean for each sample in the order of their numbers, a
        DataArray along dims of the sample space with one for each window, or a function
        ``Dataset → bool`` that is asked about every window when the dataset is made: that reads
        the data once. It gets the variables of all parts, after `preprocess`. `NotNull` asks how
        much of a sample is present in the data, before `preprocess`. Of a list, all must hold.
    memory : int or str
        Bytes, or text such as ``"1 GiB"``, that blocks held and read ahead may take, per process.
    cache : bool or path
        Whether decoded blocks are kept for later epochs while they fit in `memory`; the rest is
        read again. Batches are the same either way. A `preprocess` that takes ``rng`` makes other
        values each epoch: then nothing is kept. With the path of a local folder, decoded chunks
        are kept there, before `preprocess`, for later epochs and for any process that reads the
        same: of a store far away, each is then fetched once.
    cache_size : int or str, optional
        Bytes that may be kept in that folder, ``"64 GiB"`` by default. A twentieth of the disk
        stays free in any case, at most 10 GiB.
    on_error : {"raise", "skip"}
        What happens to samples whose window touches a chunk which cannot be read: an error, or they
        are left out of their batches, which are smaller then. That is logged, counted in `stats`,
        and their numbers are in `Batch.skipped`. A batch of which nothing is left gets a sample
        that has been there before, since all ranks must have as many batches.
    retries : int
        How often a read is tried again that fails in passing, with a timeout or a connection cut
        off, after pauses that grow from half a second to half a minute.
    uneven : {"drop", "pad", "keep"}, optional
        What happens to the ``samples % world_size`` samples that cannot be shared equally: they
        are left out; the first are repeated until all ranks have as many (`Batch.repeated`); or
        some ranks get one more. "drop" when shuffled, "pad" in order. With `drop_last`, "pad"
        repeats samples only where that completes a batch on every rank.
    rank, world_size : int, optional
        Which share of the epoch this process gets. By default those of ``torch.distributed``, else
        of torchrun's environment, else 0 of 1.
    dtype : torch.dtype or numpy.dtype, optional
        What floating data becomes, float32 by default. Integers and booleans keep their dtype.
    dims : sequence of Hashable, optional
        Names of the dims of a ``zarr.Array`` that does not name them.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit the data; the message names the dim or variable and says what
        would.

    Notes
    -----
    A function that has a parameter named ``rng`` gets a `numpy.random.Generator` that depends only
    on the seed, the epoch and the sample (or block, or first sample of the batch). `transform` and
    `target_transform` of one sample get generators in the same state, so that both draw the same
    numbers.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> t2m = xr.DataArray(
    ...     np.arange(20.0).reshape(10, 2), dims=("time", "x"), coords={"time": np.arange(10)}
    ... )
    >>> dataset = IterableDataset(
    ...     t2m, input_dims={"time": 4, "x": -1}, input_overlap={"time": 3}, batch_size=3
    ... )
    >>> len(dataset.windows), len(dataset)
    (7, 3)
    >>> batch = next(iter(dataset))
    >>> batch.x.shape, batch.x.dtype, batch.index
    (torch.Size([3, 4, 2]), torch.float32, tensor([0, 1, 2]))

    The same of samples that are defined once, for training and for validation:

    >>> samples = MapDataset(t2m, input_dims={"time": 4, "x": -1}, input_overlap={"time": 3})
    >>> len(IterableDataset(samples, batch_size=3, shuffle=True))
    3

    Windows of two days, one after each 6-hourly step:

    >>> times = xr.date_range("2020-01-01", periods=20, freq="6h")
    >>> t2m = xr.DataArray(np.arange(20.0), dims="time", coords={"time": times})
    >>> IterableDataset(t2m, {"time": "48h"}, {"time": "42h"}).windows
    <13 samples (time: 13 × 8 of 20)>
    """

    _inside: Epochs

    def __init__(
        self,
        ds: Any,
        input_dims: Mapping[Any, Length] | None = None,
        input_overlap: Mapping[Any, Length] | None = None,
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
        **samples: Unpack[SampleArguments],
    ) -> None:
        super().__init__()
        how = How.of(
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            weights=weights,
            epoch_size=epoch_size,
            batch_transform=batch_transform,
            memory=memory,
            cache=cache,
            cache_size=cache_size,
            on_error=on_error,
            retries=retries,
            uneven=uneven,
            rank=rank,
            world_size=world_size,
        )
        given = {"input_dims": input_dims, "input_overlap": input_overlap, **samples}
        given, _ = parted(given, (), "IterableDataset")
        if isinstance(ds, MapDataset):
            require_none(given)
            ds._require_own_samples()
            self._told = ds._told
            with telling_once(self._told):
                self._inside = Epochs.of(ds._inside.what, how)
                if how.memory < ds.plan.memory:  # or all that there is to warn of was said
                    warn_of_chunks(self.plan, self._inside.definition.data)
                if how.batch_transform is not None:
                    warn_of_statistics(self._inside.definition, ds._inside.what.parts)
            self._inside.follow(ds._inside)
            return
        self._told = set()
        with telling_once(self._told):
            self._inside = Epochs.of(What.of(ds=ds, **given), how)
            self._check()

    # What there is.

    @property
    def plan(self) -> Plan:
        """What is read, in which order, and who gets what; it reads nothing."""
        return self._inside.plan

    @property
    def batch_size(self) -> int | None:
        """Samples in a batch; None for samples one at a time."""
        return self.plan.batch_size

    @property
    def shuffle(self) -> bool:
        """Whether the order is random."""
        return self.plan.shuffle

    @property
    def on_error(self) -> Literal["raise", "skip"]:
        """Treatment of samples whose window touches a chunk which cannot be read."""
        return "skip" if self._inside.skipping else "raise"

    @property
    def retries(self) -> int:
        """How often a read is tried again that fails in passing."""
        return self._inside.retries

    @property
    def rank(self) -> int:
        """Which of the shares of the epoch this process gets."""
        return self._inside.rank

    @property
    def world_size(self) -> int:
        """In how many shares the epoch is cut."""
        return self._inside.world_size

    @property
    def epoch(self) -> int:
        """Number of the epoch that the next iteration will be."""
        return self._inside.next

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration a certain epoch; later ones go on from there.

        Parameters
        ----------
        epoch : int
            Its number, 0 or more.
        """
        self._inside.set(as_epoch(epoch))

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration in this process is: JSON-able, and small at any scale.

        Taken after the same number of batches on all ranks, the state of one serves every rank.
        With worker processes the position is known to the loader: take the state from
        `DataLoader.state_dict`.
        """
        return self._inside.state()

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Go on where a state was taken, with the samples that no rank had yielded then.

        The number of ranks and workers and the batch size may be others than they were.

        Parameters
        ----------
        state : mapping
            From `state_dict`.
        strict : bool
            Whether to refuse the state of a dataset that differs in what the order depends on.

        Raises
        ------
        ValueError
            If it is no state, or of another dataset; the message says what differs.
        """
        self._inside.resume(state, strict)

    @property
    def plot(self) -> PlanPlots:
        """Pictures: ``plot.windows(i)`` and ``plot.sources(i)`` of samples, ``plot.plan()``."""
        return PlanPlots(self._inside.definition, self.plan, self.epoch, self.world_size)

    def stats(self) -> Stats:
        """Where the time of the latest iteration in this process went.

        With worker processes, reading and gathering happen there and are not counted here.

        Raises
        ------
        RuntimeError
            If there was no iteration in this process yet.
        """
        recorder = self._inside.reader.recorder
        if recorder is None:
            raise RuntimeError(
                "there are no stats: nothing was iterated in this process yet, or worker processes "
                "did the work"
            )
        return stats_of(recorder)

    def explain(self, world_size: int | None = None, num_workers: int = 0) -> Explanation:
        """What the next epoch will do and what that costs, from metadata alone.

        Parameters
        ----------
        world_size : int, optional
            Number of ranks; by default the dataset's own.
        num_workers : int
            Worker processes of each rank.

        Returns
        -------
        Explanation
            Samples, batches, chunk reads, read amplification, memory, mixing, and advice. It prints
            as text and, in a notebook, as HTML.
        """
        world_size = self.world_size if world_size is None else world_size
        world_size, num_workers = as_ranks_and_workers(world_size, num_workers)
        inside = self._inside
        inside.plan.require_shares(world_size)
        samples, plan = inside.seen(inside.next)
        return explain(
            samples,
            inside.reader.data,
            plan,
            inside.next,
            world_size,
            num_workers,
            inside.on_disk,
            stretches=inside.what.stretches(),
            phases=inside.phases,
        )

    def __len__(self) -> int:
        """Number of batches that this rank yields in the next iteration.

        Samples if ``batch_size`` is None; fewer than usual where an epoch is resumed.
        """
        return self.plan.batches(self.epoch, self.rank, self.world_size)

    def __repr__(self) -> str:
        return text_of_stream(self)

    def _facts(self) -> list[tuple[str, Any]]:
        return facts_of_stream(self)

    def _sections(self) -> list[str]:
        plan = self.plan
        memory = f"blocks of {format_bytes(plan.block_nbytes)} at most"
        return [html.section("Plan", memory, html.facts(plan.facts()))]

    # Iteration.

    def __getitem__(self, index: Any) -> Any:
        raise TypeError(
            "an IterableDataset is iterated, and has no samples by number: xtorch_data.MapDataset "
            "takes the same arguments and has"
        )

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._inside)


show_all(IterableDataset.__init__)

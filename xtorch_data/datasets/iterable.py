"""IterableDataset: an xarray object as a stream of batches."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import torch
import torch.utils.data
import xarray as xr

from ..common import html
from ..common.retry import RETRIES
from ..common.text import format_bytes, number_of
from ..device.gather import DeviceGather
from ..gathering.first_samples import require_functions_keep_places
from ..iteration.stream import Stream
from ..planning.intervals import Uneven, cut, total
from ..planning.plan import Plan
from ..planning.resume import Position, WorkerProgress, require_no_part
from ..planning.windows import Windows
from ..processes.orphans import watch_in_worker
from ..processes.workers import sent
from ..reading.disk_cells import OnDisk
from ..report.explain import explain
from ..report.explanation import Explanation
from ..report.plots import PlanPlots
from ..report.stats import Stats, stats_of
from ..report.unfit_chunks import chunks_unsaid, warn_of_chunks
from ..samples.arguments import (
    as_batch_size,
    as_bytes,
    as_cache,
    as_epoch,
    as_flag,
    as_ranks_and_workers,
    as_retries,
    as_seed,
    as_uneven,
)
from ..samples.batch import Batch
from ..samples.definition import Samples
from ..samples.labels import LabelledWindows
from ..samples.transforms import Transform
from .page import Shown
from .topology import EpochCounter, Topology
from .where_and_weights import as_weights, as_where, evaluated, labeled

__all__ = ["IterableDataset"]

logger = logging.getLogger(__name__)


class IterableDataset(Shown, torch.utils.data.IterableDataset[Batch]):
    """Batches of windows over labeled arrays, read chunk by chunk.

    Iterating yields `Batch` objects. Every sample of the epoch comes exactly once, over all ranks
    and workers, and every iteration is the next epoch with an order of its own.

    Parameters
    ----------
    ds : xarray.Dataset, DataArray or DataTree, zarr.Array, zarr.Group or xbatcher.BatchGenerator
        The data, however opened; of a ``DataTree``, the node that is given. A ``BatchGenerator``
        brings its own ``input_dims`` and ``input_overlap``, and every item it would yield is a
        sample.
    input_dims : mapping of Hashable to int
        Size of one sample along each windowed dim, -1 for the whole dim. These dims are kept, in
        this order; each place along every other dim is a sample of its own.
    input_overlap : mapping of Hashable to int, optional
        Overlap of neighboring windows. Windows begin every ``size - overlap`` steps; one that
        would pass the end of the data is dropped (xbatcher's rules).
    inputs : Hashable, list of Hashable or Select, optional
        Variables of the part ``x``. A list is stacked on a ``variable`` axis after ``sample``; a
        single name has no such axis. Every data variable, as a list, by default.
    targets : Hashable, list of Hashable or Select, optional
        Variables of the part ``y``.
    parts : mapping of str to Hashable, list of Hashable or Select, optional
        Any number of named parts instead of `inputs` and `targets`.
    preprocess : callable, optional
        ``Dataset → Dataset``, once for each block that is read, before windows are cut: for work
        on single values, such as units, normalization, derived variables. Gets the selected
        variables, or all if it needs more than these. It is tried on made-up values: an error if
        a result depends on other steps along a dim of which samples have a part.
    transform, target_transform : callable, optional
        xarray object → xarray object, for every sample of the part ``x`` or ``y``: a ``Dataset``
        where variables are stacked, else a ``DataArray``.
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
        many as there are, and in the mean each comes in proportion to its weight. One for each
        sample in the order of their numbers, or a DataArray along dims of the sample space, with
        one for each window or for each step of the data, where that of a window's first step
        counts. Needs ``shuffle=True``.
    where : xarray.DataArray, array_like of bool or callable, optional
        Which samples there are; others are neither yielded nor counted by `len`, and blocks that
        hold only such are not read. A boolean for each sample in the order of their numbers, a
        DataArray along dims of the sample space with one for each window, or a function
        ``Dataset → bool`` that is asked about every window when the dataset is made: that reads
        the data once. It gets the variables of all parts, after `preprocess`.
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
        What happens to samples that touch a chunk which cannot be read: an error, or they are left
        out of their batches, which are smaller then. That is logged, counted in `stats`, and their
        numbers are in `Batch.skipped`. A batch of which nothing is left gets a sample that has been
        there before, since all ranks must have as many batches.
    retries : int
        How often a read is tried again that fails in passing, with a timeout or a connection cut
        off, after pauses that grow from half a second to half a minute.
    uneven : {"drop", "pad", "keep"}, optional
        What happens to the ``samples % world_size`` samples that cannot be shared equally: they
        are left out, some are repeated, or some ranks get one more. "drop" when shuffled, "keep"
        otherwise.
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
    """

    _for_loaders = frozenset(
        {
            "batches_of", "begin_epoch", "counted", "data", "functions", "page", "streaming",
            "tell_epoch", "with_windows",
        }
    )  # fmt: skip

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
        batch_transform: Callable[..., xr.Dataset] | None = None,
        batch_size: int | None = 1,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        weights: Any = None,
        where: Any = None,
        memory: int | str = "1 GiB",
        cache: bool | str | os.PathLike[str] = False,
        cache_size: int | str | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        retries: int = RETRIES,
        uneven: Uneven | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        dtype: Any = None,
        dims: Sequence[Hashable] | None = None,
    ) -> None:
        super().__init__()
        shuffle, seed = as_flag(shuffle, "shuffle"), as_seed(seed)
        self.retries = as_retries(retries)
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
        self.on_error = on_error
        keep, folder, size = as_cache(cache, cache_size)
        samples = Samples.of(
            ds,
            input_dims,
            input_overlap,
            inputs=inputs,
            targets=targets,
            parts=parts,
            preprocess=preprocess,
            transform=transform,
            target_transform=target_transform,
            batch_transform=batch_transform,
            seed=seed,
            dtype=dtype,
            dims=dims,
        )
        require_functions_keep_places(samples)
        samples.require_batches(as_batch_size(batch_size))
        windows, labels = samples.recipe.windows, samples.windows
        self._on_disk = OnDisk.of(
            folder, size, as_bytes(memory), samples.data, samples.origin, self.retries
        )
        if weights is not None and not shuffle:
            raise ValueError("weights draw samples at random, which needs shuffle=True")
        drawn = as_weights(weights, windows, labels)
        if callable(where) and not isinstance(where, xr.DataArray):
            if samples.random_blocks:
                raise ValueError(
                    "where is asked once for all epochs, but preprocess draws other random numbers "
                    "in each: give where as a DataArray of booleans"
                )
            with chunks_unsaid():  # but once, below
                where = evaluated(
                    where,
                    windows,
                    lambda arguments: IterableDataset(
                        ds,
                        input_dims,
                        input_overlap,
                        inputs=list(samples.variable_dims),
                        preprocess=preprocess,
                        memory=memory,
                        cache=False if self._on_disk is None else cache,
                        cache_size=None if self._on_disk is None else cache_size,
                        on_error=on_error,
                        retries=retries,
                        rank=0,
                        world_size=1,
                        dims=dims,
                        **arguments,
                    )._iterate(0, 0, 1),  # the whole of it, also in a loader's worker
                )
        plan = Plan.of(
            windows,
            samples.layouts,
            memory=as_bytes(memory),
            shuffle=shuffle,
            seed=seed,
            batch_size=as_batch_size(batch_size),
            drop_last=as_flag(drop_last, "drop_last"),
            uneven=as_uneven(uneven, shuffle),
            independent=samples.random_blocks,
            cached=keep and not samples.random_blocks,
            where=as_where(where, windows, labels),
            weights=drawn,
            labels=samples.label_digests,
        )
        self._topology = Topology(rank, world_size)
        self._begin_with(samples, plan)
        info = torch.utils.data.get_worker_info()
        if info is None or not info.id:  # one of a loader's workers speaks for all
            samples.warn_of_bounds(stacklevel=4)
            warn_of_chunks(plan, samples.data)

    def _begin_with(self, samples: Samples, plan: Plan) -> None:
        """Make what an epoch needs of its own."""
        self._samples, self._plan = samples, plan
        if self._topology.explicit is not None:
            plan.require_shares(self._topology.explicit[1])
        self._epochs = EpochCounter()
        self._position = Position()
        self._taken = 0  # batches that the next iteration in a worker passes over
        self._stream = Stream(samples, plan, self._on_disk, self.retries, self.on_error == "skip")

    # What there is.

    @property
    def windows(self) -> LabelledWindows:
        """The samples: ``len(windows)``, ``windows[i]`` for ``isel``, ``windows.coords(i)``."""
        return self._samples.windows

    @property
    def where(self) -> xr.DataArray | None:
        """Which samples there are, labeled with their first steps; None if all are.

        What a function has answered can be saved and given to other datasets of the same samples.
        """
        table = self._plan.where
        return None if table is None else labeled(table, self._plan.windows, self.windows)

    @property
    def plan(self) -> Plan:
        """What is read, in which order, and who gets what; it reads nothing."""
        return self._plan

    @property
    def batch_size(self) -> int | None:
        """Samples in a batch; None for samples one at a time."""
        return self._plan.batch_size

    @property
    def shuffle(self) -> bool:
        """Whether the order is random."""
        return self._plan.shuffle

    @property
    def rank(self) -> int:
        """Which of the shares of the epoch this process gets."""
        return self._topology.current()[0]

    @property
    def world_size(self) -> int:
        """In how many shares the epoch is cut."""
        return self._topology.current()[1]

    @property
    def epoch(self) -> int:
        """Number of the epoch that the next iteration will be."""
        return self._epochs.next

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration a certain epoch; later ones go on from there.

        Parameters
        ----------
        epoch : int
            Its number, 0 or more.
        """
        epoch = as_epoch(epoch)
        if self._position.reached:  # begun since: an epoch that is set again is a whole one
            self._plan = self._plan.afresh()
        self._epochs.next = epoch
        self._position = Position()

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration in this process is: JSON-able, and small at any scale.

        Taken after the same number of batches on all ranks, the state of one serves every rank.
        With worker processes the position is known to the loader: take the state from
        `DataLoader.state_dict`.
        """
        epoch, batches = self._position.reached or (self.epoch, 0)
        part = self._part()
        if part is not None:
            return self._plan.state_of_part(epoch, replace(part, batches=batches))
        return self._plan.state_after(epoch, batches, self.world_size)

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
        plan, part = self._plan.resume(state, strict), self._part()
        if part is None:
            require_no_part(state)
            self._epochs.next = plan.resumed[0]
        else:  # torchdata's StatefulDataLoader asks and tells each of its workers
            taken = part.of_state(state).batches
            if strict:
                plan.require_part(plan.resumed[0], replace(part, batches=taken))
            self._taken = taken
            self._epochs.go_on(plan.resumed[0])
        self._plan = plan
        self._position = Position()

    @property
    def plot(self) -> PlanPlots:
        """Pictures: ``plot.windows(i)``, where samples lie; ``plot.plan()``, who reads what."""
        return PlanPlots(self.windows, self._plan, self.epoch, self.world_size)

    def stats(self) -> Stats:
        """Where the time of the latest iteration in this process went.

        With worker processes, reading and gathering happen there and are not counted here.

        Raises
        ------
        RuntimeError
            If there was no iteration in this process yet.
        """
        recorder = self._stream.recorder
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
        self._plan.require_shares(world_size)
        return explain(
            self._samples,
            self._stream.data,
            self._plan,
            self.epoch,
            world_size,
            num_workers,
            self._on_disk,
        )

    def __len__(self) -> int:
        """Number of batches that this rank yields in the next iteration.

        Samples if ``batch_size`` is None; fewer than usual where an epoch is resumed.
        """
        return self._plan.batches(self.epoch, self.rank, self.world_size)

    def __repr__(self) -> str:
        order = f"shuffled with seed {self._plan.seed}" if self.shuffle else "in order"
        if self._plan.weights is not None:
            order = f"drawn by weights with seed {self._plan.seed}"
        left_out = f", {self._plan.left_out:,} left out" if self._plan.where is not None else ""
        size = self.batch_size
        batches = "samples one at a time" if size is None else f"batches of {size:,}"
        return (
            f"<xtorch_data.IterableDataset {self.windows!r}{left_out}\n"
            f"  {self._samples!r}\n"
            f"  {batches}, {order}, from {self._samples.origin}>"
        )

    def _facts(self) -> list[tuple[str, Any]]:
        plan, size = self._plan, self.batch_size
        drawn = "in order"
        if self.shuffle:
            how = "shuffled" if plan.weights is None else "drawn by weights"
            drawn = f"{how} with seed {plan.seed}; the next epoch is {self.epoch}"
        if size is None:
            batches = f"{number_of(len(self), 'sample')}, one at a time"
        else:
            batches = f"{len(self):,} of {number_of(size, 'sample')}"
        left_out = f", {plan.left_out:,} left out by where" if plan.left_out else ""
        return [
            ("samples", f"{plan.samples:,} of {len(plan.windows):,}{left_out}"),
            ("batches", f"{batches}, on rank {self.rank} of {self.world_size}"),
            ("order", drawn),
            ("uneven", f"{plan.uneven}{', drop_last' * plan.drop_last}"),
            ("memory", format_bytes(plan.memory) + ", decoded blocks are kept" * plan.cached),
            (
                "errors",
                f"{self.on_error}, after {number_of(self.retries, 'more try', 'more tries')}",
            ),
        ]

    def _sections(self) -> list[str]:
        plan = self._plan
        memory = f"blocks of {format_bytes(plan.block_nbytes)} at most"
        return [html.section("Plan", memory, html.facts(plan.facts()))]

    def with_windows(self, windows: Windows) -> Self:
        """The same dataset of other samples, with epochs of its own from 0 on.

        Parameters
        ----------
        windows : Windows
            Some of its windows: ``dataset.plan.windows.within(dim, intervals)``.
        """
        part = copy.copy(self)
        part._begin_with(self._samples.over(windows), self._plan.over(windows))
        return part

    # What a loader asks for.

    def functions(self) -> list[Transform]:
        """The functions of the user."""
        return self._samples.functions()

    def begin_epoch(self) -> int:
        """Take the next epoch; what was resumed is over with the epochs that follow."""
        info = torch.utils.data.get_worker_info()
        epoch = self._epochs.claim() if info is None else self._epochs.claim_in_worker(info)
        self._position.begin(epoch)
        if self._plan.resumed[0] != epoch:
            self._plan = self._plan.afresh()
        self._stream.recorder = None
        return epoch

    def tell_epoch(self, epoch: torch.Tensor | int) -> None:
        """Tell the copy in a worker process which epoch to yield.

        Parameters
        ----------
        epoch : torch.Tensor or int
            Its number, or memory from which it is read whenever an iteration begins.
        """
        self._epochs.tell(epoch)

    @property
    def data(self) -> xr.Dataset:
        """What is read."""
        return self._samples.data

    # Iteration.

    def __getitem__(self, index: Any) -> Any:
        raise TypeError(
            "an IterableDataset is iterated, and has no samples by number: xtorch_data.MapDataset "
            "takes the same arguments and has"
        )

    def __iter__(self) -> Iterator[Batch]:
        info = torch.utils.data.get_worker_info()
        if info is None:
            epoch = self.begin_epoch()
            return self._position.counted(epoch, self._iterate(epoch, 0, 1))
        watch_in_worker()
        self._stream.share_batches()
        epoch = self._epochs.claim_in_worker(info)
        taken, self._taken = self._taken, 0
        self._position.begin(epoch, taken)
        batches = sent(self._iterate(epoch, info.id, info.num_workers, taken))
        return self._position.counted(epoch, batches, taken)

    def _part(self) -> WorkerProgress | None:
        """Which loader worker this process is, if it is one."""
        info = torch.utils.data.get_worker_info()
        if info is None:
            return None
        return self._plan.part(self.rank, self.world_size, info.id, info.num_workers)

    def streaming(self, samples: Samples) -> Stream:
        """What reads other values of the same samples, with memory of its own.

        Parameters
        ----------
        samples : Samples
            The samples, such as they are stored.
        """
        return Stream(samples, self._plan, None, self.retries, self.on_error == "skip")

    def batches_of(
        self,
        epoch: int,
        stream: Stream | None = None,
        gather: DeviceGather | None = None,
        pinned: bool = False,
    ) -> Generator[Batch, None, None]:
        """An epoch that was begun, as a loader wants it made; not counted yet.

        Parameters
        ----------
        epoch : int
            From `begin_epoch`.
        stream : Stream, optional
            What reads it; that of the dataset by default.
        gather : DeviceGather, optional
            Cuts windows on a device. Then each batch has a mark of when it is there.
        pinned : bool
            Whether what is sent to a device lies in page-locked memory: batches, or blocks.
        """
        stream = stream or self._stream
        if pinned and gather is not None:
            stream.pin_blocks()
        elif pinned:
            stream.pin_batches()
        info = torch.utils.data.get_worker_info()
        worker = (0, 1) if info is None else (info.id, info.num_workers)
        batches = self._iterate(epoch, *worker, 0, gather, stream)
        self._stream.recorder = stream.recorder
        return batches

    def counted(self, epoch: int, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Batches of an epoch that was begun, which count as they are handed out from here.

        Parameters
        ----------
        epoch : int
            From `begin_epoch`.
        batches : iterator of Batch
            Its batches, all that is done to them ahead included.
        """
        return self._position.counted(epoch, batches)

    def _iterate(
        self,
        epoch: int,
        worker: int,
        num_workers: int,
        taken: int = 0,
        gather: DeviceGather | None = None,
        stream: Stream | None = None,
    ) -> Generator[Batch, None, None]:
        plan = self._plan
        plan.require_shares(self.world_size)
        intervals = plan.intervals(epoch, self.rank, self.world_size, worker, num_workers)
        intervals = cut(intervals, taken * (plan.batch_size or 1), total(intervals))
        logger.debug(
            "epoch %d begins: worker %d of %d on rank %d of %d, %d samples",
            epoch, worker, num_workers, self.rank, self.world_size, total(intervals),
        )  # fmt: skip
        return (stream or self._stream).batches(plan, epoch, intervals, gather)

"""IterableDataset: an xarray object as a stream of batches."""

from __future__ import annotations

import contextlib
import math
import operator
import os
import warnings
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from typing import Any

import dask.utils
import torch
import torch.utils.data
import xarray as xr

from . import epoch as epochs
from . import resume
from .arguments import as_batch_size, as_bytes, as_seed, as_uneven, numpy_dtype
from .assembly import Assembly, Recipe
from .batch import Batch
from .blocks import BlockGrid, plan_in_order, plan_shuffled
from .buffers import Buffers
from .cache import BlockCache
from .epoch import Interval, Line, Load, Stage, Uneven
from .forked import make_safe
from .labels import LabelledWindows, Labels
from .pipeline import run
from .prepare import Preparer
from .reader import Reader
from .recycled import with_recycled_memory
from .select import make_part, resolve_parts
from .shared import SharedBuffers
from .sources import as_source
from .space import SampleSpace, coords_of, layouts_of
from .stats import Recorder, Stats
from .topology import EpochCounter, as_topology, current_topology
from .transforms import Transform

__all__ = ["IterableDataset"]

# Shuffled, a pool that decodes a chunk no more often than this need not be larger.
ENOUGH_AMPLIFICATION = 1.25
# In order, blocks held and read ahead at most, if the memory allows more.
BLOCKS_AHEAD = 8
# Of larger batches, fewer are gathered ahead.
LARGE_BATCH_BYTES = 16 * 2**20
# Small batches are gathered several at a time: as many as this, or as make so many bytes.
SMALL_BATCHES, JOB_BYTES = 64, 2**20


class IterableDataset(torch.utils.data.IterableDataset[Batch]):
    """Batches of windows over labeled arrays, read chunk by chunk.

    Iterating yields `Batch` objects. Every sample of the epoch comes exactly once, over all ranks
    and workers, and every iteration is the next epoch with an order of its own.

    Parameters
    ----------
    ds : xarray.Dataset, xarray.DataArray, zarr.Array, zarr.Group or xbatcher.BatchGenerator
        The data, however opened. A ``BatchGenerator`` brings its own ``input_dims`` and
        ``input_overlap``, and every item it would yield is a sample.
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
        variables, or all if it needs more than these.
    transform, target_transform : callable, optional
        xarray object → xarray object, for every sample of the part ``x`` or ``y``: a ``Dataset``
        where variables are stacked, else a ``DataArray``.
    batch_transform : callable, optional
        ``Dataset → Dataset``, for every batch, labeled as by `Batch.to_xarray`.
    batch_size : int or None
        Samples in a batch. None yields samples one at a time, without the batch dimension.
    shuffle : bool
        Whether the order is random. It depends on `seed` and the epoch alone.
    seed : int
        Seed of the order and of random transforms.
    drop_last : bool
        Whether a rank's last batch is left out if it is smaller.
    memory : int or str
        Bytes, or text such as ``"1 GiB"``, that blocks held and read ahead may take, per process.
    cache : bool
        Whether decoded blocks are kept for later epochs while they fit in `memory`; the rest is
        read again. Batches are the same either way. A `preprocess` that takes ``rng`` makes other
        values each epoch: then nothing is kept.
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
        memory: int | str = "1 GiB",
        cache: bool = False,
        uneven: Uneven | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        dtype: Any = None,
        dims: Sequence[Hashable] | None = None,
    ) -> None:
        super().__init__()
        source = as_source(ds, dims)
        self.batch_size = as_batch_size(batch_size)
        self.shuffle = bool(shuffle)
        self.seed = as_seed(seed)
        self.drop_last = bool(drop_last)
        self.memory = as_bytes(memory)
        self.uneven = as_uneven(uneven, self.shuffle)
        self._topology = as_topology(rank, world_size)
        self._inherited: tuple[int, int] | None = None  # topology of the parent, in a worker
        self._told_epoch: torch.Tensor | int | None = None  # by the parent, in a worker
        self._epochs = EpochCounter()
        self._walks: tuple[int, tuple[resume.Walk, ...]] = 0, ()  # an epoch, and what is done of it
        self._position: tuple[int, int] | None = None  # epoch and batches of the latest iteration

        selections = resolve_parts(
            source.dataset, source.single, inputs, targets, parts, reserved={"index", *dir(Batch)}
        )
        self._preprocess = Transform.of(preprocess, "preprocess")
        transforms = {
            "x": Transform.of(transform, "transform"),
            "y": Transform.of(target_transform, "target_transform"),
        }
        for part, given in transforms.items():
            if given is not None and part not in selections:
                raise ValueError(
                    f"{given.argument} works on part {part!r}, but the parts are {list(selections)}"
                )
        floating, cast_to = numpy_dtype(dtype)
        space = SampleSpace.of(source, input_dims, input_overlap, selections, self._preprocess)
        self._windows = space.windows
        made = tuple(
            make_part(name, select, space.template, space.windows, space.sample_dims, floating)
            for name, select in selections.items()
        )
        coords = coords_of(source.dataset, space.windows)
        self._variable_dims = {
            name: frozenset(space.template.variables[name].dims)
            for part in made
            for name in part.variables
        }
        self._recipe = Recipe(
            windows=space.windows,
            parts=made,
            transforms={name: given for name, given in transforms.items() if given is not None},
            batch_transform=Transform.of(batch_transform, "batch_transform"),
            sample_dims=space.sample_dims,
            flatten=space.flatten,
            floating=floating,
            cast=cast_to,
            seed=self.seed,
            labels=Labels(
                space.windows,
                coords,
                {name: dict(space.template.variables[name].attrs) for name in self._variable_dims},
            ),
        )
        read = source.dataset[list(space.reads)]
        labelled = self._preprocess is not None or self._recipe.transforms
        self._data = read if labelled else read.drop_vars(list(read.coords))
        self._origin = source.origin
        self._process = os.getpid()
        self._layouts = layouts_of(self._data, space.windows, made)
        self._grid, share = self._plan()
        nbytes = max(1, self._grid.nbytes)
        self._pool_blocks = max(1, self.memory // share // nbytes)
        self._cache: BlockCache | None = None
        if cache and not (self._preprocess is not None and self._preprocess.takes_rng):
            working = 2 * nbytes * (self._pool_blocks if self.shuffle else 1)
            self._cache = BlockCache(self.memory, working, nbytes * len(self._grid))
        self._recorder: Recorder | None = None
        # Memory that blocks have left, until the next ones are read; what is kept is not left.
        spare = 0 if self._cache is not None or share < 3 else self.memory // 3
        self._block_buffers = Buffers(self.memory, total=self.memory)
        self._data = with_recycled_memory(self._data, self._block_buffers)
        self._budget = self.memory - spare
        if not self.shuffle:  # a few blocks ahead hide a read; more would only take fresh memory
            self._budget = min(self._budget, BLOCKS_AHEAD * nbytes)
        self._buffers = Buffers(idle=4 * self._batch_nbytes())
        if self._topology is not None:
            self._check_shares(*self._topology)

    def _plan(self) -> tuple[BlockGrid, int]:
        """The blocks, and the part of the memory, one in so many, that a pool or block may take.

        A third: one is in use while the next is read, and a third is for memory that is used again.
        Where chunks are so large that this decodes them often, reading less comes first: a half
        leaves no spare memory, the whole no room to read ahead.
        """
        planner = plan_shuffled if self.shuffle else plan_in_order
        enough = ENOUGH_AMPLIFICATION if self.shuffle else 1.0
        found = []
        for share in (3, 2, 1):
            grid = planner(self._windows, self._layouts, self.memory // share)
            found.append((grid, share))
            if grid.nbytes <= self.memory // share and grid.amplification <= enough:
                break
        else:
            grid, share = min(found, key=lambda each: round(each[0].amplification, 2))
        if len(grid.windows) and grid.nbytes > self.memory:
            warnings.warn(
                f"one sample takes {dask.utils.format_bytes(grid.nbytes)}, more than memory="
                f"{dask.utils.format_bytes(self.memory)}: blocks of one window are read, one at a "
                "time, and the memory is exceeded",
                stacklevel=3,
            )
        return grid, share

    def _check_shares(self, rank: int, world_size: int) -> None:
        if self.uneven == "drop" and len(self._windows) < world_size:
            raise ValueError(
                f"{len(self._windows)} samples cannot be shared by {world_size} ranks with "
                "uneven='drop': every rank would get none"
            )

    # What there is.

    @property
    def windows(self) -> LabelledWindows:
        """The samples: ``len(windows)``, ``windows[i]`` for ``isel``, ``windows.coords(i)``."""
        return LabelledWindows(self._windows, self._recipe.labels.coords)

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
        epoch = operator.index(epoch)
        if epoch < 0:
            raise ValueError(f"epoch must not be negative, got {epoch}")
        if self._position is not None:  # begun since: an epoch that is set again is a whole one
            self._walks = 0, ()
        self._epochs.next = epoch
        self._position = None

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration in this process is: JSON-able, and small at any scale.

        Taken after the same number of batches on all ranks, the state of one serves every rank.
        With worker processes the position is known to the loader: take the state from
        `DataLoader.state_dict`.
        """
        epoch, taken = self._position or (self.epoch, 0)
        return self._state_after(epoch, taken, num_workers=1)

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
        epoch, walks = resume.from_state(state, self._line(0), strict)
        self._epochs.next = epoch
        self._walks = epoch, tuple(walks)
        self._position = None

    def _state_after(self, epoch: int, taken: int, num_workers: int) -> dict[str, Any]:
        """The state after some batches of an epoch."""
        walked = self._walks[1] if self._walks[0] == epoch else ()
        _, world_size = self._rank_and_world_size()
        walk = resume.Walk(
            world_size, num_workers, self.batch_size or 1, self.uneven, self.drop_last, taken
        )
        left = self._left(epoch)
        if taken and taken >= max(walk.batches_of(left, rank) for rank in (0, world_size - 1)):
            return resume.as_state(epoch + 1, (), self._line(0))
        return resume.as_state(epoch, (*walked, walk) if taken else walked, self._line(0))

    def stats(self) -> Stats:
        """Where the time of the latest iteration in this process went.

        With worker processes, reading and gathering happen there and are not counted here.

        Raises
        ------
        RuntimeError
            If there was no iteration in this process yet.
        """
        if self._recorder is None:
            raise RuntimeError(
                "there are no stats: nothing was iterated in this process yet, or worker processes "
                "did the work"
            )
        return self._recorder.stats()

    def __len__(self) -> int:
        """Number of batches that this rank yields in the next iteration.

        Samples if ``batch_size`` is None; fewer than usual where an epoch is resumed.
        """
        mine = epochs.share(self._left(self.epoch), *self._rank_and_world_size(), self.uneven)
        return self._batches_of(epochs.total(mine))

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{part.name}: "
            + (f"{list(part.variables)}" if part.stacked else f"{part.variables[0]!r}")
            + f" {part.sample_shape}"
            for part in self._recipe.parts
        )
        order = f"shuffled with seed {self.seed}" if self.shuffle else "in order"
        return (
            f"<xtorch_data.IterableDataset {self.windows!r}\n"
            f"  {parts}\n"
            f"  batches of {self.batch_size}, {order}, from {self._origin}>"
        )

    def functions(self) -> list[Transform]:
        """The functions of the user."""
        given = [self._preprocess, *self._recipe.transforms.values(), self._recipe.batch_transform]
        return [transform for transform in given if transform is not None]

    # Who gets what: the line, cut for ranks and workers.

    def _rank_and_world_size(self) -> tuple[int, int]:
        if self._topology is not None:
            return self._topology
        if self._inherited is not None and torch.utils.data.get_worker_info() is not None:
            return self._inherited
        return current_topology()

    def _left(self, epoch: int) -> list[Interval]:
        """The stretches of an epoch's line that are still to be walked."""
        walks = self._walks[1] if self._walks[0] == epoch else ()
        return resume.remaining(len(self._windows), walks)

    def _batches_of(self, samples: int) -> int:
        if self.batch_size is None:
            return samples
        return epochs.batches(samples, self.batch_size, self.drop_last)

    def _line(self, epoch: int) -> Line:
        return Line(self._grid, self.shuffle, self.seed, epoch, self._pool_blocks)

    def _intervals(
        self, epoch: int, rank: int, world_size: int, worker: int, num_workers: int
    ) -> list[Interval]:
        """The stretches of the line that one worker of one rank yields."""
        size = self.batch_size or 1
        mine = epochs.share(self._left(epoch), rank, world_size, self.uneven)
        return epochs.worker_share(mine, worker, num_workers, size, self.drop_last)

    def _stages(self, epoch: int, intervals: Sequence[Interval]) -> Iterator[Stage]:
        random_blocks = self._preprocess is not None and self._preprocess.takes_rng
        return self._line(epoch).stages(intervals, independent=random_blocks)

    # Iteration.

    def __iter__(self) -> Iterator[Batch]:
        info = torch.utils.data.get_worker_info()
        if info is None:
            epoch = self._begin()
            return self._counted(epoch, self._iterate(epoch, 0, 1))
        if not isinstance(self._buffers, SharedBuffers):
            self._buffers = SharedBuffers(idle=4 * self._batch_nbytes())
        if self._told_epoch is not None:
            return self._iterate(int(self._told_epoch), info.id, info.num_workers)
        return self._iterate(self._epochs.claim_in_worker(info), info.id, info.num_workers)

    def _begin(self) -> int:
        """Take the next epoch; what was resumed is over with the epochs that follow."""
        epoch = self._epochs.claim()
        self._position = epoch, 0
        if self._walks[0] != epoch:
            self._walks = 0, ()
        self._recorder = None
        return epoch

    def _counted(
        self, epoch: int, batches: Generator[Batch, None, None]
    ) -> Generator[Batch, None, None]:
        """Batches, counted as they are handed out."""
        taken = 0
        with contextlib.closing(batches):
            for batch in batches:
                taken += 1
                self._position = epoch, taken
                yield batch
                del batch

    def _iterate(self, epoch: int, worker: int, num_workers: int) -> Generator[Batch, None, None]:
        if self._process != os.getpid():  # inherited by a fork, not sent to this process
            make_safe(self._data)
            self._process = os.getpid()
            self._inherited = None
        intervals = self._intervals(epoch, *self._rank_and_world_size(), worker, num_workers)
        samples = epochs.total(intervals)
        self._check_shares(*self._rank_and_world_size())
        size = self.batch_size or 1
        sizes = (min(size, samples - start) for start in range(0, samples, size))
        recipe = self._recipe
        recorder = self._recorder = Recorder(epoch)
        nbytes = self._batch_nbytes()
        preparer = Preparer(
            self._windows,
            recipe.sample_dims,
            recipe.parts,
            frozenset(recipe.transforms),
            self._block_buffers,
            lasting=self._cache is not None,
        )
        return run(
            self._stages(epoch, intervals),
            sizes,
            lambda threads: Reader(
                dataset=self._data,
                origin=self._origin,
                windows=self._windows,
                variable_dims=self._variable_dims,
                preprocess=self._preprocess,
                seed=self.seed,
                epoch=epoch,
                recorder=recorder,
                executor=threads.work,
                graphs=threads.graphs,
            ),
            preparer,
            lambda count: Assembly(recipe, self._buffers, count, epoch),
            self.batch_size is None,
            2 if nbytes > LARGE_BATCH_BYTES else 4,
            1 if self.functions() else max(1, min(SMALL_BATCHES, JOB_BYTES // max(1, nbytes))),
            lambda load: self._nbytes(load, preparer),
            self._budget,
            self._cache,
            recorder,
        )

    def _batch_nbytes(self) -> int:
        """Bytes of a batch, before any transform."""
        parts = self._recipe.parts
        nbytes = sum(math.prod(part.sample_shape) * part.dtype.itemsize for part in parts)
        return nbytes * (self.batch_size or 1)

    def _nbytes(self, load: Load, preparer: Preparer) -> int:
        """Bytes that a load takes in memory, and what is joined of it with the one before."""
        along = load.axis
        begin, stop = load.region[along] if load.region else (0, 1)
        # Read, perhaps beyond the region; and pieces that straddle what was handed on.
        extent = max([stop, *(end for _, end in load.whole_chunks.values())]) - begin
        if load.carried is not None and preparer.joins(load):
            extent += sum(piece.region[along][1] - load.carried for piece in load.pieces[:1])
        sizes = {
            axis.dim: stop - start
            for axis, (start, stop) in zip(self._windows.axes, load.region, strict=True)
        }
        if load.region:
            sizes[self._windows.axes[along].dim] = extent
        total = sum(
            layout.itemsize * math.prod(sizes[dim] for dim in layout.chunks)
            for layout in self._layouts
        )
        return total

    def __getstate__(self) -> dict[str, Any]:
        # A worker process knows nothing of torch.distributed: tell it who its parent is.
        known = {"_inherited": self._rank_and_world_size(), "_recorder": None}
        return {**self.__dict__, **known}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _process=os.getpid())

"""MapDataset: samples of an xarray object by number, in any order."""

from __future__ import annotations

import copy
import difflib
import inspect
import operator
import os
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Never, Self

import torch
import torch.utils.data
import xarray as xr

from ..common.buffers import Buffers
from ..common.recorder import Recorder
from ..common.retry import RETRIES
from ..common.text import format_bytes, number_of
from ..gathering.first_samples import require_functions_keep_places
from ..iteration.by_number import Fetched, Fetcher
from ..planning.plan import Plan
from ..planning.windows import Windows
from ..processes.orphans import Watch, watch_in_worker
from ..processes.shared_memory import SharedBuffers
from ..processes.unnamed_memory import SharedIntegers
from ..processes.workers import sendable_errors
from ..reading.disk_cells import OnDisk
from ..reading.forks import let_forks_wait_for_reads, make_safe
from ..report.plots import WindowPlots
from ..report.unfit_chunks import warn_of_chunks
from ..samples.arguments import as_bytes, as_cache, as_epoch, as_numbers, as_retries
from ..samples.batch import Batch
from ..samples.definition import Samples
from ..samples.labels import LabelledWindows
from ..samples.transforms import Transform
from .page import Shown

__all__ = ["MapDataset"]

# What loaders and other modules ask of a dataset; tab completion leaves it out.

# Memory of batches that is kept while nobody uses it.
IDLE_BYTES = 2**28

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


class MapDataset(Shown, torch.utils.data.Dataset[tuple[torch.Tensor, ...]]):
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

    _for_loaders = frozenset(
        {
            "begin_epoch", "data", "functions", "page", "recorder", "require_batches",
            "sample_nbytes", "tell_epoch", "times_set", "with_windows",
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
        memory: int | str = "1 GiB",
        cache: bool | str | os.PathLike[str] = True,
        cache_size: int | str | None = None,
        retries: int = RETRIES,
        dtype: Any = None,
        dims: Sequence[Hashable] | None = None,
        **others: Never,
    ) -> None:
        _refuse(others)
        self.retries = as_retries(retries)
        keep, folder, size = as_cache(cache, cache_size)
        self.cache = keep or folder is not None
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
            batch_transform=None,
            seed=0,
            dtype=dtype,
            dims=dims,
        )
        require_functions_keep_places(samples)
        plan = Plan.of(
            samples.recipe.windows,
            samples.layouts,
            memory=as_bytes(memory),
            shuffle=True,
            batch_size=None,
            labels=samples.label_digests,
        )
        self._on_disk = OnDisk.of(
            folder, size, plan.memory, samples.data, samples.origin, self.retries
        )
        self._begin_with(samples, plan)
        info = torch.utils.data.get_worker_info()
        if info is None or not info.id:  # one of a loader's workers speaks for all
            samples.warn_of_bounds(stacklevel=4)
            warn_of_chunks(plan, samples.data)  # of a ChunkSampler; other orders read more

    def _begin_with(self, samples: Samples, plan: Plan) -> None:
        self._samples, self._plan = samples, plan
        self._shared = SharedIntegers(1)  # with workers of torch's loader, also such as live on
        self._epoch: int | torch.Tensor = self._shared.values
        self._times_set = 0
        self._shares_memory = False
        self._watch = Watch()
        self._reading: tuple[int, Fetcher, Buffers] | None = None
        self._process = os.getpid()
        self._lock = threading.Lock()

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
        return self._samples.windows

    @property
    def plan(self) -> Plan:
        """The blocks and the random order in which `ChunkSampler` walks through the samples."""
        return self._plan

    @property
    def plot(self) -> WindowPlots:
        """Pictures: ``plot.windows(i)``, where samples lie on the data."""
        return WindowPlots(self.windows, self._plan)

    def __len__(self) -> int:
        return len(self._plan.windows)

    def __repr__(self) -> str:
        return (
            f"<xtorch_data.MapDataset {self.windows!r}\n"
            f"  {self._samples!r}\n"
            f"  from {self._samples.origin}>"
        )

    def _facts(self) -> list[tuple[str, Any]]:
        kept = "decoded chunks are kept" if self.cache else "nothing is kept"
        return [
            ("samples", f"{len(self):,}, in the order that a sampler asks for"),
            ("memory", f"{format_bytes(self._plan.memory)}, {kept}"),
            ("errors", f"raised, after {number_of(self.retries, 'more try', 'more tries')}"),
        ]

    def with_windows(self, windows: Windows) -> Self:
        """The same dataset of other samples.

        Parameters
        ----------
        windows : Windows
            Some of its windows: ``dataset.plan.windows.within(dim, intervals)``.
        """
        part = copy.copy(self)
        part._begin_with(self._samples.over(windows), self._plan.over(windows))
        return part

    @property
    def epoch(self) -> int:
        """What random functions depend on, besides the sample."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Let random functions draw the numbers of a certain epoch.

        The next pass of a `DataLoader` is that epoch, also if the one before was; later ones go on
        from there. Elsewhere it holds until another is set.

        Parameters
        ----------
        epoch : int
            Its number, 0 or more.
        """
        self.begin_epoch(as_epoch(epoch))
        self._times_set += 1

    @property
    def times_set(self) -> int:
        """How often an epoch was set, by which loaders notice."""
        return self._times_set

    def begin_epoch(self, epoch: int) -> None:
        """Note the epoch of a loader's pass.

        Parameters
        ----------
        epoch : int
            Its number.
        """
        self._shared.values[0] = epoch
        self._epoch = self._shared.values

    @property
    def sample_nbytes(self) -> int:
        """Bytes of the tensors of one sample, before any transform."""
        return self._samples.nbytes

    # What a loader asks for.

    def functions(self) -> list[Transform]:
        """The functions of the user."""
        return self._samples.functions()

    @property
    def data(self) -> xr.Dataset:
        """What is read."""
        return self._samples.data

    def require_batches(self, batch_size: int) -> None:
        """Raise ValueError if samples differ in size, so that they do not fit into batches.

        Parameters
        ----------
        batch_size : int
            Samples in a batch.
        """
        self._samples.require_batches(batch_size)

    def tell_epoch(self, epoch: torch.Tensor | int) -> None:
        """Tell the copy in a worker process which epoch it is, and that batches leave it.

        Parameters
        ----------
        epoch : torch.Tensor or int
            Its number, or memory from which it is read.
        """
        self._epoch = epoch
        self._shares_memory = True

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
        numbers = as_numbers(indices, len(self))
        if not len(numbers):
            raise ValueError("a batch has one sample or more; no index was given")
        epoch = self.epoch if epoch is None else epoch
        fetcher, buffers = self._fetch_with(epoch)
        return fetcher.fetch(numbers, epoch, buffers)

    @property
    def recorder(self) -> Recorder:
        """What fetching has taken in this process."""
        return self._fetch_with()[0].recorder

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

    def _fetch_with(self, epoch: int | None = None) -> tuple[Fetcher, Buffers]:
        """What reads in this process, begun when it is first needed."""
        if self._process != os.getpid():  # inherited by a fork, not sent to this process
            make_safe(self._samples.data)
            _inherited.append(self._reading)
            self._process, self._reading, self._lock = os.getpid(), None, threading.Lock()
        # Where blocks are random, they are others in every epoch.
        epoch = self.epoch if epoch is None else epoch
        epoch = epoch if self._samples.random_blocks else 0
        with self._lock:
            if self._reading is None or self._reading[0] != epoch:
                let_forks_wait_for_reads()
                watch_in_worker()
                memory = self._plan.memory
                buffers = SharedBuffers if self._shares_memory else Buffers
                self._reading = (
                    epoch,
                    Fetcher(self._samples, memory, epoch, self.retries, self.cache, self._on_disk),
                    buffers(min(memory, IDLE_BYTES)),
                )
            return self._reading[1:]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_epoch": self.epoch, "_reading": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        made_in, epoch = state["_process"], state["_epoch"]
        self.__dict__.update(state, _lock=threading.Lock(), _process=os.getpid())
        if made_in == os.getpid():  # a copy, which goes its own way
            self._shared = SharedIntegers(1)
            self._shared.values[0] = epoch
        self._epoch = self._shared.values


def _refuse(others: Mapping[str, Any]) -> None:
    """Raise TypeError, naming the alternative, if there are other arguments."""
    for name in others:
        if name in _ELSEWHERE:
            raise TypeError(f"MapDataset does not take {name}: {_ELSEWHERE[name]}")
        near = difflib.get_close_matches(name, inspect.signature(MapDataset).parameters, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise TypeError(f"MapDataset got an unexpected keyword argument {name!r}{hint}")


# Threads of a parent process, which are not here; to end them would wait for them.
_inherited: list[Any] = []

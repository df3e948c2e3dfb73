"""DataLoader: torch's loader, with defaults that suit, and batches on the device."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Literal, Never, cast

import numpy as np
import torch
import torch.utils.data

from ..common.text import number_of
from ..datasets.iterable import IterableDataset
from ..datasets.map import MapDataset
from ..datasets.mixture import Mixture
from ..datasets.page import page
from ..datasets.stream_facts import batches_of
from ..datasets.topology import current_topology
from ..device.streams import has_accelerator
from ..iteration.lookahead import Lookahead, fetched_ahead
from ..planning.plan import Plan
from ..planning.resume import Position
from ..processes.orphans import watch_in_worker
from ..processes.shared_memory import forget_ended
from ..processes.unnamed_memory import SharedIntegers
from ..processes.workers import (
    batches_of_workers,
    leave_interrupts_to_the_main_process,
    preload,
    sendable_errors,
    started,
)
from ..report.explanation import Explanation
from ..report.mixed import MixedExplanation
from ..samples.arguments import as_num_workers
from ..samples.batch import Batch
from .arguments import OwnGenerator, for_samples, for_stream, ours, require_by_name, streamed
from .augmenting import Augment, augmented, require_augment
from .mixed_loaders import MixedLoaders
from .sampler_order import Order, OwnOrder, numbers_behind
from .sendable import require_sendable
from .transfer import Transfer

__all__ = ["DataLoader"]


def _pinned(batches: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
    """Copies that are all the consumer's: what these are made of is gathered into again."""
    with closing(batches):
        yield from map(Batch.pin_memory, batches)


class _TellEpoch:
    """Tells a worker's dataset the epoch, and the last that was set, or memory that has both."""

    def __init__(self, told: tuple[int, int] | SharedIntegers, also: Any) -> None:
        self.told = told
        self.also = also

    def __call__(self, worker: int) -> None:
        info = torch.utils.data.get_worker_info()
        assert info is not None
        leave_interrupts_to_the_main_process()
        watch_in_worker()
        told = self.told
        ours(info.dataset)._inside.tell(told if isinstance(told, tuple) else told.values)
        if self.also is not None:
            with sendable_errors():
                self.also(worker)


class DataLoader(torch.utils.data.DataLoader[Batch]):
    """Batches of a dataset, loaded ahead, on the device where they are wanted.

    A `torch.utils.data.DataLoader` whose batches, order and shares come from an `IterableDataset`.
    Without workers, the dataset reads and gathers ahead on threads, which is the fastest way for
    data that needs no slow Python. Workers are for slow transforms.

    ``DataLoader(samples, batch_size=16, shuffle=True, …)`` of a `MapDataset` is the short form of
    ``DataLoader(IterableDataset(samples, batch_size=16, shuffle=True, …))``. With a sampler, or
    of a ``torch.utils.data.Subset``, that decides the order: batches are fetched ahead, too, but a
    sample costs all the chunks that it lies in.

    Parameters
    ----------
    dataset : IterableDataset, MapDataset or Mixture
        The batches, or the samples to make batches of. Of a `Mixture` each dataset has a loader of
        its own, and workers in proportion to its rate, one at least.
    *others : Never
        None: all arguments but the dataset are given by name.
    num_workers : int
        Processes that load: each a contiguous part of this rank's batches, or batches in turns.
    device : torch.device or str, optional
        Where tensors are wanted: ``"cuda"``, ``"xpu"``, ``"mps"``. For the first two, batches are
        gathered in page-locked memory and copied on a stream of their own, ahead of the one in
        use; the stream in use waits for a copy, the host does not.
    prefetch : int
        Batches that are on the device, or on their way, ahead of the one in use. With
        ``gather="device"`` it says nothing: batches are made there, as far ahead as on the host.
    gather : {"host", "device"}
        Where windows are cut. On the device, each block is sent once, and with it the values that
        overlapping windows share. Batches are the same, bit for bit. It takes a stream without
        functions of samples or batches, and no workers.
    decode : {"host", "device"}
        Where packed values are decoded: those stored as integers of 8 or 16 bits, which CF
        attributes such as ``scale_factor`` and ``_FillValue`` make floats of. On the device, half
        the bytes are sent, or a quarter, and blocks take as much less memory. Batches are the same,
        bit for bit; other variables go as they are. It takes a stream without functions of blocks,
        samples or batches, without a folder for its cache, and no workers.
    device_memory : int or str, optional
        With ``gather="device"``, bytes that blocks may take there, or text such as ``"2 GiB"``; by
        default the dataset's `memory`.
    memory_format : torch.memory_format, optional
        How tensors lie on the device, such as ``torch.channels_last``; tensors with another number
        of dims than that asks for stay as they are.
    augment : callable, optional
        ``Batch → Batch``, such as `RandomFlip` or ``lambda batch: batch.replace(x=f(batch.x))``:
        called with each batch in the process that iterates, just before the batch is handed out,
        with or without workers and a device. There it works on the device, on the stream in use.
        It keeps the samples and their order. Random numbers that depend on the sample, and neither
        on the order nor on where an epoch is resumed, are those of `Batch.uniform`. `augment` is
        not called where the dataset itself is iterated.
    multiprocessing_context : str or context, optional
        How workers start; ``"forkserver"`` by default. Forking a process in which threads have
        run can hang.
    worker_init_fn : callable, optional
        Called in each worker with its number.
    **kwargs
        Of a `MapDataset`, the arguments of `IterableDataset` that say how an epoch goes, such as
        ``batch_size``, ``shuffle``, ``seed``, ``weights``, ``memory``, ``cache``, ``uneven``; or
        ``sampler`` or ``batch_sampler``, and with these or a ``Subset`` ``batch_size``,
        ``drop_last`` and, of a ``Subset``, ``shuffle`` and its ``generator``. Of any dataset, what
        `torch.utils.data.DataLoader` takes besides: ``prefetch_factor``, ``persistent_workers``,
        ``timeout``, ``pin_memory``.

    Raises
    ------
    TypeError
        If `dataset` is neither of ours, another argument is not given by name, or has a name that
        there is not, `augment` is no function of a batch, an argument that an `IterableDataset` has
        itself (``batch_size``, ``shuffle``, …) is given with one and differs, or a ``sampler`` or
        ``collate_fn``.
    IndexError
        If a sampler or ``Subset`` has indices of samples that are not there.
    RuntimeError
        If `device` is not there.
    ValueError
        If windows cannot be cut, or values not be decoded on the device, or `device_memory` is too
        small for a pool, or samples cannot be flipped as `augment` wants it.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> t2m = xr.DataArray(np.arange(10.0), dims="time", name="t2m")
    >>> dataset = IterableDataset(t2m, input_dims={"time": 5}, batch_size=2)
    >>> [batch.x.shape for batch in DataLoader(dataset)]
    [torch.Size([2, 5])]
    >>> samples = MapDataset(t2m, input_dims={"time": 5})
    >>> [batch.x.shape for batch in DataLoader(samples, batch_size=2, shuffle=True)]
    [torch.Size([2, 5])]
    """

    def __init__(
        self,
        dataset: Any,
        *others: Never,
        num_workers: int = 0,
        device: Any = None,
        prefetch: int = 1,
        gather: Literal["host", "device"] = "host",
        decode: Literal["host", "device"] = "host",
        device_memory: int | str | None = None,
        memory_format: torch.memory_format | None = None,
        augment: Augment | None = None,
        multiprocessing_context: Any = None,
        worker_init_fn: Any = None,
        **kwargs: Any,
    ) -> None:
        self._mixed: MixedLoaders | None = None
        if isinstance(dataset, Mixture):
            own = {name: value for name, value in locals().items() if name in _OWN}
            self._mix(dataset, others, {**own, **kwargs})
            return
        require_by_name(dataset, others, kwargs, _OWN)
        dataset, kwargs = streamed(dataset, kwargs)
        if isinstance(ours(dataset), IterableDataset):
            kwargs = for_stream(dataset, kwargs)
        else:
            kwargs = for_samples(dataset, kwargs)
        if as_num_workers(num_workers) and multiprocessing_context is None:
            multiprocessing_context = "forkserver"
        self._transfer = Transfer.of(
            ours(dataset),
            num_workers,
            device,
            prefetch=prefetch,
            gather=gather,
            device_memory=device_memory,
            decode=decode,
            memory_format=memory_format,
        )
        require_augment(augment, ours(dataset)._inside.definition)
        # Lightning makes loaders again from attributes that are named as arguments.
        self.device = None if self._transfer is None else self._transfer.device
        self.prefetch, self.gather, self.decode = prefetch, gather, decode
        self.device_memory = device_memory
        self.memory_format, self.augment = memory_format, augment
        if self._transfer is not None and self._transfer.pins:
            kwargs.setdefault("pin_memory", True)
        self._epoch: SharedIntegers | None = None  # of persistent workers
        self._sent: Plan | None = None  # with which they began
        self._user_init_fn: Any = None
        self._position = Position()
        self._order: Order | OwnOrder
        # Accelerate's `prepare` shards loaders that do not say so; a stream is sharded already.
        self._is_accelerate_prepared = isinstance(dataset, IterableDataset)
        super().__init__(
            dataset,
            num_workers=num_workers,
            multiprocessing_context=multiprocessing_context,
            worker_init_fn=worker_init_fn,
            # Of its own, so that making an iterator does not draw from the global one.
            generator=OwnGenerator(),
            **kwargs,
        )
        stream = isinstance(dataset, IterableDataset)
        self._order = OwnOrder(dataset) if stream else Order(self.batch_sampler, dataset)
        if num_workers:
            preload(self.multiprocessing_context)
            if not self._forks():
                what = ours(dataset)._inside.definition
                require_sendable(dataset, what.functions(), what.data, worker_init_fn)

    def _mix(self, mixture: Mixture, others: Sequence[Any], given: dict[str, Any]) -> None:
        """Be the loader of a mixture, with one for each of its datasets."""
        workers = mixture._workers_of(as_num_workers(given.pop("num_workers")))
        loaders = {
            name: DataLoader(each, *others, num_workers=workers[name], **given)
            for name, each in mixture.datasets.items()
        }
        first = next(iter(loaders.values()))
        self._transfer, self._order = first._transfer, first._order
        for name in ("device", "prefetch", "gather", "decode", "device_memory", "memory_format"):
            setattr(self, name, getattr(first, name))
        self.augment = first.augment
        self._is_accelerate_prepared = True
        super().__init__(cast(Any, mixture), batch_size=None, generator=OwnGenerator())
        self.num_workers = sum(workers.values())
        self._mixed = MixedLoaders(mixture, loaders)

    def __repr__(self) -> str:
        if self._mixed is not None:
            facts = ", ".join(value for _, value in self._facts())
            return f"<xtorch_data.DataLoader of {self.dataset!r}, {facts}>"
        dataset = ours(self.dataset)
        what = f"{type(dataset).__name__} {dataset.windows!r}"
        if isinstance(self.dataset, torch.utils.data.Subset):
            what = f"Subset with {number_of(len(self.dataset), 'sample')} of {what}"
        if isinstance(dataset, IterableDataset):
            what += f", {batches_of(dataset)}"
        facts = ", ".join(value for _, value in self._facts())
        return f"<xtorch_data.DataLoader of {what}, {facts}>"

    def _facts(self) -> list[tuple[str, str]]:
        workers = number_of(self.num_workers, "worker") if self.num_workers else "no workers"
        where = "on the CPU" if self._transfer is None else f"on {self._transfer}"
        return [("workers", workers), ("device", where)]

    def _repr_html_(self) -> str:
        if self._mixed is not None:
            return self._mixed.mixture._repr_html_()
        facts = self._facts()
        if isinstance(self.dataset, torch.utils.data.Subset):
            facts = [("subset", number_of(len(self.dataset), "sample")), *facts]
        return page(ours(self.dataset), "DataLoader", repr(self), facts)

    @property
    def _index_sampler(self) -> Any:
        """Source of indices for torch's loader and its iterators."""
        return self._order if isinstance(self._order, Order) else super()._index_sampler

    def __iter__(self) -> Any:
        if self._mixed is not None:
            return self._mixed.begin()
        dataset = ours(self.dataset)
        # Torch would warn of more batches than `len` has said, which of a resumed epoch is fewer.
        self._IterableDataset_len_called = None
        epoch, taken = self._order.begin(self._position.reached)
        if self.num_workers:
            # Workers that live on look into shared memory; others are told once, so that an
            # iterator begun before they are up does not change it.
            numbers = epoch, dataset._inside.set_last
            told: tuple[int, int] | SharedIntegers = numbers
            if self.persistent_workers:
                self._renew_workers(dataset, epoch)
                told = self._epoch = self._epoch or SharedIntegers(len(numbers))
                told.values[0], told.values[1] = numbers
            if not isinstance(self.worker_init_fn, _TellEpoch):  # Lightning sets it late
                self._user_init_fn = self.worker_init_fn
            self.worker_init_fn = _TellEpoch(told, self._user_init_fn)
            self.generator.manual_seed(_worker_seed(dataset, epoch))
        batches: Iterator[Batch] = self._begun(dataset, epoch)
        if isinstance(dataset, IterableDataset) and not self.num_workers:
            batches = dataset._inside.counted(epoch, batches)
        self._position.begin(epoch, taken)
        return self._counted(epoch, batches, taken)

    def _renew_workers(self, dataset: IterableDataset | MapDataset, epoch: int) -> None:
        """End persistent workers that would resume the epoch elsewhere, or begin it anew."""
        plan = dataset.plan
        if self._sent is not None and self._sent.walked(epoch) != plan.walked(epoch):
            self._iterator = None
        if self._iterator is None:
            self._sent = plan

    def _counted(self, epoch: int, batches: Iterator[Batch], taken: int) -> Iterator[Batch]:
        yield from self._position.counted(epoch, batches, taken)
        forget_ended()

    def _begun(
        self, dataset: IterableDataset | MapDataset, epoch: int
    ) -> Generator[Batch, None, None]:
        """The batches of an epoch, loaded ahead and moved to the device."""
        if self.num_workers:
            with torch.device("cpu"):  # where torch draws their seed, whatever the default
                batches = batches_of_workers(started(super().__iter__, self._forks()))
        elif isinstance(dataset, MapDataset):
            batches = self._ahead(dataset, epoch)
        elif self._transfer is not None:
            batches = self._transfer.made(dataset, epoch, self.pin_memory)
        else:
            batches = dataset._inside.batches(epoch)
            if self._pins():
                batches = _pinned(batches)
        if self._transfer is not None:
            batches = self._transfer.moved(batches)
        if self.augment is None:
            return batches
        return augmented(self.augment, batches, self._pins() and self._transfer is None)

    def _forks(self) -> bool:
        context = self.multiprocessing_context
        return context is not None and context.get_start_method() == "fork"

    def _pins(self) -> bool:
        return self.pin_memory and has_accelerator()

    def _ahead(self, dataset: MapDataset, epoch: int) -> Generator[Batch, None, None]:
        """Batches of a `MapDataset`, without workers."""
        pinned = self._pins()

        def fetch(indices: Sequence[int]) -> Batch:
            batch = dataset.fetch(numbers_behind(self.dataset, indices), epoch)
            return batch.pin_memory() if pinned else batch

        nbytes = dataset._inside.definition.nbytes * (self.batch_size or 1)
        most = Lookahead.of(nbytes, functions=True).jobs
        return fetched_ahead(fetch, iter(self._index_sampler), most)

    def explain(self, world_size: int | None = None) -> Explanation | MixedExplanation:
        """What the next epoch will do and what that costs, as it is loaded here.

        Parameters
        ----------
        world_size : int, optional
            Number of ranks; by default the dataset's own.

        Returns
        -------
        Explanation
            That of `IterableDataset.explain`, with this loader's workers and, in its attribute
            ``device``, what is sent to the device and how much of its memory is taken. Of a mixture
            that of `Mixture.explain`.

        Raises
        ------
        TypeError
            If the order is that of a sampler, so that nobody knows what it will ask for.
        """
        if self._mixed is not None:
            return self._mixed.mixture.explain(world_size, self._mixed.workers)
        dataset = ours(self.dataset)
        if not isinstance(dataset, IterableDataset):
            raise TypeError(
                "explain is for an IterableDataset; of a MapDataset, a sampler decides what is read"
            )
        found = dataset.explain(world_size, self.num_workers)
        return (
            found
            if self._transfer is None
            else self._transfer.explained(dataset, found, self.pin_memory)
        )

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration is: JSON-able, and small at any scale.

        Batches that were loaded ahead but not handed out do not count. Taken after the same number
        of batches on all ranks, the state of one serves every rank.
        """
        if self._mixed is not None:
            return self._mixed.state()
        return self._order.state(self._position.reached, self.num_workers)

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Go on at the batch after the one where a state was taken.

        The rest of the epoch comes exactly once also with other numbers of ranks and workers and
        another batch size. Samples of a `MapDataset` come in the batches of their sampler: only the
        number of workers may be another.

        Parameters
        ----------
        state : mapping
            From `state_dict`.
        strict : bool
            Whether to refuse the state of a dataset that differs in what the order depends on, or
            of the middle of an epoch in an order that cannot be made again: that of samplers of a
            `MapDataset` other than ``shuffle=True`` and those with ``set_epoch``. If it is not
            refused, such an epoch begins anew.

        Raises
        ------
        ValueError
            If it is no state, or of another dataset; the message says what differs.
        """
        if self._mixed is not None:
            self._mixed.mixture.load_state_dict(state, strict)
            for each in self._mixed.loaders.values():
                each._position, each._iterator = Position(), None
            return
        self._order.resume(state, strict)
        self._position = Position()
        self._iterator = None  # persistent workers know nothing of it: new ones begin


# Names of the loader's own arguments.
_OWN = frozenset(cast(Any, DataLoader.__init__).__kwdefaults__)


def _worker_seed(dataset: IterableDataset | MapDataset, epoch: int) -> int:
    """Seed from which torch derives those of workers: another for each rank and epoch."""
    if isinstance(dataset, MapDataset):
        known = 0, epoch, current_topology()[0]
    else:
        known = dataset.plan.seed, epoch, dataset.rank
    return int(np.random.SeedSequence(known).generate_state(1, np.uint64)[0] >> 1)

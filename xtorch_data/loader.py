"""DataLoader: torch's loader, with defaults that suit, and batches on the device."""

from __future__ import annotations

import pickle
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.utils.data

from .batch import Batch
from .dataset import IterableDataset
from .resume import Position
from .shared import forget_ended
from .topology import shared_integers

__all__ = ["DataLoader"]


def _as_is(batch: Batch) -> Batch:
    return batch


class _TellEpoch:
    """Tells a worker's dataset the epoch: a number, or memory in which the parent writes it."""

    def __init__(self, epoch: int | torch.Tensor, also: Any) -> None:
        self.epoch = epoch
        self.also = also

    def __call__(self, worker: int) -> None:
        info = torch.utils.data.get_worker_info()
        assert info is not None
        dataset = info.dataset
        assert isinstance(dataset, IterableDataset)
        dataset.tell_epoch(self.epoch)
        if self.also is not None:
            self.also(worker)


class DataLoader(torch.utils.data.DataLoader[Batch]):
    """Batches of a dataset, loaded ahead, on the device where they are wanted.

    A `torch.utils.data.DataLoader` whose batches, order and shares come from the dataset. Without
    workers, the dataset reads and gathers ahead on threads, which is the fastest way for data that
    needs no slow Python. Workers are for slow transforms.

    Parameters
    ----------
    dataset : IterableDataset
        The batches.
    num_workers : int
        Processes that load, each a contiguous part of this rank's batches.
    device : torch.device or str, optional
        Where tensors are wanted. For ``"cuda"``, batches are pinned and copied one ahead of the
        one in use, without waiting.
    multiprocessing_context : str or context, optional
        How workers start; ``"forkserver"`` by default. Forking a process in which threads have
        run can hang.
    worker_init_fn : callable, optional
        Called in each worker with its number.
    **kwargs
        Passed on to `torch.utils.data.DataLoader`: ``prefetch_factor``, ``persistent_workers``,
        ``timeout``, ``pin_memory``.

    Raises
    ------
    TypeError
        If `dataset` is not an `IterableDataset`, or an argument that belongs to the dataset
        (``batch_size``, ``shuffle``, ``sampler``, ``drop_last``, …) is given.
    RuntimeError
        If `device` is a CUDA device and there is none.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> t2m = xr.DataArray(np.arange(10.0), dims="time", name="t2m")
    >>> dataset = IterableDataset(t2m, input_dims={"time": 5}, batch_size=2)
    >>> [batch.x.shape for batch in DataLoader(dataset)]
    [torch.Size([2, 5])]
    """

    def __init__(
        self,
        dataset: IterableDataset,
        num_workers: int = 0,
        device: Any = None,
        *,
        multiprocessing_context: Any = None,
        worker_init_fn: Any = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(dataset, IterableDataset):
            raise TypeError(
                f"dataset must be an xtorch_data.IterableDataset, not {type(dataset).__name__}"
            )
        ours = {"batch_size", "shuffle", "sampler", "batch_sampler", "drop_last", "collate_fn"}
        given = sorted(ours & set(kwargs))
        if given:
            raise TypeError(
                f"DataLoader does not take {', '.join(given)}: batches and their order come from "
                "the dataset; give it to IterableDataset"
            )
        self.device = None if device is None else _as_device(device)
        if self.device is not None and self.device.type == "cuda":
            kwargs.setdefault("pin_memory", True)
        if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 0:
            raise ValueError(f"num_workers must be an integer, 0 or more, not {num_workers!r}")
        if num_workers and multiprocessing_context is None:
            multiprocessing_context = "forkserver"
        self._epoch = shared_integers(1)
        self._user_init_fn = worker_init_fn
        self._position = Position()
        super().__init__(
            dataset,
            batch_size=None,
            num_workers=num_workers,
            collate_fn=_as_is,  # type: ignore[arg-type]  # without batch_size it gets one item
            multiprocessing_context=multiprocessing_context,
            worker_init_fn=worker_init_fn,
            # Of its own, so that making an iterator does not draw from the global one.
            generator=torch.Generator(),
            **kwargs,
        )
        if num_workers:
            _preload(self.multiprocessing_context)
            self._require_picklable()

    def _require_picklable(self) -> None:
        """Raise if a function of the user cannot be sent to workers that are started afresh."""
        context = self.multiprocessing_context
        if context is not None and context.get_start_method() == "fork":
            return
        for transform in self._dataset().functions():
            try:
                pickle.dumps(transform.function)
                if getattr(transform.function, "__module__", None) == "__main__":
                    if not hasattr(sys.modules["__main__"], "__file__"):
                        raise TypeError("it was typed at a prompt or in a notebook")
            except Exception as error:
                raise TypeError(
                    f"{transform.argument} cannot be sent to worker processes ({error}): define it "
                    "at the top level of a module that can be imported, not inside a function or "
                    "as a lambda, or use num_workers=0"
                ) from error

    def __iter__(self) -> Any:
        dataset = self._dataset()
        epoch = dataset.epoch
        if self.num_workers:
            dataset.begin_epoch()
            self._epoch[0] = epoch
            # Workers that live on look into shared memory; others are told once, so that an
            # iterator begun before they are up does not change it.
            told = self._epoch if self.persistent_workers else epoch
            self.worker_init_fn = _TellEpoch(told, self._user_init_fn)
        batches: Iterator[Batch] = super().__iter__()
        if self.device is not None:
            batches = _on_device(batches, self.device)
        self._position.begin(epoch)
        return self._counted(epoch, batches)

    def _counted(self, epoch: int, batches: Iterator[Batch]) -> Iterator[Batch]:
        yield from self._position.counted(epoch, batches)
        forget_ended()

    def _dataset(self) -> IterableDataset:
        dataset = self.dataset
        assert isinstance(dataset, IterableDataset)
        return dataset

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration is: JSON-able, and small at any scale.

        Batches that were loaded ahead but not handed out do not count. Taken after the same number
        of batches on all ranks, the state of one serves every rank.
        """
        dataset = self._dataset()
        epoch, batches = self._position.reached or (dataset.epoch, 0)
        return dataset.plan.state_after(
            epoch, batches, dataset.world_size, max(1, self.num_workers)
        )

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Go on at the batch after the one where a state was taken.

        The rest of the epoch comes exactly once also with other numbers of ranks and workers and
        another batch size.

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
        self._dataset().load_state_dict(state, strict)
        self._position = Position()
        self._iterator = None  # persistent workers know nothing of it: new ones begin


def _on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches on a device; on CUDA the next one is copied while one is in use."""
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device)
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: deque[tuple[Batch, Batch, torch.cuda.Event]] = deque()
    for batch in batches:
        with torch.cuda.stream(stream):
            moved = batch.to(device, non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(stream)
        ahead.append((batch, moved, copied))
        if len(ahead) > 1:
            yield _arrived(*ahead.popleft(), device)
    while ahead:
        yield _arrived(*ahead.popleft(), device)


def _arrived(pinned: Batch, moved: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    """A batch whose copy the consumer's stream has waited for."""
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    for tensor in moved:
        # It was allocated on the side stream; its memory must outlive its use on this one.
        tensor.record_stream(current)
    # The pinned memory may be used again once the copy is over.
    copied.synchronize()
    del pinned
    return moved


def _as_device(device: Any) -> torch.device:
    found = torch.device(device)
    if found.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f"device={str(device)!r} was asked for, but CUDA is not available; "
            "device=None leaves batches on the CPU"
        )
    return found


def _preload(context: Any) -> None:
    """Let the fork server import this package once, instead of every worker."""
    if context is not None and context.get_start_method() == "forkserver":
        context.set_forkserver_preload(["__main__", "xtorch_data"])

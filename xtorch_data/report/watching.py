"""A bar that shows how fast batches come, and what limits them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any, TypeVar

from ..common.options import options
from ..common.progress import text_bar
from ..common.redact import printable
from .stats import Stats

__all__ = ["watch"]

Item = TypeVar("Item")

# Seconds from one look at the stats to the next.
EVERY = 0.5


def watch(batches: Iterable[Item], title: str = "") -> Iterator[Item]:
    """The batches, with a bar of tqdm that shows how fast they come and what limits them.

    The bar is text in notebooks, too, and its last line stays when one is saved. Where this process
    loads, without workers, it also names the stage that limits, and the bytes that are read in a
    second: see `Stats`.

    Parameters
    ----------
    batches : DataLoader, IterableDataset or other iterable
        What to go through, once.
    title : str
        What stands before the bar; the number of the epoch by default, where it is known.

    Returns
    -------
    iterator
        The very batches.

    Raises
    ------
    TypeError
        If it cannot be iterated.
    ImportError
        If tqdm is missing.

    Examples
    --------
    Around whatever a training loop goes through::

        for x, y in xtd.watch(loader):
            ...
    """
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches must be iterable, not {type(batches).__name__}")
    if options["progress"] is False:
        return iter(batches)
    if find_spec("tqdm") is None:
        raise ImportError("watch shows a bar of tqdm: pip install tqdm")
    return _watched(batches, title)


def _watched(batches: Iterable[Item], title: str) -> Iterator[Item]:
    dataset = getattr(batches, "dataset", batches)
    epoch = getattr(dataset, "epoch", None)
    if not title and isinstance(epoch, int):
        title = f"epoch {epoch}"
    begun, waited, samples, shown = time.perf_counter(), 0.0, 0, 0.0
    iterator = iter(batches)
    try:
        with text_bar(total=_length(batches), unit="batch", desc=printable(title)) as bar:
            while True:
                asked = time.perf_counter()
                try:
                    batch = next(iterator)
                except StopIteration:
                    now = time.perf_counter()
                    bar.set_postfix_str(_line(dataset, samples, waited, now - begun))
                    return
                now = time.perf_counter()
                waited += now - asked
                samples += _samples(batch)
                if now - shown > EVERY:
                    shown = now
                    bar.set_postfix_str(_line(dataset, samples, waited, now - begun), refresh=False)
                yield batch
                del batch  # its memory can be used again
                bar.update()
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def _length(batches: Iterable[Any]) -> int | None:
    try:
        return len(batches)  # type: ignore[arg-type]
    except TypeError:
        return None


def _samples(batch: Any) -> int:
    index = getattr(batch, "index", None)
    numel = getattr(index, "numel", None)
    return 1 if numel is None else int(numel())


def _line(dataset: Any, samples: int, waited: float, seconds: float) -> str:
    """Rate, waiting and limit of an epoch so far."""
    line = f"{samples / seconds:,.0f} samples/s, waits {waited / seconds:.0%}"
    stats = _stats(dataset)
    if stats is None:
        return line
    read = stats.bytes_read / stats.seconds / 1e6 if stats.seconds else 0.0
    return f"{line}, limited by {stats.limited_by}, {read:,.0f} MB/s read"


def _stats(dataset: Any) -> Stats | None:
    """The stats of this process's iteration, if it is this process that loads."""
    try:
        found = dataset.stats()
    except (AttributeError, RuntimeError):
        return None
    return found if isinstance(found, Stats) else None

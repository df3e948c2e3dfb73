"""The number of worker processes that a dataset needs: measured, and said why."""

from __future__ import annotations

import itertools
import math
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from dask.system import CPU_COUNT

from ..datasets.iterable import IterableDataset
from ..datasets.map import MapDataset
from ..datasets.page import part_of
from ..datasets.topology import current_topology
from ..report.stats import stats_of
from ..samples.arguments import as_batch_size
from ..samples.made_up import random_state_kept

__all__ = ["Costs", "NumWorkers", "suggest_num_workers"]

# Handing a batch over from a process, and waking it, costs about as much.
HANDOVER_SECONDS = 0.001
# Beyond so many batches a run says nothing new.
ENOUGH_BATCHES = 64


class NumWorkers(int):
    """A number of worker processes, with the reason for it.

    Attributes
    ----------
    reason : str
        What was measured, and why it suggests this number.
    """

    reason: str

    def __new__(cls, number: int, reason: str) -> NumWorkers:
        """Make the number that has a reason."""
        made = super().__new__(cls, number)
        made.reason = reason
        return made

    def __getnewargs__(self) -> tuple[int, str]:  # type: ignore[override]
        return int(self), self.reason

    def __repr__(self) -> str:
        return f"{int(self)} worker{'' if self == 1 else 's'}: {self.reason}"

    def __str__(self) -> str:
        return str(int(self))


@dataclass(frozen=True)
class Costs:
    """Seconds of thread time that a batch takes, without workers."""

    transforms: float  # in the user's functions, of samples, batches and blocks
    reading: float  # in reading, decoding and preparing blocks, and copying windows of them


def suggest_num_workers(
    dataset: IterableDataset | MapDataset,
    *,
    step_seconds: float | None = None,
    batch_size: int = 32,
    seconds: float = 2.0,
) -> NumWorkers:
    """The number of worker processes to load a dataset with, from a short run of it.

    Threads read and decode on all cores beside the training step: for that no worker is needed.
    Functions in Python hold its lock, so where they take most of the time, each process adds as
    much again, up to one for every core but the one that trains.

    The run is one of a copy: the dataset goes on as if there had been none, and so do the global
    random generators.

    Parameters
    ----------
    dataset : IterableDataset or MapDataset
        What is to be loaded.
    step_seconds : float, optional
        Seconds that a training step takes, if known: then no more workers are suggested than keep
        up with it.
    batch_size : int
        Samples in a batch, where the loader decides: for a `MapDataset`.
    seconds : float
        How long to measure, about; at least one batch is loaded.

    Returns
    -------
    NumWorkers
        An integer, to be given as ``num_workers``. Its ``reason`` says what was measured; its
        ``repr`` is both.

    Raises
    ------
    TypeError
        If the dataset is neither of ours.
    ValueError
        If `seconds`, `step_seconds` or `batch_size` is not positive, or there is no batch.

    Examples
    --------
    >>> import xarray as xr
    >>> t2m = xr.DataArray(np.arange(100.0), dims="time", name="t2m")
    >>> suggested = suggest_num_workers(IterableDataset(t2m, input_dims={"time": 5}, batch_size=4))
    >>> int(suggested)
    0
    """
    for name, value in (("seconds", seconds), ("step_seconds", step_seconds)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive, not {value!r}")
    size = as_batch_size(batch_size)
    if size is None:
        raise ValueError("batch_size must be an integer")
    if isinstance(dataset, IterableDataset):
        with random_state_kept():
            costs, batches = _costs_of_stream(dataset, seconds), len(dataset)
    elif isinstance(dataset, MapDataset):
        with random_state_kept():
            costs, batches = _costs_of_samples(dataset, size, seconds), -(-len(dataset) // size)
    else:
        raise TypeError(
            "dataset must be an xtorch_data.IterableDataset or MapDataset, not "
            f"{type(dataset).__name__}"
        )
    return decide(costs, batches, CPU_COUNT, _ranks_here(dataset), step_seconds)


def decide(
    costs: Costs, batches: int, cores: int, ranks: int, step_seconds: float | None
) -> NumWorkers:
    """The number of workers for what batches cost.

    An epoch has so many `batches` on this rank; `ranks` share the `cores` of this process.
    """
    most = min(cores // ranks - 1, batches)
    total = costs.transforms + costs.reading
    measured = (
        f"a batch takes {_text(costs.transforms)} in your functions and {_text(costs.reading)} in "
        "reading and copying"
    )
    shared = f"{_cores(cores)} for {ranks} ranks" if ranks > 1 else _cores(cores)
    if total < HANDOVER_SECONDS:
        why = "handing one over from another process would take as long"
        return NumWorkers(0, f"{measured}; {why}")
    if most < 1:
        return NumWorkers(0, f"{measured}; {shared}: none is left for workers")
    if step_seconds is not None and total <= step_seconds:
        why = f"threads keep up with a step of {_text(step_seconds)}"
        return NumWorkers(0, f"{measured}; {why}")
    if costs.transforms < costs.reading:
        return NumWorkers(0, f"{measured}; threads do that, ahead of the training step")
    number = most
    limit = f"your functions hold Python's lock: a process for each of {shared} but one"
    if batches < cores // ranks - 1:
        limit = f"your functions hold Python's lock: a process for each of {batches} batches"
    if step_seconds is not None and _needed(total, step_seconds) < most:
        number = _needed(total, step_seconds)
        limit = f"so many keep up with a step of {_text(step_seconds)}"
    return NumWorkers(number, f"{measured}; {limit}")


def _needed(total: float, step_seconds: float) -> int:
    return math.ceil(total / step_seconds)


def _text(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _cores(number: int) -> str:
    return "1 core" if number == 1 else f"{number} cores"


# Measuring.


def _costs_of_stream(dataset: IterableDataset, seconds: float) -> Costs:
    """Costs of a batch, from the stages of a short run.

    Blocks are read ahead of the batches that are made of them: what they cost is shared among all
    batches that they are for.
    """
    if not len(dataset):
        raise ValueError("there is nothing to measure: this rank has no batch")
    copy: Any = part_of(dataset, dataset._inside.what)
    deadline, count, nbytes = time.perf_counter() + seconds, 0, 0
    batches: Any = iter(copy)
    try:
        for batch in batches:
            count += 1
            nbytes += sum(tensor.nbytes for tensor in batch)
            if count == ENOUGH_BATCHES or time.perf_counter() > deadline:
                break
    finally:
        batches.close()
    stats, plan = copy.stats(), copy.plan
    gathered = stats.bytes_gathered / max(1, nbytes) * count  # some of them ahead
    per_block = plan.samples / plan.filled_blocks[0] / (plan.batch_size or 1)
    blocks = max(1, stats.blocks_read) * per_block
    return Costs(
        transforms=stats.transform / max(1, gathered) + stats.preprocess / blocks,
        reading=stats.gather / max(1, gathered) + (stats.read + stats.prepare) / blocks,
    )


def _costs_of_samples(dataset: MapDataset, batch_size: int, seconds: float) -> Costs:
    """Costs of a batch of samples from anywhere."""
    copy: Any = part_of(dataset, dataset._inside.what)
    draw = np.random.default_rng(0)
    begun = time.perf_counter()
    for count in itertools.count(1):
        copy.fetch(draw.integers(len(copy), size=min(batch_size, len(copy))).tolist())
        spent = time.perf_counter() - begun
        if count == ENOUGH_BATCHES or spent > seconds:
            break
    stats = stats_of(copy._inside.recorder)
    transforms = stats.transform + stats.preprocess
    return Costs(
        transforms=min(transforms, spent) / count,
        reading=max(0.0, spent - transforms) / count,
    )


# What there is to run on.


def _ranks_here(dataset: IterableDataset | MapDataset) -> int:
    """Ranks on this machine, which share its cores."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        return max(1, int(os.environ["LOCAL_WORLD_SIZE"]))
    ranks = current_topology()[1]
    if isinstance(dataset, IterableDataset):
        ranks = dataset.world_size
    # Nothing says how many are on other machines: on this one there is a GPU for each, if any.
    return min(ranks, torch.cuda.device_count() or ranks)

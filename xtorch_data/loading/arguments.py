"""The datasets that a loader takes, and the arguments of torch's loader for each kind."""

from __future__ import annotations

from typing import Any, cast

import torch.utils.data

from ..datasets.iterable import IterableDataset
from ..datasets.map import MapDataset
from ..iteration.by_number import Fetched
from ..samples.arguments import as_batch_size
from ..samples.batch import Batch
from .sampler_order import Shuffled, require_there

__all__ = ["for_samples", "for_stream", "ours"]


def ours(dataset: Any) -> IterableDataset | MapDataset:
    """A dataset of ours, or the one of which it is a subset."""
    found = dataset
    while _gets_items_as(torch.utils.data.Subset, found):
        found = found.dataset
    if _gets_items_as(MapDataset, found) or (
        found is dataset and _is_iterated_as(IterableDataset, found)
    ):
        return cast(IterableDataset | MapDataset, found)
    raise TypeError(
        "dataset must be an xtorch_data.IterableDataset, an xtorch_data.MapDataset or a Subset of "
        f"one, not {type(dataset).__name__}; torch.utils.data.DataLoader takes others made of them"
    )


def _gets_items_as(kind: Any, dataset: Any) -> bool:
    """Whether it is of a kind, and not of a subclass that makes samples otherwise."""
    return isinstance(dataset, kind) and type(dataset).__getitems__ is kind.__getitems__


def _is_iterated_as(kind: Any, dataset: Any) -> bool:
    """Whether it is of a kind, and not of a subclass that makes other batches of its own."""
    return isinstance(dataset, kind) and type(dataset).__iter__ is kind.__iter__


def for_stream(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments for torch's loader of an IterableDataset."""
    given = sorted({"batch_size", "shuffle", "drop_last"} & set(kwargs))
    if given:
        raise TypeError(
            f"DataLoader does not take {', '.join(given)}: batches and their order come from "
            "the dataset; give it to IterableDataset"
        )
    given = sorted({"sampler", "batch_sampler"} & set(kwargs))
    if given:
        raise TypeError(
            f"DataLoader does not take {', '.join(given)} with an IterableDataset, which has an "
            "order of its own: a MapDataset gives what a sampler asks for"
        )
    if "collate_fn" in kwargs:
        raise TypeError(
            "DataLoader does not take collate_fn: an IterableDataset makes batches itself; its "
            "batch_transform changes them"
        )
    if "generator" in kwargs:
        raise TypeError(
            "DataLoader does not take generator with an IterableDataset, whose order depends on "
            "its seed and the epoch"
        )
    return {**kwargs, "batch_size": None, "collate_fn": _as_is}


def for_samples(dataset: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments for torch's loader of a MapDataset."""
    if "collate_fn" in kwargs:
        raise TypeError(
            "DataLoader does not take collate_fn: samples are fetched as a Batch, with labels; "
            "torch.utils.data.DataLoader takes a MapDataset and a collate_fn"
        )
    kwargs = {**kwargs, "collate_fn": _fetched}
    generator = kwargs.pop("generator", None)
    require_there(dataset, kwargs.get("sampler"), kwargs.get("batch_sampler"))
    if kwargs.get("batch_sampler") is not None:
        return kwargs
    batch_size = as_batch_size(kwargs.setdefault("batch_size", 1))
    if batch_size is None:
        raise TypeError("batch_size must be an integer: a MapDataset itself gives single samples")
    samples = ours(dataset)
    assert isinstance(samples, MapDataset)
    samples._inside.definition.require_batches(batch_size)
    if kwargs.get("shuffle") and kwargs.get("sampler") is None:
        del kwargs["shuffle"]
        kwargs["sampler"] = Shuffled(dataset, generator)
    return kwargs


def _as_is(batch: Batch) -> Batch:
    return batch


def _fetched(samples: Fetched) -> Batch:
    return samples.batch

"""The datasets that a loader takes, and the arguments of torch's loader for each kind."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import torch
import torch.utils.data
import xarray as xr

from ..common.spelling import require_known
from ..datasets.how import HOW_ARGUMENTS
from ..datasets.iterable import IterableDataset
from ..datasets.map import MapDataset
from ..datasets.splits import Split
from ..datasets.what import SAMPLE_ARGUMENTS
from ..iteration.by_number import Fetched
from ..samples.arguments import as_batch_size
from ..samples.batch import Batch
from .sampler_order import Shuffled, behind, gets_items_as, require_there

__all__ = ["OwnGenerator", "for_samples", "for_stream", "ours", "require_by_name", "streamed"]

# Arguments of torch's loader among those of a stream.
_OF_TORCH = {"batch_size", "shuffle", "drop_last"}
_OWN_ORDER = "which has an order of its own: give a MapDataset with it"
_NOT_OF_STREAMS = {
    "sampler": _OWN_ORDER,
    "batch_sampler": _OWN_ORDER,
    "collate_fn": "which makes batches itself: its batch_transform changes them",
    "generator": "whose order depends on its seed and the epoch",
}


class OwnGenerator(torch.Generator):
    """The generator of a loader: torch draws seeds of workers from it, and no order depends on it.

    Trainers pass it on when they make a loader again.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _generator, (self.get_state(),)

    def __deepcopy__(self, memo: Any) -> OwnGenerator:
        return _generator(self.get_state().clone())


def _generator(state: torch.Tensor) -> OwnGenerator:
    made = OwnGenerator()
    made.set_state(state)
    return made


def ours(dataset: Any) -> IterableDataset | MapDataset:
    """A dataset of ours, or the one of which it is a subset."""
    subsets, found = behind(dataset)
    if gets_items_as(MapDataset, found) or (
        not subsets and _is_iterated_as(IterableDataset, found)
    ):
        return cast(IterableDataset | MapDataset, found)
    if isinstance(dataset, xr.Dataset | xr.DataArray):
        instead = "xtorch_data.MapDataset(data, input_dims=…) makes one of data"
    elif isinstance(dataset, Split):
        instead = "give one of its parts"
    else:
        instead = "torch.utils.data.DataLoader takes others made of them"
    raise TypeError(
        "dataset must be an xtorch_data.IterableDataset, an xtorch_data.MapDataset or a Subset of "
        f"one, not {type(dataset).__name__}; {instead}"
    )


def _is_iterated_as(kind: Any, dataset: Any) -> bool:
    """Whether it is of a kind, and not of a subclass that makes other batches of its own."""
    return isinstance(dataset, kind) and type(dataset).__iter__ is kind.__iter__


def require_by_name(
    dataset: Any, others: Sequence[Any], kwargs: Mapping[str, Any], own: Collection[str]
) -> None:
    """Raise TypeError if arguments but the dataset are given without a name, or with a wrong one.

    `others` have no name; `kwargs` may, but for those of the loader's `own`, which it has by now.
    The dataset is checked first: whoever gives data instead has not come to these.
    """
    ours(dataset)
    if others:
        meant = {int: ": batch_size={0} or num_workers={0}?", str: ": device={0!r}?"}
        raise TypeError(
            "DataLoader takes the dataset first, and all else by name, not "
            f"{others[0]!r}{meant.get(type(others[0]), '').format(others[0])}"
        )
    if "device_transform" in kwargs:
        raise TypeError(
            "DataLoader does not take device_transform any more: augment, a function of a batch, "
            "has taken its place: augment=lambda batch: batch.replace(x=function(batch.x))"
        )
    of_samples = sorted(SAMPLE_ARGUMENTS & set(kwargs))
    if of_samples:
        raise TypeError(
            f"DataLoader does not take {', '.join(of_samples)}, which the dataset has: "
            f"dataset.replace({of_samples[0]}=…)"
        )
    of_torch = inspect.signature(torch.utils.data.DataLoader).parameters
    require_known(kwargs, HOW_ARGUMENTS.union(own, of_torch), "DataLoader")


def streamed(dataset: Any, kwargs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A stream of a MapDataset whose order no sampler decides, or else the dataset; the rest.

    Raises
    ------
    TypeError
        If arguments of a stream are given where there is none, or where they belong to the dataset.
    """
    sampled = kwargs.get("sampler") is not None or kwargs.get("batch_sampler") is not None
    if isinstance(dataset, MapDataset) and not sampled:
        if not isinstance(kwargs.get("generator"), OwnGenerator | None):
            raise TypeError(
                "DataLoader does not take generator without a sampler: the order depends on seed= "
                "and the epoch"
            )
        own = {name: kwargs[name] for name in kwargs if name in HOW_ARGUMENTS}
        if own.get("shuffle", False) is None:  # torch's default
            del own["shuffle"]
        rest = {name: kwargs[name] for name in kwargs if name not in HOW_ARGUMENTS}
        return IterableDataset(dataset, **own), rest
    given = sorted((HOW_ARGUMENTS - _OF_TORCH) & set(kwargs))
    if given and isinstance(dataset, IterableDataset):
        raise TypeError(_has_its_own(given))
    if given:
        raise TypeError(
            f"DataLoader does not take {', '.join(given)} where indices come from a sampler or a "
            "Subset: these belong to a stream of a MapDataset; a sampler has its own"
        )
    return dataset, dict(kwargs)


def _has_its_own(given: list[str]) -> str:
    return (
        f"DataLoader does not take {', '.join(given)} with an IterableDataset, which has its own: "
        f"dataset.replace({given[0]}=…)"
    )


def for_stream(dataset: IterableDataset, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for torch's loader of an IterableDataset.

    Trainers make loaders again with all that torch's have: what changes nothing is let pass.
    """
    plan = dataset.plan
    same = {
        "batch_size": (None, plan.batch_size),
        "shuffle": (None, plan.shuffle),
        "drop_last": (plan.drop_last,),
    }
    rest = dict(kwargs)
    given = [name for name in same if name in rest and rest.pop(name) not in same[name]]
    if given:
        raise TypeError(_has_its_own(given))
    for name, why in _NOT_OF_STREAMS.items():
        value = rest.pop(name, None)
        if value is not None and value is not _as_is and not isinstance(value, OwnGenerator):
            raise TypeError(f"DataLoader does not take {name} with an IterableDataset, {why}")
    return {**rest, "batch_size": None, "collate_fn": _as_is}


def for_samples(dataset: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments for torch's loader of a MapDataset."""
    collate = kwargs.get("collate_fn")
    if collate is not None and collate is not _fetched:
        raise TypeError(
            "DataLoader does not take collate_fn: samples are fetched as a Batch, with labels; "
            "torch.utils.data.DataLoader takes a MapDataset and a collate_fn"
        )
    kwargs = {**kwargs, "collate_fn": _fetched}
    generator = kwargs.pop("generator", None)
    if isinstance(generator, OwnGenerator):
        generator = None
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

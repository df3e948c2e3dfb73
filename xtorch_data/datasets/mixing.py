"""Checks of datasets that are to be mixed, their exact rates, and what each may take of memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from .iterable import IterableDataset
from .page import with_inside

__all__ = ["exact_rates", "member", "memories", "require_datasets", "require_one_topology"]


def require_datasets(datasets: Any) -> None:
    """Raise TypeError or ValueError if they cannot be mixed."""
    if not isinstance(datasets, Mapping) or not datasets:
        raise TypeError(f"mix takes a mapping of names to datasets, not {type(datasets).__name__}")
    for name, each in datasets.items():
        if not isinstance(name, str):
            raise TypeError(f"names of datasets are text, not {name!r}")
        if not isinstance(each, IterableDataset):
            raise TypeError(
                f"dataset {name!r} must be an xtorch_data.IterableDataset, which says how its "
                f"samples come in batches, not {type(each).__name__}"
            )
        if each.plan.uneven == "keep":
            raise ValueError(
                f"dataset {name!r} has uneven='keep', with which ranks may have different numbers "
                "of batches, and so other turns: give 'drop' or 'pad'"
            )
    require_one_topology(datasets)


def require_one_topology(datasets: Mapping[str, IterableDataset]) -> None:
    """Raise ValueError if the datasets are shared by ranks in different ways."""
    found = {name: (each.rank, each.world_size) for name, each in datasets.items()}
    if len(set(found.values())) > 1:
        told = ", ".join(f"{name!r} is rank {at} of {of}" for name, (at, of) in found.items())
        raise ValueError(f"datasets of a mixture are shared by the same ranks, but {told}")


def exact_rates(datasets: Mapping[str, IterableDataset], rates: Any) -> dict[str, Fraction]:
    """Rates as exact numbers, in the order of the datasets."""
    if not isinstance(rates, Mapping):
        raise TypeError(f"rates must be a mapping of names to numbers, not {rates!r}")
    if set(rates) != set(datasets):
        raise ValueError(f"rates are of {list(rates)}, and the datasets are {list(datasets)}")
    found = {}
    for name in datasets:
        try:
            found[name] = Fraction(str(rates[name]))  # 0.1 is a tenth
        except (ValueError, ZeroDivisionError):
            found[name] = Fraction(0)
        if isinstance(rates[name], bool) or found[name] <= 0:
            raise ValueError(f"the rate of {name!r} must be a number above 0, not {rates[name]!r}")
    return found


def memories(
    datasets: Mapping[str, IterableDataset], rates: Mapping[str, Fraction]
) -> dict[str, int]:
    """Bytes of each, of those of the largest.

    Whatever the batch sizes: orders depend on memory, and an epoch goes on with others.
    """
    total = max(each.plan.memory for each in datasets.values())
    used = {
        name: float(rates[name]) * each._inside.definition.nbytes for name, each in datasets.items()
    }
    every = sum(used.values()) or 1.0
    return {
        name: max(1, int(total * (0.25 / len(datasets) + 0.75 * used[name] / every)))
        for name in datasets
    }


def member(name: str, given: IterableDataset, memory: int) -> IterableDataset:
    """A dataset for a mixture alone, whose batches know its name."""
    made = given.replace(memory=memory)
    what = made._inside.what
    labels = replace(what.definition.labels, origin=name)
    what = replace(what, definition=replace(what.definition, labels=labels))
    inside = made._inside
    return with_inside(made, type(inside)(what, inside.how, inside.plan, inside.on_disk))

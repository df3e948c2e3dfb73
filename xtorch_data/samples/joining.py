"""Batches of several sources made one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from .batch import Batch

__all__ = ["joined"]


def joined(batch: Batch, others: Iterable[Batch], order: Sequence[str]) -> Batch:
    """The batch of the first source with the parts of others.

    Parameters
    ----------
    batch : Batch
        Samples of the first source.
    others : iterable of Batch
        Batches of the same samples, each of another source.
    order : sequence of str
        Names of all parts, in their order.

    Returns
    -------
    Batch
        The samples with all parts; `to_xarray` gives a ``DataTree``, a node for each source.
    """
    parts, labels = dict(batch._parts), dict(batch._part_labels)
    for other in others:
        parts.update(other._parts)
        source = None if other._labels is None else other._labels.source
        labels.update(
            {name: replace(each, source=source) for name, each in other._part_labels.items()}
        )
    return batch._with({name: parts[name] for name in order}, labels)

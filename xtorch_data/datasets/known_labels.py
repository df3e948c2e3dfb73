"""Labels of samples that statistics do not know, told when a dataset is made."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pandas as pd

from ..planning.coverage import covered
from ..planning.index_maps import IntArray
from ..samples.date_parts import labels_for, no_statistics
from ..samples.definition import SampleDefinition

__all__ = ["require_labels_known"]


def require_labels_known(samples: SampleDefinition) -> None:
    """Raise ValueError if statistics of preprocess lack a label that lies in any window.

    Of the first source, along dims whose labels are at hand; others are found out when they are
    read, as are those of samples around events.
    """
    if samples.preprocess is None or samples.centers is not None or samples.items is not None:
        return
    places: dict[Hashable, IntArray] = {}
    for function in samples.preprocess.functions():
        found = getattr(function.function, "_normalizes_by", None)
        if found is None:
            continue
        offset, _ = found
        for dim in offset.dims:
            try:
                labels = labels_for(offset.coords[dim], samples.labels.coords.coords)
            except (KeyError, TypeError):  # which is said, with the reason, by what is applied
                continue
            of = [
                name
                for name, own in samples.variable_dims.items()
                if name in offset.data_vars and dim in offset[name].dims and set(labels.dims) <= own
            ]
            if not of or labels.ndim != 1:
                continue
            (along,) = labels.dims
            if along not in places:
                places[along] = _places(samples, along)
            index = offset.indexes[dim]
            wanted = labels.to_numpy()[places[along]]
            unknown = (index.get_indexer(pd.Index(wanted)) < 0) & ~pd.isna(wanted)
            if unknown.any():
                raise ValueError(no_statistics(of[0], dim, index, wanted[unknown][0]))


def _places(samples: SampleDefinition, dim: Hashable) -> IntArray:
    """Steps of the data along a dim that lie in a window, as windows count them."""
    axis = covered(samples.windows.axis(dim), samples.beyond.get(dim))
    return axis.start(np.arange(len(axis)))

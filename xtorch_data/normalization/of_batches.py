"""Parts of a batch in units, as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..samples.batch import Batch

__all__ = ["restored_part"]


def restored_part(normalize: Any, batch: Batch, part: str | None) -> torch.Tensor:
    """The tensor of a part as `Normalize.inverse` makes it of the labeled part."""
    if part is None:
        raise TypeError(f"inverse of a batch takes the name of a part: part={batch.keys()[-1]!r}")
    labels, own = batch._part_labels, normalize
    labeled = batch.to_xarray(part)
    if normalize._first is not None:  # of several sources
        first = None if batch._labels is None else batch._labels.source
        own = normalize.of(labels[part].source or first)
    found = own.inverse(labeled)
    arrays = [found[name].values for name in labels[part].variables]
    stacked = np.stack(arrays, axis=batch.index.ndim) if labels[part].stacked else arrays[0]
    given = batch[part]
    return torch.from_numpy(np.ascontiguousarray(stacked)).reshape(given.shape).to(given.device)

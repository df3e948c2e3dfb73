"""Parts of a batch in units, as tensors, on the device where they are."""

from __future__ import annotations

import torch
import xarray as xr

from ..samples.batch import Batch
from .applying import Scaling
from .scaling import restored_tensor

__all__ = ["restored_part"]


def restored_part(scaling: Scaling, batch: Batch, part: str | None) -> torch.Tensor:
    """The tensor of a part as `Normalize.inverse` makes it of the labeled part.

    Its values stay on their device: only labels are looked up here, and offsets and scales of
    these are sent.
    """
    if part is None:
        raise TypeError(f"inverse of a batch takes the name of a part: part={batch.keys()[-1]!r}")
    given, labels = batch[part].detach(), batch._part_labels[part]
    if given.dtype == torch.bool or given.is_complex():
        shown = str(given.dtype).removeprefix("torch.")
        raise TypeError(f"part {part!r} has dtype {shown}, not floating or integer numbers")
    own = scaling
    if scaling.source is not None:
        first = None if batch._labels is None else batch._labels.source
        own = scaling.own(labels.source or str(first))
    # The labels of the part, around values that take no memory.
    blank = torch.zeros(()).expand(given.shape)
    labeled = batch._with({**batch._parts, part: blank}).to_xarray(part)
    assert isinstance(labeled, xr.Dataset)
    known = own.known(labeled)
    dtype = torch.float64 if given.dtype == torch.float64 else torch.float32
    out = torch.empty(given.shape, dtype=dtype, device=given.device)
    for place, name in enumerate(labels.variables):
        source, target = (
            each.select(batch.index.ndim, place) if labels.stacked else each
            for each in (given, out)
        )
        array = labeled[name]
        if name in known:
            offset, scale = own.at(array, name)
            values = restored_tensor(source.reshape(array.shape), offset, scale)
            source = values.reshape(source.shape)
        target.copy_(source)
    return out

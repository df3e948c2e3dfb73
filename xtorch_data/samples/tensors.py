"""Tensors from arrays and arrays from tensors, on whatever device these are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

__all__ = ["UNSIGNED", "as_numpy", "has_streams", "moved", "packed", "sent", "unpacked"]

# Dtypes of which torch's tensors cannot be pickled, nor flipped (2.13): they are looked at as
# integers of the same size.
UNSIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
# Kinds of devices with streams, on which copies from page-locked memory go on beside the work.
WITH_STREAMS = ("cuda", "xpu")
# Dims of the tensors that these formats are for.
DIMS_OF_FORMAT = {torch.channels_last: 4, torch.channels_last_3d: 5}


def has_streams(device: torch.device) -> bool:
    """Whether a device copies and works in streams, for which the host need not wait."""
    return device.type in WITH_STREAMS


def as_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """A tensor as an array, from wherever it is; bfloat16 becomes float32."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor.numpy()


def sent(array: np.ndarray[Any, Any], device: torch.device) -> torch.Tensor:
    """A small array as a tensor on a device; the host waits for no work that goes on there."""
    tensor = torch.from_numpy(array)
    if has_streams(device):
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def packed(tensor: torch.Tensor) -> Any:
    """A tensor as it can be pickled."""
    if tensor.dtype in UNSIGNED:
        return tensor.view(UNSIGNED[tensor.dtype]), tensor.dtype
    return tensor


def unpacked(given: Any) -> torch.Tensor:
    """The tensor of which `packed` made something."""
    if isinstance(given, tuple):
        tensor, dtype = given
        return tensor.view(dtype)  # type: ignore[no-any-return]
    return given  # type: ignore[no-any-return]


def moved(
    tensor: torch.Tensor, device: Any, non_blocking: bool, memory_format: torch.memory_format
) -> torch.Tensor:
    """A tensor on a device, in a format if that is for as many dims as it has."""
    if DIMS_OF_FORMAT.get(memory_format, tensor.ndim) != tensor.ndim:
        memory_format = torch.preserve_format
    return tensor.to(device, non_blocking=non_blocking, memory_format=memory_format)

"""predict: what a model makes of the samples of a loader, as one labeled Dataset."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.utils.data
import xarray as xr

from ..common.progress import bar
from ..common.text import number_of
from ..common.user_warnings import warn_user
from ..datasets.iterable import IterableDataset
from ..datasets.map import MapDataset
from ..planning.overlap_add import Blend
from ..samples.batch import Batch
from .mosaic import Mosaic
from .mosaic_store import Mode

__all__ = ["predict"]


def predict(
    model: Callable[..., Any],
    loader: Any,
    path: Any = None,
    *,
    forward: Callable[[Batch], torch.Tensor] | None = None,
    part: str = "y",
    keep: Hashable | Mapping[Any, tuple[Hashable, Hashable]] | None = None,
    blend: Blend | None = None,
    inverse: Callable[[xr.Dataset], xr.Dataset] | Any = None,
    encoding: Mapping[Any, Mapping[str, Any]] | None = None,
    mode: Mode = "w-",
) -> xr.Dataset:
    """Predict the samples of a loader, and lay them into one labeled Dataset.

    The model runs in evaluation mode and without gradients; afterwards, each of its modules is in
    the mode that it was in. Batches are where the loader has them, or else where the model is. A
    bar shows how far it is, where `set_options` allows it.

    Parameters
    ----------
    model : callable
        A ``torch.nn.Module``, or any function from inputs to predictions.
    loader : DataLoader, torch.utils.data.DataLoader or IterableDataset
        What yields batches, in any order; without ``augment``.
    path : str, path or zarr store, optional
        Where to write the result; without it, it is in memory.
    forward : callable, optional
        ``batch → predictions``, such as ``lambda batch: model(batch.x, batch["static"])``;
        ``model(batch.x)`` by default. It may return ``(predictions, dims)``, as `Mosaic.add` takes
        them.
    part : str
        The part in whose place predictions stand.
    keep : Hashable or mapping of Hashable to (Hashable, Hashable), optional
        A windowed dim along which windows stay apart, as for `Mosaic`.
    blend : {"mean", "hann"}, optional
        Weights where samples overlap, as for `Mosaic`.
    inverse : callable, optional
        What brings predictions back to units: a `Normalize`, or a function of a labeled Dataset.
    encoding : mapping, optional
        By variable, what `xarray.Dataset.to_zarr` takes.
    mode : {"w-", "w", "a"}
        What becomes of a store at `path`, as for `Mosaic`. With ``"a"``, batches whose chunks are
        complete are not predicted again.

    Returns
    -------
    xarray.Dataset
        The variables of the part over the dims of the data; opened lazily if it was written.

    Raises
    ------
    TypeError, ValueError, FileExistsError
        As `Mosaic` does, and if the loader does not yield batches of ours.

    Warns
    -----
    UserWarning
        If samples of the dataset were not predicted, such as those that ``drop_last`` leaves out,
        or other processes, which this one does not wait for, have still to add theirs: then the
        store is opened as it is, marked as incomplete.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xtorch_data as xtd
    >>> t2m = xr.DataArray(np.arange(8.0), dims="time", name="t2m")
    >>> samples = xtd.MapDataset(
    ...     t2m, {"time": 3}, {"time": 2},
    ...     inputs=xtd.Select("t2m", time=slice(0, 2)), targets=xtd.Select("t2m", time=2),
    ... )
    >>> loader = xtd.DataLoader(samples, batch_size=4)
    >>> xtd.predict(lambda x: x[:, -1] + 1, loader)["t2m"].values
    array([2., 3., 4., 5., 6., 7.], dtype=float32)
    """
    dataset = _dataset_of(loader)
    call = forward if forward is not None else lambda batch: model(batch.x)
    device = _device_of(model)
    mosaic = Mosaic(
        dataset, path, part=part, keep=keep, blend=blend, inverse=inverse, encoding=encoding,
        mode=mode,
    )  # fmt: skip
    with mosaic, _evaluating(model), bar(lambda: len(loader), "batch", "predict") as shown:
        for batch in loader:
            if not isinstance(batch, Batch):
                raise TypeError(
                    "predict takes batches of xtorch_data, which know their samples, not "
                    f"{type(batch).__name__}: xtorch_data.DataLoader yields them"
                )
            if mosaic.wanted(batch).any():
                found = call(batch if device is None else _at(batch, device))
                mosaic.add(batch, *_with_dims(found))
            shown(1)
    if (found := mosaic._so_far()) is not None:
        why, field = found
        warn_user(f"{why}. What others predict is missing in what is returned until then")
        return field
    missing = mosaic.lacking  # of all ranks
    if missing:
        warn_user(
            f"the loader did not yield {number_of(missing, 'sample')} of the dataset, which are "
            "not predicted: places that they alone would cover are missing"
        )
    return mosaic.to_xarray()


def _with_dims(found: Any) -> tuple[Any, ...]:
    """Predictions, and names of their dims if there are any; TypeError for another tuple."""
    if not isinstance(found, tuple):
        return (found,)
    if len(found) != 2 or isinstance(found[1], torch.Tensor | np.ndarray):
        raise TypeError(
            "a model returns predictions, or forward= returns (predictions, dims), and this is a "
            f"tuple of {', '.join(type(each).__name__ for each in found)}: forward=lambda batch: "
            "model(batch.x)[0] takes the first"
        )
    return found


def _dataset_of(loader: Any) -> IterableDataset | MapDataset:
    """The dataset of ours whose samples a loader yields."""
    found = loader
    while isinstance(found, torch.utils.data.DataLoader | torch.utils.data.Subset):
        found = found.dataset
    if not isinstance(found, IterableDataset | MapDataset) or isinstance(loader, MapDataset):
        of = type(loader).__name__ + ("" if found is loader else f" of {type(found).__name__}")
        raise TypeError(
            "loader must be an xtorch_data.DataLoader, or an IterableDataset, of samples of one "
            f"dataset, not {of}"
        )
    return found


def _device_of(model: Any) -> torch.device | None:
    """Where a module has its parameters and buffers; None if it has none."""
    if not isinstance(model, torch.nn.Module):
        return None
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    return None if first is None else first.device


def _at(batch: Batch, device: torch.device) -> Batch:
    """A batch where the model is, if it is still on the host."""
    here = {batch[name].device.type for name in batch.keys()}
    return batch.to(device) if here == {"cpu"} and device.type != "cpu" else batch


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """A module in evaluation mode, without gradients, and afterwards as it was."""
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    modes = [each.training for each in modules]
    for each in modules[:1]:
        each.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for each, training in zip(modules, modes, strict=True):
            each.training = training

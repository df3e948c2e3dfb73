"""Drop-in replacements for the datasets of ``xbatcher.loaders.torch``.

`MapDataset` and `IterableDataset` take the same generators and yield the same tensors in the same
order, but read blocks of chunks instead of an item at a time, and share the items among workers and
ranks.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.utils.data
import xarray as xr
import xbatcher

from .datasets import iterable as dataset
from .datasets import map as map_dataset
from .datasets.page import part_of
from .planning.intervals import Uneven
from .samples.arguments import as_bytes
from .samples.batch import Batch
from .samples.generator_items import Items, labelled
from .sources.source import as_source

__all__ = ["IterableDataset", "MapDataset", "to_tensor"]

XarrayToTensor = Callable[[Any], torch.Tensor]
Item = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


def to_tensor(xr_obj: xr.DataArray | xr.Dataset) -> torch.Tensor:
    """Values of an xarray object as a tensor of the same dtype.

    Parameters
    ----------
    xr_obj : xarray.DataArray or xarray.Dataset
        A Dataset of several variables is stacked on an axis ``variable``, which comes first; one of
        a single variable has no such axis.

    Returns
    -------
    torch.Tensor
        A copy of the values.

    Examples
    --------
    >>> to_tensor(xr.DataArray([1.0, 2.0], dims="time"))
    tensor([1., 2.], dtype=torch.float64)
    """
    if isinstance(xr_obj, xr.Dataset):
        xr_obj = xr_obj.to_array()
        xr_obj = xr_obj[0] if xr_obj.sizes["variable"] == 1 else xr_obj
    values = np.array(xr_obj.to_numpy(), order="C")
    return torch.from_numpy(values.astype(values.dtype.newbyteorder("="), copy=False))


class MapDataset(torch.utils.data.Dataset[Item]):
    """The items of one or two xbatcher generators by number, as tensors.

    A replacement for ``xbatcher.loaders.torch.MapDataset``, for `torch.utils.data.DataLoader` with
    ``batch_size=None``. Chunks that are read are kept for other items while `memory` lasts.

    Parameters
    ----------
    X_generator : xbatcher.BatchGenerator
        Where the inputs come from.
    y_generator : xbatcher.BatchGenerator, optional
        Where the targets come from, one for each input.
    transform, target_transform : callable, optional
        What makes a tensor of an item, the xarray object that the generator yields; `to_tensor` by
        default. It runs where the item is asked for, so that workers share the work.
    memory : int or str
        Bytes, or text such as ``"1 GiB"``, that decoded chunks may take, per process.

    Raises
    ------
    TypeError
        If a generator is none, a variable is not numeric, or a transform cannot be called.
    ValueError
        If the generators differ in length, or have items without a window.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xbatcher
    >>> t2m = xr.DataArray(np.arange(12.0), dims="time")
    >>> X = xbatcher.BatchGenerator(t2m, input_dims={"time": 4})
    >>> y = xbatcher.BatchGenerator(t2m * 2, input_dims={"time": 4})
    >>> dataset = MapDataset(X, y)
    >>> len(dataset)
    3
    >>> dataset[-1][1].tolist()
    [16.0, 18.0, 20.0, 22.0]
    """

    def __init__(
        self,
        X_generator: xbatcher.BatchGenerator,
        y_generator: xbatcher.BatchGenerator | None = None,
        transform: XarrayToTensor | None = to_tensor,
        target_transform: XarrayToTensor | None = to_tensor,
        *,
        memory: int | str = "1 GiB",
    ) -> None:
        self.X_generator, self.y_generator = X_generator, y_generator
        self.transform, self.target_transform = transform, target_transform
        self._sides = _sides(X_generator, y_generator, transform, target_transform)
        share = max(1, as_bytes(memory) // len(self._sides))
        self._datasets = [side.by_number(memory=share) for side in self._sides]

    def __len__(self) -> int:
        return len(self._datasets[0])

    def __getitem__(self, idx: int | torch.Tensor) -> Item:
        asked: Any = idx.tolist() if isinstance(idx, torch.Tensor) else idx
        if isinstance(idx, torch.Tensor) and idx.shape == (1,):
            (asked,) = asked
        try:
            number = operator.index(asked)
        except TypeError:
            raise NotImplementedError(
                f"MapDataset[…] takes the number of one item, not {idx!r}; a "
                "torch.utils.data.DataLoader with a sampler takes several"
            ) from None
        return self.__getitems__([number])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Some items, whose chunks are read together, as torch's loader asks for them."""
        found = [
            side.tensors(data, list(indices))
            for side, data in zip(self._sides, self._datasets, strict=True)
        ]
        return [_as_item(tensors) for tensors in zip(*found, strict=True)]


class IterableDataset(torch.utils.data.IterableDataset[Item]):
    """The items of one or two xbatcher generators in order, as tensors.

    A replacement for ``xbatcher.loaders.torch.IterableDataset``, for `torch.utils.data.DataLoader`
    with ``batch_size=None``. That one yields every item in every worker of a loader and in every
    rank; here each item comes once. Every worker gets neighboring items, so that no two of them
    read the same chunks.

    Parameters
    ----------
    X_generator : xbatcher.BatchGenerator
        Where the inputs come from.
    y_generator : xbatcher.BatchGenerator, optional
        Where the targets come from, one for each input.
    transform, target_transform : callable, optional
        What makes a tensor of an item, the xarray object that the generator yields; `to_tensor` by
        default.
    memory : int or str
        Bytes, or text such as ``"1 GiB"``, that blocks held and read ahead may take, per process.
    uneven : {"pad", "drop", "keep"}
        What happens to items that ranks cannot share equally, as for
        `xtorch_data.IterableDataset`: by default some come on two ranks, so that all have as many.
    rank, world_size : int, optional
        Which share this process gets. By default those of ``torch.distributed``, else of
        torchrun's environment, else 0 of 1.

    Raises
    ------
    TypeError
        If a generator is none, a variable is not numeric, or a transform cannot be called.
    ValueError
        If the generators differ in length, or have items without a window.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xbatcher
    >>> t2m = xr.DataArray(np.arange(12.0), dims="time")
    >>> X = xbatcher.BatchGenerator(t2m, input_dims={"time": 4})
    >>> [x.tolist() for x in IterableDataset(X, transform=lambda item: to_tensor(item[:2]))]
    [[0.0, 1.0], [4.0, 5.0], [8.0, 9.0]]
    """

    def __init__(
        self,
        X_generator: xbatcher.BatchGenerator,
        y_generator: xbatcher.BatchGenerator | None = None,
        transform: XarrayToTensor | None = to_tensor,
        target_transform: XarrayToTensor | None = to_tensor,
        *,
        memory: int | str = "1 GiB",
        uneven: Uneven = "pad",
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self.X_generator, self.y_generator = X_generator, y_generator
        self.transform, self.target_transform = transform, target_transform
        self._sides = _sides(X_generator, y_generator, transform, target_transform)
        share = max(1, as_bytes(memory) // len(self._sides))
        self._datasets = [
            side.in_order(memory=share, uneven=uneven, rank=rank, world_size=world_size)
            for side in self._sides
        ]

    def __len__(self) -> int:
        """Number of items that this rank yields."""
        return len(self._datasets[0])

    def __iter__(self) -> Iterator[Item]:
        with contextlib.ExitStack() as stack:  # no stream goes on when another one fails
            streams = [
                stack.enter_context(contextlib.closing(side.stream(data)))
                for side, data in zip(self._sides, self._datasets, strict=True)
            ]
            for tensors in zip(*streams, strict=True):
                yield _as_item(tensors)


def _as_item(tensors: Sequence[torch.Tensor]) -> Item:
    if len(tensors) == 1:
        return tensors[0]
    x, y = tensors
    return x, y


def _sides(
    X_generator: Any, y_generator: Any, transform: Any, target_transform: Any
) -> list[_Side]:
    """The generators that are given, checked, with what becomes of their items."""
    given = {"X_generator": X_generator, "y_generator": y_generator}
    for name, generator in given.items():
        if not isinstance(generator, xbatcher.BatchGenerator) and (
            name == "X_generator" or generator is not None
        ):
            raise TypeError(
                f"{name} must be an xbatcher.BatchGenerator, not {type(generator).__name__}"
            )
    if y_generator is not None and len(X_generator) != len(y_generator):
        raise ValueError(
            f"X_generator has {len(X_generator)} items and y_generator {len(y_generator)}: each "
            "input needs a target"
        )
    sides = [_Side(X_generator, transform, "transform")]
    if y_generator is not None:
        sides.append(_Side(y_generator, target_transform, "target_transform"))
    return sides


class _Side:
    """The inputs or the targets: a generator, and what becomes of its items.

    Without a transform, items are gathered as tensors. For a transform, the region of each is
    gathered, one part for each variable, and labeled.
    """

    def __init__(self, generator: xbatcher.BatchGenerator, transform: Any, argument: str) -> None:
        # xbatcher's own function is ours by another name.
        plain = transform is None or transform is to_tensor or _is_xbatchers(transform)
        if not plain and not callable(transform):
            raise TypeError(f"{argument} must be a function of an xarray object, not {transform!r}")
        self._generator, self._argument = generator, argument
        self._transform = None if plain else transform
        self._source = source = as_source(generator)
        variables = source.dataset.data_vars
        self._items = Items.of(
            generator,
            source.sizes,
            source.names,
            [variables[name].variable for name in variables],
        )
        self._coords: xr.Dataset | None = None

    # The datasets of this package that read for it.

    def by_number(self, **arguments: Any) -> map_dataset.MapDataset:
        """One for items by number."""
        found: map_dataset.MapDataset = self._made(map_dataset.MapDataset, arguments)
        return found

    def in_order(self, **arguments: Any) -> dataset.IterableDataset:
        """One for items in order."""
        arguments["batch_size"] = None
        found: dataset.IterableDataset = self._made(dataset.IterableDataset, arguments)
        return found

    def _made(self, kind: Any, arguments: dict[str, Any]) -> Any:
        data = self._source.dataset
        names = list(data.data_vars)
        arguments["dtype"] = _floating([data[name].dtype for name in names])
        if self._transform is None:
            return kind(self._generator, inputs=names[0] if len(names) == 1 else names, **arguments)
        windows = self._items.windows
        regions = kind(
            data,
            {axis.dim: axis.size for axis in windows.axes},
            parts={f"part{number}": name for number, name in enumerate(names)},
            breaks="ignore",  # generators count by position
            **arguments,
        )
        return part_of(regions, regions._inside.what.over(windows))

    # From what they read to tensors.

    def stream(self, data: dataset.IterableDataset) -> Generator[torch.Tensor, None, None]:
        """Tensors of the items in order."""
        for sample in data:
            yield self._tensor(list(sample), int(sample.index))

    def tensors(self, data: map_dataset.MapDataset, indices: list[int]) -> list[torch.Tensor]:
        """Tensors of some items by number."""
        if self._transform is None and self._items.ragged:  # they make no batch
            return [tensor for index in indices for (tensor,) in [data[index]]]
        batch: Batch = data.fetch(indices)
        numbers = batch.index.tolist()
        rows = zip(*(tensor.unbind() for tensor in batch), strict=True)
        return [self._tensor(list(row), number) for row, number in zip(rows, numbers, strict=True)]

    def _tensor(self, tensors: list[torch.Tensor], number: int) -> torch.Tensor:
        if self._transform is None:
            return tensors[0]
        result = self._transform(self._labelled(tensors, number))
        if not isinstance(result, torch.Tensor):
            raise TypeError(
                f"{self._argument} must return a torch.Tensor, not {type(result).__name__}; "
                "xtorch_data.xbatcher.to_tensor makes one"
            )
        return result

    def _labelled(self, tensors: list[torch.Tensor], number: int) -> xr.Dataset | xr.DataArray:
        """An item as the generator yields it."""
        items, source = self._items, self._source
        if self._coords is None:
            self._coords = source.dataset.coords.to_dataset().compute()
        region = items.windows[number]
        axes = items.windows.axes
        data = {}
        for (name, variable), tensor in zip(source.dataset.data_vars.items(), tensors, strict=True):
            # What a variable lacks was broadcast.
            own = tuple(slice(None) if axis.dim in variable.dims else 0 for axis in axes)
            values = tensor.numpy()[own].astype(variable.dtype.newbyteorder("="), copy=False)
            dims = [axis.dim for axis in axes if axis.dim in variable.dims]
            found = xr.Variable(dims, values, variable.attrs)
            data[name] = found.transpose(*variable.dims)
        # A copy: a transform may write into its item, and later items are cut from the same.
        cut = self._coords.isel(region, missing_dims="ignore").copy(deep=True).assign(data)
        cut.attrs = dict(source.dataset.attrs)
        firsts = items.firsts(items.windows.starts(number))
        if source.single is None:
            return labelled(items, cut, firsts)
        array = labelled(items, cut[source.single], firsts)
        return array.rename(self._generator.ds.name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_coords": None}


def _floating(dtypes: Sequence[np.dtype[Any]]) -> np.dtype[Any] | None:
    """Dtype to gather floating data in, so that no value changes."""
    numbers = [dtype for dtype in dtypes if dtype.kind in "fiub"]
    if not any(dtype.kind == "f" for dtype in numbers):
        return None
    return np.result_type(*numbers)  # as xarray stacks them


def _is_xbatchers(transform: Any) -> bool:
    return (
        getattr(transform, "__module__", None) == "xbatcher.loaders.torch"
        and getattr(transform, "__name__", None) == "to_tensor"
    )

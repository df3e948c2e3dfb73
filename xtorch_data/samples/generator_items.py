"""Items of an xbatcher generator: regions of the data, the windows in each, and their arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import xbatcher

from ..planning.index_maps import IntArray, Regular, Term, runs_of
from ..planning.windows import Windows

__all__ = ["INPUT_BATCH", "Items", "Patches", "arranged", "labelled"]

Array = npt.NDArray[Any]

# Names that xbatcher gives to dims it makes.
INPUT_BATCH, SAMPLE = "input_batch", "sample"
# A coordinate that has dims which no variable has.
EXTRA = "__extra"


@dataclass(frozen=True)
class Patches:
    """The windows of a generator that lie in one item (xbatcher's patches), along one dim."""

    size: int  # steps of a window
    stride: int  # steps from one to the next
    count: int  # windows in an item
    # Where the last item has fewer windows, its region is as large as the others and so begins
    # further ahead: at step `last`, with `surplus` windows that are not in the item.
    last: int | None = None
    surplus: int = 0

    @property
    def span(self) -> int:
        """Steps of the region."""
        return (self.count - 1) * self.stride + self.size

    def first(self, start: int) -> int:
        """Number of the first window that is in the item, of those in the region at `start`."""
        return self.surplus if start == self.last else 0


@dataclass(frozen=True, eq=False)
class Items:
    """The items of a generator, each of which is a sample.

    An item is a region of the data. With ``concat_input_dims`` the windows inside the region are
    put one after the other on a dim ``input_batch``. Two dims or more that are not in
    ``input_dims`` are stacked into one (the rules of `xbatcher.BatchGenerator
    <https://xbatcher.readthedocs.io>`_).
    """

    windows: Windows  # the regions
    inner: tuple[Hashable, ...]  # the dims in ``input_dims``
    stacked: tuple[Hashable, ...]  # dims that are stacked, slowest first; none if fewer than two
    order: tuple[Hashable, ...]  # dims of a region in the order of the data
    # With ``concat_input_dims``, the windows of an item along each dim of `inner`.
    patches: Mapping[Hashable, Patches] | None
    names: Mapping[Hashable, Hashable]  # dims of the data that have another name here, and which
    # For the parts of a sample, dims in the order of their variables.
    orders: Mapping[str, tuple[Hashable, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        generator: xbatcher.BatchGenerator,
        sizes: Mapping[Hashable, int],
        names: Mapping[Hashable, Hashable],
        variables: Iterable[xr.Variable],
    ) -> Items:
        """Work them out for some variables.

        `sizes` has every dim of the data, in order, under the names that `names` gives them.

        Raises
        ------
        ValueError
            If the generator has items without a window, on which it fails itself, or values are
            changed when they are cached.
        """
        if generator.cache is not None and generator.cache_preprocess is not None:
            raise ValueError(
                "the BatchGenerator has a cache_preprocess, which is not applied: give it as "
                "transform, and cache=True instead of the generator's cache"
            )
        inner = _renamed(generator.input_dims, names)
        batch_dims = _renamed(generator.batch_dims, names)
        overlap = _renamed(generator.input_overlap, names)
        concat = bool(generator.concat_input_dims)
        others = tuple(dim for dim in sizes if dim not in inner)
        batched = (INPUT_BATCH, *others) if concat else others
        stacked = batched if len(batched) > 1 else ()
        cut = {dim: size for dim, size in batch_dims.items() if dim not in inner} | inner
        order = tuple(_order(variables, sizes))
        have = set(order) | set(cut) | (set(others) if stacked else set())
        order = (*order, *(dim for dim in sizes if dim in have and dim not in order))
        whole = [dim for dim in sizes if dim in have and dim not in cut]
        base = Windows.from_sizes(
            {dim: sizes[dim] for dim in have}, dict.fromkeys([*cut, *whole], -1)
        )
        grouped = [dim for dim in batch_dims if dim in inner] if concat else []
        axes, patches = [], {}
        for axis in base.axes:
            dim = axis.dim
            if dim not in cut:
                axes.append(axis)
                continue
            stride = cut[dim] - overlap.get(dim, 0)
            windows = (axis.length - overlap.get(dim, 0)) // stride
            count, items = 1, windows
            if dim in grouped:
                count, items = -(-batch_dims[dim] // stride), axis.length // batch_dims[dim]
            elif concat and dim in inner:
                count, items = windows, 1
            elif grouped:
                items = axis.length // cut[dim]
            _require_windows(names.get(dim, dim), windows, count, items)
            patched = Patches(cut[dim], stride, min(count, windows))
            step = patched.count * stride
            starts: Term = Regular(0, items * step, step)
            if items * patched.count > windows:
                last = (windows - patched.count) * stride
                patched = replace(patched, last=last, surplus=items * patched.count - windows)
                starts = runs_of(np.array([0, last]), np.array([items - 1, 1]), step)
            if dim in inner:
                patches[dim] = patched
            axes.append(replace(axis, size=patched.span, starts=starts))
        return cls(
            Windows.of(axes),
            tuple(inner),
            stacked,
            order,
            patches if concat else None,
            {ours: theirs for theirs, ours in names.items()},
        )

    def for_parts(self, parts: Mapping[str, Sequence[xr.Variable]]) -> Items:
        """Items with the order of dims in parts that have certain variables."""
        orders = {
            name: (*(found := tuple(_order(own, self.order))), *self._without(found))
            for name, own in parts.items()
        }
        return replace(self, orders=orders)

    def _without(self, dims: Sequence[Hashable]) -> tuple[Hashable, ...]:
        return tuple(dim for dim in self.order if dim not in dims)

    @property
    def region_dims(self) -> tuple[Hashable, ...]:
        """Dims of a region, in the order that is arranged with least work."""
        if not self.stacked:
            return self.order
        return (*(dim for dim in self.stacked if dim != INPUT_BATCH), *self.inner)

    def shape(self, part: str, region: Mapping[Hashable, int]) -> tuple[int, ...]:
        """Shape of the largest item of a part, from the sizes of its region along its dims."""
        sizes, order = dict(region), [dim for dim in self.orders[part] if dim in region]
        if self.patches is not None:
            sizes |= {dim: each.size for dim, each in self.patches.items()}
            sizes[INPUT_BATCH] = math.prod(each.count for each in self.patches.values())
            order = [INPUT_BATCH, *order]
        if not set(self.stacked) <= set(sizes) or not self.stacked:
            return tuple(sizes[dim] for dim in order)
        many = math.prod(sizes[dim] for dim in self.stacked)
        return (many, *(sizes[dim] for dim in self.inner if dim in sizes))

    @property
    def ragged(self) -> bool:
        """Whether items differ in size."""
        return any(each.surplus for each in (self.patches or {}).values())

    # Which windows are in an item.

    def firsts(self, starts: IntArray) -> dict[Hashable, int]:
        """Along each dim of `inner`, the first window of a region that is in its item.

        `starts` are those of some samples, from `Windows.starts`; ValueError if these differ in
        it, so that they do not fit into one array.
        """
        found = {}
        for axis, start in zip(self.windows.axes, starts, strict=True):
            if self.patches is not None and axis.dim in self.patches:
                firsts = {self.patches[axis.dim].first(at) for at in np.unique(start).tolist()}
                if len(firsts) > 1:
                    raise ValueError(
                        f"the last item along {self.names.get(axis.dim, axis.dim)!r} has fewer "
                        "windows than the others, so that they do not fit into one batch: take "
                        "samples one at a time, with batch_size=None"
                    )
                found[axis.dim] = firsts.pop() if firsts else 0
        return {dim: found[dim] for dim in self.inner if dim in found}

    def offsets(self, firsts: Mapping[Hashable, int]) -> dict[Hashable, IntArray]:
        """First steps of the windows of an item in its region, in the order of ``input_batch``."""
        if self.patches is None:
            return {}
        along = [np.arange(firsts[dim], self.patches[dim].count) for dim in self.inner]
        places = np.meshgrid(*along, indexing="ij")
        return {
            dim: place.ravel() * self.patches[dim].stride
            for dim, place in zip(self.inner, places, strict=True)
        }

    def region(self, window: Mapping[Any, slice | int]) -> dict[Any, slice | int]:
        """Indexers for ``isel`` that cut the data in the item of a region."""
        found = dict(window)
        for dim, along in (self.patches or {}).items():
            whole = found[dim]
            assert isinstance(whole, slice)
            surplus = along.first(whole.start) * along.stride
            found[dim] = slice(whole.start + surplus, whole.stop)
        return found

    def labels_of(self, dims: Sequence[Hashable]) -> tuple[Hashable, ...]:
        """Names for dims of an item in a batch, whose own dim is ``sample``."""
        ours = {theirs: ours for ours, theirs in self.names.items()}
        if self.stacked:
            ours[SAMPLE] = f"item_{SAMPLE}"
        return tuple(ours.get(dim, dim) for dim in dims)


def _require_windows(dim: Hashable, windows: int, count: int, items: int) -> None:
    """Raise ValueError if there are not windows for all items along a dim, or there is no item."""
    if not items:
        raise ValueError(f"the BatchGenerator has no item: batch_dims is larger than dim {dim!r}")
    if (items - 1) * count >= windows:
        raise ValueError(
            f"the BatchGenerator has items without a window: along {dim!r} there are {windows} "
            f"windows, {count} in an item, for {items} items, and xbatcher itself fails on the "
            "last. Choose batch_dims that are multiples of input_dims - input_overlap"
        )


def _renamed(by_dim: Mapping[Any, int], names: Mapping[Hashable, Hashable]) -> dict[Any, int]:
    return {names.get(dim, dim): int(size) for dim, size in by_dim.items()}


def _order(variables: Iterable[xr.Variable], dims: Iterable[Hashable]) -> list[Hashable]:
    """Those of some dims that variables have, in the order in which they first come."""
    known = set(dims)
    return list(dict.fromkeys(dim for each in variables for dim in each.dims if dim in known))


# From the region of an item to the item, as values or labeled.


def arranged(
    items: Items,
    part: str,
    array: Array,
    dims: Sequence[Hashable],
    firsts: Mapping[Hashable, int],
    take: Callable[[Sequence[int], np.dtype[Any]], Array],
) -> tuple[Array, tuple[Hashable, ...]]:
    """Arrange the regions of some samples, but for stacking; a copy only where they change.

    `array` has shape ``(..., *dims)``, the result ``(..., [input_batch,] *dims)``, with what its
    last axes are now. `firsts` is from `Items.firsts`; `take` gives memory of a shape and dtype.
    """
    lead = array.ndim - len(dims)
    order = items.region_dims if items.stacked else items.orders[part]
    order = tuple(dim for dim in order if dim in dims)
    now: list[Any] = list(dims)
    windows: list[Any] = []
    if items.patches is not None:
        for dim in items.inner:
            patches, axis = items.patches[dim], lead + now.index(dim)
            array = np.lib.stride_tricks.sliding_window_view(
                array, patches.size, axis, writeable=True
            )
            every = slice(firsts[dim] * patches.stride, None, patches.stride)
            array = array[(*(slice(None),) * axis, every)]
            windows.append((INPUT_BATCH, dim))
            now[now.index(dim)] = windows[-1]
            now.append(dim)
    axes = [lead + now.index(dim) for dim in (*windows, *order)]
    array = array.transpose(*range(lead), *axes)
    if not array.flags.c_contiguous:
        out = take(array.shape, array.dtype)
        np.copyto(out, array)
        array = out
    if items.patches is None:
        return array, order
    shape, end = array.shape, lead + len(windows)
    array = array.reshape((*shape[:lead], math.prod(shape[lead:end]), *shape[end:]))
    return array, (INPUT_BATCH, *order)


def labelled(
    items: Items, region: xr.Dataset | xr.DataArray, firsts: Mapping[Hashable, int]
) -> xr.Dataset | xr.DataArray:
    """The item as the generator yields it, from its labeled region in memory.

    Windows of a DataArray keep their coordinates as those of a Dataset do, where xbatcher aligns
    them. All coordinates along windows have the dim ``input_batch``, also where xbatcher finds
    them equal. `firsts` is from `Items.firsts`.
    """
    if isinstance(region, xr.DataArray):
        name = "__item"
        item = labelled(items, region.to_dataset(name=name), firsts)
        array: xr.DataArray = item[name]
        return array.rename(region.name)
    inner = {dim: dim for dim in items.inner}
    item = region
    if items.patches is not None:
        inner = {dim: f"{items.names.get(dim, dim)}_input" for dim in items.inner}
        item = _windows(items, region, firsts, inner)
    back = {dim: name for dim, name in items.names.items() if dim in item.dims}
    back |= {dim: name for dim, name in items.names.items() if dim in item.variables}
    item = item.rename(back)
    if not items.stacked:
        return item
    stacked = [back.get(dim, dim) for dim in items.stacked]
    lengths = {back.get(axis.dim, axis.dim): axis.size for axis in items.windows.axes}
    item = _with_dims(item, {dim: lengths[dim] for dim in stacked if dim not in item.dims})
    item = item.stack({SAMPLE: stacked}).drop_vars(EXTRA, errors="ignore")
    kept = [back.get(dim, dim) for dim in inner.values()]
    return item.transpose(SAMPLE, *kept, missing_dims="ignore")


def _windows(
    items: Items,
    region: xr.Dataset,
    firsts: Mapping[Hashable, int],
    inner: Mapping[Hashable, Hashable],
) -> xr.Dataset:
    """The windows in a region, one after the other on a dim, and their own dims renamed."""
    assert items.patches is not None
    item = region
    counts: dict[Hashable, int] = {}
    for number, (dim, patches) in enumerate(items.patches.items()):
        begins = np.arange(firsts[dim], patches.count) * patches.stride
        along = f"__windows_{number}"
        counts[along] = len(begins)
        places = xr.Variable((along, inner[dim]), begins[:, None] + np.arange(patches.size))
        item = item.isel({dim: places}, missing_dims="ignore")
    if counts:
        item = _with_dims(item, counts).stack({INPUT_BATCH: list(counts)}, create_index=False)
        item = item.drop_vars(EXTRA)
    every = math.prod(counts.values())
    found: dict[Hashable, xr.Variable] = {}
    for name, variable in item.variables.items():
        if name in item.data_vars and INPUT_BATCH not in variable.dims:
            sizes = {INPUT_BATCH: every, **variable.sizes}
            variable = variable.set_dims(sizes).copy()  # type: ignore[no-untyped-call]
        order = (INPUT_BATCH, *(inner.get(dim, dim) for dim in region.variables[name].dims))
        found[name] = variable.transpose(*order, missing_dims="ignore")
    return item.assign({name: found[name] for name in item.data_vars}).assign_coords(
        {name: found[name] for name in item.coords if name not in item.xindexes}
    )


def _with_dims(data: xr.Dataset, sizes: Mapping[Hashable, int]) -> xr.Dataset:
    """Data with a coordinate that has certain dims, and takes no memory."""
    if not sizes:
        return data
    values = np.broadcast_to(np.int8(0), tuple(sizes.values()))
    return data.assign_coords({EXTRA: (tuple(sizes), values)})

"""What the items of an xbatcher generator are: regions of the data, and windows in each."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr
import xbatcher

from ..planning.index_maps import IntArray, Regular, Term, runs_of
from ..planning.windows import Windows

__all__ = ["INPUT_BATCH", "SAMPLE", "Items", "Patches"]

# Names that xbatcher gives to dims it makes.
INPUT_BATCH, SAMPLE = "input_batch", "sample"


@dataclass(frozen=True)
class Patches:
    """The windows of a generator that lie in one item (xbatcher's patches), along one dim.

    Attributes
    ----------
    size, stride : int
        Steps of a window, and from one to the next.
    count : int
        Windows in an item.
    last : int, optional
        Where the last item has fewer windows, its region is as large as the others and so begins
        further ahead: the step at which it does.
    surplus : int
        Windows at the beginning of that region which are not in the item.
    """

    size: int
    stride: int
    count: int
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

    Attributes
    ----------
    windows : Windows
        The regions.
    inner : tuple of Hashable
        The dims in ``input_dims``.
    stacked : tuple of Hashable
        Dims that are stacked into one, slowest first; none if there are fewer than two.
    order : tuple of Hashable
        Dims of a region in the order of the data.
    patches : mapping of Hashable to Patches, optional
        With ``concat_input_dims``, the windows of an item along each dim of `inner`.
    names : mapping of Hashable to Hashable
        Dims of the data that have another name here, and which.
    orders : mapping of str to tuple of Hashable
        For the parts of a sample, dims in the order of their variables.
    """

    windows: Windows
    inner: tuple[Hashable, ...]
    stacked: tuple[Hashable, ...]
    order: tuple[Hashable, ...]
    patches: Mapping[Hashable, Patches] | None
    names: Mapping[Hashable, Hashable]
    orders: Mapping[str, tuple[Hashable, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        generator: xbatcher.BatchGenerator,
        sizes: Mapping[Hashable, int],
        names: Mapping[Hashable, Hashable],
        variables: Iterable[xr.Variable],
    ) -> Items:
        """Work them out.

        Parameters
        ----------
        generator : xbatcher.BatchGenerator
            The generator.
        sizes : mapping of Hashable to int
            Size of every dim of its data, in order.
        names : mapping of Hashable to Hashable
            Dims that have another name in `sizes`, and which.
        variables : iterable of xarray.Variable
            The variables that are used.

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
        """The same, with the order of dims in parts that have certain variables."""
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

        Parameters
        ----------
        starts : ndarray of int64
            Where the regions of some samples begin, as `Windows.starts` gives them.

        Raises
        ------
        ValueError
            If the samples differ in it, so that they do not fit into one array.
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
        """Where the windows of an item begin in its region, in the order of ``input_batch``."""
        if self.patches is None:
            return {}
        along = [np.arange(firsts[dim], self.patches[dim].count) for dim in self.inner]
        places = np.meshgrid(*along, indexing="ij")
        return {
            dim: place.ravel() * self.patches[dim].stride
            for dim, place in zip(self.inner, places, strict=True)
        }

    def region(self, window: Mapping[Any, slice | int]) -> dict[Any, slice | int]:
        """What ``isel`` takes to cut the data that is in the item of a region."""
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

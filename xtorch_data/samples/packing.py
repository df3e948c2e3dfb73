"""Packed values: samples of what is stored, and what makes of them what xarray would."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..planning.chunks import Layout
from ..sources.lazy_arrays import (
    DecodingArray,
    inside_caches,
    is_computed,
    is_lazy,
    layers,
    undecoded,
)
from .definition import SampleDefinition
from .facts import needs_host
from .presence import not_null
from .select import Part

__all__ = ["Group", "Packed", "Packing", "packed"]

# Integers of more bytes are no smaller than the float32 that they become.
MOST_BYTES = 2


@dataclass(frozen=True, eq=False)
class Packing:
    """Packing of a variable: small integers, and xarray's decoders of these.

    There are so few of these that all are decoded beforehand, by xarray itself. Whoever looks
    values up in the table has them bit for bit, in whatever arithmetic that was.
    """

    dtype: np.dtype[Any]  # of the integers, in native byte order
    functions: tuple[Callable[[Any], Any], ...]  # the decoders, in the order they are applied

    def table(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Decoded value of each integer, as a dtype: shape ``(256,)`` or ``(65536,)``.

        In the order of the integers whose bits these would be with a sign: -128 to 127, or -32768
        to 32767.
        """
        signed = np.dtype(f"i{self.dtype.itemsize}")
        least, most = np.iinfo(signed).min, np.iinfo(signed).max
        values: Any = np.arange(least, most + 1).astype(signed).view(self.dtype)
        with np.errstate(all="ignore"):  # of values that may be nowhere in the data
            for function in self.functions:
                values = function(values)
            return np.asarray(values).astype(dtype)

    def present(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Where stored integers are decoded to a value, not to NaN."""
        table = not_null(self.table(np.dtype(np.float32)))
        signed = stored.astype(self.dtype, copy=False).view(f"i{self.dtype.itemsize}")
        return table[signed.astype(np.int32) + len(table) // 2]


@dataclass(frozen=True, eq=False)
class Group:
    """Variables of a part that are gathered together, because they are stored alike."""

    part: Part  # they as a part of their own
    places: tuple[int, ...]  # among the variables of the part
    packings: tuple[Packing, ...]  # of each; empty for variables that are gathered decoded


@dataclass(frozen=True, eq=False)
class Packed:
    """Samples of stored values, and what they will be."""

    samples: SampleDefinition  # before they are decoded; their parts are the groups
    decoded: SampleDefinition
    groups: Mapping[str, tuple[Group, ...]]  # what each part is made of


def packed(samples: SampleDefinition) -> Packed:
    """The samples before they are decoded; variables that cannot be taken so are decoded.

    Raises
    ------
    ValueError
        If functions of the user work on decoded values, or no variable is packed.
    """
    if samples.preprocess is not None:
        raise ValueError("preprocess takes decoded values")
    why = needs_host(samples)
    if why is not None:
        raise ValueError(why)
    parts = samples.parts
    packings, reasons = {}, []
    for name, variable in samples.data.data_vars.items():
        found = _packing(variable.variable)
        unfit = [
            part
            for part in parts
            if name in part.variables and part.takes == "values" and part.dtype.kind != "f"
        ]
        if isinstance(found, Packing) and not unfit:
            packings[name] = found
        else:
            reasons.append(f"{name!r} {'is in a part that is not floating' if unfit else found}")
    if not packings:
        raise ValueError(f"no variable is packed: {'; '.join(map(str, reasons[:3]))}")
    groups = {part.name: tuple(_groups(part, samples.data, packings)) for part in parts}
    data = samples.data.assign({name: _stored(samples.data.variables[name]) for name in packings})
    stored = replace(
        samples,
        data=data,
        layouts=tuple(
            _layout(layout, data, packings, samples.present) for layout in samples.layouts
        ),
        dtypes={**samples.dtypes, **{name: each.dtype for name, each in packings.items()}},
        parts=tuple(group.part for some in groups.values() for group in some),
        present={
            name: packings[name].present if name in packings else each
            for name, each in samples.present.items()
        },
    )
    return Packed(stored, samples, groups)


def _groups(part: Part, data: xr.Dataset, packings: Mapping[Hashable, Packing]) -> Iterable[Group]:
    """The variables of a part, by what they are stored as."""
    alike: dict[Any, list[int]] = {}
    packings = packings if part.takes == "values" else {}
    for place, name in enumerate(part.variables):
        alike.setdefault(packings[name].dtype if name in packings else None, []).append(place)
    for number, (dtype, places) in enumerate(alike.items()):
        names = tuple(part.variables[place] for place in places)
        have = {dim for name in names for dim in data.variables[name].dims}
        own = replace(
            part,
            name=f"{part.name}.{number}",  # no part of a user is named so
            variables=names,
            dtype=part.dtype if dtype is None else dtype,
            lacking=tuple(dim for dim in part.dims if dim not in have),
        )
        found = () if dtype is None else tuple(packings[name] for name in names)
        yield Group(own, tuple(places), found)


def _layout(
    layout: Layout,
    data: xr.Dataset,
    packings: Mapping[Hashable, Packing],
    present: Container[Hashable],
) -> Layout:
    """Layout of a variable in memory that is not decoded."""
    if layout.name not in packings:
        return layout
    variable = data.variables[layout.name]
    outside = [size for dim, size in variable.sizes.items() if dim not in layout.chunks]
    itemsize = packings[layout.name].dtype.itemsize + (layout.name in present)
    return replace(layout, itemsize=itemsize * math.prod(outside))


def _packing(variable: xr.Variable) -> Packing | str:
    """Packing of a variable, or the reason why it is not packed."""
    if is_computed(variable):
        return "is decoded in the graph of dask"
    if not is_lazy(variable):
        return "is in memory"
    functions, data = undecoded(layers(variable)[0])
    if not functions or variable.dtype.kind != "f":
        return "is not decoded to floats"
    dtype = np.dtype(data.dtype)
    if dtype.kind not in "iu" or dtype.itemsize > MOST_BYTES:
        return f"is stored as {dtype}, not as integers of 8 or 16 bits"
    if any(isinstance(below, DecodingArray) for below in layers(data)[1:]):
        return "is decoded before it is cut"
    return Packing(dtype.newbyteorder("="), tuple(functions))


def _stored(variable: xr.Variable) -> xr.Variable:
    """A lazy variable without its decoders."""
    found = inside_caches(layers(variable)[0], lambda data: undecoded(data)[1])
    return xr.Variable(variable.dims, found, variable.attrs, variable.encoding)

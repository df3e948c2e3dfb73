"""Statistics applied to the variables of xarray objects, found by name, source and label."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from .files import FIRST
from .kinds import Kind
from .scaling import Values, floating, normalized, restored, scaling_at

__all__ = ["Scaling"]

Object = TypeVar("Object", xr.Dataset, xr.DataArray, xr.DataTree)
Function = Callable[[Values, Values, Values], Values]
AttrsOf = Callable[[Hashable, Mapping[Any, Any]], dict[Any, Any]]

# Attributes that do not hold for normalized values, besides the units.
DROPPED_ATTRS = {"valid_min", "valid_max", "valid_range", "actual_range"}


@dataclass(frozen=True, eq=False)
class Scaling:
    """Two statistics by variable, and what they make of values.

    Attributes
    ----------
    kind : Kind
        What statistics they are.
    first, second : xarray.Dataset
        The two, of the same variables, dims and labels.
    """

    kind: Kind
    first: xr.Dataset
    second: xr.Dataset

    @property
    def source(self) -> str | None:
        """Name of the first of several sources."""
        found: str | None = self.first.attrs.get(FIRST)
        return found

    @property
    def others(self) -> list[str]:
        """Names of the variables of other sources."""
        return [name for name in self.first.data_vars if isinstance(name, str) and "/" in name]

    def of_source(
        self, source: str, first: bool, variables: Container[Hashable] = ()
    ) -> Scaling | None:
        """The statistics of one of several sources, None where there are none.

        `variables` are those of the first source that is meant, also if their names have a slash.
        """
        begin = f"{source}/"
        names: dict[Hashable, Hashable] = {
            name: name.removeprefix(begin) for name in self.others if name.startswith(begin)
        }
        if first:
            others = {name for name in self.others if name not in variables}
            names.update({name: name for name in self.first.data_vars if name not in others})
        if not names:
            return None
        one, other = (
            xr.Dataset({new: each.variables[name] for name, new in names.items()}, each.coords)
            for each in (self.first, self.second)
        )
        return replace(self, first=one, second=other)

    def own(self, source: str) -> Scaling:
        """The statistics of one of several sources; KeyError if there are none."""
        found = self.of_source(source, first=source == self.source)
        if found is None:
            others = (str(name).partition("/")[0] for name in self.others)
            sources = list(dict.fromkeys([self.source, *others] if self.source else others))
            raise KeyError(f"there are no statistics of source {source!r}; there are of {sources}")
        return found

    def at(self, array: xr.DataArray, name: Hashable) -> tuple[Values, Values]:
        """Offset and scale of a variable at the places of an array."""
        return scaling_at(self.kind, self.first[name], self.second[name], array)

    @property
    def offset_and_scale(self) -> tuple[xr.Dataset, xr.Dataset]:
        """Offset and scale of all variables, with the labels of the statistics."""
        scales = {}
        for name, first in self.first.data_vars.items():
            _, scale = self.kind.scaling(first.values, self.second[name].values)
            scales[name] = (first.dims, np.where(scale == 0, 1.0, scale))
        return self.first, self.first.assign(scales)

    def normalized(self, obj: Object) -> Object:
        """An object with all variables normalized that are known."""
        return self._applied(obj, normalized, _attrs_of_normalized)

    def restored(self, obj: Any) -> Any:
        """An object with all variables brought back that are known; of a Dataset, masks stay."""
        if not isinstance(obj, xr.Dataset):
            return self._applied(obj, restored, self._attrs_of_restored)
        masks = {name: each for name, each in obj.data_vars.items() if each.dtype == bool}
        values = obj.drop_vars(list(masks))
        return obj.assign(self._applied(values, restored, self._attrs_of_restored).data_vars)

    def known(self, obj: xr.Dataset) -> list[Hashable]:
        """Variables of a Dataset that are known.

        ValueError if there is none, or one under another name.
        """
        self._require_one_part(obj)
        known = [name for name in obj.data_vars if name in self.first.data_vars]
        if not known:
            raise ValueError(
                f"there are no statistics of any of {list(obj.data_vars)}, but of "
                f"{list(self.first.data_vars)}"
            )
        return known

    def _applied(self, obj: Object, function: Function, attrs_of: AttrsOf) -> Object:
        """An object with a function of values, offset and scale applied to all that is known."""
        if isinstance(obj, xr.DataTree):
            return self._applied_to_sources(obj, function, attrs_of)
        if self.source is not None:
            raise ValueError(
                f"these statistics are of several sources, and it is not known of which this "
                f"{type(obj).__name__} is: normalize.of({self.source!r}) has those of one"
            )

        def applied(name: Hashable, array: xr.DataArray) -> xr.Variable:
            variable = array.variable
            if variable.dtype.kind not in "iuf":
                raise TypeError(
                    f"variable {name!r} has dtype {variable.dtype}, not floating or integer numbers"
                )
            values = function(variable.data, *self.at(array, name))
            return xr.Variable(variable.dims, values, attrs_of(name, variable.attrs))

        if isinstance(obj, xr.Dataset):
            return obj.assign({name: applied(name, obj[name]) for name in self.known(obj)})
        if not isinstance(obj, xr.DataArray):
            raise TypeError(
                "Normalize takes an xarray Dataset, DataArray or DataTree, not "
                f"{type(obj).__name__}; normalize.inverse takes a Batch as well, which knows the "
                "labels of a tensor: normalize.inverse(batch.replace(y=tensor), part='y')"
            )
        name: Hashable = obj.name
        if name is None and len(self.first.data_vars) == 1:
            (only,) = self.first.data_vars
            if "variable" not in obj.coords or "variable" in self.first[only].dims:
                name = only
        if name not in self.first.data_vars and "variable" in obj.indexes:
            dtype = floating(obj.dtype)
            apart = self._applied(obj.to_dataset("variable"), function, attrs_of)
            together = apart.to_dataarray("variable", name=obj.name).astype(dtype)
            return together.transpose(*obj.dims).assign_attrs(obj.attrs)
        if name not in self.first.data_vars:
            raise ValueError(
                f"there are no statistics of {name!r}, but of {list(self.first.data_vars)}"
            )
        new = applied(name, obj)
        result = obj.copy(deep=False, data=new.data)
        result.attrs, result.encoding = dict(new.attrs), {}
        return result

    def _applied_to_sources(
        self, tree: xr.DataTree, function: Function, attrs_of: AttrsOf
    ) -> xr.DataTree:
        """A tree with a node for each source, each with the statistics of its own."""
        plain = [name for name in self.first.data_vars if name not in self.others]
        if self.source is None and plain:
            raise ValueError(
                f"it is not known of which source {plain[0]!r} is: in a tree, whose nodes are "
                f"sources, it would be named 'SOURCE/{plain[0]}'"
            )
        found, any_known = {}, False
        for name, node in tree.children.items():
            own, dataset = self.of_source(name, first=name == self.source), node.to_dataset()
            found[name] = dataset
            if own is not None:
                own._require_one_part(dataset)
                if not own.first.data_vars.keys().isdisjoint(dataset.data_vars):
                    found[name], any_known = own._applied(dataset, function, attrs_of), True
        if not any_known:
            raise ValueError(
                f"there are no statistics of any of the nodes {list(tree.children)}: nodes of a "
                f"tree are sources, and there are statistics of {list(self.first.data_vars)}"
            )
        return xr.DataTree.from_dict(found)

    def _require_one_part(self, obj: xr.Dataset) -> None:
        """Raise if a variable has another name because it is in several parts."""
        if "sample" not in obj.coords:
            return
        for name in [name for name in obj.data_vars if name not in self.first.data_vars]:
            base, _, part = str(name).rpartition("_")
            if base in self.first.data_vars and base not in obj:
                raise ValueError(
                    f"{name!r} is the {base!r} of one of several parts: take them one by one, "
                    f"batch.to_xarray({part!r})"
                )

    def _attrs_of_restored(self, name: Hashable, attrs: Mapping[Any, Any]) -> dict[Any, Any]:
        known = self.first[name].attrs
        kept = {key: value for key, value in attrs.items() if (key, value) != ("units", "1")}
        return {**kept, "units": known["units"]} if "units" in known else kept


def _attrs_of_normalized(name: Hashable, attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    kept = {key: value for key, value in attrs.items() if key not in DROPPED_ATTRS}
    return {**kept, "units": "1"} if "units" in kept else kept

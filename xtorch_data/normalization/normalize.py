"""Normalization: mean and standard deviation of the training data, applied, undone and saved."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, TypeVar, overload

import numpy as np
import torch
import xarray as xr

from ..common.redact import printable
from ..samples.batch import Batch
from .files import FIRST, read_statistics, write_statistics
from .of_batches import restored_part
from .scaling import Values, at_places, floating, normalized, restored
from .statistics import Statistics, as_statistics, fitted

__all__ = ["Normalize"]

Object = TypeVar("Object", xr.Dataset, xr.DataArray, xr.DataTree)

# Attributes that do not hold for normalized values, besides the units.
DROPPED_ATTRS = {"valid_min", "valid_max", "valid_range", "actual_range"}
SHOWN_VARIABLES = 20


class Normalize:
    """Subtract the mean and divide by the standard deviation; `inverse` undoes it.

    An object of this class is a function of xarray objects, for `preprocess` (once for each block:
    the faster way), `transform`, `target_transform`, `Compose`, or by itself. `fit` makes one from
    the training data.

    - **Variables** are found by name. A Dataset may have others: they stay as they are, but an
      object with none that is known is an error. A DataArray with a dim ``variable`` is taken apart
      along it. Another one without a name is taken for the only variable there is.
    - **Several sources**: variables of others than the first are named ``"sst/tos"``. As
      ``preprocess``, each source gets the statistics of its own. By itself, such an object takes a
      ``DataTree`` with a node for each source, as ``batch.to_xarray()`` gives; `of` has the
      statistics of one source, for anything else.
    - **Labels**: statistics that keep a dim, such as one mean per level, are found by the
      coordinate of that dim, in whatever order and part it comes. A label without statistics is
      an error.
    - **Dtypes**: float32 stays float32 and float64 float64. Integers become float32.
    - **Constant data**, whose standard deviation is 0, is divided by 1: it becomes 0. Where there
      was no value but NaN, there are no statistics, and all becomes NaN.
    - **Attributes** stay, but for ``units``, which become ``"1"`` and come back with `inverse`, and
      the range of valid values.

    Dask arrays stay lazy, and nothing is changed in place.

    Parameters
    ----------
    mean, std : mapping of Hashable to float or xarray.DataArray, or xarray.Dataset
        Statistics of every variable. A DataArray has an index along each of its dims.

    Attributes
    ----------
    mean, std : xarray.Dataset
        The statistics, float64, with coordinates along the dims that were kept. Of attributes they
        have ``units``, ``long_name`` and ``standard_name``, where these are text.

    Raises
    ------
    ValueError
        If the two do not fit together, a standard deviation is negative, or all that there is of a
        variable is NaN.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xtorch_data as xtd
    >>> t2m = xr.DataArray(np.arange(280.0, 290.0), dims="time", name="t2m", attrs={"units": "K"})
    >>> dataset = xtd.IterableDataset(t2m, input_dims={"time": 2}, input_overlap={"time": 1})
    >>> train, val = xtd.split(dataset, "time", fractions=(0.5, 0.5))
    >>> normalize = xtd.Normalize.fit(train)
    >>> normalize
    <xtorch_data.Normalize
      t2m: mean 282, std 1.41421, in K>
    >>> normalize(t2m).values.round(2)[:3]
    array([-1.41, -0.71,  0.  ])
    """

    mean: xr.Dataset
    std: xr.Dataset
    _untried = True  # values depend on nothing but themselves, at their places

    def __init__(self, mean: Statistics, std: Statistics) -> None:
        self.mean, self.std = as_statistics(mean, "mean"), as_statistics(std, "std")
        if set(self.mean.data_vars) != set(self.std.data_vars) or not self.mean.data_vars:
            raise ValueError(
                f"mean and std must be of the same variables, one or more, not of "
                f"{list(self.mean.data_vars)} and {list(self.std.data_vars)}"
            )
        self.std = self.std[list(self.mean.data_vars)]
        for name, center in self.mean.data_vars.items():
            spread = self.std[name]
            if center.dims != spread.dims or any(
                not center.indexes[dim].equals(spread.indexes[dim]) for dim in center.dims
            ):
                raise ValueError(f"mean and std of {name!r} must have the same dims and labels")
            if (spread.values < 0).any():
                raise ValueError(f"the std of {name!r} is negative")
            for what, each in (("mean", center), ("std", spread)):
                if each.size and np.isnan(each.values).all():
                    raise ValueError(f"the {what} of {name!r} is NaN, and so would all values be")

    @classmethod
    def fit(
        cls,
        dataset: Any,
        *,
        per: Hashable | Iterable[Hashable] = (),
        variables: Iterable[Hashable] | None = None,
        progress: bool | None = None,
    ) -> Normalize:
        """Statistics of the data that a dataset's windows cover, and of nothing else.

        Every value counts once, however many windows it lies in; NaN does not count. Values are
        those which the dataset's `preprocess` makes; `transform` and the others are not applied,
        and a `preprocess` that draws random numbers draws those of epoch 0. Windows that ``where``
        leaves out, or that weigh nothing, do not count; other weights make no difference.

        Each chunk is read once, as far as the dataset's `memory` holds it. What dask has, dask
        computes, and only sums over blocks leave it. They are kept in float64.

        Parameters
        ----------
        dataset : IterableDataset, MapDataset, or what either takes as data
            The training data: a part of a split. Of an xarray or zarr object itself, all is taken.
        per : Hashable or iterable of Hashable
            Dims that are kept: ``"level"`` for one mean and standard deviation per level,
            ``("latitude", "longitude")`` for those of every grid point. Variables that lack such a
            dim do without. Labels are looked up later, so that the dim needs a coordinate.
        variables : iterable of Hashable, optional
            Names of variables of the dataset's parts, as they are after `preprocess`. By default
            all that are floating: integers are often categories.
        progress : bool, optional
            Whether to show how many blocks are done, with tqdm; by default as `set_options` says.

        Returns
        -------
        Normalize
            The statistics. The standard deviation is that of a population (``ddof=0``), as
            `numpy.nanstd` and scikit-learn's ``StandardScaler`` have it.

        Raises
        ------
        ValueError
            If there is no variable, dim or coordinate of a name, a variable has no value but NaN,
            or infinite ones.
        TypeError
            If `dataset` is no data, or a variable does not hold numbers.
        ImportError
            If a bar is wanted and tqdm is missing.
        ReadError
            If data cannot be read, also where the dataset would go on without it.
        """
        mean, std, first = fitted(dataset, per, variables, progress)
        found = cls(mean, std)
        if first is not None:
            found.mean.attrs[FIRST] = found.std.attrs[FIRST] = first
        return found

    def of(self, source: str) -> Normalize:
        """The statistics of one source, where they are of several, by the names it has itself.

        Parameters
        ----------
        source : str
            Name of the source.

        Returns
        -------
        Normalize
            Of its variables alone: such as for ``normalize.of("sst").inverse(prediction)``.

        Raises
        ------
        KeyError
            If there are none of that source.

        Examples
        --------
        >>> import xtorch_data as xtd
        >>> mean, std = {"t2m": 280.0, "sst/tos": 290.0}, {"t2m": 9.0, "sst/tos": 3.0}
        >>> normalize = xtd.Normalize(mean, std)
        >>> normalize.of("sst")
        <xtorch_data.Normalize
          tos: mean 290, std 3>
        """
        found = self._of_source(source, first=source == self._first)
        if found is None:
            others = (str(name).partition("/")[0] for name in self._others)
            sources = list(dict.fromkeys([self._first, *others] if self._first else others))
            raise KeyError(f"there are no statistics of source {source!r}; there are of {sources}")
        return found

    def __call__(self, obj: Object) -> Object:
        """Normalize an xarray object.

        Parameters
        ----------
        obj : xarray.Dataset, xarray.DataArray or xarray.DataTree
            The data.

        Returns
        -------
        xarray.Dataset, xarray.DataArray or xarray.DataTree
            Of the same dims and coordinates.
        """
        return self._apply(obj, normalized, _attrs_of_normalized)

    @overload
    def inverse(self, obj: Object) -> Object: ...
    @overload
    def inverse(self, obj: Batch, part: str) -> torch.Tensor: ...
    def inverse(self, obj: Any, part: str | None = None) -> Any:
        """Bring normalized values back to what they were.

        Also those of a batch: ``normalize.inverse(batch, part="y")``. Of a Dataset, booleans stay,
        which say where values are present.

        Parameters
        ----------
        obj : xarray.Dataset, xarray.DataArray, xarray.DataTree or Batch
            Normalized data, or a prediction of such.
        part : str, optional
            Of a batch, which part: ``normalize.inverse(batch.replace(y=model(x)), part="y")``.

        Returns
        -------
        xarray.Dataset, xarray.DataArray, xarray.DataTree or torch.Tensor
            Of the same dims and coordinates; of a batch a tensor of the same shape and device,
            without a gradient.
        """
        if isinstance(obj, Batch):
            return restored_part(self, obj, part)
        if not isinstance(obj, xr.Dataset):
            return self._apply(obj, restored, self._attrs_of_restored)
        masks = {name: each for name, each in obj.data_vars.items() if each.dtype == bool}
        values = obj.drop_vars(list(masks))
        return obj.assign(self._apply(values, restored, self._attrs_of_restored).data_vars)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the statistics to a file, exactly.

        Parameters
        ----------
        path : str or path
            A name that ends in ``.nc`` for NetCDF, or in ``.json``. An existing file is replaced.

        Raises
        ------
        ValueError
            If the name ends otherwise, or JSON cannot hold the labels.
        """
        write_statistics(path, self.mean, self.std)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Normalize:
        """Read what `save` has written.

        Parameters
        ----------
        path : str or path
            Name of the file.

        Raises
        ------
        ValueError
            If the name ends otherwise, something else is in the file, or what is in it is not
            as `save` writes it; the message names the file and the variable.
        OSError
            If there is no such file.
        """
        mean, std = read_statistics(path)
        try:
            return cls(mean, std)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{printable(path)}: {error}") from error

    @property
    def _first(self) -> str | None:
        """Name of the first of several sources."""
        found: str | None = self.mean.attrs.get(FIRST)
        return found

    @property
    def _others(self) -> list[str]:
        """Names of the variables of other sources."""
        return [name for name in self.mean.data_vars if isinstance(name, str) and "/" in name]

    def _of_source(
        self, source: str, first: bool, variables: Container[Hashable] = ()
    ) -> Normalize | None:
        """The statistics of one of several sources, None where there are none.

        `variables` are those of the first source that is meant, also if their names have a slash.
        """
        begin = f"{source}/"
        names: dict[Hashable, Hashable] = {
            name: name.removeprefix(begin) for name in self._others if name.startswith(begin)
        }
        if first:
            others = {name for name in self._others if name not in variables}
            names.update({name: name for name in self.mean.data_vars if name not in others})
        if not names:
            return None
        found = copy.copy(self)
        found.mean, found.std = (
            xr.Dataset({new: each.variables[name] for name, new in names.items()}, each.coords)
            for each in (self.mean, self.std)
        )
        return found

    @property
    def _normalizes_by(self) -> tuple[xr.Dataset, xr.Dataset] | None:
        """Mean and deviation, for whoever undoes it; None of a subclass that does other things."""
        own = type(self).__call__ is Normalize.__call__
        return (self.mean, self.std.where(self.std != 0, 1.0)) if own else None

    def __repr__(self) -> str:
        lines = []
        for name, mean in list(self.mean.data_vars.items())[:SHOWN_VARIABLES]:
            sizes = ", ".join(f"{printable(dim)}: {size}" for dim, size in mean.sizes.items())
            line = printable(name) + (f" ({sizes})" if sizes else "")
            line += f": mean {_range(mean)}, std {_range(self.std[name])}"
            lines.append(
                line + (f", in {printable(mean.attrs['units'])}" if "units" in mean.attrs else "")
            )
        if len(self.mean.data_vars) > SHOWN_VARIABLES:
            lines.append(f"and {len(self.mean.data_vars) - SHOWN_VARIABLES} more")
        return "<xtorch_data.Normalize" + "".join(f"\n  {line}" for line in lines) + ">"

    def _apply(
        self,
        obj: Object,
        function: Callable[[Values, Values, Values], Values],
        attrs_of: Callable[[Hashable, Mapping[Any, Any]], dict[Any, Any]],
    ) -> Object:
        """An object with a function of values, mean and std applied to all variables known."""
        if isinstance(obj, xr.DataTree):
            return self._apply_to_sources(obj, function, attrs_of)
        if self._first is not None:
            raise ValueError(
                f"these statistics are of several sources, and it is not known of which this "
                f"{type(obj).__name__} is: normalize.of({self._first!r}) has those of one"
            )

        def applied(name: Hashable, array: xr.DataArray) -> xr.Variable:
            variable = array.variable
            if variable.dtype.kind not in "iuf":
                raise TypeError(
                    f"variable {name!r} has dtype {variable.dtype}, not floating or integer numbers"
                )
            mean, std = (
                at_places(each[name].variable, each.indexes, name, array)
                for each in (self.mean, self.std)
            )
            values = function(variable.data, mean, std)
            return xr.Variable(variable.dims, values, attrs_of(name, variable.attrs))

        if isinstance(obj, xr.Dataset):
            known = [name for name in obj.data_vars if name in self.mean.data_vars]
            self._require(known, obj)
            return obj.assign({name: applied(name, obj[name]) for name in known})
        if not isinstance(obj, xr.DataArray):
            raise TypeError(
                "Normalize takes an xarray Dataset, DataArray or DataTree, not "
                f"{type(obj).__name__}"
            )
        name: Hashable = obj.name
        if name is None and len(self.mean.data_vars) == 1:
            (only,) = self.mean.data_vars
            if "variable" not in obj.coords or "variable" in self.mean[only].dims:
                name = only
        if name not in self.mean.data_vars and "variable" in obj.indexes:
            dtype = floating(obj.dtype)
            apart = self._apply(obj.to_dataset("variable"), function, attrs_of)
            together = apart.to_dataarray("variable", name=obj.name).astype(dtype)
            return together.transpose(*obj.dims).assign_attrs(obj.attrs)
        if name not in self.mean.data_vars:
            raise ValueError(
                f"there are no statistics of {name!r}, but of {list(self.mean.data_vars)}"
            )
        new = applied(name, obj)
        result = obj.copy(deep=False, data=new.data)
        result.attrs, result.encoding = dict(new.attrs), {}
        return result

    def _apply_to_sources(
        self,
        tree: xr.DataTree,
        function: Callable[[Values, Values, Values], Values],
        attrs_of: Callable[[Hashable, Mapping[Any, Any]], dict[Any, Any]],
    ) -> xr.DataTree:
        """A tree with a node for each source, each with the statistics of its own."""
        plain = [name for name in self.mean.data_vars if name not in self._others]
        if self._first is None and plain:
            raise ValueError(
                f"it is not known of which source {plain[0]!r} is: in a tree, whose nodes are "
                f"sources, it would be named 'SOURCE/{plain[0]}'"
            )
        found, any_known = {}, False
        for name, node in tree.children.items():
            own, dataset = self._of_source(name, first=name == self._first), node.to_dataset()
            found[name] = dataset
            if own is not None:
                own._require_one_part(dataset)
                if not own.mean.data_vars.keys().isdisjoint(dataset.data_vars):
                    found[name], any_known = own._apply(dataset, function, attrs_of), True
        if not any_known:
            raise ValueError(
                f"there are no statistics of any of the nodes {list(tree.children)}: nodes of a "
                f"tree are sources, and there are statistics of {list(self.mean.data_vars)}"
            )
        return xr.DataTree.from_dict(found)

    def _require(self, known: Sequence[Hashable], obj: xr.Dataset) -> None:
        """Raise if an object has no variable that is known, or one under another name."""
        self._require_one_part(obj)
        if not known:
            raise ValueError(
                f"there are no statistics of any of {list(obj.data_vars)}, but of "
                f"{list(self.mean.data_vars)}"
            )

    def _require_one_part(self, obj: xr.Dataset) -> None:
        """Raise if a variable has another name because it is in several parts."""
        if "sample" not in obj.coords:
            return
        for name in [name for name in obj.data_vars if name not in self.mean.data_vars]:
            base, _, part = str(name).rpartition("_")
            if base in self.mean.data_vars and base not in obj:
                raise ValueError(
                    f"{name!r} is the {base!r} of one of several parts: take them one by one, "
                    f"batch.to_xarray({part!r})"
                )

    def _attrs_of_restored(self, name: Hashable, attrs: Mapping[Any, Any]) -> dict[Any, Any]:
        known = self.mean[name].attrs
        kept = {key: value for key, value in attrs.items() if (key, value) != ("units", "1")}
        return {**kept, "units": known["units"]} if "units" in known else kept


def _attrs_of_normalized(name: Hashable, attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    kept = {key: value for key, value in attrs.items() if key not in DROPPED_ATTRS}
    return {**kept, "units": "1"} if "units" in kept else kept


def _range(values: xr.DataArray) -> str:
    least, most = float(values.min()), float(values.max())
    return f"{least:.6g}" if values.ndim == 0 else f"{least:.6g} to {most:.6g}"

"""Normalization by statistics of the training data: fitted, applied, undone and saved."""

from __future__ import annotations

import copy
from collections.abc import Container, Hashable, Iterable
from os import PathLike
from typing import Any, TypeVar, overload

import numpy as np
import torch
import xarray as xr

from ..common.redact import printable
from ..datasets.fitted_labels import FittedLabels
from ..samples.batch import Batch
from .applying import Scaling
from .files import FIRST, Content, read_statistics, write_statistics
from .kinds import KINDS, KindName, kind_of
from .of_batches import restored_part
from .pages import described, page
from .statistics import Statistics, as_statistics, dates_of, fitted

__all__ = ["Normalize"]

Object = TypeVar("Object", xr.Dataset, xr.DataArray, xr.DataTree)


class Normalize:
    """Subtract an offset and divide by a scale, both of the training data; `inverse` undoes it.

    Of the kind ``"std"`` these are the mean and the standard deviation; of the kind ``"minmax"``
    the smallest value, and the largest less the smallest. An object of this class is a function of
    xarray objects, for `preprocess` (once for each block: the faster way), `transform`,
    `target_transform`, `Compose`, or by itself. `fit` makes one from the training data.

    - **Variables** are found by name. A Dataset may have others: they stay as they are, but an
      object with none that is known is an error. A DataArray with a dim ``variable`` is taken apart
      along it. Another one without a name is taken for the only variable there is.
    - **Several sources**: variables of others than the first are named ``"sst/tos"``. As
      ``preprocess``, each source gets the statistics of its own. By itself, such an object takes a
      ``DataTree`` with a node for each source, as ``batch.to_xarray()`` gives; `of` has the
      statistics of one source, for anything else.
    - **Labels**: statistics that keep a dim, such as one mean per level, are found by the
      coordinate of that dim, in whatever order and part it comes. Those by a part of dates, such as
      one mean per month, are found by the dates that an object has as coordinate, of one dim or
      two: ``time (sample, time)`` of a batch, ``time (init_time, lead_time)`` of a forecast. A
      label without statistics is an error; a value without label, beyond the data, becomes NaN.
    - **Dtypes**: float32 stays float32 and float64 float64. Integers and float16 become float32.
    - **Constant data**, whose scale would be 0, is divided by 1: it becomes 0. Where there was no
      value but NaN, there are no statistics, and all becomes NaN.
    - **Attributes** stay, but for ``units``, which become ``"1"`` and come back with `inverse`, and
      the range of valid values.

    Dask arrays stay lazy, and nothing is changed in place. Statistics remember the labels that they
    were fitted on, which are shown and saved. A dataset that is a part of a split, other than the
    first and the one they were fitted on, warns if it has some of these labels, too: what is
    validated on would have entered the training.

    Parameters
    ----------
    mean, std : mapping of Hashable to float or xarray.DataArray, or xarray.Dataset, optional
        Statistics of every variable. A DataArray has an index along each of its dims.
    min, max : mapping of Hashable to float or xarray.DataArray, or xarray.Dataset, optional
        Those of the kind ``"minmax"``, instead of `mean` and `std`.
    per : str or iterable of str, optional
        Which dims of statistics given are parts of dates: ``"time.month"`` if their dim ``month``
        is the month of ``time``, as ``ds.groupby("time.month").mean()`` has it. Those that `fit`
        finds say so themselves.

    Attributes
    ----------
    kind : {"std", "minmax"}
        What statistics there are.
    mean, std : xarray.Dataset
        Those of the kind ``"std"``, float64, with coordinates along the dims that were kept. Of
        attributes they have ``units``, ``long_name`` and ``standard_name``, where these are text.
    min, max : xarray.Dataset
        The same of the kind ``"minmax"``.

    Raises
    ------
    TypeError
        If the two statistics of a kind are not given.
    ValueError
        If they do not fit together, a standard deviation is negative, a maximum less than the
        minimum, or all that there is of a variable is NaN.

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
    >>> xtd.Normalize.fit(train, kind="minmax")(t2m).values[:6]
    array([0.  , 0.25, 0.5 , 0.75, 1.  , 1.25])

    By month, as xarray groups the steps:

    >>> days = xr.date_range("2001-01-01", periods=90)
    >>> sst = xr.DataArray(np.arange(90.0), {"time": days}, name="sst")
    >>> monthly = xtd.Normalize.fit(sst, per="time.month")
    >>> monthly.mean["sst"].values
    array([15. , 44.5, 74. ])
    >>> monthly
    <xtorch_data.Normalize
      sst (month: 3): mean 15 to 74, std 8.07775 to 8.94427
      fitted on time 2001-01-01 to 2001-03-31>
    """

    mean: xr.Dataset
    std: xr.Dataset
    min: xr.Dataset
    max: xr.Dataset
    kind: KindName = "std"
    _fitted_on: FittedLabels = {}
    _untried = True  # values depend on nothing but themselves, at their places

    def __init__(
        self,
        mean: Statistics | None = None,
        std: Statistics | None = None,
        *,
        min: Statistics | None = None,
        max: Statistics | None = None,
        per: Hashable | Iterable[Hashable] = (),
    ) -> None:
        given = {"mean": mean, "std": std, "min": min, "max": max}
        both = {name: each for name, each in given.items() if each is not None}
        kind = next((each for each in KINDS.values() if each.statistics == tuple(both)), None)
        if kind is None:
            raise TypeError(
                f"Normalize takes mean and std, or min= and max=, not {list(both) or 'nothing'}"
            )
        dates, names = dates_of(per), kind.statistics
        first, second = (as_statistics(each, name, dates) for name, each in both.items())
        if set(first.data_vars) != set(second.data_vars) or not first.data_vars:
            raise ValueError(
                f"{names[0]} and {names[1]} must be of the same variables, one or more, not of "
                f"{list(first.data_vars)} and {list(second.data_vars)}"
            )
        second = second[list(first.data_vars)]
        for name, one in first.data_vars.items():
            other = second[name]
            if one.dims != other.dims or any(
                not one.indexes[dim].equals(other.indexes[dim]) for dim in one.dims
            ):
                raise ValueError(
                    f"{names[0]} and {names[1]} of {name!r} must have the same dims and labels"
                )
            _, scale = kind.scaling(one.values, other.values)
            if (scale < 0).any():
                wrong = "negative" if kind.name == "std" else "less than its min"
                raise ValueError(f"the {names[1]} of {name!r} is {wrong}")
            for what, each in zip(names, (one, other), strict=True):
                if each.size and np.isnan(each.values).all():
                    raise ValueError(f"the {what} of {name!r} is NaN, and so would all values be")
        self.kind = kind.name
        setattr(self, names[0], first)
        setattr(self, names[1], second)

    def __getattr__(self, name: str) -> Any:
        if any(name in kind.statistics for kind in KINDS.values()):
            own = " and ".join(KINDS[self.kind].statistics)
            raise AttributeError(f"statistics of kind {self.kind!r} have {own}, and no {name}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @classmethod
    def fit(
        cls,
        dataset: Any,
        *,
        kind: KindName = "std",
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
        kind : {"std", "minmax"}
            What is found: mean and standard deviation, by which values become
            ``(value - mean) / std``; or the smallest and the largest value, by which values become
            ``(value - min) / (max - min)``. In the training data these are from 0 to 1, but for
            rounding; elsewhere they may be below or above, and nothing is cut off.
        per : Hashable or iterable of Hashable
            Dims that are kept: ``"level"`` for one mean and standard deviation per level,
            ``("latitude", "longitude")`` for those of every grid point. Variables that lack such a
            dim do without. Labels are looked up later, so that the dim needs a coordinate.
            Also parts of dates, ``"time.month"``, alone or with dims: ``("latitude",
            "time.month")``. Steps of the same month make a group, as by
            ``ds.groupby("time.month")``, and the statistics have a dim ``month``. Parts are
            ``year``, ``quarter``, ``season``, ``month``, ``day``, ``dayofyear``, ``dayofweek``,
            ``weekday``, ``hour``, ``minute`` and ``second``, of any coordinate with one dim and
            dates, those of cftime as well.
        variables : iterable of Hashable, optional
            Names of variables of the dataset's parts, as they are after `preprocess`. By default
            all that are floating: integers are often categories.
        progress : bool, optional
            Whether to show how many blocks are done, with tqdm; by default as `set_options` says.

        Returns
        -------
        Normalize
            The statistics. The standard deviation is that of a population (``ddof=0``), as
            `numpy.nanstd` and scikit-learn's ``StandardScaler`` have it; minimum and maximum are
            those of `numpy.nanmin` and `numpy.nanmax`, as in its ``MinMaxScaler``.

        Raises
        ------
        ValueError
            If there is no such kind; no variable, dim or coordinate of a name; dates are none, or
            missing (NaT); windows lie around events, and statistics are by parts of dates; a
            variable has no value but NaN, or infinite ones.
        TypeError
            If `dataset` is no data, or a variable does not hold numbers.
        ImportError
            If a bar is wanted and tqdm is missing.
        ReadError
            If data cannot be read, also where the dataset would go on without it.
        """
        which = kind_of(kind)
        result = fitted(dataset, which, per, variables, progress)
        found = cls(**dict(zip(which.statistics, result.statistics, strict=True)))
        if result.source is not None:
            for name in which.statistics:
                getattr(found, name).attrs[FIRST] = result.source
        found._fitted_on = result.labels
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
        return self._with(self._scaling.own(source))

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
        return self._scaling.normalized(obj)

    @overload
    def inverse(self, obj: Object) -> Object: ...
    @overload
    def inverse(self, obj: Batch, part: str) -> torch.Tensor: ...
    def inverse(self, obj: Any, part: str | None = None) -> Any:
        """Bring normalized values back to what they were.

        Also those of a batch: ``normalize.inverse(batch, part="y")``, on the device where they are.
        Of a Dataset, booleans stay, which say where values are present.

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
            return restored_part(self._scaling, obj, part)
        return self._scaling.restored(obj)

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
        own = self._scaling
        write_statistics(path, Content(own.kind, own.first, own.second, self._fitted_on))

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
        content = read_statistics(path)
        both = (content.first, content.second)
        try:
            found = cls(**dict(zip(content.kind.statistics, both, strict=True)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{printable(path)}: {error}") from error
        found._fitted_on = content.fitted_on
        return found

    @property
    def _scaling(self) -> Scaling:
        """The statistics as they are now, to be applied."""
        kind = KINDS[self.kind]
        first, second = (getattr(self, name) for name in kind.statistics)
        return Scaling(kind, first, second)

    @property
    def _variables(self) -> list[Hashable]:
        """Names of the variables of which there are statistics."""
        return list(self._scaling.first.data_vars)

    def _of_source(
        self, source: str, first: bool, variables: Container[Hashable] = ()
    ) -> Normalize | None:
        """The statistics of one of several sources, None where there are none; see `Scaling`."""
        found = self._scaling.of_source(source, first, variables)
        return None if found is None else self._with(found)

    def _with(self, scaling: Scaling) -> Normalize:
        """The same with other statistics of its kind."""
        found = copy.copy(self)
        for name, each in zip(
            scaling.kind.statistics, (scaling.first, scaling.second), strict=True
        ):
            setattr(found, name, each)
        return found

    @property
    def _normalizes_by(self) -> tuple[xr.Dataset, xr.Dataset] | None:
        """Offset and scale, for whoever undoes it; None of a subclass that does other things."""
        if type(self).__call__ is not Normalize.__call__:
            return None
        return self._scaling.offset_and_scale

    def __repr__(self) -> str:
        return described(self._scaling, self._fitted_on)

    def _repr_html_(self) -> str:
        return page(self._scaling, self._fitted_on, repr(self))

"""A batch: tensors, and the numbers of their samples."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from ..common.redact import printable
from .batch_tensors import Tensors
from .draws import Draws
from .label_events import with_events
from .labels import BoolArray, Labels
from .part_labels import PartLabels, require_samples, with_dims
from .plot_batch import SampleArray, plot_samples, sample_arrays
from .plot_truth import plot_truth, truth_of
from .tensors import as_numpy, moved, packed, sent, unpacked
from .transport import between_processes

__all__ = ["Batch"]

# Attributes that a batch has beside those of its class: no part can have these names.
ATTRIBUTES = ("index", "skipped")


class Batch(Tensors):
    """Tensors of some samples, batch first, which know where they come from.

    A batch unpacks into its parts, ``x, y = batch`` (``x, = batch`` without targets), in the order
    in which they were asked for. Parts are also attributes and items: ``batch.x``, ``batch["x"]``.

    Attributes
    ----------
    index : torch.Tensor
        Sample numbers, int64, shape ``(sample,)``, always on the CPU. For a single sample without
        the batch dimension it is 0-d.
    skipped : tuple of int
        Numbers of samples that belong here but could not be read, with ``on_error="skip"``.
    repeated : torch.Tensor
        Whether each sample comes in another place as well, so that metrics leave it out: bool,
        shape ``(sample,)``, always on the CPU.
    """

    # Neither a Sequence nor a tuple: torch would take those apart and rebuild them without labels.

    def __init__(
        self,
        parts: Mapping[str, torch.Tensor],
        index: torch.Tensor,
        part_labels: Mapping[str, PartLabels],
        labels: Labels | None,
        skipped: Sequence[int] = (),
        repeated: torch.Tensor | None = None,
        draws: Draws | None = None,
        flipped: Mapping[Hashable, BoolArray] | None = None,
    ) -> None:
        self._parts = dict(parts)
        self._part_labels = dict(part_labels)
        self._labels = labels
        self.index = index
        self.skipped = tuple(skipped)
        self._repeated = repeated  # None where no sample is
        self._draws = Draws() if draws is None else draws
        # By dim: for each sample, whether its tensors run backwards along it.
        self._flipped = dict(flipped or {})
        # Of a batch that is made on a device: what to wait for before it is used.
        self._arrival: Any = None

    def __getstate__(self) -> dict[str, Any]:
        parts = {name: packed(part) for name, part in self._parts.items()}
        return {**self.__dict__, "_parts": parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        parts = {name: unpacked(part) for name, part in state["_parts"].items()}
        self.__dict__.update(state, _parts=parts)

    @property
    def repeated(self) -> torch.Tensor:
        """Samples that come in another place of the epoch as well, which metrics leave out.

        Bool, shape ``(sample,)``, 0-d for a single sample, always on the CPU: those that
        ``uneven="pad"`` gives a rank so that all have as many, and with ``on_error="skip"`` the
        one that stands in for a batch of which nothing could be read. All ranks together have each
        sample of the epoch once where this is False. On one rank no sample is padded; that
        `weights` draw a sample twice is no repetition; and what a sampler repeats, nobody knows.

        Examples
        --------
        >>> import numpy as np, xarray as xr
        >>> from xtorch_data import IterableDataset
        >>> t2m = xr.DataArray(np.arange(3.0), dims="time", name="t2m")
        >>> last = IterableDataset(t2m, {"time": 1}, batch_size=2, rank=1, world_size=2)
        >>> for batch in last:
        ...     batch.index, batch.repeated, batch.x[~batch.repeated]
        (tensor([2, 0]), tensor([False,  True]), tensor([[2.]]))
        """
        if self._repeated is None:
            self._repeated = torch.zeros(self.index.shape, dtype=torch.bool, device="cpu")
        return self._repeated

    @property
    def origin(self) -> str | None:
        """Name of the dataset that the batch is of, in a mixture (`mix`); else None."""
        return None if self._labels is None else self._labels.origin

    def keys(self) -> list[str]:
        """Names of the parts."""
        return list(self._parts)

    def replace(
        self, *, dims: Mapping[str, Sequence[Hashable]] | None = None, **parts: torch.Tensor
    ) -> Batch:
        """A batch with the same samples and labels, but other values.

        Parameters
        ----------
        dims : mapping of str to sequence of Hashable, optional
            By part, names of the dims of a new tensor that has others than the one it replaces,
            ``{"y": ("sample", "member", "time", "x")}``. They begin as those of the part do, with
            ``"sample"`` and, where variables are stacked, ``"variable"``; ``...`` stands for those
            that are not named. Dims that the data does not have are labeled by nothing.
        **parts : torch.Tensor
            New tensors by part, of as many samples. To be labeled by `to_xarray` they must have
            the shape of the tensors that they replace, or their `dims` be given.

        Raises
        ------
        KeyError, TypeError, ValueError
            If there is no such part, or what is given is no tensor of these samples, or `dims` do
            not fit it.

        Examples
        --------
        Predictions go back to xarray in place of the targets, also with a dim more::

            batch.replace(y=model(batch.x)).to_xarray("y")
            batch.replace(y=members, dims={"y": ("sample", "member", ...)}).to_xarray("y")
        """
        for name, tensor in parts.items():
            self[name]
            require_samples(name, tensor, self.index)
        labels = with_dims(self._part_labels, dims or {}, parts, self.index.ndim)
        return self._with({**self._parts, **parts}, labels)

    def dims(self, part: str) -> tuple[Hashable, ...]:
        """Names of the dims of a part's tensor, in their order.

        Parameters
        ----------
        part : str
            Name of the part.

        Returns
        -------
        tuple of Hashable
            ``"sample"``, ``"variable"`` where variables are stacked, then the dims of a sample, as
            ``to_xarray(part)`` has them. Of a dim that is made of several, as an item of an
            ``xbatcher.BatchGenerator`` may have, a tuple of their names.

        Raises
        ------
        KeyError
            If there is no such part.
        ValueError
            If a tensor given to `replace` has another number of dims.

        Examples
        --------
        >>> import numpy as np, xarray as xr, xtorch_data as xtd
        >>> t2m = xr.DataArray(np.zeros((10, 4)), dims=("time", "x"), name="t2m")
        >>> samples = xtd.MapDataset(t2m, {"time": 5, "x": 2}, inputs=["t2m"])
        >>> samples.fetch([0, 1]).dims("x")
        ('sample', 'variable', 'time', 'x')
        """
        tensor, names = self[part], self._part_labels[part].names(self.index.ndim)
        if len(names) != tensor.ndim:
            raise ValueError(
                f"part {part!r} has shape {tuple(tensor.shape)}, which does not fit its dims "
                f"({', '.join(map(printable, names))})"
            )
        return names

    def uniform(self, n: int) -> torch.Tensor:
        """Random numbers for each sample, such as to augment it by.

        They depend on the seed of the dataset, the epoch, the number of the sample (`index`) and on
        how often it was asked for some before: in the first call, for this batch and those made of
        it, others come than in the second. The batch size, the order, workers, ranks and the device
        make no difference. A sample that is in a batch twice gets the same numbers twice. A batch
        from `MapDataset.fetch` has the seed 0.

        Parameters
        ----------
        n : int
            How many for each sample, 1 or more. With more, the first ones are the same.

        Returns
        -------
        torch.Tensor
            Float32 numbers in [0, 1), multiples of 2**-24, of shape ``(sample, n)``, or ``(n,)``
            for a single sample without the batch dimension; on the device of the first part.

        Raises
        ------
        TypeError, ValueError
            If `n` is not an integer, or less than 1.

        Examples
        --------
        Each sample a little brighter or darker::

            def brighten(batch):
                factor = 0.9 + 0.2 * batch.uniform(1)
                return batch.replace(x=batch.x * factor[:, :, None, None])
        """
        return sent(self._draws.uniform(self.index.numpy(), n), next(iter(self)).device)

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from which copies to a GPU need not be waited for."""
        return self._with({name: tensor.pin_memory() for name, tensor in self._parts.items()})

    def to(
        self,
        device: Any,
        non_blocking: bool = False,
        memory_format: torch.memory_format = torch.preserve_format,
    ) -> Batch:
        """The batch on a device; `index` and labels stay on the CPU.

        Parameters
        ----------
        device : torch.device or str
            Where the tensors go.
        non_blocking : bool
            Whether a copy from pinned memory to a GPU may go on in the background.
        memory_format : torch.memory_format
            How the tensors lie there. ``torch.channels_last`` is for those with four dims,
            ``torch.channels_last_3d`` for those with five; others stay as they are.
        """
        return self._with(
            {
                name: moved(tensor, device, non_blocking, memory_format)
                for name, tensor in self._parts.items()
            }
        )

    def _with(
        self,
        parts: Mapping[str, torch.Tensor],
        part_labels: Mapping[str, PartLabels] | None = None,
        flipped: Mapping[Hashable, BoolArray] | None = None,
    ) -> Batch:
        """The same samples with other tensors; labels stay as they are if none are given."""
        return Batch(
            parts,
            self.index,
            self._part_labels if part_labels is None else part_labels,
            self._labels,
            self.skipped,
            self._repeated,
            self._draws,
            self._flipped if flipped is None else flipped,
        )

    def to_xarray(
        self, part: str | None = None, *, sample: int | None = None
    ) -> xr.Dataset | xr.DataTree:
        """The batch with its labels.

        Parameters
        ----------
        part : str, optional
            Only this part. By default all parts, side by side.
        sample : int, optional
            Only the sample at this place of the batch, without the dim ``sample`` and with an index
            along each dim, so that `sel` finds labels. After ``to_xarray().isel(sample=i)``, `sel`
            takes labels for positions until ``set_xindex("time")`` makes that index.

        Returns
        -------
        xarray.Dataset
            One data variable per variable, with dims ``(sample, *windowed dims)``. The coordinate
            ``sample`` holds the sample numbers, or, where the data has a dim of that name whose
            places are samples, the labels of these; a coordinate along windowed dims has a value
            for each sample, ``time (sample, time)``, one along another dim is ``(sample,)``. Along
            dims that every sample takes whole there is an index, ``latitude (latitude)``, unless
            `augment` flips them. A variable that stands in several parts is named
            ``{variable}_{part}``, a dim that parts cut differently ``{dim}_{part}``. Of a part
            that goes beyond the anchor along times, other than ``x`` does, ``lead_time`` is the
            label less that of the anchor; where that differs between samples, as of months, steps
            are counted. Values share memory with tensors on the CPU.

        Raises
        ------
        KeyError
            If there is no such part.
        IndexError
            If there is no such sample.
        ValueError
            If a tensor given to `replace` has another shape than the one it replaced.
        RuntimeError
            If the batch came from another process and the dataset is not in this one.

        Examples
        --------
        >>> import numpy as np, xarray as xr, xtorch_data as xtd
        >>> t2m = xr.DataArray(np.zeros((10, 4)), dims=("time", "y"), name="t2m")
        >>> t2m = t2m.assign_coords(time=xr.date_range("2020-01-01", periods=10), y=[4, 3, 2, 1])
        >>> samples = xtd.MapDataset(
        ...     t2m, {"time": 3, "y": -1}, inputs=xtd.Select("t2m", time=slice(0, 2)),
        ...     targets=xtd.Select("t2m", time=2),
        ... )
        >>> batch = samples.fetch([0, 1])
        >>> batch.to_xarray("x")["time"].dims, batch.to_xarray("x")["y"].dims
        (('sample', 'time'), ('y',))
        >>> batch.to_xarray("x", sample=1).sel(time="2020-01-05", y=2)["t2m"].shape
        ()
        >>> batch.to_xarray("y")["lead_time"].values.astype("timedelta64[h]")
        np.timedelta64(24,'h')
        """
        if sample is not None:
            return self._sample(sample).to_xarray(part)
        if self._labels is None:
            raise RuntimeError(
                "this batch has lost its labels: it was sent from another process, and the "
                "dataset it came from no longer exists in this one"
            )
        names = self.keys() if part is None else [part]
        arrays = {name: (as_numpy(self[name]), self._part_labels[name]) for name in names}
        found = self._labels.to_datasets(arrays, self.index.numpy(), self._flipped)
        if self._labels.events is not None:
            return with_events(found, self._labels, self.index.numpy(), single=part is not None)
        if part is not None or not self._labels.others:
            return next(iter(found.values()))
        return xr.DataTree.from_dict(found)

    def _arrays(self) -> list[SampleArray]:
        """The variables of a single sample, to be drawn."""
        arrays = {
            name: (as_numpy(tensor), self._part_labels[name])
            for name, tensor in self._parts.items()
        }
        return sample_arrays(arrays, self._labels, int(self.index), self._flipped)

    def _sample(self, place: int) -> Batch:
        """The sample at a place of the batch, alone; IndexError if there is none."""
        place, count = operator.index(place), self.index.numel()
        if not -count <= place < count:
            raise IndexError(f"there is no sample {place} in a batch of {count}")
        if not self.index.ndim:
            return self
        return Batch(
            {name: tensor[place] for name, tensor in self._parts.items()},
            self.index[place],
            self._part_labels,
            self._labels,
            repeated=self.repeated[place],
            draws=self._draws,
            flipped={dim: flags[place] for dim, flags in self._flipped.items()},
        )

    def plot(
        self,
        sample: int | Sequence[int] = 0,
        *,
        variables: Hashable | Iterable[Hashable] | None = None,
        dims: Hashable | Sequence[Hashable] | None = None,
        isel: Mapping[Any, int] | None = None,
        truth: Batch | torch.Tensor | None = None,
        part: str = "y",
        axes: Any = None,
        figsize: tuple[float, float] | None = None,
        **kwargs: Any,
    ) -> np.ndarray[Any, Any]:
        """Draw samples: a map of each variable that has two dims, a series of others.

        Parts stand side by side, inputs before targets. The title says which part, variable and
        sample it is, the time and the place. A variable has the same colors, or the same range of
        values, wherever it is drawn. Where there is no value, maps are gray. Needs matplotlib,
        which the extra ``plot`` installs.

        Parameters
        ----------
        sample : int or sequence of int
            Places in the batch, from 0 on or negative; each is a row.
        variables : Hashable or iterable of Hashable, optional
            Names of those to draw; all, but not more than a dozen, by default.
        dims : Hashable or sequence of Hashable, optional
            One dim for series, or two for maps, (y, x). By default the last two that are neither
            time nor height, else the last two that there are, of those with more than one step.
        isel : mapping of Hashable to int, optional
            Which step is drawn along dims of a sample that are not; the first by default.
        truth : Batch or torch.Tensor, optional
            What a part should be, to which the batch has a prediction: a batch of the same samples,
            or a tensor like that part. Then a row is drawn for each variable of the part in each
            sample: maps of the input of the same name, if there is one, of the prediction, the
            truth, and the difference of both in colors around 0; or lines of these, and the
            difference below. Six variables by default.
        part : str
            The part that is predicted, where there is a `truth`.
        axes : matplotlib.axes.Axes or array_like of these, optional
            Where to draw, as many as there are samples times variables; a new figure by default.
        figsize : tuple of float, optional
            Width and height of a new figure, in inches.
        **kwargs
            Passed on to `xarray.DataArray.plot.pcolormesh` or `xarray.DataArray.plot.line`.

        Returns
        -------
        numpy.ndarray of matplotlib.axes.Axes
            Shape ``(sample, variable)``; ``axes[0, 0].figure`` is the figure. With a `truth`,
            a row for each variable of each sample, with None where it has fewer panels than others.

        Raises
        ------
        IndexError
            If there is no such sample.
        ValueError
            If there is no such variable or dim, or `axes` are not as many as are needed; or `truth`
            is of other samples, or of another shape.
        KeyError, TypeError
            If there is no such `part`, or `truth` is neither a batch nor a tensor.
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        A prediction beside its target::

            batch.replace(y=model(batch.x)).plot(truth=batch)
        """
        if not (places := [sample] if isinstance(sample, int | np.integer) else list(sample)):
            raise ValueError("sample is empty: there is nothing to draw")
        samples = [self._sample(place)._arrays() for place in places]
        how: dict[str, Any] = {
            "variables": variables,
            "dims": dims,
            "isel": isel,
            "axes": axes,
            "figsize": figsize,
            "kwargs": kwargs,
        }
        if truth is None:
            return plot_samples(samples, list(self._parts), **how)
        other = truth_of(self, truth, part)
        return plot_truth(
            samples, [other._sample(place)._arrays() for place in places], part, **how
        )


between_processes(Batch)

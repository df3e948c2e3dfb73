"""A batch: tensors, and the numbers of their samples."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
import xarray as xr

from ..common import html
from ..common.redact import printable
from ..common.text import format_bytes, number_of, shape_of
from ..planning.windows import Windows
from ..processes.internals import collate_with
from ..processes.shared_memory import shareable
from .labels import Labels, PartLabels
from .plot_batch import SampleArray, plot_samples

__all__ = ["Batch"]

# Attributes that a batch has beside those of its class: no part can have these names.
ATTRIBUTES = ("index", "skipped")
# Dims of the tensors that these are for.
DIMS_OF_FORMAT = {torch.channels_last: 4, torch.channels_last_3d: 5}
# Of these, torch's tensors cannot be pickled (2.13): they go as integers of the same size.
UNSIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
# Sample numbers that are listed.
SHOWN_NUMBERS = 12


class Batch:
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
    ) -> None:
        self._parts = dict(parts)
        self._part_labels = dict(part_labels)
        self._labels = labels
        self.index = index
        self.skipped = tuple(skipped)
        self._repeated = repeated  # None where no sample is
        # Of a batch that is made on a device: what to wait for before it is used.
        self._arrival: Any = None

    def __getstate__(self) -> dict[str, Any]:
        parts = {
            name: (part.view(UNSIGNED[part.dtype]), part.dtype) if part.dtype in UNSIGNED else part
            for name, part in self._parts.items()
        }
        return {**self.__dict__, "_parts": parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name, part in state["_parts"].items():
            self._parts[name] = part[0].view(part[1]) if isinstance(part, tuple) else part

    def __getattr__(self, name: str) -> torch.Tensor:
        parts = self.__dict__.get("_parts", {})
        if name in parts:
            return parts[name]  # type: ignore[no-any-return]
        raise AttributeError(f"this batch has no part {name!r}; its parts are {list(parts)}")

    def __getitem__(self, name: str) -> torch.Tensor:
        try:
            return self._parts[name]
        except (KeyError, TypeError):
            first = next(iter(self._parts), "x")
            samples = isinstance(name, int) and self.index.ndim
            raise KeyError(
                f"this batch has no part {name!r}; its parts are {list(self._parts)}: "
                f"batch.{first} or batch[{first!r}]"
                + (f", and of one sample batch.{first}[{name}]" if samples else "")
            ) from None

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self._parts.values())

    def __len__(self) -> int:
        if self.index.ndim == 0:
            raise TypeError("a single sample has no length: the dataset has batch_size=None")
        return len(self.index)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._parts]

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{printable(name)}: {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
            + (f" on {tensor.device}" if tensor.device.type != "cpu" else "")
            for name, tensor in self._parts.items()
        )
        what = "one sample" if self.index.ndim == 0 else number_of(len(self), "sample")
        return f"<Batch of {what} ({parts})>"

    def _repr_html_(self) -> str:
        # Where CUDA is not in use there is no pinned memory, and to ask would begin to use it.
        begun = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        rows = []
        for name, tensor in self._parts.items():
            labels = self._part_labels[name]
            dims = ["sample"] * self.index.ndim + ["variable"] * labels.stacked + [*labels.dims]
            pinned = begun and tensor.is_pinned()
            rows.append(
                (
                    name,
                    ", ".join(map(printable, labels.variables)),
                    shape_of(tensor.shape, dims),
                    str(tensor.dtype).removeprefix("torch."),
                    f"{tensor.device}{', pinned' * pinned}",
                    format_bytes(tensor.nbytes),
                )
            )
        names = ("part", "variables", "shape", "dtype", "device", "bytes")
        numbers = self.index.reshape(-1)
        shown = ", ".join(map(str, numbers[:SHOWN_NUMBERS].tolist()))
        facts = [("samples", shown + ", …" * (len(numbers) > SHOWN_NUMBERS))]
        if self.skipped:
            skipped = ", ".join(map(str, self.skipped[:SHOWN_NUMBERS]))
            facts.append(("skipped", skipped + ", …" * (len(self.skipped) > SHOWN_NUMBERS)))
        parts = [
            html.facts(facts),
            html.section("Parts", ", ".join(self._parts), html.table(names, rows), opened=True),
        ]
        if self._labels is not None and len(numbers):
            windows, ends = self._labels.labelled, {"first sample": 0, "last sample": -1}
            found = [windows.ranges(int(numbers[place])) for place in ends.values()]
            coords = [(name, *(each[name] for each in found)) for name in found[0]]
            table = html.table(("coordinate", *ends), coords)
            parts.append(html.section("Coordinates", f"{len(coords):,}", table, opened=True))
        what = "one sample" if self.index.ndim == 0 else number_of(len(self), "sample")
        return html.page("xtorch_data.Batch", what, parts, repr(self))

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

    def keys(self) -> list[str]:
        """Names of the parts."""
        return list(self._parts)

    def replace(self, **parts: torch.Tensor) -> Batch:
        """A batch with the same samples and labels, but other values.

        Parameters
        ----------
        **parts : torch.Tensor
            New tensors by part, of as many samples. To be labeled by `to_xarray` they must have
            the shape of the tensors that they replace.

        Raises
        ------
        KeyError, TypeError, ValueError
            If there is no such part, or what is given is no tensor of these samples.

        Examples
        --------
        Predictions go back to xarray in place of the targets::

            batch.replace(y=model(batch.x)).to_xarray("y")
        """
        for name, tensor in parts.items():
            self[name]
            if not isinstance(tensor, torch.Tensor):
                raise TypeError(f"part {name!r} must be a tensor, not {type(tensor).__name__}")
            if self.index.ndim and tensor.shape[:1] != self.index.shape:
                raise ValueError(
                    f"part {name!r} must have the {number_of(len(self), 'sample')} of this batch "
                    f"along its first dim, but has shape {tuple(tensor.shape)}"
                )
        return self._with({**self._parts, **parts})

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
        dims = DIMS_OF_FORMAT.get(memory_format)
        moved = {
            name: tensor.to(
                device,
                non_blocking=non_blocking,
                memory_format=memory_format
                if dims in (None, tensor.ndim)
                else torch.preserve_format,
            )
            for name, tensor in self._parts.items()
        }
        return self._with(moved)

    def _with(self, parts: Mapping[str, torch.Tensor]) -> Batch:
        """The same samples and labels with other tensors."""
        known = self._part_labels, self._labels, self.skipped, self._repeated
        return Batch(parts, self.index, *known)

    def to_xarray(self, part: str | None = None) -> xr.Dataset:
        """The batch with its labels.

        Parameters
        ----------
        part : str, optional
            Only this part. By default all parts, side by side.

        Returns
        -------
        xarray.Dataset
            One data variable per variable, with dims ``(sample, *windowed dims)``. The coordinate
            ``sample`` holds the sample numbers, or, where the data has a dim of that name whose
            places are samples, the labels of these; a coordinate along windowed dims has a value
            for each sample, ``time (sample, time)``, one along another dim is ``(sample,)``. A
            variable that stands in several parts is named ``{variable}_{part}``, a dim that parts
            cut differently ``{dim}_{part}``. Values share memory with tensors on the CPU.

        Raises
        ------
        KeyError
            If there is no such part.
        ValueError
            If a tensor given to `replace` has another shape than the one it replaced.
        RuntimeError
            If the batch came from another process and the dataset is not in this one.
        """
        if self._labels is None:
            raise RuntimeError(
                "this batch has lost its labels: it was sent from another process, and the "
                "dataset it came from no longer exists in this one"
            )
        names = list(self._parts) if part is None else [part]
        arrays = {}
        for name in names:
            array = as_numpy(self[name])
            labels = self._part_labels[name]
            lead = self.index.ndim + labels.stacked
            if (
                array.ndim != lead + labels.axes
                or array.shape[: self.index.ndim] != tuple(self.index.shape)
                or (labels.stacked and array.shape[lead - 1] != len(labels.variables))
            ):
                sizes = ["sample"] * self.index.ndim
                sizes += [f"{len(labels.variables)} variables"] * labels.stacked
                expected = ", ".join([*sizes, *map(printable, labels.dims)])
                raise ValueError(
                    f"part {name!r} has shape {array.shape}, which does not fit its labels "
                    f"({expected})"
                )
            arrays[name] = (array, labels)
        return self._labels.to_dataset(arrays, self.index.numpy(), suffixes=len(names) > 1)

    def plot(
        self,
        sample: int | Sequence[int] = 0,
        *,
        variables: Hashable | Iterable[Hashable] | None = None,
        dims: Hashable | Sequence[Hashable] | None = None,
        isel: Mapping[Any, int] | None = None,
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
        axes : matplotlib.axes.Axes or array_like of these, optional
            Where to draw, as many as there are samples times variables; a new figure by default.
        figsize : tuple of float, optional
            Width and height of a new figure, in inches.
        **kwargs
            Passed on to `xarray.DataArray.plot.pcolormesh` or `xarray.DataArray.plot.line`.

        Returns
        -------
        numpy.ndarray of matplotlib.axes.Axes
            Shape ``(sample, variable)``; ``axes[0, 0].figure`` is the figure.

        Raises
        ------
        IndexError
            If there is no such sample.
        ValueError
            If there is no such variable or dim, or `axes` are not as many as are needed.
        ImportError
            If matplotlib is not installed.
        """
        numbers = self.index.reshape(-1).tolist()
        rows = []
        for place in [sample] if isinstance(sample, int | np.integer) else sample:
            if not -len(numbers) <= place < len(numbers):
                raise IndexError(f"there is no sample {place} in a batch of {len(numbers)}")
            rows.append(self._sample_arrays(int(place) % len(numbers)))
        if not rows:
            raise ValueError("sample is empty: there is nothing to draw")
        return plot_samples(
            rows,
            list(self._parts),
            variables=variables,
            dims=dims,
            isel=isel,
            axes=axes,
            figsize=figsize,
            kwargs=kwargs,
        )

    def _sample_arrays(self, place: int) -> list[SampleArray]:
        """The variables of one sample, with as many labels as there are."""
        number, where = int(self.index.reshape(-1)[place]), {}
        if self._labels is not None:
            region = self._labels.labelled[number]
            where = {dim: at for dim, at in region.items() if not isinstance(at, slice)}
        found = []
        for part, tensor in self._parts.items():
            array = as_numpy(tensor[place] if self.index.ndim else tensor)
            dataset = self._labeled(part, array, number)
            found += [SampleArray(part, each, number, where) for each in dataset.data_vars.values()]
        return found

    def _labeled(self, part: str, array: np.ndarray[Any, Any], number: int) -> xr.Dataset:
        """A part of one sample; where its shape is not that of its labels, without these."""
        labels = self._part_labels[part]
        if (
            array.ndim != labels.stacked + labels.axes
            or (labels.stacked and len(array) != len(labels.variables))
            or (
                labels.unflattened
                and math.prod(labels.unflattened) != math.prod(array.shape[labels.stacked :])
            )
        ):
            return xr.Dataset({part: ([f"dim_{place}" for place in range(array.ndim)], array)})
        known = self._labels or Labels(Windows.of(()), xr.Dataset(), {})
        return known.to_dataset({part: (array, labels)}, np.array(number), suffixes=False)


def as_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """A tensor as an array, from wherever it is; bfloat16 becomes float32."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor.numpy()


def _collate(samples: list[Batch], *, collate_fn_map: Any = None) -> Batch:
    """Stack single samples: what ``DataLoader(dataset, batch_size=…)`` of torch calls."""
    first = samples[0]
    if first.index.ndim:
        raise TypeError(
            "these are batches already: give the torch DataLoader batch_size=None, or the dataset "
            "batch_size=None for single samples"
        )
    parts = {name: torch.stack([sample[name] for sample in samples]) for name in first.keys()}
    index = torch.stack([sample.index for sample in samples])
    skipped = [number for sample in samples for number in sample.skipped]
    repeated = None
    if any(sample._repeated is not None for sample in samples):
        repeated = torch.stack([sample.repeated for sample in samples])
    return Batch(parts, index, first._part_labels, first._labels, skipped, repeated)


def _rebuild(
    parts: dict[str, torch.Tensor],
    index: np.ndarray[Any, Any],
    part_labels: dict[str, PartLabels],
    token: str | None,
    skipped: Sequence[int],
    repeated: np.ndarray[Any, Any] | None,
) -> Batch:
    labels = Labels.find(token) if token is not None else None
    marks = None if repeated is None else torch.from_numpy(repeated)
    return Batch(parts, torch.from_numpy(index), part_labels, labels, skipped, marks)


def _reduce(batch: Batch) -> tuple[Any, ...]:
    token = None if batch._labels is None else batch._labels.token
    parts = {name: shareable(tensor) for name, tensor in batch._parts.items()}
    index = batch.index.numpy()
    repeated = None if batch._repeated is None else batch._repeated.numpy()
    return _rebuild, (parts, index, batch._part_labels, token, batch.skipped, repeated)


collate_with(Batch, _collate)
# Between processes, coordinates stay at home; a batch that is pickled to a file keeps them.
ForkingPickler.register(Batch, _reduce)

"""Augmentation: batches changed at random, as tensors, wherever they are."""

from __future__ import annotations

import itertools
import reprlib
import weakref
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
import xarray as xr

from .batch import Batch
from .definition import SampleDefinition
from .labels import BoolArray, Labels
from .offsets import offset_at, offset_of, require_statistics_alike
from .part_labels import PartLabels
from .tensors import UNSIGNED, sent

__all__ = ["RandomFlip"]

# By variable: what `offset_of` gives.
Offsets: TypeAlias = dict[Hashable, xr.Variable | None]


class RandomFlip:
    """Flips samples along dims, each with a certain probability; for `augment` of `DataLoader`.

    A function of a `Batch` that returns another one. For each sample and each dim a coin is tossed,
    whose side depends on the seed of the dataset, the epoch and the sample alone
    (`Batch.uniform`). A sample is turned as a whole: all its tensors that have the dim, those of
    masks as well as of values. Labels go along: `Batch.to_xarray` tells where each value was.

    Components of vectors change their sign in a mirror: the northward wind if the latitude is
    flipped. `signs` names them, and they change it in all parts. Where `preprocess` or another
    function of the dataset is `Normalize`, or `Compose` has it, it is the physical value whose sign
    changes: a normalized one, ``(value - mean) / std``, becomes ``(-value - mean) / std``.

    Parameters
    ----------
    *dims : Hashable
        Dims that samples have, one or more.
    p : float
        Probability of a flip along each dim, from 0 to 1.
    signs : mapping of Hashable to Hashable or list of Hashable, optional
        By variable, the dim, or the dims, whose flips change its sign: ``{"v10": "latitude"}``.
    odd : Hashable or list of Hashable, optional
        Of the variables in `signs`, those that keep their sign, or change it with the value, in
        functions of your own: that give ``-v`` for ``-v``, as another unit does. It takes such a
        promise, since nobody else knows what these functions do.

    Raises
    ------
    ValueError
        If there is no dim, `p` is no probability, or `signs` names other dims. When a loader is
        made: if no part has a dim or a variable; a variable in `signs` was changed by a function
        that is not known, or holds no floating numbers; or `Normalize` has statistics per place of
        a dim to flip, so that values would get to places where other ones hold.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xtorch_data as xtd
    >>> v10 = xr.DataArray(np.arange(6.0).reshape(2, 3), dims=("time", "latitude"), name="v10")
    >>> samples = xtd.MapDataset(v10, input_dims={"latitude": 3})
    >>> flip = RandomFlip("latitude", p=1, signs={"v10": "latitude"})
    >>> flip
    RandomFlip('latitude', p=1.0, signs={'v10': ['latitude']})
    >>> next(iter(xtd.DataLoader(samples, batch_size=2, augment=flip))).x
    tensor([[-2., -1., -0.],
            [-5., -4., -3.]])
    """

    def __init__(
        self,
        *dims: Hashable,
        p: float = 0.5,
        signs: Mapping[Any, Any] | None = None,
        odd: Hashable | Iterable[Hashable] = (),
    ) -> None:
        if not dims:
            raise ValueError("RandomFlip takes the dims to flip along, one or more")
        for dim in dims:
            if not isinstance(dim, Hashable):
                raise TypeError(f"a dim to flip along is given by its name, not as {dim!r}")
            if dims.count(dim) > 1:
                raise ValueError(f"dim {dim!r} is named twice")
        if isinstance(p, bool) or not isinstance(p, float | int | np.floating | np.integer):
            raise TypeError(f"p must be a number from 0 to 1, not {p!r}")
        if not 0 <= p <= 1:
            raise ValueError(f"p must be from 0 to 1, not {p!r}")
        if signs is not None and not isinstance(signs, Mapping):
            raise TypeError(
                f"signs must be a mapping of variables to dims, such as {{'v10': {dims[0]!r}}}, "
                f"not {signs!r}"
            )
        self.dims, self.p = dims, float(p)
        self.signs = {name: _names(given, dims) for name, given in (signs or {}).items()}
        self.odd = _names(odd, self.signs)
        for name, of in self.signs.items():
            if not of:
                raise ValueError(f"signs[{name!r}] names no dim")
            for dim in of:
                if dim not in dims:
                    raise ValueError(
                        f"signs[{name!r}] names dim {dim!r}, along which nothing is flipped: the "
                        f"dims are {list(dims)}"
                    )
        for name in self.odd:
            if name not in self.signs:
                raise ValueError(f"odd names {name!r}, which is not in signs ({[*self.signs]})")
        self._known: weakref.WeakKeyDictionary[Labels, dict[Any, Any]]
        self._known = weakref.WeakKeyDictionary()  # what was worked out for the batches of each

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _known=weakref.WeakKeyDictionary())

    def __repr__(self) -> str:
        facts = [*map(repr, self.dims), f"p={self.p}"]
        if self.signs:
            facts.append(f"signs={self.signs}")
        if self.odd:
            facts.append(f"odd={self.odd}")
        return f"RandomFlip({', '.join(facts)})"

    def _require_fit(self, samples: SampleDefinition) -> None:
        """Raise if the samples of a dataset cannot be flipped so, as far as that is known."""
        known, samples = {}, samples.primary
        for dim in self.dims:
            _require_cuts_alike(dim, samples)
        for part in samples.parts:
            labels = PartLabels.of(part)
            if part.name in samples.transforms or samples.items is not None:
                self._offsets(samples.labels, part.name, labels)
                continue
            known[part.name] = labels
            for name in self.signs if part.takes == "values" else ():
                if name in part.variables and part.dtype.kind not in "fc":
                    raise ValueError(_not_floating(part.name, name, part.dtype))
        if len(known) == len(samples.parts) and samples.batch_transform is None:
            self._require_there(known)
        for part_name, labels in known.items():
            self._offsets(samples.labels, part_name, labels)

    def __call__(self, batch: Batch) -> Batch:
        """A batch with some of its samples flipped.

        Parameters
        ----------
        batch : Batch
            The samples, which stay as they are.

        Returns
        -------
        Batch
            The same samples and labels, in tensors of their own where anything is changed.

        Raises
        ------
        ValueError
            As when a loader is made, or if a tensor does not fit its labels any more.
        RuntimeError
            If the batch has lost its labels, and with them what is known of its values.
        """
        if not isinstance(batch, Batch):
            raise TypeError(
                "RandomFlip flips batches, as augment= of xtorch_data.DataLoader, not "
                f"{type(batch).__name__}"
            )
        labels = batch._labels
        if labels is None:
            raise RuntimeError(
                "this batch has lost its labels, and with them what was done to its values: it was "
                "sent from another process, where its dataset still is"
            )
        self._require_there(batch._part_labels)
        numbers = batch.index.numpy()
        tossed = batch._draws.uniform(numbers, len(self.dims)) < self.p
        flips = {dim: tossed[..., place] for place, dim in enumerate(self.dims)}
        before = batch._flipped
        after = {**before, **{dim: before.get(dim, False) ^ flip for dim, flip in flips.items()}}
        turned = batch._with(batch._parts, flipped=after)
        many = {dim: np.atleast_1d(flip) for dim, flip in flips.items()}
        parts = {}
        for name, tensor in batch._parts.items():
            own = batch._part_labels[name]
            offsets = self._offsets(labels.of_part(own), name, own)
            if not offsets and not set(self.dims) & set(own.dims):
                continue
            own.require_fit(name, tensor.shape, numbers.shape)
            samples = tensor if numbers.ndim else tensor[None]
            flipped = self._flipped(samples, own, many)
            if offsets:
                flipped = self._signed(flipped, samples, turned, name, many, offsets)
            parts[name] = flipped if numbers.ndim else flipped[0]
        return turned._with({**batch._parts, **parts})

    def _require_there(self, parts: Mapping[str, PartLabels]) -> None:
        """Raise if no part has one of the dims, or one of the variables."""
        every = {dim: None for labels in parts.values() for dim in labels.dims}
        for dim in self.dims:
            if dim not in every:
                raise ValueError(
                    f"RandomFlip flips along dim {dim!r}, which no part has: samples have the dims "
                    f"{list(every)}, those in input_dims"
                )
        valued = (labels for labels in parts.values() if not labels.present)
        variables = {name: None for labels in valued for name in labels.variables}
        for name in self.signs:
            if name not in variables:
                raise ValueError(
                    f"signs of RandomFlip name variable {name!r}, which no part has: there are "
                    f"{list(variables)}"
                )

    def _offsets(self, labels: Labels, part: str, own: PartLabels) -> Offsets:
        """Offsets of those variables of a part that may change their signs, where there are any."""
        if own.present:  # which is the same, whatever the sign of a value is
            return {}
        known = self._known.setdefault(labels, {})
        key = (part, own.dims, own.variables)
        if key not in known:
            require_statistics_alike(labels, part, own, self.dims)
            names = [name for name in own.variables if name in self.signs]
            known[key] = {name: offset_of(labels, part, name, name in self.odd) for name in names}
        return known[key]  # type: ignore[no-any-return]

    def _flipped(
        self, samples: torch.Tensor, own: PartLabels, flips: Mapping[Hashable, BoolArray]
    ) -> torch.Tensor:
        """The tensor of a part with samples flipped along those of the dims that it has."""
        names = own.names(1)
        shared = [dim for dim in self.dims if dim in own.dims and dim not in names]
        if shared:
            raise ValueError(
                f"RandomFlip cannot flip along dim {shared[0]!r}: several dims are stacked in one"
            )
        lead = 1 + own.stacked
        axes = {dim: lead + names[lead:].index(dim) for dim in self.dims if dim in own.dims}
        if not any(flips[dim].any() for dim in axes):
            return samples
        signed = UNSIGNED.get(samples.dtype)
        given = samples if signed is None else samples.view(signed)
        out = torch.empty_like(given)
        for sides in itertools.product([False, True], repeat=len(axes)):
            chosen = np.ones(len(samples), dtype=np.bool_)
            for dim, side in zip(axes, sides, strict=True):
                chosen &= flips[dim] == side
            turned = [axis for axis, side in zip(axes.values(), sides, strict=True) if side]
            if chosen.any():
                rows = sent(np.flatnonzero(chosen), samples.device)
                some = given.index_select(0, rows)
                out.index_copy_(0, rows, some.flip(turned) if turned else some)
        return out if signed is None else out.view(samples.dtype)

    def _signed(
        self,
        flipped: torch.Tensor,
        given: torch.Tensor,
        turned: Batch,
        part: str,
        flips: Mapping[Hashable, BoolArray],
        offsets: Offsets,
    ) -> torch.Tensor:
        """The tensor of a part with the signs of its variables changed; never the given one."""
        own = turned._part_labels[part]
        for name, offset in offsets.items():
            if not (flipped.is_floating_point() or flipped.is_complex()):
                raise ValueError(_not_floating(part, name, flipped.dtype))
            changed: BoolArray = np.logical_xor.reduce([flips[dim] for dim in self.signs[name]])
            if not changed.any():
                continue
            if flipped is given:
                flipped = given.clone()
            values = flipped.select(1, own.variables.index(name)) if own.stacked else flipped
            shape = (-1, *[1] * (values.ndim - 1))
            factor = np.where(changed, -1.0, 1.0).astype(np.float32).reshape(shape)
            values.mul_(sent(factor, values.device))
            if offset is not None:
                added = np.where(changed.reshape(shape), offset_at(offset, turned, own), 0.0)
                dtype = np.float64 if values.dtype.itemsize > 4 else np.float32
                values.add_(sent(added.astype(dtype), values.device))
        return flipped


def _names(given: Any, known: Iterable[Hashable] = ()) -> list[Hashable]:
    """One name or several as a list; a tuple that is itself a name is one."""
    if isinstance(given, str) or (isinstance(given, Hashable) and given in [*known]):
        return [given]
    if isinstance(given, Iterable):
        return list(given)
    return [given]


def _not_floating(part: str, name: Hashable, dtype: Any) -> str:
    return (
        f"signs of RandomFlip name variable {name!r}, which is of dtype "
        f"{str(dtype).removeprefix('torch.')} in part {part!r}: only floating values change sign"
    )


def _require_cuts_alike(dim: Hashable, samples: SampleDefinition) -> None:
    """Raise ValueError if parts have cuts of a window that do not lie evenly around one middle.

    Each part is flipped in its own cut, so that others would not lie to each other as before.
    """
    axis = next((axis for axis in samples.windows.axes if axis.dim == dim and axis.windowed), None)
    if axis is None or samples.items is not None:
        return
    steps = {}
    for part in samples.parts:
        if dim in part.dims or dim in part.indexers:
            cut = np.atleast_1d(np.arange(axis.size)[part.indexers.get(dim, slice(None))])
            steps[part.name] = int(cut.min()), int(cut.max())
            if len(set((cut + cut[::-1]).tolist())) > 1:
                raise ValueError(
                    f"RandomFlip cannot flip along dim {dim!r}, of which part {part.name!r} has "
                    f"the steps {reprlib.repr(cut.tolist())}: turned, they would not lie to each "
                    "other as before"
                )
    if len({first + last for first, last in steps.values()}) > 1:
        each = ", ".join(f"{name!r} {first} to {last}" for name, (first, last) in steps.items())
        raise ValueError(
            f"RandomFlip cannot flip along dim {dim!r}, of which parts have other steps, {each} "
            f"of {axis.size}: turned, they would not lie to each other as before"
        )

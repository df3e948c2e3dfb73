"""The layout of a mosaic: which field the samples of a dataset make, and how tensors lie in it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..common.cached import cached_property
from ..common.redact import printable
from ..datasets.what import What
from ..planning.field import Field
from ..planning.index_maps import IndexMap, IntArray
from ..planning.overlap_add import Blend, FieldDim, window_weights
from ..planning.windows import WindowDim
from ..samples.definition import SampleDefinition
from ..samples.field_labels import AnchorLabels, field_coords
from ..samples.select import Part

__all__ = ["MosaicLayout"]

Values = npt.NDArray[Any]
BLENDS = ("mean", "hann")


@dataclass(frozen=True, eq=False)
class MosaicLayout:
    """What a mosaic is of; made by `of`, once for each.

    Attributes
    ----------
    definition : SampleDefinition
        What samples have of the source that the part is of.
    part : Part
        The part of which predictions are.
    field : Field
        Where samples lie, in one tile.
    taken : mapping of Hashable to slice or list of int
        By dim of the part, the steps of a tensor that are laid: those of the core of a window.
    kept : mapping of Hashable to (Hashable, Hashable)
        Names of the two dims in the place of one that is kept.
    samples : ndarray of bool, optional
        Which samples there are, where not all are; shape of the sample axes.
    coords : xarray.Dataset
        Coordinates of the field.
    first : SampleDefinition
        That of the first source, where there are several; else the same.
    """

    definition: SampleDefinition
    part: Part
    field: Field
    taken: Mapping[Hashable, slice | list[int]]
    kept: Mapping[Hashable, tuple[Hashable, Hashable]]
    samples: npt.NDArray[np.bool_] | None
    coords: xr.Dataset
    first: SampleDefinition

    @classmethod
    def of(cls, what: What, part: str, keep: Any, blend: Any) -> MosaicLayout:
        """Check the arguments against the samples of a dataset.

        ValueError or TypeError, naming the dim, if these do not fit.
        """
        first, table = what.definition, what.table
        definition, found = _part(first, part)
        if blend is not None and blend not in BLENDS:
            raise ValueError(f"blend must be one of {list(BLENDS)}, or None, not {blend!r}")
        if found.stacked and "variable" in found.dims:
            raise ValueError(
                f"the variables of part {part!r} lie side by side along 'variable', which is a dim "
                "of the data, too: rename that, or take one variable by its name, not in a list"
            )
        if not what.samples:
            raise ValueError("the dataset has no samples, of which there could be predictions")
        maps = {each.dim: each for each in definition.windows.frame.maps}
        places, shape = _places(maps, first, definition)
        kept = _kept(keep, maps)
        dims, taken = [], {}
        for dim in (order := _order(definition, found)):
            count = shape[places[dim]]
            numbers = np.arange(count)
            if table is not None and maps[dim].terms:
                (axis,) = maps[dim].terms
                numbers = table.along(axis, count)
            steps, own = _laid_steps(definition, found, definition.windows.axis(dim))
            if dim in found.dims:
                taken[dim] = own
            beyond = definition.beyond.get(dim)
            each = FieldDim.of(maps[dim], numbers, steps, beyond, dim in kept)
            if not each.length:
                raise ValueError(
                    f"part {found.name!r} has no step in the data along {dim!r}: those of all "
                    "samples lie beyond its ends"
                )
            dims.append(each)
        field = _blended(dims, [places[dim] for dim in order], shape, blend)
        if blend is None:
            _require_apart(field, first, maps)
        inits = {
            each.dim: AnchorLabels.of(first, definition, maps[each.dim], each)
            for each in dims
            if each.kept
        }
        coords = field_coords(definition.labels, dims, kept, inits)
        samples = None
        if table is not None and not table.values.all():
            sizes = first.windows.shape
            samples = np.asarray(table.full(range(len(sizes)), sizes), dtype=bool).reshape(shape)
        return cls(definition, found, field, taken, kept, samples, coords, first)

    @property
    def dims(self) -> tuple[Hashable, ...]:
        """Names of the dims of the field."""
        found: list[Hashable] = []
        for each in self.field.dims:
            found += self.kept[each.dim] if each.kept else [each.dim]
        return tuple(found)

    @property
    def source(self) -> str | None:
        """The source that the part is of, if it is not the first one."""
        return None if self.definition is self.first else self.definition.source

    @property
    def whole(self) -> bool:
        """Whether the samples of the dataset cover each place."""
        return self.samples is None and self.field.whole

    @property
    def dropped(self) -> list[bool]:
        """For each dim of the field, whether samples lack it."""
        return [each.dim not in self.part.dims for each in self.field.dims]

    def numbers(self, samples: IntArray) -> list[IntArray]:
        """For each dim of the field, the windows of some samples."""
        found = np.unravel_index(samples, self.field.shape)
        return [found[place] for place in self.field.places]

    def names(self, lead: int) -> tuple[Hashable, ...]:
        """Dims of the tensor of the part."""
        return ("sample",) * lead + ("variable",) * self.part.stacked + self.part.dims

    # Tensors.

    def arranged(
        self, values: Values, dims: Sequence[Any] | None, lead: int
    ) -> tuple[Values, dict[Hashable, int]]:
        """An array as ``(sample, variable, *others, *dims of the field)``, halos cut off.

        The others are dims that the part does not have; their names and sizes come as well. `lead`
        is 1 where there is a dim of samples. TypeError or ValueError if the array does not fit.
        """
        if dims is not None:
            dims = self._completed(dims, lead)
        key = dims, values.shape[lead:], lead
        if key not in self._fitting:
            self._fitting[key] = self._fitted(dims, values.shape, lead)
        cut, order, others = self._fitting[key]
        for axis, each in cut:
            values = values[(slice(None),) * axis + (each,)]
        values = values.transpose(order)
        if not lead:
            values = values[None]
        return (values if self.part.stacked else values[:, None]), others

    @cached_property
    def known(self) -> set[str]:
        """Tokens of labels of batches that are of these samples, as was found before."""
        return set()

    @cached_property
    def _fitting(self) -> dict[Any, Any]:
        """What `_fitted` found for shapes and dims that came before."""
        return {}

    def _fitted(
        self, dims: Sequence[Any] | None, shape: tuple[int, ...], lead: int
    ) -> tuple[list[tuple[int, Any]], list[int], dict[Hashable, int]]:
        """How an array is cut along axes, and their order then; and the sizes of other dims."""
        names = self.names(lead) if dims is None else tuple(dims)
        sizes = dict(zip(names, shape, strict=False))
        if len(names) != len(shape):
            ones = [axis for axis, size in enumerate(shape) if size == 1 and axis]
            more = len(shape) == len(names) + 1 and ones
            hint = f", or drop the axis of one, y.squeeze({ones[0]})" if more else ""
            raise ValueError(
                f"y has shape {shape}, which does not fit its dims "
                f"({', '.join(map(printable, names))}); name its own, dims=(…), which of predict "
                f"forward= returns beside y{hint}"
            )
        known = self.names(lead)
        for dim in known:
            if dim not in sizes:
                raise ValueError(
                    f"dims of y lack {dim!r}: they must be those of part {self.part.name!r}, "
                    f"{known}, and may be more"
                )
        others = {dim: sizes[dim] for dim in names if dim not in known}
        for dim in others:
            if dim in self.dims or dim in self.coords.variables or dim in self.part.variables:
                raise ValueError(
                    f"dims of y name {dim!r}, which is not a dim of part {self.part.name!r} "
                    f"({known}), but is in the data: give it another name"
                )
        cut: list[tuple[int, Any]] = []
        expected = dict(zip(self.part.dims, self.part.shape, strict=True))
        laid = {each.dim: len(each.steps) for each in self.field.dims}
        for axis, dim in enumerate(names):
            if dim == "variable" and self.part.stacked:
                expected.setdefault(dim, len(self.part.variables))
            if dim not in expected:
                continue
            if sizes[dim] == expected[dim]:
                if dim in self.taken:
                    cut.append((axis, self.taken[dim]))
            elif sizes[dim] != laid.get(dim):  # else the halo was cut off by the model
                raise ValueError(
                    f"y has {sizes[dim]} along {dim!r}, and part {self.part.name!r} has "
                    f"{expected[dim]}: its shape is {shape} with dims "
                    f"({', '.join(map(printable, names))})"
                )
        inside = [each.dim for each in self.field.dims if each.dim in self.part.dims]
        wanted = [*self.names(lead)[: lead + self.part.stacked], *others, *inside]
        return cut, [names.index(dim) for dim in wanted], others

    def _completed(self, dims: Sequence[Any], lead: int) -> tuple[Hashable, ...]:
        """Names that a user gives for the dims of a tensor; ``...`` stands for all the others."""
        if isinstance(dims, str) or not isinstance(dims, Sequence):
            raise TypeError(
                f"dims is a sequence of names, such as {self.names(lead)}, not {dims!r}"
            )
        names: list[Hashable] = []
        for each in dims:
            if isinstance(each, EllipsisType):
                names += [name for name in self.names(lead) if name not in dims]
            else:
                names.append(each)
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"dims of y name {twice[0]!r} twice: {names}")
        return tuple(names)

    @cached_property
    def weights(self) -> Values | None:
        """Weights of the steps of a sample, in the order of the field; None where all are 1."""
        if all((each == 1).all() for each in self.field.weights):
            return None
        found: Values = np.ones(())
        for weights, dropped in zip(self.field.weights, self.dropped, strict=True):
            found = found * weights[0] if dropped else found[..., None] * weights
        return found


def _part(definition: SampleDefinition, name: str) -> tuple[SampleDefinition, Part]:
    """A part of which predictions can be laid, and the definition it is of."""
    if definition.items is not None:
        raise ValueError(
            "items of an xbatcher.BatchGenerator are no windows that can be laid: give its "
            "input_dims and input_overlap to the dataset"
        )
    parts = {part.name: (each, part) for each, part in definition.every_part}
    if name not in parts:
        raise ValueError(
            f"the samples have no part {name!r}, of whose variables predictions could be; their "
            f"parts are {list(parts)}"
        )
    return parts[name]


def _places(
    maps: Mapping[Hashable, IndexMap], first: SampleDefinition, owner: SampleDefinition
) -> tuple[dict[Hashable, int], list[int]]:
    """By dim of a source, the sample axis that it follows; and windows along these axes.

    Axes of one window that no dim follows are left out, and there is one for each dim that is
    whole. ValueError if a dim of another source follows several axes, or none follows one of them.
    """
    data = first.primary
    for dim, each in maps.items():
        laid = owner.labels.laid.get(dim)
        at_ends = owner is not data and (dim in data.halos or dim in data.beyond)
        if at_ends or (laid is not None and dim not in owner.beyond and _repeats(laid[1])):
            raise ValueError(
                f"predictions of source {owner.source!r} cannot be laid along {dim!r}, along which "
                "samples have a halo, or reach beyond the ends of the data"
            )
        if len(each.terms) > 1:
            raise ValueError(
                f"predictions of source {owner.source!r} cannot be laid along {dim!r}, where they "
                "lie by several dims of the first source together"
            )
    places: dict[Hashable, int] = {}
    shape: list[int] = []
    for axis, count in enumerate(first.windows.shape):
        inside = [dim for dim, each in maps.items() if axis in each.terms]
        if inside:
            places.update(dict.fromkeys(inside, len(shape)))
            shape.append(count)
        elif count > 1:
            raise ValueError(
                f"samples overlap: those along {first.windows.axes[axis].dim!r} predict the same "
                f"steps of source {owner.source!r}, which lacks that dim"
            )
    for dim in maps:
        if dim not in places:
            places[dim] = len(shape)
            shape.append(1)
    return places, shape


def _repeats(steps: IntArray) -> bool:
    there = steps[steps >= 0]
    return len(np.unique(there)) < len(there)


def _blended(
    dims: Sequence[FieldDim], places: Sequence[int], shape: Sequence[int], blend: Blend | None
) -> Field:
    """The field of some dims, with the weights of windows where these overlap."""
    alone = [place for each, place in zip(dims, places, strict=True) if each.most < 2]
    weights = [
        window_weights("mean" if blend is None or place in alone else blend, len(each.steps))
        for each, place in zip(dims, places, strict=True)
    ]
    overlaps = blend is not None and not {*places} <= {*alone}
    return Field(tuple(dims), tuple(places), tuple(weights), tuple(shape), overlaps)


def _require_apart(
    field: Field, first: SampleDefinition, maps: Mapping[Hashable, IndexMap]
) -> None:
    """Raise ValueError if samples overlap, which are not to be blended."""
    for group in field.groups:
        if not group.overlaps:
            continue
        each, *others = group.dims
        if not others:
            raise ValueError(
                f"samples overlap along {each.dim!r}: up to {each.most} predict the same step. "
                f"keep={each.dim!r} keeps their windows apart; blend='mean' or 'hann' makes one "
                "value of them"
            )
        pair = group.met()
        if pair is not None:
            (place,) = maps[each.dim].terms
            axis = first.windows.axes[place]
            index = first.labels.coords.variables.get(axis.dim)
            steps = axis.start(np.array(pair))
            names = steps if index is None else index.values[steps]
            raise ValueError(
                f"samples overlap: {axis.dim!r} {printable(names[0])} and {printable(names[1])} "
                f"predict the same steps of {[each.dim for each in group.dims]}. blend='mean' or "
                "'hann' makes one value of them"
            )


def _kept(
    keep: Any, maps: Mapping[Hashable, IndexMap]
) -> dict[Hashable, tuple[Hashable, Hashable]]:
    """The dim that is kept, and the names of what stands in its place."""
    if keep is None:
        return {}
    given = dict(keep) if isinstance(keep, Mapping) else {keep: (f"init_{keep}", f"lead_{keep}")}
    if len(given) != 1:
        raise ValueError(f"keep names one dim, not {list(given)}")
    ((dim, names),) = given.items()
    windowed = [each.dim for each in maps.values() if each.windowed and each.terms]
    if dim not in windowed:
        raise ValueError(
            f"keep names dim {dim!r}, along which there are no windows to keep apart; there are "
            f"along {windowed}"
        )
    others = [each.dim for each in maps.values() if each.terms.keys() & maps[dim].terms.keys()]
    if len(others) > 1:
        raise ValueError(
            f"keep names dim {dim!r}, and windows lie along {others} together, so that none of "
            "these can stand in the place of one alone: batch.replace(y=…).to_xarray() labels "
            "the predictions of each sample by themselves"
        )
    if isinstance(names, str) or not isinstance(names, Sequence) or len(names) != 2:
        raise ValueError(f"keep={{{dim!r}: (…, …)}} gives two names, not {names!r}")
    return {dim: (names[0], names[1])}


def _order(definition: SampleDefinition, part: Part) -> list[Hashable]:
    """The dims of the samples in the order of the data."""
    dims = [axis.dim for axis in definition.windows.axes]
    data = definition.data
    for name in part.variables:
        if name in data.variables and set(dims) <= set(data.variables[name].dims):
            return [dim for dim in data.variables[name].dims if dim in dims]
    rest = [dim for dim in dims if dim not in data.sizes]
    return [*rest, *(dim for dim in data.sizes if dim in dims)]


def _laid_steps(
    definition: SampleDefinition, part: Part, axis: WindowDim
) -> tuple[IntArray, slice | list[int]]:
    """Steps of a window that are laid, ascending, and which of the tensor these are.

    Those of the halo are not.
    """
    before, after = definition.halos.get(axis.dim, (0, 0))
    indexer = part.indexers.get(axis.dim, slice(None)) if axis.windowed else slice(None)
    steps = np.atleast_1d(np.arange(axis.size)[indexer])
    order = np.argsort(steps, kind="stable")
    core = order[(steps[order] >= before) & (steps[order] < axis.size - after)]
    if not len(core):
        raise ValueError(
            f"part {part.name!r} has no step along {axis.dim!r} but those of the halo, which are "
            "cut off from predictions"
        )
    return steps[core], _as_slice(core.tolist())


def _as_slice(places: list[int]) -> slice | list[int]:
    """Places as a slice where they are evenly spaced."""
    if len(places) == 1:
        return slice(places[0], places[0] + 1)
    step = places[1] - places[0]
    if all(after - before == step for before, after in zip(places, places[1:], strict=False)):
        end = places[-1] + (1 if step > 0 else -1)
        return slice(places[0], None if end < 0 else end, step)
    return places

"""The definition of samples, whatever their order: data, windows, parts and functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
import xarray as xr

from ..common.options import options
from ..common.recorder import Recorder
from ..common.redact import printable
from ..common.text import shape_of
from ..common.user_warnings import about, warn_user
from ..planning.chunks import Layout
from ..planning.frames import SampleSpace
from ..planning.selection import SampleTable
from ..planning.windows import Axis, SourceWindows, Windows
from ..sources.conventions import warn_of_bounds, warn_of_shared_axes
from ..sources.lazy_arrays import in_memory
from ..sources.source import Source, as_source
from .arguments import numpy_dtype
from .around_events import defined_around_events
from .batch import ATTRIBUTES, Batch
from .breaks import BreakRule, SampleBreaks
from .centers import Centers
from .changes import changes_of
from .checks import (
    CheckedSpace,
    checked_space,
    coords_of,
    dtypes_of,
    layouts_of,
    warn_of_relabelled,
)
from .durations import Length
from .generator_items import Items
from .label_digests import LabelDigests
from .labels import LabelledWindows, Labels
from .losses import CENTERS, Loss, losses_of, warnings_of_losses, with_lost
from .preprocessing import Preprocessor
from .select import Part, Select, make_part, resolve_parts
from .several import NO_BATCH_TRANSFORM, defined_of_several, is_several
from .source_rules import Rule, in_short
from .transforms import Transform, name_of, transforms_of
from .trials import require_blocks_independent

__all__ = ["SampleDefinition"]


@dataclass(frozen=True, eq=False)
class SampleDefinition:
    """The samples of a dataset: what they are made of, and how they become tensors.

    Made by `of`, once for a dataset. Whatever plans, reads, gathers or explains samples shares it,
    on any thread, for as long as the dataset lives; worker processes get a copy.
    """

    # What is read: the variables needed and, for functions in xarray's API, their coordinates.
    data: xr.Dataset
    origin: str  # where it comes from, for messages
    layouts: tuple[Layout, ...]
    # What variables are cast to as they are read, where nothing needs them otherwise.
    dtypes: Mapping[Hashable, np.dtype[Any]]
    # Of the variables of the parts, after preprocess.
    variable_dims: Mapping[Hashable, frozenset[Hashable]]
    variable_dtypes: Mapping[Hashable, np.dtype[Any]]
    constants: Mapping[Hashable, Any]  # a value of each variable that a trial cannot make up

    labels: Labels  # the windows and their coordinates
    breaks: SampleBreaks  # which no window crosses
    parts: tuple[Part, ...]
    sample_dims: tuple[Hashable, ...]  # windowed dims in the order of the tensors
    floating: np.dtype[Any]  # what floating data is gathered as
    cast: torch.dtype | None  # what it is cast to afterwards, where numpy lacks the dtype

    preprocess: Transform | None  # for every block that is read
    transforms: Mapping[str, Transform]  # for the samples of a part
    # What only a stream of batches has: a function of these, and what random functions depend on.
    batch_transform: Transform | None = None
    seed: int = 0

    read_timeout: float | None = field(default_factory=lambda: options["read_timeout"])

    # Where there are several sources: the name of this one and, of the first, the others.
    source: str | None = None
    others: tuple[SampleDefinition, ...] = ()
    order: tuple[str, ...] = ()  # names of the parts of all of them
    losses: tuple[Loss, ...] = ()  # windows that lack something of another source
    whole: SampleTable | None = None  # samples that lack nothing, where that is of two dims
    rules: Mapping[Hashable, Rule] = field(default_factory=dict)  # of another source, by dim
    anchors: Mapping[Hashable, int] = field(default_factory=dict)  # of the first, steps of windows
    # Events around which windows lie: then this only counts samples, and the data is beside it.
    centers: Centers | None = None

    @classmethod
    def of(
        cls,
        ds: Any,
        input_dims: Mapping[Any, Length] | None,
        input_overlap: Mapping[Any, Length] | None = None,
        *,
        breaks: BreakRule | Mapping[Any, BreakRule | None] | None = None,
        anchor: Mapping[Any, int] | None = None,
        centers: Any = None,
        tolerance: Mapping[Any, Any] | None = None,
        inputs: Any = None,
        targets: Any = None,
        parts: Mapping[str, Any] | None = None,
        preprocess: Callable[..., xr.Dataset] | None = None,
        transform: Callable[..., Any] | Mapping[str, Callable[..., Any]] | None = None,
        target_transform: Callable[..., Any] | None = None,
        batch_transform: Callable[..., xr.Dataset] | None = None,
        seed: int = 0,
        dtype: Any = None,
        dims: Sequence[Hashable] | None = None,
    ) -> SampleDefinition:
        """Work it out, and check the arguments, those of a dataset, against the data."""
        floating, cast_to = numpy_dtype(dtype)
        if centers is None and tolerance is not None:
            raise ValueError("tolerance is for centers=, which is not given")
        arguments: dict[str, Any] = {
            "anchor": anchor,
            "breaks": breaks,
            "inputs": inputs,
            "targets": targets,
            "parts": parts,
            "preprocess": preprocess,
            "transform": transform,
            "target_transform": target_transform,
            "batch_transform": batch_transform,
            "seed": seed,
            "floating": floating,
            "cast": cast_to,
        }
        found: Any = None
        if centers is not None:
            arguments |= {"centers": centers, "tolerance": tolerance, "dims": dims}
            found = defined_around_events(cls._of, cls, ds, input_dims, input_overlap, **arguments)
        elif is_several(ds):
            found = defined_of_several(cls._of, ds, input_dims, input_overlap, **arguments)
        if found is not None:
            return cast(SampleDefinition, found)
        source = as_source(ds, dims)
        selections = resolve_parts(
            source.dataset,
            source.single,
            inputs,
            targets,
            parts,
            reserved={*ATTRIBUTES, *dir(Batch)},
        )
        prepare = Transform.of(preprocess, "preprocess")
        given = transforms_of(transform, target_transform, list(selections))
        of_batches = Transform.of(batch_transform, "batch_transform")
        space = checked_space(source, input_dims, input_overlap, selections, prepare, breaks)
        return cls._of(
            source, selections, space, prepare, given, floating, cast_to, of_batches, seed
        )

    @classmethod
    def _of(
        cls,
        source: Source,
        selections: Mapping[str, Select],
        space: CheckedSpace,
        prepare: Transform | None,
        given: Mapping[str, Transform],
        floating: np.dtype[Any],
        cast_to: torch.dtype | None,
        of_batches: Transform | None,
        seed: int,
    ) -> SampleDefinition:
        """The definition over the windows of a source."""
        windows, template = space.windows, space.template
        made = tuple(
            make_part(name, select, template, windows, space.sample_dims, floating)
            for name, select in selections.items()
        )
        coords = coords_of(source.dataset, windows)
        variables = {name: template.variables[name] for part in made for name in part.variables}
        attrs = {name: dict(variable.attrs) for name, variable in variables.items()}
        read = source.dataset[list(space.reads)]
        labelled = prepare is not None or given
        data = read if labelled else read.drop_vars(list(read.coords))
        # Functions of the user get what xarray reads.
        dtypes = {} if labelled else dtypes_of(data, made)
        if prepare is not None:
            require_blocks_independent(prepare, read, windows, variables, space.constants)
            with about(prepare.function):
                warn_of_relabelled(template, source.dataset, windows)
        return cls(
            data=data,
            origin=source.origin,
            layouts=layouts_of(data, windows, made, dtypes),
            dtypes=dtypes,
            variable_dims={name: frozenset(each.dims) for name, each in variables.items()},
            variable_dtypes={name: each.dtype for name, each in variables.items()},
            constants=space.constants,
            labels=Labels(
                windows, coords, attrs, space.items, changes_of(prepare, given, of_batches)
            ),
            breaks=space.breaks,
            parts=made,
            sample_dims=space.sample_dims,
            floating=floating,
            cast=cast_to,
            preprocess=prepare,
            transforms=given,
            batch_transform=of_batches,
            seed=seed,
        )

    # Where samples lie.

    @property
    def windows(self) -> Windows:
        """The sample space; of another source, where it lies in this."""
        return cast(Windows, self.labels.windows)

    @property
    def items(self) -> Items | None:
        """Arrangement of a window that is the item of an xbatcher generator; else None."""
        return self.labels.items

    @property
    def labelled(self) -> LabelledWindows:
        """The windows with their labels."""
        return self.labels.labelled

    @property
    def label_digests(self) -> LabelDigests:
        """Digests by which states tell data with other labels; computed when they are read."""
        return LabelDigests(self.labels.coords, self.windows)

    def axis(self, dim: Hashable) -> Axis:
        """The windows along a dim, also one that events have labels of; then in any order."""
        if self.centers is None or dim not in self.centers.names:
            return self.windows.axis(dim)
        along = self.primary.windows.map(dim)
        return Axis(dim, along.length, along.size, along.terms[0], windowed=along.windowed)

    def place(self, dim: Hashable) -> int:
        """The sample axis that a dim follows: the first one, if events have labels of it."""
        if self.centers is not None and dim in self.centers.names:
            return 0
        return self.windows.axes.index(self.windows.axis(dim))

    def over(self, windows: Windows) -> SampleDefinition:
        """Definition of other windows of the same data, numbered anew."""
        others = tuple(
            replace(each, labels=replace(each.labels, windows=SourceWindows(windows.space, place)))
            for place, each in enumerate(self.others, start=1)
        )
        beside = {str(each.source): each.labels for each in others}
        labels = replace(self.labels, windows=windows, others=beside)
        whole = self.whole and self.whole.over(self.windows, windows)
        return replace(self, labels=labels, others=others, whole=whole)

    def in_batches(self, batch_transform: Transform | None, seed: int) -> SampleDefinition:
        """Definition of the same samples with a function of batches, and a seed."""
        labels = self.labels
        if batch_transform is not None:
            if self.others:
                raise ValueError(NO_BATCH_TRANSFORM)
            changes = changes_of(self.preprocess, self.transforms, batch_transform)
            labels = replace(labels, changes=changes)
        others = tuple(replace(each, seed=seed) for each in self.others)
        return replace(
            self, labels=labels, batch_transform=batch_transform, seed=seed, others=others
        )

    def around(self, data: SampleDefinition) -> SampleDefinition:
        """Definition of the same events with nothing but the data around them, of one part."""
        own = self.windows.space
        space = SampleSpace(own.axes, own.frames[:2])
        of_data = replace(data.labels, windows=SourceWindows(space, 1))
        others = {str(data.source): of_data}
        labels = replace(self.labels, windows=Windows(space), others=others)
        order = tuple(part.name for part in data.parts)
        return replace(self, labels=labels, others=(replace(data, labels=of_data),), order=order)

    def whole_windows(self, function: Transform) -> SampleDefinition:
        """Definition of one part: the scalar that a function makes of all variables of a window."""
        if self.centers is not None:
            return self.around(self.primary.whole_windows(function))
        names = tuple(self.variable_dims)
        sizes = {axis.dim: axis.size for axis in self.windows.axes}
        shape = tuple(sizes[dim] for dim in self.sample_dims)
        part = Part("x", names, True, {}, self.sample_dims, shape, self.floating)
        labels, items, data = self.labels, self.items, self.data
        if not data.coords:  # which functions may use
            others = [
                name
                for name, coord in labels.coords.coords.items()
                if not set(coord.dims) <= set(data.dims)
            ]
            data = data.assign_coords(labels.coords.drop_vars(others).coords)
        if items is not None:
            items = replace(items, orders={part.name: items.order})
        return replace(
            self,
            data=data,
            layouts=layouts_of(data, self.windows, (part,), {}),
            dtypes={},
            labels=replace(labels, items=items),
            parts=(part,),
            transforms={part.name: function},
            batch_transform=None,
            cast=None,
            others=(),
            order=(),
        )

    # What they take.

    @property
    def sources(self) -> tuple[SampleDefinition, ...]:
        """Definitions of all sources, the first one first: this alone where there is one."""
        return (self, *self.others)

    @property
    def primary(self) -> SampleDefinition:
        """Definition of the first source of the user: this, or that of the data around events."""
        return self if self.centers is None else self.others[0]

    @property
    def every_part(self) -> list[tuple[SampleDefinition, Part]]:
        """The parts of all sources, in their order, each with the definition it is of."""
        found = {part.name: (each, part) for each in self.sources for part in each.parts}
        return [found[name] for name in self.order or found]

    @property
    def in_memory(self) -> bool:
        """Whether windows are cut from data in memory, so that nothing is read."""
        return self.preprocess is None and all(
            in_memory(variable) for variable in self.data.variables.values()
        )

    @property
    def layouts_beside(self) -> list[tuple[Layout, ...]]:
        """How other sources are stored; of events and data in memory around them, nothing is."""
        around = self.centers is not None
        return [() if around and each.in_memory else each.layouts for each in self.others]

    def names(self, each: SampleDefinition, part: Part) -> list[Hashable]:
        """Variables of a part of a source as users name them."""
        return list(self.named(each, part.variables).values())

    def named(self, each: SampleDefinition, names: Iterable[Hashable]) -> dict[Hashable, Hashable]:
        """Variables of a source, each with its name for users."""
        plain = each is self or each is self.primary
        return {name: name if plain else f"{each.source}/{name}" for name in names}

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors of one sample, those of all sources, before any transform."""
        return sum(
            math.prod(each.shape(part)) * part.dtype.itemsize for each, part in self.every_part
        )

    def shape(self, part: Part) -> tuple[int, ...]:
        """Shape of the tensor of a sample, before any transform."""
        if self.items is None:
            return part.sample_shape
        shape = self.items.shape(part.name, dict(zip(part.dims, part.shape, strict=True)))
        return (len(part.variables), *shape) if part.stacked else shape

    def require_batches(self, batch_size: int | None) -> None:
        """Raise ValueError if samples differ in size, so that they do not fit into batches."""
        if all(part.name in self.transforms for part in self.parts):
            return  # which may make one size of them
        if self.items is not None and self.items.ragged and batch_size not in (None, 1):
            raise ValueError(
                "items of this BatchGenerator differ in size, the last has fewer windows: they "
                f"come one at a time, with batch_size=None, not {batch_size} in a batch"
            )

    def warn_of_breaks(self) -> None:
        """Warn of breaks in labels, unless the user has said what is to become of them."""
        for message, about_what in self.breaks.warnings(self.labels.coords):
            warn_user(message, about_what)
        for message, about_what in warnings_of_losses(self.losses, self.breaks.laid):
            warn_user(message, about_what)

    def warn_of_bounds(self) -> None:
        """Warn if bounds of cells or a second grid, no dims of their own, make samples."""
        if self.items is None:  # an item of a generator holds all of such dims
            own = self.primary
            described = (own.data, own.labels.coords)
            parts = [part.variables for part in own.parts]
            warn_of_bounds(own.variable_dims, self.windows, parts, described)
            warn_of_shared_axes(self.windows, self.labels.coords)

    # The functions of the user.

    @property
    def random_blocks(self) -> bool:
        """Whether preprocess draws random numbers, so that blocks differ between epochs."""
        return self.preprocess is not None and self.preprocess.takes_rng

    @property
    def transformed(self) -> bool:
        """Whether functions of the user take part in gathering, which preprocess does not."""
        return self.batch_transform is not None or any(each.transforms for each in self.sources)

    def functions(self) -> list[Transform]:
        """The functions of the user for all sources, composed ones one by one."""
        given = [each.preprocess for each in self.sources]
        given += [function for each in self.sources for function in each.transforms.values()]
        given.append(self.batch_transform)
        return [each for function in given if function is not None for each in function.functions()]

    def preprocessor(self, data: xr.Dataset, epoch: int, recorder: Recorder) -> Preprocessor | None:
        """Preprocess for the blocks of `data`, which is this data as it is read."""
        if self.preprocess is None:
            return None
        return Preprocessor(
            data,
            self.windows,
            self.variable_dims,
            self.variable_dtypes,
            self.preprocess,
            self.seed,
            epoch,
            recorder,
        )

    def needs_host(self) -> str | None:
        """The reason why samples cannot be cut on a device, or None."""
        for function in (*self.transforms.values(), self.batch_transform):
            if function is not None:
                return f"{function.argument} takes labeled samples, which are on the host"
        if self.items is not None:
            return "items of an xbatcher.BatchGenerator are arranged on the host"
        if self.others:
            return "parts of several sources are put together on the host"
        return None

    # What there is to say of it.

    def facts_of_parts(self) -> list[tuple[Any, ...]]:
        """Name, variables, shape of one sample and dtype of each part."""
        return [
            (
                part.name,
                ", ".join(map(printable, self.names(each, part))),
                f"after {each.transforms[part.name].argument}"
                if part.name in each.transforms
                else shape_of(each.shape(part), ["variable"] * part.stacked + list(part.dims)),
                str(self.cast or part.dtype).removeprefix("torch.")
                if part.dtype.kind == "f"
                else part.dtype,
            )
            for each, part in self.every_part
        ]

    def facts_of_sources(self) -> list[tuple[str, str, str, str]]:
        """Name, rules, losses and origin of each other source."""
        losses = losses_of(self.losses, self.breaks.laid, self.windows)

        def lost(each: SampleDefinition) -> str:
            return "; ".join(str(loss) for loss in losses if loss.source in self.lost_for(each))

        return [
            (str(each.source), self.in_short(each), lost(each), each.origin) for each in self.others
        ]

    def lost_for(self, each: SampleDefinition) -> tuple[str | None, ...]:
        """Names of the sources whose losses are told with a source: of events, with their data."""
        if each is self.primary:
            return each.source, CENTERS
        return () if each.source == CENTERS else (each.source,)

    def in_short(self, each: SampleDefinition) -> str:
        """What samples have of another source, in a line."""
        if self.centers is None:
            return in_short(each.rules, each.windows, self.windows)
        if each.source == CENTERS:
            return "those of the event"
        if each is self.primary:
            return f"around {', '.join(map(printable, self.centers.names))} of each event"
        return in_short(each.rules, each.windows, self.primary.windows)

    @property
    def windows_with_lost(self) -> Windows:
        """The windows, and those that other sources leave out between them."""
        return with_lost(self.losses, self.breaks.laid, self.windows)

    def facts_of_functions(self) -> list[tuple[str, str, str]]:
        """Argument, name and "yes" or "no" (random) of each function."""
        return [
            (each.argument, name_of(each.function), "yes" if each.takes_rng else "no")
            for each in self.functions()
        ]

    def facts_of_breaks(self) -> list[str]:
        """What there is to say of breaks in labels, in a line for each dim that has some."""
        return list(self.breaks.facts(self.windows_with_lost, self.labels.coords))

    def _repeated(self) -> dict[Hashable, list[Hashable]]:
        """By dims of which each place is a sample: variables that lack them, if others do not."""
        every = self.variable_dims.items()
        lacking = {
            axis.dim: [name for name, dims in every if axis.dim not in dims]
            for axis in self.windows.axes
            if not axis.windowed and len(axis) > 1 and self.items is None
        }
        return {dim: names for dim, names in lacking.items() if names}

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{printable(part.name)}: "
            + (f"{self.names(each, part)}" if part.stacked else f"{self.names(each, part)[0]!r}")
            + f" {each.shape(part)}"
            for each, part in self.every_part
        )
        repeated = (
            f"repeated at each place of {dim!r}, which they lack: {names}"
            for dim, names in self._repeated().items()
        )
        sources = (
            f"{name}: {rules}{f'; {lost}' if lost else ''}; from {origin}"
            for name, rules, lost, origin in self.facts_of_sources()
        )
        return "\n  ".join([parts, *repeated, *sources, *self.facts_of_breaks()])

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
from ..common.user_warnings import about
from ..planning.chunks import Layout
from ..planning.edges import ExtendedDim
from ..planning.intervals import Interval
from ..planning.selection import SampleTable
from ..planning.windows import Axis, SourceWindows, WindowDim, Windows
from ..sources.lazy_arrays import in_memory
from ..sources.source import as_source
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
    names_in,
    warn_of_relabelled,
)
from .durations import Length
from .generator_items import Items
from .label_digests import LabelDigests
from .labels import LabelledWindows, Labels
from .layouts import dtypes_of, layouts_of
from .leads import Anchors
from .losses import Loss, with_lost
from .making_parts import make_part
from .named_sources import is_several
from .preprocessing import Preprocessor
from .presence import Present, not_null
from .select import Part, Select, as_counts, resolve_parts
from .several import NO_BATCH_TRANSFORM, anchors_of, defined_of_several
from .source_rules import Rule
from .transforms import Transform, transforms_of
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
    # Variables of which it is noted where they are present, and how that is told of their values.
    present: Mapping[Hashable, Present] = field(default_factory=dict)
    unread: frozenset[Hashable] = frozenset()  # those of which parts have nothing else
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
    halos: Mapping[Hashable, tuple[int, int]] = field(default_factory=dict)  # steps on both sides
    # Events around which windows lie: then this only counts samples, and the data is beside it.
    centers: Centers | None = None

    # Counts of what is present in the same samples, until it was asked which of them there are.
    conditions: SampleDefinition | None = None

    @classmethod
    def of(
        cls,
        ds: Any,
        input_dims: Mapping[Any, Length] | None,
        input_overlap: Mapping[Any, Length] | None = None,
        *,
        breaks: BreakRule | Mapping[Any, BreakRule | None] | None = None,
        boundary: Mapping[Any, Any] | None = None,
        remainder: Any = None,
        halo: Mapping[Any, Any] | None = None,
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
        conditions: Mapping[str, Select] | None = None,
    ) -> SampleDefinition:
        """Work it out, and check the arguments, those of a dataset, against the data.

        Each of the `conditions`, presences by what messages call them, is counted for the samples
        in a definition of its own.
        """
        floating, cast_to = numpy_dtype(dtype)
        edges = {"boundary": boundary, "remainder": remainder, "halo": halo}
        if centers is None and tolerance is not None:
            raise ValueError("tolerance is for centers=, which is not given")
        arguments: dict[str, Any] = {
            "anchor": anchor,
            "breaks": breaks,
            "edges": edges,
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
            "conditions": conditions or {},
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
        counted = as_counts(conditions or {}, source.dataset)
        space = checked_space(
            source, input_dims, input_overlap, selections, prepare, breaks, edges, counted
        )
        made = cls._of(selections, space, prepare, given, floating, cast_to, of_batches, seed)
        if counted:
            counting = cls._of(counted, space, None, {}, floating, None, None, seed)
            made = replace(made, conditions=counting)
        if made.items is None:
            anchors = anchors_of(anchor, space.windows, selections.get("x"))
            labels = replace(made.labels, anchors=Anchors.of(anchors, made.parts))
            return replace(made, anchors=anchors, labels=labels)
        if anchor is not None:
            raise ValueError(
                "anchor cannot be given with an xbatcher.BatchGenerator, whose items may have many "
                "windows"
            )
        return made

    @classmethod
    def _of(
        cls,
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
        windows, template, source = space.windows, space.template, space.source
        names, present = names_in(selections)
        made = tuple(
            make_part(
                name,
                select,
                template if select.takes == "values" else source.dataset,
                windows,
                space.sample_dims,
                floating,
            )
            for name, select in selections.items()
        )
        coords = coords_of(source.dataset, windows)
        variables = {name: template.variables[name] for name in names}
        attrs = {name: dict(variable.attrs) for name, variable in variables.items()}
        prepare = prepare if names else None
        values = space.reads if prepare is not None else tuple(names)
        read = source.dataset[list(dict.fromkeys([*values, *present]))]
        labelled = prepare is not None or given
        data = read if labelled else read.drop_vars(list(read.coords))
        # Functions of the user get what xarray reads.
        dtypes = {} if labelled else dtypes_of(data, made)
        if prepare is not None:
            block = source.dataset[list(values)]
            require_blocks_independent(prepare, block, windows, variables, space.constants)
            with about(prepare.function):
                warn_of_relabelled(template, source.dataset, windows, space.beyond)
        return cls(
            data=data,
            origin=source.origin,
            layouts=layouts_of(data, windows, made, dtypes),
            dtypes=dtypes,
            variable_dims={name: frozenset(each.dims) for name, each in variables.items()},
            variable_dtypes={name: each.dtype for name, each in variables.items()},
            constants=space.constants,
            labels=Labels(
                windows,
                coords,
                attrs,
                space.items,
                changes_of(prepare, given, of_batches),
                beyond=space.beyond,
                laid={dim: (dim, each.nearest) for dim, each in space.beyond.items()},
            ),
            breaks=space.breaks,
            parts=made,
            sample_dims=space.sample_dims,
            floating=floating,
            cast=cast_to,
            preprocess=prepare,
            transforms=given,
            present=dict.fromkeys(present, not_null),
            unread=frozenset(present).difference(values),
            batch_transform=of_batches,
            seed=seed,
            halos=space.halos,
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
        conditions = self.conditions and self.conditions.over(windows)
        return replace(self, labels=labels, others=others, whole=whole, conditions=conditions)

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

    @property
    def beyond(self) -> Mapping[Hashable, ExtendedDim]:
        """What windows find beyond the ends of dims; there they count its steps."""
        return self.primary.labels.beyond

    def inside(self, axis: WindowDim) -> Interval:
        """Steps ``[start, stop)`` of the data along a dim, as its windows count."""
        beyond = self.beyond.get(axis.dim)
        return (0, axis.length) if beyond is None else beyond.inside

    @property
    def blank(self) -> dict[Hashable, ExtendedDim]:
        """Dims beyond whose ends there is nothing, though windows reach there."""
        return {dim: each for dim, each in self.beyond.items() if each.blank}

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
        """What makes blocks of what is read of `data`, this data or some variables of it."""
        present = {name: each for name, each in self.present.items() if name in data.data_vars}
        if self.preprocess is None and not present:
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
            present,
            self.values,
            self.beyond,
        )

    @property
    def values(self) -> list[Hashable]:
        """Variables that are read for their values: what preprocess gets."""
        return [name for name in self.data.data_vars if name not in self.unread]

    @property
    def windows_with_lost(self) -> Windows:
        """The windows, and those that other sources leave out between them."""
        return with_lost(self.losses, self.breaks.laid, self.windows)

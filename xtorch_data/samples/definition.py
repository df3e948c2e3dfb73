"""What samples are made of, whatever their order: the data, its windows, parts and functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from ..common import html
from ..common.options import options
from ..common.recorder import Recorder
from ..common.redact import printable, printable_lines
from ..common.text import format_bytes, number_of, shape_of
from ..planning.chunks import Layout
from ..planning.tables import windows_table
from ..planning.windows import Windows
from ..sources.conventions import warn_of_bounds
from ..sources.source import as_source
from .arguments import numpy_dtype
from .batch import ATTRIBUTES, Batch
from .label_digests import LabelDigests
from .labels import LabelledWindows, Labels
from .preprocessing import Preprocessor
from .recipe import Recipe
from .select import Part, make_part, resolve_parts
from .space import SampleSpace, coords_of, dtypes_of, layouts_of
from .transforms import Transform, name_of
from .trials import require_blocks_independent

__all__ = ["Samples"]

# Of more variables, or longer HTML, a notebook shows xarray's text.
SHOWN_VARIABLES, SHOWN_CHARACTERS = 40, 48_000


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of a dataset, worked out from its arguments.

    Attributes
    ----------
    data : xarray.Dataset
        What is read: the variables needed and, for functions in xarray's API, their coordinates.
    origin : str
        Where it comes from, for messages.
    layouts : tuple of Layout
        How its variables are stored.
    dtypes : mapping of Hashable to numpy.dtype
        What variables are cast to as they are read, where nothing needs them otherwise.
    variable_dims : mapping of Hashable to frozenset
        Dims of the variables of the parts, after preprocess.
    variable_dtypes : mapping of Hashable to numpy.dtype
        Their dtypes.
    preprocess : Transform, optional
        Function for every block that is read.
    recipe : Recipe
        How samples become a batch.
    constants : mapping of Hashable to object
        A value of each variable that a trial cannot make up.
    read_timeout : float, optional
        Seconds until a request to a store counts as failed.
    """

    data: xr.Dataset
    origin: str
    layouts: tuple[Layout, ...]
    dtypes: Mapping[Hashable, np.dtype[Any]]
    variable_dims: Mapping[Hashable, frozenset[Hashable]]
    variable_dtypes: Mapping[Hashable, np.dtype[Any]]
    preprocess: Transform | None
    recipe: Recipe
    constants: Mapping[Hashable, Any]
    read_timeout: float | None = field(default_factory=lambda: options["read_timeout"])

    @classmethod
    def of(
        cls,
        ds: Any,
        input_dims: Mapping[Any, int] | None,
        input_overlap: Mapping[Any, int] | None,
        *,
        inputs: Any,
        targets: Any,
        parts: Mapping[str, Any] | None,
        preprocess: Callable[..., xr.Dataset] | None,
        transform: Callable[..., Any] | None,
        target_transform: Callable[..., Any] | None,
        batch_transform: Callable[..., xr.Dataset] | None,
        seed: int,
        dtype: Any,
        dims: Sequence[Hashable] | None,
    ) -> Samples:
        """Work them out, and check the arguments against the data.

        The parameters are those of `xtorch_data.IterableDataset`.
        """
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
        transforms = {
            "x": Transform.of(transform, "transform"),
            "y": Transform.of(target_transform, "target_transform"),
        }
        for part, given in transforms.items():
            if given is not None and part not in selections:
                raise ValueError(
                    f"{given.argument} works on part {part!r}, but the parts are {list(selections)}"
                )
        floating, cast_to = numpy_dtype(dtype)
        space = SampleSpace.of(source, input_dims, input_overlap, selections, prepare)
        made = tuple(
            make_part(name, select, space.template, space.windows, space.sample_dims, floating)
            for name, select in selections.items()
        )
        coords = coords_of(source.dataset, space.windows)
        variables = {
            name: space.template.variables[name] for part in made for name in part.variables
        }
        recipe = Recipe(
            windows=space.windows,
            parts=made,
            transforms={name: given for name, given in transforms.items() if given is not None},
            batch_transform=Transform.of(batch_transform, "batch_transform"),
            sample_dims=space.sample_dims,
            items=space.items,
            floating=floating,
            cast=cast_to,
            seed=seed,
            labels=Labels(
                space.windows,
                coords,
                {name: dict(variable.attrs) for name, variable in variables.items()},
                space.items,
            ),
        )
        read = source.dataset[list(space.reads)]
        labelled = prepare is not None or recipe.transforms
        data = read if labelled else read.drop_vars(list(read.coords))
        # Functions of the user get what xarray reads.
        dtypes = {} if labelled else dtypes_of(data, made)
        if prepare is not None:
            require_blocks_independent(prepare, read, space.windows, variables, space.constants)
        return cls(
            data=data,
            origin=source.origin,
            layouts=tuple(layouts_of(data, space.windows, made, dtypes)),
            dtypes=dtypes,
            variable_dims={name: frozenset(each.dims) for name, each in variables.items()},
            variable_dtypes={name: each.dtype for name, each in variables.items()},
            preprocess=prepare,
            recipe=recipe,
            constants=space.constants,
        )

    def require_batches(self, batch_size: int | None) -> None:
        """Raise ValueError if samples differ in size, so that they do not fit into batches."""
        items = self.recipe.items
        if all(part.name in self.recipe.transforms for part in self.recipe.parts):
            return  # which may make one size of them
        if items is not None and items.ragged and batch_size not in (None, 1):
            raise ValueError(
                "items of this BatchGenerator differ in size, the last has fewer windows: they "
                f"come one at a time, with batch_size=None, not {batch_size} in a batch"
            )

    def warn_of_bounds(self, stacklevel: int) -> None:
        """Warn if bounds of cells, which describe coordinates, make samples; see there."""
        if self.recipe.items is None:  # an item of a generator holds all of such dims
            described = (self.data, self.recipe.labels.coords)
            parts = [part.variables for part in self.recipe.parts]
            warn_of_bounds(self.variable_dims, self.recipe.windows, parts, described, stacklevel)

    def over(self, windows: Windows) -> Samples:
        """The same for other windows of the same data, numbered anew."""
        labels = self.recipe.labels
        recipe = replace(
            self.recipe,
            windows=windows,
            labels=Labels(windows, labels.coords, labels.attrs, labels.items),
        )
        return replace(self, recipe=recipe)

    @property
    def windows(self) -> LabelledWindows:
        """Where they lie."""
        return self.recipe.labels.labelled

    @property
    def label_digests(self) -> LabelDigests:
        """What states tell by that data has other labels; worked out when it is asked for."""
        return LabelDigests(self.recipe.labels.coords, self.recipe.windows)

    @property
    def random_blocks(self) -> bool:
        """Whether preprocess draws random numbers, so that blocks differ between epochs."""
        return self.preprocess is not None and self.preprocess.takes_rng

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors of one sample, before any transform."""
        return sum(math.prod(self.shape(part)) * part.dtype.itemsize for part in self.recipe.parts)

    def shape(self, part: Part) -> tuple[int, ...]:
        """Shape of the tensor of a sample, before any transform."""
        if self.recipe.items is None:
            return part.sample_shape
        shape = self.recipe.items.shape(part.name, dict(zip(part.dims, part.shape, strict=True)))
        return (len(part.variables), *shape) if part.stacked else shape

    def preprocessor(self, data: xr.Dataset, epoch: int, recorder: Recorder) -> Preprocessor | None:
        """What applies `preprocess` to blocks of an epoch, if there is one.

        Parameters
        ----------
        data : xarray.Dataset
            What is read, as it is read.
        epoch : int
            What it depends on if it is random.
        recorder : Recorder
            Notes what it takes.
        """
        if self.preprocess is None:
            return None
        return Preprocessor(
            data,
            self.recipe.windows,
            self.variable_dims,
            self.variable_dtypes,
            self.preprocess,
            self.recipe.seed,
            epoch,
            recorder,
        )

    @property
    def transformed(self) -> bool:
        """Whether functions of the user take part in gathering, which preprocess does not."""
        return bool(self.recipe.transforms) or self.recipe.batch_transform is not None

    def functions(self) -> list[Transform]:
        """The functions of the user."""
        given = [self.preprocess, *self.recipe.transforms.values(), self.recipe.batch_transform]
        return [each for function in given if function is not None for each in function.functions()]

    def needs_host(self) -> str | None:
        """Why samples cannot be cut on a device, or None."""
        given = [*self.recipe.transforms.values(), self.recipe.batch_transform]
        for function in given:
            if function is not None:
                return f"{function.argument} takes labeled samples, which are on the host"
        if self.recipe.items is not None:
            return "items of an xbatcher.BatchGenerator are arranged on the host"
        return None

    def page(
        self, kind: str, text: str, facts: Iterable[tuple[str, Any]], sections: Iterable[str]
    ) -> str:
        """What a notebook shows of a dataset of these samples.

        Parameters
        ----------
        kind : str
            Name of its class.
        text : str
            Its plain repr.
        facts : iterable of (str, object)
            What else there is to say of it.
        sections : iterable of str
            HTML of what else there is.
        """
        recipe = self.recipe
        parts = [
            (
                part.name,
                ", ".join(map(printable, part.variables)),
                f"after {recipe.transforms[part.name].argument}"
                if part.name in recipe.transforms
                else shape_of(self.shape(part), ["variable"] * part.stacked + list(part.dims)),
                str(recipe.cast or part.dtype).removeprefix("torch.")
                if part.dtype.kind == "f"
                else part.dtype,
            )
            for part in recipe.parts
        ]
        functions = [
            (each.argument, name_of(each.function), "yes" if each.takes_rng else "no")
            for each in self.functions()
        ]
        data = self.data.assign_coords(recipe.labels.coords.coords)
        found = [
            html.facts([*facts, ("source", self.origin)]),
            html.section(
                "Windows",
                ", ".join(printable(axis.dim) for axis in recipe.windows.axes),
                windows_table(recipe.windows, self.windows.extents()),
                opened=True,
            ),
            html.section(
                "Parts",
                f"{format_bytes(self.nbytes)} a sample",
                html.table(("part", "variables", "one sample", "dtype"), parts),
                opened=True,
            ),
        ]
        if functions:
            names = ", ".join(dict.fromkeys(argument for argument, *_ in functions))
            columns = ("argument", "function", "random")
            found.append(html.section("Functions", names, html.table(columns, functions)))
        names = ", ".join(map(printable, data.data_vars))
        found += [*sections, html.section("Data", names, _xarray_repr(data))]
        return html.page(
            f"xtorch_data.{kind}", number_of(len(recipe.windows), "sample"), found, text
        )

    def _repeated(self) -> dict[Hashable, list[Hashable]]:
        """By dims of which each place is a sample: variables that lack them, if others do not."""
        every = self.variable_dims.items()
        lacking = {
            axis.dim: [name for name, dims in every if axis.dim not in dims]
            for axis in self.recipe.windows.axes
            if not axis.windowed and len(axis) > 1 and self.recipe.items is None
        }
        return {dim: names for dim, names in lacking.items() if names}

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{printable(part.name)}: "
            + (f"{list(part.variables)}" if part.stacked else f"{part.variables[0]!r}")
            + f" {self.shape(part)}"
            for part in self.recipe.parts
        )
        return parts + "".join(
            f"\n  repeated at each place of {dim!r}, which they lack: {names}"
            for dim, names in self._repeated().items()
        )


def _xarray_repr(data: xr.Dataset) -> str:
    """What xarray shows of data; its text where that is long, or a dim is no text."""
    if all(isinstance(dim, str) for dim in data.dims) and len(data.variables) <= SHOWN_VARIABLES:
        found: str = data._repr_html_()
        if len(found) <= SHOWN_CHARACTERS:
            return printable_lines(found)
    return html.code(repr(data))

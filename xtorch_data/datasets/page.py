"""Common parts of both kinds of datasets: the inside that other rooms ask, a page in notebooks."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, Self, TypeVar, cast

import torch
import torch.utils.data
import xarray as xr

from ..common import html
from ..common.redact import printable, printable_lines
from ..common.text import format_bytes, number_of
from ..common.user_warnings import Told, telling_once
from ..planning.plan import Plan
from ..planning.tables import windows_table
from ..reading.disk_cells import OnDisk
from ..report.uncovered import uncovered
from ..report.unfit_chunks import warn_of_chunks
from ..samples.definition import SampleDefinition
from ..samples.facts import (
    breaks_of,
    functions_of,
    parts_of,
    sources_of,
    warn_of_bounds_in,
    warn_of_breaks,
)
from ..samples.labels import LabelledWindows
from .fitted_labels import warn_of_statistics
from .known_labels import require_labels_known
from .what import What
from .where_and_weights import labeled

__all__ = ["Dataset", "Inside", "page", "part_of"]

D = TypeVar("D")

# Of more variables, or longer HTML, a notebook shows xarray's text.
SHOWN_VARIABLES, SHOWN_CHARACTERS = 40, 48_000


# Arguments by which chunks may fit the windows no more.
_CHUNK_ARGUMENTS = {"ds", "input_dims", "input_overlap", "inputs", "targets", "parts", "memory"}


class Inside(Protocol):
    """The attribute ``_inside`` of both kinds of datasets, for loaders, splits and other rooms."""

    what: What
    definition: SampleDefinition
    plan: Plan
    on_disk: OnDisk | None
    retries: int

    def tell(self, told: torch.Tensor | tuple[int, int]) -> None:
        """Tell the copy in a worker which epoch it is, and which was set last."""

    def part(self, what: What) -> Self:
        """Inside of a dataset of some of the samples, or all, of which nothing was read yet."""

    def replaced(self, options: Mapping[str, Any]) -> Self:
        """Inside of a dataset with other arguments."""


class Dataset:
    """A dataset with an inside and a page of its own in notebooks."""

    _inside: Inside
    _told: Told  # what was warned of; all that is made of a dataset shares it

    @property
    def windows(self) -> LabelledWindows:
        """The samples: ``len(windows)``, ``windows[i]`` for ``isel``, ``windows.coords(i)``."""
        return self._inside.definition.labelled

    @property
    def where(self) -> xr.DataArray | None:
        """Which samples there are, labeled with their first steps; None if all are.

        What a function has answered can be saved and given to other datasets of the same samples.
        """
        table, windows = self._inside.plan.where, self._inside.plan.windows
        return None if table is None else labeled(table, windows, self.windows)

    @property
    def _left_out(self) -> str:
        """What is said of samples that `where` leaves out, behind the number of all."""
        plan = self._inside.plan
        if plan.where is None:
            return ""
        return f", {plan.left_out:,} left out, {plan.samples:,} remain"

    def _check(self, fit: bool = True) -> None:
        """Warn of samples that are hardly what was meant; constructors end so.

        With `fit`, also of dims and chunks that do not fit. ValueError if statistics of preprocess
        lack labels that samples have.
        """
        info = torch.utils.data.get_worker_info()
        if info is not None and info.id:  # one of a loader's workers speaks for all
            return
        definition = self._inside.definition
        require_labels_known(definition)
        warn_of_breaks(definition)
        warn_of_statistics(definition, self._inside.what.parts)
        if fit:
            warn_of_bounds_in(definition)
            warn_of_chunks(self._inside.plan, definition.data)

    def __copy__(self) -> Self:
        return with_inside(self, copy.copy(self._inside))

    def replace(self, **options: Any) -> Self:
        """The same dataset with other arguments, at epoch 0; `copy.replace` calls it, too.

        What is not given stays as it is. A part of a split stays one: of the same labels, also
        where ``ds`` is other data. ``where`` and ``weights`` that are not given hold for the same
        windows; a function as ``where`` is not asked again.

        Parameters
        ----------
        **options
            Arguments of the class by name, such as ``preprocess`` or ``batch_size``; the data is
            ``ds``.

        Returns
        -------
        dataset
            Of the same class, with the attributes of this one.

        Raises
        ------
        TypeError, ValueError
            As the class does when it is called, and if ``where``, ``weights`` or the labels of a
            part do not fit the new windows or data.
        """
        with telling_once(self._told):
            made = with_inside(self, self._inside.replaced(options))
            made._check(fit=not _CHUNK_ARGUMENTS.isdisjoint(options))
        return made

    __replace__ = replace

    @property
    def _uncovered(self) -> list[str]:
        """What is said of places that are in no window."""
        what = self._inside.what
        return list(uncovered(what.definition, what.stretches()))

    def _facts(self) -> list[tuple[str, Any]]:
        """Facts of the dataset, beside those of its samples."""
        raise NotImplementedError

    def _sections(self) -> list[str]:
        """More to unfold, as HTML."""
        return []

    def _repr_html_(self) -> str:
        return page(self, type(self).__name__, repr(self))


def part_of(dataset: D, what: What) -> D:
    """A dataset of some of the samples of another, or of all, with its arguments, at epoch 0."""
    return with_inside(dataset, cast(Any, dataset)._inside.part(what))


def with_inside(dataset: D, inside: Any) -> D:
    """A dataset of the same class and attributes, with another inside."""
    made = object.__new__(type(dataset))
    made.__dict__.update(dataset.__dict__, _inside=inside)
    return made


def page(dataset: Any, kind: str, text: str, facts: Iterable[tuple[str, Any]] = ()) -> str:
    """HTML of a dataset, or of its loader: `kind` is the name of the class.

    `text` is its plain repr; `facts` there are to say first.
    """
    definition: SampleDefinition = dataset._inside.definition
    windows, functions = definition.windows, functions_of(definition)
    breaks = [("breaks", line) for line in breaks_of(definition)]
    breaks += [("left over", line.removeprefix("in no window: ")) for line in dataset._uncovered]
    found = [
        html.facts([*facts, *dataset._facts(), *breaks, ("source", definition.origin)]),
        html.section(
            "Windows",
            ", ".join(printable(axis.dim) for axis in windows.axes),
            windows_table(windows, definition.labelled.extents(), definition.beyond),
            opened=True,
        ),
        html.section(
            "Parts",
            f"{format_bytes(definition.nbytes)} a sample",
            html.table(("part", "variables", "one sample", "dtype"), parts_of(definition)),
            opened=True,
        ),
    ]
    if definition.others:
        heads = ("source", "its steps in a sample", "left out", "from")
        names = ", ".join(str(each.source) for each in definition.others)
        others = html.table(heads, sources_of(definition))
        found.append(html.section("Other sources", names, others, opened=True))
    if functions:
        names = ", ".join(dict.fromkeys(argument for argument, *_ in functions))
        columns = ("argument", "function", "random")
        found.append(html.section("Functions", names, html.table(columns, functions)))
    found += [*dataset._sections(), *map(_data_section, definition.sources)]
    head = number_of(len(windows), "sample")
    if dataset._inside.plan.where is not None:
        head = f"{dataset._inside.plan.there:,} of {head}"
    return html.page(f"xtorch_data.{kind}", head, found, text)


def _data_section(definition: SampleDefinition) -> str:
    """What is read of a source, with its coordinates."""
    data = definition.data.assign_coords(definition.labels.coords.coords)
    title = "Data" if definition.source is None else f"Data of {definition.source}"
    return html.section(title, ", ".join(map(printable, data.data_vars)), _xarray_repr(data))


def _xarray_repr(data: xr.Dataset) -> str:
    """HTML of xarray for data; its text where that is long, or a dim is no text."""
    if all(isinstance(dim, str) for dim in data.dims) and len(data.variables) <= SHOWN_VARIABLES:
        found: str = data._repr_html_()
        if len(found) <= SHOWN_CHARACTERS:
            return printable_lines(found)
    return html.code(repr(data))

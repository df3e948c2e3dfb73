"""Common parts of both kinds of datasets: the inside that other rooms ask, a page in notebooks."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Protocol, Self

import torch
import torch.utils.data
import xarray as xr

from ..common import html
from ..common.redact import printable, printable_lines
from ..common.text import format_bytes, number_of
from ..planning.plan import Plan
from ..planning.tables import windows_table
from ..planning.windows import Windows
from ..reading.disk_cells import OnDisk
from ..report.unfit_chunks import warn_of_chunks
from ..samples.definition import SampleDefinition

__all__ = ["Dataset", "Inside", "page", "part_of"]

# Of more variables, or longer HTML, a notebook shows xarray's text.
SHOWN_VARIABLES, SHOWN_CHARACTERS = 40, 48_000


class Inside(Protocol):
    """The attribute ``_inside`` of both kinds of datasets, for loaders, splits and other rooms."""

    definition: SampleDefinition
    plan: Plan
    on_disk: OnDisk | None
    retries: int

    def tell(self, epoch: torch.Tensor | int) -> None:
        """Tell the copy in a worker which epoch it is."""

    def over(self, windows: Windows) -> Self:
        """Inside of a dataset of some of the windows, numbered anew."""


class Dataset:
    """A dataset with an inside and a page of its own in notebooks."""

    _inside: Inside

    def _warn(self) -> None:
        """Warn of samples and chunks that are hardly what was meant, at the end of a constructor.

        The line that is to blame is two calls above.
        """
        info = torch.utils.data.get_worker_info()
        if info is None or not info.id:  # one of a loader's workers speaks for all
            self._inside.definition.warn_of_bounds(stacklevel=5)
            warn_of_chunks(self._inside.plan, self._inside.definition.data, stacklevel=4)

    def __copy__(self) -> Self:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__, _inside=copy.copy(self._inside))
        return made

    def _facts(self) -> list[tuple[str, Any]]:
        """Facts of the dataset, beside those of its samples."""
        raise NotImplementedError

    def _sections(self) -> list[str]:
        """More to unfold, as HTML."""
        return []

    def _repr_html_(self) -> str:
        return page(self, type(self).__name__, repr(self))


def part_of(dataset: Any, windows: Windows) -> Any:
    """A dataset of the same kind and arguments for some windows of another, from epoch 0 on."""
    part = copy.copy(dataset)
    part._inside = dataset._inside.over(windows)
    return part


def page(dataset: Any, kind: str, text: str, facts: Iterable[tuple[str, Any]] = ()) -> str:
    """HTML of a dataset, or of its loader: `kind` is the name of the class.

    `text` is its plain repr; `facts` there are to say first.
    """
    definition: SampleDefinition = dataset._inside.definition
    windows, functions = definition.windows, definition.facts_of_functions()
    found = [
        html.facts([*facts, *dataset._facts(), ("source", definition.origin)]),
        html.section(
            "Windows",
            ", ".join(printable(axis.dim) for axis in windows.axes),
            windows_table(windows, definition.labelled.extents()),
            opened=True,
        ),
        html.section(
            "Parts",
            f"{format_bytes(definition.nbytes)} a sample",
            html.table(("part", "variables", "one sample", "dtype"), definition.facts_of_parts()),
            opened=True,
        ),
    ]
    if functions:
        names = ", ".join(dict.fromkeys(argument for argument, *_ in functions))
        columns = ("argument", "function", "random")
        found.append(html.section("Functions", names, html.table(columns, functions)))
    data = definition.data.assign_coords(definition.labels.coords.coords)
    names = ", ".join(map(printable, data.data_vars))
    found += [*dataset._sections(), html.section("Data", names, _xarray_repr(data))]
    return html.page(f"xtorch_data.{kind}", number_of(len(windows), "sample"), found, text)


def _xarray_repr(data: xr.Dataset) -> str:
    """HTML of xarray for data; its text where that is long, or a dim is no text."""
    if all(isinstance(dim, str) for dim in data.dims) and len(data.variables) <= SHOWN_VARIABLES:
        found: str = data._repr_html_()
        if len(found) <= SHOWN_CHARACTERS:
            return printable_lines(found)
    return html.code(repr(data))

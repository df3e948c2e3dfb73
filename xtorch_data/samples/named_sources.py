"""Sources by name: what a user gives, and which variables are whose."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from ..common.spelling import did_you_mean
from ..sources.source import Source as Data
from ..sources.source import as_source
from .batch import ATTRIBUTES, Batch
from .losses import CENTERS
from .select import Select, as_counts, label_of, names_of, resolve_parts
from .source_rules import Source

__all__ = ["Sources", "is_several", "noted"]


def is_several(ds: Any) -> bool:
    """Whether what is given as data are several sources by name."""
    return isinstance(ds, Mapping) and not isinstance(ds, xr.Dataset | xr.DataTree)


@contextlib.contextmanager
def noted(source: str) -> Iterator[None]:
    """Let errors say of which source they are."""
    try:
        yield
    except (TypeError, ValueError) as error:
        error.add_note(f"of source {source!r}")
        raise


@dataclass(frozen=True, eq=False)
class Sources:
    """The sources by name, the first one first, and what is said of the others."""

    data: Mapping[str, Data]
    given: Mapping[str, Source]
    events: xr.Dataset | None = None  # whose variables are those of the source "centers"

    @classmethod
    def of(cls, ds: Mapping[Any, Any]) -> Sources:
        """Check what a user gives as several sources."""
        if not ds:
            raise ValueError("there are no sources: {name: data, …}")
        for name in ds:
            if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
                raise ValueError(f"the name of a source must be an identifier, not {name!r}")
        given = {
            name: each if isinstance(each, Source) else Source(each) for name, each in ds.items()
        }
        first = next(iter(given))
        if given[first].rules:
            raise ValueError(
                f"source {first!r} comes first, and gives the samples: rules are for the others"
            )
        data = {}
        for name, each in given.items():
            with noted(name):
                data[name] = as_source(each.ds)
            if data[name].generator is not None:
                raise TypeError(
                    f"source {name!r} is an xbatcher.BatchGenerator, which can only be data alone"
                )
        return cls(data, given)

    @property
    def names(self) -> list[str]:
        """Names of the sources, the first one first; events are none of them."""
        return list(self.data)

    def dataset(self, source: str) -> xr.Dataset:
        """The data of a source; of events, their variables."""
        if source == CENTERS and self.events is not None:
            return self.events
        return self.data[source].dataset

    def owner(self, label: str, variable: Hashable) -> tuple[str, Hashable]:
        """The source of a variable that a part names, and its name there."""
        first = self.data[self.names[0]].dataset
        if variable in first.data_vars:
            return self.names[0], variable
        if isinstance(variable, str) and "/" in variable:
            source, _, name = variable.partition("/")
            if source in self.data or (source == CENTERS and self.events is not None):
                known = list(self.dataset(source).data_vars)
                if name in known:
                    return source, name
                raise ValueError(
                    f"{label}: source {source!r} has no data variable {name!r}; it has {known}"
                    + did_you_mean(name, known)
                )
        others = [f"{CENTERS}/{name}" for name in self.events or ()]
        others += [
            f"{source}/{name}"
            for source in self.names[1:]
            for name in self.data[source].dataset.data_vars
        ]
        raise ValueError(
            f"{label}: no data variable {variable!r}; those of {self.names[0]!r} are "
            f"{list(first.data_vars)}, others are named {others}"
            + did_you_mean(variable, [*first.data_vars, *others])
        )

    def owned(self, label: str, select: Select) -> tuple[str, Select]:
        """The source that a selection is of, and what it takes of that."""
        owners = [self.owner(label, name) for name in names_of(select)]
        sources = list(dict.fromkeys(source for source, _ in owners))
        if len(sources) > 1:
            raise ValueError(
                f"{label} has variables of several sources, {sources}: give each source a part of "
                "its own"
            )
        if CENTERS in sources and self.events is not None:
            for dim in select.indexers:
                raise ValueError(
                    f"{label} selects along {dim!r}, and variables of events have no dims in a "
                    "sample: each is the value of its event"
                )
        own = [name for _, name in owners]
        variables = own if isinstance(select.variables, list) else own[0]
        return sources[0] if sources else self.names[0], select._of(variables)

    def conditions(
        self, given: Mapping[str, Select], used: Sequence[str]
    ) -> dict[str, tuple[str, Select]]:
        """By what messages call it: the source that a condition is of, and what it counts there."""
        first = self.data[self.names[0]]
        counted = as_counts(given, first.dataset)
        found = {label: self.owned(label, select) for label, select in counted.items()}
        for label, (source, _) in found.items():
            if source not in used:
                raise ValueError(
                    f"{label} is of source {source!r}, of which samples have no part: there are "
                    f"parts of {list(used)}"
                )
        return found

    def selections(
        self, inputs: Any, targets: Any, parts: Mapping[str, Any] | None
    ) -> dict[str, tuple[str, Select]]:
        """By part: the source that it is of, and what it takes of that."""
        first = self.data[self.names[0]]
        reserved = {*ATTRIBUTES, *dir(Batch)}
        named = resolve_parts(first.dataset, first.single, inputs, targets, parts, reserved)
        found: dict[str, tuple[str, Select]] = {}
        for part, select in named.items():
            found[part] = self.owned(label_of(part), select)
        if parts is None:
            used = {source for source, _ in found.values()}
            for source in self.names[1:]:
                if source in found:
                    raise ValueError(
                        f"source {source!r} makes a part of its own name, which there is: give the "
                        "source another name, or say what each part has with parts="
                    )
                if source not in used:
                    whole = self.data[source]
                    every = list(whole.dataset.data_vars) if whole.single is None else whole.single
                    made = resolve_parts(whole.dataset, None, None, None, {source: every}, reserved)
                    found[source] = source, made[source]
        if not any(source == self.names[0] for source, _ in found.values()):
            raise ValueError(f"no part has a variable of the first source, {self.names[0]!r}")
        return found

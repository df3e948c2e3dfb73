"""What there is to say of samples: of their parts, sources, functions and breaks."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from ..common.redact import printable
from ..common.text import shape_of
from ..common.user_warnings import warn_user
from ..sources.conventions import warn_of_bounds, warn_of_shared_axes
from .checks import repeated_along
from .definition import SampleDefinition
from .losses import CENTERS, losses_of, warnings_of_losses
from .select import Part
from .source_rules import in_short
from .transforms import name_of

__all__ = [
    "breaks_of",
    "described",
    "functions_of",
    "lost_for",
    "needs_host",
    "parts_of",
    "rules_of",
    "sources_of",
    "warn_of_bounds_in",
    "warn_of_breaks",
]


def described(samples: SampleDefinition) -> str:
    """What samples have and lack, in lines."""
    parts = ", ".join(
        f"{printable(part.name)}: {_shown(part, samples.names(each, part))} {each.shape(part)}"
        for each, part in samples.every_part
    )
    events = None if samples.centers is None else samples.centers.dim
    repeated = (
        f"repeated at each place of {dim!r}, which they lack: {names}"
        for dim, names in repeated_along(samples.windows, samples.primary.variable_dims).items()
        if samples.items is None and dim != events
    )
    sources = (
        f"{name}: {rules}{f'; {lost}' if lost else ''}; from {origin}"
        for name, rules, lost, origin in sources_of(samples)
    )
    return "\n  ".join([parts, *repeated, *sources, *breaks_of(samples)])


def parts_of(samples: SampleDefinition) -> list[tuple[Any, ...]]:
    """Name, variables, shape of one sample and dtype of each part."""
    return [
        (
            part.name,
            _listed(part, samples.names(each, part)),
            f"after {each.transforms[part.name].argument}"
            if part.name in each.transforms
            else shape_of(each.shape(part), ["variable"] * part.stacked + list(part.dims)),
            str(samples.cast or part.dtype).removeprefix("torch.")
            if part.dtype.kind == "f"
            else part.dtype,
        )
        for each, part in samples.every_part
    ]


def sources_of(samples: SampleDefinition) -> list[tuple[str, str, str, str]]:
    """Name, rules, losses and origin of each other source."""
    losses = losses_of(samples.losses, samples.breaks.laid, samples.windows)
    return [
        (
            str(each.source),
            rules_of(samples, each),
            "; ".join(str(loss) for loss in losses if loss.source in lost_for(samples, each)),
            each.origin,
        )
        for each in samples.others
    ]


def lost_for(samples: SampleDefinition, each: SampleDefinition) -> tuple[str | None, ...]:
    """Names of the sources whose losses are told with a source: of events, with their data."""
    if each is samples.primary:
        return each.source, CENTERS
    return () if each.source == CENTERS else (each.source,)


def rules_of(samples: SampleDefinition, each: SampleDefinition) -> str:
    """What samples have of another source, in a line."""
    if samples.centers is None:
        return in_short(each.rules, each.windows, samples.windows)
    if each.source == CENTERS:
        return "those of the event"
    if each is samples.primary:
        return f"around {', '.join(map(printable, samples.centers.names))} of each event"
    return in_short(each.rules, each.windows, samples.primary.windows)


def functions_of(samples: SampleDefinition) -> list[tuple[str, str, str]]:
    """Argument, name and "yes" or "no" (random) of each function."""
    return [
        (each.argument, name_of(each.function), "yes" if each.takes_rng else "no")
        for each in samples.functions()
    ]


def breaks_of(samples: SampleDefinition) -> list[str]:
    """What there is to say of breaks in labels, in a line for each dim that has some."""
    return list(samples.breaks.facts(samples.windows_with_lost, samples.labels.coords))


def _shown(part: Part, names: list[Hashable]) -> str:
    """The variables of a part as a user would write them."""
    shown = f"{names if part.stacked else repr(names[0])}"
    return shown if part.takes == "values" else f"NotNull({shown})"


def _listed(part: Part, names: list[Hashable]) -> str:
    """The variables of a part in a table."""
    listed = ", ".join(map(printable, names))
    return listed if part.takes == "values" else f"NotNull({listed})"


def warn_of_breaks(samples: SampleDefinition) -> None:
    """Warn of breaks in labels, unless the user has said what is to become of them."""
    for message, about_what in samples.breaks.warnings(samples.labels.coords):
        warn_user(message, about_what)
    for message, about_what in warnings_of_losses(samples.losses, samples.breaks.laid):
        warn_user(message, about_what)


def warn_of_bounds_in(samples: SampleDefinition) -> None:
    """Warn if bounds of cells or a second grid, no dims of their own, make samples."""
    if samples.items is None:  # an item of a generator holds all of such dims
        own = samples.primary
        described = (own.data, own.labels.coords)
        parts = [part.variables for part in own.parts]
        warn_of_bounds(own.variable_dims, samples.windows, parts, described)
        warn_of_shared_axes(samples.windows, samples.labels.coords)


def needs_host(samples: SampleDefinition) -> str | None:
    """The reason why samples cannot be cut on a device, or None."""
    for function in (*samples.transforms.values(), samples.batch_transform):
        if function is not None:
            return f"{function.argument} takes labeled samples, which are on the host"
    if any(part.phases for part in samples.parts):
        return "a Schedule changes parts with the epochs, which the host does"
    if samples.items is not None:
        return "items of an xbatcher.BatchGenerator are arranged on the host"
    if samples.blank:
        return "what lies beyond the ends of the data is made missing on the host"
    if samples.others:
        return "parts of several sources are put together on the host"
    return None

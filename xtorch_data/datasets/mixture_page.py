"""What a mixture says of itself, as text and as a page in notebooks."""

from __future__ import annotations

from typing import Any

from ..common import html
from ..common.redact import printable
from ..common.text import number_of

__all__ = ["page_of", "text_of"]


def text_of(mixture: Any) -> str:
    """The repr of a mixture."""
    lines = [
        f"  {printable(name)} ({rate}): " + repr(each).replace("\n", "\n  ")
        for name, each, rate in _datasets(mixture)
    ]
    head = f"<xtorch_data.Mixture of {number_of(len(lines), 'dataset')}, {_epoch(mixture)}"
    return "\n".join([head, *lines]) + ">"


def page_of(mixture: Any) -> str:
    """The HTML of a mixture."""
    mixed = mixture._mixed(mixture.epoch, mixture.world_size)
    counts = mixed.counts(mixed.end)
    rows = [
        (name, rate, f"{count:,} of {whole:,}")
        for (name, _, rate), count, whole in zip(
            _datasets(mixture), counts, mixed.whole, strict=True
        )
    ]
    table = html.table(("dataset", "rate", "batches in an epoch"), rows)
    parts = [html.section("Datasets", ", ".join(mixture.datasets), table, opened=True)]
    parts += [
        html.section(printable(name), rate, each._repr_html_())
        for name, each, rate in _datasets(mixture)
    ]
    return html.page("xtorch_data.Mixture", _epoch(mixture), parts, repr(mixture))


def _datasets(mixture: Any) -> list[tuple[str, Any, str]]:
    """Name, dataset and rate in words of each."""
    return [
        (name, each, f"{mixture.rates[name]} of {mixture.turns.period} batches")
        for name, each in mixture.datasets.items()
    ]


def _epoch(mixture: Any) -> str:
    """Batches of an epoch, and when it ends."""
    end = "the first has no more" if mixture.stop == "first" else "all had all of theirs"
    return f"{number_of(len(mixture), 'batch', 'batches')} an epoch, until {end}"

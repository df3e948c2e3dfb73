"""Sections of the page of a batch in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ..common import html
from ..common.redact import printable
from ..common.text import format_bytes, shape_of
from .labels import Labels
from .part_labels import PartLabels

__all__ = ["batch_sections"]

# Sample numbers that are listed.
SHOWN_NUMBERS = 12


def batch_sections(
    parts: Mapping[str, torch.Tensor],
    part_labels: Mapping[str, PartLabels],
    index: torch.Tensor,
    skipped: Sequence[int],
    labels: Labels | None,
) -> list[str]:
    """What there is to tell of a batch, as HTML."""
    # Where CUDA is not in use there is no pinned memory, and to ask would begin to use it.
    begun = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    rows = []
    for name, tensor in parts.items():
        own = part_labels[name]
        pinned = begun and tensor.is_pinned()
        rows.append(
            (
                name,
                ", ".join(map(printable, own.variables)),
                shape_of(tensor.shape, own.names(index.ndim)),
                str(tensor.dtype).removeprefix("torch."),
                f"{tensor.device}{', pinned' * pinned}",
                format_bytes(tensor.nbytes),
            )
        )
    names = ("part", "variables", "shape", "dtype", "device", "bytes")
    numbers = index.reshape(-1).tolist()
    facts = [("samples", _listed(numbers))]
    if skipped:
        facts.append(("skipped", _listed(skipped)))
    sections = [
        html.facts(facts),
        html.section("Parts", ", ".join(parts), html.table(names, rows), opened=True),
    ]
    if labels is not None and numbers:
        windows, ends = labels.labelled, {"first sample": 0, "last sample": -1}
        found = [windows.ranges(numbers[place]) for place in ends.values()]
        coords = [(name, *(each[name] for each in found)) for name in found[0]]
        table = html.table(("coordinate", *ends), coords)
        sections.append(html.section("Coordinates", f"{len(coords):,}", table, opened=True))
    return sections


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:SHOWN_NUMBERS])) + ", …" * (len(numbers) > SHOWN_NUMBERS)

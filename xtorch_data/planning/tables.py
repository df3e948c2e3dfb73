"""What readers see of a plan: its facts, and windows and chunks as tables in HTML."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

from ..common import html
from ..common.redact import printable
from ..common.text import format_bytes, number_of
from .blocks import BlockGrid
from .chunks import Chunks, Layout
from .edges import ExtendedDim
from .windows import Windows

__all__ = ["chunks_table", "plan_facts", "plan_sections", "windows_table"]


def plan_facts(
    grid: BlockGrid, layouts: Iterable[Layout], pool_blocks: int
) -> Iterator[tuple[str, str]]:
    """How blocks are read; `pool_blocks` of them are shuffled together, 0 for no shuffling."""
    along = zip(grid.windows.axes, grid.shape, strict=False)
    shape = " × ".join(f"{printable(axis.dim)} {count:,}" for axis, count in along)
    yield "blocks", f"{len(grid):,}" + (f" ({shape})" if shape else "")
    yield "a block", f"{format_bytes(max(1, grid.nbytes))} at most"
    if pool_blocks:
        together = min(pool_blocks, len(grid))
        yield "a pool", f"{number_of(together, 'block')}, shuffled together"
    in_chunks = any(layout.in_chunks for layout in layouts)
    what = "decoded" if in_chunks else "not chunked: steps are read"
    yield "chunks", f"{what} about {grid.amplification:.2f} times; explain() counts"


def windows_table(
    windows: Windows,
    labels: Mapping[Hashable, str] | None = None,
    beyond: Mapping[Hashable, ExtendedDim] | None = None,
) -> str:
    """How windows lie along every dim; `labels` say from where to where, where they are known.

    Steps are those of the data, without what windows find `beyond` its ends.
    """
    labels, beyond = labels or {}, beyond or {}
    rows = [
        (
            axis.dim,
            f"{axis.size:,}" if axis.windowed else "each place",
            f"{axis.size - axis.stride:,}" if axis.windowed else "",
            f"{len(axis):,}",
            f"{beyond[axis.dim].length if axis.dim in beyond else axis.length:,}",
            labels.get(axis.dim, ""),
        )
        for axis in windows.axes
    ]
    names = ("dim", "window", "overlap", "windows", "steps", "labels")
    used = len(names) if labels else len(names) - 1
    return html.table(names[:used], [row[:used] for row in rows])


def chunks_table(windows: Windows, layouts: Iterable[Layout]) -> str:
    """How variables are chunked along every dim."""
    dims = [axis.dim for axis in windows.axes]
    rows = [(each.name, *(_grid(each.chunks.get(dim)) for dim in dims)) for each in layouts]
    return html.table(("variable", *map(printable, dims)), rows)


def _grid(chunks: Chunks | None) -> str:
    if chunks is None:
        return "–"
    return f"{chunks.count:,} of {chunks.largest:,}" if chunks.in_chunks else "not chunked"


def plan_sections(windows: Windows, layouts: Sequence[Layout]) -> list[str]:
    """What is shown on a page when it is unfolded: the windows, and the chunks of each variable."""
    names = ", ".join(printable(each.name) for each in layouts)
    return [
        html.section("Windows", f"{len(windows):,}", windows_table(windows)),
        html.section("Chunks", names, chunks_table(windows, layouts)),
    ]

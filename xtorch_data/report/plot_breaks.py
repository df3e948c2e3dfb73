"""Marks where labels break, on pictures of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..common.figures import Axes, ink, paper, plain
from ..common.text import number_of
from ..planning.intervals import Interval
from ..sources.label_steps import Breaks

__all__ = ["mark_breaks"]

# Of more breaks in a picture, no lines are drawn: they would hide what is between them.
MAX_LINES = 100
FONT_SIZE = 8
# Mean width of a character of that size, in inches.
CHARACTER = 0.6 * FONT_SIZE / 72
DASHES = (0, (4, 2))


def mark_breaks(
    ax: Axes, along: str, breaks: Breaks, text: Callable[[int], str] | None, view: Interval
) -> str:
    """Draw a dashed line at each break along an axis, ``"x"`` or ``"y"``, that is in view.

    With the labels on both sides, by `text`, as far as there is room for them. Returns how many
    there are, in words; nothing if there are none.
    """
    start, stop = view
    steps = [step for step in breaks.positions.tolist() if start < step < stop]
    if not steps:
        return ""
    found = number_of(len(steps), "break")
    if len(steps) > MAX_LINES:
        return f"{found}, too many to draw,"
    look = {"color": ink(), "linewidth": 1.2, "linestyles": DASHES, "zorder": 3}
    places = [step - 0.5 for step in steps]
    if along == "x":
        lines = ax.vlines(places, 0, 1, transform=ax.get_xaxis_transform(), **look)
    else:
        lines = ax.hlines(places, 0, 1, transform=ax.get_yaxis_transform(), **look)
    lines.set_gid(f"breaks along {along}")
    if text is not None:
        sides = [(plain(text(step - 1), 24), plain(text(step), 24)) for step in steps]
        _label(ax, along, list(zip(places, sides, strict=True)), stop - start)
    return found


def _label(ax: Axes, along: str, places: list[tuple[float, tuple[str, str]]], length: int) -> None:
    """Write the labels on both sides of lines, where they do not touch those before."""
    width, height = ax.figure.get_size_inches()
    box = ax.get_position()
    inches = box.width * width if along == "x" else box.height * height
    end = -float("inf")
    for place, (before, after) in places:
        # Along x, labels stand side by side; along y, one above the other.
        sizes = (len(before), len(after)) if along == "x" else (3, 3)
        first, last = (CHARACTER * (size + 1) * length / inches for size in sizes)
        if place - first < end:
            continue
        end = place + last
        for side, label in ((-1, before), (1, after)):
            _write(ax, along, place, side, label)


def _write(ax: Axes, along: str, place: float, side: int, label: str) -> None:
    """A label before (-1) or after (1) a line: above the axes, or at their right inside."""
    look: dict[str, Any] = {"fontsize": FONT_SIZE, "color": ink(), "annotation_clip": False}
    if along == "x":
        look |= {"xy": (place, 1), "xycoords": ("data", "axes fraction"), "xytext": (3 * side, 2)}
        look |= {"ha": "right" if side < 0 else "left", "va": "bottom"}
    else:
        look |= {"xy": (1, place), "xycoords": ("axes fraction", "data"), "xytext": (-3, 3 * side)}
        look |= {"ha": "right", "va": "top" if side < 0 else "bottom"}
        look["bbox"] = {"facecolor": paper(), "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
    mark = ax.annotate(label, textcoords="offset points", zorder=4, **look)
    mark.set_gid("label of a break")

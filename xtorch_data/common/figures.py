"""Parts that all plots share: matplotlib when it is wanted, axes, colors and labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from .redact import printable

__all__ = [
    "COLORS",
    "Axes",
    "as_axes",
    "axes_or_new",
    "formula",
    "ink",
    "is_dark",
    "label_dates",
    "label_numbers",
    "label_steps",
    "listed",
    "open_frame",
    "paper",
    "plain",
    "pyplot",
]

# An Axes of matplotlib, which is imported only when something is drawn.
Axes = Any

# Okabe and Ito's colors, which everyone can tell apart: https://jfly.uni-koeln.de/color/
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8A6FBF", "#6F6F6F"]
# Labels of steps with more characters than that stand further apart.
LONG_LABEL = 12
# A figure that fits a notebook or a page of paper.
FIGURE_WIDTH = 10.0
COLUMNS = 3


def pyplot() -> Any:
    """``matplotlib.pyplot``, or an ImportError that says how to get it."""
    try:
        return import_module("matplotlib.pyplot")
    except ImportError as error:
        raise ImportError(
            "plots need matplotlib, which is not installed: pip install 'xtorch_data[plot]'"
        ) from error


def ink(part: float = 1.0) -> Any:
    """The color of text in the style in use, mixed with the paper, so that it needs no alpha."""
    colors = import_module("matplotlib.colors")
    text = np.array(colors.to_rgb(pyplot().rcParams["text.color"]))
    return tuple(part * text + (1 - part) * np.array(colors.to_rgb(paper())))


def paper() -> Any:
    """The color behind what is drawn in the style that is in use."""
    colors, style = import_module("matplotlib.colors"), pyplot().rcParams
    behind = (style[f"{each}.facecolor"] for each in ("axes", "figure"))
    return next((color for color in behind if colors.to_rgba(color)[3]), "white")


def is_dark() -> bool:
    """Whether the style in use draws on dark paper, on which pale colors need more ink."""
    red, green, blue = import_module("matplotlib.colors").to_rgb(paper())
    return bool(0.299 * red + 0.587 * green + 0.114 * blue < 0.5)


def axes_or_new(ax: Axes | None, height: float) -> Axes:
    """The given Axes, or that of a new figure."""
    plt = pyplot()
    if ax is None:
        _, ax = plt.subplots(figsize=(FIGURE_WIDTH, height), layout="constrained")
    return _checked(ax, "ax")


def as_axes(
    axes: Any, rows: int, panels: int, ratio: float, figsize: tuple[float, float] | None
) -> npt.NDArray[Any]:
    """Axes of shape ``(row, panel)``: the given ones, or those of a new figure.

    In a new figure of `figsize` inches, the panels of a row stand in several lines where they are
    many; `ratio` is the height of one over its width.
    """
    plt = pyplot()
    if axes is not None:
        found = np.array(axes, dtype=object)
        if found.size != rows * panels:
            raise ValueError(
                f"axes has {found.size} Axes, but {rows * panels} are drawn on: {panels} panels "
                f"of {rows} samples. Choose with sample=… and variables=…, or give as many"
            )
        for ax in found.flat:
            _checked(ax, "axes")
        return found.reshape(rows, panels)
    columns = min(panels, COLUMNS)
    lines = -(-panels // columns)
    width = min(FIGURE_WIDTH / columns, 5.0)
    size = figsize or (width * columns, (0.8 * width * ratio + 0.9) * lines * rows)
    figure = plt.figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(lines * rows, columns)
    found = np.empty((rows, panels), dtype=object)
    for row, panel in np.ndindex(rows, panels):
        place = grid[row * lines + panel // columns, panel % columns]
        found[row, panel] = figure.add_subplot(place)
    return found


def _checked(ax: Any, argument: str) -> Axes:
    if not hasattr(ax, "add_collection"):
        raise TypeError(f"{argument} must be an Axes of matplotlib, not {type(ax).__name__}")
    return ax


def open_frame(ax: Axes) -> None:
    """Draw no lines above and to the right."""
    if ax.name == "rectilinear":
        ax.spines[["top", "right"]].set_visible(False)


def label_steps(
    axis: Any, text: Callable[[int], str], start: int, stop: int, ticks: int = 6
) -> None:
    """Label up to `ticks` of the steps ``[start, stop)`` along an axis of matplotlib.

    Fewer along x if labels are long, so that they do not touch.
    """
    least = max(1, -(-(stop - start) // ticks))
    power = 10 ** int(np.log10(least))
    every = next(power * each for each in (1, 2, 5, 10) if power * each >= least)
    places = range(-(-start // every) * every, stop, every)
    labels = [plain(text(place), 24) for place in places]
    if axis.axis_name == "x" and max(map(len, labels), default=0) > LONG_LABEL and ticks > 4:
        label_steps(axis, text, start, stop, 4)
    else:
        axis.set_ticks(places, labels)


def label_numbers(axis: Any, ticks: int = 4) -> None:
    """Give an axis of numbers few ticks with whole labels, unless somebody has chosen others."""
    ticker = import_module("matplotlib.ticker")
    locator, formatter = axis.get_major_locator(), axis.get_major_formatter()
    if type(locator) is ticker.AutoLocator and type(formatter) is ticker.ScalarFormatter:
        locator.set_params(nbins=ticks)
        formatter.set_useOffset(False)


def label_dates(axis: Any, ticks: int = 6) -> None:
    """Give an axis of dates few ticks, so that their labels do not touch."""
    dates = import_module("matplotlib.dates")
    locator = dates.AutoDateLocator(minticks=2, maxticks=ticks)
    axis.set_major_locator(locator)
    axis.set_major_formatter(dates.ConciseDateFormatter(locator))


def plain(text: Any, length: int = 60) -> str:
    """Text that matplotlib shows as it is, cut where it is long."""
    found = printable(" ".join(str(text).split()))
    found = found if len(found) <= length else f"{found[: length - 1]}…"
    return found.replace("$", r"\$")


def formula(text: str) -> str:
    """A line of text whose formulas matplotlib typesets, if it can; else it is shown as it is."""
    found = printable(text)
    try:
        import_module("matplotlib.mathtext").MathTextParser("path").parse(found)
    except ValueError:
        return found.replace("$", r"\$")
    return found


def listed(texts: Sequence[str], most: int) -> str:
    """Some texts, as many as there is room for."""
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more:,} more" if more > 0 else "")

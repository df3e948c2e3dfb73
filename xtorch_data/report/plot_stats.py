"""Where the time of an epoch went, as bars."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from ..common.figures import COLORS, Axes, axes_or_new, open_frame, paper

__all__ = ["plot_seconds"]


def plot_seconds(
    stages: Mapping[str, float], wall: float, limit: str, title: str, ax: Axes | None
) -> Axes:
    """Draw a bar for each stage.

    Parameters
    ----------
    stages : mapping of str to float
        Seconds of each.
    wall : float
        Seconds that passed.
    limit : str
        The stage that limits, if it is one of them.
    title : str
        What it is of.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    """
    ax = axes_or_new(ax, 2.9)
    names, seconds = list(stages), list(stages.values())
    colors = [COLORS[0] if name == limit else COLORS[4] for name in names]
    if "wait" in names:  # no work: what the model could have used
        colors[names.index("wait")] = "0.7"
    bars = ax.barh(range(len(names)), seconds, color=colors)
    texts = [f"{value:.2f} s" for value in seconds]
    behind = {"facecolor": paper(), "edgecolor": "none", "pad": 1}
    ax.bar_label(bars, texts, padding=4, fontsize="small", bbox=behind)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.axvline(
        wall, color=COLORS[1], linestyle="--", linewidth=1.2, label=f"wall time, {wall:.2f} s"
    )
    ax.set_xlim(0, 1.12 * max([wall, *seconds]) or 1.0)
    ax.set_xlabel("seconds, summed over threads")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize="small")
    ax.set_title("\n".join(textwrap.wrap(title, 90)), fontsize=10)
    open_frame(ax)
    return ax

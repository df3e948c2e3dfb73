"""``dataset.plot``: where samples lie, and who reads what. From metadata alone."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ..common.figures import Axes
from ..planning.plan import Plan
from ..samples.arguments import as_epoch, as_ranks_and_workers
from ..samples.definition import SampleDefinition
from .plot_plan import plot_plan
from .plot_sources import plot_sources
from .plot_windows import plot_windows

__all__ = ["PlanPlots", "WindowPlots"]


class WindowPlots:
    """Pictures of where samples lie on the data; what ``dataset.plot`` of a `MapDataset` is.

    They need matplotlib, which the extra ``plot`` installs, and read no data.
    """

    def __init__(self, samples: SampleDefinition, plan: Plan) -> None:
        self._samples, self._plan = samples, plan
        self._windows, self._breaks = samples.labelled, samples.breaks.found

    def windows(
        self,
        samples: int | Sequence[int] = 0,
        *,
        dims: Hashable | Sequence[Hashable] | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw where samples lie on the data, and the chunks that hold them.

        Along one dim, each sample is a bar; along two, a rectangle. The chunks that samples touch
        are shaded. Samples that lie on each other, since they differ along dims that are not shown
        alone, are named together. Of long dims, the part around the samples is shown, and labels
        say so. Steps have the labels of the data, where it has coordinates. Dashed lines are
        breaks, which no window crosses, with the labels on both sides; of more than a hundred in
        the picture, the title says how many there are.

        Parameters
        ----------
        samples : int or sequence of int
            Sample numbers, as `windows` counts them; the first fifty of more are drawn.
        dims : Hashable or sequence of Hashable, optional
            One dim, or two, (y, x). By default the last two of the windowed dims along which there
            is more than one window, or the only one.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib.axes.Axes
            What was drawn on.

        Raises
        ------
        IndexError
            If there is no such sample.
        ValueError
            If there is no such dim.
        ImportError
            If matplotlib is not installed.
        """
        return plot_windows(self._samples, self._plan, samples, dims, ax, self._breaks)

    def sources(self, sample: int = 0, *, ax: Axes | None = None) -> Axes:
        """Draw when the steps are that one sample has of each source.

        Each source is a row, and time runs from left to right. Steps are dots or, where a step
        bears the begin of what it sums up (``label="left"``), bars to its end; those of each part
        have a color and a lane of their own. The line is the anchor. What lies between the end of
        the newest step of an as-of source and when it was known, the latency, is hatched: it must
        end at the anchor or before. Steps of forecasts are where they are valid, and the latency
        begins at their init. Sources without times have an empty row.

        Parameters
        ----------
        sample : int
            Sample number, as `windows` counts them.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib.axes.Axes
            What was drawn on.

        Raises
        ------
        IndexError
            If there is no such sample.
        ValueError
            If no dim of the samples has times, or sources have times of different calendars.
        ImportError
            If matplotlib is not installed.
        """
        return plot_sources(self._samples, self._plan, sample, ax)

    def __repr__(self) -> str:
        names = [name for name in dir(type(self)) if not name.startswith("_")]
        return f"<plots of a dataset: {', '.join(f'{name}()' for name in names)}>"


class PlanPlots(WindowPlots):
    """Pictures of samples and of the plan; what ``dataset.plot`` of an `IterableDataset` is.

    They need matplotlib, which the extra ``plot`` installs, and read no data.
    """

    def __init__(self, samples: SampleDefinition, plan: Plan, epoch: int, world_size: int) -> None:
        super().__init__(samples, plan)
        self._epoch, self._world_size = epoch, world_size

    def plan(
        self,
        world_size: int | None = None,
        num_workers: int = 0,
        *,
        epoch: int | None = None,
        dims: Hashable | Sequence[Hashable] | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw the chunks, the blocks, and which rank and worker reads which in which pool.

        Along one dim, each rank or worker has a row, and the color of a block is the pool in which
        it is read: its place in the order of the epoch. Along two dims, colors are ranks and
        workers, and a block that several read is divided between them. Numbers are those of pools.
        A block is drawn from the first step of its first window to where the next block begins;
        what it needs beyond, the halo, is pale. Of very many blocks some are drawn, and the title
        says so.

        Parameters
        ----------
        world_size : int, optional
            Number of ranks; by default the dataset's own.
        num_workers : int
            Worker processes of each rank.
        epoch : int, optional
            Which epoch; the next one by default.
        dims : Hashable or sequence of Hashable, optional
            One dim, or two, (y, x); by default those along which there is more than one block. Of
            the others, the first interval is drawn.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib.axes.Axes
            What was drawn on.

        Raises
        ------
        ValueError
            If there is no such dim, or ranks would get no sample.
        ImportError
            If matplotlib is not installed.
        """
        world_size = self._world_size if world_size is None else world_size
        world_size, num_workers = as_ranks_and_workers(world_size, num_workers)
        self._plan.require_shares(world_size)
        at = self._epoch if epoch is None else as_epoch(epoch)
        return plot_plan(self._windows, self._plan, at, world_size, num_workers, dims, ax)

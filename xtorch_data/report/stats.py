"""Time that the stages of an epoch took, and what they did."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..common import html
from ..common.figures import COLORS, Axes, axes_or_new, ink, open_frame, paper
from ..common.recorder import STAGES, Recorder, Way
from ..common.text import number_of
from ..reading.failures import Failure

__all__ = ["Stats", "stats_of"]


@dataclass(frozen=True, repr=False)
class Stats:
    """Account of one iteration in this process: what it has done so far, and what it took.

    Seconds are summed over threads that work side by side, so that they may exceed `seconds`; a
    stage that several threads share limits the epoch only when all of them are busy.

    Attributes
    ----------
    epoch : int
        Number of the epoch.
    seconds : float
        Wall time since the iteration began, up to its end.
    samples, batches : int
        Samples and batches handed out.
    read, preprocess, prepare, transform, gather : float
        Seconds spent on reading and decoding, in ``preprocess``, on casts and copies of blocks, in
        transforms of samples and batches, and on copying windows into batches.
    wait : float
        Seconds the consumer has waited for batches: time the model could have used.
    bytes_read, bytes_gathered : int
        Bytes of the regions that were read, as they are held, and of batches.
    blocks_read, blocks_cached : int
        Blocks that were read, at least in part, and blocks of which all was in memory from an
        earlier epoch, or on disk.
    retries : int
        Reads that failed in passing and were tried again.
    skipped, repeated : int
        With ``on_error="skip"``, samples left out because they touch what could not be read, and
        samples handed out once more for batches of which nothing was left.
    chunks_missing : int
        Chunks that are not in their store, which gives them the fill value; of what is read
        directly alone, as `paths` has it: others do not tell. Counted each time they are asked for.
    failures : tuple of Failure
        What could not be read.
    paths : mapping of str to int
        Ways that the data went, and how often. Regions of a variable: read directly, by zarr's
        codec pipeline, by another backend, computed by dask, here or on a cluster, or taken from
        the cache on disk. Windows of a variable: selected by torch, many at once; copied one by
        one; split, which is copied from several blocks; or transformed.
    """

    epoch: int
    seconds: float
    samples: int
    batches: int
    read: float
    preprocess: float
    prepare: float
    transform: float
    gather: float
    wait: float
    bytes_read: int
    bytes_gathered: int
    blocks_read: int
    blocks_cached: int
    retries: int = 0
    skipped: int = 0
    repeated: int = 0
    chunks_missing: int = 0
    failures: tuple[Failure, ...] = ()
    paths: Mapping[str, int] = field(default_factory=dict)

    @property
    def limited_by(self) -> str:
        """The stage that took most, or ``"consumer"`` if it hardly ever waited."""
        if self.wait < 0.05 * self.seconds:
            return "consumer"
        return max(STAGES[:-1], key=lambda stage: float(getattr(self, stage)))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw where the time went: a bar for each stage, and the wall time as a line.

        Bars may pass the line, since threads work side by side. The one that limits is dark. Needs
        matplotlib, which the extra ``plot`` installs.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib.axes.Axes
            What was drawn on.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = axes_or_new(ax, 2.9)
        seconds = [getattr(self, stage) for stage in STAGES]
        colors = [COLORS[0] if stage == self.limited_by else COLORS[4] for stage in STAGES]
        colors[STAGES.index("wait")] = ink(0.3)  # no work: what the model could have used
        bars = ax.barh(range(len(STAGES)), seconds, color=colors)
        behind = {"facecolor": paper(), "edgecolor": "none", "pad": 1}
        texts = [f"{value:.2f} s" for value in seconds]
        ax.bar_label(bars, texts, padding=4, fontsize="small", bbox=behind)
        ax.set_yticks(range(len(STAGES)), STAGES)
        ax.invert_yaxis()
        wall = f"wall time, {self.seconds:.2f} s"
        ax.axvline(self.seconds, color=COLORS[1], linestyle="--", linewidth=1.2, label=wall)
        ax.set_xlim(0, 1.12 * max([self.seconds, *seconds]) or 1.0)
        ax.set_xlabel("seconds, summed over threads")
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize="small")
        ax.set_title("\n".join(textwrap.wrap(self._head(), 90)), fontsize=10)
        open_frame(ax)
        return ax

    def _head(self) -> str:
        rate = self.samples / self.seconds if self.seconds else 0.0
        return (
            f"epoch {self.epoch}: {number_of(self.samples, 'sample')} in "
            f"{number_of(self.batches, 'batch', 'batches')}, {self.seconds:.2f} s "
            f"({rate:,.0f} samples/s), limited by {self.limited_by}"
        )

    def _stages(self) -> list[tuple[str, str]]:
        return [(stage, f"{getattr(self, stage):.2f} s") for stage in STAGES]

    def _data(self) -> str:
        """Blocks and bytes that were read and gathered."""
        cached = f" and {self.blocks_cached} from the cache" if self.blocks_cached else ""
        blocks = number_of(self.blocks_read, "block")
        found = [
            f"{blocks} ({self.bytes_read / 1e6:,.1f} MB) read{cached}",
            f"{self.bytes_gathered / 1e6:,.1f} MB gathered",
        ]
        if self.retries:
            found.append(f"{number_of(self.retries, 'read')} tried again")
        if self.chunks_missing:
            found.append(f"{number_of(self.chunks_missing, 'chunk')} not there (fill values)")
        return ", ".join(found)

    def __str__(self) -> str:
        stages = ", ".join(f"{stage} {seconds}" for stage, seconds in self._stages())
        paths = ", ".join(f"{count} {path}" for path, count in self.paths.items())
        return "\n  ".join([self._head(), stages, self._data(), paths])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        parts = [
            html.facts([("seconds", f"{self.seconds:.2f} s"), ("data", self._data())]),
            html.section("Stages", self.limited_by, html.table(("stage", "time"), self._stages())),
        ]
        if self.paths:
            paths = [(path, f"{count:,}") for path, count in self.paths.items()]
            parts.append(html.section("Paths", "", html.table(("path", "times"), paths)))
        if self.failures:
            failures = html.bullets(map(str, self.failures))
            parts.append(html.section("Failures", f"{len(self.failures):,}", failures))
        return html.page("xtorch_data.Stats", self._head(), parts, str(self))


def stats_of(recorder: Recorder) -> Stats:
    """Stats of what has been recorded so far."""
    counts, ways, failures = recorder.counted()
    paths = {way.value: ways[way] for way in Way if way in ways}
    return Stats(
        epoch=recorder.epoch, seconds=recorder.seconds, failures=failures, paths=paths, **counts
    )

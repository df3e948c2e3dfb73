"""Where the time of an epoch went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..common import html
from ..common.figures import Axes
from ..common.recorder import Recorder
from ..common.text import number_of
from ..reading.failures import Failure
from .plot_stats import plot_seconds

__all__ = ["Stats", "stats_of"]

# Ways that reads and gathered windows go.
PATHS = (
    "read directly",
    "read by zarr",
    "read by its backend",
    "computed by dask",
    "computed on a dask cluster",
    "taken from disk",
    "windows selected",
    "windows indexed",
    "windows copied",
    "windows split",
    "windows transformed",
)
STAGES = ("read", "preprocess", "prepare", "transform", "gather", "wait")


@dataclass(frozen=True, repr=False)
class Stats:
    """What one iteration in this process has done so far, and what it took.

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
        the cache on disk. Windows of a variable: selected by torch or indexed by numpy, many at
        once; copied one by one; split, which is copied from several blocks; or transformed.
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
        return plot_seconds(
            {stage: getattr(self, stage) for stage in STAGES},
            self.seconds,
            self.limited_by,
            str(self).splitlines()[0],
            ax,
        )

    def __str__(self) -> str:
        rate = self.samples / self.seconds if self.seconds else 0.0
        stages = ", ".join(f"{stage} {getattr(self, stage):.2f} s" for stage in STAGES)
        blocks = number_of(self.blocks_read, "block")
        batches = number_of(self.batches, "batch", "batches")
        cached = f" and {self.blocks_cached} from the cache" if self.blocks_cached else ""
        missing = ""
        if self.chunks_missing:
            missing = f", {number_of(self.chunks_missing, 'chunk')} not there (fill values)"
        retries = f", {number_of(self.retries, 'read')} tried again" if self.retries else ""
        return (
            f"epoch {self.epoch}: {number_of(self.samples, 'sample')} in {batches}, "
            f"{self.seconds:.2f} s ({rate:,.0f} samples/s), limited by {self.limited_by}\n"
            f"  {stages}\n"
            f"  {blocks} ({self.bytes_read / 1e6:,.1f} MB) read{cached}, "
            f"{self.bytes_gathered / 1e6:,.1f} MB gathered{retries}{missing}\n"
            f"  {', '.join(f'{count} {path}' for path, count in self.paths.items())}"
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, _, *rest = str(self).splitlines()
        seconds = [(stage, f"{getattr(self, stage):.2f} s") for stage in STAGES]
        paths = [(path, f"{count:,}") for path, count in self.paths.items()]
        parts = [html.facts([("seconds", f"{self.seconds:.2f} s"), ("data", rest[0].strip())])]
        parts.append(
            html.section("Stages", self.limited_by, html.table(("stage", "time"), seconds))
        )
        if paths:
            parts.append(html.section("Paths", "", html.table(("path", "times"), paths)))
        if self.failures:
            failures = html.bullets(map(str, self.failures))
            parts.append(html.section("Failures", f"{len(self.failures):,}", failures))
        return html.page("xtorch_data.Stats", head, parts, str(self))


def stats_of(recorder: Recorder) -> Stats:
    """What has been recorded so far."""
    sums, failures = recorder.counted()
    return Stats(
        epoch=recorder.epoch,
        seconds=recorder.seconds,
        samples=int(sums.get("samples", 0)),
        batches=int(sums.get("batches", 0)),
        read=sums.get("read", 0.0),
        preprocess=sums.get("preprocess", 0.0),
        prepare=sums.get("prepare", 0.0),
        transform=sums.get("transform", 0.0),
        gather=sums.get("gather", 0.0),
        wait=sums.get("wait", 0.0),
        bytes_read=int(sums.get("bytes_read", 0)),
        bytes_gathered=int(sums.get("bytes_gathered", 0)),
        blocks_read=int(sums.get("blocks_read", 0)),
        blocks_cached=int(sums.get("blocks_cached", 0)),
        retries=int(sums.get("retries", 0)),
        skipped=int(sums.get("skipped", 0)),
        repeated=int(sums.get("repeated", 0)),
        chunks_missing=int(sums.get("chunks_missing", 0)),
        failures=failures,
        paths={path: int(sums[path]) for path in PATHS if path in sums},
    )

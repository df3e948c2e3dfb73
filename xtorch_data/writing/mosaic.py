"""Mosaic: predictions of samples, laid into one labeled Dataset over the dims of the data."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from ..common.text import number_of
from ..datasets.iterable import IterableDataset
from ..datasets.map import MapDataset
from ..planning.overlap_add import Blend
from ..samples.batch import Batch
from .exchange import Exchange, keep_sums
from .finishing import Finishing, with_nan
from .mosaic_checks import (
    as_predictions,
    dtype_of_sums,
    require_fit,
    require_like_before,
    require_new,
    without_repeated,
)
from .mosaic_explanation import MosaicExplanation
from .mosaic_layout import MosaicLayout, Values
from .mosaic_store import Mode, MosaicStore
from .mosaic_writable import require_elsewhere
from .partial_sums import PartialSums, Tile
from .ranks import Ranks

__all__ = ["Mosaic"]


class Mosaic:
    """Predictions of samples, laid into one labeled Dataset over the dims of the data.

    Each prediction lies where its target does. Of windows with a halo only the core counts, windows
    that wrap around a circle fold back, and what lies beyond the ends of the data is dropped.

    The result has the variables of a part, with the dims of the samples in the order of the data:
    along windowed dims as many steps as the targets of the dataset reach over, also where `Select`
    takes a single one. Coordinates and attributes are those of the data. Places that nobody
    predicted, such as those that no event reaches, are NaN.

    Parameters
    ----------
    dataset : IterableDataset or MapDataset
        The samples; of a part of a split, its own.
    path : str, path or zarr store, optional
        Where to write the result, chunk by chunk as each is complete; without it, it is in memory.
    part : str
        The part in whose place predictions stand.
    keep : Hashable or mapping of Hashable to (Hashable, Hashable), optional
        A windowed dim along which windows stay apart. With ``keep="time"`` the result has
        ``init_time``, the labels of the anchors of samples, and ``lead_time``, the label of each
        step less that; ``time`` itself is a coordinate of both. A mapping gives other names,
        ``keep={"time": ("init", "lead")}``. Where labels are not as far apart in every window, as
        months are, ``lead_time`` counts steps. Around events it has a row for each of them, where
        they have labels of this dim alone.
    blend : {"mean", "hann"}, optional
        Weights of the steps of a window where samples overlap, divided by their sum at each place:
        all the same, or less to both ends of a window. There is none by default, and an overlap is
        an error.
    inverse : callable, optional
        What brings predictions back to units: a `Normalize`, or a function of a labeled Dataset. It
        takes what is blended; with a `path`, a chunk at a time.
    encoding : mapping, optional
        By variable, what `xarray.Dataset.to_zarr` takes. Chunks and shards are those of the source
        by default, as far as `memory` allows.
    mode : {"w-", "w", "a"}
        With a `path`: to refuse one that exists, to replace it, or to go on with one that is not
        complete. Chunks that are complete stay as they are; samples of the others are to be added
        again.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit the samples, or these overlap along a dim that is neither kept
        nor blended, which the message names.
    FileExistsError
        If there is something at `path` that `mode` does not allow.

    Notes
    -----
    Ranks of torch.distributed make, fill and close a mosaic with a path together, each with its own
    samples. `close` waits for all of them; sums of chunks that have samples of several ranks are
    exchanged in the store. An exception in the ``with`` block ends it without waiting. A rank whose
    dataset has ``rank=0, world_size=1`` is alone.

    Without torch.distributed, processes that ``RANK`` and ``WORLD_SIZE``, or `rank` and
    `world_size` of their datasets, tell apart do so, too, at the same time or one after the other:
    none waits. `close` leaves the sums of a process in the store, and the last one of all completes
    it; before that, `to_xarray` is an error. One that was killed is run again with ``mode="a"``.

    Until `close` the store is marked incomplete, and no dataset takes it as data; so it stays if
    the ``with`` block ends by an exception, or the process is killed. Sums of chunks that are not
    complete are kept in the dataset's `memory`; what is more goes into a scratch file beside the
    store.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xtorch_data as xtd
    >>> t2m = xr.DataArray(np.arange(8.0), dims="x", name="t2m")
    >>> samples = xtd.MapDataset(t2m, {"x": 4}, {"x": 2}, inputs="t2m", targets="t2m")
    >>> with Mosaic(samples, blend="mean") as mosaic:
    ...     for batch in xtd.DataLoader(samples, batch_size=2):
    ...         mosaic.add(batch, 2 * batch.x)
    >>> mosaic.to_xarray()["t2m"].values
    array([ 0.,  2.,  4.,  6.,  8., 10., 12., 14.], dtype=float32)
    """

    def __init__(
        self,
        dataset: IterableDataset | MapDataset,
        path: Any = None,
        *,
        part: str = "y",
        keep: Hashable | Mapping[Any, tuple[Hashable, Hashable]] | None = None,
        blend: Blend | None = None,
        inverse: Callable[[xr.Dataset], xr.Dataset] | Any = None,
        encoding: Mapping[Any, Mapping[str, Any]] | None = None,
        mode: Mode = "w-",
    ) -> None:
        if not isinstance(dataset, (IterableDataset, MapDataset)):
            raise TypeError(
                "dataset must be an xtorch_data.IterableDataset or MapDataset, not "
                f"{type(dataset).__name__}"
            )
        inside = dataset._inside
        self._ranks = Ranks.of(getattr(inside, "how", None), stored=path is not None)
        if path is None and self._ranks.size > 1:
            raise ValueError(
                f"{self._ranks.size} ranks have predictions of samples of their own: give a path, "
                "where they are laid together"
            )
        self._layout = MosaicLayout.of(inside.what, part, keep, blend)
        self._blend, self._finishing = blend, Finishing.of(self._layout, inverse)
        self._memory = inside.plan.memory
        self._store = None
        if path is not None:
            require_elsewhere(path, {each.origin for each, _ in inside.definition.every_part})
            self._store = MosaicStore(
                path, mode, self._layout, encoding or {}, self._memory, blend, self._ranks
            )
        elif encoding is not None or mode != "w-":
            given = "encoding" if encoding is not None else "mode"
            raise ValueError(f"{given} is for a result that is written: give a path")
        shape = self._layout.field.shape
        self._added = np.zeros(shape, dtype=bool).reshape(-1)
        self._sums: PartialSums | None = None
        self._complete: list[Tile] = []  # tiles that could not be written yet
        self._weights: Values | None = None  # of the steps of a sample
        self._left: npt.NDArray[np.int64] | None = None
        self._result: xr.Dataset | None = None
        self._state: Literal["open", "closed", "left incomplete"] = "open"

    # Adding.

    def add(
        self, batch: Batch, y: torch.Tensor | Values, dims: Sequence[Hashable] | None = None
    ) -> None:
        """Lay the predictions of the samples of a batch.

        Parameters
        ----------
        batch : Batch
            The samples, in any order and each once; those that it marks as `Batch.repeated` are
            left out.
        y : torch.Tensor or numpy.ndarray
            Predictions, shaped as the tensor of the part, ``(sample, …)``, on any device. Along
            dims with a halo they may have only the core.
        dims : sequence of Hashable, optional
            Names of the dims of `y`, where it has more than the part or another order, such as
            ``("sample", "member", "time", …)``; ``...`` stands for the others. Those that the part
            lacks come first in the result.

        Raises
        ------
        TypeError, ValueError
            If `y` does not fit, a sample is added twice, is none of the dataset's or was flipped,
            integers overlap, or the mosaic is closed.
        """
        if self._state != "open":
            raise ValueError(f"this mosaic is {self._state}: nothing can be added")
        require_fit(batch, self._layout)
        values, others = self._layout.arranged(as_predictions(y), dims, batch.index.ndim)
        numbers, values = without_repeated(batch, values)
        if not len(numbers):
            return
        if self._store is not None and self._store.is_left:  # by an earlier run of this rank
            return
        require_new(numbers, self._layout.samples, self._added)
        sums = self._begun(values, others)
        along = self._layout.numbers(numbers)
        try:
            self._added[numbers] = True
            if self._store is None:
                sums.add(along, values, self._weights)
            else:
                sums.add(along, values, self._weights, self._store.done, self._finish, self._left)
        except BaseException:  # some of them are laid, and nobody knows which
            self._leave()
            raise

    def _begun(self, values: Values, others: dict[Hashable, int]) -> PartialSums:
        """The sums; the first batch says of what dtype they are, and of which other dims."""
        if self._sums is None:
            dtype = dtype_of_sums(values.dtype, self._layout.field.overlaps)
            self._finishing.others = others
            self._begin(dtype)
        assert self._sums is not None
        require_like_before(others, self._finishing.others, values.dtype, self._sums.dtype)
        return self._sums

    def _begin(self, dtype: np.dtype[Any]) -> None:
        layout, store = self._layout, self._store
        field, memory, folder = layout.field, None, None
        if store is not None:
            if dtype.kind in "iub" and not layout.whole:
                dtype = with_nan(dtype)
            field = store.begin(dtype, self._finishing.others, self._finishing.labeled)
            self._left = field.counts(layout.samples)
            memory, folder = self._memory, store.folder
        if layout.weights is not None:
            self._weights = layout.weights.astype(dtype)
        lead = (len(layout.part.variables), *self._finishing.others.values())
        self._sums = PartialSums(field, layout.dropped, lead, dtype, memory, folder)

    def wanted(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """For each sample of a batch, whether its predictions are still to be added.

        Of a store that goes on, those of chunks that are complete are not.

        Parameters
        ----------
        batch : Batch
            Samples of the dataset.

        Returns
        -------
        numpy.ndarray of bool
            Shape ``(sample,)``.
        """
        numbers = batch.index.numpy().reshape(-1)
        found = ~batch.repeated.numpy().reshape(-1)
        if self._store is None:
            return found
        return np.asarray(found & self._store.lacking(numbers) & (not self._store.is_left))

    # Finishing.

    def _finish(self, tile: Tile) -> None:
        """Write a tile to which all of its samples were added, as soon as that can be."""
        assert self._store is not None and self._sums is not None
        self._complete.append(tile)
        if self._store.ready:
            self._write_complete()

    def _write_complete(self) -> None:
        """Write the tiles that are complete."""
        assert self._store is not None and self._sums is not None and self._store.ready
        for tile in self._complete:
            self._write(tile, self._sums.taken(tile), self._layout.samples)
        self._complete.clear()

    def _write(self, tile: Tile, sums: Values, added: npt.NDArray[np.bool_] | None) -> None:
        assert self._store is not None and self._sums is not None
        self._store.write(tile, self._finishing.of_tile(self._sums.field, tile, sums, added))

    @property
    def _missing(self) -> npt.NDArray[np.bool_]:
        """Samples of the dataset that were not added."""
        missing = ~self._added
        if self._layout.samples is not None:
            missing &= self._layout.samples.reshape(-1)
        return np.asarray(missing)

    @property
    def lacking(self) -> int:
        """How many samples of the dataset are still to be added."""
        missing = self._missing
        if self._store is not None:
            missing = missing & self._store.lacking(slice(None))
        return int(np.count_nonzero(missing))

    def _of_added(self) -> npt.NDArray[np.bool_] | None:
        """Which samples were added, shaped as the sample axes; None for all that there can be."""
        if self._added.all():
            return None
        return self._added.reshape(self._layout.field.shape)

    def to_xarray(self) -> xr.Dataset:
        """The result: of a mosaic in memory what was added so far, of one with a path once closed.

        Returns
        -------
        xarray.Dataset
            The variables of the part. Opened lazily where it was written.

        Raises
        ------
        ValueError
            If it is written, and not complete.
        """
        if self._result is not None:
            return self._result.copy()
        if self._store is not None and self._state != "closed":
            raise ValueError(
                f"{self._store} is not complete: close() completes it, and mode='a' goes on"
            )
        if self._store is not None:
            self._result = self._store.completed()
            return self._result.copy()
        if self._state != "open":
            raise ValueError("an error broke off a batch of this mosaic: make another")
        return self._in_memory(copy=True)

    def _so_far(self) -> tuple[str, xr.Dataset] | None:
        """The reason why a closed mosaic is not complete, and its store; None if it is."""
        if self._store is None or self._result is not None:
            return None
        return self._store.so_far()

    def _in_memory(self, copy: bool) -> xr.Dataset:
        sums = self._begun_anyhow()
        tile = (0,) * len(self._layout.field.dims)
        values = sums.tile(tile).copy() if copy else sums.tile(tile)
        return self._finishing.of_tile(sums.field, tile, values, self._of_added())

    def _begun_anyhow(self) -> PartialSums:
        """The sums, also where no batch came."""
        mine = None if self._sums is None else (self._sums.dtype.str, self._finishing.others)
        if self._store is not None:
            mine = mine or self._store.predictions
        known = [each for each in self._ranks.together(lambda: mine) if each is not None]
        if any(each != known[0] for each in known):
            raise ValueError(f"ranks have predictions of other dtypes or dims: {known}")

        def begin() -> None:
            if self._sums is None:
                dtype, self._finishing.others = known[0] if known else ("float32", {})
                self._begin(np.dtype(dtype))

        self._ranks.together(begin)
        assert self._sums is not None
        return self._sums

    def close(self) -> None:
        """Complete the result; nothing can be added afterwards.

        With a path, what is left is written, and the store is no longer marked incomplete.
        """
        if self._state != "open":
            return
        if self._store is None:
            self._result = self._in_memory(copy=False)
        else:
            try:
                self._result = self._completed(self._store)
            except BaseException:
                self._leave()
                raise
        self._state = "closed"
        if self._sums is not None:
            self._sums.close()

    def _completed(self, store: MosaicStore) -> xr.Dataset | None:
        """The result; None while other processes have not closed theirs, which do not wait."""
        if self._ranks.apart or store.is_left:
            self._leave_sums(store)
            if not store.is_last():
                return None
        sums = self._begun_anyhow()
        self._ranks.first(store.create)
        if self._ranks.apart:
            store.catch_up()
        self._ranks.together(self._write_complete)  # an error of one is told to all
        exchange = Exchange.of(self._ranks, store, sums, self._added)
        self._added = exchange.added()
        missing = self.lacking
        if missing and sums.dtype.kind in "iub":
            raise ValueError(
                f"not added: {number_of(missing, 'sample')}, and {sums.dtype} has no value for "
                "what is missing; add the rest, or make predictions floating"
            )
        added = self._of_added()

        def finish() -> None:
            for tile, values in exchange.tiles():
                self._write(tile, values, added)

        self._ranks.together(finish)
        return store.finish(missing, lambda tile: self._finishing.nothing(sums, tile))

    def _leave_sums(self, store: MosaicStore) -> None:
        """Leave what this process has for the last one, unless an earlier run of it has."""
        if store.is_left:
            return
        if self._sums is not None:
            store.create()
            assert store.ready
            self._write_complete()
        store.leave_tiles(keep_sums(store, self._sums, self._added))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, *error: Any) -> None:
        if kind is None:
            self.close()
        elif self._state == "open" and self._store is not None:
            self._leave()

    def _leave(self) -> None:
        """Leave the store as it is, marked incomplete."""
        self._state = "left incomplete"
        if self._store is not None:
            self._store.leave()
        if self._sums is not None:
            self._sums.close()

    def explain(self) -> MosaicExplanation:
        """What the result is, what it takes, and how far it is.

        Returns
        -------
        MosaicExplanation
            Prints as text, in a notebook as a table.
        """
        return MosaicExplanation.of(
            self._layout, self._blend, self._finishing.others, self._sums, self._store,
            self._memory, int(np.count_nonzero(self._added)),
            int(np.count_nonzero(self._missing)),
        )  # fmt: skip

    def __repr__(self) -> str:
        sizes = dict(zip(self._layout.dims, self._layout.field.sizes, strict=True))
        shown = ", ".join(f"{dim}: {size:,}" for dim, size in sizes.items())
        where = "in memory" if self._store is None else f"in {self._store}"
        return (
            f"<xtorch_data.Mosaic of {list(self._layout.part.variables)} ({shown}) {where}, "
            f"{self._state}>"
        )

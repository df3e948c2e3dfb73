"""What holds for everything, unless an argument says otherwise."""

from __future__ import annotations

__all__ = ["options", "set_options"]

options: dict[str, bool | None] = {"progress": None}


class set_options:  # noqa: N801, named as xarray's
    """Set an option, from now on or in a ``with`` block, as `xarray.set_options` does.

    Parameters
    ----------
    progress : bool, optional
        Whether whatever takes long shows a bar of tqdm: `Normalize.fit`, a function as ``where``,
        `watch`. None, which holds at first: in a terminal or notebook, where it takes more than two
        seconds, if tqdm is installed; what was asked for with `watch` in any case.

    Raises
    ------
    ValueError
        If `progress` is none of these.

    Examples
    --------
    >>> with set_options(progress=False):
    ...     pass  # without a bar
    """

    def __init__(self, *, progress: bool | None) -> None:
        if progress is not None and not isinstance(progress, bool):
            raise ValueError(f"progress must be True, False or None, not {progress!r}")
        self._before = dict(options)
        options["progress"] = progress

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        options.update(self._before)

"""Options of the process, which hold unless an argument says otherwise."""

from __future__ import annotations

from types import EllipsisType
from typing import Any

__all__ = ["options", "set_options"]

options: dict[str, Any] = {"progress": None, "read_timeout": 300.0}


class set_options:  # noqa: N801, named as xarray's
    """Set an option, from now on or in a ``with`` block, as `xarray.set_options` does.

    Parameters
    ----------
    progress : bool, optional
        Whether whatever takes long shows a bar of tqdm: `Normalize.fit`, a function as ``where``,
        `watch`. None, which holds at first: in a terminal or notebook, where it takes more than two
        seconds, if tqdm is installed; what was asked for with `watch` in any case.
    read_timeout : float, optional
        Seconds after which a request to a remote store counts as failed that has not been answered
        in full; 300 at first. It holds for each try: a server that never answers is an error after
        ``retries + 1`` times as long, 20 minutes at first. None waits as long as the client of the
        store does. A dataset keeps what holds when it is made.

    Raises
    ------
    ValueError
        If `progress` or `read_timeout` is none of these.

    Examples
    --------
    >>> with set_options(progress=False):
    ...     pass  # without a bar
    """

    def __init__(
        self,
        *,
        progress: bool | EllipsisType | None = ...,
        read_timeout: float | EllipsisType | None = ...,
    ) -> None:
        given = {"progress": progress, "read_timeout": read_timeout}
        if not isinstance(progress, bool | EllipsisType | None):
            raise ValueError(f"progress must be True, False or None, not {progress!r}")
        if read_timeout is not None and read_timeout is not ...:
            number = isinstance(read_timeout, float | int) and not isinstance(read_timeout, bool)
            if not number or not read_timeout > 0:
                raise ValueError(
                    f"read_timeout must be a number of seconds above 0, or None, not "
                    f"{read_timeout!r}"
                )
        self._before = dict(options)
        options.update({name: value for name, value in given.items() if value is not ...})

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        options.update(self._before)

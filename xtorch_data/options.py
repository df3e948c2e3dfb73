"""What holds for everything, unless an argument says otherwise."""

from __future__ import annotations

from typing import Any

__all__ = ["options", "set_options"]

options: dict[str, Any] = {"progress": None}


class set_options:  # noqa: N801, named as xarray's
    """Set options, from now on or in a ``with`` block, as `xarray.set_options` does.

    Parameters
    ----------
    progress : bool, optional
        Whether whatever takes long shows a bar of tqdm: `Normalize.fit`, a function as ``where``,
        `watch`. None, which holds at first: in a terminal or notebook, where it takes more than two
        seconds, if tqdm is installed; what was asked for with `watch` in any case.

    Raises
    ------
    TypeError
        If there is no such option.
    ValueError
        If an option does not take the value.

    Examples
    --------
    >>> with set_options(progress=False):
    ...     pass  # without a bar
    """

    def __init__(self, **kwargs: Any) -> None:
        for name, value in kwargs.items():
            if name not in options:
                raise TypeError(f"there is no option {name!r}; there are {list(options)}")
            if value is not None and not isinstance(value, bool):
                raise ValueError(f"{name} must be True, False or None, not {value!r}")
        self._before = {name: options[name] for name in kwargs}
        options.update(kwargs)

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        options.update(self._before)

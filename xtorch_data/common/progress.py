"""A progress bar for long work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .options import options

__all__ = ["bar"]

# A bar that nobody asked for appears after so many seconds.
DELAY = 2.0


@contextmanager
def bar(
    total: int | Callable[[], int], unit: str, title: str, wanted: bool | None = None
) -> Iterator[Callable[[int], object]]:
    """A function that tells a bar of tqdm how many more are done; a callable `total` counts them.

    A bar is shown if it is `wanted`; None asks `set_options`. If that says None, too: in a terminal
    or notebook, if tqdm is installed and it takes a while. Raises ImportError if a bar is wanted
    and tqdm is missing.
    """
    if wanted is None:
        wanted = options["progress"]
    if wanted is False:
        yield lambda done: None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        if wanted:
            raise ImportError("progress=True shows a bar of tqdm: pip install tqdm") from error
        yield lambda done: None
        return
    how = {} if wanted else {"delay": DELAY, "disable": None}
    with tqdm(unit=unit, desc=title, **how) as shown:
        if not shown.disable:
            shown.total = total() if callable(total) else total
            shown.refresh()
        yield shown.update

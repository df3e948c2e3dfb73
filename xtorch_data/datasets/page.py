"""How datasets are shown in notebooks and completed at prompts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from ..samples.definition import Samples

__all__ = ["Shown"]


class Shown:
    """A dataset with a page of its own in notebooks."""

    # What loaders and other modules ask of a dataset; tab completion leaves it out.
    _for_loaders: ClassVar[frozenset[str]] = frozenset()
    _samples: Samples

    def _facts(self) -> list[tuple[str, Any]]:
        """What there is to say of it, beside its samples."""
        raise NotImplementedError

    def _sections(self) -> list[str]:
        """More to unfold, as HTML."""
        return []

    def page(self, kind: str, text: str, facts: Iterable[tuple[str, Any]] = ()) -> str:
        """What a notebook shows of it, or of its loader.

        Parameters
        ----------
        kind : str
            Name of the class.
        text : str
            The plain repr.
        facts : iterable of (str, object), optional
            What there is to say first.
        """
        return self._samples.page(kind, text, [*facts, *self._facts()], self._sections())

    def _repr_html_(self) -> str:
        return self.page(type(self).__name__, repr(self))

    def __dir__(self) -> Iterable[str]:
        return sorted({*super().__dir__()} - self._for_loaders)

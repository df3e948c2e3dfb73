"""How samples become a batch: what it consists of, and the functions it goes through."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..planning.windows import Windows
from .generator_items import Items
from .labels import Labels
from .select import Part
from .transforms import Transform

__all__ = ["Recipe"]


@dataclass(frozen=True, eq=False)
class Recipe:
    """How samples become a batch.

    Attributes
    ----------
    windows : Windows
        The sample space.
    parts : tuple of Part
        What a sample consists of.
    transforms : mapping of str to Transform
        Function for the samples of a part, by name.
    batch_transform : Transform, optional
        Function for the labeled batch.
    sample_dims : tuple of Hashable
        Windowed dims in the order of the tensors.
    items : Items, optional
        How a window is arranged, where samples are the items of an xbatcher generator.
    floating : numpy.dtype
        What floating data is gathered as.
    cast : torch.dtype, optional
        What it is cast to afterwards, where numpy lacks the dtype.
    seed : int
        What random transforms depend on.
    labels : Labels
        Coordinates.
    """

    windows: Windows
    parts: tuple[Part, ...]
    transforms: Mapping[str, Transform]
    batch_transform: Transform | None
    sample_dims: tuple[Hashable, ...]
    items: Items | None
    floating: np.dtype[Any]
    cast: torch.dtype | None
    seed: int
    labels: Labels

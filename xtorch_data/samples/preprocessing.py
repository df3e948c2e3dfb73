"""From blocks as they were read to those that samples are cut from.

Where values are present is noted first; then the user's function is called, and what it must keep
is checked.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from ..common.random import BLOCK_TRANSFORM, generator
from ..common.recorder import Recorder
from ..planning.edges import ExtendedDim
from ..planning.stages import BlockRead
from ..planning.windows import Windows
from ..sources.declared_dtypes import keeps_values
from ..sources.lazy_arrays import holds_memory, is_computed
from .presence import Present, presence_of
from .transforms import Transform
from .trials import labels_of, require_labels_kept
from .unused import for_block

__all__ = ["Preprocessor", "check_preprocessed"]


@dataclass(frozen=True, eq=False)
class Preprocessor:
    """Notes what is present in blocks of one epoch, and applies the user's function to them.

    Made for each epoch that is read, and called on the threads that prepare blocks.
    """

    dataset: xr.Dataset  # what blocks are of, lazily
    windows: Windows
    # Of the variables of the parts, after preprocess.
    variable_dims: Mapping[Hashable, frozenset[Hashable]]
    variable_dtypes: Mapping[Hashable, np.dtype[Any]]
    preprocess: Transform | None
    seed: int  # this and the epoch matter if the function is random
    epoch: int
    recorder: Recorder  # notes what it takes
    # Variables whose presence is noted, and how it is told.
    present: Mapping[Hashable, Present] = field(default_factory=dict)
    values: Container[Hashable] | None = None  # what is given to the function; None for all
    beyond: Mapping[Hashable, ExtendedDim] = field(default_factory=dict)  # the ends of dims

    def __call__(self, load: BlockRead, block: xr.Dataset) -> xr.Dataset:
        """The block of a load, from its region as it was read."""
        region = load.frame.named(load.region)
        made_up = {dim: each.made_up(*region[dim]) for dim, each in self.beyond.items()}
        present = presence_of(block.variables, self.present, made_up)
        if self.values is not None:
            block = block.drop_vars([name for name in block.data_vars if name not in self.values])
        if self.preprocess is not None:
            block = self._preprocessed(self.preprocess, load, block)
        return block.assign(present) if present else block

    def _preprocessed(
        self, preprocess: Transform, load: BlockRead, block: xr.Dataset
    ) -> xr.Dataset:
        """Apply the function to the block of a load."""
        for name, variable in block.data_vars.items():
            source = self.dataset.variables[name]
            lacks = any(axis.dim not in source.dims for axis in self.windows.axes)
            if holds_memory(source) or is_computed(source) or lacks:
                # It is also the user's (a graph of dask may hold what it was made of), or another
                # block's, and the function may work in place.
                block[name] = variable.variable.copy(deep=True)

        def rng() -> np.random.Generator:
            return generator(self.seed, self.epoch, BLOCK_TRANSFORM, load.block)

        labels = labels_of(block)
        try:
            region = load.frame.named(load.region)
            with self.recorder.timed("preprocess"), for_block(self.windows, region):
                result = preprocess(block, rng)
            dims = [axis.dim for axis in self.windows.axes]
            check_preprocessed(result, block, dims, self.variable_dims)
            require_labels_kept("preprocess", labels, result)
            for name, expected in self.variable_dims.items():
                if set(result[name].dims) != expected:
                    raise ValueError(
                        f"preprocess gave variable {name!r} the dims {list(result[name].dims)}; on "
                        f"the block it was tried on, it was {sorted(map(str, expected))}"
                    )
                dtype, tried = result[name].dtype, self.variable_dtypes[name]
                if not keeps_values(dtype, tried):
                    raise TypeError(
                        f"preprocess gave variable {name!r} the dtype {dtype}; on the block it was "
                        f"tried on, it was {tried}: let it give every block the same"
                    )
        except Exception as error:
            error.add_note(f"in preprocess of block {load.block}")
            raise
        return result  # type: ignore[no-any-return]


def check_preprocessed(
    result: Any, block: xr.Dataset, dims: Iterable[Hashable], variables: Iterable[Hashable]
) -> None:
    """Raise if a preprocess has changed what it must keep.

    Raises
    ------
    TypeError
        If the result is not a Dataset.
    ValueError
        If one of the `variables` is missing, or one of the `dims` is or has another size.
    """
    if not isinstance(result, xr.Dataset):
        raise TypeError(f"preprocess must return an xarray Dataset, not {type(result).__name__}")
    for dim in dims:
        if dim in block.sizes and result.sizes.get(dim) != block.sizes[dim]:
            raise ValueError(
                f"preprocess must keep the dims of the samples, but it was given "
                f"{block.sizes[dim]} steps of {dim!r} and returned {result.sizes.get(dim, 'none')}"
            )
    for name in variables:
        if name not in result.data_vars:
            raise ValueError(
                f"no data variable {name!r} after preprocess, which has {list(result.data_vars)}"
                + (": it is a coordinate, and needs another name" if name in result.coords else "")
            )

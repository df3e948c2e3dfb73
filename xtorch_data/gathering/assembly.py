"""A batch in the making: rows are filled from one block after the other."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from ..common.buffers import Buffers
from ..common.random import BATCH_TRANSFORM, SAMPLE_TRANSFORM, generator
from ..common.recorder import Way
from ..samples.batch import Batch
from ..samples.coordinates import renamed
from ..samples.definition import SampleDefinition
from ..samples.draws import Draws
from ..samples.generator_items import Items, arranged, labelled
from ..samples.part_labels import PartLabels
from ..samples.select import Part
from ..samples.tensor_dtypes import common_dtype
from ..samples.transforms import Transform
from ..samples.trials import labels_of, require_labels_kept
from .sample_indices import SampleIndices
from .stage import StageInMemory
from .torch_threads import all_threads
from .views import labelled_sample, to_array

__all__ = ["Assembly"]


class Assembly:
    """A batch in the making, in memory of `buffers`; random transforms depend on the epoch.

    Made for each batch by its destination; one thread at a time fills it.
    """

    def __init__(
        self, recipe: SampleDefinition, buffers: Buffers, samples: int, epoch: int
    ) -> None:
        self._recipe = recipe
        self._buffers = buffers
        self._epoch = epoch
        self.transform_seconds = 0.0
        self.ways: Counter[Way] = Counter()
        self._numbers = np.empty(samples, dtype=np.int64)
        self._repeated: npt.NDArray[np.bool_] | None = None  # samples; None where none is
        self._filled = 0  # rows; fewer than there are where samples could not be read
        self._arrays: dict[
            str, Any
        ] = {}  # that `StageInMemory.gather` fills: the memory of the tensors
        self._tensors: dict[str, torch.Tensor] = {}
        self._labels: dict[str, PartLabels] = {}
        for part in recipe.parts:
            if part.name not in recipe.transforms:
                self._allocate(part.name, part.sample_shape, part.dtype)
                self._labels[part.name] = PartLabels.of(part)

    def _allocate(self, name: str, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        array = self._buffers.take((len(self._numbers), *shape), dtype)
        self._arrays[name], self._tensors[name] = array, torch.from_numpy(array)

    def add(
        self, row: int, stage: StageInMemory, indices: SampleIndices, repeated: bool = False
    ) -> None:
        """Fill rows, from a certain one on, with samples of a stage, all repeated or none."""
        recipe = self._recipe
        rows = slice(row, row + len(indices.numbers))
        if repeated:
            if self._repeated is None:
                self._repeated = np.zeros(len(self._numbers), dtype=bool)
            self._repeated[rows] = True
        self._filled = max(self._filled, rows.stop)
        if len(indices.numbers) == len(self._numbers):
            self._numbers = indices.numbers  # of no other batch
        else:
            self._numbers[rows] = indices.numbers
        self._fill(rows, stage, indices)
        if recipe.transforms:
            begun = time.perf_counter()
            with all_threads():
                self._add_transformed(row, stage, indices)
            self.transform_seconds += time.perf_counter() - begun

    def alone(self, stage: StageInMemory, indices: SampleIndices) -> StageInMemory:
        """A sample without its stage, in the memory of this batch, which nobody else uses."""
        return stage.alone(indices, self._fill(slice(1), stage, indices))

    def _fill(
        self, rows: slice, stage: StageInMemory, indices: SampleIndices
    ) -> dict[str, list[Any]]:
        """Fill rows of the parts without a transform; the memory of each stretch's variables."""
        filled: dict[str, list[Any]] = {}
        for part in self._recipe.parts:
            if part.name in self._recipe.transforms:
                continue
            out = self._arrays[part.name][rows]
            for place in range(len(part.variables)):
                values = out[:, place] if part.stacked else out
                for stretch in part.stretches:
                    name, target = stretch.part.name, values[(slice(None), *stretch.where)]
                    way = stage.gather(name, place, indices, target)
                    filled.setdefault(name, []).append(target)
                self.ways[way] += len(out)
        return filled

    def _add_transformed(self, first: int, stage: StageInMemory, indices: SampleIndices) -> None:
        recipe = self._recipe
        for place, number in enumerate(indices.numbers.tolist()):
            row = first + place
            starts = [int(at[place]) for at in indices.places]
            data = stage.pieces[indices.pieces[place]].data
            assert data is not None
            sample = labelled_sample(recipe.windows, data, starts)

            def rng(number: int = number) -> np.random.Generator:
                return generator(recipe.seed, self._epoch, SAMPLE_TRANSFORM, number)

            for part in recipe.parts:
                transform = recipe.transforms.get(part.name)
                if transform is None:
                    continue
                try:
                    array, variables, dims, stacked = self._transformed(
                        transform, part, sample, number, rng
                    )
                    labels = replace(
                        PartLabels.of(part), variables=variables, stacked=stacked, dims=dims
                    )
                    self._put(part, row, array, labels)
                    self.ways[Way.TRANSFORMED] += len(variables)
                except Exception as error:
                    error.add_note(f"in {transform.argument} of sample {number}")
                    raise

    def _transformed(
        self,
        transform: Transform,
        part: Part,
        sample: xr.Dataset,
        number: int,
        rng: Callable[[], np.random.Generator],
    ) -> tuple[npt.NDArray[Any], tuple[Hashable, ...], tuple[Hashable, ...], bool]:
        """What the transform makes of one sample, as `to_array` gives it."""
        recipe, given = self._recipe, part.take(sample)
        if recipe.items is None:
            result = _applied(transform, given, rng)
            return to_array(result, part, (), recipe.sample_dims, recipe.floating)
        firsts = recipe.items.firsts(recipe.windows.starts(number))
        item = labelled(recipe.items, given, firsts)
        # The dims of an item are its own, and keep their order.
        array, variables, dims, stacked = to_array(
            _applied(transform, item, rng), replace(part, lacking=()), (), (), recipe.floating
        )
        return array, variables, recipe.items.labels_of(dims), stacked

    def _put(self, part: Part, row: int, array: npt.NDArray[Any], labels: PartLabels) -> None:
        if part.name not in self._arrays:
            self._allocate(part.name, array.shape, array.dtype)
            self._labels[part.name] = labels
        out, known = self._arrays[part.name], self._labels[part.name]
        if labels.stacked and set(labels.variables) == set(known.variables):
            array = array[[labels.variables.index(name) for name in known.variables]]
        elif labels.stacked and labels.variables != known.variables:
            raise ValueError(
                f"samples of part {part.name!r} do not fit together: one has the variables "
                f"{list(known.variables)}, another {list(labels.variables)}"
            )
        if out.shape[1:] != array.shape or known.dims != labels.dims:
            raise ValueError(
                f"samples of part {part.name!r} do not fit together: one has dims {known.dims} and "
                f"shape {out.shape[1:]}, another {labels.dims} and {array.shape}"
            )
        if array.dtype != out.dtype:
            wider = common_dtype([out.dtype, array.dtype], self._recipe.floating)
            if wider != out.dtype:
                self._allocate(part.name, array.shape, wider)
                self._arrays[part.name][...] = out
        self._arrays[part.name][row] = array

    def finish(self, single: bool, skipped: Sequence[int] = ()) -> Batch:
        """The batch; with `single`, its only sample without the batch dimension.

        `skipped` are the numbers of samples that are not in it, because they could not be read.
        """
        recipe = self._recipe
        if self._filled < len(self._numbers):
            self._numbers = self._numbers[: self._filled]
            self._arrays = {name: array[: self._filled] for name, array in self._arrays.items()}
            self._tensors = {name: each[: self._filled] for name, each in self._tensors.items()}
        if recipe.items is not None:
            self._arrange(recipe.items)
        if recipe.batch_transform is not None:
            begun = time.perf_counter()
            with all_threads():
                self._transform_batch(recipe.batch_transform)
            self.transform_seconds += time.perf_counter() - begun
        tensors, labels = self._tensors, dict(self._labels)
        if recipe.cast is not None:
            with all_threads():
                tensors = {
                    name: self._cast(tensor, recipe.cast) if tensor.is_floating_point() else tensor
                    for name, tensor in tensors.items()
                }
        if recipe.items is not None and recipe.items.stacked:
            for part in recipe.parts:
                tensors[part.name], labels[part.name] = _stacked(
                    recipe.items.stacked, tensors[part.name], labels[part.name]
                )
        index = torch.from_numpy(self._numbers)
        repeated = None
        if self._repeated is not None:
            repeated = torch.from_numpy(self._repeated[: self._filled])
        if single:
            tensors = {name: tensor[0] for name, tensor in tensors.items()}
            index = index[0]
            repeated = None if repeated is None else repeated[0]
        return Batch(
            {part.name: tensors[part.name] for part in recipe.parts},
            index,
            {part.name: labels[part.name] for part in recipe.parts},
            recipe.labels,
            skipped,
            repeated,
            Draws(recipe.seed, self._epoch),
        )

    def _cast(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Values of a dtype that numpy lacks, in memory of the buffers."""
        memory = self._buffers.take(tuple(tensor.shape), np.dtype(f"i{dtype.itemsize}"))
        return torch.from_numpy(memory).view(dtype).copy_(tensor)

    def _arrange(self, items: Items) -> None:
        """Make the items of a generator of their regions, but for dims that are stacked."""
        plain = [part for part in self._recipe.parts if part.name not in self._recipe.transforms]
        if not plain:
            return
        firsts = items.firsts(self._recipe.windows.starts(self._numbers))
        for part in plain:
            known = self._labels[part.name]
            array, dims = arranged(
                items, part.name, self._arrays[part.name], known.dims, firsts, self._buffers.take
            )
            self._arrays[part.name], self._tensors[part.name] = array, torch.from_numpy(array)
            self._labels[part.name] = replace(known, dims=dims)

    def _transform_batch(self, transform: Transform) -> None:
        recipe = self._recipe
        number = int(self._numbers[0])

        def rng() -> np.random.Generator:
            return generator(recipe.seed, self._epoch, BATCH_TRANSFORM, number)

        batch = Batch(
            self._tensors, torch.from_numpy(self._numbers), self._labels, recipe.labels
        ).to_xarray()
        before = set(batch.data_vars)
        try:
            result = _applied(transform, batch, rng)
            if not hasattr(result, "data_vars"):
                raise TypeError(
                    f"batch_transform returns an xarray Dataset, not {type(result).__name__}"
                )
            if result.sizes.get("sample") != len(self._numbers):
                raise ValueError("batch_transform must keep the dim 'sample' and its size")
            if "sample" in result.coords and not result["sample"].equals(batch["sample"]):
                raise ValueError("batch_transform must keep the samples in their order")
            for part in recipe.parts:
                labels = self._labels[part.name]
                suffix = f"_{part.name}"
                back = {f"{dim}{suffix}": dim for dim in labels.dims}
                names = [
                    f"{name}{suffix}" if f"{name}{suffix}" in before else name
                    for name in labels.variables
                ]
                gone = [name for name in names if name not in result.variables]
                if gone:
                    raise ValueError(
                        f"batch_transform left out variable {gone[0]!r} of part {part.name!r}; it "
                        f"returned {list(result.data_vars)}"
                    )
                found = {name: result[name].variable for name in names}
                chosen = {name: renamed(variable, back) for name, variable in found.items()}
                array, _, dims, stacked = to_array(
                    xr.Dataset(chosen) if labels.stacked else xr.DataArray(chosen[names[0]]),
                    part,
                    ("sample",),
                    self._labels[part.name].dims,
                    recipe.floating,
                )
                out = self._buffers.take(array.shape, array.dtype)
                out[...] = array
                self._arrays[part.name], self._tensors[part.name] = out, torch.from_numpy(out)
                self._labels[part.name] = replace(
                    labels, stacked=stacked, dims=dims, flattened=0, unflattened=None
                )
        except Exception as error:
            error.add_note(f"in batch_transform of the batch that begins with sample {number}")
            raise


def _applied(transform: Transform, given: Any, rng: Callable[[], np.random.Generator]) -> Any:
    """What a transform returns, with labels where they were."""
    labels = labels_of(given)
    result = transform(given, rng)
    if isinstance(result, xr.Dataset | xr.DataArray):
        require_labels_kept(transform.argument, labels, result)
    return result


def _stacked(
    dims: Sequence[Hashable], tensor: torch.Tensor, labels: PartLabels
) -> tuple[torch.Tensor, PartLabels]:
    """A part with its first dims made one, if it has them."""
    if labels.dims[: len(dims)] != tuple(dims):
        return tensor, labels
    lead = 1 + labels.stacked
    shape = tuple(tensor.shape[lead:])
    flat = tensor.flatten(lead, lead + len(dims) - 1)
    return flat, replace(labels, flattened=len(dims), unflattened=shape)

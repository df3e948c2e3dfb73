"""Trials of the user's functions on the first samples, with made-up values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from ..common.buffers import Buffers
from ..planning.stages import WindowBox
from ..samples.definition import SampleDefinition
from ..samples.labels import Labels
from ..samples.made_up import Budget, numbered, on_trial, unnoticed
from ..samples.phases import phases_of
from ..samples.presence import Presence
from ..samples.transforms import Transform
from ..samples.trials import require_places_kept
from ..sources.lazy_arrays import in_memory
from .assembly import Assembly
from .stage import StageInMemory
from .views import PieceInMemory, window_views

__all__ = ["require_functions_keep_places"]

# Samples that take more bytes are not made up: their labels are looked at as they come.
MOST_BYTES = 2**27
# Seconds: a function that takes longer is called no more.
SLOW_CALL = 1.0


class _NoLabelsError(TypeError):
    """Error for a function that returns no xarray object, whatever the values are."""

    def __reduce__(self) -> Any:
        return TypeError, self.args


def require_functions_keep_places(samples: SampleDefinition) -> None:
    """Try the functions for samples and batches, and raise if one moves values or loses labels.

    They are tried in each phase. Nothing of the data is read but coordinates that functions use.
    """
    for each in dict.fromkeys((samples, *phases_of(samples).values())):  # one may be the samples
        for function, given in _given_to_functions(each):
            require_places_kept(function, given)


def _given_to_functions(samples: SampleDefinition) -> list[tuple[Transform, Any]]:
    """The functions for samples and batches, each with something that it may get.

    A batch has two samples, where there are as many. Functions that do not work on made-up values
    are left out, with those that come after them, and slow ones.
    """
    recipe, windows = samples, samples.windows
    given = [*recipe.transforms.values(), recipe.batch_transform]
    if (
        not any(each is not None and each.is_tried for each in given)
        or not len(windows)
        or samples.nbytes > MOST_BYTES
    ):
        return []
    found: dict[str, tuple[Transform, Any]] = {}

    def noting(function: Transform | None) -> Transform | None:
        if function is None:
            return None

        def noted(given: Any) -> Any:
            found.setdefault(function.argument, (function, given.copy(deep=False)))
            budget = Budget(SLOW_CALL)
            result = on_trial(function, given)
            if budget.spent:
                del found[function.argument]
            if not isinstance(result, xr.Dataset | xr.DataArray):
                raise _NoLabelsError(
                    f"{function.argument} returns an xarray object, as it is given, not "
                    f"{type(result).__name__}: copy(data=values) of what is given labels values"
                )
            return result

        return Transform(noted, function.argument, takes_rng=False)

    # Labels that are not in memory are made up as well.
    labels = recipe.labels
    lazy = [
        name
        for name, each in labels.coords.variables.items()
        if not (in_memory(each) or name in labels.coords.xindexes)
    ]
    made_up = numbered(labels.coords.reset_coords(lazy)[lazy], {})
    coords = labels.coords.assign_coords(
        {name: labels.coords.variables[name].copy(data=made_up[name]) for name in lazy}
    )
    transforms = {name: noting(each) for name, each in recipe.transforms.items()}
    recipe = replace(
        recipe,
        transforms={name: each for name, each in transforms.items() if each is not None},
        batch_transform=noting(recipe.batch_transform),
        labels=Labels(windows, coords, labels.attrs, labels.items, anchors=labels.anchors),
    )
    box = [(0, 1)] * len(windows.axes)
    for place, axis in enumerate(windows.axes):
        if len(axis) > 1 and recipe.batch_transform is not None:
            box[place] = (0, 2)
            break
    region = tuple(axis.span(*each) for axis, each in zip(windows.axes, box, strict=True))
    cut = {axis.dim: slice(*each) for axis, each in zip(windows.axes, region, strict=True)}
    data = samples.data.isel(cut, missing_dims="ignore")
    try:
        with unnoticed():
            present = {
                Presence(name): xr.Variable(data[name].dims, np.ones(data[name].shape, dtype=bool))
                for name in samples.present
            }
            data = data[samples.values]
            block = data.copy(deep=False, data=numbered(data, samples.constants))
            if samples.preprocess is not None:
                block = on_trial(samples.preprocess, block)
            block = block.assign(present)
            parts = [part for part in recipe.parts if part.name not in recipe.transforms]
            views = window_views(windows, recipe.sample_dims, parts, block.variables)
            names = {name for part in recipe.parts for name in part.arrays}
            labeled = block[[name for name in block.data_vars if name in names]]
            piece = WindowBox(tuple(box), windows.frame)
            stage = StageInMemory(
                windows, [PieceInMemory(piece, views, labeled)], range(piece.samples)
            )
            assembly = Assembly(recipe, Buffers(0), piece.samples, epoch=0)
            assembly.add(0, stage, stage.locate(0, piece.samples))
            assembly.finish(single=False)
    except _NoLabelsError:
        raise
    except Exception:
        # It shows when samples are made; or values are such that they are not made up.
        return list(found.values())
    return list(found.values())

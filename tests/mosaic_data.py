"""Samples of which predictions are laid, and plain loops that lay them."""

import itertools

import numpy as np
import torch
import xarray as xr
from hypothesis import strategies as st

import xtorch_data as xtd

MODES = ("wrap", "edge", "reflect", "constant")


def world(sizes, names=("a",)):
    """Data of some sizes; labels along all dims."""
    coords = {
        "time": xr.date_range("2000-01-01", periods=sizes["time"], freq="6h"),
        "lat": np.linspace(60, 20, sizes["lat"]),
        "lon": np.arange(sizes["lon"]) * 360 / sizes["lon"],
        "level": np.arange(sizes["level"]) * 100,
    }
    values = np.random.default_rng(0).normal(size=tuple(sizes.values())).astype("float32")
    return xr.Dataset(
        {name: (tuple(sizes), place + values, {"units": "K"}) for place, name in enumerate(names)},
        coords=coords,
        attrs={"title": "made up"},
    )


@st.composite
def cuts(draw, size):
    """Steps of a window as `Select` takes them."""
    kind = draw(st.sampled_from(["whole", "one", "slice", "list", "backwards"]))
    if kind == "one":
        return draw(st.integers(0, size - 1))
    if kind == "slice":
        start = draw(st.integers(0, size - 1))
        return slice(start, draw(st.integers(start + 1, size)), draw(st.integers(1, 2)))
    if kind == "list":
        steps = draw(st.permutations(range(size)))
        return list(steps[: draw(st.integers(1, size))])
    return slice(None) if kind == "whole" else slice(None, None, -1)


@st.composite
def cases(draw):
    """Arguments of a dataset and of a mosaic over it."""
    order = draw(st.permutations(["time", "lat", "lon", "level"]))
    sizes = {dim: draw(st.integers(2, 7)) for dim in order}
    if draw(st.booleans()):
        sizes["level"] = draw(st.integers(1, 2))
    windowed = draw(st.permutations(["time", "lat", "lon"]))[: draw(st.integers(1, 3))]
    dims, overlap, boundary, halo, remainder, select = {}, {}, {}, {}, {}, {}
    for dim in windowed:
        dims[dim] = draw(st.integers(1, sizes[dim]) | st.just(min(3, sizes[dim])))
        overlap[dim] = draw(st.sampled_from([0, dims[dim] // 2, dims[dim] - 1]))
        overlap[dim] = min(overlap[dim], dims[dim] - 1)
        if draw(st.booleans()):
            modes = [mode for mode in MODES if mode != "wrap" or dim == "lon"]
            boundary[dim] = draw(st.sampled_from(modes))
            halo[dim] = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
            kinds = ["drop", "pad", "shift"]
        else:
            kinds = ["drop", "shift"]
        remainder[dim] = draw(st.sampled_from(kinds))
        before, after = halo.get(dim, (0, 0))
        inside = draw(cuts(dims[dim]))
        if draw(st.booleans()):  # of the core alone
            full = np.arange(before + dims[dim] + after)[before : before + dims[dim]][inside]
            select[dim] = int(full) if np.ndim(full) == 0 else full.tolist()
        else:
            select[dim] = slice(None)
    return {
        "sizes": sizes,
        "dims": dims,
        "overlap": overlap,
        "boundary": boundary,
        "halo": halo,
        "remainder": remainder,
        "select": select,
        "stacked": draw(st.booleans()),
        "members": draw(st.sampled_from([None, 1, 3])),
        "blend": draw(st.sampled_from([None, "mean", "hann", "hann"])),
        "keep": draw(st.sampled_from([None, windowed[0]])),
        "kept": draw(st.sampled_from([1.0, 1.0, 0.6])),
        "added": draw(st.sampled_from([1.0, 1.0, 0.7])),
        "batch": draw(st.integers(1, 5)),
        "seed": draw(st.integers(0, 99)),
    }


class Truth:
    """Where the steps of samples lie, from one-dimensional windows, and a loop that adds."""

    def __init__(self, case):
        self.case, self.axes, self.steps = case, {}, {}
        sizes, dims = case["sizes"], case["dims"]
        for dim in [*(dim for dim in sizes if dim not in dims), *dims]:
            if dim not in dims:
                self.axes[dim], self.steps[dim] = np.arange(sizes[dim])[:, None], np.arange(1)
                continue
            ends = case["boundary"].get(dim)
            if ends not in (None, "wrap"):  # what lies beyond is missing
                ends = "constant"
            along = xr.DataArray(np.arange(float(sizes[dim])), dims=dim, name="a")
            windows = xtd.MapDataset(
                along, {dim: dims[dim]}, {dim: case["overlap"][dim]},
                boundary={dim: ends}, halo={dim: case["halo"].get(dim, 0)},
                remainder={dim: case["remainder"][dim]},
            )  # fmt: skip
            found = [windows[number][0].numpy() for number in range(len(windows))]
            self.axes[dim] = np.nan_to_num(np.array(found), nan=-1).astype(int)
            steps = np.arange(self.axes[dim].shape[1])[case["select"][dim]]
            self.steps[dim] = np.atleast_1d(steps)

    @property
    def shape(self):
        return tuple(len(each) for each in self.axes.values())

    def core(self, dim):
        """Which steps of a target are those of the core, in their order in the window."""
        if dim not in self.case["dims"]:
            return np.arange(1)
        before, after = self.case["halo"].get(dim, (0, 0))
        steps = self.steps[dim]
        inside = (steps >= before) & (steps < self.axes[dim].shape[1] - after)
        order = np.argsort(steps)
        return order[inside[order]]

    def places(self, dim, number):
        """Places of the steps that are laid of a window."""
        return self.axes[dim][number][self.steps[dim][self.core(dim)]]

    def times(self, dim, wanted):
        """How often each place along a dim is predicted, over the windows that have samples."""
        place = list(self.axes).index(dim)
        numbers = np.unique(np.unravel_index(np.flatnonzero(wanted), self.shape)[place])
        found = np.zeros(self.case["sizes"][dim])
        for number in numbers:
            at = self.places(dim, number)
            np.add.at(found, at[at >= 0], 1)
        return found, numbers

    def weight(self, dim, most):
        size = len(self.core(dim))
        if self.case["blend"] != "hann" or most < 2:
            return np.ones(size)
        return np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2


def predictions(case, truth, rng):
    """An array of predictions for each sample: (variable, member, *dims of the part)."""
    kept = [dim for dim in case["dims"] if not isinstance(case["select"][dim], int)]
    shape = (1, case["members"] or 1, *(len(truth.steps[dim]) for dim in kept))
    return kept, rng.normal(size=(int(np.prod(truth.shape)), *shape)).astype("float32")


def expected(case, truth, values, kept_dims, added, wanted):
    """The field that a plain loop makes of them."""
    order, keep = list(case["sizes"]), case["keep"]
    sizes, firsts, times = [], {}, {}
    for dim in order:
        found, numbers = truth.times(dim, wanted)
        if dim == keep:
            sizes += [len(numbers), len(truth.core(dim))]
            firsts[dim], times[dim] = numbers, 1
        else:
            covered = np.flatnonzero(found)
            sizes.append(covered[-1] - covered[0] + 1)
            firsts[dim], times[dim] = covered[0], found.max()
    total = np.zeros((values.shape[2], *sizes))
    weights = np.zeros(sizes)
    for sample in added:
        numbers = dict(zip(truth.axes, np.unravel_index(sample, truth.shape), strict=True))
        value, weight, places = values[sample, 0], np.ones(()), []
        for axis, dim in enumerate(kept_dims):
            value = value.take(truth.core(dim), axis=1 + axis)
        value = np.moveaxis(
            value,
            range(1, value.ndim),
            [1 + sorted(kept_dims, key=order.index).index(d) for d in kept_dims],
        )
        for axis, dim in enumerate(order):
            if dim not in kept_dims:
                value = np.expand_dims(value, 1 + axis)
            at = truth.places(dim, numbers[dim])
            weight = weight[..., None] * truth.weight(dim, times[dim])
            places.append((dim, at))
        for where in itertools.product(*(range(len(at)) for _, at in places)):
            key = []
            for (dim, at), step in zip(places, where, strict=True):
                if at[step] < 0:
                    break
                if dim == keep:
                    key += [int(np.searchsorted(firsts[dim], numbers[dim])), step]
                else:
                    key.append(at[step] - firsts[dim])
            else:
                total[(slice(None), *key)] += weight[where] * value[(slice(None), *where)]
                weights[tuple(key)] += weight[where]
    with np.errstate(invalid="ignore"):
        return total / weights


def made(case):
    """The dataset of a case, its predictions, which samples it has, and which are added."""
    ds, rng = world(case["sizes"]), np.random.default_rng(case["seed"])
    name = ["a"] if case["stacked"] else "a"
    options = dict(
        boundary=case["boundary"], halo=case["halo"], remainder=case["remainder"],
        inputs="a", targets=xtd.Select(name, case["select"]), breaks="ignore",
    )  # fmt: skip
    dataset = xtd.MapDataset(ds, case["dims"], case["overlap"], **options)
    truth = Truth(case)
    assert truth.shape == dataset._inside.definition.windows.shape
    wanted = rng.random(len(dataset.windows)) < case["kept"]
    wanted[rng.integers(len(wanted))] = True
    if case["kept"] < 1:
        dataset = dataset.replace(where=wanted)
    else:
        wanted[:] = True
    samples = rng.permutation(np.flatnonzero(wanted))
    added = samples[: max(1, int(case["added"] * len(samples)))]
    return dataset, truth, wanted, added, rng


def lay(case, mosaic, dataset, values, added):
    """Add the predictions of some samples, in batches."""
    positions = np.cumsum(dataset.where.values.ravel()) - 1 if dataset.where is not None else None
    for start in range(0, len(added), case["batch"]):
        numbers = added[start : start + case["batch"]]
        batch = dataset.fetch(numbers if positions is None else positions[numbers])
        assert batch.index.tolist() == numbers.tolist()
        y = values[numbers]
        dims = None
        if case["members"] is None:
            y = y[:, :, 0]
        else:
            dims = ("sample", "variable", "member", ...)
        if not case["stacked"]:
            y = y[:, 0]
            dims = dims and ("sample", "member", ...)
        mosaic.add(batch, torch.from_numpy(y.copy()), dims)


def series(steps=16, name="a"):
    values = np.arange(float(steps), dtype="float32")
    return xr.Dataset(
        {name: ("time", values)}, {"time": xr.date_range("2000-01-01", periods=steps, freq="6h")}
    )


def laid(dataset, batch_size=3, model=lambda batch: batch.y, **options):
    """A mosaic of what a function makes of the batches of a dataset."""
    with xtd.Mosaic(dataset, **options) as mosaic:
        for batch in xtd.DataLoader(dataset, batch_size=batch_size):
            mosaic.add(batch, model(batch))
    return mosaic.to_xarray()

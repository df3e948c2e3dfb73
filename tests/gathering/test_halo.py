"""Pieces of blocks that hand on steps, compared with plain isel."""

import itertools
from dataclasses import replace
from unittest import mock

import numpy as np
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from xtorch_data.common.buffers import Buffers
from xtorch_data.gathering import views
from xtorch_data.gathering.halo import HaloJoiner
from xtorch_data.gathering.views import SplitView
from xtorch_data.planning.chunks import Chunks, Layout
from xtorch_data.planning.frames import SampleSpace
from xtorch_data.planning.plan import Plan
from xtorch_data.planning.windows import Windows
from xtorch_data.samples.select import Part


@st.composite
def plans(draw):
    """Data in two dims, and the plan of its windows: in blocks, in order or shuffled."""
    sizes = {"time": draw(st.integers(1, 24)), "y": draw(st.integers(1, 5))}
    windowed = draw(st.sampled_from([["time"], ["time", "y"]]))
    input_dims = {dim: draw(st.integers(1, sizes[dim])) for dim in windowed}
    overlap = {dim: draw(st.integers(0, size - 1)) for dim, size in input_dims.items()}
    windows = Windows.from_sizes(sizes, input_dims, overlap)
    dims = {"a": ("time", "y"), "b": ("time",), "c": ("y",)}
    rng = np.random.default_rng(0)
    ds = xr.Dataset({
        name: (own, rng.normal(size=[sizes[dim] for dim in own]).astype("f4"))
        for name, own in dims.items()
    })  # fmt: skip
    if draw(st.booleans()):
        ds = ds.assign_coords(time=np.arange(sizes["time"]))
    layouts = [
        Layout(name, 4, {dim: Chunks(sizes[dim], draw(st.integers(1, sizes[dim]))) for dim in own})
        for name, own in dims.items()
    ]
    memory, shuffle = draw(st.integers(1, 2000)), draw(st.booleans())
    plan = Plan.of(windows, layouts, memory=memory, shuffle=shuffle, warn=False)
    return ds, plan.reading(shorter(windows, draw(st.integers(1, input_dims["time"]))))


def shorter(windows, steps):
    """Windows of which only the first steps in time are used, as of an early phase."""
    [frame] = windows.space.frames
    maps = tuple(replace(each, size=steps) if each.dim == "time" else each for each in frame.maps)
    return Windows(SampleSpace(windows.space.axes, (replace(frame, maps=maps),)))


def part_of(name, windows, lacking=()):
    axes = [axis for axis in windows.axes if axis.windowed]
    dims, shape = tuple(axis.dim for axis in axes), tuple(axis.size for axis in axes)
    return Part(name, (name,), False, {}, dims, shape, np.dtype("f4"), lacking)


def cut(ds, windows, number, part):
    """A sample's part by isel, broadcast over the dims that its variable lacks."""
    found = ds[part.name].isel(windows[number], missing_dims="ignore")
    sizes = dict(zip(part.dims, part.shape, strict=True))
    return found.expand_dims({dim: n for dim, n in sizes.items() if dim not in found.dims}) \
        .transpose(*part.dims)  # fmt: skip


@given(plans(), st.booleans(), st.booleans())
@examples(300)
def test_windows_of_blocks_are_what_isel_cuts_however_steps_are_handed_on(planned, lasting, small):
    ds, plan = planned
    windows = plan.windows
    dims = tuple(axis.dim for axis in windows.axes if axis.windowed)
    parts = (part_of("a", windows), part_of("b", windows, tuple(set(dims) - {"time"})),
             part_of("c", windows, tuple(set(dims) - {"y"})))  # fmt: skip
    joiner = HaloJoiner(windows, dims, parts, frozenset(), Buffers(2**20), lasting)
    seen, split = [], 0
    with mock.patch.object(views, "SMALL_WINDOW_BYTES", 2**20 if small else 0):
        for piece in pieces_of(joiner, ds, plan):
            split += any(isinstance(each[0], SplitView) for each in piece.views.values())
            for number, place in samples_of(piece, windows):
                seen.append(number)
                for part in parts:
                    [view] = piece.views[part.name]
                    if isinstance(view, SplitView):
                        found = np.full(part.shape, np.nan, "f4")
                        view.copy_window(found, place)
                    else:
                        found = view[place]
                    np.testing.assert_array_equal(found, cut(ds, windows, number, part).values)
    assert sorted(seen) == list(range(len(windows)))
    assert not split or not (small or lasting)


@given(plans())
def test_parts_with_transforms_get_the_labeled_region_of_their_windows(planned):
    ds, plan = planned
    dims = tuple(axis.dim for axis in plan.windows.axes if axis.windowed)
    part = part_of("a", plan.windows)
    joiner = HaloJoiner(plan.windows, dims, (part,), frozenset("a"), Buffers(2**20), False)
    for piece in pieces_of(joiner, ds, plan):
        reached = {
            axis.dim: slice(*axis.span(*box))
            for axis, box in zip(plan.windows.axes, piece.piece.box, strict=True)
        }
        xr.testing.assert_identical(piece.data, ds[["a"]].isel(reached))


@given(plans(), st.sampled_from(["a", ""]))
@examples(300)
def test_what_lasts_holds_no_memory_of_the_loads_before(planned, transformed):
    ds, plan = planned
    windows = plan.windows
    dims = tuple(axis.dim for axis in windows.axes if axis.windowed)
    parts = part_of("a", windows), part_of("c", windows, tuple(set(dims) - {"y"}))
    joiner = HaloJoiner(
        windows, dims, parts, frozenset(transformed), Buffers(2**20), lasting=True
    )  # fmt: skip
    earlier = []
    for halo, found, tail in loads_of(joiner, ds[["a", "c"]], plan):
        handed_on = [each.data for each in tail] + [each.data for each in found if transformed]
        own = [data[name].values for data in handed_on for name in data]
        own += [view for piece in found for [view] in piece.views.values()]
        earlier += [each.data[name].values for each in halo for name in each.data]
        assert not any(np.may_share_memory(*pair) for pair in itertools.product(own, earlier))


def pieces_of(joiner, ds, plan):
    """The pieces of an epoch."""
    for _, found, _ in loads_of(joiner, ds, plan):
        yield from found


def loads_of(joiner, ds, plan):
    """Its loads, each cut from the data by isel: what it takes over, gives, and hands on."""
    tail = ()
    for stage in plan.stages(0, [(0, plan.samples)]):
        for load in stage.loads:
            halo = () if load.carried is None else tail
            found, tail = joiner.pieces(load, ds.isel(load.slices()).copy(deep=True), halo)
            yield halo, found, tail


def samples_of(piece, windows):
    """Numbers of the samples in a piece, and where their windows begin in its region."""
    for at in itertools.product(*(range(*box) for box in piece.piece.box)):
        starts = [number * axis.stride for number, axis in zip(at, windows.axes, strict=True)]
        place = [at - begin for at, (begin, _) in zip(starts, piece.piece.region, strict=True)]
        yield int(np.ravel_multi_index(at, windows.shape)), tuple(place)

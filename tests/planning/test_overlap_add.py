"""Overlap-add by integers, against plain loops over windows."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.planning.edges import ExtendedDim
from xtorch_data.planning.field import Field, Group
from xtorch_data.planning.index_maps import IndexMap, Table, term_of
from xtorch_data.planning.overlap_add import FieldDim, window_weights


@st.composite
def laid(draw, longest):
    """The size of windows, what lies beyond the ends of a dim, and its length with that."""
    length = draw(st.integers(1, longest))
    size = draw(st.integers(1, length))
    beyond = None
    if draw(st.booleans()):
        boundary = draw(st.sampled_from(["wrap", "edge", "constant", "reflect"]))
        beyond = ExtendedDim(boundary, length, draw(st.integers(0, 3)), draw(st.integers(0, 3)))
    whole = length if beyond is None else len(beyond)
    return size, beyond, whole


@st.composite
def dims(draw, kept=None):
    size, beyond, whole = draw(laid(12))
    starts = sorted(draw(st.sets(st.integers(0, whole - size), min_size=1)))
    if beyond is not None and beyond.boundary == "wrap":  # each place of the circle once
        starts = sorted({start % beyond.length: start for start in starts}.values())
    axis = IndexMap("t", whole, size, {0: term_of(starts)})
    numbers = sorted(draw(st.sets(st.integers(0, len(starts) - 1), min_size=1)))
    steps = sorted(draw(st.sets(st.integers(0, size - 1), min_size=1)))
    kept = draw(st.booleans()) if kept is None else kept
    made = FieldDim.of(axis, np.array(numbers), np.array(steps), beyond, kept)
    if made.length:
        made = made.tiled(draw(st.integers(1, 6)))
    return made, axis, beyond


def places(made, beyond, number):
    """Places of the data under the steps of a window; -1 for none."""
    at = made.starts[number] + made.steps
    if beyond is None:
        return at
    at = at - beyond.before
    if beyond.boundary == "wrap":
        return at % beyond.length
    return np.where((at >= 0) & (at < beyond.length), at, -1)


@given(dims())
def test_pieces_tell_where_each_step_lies(case):
    made, _, beyond = case
    for number in made.numbers.tolist():
        at = places(made, beyond, number)
        found = np.full(len(made.steps), -1)
        for piece in made.pieces(number):
            start, stop = made.extent(piece.tile)
            inside = np.arange(start, stop)
            if made.kept:
                assert inside[piece.key[0]] == list(made.numbers).index(number)
                assert piece.key[1] == piece.steps
                found[piece.steps] = at[piece.steps]
            else:
                found[piece.steps] = made.first + inside[piece.key[0]]
        assert found.tolist() == at.tolist()


@given(dims(kept=False))
def test_the_field_is_the_hull_of_what_windows_cover(case):
    made, _, beyond = case
    every = np.concatenate([places(made, beyond, number) for number in made.numbers.tolist()])
    every = every[every >= 0]
    if not len(every):
        assert made.length == 0
        return
    assert (made.first, made.length) == (every.min(), every.max() + 1 - every.min())
    assert made.times.tolist() == np.bincount(every - made.first, minlength=made.length).tolist()


@st.composite
def fields(draw):
    """A field of up to three dims, of which some follow one sample axis together."""
    places = draw(st.sampled_from([(0,), (0, 1), (1, 0), (0, 0), (0, 1, 0), (0, 0, 0), (1, 0, 0)]))
    made, found, beyonds = {}, [], []
    for place in places:
        if places.count(place) == 1:
            each, _, beyond = draw(dims())
        else:
            if place not in made:
                count = draw(st.integers(1, 6))
                some = draw(st.sets(st.integers(0, count - 1), min_size=1))
                made[place] = count, np.array(sorted(some))
            each, beyond = draw(scattered(*made[place]))
        found.append(each)
        beyonds.append(beyond)
    weights = tuple(
        np.ones(len(each.steps)) if each.kept else np.array(draw(weighed(len(each.steps))))
        for each in found
    )
    shape = tuple(
        next(len(each.starts) for each, own in zip(found, places, strict=True) if own == place)
        for place in range(max(places) + 1)
    )
    return Field(tuple(found), places, weights, shape, overlaps=True), beyonds


@st.composite
def scattered(draw, count, numbers):
    """A dim along which windows lie anywhere, as around events."""
    size, beyond, whole = draw(laid(9))
    starts = draw(st.lists(st.integers(0, whole - size), min_size=count, max_size=count))
    steps = sorted(draw(st.sets(st.integers(0, size - 1), min_size=1)))
    axis = IndexMap("t", whole, size, {0: Table(np.array(starts))})
    made = FieldDim.of(axis, numbers, np.array(steps), beyond, kept=False)
    return (made.tiled(draw(st.integers(1, 6))) if made.length else made), beyond


def weighed(count):
    return st.lists(st.sampled_from([0.25, 0.5, 1.0]), min_size=count, max_size=count)


@given(fields(), st.data())
def test_counts_and_weights_are_those_of_a_loop_over_samples(case, data):
    field, _ = case
    if not all(each.length for each in field.dims):
        return
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    samples = np.ones(field.shape, dtype=bool)
    for each, place in zip(field.dims, field.places, strict=True):
        there = np.isin(np.arange(field.shape[place]), each.numbers)
        samples &= there.reshape([-1 if at == place else 1 for at in range(samples.ndim)])
    some = samples & (rng.random(field.shape) < 0.6)
    for chosen in (samples, some):
        counts = np.zeros(field.tiles, dtype=int)
        sums = np.zeros(field.sizes)
        touched = np.zeros((*field.shape, *field.tiles), dtype=bool)
        for sample in np.argwhere(chosen):
            pieces = [
                each.pieces(sample[place])
                for each, place in zip(field.dims, field.places, strict=True)
            ]
            for tile in {tuple(each.tile for each in some) for some in product(*pieces)}:
                counts[tile] += 1
                touched[(*sample, *tile)] = True
            for inside in product(*pieces):
                part = sums[field.region([each.tile for each in inside])]
                weight = np.ones(())
                for each, weights in zip(inside, field.weights, strict=True):
                    weight = np.multiply.outer(weight, weights[each.steps])
                part[tuple(key for each in inside for key in each.key)] += weight
        for given_samples in (chosen, None) if chosen is samples else (chosen,):
            assert field.counts(given_samples).tolist() == counts.tolist()
            for tile in np.ndindex(field.tiles):
                found = np.ones(())
                for factor in field.weights_in(tile, given_samples):
                    assert factor.ndim == len(field.sizes)
                    found = found * factor
                np.testing.assert_allclose(found, sums[field.region(tile)], atol=1e-12)
    wanted = rng.random(field.tiles) < 0.5
    expected = (touched & wanted).reshape(*field.shape, -1).any(axis=-1)
    assert (field.touching(wanted)[some] == expected[some]).all()


@given(st.data())
def test_windows_meet_if_they_share_a_place(data):
    count = data.draw(st.integers(1, 7))
    numbers = np.arange(count)
    pairs = [data.draw(scattered(count, numbers)) for _ in range(data.draw(st.integers(1, 3)))]
    made = tuple(each for each, _ in pairs)
    if not all(each.length for each in made):
        return
    group = Group(made, tuple(np.ones(len(each.steps)) for each in made), count)

    def covered(number):
        along = [places(each, beyond, number) for each, beyond in pairs]
        return set(product(*([at for at in each.tolist() if at >= 0] for each in along)))

    every = [covered(number) for number in numbers.tolist()]
    meeting = {
        (one, other) for one in range(count) for other in range(one) if every[one] & every[other]
    }
    found = group.met()
    assert found in {pair[::-1] for pair in meeting} if meeting else found is None
    assert group.overlaps or not meeting


@pytest.mark.parametrize("size", range(1, 20))
def test_weights_are_positive_and_half_a_window_apart_they_sum_to_one(size):
    assert (window_weights("mean", size) == 1).all()
    weights = window_weights("hann", 2 * size)
    assert (weights > 0).all() and window_weights("hann", size).min() > 0
    np.testing.assert_allclose(weights[:size] + weights[size:], 1)

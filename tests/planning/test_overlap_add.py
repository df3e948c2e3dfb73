"""Overlap-add by integers, against plain loops over windows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.planning.edges import ExtendedDim
from xtorch_data.planning.index_maps import IndexMap, term_of
from xtorch_data.planning.overlap_add import Field, FieldDim, window_weights


@st.composite
def dims(draw, kept=None):
    length = draw(st.integers(1, 12))
    size = draw(st.integers(1, length))
    beyond = None
    if draw(st.booleans()):
        boundary = draw(st.sampled_from(["wrap", "edge", "constant", "reflect"]))
        beyond = ExtendedDim(boundary, length, draw(st.integers(0, 3)), draw(st.integers(0, 3)))
    whole = length if beyond is None else len(beyond)
    starts = sorted(draw(st.sets(st.integers(0, whole - size), min_size=1)))
    if beyond is not None and beyond.boundary == "wrap":  # each place of the circle once
        starts = sorted({start % length: start for start in starts}.values())
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


@given(dims(), dims(), st.data())
def test_counts_and_weights_are_those_of_a_loop_over_samples(one, other, data):
    pair = [one[0], other[0]]
    if not all(each.length for each in pair):
        return
    order = data.draw(st.permutations([0, 1]))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    weights = tuple(
        np.ones(len(each.steps)) if each.kept else rng.random(len(each.steps)) for each in pair
    )
    shape = [0, 0]
    for place, each in zip(order, pair, strict=True):
        shape[place] = len(each.starts)
    field = Field(tuple(pair), tuple(order), weights, tuple(shape))
    samples = np.zeros(shape, dtype=bool)
    inside = np.ix_(*(pair[order.index(place)].numbers for place in range(2)))
    samples[inside] = True
    some = samples & (rng.random(shape) < 0.6)
    for chosen in (samples, some):
        counts = np.zeros(field.tiles, dtype=int)
        sums = np.zeros(field.sizes)
        for sample in np.argwhere(chosen):
            numbers = [sample[place] for place in order]
            pieces = [each.pieces(number) for each, number in zip(pair, numbers, strict=True)]
            for tile in {(a.tile, b.tile) for a in pieces[0] for b in pieces[1]}:
                counts[tile] += 1
            for a in pieces[0]:
                for b in pieces[1]:
                    region = field.region((a.tile, b.tile))
                    part = sums[region]
                    part[(*a.key, *b.key)] += np.multiply.outer(
                        weights[0][a.steps], weights[1][b.steps]
                    )
        for given_samples in (chosen, None) if chosen is samples else (chosen,):
            assert field.counts(given_samples).tolist() == counts.tolist()
            for tile in np.ndindex(field.tiles):
                found = field.weights_in(tile, given_samples)
                if given_samples is None:
                    found = np.multiply.outer(*found)
                np.testing.assert_allclose(found, sums[field.region(tile)], atol=1e-12)


@pytest.mark.parametrize("size", range(1, 20))
def test_weights_are_positive_and_half_a_window_apart_they_sum_to_one(size):
    assert (window_weights("mean", size) == 1).all()
    weights = window_weights("hann", 2 * size)
    assert (weights > 0).all() and window_weights("hann", size).min() > 0
    np.testing.assert_allclose(weights[:size] + weights[size:], 1)

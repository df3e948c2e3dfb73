"""Begins of windows of other sources against loops over labels."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.planning import alignment

ascending = st.lists(st.integers(-100, 100), min_size=1, max_size=30, unique=True).map(sorted)


@given(ascending, st.lists(st.integers(-150, 150), max_size=20), st.data())
def test_as_of_takes_the_last_steps_known(labels, anchors, data):
    steps, latency = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 30))
    age = data.draw(st.none() | st.integers(0, 60))
    known = alignment.known_from(np.array(labels), latency, begins=False)
    begins, old = alignment.as_of(
        np.array(anchors, dtype=np.int64), np.array(labels), known, steps, age
    )
    for anchor, begin, too_old in zip(anchors, begins, old, strict=True):
        usable = [place for place, label in enumerate(labels) if label + latency <= anchor]
        if len(usable) < steps:
            assert begin == too_old == -1
        elif age is not None and anchor - labels[usable[-1]] > age:
            assert (begin, too_old) == (-1, usable[-1] - steps + 1)
        else:
            assert (begin, too_old) == (usable[-1] - steps + 1, -1)


def test_a_step_that_bears_its_begin_is_known_after_its_end():
    months = np.array([0, 31, 59, 90, 120])  # 28 days in the second
    known = alignment.known_from(months, 2, begins=True)
    np.testing.assert_array_equal(known, np.array([31, 59, 90, 120, 120 + 31]) + 2)


def test_the_end_of_a_step_alone_is_never_known():
    known = alignment.known_from(np.array([5]), 0, begins=True)
    begins, _ = alignment.as_of(np.array([10**15]), np.array([5]), known, 1)
    assert begins == -1


def test_the_last_step_is_not_as_long_as_a_hole():
    known = alignment.known_from(np.array([0, 1, 2, 3, 50, 51]), 0, begins=True)
    assert known.tolist() == [1, 2, 3, 50, 51, 52]


@given(ascending, st.lists(st.integers(-720, 720), max_size=20), st.booleans())
def test_the_nearest_label_is_found_within_both_distances(labels, wanted, circle):
    labels = [label % 360 for label in labels] if circle else labels
    labels = np.array(sorted(set(labels)))
    wanted = np.array([each % 360 if circle else each for each in wanted], dtype=np.int64)
    within, of_wanted = np.full(len(labels), 7), np.full(len(wanted), 5)
    found = alignment.nearest(labels, wanted, within, of_wanted, 360 if circle else None)
    for each, place in zip(wanted, found, strict=True):
        apart = abs(labels - each)
        if circle:
            apart = np.minimum(apart, 360 - apart)
        if apart.min() > 5:
            assert place == -1
        else:
            assert apart[place] == apart.min()


@given(ascending)
def test_gaps_are_those_to_the_nearest_neighbor(labels):
    found = alignment.gaps(np.array(labels))
    for place, label in enumerate(labels):
        others = labels[:place] + labels[place + 1 :]
        if not others:
            assert found[place] == np.inf
        else:
            apart = min(abs(label - other) for other in others)
            assert found[place] == min(apart, np.median(np.diff(labels)))


@given(ascending, st.lists(st.integers(-120, 110), min_size=1, max_size=9), st.data())
def test_labels_within_extents_are_counted(labels, lower, data):
    width, halo = data.draw(st.integers(1, 40)), data.draw(st.integers(0, 2))
    lower = np.array(lower)
    begins, counts, at_ends = alignment.within(np.array(labels), lower, lower + width, halo)
    for low, begin, count, at_end in zip(lower, begins, counts, at_ends, strict=True):
        inside = [at for at, label in enumerate(labels) if low <= label < low + width]
        assert count == len(inside) + 2 * halo
        assert at_end == (not any(each < low for each in labels)) or at_end == (
            not any(each >= low + width for each in labels)
        )
        if inside:
            fits = inside[0] >= halo and inside[-1] + halo < len(labels)
            assert begin == (inside[0] - halo if fits else -1)


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.data())
def test_windows_that_lack_nothing(present, data):
    size = data.draw(st.integers(1, len(present)))
    begins = np.arange(len(present) - size + 1)
    found = alignment.whole_in(np.where(present, 0, -1), begins, size)
    assert found.tolist() == [all(present[begin : begin + size]) for begin in begins]


@given(st.floats(-720, 720), st.integers(-200, 200))
def test_longitudes_are_turned_into_a_circle_from_a_begin(label, low):
    found = float(alignment.turned(np.array([label]), low)[0])
    assert low <= found <= low + 360
    assert abs((found - label + 180) % 360 - 180) < 1e-9


def test_no_lead_is_no_size():
    first, size = alignment.valid_leads(
        np.array([0, 0, 10]), np.array([0, 0, 0]), np.array([10, 11, 30]), 0, 5
    )
    assert (first.tolist(), size) == ([-1, -1, 0], 2)

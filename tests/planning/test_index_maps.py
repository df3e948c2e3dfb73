"""Terms and index maps, each compared with the list of its positions."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.planning.index_maps import IndexMap, Regular, Runs, Table, runs_of, term_of


@st.composite
def regular(draw):
    """As a range, the end of which may lie before the next step."""
    start, step = draw(st.integers(-9, 9)), draw(st.integers(-5, 7).filter(bool))
    return Regular(start, start + draw(st.integers(0, 90)) * (1 if step > 0 else -1), step)


@st.composite
def runs(draw):
    """Ascending runs; the last may begin inside the one before, as a generator's last item does."""
    counts = np.array(draw(st.lists(st.integers(1, 6), min_size=2, max_size=8)))
    step = draw(st.integers(0, 4))
    gaps = draw(st.lists(st.integers(1, 9), min_size=len(counts), max_size=len(counts)))
    begins, position = [], draw(st.integers(-5, 5))
    for count, gap in zip(counts, gaps, strict=True):
        begins.append(position)
        position += (count - 1) * step + gap
    return Runs(np.array(begins), np.cumsum(counts), step)


tables = st.lists(st.integers(-20, 20), min_size=1, max_size=40).map(lambda v: Table(np.array(v)))
terms = st.one_of(regular(), runs(), tables)


def listed(term):
    """Its positions, one by one, from its fields alone."""
    if isinstance(term, Regular):
        return list(range(term.start, term.stop, term.step))
    if isinstance(term, Table):
        return term.values.tolist()
    counts = np.diff(np.append(0, term.ends)).tolist()
    return [
        begin + number * term.step
        for begin, count in zip(term.begins.tolist(), counts, strict=True)
        for number in range(count)
    ]


@given(terms)
def test_a_term_gives_the_positions_it_stands_for(term):
    values = listed(term)
    assert len(term) == len(values)
    assert term.at(np.arange(len(values))).tolist() == values
    assert [int(term.at(number)) for number in range(len(values))] == values
    some = np.arange(len(values))[::-2].reshape(1, -1)
    np.testing.assert_array_equal(term.at(some), np.array(values, dtype=int)[some])
    if len(values) > 1:
        assert term.ascending == (values == sorted(values))


@given(terms.filter(len), st.data())
def test_the_least_and_largest_position_are_those_of_each_window_between(term, data):
    values = listed(term)
    numbers = st.integers(0, len(values))
    pairs = data.draw(st.lists(st.tuples(numbers, numbers).filter(lambda p: p[0] < p[1])))
    firsts = np.array([first for first, _ in pairs], dtype=int)
    lasts = np.array([last for _, last in pairs], dtype=int)
    low, high = term.lohi(firsts, lasts)
    assert low.tolist() == [min(values[first:last]) for first, last in pairs]
    assert high.tolist() == [max(values[first:last]) for first, last in pairs]
    for first, last in pairs:
        assert term.lohi(first, last) == (min(values[first:last]), max(values[first:last]))


@given(terms, st.lists(st.integers(-25, 90)))
def test_windows_before_a_position_are_counted_where_they_ascend(term, positions):
    values = listed(term)
    if term.ascending:
        expected = [sum(value < position for value in values) for position in positions]
        assert term.first_from(positions).tolist() == expected
    else:
        with pytest.raises(ValueError, match="do not ascend"):
            term.first_from(positions)


@given(terms.filter(len), st.data())
def test_taking_windows_is_indexing_the_list(term, data):
    values = listed(term)
    numbers = data.draw(st.lists(st.integers(0, len(values) - 1)))
    taken = term.take(numbers)
    assert listed(taken) == [values[number] for number in numbers]
    assert taken == term_of([values[number] for number in numbers])
    # Likewise of numbers that are a term.
    assert listed(term.take(term_of(numbers))) == [values[number] for number in numbers]


@given(terms.filter(len), st.data())
def test_taking_runs_of_windows_keeps_the_step_and_joins_neighbors(term, data):
    values = listed(term)
    edges = sorted(data.draw(st.lists(st.integers(0, len(values)), min_size=2, max_size=9)))
    pairs = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False) if a < b]
    numbers = runs_of(
        np.array([a for a, _ in pairs], dtype=int), np.array([b - a for a, b in pairs]), 1
    )
    taken = term.take(numbers)
    expected = [values[number] for pair in pairs for number in range(*pair)]
    assert listed(taken) == expected
    if expected and term.ascending and not isinstance(term, Table):
        assert taken.step == term.step
        breaks = sum(b - a != term.step for a, b in zip(expected, expected[1:], strict=False))
        assert len(taken.runs[0]) == 1 + breaks


@given(st.one_of(terms.map(listed), st.lists(st.integers(0, 4)).map(sorted)))
def test_the_term_of_values_is_the_smallest(values):
    term = term_of(values)
    assert listed(term) == values
    steps = np.diff(values)
    if len(values) > 1 and len(set(steps)) == 1 and steps[0]:
        assert isinstance(term, Regular)
    elif len(values) > 1 and values == sorted(values):
        fewest = 1 + min(int((steps != step).sum()) for step in steps)
        kind = Runs if 3 * fewest < len(values) else Table
        assert isinstance(term, kind)
        assert not isinstance(term, Runs) or len(term.begins) == fewest


@given(terms)
def test_runs_part_the_windows_between_steps(term):
    values, (first, last) = listed(term), term.runs
    if values:
        assert [*first[1:], len(values)] == [*last]
        assert first[0] == 0
        assert all(
            b - a == term.step
            for low, high in zip(first, last, strict=True)
            for a, b in zip(values[low : high - 1], values[low + 1 : high], strict=True)
        )


@given(terms, terms)
def test_terms_are_equal_where_they_are_the_same_and_after_pickling(one, other):
    again = pickle.loads(pickle.dumps(one))
    assert again == one
    assert hash(again) == hash(one)
    assert listed(again) == listed(one)
    same = type(one) is type(other) and (
        (one.start, one.stop, one.step) == (other.start, other.stop, other.step)
        if isinstance(one, Regular)
        else listed(one) == listed(other) and (isinstance(one, Table) or alike(one, other))
    )
    assert (one == other) == same


def alike(one, other):
    return one.step == other.step and one.begins.tolist() == other.begins.tolist()


@given(st.one_of(regular(), runs()))
def test_digests_are_the_bytes_that_states_have_always_had(term):
    """A range was its start, stop and step; runs were begins, ends and the step, in int64."""
    if isinstance(term, Regular):
        numbers = [term.start, term.stop, term.step]
    else:
        ends = np.cumsum(np.diff(np.append(0, term.ends)))
        numbers = [*term.begins.tolist(), *ends.tolist(), term.step]
    assert term.digest() == b"".join(n.to_bytes(8, "little", signed=True) for n in numbers)


def test_a_digest_tells_a_table_from_runs_with_the_same_numbers():
    assert Table(np.array([0, 9, 3])).digest() != Regular(0, 9, 3).digest()


def test_a_trillion_windows_are_taken_in_a_few_numbers():
    numbers = runs_of(np.array([5, 10**11]), np.array([10**10, 8 * 10**11]), 1)
    taken = Regular(0, 2 * 10**12, 2).take(numbers)
    assert len(taken) == 81 * 10**10
    assert taken.at(10**10) == 2 * 10**11
    assert len(pickle.dumps(taken)) < 1000


@st.composite
def maps(draw):
    """An index map over some of two axes of 5 and 7 windows, and a window of each."""
    counts = (5, 7)
    axes = draw(st.sampled_from([(), (0,), (1,), (0, 1)]))
    positions = st.integers(0, 50)
    found = {
        axis: term_of(draw(st.lists(positions, min_size=counts[axis], max_size=counts[axis])))
        for axis in axes
    }
    size, step, base = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(-3, 3))
    return IndexMap("x", 200, size, found, step=step, base=base)


@given(maps(), st.data())
def test_a_span_reaches_over_the_steps_of_every_window_of_a_box(found, data):
    box = []
    for count in (5, 7):
        first = data.draw(st.integers(0, count - 1))
        box.append((first, data.draw(st.integers(first + 1, count))))
    begins = {
        found.base + sum(listed(term)[(i, j)[axis]] for axis, term in found.terms.items())
        for i in range(*box[0])
        for j in range(*box[1])
    }
    steps = [begin + place * found.step for begin in begins for place in range(found.size)]
    assert found.span(box) == (min(steps), max(steps) + 1)
    numbers = np.indices((5, 7)).reshape(2, -1)
    inside = np.all([(n >= a) & (n < b) for n, (a, b) in zip(numbers, box, strict=True)], axis=0)
    assert set(np.broadcast_to(found.start(numbers), 35)[inside].tolist()) == begins


@given(maps(), maps(), st.data())
def test_maps_have_one_digest_only_where_they_are_the_same(one, other, data):
    def told(each):
        terms = {axis: listed(term) for axis, term in each.terms.items()}
        return each.size, each.step, each.base, terms

    assert (one.digest() == other.digest()) == (told(one) == told(other))
    assert one.take(1, [3, 0]).terms.keys() == one.terms.keys()

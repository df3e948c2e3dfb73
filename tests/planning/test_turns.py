"""Turns at exact rates, whose counts are known without listing them."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from xtorch_data.planning.turns import Turns

rates = st.lists(
    st.one_of(st.integers(1, 30), st.fractions(Fraction(1, 9), 9, max_denominator=9)),
    min_size=1,
    max_size=5,
).map(lambda given: [Fraction(each) for each in given])


@given(rates)
@examples(30)
def test_after_any_number_of_turns_counts_are_nearer_than_one_to_the_rates(given_rates):
    turns = Turns.of(given_rates)
    total = sum(given_rates)
    had = [0] * len(given_rates)
    for turn in range(3 * turns.period + 1):
        assert turns.counts(turn) == tuple(had)
        for count, rate in zip(had, given_rates, strict=True):
            assert abs(count - turn * rate / total) < 1
        had[turns.at(turn)] += 1
    assert [count * total for count in turns.counts(turns.period * 7)] == [
        7 * turns.period * rate for rate in given_rates
    ]


@given(rates, st.integers(0, 200), st.data())
@examples(30)
def test_the_end_is_that_of_walking(given_rates, begin, data):
    turns = Turns.of(given_rates)
    left = data.draw(
        st.lists(st.integers(0, 40), min_size=len(given_rates), max_size=len(given_rates))
    )
    rest, turn = [*left], begin
    while rest[turns.at(turn)]:
        rest[turns.at(turn)] -= 1
        turn += 1
    assert turns.until_first(begin, left) == turn
    rest, turn = [*left], begin
    while any(each > 0 for each in rest):
        rest[turns.at(turn)] -= 1
        turn += 1
    assert turns.until_all(begin, left) == turn


def test_ten_to_the_twelve_turns_take_no_time():
    turns = Turns.of([Fraction(3), Fraction(1)])
    assert turns.counts(10**12) == (750_000_000_000, 250_000_000_000)
    assert turns.turn_of(1, 10**12) in range(4 * 10**12, 4 * 10**12 + 4)
    assert [turns.at(turn) for turn in range(8)].count(1) == 2


def test_a_period_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="rounder"):
        Turns.of([Fraction(1, 100_003), Fraction(1, 2)])

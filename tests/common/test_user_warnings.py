"""Warnings: of which line, and how often."""

import warnings

import pytest

from xtorch_data.common.user_warnings import about, telling_once, warn_user


def given(*calls):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for call in calls:
            call()
    return [str(each.message) for each in found]


def test_the_same_words_are_said_once_where_that_is_asked_for_and_else_always():
    told = set()

    def once(message):
        with telling_once(told):
            warn_user(message)

    first, second = lambda: once("a"), lambda: once("b")
    assert given(first, first, second, first) == ["a", "b"]
    assert given(first, lambda: warn_user("a"), lambda: warn_user("a")) == ["a", "a"]
    told.clear()
    assert given(first) == ["a"]


def test_the_same_words_about_another_object_are_said():
    told, one, other = set(), object(), object()

    def tell(what):
        with telling_once(told), about(what):
            warn_user("it is large")

    assert len(given(lambda: tell(one), lambda: tell(other), lambda: tell(one))) == 2


def test_a_warning_that_is_an_error_is_one_each_time():
    told = set()
    for _ in range(2):
        with pytest.raises(UserWarning, match="large"), telling_once(told):  # as pytest has it
            warn_user("it is large")

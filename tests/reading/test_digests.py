import functools

import numpy as np
import pytest

from xtorch_data.reading.digests import Unidentified, digest


def made(source, **around):
    """A function of its own from source, as after an edit."""
    names = {"__name__": "edited", **around}
    exec(source, names)
    return names["f"]


F = "def f(x):\n    return x * 2\n"

SAME = [
    (made(F), made(F)),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({1, 2, 3}, {3, 2, 1}),
    (np.arange(4)[::2], np.array([0, 2])),
    (float("nan"), float("nan")),
    (functools.partial(made(F), x=1), functools.partial(made(F), x=1)),
    (np.dtype("f4"), np.dtype("float32")),
]
DIFFERENT = [
    (made(F), made(F.replace("2", "3"))),
    (made(F), made(F.replace("*", "+"))),
    (made(F, k=1), made(F.replace("2", "k"), k=2)),
    (made(F.replace("2", "k"), k=1), made(F.replace("2", "k"), k=2)),  # a global
    (made(F.replace("x)", "x, y=1)")), made(F.replace("x)", "x, y=2)"))),
    (
        made(F.replace("2", "g(x)"), g=made(F)),
        made(F.replace("2", "g(x)"), g=made(F.replace("2", "4"))),
    ),  # what it calls
    (functools.partial(made(F), x=1), functools.partial(made(F), x=2)),
    (1, True),
    (1, 1.0),
    ("1", 1),
    (b"a", "a"),
    (("a", "b"), ("ab",)),
    ((("a",), "b"), ("a", ("b",))),
    ([1, 2], (1, 2)),
    (np.zeros(4, "f4"), np.zeros(4, "i4")),
    (np.zeros((2, 2)), np.zeros(4)),
    (slice(1, 2), slice(1, 2, 1)),
    ({"a": {"b": 1}}, {"a": 1, "b": 1}),
    (0.0, -0.0),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_equal_things_have_equal_digests(one, other):
    assert digest(one) == digest(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_other_things_have_other_digests(one, other):
    assert digest(one) != digest(other)


def test_functions_that_call_themselves_end():
    f = made("def f(x):\n    return f(x - 1) if x else 0\n")
    assert digest(f) == digest(f)


def test_what_has_no_token_is_refused():
    class Odd:
        def __reduce__(self):
            raise TypeError("not to be pickled")

    with pytest.raises(Unidentified, match="Odd cannot be told from others"):
        digest({"a": [Odd()]})

"""Digests of other processes."""

from helpers import in_a_process


def test_a_digest_is_the_same_in_every_process():
    script = """
import numpy as np
from xtorch_data.reading.digests import digest

scale = {"a": 2.5, ("b", 1): {"x", "y", "z"}}

def f(x, *, by=np.float32(3)):
    return [x * by * scale["a"] for _ in {1, 2, "three"}]

found = digest((f, scale, np.arange(3))).hex()
print(found)
"""
    names = {"__name__": "__main__"}
    exec(script, names)
    assert in_a_process(script).stdout == names["found"] + "\n"

"""Random generators depend on their arguments alone, and no two uses share their numbers."""

import itertools

import numpy as np

from xtorch_data.common import random
from xtorch_data.common.random import generator


def test_the_numbers_are_those_of_numpy_for_the_four_arguments():
    np.random.seed(1)  # of which nothing is taken
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence((3, 1, 4, 15))))
    np.testing.assert_array_equal(generator(3, 1, 4, 15).random(5), expected.random(5))


def test_every_argument_makes_other_numbers():
    found = {
        tuple(generator(*arguments).integers(2**62, size=2))
        for arguments in itertools.product(range(3), repeat=4)
    }
    assert len(found) == 3**4


def test_uses_differ():
    uses = [getattr(random, name) for name in random.__all__ if name.isupper()]
    assert len(set(uses)) == len(uses) == 10

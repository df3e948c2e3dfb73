"""Random generators depend on their arguments alone, and no two uses share their numbers."""

import itertools

import numpy as np

from xtorch_data.common import random
from xtorch_data.common.random import generator, uniform


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
    assert len(set(uses)) == len(uses) == 11


# ---------------------------------------------------------------------------------------------
# Uniform numbers of samples


def splitmix64(state):
    """The next number after a state, in plain integers of Python."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


def test_uniform_numbers_are_those_of_plain_integers():
    """Whatever wraps around does so modulo 2**64."""
    numbers = np.array([0, 1, 7, 2**62, 10**12])
    state = np.random.SeedSequence((3, 2, random.AUGMENTATION, 5)).generate_state(2, np.uint64)
    first, second = map(int, state)
    step = 0x9E3779B97F4A7C15
    expected = [
        [
            splitmix64((splitmix64((n * step + first) % 2**64) + c * step + second) % 2**64) >> 40
            for c in range(1, 4)
        ]
        for n in numbers.tolist()
    ]
    found = uniform(3, 2, 5, numbers, 3)
    assert found.dtype == np.float32 and found.shape == (5, 3)
    assert np.array_equal(found.astype("f8") * 2**24, np.array(expected, "f8"))
    with np.errstate(all="raise"):
        assert np.array_equal(uniform(3, 2, 5, numbers[2], 3), found[2])


def test_a_uniform_number_depends_on_its_own_arguments_alone():
    numbers = np.random.default_rng(0).permutation(1000)
    whole = uniform(1, 2, 3, np.arange(1000), 4)
    assert np.array_equal(uniform(1, 2, 3, numbers, 4), whole[numbers])
    assert np.array_equal(uniform(1, 2, 3, numbers[:7], 2), whole[numbers[:7], :2])


def chi_square(values, bins):
    """Sum of squares over a table that is even if numbers are, less its mean, in deviations."""
    counts = np.bincount(values, minlength=bins)
    expected = len(values) / bins
    statistic = ((counts - expected) ** 2 / expected).sum()
    return (statistic - (bins - 1)) / np.sqrt(2 * (bins - 1))


def test_uniform_numbers_are_even():
    """In their leading bits, in their last ones, and in no way by the number of the sample."""
    found = uniform(0, 0, 0, np.arange(400_000), 2)
    assert found.min() >= 0 and found.max() < 1
    integers = (found.astype("f8") * 2**24).astype("i8")
    assert np.array_equal(integers / 2**24, found)
    for column in integers.T:
        for bits in (column >> 14, column & 1023):
            assert abs(chi_square(bits, 1024)) < 4
    for stride in (2, 8, 1000):  # samples of one place, say
        assert abs(chi_square(integers[::stride, 0] >> 18, 64)) < 4


def test_uniform_numbers_of_neighbors_know_nothing_of_each_other():
    """Samples, columns, calls, epochs, seeds: pairs of these fill the square evenly."""
    numbers = np.arange(200_000)

    def bins(seed=0, epoch=0, call=0, column=0, shift=0):
        return (uniform(seed, epoch, call, numbers + shift, column + 1)[:, column] * 32).astype(int)

    first = bins()
    others = [{"shift": 1}, {"shift": 2}, {"shift": 1024}, {"column": 1}]
    others += [{"call": 1}, {"epoch": 1}, {"seed": 1}]
    for other in others:
        second = bins(**other)
        assert abs(chi_square(first * 32 + second, 1024)) < 4, other
        assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(len(numbers)), other
    # Nor are seed, epoch and call mistaken for each other.
    assert not np.array_equal(bins(epoch=1), bins(call=1))
    assert not np.array_equal(bins(epoch=1), bins(seed=1))

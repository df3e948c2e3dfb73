"""Selections that are read through a file are those that NumPy makes of the array."""

import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.sources import file_reads
from xtorch_data.sources.file_reads import StoredArray, read_array

DTYPES = ["u1", "<i2", ">f4", "<f8", ">i8", "c16", "U3", "M8[ns]", "?"]


@st.composite
def stored(draw):
    """An array over the bytes of a file, and its offset: any view, also of a field of records."""
    ndim = draw(st.integers(0, 4))
    shape = tuple(
        draw(st.integers(0 if draw(st.integers(0, 9)) == 0 else 1, 7)) for _ in range(ndim)
    )
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    offset = draw(st.integers(0, 9))
    if draw(st.booleans()):
        records = np.dtype([("before", "u1"), ("it", dtype, (2,)), ("after", "i2")])
        whole = np.empty((*shape,), records, draw(st.sampled_from("CF")))
        values = whole["it"]
    else:
        whole = values = np.empty(shape, dtype, draw(st.sampled_from("CF")))
    values = values.transpose(draw(st.permutations(range(values.ndim))))
    if values.ndim:
        step = draw(st.sampled_from([1, 2, -1, -3]))
        axis = draw(st.integers(0, values.ndim - 1))
        values = values[(slice(None),) * axis + (slice(None, None, step),)]
    if draw(st.integers(0, 5)) == 0:
        values = np.broadcast_to(values, (3, *values.shape))
    begin = values.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    nbytes = offset + whole.nbytes
    return nbytes, StoredArray(offset + begin, values.dtype, values.shape, values.strides)


def at(size):
    """What selects of a dim: an integer, a slice, or a list in any order."""
    ends = st.none() | st.integers(-size - 1, size + 1)
    ways = [st.builds(slice, ends, ends, st.sampled_from([None, 1, 2, 3, -1, -2]))]
    if size:
        place = st.integers(-size, size - 1)
        ways += [place, place.map(np.int64)]
        ways.append(st.lists(place, max_size=9).map(lambda found: np.array(found, np.int64)))
    return st.one_of(ways)


def selected(values, key):
    """Each dim for itself, by NumPy alone."""
    for axis in reversed(range(len(key))):
        index = (slice(None),) * axis + (key[axis], ...)
        values = values[index]
    return values


@given(
    case=stored(),
    data=st.data(),
    near=st.sampled_from([0, 8, 2**14]),
    piece=st.sampled_from([1, 64, 500, 2**19]),
)
def test_a_selection_is_that_of_numpy(case, data, near, piece, tmp_path_factory):
    nbytes, place = case
    content = np.random.default_rng(nbytes).integers(0, 2, nbytes, np.uint8)
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(content.tobytes())
    memory = np.concatenate([content, np.zeros(16, np.uint8)])  # nothing of it is looked at
    values = np.ndarray(place.shape, place.dtype, memory, place.offset, place.strides)
    key = [data.draw(at(size)) for size in place.shape]
    swapped = place.dtype.newbyteorder() if data.draw(st.booleans()) else place.dtype
    dtype = np.dtype("f8") if place.dtype == "?" else swapped
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_reads, "NEAR", near)
        patch.setattr(file_reads, "PIECE", piece)
        with open(path, "rb", buffering=0) as file:
            found = read_array(file, place, key, dtype)
    expected = selected(values, key).astype(dtype)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert found.flags.c_contiguous and found.flags.writeable
    assert found.tobytes() == expected.tobytes()


class Counting:
    """A file that counts what is read of it."""

    def __init__(self, file):
        self._file, self.name = file, file.name
        self.calls = self.nbytes = 0

    def seek(self, begin):
        self._file.seek(begin)

    def readinto(self, target):
        self.calls += 1
        self.nbytes += len(target)
        return self._file.readinto(target)


def counted(path, values, key):
    values.tofile(path)
    with open(path, "rb", buffering=0) as file:
        counting = Counting(file)
        place = StoredArray(0, values.dtype, values.shape, values.strides)
        found = read_array(counting, place, key, values.dtype)
    np.testing.assert_array_equal(found, selected(values, key))
    return counting.calls, counting.nbytes


def test_what_lies_together_is_one_read_and_what_is_far_apart_is_not_read(tmp_path):
    path, every = tmp_path / "values.bin", slice(None)
    values = np.random.default_rng(0).normal(size=(40, 100, 250)).astype("f4")  # rows of 1 kB
    plane = 100 * 250 * 4
    assert counted(path, values, (slice(3, 9), every, every)) == (1, 6 * plane)
    assert counted(path, values, (5, slice(7, 8), slice(30, 31))) == (1, 4)
    assert counted(path, values, (slice(0, 40, 10), every, every)) == (4, 4 * plane)
    calls, nbytes = counted(path, values, (slice(0, 8), slice(10, 20), slice(20, 40)))
    assert calls == 8 and nbytes == 8 * (9 * 1000 + 80)  # no more than the patch of each plane
    assert counted(path, values, (np.array([3, 4, 5]), every, every)) == (1, 3 * plane)
    assert counted(path, values, (np.array([30, 2, 17]), every, every)) == (3, 3 * plane)
    # Pieces are no longer than memory allows, however much is wanted.
    _, nbytes = counted(path, values, (every, every, slice(None, None, 2)))
    assert nbytes <= values.nbytes


def test_a_position_that_is_not_there_is_an_error(tmp_path):
    values = np.arange(12.0).reshape(3, 4)
    for key in [(3, slice(None)), (np.array([0, 3]), 0), (0, np.array([-5]))]:
        with pytest.raises(IndexError):
            counted(tmp_path / "values.bin", values, key)


@pytest.mark.parametrize(
    "key", [(slice(None), slice(None)), (slice(None), 3), (np.array([1, 8]), 0)]
)
def test_a_file_that_ends_before_is_an_error_that_names_it(tmp_path, key):
    path = tmp_path / "values.bin"
    values = np.arange(9000.0).reshape(9, 1000)
    values.tofile(path)
    os.truncate(path, math.prod(values.shape) * 4)
    place = StoredArray(0, values.dtype, values.shape, values.strides)
    with open(path, "rb", buffering=0) as file:
        with pytest.raises(ValueError, match=r"values.bin was cut off"):
            read_array(file, place, key, values.dtype)
        found = read_array(file, place, (2, slice(None)), values.dtype)
        np.testing.assert_array_equal(found, values[2])

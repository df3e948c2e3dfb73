"""Copies to a device run one ahead, and errors stay in their place."""

import pytest

from xtorch_data.device import one_ahead


def followed(items, failing=()):
    """What happens while batches are begun and finished, and the generator of these."""
    happened = []

    def begin(item):
        happened.append(("begin", item))
        if item in failing:
            raise ValueError(f"{item} cannot be copied")
        return item

    def finish(item):
        happened.append(("finish", item))
        return item

    return happened, one_ahead(items, begin, finish)


def test_the_next_copy_begins_before_one_is_handed_out():
    happened, batches = followed(iter(range(3)))
    for number, batch in enumerate(batches):
        assert batch == number
        # never more than one ahead of the one in use
        assert [n for what, n in happened if what == "begin"] == list(range(min(number + 2, 3)))
        assert happened[-1] == ("finish", number)


def failing_after(count):
    yield from range(count)
    raise ValueError(f"{count} cannot be read")


@pytest.mark.parametrize("count", range(4))
def test_an_error_comes_in_its_place(count):
    _, unread = followed(failing_after(count))
    _, uncopied = followed(iter(range(9)), failing=[count])
    for batches in (unread, uncopied):
        assert [next(batches) for _ in range(count)] == list(range(count))
        with pytest.raises(ValueError, match=f"{count} cannot be"):
            next(batches)
        assert list(batches) == []

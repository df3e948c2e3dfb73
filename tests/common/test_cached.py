"""A property that is worked out once, and that threads and forks may ask."""

import threading

import pytest

from xtorch_data.common.cached import cached_property


class Asked:
    times = 0

    @cached_property
    def answer(self):
        """The answer."""
        self.times += 1
        return self.times

    @cached_property
    def fails(self):
        raise ValueError("broken")


def test_it_is_worked_out_once_for_each_object():
    one, other = Asked(), Asked()
    assert [one.answer, one.answer, other.answer, one.times] == [1, 1, 1, 1]
    assert vars(one)["answer"] == 1
    assert Asked.answer.__doc__ == "The answer."
    del one.answer
    assert one.answer == 2


def test_an_error_is_not_kept():
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            assert Asked().fails


def test_nobody_waits_for_a_thread_that_works_it_out():
    """As a fork would for ever, which does not have the thread."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow:
        @cached_property
        def answer(self):
            if threading.current_thread() is not threading.main_thread():
                begun.set()
                assert go_on.wait(60)
            return 42

    slow = Slow()
    thread = threading.Thread(target=lambda: slow.answer)
    thread.start()
    assert begun.wait(60)
    assert slow.answer == Slow().answer == 42
    go_on.set()
    thread.join()

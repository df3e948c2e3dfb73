"""What threads count adds up, under the names that users see."""

import threading

import pytest

from xtorch_data.common.recorder import STAGES, Recorder, Way
from xtorch_data.report.stats import stats_of


def test_what_many_threads_count_adds_up():
    recorder, start = Recorder(3), threading.Barrier(4)

    def count():
        start.wait()
        for _ in range(500):
            recorder.add(blocks_read=1, bytes_read=10)
            recorder.took({Way.COPIED: 2, Way.READ_BY_ZARR: 1})
            recorder.fail(["lost"])

    threads = [threading.Thread(target=count) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    stats = stats_of(recorder)
    assert (stats.epoch, stats.blocks_read, stats.bytes_read) == (3, 2000, 20_000)
    assert stats.paths == {"read by zarr": 2000, "windows copied": 4000}
    assert stats.failures == ("lost",) * 2000


def test_nothing_counted_is_zero_of_the_right_kind():
    stats = stats_of(Recorder(0))
    assert stats.paths == {}
    assert (stats.samples, stats.retries, stats.chunks_missing) == (0, 0, 0)
    assert all(type(getattr(stats, stage)) is float for stage in STAGES)


def test_what_nobody_knows_is_refused():
    recorder = Recorder(0)
    with pytest.raises(KeyError):
        recorder.add(blocks_raed=1)
    with pytest.raises(ValueError):
        recorder.took({Way("windows lost"): 1})


def test_time_counts_also_where_something_fails_and_the_clock_stops():
    recorder = Recorder(0)
    with pytest.raises(ZeroDivisionError), recorder.timed("read"):
        raise ZeroDivisionError
    assert stats_of(recorder).read > 0
    recorder.end()
    assert recorder.seconds == recorder.seconds
    before = recorder.seconds
    recorder.end()
    assert recorder.seconds == before

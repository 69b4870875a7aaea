"""Threads that come at once share batches."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from asr.transcription.turns import Turns


def test_requests_that_wait_are_done_together():
    calls, begun, go_on = [], threading.Event(), threading.Event()

    def work(items, how):
        calls.append((sorted(items), how))
        begun.set()
        go_on.wait(10)

    turns = Turns(work, float, most=100)
    same, other = "same", "other"
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(turns, [1, 2], same)]
        begun.wait(10)
        futures += [pool.submit(turns, [i], how) for i, how in ((3, same), (4, same), (95, same), (6, other))]
        while len(turns._waiting) < 4:
            time.sleep(0.001)
        go_on.set()
        for future in futures:
            future.result(10)
    assert calls[0] == ([1, 2], same)
    rest = sorted(calls[1:], key=str)
    assert ([6], other) in rest and sorted(i for items, _ in calls for i in items) == [1, 2, 3, 4, 6, 95]
    assert all(sum(items) <= 100 for items, _ in calls)
    assert len(calls) <= 4  # of 5 requests
    assert turns._waiting == []


def test_an_error_reaches_all_that_shared_the_work():
    begun = threading.Event()
    go_on = threading.Event()

    def work(items, how):
        begun.set()
        go_on.wait(10)
        if 0 in items:
            raise ValueError("zero")

    turns = Turns(work, float, most=100)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(turns, [1], None)
        begun.wait(10)
        others = [pool.submit(turns, [i], None) for i in (0, 2)]
        while len(turns._waiting) < 2:
            time.sleep(0.001)
        go_on.set()
        assert first.result(10) is None
        for other in others:
            with pytest.raises(ValueError, match="zero"):
                other.result(10)
    turns([5], None)

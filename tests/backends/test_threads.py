import os
import signal
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downslope.backends.threads import available, share_out


def test_there_is_at_least_one_processor():
    assert 1 <= available() <= (os.cpu_count() or 1)


@settings(deadline=None, max_examples=60)
@given(total=st.integers(0, 1000), piece=st.integers(1, 300), threads=st.integers(1, 5))
def test_every_piece_is_done_once(total, piece, threads):
    done = []
    share_out(lambda begin, end, mark: done.append((begin, end)), total, piece, threads)
    assert sorted(done) == [(begin, min(begin + piece, total)) for begin in range(0, total, piece)]


def test_the_work_is_shared():
    together = threading.Barrier(3, timeout=300)  # passes only if three pieces are under way at once
    share_out(lambda begin, end, mark: together.wait() and None, 3, 1, 3)


def test_one_thread_means_this_one():
    seen = set()
    share_out(lambda begin, end, mark: seen.add(threading.current_thread()), 10, 1, 1)
    assert seen == {threading.current_thread()}


@pytest.mark.parametrize("failing", [0, 3, 7])
def test_an_error_is_raised_only_when_all_work_has_ended(failing):
    running = []

    def work(begin, end, mark):
        if begin == failing:
            raise ArithmeticError(f"piece {begin}")
        running.append(begin)
        time.sleep(0.01)
        running.remove(begin)

    with pytest.raises(ArithmeticError, match=f"piece {failing}"):
        share_out(work, 8, 1, 3)
    assert running == []


def test_work_after_an_error_is_done():
    with pytest.raises(ZeroDivisionError):
        share_out(lambda begin, end, mark: 1 // 0, 4, 1, 2)
    done = []
    share_out(lambda begin, end, mark: done.append(begin), 4, 1, 2)
    assert sorted(done) == [0, 1, 2, 3]


def test_several_threads_may_share_out_at_once():
    counts = [0] * 6

    def caller(k):
        mine = []
        share_out(lambda begin, end, mark: mine.append(end - begin), 500, 7, 3)
        counts[k] = sum(mine)

    callers = [threading.Thread(target=caller, args=(k,)) for k in range(6)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert counts == [500] * 6


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="the system has no signals for threads")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeoutError])
@pytest.mark.parametrize("when", range(6))
def test_a_signal_is_raised_only_after_all_pieces_have_ended(kind, when):
    """Whichever piece it comes in, and whichever thread does that piece."""

    def handler(number, frame):
        raise kind

    active = []

    def work(begin, end, mark):
        if threading.current_thread() is not threading.main_thread():  # that one the signal may well interrupt
            active.append(begin)
        if begin == when:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        time.sleep(0.004)  # so that other pieces are under way
        if begin in active:
            active.remove(begin)

    old = signal.signal(signal.SIGUSR1, handler)
    try:
        for _ in range(5):
            with pytest.raises(kind):
                share_out(work, 6, 1, 3)
            assert not active
    finally:
        signal.signal(signal.SIGUSR1, old)

import ctypes
import os
import platform
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from downslope.backends.compiler import call, int64, words
from downslope.backends.machine import Library
from downslope.backends.threads import available, share_out, share_rounds


def test_there_is_at_least_one_processor():
    assert 1 <= available() <= (os.cpu_count() or 1)


@settings(deadline=None, max_examples=60)
@given(pieces=st.integers(0, 60), threads=st.integers(1, 5))
def test_every_piece_is_done_once(pieces, threads):
    done = []
    share_out(done.append, [(k,) for k in range(pieces)], threads)
    assert sorted(done) == list(range(pieces))


def test_the_work_is_shared():
    together = threading.Barrier(3, timeout=300)  # passes only if three pieces are under way at once
    share_out(together.wait, [()] * 3, 3)


def test_a_round_begins_when_the_one_before_has_ended():
    done, mine = [], threading.current_thread()

    def work(number, piece):
        if piece < 0:
            assert threading.current_thread() is mine
        done.append(number)

    rounds = [([(2 * k, -1)], [(2 * k + 1, piece) for piece in range(7)]) for k in range(3)]
    share_rounds(work, rounds, 3, [(6, -1)])
    assert done == sorted(done)
    assert [done.count(number) for number in range(7)] == [1, 7, 1, 7, 1, 7, 1]


def test_one_thread_means_this_one():
    seen = set()
    share_out(lambda: seen.add(threading.current_thread()), [()] * 10, 1)
    assert seen == {threading.current_thread()}


def test_the_last_call_is_made_by_this_thread_when_all_others_have_ended():
    running, found = [], []
    helped = threading.Event()

    def work(k):
        if k < 0:
            found.append((list(running), threading.current_thread()))
        elif threading.current_thread() is threading.main_thread():
            assert helped.wait(300)
        else:
            running.append(k)
            helped.set()
            time.sleep(0.01)
            running.remove(k)

    for _ in range(5):
        helped.clear()
        share_out(work, [(0,), (1,)], 2, last=[(-1,)])
    assert found == [([], threading.current_thread())] * 5


@pytest.mark.parametrize("failing", [0, 3, 7])
def test_an_error_is_raised_only_when_all_work_has_ended(failing):
    running = []

    def work(k):
        if k == failing:
            raise ArithmeticError(f"piece {k}")
        running.append(k)
        time.sleep(0.01)
        running.remove(k)

    with pytest.raises(ArithmeticError, match=f"piece {failing}"):
        share_out(work, [(k,) for k in range(8)], 3)
    assert running == []


def test_work_after_an_error_is_done():
    with pytest.raises(ZeroDivisionError):
        share_out(lambda: 1 // 0, [()] * 4, 2)
    done = []
    share_out(done.append, [(k,) for k in range(4)], 2)
    assert sorted(done) == [0, 1, 2, 3]


def test_several_threads_may_share_out_at_once():
    counts = [0] * 6

    def caller(k):
        mine = []
        share_out(mine.append, [(piece,) for piece in range(70)], 3)
        counts[k] = sum(mine)

    callers = [threading.Thread(target=caller, args=(k,)) for k in range(6)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert counts == [69 * 70 // 2] * 6


def test_nothing_is_kept_alive_by_a_launch_that_is_over():
    class Work:
        def __call__(self):
            together.wait()

    for _ in range(3):
        together = threading.Barrier(2, timeout=300)
        work = Work()
        gone = threading.Event()
        weakref.finalize(work, gone.set)
        share_out(work, [()] * 2, 2)
        del work
        assert gone.wait(300)  # the other thread may still be about to let go of it


library = Library(__file__)


@library.function(python=True, release=True)
def call_and_mark(function: int64, argument: int64, mark: words) -> None:
    """Call a function of C, and last of all write 1 to an address."""
    call(function, argument)
    mark[0] = 1


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="the system has no signals for threads")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeoutError])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_however_many_signals_come_they_are_raised_when_all_work_has_ended(kind, threads):
    marks = np.zeros(41, np.int64)
    seen = []

    def handler(number, frame):
        seen.append(marks.tolist())
        raise kind

    send = ctypes.cast(ctypes.CDLL(None)["raise"], ctypes.c_void_p).value
    pieces = [(send, signal.SIGUSR1, marks[k:].ctypes.data) for k in range(40)]
    last = (ctypes.cast(ctypes.CDLL(None)["abs"], ctypes.c_void_p).value, 0, marks[40:].ctypes.data)
    work = call_and_mark.call
    old = signal.signal(signal.SIGUSR1, handler)
    try:
        for _ in range(50):
            marks[:] = 0
            with pytest.raises(kind):
                share_out(work, pieces, threads, last=[last])
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert len(seen) >= 50
    assert all(marks == [1] * 41 for marks in seen)


LATE = """
    import atexit, sys, threading
    import numpy as np
    import downslope

    x, dx = np.zeros(600_000, np.float32), np.ones(600_000, np.float32)
    optimizer = downslope.Optimizer(x, downslope.sgd, lr=1.0, threads=2)

    def train(optimizer=optimizer, x=x, dx=dx):
        optimizer.step(dx)
        print(optimizer.t, set(x.tolist()))

    def join_and_train():
        threading.main_thread().join()
        train()

    class Last:
        def __del__(self, train=train):
            train()

    if "before" in sys.argv:
        train()
    if "after the main thread" in sys.argv:
        threading.Thread(target=join_and_train).start()
    if "at exit" in sys.argv:
        atexit.register(train)
    if "while modules are taken down" in sys.argv:
        last = Last()
"""


@pytest.mark.parametrize(
    "when",
    [
        ("before", "after the main thread", "at exit", "while modules are taken down"),
        ("after the main thread", "at exit"),
        ("while modules are taken down",),
    ],
    ids=["several", "first at the end", "first of all when there is nothing else"],
)
def test_a_step_late_in_the_life_of_a_process_is_a_step(when):
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(LATE), *when],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.stdout.splitlines() == [f"{t} {{-{t}.0}}" for t in range(1, len(when) + 1)]
    assert process.stderr == ""


UPWARD = {"x86_64": 0x800, "aarch64": 0x400000}
"""What C calls rounding upward, for `fesetround`."""


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() not in UPWARD, reason="its C library is not known")
@pytest.mark.parametrize("mode", ["upward", "flushed"])
def test_all_threads_compute_as_the_calling_one_does(mode):
    """A thread may be set to round otherwise, or to take denormal numbers for 0; then that one only."""
    together, found = threading.Barrier(2, timeout=300), []
    one, tiny = np.float32([1, 1e-10]), np.float32([1.5 * 2.0**-126, 4])

    def work():
        together.wait()
        found.append((threading.get_ident(), float(one.sum()), float(tiny[0] / tiny[1])))

    share_out(work, [()] * 2, 2)  # the other thread is there before anything changes
    plain = found[0][1:]
    library = ctypes.PyDLL(None)
    before = library.fegetround()
    try:
        if mode == "upward":
            library.fesetround(UPWARD[platform.machine()])
        elif not torch.set_flush_denormal(True):
            pytest.skip("torch cannot have this processor flush denormal numbers")
        share_out(work, [()] * 2, 2)
    finally:
        library.fesetround(before)
        if mode == "flushed":
            torch.set_flush_denormal(False)
    share_out(work, [()] * 2, 2)
    changed = (1.0000001192092896, plain[1]) if mode == "upward" else (1.0, 0.0)
    assert [results for _, *results in found] == [list(each) for each in (plain, plain, changed, changed, plain, plain)]
    assert [len({thread for thread, *_ in found[k : k + 2]}) for k in (0, 2, 4)] == [2, 2, 2]

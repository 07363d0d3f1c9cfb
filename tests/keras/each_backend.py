"""Tests that run in a process of their backend.

A process chooses Keras's backend once, before it imports Keras. So a test is collected where pytest was started, once
for each backend, and runs in a process that has chosen it, which many tests share: those on TensorFlow where they were
collected, if that has chosen it.
"""

import contextlib
import functools
import multiprocessing
import os
import sys
from pathlib import Path

import pytest

from forked import context as prepared

BACKENDS = ("tensorflow", "jax", "torch")
MARKS = {"tensorflow": pytest.mark.slow, "jax": pytest.mark.slow, "torch": ()}  # what compiles takes long


def each_on(names, cases, **how):
    """Run a test with each case, the last entry of which says on which backends."""
    spread = [pytest.param(*case, name, marks=MARKS[name]) for *case, backends in cases for name in backends]
    return pytest.mark.parametrize((*names, "backend"), spread, scope="session", **how)


def on(*backends):
    """Run a test on these backends only."""
    return each_on((), [(backends,)])


once = on("tensorflow")  # what is the same on every backend


class Process:
    """A process in which Keras runs on one backend, started when it is first needed."""

    def __init__(self, backend, printed):
        """Remember what to start.

        Args:
            backend: The backend.
            printed: A file for what the process prints.
        """
        self._backend, self._printed = backend, printed
        self._process = self._connection = None

    def run(self, nodeid):
        """Run a test there; it passes, fails or is skipped here as it is there."""
        if self._process is None:
            self._start()
        try:
            self._connection.send(nodeid)
            outcome, text = self._connection.recv()
        except (EOFError, OSError):
            code = self.end()
            printed = self._printed.read_text(errors="replace")[-6000:]
            pytest.fail(f"the process of Keras on {self._backend} ended with {code}:\n{printed}", pytrace=False)
        if outcome == "skipped":
            pytest.skip(text)
        if outcome == "failed":
            pytest.fail(text, pytrace=False)

    def _start(self):
        context = prepared() if self._backend == "torch" else multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = theirs, self._backend, self._printed
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def end(self, *, at_once=False):
        """End the process, if there is one.

        Args:
            at_once: Whether it is not to clean up, which takes seconds where a framework is loaded.

        Returns:
            Its exit code.
        """
        if self._process is None:
            return None
        self._connection.close()
        if at_once:
            self._process.kill()
        self._process.join()
        code, self._process = self._process.exitcode, None
        return code


class Serving:
    """Where a backend has been chosen: run the tests that are asked for, until nobody is there to ask."""

    def __init__(self, connection):
        self._connection, self._reports = connection, []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        if session.testsfailed:
            raise session.Interrupted(f"{session.testsfailed} errors while collecting")
        items = {item.nodeid: item for item in session.items}
        while True:
            try:
                item = items[self._connection.recv()]
            except EOFError:
                return True
            self._reports.clear()
            item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
            self._connection.send(self._outcome())

    def pytest_runtest_logreport(self, report):
        self._reports.append(report)

    def _outcome(self):
        for report in self._reports:
            if report.failed:
                printed = "\n".join(f"---- {title} ----\n{text}" for title, text in report.sections)
                return report.outcome, f"{report.longreprtext}\n{printed}"
        for report in self._reports:
            if report.skipped:
                return report.outcome, report.longrepr[-1].removeprefix("Skipped: ")
        return "passed", ""


def chosen():
    """The backend that Keras has in this process; TensorFlow then has two devices, and what needs no process is ready.

    Raises:
        RuntimeError: TensorFlow has been at work before.
    """
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401 - PyTorch's optimizers load it, and after TensorFlow that ends the process
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    return keras.backend.backend()


@functools.cache
def mirrored():
    """What keeps a copy of everything on both devices; one for all tests, since two of them confuse their exchanges."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


UNUSED = ("matplotlib", "pandas")
"""What Keras loads where it is installed, for what is not used here."""


def _serve(connection, backend, printed):
    with printed.open("w") as file:
        for standard in (1, 2):
            os.dup2(file.fileno(), standard)
    os.environ |= {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    sys.modules |= dict.fromkeys(UNUSED)
    here = str(Path(__file__).parent)
    pytest.main([here, "-o", "addopts=", "-p", "no:cacheprovider"], plugins=[Serving(connection)])

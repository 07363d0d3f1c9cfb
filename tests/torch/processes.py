"""A function on many processes at once, joined by gloo on the loopback interface.

Processes are started when a group of their number is first needed, and take one call after another: what PyTorch does
only once, such as planning how a tensor is sharded, takes it longer than the trainings here.
"""

import os
import sys
import tempfile
import time
import traceback
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path

from forked import context

TIMEOUT = 900


class Groups:
    """Process groups by the number of their processes; in a `with` block, after which none of them is left."""

    def __init__(self):
        self._groups = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for group in self._groups.values():
            group.end()

    def run_on(self, world, function, *arguments):
        """Call `function(*arguments)` on `world` processes of one process group.

        The function is one of a module, its arguments and results can be pickled. Where it fails, the group ends.

        Returns:
            What each process returned, by rank.

        Raises:
            AssertionError: A process failed, died, or had not finished after `TIMEOUT` seconds.
        """
        group = self._groups.pop(world, None) or Group(world)
        try:
            results = group.call(function, *arguments)
        except BaseException:
            group.end()
            raise
        self._groups[world] = group
        return results


class Group:
    """Processes that wait for what they are to call."""

    def __init__(self, world):
        where = context()
        self._folder = tempfile.TemporaryDirectory()
        self._processes = {}
        for rank in range(world):
            ours, theirs = where.Pipe()
            arguments = theirs, rank, world, Path(self._folder.name) / "store"
            self._processes[ours] = process = where.Process(target=_work, args=arguments, daemon=True)
            process.start()
            theirs.close()

    def call(self, function, *arguments):
        """What each process returns, by rank."""
        ranks = {connection: rank for rank, connection in enumerate(self._processes)}
        for connection in ranks:
            connection.send((function, arguments))
        results, waiting, deadline = {}, set(ranks), time.monotonic() + TIMEOUT
        while waiting:
            ready = wait(waiting, max(0, deadline - time.monotonic()))
            late = sorted(ranks[connection] for connection in waiting)
            assert ready, f"{function.__name__}: the processes {late} of {len(ranks)} did not finish in time"
            for connection in ready:
                try:
                    failure, result = connection.recv()
                except EOFError:
                    failure, result = "it died", None
                assert not failure, f"{function.__name__}: process {ranks[connection]} of {len(ranks)}: {failure}"
                results[ranks[connection]] = result
                waiting.remove(connection)
        return [results[rank] for rank in sorted(results)]

    def end(self):
        """End the processes, whatever they are at."""
        for connection, process in self._processes.items():
            connection.close()
            process.kill()
            process.join()
        self._folder.cleanup()


def _work(connection, rank, world, store):
    import torch

    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    joined = False
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            if not joined:
                torch.distributed.init_process_group(
                    "gloo",
                    init_method=f"file://{store}",
                    rank=rank,
                    world_size=world,
                    timeout=timedelta(seconds=TIMEOUT),
                )
                joined = True
            result = function(*arguments)
            torch.distributed.barrier()
            connection.send(("", result))
        except BaseException:
            connection.send((traceback.format_exc(), None))

"""A function on many processes at once, joined by gloo on the loopback interface."""

import contextlib
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path

# Imported once, in the server that every process is forked from: a process costs milliseconds, not seconds.
IMPORTS = ["torch._dynamo", "torch.distributed.fsdp", "torch.distributed.checkpoint.state_dict", "downslope.torch"]
IMPORTS += ["llvmlite.binding", "pytest"]


def run_on(world, function, *arguments, timeout=900):
    """Call `function(*arguments)` on `world` processes of one process group.

    The function is one of a module, its arguments and results can be pickled. No process outlives the call.

    Returns:
        What each process returned, by rank.

    Raises:
        AssertionError: A process failed, died, or had not finished after `timeout` seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTS)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        ranks = {}
        for rank in range(world):
            ours, theirs = context.Pipe()
            stack.enter_context(ours)
            process = context.Process(
                target=_work, args=(theirs, rank, world, Path(folder) / "store", timeout, function, arguments)
            )
            process.start()
            stack.callback(_end, process)
            theirs.close()
            ranks[ours] = rank
        return _collect(ranks, function, time.monotonic() + timeout)


def _collect(ranks, function, deadline):
    results, waiting = {}, set(ranks)
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


def _end(process):
    process.join(0.2)
    if process.is_alive():
        process.kill()
        process.join()


def _work(connection, rank, world, store, timeout, function, arguments):
    import torch

    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    try:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=timedelta(seconds=timeout)
        )
        result = function(*arguments)
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        connection.send(("", result))
    except BaseException:
        connection.send((traceback.format_exc(), None))

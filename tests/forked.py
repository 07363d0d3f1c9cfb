"""Processes forked from one in which PyTorch is loaded and nothing has run: each costs milliseconds, not seconds."""

import faulthandler
import multiprocessing
import os
import sys
import tempfile
import warnings
from pathlib import Path

IMPORTS = ["torch._dynamo", "torch.distributed.fsdp", "torch.distributed.checkpoint.state_dict", "downslope.torch"]
IMPORTS += ["llvmlite.binding", "pytest"]


def context():
    """Where such processes are made; without a server to fork from, they begin from nothing."""
    found = multiprocessing.get_context(
        "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else None
    )
    found.set_forkserver_preload(IMPORTS)
    return found


def run_alone(script, *arguments):
    """Run a script in a process of its own, which may die of it.

    Args:
        script: Python, as text.
        *arguments: What it finds in `sys.argv[1:]`.

    Returns:
        How it ended, 0 if well, and what it printed on either stream.
    """
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder) / "printed"
        process = context().Process(target=_run, args=(script, list(map(str, arguments)), printed))
        process.start()
        process.join(900)
        process.kill()  # if it has not ended
        process.join()
        return process.exitcode, printed.read_text(errors="replace")


def _run(script, arguments, printed):
    with printed.open("w") as file:
        for standard in (1, 2):
            os.dup2(file.fileno(), standard)
    faulthandler.enable()
    warnings.simplefilter("ignore")
    sys.argv[1:] = arguments
    exec(compile(script, "<alone>", "exec"), {"__name__": "alone"})

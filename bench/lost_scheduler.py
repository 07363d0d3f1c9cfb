"""A scheduler of Dask that dies in the middle of a race, and comes back: nothing is lost.

python bench/lost_scheduler.py
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np

import downslope
from downslope.lab import race
from downslope.lab.workers.cluster import executor_at
from downslope.lab.workers.spread import WorkersError

RULES = [downslope.sgd, downslope.adam]
SIZES = {"learning_rates": [0.01, 0.03, 0.1], "tuning_seeds": 2, "verdict_seeds": 6, "version": "1"}


def training(victim):
    """A training at one of whose runs in a worker the process `victim` is killed; None: no process is."""
    here = os.getpid()

    def descend(run):
        x = np.random.default_rng(run.seed).normal(size=3)
        optimizer = run.optimizer(x)
        run.report(0, x @ x)
        if victim is not None and os.getpid() != here and (run.name, run.lr) == ("adam", 0.1):
            os.kill(victim, signal.SIGKILL)
        for _ in range(4):
            optimizer.step(2 * x)
        run.report(4, x @ x)

    return descend


def begun(port):
    """A scheduler and its worker."""
    dask, address = [sys.executable, "-m", "distributed.cli.dask_scheduler"], f"tcp://127.0.0.1:{port}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen([*dask, "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"], **quiet)
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
    return scheduler, subprocess.Popen(worker, **quiet)


def raced(port, folder, victim):
    """The race, once the scheduler has its worker."""
    while True:
        try:
            with executor_at(f"tcp://127.0.0.1:{port}") as executor:
                begin = time.perf_counter()
                try:
                    return race(training(victim), RULES, **SIZES, folder=folder, workers=executor)
                finally:
                    print(f"the race ended after {time.perf_counter() - begin:.1f} s")
        except ValueError:
            time.sleep(1)


def main():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as place:
        scheduler, worker = begun(port)
        try:
            raced(port, f"{place}/race", scheduler.pid)
        except WorkersError as error:
            print(error)
        worker.kill()
        scheduler, worker = begun(port)
        again = raced(port, f"{place}/race", None)
        worker.kill()
        scheduler.kill()
        whole = race(training(None), RULES, **SIZES)
        equal = all(
            a.tuning == b.tuning and a.verdict == b.verdict for a, b in zip(again.rules, whole.rules, strict=True)
        )
        print("the runs are those of a race in one process" if equal else "THE RUNS DIFFER")


if __name__ == "__main__":
    main()

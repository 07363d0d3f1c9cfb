"""Races whose process is killed at random moments and that go on: how many end where an uninterrupted one ends.

    python bench/killed_races.py 50

Each is killed again and again, by SIGKILL or SIGTERM after up to three seconds of training, until it comes to its end.
"""

import dataclasses
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import downslope
from downslope.lab import race
from downslope.lab.keeping.told import read_race


def train(run):
    """A bowl, a moment for every run."""
    x = np.random.default_rng(run.seed).normal(size=3)
    optimizer = run.optimizer(x)
    for step in range(4):
        run.report(step, x @ x)
        optimizer.step(2 * x)
    time.sleep(0.04)
    run.report(4, x @ x)


def raced(folder=None):
    rules = [downslope.sgd, downslope.adam]
    return race(train, rules, learning_rates=[0.01, 0.1], tuning_seeds=2, verdict_seeds=6, folder=folder)


def told(result):
    rules = tuple(dataclasses.replace(one, seconds=0.0) for one in result.rules)
    plain = dataclasses.replace(result, rules=rules, seconds=0.0, environment={})
    return repr(dataclasses.replace(plain, about="", title="", problem=""))


def main(kills):
    whole = told(raced())
    killed = races = same = 0
    chance = random.Random(0)
    while killed < kills:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "race"
            while True:
                process = subprocess.Popen(
                    [sys.executable, __file__, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
                process.stdout.readline()  # it begins
                try:
                    process.wait(chance.uniform(0.0, 3.0))
                    break
                except subprocess.TimeoutExpired:
                    process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
                    process.wait()
                    killed += 1
                finally:
                    process.stdout.close()
            assert process.returncode == 0
            races += 1
            same += told(read_race(folder)) == whole
    print(f"{killed} kills in {races} races, {same} of which ended where one ends that was not killed")


if __name__ == "__main__":
    if sys.argv[1].isdecimal():
        main(int(sys.argv[1]))
    else:
        print("begins", flush=True)
        raced(sys.argv[1])

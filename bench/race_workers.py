"""Two processes against one, on a training of half a second.

python bench/race_workers.py          # that computes
python bench/race_workers.py --wait   # that waits: what sending the runs costs, on a machine that others use too
"""

import sys
import time

import numpy as np

import downslope
from downslope.lab import race

SECONDS = 0.5
"""That a run takes."""

WAITS = "--wait" in sys.argv


def train(run):
    x = np.random.default_rng(run.seed).normal(size=3)
    optimizer = run.optimizer(x)
    begun = time.process_time()
    run.report(0, x @ x)
    if WAITS:
        time.sleep(SECONDS)
    while not WAITS and time.process_time() - begun < SECONDS:
        pass
    for _ in range(4):
        optimizer.step(2 * x)
    run.report(4, x @ x)


def main():
    took = {}
    for workers in (1, 2):
        begun = time.perf_counter()
        result = race(
            train,
            [downslope.sgd, downslope.adam],
            learning_rates=[0.01, 0.03, 0.1],
            tuning_seeds=2,
            verdict_seeds=10,
            workers=workers,
        )
        took[workers] = time.perf_counter() - begun
        runs = sum(len(one.tuning) + len(one.verdict) for one in result.rules)
        print(f"{workers} processes: {runs} runs of {SECONDS} s in {took[workers]:.1f} s")
    print(f"{took[1] / took[2]:.2f} times as fast")


if __name__ == "__main__":
    main()

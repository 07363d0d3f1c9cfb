"""A `fit` epoch in Keras: downslope's optimizer against Keras's own, on one backend.

    python bench/keras_fit.py --backend torch --rule Adam --rounds 7

Both train the same network on the same batches, in one process, one epoch after the other in turns, so that both see
the same machine. What is reported is the time of an epoch and the ratio ours / Keras's own: medians and quartiles. A
backend has to be chosen before Keras is imported, so each needs a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from typing import Any

SIZES = {"small": (64, 64, 10), "large": (784, 1024, 1024, 10)}
"""Widths of the layers of the networks that are trained."""


def keras_rows(
    rules: list[str], rounds: int = 7, batches: int = 100, sizes: tuple[str, ...] = ("small", "large")
) -> Any:
    """Measure on the backend that Keras runs on in this process.

    Args:
        rules: Names of classes that Keras and downslope both have.
        rounds: How many epochs of each are measured, after one that compiles.
        batches: The number of steps in an epoch.
        sizes: Which networks.

    Returns:
        One dict per rule and network: backend, rule, network, weights, milliseconds of an epoch, ratio and quartiles.
    """
    import keras
    import numpy as np

    import downslope.keras

    rows = []
    for size in sizes:
        widths = SIZES[size]
        generator = np.random.default_rng(0)
        x = generator.normal(size=(32 * batches, widths[0])).astype("float32")
        y = generator.integers(0, widths[-1], size=32 * batches)
        for rule in rules:
            models = []
            for place in (downslope.keras, keras.optimizers):
                keras.utils.set_random_seed(0)
                layers = [keras.layers.Dense(width, activation="relu") for width in widths[1:-1]]
                model = keras.Sequential([keras.Input((widths[0],)), *layers, keras.layers.Dense(widths[-1])])
                loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
                given = {"momentum": 0.9} if rule == "SGD" else {}
                model.compile(getattr(place, rule)(learning_rate=1e-3, **given), loss)
                model.fit(x, y, batch_size=32, epochs=2, verbose=0, shuffle=False)
                models.append(model)
            times: list[list[float]] = [[], []]
            for turn in range(rounds):
                for k in (0, 1) if turn % 2 else (1, 0):
                    begin = time.perf_counter()
                    models[k].fit(x, y, batch_size=32, epochs=1, verbose=0, shuffle=False)
                    times[k].append(time.perf_counter() - begin)
            ratios = [ours / theirs for ours, theirs in zip(*times, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            rows.append(
                {
                    "backend": keras.backend.backend(),
                    "rule": rule,
                    "network": size,
                    "weights": models[0].count_params(),
                    "ms": 1e3 * statistics.median(times[0]),
                    "ms_keras": 1e3 * statistics.median(times[1]),
                    "ratio": middle,
                    "low": low,
                    "high": high,
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=["tensorflow", "jax", "torch"], default="tensorflow")
    parser.add_argument("--rule", action="append", help="a class that Keras and downslope both have (default: Adam)")
    parser.add_argument("--network", choices=list(SIZES), action="append")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    chosen = parser.parse_args()
    os.environ["KERAS_BACKEND"] = chosen.backend
    rows = keras_rows(chosen.rule or ["Adam"], chosen.rounds, chosen.batches, tuple(chosen.network or SIZES))
    if chosen.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            f"{row['backend']:<11}{row['rule']:<9}{row['network']:<6}{row['weights']:>10,} weights  "
            f"{row['ms']:8.1f} ms, Keras {row['ms_keras']:8.1f} ms  "
            f"ratio {row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        )


if __name__ == "__main__":
    main()

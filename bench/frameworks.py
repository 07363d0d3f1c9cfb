"""A training step in a framework, with downslope's rule beside the framework's own, interleaved in one run.

    python bench/frameworks.py [optax] [keras] [--rules adam ...] [--models mlp ...] [--rounds 31] [--json found.json]

- `optax`: the update of a transformation and `optax.apply_updates` under one `jax.jit`, with parameters and state
  donated; gradients are there already. `downslope.optax.adam` and so on against Optax's own.
- `keras`: an epoch of `fit` with `downslope.keras.Adam` and so on against Keras's own, on each backend that is
  installed, in a process of its own; see keras_fit.py. The models are its networks.

Every round times both, in turned order, each after one untimed step of its own. Reported are the median times, and the
median and quartiles over the rounds of the ratio ours / theirs within a round: below 1, downslope is faster. That both
reach the same weights is checked before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import downslope

LR = 1e-3
TURN = 0.05  # seconds that a contender's turn takes, if a step is not longer
Shapes = dict[str, tuple[int, ...]]
Step = Callable[[], object]
Row = dict[str, Any]

MODELS: dict[str, Shapes] = {
    "mlp": {"W1": (64, 32), "b1": (32,), "W2": (32, 10), "b2": (10,)},
    "1M": {f"W{k}": (125_000,) for k in range(8)},
    "10M": {f"W{k}": (1250, 1000) for k in range(8)},
}


# ---- timing, the same for all parts


def seconds_per_step(step: Step, steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps


def race(ours: Step, theirs: Step, rounds: int) -> Row:
    """Both in every round, the one that begins changing from round to round."""
    both = {"ours": ours, "theirs": theirs}
    steps = {name: max(1, min(1000, int(TURN / seconds_per_step(step, 3)))) for name, step in both.items()}
    seconds: dict[str, list[float]] = {name: [] for name in both}
    for k in range(rounds):
        for name in sorted(both, reverse=bool(k % 2)):
            both[name]()  # the caches that the one before has left
            seconds[name].append(seconds_per_step(both[name], steps[name]))
    ratios = [a / b for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if rounds > 1 else ratios * 3
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {"median_s": medians, "ratio": middle, "quartiles": [low, high]}


# ---- Optax


OPTAX_RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("sgd", {}),
    "momentum": ("sgd", {"momentum": 0.9}),
    "rmsprop": ("rmsprop", {}),
    "adam": ("adam", {}),
    "adamw": ("adamw", {}),
    "nadam": ("nadam", {}),
    "lion": ("lion", {}),
    "adabelief": ("adabelief", {}),
}


def optax_pairs() -> dict[str, tuple[Any, Any]]:
    """By rule: ours, theirs."""
    import optax

    import downslope.optax

    return {
        rule: (getattr(downslope.optax, name)(LR, **given), getattr(optax, name)(LR, **given))
        for rule, (name, given) in OPTAX_RULES.items()
    }


class OptaxStep:
    """A compiled update of parameters that are donated to it."""

    def __init__(self, transformation: Any, shapes: Shapes):
        import jax
        import numpy as np
        import optax

        generator = np.random.default_rng(0)
        arrays = [{n: generator.standard_normal(s, np.float32) for n, s in shapes.items()} for _ in range(2)]
        params, self.gradients = (jax.tree.map(jax.numpy.array, tree) for tree in arrays)
        self.held = params, transformation.init(params)

        def update(held: Any, gradients: Any) -> Any:
            params, state = held
            updates, state = transformation.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        self.compiled = jax.jit(update, donate_argnums=0)
        self.wait = jax.block_until_ready

    def __call__(self) -> None:
        """Update and wait for the result."""
        self.held = self.compiled(self.held, self.gradients)
        self.wait(self.held)


def optax_rows(rules: list[str] | None = None, models: list[str] | None = None, rounds: int = 31) -> list[Row]:
    """Rules of Optax, ours against its own, under `jit` with donated buffers.

    Args:
        rules: The names of rules; all if not given.
        models: The names of models; all if not given.
        rounds: How often each is timed.
    """
    import numpy as np

    rows = []
    for rule, pair in optax_pairs().items():
        for model, shapes in MODELS.items():
            if (rules and rule not in rules) or (models and model not in models):
                continue
            ours, theirs = (OptaxStep(transformation, shapes) for transformation in pair)
            for _ in range(3):
                ours()
                theirs()
            for name, x in ours.held[0].items():  # 3e-6 is a thousandth of what three steps of Adam go
                np.testing.assert_allclose(x, theirs.held[0][name], rtol=1e-6, atol=3e-6, err_msg=f"{rule} {name}")
            rows.append({"part": "optax", "rule": rule, "model": model, **race(ours, theirs, rounds)})
            report(rows[-1])
    return rows


# ---- Keras

CLASSES = {"momentum": "SGD", "rmsprop": "RMSprop", "adam": "Adam", "nadam": "Nadam"}


def keras_rows(rules: list[str] | None = None, models: list[str] | None = None, rounds: int = 31) -> list[Row]:
    """Optimizers of Keras, ours against its own, in `fit`; arguments as for `optax_rows`."""
    rows = []
    for backend in ("tensorflow", "jax", "torch"):
        if find_spec(backend) is None:
            continue
        command = [sys.executable, str(Path(__file__).with_name("keras_fit.py")), "--json", "--backend", backend]
        command += ["--rounds", str(rounds)]
        for rule in [rule for rule in rules or CLASSES if rule in CLASSES]:
            command += ["--rule", CLASSES[rule]]
        for model in models or ():
            command += ["--network", model]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for found in json.loads(done.stdout.splitlines()[-1]):
            rule = next(name for name, own in CLASSES.items() if own == found["rule"])
            median = {"ours": found["ms"] / 1e3, "theirs": found["ms_keras"] / 1e3}
            quartiles = [found["low"], found["high"]]
            row = {"part": f"keras on {backend}", "rule": rule, "model": found["network"], "median_s": median}
            rows.append({**row, "ratio": found["ratio"], "quartiles": quartiles})
            report(rows[-1])
    return rows


# ---- the whole

PARTS: dict[str, Callable[..., list[Row]]] = {"optax": optax_rows, "keras": keras_rows}


def report(row: Row) -> None:
    ours, theirs = (row["median_s"][name] * 1e6 for name in ("ours", "theirs"))
    low, high = row["quartiles"]
    print(
        f"{row['part']:<20}{row['rule']:<12}{row['model']:<8}{ours:12.1f} µs, theirs {theirs:12.1f} µs   "
        f"ours/theirs {row['ratio']:.3f} ({low:.3f} to {high:.3f})",
        flush=True,
    )


def environment() -> Row:
    versions = {"python": platform.python_version(), "downslope": downslope.__version__}
    for name in ("numpy", "jax", "optax", "keras", "tensorflow", "torch"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    processor = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return {"processor": processor, "cores": os.cpu_count(), "versions": versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", default=list(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--rules", nargs="+")
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--rounds", type=int, default=31, help="how often each contender is timed")
    parser.add_argument("--json", type=Path, help="where to write what was found")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; give some of {', '.join(PARTS)}")
    if arguments.rounds < 1:
        parser.error(f"--rounds {arguments.rounds}: give at least 1")
    if unknown := set(arguments.rules or ()) - {*OPTAX_RULES, *CLASSES}:
        parser.error(f"no such rule: {', '.join(sorted(unknown))}; give some of {', '.join(OPTAX_RULES)}")
    results = environment()
    for part in arguments.parts:
        results[part] = PARTS[part](arguments.rules, arguments.models, arguments.rounds)
        if arguments.json:  # after every part: a run that is broken off leaves what it has
            arguments.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

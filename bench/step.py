"""One optimizer step, downslope beside PyTorch and Optax, interleaved in one run.

    python bench/step.py [--rounds 15] [--json step.json] [large] [small] [growth]

`large`: one float32 tensor of 25 M weights, also beside a pure read/modify/write of the same bytes. `small`: four
tensors with 2,410 weights in all. `growth`: Adam from 1 M to 500 M weights. Every round times each contender once; what
is reported are the medians over the rounds of the time and of the ratio to downslope within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import optax
import torch

import downslope
from downslope.backends.compiler import int64
from downslope.backends.machine import Library
from downslope.backends.memory import access, address

RULES = {
    "sgd": (downslope.sgd, torch.optim.SGD, {}, lambda: optax.sgd(1e-3)),
    "momentum": (downslope.momentum, torch.optim.SGD, {"momentum": 0.9}, lambda: optax.sgd(1e-3, momentum=0.9)),
    "nesterov": (
        downslope.nesterov,
        torch.optim.SGD,
        {"momentum": 0.9, "nesterov": True},
        lambda: optax.sgd(1e-3, momentum=0.9, nesterov=True),
    ),
    "adagrad": (downslope.adagrad, torch.optim.Adagrad, {}, lambda: optax.adagrad(1e-3)),
    "rmsprop": (downslope.rmsprop, torch.optim.RMSprop, {}, lambda: optax.rmsprop(1e-3)),
    "adam": (downslope.adam, torch.optim.Adam, {}, lambda: optax.adam(1e-3)),
}
SMALL = {"W1": (64, 25), "b1": (64,), "W2": (10, 73), "b2": (16,)}
LARGE = {"W": (25_000_000,)}
Step = Callable[[], object]


def arrays(shapes: dict[str, tuple[int, ...]]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    weights = {name: generator.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    gradients = {name: generator.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    return weights, gradients


def ours(rule: downslope.Rule, shapes: dict[str, tuple[int, ...]], **options: object) -> Step:
    weights, gradients = arrays(shapes)
    optimizer = downslope.Optimizer(weights, rule, lr=1e-3, **options)
    return lambda: optimizer.step(gradients)


def torches(rule: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, Step]:
    _, kind, settings, _ = RULES[rule]
    steps = {}
    for variant, flags in (("default", {}), ("foreach", {"foreach": True}), ("fused", {"fused": True})):
        weights, gradients = arrays(shapes)
        parameters = [torch.nn.Parameter(torch.from_numpy(w)) for w in weights.values()]
        for parameter, gradient in zip(parameters, gradients.values(), strict=True):
            parameter.grad = torch.from_numpy(gradient)
        try:
            steps[f"torch {variant}"] = kind(parameters, lr=1e-3, **settings, **flags).step
        except (TypeError, RuntimeError):  # there is no such kernel
            continue
    return steps


def optax_step(rule: str, shapes: dict[str, tuple[int, ...]]) -> Step:
    transformation = RULES[rule][3]()
    weights, gradients = arrays(shapes)
    gradients = jax.device_put(gradients)
    kept = [jax.device_put(weights)]
    kept.append(transformation.init(kept[0]))

    def update(weights, state, gradients):
        updates, state = transformation.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state

    compiled = jax.jit(update, donate_argnums=(0, 1))

    def step() -> None:
        kept[0], kept[1] = compiled(kept[0], kept[1], gradients)
        jax.block_until_ready(kept[0])

    return step


library = Library(__file__)
load_x, store_x = access("float32", 0)
load_dx, _ = access("float32", 1)
load_a, store_a = access("float32", 2)
load_b, store_b = access("float32", 3)


@library.function(python=True, release=True)
def touch2(count: int64, x: int64, dx: int64) -> None:
    for i in range(count):
        store_x(x, i, load_x(x, i) + load_dx(dx, i))


@library.function(python=True, release=True)
def touch3(count: int64, x: int64, dx: int64, a: int64) -> None:
    for i in range(count):
        store_x(x, i, load_x(x, i) + load_dx(dx, i))
        store_a(a, i, load_a(a, i) + load_dx(dx, i))


@library.function(python=True, release=True)
def touch4(count: int64, x: int64, dx: int64, a: int64, b: int64) -> None:
    for i in range(count):
        store_x(x, i, load_x(x, i) + load_dx(dx, i))
        store_a(a, i, load_a(a, i) + load_dx(dx, i))
        store_b(b, i, load_b(b, i) + load_dx(dx, i))


def pure_traffic(states: int, count: int) -> Step:
    """Read, modify and write the bytes that a rule with so many states must, with next to no arithmetic."""
    held = [np.ones(count, np.float32) for _ in range(2 + states)]
    held[1][:] = 1e-9
    kernel = (touch2, touch3, touch4)[states].call
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    piece = 1 << 20
    pool = ThreadPoolExecutor(max(threads - 1, 1))

    def step() -> None:
        addresses = [address(array) for array in held]
        begins = iter(range(0, count, piece))

        def work() -> None:
            for begin in begins:
                kernel(min(piece, count - begin), *(at + 4 * begin for at in addresses))

        others = [pool.submit(work) for _ in range(threads - 1)]
        work()
        wait(others)

    return step


def race(contenders: dict[str, Step], rounds: int, repeats: int) -> dict[str, list[float]]:
    """Seconds per step of each contender, one entry a round; the order is turned from round to round."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for name in names:
        for _ in range(3):
            contenders[name]()
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            step = contenders[name]
            start = time.perf_counter()
            for _ in range(repeats):
                step()
            seconds[name].append((time.perf_counter() - start) / repeats)
    return seconds


def report(title: str, seconds: dict[str, list[float]], unit: float, unit_name: str) -> dict[str, object]:
    base = seconds["downslope"]
    rows = {}
    print(f"\n{title}")
    for name, values in seconds.items():
        ratios = sorted(v / b for v, b in zip(values, base, strict=True))
        rows[name] = {
            "median_s": statistics.median(values),
            "ratio": statistics.median(ratios),
            "spread": [ratios[0], ratios[-1]],
        }
        print(
            f"  {name:<16} {statistics.median(values) * unit:10.2f} {unit_name}   "
            f"{statistics.median(ratios):6.2f}x  ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
    return rows


def compare(rule: str, shapes: dict[str, tuple[int, ...]], rounds: int, *, large: bool) -> dict[str, object]:
    contenders = {"downslope": ours(RULES[rule][0], shapes)}
    if large:
        contenders["pure traffic"] = pure_traffic(
            len(RULES[rule][0].states), sum(int(np.prod(s)) for s in shapes.values())
        )
    contenders |= torches(rule, shapes)
    contenders["optax jit"] = optax_step(rule, shapes)
    seconds = race(contenders, rounds, 1 if large else 200)
    unit = (1e3, "ms") if large else (1e6, "us")
    return report(f"{rule}, {'one tensor of 25 M weights' if large else '4 tensors, 2,410 weights'}", seconds, *unit)


def growth(rounds: int) -> dict[str, float]:
    print("\nadam, cost by size")
    result = {}
    for count in (1_000_000, 5_000_000, 25_000_000, 100_000_000, 500_000_000):
        weights, gradients = np.ones(count, np.float32), np.full(count, 1e-3, np.float32)
        optimizer = downslope.Optimizer(weights, downslope.adam, lr=1e-3)
        optimizer.step(gradients)
        times = []
        for _ in range(max(3, min(rounds, 4_000_000_000 // count))):
            start = time.perf_counter()
            optimizer.step(gradients)
            times.append(time.perf_counter() - start)
        result[f"{count}"] = statistics.median(times) / count * 1e9
        print(
            f"  {count:>11,} weights  {statistics.median(times) * 1e3:9.2f} ms   {result[str(count)]:.3f} ns per weight"
        )
        del weights, gradients, optimizer
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["large", "small", "growth"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    packages = ("numpy", "llvmlite", "torch", "jax", "optax")
    results: dict[str, object] = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": sys.version.split()[0], "downslope": downslope.__version__}
        | {name: version(name) for name in packages},
    }
    for part in arguments.parts:
        if part == "growth":
            results[part] = growth(arguments.rounds)
            continue
        large = part == "large"
        shapes = LARGE if large else SMALL
        results[part] = {rule: compare(rule, shapes, arguments.rounds, large=large) for rule in RULES}
    if arguments.json:
        with Path(arguments.json).open("w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()

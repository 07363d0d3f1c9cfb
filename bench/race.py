"""The runs of `downslope race digits`, beside the same runs in an eager PyTorch loop.

    python bench/race.py [--rounds 5] [--epochs 4] [--vmap] [--stacked] [--json race.json]

402 runs: 6 rules × 19 learning rates × 3 tuning seeds, and 10 reporting seeds for each rule. Every round trains them
all in a fresh process of ours, from import to last result, and then a part of them in PyTorch: for each rule
`--epochs` epochs after one to warm up, with 1 and with 2 threads, of which the faster counts. PyTorch's time is
extrapolated from its time per step to the steps that ours really took: runs that diverge end early on both sides.

Both sides have the same network, data, initial weights and order of batches, and look at the validation loss and
accuracy after every epoch; that SGD has the same losses is checked. Ours uses all processors; a PyTorch user who starts
one process per processor by hand gains that factor back.

`--stacked` instead times runs of a model of one's own in PyTorch, stacked and alone in turn: a two-layer network
and a small convolutional one, on `digits`, with SGD and Adam; how many times as fast a run is, by the processor's time.
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
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

LEARNING_RATES = [10 ** (k / 3) for k in range(-15, 4)]
REPORTED_LR = {"sgd": 0.5, "momentum": 0.05, "nesterov": 0.05, "adagrad": 0.05, "rmsprop": 0.005, "adam": 0.005}
TORCH: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "adagrad": ("Adagrad", {}),
    "rmsprop": ("RMSprop", {}),
    "adam": ("Adam", {}),
}


def train_all() -> dict[str, Any]:
    """Train the 402 runs twice in this process: once from nothing, once with everything compiled."""
    start = time.perf_counter()
    import downslope
    from downslope.lab.engines.entrant import Entrant
    from downslope.lab.engines.jax_engine import JaxEngine
    from downslope.lab.engines.protocol import Entry
    from downslope.lab.problems.builtin import load_problem

    imported = time.perf_counter()
    problem = load_problem("digits")
    loaded = time.perf_counter()
    engine = JaxEngine(problem, {name: Entrant.of(name, getattr(downslope, name), {}) for name in TORCH})
    tuning = [Entry(name, lr, seed) for name in TORCH for lr in LEARNING_RATES for seed in range(3)]
    verdict = [Entry(name, lr, 1000 + seed, "verdict") for name, lr in REPORTED_LR.items() for seed in range(10)]
    epochs = dict.fromkeys(TORCH, 0)
    seconds = []
    runs = []
    for attempt in range(2):
        begin = time.perf_counter()
        for entries in (tuning, verdict):
            for progress in engine.train(entries):
                if attempt == 0:
                    epochs[progress.rule] += progress.epochs
                    runs += progress.finished
        seconds.append(time.perf_counter() - begin)
    reference = next(run for run in runs if run.rule == "sgd" and run.lr == LEARNING_RATES[12] and run.seed == 0)
    steps = len(problem.train.x) // problem.batch_size
    return {
        "import": imported - start,
        "data": loaded - imported,
        "train": seconds[0],
        "train, compiled before": seconds[1],
        "compile": seconds[0] - seconds[1],
        "steps": {name: count * steps for name, count in epochs.items()},
        "steps had none diverged": len(runs) * problem.epochs * steps,
        "runs": len(runs),
        "sgd_valid_loss": list(reference.valid_loss),
    }


def torch_loop(rule: str, lr: float, seed: int, epochs: int) -> tuple[float, list[float]]:
    """Seconds per step, the first epoch left out, and the validation losses, of a loop as a user would write it."""
    import torch
    from torch import nn

    from downslope.lab.engines.data import batch_order
    from downslope.lab.engines.network import Network
    from downslope.lab.problems.builtin import load_problem

    problem = load_problem("digits")
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), Network.of(problem).initial(seed), strict=True):
            parameter.copy_(torch.from_numpy(value))
    kind, settings = TORCH[rule]
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=lr, **settings)
    criterion = nn.CrossEntropyLoss()
    x, y = torch.from_numpy(problem.train.x), torch.from_numpy(problem.train.y).long()
    x_valid, y_valid = torch.from_numpy(problem.valid.x), torch.from_numpy(problem.valid.y).long()
    orders = [torch.from_numpy(batch_order(seed, e, len(x), problem.batch_size)) for e in range(1, epochs + 2)]
    losses = []
    steps = 0
    begin = time.perf_counter()
    for epoch, order in enumerate(orders):
        if epoch == 1:
            steps, begin = 0, time.perf_counter()
        for rows in order:
            optimizer.zero_grad()
            criterion(model(x[rows]), y[rows]).backward()
            optimizer.step()
            steps += 1
        with torch.no_grad():
            out = model(x_valid)
            losses.append(criterion(out, y_valid).item())
            (out.argmax(dim=1) == y_valid).float().mean().item()
    return (time.perf_counter() - begin) / steps, losses


def torch_vmap(runs: int = 270, steps: int = 20) -> float:
    """Seconds per run and step of SGD, the cheapest rule, on all runs at once through `torch.func`."""
    import torch
    from torch.func import grad, vmap

    def loss(weights: tuple[Any, ...], x: Any, y: Any) -> Any:
        w1, b1, w2, b2 = weights
        return torch.nn.functional.cross_entropy(torch.relu(x @ w1.T + b1) @ w2.T + b2, y)

    shapes = [(64, 64), (64,), (10, 64), (10,)]
    weights = tuple(0.1 * torch.randn(runs, *shape) for shape in shapes)
    x, y = torch.rand(1078, 64), torch.randint(0, 10, (1078,))
    lr = torch.logspace(-5, 1, runs)
    gradient = vmap(grad(loss))
    begin = 0.0
    for step in range(steps + 2):
        if step == 2:
            begin = time.perf_counter()
        rows = torch.randint(0, 1078, (runs, 64))
        dx = gradient(weights, x[rows], y[rows])
        weights = tuple(w - lr.reshape(-1, *[1] * (w.ndim - 1)) * d for w, d in zip(weights, dx, strict=True))
    return (time.perf_counter() - begin) / (steps * runs)


def stacked(rounds: int, lanes: int = 32, steps: int = 17) -> dict[str, Any]:
    """How many times as fast a run of PyTorch is in a stack as alone, and which of the two a race would choose."""
    import torch
    from torch import nn

    import downslope
    from downslope.lab.engines.entrant import Entrant
    from downslope.lab.engines.model_engine import ModelEngine
    from downslope.lab.engines.order import batch_order
    from downslope.lab.engines.protocol import Entry
    from downslope.lab.engines.torch_stack import TorchStack
    from downslope.lab.problems.builtin import load_problem

    torch.set_num_threads(1)
    nets: dict[str, Callable[[int], Any]] = {
        "two-layer network, 64-64-10": lambda seed: nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
        "convolutional network, 16 and 32 channels": lambda seed: nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(128, 10)),
        ),
    }
    found: dict[str, Any] = {}
    for title, make in nets.items():
        for rule in ("sgd", "adam"):
            entrant = Entrant.of(rule, getattr(downslope, rule), {})
            engine = ModelEngine(make, load_problem("digits"), {rule: entrant})
            rows = engine.examples.split().train
            batches = batch_order(0, 1, len(rows), 64)[:steps]
            alone, *others = (engine._learner(Entry(rule, 0.01, seed), entrant) for seed in range(lanes + 1))
            stack = TorchStack(engine._models, others, entrant, [0.01] * lanes)
            both = np.ascontiguousarray(np.broadcast_to(rows[batches], (lanes, *batches.shape)))
            ratios = []
            for number in range(rounds + 1):
                begin = time.process_time()
                alone.epoch(rows[batches])
                middle = time.process_time()
                stack.epoch(both)
                if number:  # the first warms up
                    ratios.append(lanes * (middle - begin) / (time.process_time() - middle))
            found[f"{title}, {rule}"] = {"times as fast": spread(ratios), "a race": engine.stacking.reason}
    return found


def ours_in_a_fresh_process() -> dict[str, Any]:
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, __file__, "--child"], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    found["total"] = time.perf_counter() - begin - found["train, compiled before"]
    return found


def torch_microseconds(epochs: int) -> dict[str, dict[int, float]]:
    import torch

    found: dict[str, dict[int, float]] = {rule: {} for rule in TORCH}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for rule in TORCH:
            found[rule][threads] = 1e6 * torch_loop(rule, REPORTED_LR[rule], 0, epochs)[0]
    return found


def check_same_training(ours: dict[str, Any], epochs: int) -> None:
    losses = torch_loop("sgd", LEARNING_RATES[12], 0, epochs - 1)[1]
    np.testing.assert_allclose(losses, ours["sgd_valid_loss"][1 : epochs + 1], rtol=1e-3)


def spread(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def measure(rounds: int, epochs: int, with_vmap: bool) -> dict[str, Any]:
    ours, torches, extrapolated, vmapped = [], [], [], []
    for number in range(1, rounds + 1):
        ours.append(ours_in_a_fresh_process())
        if number == 1:
            check_same_training(ours[0], 5)
        torches.append(torch_microseconds(epochs))
        if with_vmap:
            vmapped.append(1e6 * torch_vmap())
        best = {rule: min(torches[-1][rule].values()) for rule in TORCH}
        extrapolated.append(sum(ours[-1]["steps"][rule] * best[rule] for rule in TORCH) / 1e6)
        ratio = extrapolated[-1] / ours[-1]["train"]
        print(
            f"round {number}: ours {ours[-1]['train']:.1f} s, torch {extrapolated[-1]:.1f} s, ratio {ratio:.1f}",
            file=sys.stderr,
        )
    steps = sum(ours[0]["steps"].values())

    def of(read: Callable[[dict[str, Any]], float]) -> dict[str, float]:
        return spread([read(one) for one in ours])

    return {
        "runs": ours[0]["runs"],
        "steps": steps,
        "steps had none diverged": ours[0]["steps had none diverged"],
        "ours, seconds": {
            stage: of(lambda one, stage=stage: one[stage])
            for stage in ("total", "import", "data", "train", "compile", "train, compiled before")
        },
        "ours, µs per run and step": of(lambda one: 1e6 * one["train"] / steps),
        "torch, µs per step": {
            f"{rule}, {threads} thread{'s' * (threads > 1)}": spread([one[rule][threads] for one in torches])
            for rule in TORCH
            for threads in (1, 2)
        },
        "torch, seconds (extrapolated)": spread(extrapolated),
        "ratio": {
            "training, compilation included": spread([t / o["train"] for t, o in zip(extrapolated, ours, strict=True)]),
            "whole process, imports and data included": spread(
                [t / o["total"] for t, o in zip(extrapolated, ours, strict=True)]
            ),
        },
        **({"torch.func vmap, µs per run and step (sgd)": spread(vmapped)} if vmapped else {}),
    }


def show(found: dict[str, Any]) -> None:
    print(f"{found['runs']} runs, {found['steps']:,} steps ({found['steps had none diverged']:,} had none diverged)\n")
    print(f"{'':56}{'min':>9}{'median':>9}{'max':>9}")
    for heading, rows in found.items():
        if isinstance(rows, dict):
            single = isinstance(rows.get("median"), float)
            for name, row in {"": rows}.items() if single else rows.items():
                label = heading + (f": {name}" if name else "")
                print(f"{label:56}{row['min']:9.2f}{row['median']:9.2f}{row['max']:9.2f}")


def environment() -> dict[str, Any]:
    return {
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "load average at the start": os.getloadavg(),
        "versions": {name: version(name) for name in ("jax", "jaxlib", "numpy", "torch")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured")
    parser.add_argument("--epochs", type=int, default=4, help="epochs timed of each rule in PyTorch")
    parser.add_argument("--vmap", action="store_true", help="also time torch.func over 270 runs at once")
    parser.add_argument("--stacked", action="store_true", help="time models of one's own instead, stacked and alone")
    parser.add_argument("--json", type=Path, help="where to write what was found")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(train_all()))
        return
    where = environment()
    if arguments.stacked:
        for name, one in stacked(arguments.rounds).items():
            ratio = one["times as fast"]
            print(f"{name:56}{ratio['min']:9.2f}{ratio['median']:9.2f}{ratio['max']:9.2f}   {one['a race']}")
        return
    found = measure(arguments.rounds, arguments.epochs, arguments.vmap)
    show(found)
    if arguments.json:
        arguments.json.write_text(json.dumps({"environment": where, **found}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

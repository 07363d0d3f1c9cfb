"""One optimizer step in PyTorch: `downslope.torch` beside torch.optim, Optax and DeepSpeed, interleaved in one run.

    python bench/torch_step.py [small] [medium] [convnet] [gpt2] [all] [--parts rules clip states loop] [--rules adam]
                               [--gradients fixed fresh] [--rounds 15] [--json torch_step.json]

- `rules`: every rule as torch.optim has it, against its default, `foreach` and `fused` forms, Optax under `jit` with
  donated buffers, and DeepSpeed's CPUAdam where it is installed.
- `clip`: Adam, clipping by the global norm and an average of the weights: one optimizer against three calls.
- `states`: Adam with its states in bfloat16 and in eight bits against float32, all ours.
- `loop`: Adam in a real loop, forward, backward, step: the step timed inside of it, when other code has filled the
  caches, and in a row with nothing in between. For the perceptrons only, on one thread.

A step is `optimizer.step()` with the gradients there; no backward pass is timed. `fixed` gradients are the same tensors
at every step; `fresh` ones are allocated anew before every step, untimed, at other addresses than those before. Every
round times each contender once, in random order, each after one untimed step of its own. Reported are the median and
the quartiles, over the rounds, of the ratio to downslope within a round: above 1, downslope is faster. On models below
a million weights PyTorch runs with one thread and with all, since waking threads may cost more than it saves, and the
faster is shown. That all torch contenders reach the same weights as ours is checked before anything is timed; Optax's
forms differ a little.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import jax
import optax
import torch
from networks import Shapes, gpt2, resnet50
from torch.nn.utils import clip_grad_norm_

import downslope

LR = 1e-3
EMA = 0.999
BLOCK = 0.02  # seconds that a contender's turn takes, if a step is not longer
THREADS = torch.get_num_threads()
FEW = 1_000_000  # below so many weights one thread may be faster than several
ALONE = ", 1 thread"
EIGHT_BITS = "8-bit states"
Step = Callable[[], object]
Make = Callable[[list[torch.nn.Parameter]], Step]
Rows = dict[str, dict[str, Any]]

# rule: its class in torch.optim, settings beyond lr, and the same in Optax
RULES: dict[str, tuple[str, dict[str, float], Callable[[], optax.GradientTransformation]]] = {
    "momentum": ("SGD", {"momentum": 0.9}, lambda: optax.sgd(LR, momentum=0.9)),
    "adam": ("Adam", {}, lambda: optax.adam(LR)),
    "adamw": ("AdamW", {"weight_decay": 0.01}, lambda: optax.adamw(LR, weight_decay=0.01)),
    "rmsprop": ("RMSprop", {}, lambda: optax.rmsprop(LR, decay=0.99)),
    "nadam": ("NAdam", {}, lambda: optax.nadam(LR)),
    "radam": ("RAdam", {}, lambda: optax.radam(LR)),
    "adamax": ("Adamax", {}, lambda: optax.adamax(LR)),
    "adadelta": ("Adadelta", {}, lambda: optax.adadelta(LR, rho=0.9)),
    "adagrad": ("Adagrad", {}, lambda: optax.adagrad(LR, initial_accumulator_value=0.0, eps=1e-10)),
}


# ---- models, as the shapes of their parameters


def perceptron(*sizes: int) -> Shapes:
    return [shape for n, m in pairwise(sizes) for shape in ((m, n), (m,))]


MODELS: dict[str, tuple[str, Shapes]] = {
    "small": ("multilayer perceptron 64-32-10", perceptron(64, 32, 10)),
    "medium": ("multilayer perceptron 784-256-128-10", perceptron(784, 256, 128, 10)),
    "convnet": ("ResNet-50 with 3/4 of the channels", resnet50(0.75)),
    "gpt2": ("GPT-2 small", gpt2()),
}


def size(shapes: Shapes) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes)


def tensors(shapes: Shapes, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


# ---- contenders


class TorchContender:
    """A step on parameters of its own; fixed gradients are shared by all contenders."""

    def __init__(self, make: Make, threads: int, weights: list[torch.Tensor], gradients: list[torch.Tensor]):
        self.parameters = [torch.nn.Parameter(w.clone()) for w in weights]
        self.fixed = gradients
        self.threads = threads
        self.fix()
        self.step = make(self.parameters)

    def fix(self) -> None:
        """Put the fixed gradients in place."""
        for parameter, gradient in zip(self.parameters, self.fixed, strict=True):
            parameter.grad = gradient

    def renew(self) -> None:
        """Put freshly allocated gradients in place, all of them made before the old ones go."""
        for parameter, gradient in zip(self.parameters, [g.clone() for g in self.fixed], strict=True):
            parameter.grad = gradient


class OptaxContender:
    """A jit-compiled Optax update, with an average of the weights if asked for."""

    threads = THREADS
    parameters: tuple[()] = ()  # none that PyTorch could compare

    def __init__(self, transformation: optax.GradientTransformation, average: bool, weights: Any, gradients: Any):
        self.fixed = self.gradients = [jax.numpy.array(g.numpy()) for g in gradients]
        weights = [jax.numpy.array(w.numpy()) for w in weights]
        averages = [w.copy() for w in weights] if average else []
        self.held = weights, transformation.init(weights), averages

        def update(held: Any, gradients: Any) -> Any:
            weights, state, averages = held
            updates, state = transformation.update(gradients, state, weights)
            weights = optax.apply_updates(weights, updates)
            if average:
                averages = optax.incremental_update(weights, averages, 1 - EMA)
            return weights, state, averages

        self.compiled = jax.jit(update, donate_argnums=0)

    def step(self) -> None:
        """Update and wait for the result."""
        self.held = self.compiled(self.held, self.gradients)
        jax.block_until_ready(self.held)

    def fix(self) -> None:
        """Put the fixed gradients in place."""
        self.gradients = self.fixed

    def renew(self) -> None:
        """Put freshly allocated gradients in place."""
        self.gradients = jax.block_until_ready([g.copy() for g in self.fixed])


Contender = TorchContender | OptaxContender
Build = Callable[[list[torch.Tensor], list[torch.Tensor]], Contender]


def in_torch(make: Make, threads: int = THREADS) -> Build:
    return lambda weights, gradients: TorchContender(make, threads, weights, gradients)


def in_optax(transformation: optax.GradientTransformation, *, average: bool = False) -> Build:
    return lambda weights, gradients: OptaxContender(transformation, average, weights, gradients)


def with_threads(name: str, make: Make, few: bool) -> dict[str, Build]:
    return {name: in_torch(make)} | ({f"{name}{ALONE}": in_torch(make, threads=1)} if few else {})


def stepping(kind: Any, **settings: Any) -> Make:
    return lambda parameters: kind(parameters, lr=LR, **settings).step


def ours(kind: str) -> Any:
    return getattr(importlib.import_module("downslope.torch"), kind)


def of_rule(rule: str, few: bool) -> dict[str, Build]:
    name, settings, in_jax = RULES[rule]
    kind = getattr(torch.optim, name)
    builds = {"downslope": in_torch(stepping(ours(name), **settings))}
    for variant, flags in (("default", {}), ("foreach", {"foreach": True}), ("fused", {"fused": True})):
        if flags.keys() <= inspect.signature(kind).parameters.keys():
            builds |= with_threads(f"torch {variant}", stepping(kind, **flags, **settings), few)
    builds["optax jit"] = in_optax(in_jax())
    with suppress(ImportError):
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        if name in ("Adam", "AdamW"):
            builds["deepspeed"] = in_torch(stepping(DeepSpeedCPUAdam, adamw_mode=name == "AdamW", **settings))
    return builds


def clip_step_average(*, foreach_clip: bool, foreach_average: bool) -> Make:
    """Fused Adam between the two other calls that a training loop then needs, in their two forms each."""

    def make(parameters: list[torch.nn.Parameter]) -> Step:
        optimizer = torch.optim.Adam(parameters, lr=LR, fused=True)
        weights = [p.detach() for p in parameters]
        averages = [w.clone() for w in weights]

        def step() -> None:
            clip_grad_norm_(parameters, 1.0, foreach=foreach_clip)
            optimizer.step()
            if foreach_average:
                torch._foreach_lerp_(averages, weights, 1 - EMA)
            else:
                for average, weight in zip(averages, weights, strict=True):
                    average.lerp_(weight, 1 - EMA)

        return step

    return make


def of_clip(few: bool) -> dict[str, Build]:
    builds = {"downslope": in_torch(stepping(ours("Adam"), max_norm=1.0, averaging=EMA))}
    for clip in (False, True):
        for average in (False, True):
            make = clip_step_average(foreach_clip=clip, foreach_average=average)
            name = f"torch clip{' foreach' * clip}, fused, average{' foreach' * average}"
            builds |= with_threads(name, make, few)
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(LR))
    return builds | {"optax jit": in_optax(clipped, average=True)}


def of_states(few: bool) -> dict[str, Build]:
    return {
        "downslope": in_torch(stepping(ours("Adam"))),
        "bfloat16 states": in_torch(stepping(ours("Adam"), state_dtype=torch.bfloat16)),
        EIGHT_BITS: in_torch(stepping(ours("Adam"), state_dtype=torch.uint8)),
    }


# ---- timing


def timed(contender: Contender, steps: int, fresh: bool) -> float:
    """Seconds per step."""
    torch.set_num_threads(contender.threads)
    if not fresh:
        start = time.perf_counter()
        for _ in range(steps):
            contender.step()
        return (time.perf_counter() - start) / steps
    total = 0.0
    for _ in range(steps):
        contender.renew()
        start = time.perf_counter()
        contender.step()
        total += time.perf_counter() - start
    contender.fix()
    return total / steps


def warm_up(contenders: dict[str, Contender], fresh: bool) -> dict[str, int]:
    """Three steps each, after which all have the same weights; returns how many steps fill a turn.

    States in eight bits may be a tenth of their way apart in the mean: with the same gradient at every step, weights
    whose gradient is a hundredth of the largest near them step as far as others do.
    """
    first = contenders["downslope"]
    for name, contender in contenders.items():
        timed(contender, 3, fresh)
        for p, expected in zip(contender.parameters, first.parameters, strict=bool(contender.parameters)):
            if name == EIGHT_BITS:
                assert (p - expected).abs().mean() < 0.1 * 3 * LR, name
                continue
            # 2e-5 is two per cent of a step of Adam
            torch.testing.assert_close(p, expected, rtol=1e-6, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")
    steps = {}
    for name, contender in contenders.items():
        steps[name] = max(1, min(1000, int(BLOCK / min(timed(contender, 1, fresh) for _ in range(3)))))
    return steps


def race(contenders: dict[str, Contender], rounds: int, fresh: bool) -> dict[str, list[float]]:
    """Seconds per step of each contender, one entry a round."""
    steps = warm_up(contenders, fresh)
    order = list(contenders)
    shuffle = random.Random(0).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in order}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            timed(contenders[name], 1, fresh)  # the caches and threads that the one before has left
            seconds[name].append(timed(contenders[name], steps[name], fresh))
    return seconds


def quartiles(values: list[float]) -> list[float]:
    if len(values) == 1:
        return values * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def compare(builds: dict[str, Build], shapes: Shapes, fresh: bool, arguments: argparse.Namespace) -> Rows:
    """Race in groups that fit into memory, ours in each; a peer's ratios are those within its group."""
    weights, gradients = tensors(shapes, 0), tensors(shapes, 1)
    rows: Rows = {}
    for names in groups(list(builds), sum(w.nbytes for w in weights), arguments.memory * 1e9):
        contenders = {name: builds[name](weights, gradients) for name in names}
        seconds = race(contenders, arguments.rounds, fresh)
        for name, values in seconds.items():
            low, middle, high = quartiles([v / b for v, b in zip(values, seconds["downslope"], strict=True)])
            row = {"median_s": statistics.median(values), "ratio": middle, "quartiles": [low, high], "seconds": values}
            rows.setdefault(name, row)
    return rows


def groups(names: list[str], weights: int, limit: float) -> Iterator[list[str]]:
    """Each contender has weights and up to three states or temporaries; all share weights, gradients and fresh ones."""
    peers = max(1, int((limit - 3 * weights) / (4 * weights)) - 1)
    for begin in range(1, len(names), peers):
        yield [names[0], *names[begin : begin + peers]]


# ---- a real loop

BATCH = 32


class Training:
    """A perceptron that is trained with one of the contenders."""

    def __init__(self, shapes: Shapes, make: Make):
        torch.manual_seed(0)
        layers = [torch.nn.Linear(n, m) for m, n in shapes[::2]]
        between = [module for layer in layers for module in (layer, torch.nn.ReLU())]
        self.model = torch.nn.Sequential(*between[:-1])
        self.x, self.y = torch.randn(BATCH, shapes[0][1]), torch.randint(shapes[-1][0], (BATCH,))
        self.step = make(list(self.model.parameters()))

    def backward(self) -> None:
        """Everything that comes before a step."""
        for parameter in self.model.parameters():
            parameter.grad = None
        torch.nn.functional.cross_entropy(self.model(self.x), self.y).backward()

    def cold(self, steps: int) -> tuple[list[int], list[int]]:
        """Nanoseconds of every step, and of every iteration."""
        own, whole = [], []
        for _ in range(steps):
            start = time.perf_counter_ns()
            self.backward()
            begin = time.perf_counter_ns()
            self.step()
            end = time.perf_counter_ns()
            own.append(end - begin)
            whole.append(end - start)
        return own, whole

    def hot(self, steps: int) -> list[int]:
        """Nanoseconds of every step, one after another."""
        found = []
        for _ in range(steps):
            begin = time.perf_counter_ns()
            self.step()
            found.append(time.perf_counter_ns() - begin)
        return found


def race_loop(shapes: Shapes, arguments: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """One line for each contender: medians over the rounds of each round's median, and of its ratio to ours."""
    torch.set_num_threads(1)
    kinds = {
        "downslope": stepping(ours("Adam")),
        "torch fused": stepping(torch.optim.Adam, fused=True),
        "torch default": stepping(torch.optim.Adam),
    }
    trainings = {name: Training(shapes, make) for name, make in kinds.items()}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in kinds}
    order = list(kinds)
    for turn in range(arguments.rounds + 1):
        random.Random(turn).shuffle(order)
        for name in order:
            training = trainings[name]
            cold, whole = training.cold(100)
            times = {"cold": cold, "hot": training.hot(100), "iteration": whole}
            for what, values in times.items() if turn else ():  # the first turn warms up
                found[name].setdefault(what, []).append(statistics.median(values) / 1e9)
    print(f"{'':<16}" + "".join(f"{what:>32}" for what in ("step in the loop", "in a row", "whole iteration")))
    for name, rows in found.items():
        line = f"{name:<16}"
        for what, seconds in rows.items():
            low, middle, high = quartiles([v / b for v, b in zip(seconds, found["downslope"][what], strict=True)])
            line += f"{shown(statistics.median(seconds)):>12}{f'{middle:.2f} ({low:.2f}–{high:.2f})':>20}"
        print(line, flush=True)
    torch.set_num_threads(THREADS)
    return found


# ---- the tables


def shown(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def with_spread(row: dict[str, Any] | None) -> str:
    return f"{row['ratio']:.2f} ({row['quartiles'][0]:.2f}–{row['quartiles'][1]:.2f})" if row else "–"


def fastest(rows: Rows, start: str) -> str | None:
    """The contender with the lowest median ratio among those whose names begin like this."""
    return min((name for name in rows if name.startswith(start)), key=lambda name: rows[name]["ratio"], default=None)


def race_rules(rules: list[str], shapes: Shapes, fresh: bool, arguments: argparse.Namespace) -> dict[str, Rows]:
    """One line for each rule."""
    few = size(shapes) < FEW
    names = dict.fromkeys(name.removesuffix(ALONE) for rule in rules for name in of_rule(rule, few))
    columns = [name for name in names if name != "downslope"]
    print(f"{'':<10}{'downslope':>10}" + "".join(f"{c:>21}" for c in columns) + "   best torch")
    found = {}
    for rule in rules:
        rows = found[rule] = compare(of_rule(rule, few), shapes, fresh, arguments)
        cells = "".join(f"{with_spread(rows.get(fastest(rows, name))):>21}" for name in columns)
        best = fastest(rows, "torch")
        last = f"{with_spread(rows[best])} {best.removeprefix('torch ')}"
        print(f"{rule:<10}{shown(rows['downslope']['median_s']):>10}{cells}   {last}", flush=True)
    return found


def race_adam(of: Callable[[bool], dict[str, Build]], shapes: Shapes, fresh: bool, arguments: Any) -> Rows:
    """One line for each contender."""
    rows = compare(of(size(shapes) < FEW), shapes, fresh, arguments)
    for name, row in sorted(rows.items(), key=lambda item: item[1]["ratio"]):
        print(f"  {name:<56}{shown(row['median_s']):>10}   {with_spread(row)}", flush=True)
    return rows


# ---- the whole


def environment() -> dict[str, Any]:
    processor = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    versions = {"python": platform.python_version(), "downslope": downslope.__version__}
    for name in ("numpy", "llvmlite", "torch", "jax", "optax", "deepspeed"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    machine = {"processor": processor, "cores": os.cpu_count(), "torch threads": THREADS}
    return {"machine": machine, "versions": versions, "load average at the start": os.getloadavg()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="model", default=["all"], help=f"all or of {', '.join(MODELS)}")
    parts = ("rules", "clip", "states", "loop")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES), help="for the part `rules`")
    parser.add_argument("--gradients", nargs="+", choices=("fixed", "fresh"), default=("fixed", "fresh"))
    parser.add_argument("--rounds", type=int, default=15, help="how often each contender is timed")
    parser.add_argument("--memory", type=float, default=12.0, help="GB that contenders raced together may take")
    parser.add_argument("--json", type=Path, help="where to write what was found")
    arguments = parser.parse_args()
    if unknown := set(arguments.models) - {*MODELS, "all"}:
        parser.error(f"no such model: {', '.join(sorted(unknown))}; give all or of {', '.join(MODELS)}")
    results: dict[str, Any] = {**environment(), "rounds": arguments.rounds}
    models = MODELS if "all" in arguments.models else dict.fromkeys(arguments.models)
    for model, part, gradients in product(models, arguments.parts, arguments.gradients):
        if part == "clip" and gradients == "fixed":
            continue  # PyTorch's clipping writes to the gradients
        if part == "loop" and (gradients == "fixed" or model not in ("small", "medium")):
            continue  # a backward pass makes its gradients anew
        text, shapes = MODELS[model]
        print(f"\n{part}: {model}, {text}, {len(shapes)} tensors, {size(shapes):,} weights; {gradients} gradients")
        fresh = gradients == "fresh"
        if part == "rules":
            found: Any = race_rules(arguments.rules, shapes, fresh, arguments)
        elif part == "loop":
            found = race_loop(shapes, arguments)
        else:
            found = race_adam(of_clip if part == "clip" else of_states, shapes, fresh, arguments)
        results.setdefault(part, {}).setdefault(model, {})[gradients] = found
        if arguments.json:  # after every table: a run that is broken off leaves what it has
            arguments.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

"""Steps of rules over whole tensors: beside torch.optim, and beside the traffic of their passes over memory.

    python bench/tensor_rules.py [muon] [adafactor] [lamb] [lars] ... [--quick] [--rounds 9] [--threads 1]
                                   [--device cuda]

- `muon`: `downslope.dialects.torch.muon` against `torch.optim.Muon`, on the matrices of a perceptron with 4 tensors,
  of a transformer of 8 layers of width 64 (equal shapes repeat), of ResNet-50 with 3/4 of the channels (161 tensors;
  kernels as matrices), and of the layers of GPT-2 small (148 tensors; no embeddings). PyTorch multiplies in bfloat16,
  downslope in float32: where the processor has to emulate bfloat16, a step of PyTorch on GPT-2 takes many minutes.
- `adafactor`: `downslope.dialects.torch.adafactor` against `torch.optim.Adafactor`, on matrices and vectors.
- `lamb`, `lars`, `adamp`, `stable_adamw`, `mars`, `cautious_adamw`: one tensor of 25 M weights, against copies that
  move as many bytes as the rule's passes must: a norm ends a pass, and what the next one needs is read again.

Every round times each contender once, in random order, after one untimed step of its own. Reported are the median and
the quartiles, over the rounds, of the ratio to downslope within a round: above 1, downslope is faster. `--quick` takes
one matrix of GPT-2, one stage of ResNet's shapes and 2.5 M weights. Of a GPU the time is the clock's, from
one moment in which it has nothing left to do to the next.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import time
from collections.abc import Callable

import torch
from networks import Shapes, gpt2, resnet50

import downslope.torch
from downslope.dialects import torch as dialect

Step = Callable[[], object]
Contenders = dict[str, Step]

PASSES = {"lamb": 10, "lars": 7, "adamp": 10, "stable_adamw": 9, "mars": 11, "cautious_adamw": 9}
"""Arrays read and written: LAMB reads `x`, `dx`, `m`, `v` and writes `m`, `v`, then reads `x`, `m`, `v` and writes `x`;
LARS reads `x` and `dx` for their norms, then `x`, `dx`, `v` and writes `x`, `v`.
`downslope.targets.passes.planned` says it of any rule."""


def matrices(shapes: Shapes) -> Shapes:
    """Those that Muon is for, with kernels as matrices, which PyTorch's Muon wants."""
    return [(shape[0], math.prod(shape[1:])) for shape in shapes if len(shape) > 1]


def parameters(shapes: Shapes, device: str) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.nn.Parameter(torch.randn(shape, generator=generator).to(device)) for shape in shapes]
    for p in made:
        p.grad = torch.randn(p.shape, generator=generator).to(device)
    return made


def beside_torch(name: str, shapes: Shapes, device: str) -> Contenders:
    """Downslope's dialect of PyTorch and the class that it follows."""
    kind, rule = getattr(torch.optim, name), getattr(dialect, name.lower())
    return {
        "downslope": downslope.torch.Optimizer(parameters(shapes, device), rule).step,
        "torch": kind(parameters(shapes, device)).step,
    }


def beside_traffic(name: str, count: int, device: str) -> Contenders:
    """A rule and copies of as many bytes as it must read and write, in blocks that fit no cache."""
    held = [torch.ones(count, device=device) for _ in range(2)]
    copies, rest = divmod(PASSES[name], 2)

    def traffic() -> None:
        for k in range(copies):
            held[k % 2].copy_(held[1 - k % 2])
        if rest:
            held[0].sum()

    rule = getattr(downslope, name)
    return {"downslope": downslope.torch.Optimizer(parameters([(count,)], device), rule).step, "traffic": traffic}


def race(contenders: Contenders, rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds a step, one entry a round."""
    order, seconds = list(contenders), {name: [] for name in contenders}
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            step = contenders[name]
            step()
            done(device)
            begin = time.perf_counter()
            step()
            done(device)
            times = max(1, min(200, int(0.05 / (time.perf_counter() - begin))))
            begin = time.perf_counter()
            for _ in range(times):
                step()
            done(device)
            seconds[name].append((time.perf_counter() - begin) / times)
    return seconds


def done(device: str) -> None:
    """Wait until the device has done all that it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def report(what: str, seconds: dict[str, list[float]]) -> None:
    """One line for the contender beside downslope."""
    ours, other = seconds["downslope"], next(name for name in seconds if name != "downslope")
    ratios = [theirs / own for theirs, own in zip(seconds[other], ours, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    times = "".join(f"{statistics.median(values) * 1e3:>12.2f} ms" for values in seconds.values())
    print(f"{what:<40}{times}{other:>10}{middle:>8.2f} ({low:.2f}–{high:.2f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "rules",
        nargs="*",
        default=["muon", "adafactor", *PASSES],
        help="of muon, adafactor, lamb, lars and other rules of that kind",
    )
    parser.add_argument("--quick", action="store_true", help="smaller models")
    parser.add_argument("--rounds", type=int, default=9, help="how often each contender is timed; at least 2")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--device", default="cpu", help="where the tensors are; cuda for a GPU")
    arguments = parser.parse_args()
    device = arguments.device
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {device}: PyTorch finds no GPU here")
    if unknown := {*arguments.rules} - {"muon", "adafactor", *PASSES}:
        parser.error(
            f"no such rule here: {', '.join(sorted(unknown))}; give {', '.join(['muon', 'adafactor', *PASSES])}"
        )
    if arguments.rounds < 2:
        parser.error(f"--rounds {arguments.rounds}: give at least 2, of which there is a spread")
    torch.set_num_threads(arguments.threads)
    quick = arguments.quick
    models = {
        "perceptron": [(32, 64), (32,), (10, 32), (10,)],
        "transformer of width 64": 8 * [(192, 64), (64, 64), (256, 64), (64, 256)],
        "ResNet-50 x 3/4": resnet50(0.75)[: 33 if quick else None],
        "GPT-2 small": gpt2()[6:7] if quick else gpt2()[2:-2],
    }
    count = 2_500_000 if quick else 25_000_000
    print(f"{'':<40}{'downslope':>15}{'other':>15}   other / downslope, {arguments.threads} threads")
    for rule in arguments.rules:
        if rule == "muon":
            for name, shapes in models.items():
                chosen = matrices(shapes)
                what = f"muon, {name}: {len(chosen)} matrices"
                report(what, race(beside_torch("Muon", chosen, device), arguments.rounds, device))
        elif rule == "adafactor":
            shapes = [*4 * [(512, 1024)], *8 * [(1024,)]]
            found = race(beside_torch("Adafactor", shapes, device), arguments.rounds, device)
            report("adafactor, 4 matrices and 8 vectors", found)
        else:
            report(f"{rule}, {count:,} weights", race(beside_traffic(rule, count, device), arguments.rounds, device))


if __name__ == "__main__":
    main()

"""Whether training ends the same with small states: Adam with float32, bfloat16 and 8-bit states, on five seeds.

    python bench/small_states.py [perceptron] [transformer] [--seeds 5] [--steps 1500] [--json small_states.json]
                                 [--svg small_states.svg]

- `perceptron`: 64-128-64-10 with ReLU on scikit-learn's digits, 1,400 to learn and 397 to be asked, batches of 64.
- `transformer`: two layers of 32 with four heads, to write the sum of two numbers of two digits behind them, digit by
  digit; batches of 64 new ones at every step, and 512 to be asked.

All kinds of states see the same weights at the start and the same batches. Reported are the means over the seeds of the
loss on what is asked (for the perceptron also on what was learned from) and of the part that is answered right, their
standard deviations, and the difference to float32, paired seed by seed, with its standard error. The picture shows the
loss on the way: a line for the mean over the seeds of its logarithm, and all seeds within the band.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.nn import functional

import downslope.torch

Tensor = torch.Tensor
Batches = Iterator[tuple[Tensor, Tensor]]
KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "8 bits": torch.uint8}
BATCH, DIGITS = 64, 2


# ---- what is learned


def digits(seed: int) -> tuple[Batches, tuple[Tensor, Tensor]]:
    """Batches of pictures with what they show, and the pictures that are asked."""
    data = load_digits()
    x, y = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    learned, asked = order[:1400], order[1400:]
    generator = torch.Generator().manual_seed(seed)

    def batches() -> Batches:
        while True:
            chosen = learned[torch.randint(len(learned), (BATCH,), generator=generator)]
            yield x[chosen], y[chosen]

    return batches(), (x[asked], y[asked])


def sums(seed: int) -> tuple[Batches, tuple[Tensor, Tensor]]:
    """Batches of two numbers and their sum, a digit each, the sum from its last digit on; what is asked are others."""
    generator = torch.Generator().manual_seed(seed)
    places = 10 ** torch.arange(DIGITS + 1)

    def some(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        a, b = torch.randint(10**DIGITS, (2, count), generator=generator)
        a_digits, b_digits, c_digits = ((n[:, None] // places) % 10 for n in (a, b, a + b))
        text = torch.cat([a_digits[:, :DIGITS], b_digits[:, :DIGITS], c_digits], dim=1)
        return text[:, :-1], c_digits

    def batches() -> Batches:
        while True:
            yield some(BATCH, generator)

    return batches(), some(512, torch.Generator().manual_seed(10**6))


def perceptron() -> torch.nn.Module:
    """Three layers."""
    sizes = 64, 128, 64, 10
    layers = [torch.nn.Linear(n, m) for n, m in pairwise(sizes)]
    return torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])


class Transformer(torch.nn.Module):
    """A small one that sees what stands before, and writes the digits of a sum."""

    def __init__(self, width: int = 32, heads: int = 4, layers: int = 2):
        super().__init__()
        length = 3 * DIGITS
        self.digits, self.places = torch.nn.Embedding(10, width), torch.nn.Embedding(length, width)
        layer = torch.nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = torch.nn.Linear(width, 10)
        self.register_buffer("mask", torch.nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, text: Tensor) -> Tensor:
        """Scores of the digits of the sum."""
        seen = self.digits(text) + self.places.weight[: text.shape[1]]
        return self.out(self.layers(seen, self.mask, is_causal=True)[:, 2 * DIGITS - 1 :])


TASKS: dict[str, tuple[Callable[[], torch.nn.Module], Callable[[int], tuple[Batches, tuple[Tensor, Tensor]]]]] = {
    "perceptron": (perceptron, digits),
    "transformer": (Transformer, sums),
}


# ---- how


def loss_of(model: torch.nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The cross entropy, and the part that is right."""
    scores = model(x).flatten(0, -2)
    return functional.cross_entropy(scores, y.flatten()), (scores.argmax(1) == y.flatten()).float().mean()


def train(task: str, kind: str, seed: int, steps: int) -> dict[str, Any]:
    """One training: its losses on the way, what is asked at the end, and the bytes of its states per weight."""
    torch.manual_seed(seed)
    make, learn = TASKS[task]
    model, (batches, asked) = make(), learn(seed)
    optimizer = downslope.torch.Adam(model.parameters(), lr=1e-3, state_dtype=KINDS[kind])
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss, _ = loss_of(model, *next(batches))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        loss, right = loss_of(model, *asked)
    weights = sum(p.numel() for p in model.parameters())
    held = sum(v.nbytes for own in optimizer.state.values() for name, v in own.items() if name != "step")
    tail = statistics.mean(losses[-steps // 10 :])
    return {"losses": losses, "end": tail, "asked": loss.item(), "right": right.item(), "bytes": held / weights}


def table(runs: dict[str, list[dict[str, Any]]]) -> None:
    """One line for each kind of states."""
    print(f"{'':<10}{'bytes':>7}{'last tenth':>20}{'asked':>20}{'right':>18}{'asked, to float32':>24}")
    for kind, found in runs.items():
        cells = [f"{found[0]['bytes']:>7.2f}"]
        for what, width, digits in (("end", 20, 4), ("asked", 20, 4), ("right", 18, 4)):
            values = [run[what] for run in found]
            cells.append(f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}".rjust(width))
        pairs = [run["asked"] - base["asked"] for run, base in zip(found, runs["float32"], strict=True)]
        error = statistics.stdev(pairs) / len(pairs) ** 0.5
        cells.append(f"{statistics.mean(pairs):+.4f} ± {error:.4f}".rjust(24) if kind != "float32" else "–".rjust(24))
        print(f"{kind:<10}{''.join(cells)}", flush=True)


# ---- the picture

COLOURS = {"float32": ("#333", "#ddd"), "bfloat16": ("#0072b2", "#56b4e9"), "8 bits": ("#d55e00", "#e69f00")}
"""On light ground and on dark, told apart by whoever sees few colours."""

WIDTH, HEIGHT, LEFT, TOP, POINTS = 440, 260, 52, 34, 60


def smooth(losses: list[float]) -> list[float]:
    """Logarithms of the means over so many stretches of the way."""
    size = len(losses) / POINTS
    means = [
        statistics.mean(losses[int(k * size) : max(int(k * size) + 1, int((k + 1) * size))]) for k in range(POINTS)
    ]
    return [math.log10(mean) for mean in means]


def panel(task: str, runs: dict[str, list[dict[str, Any]]], x0: int) -> list[str]:
    """The losses of one task."""
    steps = len(runs["float32"][0]["losses"])
    curves = {kind: [smooth(run["losses"]) for run in found] for kind, found in runs.items()}
    every = [value for found in curves.values() for curve in found for value in curve]
    low, high = math.floor(min(every)), math.ceil(max(every))

    def at(k: float, value: float) -> str:
        right, down = x0 + LEFT + k / (POINTS - 1) * (WIDTH - LEFT - 16), TOP + (high - value) / (high - low) * HEIGHT
        return f"{right:.1f},{down:.1f}"

    parts = [f'<text x="{x0 + LEFT}" y="20" class="title">{task}: training loss, {len(runs["float32"])} seeds</text>']
    for power in range(low, high + 1):
        (x1, y1), (x2, _) = (at(k, power).split(",") for k in (0, POINTS - 1))
        parts.append(f'<line class="rule" x1="{x1}" x2="{x2}" y1="{y1}" y2="{y1}"/>')
        parts.append(f'<text x="{float(x1) - 6}" y="{float(y1) + 4}" text-anchor="end">{10.0**power:g}</text>')
    for share in (0, 0.5, 1):
        x = at(share * (POINTS - 1), low).split(",")[0]
        parts.append(f'<text x="{x}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{round(share * steps):,}</text>')
    for number, found in enumerate(curves.values()):
        columns = [*zip(*found, strict=True)]
        around = [at(k, max(c)) for k, c in enumerate(columns)]
        around += [at(k, min(c)) for k, c in reversed([*enumerate(columns)])]
        mean = " ".join(at(k, statistics.mean(c)) for k, c in enumerate(columns))
        parts.append(f'<polygon class="k{number}" points="{" ".join(around)}"/>')
        parts.append(f'<polyline class="k{number}" points="{mean}"/>')
    return parts


def picture(results: dict[str, Any]) -> str:
    """All tasks side by side, as an SVG that follows the reader's choice of dark or light."""
    tasks = [task for task in TASKS if task in results]
    width, height = WIDTH * len(tasks), TOP + HEIGHT + 52
    parts = [part for n, task in enumerate(tasks) for part in panel(task, results[task], n * WIDTH)]
    styles = []
    for shade in (0, 1):
        ink, rule = (("#222", "#ddd"), ("#ddd", "#444"))[shade]
        lines = [f"text{{fill:{ink}}} .rule{{stroke:{rule}}}"]
        for number, kind in enumerate(KINDS):
            colour = COLOURS[kind][shade]
            lines.append(f".k{number}{{stroke:{colour}}} polygon.k{number},text.k{number}{{fill:{colour};stroke:none}}")
        styles.append(" ".join(lines))
    for number, kind in enumerate(KINDS):
        parts.append(f'<text class="k{number} title" x="{LEFT + 90 * number}" y="{height - 8}">{kind}</text>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">',
            "<style>text{font:12px system-ui,sans-serif} .title{font-weight:600}",
            "polyline{fill:none;stroke-width:1.6} polygon{opacity:.18}",
            styles[0],
            f"@media (prefers-color-scheme:dark){{{styles[1]}}}</style>",
            *parts,
            "</svg>\n",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="task", default=list(TASKS), help=f"of {', '.join(TASKS)}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--json", type=Path, help="where to write what was found")
    parser.add_argument("--svg", type=Path, help="where to draw the losses on the way")
    arguments = parser.parse_args()
    if unknown := set(arguments.tasks) - TASKS.keys():
        parser.error(f"no such task: {', '.join(sorted(unknown))}; give some of {', '.join(TASKS)}")
    results: dict[str, Any] = {"steps": arguments.steps}
    for task in arguments.tasks:
        runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        for seed in range(arguments.seeds):
            for kind in KINDS:
                runs[kind].append(train(task, kind, seed, arguments.steps))
        print(f"\n{task}: Adam, lr 0.001, {arguments.steps} steps, {arguments.seeds} seeds")
        table(runs)
        results[task] = runs
        if arguments.json:  # after every task: a run that is broken off leaves what it has
            arguments.json.write_text(json.dumps(results) + "\n")
        if arguments.svg:
            arguments.svg.write_text(picture(results))


if __name__ == "__main__":
    main()

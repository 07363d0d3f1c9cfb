"""How often a race's verdict is wrong, how often its intervals hold the truth, and what differences it finds.

    python bench/verdict.py [--races 2000] [--seeds 6 10 20] [--json verdict.json]

Races are made up: the logarithms of the losses of every rule and seed are drawn from one of eight shapes, from light
tails to such that have no mean. In *alike* races all rules are; in *two lead* races the first two are alike and all
others behind by as much as is hard to tell, or by far. With overlap, half of each rule's luck comes with the rows: the
rows of a data set of 100 each do something to each rule, drawn from the same shape, every seed's split has a random 20
of them to validate on, and what is asked for is what other data sets would show.

- wins: races whose sentence names a winner that is not lower than all others.
- others: races with another wrong decision, one that Holm's method has to answer for. Both with the upper end of their
  95 % intervals (Clopper and Pearson, 1934).
- coverage: how often intervals of ratios hold the true one, beside the level printed with them (means over all pairs; a
  pair with too few seeds for an interval has one without ends, whose level is 1).
- contradictions: races whose sentence, order, decisions and intervals do not agree. There must be none.
- power: how often the sentence says that the one lower rule wins, beside Holm's method over all pairs alone.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from downslope.lab.races import statistics
from downslope.lab.races.comparison import Comparison
from downslope.lab.races.statistics import SIGNIFICANCE, compare, holm, interval, standing
from downslope.lab.races.verdict import verdict

Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]

SCALE = 0.1  # of one rule's logarithm of the loss; the margin is 0.01
MARGIN = 0.01
ROWS, VALID, TRAIN = 100, 0.2, 0.6
OVERLAP = VALID / TRAIN


def _with_failures(share: float) -> Draw:
    return lambda rng, size: np.where(rng.random(size) < share, np.inf, rng.normal(size=size))


SHAPES: dict[str, Draw] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "lognormal": lambda rng, size: rng.lognormal(size=size),
    "Cauchy": lambda rng, size: rng.standard_cauchy(size=size),
    "t, 1.5 degrees": lambda rng, size: rng.standard_t(1.5, size=size),
    "bimodal": lambda rng, size: rng.choice([-1.0, 1.0], size=size) + 0.2 * rng.normal(size=size),
    "ties": lambda rng, size: rng.integers(0, 3, size=size).astype(float),
    "10 % diverge": _with_failures(0.1),
    "50 % diverge": _with_failures(0.5),
}
SYMMETRIC = ("normal", "Cauchy", "t, 1.5 degrees", "bimodal", "ties")


def made_up(
    shape: str, races: int, truth: NDArray[np.float64], seeds: int, overlap: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Losses of shape (races, rules, seeds) whose logarithms have these true values."""
    draw = SHAPES[shape]
    luck = draw(rng, (races, len(truth), seeds))
    if overlap:
        effects = SHAPES["normal" if "diverge" in shape else shape](rng, (races, len(truth), ROWS))
        splits = rng.permuted(np.tile(np.arange(ROWS), (races, seeds, 1)), axis=2)[:, :, : int(VALID * ROWS)]
        drawn = np.take_along_axis(effects[:, :, None, :], splits[:, None, :, :], axis=3)
        luck = luck + math.sqrt(VALID * ROWS) * drawn.mean(axis=3)
    with np.errstate(over="ignore"):
        return np.exp(np.clip(SCALE * luck + truth[:, None], -27, None))


def contradicts(losses: dict[str, list[float]], comparisons: tuple[Comparison, ...], sentence: str) -> bool:
    """Whether sentence, order, decisions and intervals of one race disagree anywhere."""
    edge = -math.log1p(-MARGIN)
    best = min(losses, key=lambda rule: standing(losses[rule]))
    mine = [one if one.first == best else one.turned() for one in comparisons if best in (one.first, one.second)]
    if sentence.startswith("Every run diverged"):
        return any(one.decided for one in comparisons)
    wrong = not sentence.startswith(best)
    wrong |= (" wins: " in sentence) != all(one.outcome == "first" for one in mine)
    for one in comparisons:
        with np.errstate(divide="ignore"):
            low, high = np.log(one.ratio.low), np.log(one.ratio.high)
        lower = standing(losses[one.first]) < standing(losses[one.second])
        wrong |= one.decided and not (high < -edge + 1e-9 if one.outcome == "first" else low > edge - 1e-9)
        wrong |= one.decided and (one.outcome == "first") != lower
        wrong |= not one.decided and bool(high < -edge - 1e-9 or low > edge + 1e-9)
    return wrong


def judge(losses: NDArray[np.float64], truth: NDArray[np.float64], overlap: float) -> dict[str, float]:
    """Judge many races and count."""
    names = [f"r{k}" for k in range(len(truth))]
    true = dict(zip(names, truth, strict=True))
    lowest = [name for name in names if true[name] == min(truth)]
    counts = dict.fromkeys(("wins", "others", "right", "by Holm", "contradictions"), 0)
    covered, levels = [], []
    for one in losses:
        race = dict(zip(names, one.tolist(), strict=True))
        comparisons = compare(race, overlap=overlap, margin=MARGIN)
        sentence = verdict(race, comparisons)
        counts["contradictions"] += contradicts(race, comparisons, sentence)
        lower = [(c.first, c.second) if c.outcome == "first" else (c.second, c.first) for c in comparisons if c.decided]
        winner = sentence.split(" wins: ")[0] if " wins: " in sentence else None
        counts["others"] += any(true[a] >= true[b] for a, b in lower if winner is None or a != winner)
        counts["wins"] += winner is not None and [winner] != lowest
        counts["right"] += [winner] == lowest
        by_holm = holm([c.p_value for c in comparisons])
        mine = [
            p <= SIGNIFICANCE for p, c in zip(by_holm, comparisons, strict=True) if lowest[0] in (c.first, c.second)
        ]
        best = min(race, key=lambda rule: standing(race[rule]))
        counts["by Holm"] += len(lowest) == 1 and best == lowest[0] and all(mine)
        for c in comparisons:
            ratio = math.exp(true[c.first] - true[c.second])
            endless = math.isnan(c.ratio.low)
            covered.append(endless or (c.ratio.low <= ratio * (1 + 1e-9) and ratio <= c.ratio.high * (1 + 1e-9)))
            levels.append(1.0 if endless else c.ratio.level)
    found = {name: count / len(losses) for name, count in counts.items()}
    found["contradictions"] = counts["contradictions"]
    for name in ("wins", "others"):
        found[f"{name}, at most"] = float(beta.ppf(0.975, counts[name] + 1, len(losses) - counts[name]))
    found["coverage"] = float(np.mean(covered))
    found["level"] = float(np.mean(levels))
    return found


def false_alarms(races: int, seeds: list[int]) -> list[dict[str, Any]]:
    rows = []
    for rules in (2, 6):
        for n in seeds:
            for overlap in (0.0, OVERLAP):
                for shape in SHAPES:
                    rng = np.random.default_rng([rules, n, int(10 * overlap), list(SHAPES).index(shape)])
                    behind = 2 * SCALE * math.sqrt(2 / n * (1 + n * overlap))
                    truths = {"alike": np.zeros(rules)}
                    if rules > 2 and shape == "normal":
                        truths["two lead"] = np.array([0.0, 0.0] + [behind] * (rules - 2))
                        truths["two lead by far"] = np.array([0.0, 0.0] + [10 * behind] * (rules - 2))
                        truths["three lead"] = np.array([0.0] * 3 + [behind] * (rules - 3))
                    for name, truth in truths.items():
                        losses = made_up(shape, races, truth, n, overlap, rng)
                        found = judge(losses, truth, overlap)
                        rows.append(
                            {"rules": rules, "seeds": n, "overlap": overlap, "shape": shape, "truth": name, **found}
                        )
                        print(line(rows[-1]), flush=True)
    return rows


def power(races: int, seeds: list[int]) -> list[dict[str, Any]]:
    rows = []
    for rules in (2, 6):
        for n in seeds:
            for overlap in (0.0, OVERLAP):
                for d in (0.5, 1.0, 1.5, 2.0):
                    rng = np.random.default_rng([7, rules, n, int(10 * d)])
                    truth = np.array([-d * SCALE * math.sqrt(2)] + [0.0] * (rules - 1))
                    found = judge(made_up("normal", races, truth, n, overlap, rng), truth, overlap)
                    rows.append({"rules": rules, "seeds": n, "overlap": overlap, "d": d, **found})
                    print(line(rows[-1]), flush=True)
    return rows


def own_intervals(races: int, seeds: list[int]) -> list[dict[str, Any]]:
    """Intervals of one rule's own mean; of skewed shapes too, where they promise nothing."""
    rows = []
    for n in seeds:
        for overlap in (0.0, OVERLAP):
            for shape in (*SYMMETRIC, "lognormal"):
                rng = np.random.default_rng([11, n, list(SHAPES).index(shape)])
                centre = {"lognormal": math.exp(0.5), "ties": 1.0}.get(shape, 0.0)
                shift = centre * (1 + math.sqrt(VALID * ROWS) * (overlap > 0)) * SCALE
                found = [
                    interval(one[0].tolist(), overlap=overlap)
                    for one in made_up(shape, races, np.zeros(1), n, overlap, rng)
                ]
                inside = [
                    x.low <= math.exp(shift) * (1 + 1e-9) and math.exp(shift) <= x.high * (1 + 1e-9) for x in found
                ]
                row = {"seeds": n, "overlap": overlap, "shape": shape, "coverage": float(np.mean(inside))}
                rows.append({**row, "level": found[0].level})
                print(line(rows[-1]), flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    return "  ".join(
        f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=int, default=2000, help="races per cell; a quarter of them for the power")
    parser.add_argument("--seeds", type=int, nargs="+", default=[6, 10, 20], help="reporting seeds")
    parser.add_argument("--subsets", type=int, default=12, help="2 to the power of how many subsets at most")
    parser.add_argument("--json", type=Path, help="where to write what was found")
    arguments = parser.parse_args()
    statistics.MOST_EXACT = arguments.subsets  # fewer than a race looks at, for speed: as valid, a little less precise
    begin = time.process_time()
    found = {
        "false alarms": false_alarms(arguments.races, arguments.seeds),
        "power": power(arguments.races // 4, arguments.seeds),
        "intervals of one rule": own_intervals(arguments.races, arguments.seeds),
    }
    contradictions = sum(row["contradictions"] for row in found["false alarms"] + found["power"])
    print(f"\n{contradictions} contradictions; {time.process_time() - begin:.0f} s of processor time")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Are the cliffs in the canyon where they were expected? One table for some problems, and what --why costs.

    python bench/why.py digits breast-cancer parabola
    python bench/why.py --cost digits --pairs 3

The first prints, for every rule that fails or diverges somewhere on the grid, what was expected of it and what was
seen.
The second races with and without, each in a process of its own and in turn, and prints the medians of the ratios.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

COLUMNS = ("problem", "rule", "expected from", "by", "learns at / fails from", "holds at / diverges from")
HEAD = f"| {' | '.join(COLUMNS)} | expected / middle | within 2 |\n{'|---' * (len(COLUMNS) + 2)}|"
SCRIPT = "from downslope.cli import main; main()"


def table(problems: list[str]) -> None:
    """Print a row for each rule."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import downslope.lab

    print(HEAD)
    for problem in problems:
        race = downslope.lab.race(problem, why=True)
        assert race.why is not None
        for one in race.why.rules:
            cliff = one.cliff
            if cliff.fails_from is None and cliff.diverges_from is None:
                continue
            ends = f"{_n(cliff.learns_at)} / {_n(cliff.fails_from)} | {_n(cliff.holds_at)} / {_n(cliff.diverges_from)}"
            within = {True: "yes", False: "**no**", None: "–"}[cliff.explained]
            row = f"| {problem} | {one.rule} | {_n(cliff.expected)} | {cliff.cause or 'nothing'} | {ends}"
            print(f"{row} | {_n(cliff.off_by)} | {within} |", flush=True)


def cost(problem: str, pairs: int) -> None:
    """Print how much longer a race takes, by the processor's time and by the clock."""
    ratios: dict[str, list[float]] = {"processor": [], "clock": []}
    for pair in range(pairs):
        found = {why: _timed(problem, why=why) for why in ((False, True) if pair % 2 else (True, False))}
        for k, kind in enumerate(ratios):
            ratios[kind].append(found[True][k] / found[False][k])
        print({why: tuple(round(seconds, 1) for seconds in both) for why, both in found.items()}, flush=True)
    for kind, values in ratios.items():
        print(f"{kind}: {statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})")


def _timed(problem: str, *, why: bool) -> tuple[float, float]:
    """Seconds of the processor and of the clock that a whole command takes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", SCRIPT, "race", problem, "--out", f"{folder}/report.html", *["--why"] * why]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, time.perf_counter() - start


def _n(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="+")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--pairs", type=int, default=3)
    asked = parser.parse_args()
    if asked.cost:
        for each in asked.problems:
            cost(each, asked.pairs)
    else:
        table(asked.problems)

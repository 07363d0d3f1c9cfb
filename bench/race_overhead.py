"""What a race costs beside the training of its runs, and what its memory goes with.

    python bench/race_overhead.py [--problem digits] [--rounds 3] [--json overhead.json]

*Overhead.* A race is made as `downslope race` makes it, without the page. Then its very runs are trained again by a new
engine, part by part of the race as they were, and nothing else is done: no choice of learning rates, no statistics, no
snapshots of weights. What the race took over what its runs took, by the clock and by the processors' time. Every round
is a fresh process in which everything that is loaded has been loaded before; which of the two comes first alternates.

*Memory.* The most that a fresh process ever held, beyond what it held when the engine was made: for ever more runs of
Adam, and for ever more of them side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RUNS = (128, 512, 2048)
LANES = (32, 128, 512)


def overhead(problem: str, *, race_first: bool) -> dict[str, float]:
    """Seconds of a race and of its runs alone, in this process."""
    from downslope.lab import race
    from downslope.lab.engines.entrant import Entrant
    from downslope.lab.engines.jax_engine import JaxEngine
    from downslope.lab.engines.protocol import Entry
    from downslope.lab.problems.builtin import load_problem
    from downslope.lab.races.stage import Stage
    from downslope.rules import TEXTBOOK

    parts: list[list[Entry]] = []

    def watch(event: Any) -> None:
        if isinstance(event, Stage):
            parts.append([])
        else:
            parts[-1].extend(run.entry for run in event.finished)

    def alone() -> None:
        engine = JaxEngine(load_problem(problem), {rule.name: Entrant.of(rule.name, rule, {}) for rule in TEXTBOOK})
        for entries in parts:
            for _ in engine.train(entries):
                pass

    def timed(what: Any) -> tuple[float, float]:
        clock, processor = time.perf_counter(), time.process_time()
        what()
        return time.perf_counter() - clock, time.process_time() - processor

    few: dict[str, Any] = {"learning_rates": [0.1], "tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 2}
    race("parabola", list(TEXTBOOK[:2]), **few)  # loads what there is to load
    if not race_first:
        race(problem, watch=watch)  # only to know the runs
    in_turn = [lambda: race(problem, watch=watch), alone]
    took = [timed(one) for one in (in_turn if race_first else in_turn[::-1])]
    (race_clock, race_processor), (runs_clock, runs_processor) = took if race_first else took[::-1]
    return {
        "race, s": race_clock,
        "runs alone, s": runs_clock,
        "by the clock": race_clock / runs_clock - 1,
        "by the processors' time": race_processor / runs_processor - 1,
    }


def memory(problem: str, runs: int, lanes: int) -> float:
    """Mebibytes that training so many runs took at most, beyond what there was before."""
    import downslope
    from downslope.lab.engines.entrant import Entrant
    from downslope.lab.engines.jax_engine import JaxEngine
    from downslope.lab.engines.protocol import Entry
    from downslope.lab.problems.builtin import load_problem

    entrants = {"adam": Entrant.of("adam", downslope.adam, {})}
    engine = JaxEngine(load_problem(problem), entrants, lanes=lanes, threads=1)
    engine.shorten(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in engine.train([Entry("adam", 1e-3, seed) for seed in range(runs)]):
        pass
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024  # kibibytes, on Linux


def fresh(*arguments: object) -> Any:
    """What this script finds in a process of its own."""
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", default="digits", help="what is raced on")
    parser.add_argument("--rounds", type=int, default=3, help="how often a race is timed")
    parser.add_argument("--json", type=Path, help="where to write what was found")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        kind, problem, *numbers = given.child
        first, second = int(numbers[0]), int(numbers[-1])
        found: Any = overhead(problem, race_first=bool(first)) if kind == "time" else memory(problem, first, second)
        print(json.dumps(found))
        return
    rounds = [fresh("time", given.problem, one % 2) for one in range(given.rounds)]
    for name in rounds[0]:
        values = sorted(one[name] for one in rounds)
        shown = [f"{value:.1f}" if name.endswith(", s") else f"{value:+.1%}" for value in values]
        print(f"{name}: median {shown[len(shown) // 2]} ({shown[0]} to {shown[-1]})")
    by_runs = {runs: fresh("memory", given.problem, runs, LANES[0]) for runs in RUNS}
    by_lanes = {lanes: fresh("memory", given.problem, RUNS[-1], lanes) for lanes in LANES}
    print(f"MiB beyond the start, {LANES[0]} runs at a time: {_listed(by_runs, 'runs')}")
    print(f"MiB beyond the start, {RUNS[-1]} runs: {_listed(by_lanes, 'at a time')}")
    if given.json:
        machine = {"system": platform.platform(), "processors": os.cpu_count(), "load": os.getloadavg()}
        medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
        whole = {"medians": medians, "rounds": rounds, "by runs": by_runs, "by lanes": by_lanes, "machine": machine}
        given.json.write_text(json.dumps(whole, indent=2))


def _listed(found: dict[int, float], what: str) -> str:
    return ", ".join(f"{value:.0f} for {count} {what}" for count, value in found.items())


if __name__ == "__main__":
    main()

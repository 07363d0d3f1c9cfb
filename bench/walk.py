"""What a film of a walk costs: to make, to keep, and in the browser that shows it.

    python bench/walk.py [--rounds 9] [--json walk.json]

- `downslope walk` in a process of its own, from its start to its end with the film written; and the size of the film.
- In such a page in Chromium, warm: the paths of eight rules over 5,000 steps, with all that is kept of them; the same
  with what is measured, tabled and drawn of them, as after a change of the learning rate; and the map of a surface on a
  grid of 256 × 256 points: heights, levels, and the lines between them.

The parts take turns, `--rounds` times; in the browser a round is the median of 20 in a row. Reported are the median and
the quartiles over the rounds, elapsed and of the processor: of all the process has used, or of the page's thread.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import downslope

RULES = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "nadam")
STEPS = 5000
IN_PAGE = {
    f"{len(RULES)} rules × {STEPS:,} steps": """for (const walker of walkers) {
        walked(walker.code, { ...walker.numbers, lr: walker.lr }, surface, chosen.start, noise, walker.room); }""",
    "the same, measured, tabled and drawn": "recompute(); draw();",
    "256² map with its lines": """const values = sampled(surface, 256); const edges = levels(values);
        contours(values, banded(values, edges), 256, edges);""",
}
REPEATED = """() => { const found = [];
    for (let k = 0; k < 20; k++) { const begin = performance.now(); %s; found.push(performance.now() - begin); }
    return found; }"""


def command(directory: str) -> tuple[tuple[float, float], int]:
    """Elapsed and processor seconds of the command, and the bytes of its film."""
    film = Path(directory) / "walk.html"
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    script = "from downslope.cli import main; main()"
    subprocess.run([sys.executable, "-c", script, "walk", "--out", str(film)], check=True, capture_output=True)
    elapsed, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return (elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime), film.stat().st_size


def in_page(page: Any, session: Any, script: str) -> tuple[float, float]:
    """Elapsed and processor seconds of a script: the median of many, and the mean."""

    def used() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(float(each["value"]) for each in metrics if each["name"] == "ThreadTime")

    before = used()
    found = page.evaluate(REPEATED % script)
    return statistics.median(found) / 1000, (used() - before) / len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="where to write what was found")
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    seconds: dict[str, list[tuple[float, float]]] = {"downslope walk": [], **{name: [] for name in IN_PAGE}}
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        long = Path(directory) / "long.html"
        downslope.walk("valley", RULES, steps=STEPS, lr=0.01).write(long)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
        page.goto(long.as_uri())
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        for script in IN_PAGE.values():
            in_page(page, session, script)  # until it is compiled
        for _ in range(arguments.rounds):
            found, size = command(directory)
            seconds["downslope walk"].append(found)
            for name, script in IN_PAGE.items():
                seconds[name].append(in_page(page, session, script))
        browser.close()
    print(f"{'':<40}{'elapsed':>28}{'processor':>28}")
    for name, rounds in seconds.items():
        unit, scale = ("s", 1.0) if name == "downslope walk" else ("ms", 1000.0)
        texts = []
        for values in zip(*rounds, strict=True):
            low, middle, high = statistics.quantiles(values, n=4)
            texts.append(f"{scale * middle:.2f} ({scale * low:.2f}–{scale * high:.2f}) {unit}")
        print(f"{name:<40}{texts[0]:>28}{texts[1]:>28}")
    print(f"{'size of the film':<40}{f'{size / 1000:.0f} KB':>28}")
    if arguments.json:
        load = os.getloadavg()
        arguments.json.write_text(json.dumps({"load": load, "bytes": size, "seconds": seconds}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What the playground costs in a browser: to open, to keep, and for each frame of a drag.

    python bench/playground.py [--rounds 5] [--json playground.json]

- From the beginning of its loading to the first line that is drawn on a canvas, in a page of its own each time, and
  what the page's thread used of the processor until it was loaded.
- Ten walkers of 5,000 steps whose start is dragged, with the canyon on: the script's time in each frame, for what is
  changed and for what is drawn, by `performance.now()`; and so with a processor that is made four times as slow.

The parts take turns, `--rounds` times, of 120 frames each. Reported are the median and the 95th percentile of all
frames, the same of what the script used of the processor, which other processes lengthen less, and what the page's
thread used per frame in all: script, styles, layout and, in a browser without a graphics card, drawing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from downslope.play.page import page as written

RULES = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "nadam", "adadelta", "adamax")
LINK = f"#surface=valley&steps=5000&lr=0.05&rules={','.join(RULES)}"
FRAMES = 120
SCRIPTS = "PageAnimator::serviceScriptedAnimations"  # what Chromium calls all scripts of a frame
FIRST_LINE = """(() => { const { stroke } = CanvasRenderingContext2D.prototype;
    CanvasRenderingContext2D.prototype.stroke = function (...path) {
        window.firstLine ??= performance.now(); return stroke.apply(this, path); }; })()"""
DRAG = """(frames) => new Promise((done) => {
    const costs = []; let cost = 0; const drawn = frame; dragging = true;
    const measured = (what) => { const begin = performance.now(); what(); cost += performance.now() - begin; };
    frame = (time) => measured(() => drawn(time));
    const move = (k) => requestAnimationFrame(() => {
        if (k) costs.push(cost);
        if (k > frames) { dragging = false; frame = drawn; return done(costs.slice(10)); }
        cost = 0; measured(() => change({ start: [-9 + 0.01 * k, 1.5] })); move(k + 1); });
    move(0); })"""


def used(session: Any) -> float:
    """The milliseconds that a page's thread has used of the processor."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(1000 * float(each["value"]) for each in metrics if each["name"] == "ThreadTime")


def watched(page: Any) -> Any:
    """A session that is told what a page uses."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    return session


def drag(page: Any, session: Any, tracing: Any, slower: int) -> tuple[list[float], list[float], float]:
    """The milliseconds of each frame; what its script, and the page's thread per frame, used of the processor."""
    events: list[dict[str, Any]] = []
    ended: list[bool] = []
    collect, end = (lambda each: events.extend(each["value"])), (lambda _: ended.append(True))
    tracing.on("Tracing.dataCollected", collect)
    tracing.on("Tracing.tracingComplete", end)

    session.send("Emulation.setCPUThrottlingRate", {"rate": slower})
    config = {"includedCategories": ["blink"], "excludedCategories": ["*"]}
    tracing.send("Tracing.start", {"transferMode": "ReportEvents", "traceConfig": config})
    before = used(session)
    costs = page.evaluate(DRAG, FRAMES)
    thread = (used(session) - before) / FRAMES
    session.send("Emulation.setCPUThrottlingRate", {"rate": 1})
    tracing.send("Tracing.end")
    while not ended:
        page.wait_for_timeout(20)
    tracing.remove_listener("Tracing.dataCollected", collect)
    tracing.remove_listener("Tracing.tracingComplete", end)
    scripts = [each["tdur"] / 1000 for each in events if each["name"] == SCRIPTS and each.get("tdur", 0) > 100]
    return costs, scripts[10:FRAMES], thread  # what follows is no longer the drag


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write what was found")
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    text = written()
    opening: list[float] = []
    loading: list[float] = []
    frames: dict[int, list[float]] = {1: [], 4: []}
    scripts: dict[int, list[float]] = {1: [], 4: []}
    threads: dict[int, list[float]] = {1: [], 4: []}
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        file = Path(directory) / "play.html"
        file.write_text(text)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
        page.goto(file.as_uri() + LINK)
        session = watched(page)
        tracing = browser.new_browser_cdp_session()
        drag(page, session, tracing, 1)  # until it is compiled
        for _ in range(arguments.rounds):
            for slower in frames:
                costs, script, thread = drag(page, session, tracing, slower)
                frames[slower] += costs
                scripts[slower] += script
                threads[slower].append(thread)
            fresh = browser.new_page(viewport={"width": 1440, "height": 900})
            fresh.add_init_script(FIRST_LINE)
            opened = watched(fresh)
            fresh.goto(file.as_uri())
            loading.append(used(opened))
            opening.append(fresh.evaluate("new Promise(done => setTimeout(() => done(window.firstLine), 300))"))
            fresh.close()
        browser.close()
    print(
        f"first line drawn after {statistics.median(opening):.0f} ms ({min(opening):.0f}–{max(opening):.0f})", end="; "
    )
    print(f"loaded after {statistics.median(loading):.0f} ms of the processor")
    for slower, costs in frames.items():
        print("a frame of a drag: " if slower == 1 else f"the same, {slower} times as slow: ", end="")
        for kind, values in (("by the clock", costs), ("of the processor", scripts[slower])):
            last = statistics.quantiles(values, n=20)[-1]
            print(f"{statistics.median(values):.2f} ms {kind}, 95 % within {last:.2f} ms; ", end="")
        print(f"the thread in all {statistics.median(threads[slower]):.2f} ms")
    print(f"size of the page {len(text.encode()) / 1000:.0f} KB")
    if arguments.json:
        found = {
            "load": os.getloadavg(),
            "bytes": len(text.encode()),
            "opening": opening,
            "loading": loading,
            "frames": frames,
            "scripts": scripts,
        }
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""A page that shows a race while it runs: rewritten beside it, it loads itself again until the race is over."""

from __future__ import annotations

import html
import math
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from downslope import files
from downslope.lab.engines.protocol import Progress, Run, Setting, said
from downslope.lab.races.look import Look
from downslope.lab.races.notebook import in_best_setting, shown
from downslope.lab.races.sketch import curves
from downslope.lab.races.stage import Stage
from downslope.lab.underway import UnderWay
from downslope.pages import document, policy, theme

EVERY = 5.0
"""Seconds between two pages, and until a page loads itself again."""

STYLE = """
body { max-width: 44rem; margin: 2rem auto; padding: 0 1rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
td, th { padding: 0 1.2rem 0 0; text-align: left; }
"""


class Shows(Protocol):
    """Who shows the race already, and knows how long it takes."""

    def watch(self, event: Stage | Progress) -> None:
        """Take in what happened."""

    def times(self) -> str:
        """How long the race has been going on, and about how long it still takes."""

    def say(self, text: str, style: str = "") -> None:
        """Say a sentence."""


class LivePage:
    """The page of a race that runs, `report.live.html` beside `report.html`; used as a context manager.

    It is written every few seconds, by a race that takes longer than that. It has no script: the browser loads it again
    because the page asks for that, and the last one does not.

    Args:
        report: Where the report of the race will be.
        title: What is raced.
        rules: What the rules are called.
        screen: Who shows the race besides.
        unit: What losses are told after: `"epochs"` or `"steps"`.
        clock: Gives seconds.
    """

    def __init__(
        self,
        report: Path,
        title: str,
        rules: Iterable[str],
        screen: Shows,
        unit: str,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.path, self.report = report.with_name(f"{report.stem}.live.html"), ""
        self.end = "This race was stopped before its end; the terminal says why."
        self.title, self.screen, self.clock = title, screen, clock
        self.runs: dict[str, list[Run]] = {rule: [] for rule in rules}
        self.underway = UnderWay(unit)
        self.last: float | None = None  # when it was written or, before that, when the race began
        self.there = False
        self.failed = False

    def __enter__(self) -> LivePage:
        return self

    def __exit__(self, *error: object) -> None:
        if self.there:
            self._write(again=False)

    def watch(self, event: Stage | Progress) -> None:
        """Take in what happened, and tell the screen; to be handed to `race`."""
        self.screen.watch(event)
        self.underway.watch(event)
        if isinstance(event, Progress):
            self.runs[event.rule] += event.finished
        now = self.clock()
        if self.last is None:
            self.last = now
        if now - self.last >= EVERY:
            self.last = now
            self._write(again=True)

    def over(self, report: Path | None = None) -> None:
        """Take in that the race has come to its end, and the file beside the page that its report is in, if any."""
        self.report = "" if report is None else report.name
        found = "What it found is in its report, above" if report else "The terminal says what became of its report"
        self.end = f"This race is over. {found}."

    def _write(self, *, again: bool) -> None:
        if self.failed:
            return
        try:
            files.write(self.path, self._page(again=again))
        except OSError as error:  # the race goes on, of which this is only a picture
            self.failed = True
            self.screen.say(f"{self.path} is not written any more ({error}).", "dim")
        else:
            if not self.there:
                self.screen.say(f"To watch in a browser: {self.path}", "dim")
            self.there = True

    def _page(self, *, again: bool) -> str:
        link = f'<p><a href="{html.escape(quote(self.report))}">{html.escape(self.report)}</a></p>'
        sentence = f"Running: {self.screen.times()}." if again else self.end
        tuned = {rule: [run for run in runs if run.phase == "tuning"] for rule, runs in self.runs.items()}
        best = {rule: in_best_setting(runs) for rule, runs in tuned.items()}
        finals = {_in(rule, setting): losses for rule, (setting, losses) in best.items()}
        firsts = [run.valid_loss[0] for runs in tuned.values() for run in runs if math.isfinite(run.valid_loss[0])]
        count = sum(map(len, self.runs.values()))
        lost = sum(run.diverged_at is not None for runs in self.runs.values() for run in runs)
        at = f"{count:,} runs have ended, {lost:,} of them diverged or failed. As of {time.strftime('%H:%M:%S')}."
        rows = [(rule, *_lowest(losses)) for rule, losses in finals.items()]
        looks = [Look.at(place) for place in range(len(self.runs))]
        pens = {rule: (look.variable, look) for rule, look in zip(self.runs, looks, strict=True)}
        body = shown(
            (sentence, at),
            "loss so far",
            rows,
            finals,
            statistics.median(firsts) if firsts else math.inf,
            colours=[look.variable for look in looks],
            more=curves(self.underway.curves(), self.underway.unit, "loss", pens),
        )
        return document(
            self.title,
            f"<h1>{html.escape(self.title)}</h1>\n{link if self.report else ''}{body}",
            style=f"{theme()}{STYLE}",
            policy=policy(None),
            refresh=EVERY if again else None,
        )


def _in(rule: str, setting: Setting) -> str:
    """A rule in one of the settings of a grid, for people."""
    return f"{rule}, {said(setting)}" if setting else rule


def _lowest(losses: dict[float, float]) -> tuple[str, str]:
    """The learning rate that is lowest so far, and its loss."""
    lr = min(losses, key=losses.__getitem__, default=None)
    return ("", "") if lr is None or math.isinf(losses[lr]) else (f"{lr:.3g}", f"{losses[lr]:.3g}")

"""A race while it runs, for those who wait: a bar in a terminal or a notebook, elsewhere a line at every tenth."""

from __future__ import annotations

import importlib
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from downslope.backends.threads import available
from downslope.lab.engines.protocol import Progress, Run, said
from downslope.lab.races.budget import duration
from downslope.lab.races.forecast import Forecast
from downslope.lab.races.notebook import in_best_setting
from downslope.lab.races.plan import NOW
from downslope.lab.races.stage import Stage, StageName
from downslope.lab.underway import HEIGHTS, UnderWay
from downslope.printable import printable

STAGES: dict[StageName, str] = {
    "measuring": "measuring what runs cost",
    "defaults": "defaults",
    "tuning": "tuning",
    "widening": "wider grid",
    "confirming": "confirming",
    "verdict": "fresh seeds",
    "explaining": "explaining",
}
TRAINED = 2  # lines about runs that go on
BAR = 30  # characters of the bar in a notebook


class Ticker:
    """The progress of a race; used as a context manager.

    On a terminal one bar covers the whole race, with a line for each rule below it; in a notebook there is the bar.
    Elsewhere a line is written at every tenth of the race. What every rule reaches in a first run at its default
    learning rate is said as soon as it is known.

    Args:
        about: What the race is about, in lines of which the first is a title.
        rules: What the rules are called.
        epochs: The epochs of a run; None if the engine reports run by run.
        console: Where to draw; by default standard error.
        threads: Trainings at a time; by default one per processor.
        clock: Gives seconds.
    """

    def __init__(
        self,
        about: Sequence[str],
        rules: Iterable[str],
        epochs: int | None,
        console: Console | None = None,
        *,
        threads: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        # The file itself: while a training runs, what it writes to sys.stdout and sys.stderr is held back.
        self.console = console or Console(file=sys.stderr, highlight=False)
        self.about, self.clock = about, clock
        self.tasks = {rule: _Task(printable(rule)) for rule in rules}
        self.forecast = Forecast(self.tasks, epochs or 1, threads or available(), compiled=epochs is not None)
        self.underway = UnderWay("steps" if epochs is None else "epochs")
        self.stage = ""
        self.firsts: list[Run] = []
        self.shown = 0.0  # the share that has been shown: a bar does not go back
        self.begun: float | None = None
        self.cell: Any = None  # in a notebook
        self.live = Live(
            get_renderable=self._drawn, console=self.console, refresh_per_second=8, transient=True, auto_refresh=True
        )

    def __enter__(self) -> Ticker:
        return self

    def _begin(self) -> None:
        self.begun = self.clock()
        for place, line in enumerate(self.about):
            self.say(line, "" if place else "bold")
        if self.console.is_jupyter:
            self.say("Interrupt the kernel to stop the race and get what is finished.", "dim")
            self.cell = _Cell()
            return
        self.say("Ctrl-C stops the race and keeps what is finished.\n", "dim")
        if self.console.is_interactive:
            self.live.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.live.is_started:
            self.live.stop()
        if self.cell is not None:
            self.cell.show("")

    def watch(self, event: Stage | Progress) -> None:
        """Take in what happened; to be handed to `race`."""
        self.underway.watch(event)
        if isinstance(event, Stage):
            if self.begun is None:
                self._begin()
            for sentence in () if event.foreseen is None else event.foreseen.sentences:
                self.say(sentence, "dim")
            if self.stage == STAGES["defaults"] and self.firsts:
                self.say(f"{_first_answer(self.firsts)}\n")
            self.stage = STAGES[event.name]
            if event.name == "measuring":
                self.stage += f": {printable(', '.join(event.epochs))}"
                if self.cell is not None:
                    self.cell.show(self.stage)
                elif not self.live.is_started:
                    self.say(self.stage.capitalize(), "dim")
            self.forecast.begin(event)
            return
        task = self.tasks[event.rule]
        task.runs += len(event.finished)
        task.lost += sum(run.diverged_at is not None for run in event.finished)
        task.failed += sum(bool(run.cause) for run in event.finished)
        task.tuning += [run for run in event.finished if run.phase == "tuning"]
        if self.stage == STAGES["defaults"]:
            self.firsts += event.finished
            for run in event.finished:
                self.say(_first(run), "dim")
        self.forecast.add(event)
        before, now = self.shown, self._share()
        if self.cell is not None:
            self.cell.show(f"{'━' * round(BAR * now):╌<{BAR}} {100 * now:3.0f} %  {self.times()}; {self.stage}")
        elif not self.live.is_started and int(10 * now) > int(10 * before):
            self.say(f"{10 * int(10 * now)} %: {self.times()}; {self.stage}")

    def _elapsed(self) -> float:
        return 0.0 if self.begun is None else self.clock() - self.begun

    def _share(self) -> float:
        """The share of the race's time that is over, as far as it can be estimated."""
        elapsed = self._elapsed()
        left = self.forecast.left(elapsed)
        if left is not None:
            self.shown = max(self.shown, elapsed / (elapsed + left) if elapsed + left else 0.0)
        return self.shown

    def times(self) -> str:
        """How long the race has been going on, and about how long it still takes."""
        elapsed = self._elapsed()
        left = self.forecast.left(elapsed)
        if not left:
            compiling = ", compiling" if left is None and self.forecast.compiled else ""
            return f"{duration(round(elapsed))} so far{compiling}"
        return f"{duration(round(elapsed))} so far, about {duration(round(left))} left"

    def _drawn(self) -> RenderableType:
        share, width = self._share(), self.console.width
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=1.0, completed=share, width=max(8, min(40, width - 46))),
            Text(f"{100 * share:3.0f} %"),
            Text(self.times()),
        )
        lines: list[RenderableType] = [bar, Text(f"Now: {self.stage}", style="dim")]
        under_way = self.underway.lines()[:TRAINED]
        lines += [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in under_way]
        if len(self.tasks) + 9 + TRAINED <= self.console.height:
            runs = max(len(f"{task.runs:,}") for task in self.tasks.values())
            best = [in_best_setting(task.tuning) for task in self.tasks.values()]
            valleys = _valleys([losses for _, losses in best])
            if any(valleys):
                lines.append(Text("Final loss, from the lowest learning rate to the highest; x: diverged", style="dim"))
            for task, valley, (setting, _) in zip(self.tasks.values(), valleys, best, strict=True):
                lost = f"{task.lost:,} {'failed' if task.failed else 'diverged'}" if task.lost else ""
                named = "  ".join(filter(None, (valley, task.name, said(setting))))
                line = f"{task.runs:>{runs},} runs  {lost:<14} {named}"
                lines.append(Text(line, style="dim", no_wrap=True, overflow="ellipsis"))  # the table has it whole
        return Group(*lines)

    def say(self, text: str, style: str = "") -> None:
        """Print a paragraph."""
        paragraph(self.console, text, style)


def paragraph(console: Console, text: str, style: str = "") -> None:
    """Print a paragraph: wrapped on a terminal, in one line elsewhere."""
    console.print(Text(text, style=style), soft_wrap=not console.is_terminal)


def _valleys(known: Sequence[Mapping[float, float]]) -> list[str]:
    """The canyon of each rule so far, a character for each learning rate; all on one logarithmic scale of losses."""
    rates = sorted({lr for losses in known for lr in losses})
    logs = [math.log(loss) for losses in known for loss in losses.values() if 0 < loss < math.inf]
    if not logs or len(rates) < 2:
        return [""] * len(known)
    low, span = min(logs), max(max(logs) - min(logs), 1e-12)

    def drawn(loss: float | None) -> str:
        if loss is None:
            return " "
        if not loss < math.inf:
            return "x"
        share = (math.log(loss) - low) / span if loss > 0 else 0.0
        return HEIGHTS[min(int(share * len(HEIGHTS)), len(HEIGHTS) - 1)]

    return ["".join(drawn(losses.get(lr)) for lr in rates) for losses in known]


@dataclass
class _Task:
    """One rule while the race runs: its finished runs, how many did not come to their end, and of these otherwise."""

    name: str
    runs: int = 0
    lost: int = 0
    failed: int = 0  # of those lost, otherwise than by diverging
    tuning: list[Run] = field(default_factory=list)  # those to tune by


class _Cell:
    """A line in the output of a notebook's cell, which is replaced."""

    def __init__(self) -> None:
        display = importlib.import_module("IPython.display").display
        self._line = display({"text/plain": ""}, raw=True, display_id=True)

    def show(self, text: str) -> None:
        self._line.update({"text/plain": text}, raw=True)


def _first(run: Run) -> str:
    """What is known first about a rule: one run at its default learning rate."""
    end = run.cause or ("diverged" if run.diverged_at is not None else f"{run.final_loss:.3g}")
    return printable(f"First run, {run.rule} at lr {run.lr:g}: {end}")


def _first_answer(runs: Sequence[Run]) -> str:
    """What one run of each rule says, the lowest loss first, beside what people have now."""
    lowest, *others = sorted(runs, key=lambda run: run.final_loss)
    if math.isinf(lowest.final_loss):
        return "First answer: at its default learning rate no rule gets to the end; now others are tried."
    beside = next((run for run in others if run.rule == NOW), others[0] if others else None)
    against = ""
    if beside is not None:
        end = "diverges" if math.isinf(beside.final_loss) else f"ends at {beside.final_loss:.3g}"
        against = f"; {beside.rule} {end}"
    first = "what you have now" if lowest.rule == NOW else lowest.rule
    return printable(
        f"First answer, one run of each before any tuning: {first} is lowest, {lowest.final_loss:.3g}{against}. Now "
        "all rules are tuned, and judged on fresh seeds."
    )

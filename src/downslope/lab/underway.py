"""The losses of runs while they are trained, for those who wait for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from downslope.lab.engines.protocol import Entry, Progress, Run, said
from downslope.lab.races.sketch import Curve
from downslope.lab.races.stage import Stage
from downslope.printable import printable

MOST_POINTS = 400
"""Of a curve that is kept: of more, every other one goes."""

HEIGHTS = "▁▂▃▄▅▆▇█"
WIDE = 24  # characters of a curve in the terminal


class UnderWay:
    """The runs that go on, as far as engines tell of them, and of every rule the finished one that ended lowest.

    Args:
        unit: What losses are told after: `"epochs"` or `"steps"`.
    """

    def __init__(self, unit: str):
        self.unit = unit
        self._going: dict[Entry, list[tuple[int, float]]] = {}
        self._lowest: dict[str, Run] = {}

    def watch(self, event: Stage | Progress) -> None:
        """Take in what happened."""
        if isinstance(event, Stage):
            self._going.clear()
            return
        for entry, time, loss in event.heard:
            run = replace(entry, observed=False) if entry.observed else entry
            points = self._going.setdefault(run, [])
            if points and time <= points[-1][0]:
                points.clear()  # it was begun anew
            points.append((time, loss))
            if len(points) > MOST_POINTS:
                del points[1:-1:2]
        for ended in event.finished:
            self._going.pop(ended.entry, None)
            if ended.final_loss < (self._lowest[ended.rule].final_loss if ended.rule in self._lowest else math.inf):
                self._lowest[ended.rule] = ended

    def _of_rules(self) -> dict[str, Entry]:
        """Of every rule that is trained now, the run that is lowest."""
        found: dict[str, Entry] = {}
        for entry, points in self._going.items():
            if entry.rule not in found or points[-1][1] < self._going[found[entry.rule]][-1][1]:
                found[entry.rule] = entry
        return found

    def curves(self) -> list[Curve]:
        """Of every rule the finished run that ended lowest, and the lowest of those that go on."""
        ended = [
            Curve(run.rule, thinned(list(zip(run.times, run.valid_loss, strict=True)))) for run in self._lowest.values()
        ]
        return [*ended, *(Curve(rule, list(self._going[one]), True) for rule, one in self._of_rules().items())]

    def lines(self) -> list[str]:
        """A line for each rule that is trained now: its lowest run, its losses as a curve, and the last of them."""
        found = []
        for rule, entry in self._of_rules().items():
            time, loss = self._going[entry][-1]
            setting = f", {said(entry.setting)}" if entry.setting else ""
            run = printable(f"{rule}, lr {entry.lr:.3g}{setting}")
            found.append(f"{drawn(self._going[entry])} {loss:.3g} after {time:,} {self.unit}  {run}")
        return found


def thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Evenly, so many points of a curve that there are no more than `MOST_POINTS`, the last always among them.

    Example:
        >>> some = thinned([(step, 1.0) for step in range(1000)])
        >>> len(some), some[0][0], some[1][0], some[-1][0]
        (334, 0, 3, 999)
    """
    every = -(-(len(points) - 1) // (MOST_POINTS - 1)) or 1
    return points[:-1:every] + points[-1:]


def drawn(points: Sequence[tuple[float, float]]) -> str:
    """Losses as a line of text, on a logarithmic scale from the lowest to the highest.

    Example:
        >>> drawn([(0, 8.0), (1, 4.0), (2, 2.0), (3, 1.0)])
        '█▆▃▁'
    """
    some = [points[len(points) * k // WIDE] for k in range(WIDE)] if len(points) > WIDE else points
    logs = [math.log(loss) if 0 < loss < math.inf else math.nan for _, loss in some]
    known = [one for one in logs if math.isfinite(one)]
    low, span = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)

    def bar(log: float) -> str:
        return HEIGHTS[round((len(HEIGHTS) - 1) * ((log - low) / span if span else 0.0))] if math.isfinite(log) else " "

    return "".join(map(bar, logs))

"""Pictures of a race as plain SVG, without a script: the canyon of its learning rates, and losses while it runs."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from downslope.lab.races.look import Look

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 26, 44  # pixels around a picture
CEILING = 3.0
"""Losses above so many times the one before training are drawn at the top edge."""

Pens = Mapping[str, tuple[str, Look]]
"""Of each rule its colour on the page, and its dash and marker."""


@dataclass(frozen=True)
class Curve:
    """Losses of one run.

    Attributes:
        rule: Its rule.
        points: After how many epochs or steps, and the loss.
        going: Whether it goes on.
    """

    rule: str
    points: Sequence[tuple[float, float]]
    going: bool = False


def canyon(known: Mapping[str, Mapping[float, float]], start: float, loss_name: str, pens: Pens) -> str:
    """Learning rate across, final loss up, a line for each rule; a cross at the top edge where it diverged.

    Args:
        known: Of each rule the final loss at every learning rate, infinite where it diverged.
        start: The loss before training; infinite if it is not known.
        loss_name: What the loss is called.
        pens: How each rule is drawn.
    """
    rates = [lr for losses in known.values() for lr in losses]
    finite = [loss for losses in known.values() for loss in losses.values() if 0 < loss < math.inf]
    if not finite or min(rates) == max(rates):
        return ""
    low, top = min(finite) * 0.85, max(min(max(finite), CEILING * start) * 1.15, min(finite) * 1.5)
    span = math.log(max(rates) / min(rates))
    frame = _Frame(low, top)
    drawn = [
        *frame.ground(f"final {loss_name}, median over the tuning seeds; × diverged", "learning rate"),
        *(frame.under(math.log(lr / min(rates)) / span, f"{lr:g}") for lr in _decades(min(rates), max(rates), (1,))),
    ]
    for rule, losses in known.items():
        points = [(math.log(lr / min(rates)) / span, loss) for lr, loss in losses.items()]
        drawn.append(frame.line(rule, points, *pens[rule], marked=range(len(points))))
    return _svg(f"Final {loss_name} against learning rate, a line for each rule", drawn)


def curves(shown: Sequence[Curve], unit: str, loss_name: str, pens: Pens) -> str:
    """Epochs or steps across, loss up, a line for each run, with its rule's marker at its end.

    Args:
        shown: The runs; those that go on are drawn thicker.
        unit: `"epochs"` or `"steps"`.
        loss_name: What the loss is called.
        pens: How each rule is drawn.
    """
    shown = [one for one in shown if len(one.points) > 1]
    finite = [loss for one in shown for _, loss in one.points if 0 < loss < math.inf]
    last = max((time for one in shown for time, _ in one.points), default=0)
    if not finite or not last:
        return ""
    starts = [one.points[0][1] for one in shown if 0 < one.points[0][1] < math.inf]
    top = min(max(finite), CEILING * max(starts)) if starts else max(finite)
    frame = _Frame(min(finite) * 0.85, max(top * 1.15, min(finite) * 1.5))
    drawn = frame.ground(
        f"{loss_name}: of each rule the run that ended lowest and, thick, the lowest that goes on", unit
    )
    drawn += [frame.under(time / last, f"{time:,g}") for time in _rounds(last)]
    for one in shown:
        points = [(time / last, loss) for time, loss in one.points]
        drawn.append(frame.line(one.rule, points, *pens[one.rule], marked=[len(points) - 1], thick=one.going))
    return _svg(f"{loss_name} against {unit}, a line for each run", drawn)


@dataclass(frozen=True)
class _Frame:
    """A picture whose losses are on a logarithmic scale."""

    low: float
    top: float

    def across(self, share: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * share

    def up(self, loss: float) -> float:
        share = math.log(self.top / min(max(loss, self.low), self.top)) / math.log(self.top / self.low)
        return TOP + (HEIGHT - TOP - BOTTOM) * share

    def ground(self, title: str, along: str) -> list[str]:
        """What is said above and below, and the losses at the side."""
        drawn = [
            f'<text x="{LEFT}" y="14">{html.escape(title)}</text>',
            f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{along}</text>',
        ]
        for loss in _decades(self.low, self.top, (1, 2, 5)):
            y = self.up(loss)
            drawn.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{loss:g}</text>')
            drawn.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="currentColor" opacity="0.15"/>')
        return drawn

    def under(self, share: float, text: str) -> str:
        """A number below."""
        return f'<text x="{self.across(share):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{text}</text>'

    def line(
        self,
        rule: str,
        points: Sequence[tuple[float, float]],
        colour: str,
        look: Look,
        *,
        marked: Sequence[int],
        thick: bool = False,
    ) -> str:
        """A rule's line, with markers at some of its points; it is broken by crosses where a loss is infinite."""
        drawn, pen, path, marks = [], "M", "", ""
        for place, (share, loss) in enumerate(points):
            x, y = self.across(share), self.up(loss)
            if math.isfinite(loss):
                path, pen = f"{path}{pen}{x:.1f} {y:.1f}", "L"
                if place in marked:
                    marks += f'<g transform="translate({x:.1f} {y:.1f}) scale(0.8)">{look.marker}</g>'
            else:
                pen = "M"
                drawn.append(f'<path d="M{x - 4:.1f} {TOP - 4}l8 8m-8 0l8 -8" stroke="currentColor"/>')
        drawn.append(
            f'<path d="{path}" fill="none" stroke="currentColor" stroke-width="{3.2 if thick else 1.8}"{look.stroke}/>'
        )
        return f'<g style="color:{colour}"><title>{html.escape(rule)}</title>{"".join(drawn)}{marks}</g>'


def _svg(label: str, drawn: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" style="max-width:100%" role="img" '
        f'aria-label="{html.escape(label)}" font-family="sans-serif" font-size="12" fill="currentColor">'
        f"{''.join(drawn)}</svg>"
    )


def _decades(low: float, high: float, digits: tuple[int, ...]) -> list[float]:
    """Round numbers between two edges."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [float(f"{digit}e{power}") for power in powers for digit in digits]
    return [number for number in every if low * 0.999 <= number <= high * 1.001]


def _rounds(last: float) -> list[float]:
    """A few round whole numbers from 0 on."""
    step = next(step for step in _decades(max(1.0, last / 100), max(1.0, last), (1, 2, 5)) if last / step <= 6)
    return [step * k for k in range(math.floor(last / step * 1.001) + 1)]

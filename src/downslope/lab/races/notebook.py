"""A race in a notebook: its verdict, the canyon of its learning rates, and its rules. No script, nothing to load."""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from downslope.lab.engines.protocol import Run, Setting

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 26, 44  # pixels around the canyon
CEILING = 3.0
"""Losses above so many times the one before training are drawn at the top edge."""

COLOURS = ("#3b76c4", "#c8553d", "#2a9d6f", "#a06cc0", "#b8860b", "#d1589b", "#5f7f8c")  # seen on white and on black


def medians(finals: Iterable[tuple[float, float]]) -> dict[float, float]:
    """The median of final losses at every learning rate, the lowest first; infinite where half of the runs diverged.

    Args:
        finals: Of each run its learning rate and its final loss.
    """
    by_rate: dict[float, list[float]] = {}
    for lr, loss in finals:
        by_rate.setdefault(lr, []).append(loss)
    return {lr: statistics.median(losses) for lr, losses in sorted(by_rate.items())}


def in_best_setting(runs: Iterable[Run]) -> tuple[Setting, dict[float, float]]:
    """Of runs of one rule the setting that reaches the lowest median of final losses, and its medians.

    Args:
        runs: Those that are known so far, of any settings.
    """
    finals: dict[Setting, list[tuple[float, float]]] = {}
    for run in runs:
        finals.setdefault(run.setting, []).append((run.lr, run.final_loss))
    known = ((setting, medians(pairs)) for setting, pairs in finals.items())
    return min(known, key=lambda one: min(one[1].values()), default=((), {}))


def shown(
    said: Sequence[str],
    loss_name: str,
    rows: Sequence[tuple[str, str, str]],
    finals: Mapping[str, Mapping[float, float]],
    start: float,
) -> str:
    """What a notebook shows of a race, as HTML.

    Args:
        said: The verdict, and what is to be borne in mind with it.
        loss_name: What its loss is called.
        rows: Of each rule its name, its best learning rate and its loss, the lowest first.
        finals: Of each rule the median final loss at every learning rate, infinite where half of its runs diverged.
        start: The loss before training; infinite if it is not known.
    """
    colours = {rule: COLOURS[place % len(COLOURS)] for place, rule in enumerate(finals)}
    verdict, *cautions = map(html.escape, said)
    paragraphs = "".join(f"<p>{caution}</p>" for caution in cautions)
    body = "".join(
        f'<tr><td><span style="color:{colours[rule]}">●</span> {html.escape(rule)}</td>'
        f"<td>{lr}</td><td>{loss}</td></tr>"
        for rule, lr, loss in rows
    )
    return (
        f"<div><p><strong>{verdict}</strong></p>{paragraphs}{_canyon(finals, start, loss_name, colours)}"
        f"<table><thead><tr><th></th><th>best lr</th><th>{loss_name}</th></tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _canyon(
    known: Mapping[str, Mapping[float, float]], start: float, loss_name: str, colours: Mapping[str, str]
) -> str:
    """Learning rate across, final loss up, a line for each rule; a cross at the top edge where it diverged."""
    rates = [lr for losses in known.values() for lr in losses]
    finite = [loss for losses in known.values() for loss in losses.values() if 0 < loss < math.inf]
    if not finite or min(rates) == max(rates):
        return ""
    low, top = min(finite) * 0.85, max(min(max(finite), CEILING * start) * 1.15, min(finite) * 1.5)

    def across(lr: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(lr / min(rates)) / math.log(max(rates) / min(rates))

    def up(loss: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * math.log(top / min(max(loss, low), top)) / math.log(top / low)

    drawn = [
        f'<text x="{LEFT}" y="14">final {loss_name}, median over the tuning seeds; × diverged</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">learning rate</text>',
    ]
    drawn += [
        f'<text x="{across(lr):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{lr:g}</text>'
        for lr in _decades(min(rates), max(rates), (1,))
    ]
    for loss in _decades(low, top, (1, 2, 5)):
        y = up(loss)
        drawn.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{loss:g}</text>')
        drawn.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="currentColor" opacity="0.15"/>')
    for rule, losses in known.items():
        pen, path = "M", ""
        for lr, loss in losses.items():
            if math.isfinite(loss):
                path, pen = f"{path}{pen}{across(lr):.1f} {up(loss):.1f}", "L"
            else:
                pen, x = "M", across(lr)
                drawn.append(f'<path d="M{x - 4:.1f} {TOP - 4}l8 8m-8 0l8 -8" stroke="{colours[rule]}"/>')
        name = html.escape(rule)
        drawn.append(
            f'<path d="{path}" fill="none" stroke="{colours[rule]}" stroke-width="2"><title>{name}</title></path>'
        )
    label = html.escape(f"Final {loss_name} against learning rate, a line for each rule")
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" style="max-width:100%" role="img" aria-label="{label}" '
        f'font-family="sans-serif" font-size="12" fill="currentColor">{"".join(drawn)}</svg>'
    )


def _decades(low: float, high: float, digits: tuple[int, ...]) -> list[float]:
    """Round numbers between two edges."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [float(f"{digit}e{power}") for power in powers for digit in digits]
    return [number for number in every if low * 0.999 <= number <= high * 1.001]

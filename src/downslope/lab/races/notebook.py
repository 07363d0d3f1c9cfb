"""A race in a notebook: its verdict, the canyon of its learning rates, and its rules. No script, nothing to load."""

from __future__ import annotations

import html
import statistics
from collections.abc import Iterable, Mapping, Sequence

from downslope.lab.engines.protocol import Run, Setting
from downslope.lab.races.look import Look
from downslope.lab.races.sketch import canyon

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
    *,
    colours: Sequence[str] = COLOURS,
    more: str = "",
) -> str:
    """What a notebook shows of a race, as HTML.

    Args:
        said: The verdict, and what is to be borne in mind with it.
        loss_name: What its loss is called.
        rows: Of each rule its name, its best learning rate and its loss, the lowest first.
        finals: Of each rule the median final loss at every learning rate, infinite where half of its runs diverged.
        start: The loss before training; infinite if it is not known.
        colours: Those of the rules, by their place; where there are more rules, dashes and markers tell them apart.
        more: What stands above the table.
    """
    pens = {rule: (colours[place % len(colours)], Look.at(place)) for place, rule in enumerate(finals)}
    verdict, *cautions = map(html.escape, said)
    paragraphs = "".join(f"<p>{caution}</p>" for caution in cautions)
    body = "".join(
        f"<tr><td>{pens[rule][1].key(pens[rule][0])} {html.escape(rule)}</td><td>{lr}</td><td>{loss}</td></tr>"
        for rule, lr, loss in rows
    )
    return (
        f"<div><p><strong>{verdict}</strong></p>{paragraphs}{canyon(finals, start, loss_name, pens)}{more}"
        f"<table><thead><tr><th></th><th>best lr</th><th>{loss_name}</th></tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )

"""The tables of the report: what every rule reached, and how every two of them compare."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable

from downslope.lab.drawing import SHAPES, Look, number
from downslope.lab.results import Comparison, Interval, Race, RuleResult, Run

DASHES = {
    "solid": "",
    "dash": "6 3",
    "dot": "1.5 3",
    "dashdot": "6 3 1.5 3",
    "longdash": "10 4",
    "longdashdot": "10 3 1.5 3",
}


def ranked(race: Race) -> list[RuleResult]:
    """The rules from the lowest median validation loss to the highest; those without a result last."""
    return sorted(race.rules, key=lambda result: math.inf if result.loss is None else result.loss.estimate)


def rule_name(rule: str, look: Look) -> str:
    """A rule's name beside its line and marker, as in the pictures."""
    dash = f' stroke-dasharray="{DASHES[look.dash]}"' if DASHES[look.dash] else ""
    points = SHAPES[look.symbol]
    shape = f'<polygon points="{points}"/>' if points else '<circle r="4.6"/>'
    line = f'<line x1="-15" x2="15" stroke="currentColor" stroke-width="2.2"{dash}/>'
    return (
        f'<span class="rule"><svg class="key" viewBox="-15 -7 30 14" aria-hidden="true" '
        f'style="color:var(--{look.colour[1:]})" fill="currentColor">{line}{shape}</svg>{html.escape(rule)}</span>'
    )


def summary(race: Race, look: dict[str, Look]) -> str:
    """The table of all rules, best first."""
    columns = ["Rule", "Best learning rate", "Safe range", "Validation loss"]
    columns += ["Accuracy"] if race.task == "classification" else []
    columns += ["Test loss"] + (["Test accuracy"] if race.task == "classification" else [])
    columns += ["Steps to target", "Seconds", "Failures"]
    order = ranked(race)
    finished = [result for result in order if result.loss is not None and math.isfinite(result.loss.estimate)]
    leader = finished[0].rule if len(finished) > 1 else None
    rows = "".join(_summary_row(result, race, look, columns, leader) for result in order)
    return _table("summary", _heads(columns), rows)


def matrix(race: Race, look: dict[str, Look]) -> str:
    """Win probabilities of every rule over every other, best rule first."""
    chances = _chances(race.comparisons)
    rules = [result.rule for result in ranked(race) if any(result.rule in pair for pair in chances)]
    head = "<td></td>" + "".join(f'<th scope="col"><span>{html.escape(rule)}</span></th>' for rule in rules)
    rows = "".join(
        f'<tr><th scope="row">{rule_name(row, look[row])}</th>'
        + "".join(_matrix_cell(row, column, chances) for column in rules)
        + "</tr>\n"
        for row in rules
    )
    return _table("matrix", head, rows)


def pairs(race: Race) -> str:
    """Every comparison with its difference and p-values."""
    rows = "".join(
        f"<tr><th>{html.escape(one.first)} against {html.escape(one.second)}</th>"
        f'<td class="number">{_with_interval(one.difference)}</td>'
        f'<td class="number">{_percent(one.win_probability)}</td>'
        f'<td class="number">{number(one.p_value)}</td><td class="number">{number(one.p_adjusted)}</td>'
        f"<td>{'yes' if one.decided else 'no'}</td></tr>\n"
        for one in race.comparisons
    )
    columns = ("Pair", "Mean difference in loss", "First wins", "p", "p, Holm", "Decided")
    return _table("pairs", _heads(columns), rows)


def _table(kind: str, head: str, rows: str) -> str:
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>'
    )


def _heads(columns: Iterable[str]) -> str:
    return "".join(f'<th scope="col">{column}</th>' for column in columns)


def _summary_row(result: RuleResult, race: Race, look: dict[str, Look], columns: list[str], leader: str | None) -> str:
    standing = _standing(result.rule, leader, race.comparisons)
    small = f"<small>{standing}</small>" if standing else ""
    cells = {
        "Best learning rate": _best_lr(result),
        "Safe range": _safe_range(result.safe_range),
        "Validation loss": _with_interval(result.loss),
        "Accuracy": _with_interval(result.accuracy, percent=True),
        "Test loss": number(result.test_loss),
        "Test accuracy": _percent(result.test_accuracy),
        "Steps to target": _steps(result.steps_to_target, race.target_loss),
        "Seconds": number(result.seconds),
        "Failures": _failures(result.tuning, "tuning") + _failures(result.verdict, "reporting"),
    }
    shown = "".join(f'<td class="number" data-label="{column}">{cells[column]}</td>' for column in columns[1:])
    kind = ' class="best"' if result.rule == leader else ""
    return f'<tr{kind}><th scope="row">{rule_name(result.rule, look[result.rule])}{small}</th>{shown}</tr>\n'


def _standing(rule: str, leader: str | None, comparisons: tuple[Comparison, ...]) -> str:
    if rule == leader:
        return "lowest median"
    undecided = any({rule, leader} == {one.first, one.second} and not one.decided for one in comparisons)
    return "too close to call" if undecided else ""


def _best_lr(result: RuleResult) -> str:
    if result.best_lr is None:
        if not result.tuning:
            return "–<small>not tuned yet</small>"
        diverged = all(run.diverged_at is not None for run in result.tuning)
        return f"–<small>{'all diverged' if diverged else 'tuning unfinished'}</small>"
    edge = f"<small>at the {result.edge} edge</small>" if result.edge else ""
    return f"<strong>{number(result.best_lr)}</strong>{edge}"


def _safe_range(safe: tuple[float, float] | None) -> str:
    if safe is None:
        return "–"
    low, high = safe
    if low == high:
        return f"{number(low)}<small>one value only</small>"
    return f"{number(low)} – {number(high)}<small>a factor of {number(high / low)}</small>"


def _with_interval(interval: Interval | None, *, percent: bool = False) -> str:
    if interval is None:
        return "–"
    write = _percent if percent else number
    if math.isnan(interval.low) or math.isnan(interval.high):
        return f"<strong>{write(interval.estimate)}</strong>"
    return f"<strong>{write(interval.estimate)}</strong><small>{write(interval.low)} – {write(interval.high)}</small>"


def _percent(share: float | None) -> str:
    return "–" if share is None or math.isnan(share) else f"{100 * share:.3g} %"


def _steps(steps: float | None, target: float | None) -> str:
    if steps is None or target is None:
        return "–"
    return "missed" if math.isinf(steps) else f"{steps:,.0f}"


def _failures(runs: tuple[Run, ...], phase: str) -> str:
    if not runs:
        return ""
    failed = sum(run.diverged_at is not None for run in runs)
    return f"<small>{phase} {failed} of {len(runs)}</small>"


def _chances(comparisons: tuple[Comparison, ...]) -> dict[tuple[str, str], tuple[float, Comparison]]:
    chances = {(one.first, one.second): (one.win_probability, one) for one in comparisons}
    return chances | {(one.second, one.first): (1 - one.win_probability, one) for one in comparisons}


def _matrix_cell(row: str, column: str, chances: dict[tuple[str, str], tuple[float, Comparison]]) -> str:
    if (row, column) not in chances:
        return "<td></td>"
    chance, comparison = chances[row, column]
    kind = ("win" if chance > 0.5 else "loss") if comparison.decided else "even"
    hint = html.escape(f"{row} against {column}: adjusted p = {number(comparison.p_adjusted)}")
    return f'<td class="{kind}" title="{hint}">{_percent(chance)}</td>'

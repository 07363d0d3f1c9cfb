"""The tables of the report: what every rule reached, and how every two of them compare."""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Iterable

from downslope.lab.engines.protocol import Run
from downslope.lab.races.results import Comparison, Interval, Race, RuleResult
from downslope.lab.races.statistics import geometric_mean, ranked
from downslope.lab.races.verdict import difference
from downslope.lab.report.drawing import SHAPES, Look, number

DASHES = {
    "solid": "",
    "dash": "6 3",
    "dot": "1.5 3",
    "dashdot": "6 3 1.5 3",
    "longdash": "10 4",
    "longdashdot": "10 3 1.5 3",
}


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
    """The table of all rules, best first, and what a constant prediction reaches."""
    columns = ["Rule", "Best learning rate", "Safe range", "Validation loss"]
    columns += ["Accuracy"] if race.task == "classification" else []
    columns += ["Best epoch’s loss", "Test loss"] + (["Test accuracy"] if race.task == "classification" else [])
    columns += ["Steps to target", "Seconds of training", "Failures"]
    order = ranked(race)
    leader = order[0].rule if len(order) > 1 and order[0].finished_loss not in (None, math.inf) else None
    rows = "".join(_summary_row(result, race, look, columns, leader) for result in order)
    return _table("summary", _heads(columns), rows + _baseline_row(race, columns))


def matrix(race: Race, look: dict[str, Look]) -> str:
    """Win probabilities of every rule over every other, best rule first."""
    both_ways = {(one.first, one.second): one for pair in race.comparisons for one in (pair, pair.turned())}
    rules = [result.rule for result in ranked(race) if any(result.rule in pair for pair in both_ways)]
    head = "<td></td>" + "".join(f'<th scope="col"><span>{html.escape(rule)}</span></th>' for rule in rules)
    rows = "".join(
        f'<tr><th scope="row">{rule_name(row, look[row])}</th>'
        + "".join(_matrix_cell(both_ways.get((row, column))) for column in rules)
        + "</tr>\n"
        for row in rules
    )
    return _table("matrix", head, rows)


def pairs(race: Race) -> str:
    """Every comparison with its difference in words, its interval's level and its p-values."""
    rows = "".join(
        f"<tr><th>{html.escape(one.first)} against {html.escape(one.second)}</th>"
        f"<td>{html.escape(difference(one))}</td>"
        f'<td class="number">{_level(one.ratio)}</td>'
        f'<td class="number">{_percent(one.win_probability)}</td>'
        f'<td class="number">{number(one.p_value)}</td><td class="number">{number(one.p_adjusted)}</td>'
        f"<td>{html.escape(_decision(one))}</td></tr>\n"
        for one in race.comparisons
    )
    columns = ("Pair", "Mean difference in loss", "Level", "First ends lower", "p", "p, adjusted", "Decision")
    return _table("pairs", _heads(columns), rows)


def valleys(race: Race) -> str:
    """What the canyon shows in numbers: per learning rate and rule the median, lowest and highest final loss."""
    rates = sorted({run.lr for result in race.rules for run in result.tuning})
    rows = "".join(
        f'<tr><th scope="row">{number(lr)}</th>'
        + "".join(f'<td class="number">{_valley_cell(result, lr, race)}</td>' for result in race.rules)
        + "</tr>\n"
        for lr in rates
    )
    return _table("valleys", _heads(["Learning rate", *(html.escape(result.rule) for result in race.rules)]), rows)


def _valley_cell(result: RuleResult, lr: float, race: Race) -> str:
    runs = [run for run in result.tuning if run.lr == lr and run.seed in race.tuning_seeds]
    if not runs:
        return "–"
    losses = [run.final_loss for run in runs]
    spread = "" if len(losses) == 1 else f"<small>{number(min(losses))} – {number(max(losses))}</small>"
    lost = sum(run.diverged_at is not None for run in runs)
    diverged = f"<small>{lost} of {len(runs)} diverged</small>" if lost else ""
    return f"{number(statistics.median(losses))}{spread}{diverged}"


def _table(kind: str, head: str, rows: str) -> str:
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>'
    )


def _heads(columns: Iterable[str]) -> str:
    return "".join(f'<th scope="col">{column}</th>' for column in columns)


def _summary_row(result: RuleResult, race: Race, look: dict[str, Look], columns: list[str], leader: str | None) -> str:
    standing = _standing(result, leader, race)
    small = f"<small>{standing}</small>" if standing else ""
    cells = {
        "Best learning rate": _best_lr(result),
        "Safe range": _safe_range(result.safe_range),
        "Validation loss": _loss(result),
        "Accuracy": _with_interval(result.accuracy, percent=True),
        "Best epoch’s loss": _with_interval(result.best_loss),
        "Test loss": _with_interval(result.test_loss, finished=_finished(result.verdict)),
        "Test accuracy": _with_interval(result.test_accuracy, percent=True),
        "Steps to target": _steps(result.steps_to_target, race.target_loss),
        "Seconds of training": number(result.seconds),
        "Failures": _failures(result.tuning, "tuning") + _failures(result.verdict, "reporting"),
    }
    shown = "".join(f'<td class="number" data-label="{column}">{cells[column]}</td>' for column in columns[1:])
    kind = ' class="best"' if result.rule == leader else ""
    return f'<tr{kind}><th scope="row">{rule_name(result.rule, look[result.rule])}{small}</th>{shown}</tr>\n'


def _baseline_row(race: Race, columns: list[str]) -> str:
    if race.baseline is None:
        return ""
    cells = {"Validation loss": _with_interval(race.baseline.loss)}
    if race.baseline.accuracy is not None:
        cells["Accuracy"] = _with_interval(race.baseline.accuracy, percent=True)
    shown = "".join(
        f'<td class="number" data-label="{column}">{cells[column]}</td>' if column in cells else "<td></td>"
        for column in columns[1:]
    )
    return f'<tr class="baseline"><th scope="row">baseline<small>the same for every row</small></th>{shown}</tr>\n'


def _standing(result: RuleResult, leader: str | None, race: Race) -> str:
    words = []
    if result.rule == leader:
        words.append("lowest")
    outcomes = {one.outcome for one in race.comparisons if {result.rule, leader} == {one.first, one.second}}
    words += [{"undecided": "too close to call", "alike": "practically as low"}[o] for o in outcomes & _OPEN]
    if result.against_baseline is not None and result.against_baseline.outcome != "first":
        words.append("not shown to beat the baseline")
    return ", ".join(words)


_OPEN = {"undecided", "alike"}


def _decision(comparison: Comparison) -> str:
    lower = {"first": comparison.first, "second": comparison.second}.get(comparison.outcome)
    return f"{lower} is lower" if lower else comparison.outcome


def _loss(result: RuleResult) -> str:
    return _with_interval(result.loss, finished=_finished(result.verdict, result.finished_loss))


def _finished(runs: tuple[Run, ...], loss: float | None = None) -> str:
    """What to say of runs of which some diverged, whose mean is infinite."""
    lost = sum(run.diverged_at is not None for run in runs)
    if not 0 < lost < len(runs):
        return ""
    if loss is None:
        loss = geometric_mean([run.test_loss for run in runs if run.test_loss is not None])
    return f"<strong>{number(loss)}</strong><small>in {len(runs) - lost} of {len(runs)} runs, {lost} diverged</small>"


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


def _level(interval: Interval) -> str:
    return "–" if math.isnan(interval.level) else f"{100 * interval.level:.3g} %"


def _interval_level(interval: Interval) -> str:
    return "" if math.isnan(interval.level) else f"{_level(interval)} interval; "


def _with_interval(interval: Interval | None, *, percent: bool = False, finished: str = "") -> str:
    if interval is None:
        return "–"
    if finished:
        return finished
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


def _matrix_cell(comparison: Comparison | None) -> str:
    if comparison is None:
        return "<td></td>"
    kind = {"first": "win", "second": "loss"}.get(comparison.outcome, "even")
    alike = "<small>alike</small>" if comparison.outcome == "alike" else ""
    hint = html.escape(
        f"{comparison.first} against {comparison.second}: {_decision(comparison)}; {difference(comparison)}, "
        f"{_interval_level(comparison.ratio)}adjusted p = {number(comparison.p_adjusted)}"
    )
    return f'<td class="{kind}" title="{hint}">{_percent(comparison.win_probability)}{alike}</td>'

"""The tables of the report: what every rule reached, and how every two of them compare."""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Iterable

from downslope.lab.engines.protocol import how_lost, said
from downslope.lab.races.comparison import Comparison, Interval
from downslope.lab.races.look import Look
from downslope.lab.races.plane import Walks
from downslope.lab.races.results import Race, RuleResult
from downslope.lab.races.settings import by_setting
from downslope.lab.races.statistics import geometric_mean
from downslope.lab.races.summary import Row, Runs, rows_of, shown
from downslope.lab.races.tries import best_after, few_tries
from downslope.lab.races.verdict import difference, percent
from downslope.lab.report.drawing import number


def rule_name(rule: str, look: Look) -> str:
    """A rule's name beside its line and marker, as in the pictures."""
    return f'<span class="rule">{look.key()}{html.escape(rule)}</span>'


HEADS: dict[str, str] = {
    "best_lr": "Best learning rate",
    "safe_range": "Safe range",
    "loss": "Validation loss",
    "default_loss": "At its default",
    "accuracy": "Accuracy",
    "best_loss": "Best epoch’s loss",
    "test_loss": "Test loss",
    "test_accuracy": "Test accuracy",
    "steps": "Steps to target",
    "seconds": "Seconds of training",
    "failures": "Failures",
}
"""The columns of the summary, beside the rule."""


def summary(race: Race, look: dict[str, Look]) -> str:
    """The table of all rules, best first, and what a constant prediction reaches."""
    heads = _heads_of(race)
    order = race.ranked
    leader = order[0].rule if len(order) > 1 and order[0].finished_loss not in (None, math.inf) else None
    standing = {result.rule: _standing(result, leader, race) for result in order}
    body = "".join(_summary_row(row, heads, look, standing, leader) for row in rows_of(race))
    return _table("summary", _heads(["Rule", *heads.values()]), body)


def _heads_of(race: Race) -> dict[str, str]:
    """The columns that there is something to say in."""
    known = shown(race)
    occasional = {"default_loss", "accuracy", "test_loss", "test_accuracy"}
    heads = {key: head for key, head in HEADS.items() if key not in occasional or key in known}
    plain = {} if race.sizes else {"loss": "Loss"}
    return heads | plain | ({} if race.unit == "epoch" else {"best_loss": "Lowest loss"})


def matrix(race: Race, look: dict[str, Look]) -> str:
    """Win probabilities of every rule over every other, best rule first."""
    both_ways = {(one.first, one.second): one for pair in race.comparisons for one in (pair, pair.turned())}
    rules = [result.rule for result in race.ranked if any(result.rule in pair for pair in both_ways)]
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
    rates = sorted({run.lr for result in race.rules for run in result.across})
    rows = "".join(
        f'<tr><th scope="row">{number(lr)}</th>'
        + "".join(f'<td class="number">{_valley_cell(result, lr, race)}</td>' for result in race.rules)
        + "</tr>\n"
        for lr in rates
    )
    return _table("valleys", _heads(["Learning rate", *(html.escape(result.rule) for result in race.rules)]), rows)


def _valley_cell(result: RuleResult, lr: float, race: Race) -> str:
    runs = [run for run in result.across if run.lr == lr and run.seed in race.tuning_seeds]
    if not runs:
        return "–"
    losses = [run.final_loss for run in runs]
    spread = "" if len(losses) == 1 else f"<small>{number(min(losses))} – {number(max(losses))}</small>"
    lost = sum(run.diverged_at is not None for run in runs)
    failures = f"<small>{lost} of {len(runs)} {how_lost(runs)}</small>" if lost else ""
    return f"{number(statistics.median(losses))}{spread}{failures}"


def settings(race: Race) -> str:
    """What a grid found in numbers: for every setting of a rule its best learning rate, and the loss there.

    Empty without a grid.
    """
    if not race.grid:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(result.rule)}</th><td>{html.escape(said(at.setting)) or "–"}</td>'
        f'<td class="number">{"–" if math.isinf(loss) else number(at.lr)}</td>'
        f'<td class="number">{number(loss)}</td></tr>\n'
        for result in race.rules
        if result.tuned
        for at, loss in by_setting(race, result)
    )
    table = _table("settings", _heads(["Rule", "Setting", "Best learning rate", f"Mean {race.loss_name}"]), rows)
    return (
        f"<details><summary>The grid in numbers</summary>{table}\n"
        '<p class="small">Means over the tuning seeds. The canyon has every rule in the setting that was chosen.</p>'
        "</details>"
    )


def tries(race: Race) -> str:
    """What each rule reaches with a few tries, in numbers: the median, and below it the quartiles."""
    shown, values = few_tries(race)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(rule)}</th>'
        + "".join(f'<td class="number">{_after(losses, k)}</td>' for k in shown)
        + "</tr>\n"
        for rule, losses in values.items()
    )
    return _table("tries", _heads(["Rule", *("1 try" if k == 1 else f"{k} tries" for k in shown)]), rows)


def _after(losses: list[float], k: int) -> str:
    if k > len(losses):
        return "–"
    low, middle, high = (number(best_after(losses, k, share)) for share in (0.25, 0.5, 0.75))
    return f"{middle}<small>{low} – {high}</small>"


def failed_runs(race: Race) -> str:
    """The runs that failed otherwise than by diverging, and why; empty if there are none."""
    failed = [run for result in race.rules for run in (*result.tuning, *result.verdict) if run.cause]
    if not failed:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(run.rule)}</th><td class="number">{number(run.lr)}</td>'
        f'<td class="number">{run.seed}</td><td class="number">{run.diverged_at}</td>'
        f"<td>{html.escape(run.cause)}</td></tr>\n"
        for run in failed
    )
    table = _table("failed", _heads(["Rule", "Learning rate", "Seed", race.unit.capitalize(), "Why"]), rows)
    count = "One run" if len(failed) == 1 else f"{len(failed)} runs"
    return f"<details><summary>{count} failed otherwise than by diverging</summary>{table}</details>"


def walk_numbers(race: Race, walks: Walks) -> str:
    """What the plane shows in numbers: per rule, the means over the runs that finished of its walks."""
    finished = {(result.rule, r.seed): r for result in race.rules for r in result.verdict if r.diverged_at is None}
    rows = ""
    for result in race.rules:
        seeds = {plane.seed: walk for plane in walks.planes for walk in plane.walks if walk.rule == result.rule}
        found = [walk for seed, walk in seeds.items() if (result.rule, seed) in finished]
        cells = ["–"] * 4
        if found:
            seen = [walk.shown for walk in found if walk.shown is not None]
            losses = [finished[result.rule, seed].final_loss for seed in seeds if (result.rule, seed) in finished]
            cells = [
                number(statistics.fmean(walk.distance for walk in found)),
                number(statistics.fmean(walk.length for walk in found)),
                _percent(statistics.fmean(seen)) if seen else "–",
                number(geometric_mean(losses)),
            ]
        shown = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        rows += f'<tr><th scope="row">{html.escape(result.rule)}</th>{shown}</tr>\n'
    return _table("walks", _heads(["Rule", "Distance", "Way", "Seen", race.loss_name.capitalize()]), rows)


def _table(kind: str, head: str, rows: str) -> str:
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>'
    )


def _heads(columns: Iterable[str]) -> str:
    return "".join(f'<th scope="col">{column}</th>' for column in columns)


def _summary_row(
    row: Row, heads: dict[str, str], look: dict[str, Look], standing: dict[str, str], leader: str | None
) -> str:
    cells = _cells(row)
    columns = "".join(
        f'<td class="number" data-label="{head}">{cells[key]}</td>' if key in cells else "<td></td>"
        for key, head in heads.items()
    )
    if row.name is None:
        return (
            f'<tr class="baseline"><th scope="row">baseline<small>the same for every row</small></th>{columns}</tr>\n'
        )
    small = f"<small>{standing[row.name]}</small>" if standing[row.name] else ""
    kind = ' class="best"' if row.name == leader else ""
    return f'<tr{kind}><th scope="row">{rule_name(row.name, look[row.name])}{small}</th>{columns}</tr>\n'


def _cells(row: Row) -> dict[str, str]:
    """What stands in the columns of a row; of the baseline's, in those that are about it."""
    loss = _mean(row.loss, row.finished_loss, row.verdict)
    accuracy = _with_interval(row.accuracy, percent=True)
    if row.name is None:
        return {"loss": loss, "accuracy": accuracy} if row.accuracy else {"loss": loss}
    return {
        "best_lr": _best_lr(row),
        "safe_range": _safe_range(row.safe_range),
        "loss": loss,
        "default_loss": _default(row),
        "accuracy": accuracy,
        "best_loss": _with_interval(row.best_loss),
        "test_loss": _mean(row.test_loss, row.finished_test_loss, row.verdict),
        "test_accuracy": _with_interval(row.test_accuracy, percent=True),
        "steps": _steps(row.steps),
        "seconds": number(row.seconds),
        "failures": _failures(row.tuning, "tuning") + _failures(row.verdict, "reporting"),
    }


def _standing(result: RuleResult, leader: str | None, race: Race) -> str:
    words = [html.escape(result.title)] if result.title else []
    if result.rule == leader:
        words.append("lowest")
    outcomes = {one.outcome for one in race.comparisons if {result.rule, leader} == {one.first, one.second}}
    words += [{"undecided": "too close to call", "alike": "practically as low"}[o] for o in outcomes & _OPEN]
    if result.against_now is not None and result.against_now.outcome == "first" and result.against_now.ratio.estimate:
        words.append(f"saves {percent(1 - result.against_now.ratio.estimate)} % of the steps")
    if result.against_baseline is not None and result.against_baseline.outcome != "first":
        words.append("not shown to beat the baseline")
    return ", ".join(words)


_OPEN = {"undecided", "alike"}


def _decision(comparison: Comparison) -> str:
    lower = {"first": comparison.first, "second": comparison.second}.get(comparison.outcome)
    return f"{lower} is lower" if lower else comparison.outcome


def _mean(interval: Interval | None, finished: float | None, runs: Runs) -> str:
    """A mean over runs; of those that finished, where others did not."""
    if interval is None or not runs.some_lost:
        return _with_interval(interval)
    kept = runs.count - runs.lost
    small = f"<small>in {kept} of {runs.count} runs, {runs.lost} {runs.how}</small>"
    return f"<strong>{number(finished)}</strong>{small}"


def _best_lr(row: Row) -> str:
    if row.best_lr is None:
        return f"–<small>{row.no_best_lr}</small>"
    edge = f"<small>at the {row.edge} edge</small>" if row.edge else "" if row.tuned else "<small>as it is</small>"
    setting = f"<small>{html.escape(row.setting)}</small>" if row.setting else ""
    return f"<strong>{number(row.best_lr)}</strong>{edge}{setting}"


def _default(row: Row) -> str:
    if row.default_loss is None:
        return "–"
    return f"<strong>{number(row.default_loss)}</strong><small>lr {number(row.default_lr)}</small>"


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


def _with_interval(interval: Interval | None, *, percent: bool = False) -> str:
    if interval is None:
        return "–"
    write = _tenths if percent else number
    if math.isnan(interval.low) or math.isnan(interval.high):
        return f"<strong>{write(interval.estimate)}</strong>"
    return f"<strong>{write(interval.estimate)}</strong><small>{write(interval.low)} – {write(interval.high)}</small>"


def _tenths(share: float) -> str:
    return f"{100 * share:.1f} %"  # as on the screen


def _percent(share: float | None) -> str:
    return "–" if share is None or math.isnan(share) else f"{100 * share:.3g} %"


def _steps(steps: float | None) -> str:
    return "–" if steps is None else "missed" if math.isinf(steps) else f"{steps:,.0f}"


def _failures(runs: Runs, phase: str) -> str:
    return f"<small>{phase} {runs.lost} of {runs.count}</small>" if runs.count else ""


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

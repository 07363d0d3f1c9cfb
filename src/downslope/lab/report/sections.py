"""The sections of the page: what is said before and below every picture, and the tables."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping

from downslope.lab.problems.baseline import NAMES
from downslope.lab.races.look import Look
from downslope.lab.races.results import Race, RuleResult
from downslope.lab.races.scope import earlier, holds_for
from downslope.lab.report.code import batched, scheduled, snippets
from downslope.lab.report.drawing import Picture, in_full, number
from downslope.lab.report.markup import plot, section, segments, slider
from downslope.lab.report.method import method
from downslope.lab.report.plane import limits
from downslope.lab.report.tables import (
    failed_runs,
    matrix,
    pairs,
    rule_name,
    settings,
    summary,
    tries,
    valleys,
    walk_numbers,
)
from downslope.lab.report.target import target_section
from downslope.lab.report.why import why_section
from downslope.pages.mathml import mathml

USUAL_LEARNING_RATE = 0.01  # the shared learning rate that is shown first


def sections(race: Race, look: dict[str, Look], pictures: Mapping[str, Picture], *, whole: bool) -> str:
    """All that the page says, in the order in which people look at it.

    Args:
        race: The race.
        look: How its rules are drawn.
        pictures: Its pictures by name.
        whole: Whether the page holds the whole race, so that it can be saved from there.
    """
    return "".join(
        (
            _header(race),
            _results(race, look),
            _rule_keys(race, look),
            _canyon(race),
            _tries(race, pictures["tries"]),
            _pair(race, pictures["pair"]),
            _curves(race, pictures["curves"]),
            target_section(race, pictures["target"]),
            _plane(race, pictures["plane"]),
            why_section(race, look, pictures),
            _who_beats_whom(race, look),
            _code(race),
            _formulas(race, look),
            _method(race, whole=whole),
        )
    )


def _header(race: Race) -> str:
    about = race.about
    if race.task is not None:
        rows = sum(race.sizes.values())
        about = f"{race.task.capitalize()} of {rows:,} rows with a {race.network}, {race.weights:,} weights"
    sentence = race.verdict or "The race was stopped before a verdict."
    stopped = f'<p class="stopped">{html.escape(race.stopped)}</p>\n'
    shows = f'<p class="about">A right implementation: {html.escape(race.shows)}</p>\n' if race.shows else ""
    cautions = "".join(f'<p class="caution">{html.escape(caution)}</p>\n' for caution in race.cautions)
    scope = "".join(f'<p class="scope">{html.escape(said)}</p>\n' for said in (holds_for(race), earlier(race)) if said)
    runs = [run for result in race.rules for run in (*result.tuning, *result.verdict)]
    facts = (
        (_plural("rule", len(race.rules)), len(race.rules)),
        (_plural("learning rate", len(race.learning_rates)), len(race.learning_rates)),
        (_plural("tuning seed", len(race.tuning_seeds)), len(race.tuning_seeds)),
        (_plural("reporting seed", len(race.verdict_seeds)), len(race.verdict_seeds)),
        (_plural("training run", len(runs)), f"{len(runs):,}"),
        ("in all", duration(race.seconds)),
    )
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f"""<header>
<p class="brand">downslope race</p>
<h1>{html.escape(race.title)}</h1>
<p class="about">{html.escape(about)}</p>
{shows}{stopped if race.interrupted else ""}<p class="verdict">{html.escape(sentence)}</p>
{cautions}{scope}<dl class="facts">{shown}</dl>
</header>
"""


def _results(race: Race, look: dict[str, Look]) -> str:
    target = (
        f" Steps to target: until the {race.loss_name} is at most {number(race.target_loss)}; "
        f"{html.escape(race.target_note.rstrip('.'))}."
        if race.target_loss is not None
        else ""
    )
    return section(
        "results",
        "The result",
        f"Each rule at the learning rate that suited it best, run again on {_seeds(len(race.verdict_seeds))} it was "
        f"not tuned on{_splits(race)}. Means over these seeds, geometric ones of the losses{_level(race)}.",
        f'{summary(race, look)}\n<p class="small">{_about_default(race)}'
        "Safe range: the learning rates around the best one that stay within "
        f"{race.safe_factor:g} times its loss. At the edge: the best value was the last one tried on that side."
        f"{target} Seconds of training: all runs of the rule, by the clock. "
        f"Failures: runs that diverged{'' if race.sizes and not race.about else ' or failed'}."
        + (f" Baseline: {NAMES[race.task]}.</p>" if race.baseline is not None and race.task is not None else "</p>")
        + failed_runs(race),
    )


def _about_default(race: Race) -> str:
    if all(result.default_lr is None for result in race.rules):
        return ""
    return "At its default: the mean loss at the learning rate that the rule has by default, on the tuning seeds. "


def _rule_keys(race: Race, look: dict[str, Look]) -> str:
    first = in_full(race)
    buttons = "".join(
        f'<button type="button" aria-pressed="{str(rule in first).lower()}" data-rule="{html.escape(rule)}" title="In '
        f'full or faint in all pictures; point at it to see it alone">{rule_name(rule, one)}</button>'
        for rule, one in look.items()
    )
    few = f"Lowest {len(first)}" if any(result.verdict for result in race.rules) else f"First {len(first)}"
    sets = (("few", few), ("all", "All"), ("none", "None"))
    choices = "".join(f'<button type="button" data-set="{key}">{label}</button>' for key, label in sets)
    more = f'<span class="sets">{choices}</span>' if len(first) < len(look) else ""
    kind = "rules many" if more else "rules"
    return f'<nav class="{kind}" aria-label="Rules shown in full in the pictures">{more}{buttons}</nav>\n'


def _canyon(race: Race) -> str:
    return section(
        "canyon",
        "The learning-rate canyon",
        f"What every learning rate led to, over {_seeds(len(race.tuning_seeds))}: the line is the median, the ribbon "
        "reaches from the best to the worst. A wide valley forgives a wrong guess. A thick cross means that every "
        "run diverged there, a thin one that some did. The best learning rate is the one with the lowest mean, over "
        f"these seeds and those it was confirmed on.{_about_expected(race)}{_about_faint(race)}",
        plot("canyon", f"Final {race.loss_name} against learning rate, for every rule")
        + f"<details><summary>The canyon in numbers</summary>{valleys(race)}\n"
        f'<p class="small">Final {race.loss_name}: the median over the tuning seeds, and below it from the lowest to '
        "the highest. A run that diverged counts as infinite.</p></details>" + settings(race),
    )


def _tries(race: Race, picture: Picture) -> str:
    if not picture.views:
        return ""
    what = "setting" if race.grid else "learning rate"
    return section(
        "tries",
        "If you can try a few",
        f"How low the loss is of somebody who tries some {what}s of this grid, drawn at random, and keeps the "
        "best. The line is the median over all ways to draw them, the band holds the middle half. A rule whose line is "
        f"high at the left needs a search; where a line is flat, one try does.{_about_faint(race)}",
        plot("tries", f"Lowest {race.loss_name} over the number of {what}s tried, for every rule")
        + f"<details><summary>The tries in numbers</summary>{tries(race)}\n"
        '<p class="small">The median, and below it the quartiles, of losses that are means over the tuning seeds. ∞: '
        f"every {what} drawn has diverged on some seed.</p></details>",
    )


def _about_expected(race: Race) -> str:
    if race.why is None or not race.why.rules:
        return ""
    return " A triangle at the top edge is the learning rate from which on a rule was expected to fail; see below why."


def _about_faint(race: Race) -> str:
    if len(in_full(race)) == len(race.rules):
        return ""
    return " Point at a rule to see it alone; those chosen above are in full, the others faint."


def _pair(race: Race, picture: Picture) -> str:
    shared = [view for view in picture.views if view.key != "own"]
    start = shared.index(next(view for view in shared if view.key == first_view(race, picture))) if shared else 0
    buttons = segments("pair", (("shared", "Same learning rate"), ("own", "Each rule’s own")), bool(shared))
    slider = (
        f'<label class="slide" data-picture="pair">learning rate <input type="range" min="0" max="{len(shared) - 1}" '
        f'value="{start}" step="1" '
        f'aria-valuetext="{html.escape(shared[start].label)}"><output>{html.escape(shared[start].label)}</output></label>'
        if shared
        else ""
    )
    return section(
        "pair",
        "Same learning rate, or each rule’s own",
        "At one learning rate for all, rules look far apart, and which one looks best depends on the number chosen. "
        "Tuned, each at its own, most of the gap goes. Same seeds and same axes in both; lines are medians, bands "
        "reach from the lowest to the highest seed.",
        f'<div class="controls">{buttons}{slider}</div>\n'
        + plot(
            "pair", f"{race.loss_name.capitalize()} over {race.unit}s, at a shared learning rate or at each rule's own"
        )
        + '<p class="printed small" id="printed-pair"></p><p class="small note" id="note-pair"></p>',
    )


SECONDS = (
    " Seconds are those of this machine: a step takes what it took in the mean over all runs of the rule; where runs "
    "are trained side by side, each has its share of the time."
)


def _curves(race: Race, picture: Picture) -> str:
    if not picture.views:
        content = '<p class="lead">No rule has been run on the reporting seeds yet.</p>'
    else:
        choices = tuple((view.key, view.label.capitalize()) for view in picture.views)
        several = len(choices) > 1
        content = f'<div class="controls">{segments("curves", choices, True)}</div>\n' if several else ""
        content += plot("curves", "Training curves of every rule over steps")
        content += '<p class="printed small" id="printed-curves"></p>'
    return section(
        "curves",
        "The runs of the verdict",
        f"Each rule at its best learning rate on {_seeds(len(race.verdict_seeds))} it was not tuned on. The line is "
        "the mean over the runs that finished, of losses the geometric one as in the table; the band holds the middle "
        "half of the seeds. A cross marks where the last run of a rule diverged."
        + (SECONDS if any(view.key == "seconds" for view in picture.views) else ""),
        content,
    )


def _plane(race: Race, picture: Picture) -> str:
    walks = race.walks
    if race.weights is None or race.epochs is None:
        return ""
    own = "Every seed has its own plane: walks on different seeds have hardly a direction in common."
    if walks is None:
        older = any(run.diverged_at is None for result in race.rules for run in result.verdict)
        why = ", or the race was saved before walks were" if older else ""
        content = f'<p class="lead">There is no walk to show: no run of the verdict ended and had moved{why}.</p>'
    else:
        last = len(walks.epochs) - 1
        sliders = slider("plane-epoch", "after epoch", last, last, str(race.epochs))
        if len(picture.views) > 1:
            sliders += slider("plane-seed", "seed", len(picture.views) - 1, 0, picture.views[0].key)
        content = (
            f'<div class="controls">{sliders}</div>\n'
            + plot("plane", "The walks of all rules through the space of the weights, on a plane; numbers are below")
            + '<p class="printed small" id="printed-plane"></p><p class="small note" id="note-plane"></p>\n'
            + (f'<p class="small">{left_out}</p>\n' if (left_out := limits(race, walks)) else "")
            + f"<details><summary>The walks in numbers</summary>{walk_numbers(race, walks)}\n"
            '<p class="small">Means over the runs that finished. Distance: from start to end, in the space of all '
            "weights. Way: straight from each point to the next, in that space. Seen: what the plane shows of the "
            "distances from the start; shares are of their squares.</p></details>"
        )
    return section(
        "plane",
        "The walks of the network" if race.sizes else "The walks of the weights",
        f"A run moves {race.weights:,} weights at once. Here the runs of the verdict are walks, on the plane through "
        "their start that shows most of where they went; on each seed all rules start from the same weights. A point’s "
        f"colour is the true loss there{', of the network on its validation rows' if race.sizes else ''}."
        + (f" {own}" if race.weights > 2 else "")
        + _about_faint(race),
        content,
    )


def _who_beats_whom(race: Race, look: dict[str, Look]) -> str:
    if not race.comparisons:
        content = '<p class="lead">There is nothing to compare: fewer than two rules have been run to the end.</p>'
    else:
        content = (
            f'{matrix(race, look)}\n<p class="swatches small">'
            '<span><i style="background:var(--win)"></i>row wins</span>'
            '<span><i style="background:var(--loss)"></i>column wins</span>'
            '<span><i style="background:var(--even)"></i>undecided</span></p>\n'
            f"<details><summary>All pairs in numbers</summary>{pairs(race)}\n"
            '<p class="small">In brackets the interval of the difference, at the level beside it. That is the level at '
            "which its pair was tested, so that it leaves out the margin exactly where the pair is decided.</p>"
            "</details>"
        )
    return section(
        "pairs",
        "Who beats whom",
        "How often the rule of the row ends below the rule of the column on the same seed. A colour means that the "
        f"mean loss is shown to be lower by more than {100 * race.margin:g} %. Grey: the seeds cannot tell the two "
        "apart, or show that they are practically alike.",
        content,
    )


def _code(race: Race) -> str:
    result = race.advised
    if result is not None and (advice := result.kept):
        why = "No rule is shown to save steps against it."
        return section("code", "To use", f"{html.escape(advice)} {why}", "")
    codes = {} if result is None else snippets(result)
    if result is None or not codes:
        return ""
    cards = "".join(
        f'<article><h3>{name}</h3><button type="button" class="copy" aria-label="Copy the code for {name}">Copy'
        f"</button><pre><code>{html.escape(code)}</code></pre></article>\n"
        for name, code in codes.items()
    )
    what = "won" if race.winner == result.rule else "had the lowest loss"
    if race.now is not None:
        what = "saves steps against what you have"
    at = f"Here it is at its learning rate, {number(result.best_lr)}."
    lead = html.escape(" ".join(filter(None, (f"{result.rule} {what}.", at, batched(result), scheduled(race)))))
    return section("code", "To copy", lead, f'<div class="formulas">{cards}</div>')


def _formulas(race: Race, look: dict[str, Look]) -> str:
    cards = "".join(
        f'<article><h3>{rule_name(result.rule, look[result.rule])}</h3><div class="formula">{mathml(result.formula)}'
        f'</div><p class="small">{_settings(result)}</p></article>\n'
        for result in race.rules
    )
    lead = "One step of every rule: weights <i>x</i>, gradient <i>dx</i>."
    return section("formulas", "The rules", lead, f'<div class="formulas">{cards}</div>')


def _settings(result: RuleResult) -> str:
    how = "tuned" if result.tuned else "as it is"
    lr = "lr not found" if result.best_lr is None else f"lr = {number(result.best_lr)} ({how})"
    others = (
        f"{name} = {str(value).lower() if isinstance(value, bool) else number(value)}"
        for name, value in result.hyperparameters.items()
    )
    return html.escape(", ".join((lr, *others)))


def _method(race: Race, *, whole: bool) -> str:
    facts = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>\n" for name, text in method(race))
    return section(
        "method",
        "How this race was run",
        "Everything that decides the result.",
        f'<dl class="method">{facts}</dl>\n'
        + (
            '<button type="button" class="save" id="save">Save all numbers as JSON</button>'
            if whole
            else '<p class="small">The numbers of all runs are more than a page should hold; they are in the folder of '
            "the race, and --json or Race.to_json writes them.</p>"
        ),
    )


def duration(seconds: float) -> str:
    """Write a time for people.

    Example:
        >>> duration(0.4321), duration(41.8), duration(3725.0)
        ('0.43 s', '42 s', '1 h 2 min')
    """
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def first_view(race: Race, picture: Picture) -> str:
    """The view of a picture that is shown first."""
    shared = [(lr, view.key) for lr, view in zip(race.learning_rates, picture.views[1:], strict=False)]
    if picture.name != "pair" or not shared:
        return picture.views[0].key
    return min(shared, key=lambda one: abs(math.log(one[0] / USUAL_LEARNING_RATE)))[1]


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def _splits(race: Race) -> str:
    return {0: "", 1: ", all on one split of the data"}.get(race.splits, ", each with its own split of the data")


def _level(race: Race) -> str:
    return "" if race.level is None else f", with their {100 * race.level:.3g} % intervals"

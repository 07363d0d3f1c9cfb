"""How a race was run, in sentences: everything that decides its result."""

from __future__ import annotations

from typing import Any

from downslope.lab.races.budget import duration
from downslope.lab.races.results import Race, RuleResult
from downslope.lab.races.settings import found, listed
from downslope.lab.races.tries import tried
from downslope.lab.report.drawing import number


def method(race: Race) -> list[tuple[str, str]]:
    """What was done, each with its heading, in the order in which it is read."""
    tuned = [result for result in race.rules if result.best_lr is not None]
    widened = [f"{result.rule} ({result.edge})" for result in tuned if result.edge is not None]
    grid = ", ".join(number(lr) for lr in race.learning_rates)
    return [
        *_what(race),
        ("Schedule", _schedule(race)),
        *_time(race),
        ("Tuning", f"Every rule tried the same {len(race.learning_rates)} learning rates: {grid}"),
        *([("Grid", f"{listed(race)}: at each learning rate. {found(race)}".strip())] if race.grid else []),
        (
            "Widening",
            "Where the best value of a rule lay on an edge of the grid, the grid was widened there for all"
            + _in_time(race)
            + _edges(widened),
        ),
        ("Runs", _runs(race)),
        ("Tuning seeds", _listed(race.tuning_seeds)),
        ("Confirming", _confirming(race)),
        ("Confirming seeds", _listed(race.confirming_seeds)),
        ("Reporting seeds", f"{_listed(race.verdict_seeds)}; no rule was tuned on them"),
        (
            "Shared luck",
            "For each seed, every rule got the same initial weights, the same split and the same order of batches"
            if race.splits
            else "For each seed, every rule got the same initial weights and the same order of batches"
            if race.unit == "epoch"
            else "For each seed, every rule was given that seed, and the generators of Python and the frameworks were "
            "set by it: initial weights and batches are the same as far as the training takes them from there",
        ),
        ("Seeds", f"{_seeds(race)}: the same numbers give the same race again"),
        (
            f"Best {race.unit}",
            f"A run’s lowest {race.loss_name} of any {race.unit} is shown beside its last; nothing goes by it",
        ),
        ("Divergence", "Counts as an infinite loss: never left out, never clipped"),
        (
            "Statistic",
            f"Mean logarithm of the final {race.loss_name} over the reporting seeds; a loss below 1e-12 counts as it",
        ),
        ("Margin", f"Losses that differ by less than {100 * race.margin:g} % are practically alike"),
        (
            "Tests",
            "Paired sign-flip test of each pair against the margin, level 0.05: that the lowest is lower than all "
            "others as one claim, all other pairs with Holm’s correction",
        ),
        (
            "Intervals",
            "The same test inverted: exact if the logarithms, of a difference or of one rule’s runs, are symmetric "
            "about their centre",
        ),
        *([("Splits", _about_splits(race))] if race.splits else []),
        *([("Test data", "Seen once, by the runs of the verdict, after every choice was made")] if race.sizes else []),
        *_flat(race.environment),
    ]


def _what(race: Race) -> list[tuple[str, str]]:
    """What was raced on, as far as it is known."""
    if race.unit == "step":
        steps = sorted({run.times[-1] for result in race.rules for run in result.verdict if run.diverged_at is None})
        ends = f"{steps[0]:,} to {steps[-1]:,}" if len(steps) > 1 else f"{steps[0]:,}" if steps else "no"
        return [("Training", race.about), ("Budget", f"{ends} steps, as the training reported")]
    if not race.sizes:
        budget = f"{race.epochs} times {race.steps_per_epoch} steps, after each of which the loss is looked at"
        about = f"{race.about}; {race.weights:,} weights"
        return [("Function", about), ("Hash of its noise", race.data_hash), ("Budget", budget)]
    sizes = ", ".join(f"{count:,} {name}" for name, count in race.sizes.items())
    return [
        ("Data", f"{race.problem}: {sizes} rows"),
        *([("Model", race.about)] if race.about else []),
        *([(f"Reading the {'data' if race.about else 'table'}", " ".join(race.remarks))] if race.remarks else []),
        ("Data hash", race.data_hash),
        ("Network", f"{race.network}, {race.weights:,} weights"),
        ("Budget", f"{race.epochs} epochs of {race.steps_per_epoch} steps, batches of {race.batch_size}"),
    ]


def _confirming(race: Race) -> str:
    seeds = set(race.confirming_seeds)
    if not any(run.seed in seeds for result in race.rules for run in result.tuning):
        return "No learning rate was run on more tuning seeds"
    best = "The learning rates of each rule that looked best were run on more tuning seeds, as many for every rule"
    return best + _in_time(race)


def _in_time(race: Race) -> str:
    return "" if race.budget is None else ", as far as there was time"


def _schedule(race: Race) -> str:
    if race.schedule == "constant" and race.unit == "step":
        return "That of the training: downslope gives a run one learning rate, and no schedule"
    if race.schedule == "constant":
        return "The learning rate of a run stays as it is"
    return f"{race.schedule}: it multiplies the learning rate of every run; no run is ranked before its end"


def _time(race: Race) -> list[tuple[str, str]]:
    """What was made of the time that the race had, if it was given any."""
    if race.budget is None:
        return []
    spent = race.budget
    chosen = f"{duration(spent.seconds)}, for which was chosen: {spent.chosen}"
    return [("Time", " ".join([f"{chosen}.", spent.proves, *spent.dropped]))]


def _seeds(race: Race) -> str:
    return f"seed {race.seed}" + (f", split seed {race.split_seed}" if race.splits else "")


def _listed(seeds: tuple[int, ...]) -> str:
    run_on = len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]} to {seeds[-1]}" if run_on else ", ".join(map(str, seeds)) or "none"


def _runs(race: Race) -> str:
    counts = {result.rule: (_shared(race, result), len(result.verdict)) for result in race.rules if result.tuned}
    kept = [result.rule for result in race.rules if not result.tuned]
    beside = f"; {', '.join(kept)} at the learning rate it came with, which was not tuned" if kept else ""
    if any(result.default_lr is not None for result in race.rules):
        beside += "; and each at its default learning rate, on the tuning seeds, if that was not on the grid"
    if len(set(counts.values())) == 1:
        tuning, verdict = next(iter(counts.values()))
        return f"{tuning} in tuning and {verdict} for the verdict, the same for every rule{beside}"
    listed = ", ".join(f"{rule} {tuning} + {verdict}" for rule, (tuning, verdict) in counts.items())
    return f"Tuning and verdict, not the same for every rule: {listed}{beside}"


def _shared(race: Race, result: RuleResult) -> int:
    """How many runs a rule had in tuning, without those at a default that only it has."""
    return len(tried(race, result))


def _about_splits(race: Race) -> str:
    if race.splits == 1:
        return "One for all seeds: what is significant here is so for this split of the data, not for others"
    return (
        f"{race.splits}, one for each reporting seed; intervals and tests allow for the rows that splits share (Nadeau "
        f"and Bengio, {race.overlap:.3g} validation rows per training row)"
    )


def _edges(widened: list[str]) -> str:
    return f"; the limit was reached with the best value still on the edge for {', '.join(widened)}" if widened else ""


def _flat(environment: dict[str, Any], above: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in environment.items():
        label = f"{above} {name}".strip()
        if isinstance(value, dict):
            rows += _flat(value, label)
        else:
            rows.append((label, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)))
    return rows

"""Races for claims: run by the lab, and read by its statistics."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import downslope.lab
from downslope.claims.claim import Quantity, number
from downslope.claims.experiments import Raced, rule_of
from downslope.lab.problems.problem import Problem
from downslope.lab.races.effects import first_at
from downslope.lab.races.results import Race, RuleResult
from downslope.lab.races.statistics import compare, geometric_mean, standing
from downslope.lab.report.curves import pace


@dataclass(frozen=True)
class Races:
    """What one race found, or several on the same seeds, by what each entrant is called."""

    results: Mapping[str, RuleResult]
    races: Mapping[str, Race]

    @property
    def ranked(self) -> list[str]:
        """The entrants from the lowest loss to the highest."""
        return sorted(self.results, key=lambda name: standing(self.final(name)))

    def final(self, name: str) -> list[float]:
        """The final validation losses of the reporting runs."""
        return [run.final_loss for run in self.results[name].verdict]

    def accuracies(self, name: str) -> list[float]:
        """The final validation accuracies of the reporting runs."""
        return [run.valid_accuracy[-1] for run in self.results[name].verdict if run.valid_accuracy]

    def tried(self, name: str, lr: float) -> list[float]:
        """The final losses at a learning rate of the grid, on all tuning seeds that every learning rate had."""
        seeds = self.races[name].tuning_seeds
        runs = {run.seed: run.final_loss for run in self.results[name].tuning if math.isclose(run.lr, lr)}
        return [runs[seed] for seed in seeds]

    def epochs_to(self, name: str, target: float) -> list[float]:
        """The epochs of each reporting run until its validation loss is first at the target; infinite if never."""
        return [first_at(run, target) for run in self.results[name].verdict]

    def seconds_an_epoch(self, name: str) -> float:
        """What an epoch of a run took, with all the runs of the race beside it."""
        race = self.races[name]
        return pace(race, self.results[name]) * race.steps_of(())

    def safe_end(self, name: str) -> tuple[float, float]:
        """The highest learning rate of the safe range, and the next one of the grid, infinite if there is none.

        Both are nan if there is no safe range.
        """
        safe = self.results[name].safe_range
        if safe is None:
            return math.nan, math.nan
        higher = (run.lr for run in self.results[name].tuning if run.lr > safe[1] * (1 + 1e-9))
        return safe[1], min(higher, default=math.inf)

    def compared(self, rule: str, over: str, values: Mapping[str, Sequence[float]]) -> Quantity:
        """The ratio of two entrants, seed by seed, as the lab compares rules; level and margin are its own."""
        race = self.races[rule]
        found = compare(values, overlap=race.overlap, margin=race.margin)
        one = next(each for each in found if {each.first, each.second} == {rule, over})
        ratio = (one if one.first == rule else one.turned()).ratio
        said = ", ".join(f"{name} {_mean(values[name])}" for name in (rule, over))
        return Quantity(ratio.estimate, ratio.low, ratio.high, said)


def run(experiment: Raced, folder: Path | None) -> Races:
    """Run the races of an experiment.

    Raises:
        KeyboardInterrupt: One was stopped.
    """
    problem = _problem(experiment)
    if not experiment.batches:
        race = _race(experiment, problem, folder)
        return Races({each.rule: each for each in race.rules}, {each.rule: race for each in race.rules})
    races = {
        name: _race(experiment, dataclasses.replace(problem, batch_size=size, epochs=epochs), folder and folder / name)
        for name, (size, epochs) in experiment.batches.items()
    }
    return Races({name: race.rules[0] for name, race in races.items()}, races)


def _race(experiment: Raced, problem: Problem, folder: Path | None) -> Race:
    settings = {name: dict(given) for name, given in experiment.entrants.items() if given}
    found = downslope.lab.race(
        problem,
        rules={name: rule_of(name) for name in experiment.entrants},
        hyperparameters=settings,
        folder=folder,
        **experiment.given,
    )
    if found.interrupted:
        raise KeyboardInterrupt
    return found


def _problem(experiment: Raced) -> Problem:
    if experiment.power is None:
        return downslope.lab.load_problem(experiment.problem)
    from downslope.lab.problems.linear import heavy_tail

    return heavy_tail(experiment.power)


def _mean(values: Sequence[float]) -> str:
    lost = sum(map(math.isinf, values))
    mean = number(geometric_mean(values))
    return f"{mean} ({lost} of {len(values)} never)" if lost else mean

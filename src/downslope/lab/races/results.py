"""What a race found: plain data for the table, the verdict and the report."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from downslope.dialects import DIALECTS, full_name
from downslope.lab.engines.entrant import REST_RATIO
from downslope.lab.engines.protocol import LATER, Run, Setting, batch_size_of
from downslope.lab.races import comparison, store
from downslope.lab.races.budget import Spent
from downslope.lab.races.comparison import Comparison, Interval
from downslope.lab.races.entrants import BESIDE
from downslope.lab.races.notebook import medians, shown
from downslope.lab.races.plane import Walks
from downslope.lab.races.statistics import standing
from downslope.lab.races.why import Why
from downslope.recipes.recipe import Recipe
from downslope.rules import adamw

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Baseline:
    """What predicting the same for every row gives, on the validation rows of the reporting seeds.

    For a regression that is the mean of the training targets, for a classification the frequencies of the classes among
    the training rows and, for the accuracy, the most frequent one.
    """

    losses: tuple[float, ...]  # one per reporting seed
    loss: Interval  # their geometric mean
    accuracy: Interval | None


@dataclass(frozen=True)
class RuleResult:
    """All that a race found out about one rule."""

    rule: str
    formula: str  # LaTeX
    hyperparameters: dict[str, float | bool]  # those other than the learning rate, as used
    tuning: tuple[Run, ...]
    verdict: tuple[Run, ...]
    best_lr: float | None  # None: every learning rate diverged, or the race stopped before tuning was done
    safe_range: tuple[float, float] | None  # learning rates that stay within `safe_factor` of the best
    edge: Literal["low", "high"] | None  # the side on which the best value still lay on the edge when widening stopped
    loss: Interval | None  # final validation loss: geometric mean over the reporting seeds, infinite if one diverged
    finished_loss: float | None  # the same over those runs that finished
    best_loss: Interval | None  # each run's lowest validation loss of any epoch: for information, nothing goes by it
    accuracy: Interval | None  # arithmetic mean over the reporting seeds; a run that diverged has accuracy 0
    test_loss: Interval | None  # geometric mean
    test_accuracy: Interval | None
    against_baseline: Comparison | None
    steps_to_target: float | None  # median over the reporting seeds, infinite where the median run misses it
    seconds: float  # wall-clock seconds spent on training all runs of this rule
    title: str = field(default="", metadata=LATER)  # what people call it, where that is more than its name
    against_now: Comparison | None = field(default=None, metadata=LATER)  # of the steps that are needed; see `effects`
    tuned: bool = field(default=True, metadata=LATER)  # False: it was raced at the learning rate it came with
    default_lr: float | None = field(default=None, metadata=LATER)  # None: it has none, or was not run at it
    default_loss: float | None = field(default=None, metadata=LATER)  # geometric mean over the tuning seeds
    setting: Setting = field(default=(), metadata=LATER)  # what a grid was found to give it besides the learning rate

    @property
    def across(self) -> tuple[Run, ...]:
        """The tuning runs at every learning rate in the setting with which the best is the best; all if none is."""
        return tuple(run for run in self.tuning if run.setting == self.setting) if self.setting else self.tuning

    @property
    def kept(self) -> str:
        """The advice to keep it, of what people have now; empty of any other rule."""
        return "" if self.tuned else f"Keep what you have: {self.title or self.rule}, lr {self.best_lr:g}."

    @property
    def batch_size(self) -> int | None:
        """The size of batches that was chosen from a grid; None: that of the race."""
        return batch_size_of(self.setting)

    @property
    def recipe(self) -> Recipe | None:
        """The rule at its best learning rate, as a recipe; None of a rule that is not downslope's, or without one.

        None too of a rule for matrices with another one beside it: these are two, `parts`.
        """
        return None if REST_RATIO in self.hyperparameters else self._recipe(self.rule, self.hyperparameters)

    @property
    def parts(self) -> tuple[Recipe, Recipe] | None:
        """Of a rule for matrices that is downslope's: its recipe, and that of what trains the rest beside it."""
        settings = dict(self.hyperparameters)
        ratio = settings.pop(REST_RATIO, None)
        recipe = None if ratio is None else self._recipe(self.rule.removesuffix(BESIDE), settings)
        if recipe is None or ratio is None or self.best_lr is None:
            return None
        both = {name: value for name, value in self.setting if name == "weight_decay"}  # is meant for both
        return recipe, Recipe(adamw, lr=self.best_lr * ratio, **both)

    def _recipe(self, name: str, hyperparameters: Mapping[str, float | bool]) -> Recipe | None:
        """A form of downslope's with these settings, if its formula is that of this rule."""
        forms = (rule for dialect in DIALECTS.values() for rule in dialect.rules.values())
        rule = next((form for form in forms if full_name(form) == name), None)
        if rule is None or self.best_lr is None:
            return None
        flags = {name: value for name, value in hyperparameters.items() if isinstance(value, bool)}
        around = {name: True for name in hyperparameters if name not in {*rule.hyperparameters, *rule.flags}}
        if rule.latex(**flags, **around) != self.formula:
            return None
        none = {name for name in around if not hyperparameters[name]}  # a decay of 0 is none, however applied
        none |= {"decoupled"} & around.keys() if "weight_decay" in none else set()
        settings: dict[str, Any] = {name: one for name, one in hyperparameters.items() if name not in none}
        return Recipe(rule, lr=self.best_lr, **settings)


@dataclass(frozen=True)
class Race:
    """A whole race, with everything that decides its outcome."""

    problem: str
    title: str
    task: Literal["classification", "regression"] | None  # None: nothing is predicted, or it is not known what
    data_hash: str  # empty if not known
    sizes: dict[str, int]  # rows of the train, valid and test splits; empty if there are none, or it is not known
    network: str  # for people: "64-64-10 MLP, ReLU"; empty if not known
    weights: int | None
    batch_size: int | None
    epochs: int | None
    steps_per_epoch: int | None
    learning_rates: tuple[float, ...]  # the grid every rule starts from
    seed: int  # which family of initial weights and orders of batches
    split_seed: int  # which family of splits
    tuning_seeds: tuple[int, ...]
    confirming_seeds: tuple[int, ...]  # more tuning seeds, for the learning rates that looked best
    verdict_seeds: tuple[int, ...]
    splits: int  # different splits of the data among the reporting seeds; 1: all have the same; 0: none, or not known
    overlap: float  # validation rows per training row if every reporting seed has its own split, otherwise 0
    margin: float  # the smallest difference in loss that matters, as a share
    target_loss: float | None
    target_note: str  # where the target comes from, in one sentence
    safe_factor: float
    rules: tuple[RuleResult, ...]
    baseline: Baseline | None
    comparisons: tuple[Comparison, ...]
    verdict: str  # one sentence
    cautions: tuple[str, ...]  # what to bear in mind with it, in sentences
    remarks: tuple[str, ...]  # how the table was read, where that was not the plain way, in sentences
    interrupted: bool
    seconds: float
    environment: dict[str, Any]  # versions, machine, date
    walks: Walks | None = field(default=None, metadata=LATER)  # None: no run of the verdict moved, or was recorded
    why: Why | None = field(default=None, metadata=LATER)  # None: nobody asked
    schedule: str = field(default="constant", metadata=LATER)  # how the learning rate changes in a run
    budget: Spent | None = field(default=None, metadata=LATER)  # None: it took as long as it did
    about: str = field(default="", metadata=LATER)  # what was raced on, where the fields above do not say it
    grid: dict[str, tuple[float | bool, ...]] = field(default_factory=dict, metadata=LATER)  # tuned besides lr
    shows: str = field(default="", metadata=LATER)  # what a right implementation shows on it, with its source

    @property
    def winner(self) -> str | None:
        """The rule that is decided to be lower than every other one and than the baseline; None if there is none."""
        baseline = {result.rule: result.against_baseline for result in self.rules if result.against_baseline}
        return comparison.winner(self.comparisons, len(self.rules), baseline if self.baseline else None)

    @property
    def now(self) -> RuleResult | None:
        """What people have now, if it was raced."""
        return next((result for result in self.rules if not result.tuned), None)

    @property
    def loss_name(self) -> str:
        """What the loss is that rules are judged by: a function has no rows, a training of one's own unknown ones."""
        return "validation loss" if self.sizes else "loss"

    @property
    def unit(self) -> Literal["epoch", "step"]:
        """What the times of its runs are counted in."""
        return "step" if self.steps_per_epoch is None else "epoch"

    def steps_of(self, setting: Setting) -> int:
        """The steps of a run in a setting for each time that it counts, which is an epoch or a step."""
        size, rows = batch_size_of(setting), self.sizes.get("train")
        if self.steps_per_epoch is None or size is None or rows is None:
            return self.steps_per_epoch or 1
        return rows // min(size, rows)

    @property
    def last(self) -> int:
        """The last epoch of a run, or the last step that any has reported."""
        ends = (run.times[-1] for result in self.rules for run in (*result.tuning, *result.verdict))
        return self.epochs or max(ends, default=1)

    @property
    def ranked(self) -> list[RuleResult]:
        """The rules from the lowest loss to the highest; last those that were not run on all reporting seeds."""

        def place(result: RuleResult) -> tuple[bool, tuple[int, float]]:
            losses = [run.final_loss for run in result.verdict] or [math.inf]
            return len(losses) < len(self.verdict_seeds), standing(losses)

        return sorted(self.rules, key=place)

    @property
    def level(self) -> float | None:
        """The level of the rules' intervals; None where the runs are too few for any."""
        levels = (one.loss.level for one in self.rules if one.loss is not None)
        return next((level for level in levels if not math.isnan(level)), None)

    @property
    def lowest(self) -> RuleResult | None:
        """The rule that ended lowest in a race run to its end; None where it was stopped or every run diverged."""
        first = None if self.interrupted else next(iter(self.ranked), None)
        done = first is not None and first.best_lr is not None and first.finished_loss is not None
        return first if first is not None and done and math.isfinite(first.finished_loss or 0.0) else None

    @property
    def advised(self) -> RuleResult | None:
        """The rule to use, which ended lowest; or what people have now, unless a rule is shown to save steps.

        None as for `lowest`.
        """
        best, now = self.lowest, self.now
        if best is None or now is None:
            return best
        others = [result for result in self.ranked if result.tuned and result.against_now is not None]
        saves = others and others[0].against_now is not None and others[0].against_now.outcome == "first"
        return others[0] if saves else now

    @property
    def stopped(self) -> str:
        """Of a race that was stopped before its end: by what, and what is shown of it. Of any other: nothing."""
        if not self.interrupted:
            return ""
        if self.budget is None or not self.budget.over:
            return "Interrupted: only what had finished is shown."
        if any(one.tuning for one in self.rules):
            return "Time was over before a verdict: only what had finished is shown."
        return "Time was over before there was anything to show."

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, what is to be borne in mind, the canyon, and the rules."""
        rows = []
        for one in self.ranked:
            lr = "none" if one.best_lr is None else f"{one.best_lr:.3g}"
            loss = "" if one.loss is None else f"{one.loss.estimate:.3g}"
            if one.loss is not None and not math.isnan(one.loss.low):
                loss += f" [{one.loss.low:.3g}, {one.loss.high:.3g}]"
            rows.append((one.rule, lr, loss))
        finals = {
            one.rule: medians((run.lr, run.final_loss) for run in one.across if run.seed in self.tuning_seeds)
            for one in self.rules
        }
        firsts = [run.valid_loss[0] for one in self.rules for run in one.tuning if math.isfinite(run.valid_loss[0])]
        said = (self.verdict or "The race was stopped before a verdict.", *self.cautions)
        return shown(said, self.loss_name, rows, finals, statistics.median(firsts) if firsts else math.inf)

    def recommend(self) -> Recipe:
        """The rule to use, with its best learning rate and all of its settings, as a recipe.

        The rule that ended lowest; but what you have now, if that was raced and no rule is shown to save steps.

        Returns:
            A recipe, of which `downslope.convert(result.recommend(), "torch").snippet()` is the code for PyTorch.

        Raises:
            ValueError: The race was stopped, every run was lost, or the rule is none of downslope's: what you have now
                is none either, and the message says to keep it.

        Example:
            >>> import downslope, downslope.lab
            >>> result = downslope.lab.race(
            ...     "parabola", [downslope.sgd], learning_rates=[0.1], tuning_seeds=1, verdict_seeds=1
            ... )
            >>> result.recommend().rule is downslope.sgd
            True
        """
        result = self.advised
        if result is None:
            why = "it was stopped before its end" if self.interrupted else "no rule got to the end of its runs"
            raise ValueError(f"The race recommends nothing: {why}.")
        recipe = result.recipe
        if recipe is None and not result.tuned:
            raise ValueError(f"{result.kept} No rule is shown to save steps against it.")
        if recipe is None and result.parts is not None:
            first, second = (one.rule.name for one in result.parts)
            raise ValueError(
                f"{result.rule} at lr {result.best_lr:g} is recommended, which is two recipes: {first} for the inner "
                f"matrices and {second} for the rest. The report has the code that runs both."
            )
        if recipe is None:
            raise ValueError(
                f"{result.rule} at lr {result.best_lr:g} is recommended, but that is no rule of downslope's."
            )
        return recipe

    def to_json(self) -> str:
        """The whole race as one JSON object, every run included; `Race.from_json` gives back an equal race.

        Raises:
            ValueError: `environment` holds what JSON cannot: anything but strings, numbers, booleans, None, lists and
                dicts; the message says where.
        """
        return store.to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Race:
        """The race that `to_json` wrote.

        Raises:
            ValueError: The text is no JSON or no race of this version; the message says what is wrong and where.
        """
        return store.from_json(text, cls)

    @property
    def runs(self) -> pl.DataFrame:
        """All runs as a table with one row each, as `downslope race --csv` writes it.

        Returns:
            A frame with the columns `rule`, `lr`, `setting` (what a grid gave the run besides, as in
            `"mu=0.9, batch_size=32"`; null if nothing), `seed`, `phase` (`"tuning"` or `"verdict"`), `diverged_at` (the
            epoch, from 1, or the step; null if the run finished), `cause` (why it failed; null if it did not, or
            diverged), `train_loss`, `valid_loss` and `valid_accuracy` at the end (the losses of a run that diverged or
            failed are infinite), `best_valid_loss` (the lowest after the start), `test_loss` and `test_accuracy` (null
            where a run has none).
        """
        return store.runs_table(run for result in self.rules for run in (*result.tuning, *result.verdict))

"""Explaining a race: what was to be expected of each rule, what was seen, and how both are said in a sentence."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

import numpy as np

from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.protocol import (
    DIVERGENCE_FACTOR,
    Entry,
    OpenEngine,
    Phase,
    Progress,
    Run,
    Snapshot,
    Surroundings,
    batch_size_of,
)
from downslope.lab.problems.baseline import baseline_on
from downslope.lab.problems.problem import Problem
from downslope.lab.races.plan import Plan
from downslope.lab.races.stage import Stage
from downslope.lab.races.tuning import Tuning
from downslope.lab.races.why import BEYOND, Cause, Cliff, RuleWhy, Why, Witness
from downslope.lab.races.words import on_limits, on_noise, on_updates, sentence
from downslope.targets.arrays import interpret
from downslope.targets.catapult import catapult
from downslope.targets.stability import limits

STOPPED = "The race was stopped before it could be explained."

COARSE = 2  # learning rates per decade among which a first step that goes too far is looked for first
FINE = 7  # and then between two of these
LATER_HIGHER = "its learning rate is at its highest only later, where nothing is known beforehand"

SETTLED = 1e-3  # of a learning rate that its own limit is to be found for, relative
ROUNDS = 30


class Explanation:
    """Explains a race: observes its runs while it is made, and says in the end why rules stop working where they do.

    Args:
        problem: What is raced on.
        engine: What trains the runs.
    """

    def __init__(self, problem: Problem, engine: OpenEngine):
        self.problem, self.engine = problem, engine
        self._found: Why | None = None

    def observe(self, tuning: Tuning) -> None:
        """See the runs that are observed from now on."""
        tuning.witness = Witness(tuning.plan, self.engine)

    def edges(self, tuning: Tuning) -> list[Entry]:
        """The runs to be trained again, since they are to be observed."""
        return edges(self.problem, tuning, self.engine)

    def conclude(self, tuning: Tuning) -> None:
        """Find out why, of a race that came to its end."""
        if tuning.witness is not None:
            self._found = explain(self.problem, tuning, tuning.witness)

    def why(self, plan: Plan) -> Why:
        """What was found out."""
        return self._found or unexplained(plan, self.engine)


def edges(problem: Problem, tuning: Tuning, engine: OpenEngine) -> list[Entry]:
    """A run for each rule, which has been trained, at the highest learning rate that the rule learns at."""
    constant = _constant_losses(problem, tuning, engine)
    found = []
    for name in tuning.plan.entrants:
        runs = _by_rate(tuning, name)
        learns_at, _ = _learns(runs, constant)
        if learns_at is not None:
            first = next(run for run in runs[learns_at] if _learned(run, constant))
            found.append(Entry(name, learns_at, first.seed, "tuning", observed=True, setting=first.setting))
    return found


def explain(problem: Problem, tuning: Tuning, witness: Witness) -> Why:
    """What is known of every rule of a race that came to its end."""
    constant, engine = _constant_losses(problem, tuning, witness.engine), witness.engine
    tuning.watch(Stage("explaining", dict.fromkeys(tuning.plan.entrants, 1)))

    def timed(name: str) -> tuple[RuleWhy, float]:
        begun = time.perf_counter()
        return _rule(tuning, name, witness, constant), time.perf_counter() - begun

    with ThreadPoolExecutor(engine.threads) as pool:
        asked = {pool.submit(timed, name): name for name in tuning.plan.entrants}
        try:
            for one in as_completed(asked):
                tuning.watch(Progress(asked[one], 1, 0, (), one.result()[1]))
            rules = tuple(one.result()[0] for one in asked)
        finally:  # after Ctrl-C nobody waits for more than is being worked on
            pool.shutdown(wait=False, cancel_futures=True)
    seen, rows = engine.seen_rows(tuning.plan.verdict_seeds[0])
    batch = engine.description.batch_size
    return Why(seen, rows, rules, on_limits(rules), on_noise(rules, batch), on_updates(rules))


def unexplained(plan: Plan, engine: OpenEngine) -> Why:
    """What is known of a race that was stopped: that it was."""
    seen, rows = engine.seen_rows(plan.verdict_seeds[0])
    return Why(seen, rows, (), STOPPED, "", "")


# What was seen


def _constant_losses(problem: Problem, tuning: Tuning, engine: OpenEngine) -> dict[int, float]:
    """The training loss of predicting the same for every row, for each tuning seed."""
    found = {}
    for seed in tuning.plan.tuning_seeds:
        train = problem.split(tuning.plan.split_seed, engine.split_number(seed)).train
        found[seed] = baseline_on(problem, train, train)[0]
    return found


def _by_rate(tuning: Tuning, name: str) -> dict[float, list[Run]]:
    """The runs of a rule that every learning rate had in its best setting, by learning rate, lowest first."""
    found: dict[float, list[Run]] = {}
    setting = tuning.setting(name)
    for run in tuning.of(name, "tuning"):
        if run.seed in tuning.plan.tuning_seeds and run.setting == setting:
            found.setdefault(run.lr, []).append(run)
    return found


def _learned(run: Run, constant: Mapping[int, float]) -> bool:
    return run.diverged_at is None and run.train_loss[-1] < constant[run.seed]


def _learns(runs: Mapping[float, Sequence[Run]], constant: Mapping[int, float]) -> tuple[float | None, float | None]:
    """The highest learning rate at which most runs learn, and the next one."""
    return _highest([lr for lr in runs if _most(_learned(run, constant) for run in runs[lr])], list(runs))


def _holds(runs: Mapping[float, Sequence[Run]]) -> tuple[float | None, float | None]:
    """The highest learning rate at which most runs do not diverge, and the next one."""
    return _highest([lr for lr in runs if not _most(run.diverged_at is not None for run in runs[lr])], list(runs))


def _highest(good: Sequence[float], rates: Sequence[float]) -> tuple[float | None, float | None]:
    """The last of the good learning rates, and the one after it; None where there is none."""
    beyond = rates[rates.index(good[-1]) + 1 :] if good else rates
    return good[-1] if good else None, beyond[0] if beyond else None


def _most(answers: Iterable[bool]) -> bool:
    given = list(answers)
    return 2 * sum(given) > len(given)


# What was to be expected


def _rule(tuning: Tuning, name: str, witness: Witness, constant: Mapping[int, float]) -> RuleWhy:
    """What is known of a rule; a formula of which nothing can be said must not cost anybody a race."""
    try:
        return _known(tuning, name, witness, constant)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        nothing = Cliff(None, None, None, None, None, None)
        said = f"{name} could not be explained ({type(error).__name__}: {error})."
        return RuleWhy(name, None, (), str(error), None, None, nothing, tuning.best_lr(name), (), (), said)


def _known(tuning: Tuning, name: str, witness: Witness, constant: Mapping[int, float]) -> RuleWhy:
    plan, engine, setting = tuning.plan, witness.engine, tuning.setting(name)
    entrant, runs = plan.entrants[name].at(setting), _by_rate(tuning, name)
    learns_at, fails_from = _learns(runs, constant)
    holds_at, diverges_from = _holds(runs)
    run = Entry(name, fails_from or max(runs), plan.tuning_seeds[0], setting=setting)
    rates = engine.rates(run)
    share, lr = rates[0] / run.lr, float(rates.max())  # for what is said of the cliff, where it depends on it
    (read,) = limits(entrant.settings.program, {**entrant.numbers, "lr": lr}, [lr])
    grows = growth(entrant, lr) if rates[0] == rates.max() else None
    curvatures: list[float] = []
    comes_back = expected = None
    if grows == 1 and read.limit:
        curvatures = _at_start(engine, plan, run, preconditioned=bool(read.held))
    if curvatures and read.limit:
        expected, comes_back = _beyond_its_own(entrant, statistics.median(curvatures), share * min(runs))
    elif grows == 0:
        expected = statistics.median(
            _too_long(engine, replace(run, seed=seed), len(rates), runs, share) for seed in plan.tuning_seeds
        )
    expected = None if expected is None else expected / share
    cause: Cause | None = None if expected is None else "curvature" if grows == 1 else "length"
    found = RuleWhy(
        rule=name,
        limit=read.limit,
        held=read.held,
        reason=read.reason if rates[0] == rates.max() else LATER_HIGHER,
        comes_back=comes_back,
        curvature=statistics.median(curvatures) if curvatures else None,
        cliff=Cliff(learns_at, fails_from, diverges_from, holds_at, cause, expected),
        best_lr=tuning.best_lr(name),
        best=_along(tuning, witness, name, "verdict"),
        edge=_along(tuning, witness, name, "tuning"),
        sentence="",
        batch_size=batch_size_of(setting),
    )
    return replace(found, sentence=sentence(found, list(runs)))


def _beyond_its_own(entrant: Entrant, curvature: float, lowest: float) -> tuple[float, float | None]:
    """The learning rate from which on a rule does not come back, and what its product with the curvature then is.

    Where that product depends on the learning rate itself, the one is found that fits, from below.
    """
    program, lr, product = entrant.settings.program, lowest, None
    for _ in range(ROUNDS):
        numbers = {**entrant.numbers, "lr": lr}
        product = catapult(program, numbers)
        bound = limits(program, numbers, [lr])[0].limit if product is None else product
        new = (bound or 0.0) / curvature if curvature > 0 else math.inf
        if not 0 < new < math.inf or math.isclose(new, lr, rel_tol=SETTLED):
            return new, product
        lr = new
    return lr, product


def growth(entrant: Entrant, lr: float) -> float | None:
    """The power of the gradient that the length of a rule's first step is in proportion to; None if of none.

    Example:
        >>> import downslope
        >>> [growth(Entrant.of(rule.name, rule, {}), 0.1) for rule in (downslope.momentum, downslope.lion)]
        [1, 0]
    """
    program = entrant.settings.program
    lengths = []
    for dx in (1.0, 2.0, 4.0):
        numbers = {**entrant.numbers, "lr": lr, "t": 1.0, **program.scalar_states}
        arrays = {"x": np.zeros(1), "dx": np.full(1, dx)}
        starts = {name: program.initial(name, {**entrant.numbers, "lr": lr}) for name in program.states}
        arrays |= {name: np.full(1, value or 0.0) for name, value in starts.items()}
        lengths.append(float(np.abs(interpret(program, arrays, numbers)["x"][0])))
    if not all(0 < length < math.inf for length in lengths):
        return None
    powers = np.diff(np.log2(lengths))
    return next((power for power in (0, 1) if np.allclose(powers, power, atol=1e-3)), None)


def _at_start(engine: OpenEngine, plan: Plan, run: Entry, *, preconditioned: bool) -> list[float]:
    """The curvatures at the start of such a run on the tuning seeds, as far as they are finite."""
    around = [engine.look_around(engine.begin(replace(run, seed=seed))) for seed in plan.tuning_seeds]
    found = [one.preconditioned if preconditioned else one.curvature for one in around if one is not None]
    return [one for one in found if one is not None and math.isfinite(one)]


def _too_long(engine: OpenEngine, entry: Entry, steps: int, runs: Mapping[float, Sequence[Run]], share: float) -> float:
    """From which learning rate of the first step on that alone makes a run of so many steps count as diverged."""
    begun = next(run.train_loss[0] for tried in runs.values() for run in tried if run.seed == entry.seed)
    level = DIVERGENCE_FACTOR * begun * (steps // engine.description.epochs)  # one loss of an epoch's mean
    low, high = share * min(runs), share * BEYOND * max(runs)
    rates = np.geomspace(low, high, 1 + math.ceil(COARSE * math.log10(high / low)))
    for _ in range(2):
        beyond = [not loss < level for loss in engine.after_first_step(entry, rates.tolist())]
        if not any(beyond):
            return math.inf
        place = beyond.index(True)
        if place == 0:
            return float(rates[0])
        low, high = rates[place - 1], rates[place]
        rates = np.geomspace(low, high, FINE + 2)
    return math.sqrt(low * high)


def _along(tuning: Tuning, witness: Witness, name: str, phase: Phase) -> tuple[Surroundings, ...]:
    """What there was around a run, until it diverged."""
    ends = {run.entry: run.diverged_at for run in tuning.of(name, phase)}
    seen = witness.of(name, phase)
    whole = [each for each in seen if not _is_lost(each, ends.get(replace(each.entry, observed=False)))]
    around = map(witness.engine.look_around, whole)
    return tuple(one for one in around if one is not None)


def _is_lost(snapshot: Snapshot, diverged_at: int | None) -> bool:
    return diverged_at is not None and snapshot.epoch >= diverged_at

"""A race from its beginning to its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from downslope.lab.engines.protocol import Progress
from downslope.lab.problems.builtin import load_problem
from downslope.lab.problems.columns import DataError
from downslope.lab.problems.problem import Problem
from downslope.lab.races.entrants import by_rule, named
from downslope.lab.races.outcome import outcome
from downslope.lab.races.plan import CONFIRMING_SEEDS, GRID, Plan, Splits
from downslope.lab.races.reasons import edges, explain, unexplained
from downslope.lab.races.results import Race
from downslope.lab.races.statistics import MARGIN
from downslope.lab.races.tuning import Stage, Tuning
from downslope.lab.races.why import Why, Witness
from downslope.rule import Rule
from downslope.rules import TEXTBOOK


def race(
    problem: str | Problem = "digits",
    rules: Sequence[Rule] | Mapping[str, Rule] | None = None,
    *,
    learning_rates: Sequence[float] = GRID,
    tuning_seeds: int = 3,
    confirming_seeds: int = CONFIRMING_SEEDS,
    verdict_seeds: int = 10,
    seed: int = 0,
    split_seed: int = 0,
    splits: Splits = "varied",
    hyperparameters: Mapping[str, Mapping[str, float | bool]] | None = None,
    margin: float = MARGIN,
    target_loss: float | None = None,
    threads: int | None = None,
    why: bool = False,
    watch: Callable[[Stage | Progress], None] | None = None,
) -> Race:
    """Race update rules on a network and data, each at its own best learning rate.

    Every rule is tuned over the same learning rates on the same tuning seeds; a best value of any rule on the edge of
    the grid widens the grid there by a decade for all, at most twice on each side. A few seeds may mislead, above all
    near the learning rates at which training diverges: so the four learning rates of each rule with the lowest mean
    final validation loss are run on more tuning seeds, and the lowest mean over all of these is the best (if none of
    the four holds for some rule, each rule gets four more). It is then run again on fresh reporting seeds, and only
    these runs decide.

    For each seed all rules start from the same weights, train and validate on the same rows, and see the same batches.
    Each seed, of tuning too, has a random split of its own, so that neither the learning rate nor the verdict depends
    on one split; how the rows are scaled is learned from the training rows of that split. The test rows are the same
    for all races, and looked at once, at the end. A run that diverges has an infinite loss.

    Args:
        problem: The name of a built-in problem, or one from `downslope.lab.load_table`.
        rules: The rules, each with a hyperparameter `lr`; by default downslope's six. In a dict, by what they are to be
            called; in a list, each is called by its name, a framework's form with its dialect before it, as in
            `keras.adam`.
        learning_rates: The grid to start from.
        tuning_seeds: Runs per learning rate.
        confirming_seeds: Further runs of the learning rates that look best.
        verdict_seeds: Runs of each rule's best learning rate. Proving a difference needs at least 6.
        seed: Which initial weights and orders of batches, in tuning and verdict; no two races with different ones have
            a run's in common. The same numbers give the same race, bit for bit.
        split_seed: Which random splits.
        splits: `"varied"`: each seed has its own split; `"fixed"`: all have one, and the verdict is about that one.
        hyperparameters: By what a rule is called, values other than its defaults.
        margin: The smallest difference in loss that matters, as a share: 0.01 is 1 %. Rules that differ by less are
            practically alike.
        target_loss: A validation loss to time the rules by; by default where the first rule ends.
        threads: Trainings at a time; by default one per processor.
        why: Whether to look around in one run of each rule at its best learning rate and in one at the highest that it
            learns at: curvature, gradient noise, updates; and to say where each rule's learning rates were expected to
            stop working, in `Race.why`. It takes 10 to 20 % longer; the runs are the same.
        watch: Called with a `Stage` when a part of the race begins, and with the engine's progress after every epoch.

    Returns:
        All that was found. After Ctrl-C, what was found until then, marked as interrupted.

    Raises:
        ValueError: An argument does not allow a race; the message names it.

    Example:
        >>> import downslope, downslope.lab
        >>> result = downslope.lab.race(
        ...     "parabola", [downslope.sgd, downslope.adam], learning_rates=[0.01, 0.1], tuning_seeds=1, verdict_seeds=2
        ... )
        >>> [rule.rule for rule in result.rules]
        ['sgd', 'adam']
    """
    from downslope.lab.engines.jax_engine import JaxEngine  # JAX takes a second to import

    start = time.perf_counter()
    chosen = load_problem(problem) if isinstance(problem, str) else problem
    if not isinstance(chosen, Problem):
        kind = type(chosen).__name__
        raise DataError(f"problem: a {kind} is no problem; make one with load_table(..., target=COLUMN)")
    entrants = named(TEXTBOOK if rules is None else rules)
    plan = Plan.of(
        entrants,
        hyperparameters=by_rule(hyperparameters or {}, entrants),
        learning_rates=learning_rates,
        tuning_seeds=tuning_seeds,
        confirming_seeds=confirming_seeds,
        verdict_seeds=verdict_seeds,
        seed=seed,
        split_seed=split_seed,
        splits=splits,
        margin=margin,
        target_loss=target_loss,
    )
    varied = splits == "varied"
    engine = JaxEngine(chosen, plan.entrants, threads=threads, split_seed=plan.split_seed, varied=varied)
    for one in plan.seeds if chosen.task == "regression" else ():
        chosen.split(plan.split_seed, engine.split_number(one))  # refuses a constant target, before training
    tuning = Tuning(engine, plan, watch or (lambda _: None))
    explained: Why | None = None
    try:
        if why:
            tuning.witness = Witness(plan, engine)
        tuning.tune()
        tuning.judge(edges(chosen, tuning) if why else ())
        if tuning.witness is not None:
            explained = explain(chosen, tuning, tuning.witness)
        interrupted = False
    except KeyboardInterrupt:
        interrupted = True
    while True:
        try:
            if why and explained is None:
                explained = unexplained(tuning)
            seconds = time.perf_counter() - start
            return outcome(chosen, tuning, interrupted=interrupted, seconds=seconds, why=explained)
        except KeyboardInterrupt:  # all that is left takes a second, and nobody wants to lose a race to it
            interrupted = True

"""A race from its beginning to its end."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from downslope.lab.engines.factory import Make
from downslope.lab.engines.learner import Loss
from downslope.lab.engines.own_engine import Train
from downslope.lab.engines.protocol import Engine, Progress
from downslope.lab.engines.schedule import Factor, Schedule
from downslope.lab.keeping.folder import Folder
from downslope.lab.keeping.kept import KeptEngine
from downslope.lab.keeping.spending import decisions_kept, spent_by_others
from downslope.lab.now import entrant_now
from downslope.lab.problems.problem import Problem
from downslope.lab.races.allowance import Allowance
from downslope.lab.races.budget import MOST_SEEDS, Budget
from downslope.lab.races.entrants import by_rule, named
from downslope.lab.races.outcome import outcome
from downslope.lab.races.plan import Plan, Splits
from downslope.lab.races.results import Race
from downslope.lab.races.stage import Stage
from downslope.lab.races.statistics import MARGIN
from downslope.lab.races.tuning import Tuning
from downslope.lab.subjects.arguments import subject_of
from downslope.lab.subjects.course import Course
from downslope.lab.watching import Watch, watched
from downslope.lab.workers.order import Order, machine
from downslope.lab.workers.spread import SpreadEngine
from downslope.lab.workers.threads import Threads
from downslope.rule import Rule
from downslope.rules import TEXTBOOK


def race(
    problem: str | Problem | Train = "digits",
    rules: Sequence[Rule] | Mapping[str, Rule] | None = None,
    *,
    model: Make | None = None,
    data: Any = None,
    loss: Loss | None = None,
    target: str | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    learning_rates: Sequence[float] | None = None,
    tuning_seeds: int | None = None,
    confirming_seeds: int | None = None,
    verdict_seeds: int | None = None,
    seed: int = 0,
    split_seed: int = 0,
    splits: Splits = "varied",
    hyperparameters: Mapping[str, Mapping[str, float | bool]] | None = None,
    grid: Mapping[str, Sequence[float | bool]] | None = None,
    margin: float = MARGIN,
    target_loss: float | None = None,
    threads: int | None = None,
    why: bool = False,
    now: Any = None,
    schedule: str | Factor = "constant",
    budget: float | str | Budget | None = None,
    steps: int | None = None,
    limit: float | None = None,
    quiet: bool = True,
    progress: bool | None = None,
    watch: Callable[[Stage | Progress], None] | None = None,
    folder: str | Path | Folder | None = None,
    mix: bool = False,
    version: str = "",
    workers: int | Executor | None = None,
) -> Race:
    """Race update rules on a network and data, a model or a training of your own, each at its own best learning rate.

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

    A model of your own is given as a factory with its data: `race(model=make_net, data=(inputs, targets))`, where
    `make_net(seed)` makes a new `torch.nn.Module` or `keras.Model`, or a pair of JAX: `(init, apply)`. A module stays
    on the device where the factory puts it. All of the above holds for models, and each rule is first run once at its
    default learning rate.

    A training of your own, in any framework, is a function that is handed a run (`downslope.lab.OwnRun`): it asks
    `run.optimizer(params)` for its optimizer, or reads `run.rule` and `run.lr`; takes its weights and batches from
    `run.seed`; and goes on while `run.report(step, loss)` says so. Every rule is first run once at its default learning
    rate. The first of these runs is repeated: what is no function of the seed is told. A run that fails, because the
    function raises something or reports nothing, counts as one that diverged, and its cause is told; the others go on.

    Args:
        problem: The name of a built-in problem, one from `downslope.lab.load_table`, or a training of your own.
        model: A function of a seed that makes a new model, in place of a problem. Before it is called the generators of
            Python, NumPy and PyTorch have been set by the seed.
        data: What the model learns from: a pair of arrays `(inputs, targets)` with a row for each example; a `Dataset`,
            a `DataLoader` or a `tf.data.Dataset` of such pairs, which is read once; a path of an `.npz` file with `x`
            and `y`, of a CSV or Parquet file, or a data frame, with its `target`; a problem, or the name of a built-in
            one. Arrays are not scaled; the columns of a table are, by the training rows of each split.
        loss: What the model minimises and is judged by: `"mse"`, `"cross-entropy"` (of logits), or a function
            `loss(outputs, targets)` that gives the mean over the rows; by default cross-entropy where the targets are
            whole numbers or text, else the mean squared error.
        target: The column of a table to predict.
        batch_size: Rows per step of the model; by default those of the loader, or a power of two between 4 and 128.
        epochs: Passes over the training rows in one run; by default the problem's, of a model 30.
        rules: The rules, each with a hyperparameter `lr`; by default downslope's six. In a dict, by what they are to be
            called; in a list, each is called by its name, a framework's form with its dialect before it, as in
            `keras.adam`.
        learning_rates: The grid to start from; by default 19, three per decade from 1e-5 to 10.
        tuning_seeds: Runs per learning rate; by default 3.
        confirming_seeds: Further runs of the learning rates that look best; by default 7.
        verdict_seeds: Runs of each rule's best learning rate; by default 10. Proving a difference needs at least 6.
        seed: Which initial weights and orders of batches, in tuning and verdict; no two races with different ones have
            a run's in common. The same numbers give the same race, bit for bit; but for models of PyTorch whose runs
            may be stacked, where it depends on the machine which way is faster, and the last digits with it.
        split_seed: Which random splits.
        splits: `"varied"`: each seed has its own split; `"fixed"`: all have one, and the verdict is about that one.
        hyperparameters: By what a rule is called, values other than its defaults.
        grid: Values of other hyperparameters to tune beside the learning rate, by their names in downslope's formulas:
            `{"mu": [0.5, 0.9], "batch_size": [32, 128]}`. Every combination is a setting of each rule that has what is
            varied, tried at all learning rates; a rule that lacks some of it has more learning rates between those of
            all instead, so that every rule has the same budget of tries. Besides the hyperparameters and choices of the
            rules it takes `weight_decay`, `decoupled` and `cautious`, which are options around any rule, and
            `batch_size`: with batches of any size a run is as many epochs, or of a training of your own as many
            `steps`. Nothing is widened but the learning rates; what lies at the end of three or more values is told.
        margin: The smallest difference in loss that matters, as a share: 0.01 is 1 %. Rules that differ by less are
            practically alike.
        target_loss: A validation loss to time the rules by; by default where the first rule ends.
        threads: Trainings at a time; by default one per processor.
        why: Whether to look around in one run of each rule at its best learning rate and in one at the highest that it
            learns at: curvature, gradient noise, updates; and to say where each rule's learning rates were expected to
            stop working, in `Race.why`; with a grid, in the setting that was chosen. It takes 10 to 20 % longer; the
            runs are the same.
        now: What you use now, at its own learning rate: an optimizer of PyTorch or Keras, whose settings are read and
            whose weights are left alone; a class of theirs or a function of Optax, with its settings as in
            `functools.partial(optax.adam, learning_rate=1e-3)`; or a `downslope.Recipe`, of a rule of your own too: an
            optimizer that downslope has no rule for is raced by its formula. It is raced untuned under the name `now`,
            and the verdict begins with what the best rule saves against it.
        schedule: How the learning rate changes in a run, in which those of the grid are factors: `"constant"`,
            `"linear"` or `"cosine"` down to 0, `"one-cycle"` with the shape of PyTorch's `OneCycleLR` (its phases are
            shares of the steps, and momentum stays as it is), or a function that gives the factor for the share of the
            training that is done. The optimizer of a training of your own follows it, or
            ask `run.lr_at(step)`; it needs `steps`. No run counts that ends before its schedule does.
        budget: How long the race may take, in seconds or as in `"5min"`. Its rules are measured, and what you do not
            give yourself (rules, learning rates, seeds, epochs) is chosen so that it fits: what, and what that can
            prove, stands in `Race.budget`. What is not reached in time is dropped, and never ranked. In a folder the
            race goes on with the time that was left, by what it decided before.
        steps: The steps of a run of your own training, after which it is told not to go on; by default it ends when
            its function returns.
        limit: The most seconds that a run of your own training may take. It is stopped at its next report, and in the
            main thread (but for Windows) also between two reports; code that is compiled is not interrupted.
        quiet: Whether to hold back what your own training prints.
        progress: Whether to show on standard error, or in a notebook, how far the race is and how long it still takes;
            and of a model or training of your own, what every rule reaches in a first run at its default learning rate.
            By default in a terminal and in a notebook, unless `watch` is given.
        watch: Called with a `Stage` when a part of the race begins, and with the engine's progress after every epoch;
            while a training of your own runs also with losses that it reports, a few times per second.
        folder: Where every run is kept within two seconds of its end, whatever happens then; a new one is made. What is
            there already is not trained again: so the same call goes on after any interruption, and ends bit for bit
            where it would have ended, and one with more rules, seeds or learning rates trains only what is lacking. A
            folder of another race is refused.
        mix: Whether to count runs of that folder too that have been trained on another processor or by other versions
            of libraries, so that their last digits may be others.
        workers: How many processes of this machine train runs, or an executor of `concurrent.futures` that has them
            trained, as `distributed.Client(...).get_executor()` does on other machines; by default this process does.
            The runs are the same. A process that dies is replaced, and its runs are sent again; a run of which three
            die counts as failed. An executor has to begin processes anew and must not fork.
        version: What tells your model or training from an earlier one, in a folder; by default the text of the file
            that it is in.

    Returns:
        All that was found. After Ctrl-C, what was found until then, marked as interrupted.

    Raises:
        ValueError: An argument does not allow a race; the message names it. Or a training of your own fails in its
            first run of every rule, uses nothing that it was handed, or is the same for every seed.

    Example:
        >>> import downslope, downslope.lab
        >>> result = downslope.lab.race(
        ...     "parabola", [downslope.sgd, downslope.adam], learning_rates=[0.01, 0.1], tuning_seeds=1, verdict_seeds=2
        ... )
        >>> [rule.rule for rule in result.rules]
        ['sgd', 'adam']
    """
    begun = (budget.clock if isinstance(budget, Budget) else time.perf_counter)()
    planned = Schedule.of(schedule)
    about = {
        "problem": problem,
        "model": model,
        "data": data,
        "loss": loss,
        "target": target,
        "batch_size": batch_size,
        "epochs": epochs,
        "split_seed": split_seed,
        "splits": splits,
        "threads": threads,
        "why": why,
        "steps": steps,
        "limit": limit,
        "quiet": quiet,
        "version": version,
    }
    usual = {name: argument.default for name, argument in inspect.signature(race).parameters.items()}
    subject = subject_of(about, usual, planned)
    sizes: dict[str, Any] = {
        "learning_rates": learning_rates,
        "tuning_seeds": tuning_seeds,
        "confirming_seeds": confirming_seeds,
        "verdict_seeds": verdict_seeds,
    }
    settled = [name for name, value in {**sizes, "rules": rules, "epochs": epochs}.items() if value is not None]
    allowed = None if budget is None else Budget.of(budget, settled, begun)
    entrants = named(TEXTBOOK if rules is None else rules)
    plan = Plan.of(
        entrants,
        hyperparameters=by_rule(hyperparameters or {}, entrants),
        **{name: value for name, value in sizes.items() if value is not None},
        seed=seed,
        split_seed=split_seed,
        splits=splits,
        margin=margin,
        target_loss=target_loss,
        now=entrant_now(now),
        schedule=planned.name,
        defaults=subject.defaults,
        grid=grid,
    )
    seeds = plan.seeds
    if allowed is not None and verdict_seeds is None:  # those that are there already, and as many as there may be
        seeds = plan.with_seeds(len(plan.tuning_seeds), len(plan.confirming_seeds), MOST_SEEDS).seeds
    course = subject.course(plan, time.perf_counter if allowed is None else allowed.clock, seeds)
    engine: Engine = course.engine
    kept: KeptEngine | None = None
    if workers is not None and allowed is not None and course.measured:
        raise ValueError(
            f"workers={workers!r} does not go with a budget here: a few epochs of runs that are trained side by side "
            "are measured, and those of other processes are seen when they end; leave one of them out"
        )
    if mix and folder is None:
        raise ValueError("mix=True is for the runs in a folder; give folder too")
    decided = course.decided
    if folder is not None:
        place, identity = Folder.of(folder, mix=mix), course.identity()
        if allowed is not None and place.join:
            raise ValueError(
                f"folder={place.path} is shared by several processes, each of which would decide by its own clock "
                "what a budget leaves out; leave one of them out"
            )
        decided = place.open(identity, decided).decided
        course.decide(decided)
    with contextlib.ExitStack() as around:
        spread: SpreadEngine | None = None
        if workers is not None:
            order = Order(subject, plan, decided, machine(), Threads.here(), tuple(sys.path))
            engine = spread = around.enter_context(contextlib.closing(SpreadEngine(engine, order, workers)))
        trains = engine
        if folder is not None:
            engine = kept = KeptEngine(engine, plan.entrants, place, identity)
            if allowed is None:
                spent_by_others(place)
        allowance = None
        if allowed is not None:
            before = None if kept is None else decisions_kept(kept, allowed, plan, why=why)
            measured = trains if trains.description is not None else engine  # whole runs are kept: they are not lost
            allowance = Allowance(allowed, measured, plan, shorten=course.shorten, why=why, decisions=before)
        tuning = Tuning(engine, plan, allowance=allowance)  # an engine is handed to a race here and nowhere else
        if spread is not None:
            spread.here = tuning.looks_around
        show = functools.partial(watched, watch, progress, list(plan.entrants))
        if kept is None:
            return _raced(course, tuning, show)
        kept.observe(tuning)
        found = _raced(replace(course, check=kept.checked(course.check)), tuning, show, kept)
        kept.conclude(found)
        return found


def _raced(
    course: Course,
    tuning: Tuning,
    show: Callable[[Engine], AbstractContextManager[Watch]],
    kept: KeptEngine | None = None,
) -> Race:
    """The race itself, from the first run to all that is told of it.

    Args:
        course: What is raced on.
        tuning: The race, of which no run has been trained.
        show: Around the runs of an engine: what is called with the events.
        kept: The engine of the race, if it keeps runs.
    """
    start = time.perf_counter()
    explanation, interrupted = course.explanation, False
    tuning.cautions += course.cautions
    try:
        with show(tuning.engine) as tuning.watch:
            course.listen(tuning.watch)
            if course.measured or any(len(tuning.plan.kinds(name)) > 1 for name in tuning.plan.tuned):
                tuning.measure()
            if tuning.plan.defaults:
                tuning.begin_with_defaults()
            if course.check is not None:
                tuning.check(course.check)
            if tuning.choose():
                if explanation is not None:
                    explanation.observe(tuning)
                tuning.tune()
                tuning.judge(() if explanation is None else explanation.edges(tuning))
                if explanation is not None:
                    explanation.conclude(tuning)
            if tuning.allowance is not None:
                tuning.allowance.end(raced=kept is None or kept.folder.trained + kept.folder.answered > 0)
    except KeyboardInterrupt:
        interrupted = True
    tuning.cautions += [] if kept is None else kept.cautions
    while True:  # whatever is pressed: what is left takes a second, and nobody wants to lose a race
        try:
            why = None if explanation is None else explanation.why(tuning.plan)
            raced, seconds = course.raced(tuning.plan), time.perf_counter() - start
            return outcome(raced, tuning, interrupted=interrupted, seconds=seconds, why=why)
        except KeyboardInterrupt:
            interrupted = True

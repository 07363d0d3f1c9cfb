"""A race from its beginning to its end."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from downslope.lab.engines.factory import Make
from downslope.lab.engines.learner import Loss, described
from downslope.lab.engines.model_engine import ModelEngine, examples_for
from downslope.lab.engines.own_check import check_training
from downslope.lab.engines.own_engine import OwnEngine, Train
from downslope.lab.engines.protocol import Engine, Entrant, Progress
from downslope.lab.engines.schedule import Factor, Schedule
from downslope.lab.problems.builtin import load_problem
from downslope.lab.problems.columns import DataError
from downslope.lab.problems.examples import Examples
from downslope.lab.problems.problem import Problem, check_sizes
from downslope.lab.races.allowance import Allowance
from downslope.lab.races.budget import Budget
from downslope.lab.races.entrants import by_rule, named
from downslope.lab.races.outcome import outcome
from downslope.lab.races.plan import Plan, Splits
from downslope.lab.races.raced import Raced
from downslope.lab.races.reasons import edges, explain, unexplained
from downslope.lab.races.results import Race
from downslope.lab.races.stage import Stage
from downslope.lab.races.statistics import MARGIN
from downslope.lab.races.tuning import Tuning
from downslope.lab.races.why import Why, Witness
from downslope.recipes.present import recipe_of
from downslope.recipes.spelled import title
from downslope.rule import Rule
from downslope.rules import TEXTBOOK

if TYPE_CHECKING:
    from downslope.lab.engines.jax_engine import JaxEngine


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
        margin: The smallest difference in loss that matters, as a share: 0.01 is 1 %. Rules that differ by less are
            practically alike.
        target_loss: A validation loss to time the rules by; by default where the first rule ends.
        threads: Trainings at a time; by default one per processor.
        why: Whether to look around in one run of each rule at its best learning rate and in one at the highest that it
            learns at: curvature, gradient noise, updates; and to say where each rule's learning rates were expected to
            stop working, in `Race.why`. It takes 10 to 20 % longer; the runs are the same.
        now: What you use now, at its own learning rate: an optimizer of PyTorch or Keras, whose settings are read and
            whose weights are left alone; a class of theirs or a function of Optax, with its settings as in
            `functools.partial(optax.adam, learning_rate=1e-3)`; or a `downslope.Recipe`. It is raced untuned under
            the name `now`, and the verdict begins with what the best rule saves against it.
        schedule: How the learning rate changes in a run, in which those of the grid are factors: `"constant"`,
            `"linear"` or `"cosine"` down to 0, `"one-cycle"` with the shape of PyTorch's `OneCycleLR` (its phases are
            shares of the steps, and momentum stays as it is), or a function that gives the factor for the share of the
            training that is done. The optimizer of a training of your own follows it, or
            ask `run.lr_at(step)`; it needs `steps`. No run counts that ends before its schedule does.
        budget: How long the race may take, in seconds or as in `"5min"`. Its rules are measured, and what you do not
            give yourself (rules, learning rates, seeds, epochs) is chosen so that it fits: what, and what that can
            prove, stands in `Race.budget`. What is not reached in time is dropped, and never ranked. A model whose runs
            are trained side by side, of JAX or stacked ones of PyTorch, takes none.
        steps: The steps of a run of your own training, after which it is told not to go on; by default it ends when
            its function returns.
        limit: The most seconds that a run of your own training may take. It is stopped at its next report, and in the
            main thread (but for Windows) also between two reports; code that is compiled is not interrupted.
        quiet: Whether to hold back what your own training prints.
        progress: Whether to show on standard error, or in a notebook, how far the race is and how long it still takes;
            and of a model or training of your own, what every rule reaches in a first run at its default learning rate.
            By default in a terminal and in a notebook, unless `watch` is given.
        watch: Called with a `Stage` when a part of the race begins, and with the engine's progress after every epoch.

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
    planned = Schedule.of(schedule)
    begun = (budget.clock if isinstance(budget, Budget) else time.perf_counter)()
    own = model is None and callable(problem)
    if not planned.constant and (why or model is not None):
        what = "why=True, which explains constant learning rates" if why else "a model of your own, model=make_net"
        raise ValueError(f"schedule={planned.name!r} does not go with {what}; leave one out")
    if model is not None:
        _refuse({"problem": problem, "why": why}, _OF_NETWORKS, "a problem without a model")
        _refuse({"steps": steps}, _OF_TRAININGS, "a training of your own; give epochs")
    else:
        of_models = {"data": data, "loss": loss, "target": target, "batch_size": batch_size}
        _refuse(of_models, dict.fromkeys(of_models), "a model of your own, model=make_net")
        problem = load_problem(problem) if isinstance(problem, str) else problem
    if own:
        about_table = {"split_seed": split_seed, "splits": splits, "why": why, "threads": threads, "epochs": epochs}
        _refuse(about_table, _OF_TABLES, "a table")
    elif model is None:
        _refuse({"steps": steps, "limit": limit, "quiet": quiet}, _OF_OWN, "a training of your own")
    if isinstance(problem, Problem) and problem.task is None:
        without = f"data, and {problem.name} has none"
        _refuse({"split_seed": split_seed, "splits": splits, "why": why}, _OF_TABLES, without)
    if not (own or model is not None or isinstance(problem, Problem)):
        raise DataError(
            f"problem: a {type(problem).__name__} is no problem; make one with load_table(..., target=COLUMN), or give "
            "a function that trains a run"
        )
    if isinstance(problem, Problem) and epochs is not None:
        check_sizes(hidden=problem.hidden, batch_size=None, epochs=epochs)
        problem = replace(problem, epochs=epochs)
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
        defaults=own or model is not None,
    )
    show = functools.partial(_watched, watch, progress, list(plan.entrants))
    if model is not None:
        examples = examples_for(data, loss, target=target, batch_size=batch_size, epochs=epochs)
        return _model_race(
            model, examples, loss, plan, threads=threads, limit=limit, quiet=quiet, show=show, budget=allowed
        )
    if isinstance(problem, Problem):
        return _table_race(problem, plan, threads=threads, why=why, schedule=planned, show=show, budget=allowed)
    assert callable(problem)
    engine = OwnEngine(
        problem, plan.entrants, steps=steps, limit=limit, quiet=quiet, schedule=planned, clock=_clock(allowed)
    )
    return _run_by_run(engine, plan, show, allowed, lambda _: own_training(problem))


def entrant_now(optimizer: Any) -> Entrant | None:
    """What people use now, as it is.

    Raises:
        ValueError: It cannot be read.
    """
    if optimizer is None:
        return None
    try:
        recipe = recipe_of(optimizer)
    except (TypeError, ValueError) as error:
        raise ValueError(f"now: {error}") from None
    numbers = {name: value for name, value in recipe.numbers.items() if name != "lr"}
    return Entrant(recipe.chosen, numbers, recipe.numbers["lr"], title(recipe))


Show = Callable[[Engine], contextlib.AbstractContextManager[Callable[[Stage | Progress], None]]]
"""Around the runs of an engine: what a race calls with its events."""


@contextlib.contextmanager
def _watched(
    watch: Callable[[Stage | Progress], None] | None, progress: bool | None, rules: Sequence[str], engine: Engine
) -> Iterator[Callable[[Stage | Progress], None]]:
    """What a race calls with its events, while its progress is shown to those who wait for it.

    Args:
        watch: What the caller wants called.
        progress: Whether to show it; None: where somebody can see it change, and `watch` does not take care of it.
        rules: What the rules are called.
        engine: What trains the runs.
    """
    if not (watch is None and _seen() if progress is None else progress):
        yield watch or (lambda _: None)
        return
    from downslope.lab.ticker import Ticker

    described = engine.description
    with Ticker((), rules, None if described is None else described.epochs, threads=engine.threads) as ticker:

        def both(event: Stage | Progress) -> None:
            ticker.watch(event)
            if watch is not None:
                watch(event)

        yield both


def _seen() -> bool:
    """Whether what is written is before somebody's eyes, and can be replaced: in a terminal, or in a notebook."""
    if sys.stderr is not None and sys.stderr.isatty():
        return True
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


_OF_TABLES: dict[str, Any] = {"split_seed": 0, "splits": "varied", "why": False, "threads": None, "epochs": None}
_OF_NETWORKS: dict[str, Any] = {"problem": "digits", "why": False}
_OF_TRAININGS: dict[str, Any] = {"steps": None}
_OF_OWN: dict[str, Any] = {"steps": None, "limit": None, "quiet": True}


def _refuse(given: Mapping[str, Any], usual: Mapping[str, Any], what: str) -> None:
    """Refuse arguments that are about something else than what is raced on."""
    for name, value in given.items():
        if value is not usual[name] and (not isinstance(value, (str, int, float)) or value != usual[name]):
            shown = repr(value) if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
            raise ValueError(f"{name}={shown} is for a race on {what}; leave it out")


def _clock(budget: Budget | None) -> Callable[[], float]:
    return time.perf_counter if budget is None else budget.clock


def _table_race(
    problem: Problem,
    plan: Plan,
    *,
    threads: int | None,
    why: bool,
    schedule: Schedule,
    show: Show,
    budget: Budget | None,
) -> Race:
    """A race on a problem."""
    from downslope.lab.engines.jax_engine import JaxEngine  # JAX takes a second to import

    start, varied, clock = time.perf_counter(), plan.splits == "varied", _clock(budget)
    engine = JaxEngine(
        problem,
        plan.entrants,
        threads=threads,
        split_seed=plan.split_seed,
        varied=varied,
        schedule=schedule,
        clock=clock,
    )
    allowance = None if budget is None else Allowance(budget, engine, plan, shorten=engine.shorten, why=why)
    for one in plan.seeds if problem.task == "regression" else ():
        problem.split(plan.split_seed, engine.split_number(one))  # refuses a constant target, before training
    tuning = Tuning(engine, plan, allowance=allowance)
    explained: Why | None = None
    interrupted = False
    try:
        with show(engine) as tuning.watch:
            tuning.measure()
            if tuning.choose():
                if why:
                    tuning.witness = Witness(tuning.plan, engine)
                tuning.tune()
                tuning.judge(edges(problem, tuning, engine) if why else ())
                if tuning.witness is not None:
                    explained = explain(problem, tuning, tuning.witness)
    except KeyboardInterrupt:
        interrupted = True

    def told(interrupted: bool, seconds: float) -> Race:
        because = explained if explained or not why else unexplained(tuning.plan, engine)
        raced = Raced.table(problem, tuning.plan, [engine.split_number(seed) for seed in tuning.plan.verdict_seeds])
        return outcome(raced, tuning, interrupted=interrupted, seconds=seconds, why=because)

    return _told(told, start, interrupted=interrupted)


def _model_race(
    make: Make,
    examples: Problem | Examples,
    loss: Loss | None,
    plan: Plan,
    *,
    threads: int | None,
    limit: float | None,
    quiet: bool,
    show: Show,
    budget: Budget | None,
) -> Race:
    """A race on a model of the user's own."""
    engine = ModelEngine(
        make,
        examples,
        plan.entrants,
        loss=loss,
        seeds=(plan.tuning_seeds[0], plan.verdict_seeds[0]),
        split_seed=plan.split_seed,
        varied=plan.splits == "varied",
        limit=limit,
        quiet=quiet,
        clock=_clock(budget),
    )
    heats = engine.in_heats(plan.seeds, threads)
    if budget is not None and (heats is not None or engine.stacking.lanes > 1):
        raise ValueError(
            "budget: runs of this model are trained side by side, and what they take cannot be told from the first, "
            "which are trained alone; so it has neither a budget nor a dry run: give fewer rules, learning rates and "
            "seeds if the race takes too long"
        )
    if heats is None and threads is not None:
        raise ValueError(f"threads={threads!r} is for networks of JAX, which are trained side by side; leave it out")
    if heats is not None and limit is not None:
        raise ValueError(f"limit={limit!r} is for runs that are trained one at a time; those of JAX are not")
    task = examples.task
    assert task is not None  # data without are refused

    def raced(plan: Plan) -> Raced:
        return Raced.table(
            examples,
            plan,
            [engine.split_number(one) for one in plan.verdict_seeds],
            about=f"{described(make, loss, task)}; {engine.stacking.reason}",
            comparable=isinstance(engine.loss, str),
        )

    if heats is not None:
        return _run_by_run(heats, plan, show, None, raced, cautions=engine.cautions, repeated=False)
    return _run_by_run(engine, plan, show, budget, raced, engine.shorten, engine.cautions)


def _run_by_run(
    engine: OwnEngine | ModelEngine | JaxEngine,
    plan: Plan,
    show: Show,
    budget: Budget | None,
    raced: Callable[[Plan], Raced],
    shorten: Callable[[int], None] | None = None,
    cautions: Sequence[str] = (),
    *,
    repeated: bool = True,
) -> Race:
    """A race whose runs are code of the user's own; `repeated` if it may be another function each time."""
    start = time.perf_counter()
    allowance = None if budget is None else Allowance(budget, engine, plan, shorten=shorten)
    tuning = Tuning(engine, plan, allowance=allowance)
    tuning.cautions += cautions
    interrupted = False
    try:
        with show(engine) as tuning.watch:
            tuning.begin_with_defaults()
            if repeated and (allowance is None or allowance.has_time_for(2)):
                assert isinstance(engine, OwnEngine | ModelEngine)
                began = engine.clock()
                tuning.cautions += check_training(engine, tuning.runs, plan.verdict_seeds[0])
                if allowance is not None:
                    allowance.repeated(tuning.runs, engine.clock() - began)
            if tuning.choose():
                tuning.tune()
                tuning.judge()
    except KeyboardInterrupt:
        interrupted = True
    return _told(
        lambda stopped, seconds: outcome(raced(tuning.plan), tuning, interrupted=stopped, seconds=seconds),
        start,
        interrupted=interrupted,
    )


def _told(tell: Callable[[bool, float], Race], start: float, *, interrupted: bool) -> Race:
    """The race told to its end, whatever is pressed: what is left takes a second, and nobody wants to lose a race."""
    while True:
        try:
            return tell(interrupted, time.perf_counter() - start)
        except KeyboardInterrupt:
            interrupted = True


def own_training(train: Train) -> Raced:
    """What a race tells of a training of the user's own: the name of its function, and where that is from."""
    name = getattr(train, "__qualname__", type(train).__name__)
    module = getattr(train, "__module__", "") or ""
    place = "" if module in ("", "__main__") else f" of {module}"
    return Raced(name=name, title=f"Your own training, {name}", about=f"The training {name}{place}")

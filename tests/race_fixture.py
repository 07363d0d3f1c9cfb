"""A made-up race that looks like a real one: valleys, cliffs, noise between seeds, and runs that diverge."""

import dataclasses
import math

import numpy as np

from downslope.lab.engines.protocol import Entry, Run, Snapshot, Surroundings
from downslope.lab.races.plane import Trails
from downslope.lab.races.results import Baseline, Race, RuleResult
from downslope.lab.races.statistics import against_one, compare, geometric_mean, interval
from downslope.lab.races.verdict import verdict
from downslope.lab.races.why import Cliff, RuleWhy, Why
from downslope.lab.races.words import on_limits, on_noise, on_updates, sentence

ADAM = r"""\begin{aligned}
m_{t} &= \beta_1 \, m_{t-1} + (1 - \beta_1) \, dx_{t} \\
\hat{m}_{t} &= \frac{m_{t}}{1 - \beta_1^{t}} \\
v_{t} &= \beta_2 \, v_{t-1} + (1 - \beta_2) \, dx_{t}^{2} \\
\hat{v}_{t} &= \frac{v_{t}}{1 - \beta_2^{t}} \\
x_{t} &= x_{t-1} - \frac{\mathrm{lr} \, \hat{m}_{t}}{\sqrt{\hat{v}_{t}} + \varepsilon}
\end{aligned}"""
MOMENTUM = r"""\begin{aligned}
v_{t} &= \mu \, v_{t-1} - \mathrm{lr} \, dx_{t} \\
x_{t} &= x_{t-1} + v_{t}
\end{aligned}"""
RMSPROP = r"""\begin{aligned}
\mathrm{cache}_{t} &= \mathrm{decay\_rate} \, \mathrm{cache}_{t-1} + (1 - \mathrm{decay\_rate}) \, dx_{t}^{2} \\
x_{t} &= x_{t-1} - \frac{\mathrm{lr} \, dx_{t}}{\sqrt{\mathrm{cache}_{t}} + \varepsilon}
\end{aligned}"""
SGD = r"""\begin{aligned}
x_{t} &= x_{t-1} - \mathrm{lr} \, dx_{t}
\end{aligned}"""

# name: best learning rate, floor of the loss, width of the valley in decades, where it diverges, formula, settings
RULES = {
    "sgd": (0.5, 0.110, 1.3, 3.0, SGD, {}),
    "momentum": (0.08, 0.098, 1.2, 0.4, MOMENTUM, {"mu": 0.9}),
    "nesterov": (0.08, 0.097, 1.2, 0.5, MOMENTUM, {"mu": 0.9}),
    "adagrad": (0.04, 0.120, 1.5, math.inf, RMSPROP, {"eps": 1e-8}),
    "rmsprop": (0.004, 0.105, 0.9, 0.9, RMSPROP, {"decay_rate": 0.9, "eps": 1e-8}),
    "adam": (0.006, 0.088, 1.1, 2.0, ADAM, {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "bias_correction": True}),
    "adamw": (0.006, 0.090, 1.1, 2.0, ADAM, {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01}),
    "nadam": (0.005, 0.089, 1.0, 1.0, ADAM, {"beta1": 0.9, "beta2": 0.999}),
    "adadelta": (1.0, 0.130, 1.6, math.inf, RMSPROP, {"decay_rate": 0.95}),
    "lion": (0.0006, 0.100, 0.7, 0.2, ADAM, {"beta1": 0.9, "beta2": 0.99}),
    "sign_descent": (0.001, 0.160, 0.6, 0.3, SGD, {}),
    "schedule_free_adam": (0.02, 0.095, 1.4, 3.0, ADAM, {"beta1": 0.9, "beta2": 0.999}),
}
GRID = tuple(float(f"{10 ** (exponent / 3):.3g}") for exponent in range(-12, 4))


def make_race(
    rules=("sgd", "momentum", "adagrad", "rmsprop", "adam"),
    *,
    task="classification",
    epochs=30,
    tuning_seeds=3,
    verdict_seeds=10,
    everything_diverges=False,
    title="Handwritten digits, 8 × 8 pixels",
):
    """A finished race."""
    results = [_result(rule, task, epochs, tuning_seeds, verdict_seeds, everything_diverges) for rule in rules]
    losses = {
        result.rule: [run.final_loss for run in result.verdict] or [math.inf] * verdict_seeds for result in results
    }
    comparisons = compare(losses)
    baseline = Baseline(
        losses=(2.3,) * verdict_seeds,
        loss=interval([2.3] * verdict_seeds),
        accuracy=interval([0.1] * verdict_seeds, "arithmetic") if task == "classification" else None,
    )
    useful = against_one(losses, baseline.losses)
    return Race(
        problem="digits",
        title=title,
        task=task,
        data_hash="9f2c" * 16,
        sizes={"train": 1079, "valid": 359, "test": 359},
        network="64-64-10 MLP, ReLU",
        weights=4810,
        batch_size=64,
        epochs=epochs,
        steps_per_epoch=17,
        learning_rates=GRID,
        seed=0,
        split_seed=0,
        tuning_seeds=tuple(range(tuning_seeds)),
        confirming_seeds=tuple(range(tuning_seeds, tuning_seeds + 7)),
        verdict_seeds=tuple(range(100, 100 + verdict_seeds)),
        splits=1,
        overlap=0.0,
        margin=0.01,
        target_loss=0.15,
        target_note="1.25 times the lowest mean loss that any rule reached in tuning",
        safe_factor=1.25,
        rules=tuple(dataclasses.replace(one, against_baseline=useful[one.rule]) for one in results),
        baseline=baseline,
        comparisons=comparisons,
        verdict=verdict(losses, comparisons, baseline=useful),
        cautions=(),
        remarks=(),
        interrupted=False,
        seconds=41.8,
        environment={
            "date": "2025-02-03",
            "python": "3.11.9",
            "packages": {"downslope": "0.1.0", "numpy": "2.2.2", "jax": "0.5.0"},
            "cpu": "8 cores, x86-64",
        },
        walks=walks_of([run for result in results for run in result.verdict], len(rules), verdict_seeds, epochs),
    )


def walks_of(runs, rules, seeds, epochs, weights=40):
    """Walks of runs: on each seed all go from one point in one direction, and each rule more and more in its own."""
    trails = Trails(rules, range(100, 100 + seeds), epochs, weights)
    for run in runs:
        for snapshot in snapshots_of(run, weights) if run.seed in trails.seeds else ():
            trails.add(snapshot)
    return trails.walks(runs)


def snapshots_of(run, weights):
    """What an engine would show of a run: up to the epoch in which it diverged, with what is not a number in that."""
    start, shared = np.random.default_rng(run.seed).standard_normal((2, weights))
    own = np.random.default_rng([run.seed, *run.rule.encode()]).standard_normal(weights)
    entry = Entry(run.rule, run.lr, run.seed, "verdict", observed=True)
    for epoch in range(len(run.valid_loss)):
        moved = start + np.sqrt(epoch) * shared + 0.1 * epoch * own + (np.nan if epoch == run.diverged_at else 0)
        yield Snapshot(entry, epoch, (np.float32(moved[:30]), np.float32(moved[30:])), {}, {}, epoch * 17)
        if epoch == run.diverged_at:
            return


def interrupt(race):
    """The same race, stopped while the second rule was being tuned."""
    first, second, *rest = race.rules
    nothing = {
        "verdict": (),
        "best_lr": None,
        "safe_range": None,
        "edge": None,
        "loss": None,
        "finished_loss": None,
        "best_loss": None,
        "against_baseline": None,
        "accuracy": None,
        "test_loss": None,
        "test_accuracy": None,
        "steps_to_target": None,
    }
    rules = (
        dataclasses.replace(
            first,
            verdict=(),
            loss=None,
            finished_loss=None,
            best_loss=None,
            against_baseline=None,
            accuracy=None,
            test_loss=None,
            test_accuracy=None,
            steps_to_target=None,
        ),
        dataclasses.replace(second, tuning=second.tuning[:10], **nothing),
        *(dataclasses.replace(rule, tuning=(), seconds=0.0, **nothing) for rule in rest),
    )
    return dataclasses.replace(race, rules=rules, comparisons=(), verdict="", interrupted=True, walks=None)


def _result(rule, task, epochs, tuning_seeds, verdict_seeds, everything_diverges):
    best, floor, width, limit, formula, settings = RULES[rule]
    limit = 0 if everything_diverges else limit
    key = sorted(RULES).index(rule)
    tuning = tuple(
        _run(rule, lr, seed, "tuning", task, epochs, (best, floor, width, limit), (key, index))
        for index, lr in enumerate(GRID)
        for seed in range(tuning_seeds)
    )
    medians = {lr: float(np.median([run.final_loss for run in tuning if run.lr == lr])) for lr in GRID}
    lowest = min(medians, key=medians.get)
    best_lr = lowest if math.isfinite(medians[lowest]) else None
    verdict_runs = ()
    if best_lr is not None:
        verdict_runs = tuple(
            _run(rule, best_lr, seed, "verdict", task, epochs, (best, floor, width, limit), (key, 99))
            for seed in range(100, 100 + verdict_seeds)
        )
    safe = [lr for lr in GRID if medians[lr] <= 1.25 * medians[lowest]]
    measured = bool(verdict_runs)
    return RuleResult(
        rule=rule,
        formula=formula,
        hyperparameters=settings,
        tuning=tuning,
        verdict=verdict_runs,
        best_lr=best_lr,
        safe_range=(safe[0], safe[-1]) if best_lr is not None else None,
        edge="high" if rule == "adadelta" else None,
        loss=interval([run.final_loss for run in verdict_runs]) if measured else None,
        finished_loss=geometric_mean([run.final_loss for run in verdict_runs]) if measured else None,
        best_loss=interval([run.best_loss for run in verdict_runs]) if measured else None,
        accuracy=interval([run.valid_accuracy[-1] for run in verdict_runs], "arithmetic")
        if measured and task == "classification"
        else None,
        test_loss=interval([run.test_loss for run in verdict_runs]) if measured else None,
        test_accuracy=interval([run.test_accuracy for run in verdict_runs], "arithmetic")
        if measured and task == "classification"
        else None,
        against_baseline=None,
        steps_to_target=(math.inf if floor > 0.115 else 1000 * floor * 2) if measured else None,
        seconds=7.3 + key,
    )


def _run(rule, lr, seed, phase, task, epochs, landscape, key):
    best, floor, width, limit = landscape
    rng = np.random.default_rng([*key, seed])
    away = math.log10(lr / best) / width
    speed = 0.35 * 10 ** min(0.0, 1.4 * away)
    worse = floor * (1 + 3 * max(0.0, away) ** 2) * math.exp(rng.normal(0, 0.04))
    start = (2.30 if task == "classification" else 1.0) * math.exp(rng.normal(0, 0.01))
    epoch = np.arange(epochs + 1)
    noise = np.exp(rng.normal(0, 0.03, epochs + 1) * (epoch > 0))
    valid = (worse + (start - worse) * np.exp(-speed * epoch)) * noise
    train = (worse * 0.4 + (start - worse * 0.4) * np.exp(-speed * epoch)) * noise
    accuracy = np.clip(1 - valid / 3.2, 0.1, 1.0)
    diverged_at = None
    if lr > limit * math.exp(rng.normal(0, 0.4)):
        diverged_at = int(rng.integers(1, 6))
        train[diverged_at:] = valid[diverged_at:] = np.inf
        accuracy[diverged_at:] = 0.0
    classification = task == "classification"
    tested = phase == "verdict"
    return Run(
        rule=rule,
        lr=lr,
        seed=seed,
        phase=phase,
        train_loss=tuple(train.tolist()),
        valid_loss=tuple(valid.tolist()),
        valid_accuracy=tuple(accuracy.tolist()) if classification else None,
        diverged_at=diverged_at,
        test_loss=float(valid[-1] * 1.05) if tested else None,
        test_accuracy=float(accuracy[-1] - 0.01) if tested and classification else None,
    )


def with_why(race):
    """The same race, explained: with curvatures that rise and fall, and an expected learning rate for every rule."""
    found = []
    for place, result in enumerate(race.rules):
        limit = RULES[result.rule][3]
        by_curvature = result.rule in ("sgd", "momentum", "nesterov")
        seen = [lr for lr in GRID if lr <= limit], [lr for lr in GRID if lr > limit]
        learns_at, fails_from = seen[0][-1], seen[1][0] if seen[1] else None
        expected = min(1.3 * limit, 30.0)
        cause = "curvature" if by_curvature else "length"
        moments = tuple(
            Surroundings(
                epoch=epoch,
                curvature=3.0 + epoch / (1 + place),
                preconditioned=None if by_curvature else 20.0 / (1 + epoch),
                noise_scale=20.0 * (1 + epoch),
                update_ratios=(0.004 / (1 + place), 0.001 * (1 + place)),
            )
            for epoch in (0, 1, 3, 10, race.epochs)
        )
        one = RuleWhy(
            rule=result.rule,
            limit=3.8,
            held=() if by_curvature else ("v",),
            reason="",
            comes_back=4.4 if by_curvature else None,
            curvature=3.0 if by_curvature else None,
            cliff=Cliff(learns_at, fails_from, fails_from, learns_at, cause, expected),
            best_lr=result.best_lr,
            best=moments,
            edge=moments[:3],
            sentence="",
        )
        found.append(dataclasses.replace(one, sentence=sentence(one, GRID)))
    rules = tuple(found)
    words = on_limits(rules), on_noise(rules, race.batch_size), on_updates(rules)
    return dataclasses.replace(race, why=Why(1079, 1079, rules, *words))

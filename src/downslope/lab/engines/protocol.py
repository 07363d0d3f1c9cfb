"""What trains the runs of a race: the contract of an engine, and the plain data that it is given and gives."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

SEEDS_PER_RACE = 1_000_000
"""Race number n has the seeds from n million on; the last six digits of a seed are the number of its split."""

DIVERGENCE_FACTOR = 1000.0
"""A run has diverged when a loss is this many times that of the untrained network. No run has been seen to recover from
there within the epochs of a race, and it may take all of them until a 32-bit float overflows."""

Phase = Literal["tuning", "verdict"]

Setting = tuple[tuple[str, float | bool], ...]
"""What a grid gives a run besides its learning rate, by name, in the order of the grid: hyperparameters and flags of
its rule, options around it, and the size of its batches; empty where there is no grid."""

BATCH_SIZE = "batch_size"
"""What the size of batches is called in a setting."""

OPTIONS = ("weight_decay", "decoupled", "cautious")
"""The options around a rule that a setting may have."""

LATER = {"added": "later"}
"""The metadata of a field that files from before it was there lack: it then has its default."""


def batch_size_of(setting: Setting) -> int | None:
    """The size of batches that a setting asks for; None: it does not."""
    return next((int(value) for name, value in setting if name == BATCH_SIZE), None)


def priced(setting: Setting) -> Setting:
    """What of a setting decides how long a run takes: the size of its batches, and what its formula has or has not.

    Example:
        >>> priced((("mu", 0.9), ("nesterov", True), ("batch_size", 32.0)))
        (('nesterov', True), ('batch_size', 32.0))
    """
    return tuple((name, value) for name, value in setting if name == BATCH_SIZE or isinstance(value, bool))


def said(setting: Setting) -> str:
    """A setting for people.

    Example:
        >>> said((("weight_decay", 0.01), ("decoupled", True), ("batch_size", 32.0)))
        'weight_decay=0.01, decoupled=True, batch_size=32'
    """
    return ", ".join(f"{name}={value if isinstance(value, bool) else f'{value:g}'}" for name, value in setting)


@dataclass(frozen=True)
class Run:
    """One training: one rule, one learning rate, one seed.

    The curves of a network of downslope's have one entry before training and one after every epoch; those of a training
    of your own have one for each loss that it reported, and `steps` says after how many steps. From the moment of
    divergence on, losses are infinite and accuracies zero; so they are where a run failed for another `cause`.
    """

    rule: str
    lr: float
    seed: int
    phase: Phase
    train_loss: tuple[float, ...]  # empty: a training of your own reports one loss
    valid_loss: tuple[float, ...]
    valid_accuracy: tuple[float, ...] | None
    diverged_at: int | None = None  # the epoch (or, with `steps`, the step) in which it did; 0: already untrained
    test_loss: float | None = None  # only runs of the verdict see the test data, once, at the end
    test_accuracy: float | None = None
    steps: tuple[int, ...] | None = field(default=None, metadata=LATER)  # of each entry; None: one for every epoch
    cause: str = field(default="", metadata=LATER)  # why it failed, where that was not by diverging
    setting: Setting = field(default=(), metadata=LATER)

    @property
    def entry(self) -> Entry:
        """What was asked for, not observed."""
        return Entry(self.rule, self.lr, self.seed, self.phase, setting=self.setting)

    @property
    def times(self) -> tuple[int, ...]:
        """When each entry of the curves was: after how many steps where the run has `steps`, else epochs."""
        return tuple(range(len(self.valid_loss))) if self.steps is None else self.steps

    @property
    def final_loss(self) -> float:
        """The last validation loss; infinite when the run diverged or failed."""
        return math.inf if self.diverged_at is not None else self.valid_loss[-1]

    @property
    def best_loss(self) -> float:
        """The lowest validation loss after the start: for information, since choosing the moment by it flatters."""
        later = [loss for time, loss in zip(self.times, self.valid_loss, strict=True) if time > 0]
        return min(later, default=self.valid_loss[0])


def how_lost(runs: Iterable[Run]) -> str:
    """In a word how those of some runs that were lost were it: by diverging, unless another cause is known.

    Example:
        >>> from dataclasses import replace
        >>> diverged = Run("sgd", 10.0, 0, "tuning", (1.0,), (1.0,), None, diverged_at=1)
        >>> how_lost([diverged]), how_lost([diverged, replace(diverged, cause="raised ValueError")])
        ('diverged', 'diverged or failed')
    """
    failed = {bool(run.cause) for run in runs if run.diverged_at is not None}
    return "diverged" if True not in failed else "failed" if False not in failed else "diverged or failed"


@dataclass(frozen=True)
class Entry:
    """A run that is to be trained.

    Attributes:
        observed: Whether the engine reports a `Snapshot` of the run before its first step and after each of its epochs.
            The run is the same, bit for bit, with and without.
        setting: What a grid gives it besides the learning rate.
    """

    rule: str
    lr: float
    seed: int
    phase: Phase = "tuning"
    observed: bool = False
    setting: Setting = ()


def check_entries(entries: Iterable[Entry], entrants: Collection[str]) -> None:
    """Refuse runs that an engine with these entrants cannot train, before any.

    Raises:
        ValueError: An entry names another rule, or its learning rate is not positive.
    """
    for entry in entries:
        if entry.rule not in entrants:
            raise ValueError(f"entries: rule {entry.rule!r} is not among {', '.join(entrants)}")
        if not (entry.lr > 0 and math.isfinite(entry.lr)):
            raise ValueError(f"entries: learning rate {entry.lr!r} of {entry.rule}; expected a positive number")


@dataclass(frozen=True)
class Snapshot:
    """A run before its first step or after an epoch: copies, which training no longer touches.

    Attributes:
        entry: The run.
        epoch: How many epochs it has been trained. The last of a run that diverged is of the epoch in which it did,
            with weights and states as they were when it was given up, perhaps not finite.
        weights: The weights `x` that the rule updates, float32, layer by layer as in `Network.initial`: the point
            whose losses the curves of a `Run` are. A rule that looks ahead takes its gradient at another one, which is
            made of this and the states.
        states: The states by name, each with an array for each of the weights; None where its rule has no such state.
        scalars: The rule's scalar states by name.
        steps: How many steps have been taken: the `t` of the last one.
        brief: Where a run was answered from a folder, which keeps no more: what `Trails` makes of the weights, of which
            there are then none, and no states.
    """

    entry: Entry
    epoch: int
    weights: tuple[NDArray[np.float32], ...]
    states: Mapping[str, tuple[NDArray[np.float32], ...]]
    scalars: Mapping[str, float]
    steps: int
    brief: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Surroundings:
    """What there is around the weights of a run.

    Attributes:
        epoch: After how many epochs; 0: before the first step.
        curvature: The largest eigenvalue of the Hessian of the mean training loss.
        preconditioned: The same with each weight scaled by the root of the factor before its gradient in the next step:
            what the limit of a rule with states that are held still is about. None for other rules.
        noise_scale: In a batch of this many rows, half of the square of the gradient's length is noise: the simple
            noise scale of McCandlish et al., 2018.
        update_ratios: For each layer, the length of the next step over that of its weights, biases included.
        lr: The learning rate of that step, as the schedule has it; None in files from before there was one here.
    """

    epoch: int
    curvature: float
    preconditioned: float | None
    noise_scale: float
    update_ratios: tuple[float, ...]
    lr: float | None = field(default=None, metadata=LATER)


@dataclass(frozen=True)
class Progress:
    """One epoch of one heat: what the engine reports while it trains.

    Attributes:
        rule: The rule of the heat.
        epochs: How many runs were trained for an epoch.
        skipped: How many epochs will not be trained because their runs diverged.
        finished: The runs that ended with this epoch.
        seconds: How long it took; the first of a heat has what goes before, above all the compilation.
        snapshots: The observed runs after this epoch, and before their first step those that began with it: so each has
            its snapshots in order, up to the epoch with which it finished.
        kept: Whether it is a run that had been finished before, of which nothing was trained now.
        heard: Of runs that go on what was not reported yet: the run, after how many epochs or, of a training of your
            own, steps, and the validation loss then.
        setting: What decides, of the setting of its runs, how long they take: see `priced`.
    """

    rule: str
    epochs: int
    skipped: int
    finished: tuple[Run, ...]
    seconds: float = 0.0
    snapshots: tuple[Snapshot, ...] = ()
    kept: bool = False
    heard: tuple[tuple[Entry, int, float], ...] = ()
    setting: Setting = ()


@dataclass(frozen=True)
class Description:
    """What is the same for all runs of an engine.

    Attributes:
        network: The network, for people: `"64-64-10 MLP, ReLU"`.
        weights: How many weights it has, biases included.
        batch_size: Rows per step.
        steps_per_epoch: Steps per epoch.
        epochs: Passes over the training rows, after each of which the engine reports.
    """

    network: str
    weights: int
    batch_size: int
    steps_per_epoch: int
    epochs: int


class Engine(Protocol):
    """Trains runs of several rules on one problem.

    Attributes:
        threads: How many runs, or groups of runs, are trained at a time.
    """

    threads: int

    @property
    def description(self) -> Description | None:
        """The network, and what each run of it is; None if the engine knows nothing of it, and reports run by run."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """Per name of a rule, the wall-clock seconds that its runs took so far."""

    def split_number(self, seed: int) -> int | None:
        """Which split of the family the runs of a seed are trained and validated on; None if it splits nothing."""

    def together(self, entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
        """These runs in groups: the last digits of a run may depend on the others of its group, and on nothing else."""

    def train(self, entries: Sequence[Entry]) -> Iterator[Progress]:
        """Train runs, and report as they go on.

        Runs may finish in any order. When the caller stops iterating, training stops too; what was reported stays
        valid, and the engine can be used again.

        Args:
            entries: The runs; those of one rule are started in this order.

        Returns:
            One report for every epoch of whatever is trained together, with snapshots of the runs that are observed; or
            one for every run, which then counts as one epoch, if the engine has no description.

        Raises:
            ValueError: An entry names a rule that the engine does not have, or its learning rate is not positive.
        """


class OpenEngine(Engine, Protocol):
    """An engine that can also be asked what there is around the weights of its runs: what explains a race."""

    @property
    def description(self) -> Description:
        """The network, and what each run of it is."""

    def split_number(self, seed: int) -> int:
        """Which split of the family the runs of a seed are trained and validated on."""

    def begin(self, entry: Entry) -> Snapshot:
        """A run before its first step, without training it."""

    def look_around(self, snapshot: Snapshot) -> Surroundings | None:
        """What there is around a run; None where its weights or those after its next step are not finite.

        Curvature and noise are those of the run's training rows, or of `seen_rows` of them.
        """

    def seen_rows(self, seed: int) -> tuple[int, int]:
        """How many training rows of a seed `look_around` looks at, and how many there are."""

    def rates(self, entry: Entry) -> NDArray[np.float64]:
        """The learning rate of every step of a run, as the schedule has it."""

    def after_first_step(self, entry: Entry, rates: Sequence[float]) -> Sequence[float]:
        """The mean training loss after one step from the start of a run, if its first step had each of these rates."""

"""What a training of the user's own is handed: one run, to ask for its optimizer and to report to."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from downslope.lab.engines.apart import told
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.optimizers import arguments, factor_at, optimizer_for, weights_of
from downslope.lab.engines.protocol import BATCH_SIZE, DIVERGENCE_FACTOR, Entry, Run, batch_size_of
from downslope.lab.engines.schedule import CONSTANT, Schedule
from downslope.rule import Rule


class OwnRun:
    """One run of a race, as `train(run)` gets it.

    It says which rule at which learning rate is to be trained on which seed, and takes the losses that the training
    reports. A training asks `optimizer` for its optimizer, or reads `rule`, `lr` and `settings` and makes one itself.

    Args:
        entry: The run.
        entrant: Its rule and hyperparameters.
        steps: After how many steps it is over; None: when `train` returns.
        limit: After how many seconds it is over, and failed; None: never.
        schedule: How the learning rate changes; needs `steps`.
        heard: Called with every step and loss that are reported, where the run goes on.

    Attributes:
        name: What the rule is called in the race.
        seed: The seed of the initial weights and of the order of batches. Python's, NumPy's and the loaded frameworks'
            own generators have been set by it.
        cause: Why the run failed, if it did otherwise than by diverging.
        used: Whether the training asked for the optimizer, the rule, the learning rate or the settings.
        asked: Whether it asked for what a grid may vary: `"settings"`, also by its optimizer, and `"batch_size"`.
        batch_size: The size of batches that the race asks for, where it has a grid over `batch_size`; else None.

    Example:
        >>> import downslope
        >>> run = OwnRun(Entry("sgd", 0.1, seed=0), Entrant.of("sgd", downslope.sgd, {}), steps=20)
        >>> run.report(0, 2.5), run.report(10, 1.5), run.report(20, 1.0)
        (True, True, False)
    """

    def __init__(
        self,
        entry: Entry,
        entrant: Entrant,
        *,
        steps: int | None = None,
        limit: float | None = None,
        schedule: Schedule = CONSTANT,
        heard: Callable[[int, float], None] = lambda step, loss: None,
    ):
        self.name, self.seed = entry.rule, entry.seed
        self.cause, self.used = "", False
        self._entry, self._entrant = entry, entrant
        self._steps, self._limit = steps, limit
        self._begun = time.monotonic()
        self.asked: set[str] = set()
        self._made: list[Any] = []
        self._schedule, self._followed = schedule, schedule.constant
        self._factors = None if schedule.constant or steps is None else schedule.table(steps)
        self._losses: dict[int, tuple[float, float | None]] = {}
        self._lost_at: int | None = None
        self._over = False
        self._heard = heard

    @property
    def rule(self) -> Rule:
        """The rule."""
        self.used = True
        return self._entrant.settings.rule

    @property
    def lr(self) -> float:
        """The learning rate; where there is a schedule, that which it multiplies: see `lr_at`."""
        self.used = True
        return self._entry.lr

    def lr_at(self, step: int) -> float:
        """The learning rate of a step: `lr` times the factor of the race's schedule.

        Args:
            step: How many steps have been taken before it.

        Example:
            >>> import downslope
            >>> from downslope.lab.engines.schedule import Schedule
            >>> entrant = Entrant.of("sgd", downslope.sgd, {})
            >>> run = OwnRun(Entry("sgd", 0.1, seed=0), entrant, steps=4, schedule=Schedule.of("linear"))
            >>> [round(run.lr_at(step), 3) for step in range(4)]
            [0.1, 0.075, 0.05, 0.025]
        """
        self.used = self._followed = True
        return self._entry.lr if self._factors is None else float(self._entry.lr * factor_at(self._factors, step))

    @property
    def batch_size(self) -> int | None:
        """The size of batches that the race asks for; None: any."""
        self.asked.add(BATCH_SIZE)
        return batch_size_of(self._entry.setting)

    @property
    def settings(self) -> dict[str, Any]:
        """All that an optimizer of downslope takes besides the parameters and the rule, the learning rate included."""
        self.used = True
        self.asked.add("settings")
        return arguments(self._entrant, self._entry.lr)

    def optimizer(self, params: Any = None) -> Any:
        """The optimizer of this run.

        Args:
            params: PyTorch's parameters, groups of them or a module: gives an optimizer of PyTorch. A tree of JAX
                arrays: a gradient transformation of Optax. Keras's variables, a model or nothing: an optimizer of
                Keras, for `model.compile`. NumPy arrays: a `downslope.Optimizer`. A race with rules for matrices, such
                as Muon, needs the module, model or tree itself, or what `downslope.split` made of it.

        Raises:
            TypeError: The parameters are of no framework that downslope has a front end for, or of several; or the
                rule is for matrices, and which of them are between the first layer and the last cannot be told.
            ValueError: Keras cannot run the rule with its options; or the rule is for matrices, and there are none.
        """
        self.used = self._followed = True
        self.asked.add("settings")
        self._made.append(optimizer_for(params, self._entrant, self._entry.lr, self._factors))
        return self._made[-1]

    @contextlib.contextmanager
    def at_weights(self) -> Iterator[None]:
        """Inside this block the parameters of the run's optimizers are the weights, to take a loss at.

        It makes a difference for a rule with a look-ahead, whose parameters are the point ahead while it trains. For
        `fit` of Keras there is the callback `downslope.keras.AtWeights`, and for trees of JAX arrays `weights`.

        Example:
            >>> import downslope, numpy as np
            >>> run = OwnRun(Entry("nesterov", 0.1, seed=0), Entrant.of("nesterov", downslope.nesterov, {"mu": 0.5}))
            >>> x = np.array([1.0])
            >>> run.optimizer(x).step(np.array([2.0]))
            >>> with run.at_weights():
            ...     print(x)
            [0.8]
            >>> print(x)
            [0.7]
        """
        with contextlib.ExitStack() as around:
            for optimizer in self._made:
                if hasattr(optimizer, "at_weights"):
                    around.enter_context(optimizer.at_weights())
            yield

    def weights(self, params: Any, state: Any) -> Any:
        """The weights themselves of a tree of JAX arrays, to take a loss at; see `at_weights`.

        Args:
            params: The tree that is trained.
            state: The state of the run's transformation, or of a chain that it is in.

        Raises:
            ValueError: The run has made several transformations: `downslope.optax.weights` takes the one that is meant.
        """
        return weights_of(self._made, params, state)

    def report(self, step: int, loss: Any, accuracy: Any = None) -> bool:
        """Take in the loss after some steps; rules are judged by the last one.

        Report the loss on validation data, at the same steps in every run, and before the first step as step 0 if you
        can: what a run begins with says when it has diverged.

        Args:
            step: How many steps have been taken.
            loss: The loss now: a number of at least 0, or an array of one, of any framework.
            accuracy: The share of right answers now, if there is one.

        Returns:
            Whether to go on: False when the run has diverged, its steps are taken or its time is up. Then what is
            reported later does not count. A loss that is not finite before the first step is a failure.

        Raises:
            TypeError: Step, loss or accuracy is no such number.
            ValueError: It is out of range, or the step is not after the last one that was reported.
        """
        try:
            step, loss = _step(step), _number("loss", loss)
            accuracy = None if accuracy is None else _number("accuracy", accuracy)
            if loss < 0:
                raise ValueError(
                    f"report: loss={loss:g} is negative, and rules are compared by the ratio of their losses; report a "
                    "loss whose lowest value is 0"
                )
            if accuracy is not None and not 0 <= accuracy <= 1:
                raise ValueError(f"report: accuracy={accuracy:g} is no share; give a number from 0 to 1")
            if self._over:
                return False
            if self._losses and step <= (last := max(self._losses)):
                raise ValueError(f"report: step={step} is not after {last}, which was reported before")
        except (TypeError, ValueError) as error:
            self.fail(told(error))
            raise
        if step == 0 and not math.isfinite(loss):  # no rule has done anything yet
            self.fail(f"reported a loss of {loss:g} before its first step")
            return False
        first = next(iter(self._losses.values()), (loss, None))[0]
        if not math.isfinite(loss) or loss > DIVERGENCE_FACTOR * first > 0:
            self._lost_at, self._over = step, True
            loss, accuracy = math.inf, None if accuracy is None else 0.0
        self._losses[step] = (loss, accuracy)
        if self._steps is not None and step >= self._steps:
            self._over = True
        if not self._over and self.late:
            self.fail(f"took longer than its limit of {self._limit:g} seconds")
        if not self._over:
            self._heard(step, loss)
        return not self._over

    @property
    def late(self) -> bool:
        """Whether the time of the run is up."""
        return self._limit is not None and time.monotonic() - self._begun > self._limit

    def fail(self, cause: str) -> None:
        """Take in why the run failed; what it had ended with before counts."""
        if not self._over:
            self.cause, self._over = self.cause or cause, True

    def _off_schedule(self) -> str:
        """Why the run cannot be ranked, if it has not followed its schedule to the end."""
        last = max(self._losses, default=0)
        if self._factors is not None and last < len(self._factors):
            return f"ended after {last} of {len(self._factors)} steps, before the end of its schedule"
        if not self._followed:
            return (
                f"did not follow the schedule, {self._schedule.name}: train with run.optimizer(...), or at "
                "run.lr_at(step)"
            )
        return ""

    def finished(self) -> Run:
        """The run as it ended."""
        if not any(step > 0 for step in self._losses) and self._lost_at is None:
            self.fail("reported no loss after a step")
        if (
            self._lost_at is None
            and not self.cause
            and (cause := self._off_schedule() or ignored(dict(self._entry.setting), self.asked))
        ):
            self.cause = cause
        losses = dict(self._losses)
        lost_at = self._lost_at
        if self.cause:
            lost_at = max(losses, default=-1) + 1
            with_accuracy = any(accuracy is not None for _, accuracy in losses.values())
            losses[lost_at] = (math.inf, 0.0 if with_accuracy else None)
        accuracies = [accuracy for _, accuracy in losses.values()]
        known = tuple(accuracy for accuracy in accuracies if accuracy is not None)
        return Run(
            rule=self._entry.rule,
            lr=self._entry.lr,
            seed=self._entry.seed,
            phase=self._entry.phase,
            train_loss=(),
            valid_loss=tuple(loss for loss, _ in losses.values()),
            valid_accuracy=known if len(known) == len(accuracies) else None,
            diverged_at=lost_at,
            steps=tuple(losses),
            cause=self.cause,
            setting=self._entry.setting,
        )


def _step(step: Any) -> int:
    try:
        whole = int(step)
        holds = whole == step and not isinstance(step, bool)
    except (TypeError, ValueError, OverflowError):
        holds = False
    if not holds or whole < 0:
        raise TypeError(f"report: step={step!r} is no number of steps; give a whole number from 0")
    return whole


def _number(name: str, value: Any) -> float:
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError):
        shown = repr(value)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        raise TypeError(f"report: {name}={shown} is no single number; give its mean as a float") from None


def ignored(varied: Iterable[str], asked: Collection[str]) -> str:
    """What of a grid a training leaves unused, and what to do; empty if nothing.

    Args:
        varied: What the grid varies.
        asked: What the training asked for: see `OwnRun`.
    """
    if BATCH_SIZE in varied and BATCH_SIZE not in asked:
        return "did not ask for run.batch_size, which the grid varies"
    names = [name for name in varied if name != BATCH_SIZE]
    if names and "settings" not in asked:
        return f"did not use {', '.join(names)} of the grid: train with run.optimizer(...), or with run.settings"
    return ""

"""The optimizer for NumPy arrays."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Unpack, overload

import numpy as np
from numpy.typing import DTypeLike

from downslope.language.options import Options
from downslope.language.ranges import Range, check_number
from downslope.numpy.parameters import (
    check_gradients,
    check_separate,
    check_weights,
    check_writable,
    describe_nonfinite,
    lay_out,
)
from downslope.numpy.states import begun, codes_for, remembered
from downslope.numpy.training import ArrayTraining, points
from downslope.rule import Rule
from downslope.targets.shapes import check_shapes
from downslope.training import saving
from downslope.training.arguments import every_option, keywords, takes
from downslope.training.checks import LOOKAHEADS, check_seed, check_threads, one_of
from downslope.training.groups import POLICIES, Array, Group, NonFiniteGradientError
from downslope.training.settings import Schedule, settle

REMEDY = (
    "give it to an optimizer of its own, such as downslope.Optimizer(rest, downslope.adamw), stepped after this one; "
    "downslope.split(params) proposes both parts"
)
"""What to do with an array of a shape that the rule cannot work on."""


class Arguments(Options[float | Schedule], total=False):
    """What `Optimizer` takes by name besides the hyperparameters of its rule.

    Attributes:
        nonfinite: What to do when a gradient holds nan or infinity: "keep" lets it through, "raise" raises, "skip"
            leaves everything as it is and counts the step in `skipped`. Both look at all gradients before anything
            is written, which costs one more read of them, the one that `max_norm` makes too.
        lookahead: For a rule that takes its gradient ahead of the weights: "stored" keeps the point ahead in the
            arrays, so that an ordinary loop takes its gradient there (`at_weights` moves to the weights themselves);
            "explicit" keeps the weights in the arrays, and the gradient is to be taken inside `at_lookahead`.
        state_dtype: As what states are kept: `numpy.uint8` keeps every state of which the rule's formula shows that
            eight bits do as codes, with a scale for each block of 256 weights (see `downslope.targets.codes`); by
            default all have the dtype of the weights.
        seed: The seed of the random numbers by which such states are rounded.
        threads: How many threads may share a launch; by default as many as there are processors. Small launches use
            one.
    """

    nonfinite: Literal["keep", "raise", "skip"]
    lookahead: Literal["stored", "explicit"]
    state_dtype: DTypeLike
    seed: int
    threads: int | None


class Optimizer:
    """Updates NumPy arrays in place by any rule, all arrays in one compiled pass over memory.

    Args:
        params: What to train, float32 or float64: an array, a list of arrays, a dict name → array, or parameter
            groups, a list of dicts such as `{"params": {"W": W}, "lr": 0.1}` whose other entries are hyperparameters of
            that group. The arrays are updated in place.
        rule: The rule, one of downslope's or your own.
        **settings: The options of every optimizer, such as weight decay, clipping and averaging (`downslope.Options`);
            `nonfinite`, `lookahead`, `state_dtype`, `seed` and `threads` (`downslope.numpy.optimizer.Arguments`); and
            the rule's hyperparameters: numbers, or schedules, functions of the number of the step.

    Raises:
        TypeError: Something is of the wrong kind, a name is unknown, or a hyperparameter is missing.
        ValueError: A value is out of range, or an array cannot be updated in place.
        FormulaError: The rule is not a formula that can be compiled.

    Example:
        >>> import numpy as np, downslope
        >>> W = np.array([[3.0, -2.0]], dtype=np.float32)
        >>> optimizer = downslope.Optimizer({"W": W}, downslope.momentum, lr=0.1)
        >>> for _ in range(100):
        ...     optimizer.step({"W": 2 * W})  # the gradient of the sum of squares
        >>> bool(np.abs(W).max() < 0.05)
        True
        >>> sorted(optimizer.state)
        ['v']
    """

    @overload
    def __init__(self, params: Any, rule: Rule, **settings: Unpack[Arguments]) -> None: ...

    @overload
    def __init__(self, params: Any, rule: Rule, **settings: Any) -> None: ...

    @takes(
        *every_option(),
        *keywords({"nonfinite": "keep", "lookahead": "stored", "state_dtype": None, "seed": 0, "threads": None}),
        rest="hyperparameters",
    )
    def __init__(self, params: Any, rule: Rule, **settings: Any) -> None:
        nonfinite, lookahead, threads = (settings.pop(name) for name in ("nonfinite", "lookahead", "threads"))
        state_dtype, seed = settings.pop("state_dtype"), settings.pop("seed")
        one_of("nonfinite", nonfinite, POLICIES)
        one_of("lookahead", lookahead, LOOKAHEADS)
        check_seed(seed)
        self._layout, arrays, own, names = lay_out(params)
        dtype = check_weights(arrays)
        self._settings, numbers = settle(rule, settings, own, stored_ahead=lookahead == "stored")
        max_norm = settings["max_norm"]
        self._max_norm = None if max_norm is None else check_number("max_norm", max_norm, Range(0.0, np.inf))
        start = self._settings.program.scalar_states
        check_shapes(self._settings.program, ((name, array.shape) for name, array in arrays.items()), REMEDY)
        self._groups = [Group(self._settings, n, given, start) for n, given in zip(names, numbers, strict=True)]
        self._nonfinite = nonfinite
        self.rule = rule
        self.params: Mapping[str, Array] = MappingProxyType(arrays)
        self.skipped = 0
        self._moved = ""
        self._lock = threading.RLock()
        codes = codes_for(self._settings, dtype, state_dtype)
        self._seed = seed if codes else None
        self._prepare(dtype, codes, threads)

    def _prepare(self, dtype: np.dtype[Any], codes: Mapping[str, str], threads: int | None) -> None:
        """Make the states, compile the kernel and lay out the slot table."""
        from downslope.backends import threads as pool
        from downslope.backends.array_steps import ArrayStepper
        from downslope.backends.describe import of_arrays
        from downslope.backends.stepping import Stepper
        from downslope.backends.table import SlotTable
        from downslope.targets.passes import compiles

        self._workers = check_threads(threads) or pool.available()
        program = self._settings.program
        new = begun(self.params, self._groups, codes)
        self.state: Mapping[str, Mapping[str, Array]] = MappingProxyType(
            {what: MappingProxyType(by_name) for what, by_name in new.items()}
        )
        states = program.arrays[2:]
        self._held = [[np.asarray(array), *remembered(self.state, states, n)] for n, array in self.params.items()]
        self._dtype, self._remembers = dtype, bool(program.scalar_states)
        self._kinds = [[(array.shape, array.dtype) for array in arrays] for arrays in self._held]
        compiled = not program.over_tensors or compiles(program)
        narrow = len(program.narrow)
        alike = len(states) - narrow
        self._table = SlotTable(
            of_arrays(),
            self._held if compiled else [arrays[: 1 + alike] for arrays in self._held],
            [*[dtype.name] * 2, *(codes.get(name, dtype.name) for name in states[: None if compiled else alike])]
            + ["float32"] * len(codes),
            scales=len(codes),
            narrow=narrow if compiled else 0,
            matrices=compiled and program.of_matrices,
            scalars=len(program.scalar_states),
            seed=self._seed or 0,
        )
        self._stepper: ArrayStepper | Stepper
        if compiled:
            self._stepper = Stepper(program, "nearest", self._table)
        else:
            self._stepper = ArrayStepper(program, self._table, [arrays[1 + alike :] for arrays in self._held])
        self._launch = self._stepper.quick_step() or functools.partial(self._stepper.step, workers=self._workers)
        self._names = list(self.params)
        self._restart(0)
        if self._settings.stored_ahead:
            self._place(self._points(to_weights=False))
        self._surveys = self._nonfinite != "keep" or self._max_norm is not None

    def _restart(self, t: int) -> None:
        """Have the next step take over hyperparameters and scalar states, and be the one after `t`."""
        rows = [k for k, group in enumerate(self._groups) for _ in group.names]
        states = self._settings.program.scalar_states
        self._stepper.group_rows(rows, [[t, *(group.scalar_states[name] for name in states)] for group in self._groups])
        self._changed()

    def _changed(self) -> None:
        """Have the next step take over hyperparameters, and every one if there are schedules."""
        self._stale, self._scheduled = True, any(group.scheduled for group in self._groups)

    @property
    def t(self) -> int:
        """How many steps were done."""
        return int(self._table.clocks.item(0))

    @t.setter
    def t(self, steps: int) -> None:
        self._table.clocks[:, 0] = steps

    def step(self, gradients: Any) -> None:
        """Update all weights and states by one step of the rule.

        Args:
            gradients: The gradients of the loss, laid out like `params`, of the weights' dtype and shapes. Arrays that
                are not contiguous, or that share memory with weights or states, are copied first.

        Raises:
            TypeError: A gradient is missing, not an array, or of another dtype than its weights.
            ValueError: A shape or a set of names does not match, an array of weights is no longer what it was, or a
                schedule's value is out of range.
            NonFiniteGradientError: A gradient holds nan or infinity, and `nonfinite` is "raise".
            RuntimeError: The arrays do not hold the point where gradients are taken (inside `at_weights` and such).

        In every case nothing has been changed.
        """
        with self._lock:
            if self._moved:
                self._refuse_if_moved("step")
            self._moved = "step"  # until the end: schedules, signal handlers and gradients may run any code
            try:
                self._step(gradients)
            finally:
                self._moved = ""

    def _step(self, gradients: Any) -> None:
        flat = self._layout.flatten(gradients)
        scale = 1.0
        if self._surveys:
            flat = self._done(self._table.take, flat)
            norm, norm_scale, bad = self._table.survey(self._workers)
            if bad and self._nonfinite != "keep":
                if self._nonfinite == "raise":
                    raise NonFiniteGradientError(describe_nonfinite(self._names, flat, self.t + 1))
                self.skipped += 1
                return
            if self._max_norm is not None and not norm <= self._max_norm * norm_scale:
                scale = self._max_norm / norm * norm_scale
        if self._stale:
            self._settle()
        if self._surveys:
            self._stepper.scale(scale)
        try:
            self._done(self._launch, flat)
        finally:  # a signal may have been raised before the work, or when all of it was done
            if self._remembers:
                self._follow()

    def _settle(self) -> None:
        """Take over each group's hyperparameters for the next step."""
        program, t = self._settings.program, self.t + 1
        for k, group in enumerate(self._groups):
            self._stepper.settle(k, group.scalars(program, t, 1.0))
        self._stale = self._scheduled

    def _follow(self) -> None:
        """Take over the scalar states that the last step left."""
        names = self._settings.program.scalar_states
        for group, row in zip(self._groups, self._table.clocks.tolist(), strict=True):
            group.scalar_states = dict(zip(names, row[1:], strict=True))

    def _done(self, what: Callable[..., int], gradients: Sequence[Any]) -> Sequence[Any]:
        """Do this with the gradients, or else with copies of those that cannot be read; what it was done with."""
        if what(*gradients):
            gradients = self._readable(gradients)
            slot = what(*gradients)
            if slot:
                raise RuntimeError(f"the arrays of {self._names[slot - 1]!r} changed while they were being checked")
        return gradients

    def _readable(self, gradients: Sequence[Any]) -> list[Array]:
        """The gradients, copied where a kernel cannot read them; what is held is found anew."""
        for name, arrays, kinds in zip(self._names, self._held, self._kinds, strict=True):
            for array, kind in zip(arrays, kinds, strict=True):
                check_writable(f"the parameter or a state of {name!r}", array)
                if (array.shape, array.dtype) != kind:
                    raise ValueError(
                        f"the parameter {name!r} or one of its states was resized or retyped in place since the "
                        "optimizer was made; make a new optimizer for it"
                    )
        spans = dict(self.params)
        for state, by_name in self.state.items():
            spans |= {f"{name} ({state})": array for name, array in by_name.items()}
        check_separate(spans)
        self._table.locate()
        return check_gradients(self.params, gradients, spans.values(), self._dtype)

    @property
    def groups(self) -> tuple[Mapping[str, float | Schedule], ...]:
        """The hyperparameters of each group, to read; `set` changes them."""
        return tuple(MappingProxyType(group.hyperparameters) for group in self._groups)

    @property
    def max_norm(self) -> float | None:
        """The largest norm of all gradients together that is left as it is, to read: a loaded file brings its own."""
        return self._max_norm

    def set(self, group: int | None = None, **hyperparameters: float | Schedule) -> None:
        """Change hyperparameters from the next step on.

        Args:
            group: The number of the group to change; all groups if not given.
            **hyperparameters: Numbers or schedules.

        Raises:
            TypeError: A name is unknown or fixed when the optimizer was made.
            ValueError: A value is out of range, or there is no such group.
        """
        if group is not None and group not in range(len(self._groups)):
            raise ValueError(f"group={group!r}: the groups are numbered 0 to {len(self._groups) - 1}")
        checked = {name: self._settings.checked(name, value) for name, value in hyperparameters.items()}
        for state, start in self._settings.program.states.items():
            if start in checked:
                raise TypeError(
                    f"{start} is the initial value of the state {state}, which has begun; it cannot be set now"
                )
        with self._lock:
            self._refuse_if_moved("set")
            groups = [g.with_hyperparameters(checked) if group in (None, k) else g for k, g in enumerate(self._groups)]
            ahead = self._settings.ahead
            if self._settings.stored_ahead and ahead is not None and not checked.keys().isdisjoint(ahead.scalars):
                weights = self._points(to_weights=True)
                self._place(points(groups, self.t, weights, self.state, to_weights=False))
            self._groups = groups
            self._changed()

    def _refuse_if_moved(self, what: str) -> None:
        if self._moved:
            raise RuntimeError(f"{what}() inside {self._moved}(): finish that first; nothing was changed")

    def _place(self, points: Mapping[str, Array]) -> None:
        """Write new values into the weights, all or none."""
        for name in points:
            check_writable(f"the parameter {name!r}", self.params[name])
        for name, values in points.items():
            self.params[name][...] = values

    def _points(self, *, to_weights: bool) -> dict[str, Array]:
        return points(self._groups, self.t, self.params, self.state, to_weights=to_weights)

    @contextlib.contextmanager
    def at_weights(self) -> Iterator[None]:
        """Inside this block the arrays hold the weights themselves, for evaluation and saving.

        It makes a difference only for a rule with a look-ahead, whose arrays otherwise hold the point ahead.

        Example:
            >>> import numpy as np, downslope
            >>> x = np.array([1.0])
            >>> optimizer = downslope.Optimizer(x, downslope.nesterov, lr=0.1, mu=0.5)
            >>> optimizer.step(np.array([2.0]))
            >>> print(x)
            [0.7]
            >>> with optimizer.at_weights():
            ...     print(x)
            [0.8]
        """
        stored = self._settings.stored_ahead
        with self._away("at_weights", self._points(to_weights=True) if stored else {}):
            yield

    @contextlib.contextmanager
    def at_lookahead(self) -> Iterator[None]:
        """Inside this block the arrays hold the point where the gradient is to be taken (`lookahead="explicit"`)."""
        explicit = self.rule.ahead is not None and not self._settings.stored_ahead
        with self._away("at_lookahead", self._points(to_weights=False) if explicit else {}):
            yield

    @contextlib.contextmanager
    def at_average(self) -> Iterator[None]:
        """Inside this block the arrays hold the moving average of the weights, for evaluation and saving.

        Raises:
            RuntimeError: The optimizer was made without `averaging`.
        """
        if "average" not in self.state:
            raise RuntimeError("there is no average of the weights; make the optimizer with averaging=0.999, say")
        with self._away("at_average", self.state["average"]):
            yield

    @contextlib.contextmanager
    def _away(self, where: str, points: Mapping[str, Array]) -> Iterator[None]:
        """Have other values in the arrays for the length of a with block, then put back exactly what they held."""
        with self._lock:
            self._refuse_if_moved(where)
            kept = {name: self.params[name].copy() for name in points}
            self._place(points)
            self._moved = where
        try:
            yield
        finally:
            with self._lock:
                self._moved = ""
                self._place(kept)

    def save(self, path: str | Path) -> None:
        """Save weights, states, hyperparameters and the number of the step as a safetensors file.

        Every tensor has a key by name, such as `x/W1` or `m/W1`; `x` are always the weights themselves, and where the
        arrays hold the point ahead, that is saved too, as `lookahead/W1`. The file replaces an older one in one
        indivisible step: it is either the old one or the new one, whole. A schedule is a function and is not saved.

        Raises:
            OSError: The file cannot be written.
            RuntimeError: The arrays hold something else at the moment (inside `at_weights` and such).
        """
        with self._lock:
            self._refuse_if_moved("save")
            saving.save(self._training(), path)

    def load(self, path: str | Path) -> None:
        """Go on from a file that `save` wrote: weights, states, hyperparameters and the number of the step.

        A schedule of this optimizer stays in place; other hyperparameters are those of the file. With the same
        schedules, training goes on bit for bit.

        Raises:
            FileNotFoundError: There is no such file.
            CheckpointError: The file is damaged, not downslope's, or of another rule, other options or other arrays.
                Nothing has been changed.
        """
        with self._lock:
            self._refuse_if_moved("load")
            loaded = saving.load(self._training(), path)
            self._groups, self._max_norm = list(loaded.groups), loaded.max_norm
            self.skipped = loaded.skipped
            if self._seed is not None and "seed" in loaded.record:
                self._seed = self._table.head.seed = loaded.record["seed"]
            self._restart(loaded.t)

    def _training(self) -> ArrayTraining:
        return ArrayTraining(self.params, self.state, self._groups, self._max_norm, self.t, self.skipped, self._seed)

    def __repr__(self) -> str:
        weights = sum(array.size for array in self.params.values())
        return f"<Optimizer {self.rule.name}: {len(self.params)} array(s), {weights:,} weights, t={self.t}>"

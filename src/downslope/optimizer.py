"""The optimizer for NumPy arrays."""

from __future__ import annotations

import contextlib
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from downslope import checkpoint
from downslope.formula import Range, Rule, check_number, unknown
from downslope.groups import (
    Array,
    Group,
    Schedule,
    check_gradients,
    check_separate,
    check_weights,
    check_writable,
    lay_out,
)
from downslope.interpret import interpret
from downslope.options import compose, stored_point
from downslope.trace import Program

POLICIES = ("keep", "raise", "skip")


class NonFiniteGradientError(ValueError):
    """A gradient holds nan or infinity, and the optimizer was told to raise; nothing was changed."""


class Optimizer:
    """Updates NumPy arrays in place by any rule, all arrays in one compiled pass over memory.

    Args:
        params: What to train, float32 or float64: an array, a list of arrays, a dict name → array, or parameter
            groups, a list of dicts such as `{"params": {"W": W}, "lr": 0.1}` whose other entries are hyperparameters of
            that group. The arrays are updated in place.
        rule: The rule, one of downslope's or your own.
        weight_decay: Adds `weight_decay * x` to the gradient, that of the loss plus `weight_decay/2 * sum(x**2)`.
        decoupled: Applies the weight decay to the weights instead: `x - lr * weight_decay * x`, before the step
            (Loshchilov & Hutter, 2019).
        max_norm: Scales all gradients by `max_norm / norm` when their common Euclidean norm is larger (Pascanu et
            al., 2013). Costs one more read of the gradients.
        averaging: Decay of an exponential moving average of the weights, `averaging * average + (1 - averaging) * x`,
            starting from the initial weights; see `at_average`.
        maximize: Walk up the gradient instead of down.
        nonfinite: What to do when a gradient holds nan or infinity: "keep" lets it through, "raise" raises, "skip"
            leaves everything as it is and counts the step in `skipped`. Both look at all gradients before anything
            is written, in the same launch, which costs one more read of the gradients.
        lookahead: For a rule that takes its gradient ahead of the weights: "stored" keeps the point ahead in the
            arrays, so that an ordinary loop takes its gradient there (`at_weights` moves to the weights themselves);
            "explicit" keeps the weights in the arrays, and the gradient is to be taken inside `at_lookahead`.
        threads: How many threads may share a launch; by default as many as there are processors. Small launches use
            one.
        **hyperparameters: The rule's hyperparameters: numbers, or schedules, functions of the number of the step.

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

    def __init__(
        self,
        params: Any,
        rule: Rule,
        *,
        weight_decay: float | Schedule | None = None,
        decoupled: bool = False,
        max_norm: float | None = None,
        averaging: float | Schedule | None = None,
        maximize: bool = False,
        nonfinite: Literal["keep", "raise", "skip"] = "keep",
        lookahead: Literal["stored", "explicit"] = "stored",
        threads: int | None = None,
        **hyperparameters: float | bool | Schedule,
    ):
        if not isinstance(rule, Rule):
            raise TypeError(
                f"rule={rule!r} is not a rule; pass one such as downslope.adam, or decorate yours with @rule"
            )
        if nonfinite not in POLICIES:
            raise ValueError(f"nonfinite={nonfinite!r} is unknown; choose one of {', '.join(POLICIES)}")
        if lookahead not in ("stored", "explicit"):
            raise ValueError(f"lookahead={lookahead!r} is unknown; choose stored or explicit")
        self._layout, arrays, settings, names = lay_out(params)
        dtype = check_weights(arrays)
        optional = {"weight_decay": weight_decay, "averaging": averaging}
        hyperparameters |= {name: value for name, value in optional.items() if value is not None}
        own = {*rule.hyperparameters, *rule.flags}
        given = {*hyperparameters, *(name for group in settings for name in group)}
        flags = {name: rule.checked(name, hyperparameters.pop(name)) for name in rule.flags if name in hyperparameters}
        self._options = {
            "max_norm": max_norm is not None,
            "maximize": bool(maximize),
            "weight_decay": "weight_decay" in given and "weight_decay" not in own,
            "decoupled": bool(decoupled),
            "averaging": "averaging" in given and "averaging" not in own,
            "stored_ahead": lookahead == "stored" and rule.ahead is not None,
        }
        self.rule = rule
        self.flags: Mapping[str, bool] = MappingProxyType({**rule.flags, **flags})
        self._program = compose(rule, **self._options, **self.flags)
        self._max_norm = None if max_norm is None else check_number("max_norm", max_norm, Range(0.0, np.inf))
        self._nonfinite = nonfinite
        self._groups = [
            Group(group_names, self._settings(hyperparameters, own_settings), dict(rule.scalar_states))
            for group_names, own_settings in zip(names, settings, strict=True)
        ]
        self.params: Mapping[str, Array] = MappingProxyType(arrays)
        self.t = 0
        self.skipped = 0
        self._moved = ""
        self._lock = threading.Lock()
        self._prepare(dtype, threads)

    def _settings(self, shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, float | Schedule]:
        """A group's hyperparameters: its own, else the shared ones, else the defaults; options count as 0 then."""
        result: dict[str, float | Schedule] = {}
        optional = {name: 0.0 for name in ("weight_decay", "averaging") if name not in self.rule.hyperparameters}
        defaults = {**self._program.hyperparameters, **{k: optional[k] for k in optional if self._options[k]}}
        for name, value in {**defaults, **shared, **own}.items():
            if value is None:
                raise TypeError(f"{self.rule.name} has no default for {name}; give {name}=...")
            result[name] = self._checked(name, value)
        return result

    def _checked(self, name: str, value: Any) -> float | Schedule:
        if name in self._program.hyperparameters:
            if callable(value):
                schedule: Schedule = value
                check_number(f"{name} at t=1", schedule(1), self._program.ranges[name])
                return schedule
            return check_number(name, value, self._program.ranges[name])
        fixed = {*self.rule.flags, "decoupled", "max_norm", "maximize", "nonfinite", "lookahead", "threads"}
        if name in fixed or name in ("weight_decay", "averaging"):
            raise TypeError(f"{name} is settled for the whole optimizer when it is made; it cannot be set here")
        options = {"weight_decay", "averaging", *fixed} - {*self.rule.flags}
        raise unknown(
            f"Optimizer with the rule {self.rule.name}",
            name,
            [*self._program.hyperparameters, *self.rule.flags, *sorted(options)],
        )

    def _prepare(self, dtype: np.dtype[Any], threads: int | None) -> None:
        """Make the states, compile the kernel and lay out the slot table."""
        from downslope.backends import threads as pool
        from downslope.backends.numba import Kernel, SlotTable

        if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
            raise ValueError(f"threads={threads!r} must be a whole number of at least 1")
        self._workers = threads or pool.available()
        self.state: Mapping[str, Mapping[str, Array]] = MappingProxyType(
            {
                state: MappingProxyType(
                    {
                        name: np.array(array) if initial == "x" else np.full(array.shape, initial, dtype)
                        for name, array in self.params.items()
                    }
                )
                for state, initial in self._program.states.items()
            }
        )
        self._kernel = Kernel(self._program, dtype)
        rows = [k for k, group in enumerate(self._groups) for _ in group.names]
        held = [
            [np.asarray(array), *(self.state[state][name] for state in self.state)]
            for name, array in self.params.items()
        ]
        self._table = SlotTable(held, rows, dtype)
        self._names = list(self.params)
        self._shapes = {name: array.shape for name, array in self.params.items()}
        self._coefficients = np.zeros((len(self._groups), self._kernel.width), dtype)
        self._packed = struct.Struct(f"{self._kernel.width}{'f' if dtype.itemsize == 4 else 'd'}")
        if self._options["stored_ahead"]:
            self._shift(to_weights=False)
        self._refresh()
        self._surveys = self._nonfinite != "keep" or self._max_norm is not None

    def _refresh(self) -> None:
        """Note that the coefficients must be worked out anew, and whether they must at every step."""
        moving = {"t", "grad_scale", *self._program.scalar_states}
        self._changes = any(group.scheduled for group in self._groups) or not moving.isdisjoint(self._program.scalars)
        self._stale = True

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
                raise RuntimeError(f"step() inside {self._moved}(): leave the with block first, nothing was changed")
            flat = self._layout.flatten(gradients)
            table = self._table
            if table.take(flat):
                flat = self._readable(flat)
            t = self.t + 1
            scale = 1.0
            if self._surveys:
                norm, bad = table.survey(self._workers)
                if bad and self._nonfinite != "keep":
                    if self._nonfinite == "raise":
                        self._raise_nonfinite(flat)
                    self.skipped += 1
                    return
                if self._max_norm is not None and not norm <= self._max_norm:
                    scale = self._max_norm / norm
            scalar_states = self._work_out(t, scale)
            self._kernel.launch(table.slots, self._coefficients, table.total, self._workers)
            self.t = t
            for group, new in scalar_states:
                group.scalar_states = new

    def _work_out(self, t: int, scale: float) -> list[tuple[Group, dict[str, float]]]:
        """Fill the table of coefficients for step `t`, and return each group's new scalar states."""
        if not self._stale:
            return []
        program, width = self._program, self._kernel.width
        rows = [self._kernel.coefficients(group.scalars(program, t, scale)) for group in self._groups]
        for k, row in enumerate(rows):
            try:
                self._packed.pack_into(self._coefficients.data, k * self._packed.size, *row[:width])
            except OverflowError:  # beyond float32: infinity, as the conversion of an array has it
                with np.errstate(over="ignore"):
                    self._coefficients[k] = row[:width]
        self._stale = self._changes
        if not program.scalar_states:
            return []
        return [
            (group, dict(zip(program.scalar_outputs, row[width:], strict=True)))
            for group, row in zip(self._groups, rows, strict=True)
        ]

    def _readable(self, gradients: Sequence[Any]) -> list[Array]:
        """The gradients, copied where a kernel cannot read them as they are, with their addresses in the table."""
        weights = list(self.params.values())
        for name, arrays in zip(self._names, self._table.held, strict=True):
            for array in arrays:
                check_writable(name, array)
                same = array.shape == self._shapes[name] and array.dtype == self._table.dtype
                if not same:
                    raise ValueError(
                        f"the parameter {name!r} or one of its states was resized or retyped in place since the "
                        "optimizer was made; make a new optimizer for it"
                    )
        spans = dict(self.params)
        spans |= {
            f"{name} ({state})": array for state, by_name in self.state.items() for name, array in by_name.items()
        }
        check_separate(spans)
        self._table.locate()
        ready = check_gradients(self._names, weights, gradients)
        for k in range(len(ready)):
            plain = ready[k] if type(ready[k]) is np.ndarray else ready[k].view(np.ndarray)
            contiguous = plain.flags.c_contiguous and plain.flags.aligned
            shared = any(np.may_share_memory(plain, array) for array in spans.values())
            singleton = plain.dtype is self._table.dtype
            ready[k] = (
                plain if contiguous and singleton and not shared else np.array(plain, self._table.dtype, order="C")
            )
        slot = self._table.take(ready)
        if slot:
            raise RuntimeError(f"the arrays of {self._names[slot - 1]!r} changed while they were being checked")
        return ready

    def _raise_nonfinite(self, gradients: Sequence[Any]) -> None:
        counts = {
            name: int(np.size(g) - np.count_nonzero(np.isfinite(g)))
            for name, g in zip(self._names, gradients, strict=True)
        }
        found = ", ".join(f"{name!r} ({count} of {self.params[name].size})" for name, count in counts.items() if count)
        raise NonFiniteGradientError(
            f"nan or infinity in the gradient of {found} at step {self.t + 1}; nothing was changed. "
            "A lower learning rate or max_norm=... may help; nonfinite='skip' leaves such steps out"
        )

    @property
    def groups(self) -> tuple[Mapping[str, float | Schedule], ...]:
        """The hyperparameters of each group, to read; `set` changes them."""
        return tuple(MappingProxyType(group.hyperparameters) for group in self._groups)

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
        checked = {name: self._checked(name, value) for name, value in hyperparameters.items()}
        with self._lock, self._at_weights_if_stored():
            for changed in self._groups if group is None else [self._groups[group]]:
                changed.set(checked)
            self._refresh()

    @contextlib.contextmanager
    def _at_weights_if_stored(self) -> Iterator[None]:
        """Hyperparameters of the look-ahead change while the arrays hold the weights themselves."""
        stored = self._options["stored_ahead"] and not self._moved
        if stored:
            self._shift(to_weights=True)
        yield
        if stored:
            self._shift(to_weights=False)

    def _shift(self, *, to_weights: bool) -> None:
        """Move the arrays between the weights and the point ahead, for the step that comes next."""
        program: Program = stored_point(self.rule, to_weights=to_weights, **self.flags)
        for group in self._groups:
            scalars = dict(zip(program.scalars, group.scalars(program, self.t + 1, 1.0), strict=True))
            for name in group.names:
                array = self.params[name]
                states = {state: by_name[name] for state, by_name in self.state.items()}
                array[...] = interpret(program, {"x": array, **states}, scalars)["x"]

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
        with self._away("at_weights", lambda: self._shift(to_weights=True), self._options["stored_ahead"]):
            yield

    @contextlib.contextmanager
    def at_lookahead(self) -> Iterator[None]:
        """Inside this block the arrays hold the point where the gradient is to be taken (`lookahead="explicit"`)."""
        explicit = self.rule.ahead is not None and not self._options["stored_ahead"]
        with self._away("at_lookahead", lambda: self._shift(to_weights=False), explicit):
            yield

    @contextlib.contextmanager
    def at_average(self) -> Iterator[None]:
        """Inside this block the arrays hold the moving average of the weights, for evaluation and saving.

        Raises:
            RuntimeError: The optimizer was made without `averaging`.
        """
        if "average" not in self.state:
            raise RuntimeError("there is no average of the weights; make the optimizer with averaging=0.999, say")

        def swap_in() -> None:
            for name, array in self.params.items():
                array[...] = self.state["average"][name]

        with self._away("at_average", swap_in, True):
            yield

    @contextlib.contextmanager
    def _away(self, where: str, move: Any, needed: bool) -> Iterator[None]:
        """Move the arrays for the length of a with block, and put back exactly what they held."""
        with self._lock:
            if self._moved:
                raise RuntimeError(f"{where}() inside {self._moved}(): leave that with block first")
            kept = {name: array.copy() for name, array in self.params.items()} if needed else {}
            if needed:
                move()
            self._moved = where
        try:
            yield
        finally:
            with self._lock:
                for name, array in kept.items():
                    self.params[name][...] = array
                self._moved = ""

    def save(self, path: str | Path) -> None:
        """Save weights, states, hyperparameters and the number of the step as a safetensors file.

        Every tensor has a key by name, such as `x/W1` or `m/W1`. The file replaces an older one in one indivisible
        step: it is either the old one or the new one, whole. A schedule is a function and is not saved.

        Raises:
            OSError: The file cannot be written.
        """
        with self._lock:
            checkpoint.write(Path(path), self._tensors(), self._record())

    def load(self, path: str | Path) -> None:
        """Go on from a file that `save` wrote: weights, states, hyperparameters and the number of the step.

        A schedule of this optimizer stays in place; other hyperparameters are those of the file.

        Raises:
            CheckpointError: The file is damaged, not downslope's, or of another rule, other options or other arrays.
                Nothing has been changed.
        """
        with self._lock:
            if self._moved:
                raise RuntimeError(f"load() inside {self._moved}(): leave the with block first, nothing was changed")
            tensors, record = checkpoint.read(Path(path))
            here = self._record()
            checkpoint.check_same(record, here, ("rule", "flags", "options", "formula"))
            mine = self._tensors()
            checkpoint.check_tensors(tensors, mine)
            for name, array in self.params.items():
                check_writable(name, array)
            restored = []
            for group, saved in zip(self._groups, checkpoint.check_groups(record, here), strict=True):
                kept = {name: value for name, value in group.hyperparameters.items() if callable(value)}
                numbers = {name: value for name, value in saved["hyperparameters"].items() if value is not None}
                try:
                    checked = {name: self._checked(name, value) for name, value in numbers.items()}
                except ValueError as error:
                    raise checkpoint.CheckpointError(f"{path}: {error}") from None
                restored.append({**group.hyperparameters, **checked, **kept})
            for key, array in mine.items():
                array[...] = tensors[key]
            for group, hyperparameters, saved in zip(self._groups, restored, record["groups"], strict=True):
                group.set(hyperparameters)
                group.scalar_states = {name: float(value) for name, value in saved["scalar_states"].items()}
            self.t, self.skipped = record["t"], record["skipped"]
            self._refresh()

    def _tensors(self) -> dict[str, Array]:
        """Everything that is saved, by the key it is saved under."""
        arrays = {"x": self.params, **self.state}
        return {f"{state}/{name}": array for state, by_name in arrays.items() for name, array in by_name.items()}

    def _record(self) -> dict[str, Any]:
        """What the file says besides the tensors."""
        return {
            "rule": self.rule.name,
            "formula": checkpoint.fingerprint(self._program),
            "flags": dict(self.flags),
            "options": dict(self._options),
            "t": self.t,
            "skipped": self.skipped,
            "groups": [
                {
                    "names": group.names,
                    "hyperparameters": {k: None if callable(v) else v for k, v in group.hyperparameters.items()},
                    "scalar_states": group.scalar_states,
                }
                for group in self._groups
            ],
        }

    def __repr__(self) -> str:
        weights = sum(array.size for array in self.params.values())
        return f"<Optimizer {self.rule.name}: {len(self.params)} array(s), {weights:,} weights, t={self.t}>"

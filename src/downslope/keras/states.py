"""The variables that an optimizer keeps, and where those of its model are: at the weights or at the point ahead."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from downslope.keras.precision import array_of, number, precision, tensor
from downslope.keras.settings import KerasSettings
from downslope.targets.shapes import held_shape

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Kept:
    """What variables held before they were given other values, these values, and how many steps had been done."""

    arrays: list[Array]
    placed: list[Array]
    done: float
    ahead: bool


@dataclass(eq=False)
class States:
    """The variables an optimizer keeps besides those of Keras's base class.

    Attributes:
        optimizer: The optimizer, of which the base class is asked.
        settings: Its settings.
        by_name: Per state a variable for each of the model's; None for one that Keras overwrites by itself.
        scalars: The scalar states.
        ahead: 1 while the model's variables hold the point ahead, 0 while they hold the weights; None for a rule
            whose points are not stored.
    """

    optimizer: keras.optimizers.Optimizer
    settings: KerasSettings
    by_name: dict[str, list[Any]] = field(default_factory=dict)
    scalars: dict[str, Any] = field(default_factory=dict)
    ahead: Any = None

    @classmethod
    def begun(
        cls, optimizer: keras.optimizers.Optimizer, settings: KerasSettings, order: Iterable[Sequence[str]]
    ) -> States:
        """New variables for an optimizer that knows its model's, each at its initial value.

        Args:
            optimizer: The optimizer.
            settings: Its settings.
            order: The order of the states' variables: sets of states, each set variable by variable.
        """
        made = cls(optimizer, settings, {name: [] for name in settings.program.states})
        for names in order:
            for variable in made.variables:
                for name in names:
                    made.by_name[name].append(made._new(variable, name))
        dtype = precision(made.variables)
        for name, start in settings.program.scalar_states.items():
            made.scalars[name] = made._new_scalar(name, start, dtype)
        if settings.move is not None:
            made.ahead = made._new_scalar("ahead", 0.0, dtype)
        return made

    def _new(self, variable: Any, name: str) -> Any:
        """A new state of a variable."""
        if getattr(variable, "overwrite_with_gradient", False):
            return None
        start = self.settings.program.states[name]

        def copied(shape: Any, dtype: Any = None) -> Any:
            return ops.copy(tensor(variable, dtype))

        def at_rate(shape: Any, dtype: Any = None) -> Any:
            return ops.full(shape, tensor(self.optimizer.learning_rate, dtype or "float32"), dtype)

        if start == "x":
            initializer: Any = copied
        elif start == "lr":  # which is a variable, or what a schedule gives for the first step
            initializer = at_rate
        else:
            initializer = keras.initializers.Constant(self.settings.program.initial(name, self.settings.numbers))
        if name in self.settings.program.spaces:
            shape = held_shape(self.settings.program, name, tuple(variable.shape))
            own = f"{variable.path.replace('/', '_')}_{name}"
            dtype = {"bfloat16": "float32", "float16": "float32"}.get(variable.dtype, variable.dtype)
            return self.optimizer.add_variable(shape, initializer, dtype, name=own)  # next to no memory
        return self.optimizer.add_variable_from_reference(variable, name=name, initializer=initializer)

    def _new_scalar(self, name: str, start: float, dtype: str) -> Any:
        """A new variable that is one number."""
        initializer = keras.initializers.Constant(start)
        if keras.backend.backend() == "torch":
            dtype = "float64"  # where a step is compiled code, which has them so
        # Every replica of a distributed training computes the same value.
        return self.optimizer.add_variable((), initializer, dtype, aggregation="only_first_replica", name=name)

    @property
    def variables(self) -> Sequence[Any]:
        """The model's variables."""
        variables: Sequence[Any] = self.optimizer._trainable_variables
        return variables

    @property
    def are_ahead(self) -> bool:
        """Whether the model's variables hold points ahead of the weights at the moment."""
        return self.ahead is not None and number(self.ahead) > 0

    def moved(self, *, to_weights: bool) -> list[Array]:
        """Where the model's variables would be at the weights, or at the points ahead of them.

        Args:
            to_weights: Which way to go; the rule has a look-ahead.
        """
        ahead = self.settings.settled.ahead
        assert ahead is not None
        known: dict[str, Any] = {**self.settings.numbers, "t": number(self.optimizer.iterations) + 1}
        known |= {name: number(value) for name, value in self.scalars.items()}
        if "lr" in ahead.scalars:
            known["lr"] = number(self.optimizer.learning_rate)
        scalars = {name: known[name] for name in ahead.scalars}
        found = []
        for k, variable in enumerate(self.variables):
            array = array_of(variable)
            states = {name: array_of(of[k]) for name, of in self.by_name.items() if of[k] is not None}
            if len(states) < len(self.by_name):
                found.append(array)  # a variable that Keras overwrites by itself
                continue
            body = np.float64 if array.dtype == np.float64 else np.float32
            given = {name: state.astype(body) for name, state in states.items()}
            new = ahead.move(array.astype(body), given, scalars, to_weights=to_weights)
            found.append(new.astype(array.dtype))
        return found

    def place(self, arrays: list[Array]) -> None:
        """Write values into the model's variables."""
        for variable, array in zip(self.variables, arrays, strict=True):
            variable.assign(array)

    def to_weights(self) -> None:
        """Have the model's variables hold the weights from now on; the next step goes on from there."""
        if self.are_ahead:
            self.place(self.moved(to_weights=True))
            self.ahead.assign(0.0)

    def to_lookahead(self) -> None:
        """Have the model's variables hold the points ahead, where the next gradient is to be taken."""
        if self.ahead is not None and not self.are_ahead:
            self.place(self.moved(to_weights=False))
            self.ahead.assign(1.0)

    def weights(self) -> list[Array] | None:
        """The weights, if the model's variables hold something else."""
        return self.moved(to_weights=True) if self.are_ahead else None

    def explicit(self) -> list[Array] | None:
        """The points ahead, if the variables hold the weights and the caller looks ahead by himself."""
        settled = self.settings.settled
        wanted = self.optimizer.built and settled.rule.ahead is not None and not settled.stored_ahead
        return self.moved(to_weights=False) if wanted else None

    def leave(self, arrays: list[Array] | None) -> Kept | None:
        """Write other values into the model's variables; `come_back` undoes it."""
        if arrays is None:
            return None
        held = [array_of(variable) for variable in self.variables]
        kept = Kept(held, arrays, number(self.optimizer._iterations), self.are_ahead)
        self.place(arrays)
        if kept.ahead:
            self.ahead.assign(0.0)
        return kept

    def come_back(self, kept: Kept | None) -> None:
        """Put back exactly what the variables held, unless there have been steps, which went on from the other values.

        Weights that somebody has set meanwhile stay what training goes on from.
        """
        if kept is None or number(self.optimizer._iterations) != kept.done:
            return
        if kept.ahead and (self.are_ahead or not self._hold(kept.placed)):
            self.to_lookahead()
            return
        self.place(kept.arrays)
        if kept.ahead:
            self.ahead.assign(1.0)

    def _hold(self, arrays: list[Array]) -> bool:
        held = zip(self.variables, arrays, strict=True)
        return all(array_of(variable).tobytes() == array.tobytes() for variable, array in held)

    @contextlib.contextmanager
    def away(self, arrays: list[Array] | None) -> Iterator[None]:
        """Have other values in the model's variables for the length of a with block."""
        kept = self.leave(arrays)
        try:
            yield
        finally:
            self.come_back(kept)

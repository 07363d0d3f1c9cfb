"""A Keras optimizer with the variables it trains as a training that can be saved by name."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from downslope.keras.precision import array_of, number
from downslope.keras.states import States
from downslope.training import saving
from downslope.training.checkpoint import CheckpointError, Raw
from downslope.training.groups import Array, Group
from downslope.training.protocol import Kind, Loaded
from downslope.training.settings import Schedule


def save(states: States, path: str | Path, names: Any, own_names: Mapping[str, str]) -> None:  # noqa: D417
    """Save the weights the optimizer trains, its states and settings, by name, as a safetensors file.

    The optimizers for NumPy arrays, PyTorch and other frameworks go on from it, with the same rule and the same names
    and shapes of weights. Tensors have keys such as `x/dense/kernel` or `velocity/dense/kernel`; `x` are always the
    weights themselves. Keras's weight decay is saved as the option `weight_decay` with `decoupled=True`, its
    `global_clipnorm` as `max_norm`. A schedule of the learning rate is a function and is not saved; neither is a loss
    scale, which belongs to the loss. The file holds no code, and replaces an older one in one indivisible step.

    Args:
        path: The file to write.
        model: The model it trains, needed only if the optimizer does not have its variables yet.
        names: The names of the trainable variables, a list in their order, or a dict that gives new names for some of
            the default ones. These are the variables' paths in the model, `dense/kernel`, where layers with numbers
            that Keras chose are counted anew, from the first on, so that a model has the same names in every process.

    Raises:
        ValueError: There is something that the format has no place for (`clipnorm`, `clipvalue`, `use_ema`, gradients
            accumulated for a step to come), or the names do not fit.
        OSError: The file cannot be written.

    Example:
        >>> import pathlib, tempfile, keras, numpy as np, downslope, downslope.keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(downslope.keras.Adam(), loss="mse")
        >>> history = model.fit(np.eye(2), np.ones((2, 1)), verbose=0)
        >>> path = pathlib.Path(tempfile.mkdtemp(), "training.safetensors")
        >>> model.optimizer.save(path)
        >>> kernel, bias = np.zeros((2, 1), "float32"), np.zeros(1, "float32")
        >>> elsewhere = downslope.Optimizer({"dense/kernel": kernel, "dense/bias": bias}, downslope.dialects.keras.adam)
        >>> elsewhere.load(path)
        >>> elsewhere.t, bool((kernel == model.get_weights()[0]).all())
        (1, True)
    """
    training = KerasTraining(states, names, own_names)
    if number(states.optimizer._iterations) != training.t * training.every:
        raise ValueError("gradients have been accumulated for a step that is still to come; save after it")
    saving.save(training, path)


def load(states: States, path: str | Path, names: Any, own_names: Mapping[str, str]) -> None:  # noqa: D417
    """Go on from a file that `save` wrote, here or in another framework.

    Weights, states, the number of steps and, unless there is a schedule, the learning rate become those of the file.
    All other hyperparameters must be the optimizer's own, because a compiled training step keeps the numbers it was
    made with. After that training goes on bit for bit.

    Args:
        path: The file to read.
        model: The model it trains, needed only if the optimizer does not have its variables yet.
        names: The names of the trainable variables, as for `save`.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is damaged, not downslope's, or of another rule, other settings, names or shapes.
        ValueError: The optimizer has something that the format has no place for, or the names do not fit.

    In every case nothing has been changed.
    """
    saving.load(KerasTraining(states, names, own_names), path)


class KerasTraining:
    """The variables of a model and those of its optimizer; see `training.protocol.Training`.

    Args:
        states: The optimizer's variables.
        names: The names of the model's; see `save`.
        own_names: The rule's name of each hyperparameter that has another one in this optimizer.

    Attributes:
        every: How many steps of Keras make one of the rule's.

    Raises:
        TypeError: `names` is of another kind.
        ValueError: There is something that the format has no place for, or the names do not fit.
    """

    skipped = 0
    clocks = None
    rounding = None

    def __init__(self, states: States, names: Any, own_names: Mapping[str, str]):
        optimizer = states.optimizer
        _refuse(states)
        self._states, self._own_names = states, own_names
        names = names_of(states.variables, names)
        self._at = {name: k for k, name in enumerate(names)}
        self.every = optimizer.gradient_accumulation_steps or 1
        self.t, self.max_norm = int(number(optimizer.iterations)), optimizer.global_clipnorm
        self.groups = _groups(states, names)

    def kinds(self, name: str) -> dict[str, Kind]:  # noqa: D102
        return {
            what: (keras.backend.standardize_dtype(of[self._at[name]].dtype), tuple(of[self._at[name]].shape))
            for what, of in {"x": self._states.variables, **self._states.by_name}.items()
        }

    def get(self, what: str, name: str) -> Raw:  # noqa: D102
        k = self._at[name]
        if what in self._states.by_name:
            return Raw.of(array_of(self._states.by_name[what][k]))
        elsewhere = self.groups[0].settings.stored_ahead and (what == "x") is self._states.are_ahead
        return Raw.of(self._moved[k] if elsewhere else array_of(self._states.variables[k]))

    @functools.cached_property
    def _moved(self) -> list[Array]:
        """The weights where the variables hold the points ahead, else these."""
        return self._states.moved(to_weights=self._states.are_ahead)

    def adopt(  # noqa: D102
        self, given: Sequence[Mapping[str, float]], max_norm: float | None
    ) -> list[dict[str, float | Schedule]]:
        found: dict[str, tuple[Any, Any]] = {}
        here = {ours: name for name, ours in self._own_names.items()}
        for group, numbers in zip(self.groups, given, strict=True):
            for name, value in numbers.items():
                if name != "lr" and value != group.hyperparameters[name]:
                    found[here.get(name, name)] = (value, group.hyperparameters[name])
        if max_norm != self.max_norm:
            found["global_clipnorm"] = (max_norm, self.max_norm)
        if found:
            said = ", ".join(f"{name}={theirs!r} (here {mine!r})" for name, (theirs, mine) in found.items())
            raise CheckpointError(
                f"the file has {said}, which cannot be changed in an optimizer that has its variables; make one with "
                "these"
            )
        scheduled = callable(self._states.optimizer._learning_rate)
        rates = [{"lr": numbers["lr"]} if "lr" in numbers and not scheduled else {} for numbers in given]
        return [{**group.hyperparameters, **rate} for group, rate in zip(self.groups, rates, strict=True)]

    def put(self, loaded: Loaded) -> None:  # noqa: D102
        states, optimizer = self._states, self._states.optimizer
        done = loaded.t * self.every
        if done > np.iinfo(keras.backend.standardize_dtype(optimizer._iterations.dtype)).max:
            raise CheckpointError(f"the file says t={loaded.t}, more steps than Keras counts on this backend")
        scalar_states = [group.scalar_states for group in loaded.groups]
        if any(values != scalar_states[0] for values in scalar_states):
            raise CheckpointError(
                f"the file's groups have scalar states of their own, {scalar_states!r:.200}; expected one"
            )
        stored = states.ahead is not None
        for what, of in {"lookahead" if stored else "x": states.variables, **states.by_name}.items():
            for name, k in self._at.items():
                of[k].assign(loaded.tensors[what, name].array())
        for name, value in scalar_states[0].items():
            states.scalars[name].assign(value)
        optimizer._iterations.assign(done)
        rate = loaded.groups[0].hyperparameters.get("lr")
        if rate is not None and not callable(rate):
            optimizer.learning_rate = rate
        if optimizer.gradient_accumulation_steps:
            for variable in optimizer._accumulated_gradients:
                variable.assign(np.zeros(variable.shape))
        if stored:
            states.ahead.assign(1.0)


def _groups(states: States, names: list[str]) -> list[Group]:
    """What the optimizer computes, as the other front ends say it; variables without decay are a second group."""
    optimizer, settings, rule = states.optimizer, states.settings.settled, states.settings.settled.rule
    numbers: dict[str, Any] = dict(states.settings.numbers)
    if "lr" in rule.hyperparameters:
        rate = number(optimizer.learning_rate)
        numbers["lr"] = (lambda t: rate) if callable(optimizer._learning_rate) else rate
    members: list[tuple[list[str], dict[str, float]]] = [(names, {})]
    if optimizer.weight_decay is not None and "weight_decay" not in rule.hyperparameters:
        settings = settings.with_options(weight_decay=True, decoupled=True)
        numbers["weight_decay"] = float(optimizer.weight_decay)
        # Keras has no public way to ask which variables were excluded.
        spared = [
            name
            for name, variable in zip(names, states.variables, strict=True)
            if "weight_decay" not in states.settings.numbers and not optimizer._use_weight_decay(variable)
        ]
        members = [([name for name in names if name not in spared], {}), (spared, {"weight_decay": 0.0})]
        members = [(own, given) for own, given in members if own] or [(names, {})]
    settings = settings.with_options(max_norm=optimizer.global_clipnorm is not None)
    scalars = {name: number(value) for name, value in states.scalars.items()}
    return [Group(settings, own, settings.complete({**numbers, **given}), scalars) for own, given in members]


def names_of(variables: Sequence[Any], names: Any = None) -> list[str]:
    """The names of these variables; see `save`.

    Raises:
        TypeError: `names` is of another kind.
        ValueError: `names` does not fit the variables, or two have one name.
    """
    found = default_names([getattr(variable, "path", variable.name) for variable in variables])  # or a tf.Variable's
    if isinstance(names, Mapping):
        unknown = [name for name in names if name not in found]
        if unknown:
            raise ValueError(f"names has {unknown}, which are not among the variables: {found}")
        found = [names.get(name, name) for name in found]
    elif isinstance(names, (list, tuple)):
        if len(names) != len(found):
            raise ValueError(f"names has {len(names)} entries; the optimizer trains {len(found)} variables: {found}")
        found = list(names)
    elif names is not None:
        raise TypeError(f"names={names!r:.60}: give a list of names, or a dict from default names to others")
    if not all(isinstance(name, str) and name for name in found) or len(set(found)) < len(found):
        raise ValueError(f"the variables' names {found} must be different strings that are not empty; give names=...")
    return found


def default_names(paths: Sequence[str]) -> list[str]:
    """Variables' paths with layers counted anew, and without the model's own name where all begin with it.

    Example:
        >>> default_names(["net_3/dense_7/kernel", "net_3/dense_7/bias", "net_3/dense_8/kernel"])
        ['dense/kernel', 'dense/bias', 'dense_1/kernel']
    """
    seen: dict[tuple[str, ...], dict[str, str]] = {}
    found = []
    for path in paths:
        parts: list[str] = []
        for part in path.split("/"):
            base = re.sub(r"_\d+$", "", part)
            known = seen.setdefault((*parts, base), {})
            parts.append(known.setdefault(part, f"{base}_{len(known)}" if known else base))
        found.append(parts)
    if len({parts[0] for parts in found}) == 1 and min(map(len, found)) > 2:
        found = [parts[1:] for parts in found]
    return ["/".join(parts) for parts in found]


def _refuse(states: States) -> None:
    """Refuse what the format cannot say."""
    optimizer = states.optimizer
    for name in ("clipnorm", "clipvalue"):
        if getattr(optimizer, name) is not None:
            raise ValueError(
                f"{name}={getattr(optimizer, name)!r} is Keras's own, and other frameworks would go on without it; "
                "global_clipnorm can be saved; for Keras itself there is model.save"
            )
    if optimizer.use_ema:
        raise ValueError("use_ema=True: Keras's moving average is not a part of the format; use model.save for it")
    if any(variable is None for of in states.by_name.values() for variable in of):
        raise ValueError("a variable is overwritten with its gradient by Keras (float8), which the format cannot say")

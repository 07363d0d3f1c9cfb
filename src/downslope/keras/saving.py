"""Saving an optimizer and the weights it trains by name, in the format that all of downslope's optimizers share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from downslope.keras import points
from downslope.training import checkpoint
from downslope.training.checkpoint import CheckpointError, Raw
from downslope.training.plan import Plan

if TYPE_CHECKING:
    from downslope.keras.optimizer import Optimizer

Array = np.ndarray[Any, Any]


def save(optimizer: Optimizer, path: str | Path, model: Any = None, names: Any = None) -> None:
    """Save the weights the optimizer trains, its states and settings, by name, as a safetensors file.

    The optimizers for NumPy arrays, PyTorch and other frameworks go on from it, with the same rule and the same names
    and shapes of weights. Tensors have keys such as `x/dense/kernel` or `velocity/dense/kernel`; `x` are always the
    weights themselves. Keras's weight decay is saved as the option `weight_decay` with `decoupled=True`, its
    `global_clipnorm` as `max_norm`. A schedule of the learning rate is a function and is not saved; neither is a loss
    scale, which belongs to the loss. The file holds no code, and replaces an older one in one indivisible step.

    Args:
        optimizer: The optimizer.
        path: The file.
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
    _build(optimizer, model)
    _refuse(optimizer)
    t = int(points.number(optimizer.iterations))
    if points.number(optimizer._iterations) != t * (optimizer.gradient_accumulation_steps or 1):
        raise ValueError("gradients have been accumulated for a step that is still to come; save after it")
    variables, own = optimizer._trainable_variables, names_of(optimizer, names)
    plan = _plan(optimizer, own)
    for group in plan.groups:
        group.scalar_states.update({name: points.number(value) for name, value in optimizer._states.scalars.items()})
    record = {**plan.record(t), "t": t, "skipped": 0}
    if callable(optimizer._learning_rate) and "lr" in optimizer.rule.hyperparameters:
        for entry in record["groups"]:
            entry["hyperparameters"]["lr"] = None
    held = [points.array_of(variable) for variable in variables]
    arrays = {"x": held}
    if plan.settings.stored_ahead:
        ahead = points.are_ahead(optimizer)
        other = points.moved(optimizer, to_weights=ahead)
        arrays = {"x": other, "lookahead": held} if ahead else {"x": held, "lookahead": other}
    arrays |= {state: [points.array_of(v) for v in of] for state, of in optimizer._states.by_name.items()}
    checkpoint.write(Path(path), _flat(arrays, own), record)


def load(optimizer: Optimizer, path: str | Path, model: Any = None, names: Any = None) -> None:
    """Go on from a file that `save` wrote, here or in another framework.

    Weights, states, the number of steps and, unless there is a schedule, the learning rate become those of the file.
    All other hyperparameters must be the optimizer's own, because a compiled training step keeps the numbers it was
    made with. After that training goes on bit for bit.

    Args:
        optimizer: The optimizer.
        path: The file.
        model: The model it trains, needed only if the optimizer does not have its variables yet.
        names: The names of the trainable variables, as for `save`.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is damaged, not downslope's, or of another rule, other settings, names or shapes.
        ValueError: The optimizer has something that the format has no place for, or the names do not fit.

        In every case nothing has been changed.
    """
    _build(optimizer, model)
    _refuse(optimizer)
    variables, own = optimizer._trainable_variables, names_of(optimizer, names)
    tensors, record = checkpoint.read_raw(Path(path))
    plan = _plan(optimizer, own)
    restored = plan.restored(record)
    _check_numbers(plan, restored, optimizer._NAMES)
    t, _ = checkpoint.counts(record)
    done = t * (optimizer.gradient_accumulation_steps or 1)
    if done > np.iinfo(keras.backend.standardize_dtype(optimizer._iterations.dtype)).max:
        raise CheckpointError(f"the file says t={t}, more steps than Keras counts on this backend")
    ahead = {key: tensors.pop(key) for key in list(tensors) if key.startswith("lookahead/")}
    states = optimizer._states.by_name
    mine = _flat({"x": variables, **states}, own)
    checkpoint.check_tensors(tensors, {key: _kind(variable) for key, variable in mine.items()})
    if ahead:
        checkpoint.check_tensors(ahead, {f"lookahead/{name}": _kind(v) for name, v in zip(own, variables, strict=True)})
    scalar_states = [group.scalar_states for group in restored.groups]
    if any(values != scalar_states[0] for values in scalar_states):
        raise CheckpointError(
            f"the file's groups have scalar states of their own, {scalar_states!r:.200}; expected one"
        )
    rate = restored.groups[0].hyperparameters.get("lr")
    saved_rate = record["groups"][0]["hyperparameters"].get("lr")
    for key, variable in mine.items():
        variable.assign(tensors[key].array())
    for name, value in scalar_states[0].items():
        optimizer._states.scalars[name].assign(value)
    optimizer._iterations.assign(done)
    if saved_rate is not None and not callable(optimizer._learning_rate):
        optimizer.learning_rate = rate
    if optimizer.gradient_accumulation_steps:
        for variable in optimizer._accumulated_gradients:
            variable.assign(np.zeros(variable.shape))
    if optimizer._states.ahead is not None:
        optimizer._states.ahead.assign(0.0)
        if ahead and record.get("lookahead") == restored.lookahead_scalars(t):
            points.place(optimizer, [ahead[f"lookahead/{name}"].array() for name in own])
            optimizer._states.ahead.assign(1.0)
        else:
            points.to_lookahead(optimizer)


def names_of(optimizer: Optimizer, names: Any = None) -> list[str]:
    """The names of the optimizer's variables; see `save`.

    Raises:
        TypeError: `names` is of another kind.
        ValueError: `names` does not fit the variables, or two have one name.
    """
    variables = optimizer._trainable_variables
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


def _build(optimizer: Optimizer, model: Any) -> None:
    if optimizer.built:
        return
    if model is None:
        raise ValueError("the optimizer does not have its variables yet; give the model whose weights it trains")
    optimizer.build(model.trainable_variables)


def _refuse(optimizer: Optimizer) -> None:
    """Refuse what the format cannot say."""
    for name in ("clipnorm", "clipvalue"):
        if getattr(optimizer, name) is not None:
            raise ValueError(
                f"{name}={getattr(optimizer, name)!r} is Keras's own, and other frameworks would go on without it; "
                "global_clipnorm can be saved; for Keras itself there is model.save"
            )
    if optimizer.use_ema:
        raise ValueError("use_ema=True: Keras's moving average is not a part of the format; use model.save for it")
    if any(variable is None for of in optimizer._states.by_name.values() for variable in of):
        raise ValueError("a variable is overwritten with its gradient by Keras (float8), which the format cannot say")


def _plan(optimizer: Optimizer, names: list[str]) -> Plan:
    """What the optimizer computes, as the other front ends say it; variables without decay are a second group."""
    shared: dict[str, Any] = {**optimizer._settings.numbers, **optimizer._settings.settled.choices}
    if "lr" in optimizer.rule.hyperparameters:
        shared["lr"] = points.number(optimizer.learning_rate)
    own = "weight_decay" in optimizer.rule.hyperparameters
    decay = optimizer.weight_decay is not None and not own
    members, settings = [names], [dict[str, Any]()]
    if decay:
        shared["weight_decay"] = float(optimizer.weight_decay)
        # Keras has no public way to ask which variables were excluded.
        decayed = [optimizer._use_weight_decay(variable) for variable in optimizer._trainable_variables]
        rest = [name for name, yes in zip(names, decayed, strict=True) if not yes]
        if rest and "weight_decay" not in optimizer._settings.numbers:
            members = [[name for name in names if name not in rest], rest]
            settings = [{}, {"weight_decay": 0.0}]
            members, settings = (members, settings) if members[0] else ([rest], [{"weight_decay": 0.0}])
    return Plan.make(
        optimizer.rule,
        members,
        settings,
        shared,
        decoupled=decay,
        cautious=optimizer.cautious,
        max_norm=optimizer.global_clipnorm,
        maximize=False,
        stored_ahead=optimizer.lookahead == "stored",
    )


def _check_numbers(plan: Plan, restored: Plan, names: Mapping[str, str]) -> None:
    """Make sure that a file has this optimizer's hyperparameters, but for the learning rate."""
    found: dict[str, tuple[Any, Any]] = {}
    here = {ours: name for name, ours in names.items()}
    for mine, theirs in zip(plan.groups, restored.groups, strict=True):
        for name, value in theirs.hyperparameters.items():
            if name != "lr" and value != mine.hyperparameters[name]:
                found[here.get(name, name)] = (value, mine.hyperparameters[name])
    if restored.max_norm != plan.max_norm:
        found["global_clipnorm"] = (restored.max_norm, plan.max_norm)
    if found:
        said = ", ".join(f"{name}={theirs!r} (here {mine!r})" for name, (theirs, mine) in found.items())
        raise CheckpointError(
            f"the file has {said}, which cannot be changed in an optimizer that has its variables; make one with these"
        )


def _kind(variable: Any) -> Raw:
    """The dtype and shape of a variable, as a file says them."""
    return Raw(keras.backend.standardize_dtype(variable.dtype), tuple(variable.shape), np.empty(0, np.uint8))


def _flat(by_state: Mapping[str, Sequence[Any]], names: Sequence[str]) -> dict[str, Any]:
    return {f"{state}/{name}": v for state, of in by_state.items() for name, v in zip(names, of, strict=True)}

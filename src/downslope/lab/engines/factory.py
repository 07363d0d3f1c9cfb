"""Whether a race can be made of a factory of models, found out before hundreds of its models are trained."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.apart import Apart, RunError
from downslope.lab.engines.learner import Learner, Loss, Models

T = TypeVar("T")

Make = Callable[[int], Any]
"""A factory: it is given a seed and gives a new model."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Made:
    """What was found out about a factory.

    Attributes:
        models: The framework of its models.
        network: What its models are, for people.
        shapes: Those of their weights, by name.
        cautions: What is to be borne in mind, in sentences.
    """

    models: Models
    network: str
    shapes: Shapes
    cautions: tuple[str, ...]


def look_at(
    make: Any, loss: Loss, classes: int | None, sample: NDArray[Any], seeds: tuple[int, int], *, quiet: bool
) -> Made:
    """Have a factory make some models, and look at them.

    Args:
        make: The factory.
        loss: What is to be minimised.
        classes: How many classes there are, for a cross-entropy by name.
        sample: Some rows of what models are given.
        seeds: Two different ones.
        quiet: Whether what it prints is held back.

    Raises:
        ValueError: It is no factory, it raises something, or its models are not new, alike on the same seed, finite and
            of one shape; the message says what to write.
    """
    refuse_instance(make)
    here, there = seeds

    def made(seed: int) -> Any:
        return _told(lambda: Apart(seed, quiet=quiet).call(lambda: make(seed)), f"make({seed})")

    first, again, other = made(here), made(here), made(there)
    models, *others = (models_of(one, loss, classes, sample) for one in (first, again, other))
    if models is None or any(type(one) is not type(models) for one in others):
        kinds = " and ".join(dict.fromkeys(_kind(one) for one in (first, again, other)))
        raise ValueError(
            f"model: {_name(make)} gives {kinds}; "
            "it is to give a torch.nn.Module, a keras.Model or a pair (init, apply) of JAX, for every seed"
        )
    title = models.title(first)
    ways = (first, here), (again, here), (other, there)
    first, again, other = (
        _told(functools.partial(Apart(seed, quiet=quiet).call, functools.partial(models.begun, one, seed)), "making it")
        for one, seed in ways
    )
    if models.places(first) & (models.places(again) | models.places(other)):
        raise ValueError(
            f"model: {_name(make)} gives models that share their weights, so that one run would go on where another "
            f"ended; make a new one in each call, return {models.written(first)}, or copy.deepcopy(...) what all "
            "begin with"
        )
    arrays, repeated, elsewhere = (models.arrays(one) for one in (first, again, other))
    shapes = {name: one.shape for name, one in arrays.items()}
    for those, seed in ((repeated, here), (elsewhere, there)):
        refuse_other_shapes(make, shapes, those, seed)
    if names := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise ValueError(f"model: {_name(make)} gives weights that are not finite, {names[0]}; begin with finite ones")
    if (name := _differing(arrays, repeated)) is not None:
        raise ValueError(
            f"model: {_name(make)} called twice with the seed {here} gives different weights, {name}; take all "
            "randomness from the seed, or from generators that you do not seed yourself: they are set by it"
        )
    cautions: tuple[str, ...] = ()
    if _differing(arrays, elsewhere) is None:
        cautions = (
            "The model begins with the same weights on every seed: what was varied are "
            "the split of the data and the order of batches, and the verdict is about this beginning.",
        )
    return Made(models, title, shapes, cautions)


def try_out(begin: Callable[[], Learner], rows: NDArray[np.int32], loss: Loss, *, quiet: bool, seed: int) -> Learner:
    """Evaluate a new model, and let it take one step.

    Args:
        begin: Makes it.
        rows: The numbers of the rows of a batch.
        loss: What is minimised.
        quiet: Whether what it prints is held back.
        seed: The seed of the generators.

    Returns:
        The model after that step.

    Raises:
        ValueError: The model or the loss raises something, gives what is not finite, or does not fit the data.
    """
    apart = Apart(seed, quiet=quiet)
    learner = _told(lambda: apart.call(begin), "making it")
    start, _ = _told(lambda: apart.call(lambda: learner.evaluate(rows)), "evaluating it")
    outputs = apart.call(lambda: learner.outputs(rows))
    if not np.isfinite(start):
        where = "the model gives outputs" if _not_finite(outputs) else "the loss gives values"
        raise ValueError(f"model: before any training {where} that are not finite ({start}); nothing could be learned")
    if start < 0:
        raise ValueError(
            f"loss: it is {start:g} before training, and rules are compared by the ratio of their losses; give a loss "
            "whose lowest value is 0"
        )
    if loss == "cross-entropy" and _is_softmax(outputs):
        raise ValueError(
            "model: its outputs are probabilities that sum to 1; the loss takes logits, so leave out the softmax at "
            "its end, or give loss=a function that takes probabilities"
        )
    _told(lambda: apart.call(lambda: learner.epoch(rows[None])), "training it")
    return learner


def refuse_instance(make: Any) -> None:
    """Refuse what is no factory, and say how to write one.

    Raises:
        ValueError: It is a model, a class, or cannot be called with a seed.
    """
    models = models_of(make, "mse", None, np.zeros(()))
    if models is not None or isinstance(make, type):
        code = f"{make.__name__}(...)" if isinstance(make, type) else models.written(make) if models else ""
        what = f"the class {make.__name__}" if isinstance(make, type) else f"a {type(make).__name__} that is made"
        raise ValueError(
            f"model: {what} is no factory, and every run needs a new model; write "
            f"def make_net(seed): return {code} and give make_net. Its weights are left as they are"
        )
    if not callable(make):
        raise ValueError(f"model={make!r} cannot be called; give a function that takes a seed and makes a model")
    try:
        inspect.signature(make).bind(0)
    except TypeError:
        raise ValueError(
            f"model: {_name(make)} cannot be called with a seed alone; write def {_name(make)}(seed): ..."
        ) from None
    except ValueError:
        return  # it has no signature that could be read


def refuse_other_shapes(make: Make, shapes: Shapes, arrays: Mapping[str, NDArray[Any]], seed: int) -> None:
    """Refuse a model whose weights do not have the shapes of the first.

    Args:
        make: What made it.
        shapes: Those of the first.
        arrays: Its weights.
        seed: What it was made with.

    Raises:
        ValueError: It has other ones.
    """
    found = {name: one.shape for name, one in arrays.items()}
    if shapes != found:
        name = next(name for name in {**shapes, **found} if shapes.get(name) != found.get(name))
        raise ValueError(
            f"model: {_name(make)} gives models of different shapes, {name} of {shapes.get(name, 'none')} and then of "
            f"{found.get(name, 'none')} for the seed {seed}; all runs of a race are of one network"
        )


def models_of(model: Any, loss: Loss, classes: int | None, sample: NDArray[Any]) -> Models | None:
    """The framework that a model is of; None if it is none."""
    keras: Any = sys.modules.get("keras")
    if keras is not None and isinstance(model, keras.Model):  # on its backend of PyTorch it is one of its modules too
        from downslope.lab.engines.keras_learner import KerasModels

        return KerasModels(loss, classes, sample)
    nn: Any = sys.modules.get("torch.nn")
    if nn is not None and isinstance(model, nn.Module):
        from downslope.lab.engines.torch_learner import TorchModels

        return TorchModels(loss, classes)
    if isinstance(model, tuple) or any(package in sys.modules for package in ("flax", "equinox")):
        from downslope.lab.engines.pair_network import PairModels, is_pair

        return PairModels(loss, classes, sample) if is_pair(model) else None
    return None


def _told(code: Callable[[], T], what: str) -> T:
    try:
        return code()
    except RunError as error:
        raise ValueError(f"model: {what} failed: {error}") from error.__cause__


def _differing(arrays: Mapping[str, NDArray[Any]], others: Mapping[str, NDArray[Any]]) -> str | None:
    return next((name for name, one in arrays.items() if not np.array_equal(one, others[name])), None)


def _not_finite(outputs: Any) -> bool:
    return isinstance(outputs, np.ndarray) and not np.isfinite(outputs).all()


def _is_softmax(outputs: Any) -> bool:
    if not isinstance(outputs, np.ndarray) or outputs.ndim < 2 or outputs.shape[-1] < 2:
        return False
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(axis=-1), 1, atol=1e-4))


def _kind(model: Any) -> str:
    return "nothing" if model is None else f"a {type(model).__name__}"


def _name(make: Any) -> str:
    return str(getattr(make, "__name__", type(make).__name__))

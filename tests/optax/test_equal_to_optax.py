"""Optax's optimizers beside Optax itself."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import downslope.optax
import paths
from paths import STEPS, distance

PROBLEM = paths.given((3, 7)).astype("float32")
BOUND = 9e-15  # per step, of the largest weight: forty roundings on either side


def only_first(params):
    """A mask that spares the second of the two parameters, which is one row."""
    return jax.tree.map(lambda p: p.shape[0] > 1, params)


MOMENTUM = {"momentum": 0.9}
NESTEROV = {**MOMENTUM, "nesterov": True}
EPSILONS = {"eps": 0.1, "eps_root": 0.3}
CENTERED = {"centered": True, "initial_scale": 0.5}

CASES = [
    ("sgd", {}),
    ("sgd", MOMENTUM),
    ("sgd", NESTEROV),
    ("sgd", {**MOMENTUM, "accumulator_dtype": jnp.float32}),
    ("adagrad", {}),
    ("rmsprop", {}),
    ("rmsprop", {"initial_scale": 1.0, "eps": 0.3, "eps_in_sqrt": False}),
    ("rmsprop", MOMENTUM),
    ("rmsprop", {**CENTERED, **NESTEROV, "bias_correction": True, "eps_in_sqrt": False, "eps": 0.3}),
    ("adam", {}),
    ("adam", {**EPSILONS, "b1": 0.8, "b2": 0.9}),
    ("adam", {"mu_dtype": jnp.float32}),
    ("nadam", EPSILONS),
    ("nadamw", {}),
    ("adamw", {}),
    ("adamw", {"weight_decay": 0.02, "mask": {"0": True, "1": False}, "nesterov": True}),
    ("adamw", {"weight_decay": lambda count: 0.1 * paths.schedule()(count), "mask": only_first}),
    ("amsgrad", {}),
    ("amsgrad", {"bias_correction_mu": False, "bias_correction_nu": False, "eps_root": 0.3}),
    ("adamax", {"eps": 0.3}),
    ("adamaxw", {"weight_decay": 0.02}),
    ("adadelta", {}),
    ("adadelta", {"eps": 1e-2, "rho": 0.8, "weight_decay": 0.02, "weight_decay_mask": only_first}),
    ("radam", {}),
    ("radam", {**EPSILONS, "nesterov": True, "threshold": 10.0}),
    ("lion", {}),
    ("lion", {"b1": 0.8, "weight_decay": 0.02, "mask": only_first}),
    ("adabelief", {}),
    ("adabelief", {**EPSILONS, "nesterov": True}),
]


def shown(value):
    """A value as text that is the same in every process, unlike a function's own."""
    return getattr(value, "__name__", str(value))


NAMES = [f"{name}({', '.join(f'{key}={shown(value)}' for key, value in given.items())})" for name, given in CASES]
SINGLE = [label for label in NAMES if label.endswith("()")]


def both(cases, **how):
    """Our path and that of Optax for each case; all in one program, which compiles in half the time."""
    made = [
        getattr(library, name)(paths.schedule(), **given)
        for name, given in cases
        for library in (downslope.optax, optax)
    ]
    found = paths.optax_paths(made, PROBLEM, parts=2, **how)
    return list(zip(found[::2], found[1::2], strict=True))


@pytest.fixture(scope="module")
def in_double_precision():
    return dict(zip(NAMES, both(CASES, double=True), strict=True))


@pytest.fixture(scope="module")
def in_single_precision():
    chosen = [case for case, label in zip(CASES, NAMES, strict=True) if label in SINGLE]
    return dict(zip(SINGLE, both(chosen, double=False), strict=True))


@pytest.mark.parametrize("case", NAMES)
def test_two_hundred_steps_are_those_of_optax(case, in_double_precision):
    ours, theirs = in_double_precision[case]
    # a moment that double precision keeps in single is rounded at another place by us, and that is all
    bound = 6e-8 if "dtype" in case else BOUND
    assert (distance(ours, theirs) <= bound * np.arange(1, STEPS + 1)).all()


@pytest.mark.parametrize("case", SINGLE)
def test_single_precision_is_no_further_from_the_truth_than_that_of_optax(
    case, in_double_precision, in_single_precision
):
    _, exact = in_double_precision[case]
    ours, theirs = (distance(path, exact) for path in in_single_precision[case])
    assert (ours <= theirs.max() + 40 * 6e-8 * np.arange(1, STEPS + 1)).all()


@pytest.mark.parametrize("name", dict.fromkeys(name for name, _ in CASES))
def test_the_signature_is_that_of_optax(name):
    ours, theirs = (inspect.signature(getattr(library, name)).parameters for library in (downslope.optax, optax))
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]


def test_what_would_change_nothing_is_refused():
    with pytest.raises(ValueError, match=r"nesterov=True.*give momentum=0\.9"):
        downslope.optax.sgd(0.1, nesterov=True)
    with pytest.raises(ValueError, match=r"accumulator_dtype=.*give momentum=0\.9"):
        downslope.optax.sgd(0.1, accumulator_dtype=jnp.float32)
    with pytest.raises(ValueError, match=r"nesterov=True.*give momentum=0\.9"):
        downslope.optax.rmsprop(0.1, nesterov=True)
    with pytest.raises(TypeError, match="adadelta needs a learning_rate"):
        downslope.optax.adadelta()


def test_a_moment_is_kept_in_the_dtype_asked_for():
    transformation = downslope.optax.adamw(0.1, mu_dtype=jnp.bfloat16)
    params = jnp.ones(3)
    state = transformation.init(params)
    updates, new = transformation.update(jnp.full(3, 0.1), state, params)
    assert state.states["mu"].dtype == new.states["mu"].dtype == jnp.bfloat16
    assert updates.dtype == new.states["nu"].dtype == jnp.float32
    np.testing.assert_allclose(updates, -0.1, rtol=2e-4)  # of the moment as it was before it was rounded


def test_the_first_steps_in_single_precision_are_nearer_to_the_truth():
    """`1 - beta2**t` by its plain form is wrong by 6e-8 / 0.001 at the first step, 3e-5 of it in the root."""

    def first_update(library):
        transformation = library.adam(1.0, b2=0.9999, eps=0.0)
        step = jax.jit(lambda g, state: transformation.update(g, state)[0])
        return np.abs(np.asarray(step(jnp.ones(()), transformation.init(jnp.ones(())))) + 1)

    assert first_update(downslope.optax) < 3e-7
    assert first_update(optax) > 1e-5

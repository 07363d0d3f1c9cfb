"""Paths: where many steps lead from given weights, by downslope, by a formula alone and by other libraries."""

import contextlib
import dataclasses

import numpy as np
import pytest

import downslope
from downslope.language.options import compose, stored_point
from downslope.targets.arrays import interpret
from downslope.targets.shapes import held_shape

STEPS = 200


def rates(base=0.1, steps=STEPS):
    """A learning rate for each step, which tells a rate inside a buffer from one outside."""
    return base * (0.5 + 0.5 * np.cos(np.arange(steps) / 20))


@dataclasses.dataclass(frozen=True)
class Problem:
    """Weights to begin with and gradients on the way: those of a quadratic, and what each step adds to them.

    Attributes:
        start: The weights.
        noise: What the steps add, one after the other, as mini-batches do: all of it where there is no curvature.
        curvature: The second derivative along each weight.
        minimum: Where the quadratic has its minimum.
    """

    start: np.ndarray
    noise: np.ndarray
    curvature: np.ndarray
    minimum: np.ndarray

    def gradient(self, x, t):
        """The gradient at weights `x`, in their precision, for the step of number `t`."""
        return self.slope(x, self.noise[t - 1])

    def slope(self, x, noise):
        """The gradient with this noise; of arrays of NumPy or JAX."""
        curvature, minimum, noise = (a.astype(x.dtype) for a in (self.curvature, self.minimum, noise))
        return curvature * (x - minimum) + noise

    def astype(self, dtype):
        """The same in another precision, in which the start and all noise are numbers that it has."""
        return dataclasses.replace(self, start=self.start.astype(dtype), noise=self.noise.astype(dtype))


def given(shape, steps=STEPS, *, large=100.0, seed=0):
    """Gradients that do not depend on the weights, so that errors add up and do not grow; every tenth is larger."""
    generator = np.random.default_rng(seed)
    start, noise = generator.standard_normal(shape), generator.standard_normal((steps, *shape))
    noise[9::10] *= large
    return Problem(start, noise, np.zeros(()), np.zeros(()))


GIVEN = given((6, 7))


def quadratic(size, seed, *, steps=STEPS, spread=1.0, away=0.0):
    """A noisy quadratic with curvatures from 0.1 to 1, whose weights and minimum are some such numbers from zero."""
    generator = np.random.default_rng(seed)
    curvature, noise = generator.uniform(0.1, 1.0, size), generator.standard_normal((steps, size))
    start, minimum = generator.standard_normal((2, size))
    return Problem(spread * start, noise, curvature, away * minimum)


def parameters(flat):
    """Weights as parameters of several shapes: a matrix, a vector and a number."""
    split = len(flat) // 4
    return {
        "W": flat[: 2 * split].reshape(2, split).copy(),
        "b": flat[2 * split : -1].copy(),
        "s": flat[-1:].reshape(()).copy(),
    }


def flat(arrays):
    """Parameters as one vector."""
    return np.concatenate([np.ravel(array) for array in arrays.values()])


def walked(rule, problem, steps=STEPS, **settings):
    """An optimizer of ours after so many steps, whose weights are parameters of several shapes."""
    optimizer = downslope.Optimizer(parameters(problem.start), rule, **{"threads": 1, **settings})
    for t in range(1, steps + 1):
        optimizer.step(parameters(problem.gradient(flat(optimizer.params), t)))
    return optimizer


def end_of(rule, problem, steps=STEPS, **settings):
    """The weights after so many steps of ours."""
    optimizer = walked(rule, problem, steps, **settings)
    with optimizer.at_weights():
        return flat(optimizer.params)


def formula_path(rule, problems, rates, settings, *, decoupled=True, **options):
    """The weights after each step of a formula, and the points ahead of them, in double precision.

    Args:
        rule: The rule.
        problems: One for each parameter, with gradients that do not depend on the weights.
        rates: A learning rate for each step.
        settings: Hyperparameters and flags other than the defaults, and perhaps a weight decay.
        decoupled: Whether a weight decay that the rule does not have itself is decoupled.
        options: Others that are composed around the formula.

    Yields:
        After each step, the weights of each parameter and the points ahead of them.
    """
    flags = {name: value for name, value in settings.items() if name in rule.flags}
    decay = "weight_decay" in settings and "weight_decay" not in rule.hyperparameters
    program = compose(rule, weight_decay=decay, decoupled=decay and decoupled, **options, **flags)
    ahead = stored_point(rule, to_weights=False, **flags) if rule.ahead else None
    numbers = {**rule.hyperparameters, **settings}
    states = {name: program.initial(name, numbers) for name in program.states}
    members = [
        {"x": x}
        | {
            name: x.copy() if start is None else np.full(held_shape(program, name, x.shape), start)
            for name, start in states.items()
        }
        for x in (problem.start.astype(np.float64) for problem in problems)
    ]
    scalars = dict(program.scalar_states)
    for t, rate in enumerate(rates, 1):
        now = {**numbers, **scalars, "lr": float(rate), "t": t}
        given = [
            {**arrays, "dx": problem.gradient(arrays["x"], t)}
            for arrays, problem in zip(members, problems, strict=True)
        ]
        new = [interpret(program, arrays, now) for arrays in given]
        members = [{name: values[name] for name in arrays} for values, arrays in zip(new, members, strict=True)]
        scalars = {name: new[0][name] for name in scalars}
        weights = [arrays["x"] for arrays in members]
        then = {**numbers, **scalars, "t": t + 1}
        yield weights, [interpret(ahead, arrays, then)["x"] for arrays in members] if ahead else weights


def distance(path, exact):
    """How far apart two paths are after each step, in units of the largest weight so far."""
    path, exact = (np.reshape(weights, (len(weights), -1)) for weights in (path, exact))
    return np.abs(path - exact).max(1) / np.maximum.accumulate(np.abs(exact).max(1))


def assert_path(path, rule, settings, *, problem=None, bound=9e-15, **options):
    """Check that the weights seen after each step, in double precision, are those of the formula.

    Per step and weight each side makes fewer than 40 roundings of 1.1e-16 on numbers of the size of the weights and of
    the step, so that after t steps the two are at most 40 * t * 1.1e-16 * 2 = 9e-15 * t of the largest weight apart.

    Args:
        path: The weights after each step of a framework, at the learning rates of `rates()`.
        rule: The rule.
        settings: Hyperparameters and flags other than the defaults, and perhaps a weight decay.
        problem: The problem, otherwise `GIVEN`.
        bound: How far apart one step may take the two, in units of the largest weight.
        options: As for `formula_path`.
    """
    exact = [weights for [weights], _ in formula_path(rule, [problem or GIVEN], rates(), settings, **options)]
    far = distance(list(path), exact)
    assert (far <= bound * np.arange(1, len(exact) + 1)).all(), far


def torch_path(make, problem, rates=None):
    """The weights after each step of an optimizer of PyTorch; after the last those that it evaluates at.

    Args:
        make: Makes the optimizer, given a list of parameters.
        problem: The problem.
        rates: A learning rate for each step, if it changes.
    """
    torch = pytest.importorskip("torch")
    x = torch.tensor(problem.start, requires_grad=True)
    optimizer, path = make([x]), []
    if hasattr(optimizer, "train"):
        optimizer.train()
    for t in range(1, len(problem.noise) + 1):
        if rates is not None:
            optimizer.param_groups[0]["lr"] = float(rates[t - 1])
        x.grad = torch.from_numpy(problem.gradient(x.detach().numpy(), t))
        optimizer.step()
        path.append(x.detach().numpy().copy())
    if hasattr(optimizer, "eval"):
        optimizer.eval()
        path[-1] = x.detach().numpy().copy()
    return np.array(path)


def schedule(base=0.1):
    """These learning rates as Optax has them: a function of the count of steps, of arrays of JAX."""
    return lambda count: pytest.importorskip("jax").numpy.asarray(rates(base))[count]


@contextlib.contextmanager
def precision_of(double):
    """Inside this block JAX has double precision, or has not."""
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", double)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def optax_paths(transformations, problem, *, double=True, parts=1, weights=None):
    """The weights after each step, for each transformation, all in one compiled program.

    Args:
        transformations: The transformations, each of which has its own weights.
        problem: The problem.
        double: Whether in double precision; so is what is returned in any case.
        parts: Into how many parameters, by the names "0", "1" ..., the rows of the weights are taken apart.
        weights: The weights of a state and what a transformation updates, if that is not the weights.
    """
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")

    def apart(array):
        pieces = np.array_split(array, parts, axis=array.ndim - problem.start.ndim)
        return {str(k): jax.numpy.asarray(piece, float) for k, piece in enumerate(pieces)}

    def step(carry, noise):
        new, seen = [], []
        for transformation, (x, state) in zip(transformations, carry, strict=True):
            updates, state = transformation.update(jax.tree.map(problem.slope, x, noise), state, x)
            x = optax.apply_updates(x, updates)
            new.append((x, state))
            seen.append(weights(state, x) if weights else x)
        return new, seen

    with precision_of(double):
        carry = [(apart(problem.start), each.init(apart(problem.start))) for each in transformations]
        paths = jax.jit(lambda carry, noise: jax.lax.scan(step, carry, noise)[1])(carry, apart(problem.noise))
        assert all(array.dtype == (np.float64 if double else np.float32) for array in jax.tree.leaves(paths))
        return [np.concatenate([np.asarray(a, np.float64) for a in path.values()], axis=1) for path in paths]

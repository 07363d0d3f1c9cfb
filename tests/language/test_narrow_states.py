"""States that are one for each row or column: what they may hold, how they are kept everywhere, and files of others."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import downslope
import downslope.optax
import downslope.torch
from downslope import (
    FormulaError,
    Optimizer,
    check_rule,
    columns,
    equivalent,
    max,
    mean,
    norm,
    rows,
    rule,
    scalar,
    size,
    sqrt,
    where,
)
from downslope import sum as total
from downslope.language.options import compose
from downslope.language.program import fingerprint
from downslope.targets.arrays import interpret
from downslope.targets.javascript import moving
from downslope.training.checkpoint import CheckpointError


@rule
def both(x, dx, r=rows(0.5), c=columns(0), v=0, *, lr=0.1, beta=0.9):
    """Each row by what it has felt, each column by the largest that it has."""
    r = beta * r + (1 - beta) * mean(dx**2, axis=1)
    c = max(abs(dx), axis=0) + beta * c
    v = beta * v + dx / sqrt(r)
    return x - lr * v / (1 + c), r, c, v


SHAPES = {"wide": (2, 5), "tall": (4, 3), "kernel": (3, 2, 2, 2), "bias": (4,), "scale": ()}
STEPS = 4


def reference(x, dx, past):
    """The same written down anew, on the matrix that a tensor is."""
    rows = x.shape[0] if x.ndim > 1 else 1
    g = dx.reshape(rows, -1)
    past["r"] = 0.9 * past.get("r", 0.5) + 0.1 * (g * g).mean(1)[:, None]
    past["c"] = 0.9 * past.get("c", 0.0) + np.abs(g).max(0)
    past["v"] = 0.9 * past.get("v", 0.0) + g / np.sqrt(past["r"])
    return x - (0.1 * past["v"] / (1 + past["c"])).reshape(x.shape)


def gradients(t, dtype=float):
    return {
        name: np.asarray(np.cos(t + np.arange(np.prod(s, dtype=int))).reshape(s), dtype) for name, s in SHAPES.items()
    }


def walked():
    weights, past = {name: np.ones(shape) for name, shape in SHAPES.items()}, {name: {} for name in SHAPES}
    for t in range(STEPS):
        weights = {name: reference(x, gradients(t)[name], past[name]) for name, x in weights.items()}
    return weights


def test_all_front_ends_keep_them_in_their_own_shape_and_go_the_same_way():
    keras = pytest.importorskip("keras")
    import downslope.keras

    arrays = {name: np.ones(shape) for name, shape in SHAPES.items()}
    optimizer = Optimizer(arrays, both)
    tensors = {name: torch.ones(shape, dtype=torch.float64, requires_grad=True) for name, shape in SHAPES.items()}
    trained = downslope.torch.Optimizer(tensors.items(), both)
    transformation, params = downslope.optax.optimizer(both), {n: jnp.ones(s) for n, s in SHAPES.items()}
    state = transformation.init(params)
    variables = {name: keras.Variable(np.ones(shape, "float32")) for name, shape in SHAPES.items()}
    in_keras = downslope.keras.Optimizer(both)
    in_keras.build(list(variables.values()))
    for t in range(STEPS):
        optimizer.step(gradients(t))
        for name, p in tensors.items():
            p.grad = torch.tensor(gradients(t)[name])
        trained.step()
        updates, state = transformation.update(gradients(t, "float32"), state, params)
        params = optax.apply_updates(params, updates)
        in_keras.apply([keras.ops.convert_to_tensor(dx) for dx in gradients(t, "float32").values()])
    for name, wanted in walked().items():
        np.testing.assert_allclose(arrays[name], wanted, rtol=1e-13)
        np.testing.assert_allclose(tensors[name].detach().numpy(), wanted, rtol=1e-13)
        np.testing.assert_allclose(params[name], wanted, rtol=3e-6, atol=1e-6)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variables[name]), wanted, rtol=3e-6, atol=1e-6)
    kept = {"r": (3, 1, 1, 1), "c": (1, 2, 2, 2), "v": (3, 2, 2, 2)}
    assert {what: by_name["kernel"].shape for what, by_name in optimizer.state.items()} == kept
    assert {what: tuple(trained.state[tensors["kernel"]][what].shape) for what in kept} == kept
    assert {what: state.states[what]["kernel"].shape for what in kept} == kept
    assert [optimizer.state[what]["bias"].shape for what in kept] == [(1,), (4,), (4,)]


def test_it_is_certified_and_costs_what_is_one_a_weight():
    assert check_rule(both).passed
    assert (both.cost().read, both.cost().written) == (4 + 8 + 4, 8)  # the gradient is read twice
    assert r"\frac{dx_{t}}{\sqrt{r_{t}}}" in both.latex()
    with pytest.raises(FormulaError, match=r"both goes by whole tensors \(.*the state r"):
        moving(compose(both))


def test_where_a_state_lives_is_part_of_what_a_formula_is():
    @rule
    def by_rows(x, dx, r=rows(0), *, lr=0.1):
        r = r + norm(dx)
        return x - lr * dx / r, r

    @rule
    def by_columns(x, dx, r=columns(0), *, lr=0.1):
        r = r + norm(dx)
        return x - lr * dx / r, r

    assert fingerprint(compose(by_rows)) != fingerprint(compose(by_columns))
    assert equivalent(by_rows, by_columns, steps=5)
    assert equivalent(both, both)


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (lambda dx: dx**2, "one a weight as the new r, where one for each row is expected: square"),
        (lambda dx: mean(dx, axis=0), "one for each column as the new r, where one for each row is expected"),
    ],
)
def test_a_state_of_rows_takes_nothing_else(new, words):
    @rule
    def wrong(x, dx, r=rows(0), *, lr=0.1):
        return x - lr * r, new(dx)

    with pytest.raises(FormulaError, match=words):
        compose(wrong)


def test_a_saved_training_goes_on_in_another_framework_and_another_shape_is_named(tmp_path):
    model = torch.nn.Linear(3, 2).double()
    names = dict(model.named_parameters())
    here = {name: p.detach().numpy().copy() for name, p in names.items()}
    first = downslope.torch.Optimizer(model.parameters(), both)
    for p in names.values():
        p.grad = torch.ones_like(p)
    first.step()
    first.save(tmp_path / "both", model)
    second = Optimizer(here, both)
    second.load(tmp_path / "both")
    for name, p in names.items():
        for what in ("r", "c", "v"):
            np.testing.assert_array_equal(second.state[what][name], first.state[p][what])

    @rule
    def other(x, dx, r=columns(0.5), *, lr=0.1):
        return x - lr * r * dx, r

    Optimizer({"W": np.ones((2, 3))}, other).save(tmp_path / "columns")

    @rule
    def other(x, dx, r=rows(0.5), *, lr=0.1):
        return x - lr * r * dx, r

    with pytest.raises(CheckpointError, match="formula"):
        Optimizer({"W": np.ones((2, 3))}, other).load(tmp_path / "columns")
    saved = first.state_dict()
    saved["state"][0]["r"] = torch.ones(2, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"the state r has shape \(2, 3\), its parameter \(2, 3\) and needs \(2, 1\)"):
        first.load_state_dict(saved)


@pytest.mark.parametrize("axis", [0, 1])
def test_each_piece_of_a_parameter_has_its_own(axis):
    """As if they were parameters of their own."""
    whole = torch.arange(24.0, dtype=torch.float64).reshape(4, 6).requires_grad_()
    sizes = [1, 3] if axis == 0 else [2, 4]
    parts = [part.detach().clone().requires_grad_() for part in whole.split(sizes, axis)]
    together = downslope.torch.Optimizer([{"params": [whole], "pieces": sizes, "axis": axis}], both)
    apart = downslope.torch.Optimizer(parts, both)
    for t in range(3):
        whole.grad = torch.cos(t + whole.detach())
        for part in parts:
            part.grad = torch.cos(t + part.detach())
        together.step()
        apart.step()
    torch.testing.assert_close(whole.detach(), torch.cat([part.detach() for part in parts], axis), rtol=0, atol=0)


def test_a_rule_says_how_many_dimensions_it_knows():
    @rule(most_dimensions=2)
    def flat(x, dx, r=rows(0), *, lr=0.1):
        r = r + mean(dx, axis=1)
        return x - lr * r, r

    Optimizer({"W": np.ones((2, 3)), "b": np.ones(3)}, flat)
    words = r"flat is for tensors of at most 2 dimensions, and one has shape \(3, 2, 2\)"
    with pytest.raises(ValueError, match=words):
        Optimizer({"kernel": np.ones((3, 2, 2))}, flat)
    with pytest.raises(ValueError, match=f"the parameter kernel: {words}"):
        downslope.torch.Optimizer([("kernel", torch.ones(3, 2, 2, requires_grad=True))], flat)


def test_a_rule_of_single_weights_may_know_few_dimensions_too():
    @rule(most_dimensions=1)
    def narrow(x, dx, *, lr=0.1):
        return x - lr * dx

    words = r"narrow is for tensors of at most 1 dimensions, and one has shape \(2, 3\)"
    Optimizer({"b": np.ones(3)}, narrow).step({"b": np.ones(3)})
    with pytest.raises(ValueError, match=f"the parameter W: {words}"):
        Optimizer({"W": np.ones((2, 3))}, narrow)
    with pytest.raises(ValueError, match=f"the parameter W: {words}"):
        downslope.torch.Optimizer([("W", torch.ones(2, 3, requires_grad=True))], narrow)
    with pytest.raises(ValueError, match=rf"the parameter \['W'\]: {words}"):
        downslope.optax.optimizer(narrow).init({"W": jnp.ones((2, 3))})
    with pytest.raises(ValueError, match=words):
        interpret(compose(narrow), {"x": jnp.ones((2, 3)), "dx": jnp.ones((2, 3))}, {"lr": 0.1}, jnp)


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "2"])
def test_dimensions_are_counted_in_whole_numbers(value):
    with pytest.raises(FormulaError, match=f"most_dimensions={value!r}: give a whole number, at least 1"):
        rule(most_dimensions=value)(lambda x, dx: x - dx)


def test_a_file_knows_how_parameters_are_divided(tmp_path):
    """Divided otherwise, each state of rows and each step would be another one."""
    model, path = torch.nn.Linear(3, 6, bias=False), tmp_path / "pieces"

    def optimizer(**division):
        return downslope.torch.Optimizer([{"params": [model.weight], **division}], both)

    model.weight.grad = torch.ones_like(model.weight)
    first = optimizer(pieces=[2, 4])
    first.step()
    first.save(path, model)
    optimizer(pieces=[2, 4]).load(path, model)
    for division in ({}, {"pieces": [4, 2]}, {"pieces": [1, 2], "axis": 1}):
        other, before = optimizer(**division), model.weight.detach().clone()
        with pytest.raises(CheckpointError, match=r"the pieces of the file's group 0 is \{'sizes': \[2, 4\]"):
            other.load(path, model)
        assert not other.state[model.weight]
        assert (model.weight == before).all()
    with pytest.raises(CheckpointError, match="pieces"):
        Optimizer({"weight": np.ones((6, 3), np.float32)}, both).load(path)
    with pytest.raises(ValueError, match=r"'weight' is divided into pieces along its axis 0"):
        downslope.convert_file(path, path, axes={"weight": (1, 0)})
    downslope.convert_file(path, path, names={"weight": "W"})


@pytest.mark.parametrize("name", ["adam_mini", "normuon"])
def test_a_choice_that_exchanges_states_is_refused_in_training(name):
    W = torch.ones(3, 2, requires_grad=True)
    W.grad = torch.arange(6.0).reshape(3, 2)
    optimizer = downslope.torch.Optimizer([W], getattr(downslope, name))
    optimizer.param_groups[0]["by_columns"] = True  # before the first step anything may be chosen
    optimizer.step()
    before = W.detach().clone()
    optimizer.param_groups[0]["by_columns"] = False
    with pytest.raises(ValueError, match=rf"{name} needs the state v, and .* done 1 step\(s\) has w .*by_columns"):
        optimizer.step()
    assert (before == W).all()
    assert optimizer.state[W]["step"] == 1
    optimizer.param_groups[0]["by_columns"] = True
    optimizer.step()
    assert optimizer.state[W]["step"] == 2


def test_states_of_another_rule_are_told_from_states_of_rows():
    W = torch.ones(3, 2, requires_grad=True)
    W.grad = torch.ones_like(W)
    adam = downslope.torch.Optimizer([W], downslope.adam)
    adam.step()
    words = r"the state v has shape \(3, 2\).*needs \(3, 1\): it is one for each row in adam_mini"
    with pytest.raises(ValueError, match=words):
        downslope.torch.Optimizer([W], downslope.adam_mini).load_state_dict(adam.state_dict())


@pytest.mark.parametrize("value", ["lr", "x", float("nan"), True, None])
@pytest.mark.parametrize("word", [scalar, rows, columns])
def test_a_state_begins_with_a_number(word, value):
    with pytest.raises(
        FormulaError, match=rf"{word.__name__}\({value!r}\): give the number that the state is at first"
    ):
        word(value)


@pytest.mark.parametrize("state", [scalar(0), rows(0)])
def test_a_state_stands_before_the_star(state):
    def wrong(x, dx, *, kept=state, lr=0.1):
        return x - lr * dx, kept

    with pytest.raises(FormulaError, match=r"wrong: kept is a state, .*put it before"):
        rule(wrong)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_beside_halves_it_is_kept_in_single_precision(dtype):
    """Where a square of 300 is finite, and a moving average moves."""
    x = torch.ones(4, 3, dtype=getattr(torch, dtype), requires_grad=True)
    first, second = (downslope.torch.Optimizer([x], downslope.adafactor, state_dtype=x.dtype) for _ in range(2))
    x.grad = torch.full_like(x, 300)
    first.step()
    second.load_state_dict(first.state_dict())
    for optimizer in (first, second):
        assert optimizer.state[x]["r"].dtype == torch.float32
        assert optimizer.state[x]["r"].unique().tolist() == [90000]
    assert x.isfinite().all()

    transformation = downslope.optax.optimizer(downslope.adafactor)
    p = jnp.ones((4, 3), dtype)
    updates, state = transformation.update(300 * p, transformation.init(p), p)
    assert (updates.dtype, state.states["r"].dtype) == (p.dtype, jnp.float32)

    keras, ours = pytest.importorskip("keras"), pytest.importorskip("downslope.keras")
    variable = keras.Variable(np.ones((4, 3)), dtype=dtype)
    optimizer = ours.Optimizer(downslope.adafactor)
    optimizer.apply([keras.ops.full((4, 3), 300, dtype)], [variable])
    kept = next(each for each in optimizer.variables if each.path.endswith("_r"))
    assert (kept.dtype, kept.shape) == ("float32", (4, 1))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(kept), 90000)
    moved = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32")))
    np.testing.assert_array_equal(moved, np.asarray(p + updates, np.float32))
    np.testing.assert_array_equal(state.states["r"], np.full((4, 1), 90000))


def test_an_update_without_weights_is_as_precise_as_its_gradient():
    @rule
    def by_rows(x, dx, r=rows(0), *, lr=0.1):
        r = r + mean(dx, axis=1)
        return x - lr * r, r

    transformation = downslope.optax.optimizer(by_rows)
    dx = jnp.ones((4, 3), jnp.bfloat16)
    assert transformation.update(dx, transformation.init(dx))[0].dtype == jnp.bfloat16


CHOSEN = {
    "sum": lambda tall, r, c, dx: total(2 * where(tall, r, dx) + 1),
    "norm": lambda tall, r, c, dx: norm(where(tall, norm(dx), dx)),
    "of columns": lambda tall, r, c, dx: total(where(tall, c, dx), axis=0),
    "of rows": lambda tall, r, c, dx: norm(where(tall, r, dx), axis=1) * mean(where(tall, r, dx), axis=0),
    "first of a product": lambda tall, r, c, dx: where(tall, r, dx) @ dx.T @ dx,
    "second of a product": lambda tall, r, c, dx: dx @ where(tall, c, dx).T @ dx,
    "both of a product": lambda tall, r, c, dx: where(tall, r, dx) @ where(tall, r, dx).T @ dx,
    "across": lambda tall, r, c, dx: where(tall, c, dx) @ where(tall, r, dx).T @ dx,
    "number and row": lambda tall, r, c, dx: where(tall, 3, dx) @ where(tall, r, dx).T @ dx,
    "numbers": lambda tall, r, c, dx: where(tall, 3, dx) @ where(tall, 2, dx).T @ dx,
}


@pytest.mark.parametrize("words", CHOSEN)
def test_what_is_chosen_by_shape_stands_for_as_many_elements_as_it_might_have(words):
    """Called with arrays, `where` makes one a weight of what is one a row; so does the formula for the other shape."""

    @rule
    def chosen(x, dx, r=rows(0.5), c=columns(0.25), *, lr=0.1):
        return x - lr * CHOSEN[words](size(x, axis=0) > size(x, axis=1), r, c, dx), r, c

    generator = np.random.default_rng(0)
    for shape in ((5, 2), (2, 5)):
        x, dx, r, c = (generator.normal(size=of) for of in (shape, shape, (shape[0], 1), (1, shape[1])))
        found = interpret(compose(chosen), {"x": x, "dx": dx, "r": r, "c": c}, {"lr": 0.1})["x"]
        np.testing.assert_allclose(found, np.broadcast_to(chosen(x, dx, r, c)[0], shape), rtol=1e-12)

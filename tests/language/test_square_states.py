"""States that are one for each pair of rows or columns, and the words that factorise them, everywhere."""

import math
from decimal import Decimal

import jax
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
    columns_by_columns,
    convert_file,
    eigenvectors,
    equivalent,
    qr,
    rows_by_rows,
    rule,
    scalar,
    size,
    sort_by,
    sqrt,
    sum,
    where,
)
from downslope.language.options import compose
from downslope.language.program import fingerprint
from downslope.targets.arrays import interpret
from downslope.targets.decimal_factors import eigenvectors as exact_eigenvectors
from downslope.targets.decimal_factors import qr as exact_qr
from downslope.targets.decimals import forty_digits
from downslope.targets.formula import formula
from downslope.targets.javascript import moving
from downslope.targets.shapes import ShapeError, held_shape
from downslope.training.checkpoint import CheckpointError

WIDE = 6


def inverse_root(a):
    q = eigenvectors(a)
    return (q / sqrt(sum(q * (a @ q), axis=0) + 0.1)) @ q.T


@rule(least_dimensions=0)
def whitened(x, dx, left=rows_by_rows(0), right=columns_by_columns(0.5), *, lr=0.1, beta=0.5):
    """Each side by the root of what it has felt, unless it is long."""
    left = where(size(x, axis=0) > 1, beta * left + dx @ dx.T, left)
    right = where(size(x, axis=1) <= WIDE, beta * right + dx.T @ dx, right)
    step = where(size(x, axis=0) > 1, inverse_root(left) @ dx, dx)
    return x - lr * where(size(x, axis=1) <= WIDE, step @ inverse_root(right), step), left, right


SHAPES = {"wide": (2, 5), "tall": (7, 3), "kernel": (3, 2, 2, 2), "bias": (4,), "scale": (), "none": (0, 3)}
KEPT = {"wide": (2, 5), "tall": (7, 3), "kernel": (3, 1), "bias": (1, 4), "scale": (1, 1), "none": (1, 3)}
"""As how many rows and columns the sides are kept; the kernel's second is too long."""
STEPS = 4


def gradients(t, dtype=float):
    return {
        name: np.asarray(np.cos(t + np.arange(math.prod(s)) ** 1.5).reshape(s), dtype) for name, s in SHAPES.items()
    }


def root(a):
    values, q = np.linalg.eigh(a)
    return q @ np.diag((values + 0.1) ** -0.5) @ q.T


def reference(x, dx, past):
    g = dx.reshape(x.shape[0] if x.ndim > 1 else 1, -1) if x.size else dx
    step = g
    if len(g) > 1:
        past["left"] = 0.5 * past.get("left", 0) + g @ g.T
        step = root(past["left"]) @ step
    if 0 < g.shape[1] <= WIDE and x.size:
        past["right"] = 0.5 * past.get("right", 0.5) + g.T @ g
        step = step @ root(past["right"])
    return x - 0.1 * step.reshape(x.shape)


def test_all_front_ends_keep_them_as_square_matrices_and_go_the_same_way():
    keras = pytest.importorskip("keras")
    import downslope.keras

    arrays = {name: np.ones(shape) for name, shape in SHAPES.items()}
    optimizer = Optimizer(arrays, whitened)
    tensors = {name: torch.ones(shape, dtype=torch.float64, requires_grad=True) for name, shape in SHAPES.items()}
    trained = downslope.torch.Optimizer(tensors.items(), whitened)
    transformation, params = downslope.optax.optimizer(whitened), {n: jnp.ones(s) for n, s in SHAPES.items()}
    state, update = transformation.init(params), jax.jit(transformation.update)
    variables = {name: keras.Variable(np.ones(shape, "float32")) for name, shape in SHAPES.items()}
    in_keras = downslope.keras.Optimizer(whitened)
    in_keras.build(list(variables.values()))
    wanted, past = {name: np.ones(shape) for name, shape in SHAPES.items()}, {name: {} for name in SHAPES}
    for t in range(STEPS):
        wanted = {name: np.asarray(reference(x, gradients(t)[name], past[name])) for name, x in wanted.items()}
        optimizer.step(gradients(t))
        for name, p in tensors.items():
            p.grad = torch.tensor(gradients(t)[name])
        trained.step()
        updates, state = update(gradients(t, "float32"), state, params)
        params = optax.apply_updates(params, updates)
        in_keras.apply([keras.ops.convert_to_tensor(dx) for dx in gradients(t, "float32").values()])
    for name, x in wanted.items():
        np.testing.assert_allclose(arrays[name], x, rtol=1e-13)
        np.testing.assert_allclose(tensors[name].detach().numpy(), x, rtol=1e-13)
        np.testing.assert_allclose(params[name], x, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variables[name]), x, rtol=1e-5, atol=1e-6)
    for name, kept in KEPT.items():
        for what, side in zip(("left", "right"), kept, strict=True):
            shapes = [optimizer.state[what][name], trained.state[tensors[name]][what], state.states[what][name]]
            assert [tuple(each.shape) for each in shapes] == [(side, side)] * 3


def test_it_is_certified_shown_and_costs_what_a_square_matrix_does():
    found = check_rule(whitened)
    assert found.passed
    assert "of what is factorised these know no more than how long the columns are" in str(found)
    cost = whitened.cost()  # of 1,024 rows and columns, where the right side is too long
    assert (cost.read, cost.written) == (28, 8)
    assert r"\operatorname{eigenvectors}\left(\mathrm{left}_{t}\right)" in whitened.latex()
    assert "eigenvectors(right)" in dict(formula(compose(whitened)))["x"]
    with pytest.raises(FormulaError, match=r"whitened goes by whole tensors \(.*eigenvectors"):
        moving(compose(whitened))
    with pytest.raises(ValueError, match=r"whitened goes by whole tensors.*leave state_dtype out"):
        Optimizer(np.ones((2, 3), np.float32), whitened, state_dtype=np.uint8)


def test_two_ways_to_write_it_are_the_same_in_forty_digits():
    def built(order):
        @rule
        def one(x, dx, left=rows_by_rows(0), *, lr=0.1):
            left = left + dx @ dx.T
            q = eigenvectors(left)
            values = sum(q * (left @ q), axis=0) + 0.1
            return x - lr * order(q, values, dx), left

        return one

    first = built(lambda q, values, dx: (q / values) @ (q.T @ dx))
    second = built(lambda q, values, dx: q @ ((q.T / values.T) @ dx))
    third = built(
        lambda q, values, dx: sort_by(q, -values) @ ((sort_by(q.T, -values.T) / sort_by(values, -values).T) @ dx)
    )
    other = built(lambda q, values, dx: (q / sqrt(values)) @ (q.T @ dx))
    assert equivalent(first, second, steps=3)
    assert equivalent(first, third, steps=3)
    assert not equivalent(first, other, steps=3)
    assert fingerprint(compose(first)) != fingerprint(compose(other))


MATRIX = np.array([[4.0, 1.0, -2.0], [1.0, 3.0, 0.5], [-2.0, 0.5, 1.5]])


@pytest.mark.parametrize("library", [np.asarray, torch.tensor, jnp.asarray], ids=["numpy", "torch", "jax"])
def test_words_settle_what_mathematics_leaves_open(library):
    a = library(np.float32(MATRIX))
    q = np.asarray(eigenvectors(a))
    values = np.diag(q.T @ MATRIX @ q)
    np.testing.assert_allclose(q.T @ MATRIX @ q, np.diag(np.linalg.eigvalsh(MATRIX)), atol=3e-6)
    assert (values[:-1] < values[1:]).all()
    assert all(column[np.abs(column).argmax()] > 0 for column in q.T)
    o = np.asarray(qr(a))
    np.testing.assert_allclose(o.T @ o, np.eye(3), atol=1e-6)
    r = o.T @ MATRIX
    assert (np.diag(r) > 0).all()
    np.testing.assert_allclose(np.tril(r, -1), 0, atol=1e-6)
    np.testing.assert_array_equal(sort_by(a, library(np.float32([[3, 1, 2]]))), np.float32(MATRIX)[:, [1, 2, 0]])
    np.testing.assert_array_equal(sort_by(a, library(np.float32([[3], [1], [2]]))), np.float32(MATRIX)[[1, 2, 0]])
    for word in (eigenvectors, qr):
        assert np.isnan(np.asarray(word(library(np.float32([[1, np.nan], [np.nan, 1]]))))).all()
        with pytest.raises(ValueError, match=rf"{word.__name__}: an array of shape \(2, 3\) is no square matrix"):
            word(library(np.ones((2, 3))))
    with pytest.raises(ValueError, match=r"sort_by\(a, by\): a has shape \(3, 3\) and by \(3,\)"):
        sort_by(a, library(np.ones(3)))


def test_forty_digits_agree_with_double_precision():
    exact = np.array([[Decimal(one) for one in row] for row in MATRIX], object)
    dependent = exact.copy()
    dependent[:, 1] = 2 * dependent[:, 0]
    with forty_digits():
        for of, known in ((exact_eigenvectors, eigenvectors), (exact_qr, qr)):
            np.testing.assert_allclose(of(exact).astype(float), known(MATRIX), atol=1e-14)
        o = exact_qr(dependent)
        assert abs(o.T @ o - np.eye(3, dtype=int)).max() < Decimal("1e-35")


@rule
def renewed(x, dx, left=rows_by_rows(0), basis=rows_by_rows(0), age=scalar(0), *, t, lr=0.1):
    age = where(age == 2, 0, age + 1)
    left = left + dx @ dx.T
    basis = where(t == 1, eigenvectors(left), where(age == 0, qr(left @ basis), basis))
    return x - lr * basis @ (basis.T @ dx), left, basis, age


def outside_of_branches(jaxpr):
    """The names of what a traced program computes in any case."""
    for each in jaxpr.eqns:
        yield each.primitive.name
        if each.primitive.name != "cond":
            for inner in (one.jaxpr for one in each.params.values() if hasattr(one, "jaxpr")):
                yield from outside_of_branches(inner)


def test_a_branch_that_is_not_taken_is_not_computed(monkeypatch):
    """Each factorisation is called when its step comes, and in a traced step stands in the branch of a condition."""
    calls = []
    for name in ("eigh", "qr"):
        own = getattr(np.linalg, name)
        monkeypatch.setattr(np.linalg, name, lambda a, own=own, name=name: calls.append(name) or own(a))
    optimizer = Optimizer({"W": np.ones((3, 4))}, renewed)
    seen = []
    for t in range(6):
        optimizer.step({"W": np.cos(t + np.arange(12.0)).reshape(3, 4)})
        seen.append(calls.copy())
        calls.clear()
    assert seen == [["eigh"], [], ["qr"], [], [], ["qr"]]

    transformation, params = downslope.optax.optimizer(renewed), {"W": jnp.ones((3, 4))}
    traced = jax.make_jaxpr(transformation.update)(params, transformation.init(params), params)
    always = list(outside_of_branches(traced.jaxpr))
    assert always.count("cond") == 1
    assert not {"eigh", "qr", "householder_product", "geqrf"} & {*always}
    state, update = transformation.init(params), jax.jit(transformation.update)
    for t in range(6):
        dx = {"W": jnp.cos(t + jnp.arange(12.0)).reshape(3, 4)}
        updates, state = update(dx, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["W"], optimizer.params["W"], rtol=1e-5, atol=1e-5)


def test_they_go_to_other_frameworks_but_not_into_another_shape_or_order(tmp_path):
    model = torch.nn.Linear(3, 2, bias=False).double()
    first = downslope.torch.Optimizer(model.parameters(), whitened)
    model.weight.grad = torch.arange(6, dtype=torch.float64).reshape(2, 3)
    first.step()
    first.save(tmp_path / "here", model)
    there = Optimizer({"weight": np.ones((2, 3))}, whitened)
    there.load(tmp_path / "here")
    for what, n in (("left", 2), ("right", 3)):
        assert there.state[what]["weight"].shape == (n, n)
        np.testing.assert_array_equal(there.state[what]["weight"], first.state[model.weight][what])
    with pytest.raises(ValueError, match=r"left of .*whitened has one value for each pair of rows or columns"):
        convert_file(tmp_path / "here", tmp_path / "turned", axes={"weight": (1, 0)})
    saved = first.state_dict()
    saved["state"][0]["left"] = torch.ones(3, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"the state left has shape \(3, 3\), .* and needs \(2, 2\)"):
        first.load_state_dict(saved)
    with pytest.raises(CheckpointError, match="weight"):
        Optimizer({"weight": np.ones((3, 2))}, whitened).load(tmp_path / "here")
    with pytest.raises(ValueError, match="pieces=2: whitened keeps left for each pair of rows or columns"):
        downslope.torch.Optimizer([{"params": [model.weight], "pieces": 2}], whitened)


def test_nan_stays_in_its_own_tensor():
    weights = {"W": np.ones((2, 3)), "U": np.ones((2, 3))}
    optimizer = Optimizer(weights, whitened)
    bad = np.ones((2, 3))
    bad[0, 1] = np.nan
    optimizer.step({"W": bad, "U": np.ones((2, 3))})
    assert np.isnan(weights["W"]).all()
    assert np.isfinite(weights["U"]).all()
    assert np.isfinite(optimizer.state["left"]["U"]).all()


def test_a_rule_says_how_few_dimensions_it_takes():
    @rule(least_dimensions=1)
    def right(x, dx, r=columns_by_columns(0), *, lr=0.1):
        r = r + dx.T @ dx
        return x - lr * dx @ r, r

    assert held_shape(compose(right), "r", (3,)) == (3, 3)
    with pytest.raises(ShapeError, match="right is for vectors and matrices, and a single number is neither"):
        Optimizer({"scale": np.ones(())}, right)
    with pytest.raises(ShapeError, match="multiplies matrices, and a tensor of shape"):
        Optimizer({"b": np.ones(3)}, renewed)
    x = np.ones(3)
    new = interpret(compose(right), {"x": x, "dx": x, "r": np.zeros((3, 3))}, {"lr": 0.1})
    np.testing.assert_allclose(new["x"], 1 - 0.1 * 3)
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.ones(3)
    downslope.torch.Optimizer([p], right).step()  # by batches of products
    np.testing.assert_allclose(p.detach(), 1 - 0.1 * 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (lambda dx, left: eigenvectors(dx), "eigenvectors.* is of one a weight; it is of a square matrix, as a @ a.T"),
        (lambda dx, left: qr(sum(dx, axis=1)), "qr.* is of one for each row; it is of a square matrix"),
        (lambda dx, left: dx.T @ dx, "one for each pair of columns as the new left, where one for each pair of rows"),
        (lambda dx, left: sort_by(left, sum(dx, axis=0)), "give what is one for each row of a matrix, or for each of"),
        (lambda dx, left: sort_by(left, sum(dx)), "give what is one for each row of a matrix, or for each of"),
        (lambda dx, left: left + dx, "do not fit together element by element"),
    ],
)
def test_what_does_not_fit_is_refused(new, words):
    @rule
    def wrong(x, dx, left=rows_by_rows(0), *, lr=0.1):
        return x - lr * dx, new(dx, left)

    with pytest.raises(FormulaError, match=words):
        compose(wrong)

"""Shampoo and SOAP against the published formulas, written down anew in double precision, in every front end."""

import jax
import numpy as np
import optax
import pytest
import torch

import downslope
import downslope.optax
import downslope.torch
from downslope import Optimizer
from downslope.language.options import compose
from downslope.rules import bases
from downslope.targets.formula import formula
from downslope.targets.shapes import ShapeError, held_shape

STEPS = 200
SHAPES = {"wide": (3, 7), "tall": (9, 4), "kernel": (4, 2, 3, 3), "bias": (5,)}
WITHOUT = {"scale": (), "none": (0, 3)}


def root(a, exponent):
    values, q = np.linalg.eigh(a + 1e-4 * np.eye(len(a)))
    return q @ np.diag(values**exponent) @ q.T


def shampoo(x, dx, past, t, lr):
    if x.ndim < 2:
        past["right"] = past.get("right", 0) + np.outer(dx, dx)
        return x - lr * root(past["right"], -1 / 2) @ dx
    g = dx.reshape(len(x), -1)
    past["left"], past["right"] = past.get("left", 0) + g @ g.T, past.get("right", 0) + g.T @ g
    return x - (lr * root(past["left"], -1 / 4) @ g @ root(past["right"], -1 / 4)).reshape(x.shape)


def soap(x, dx, past, t, lr, every=10):
    """As the authors' code: the first step prepares, the others go by a count that begins after it."""
    g = dx.reshape(len(x), -1) if x.ndim > 1 and x.size > 0 else dx
    two, k = x.ndim > 1 and x.size > 0, t - 1
    sides = (("left", g @ g.T), ("right", g.T @ g)) if two else ()
    if k == 0:
        past |= {"m": 0 * g, "v": 0 * g, **{side: 0.05 * common for side, common in sides}}
        return x
    into, back = (past["left_basis"], past["right_basis"]) if two else (None, None)
    seen = into.T @ g @ back if two else g
    past["m"], past["v"] = 0.95 * past["m"] + 0.05 * g, 0.95 * past["v"] + 0.05 * seen**2
    step = (into.T @ past["m"] @ back if two else past["m"]) / (np.sqrt(past["v"]) + 1e-8)
    step = into @ step @ back.T if two else step
    new = x - (lr * np.sqrt(1 - 0.95**k) / (1 - 0.95**k) * step).reshape(x.shape)
    for axis, (side, common) in enumerate(sides):
        past[side] = 0.95 * past[side] + 0.05 * common
        if k % every == 0:
            basis = past[f"{side}_basis"]
            order = np.argsort(-np.einsum("ij,ik,kj->j", basis, past[side], basis))
            past["v"] = np.take(past["v"], order, axis)
            past[f"{side}_basis"] = np.linalg.qr(past[side] @ basis[:, order])[0]
    return new - lr * 0.01 * new


def beginning(shapes):
    generator = np.random.default_rng(7)
    return [{name: generator.normal(size=shape) for name, shape in shapes.items()} for _ in range(2)]


def slope(x, target, t):
    """The gradient of a bowl that shakes, another way each step, so that no direction is without one."""
    shaken = np.random.default_rng(t).normal(size=x.shape)
    return np.asarray((x - target) + 0.5 * shaken)


def check_first_basis(state, name, past):
    """Eigenvectors, of which only those of different eigenvalues are settled; the reference goes on from them."""
    for side in ("left", "right"):
        basis = state[f"{side}_basis"][name]
        seen = basis.T @ past[side] @ basis
        np.testing.assert_allclose(basis.T @ basis, np.eye(len(basis)), atol=1e-12)
        np.testing.assert_allclose(seen, np.diag(np.linalg.eigvalsh(past[side])), atol=1e-12 * np.abs(seen).max())
        past[f"{side}_basis"] = basis.copy()


@pytest.mark.parametrize(
    ("rule", "reference", "lr", "shapes"),
    [(downslope.shampoo, shampoo, 0.1, SHAPES), (downslope.soap, soap, 3e-3, SHAPES | WITHOUT)],
    ids=["shampoo", "soap"],
)
def test_arrays_and_tensors_go_the_published_way_for_200_steps(rule, reference, lr, shapes):
    """Seen: at most 7e-15 apart in NumPy, by 30 roundings; five digits of room for another LAPACK."""
    wanted, targets = beginning(shapes)
    arrays, past = {name: x.copy() for name, x in wanted.items()}, {name: {} for name in shapes}
    optimizer = Optimizer(arrays, rule)
    tensors = {name: torch.tensor(x, requires_grad=True) for name, x in arrays.items()}
    trained = downslope.torch.Optimizer(tensors.items(), rule)
    for t in range(1, STEPS + 1):
        gradients = {name: slope(x, targets[name], t) for name, x in wanted.items()}
        for name, p in tensors.items():
            wanted[name] = np.asarray(reference(wanted[name], gradients[name], past[name], t, lr=lr))
            p.grad = torch.tensor(gradients[name])
        optimizer.step(gradients)
        trained.step()
        if t == 1 and rule is downslope.soap:
            for name, p in tensors.items():
                if "left" in past[name] and p.numel():
                    check_first_basis(optimizer.state, name, past[name])
                    for side in ("left_basis", "right_basis"):
                        trained.state[p][side].copy_(torch.tensor(past[name][side]))
    for name, x in wanted.items():
        np.testing.assert_allclose(arrays[name], x, rtol=1e-9, atol=1e-11, err_msg=name)
        np.testing.assert_allclose(tensors[name].detach().numpy(), x, rtol=1e-9, atol=1e-11, err_msg=name)


FULL = {"square": (4, 4), "kernel": (4, 2, 2, 1), "bias": (5,)}
"""Of which the first gradient has a slope in every direction, so that all libraries begin with the same ones."""


@pytest.mark.parametrize(
    ("rule", "reference", "lr", "given"),
    [(downslope.shampoo, shampoo, 0.1, {}), (downslope.soap, soap, 3e-3, {"every": 3})],
    ids=["shampoo", "soap"],
)
def test_optax_and_keras_go_the_same_way_in_single_precision(rule, reference, lr, given):
    """Directions are wrong by a rounding over how far their eigenvalues are apart, and Adam's quotients by as much."""
    keras = pytest.importorskip("keras")
    import downslope.keras

    wanted, targets = beginning(FULL)
    params, past = {name: np.float32(x) for name, x in wanted.items()}, {name: {} for name in FULL}
    transformation = downslope.optax.optimizer(rule, **given)
    state, update = transformation.init(params), jax.jit(transformation.update)
    variables = {name: keras.Variable(x) for name, x in params.items()}
    trained = downslope.keras.Optimizer(rule, **given)
    trained.build(list(variables.values()))
    for t in range(1, 9):
        gradients = {name: slope(x, targets[name], t) for name, x in wanted.items()}
        for name, x in wanted.items():
            wanted[name] = reference(x, gradients[name], past[name], t, lr=lr, **given)
            if t == 1 and rule is downslope.soap and x.ndim > 1:
                past[name] |= {f"{side}_basis": np.linalg.eigh(past[name][side])[1] for side in ("left", "right")}
        gradients = {name: np.float32(dx) for name, dx in gradients.items()}
        updates, state = update(gradients, state, params)
        params = {name: np.asarray(x) for name, x in optax.apply_updates(params, updates).items()}
        trained.apply([keras.ops.convert_to_tensor(dx) for dx in gradients.values()])
    for name, x in wanted.items():
        np.testing.assert_allclose(params[name], x, rtol=1e-4, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variables[name]), x, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("rule", "reference", "given", "room"),
    [(downslope.shampoo, shampoo, {"lr": 0.1}, 1e-10), (downslope.soap, soap, {"lr": 3e-3, "every": 3}, 1e-3)],
    ids=["shampoo", "soap"],
)
def test_optax_and_keras_go_the_published_way_for_200_steps(rule, reference, given, room):
    """Of vectors SOAP is Adam; Shampoo grows the rounding in directions without a slope, of which these have many.

    SOAP's bases turn by a rounding over how far eigenvalues are apart: seen, over four beginnings, 1e-7 to 5e-5.
    """
    pytest.importorskip("keras")
    from in_one_program import in_keras, in_optax

    shapes = {name: FULL[name] for name in ("square", "kernel")}
    (start, targets), past = beginning(shapes), {name: {} for name in shapes}
    wanted = dict(start)
    for t in range(1, STEPS + 1):
        for name, x in wanted.items():
            dx = (x - targets[name]) * (1 + 0.5 * np.sin(t))
            wanted[name] = reference(x, dx, past[name], t, **given)
            if t == 1 and rule is downslope.soap:
                past[name] |= {f"{side}_basis": np.linalg.eigh(past[name][side])[1] for side in ("left", "right")}
    for walk, least in ((in_optax, 0), (in_keras, 1e-6)):
        found, _ = walk(rule, given, start, targets, STEPS)
        for name, x in wanted.items():
            np.testing.assert_allclose(found[name], x, rtol=0, atol=max(room, least), err_msg=name)
            assert np.abs(x - start[name]).max() > 0.3


def test_a_long_side_is_left_out(monkeypatch):
    """SOAP turns the other one alone, Shampoo keeps the sums of squares; a number in the formula says from where on."""
    assert bases.LONGEST == 10_000
    program, sides = compose(downslope.soap), ("left", "right")
    kept = {
        (10_000, 2): (10_000, 2),
        (10_001, 2): (1, 2),
        (2, 5_000, 2): (2, 10_000),
        (2, 5_001, 2): (2, 1),
        (10_001,): (1, 1),
    }
    assert {shape: tuple(held_shape(program, side, shape)[0] for side in sides) for shape in kept} == kept
    x, dx = np.ones((2, 3)), np.array([[1.0, -2.0, 0.5], [0.0, 1.0, 2.0]])
    monkeypatch.setattr(bases, "LONGEST", 2)
    new, left, right, rows, columns = downslope.shampoo(x, dx, lr=0.1)
    np.testing.assert_array_equal(left, dx @ dx.T)
    assert not right.any()
    assert not np.any(rows)
    np.testing.assert_array_equal(columns, [[1, 5, 4.25]])
    np.testing.assert_allclose(new, x - 0.1 * root(left, -1 / 4) @ dx / (columns + 1e-4) ** (1 / 4), rtol=1e-12)
    vector, *_ = downslope.shampoo(x[:1], dx[:1], lr=0.1)
    np.testing.assert_allclose(vector, x[:1] - 0.1 * dx[:1] / np.sqrt(dx[:1] ** 2 + 1e-4), rtol=1e-12)
    first = downslope.soap(x, dx, t=1)
    second = downslope.soap(x, dx, *first[1:], t=2)
    np.testing.assert_allclose(first[5].T @ first[3] @ first[5], np.diag(np.linalg.eigvalsh(first[3])), atol=1e-15)
    np.testing.assert_allclose(second[2], 0.05 * (first[5].T @ dx) ** 2, rtol=1e-12)


def test_both_read_like_the_papers():
    lines = dict(formula(compose(downslope.soap)))
    assert lines["seen"] == "turned(dx)"
    assert lines["new_left"] == "where(due, qr(left @ sort_by(left_basis, -left_values)), left_basis)"
    assert "inverse_fourth_root(left) @ dx" in dict(formula(compose(downslope.shampoo)))["by_rows"]


def test_options_and_a_change_of_settings_in_training():
    """Every other number of steps counts from the last time that the basis was renewed."""
    p = torch.ones(3, 3, dtype=torch.float64, requires_grad=True)
    optimizer = downslope.torch.Optimizer([p], downslope.soap, max_norm=1.0, averaging=0.5, every=3)
    renewed, basis = [], torch.zeros(1)
    for t in range(1, 12):
        p.grad = torch.tensor(slope(p.detach().numpy(), np.zeros((3, 3)), t))
        optimizer.param_groups[0]["every"] = 2 if t > 5 else 3
        optimizer.step()
        if not torch.equal(basis, optimizer.state[p]["left_basis"]):
            renewed.append(t)
            basis = optimizer.state[p]["left_basis"].clone()
    assert renewed == [1, 4, 6, 8, 10]
    assert p.isfinite().all()


def test_what_they_cannot_take_is_named():
    with pytest.raises(ShapeError, match="shampoo is for vectors and matrices, and a single number is neither"):
        Optimizer({"scale": np.ones(())}, downslope.shampoo)
    with pytest.raises(ValueError, match=r"soap called with arrays takes matrices, and x has shape \(3,\); reshape"):
        downslope.soap(np.ones(3), np.ones(3), t=1)
    with pytest.raises(ValueError, match=r"every=0.5 is out of range; expected a number from 1 to"):
        Optimizer({"W": np.ones((2, 2))}, downslope.soap, every=0.5)

"""Words over whole tensors: spaces join, stages end at sums, and what does not fit is refused in words."""

from decimal import Decimal

import numpy as np
import pytest
import torch

import downslope
from downslope import FormulaError, equivalent, max, mean, norm, rule, scalar, size, sqrt, sum, where
from downslope.language.difference import difference
from downslope.language.expression import Expression
from downslope.language.options import compose
from downslope.language.program import fingerprint
from downslope.language.spaces import COLUMN, NUMBER, ROW, TENSOR, WEIGHT, Space
from downslope.targets.arrays import interpret
from downslope.targets.decimals import compute, forty_digits
from downslope.targets.enclose import enclose
from downslope.targets.formula import formula
from downslope.targets.javascript import moving
from downslope.targets.passes import planned
from downslope.targets.shapes import ShapeError, settled

X = Expression("input", value="x", space=WEIGHT)
LR = Expression("input", value="lr")


def test_a_value_lives_where_its_parts_live_together():
    assert (norm(X).space, mean(X, axis=1).space, mean(X, axis=0).space) == (TENSOR, ROW, COLUMN)
    assert (mean(X, axis=1) * mean(X, axis=0)).space == WEIGHT
    assert ((LR * norm(X)).space, (LR * 2).space) == (TENSOR, NUMBER)
    assert (mean(X, axis=0).T).space == Space(True, "columns")
    assert (X @ X.T).space == Space(True, "rows", "rows")
    assert (X @ X.T @ X).space == WEIGHT


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: X + X.T, "do not fit together element by element"),
        (lambda: X @ X, "the first of the second, rows; transpose one of them"),
        (lambda: X @ LR, "a number multiplies with *"),
        (lambda: norm(LR), "is of a number, the same for all weights"),
        (lambda: mean(X > 0), "turn it into a number with where"),
        (lambda: mean(X, axis=2), "axis=2"),
        (lambda: mean(X, axis=True), "axis=True"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, words):
    with pytest.raises(FormulaError) as caught:
        wrong()
    assert words in str(caught.value)


def test_new_weights_that_are_transposed_are_refused():
    @rule
    def turned(x, dx, *, lr=0.1):
        return x.T

    with pytest.raises(FormulaError, match="a matrix of columns by rows as the new x"):
        compose(turned)


def test_a_scalar_state_takes_no_norm():
    @rule
    def longest(x, dx, n=scalar(0.0), *, lr=0.1):
        return x - lr * dx, norm(dx)

    with pytest.raises(FormulaError, match="one for the tensor"):
        compose(longest)


@rule
def everything(x, dx, m=0, *, lr=0.1, beta=0.9):
    m = beta * m + (1 - beta) * dx
    spread = sqrt(mean(m**2, axis=1) * mean(m**2, axis=0) / (mean(m**2) + 1e-30))
    step = m / (spread + max(abs(m), axis=1) / size(m, axis=1) + max(abs(x), axis=0) + norm(x, axis=0))
    step = step + sum(x) * sum(dx, axis=1) + (x @ dx.T) @ x / (1 + norm(x) * norm(dx) * norm(x))
    return x - lr * step / where(norm(step) > 1, norm(step), 1), m


def reference(x, dx, m, lr, beta):
    """The same by NumPy's own functions, written down anew."""
    m = beta * m + (1 - beta) * dx
    s = m * m
    spread = np.sqrt(np.outer(s.mean(1), s.mean(0)) / (s.mean() + 1e-30))
    below = spread + np.abs(m).max(1)[:, None] / m.shape[1] + np.abs(x).max(0) + np.linalg.norm(x, axis=0)
    length = np.linalg.norm(x)
    step = m / below + x.sum() * dx.sum(1)[:, None] + x.dot(dx.T).dot(x) / (1 + length * np.linalg.norm(dx) * length)
    return x - lr * step / max(np.array([np.linalg.norm(step), 1.0])), m


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 2, 3, 1), (1, 4)])
def test_every_word_computes_what_its_name_says_in_every_library(shape):
    import jax.numpy as jnp
    from keras import ops

    generator = np.random.default_rng(0)
    x, dx, m = (generator.normal(size=shape) for _ in range(3))
    flat = [a.reshape(shape[0], -1) for a in (x, dx, m)]
    expected = reference(*flat, 0.1, 0.9)
    called = everything(*flat, lr=0.1, beta=0.9)
    for new, wanted in zip(called, expected, strict=True):
        np.testing.assert_allclose(new, wanted, rtol=1e-13)
    for xp, of, rtol in (
        (np, np.asarray, 1e-13),
        (torch, torch.from_numpy, 1e-13),
        (jnp, jnp.asarray, 3e-5),
        *([(ops, ops.convert_to_tensor, 3e-5)] if len(shape) > 2 else []),
    ):
        new = interpret(compose(everything), {"x": of(x), "dx": of(dx), "m": of(m)}, {"lr": 0.1, "beta": 0.9}, xp)
        assert tuple(new["x"].shape) == shape
        np.testing.assert_allclose(np.asarray(new["x"]).reshape(flat[0].shape), expected[0], rtol=rtol, atol=rtol)


def test_a_vector_is_a_matrix_of_one_row():
    row = np.array([1.0, 2.0, 4.0])
    assert mean(row, axis=1) == mean(row) == 7 / 3
    assert (mean(row, axis=0) == row).all()
    assert size(row, axis=0) == 1
    assert size(row, axis=1) == 3
    with pytest.raises(ValueError, match=r"shape \(2, 2, 2\)"):
        mean(np.zeros((2, 2, 2)), axis=0)


def test_a_sum_of_single_precision_neither_overflows_nor_loses_its_small_terms():
    values = np.full(300, 1e25, np.float32)
    assert np.isclose(norm(values), np.sqrt(300) * 1e25)
    assert norm(values).dtype == np.float32
    tensor = torch.full((2**20,), 0.1)
    tensor[0] = 2.0**25
    assert abs(float(sum(tensor)) - 2.0**25 - 0.1 * (2**20 - 1)) < 4


def test_passes_end_at_what_has_to_be_complete():
    cost = downslope.lamb.cost()
    assert (cost.passes, cost.read, cost.written) == (2, 28, 12)  # m and v are written by the first
    assert "in 2 passes" in str(cost)
    assert (downslope.adam.cost().passes, downslope.adam.cost().read) == (1, 16)
    first, last = planned(compose(downslope.lamb), ("m", "v")).passes
    assert [e.op for e in first.sums] == ["norm", "norm"]
    assert [[name for name, _ in one.stores] for one in (first, last)] == [["m", "v"], ["x"]]
    assert downslope.muon.cost().operations["product"] == 15


def test_choices_by_shape_are_made_before_anything_is_computed():
    program = compose(downslope.muon)
    wide, tall = (settled(program, shape) for shape in ((2, 3), (3, 2)))
    assert [sum_of_products(each) for each in (program, wide, tall)] == [30, 15, 15]
    assert not any(e.op in ("size", "where") for e in (*wide.expressions, *tall.expressions))


def sum_of_products(program):
    return len([e for e in program.over_tensors if e.op == "product"])


def test_the_formula_is_written_as_its_author_would():
    lines = dict(formula(compose(everything)))
    assert "mean(m**2, axis=1) * mean(m**2, axis=0)" in lines["spread"]
    assert lines["x"].startswith("x - lr * ")
    assert "x @ dx.T @ x" in str(formula(compose(everything))).replace("(x @ dx.T) @ x", "x @ dx.T @ x")
    assert r"\left\|x_{t-1}\right\|_{\mathrm{columns}}" in everything.latex()


def test_the_axis_is_part_of_what_a_formula_is():
    @rule
    def by_rows(x, dx, *, lr=0.1):
        return x - lr * mean(dx, axis=1)

    @rule
    def by_columns(x, dx, *, lr=0.1):
        return x - lr * mean(dx, axis=0)

    assert fingerprint(compose(by_rows)) != fingerprint(compose(by_columns))


def test_the_step_alone_is_exact_where_weights_are_large():
    arrays = {"x": np.full((4, 4), 1e4, np.float32), "dx": np.ones((4, 4), np.float32)}
    arrays |= {"m": np.zeros((4, 4), np.float32), "v": np.zeros((4, 4), np.float32)}
    numbers = {"lr": 1e-9, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.0, "t": 1}
    step = interpret(difference(compose(downslope.lamb)), arrays, numbers)["x"]
    np.testing.assert_allclose(step, -1e-5, rtol=1e-5)


def test_the_bounds_are_tight_where_values_are_ordinary():
    generator = np.random.default_rng(1)
    arrays = {name: generator.normal(size=(8, 8)).astype(np.float32) for name in ("x", "dx", "v")}
    inside = enclose(compose(downslope.lars), arrays, {"lr": 0.1, "mu": 0.9, "trust": 1e-3, "weight_decay": 0.1}, "f4")
    assert (inside["x"].high - inside["x"].low).max() < 1e-5


def test_targets_that_treat_each_weight_by_itself_refuse_in_words():
    with pytest.raises(FormulaError, match=r"lamb goes by whole tensors \(norm\)"):
        moving(compose(downslope.lamb))
    with forty_digits(), pytest.raises(FormulaError, match="muon goes by rows and columns; say of which matrices"):
        compute(compose(downslope.muon), {name: [Decimal(1)] for name in ("x", "dx", "m")}, {})
    assert "norms, means or products of whole tensors" in downslope.lamb.stability().reason


def test_forty_digits_know_sums():
    @rule
    def by_hand(x, dx, v=0, *, lr=0.1, mu=0.9, trust=1e-3, weight_decay=0.0):
        length, steepness = sqrt(sum(x**2)), sqrt(sum(dx**2)) + weight_decay * sqrt(mean(x**2) * size(x))
        v = mu * v + lr * where(length * steepness > 0, trust * length / steepness, 1) * (dx + weight_decay * x)
        return x - v, v

    assert equivalent(downslope.lars, by_hand, weight_decay=0.1)
    assert not equivalent(downslope.lars, downslope.momentum, lr=0.1)


def test_a_rule_of_matrices_names_what_is_none():
    program = compose(downslope.muon)
    arrays = {name: np.ones(3) for name in ("x", "dx", "m")}
    with pytest.raises(ShapeError, match=r"muon multiplies matrices, and a tensor of shape \(3,\) is none"):
        interpret(program, arrays, {"lr": 0.1, "momentum": 0.9, "eps": 1e-7})
    empty = {name: np.ones((0, 3)) for name in ("x", "dx", "m")}
    assert interpret(program, empty, {"lr": 0.1, "momentum": 0.9, "eps": 1e-7})["x"].shape == (0, 3)

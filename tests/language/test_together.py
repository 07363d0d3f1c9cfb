"""Sums over all tensors: where they live, what they are divided into, what is refused, and what is derived of them."""

from decimal import Decimal

import numpy as np
import pytest

from downslope import FormulaError, equivalent, max, maximum, mean, minimum, norm, rule, scalar, size, sum, where
from downslope.backends.cpu import Kernel
from downslope.installed import Target
from downslope.language.difference import difference
from downslope.language.expression import Expression
from downslope.language.options import compose
from downslope.language.program import fingerprint
from downslope.language.spaces import ALL, NUMBER, TENSOR, WEIGHT
from downslope.language.together import alone, divided
from downslope.targets.arrays import interpret, interpret_together
from downslope.targets.cost import cost
from downslope.targets.decimals import compute, forty_digits
from downslope.targets.formula import formula
from downslope.targets.javascript import moving
from downslope.testing import check_target

X = Expression("input", value="x", space=WEIGHT)
LR = Expression("input", value="lr")


@rule
def clipped(x, dx, *, lr=0.1, cap=1.0):
    return x - lr * dx * minimum(1, cap / norm(dx, over="all"))


@rule
def by_rounds(x, dx, d=scalar(1e-3), *, lr=0.1):
    steepest = max(abs(dx), over="all")
    middle = mean(dx / steepest, over="all")
    d = maximum(d, sum(x * (dx - middle), over="all"))
    return x - lr * d * dx / (size(dx, over="all") + norm(mean(x), over="all")), d


def test_a_sum_over_all_is_neither_a_number_nor_a_tensors():
    length = norm(X, over="all")
    assert (length.space, (LR * length).space, (length * norm(X)).space) == (ALL, ALL, TENSOR)
    assert (length * X).space == WEIGHT
    assert LR.space == NUMBER
    assert length.from_arrays
    assert str(length.space) == "one for all tensors"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: norm(X, over="some"), "norm(over='some'): give \"all\""),
        (lambda: mean(X, axis=0, over="all"), "all tensors have no common axis"),
        (lambda: norm(LR, over="all"), "is of a number, the same for all weights"),
        (lambda: norm(norm(X, over="all"), over="all"), 'norm(norm(x, over="all")) is of a number, the same'),
        (lambda: sum(X > 0, over="all"), "turn it into a number with where"),
        (lambda: X @ norm(X, over="all"), "a number multiplies with *"),
        (lambda: size(np.ones(3), over=0), "size(over=0)"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, words):
    with pytest.raises(FormulaError) as caught:
        wrong()
    assert words in str(caught.value)


def test_a_look_ahead_sums_up_nothing():
    @rule
    def looking(x, dx, v=0, *, lr=0.1):
        return x - lr * dx, dx

    @looking.lookahead
    def looking(v, *, lr):
        return lr * v / norm(v, over="all")

    for stored in (True, False):
        with pytest.raises(FormulaError, match=r"the look-ahead of looking sums up all tensors.*scalar state"):
            compose(looking, stored_ahead=stored)


def test_a_state_of_each_weight_is_no_scalar_state():
    @rule
    def longest(x, dx, n=scalar(0.0), *, lr=0.1):
        return x - lr * dx, n + mean(dx)

    with pytest.raises(FormulaError, match=r'scalar state n depends on arrays.*norm\(dx, over="all"\)'):
        compose(longest)


def test_a_program_is_divided_into_rounds():
    parts = divided(compose(by_rounds))
    words = [sorted(each.words.values()) for each in parts.rounds]
    assert words == [["max", "norm", "size"], ["mean"], ["sum"]]
    assert not parts.rest.over_tensors
    assert cost(compose(by_rounds)).passes == 4
    assert cost(compose(clipped)).passes == 2


def test_what_is_derived_of_them():
    program = compose(clipped)
    assert formula(program) == (("x", 'x - lr * dx * minimum(1, cap / norm(dx, over="all"))'),)
    assert r"\left\|dx_{t}\right\|_{\mathrm{all}}" in clipped.latex()
    assert fingerprint(program) != fingerprint(alone(program))
    with pytest.raises(FormulaError, match=r"goes by whole tensors \(norm\)"):
        moving(program)
    with pytest.raises(FormulaError, match=r"goes by whole tensors \(norm\)"):
        Kernel(program, ("float64", "float64"), "nearest")
    added = interpret(difference(program), {"x": np.float32([1e6]), "dx": np.float32([1e-3])}, {"lr": 0.1, "cap": 1.0})
    assert float(added["x"][0]) == pytest.approx(-1e-4)
    assert clipped.stability().limit is None


def test_rules_that_clip_by_what_is_there_and_by_all_differ_only_where_there_is_more():
    @rule
    def clipped_each(x, dx, *, lr=0.1, cap=1.0):
        return x - lr * dx * minimum(1, cap / norm(dx))

    @rule
    def shortened(x, dx, *, lr=0.1, cap=1.0):
        length = norm(dx, over="all")
        return x - lr * dx * minimum(1, cap / length)

    assert equivalent(clipped, shortened)
    assert not equivalent(clipped, by_rounds)
    x, dx = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    assert clipped(x, dx).tolist() == clipped_each(x, dx).tolist()


def _tensors(dtype=np.float64):
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (5,), (), (0, 2), (2, 3, 2, 2)]
    return [
        {"x": np.asarray(rng.normal(size=s), dtype), "dx": np.asarray(rng.normal(size=s) * 3, dtype)} for s in shapes
    ]


def test_all_tensors_together_are_one():
    tensors, scalars = _tensors(), {"lr": 0.1, "cap": 1.0, "d": 1e-3}
    whole = {name: np.concatenate([each[name].ravel() for each in tensors]) for name in ("x", "dx")}
    expected = clipped(whole["x"], whole["dx"])
    new = interpret_together(compose(clipped), tensors, scalars)
    np.testing.assert_allclose(np.concatenate([each["x"].ravel() for each in new]), expected, rtol=1e-14)

    x, dx = whole["x"], whole["dx"]
    middle = (dx / np.abs(dx).max()).mean()
    d = (x * (dx - middle)).sum()
    means = np.array([each["x"].mean() for each in tensors if each["x"].size])
    expected = x - 0.1 * np.maximum(1e-3, d) * dx / (x.size + np.linalg.norm(means))
    new = interpret_together(compose(by_rounds), tensors, scalars)
    np.testing.assert_allclose(np.concatenate([each["x"].ravel() for each in new]), expected, rtol=1e-13)
    np.testing.assert_allclose([float(each["d"]) for each in new], np.maximum(1e-3, d), rtol=1e-13)
    with forty_digits():
        lists = {name: [Decimal(float(v)) for v in tensors[0][name].ravel()] for name in ("x", "dx")}
        exact = compute(compose(by_rounds), lists, {name: Decimal(v) for name, v in scalars.items()})
    alone_there = interpret(compose(by_rounds), tensors[0], scalars)
    np.testing.assert_allclose(np.float64(exact["x"]), alone_there["x"].ravel(), rtol=1e-13)
    assert float(exact["d"]) == pytest.approx(float(alone_there["d"]), rel=1e-13)


def test_what_is_chosen_by_size_counts_as_many_times_as_there_are_weights():
    @rule
    def counting(x, dx, n=scalar(0.0), *, lr=0.1):
        return x - lr * dx, sum(where(size(x) > 4, 1, dx * 0), over="all")

    new = interpret_together(compose(counting), _tensors(), {"lr": 0.1, "n": 0.0})
    assert float(new[0]["n"]) == 12 + 5 + 24


def test_sums_of_nothing_are_zero():
    empty = [{"x": np.zeros((0, 3)), "dx": np.zeros((0, 3))}]
    (new,) = interpret_together(compose(by_rounds), empty, {"lr": 0.1, "d": 0.5})
    assert (float(new["d"]), new["x"].shape) == (0.5, (0, 3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_computed_lies_within_the_bounds_of_the_formula(dtype):
    assert check_target(Target("NumPy", dtype, interpret), compose(by_rounds), {"lr": 0.1}).passed

    def clipping(program, arrays, scalars):
        return interpret(compose(clipped), arrays, {**scalars, "cap": 1.0})

    assert not check_target(Target("another rule", dtype, clipping), compose(by_rounds), {"lr": 0.1}).passed

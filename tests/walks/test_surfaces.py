"""Surfaces: gradients and curvatures beside forty digits, minima where they are said to be, and what is refused."""

from decimal import Decimal

import numpy as np
import pytest

import downslope
from downslope import FormulaError, rules, surface, surfaces
from downslope.language.grammar import GrammarError
from downslope.language.operations import WORDS
from downslope.targets import decimals
from downslope.targets.evaluate import evaluate
from downslope.walks.surfaces import surface_of

BUILT_IN = {each.name: each for each in surfaces.SURFACES}
KINKED = {"ravine", "kink"}


def grid(of, count):
    axes = [np.linspace(*of.ranges[name], count) for name in of.variables]
    return np.meshgrid(*axes)


def in_forty_digits(of, point):
    """The loss and its gradient by differences, at a point."""

    def loss(shift=(0, 0)):
        at = {name: Decimal(float(v)) + h for name, v, h in zip(of.variables, point, shift, strict=False)}
        at |= {name: Decimal(float(value)) for name, value in of.parameters.items()}
        leaf = lambda e: Decimal(e.value) if e.op == "constant" else at[e.value]  # noqa: E731
        return evaluate([of.formula], leaf, lambda e, args: decimals.OPERATIONS[e.op](*args))[of.formula]

    with decimals.forty_digits():
        h = Decimal("1e-12")
        slopes = [(loss(step) - loss([-s for s in step])) / (2 * h) for step in ([h, 0], [0, h])[: len(of.variables)]]
        return float(loss()), [float(slope) for slope in slopes]


@pytest.mark.parametrize("name", BUILT_IN)
def test_value_and_gradient_are_those_of_forty_digits(name):
    of = BUILT_IN[name]
    generator = np.random.default_rng(1)
    for _ in range(10):
        point = [generator.uniform(*of.ranges[key]) for key in of.variables]
        value, slopes = in_forty_digits(of, point)
        size = max(1.0, abs(value), *map(abs, slopes))
        assert abs(of(*point) - value) <= 1e-13 * size
        np.testing.assert_allclose(of.gradient(*point), slopes, rtol=0, atol=1e-12 * size)


@pytest.mark.parametrize("name", BUILT_IN)
def test_value_and_gradient_are_those_of_jax(name):
    jax = pytest.importorskip("jax")
    of = BUILT_IN[name]
    with jax.enable_x64(True):
        point = [jax.numpy.float64(v) for v in of.start]
        found = jax.grad(lambda *point: of(*point), tuple(range(len(point))))(*point)
        np.testing.assert_allclose(of.gradient(*of.start), [float(slope) for slope in found], rtol=1e-12)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_curvature_is_that_of_the_gradient(name):
    of, h = BUILT_IN[name], 1e-6
    shifts = np.eye(len(of.variables)) * h
    point = np.add(of.start, 0.01)
    found = of.hessian(*point)
    for row, shift in enumerate(shifts):
        slopes = np.subtract(of.gradient(*point + shift), of.gradient(*point - shift)) / (2 * h)
        np.testing.assert_allclose([each[row] for each in found], slopes, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", BUILT_IN)
def test_nowhere_is_it_lower_than_at_its_minima(name):
    of = BUILT_IN[name]
    everywhere = of(*grid(of, 401 if len(of.variables) == 2 else 100_001))
    assert np.isfinite(everywhere).all()
    assert of.minima
    for point in of.minima:
        assert all(low <= v <= high for v, (low, high) in zip(point, of.ranges.values(), strict=True))
        assert of(*point) <= everywhere.min() + 1e-28
        assert abs(of(*point) - of.lowest) < 1e-12
        assert np.abs(of.gradient(*point)).max() < 1e-11
        if name not in KINKED:
            assert np.linalg.eigvalsh(np.array(of.hessian(*point), float)).min() > 0.01  # and it is isolated


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_walk_begins_in_sight_and_has_somewhere_to_go(name):
    of = BUILT_IN[name]
    assert all(low <= v <= high for v, (low, high) in zip(of.start, of.ranges.values(), strict=True))
    assert of(*of.start) > of.lowest + 0.05
    assert np.abs(of.gradient(*of.start)).max() > 0.01


@pytest.mark.parametrize("name", BUILT_IN)
def test_it_says_what_it_teaches_and_where_it_is_from(name):
    of = BUILT_IN[name]
    assert of.teaches.endswith(".")
    assert len(of.source) > 20
    assert of.latex().startswith("f(x")
    assert all("partial" in each for each in of.gradient_latex())


def test_names_clash_with_nothing():
    taken = {rule.name for rule in rules.RULES} | {*WORDS, "abs", "pi", "x", "y", "walk", "surface", "surfaces"}
    assert not taken & set(BUILT_IN)
    assert list(BUILT_IN) == surfaces.__all__


def test_known_values():
    assert surfaces.beale(1.0, 1.0) == 1.5**2 + 2.25**2 + 2.625**2
    assert surfaces.himmelblau(0.0, 0.0) == 170
    assert abs(surfaces.rastrigin(0.5, 0.5) - 40.5) < 1e-12
    assert surfaces.rosenbrock(0.0, 1.0) == 101
    assert surfaces.saddle.lowest == -0.25
    assert abs(surfaces.monkey_saddle.lowest + 27 / 256) < 1e-15
    np.testing.assert_array_equal(surfaces.monkey_saddle.hessian(0.0, 0.0), np.zeros((2, 2)))


def test_the_condition_number_of_the_valleys_is_their_parameter():
    for of, kappa in ((surfaces.valley, 50), (surfaces.rotated_valley, 50), (surfaces.valley.given(kappa=1e4), 1e4)):
        low, high = np.linalg.eigvalsh(np.array(of.hessian(1.0, 2.0), float))
        assert abs(high / low - kappa) < 1e-9 * kappa
    turned = surfaces.rotated_valley.given(theta=0.0)
    assert turned(1.5, -0.5) == surfaces.valley(1.5, -0.5)


def test_the_logistic_regression_is_that_of_the_paper():
    """Published: log odds of 15.043 - 0.2322 per degree Fahrenheit."""
    ((slope, bias),) = surfaces.logistic.minima
    assert round(bias - 7 * slope, 3) == 15.043
    assert round(slope / 10, 4) == -0.2322
    assert np.isfinite(surfaces.logistic.gradient(1e6, -1e6)).all()


def test_heavy_ball_goes_in_a_circle_on_a_strongly_convex_function():
    """Lessard, Recht & Packard: the three points are p = 792/1225, q = -2208/1225 and r = 2592/1225."""
    of, lr, mu = surfaces.heavy_ball_cycle, 1 / 9, 4 / 9  # 4 / (sqrt(25) + 1)**2 and ((5 - 1) / (5 + 1))**2
    curvature = [float(of.hessian(x)[0][0]) for x in np.linspace(-3, 4, 71)]
    assert (min(curvature), max(curvature)) == (1, 25)
    x, v, path = of.start[0], 0.0, []
    for _ in range(600):
        x, v = downslope.momentum(x, of.gradient(x)[0], v, lr=lr, mu=mu)
        path.append(float(x))
    np.testing.assert_allclose(sorted(path[-3:]), np.array([-2208, 792, 2592]) / 1225, rtol=1e-12)
    np.testing.assert_allclose(path[-3:], path[-6:-3], rtol=1e-12)
    slow = 3.3
    for _ in range(600):
        slow = downslope.sgd(slow, of.gradient(slow)[0], lr=lr / 2)
    assert abs(slow) < 1e-12  # gradient descent arrives


# Own surfaces


def test_a_surface_of_ones_own():
    @surface(start=(1, 2), ranges={"y": (0, 4)}, minima=[(0, 1)])
    def dish(x, y, *, steep=3.0):
        """Mine.

        Source: here.
        """
        return x**2 + steep * (y - 1) ** 2

    assert dish.variables == ("x", "y")
    assert dish.ranges == {"x": (-5.0, 5.0), "y": (0.0, 4.0)}
    assert (dish.start, dish.minima, dish.lowest) == ((1.0, 2.0), ((0.0, 1.0),), 0.0)
    assert (dish.teaches, dish.source) == ("Mine.", "here.")
    assert [float(v) for v in dish.given(steep=5).gradient(1.0, 2.0)] == [2.0, 10.0]
    assert dish.parameters == {"steep": 3.0}


def test_arrays_and_numbers():
    values = surfaces.valley(np.float32([[1], [2]]), np.array([0, 1, 2]))
    assert values.shape == (2, 3)
    assert values.dtype == np.float64
    assert float(surfaces.valley(1, 2)) == float(surfaces.valley(np.float64(1), 2.0)) == 20.1
    assert surface_of("3")(np.zeros(2)).tolist() == [3, 3]
    assert surface_of("y")(np.zeros(2), 1).tolist() == [1, 1]


def test_what_is_meant():
    assert surface_of(surfaces.beale) is surface_of(" beale ") is surfaces.beale
    typed = surface_of("x**2/10 + 5*y**2")
    np.testing.assert_array_equal(typed.gradient(-9.0, 1.5), surfaces.valley.gradient(-9.0, 1.5))
    assert surface_of("x**4").variables == ("x",)
    assert surface_of(lambda x, y: x * y).gradient(2.0, 3.0) == (3.0, 2.0)
    assert surface_of("2 + 0 * y").variables == ("x", "y")


def test_a_start_is_found_where_the_loss_is_finite():
    assert surface_of("log(x)").start[0] > 0
    assert surface_of("sqrt(-x) + sqrt(-y)").start < (0, 0)
    assert np.isfinite(surface_of("log(x - 4) * y").gradient(*surface_of("log(x - 4) * y").start)).all()


@pytest.mark.parametrize("text", ["log(-1 - x**2)", "x + 1e308*y*1e308*1e308", "exp(exp(99 + x**2))", "(x-x)/(x-x)"])
def test_what_is_finite_nowhere_is_refused(text):
    with pytest.raises(ValueError, match="not finite"):
        surface_of(text)


@pytest.mark.parametrize(
    "text", ["beal", "x +", "__import__('os')", "x.real", "z", "1/0", "x*1e999", "(" * 1000, "x" * 10_000]
)
def test_a_text_that_is_no_formula(text):
    with pytest.raises(GrammarError):
        surface_of(text)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda x, y, z: x, r"surface\(x, y, z\): a surface is a function of x, or of x and y"),
        (lambda a: a, r"surface\(a\)"),
        (lambda x, *rest: x, r"surface\(x, rest\)"),
        (lambda x, *, steep: x, "steep needs a number"),
        (lambda x, *, steep=True: x, "steep needs a number"),
        (lambda x: x > 0, "truth value"),
        (lambda x: np.linalg.norm(x), "numpy.norm"),
        (lambda x: x if x > 0 else -x, "Python branch"),
        (lambda x: None, "None"),
        (print, "a surface is a Python function"),
    ],
)
def test_a_function_that_is_no_formula(function, problem):
    with pytest.raises(FormulaError, match=problem):
        surface_of(function)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"start": (1,)}, r"start=\(1,\)"),
        ({"start": (1, float("nan"))}, "start="),
        ({"minima": [(1, 2, 3)]}, "minima="),
        ({"ranges": {"z": (0, 1)}}, r"\['z'\]; its weights are x, y"),
        ({"ranges": {"x": (1, 1)}}, r"ranges\['x'\]=\(1, 1\)"),
        ({"ranges": {"x": (0, float("inf"))}}, "both finite"),
        ({"start": (-1, 0)}, r"not finite at its start \(-1.0, 0.0\)"),
    ],
)
def test_numbers_that_cannot_be(given, problem):
    with pytest.raises(ValueError, match=problem):
        surface(**given)(lambda x, y: downslope.sqrt(x) + y)


def test_wrong_calls():
    with pytest.raises(TypeError, match=r"valley has the weights x, y; got 1"):
        surfaces.valley(1.0)
    with pytest.raises(TypeError, match="did you mean kappa"):
        surfaces.valley.given(kapa=3)
    with pytest.raises(ValueError, match="kappa=nan"):
        surfaces.valley.given(kappa=float("nan"))


# The program, for other targets


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_program_works_out_what_is_common_once(name):
    of = BUILT_IN[name]
    assert list(of.program.outputs) == ["loss", "dx", "dy"][: len(of.variables) + 1]
    assert set(of.program.scalars) == set(of.parameters)
    seen = {(e.op, tuple(map(id, e.args)), str(e.value)) for e in of.program.body}
    assert len(seen) == len(of.program.body)

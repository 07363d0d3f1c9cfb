"""What a page reads of a typed formula is what Python reads: the same tree or the same refusal, value and gradient."""

import base64
import hashlib
import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from downslope.language.derivative import gradient
from downslope.language.grammar import CALLED, DEEPEST, LONGEST, GrammarError, parse
from downslope.targets import arrays
from downslope.targets.evaluate import evaluate
from downslope.targets.javascript import LIBRARY
from downslope.targets.typed import reader

READ = """
const reader = %s;
const nested = ({ op, args, value }) => (op === "constant" || op === "input" ? value : [op, ...args.map(nested)]);
function read(text) {
  try {
    return { tree: nested(reader.parse(text, ["x", "y"])) };
  } catch (error) {
    if (!(error instanceof reader.GrammarError)) throw error;
    return { place: error.place, problem: error.problem };
  }
}
function values(text, points) {
  const tree = reader.parse(text, ["x", "y"]);
  const [loss, slope, curvature] = [reader.loss, reader.slope, reader.curvature].map((of) => of(tree, ["x", "y"]));
  return points.map(([x, y]) => [loss(x, y), ...slope(x, y, [0, 0, 0]), ...curvature(x, y, [0, 0, 0, 0])]);
}
"""


@pytest.fixture(scope="module")
def reading(page):
    page.add_script_tag(content=f'"use strict";\n{LIBRARY}\n{READ % reader()}')
    return page


def nested(e):
    return e.value if e.op in ("constant", "input") else [e.op, *map(nested, e.args)]


def read(text):
    """The tree that Python reads, or what it says is wrong, as the page gives them."""
    try:
        return {"tree": nested(parse(text))}
    except GrammarError as error:
        return {"place": error.place, "problem": error.problem}


def alike(a, b):
    """Whether two trees are the same; numbers worked out by a function may differ in the last place."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return abs(a - b) <= 4 * math.ulp(a) and math.copysign(1, a) == math.copysign(1, b)


def assert_read_alike(reading, texts):
    for text, found in zip(texts, reading.evaluate("(texts) => texts.map(read)", texts), strict=True):
        expected = read(text)
        assert found.keys() == expected.keys(), text
        if "tree" in expected:
            assert alike(found["tree"], expected["tree"]), text
        else:
            assert found == expected, text


# Trees and refusals

SIGNS = "( ) , + - * / ** ^ < == & | ~"
WORDS = "x y 1 2.5 3 1e300 pi e . constructor maximum( sin(x) 2**0.5"
PIECES = [*SIGNS.split(), *WORDS.split(), *CALLED, " ", "where(x > 0, ", "where(1 < 2, x, y)"]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=25).map("".join), min_size=10, max_size=30))
def test_any_signs_are_read_alike(reading, texts):
    assert_read_alike(reading, texts)


OPERANDS = ["x", "y", "2", "3", ".5", "1e-1", "pi", "-x", "(x-y)", "cos(x)", "abs(-x*y)", "maximum(x, 2)", "tanh(0.3)"]
OPERANDS += ["where(x<y & ~(y>=1), x, 3)", "sqrt(2)", "x^2", "y**4", "2**-1", "(1 < 2)", "log(3)", "-(-0.0)", "x**3"]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.lists(st.sampled_from(OPERANDS), min_size=1, max_size=6).flatmap(
            lambda operands: st.lists(
                st.sampled_from(["+", " - ", "*", "/", "**", "^", "<", "&"]),
                min_size=len(operands) - 1,
                max_size=len(operands) - 1,
            ).map(lambda signs: "".join(a + b for a, b in zip(operands, [*signs, ""], strict=True)))
        ),
        min_size=10,
        max_size=25,
    )
)
@example(["x + -(-0.0)**.5", "x + -(-0.0)**-1", "x + (-0.0)**3"])
def test_formulas_are_read_alike(reading, texts):
    assert_read_alike(reading, texts)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=210), min_size=10, max_size=20))
def test_any_text_is_read_alike(reading, texts):
    assert_read_alike(reading, texts)


HOSTILE = [
    *("", " \n", "__import__('os')", "constructor.constructor('alert(1)')()", "toString", "valueOf", "__proto__"),
    *("hasOwnProperty(x)", "x\u2028+1", "x\u00a0+ y", "٣ * x", "𝟛", "x 𝟛", "1/0", "x * log(-1)", "1e999", "1e308*10*x"),
    *("2 > 1", "0 < x < 1", "where(x, 1, 0)", "sin", "sin()", "maximum(x)", "(x, y)", "x.real", "x; y", "`${x}`"),
    *("x => y", "/x/", "//"),
]
HOSTILE += [piece * 10_000 for piece in ("(", "x", "-", "sin(", "9", "x**", "\0", "𝟛")]
HOSTILE += [piece * (LONGEST // len(piece)) for piece in ("(", "-", "sin(", "9", "x**", "~", "(-", ".9", "e", "+x")]
HOSTILE += [f"{'(' * k}x{')' * k}" for k in (DEEPEST - 1, DEEPEST, DEEPEST + 1)] + ["𝟛" * LONGEST, "x" * (LONGEST + 1)]


def test_hostile_texts_are_refused_alike(reading):
    assert_read_alike(reading, HOSTILE)


# Values and gradients


def values(text, points):
    """The value, the value again, the gradient and the second derivatives, as Python works them out."""
    e = parse(text)
    slopes = gradient(e, ("x", "y"))
    roots = [e, e, *slopes, *(each for slope in slopes for each in gradient(slope, ("x", "y")))]

    def at(x, y):
        def leaf(e):
            return np.float64(e.value if e.op == "constant" else {"x": x, "y": y}[e.value])

        with np.errstate(all="ignore"):
            known = evaluate(roots, leaf, lambda e, args: arrays.compute(e.op, args))
        return [known[root] for root in roots]

    return [at(*point) for point in points]


@st.composite
def polynomials(draw, depth=3):
    """Formulas whose values at halves need no rounding."""
    if depth == 0:
        return draw(st.sampled_from(["x", "y", "x", "y", "1", "2", "3"]))
    a, b, c = (draw(polynomials(depth - 1)) for _ in range(3))
    form = draw(st.integers(0, 10))
    return [
        f"({a} + {b})",
        f"({a} - {b})",
        f"{a} * {b}" if depth == 1 else f"({a}) * ({b})",
        f"({a})**2",
        f"-({a})",
        f"abs({a})",
        f"maximum({a}, {b})",
        f"minimum({a}, {b})",
        f"where({a} > {b}, {b}, {c})",
        f"where({a} <= 1 | ~({b} == {c}), {a}, {b})",
        f"sign({a})",
    ][form]


POINTS = [[x / 2, y / 2] for x, y in [(0, 0), (1, 1), (-1, 2), (3, -4), (2, 2), (-5, -1), (0, 3)]]


@settings(deadline=None, max_examples=100)
@given(polynomials().filter(lambda text: len(text) <= LONGEST))
def test_polynomials_have_the_same_value_and_derivatives_to_the_bit(reading, text):
    found = reading.evaluate("([text, points]) => values(text, points)", [text, POINTS])
    np.testing.assert_array_equal(found, values(text, POINTS))


SURFACES = [
    "x**2/10 + 5*y**2",
    "(1 - x)**2 + 100*(y - x**2)**2",
    "(1.5 - x + x*y)**2 + (2.25 - x + x*y^2)**2 + (2.625 - x + x*y^3)**2",
    "(x**2 + y - 11)**2 + (x + y**2 - 7)**2",
    "20 + x**2 - 10*cos(2*pi*x) + y**2 - 10*cos(2*pi*y)",
    "log(1 + exp(-x - 2*y)) + log(1 + exp(x - y)) + x**2/20",
    "x**4/4 - x**2/2 + sin(3*y)/3 + y^2/9",
    "tanh(x*y)**2 + expm1(-x**2/8) + sqrt(1 + y**2)",
    "where(x > 0.3, x**3 / 3, exp(x) - 1) + abs(y)**1.5",
    "abs(x)**(1 + y**2/4) + 2**x + 3**-y",
    "(x*y)**3 - (x - y)**4 / (1 + x**2)",
    "maximum(x**2, abs(y)) - minimum(sin(x), cos(y)) / 2",
    "x**5 + y**-2 + 1/(3 + x*y/4)",
    "7",
    "x",
    "sign(x) * y",
]


@pytest.mark.parametrize("text", SURFACES)
def test_surfaces_have_the_same_value_and_derivatives(reading, text):
    generator = np.random.default_rng(0)
    points = generator.uniform(-2, 2, (40, 2)).tolist()
    found = reading.evaluate("([text, points]) => values(text, points)", [text, points])
    np.testing.assert_allclose(found, values(text, points), rtol=1e-11, atol=1e-13)


def test_infinities_and_nan_come_through(reading):
    text = "log(x) + 1/y + sqrt(x)"
    points = [[0.0, 1.0], [-1.0, 1.0], [1.0, 0.0], [1.0, -0.0], [math.inf, 1.0]]
    found = reading.evaluate("([text, points]) => values(text, points)", [text, points])
    np.testing.assert_array_equal(np.array(found)[:, :4], np.array(values(text, points))[:, :4])


def test_a_formula_is_read_where_nothing_may_be_run(page, tmp_path):
    """Under a policy by which `eval` throws."""
    script = f"""
    {LIBRARY}
    {READ % reader()}
    let evaluated = "yes";
    try {{ eval("1"); }} catch (error) {{ evaluated = error.name; }}
    const [[, value, dx, dy]] = values("x**2/10 + 5*y**2", [[3, 2]]);
    document.title = JSON.stringify([evaluated, value, dx, dy]);
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{digest}'"
    file = tmp_path / "page.html"
    file.write_text(
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<script>{script}</script>",
        encoding="utf-8",
    )
    page.goto(file.as_uri())
    evaluated, *found = json.loads(page.title())
    assert evaluated == "EvalError"
    np.testing.assert_allclose(found, [20.9, 0.6, 20])

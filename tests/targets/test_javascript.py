"""JavaScript in a browser walks the paths that Python walks: every rule, dialect and choice."""

import base64
import dataclasses
import functools
import itertools
import math
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import downslope
from downslope import exp, expm1, log, maximum, minimum, rule, scalar, sign, sqrt, tanh, where
from downslope.language.expression import expression
from downslope.language.operations import OPERATIONS
from downslope.language.options import compose
from downslope.language.program import in_order
from downslope.language.trace import number
from downslope.recipes.catalogue import families
from downslope.targets import arrays, decimals
from downslope.targets.enclose import enclose, enclose_scalars
from downslope.targets.evaluate import evaluate as work_out
from downslope.targets.javascript import JAVASCRIPT, LIBRARY, function, javascript
from downslope.testing import situations
from downslope.walks.surfaces import SURFACES
from random_formulas import evaluate, formulas

STEPS = 10
LR = 0.02


@rule
def every_word(x, dx, v=0.5, anchor="x", second=0, third="lr", *, t, lr=0.1, beta=0.9):
    a = exp(-abs(dx)) + expm1(-abs(dx) * beta) + tanh(dx) * sign(x)
    v = where((dx > 0) & (x <= 1) | ~(v >= dx), maximum(a, v), minimum(a, v))
    new = x - lr * expm1(beta**t) * sqrt(log(1 + abs(a))) / 10 + (anchor - x) * beta / 100
    return new, v, anchor, dx**2 - dx**3 / 8, abs(x) ** 1.5 - dx**4 / 64


@rule
def reserved(
    x,
    dx,
    delete=0,
    Math=0,
    states=0,
    i="new",
    x_all=scalar(1.0),
    constructor=scalar(0.5),
    *,
    t,
    new=0.1,
    hyperparameters=0.9,
    pow=0.5,
    valueOf=0.25,
    toString=2.0,
    r0=1.0,
    c0=0.75,
):
    """A rule whose names mean something else in JavaScript."""
    function = hyperparameters * delete + (1 - hyperparameters) * dx
    var = Math + pow**t * function**2
    typeof = c0 * states + var / (1 + abs(var)) * r0
    this = x_all * valueOf + constructor
    undefined = this / (toString + this)
    return x - new * function / (sqrt(abs(var)) + 1), function, var, typeof, i + new * dx, this, undefined


# The ground: every surface from three starts, as tall as makes its curvature at most 1 there


def starts(surface):
    start = np.array(surface.start)
    return np.array([start, 0.7 * start + 0.1, 0.4 * start - 0.2])


def height(surface):
    """A power of two, by which a product changes no digits."""
    steepest = max(np.abs(surface.hessian(*start)).max() for start in starts(surface))
    return 2.0 ** -math.ceil(math.log2(max(steepest, 1.0)))


def blocks():
    """Where the weights of each surface are among all: first the x of its starts, then the y."""
    begin = 0
    for surface in SURFACES:
        yield surface, slice(begin, begin := begin + starts(surface).size)


BLOCKS = dict(blocks())
HEIGHTS = {surface: height(surface) for surface in SURFACES}
START = np.concatenate([starts(surface).T.ravel() for surface in SURFACES])
X, Y = number("x"), number("y")


def slopes(places):
    """The gradients at many places, which may be those of many walkers."""
    found = np.empty_like(places)
    for surface, block in BLOCKS.items():
        axes = np.split(places[..., block], len(surface.variables), axis=-1)
        new = arrays.interpret(surface.program, dict(zip("xy", axes, strict=False)), surface.parameters)
        slope = [HEIGHTS[surface] * new[f"d{name}"] for name in surface.variables]
        found[..., block] = np.concatenate(slope, axis=-1)
    return found


def exact(*roots):
    """Whether IEEE arithmetic leaves no choice."""
    return all(OPERATIONS[e.op].exact for e in in_order(roots) if e.args)


@dataclass(frozen=True)
class Case:
    name: str
    program: downslope.language.program.Program
    settings: dict

    @functools.cached_property
    def exact(self):
        ahead = self.program.lookahead.outputs.values() if self.program.lookahead else ()
        return exact(*self.program.outputs.values(), *self.program.scalar_outputs.values(), *ahead)


def case(name, some, **choices):
    program = compose(some, **choices)
    numbers = {key: 0.1 if value is None else value for key, value in some.hyperparameters.items()}
    numbers |= {"lr": LR} if "lr" in numbers else {}
    numbers |= {f"{key} next": value for key, value in numbers.items() if f"{key} next" in program.scalars}
    numbers |= {"weight_decay": 0.02, "averaging": 0.9, "grad_scale": 0.5} | numbers
    return Case(f"{name} {choices}", program, numbers)


def cases():
    for family, forms in families().items():
        for dialect, some in forms.items():
            if compose(some).over_tensors:
                continue
            for flags in itertools.product(*([(flag, False), (flag, True)] for flag in some.flags)):
                yield case(f"{dialect}.{family}", some, **dict(flags))
            if some.ahead:
                yield case(f"{dialect}.{family}", some, stored_ahead=True)
    for some in downslope.rules.RULES:
        own = {*some.hyperparameters, *some.flags}
        decay = {"weight_decay": True} if "weight_decay" not in own else {}
        yield case(some.name, some, averaging=True, cautious=True, max_norm=True, maximize=True, **decay)
        if decay and "lr" in own:
            yield case(some.name, some, decoupled=True, **decay)
    yield case("every word", every_word)
    yield case("reserved names", reserved)


CASES = list(cases())

WALK = """
function walk(rule, settings, grounds, start, steps) {
  const x = Float64Array.from(start), dx = new Float64Array(x.length), at = new Float64Array(x.length);
  const states = rule.start(x, settings), path = new Float64Array(x.length * steps), out = new Float64Array(3);
  for (let t = 1; t <= steps; t++) {
    const place = rule.point ? at : x;
    if (rule.point) rule.point(at, x, states, settings);
    for (const { begin, count, axes, height, numbers, slope } of grounds)
      for (let k = begin; k < begin + count; k++) {
        slope(...axes.map((axis) => place[k + axis * count]), ...numbers, out);
        for (const axis of axes) dx[k + axis * count] = height * out[1 + axis];
      }
    rule.step(x, dx, states, settings, t);
    path.set(x, x.length * (t - 1));
  }
  return path;
}
function text(array) {
  let bytes = "";
  for (const byte of new Uint8Array(array.buffer)) bytes += String.fromCharCode(byte);
  return btoa(bytes);
}
function array(text) {
  return new Float64Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
}
"""


def as_text(values):
    return base64.b64encode(np.ascontiguousarray(values, float).tobytes()).decode()


def as_array(text):
    return np.frombuffer(base64.b64decode(text))


def ground(surface):
    """A surface for the page."""
    program, numbers = surface.program, surface.parameters
    slope = function("", (*surface.variables, *numbers), list(program.outputs.values()))
    axes, count = list(range(len(surface.variables))), len(starts(surface))
    return (
        f"{{ begin: {BLOCKS[surface].start}, count: {count}, axes: {axes}, height: {HEIGHTS[surface]}, "
        f"numbers: {list(numbers.values())}, slope: {slope} }}"
    )


@pytest.fixture(scope="module")
def rules(page):
    """A page with the object of every rule, the surfaces, and what the tests need besides."""
    objects = ",\n".join(javascript(case.program) for case in CASES)
    grounds = ",\n".join(map(ground, SURFACES))
    page.add_script_tag(
        content=f'"use strict";\n{LIBRARY}\n{WALK}\nconst grounds = [{grounds}];\nconst rules = [{objects}];'
    )
    return page


# Paths


class Walker:
    """A rule on its way in doubles."""

    def __init__(self, case):
        self.program, self.numbers, self.x = case.program, case.settings, START
        begin = {name: self.program.initial(name, self.numbers) for name in self.program.states}
        self.states = {name: START if value is None else np.full_like(START, value) for name, value in begin.items()}
        self.scalars = dict(self.program.scalar_states)

    @property
    def place(self):
        """Where the next gradient is taken."""
        ahead, given = self.program.lookahead, {**self.numbers, **self.scalars}
        return arrays.interpret(ahead, {"x": self.x, **self.states}, given)["x"] if ahead else self.x

    def step(self, dx, t):
        given = {**self.numbers, **self.scalars, "t": float(t)}
        new = arrays.interpret(self.program, {"x": self.x, "dx": dx, **self.states}, given)
        self.x, self.states = new["x"], {name: new[name] for name in self.states}
        self.scalars = {name: new[name] for name in self.scalars}
        return self.x


def python_paths():
    """Where the weights of every case are after each step."""
    walkers = [Walker(case) for case in CASES]
    paths = []
    for t in range(1, STEPS + 1):
        dx = slopes(np.array([walker.place for walker in walkers]))
        paths.append([walker.step(slope, t) for walker, slope in zip(walkers, dx, strict=True)])
    return np.array(paths).swapaxes(0, 1)


def exact_path(case, surface):
    """The same on one surface in forty digits."""
    program, height = case.program, Decimal(HEIGHTS[surface])

    def start(value):
        return x if value == "x" else [numbers[value] if isinstance(value, str) else Decimal(value)] * len(x)

    with decimals.forty_digits():
        numbers = {name: Decimal(value) for name, value in case.settings.items()}
        parameters = {name: Decimal(value) for name, value in surface.parameters.items()}
        x = [Decimal(value) for value in START[BLOCKS[surface]]]
        states = {name: start(value) for name, value in program.states.items()}
        scalars = {name: Decimal(value) for name, value in program.scalar_states.items()}
        count = len(starts(surface))
        path = []
        for t in range(1, STEPS + 1):
            given = {**numbers, **scalars, "t": Decimal(t)}
            place = decimals.compute(program.lookahead, {"x": x, **states}, given)["x"] if program.lookahead else x
            at = {name: place[k * count : (k + 1) * count] for k, name in enumerate(surface.variables)}
            slope = decimals.compute(surface.program, at, parameters)
            dx = [height * value for name in surface.variables for value in slope[f"d{name}"]]
            new = decimals.compute(program, {"x": x, "dx": dx, **states}, given)
            x, states = new["x"], {name: new[name] for name in states}
            scalars = {name: new[name] for name in scalars}
            path.append(x)
    return path


def distances(path, exact):
    """How far a path is from the exact one after each step: of all weights, the farthest."""
    with decimals.forty_digits():
        apart = [
            [float(abs(Decimal(float(a)) - b)) for a, b in zip(ours, true, strict=True)]
            for ours, true in zip(path, exact, strict=True)
        ]
    return np.where(np.isnan(apart), math.inf, apart).max(axis=1)


def test_every_rule_walks_the_same_path(rules):
    """Bit for bit where IEEE arithmetic leaves no choice; elsewhere no more than 4 times as far from the exact path.

    Both are taken on all starts of a surface, and Python at its farthest so far, as the error of either may be 0 by
    chance. Where a path makes the error of one step much larger that of a single start remains, and two libraries whose
    functions are equally good are 4 times as far as each other on 1 to 2 of 100 paths: NumPy and the mathematical
    library of C are. So one path of 40 may be beyond.
    """
    found = rules.evaluate(
        "([settings, start, steps]) => settings.map((s, k) => text(walk(rules[k], s, grounds, start, steps)))",
        [[case.settings for case in CASES], START.tolist(), STEPS],
    )
    wrong, beyond, count = [], [], 0
    for case, text, theirs in zip(CASES, found, python_paths(), strict=True):
        ours = as_array(text).reshape(STEPS, -1)
        for surface, block in BLOCKS.items():
            if np.array_equal(ours[:, block], theirs[:, block], equal_nan=True):
                continue
            if case.exact and exact(*surface.program.outputs.values()):
                wrong.append(f"{case.name} on {surface.name}")
                continue
            path = exact_path(case, surface)
            far, python = distances(ours[:, block], path), distances(theirs[:, block], path)
            count += 1
            if (far > 4 * np.maximum.accumulate(python)).any():
                beyond.append(f"{case.name} on {surface.name}")
    assert not wrong
    assert len(beyond) <= count / 40, beyond


# Single steps


def same(a, b):
    """Whether numbers are the same, signs of zeros included."""
    a, b = np.asarray(a), np.asarray(b)
    return np.array_equal(a, b, equal_nan=True) and np.array_equal(np.signbit(a[a == a]), np.signbit(b[b == b]))


def hard_steps(case):
    """Inputs of single steps: tiny, huge, zero and ordinary numbers, and a late step."""
    for inputs, scalars in situations(case.program, case.settings, np.float64):
        few = {name: array[:48] for name, array in inputs.items()}
        yield few, scalars
    yield few, scalars | {"t": 1e9}


def as_message(case, inputs, scalars):
    """A single step for the page."""
    states = [[name, scalars[name]] for name in case.program.scalar_states]
    return [[[name, as_text(array)] for name, array in inputs.items()], states, case.settings, scalars["t"]]


def faults(case, inputs, scalars, found):
    """The outputs of a single step that are not what they should be."""
    expected = arrays.interpret(case.program, inputs, scalars)
    numbers = enclose_scalars(case.program, scalars)
    inside = enclose(case.program, inputs, scalars, np.float64)
    inside |= {name: numbers[e] for name, e in case.program.scalar_outputs.items()}
    for name, interval in inside.items():
        equal = np.isclose(found[name], expected[name], rtol=0, atol=0, equal_nan=True)
        if case.exact and not same(found[name], np.atleast_1d(expected[name])):
            yield f"{case.name}: other bits of {name} at {scalars['t']:g}"
        elif not (interval.holds(found[name]) | equal).all():
            yield f"{case.name}: {name} is off at {scalars['t']:g}"


def test_single_steps_end_inside_the_bounds_of_the_formula(rules):
    """The bounds of `check_rule`, with inputs that break careless code; the same bits where there is no choice.

    A number is never off that is the same in Python: the bounds know nothing of zero times infinity.
    """
    steps = [list(hard_steps(case)) for case in CASES]
    answers = rules.evaluate(
        """(cases) => cases.map((steps, k) => steps.map(([arrays, scalars, settings, t]) => {
          const { x, dx, ...states } = Object.fromEntries(arrays.map(([name, values]) => [name, array(values)]));
          for (const [name, value] of scalars) states[name] = Float64Array.of(value);
          rules[k].step(x, dx, states, settings, t);
          return [text(x), ...Object.values(states).map(text)];
        }))""",
        [[as_message(case, *step) for step in some] for case, some in zip(CASES, steps, strict=True)],
    )
    wrong = []
    for case, some, texts in zip(CASES, steps, answers, strict=True):
        names = ("x", *case.program.states, *case.program.scalar_states)
        for step, text in zip(some, texts, strict=True):
            wrong += faults(case, *step, dict(zip(names, map(as_array, text), strict=True)))
    assert not wrong
    assert sum(case.exact for case in CASES) > len(CASES) // 3


def test_states_begin_as_the_rule_says(rules):
    """With a number, with the weights, with a hyperparameter."""
    found = rules.evaluate(
        "([k, s]) => Object.entries(rules[k].start([2, 3], s)).map(([name, values]) => [name, [...values]])",
        [[case.name for case in CASES].index("every word {}"), {"lr": 0.25}],
    )
    assert found == [["v", [0.5] * 2], ["anchor", [2, 3]], ["second", [0] * 2], ["third", [0.25] * 2]]


# Text

NUMBERS = [-1.5, 0.0, -0.0, 0.25, 2.0, 7.0, 1e-320, 1e300, math.inf, -math.inf, math.nan]


@pytest.fixture(scope="module")
def library(page):
    page.add_script_tag(content=f'"use strict";\n{LIBRARY}')
    return page


def assert_close_and_same_signs(found, expected):
    np.testing.assert_allclose(found, expected, rtol=4 * np.finfo(float).eps)
    real = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found)[real], np.signbit(expected)[real])


@pytest.mark.parametrize("word", ["maximum", "minimum"])
def test_the_larger_and_the_smaller_are_numpys(library, word):
    """Of two zeros NumPy takes either, as the processor does."""
    pairs = list(itertools.product(NUMBERS, repeat=2))
    found = library.evaluate(f"(pairs) => pairs.map(([a, b]) => {word}(a, b))", [list(pair) for pair in pairs])
    np.testing.assert_array_equal(found, getattr(np, word)(*np.array(pairs).T))


def test_signs_and_powers_of_odd_numbers_are_numpys(library):
    found = np.array(library.evaluate("(numbers) => numbers.map(sign)", NUMBERS), float)
    assert same(found, np.sign(NUMBERS))
    pairs = list(itertools.product([*NUMBERS, 1.0, -1.0, -8.0], [*NUMBERS, 1.0, -1.0, 3.0, 0.5, -0.5]))
    found = library.evaluate("(pairs) => pairs.map(([a, b]) => pow(a, b))", [list(pair) for pair in pairs])
    with np.errstate(all="ignore"):
        expected = [np.float64(a) ** np.float64(b) for a, b in pairs]
    assert same(np.isfinite(found), np.isfinite(expected))
    assert same(
        np.where(np.isfinite(found), np.sign(found), found), np.where(np.isfinite(found), np.sign(expected), expected)
    )
    np.testing.assert_allclose(found, expected, rtol=4 * np.finfo(float).eps)


@pytest.mark.parametrize("word", ["exp", "expm1", "log", "tanh", "sin", "cos"])
def test_functions_are_within_two_units_of_the_last_place(library, word):
    generator = np.random.default_rng(0)
    sizes = np.exp(generator.uniform(-40, 6.5, 300))
    values = sizes if word == "log" else sizes * generator.choice([-1, 1], 300)
    found = library.evaluate(f"(values) => values.map({JAVASCRIPT.forms[word].word})", values.tolist())
    with decimals.forty_digits():
        for value, seen in zip(values, found, strict=True):
            true = decimals.OPERATIONS[word](Decimal(float(value)))
            assert abs(Decimal(seen) - true) <= 2 * Decimal(math.ulp(float(true)))


@pytest.mark.parametrize("word", ["exp", "expm1", "log", "tanh", "sin", "cos", "sqrt", "abs"])
def test_functions_of_odd_numbers_are_numpys(library, word):
    odd = [0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, -5e-324, -1.0, 800.0, -800.0]
    found = np.array(library.evaluate(f"(values) => values.map({JAVASCRIPT.forms[word].word})", odd), float)
    with np.errstate(all="ignore"):
        expected = getattr(np, word)(odd)
    assert_close_and_same_signs(found, expected)


@settings(deadline=None, max_examples=100, report_multiple_bugs=False)
@given(formula=formulas(depth=4), numbers=st.tuples(*[st.sampled_from(NUMBERS)] * 3))
def test_the_text_of_a_function_computes_the_formula(library, formula, numbers):
    given = dict(zip("abc", numbers, strict=True))
    with np.errstate(all="ignore"):
        root = expression(evaluate(formula, {name: number(name) for name in "abc"}))
        values = work_out(
            [root], lambda e: np.float64(given.get(e.value, e.value)), lambda e, args: arrays.compute(e.op, args)
        )
    found = library.evaluate(f"(numbers) => ({function('', 'abc', root)})(...numbers)", list(numbers))
    np.testing.assert_array_equal(found, values[root])


@settings(deadline=None, max_examples=60, report_multiple_bugs=False)
@given(formula=formulas(), numbers=st.tuples(*[st.sampled_from(NUMBERS)] * 3))
def test_the_text_of_a_rule_computes_the_formula(library, formula, numbers):
    @rule
    def some(x, dx, b=0.0, *, c=0.0):
        return x, evaluate(formula, {"a": dx, "b": b, "c": c})

    with np.errstate(all="ignore"):
        program = compose(some)
    given = {name: np.array([value]) for name, value in zip(("dx", "b"), numbers, strict=False)} | {"x": np.ones(1)}
    expected = arrays.interpret(program, given, {"c": numbers[2]})["b"] if "b" in program.outputs else given["b"]
    found = library.evaluate(
        f"""([dx, b, c]) => {{
          const states = {{ b: Float64Array.of(b) }};
          ({javascript(program)}).step(Float64Array.of(1), Float64Array.of(dx), states, {{ c }}, 1);
          return states.b[0];
        }}""",
        list(numbers),
    )
    np.testing.assert_array_equal(found, expected[0])


def test_a_function_of_several_roots_shares_what_they_have_in_common():
    common = exp(X * Y)
    assert function("both", ("x", "y"), [common + 1, common - 1]).splitlines() == [
        "function both(x, y, out) {",
        "  const r0 = Math.exp(x * y);",
        "  out[0] = r0 + 1;",
        "  out[1] = r0 - 1;",
        "  return out;",
        "}",
    ]


def test_names_that_are_words_of_javascript_are_changed(library):
    inputs = ["new", "out", "Math", "tanh", "var", "r0"]
    roots = [functools.reduce(lambda a, b: a + 2 * b, map(number, inputs)), sqrt(number("new") ** 2 + 1)]
    found = library.evaluate(f"() => [...({function('', inputs, roots)})(1, 2, 3, 4, 5, 6, [0, 0])]")
    assert found == [41, math.sqrt(2)]


@pytest.mark.parametrize("name", ["delete", "tanh", "Math", "two words", "a;b"])
def test_a_name_that_no_function_can_have_is_refused(name):
    with pytest.raises(ValueError, match="cannot be that of a function"):
        function(name, ("x", "y"), X + Y)


def test_an_input_that_is_missing_is_named():
    with pytest.raises(ValueError, match=r"inputs=\('x',\) lack y"):
        function("plane", ("x",), X + Y)


def test_no_name_ends_the_script_it_stands_in(library):
    named = dataclasses.replace(compose(downslope.sgd), name='</script>"<!--')
    text = javascript(named)
    assert "<" not in text.replace("i < x_all.length", "")
    assert library.evaluate(f"() => ({text}).name") == named.name


def test_adam_reads_like_adam():
    lines = [line.strip() for line in javascript(compose(downslope.adam)).splitlines()]
    assert "const { lr, beta1, beta2, eps } = hyperparameters;" in lines
    assert "const m_hat = new_m / c2;" in lines
    assert "const new_x = x - lr * m_hat / (Math.sqrt(v_hat) + eps);" in lines
    assert "v_all[i] = new_v;" in lines

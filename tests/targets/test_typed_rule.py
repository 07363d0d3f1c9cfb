"""What a page reads of a typed rule is what Python reads: the same rule or the same refusal, and the same steps."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import downslope
from downslope.language.grammar import CALLED, GrammarError
from downslope.language.lines import DEFAULTS, LONGEST, SETTING, TAKEN, choices, parse_lines
from downslope.language.options import compose
from downslope.targets.arrays import interpret
from downslope.targets.javascript import LIBRARY, javascript
from downslope.targets.typed import reader

READ = """
const reader = %s;
const nested = ({ op, args, value }) => (op === "constant" || op === "input" ? value : [op, ...args.map(nested)]);
function read(text) {
  try {
    const { states, starts, hyperparameters, flags } = reader.parseRule(text);
    const begun = states.map((name) => [name, starts[name] ?? 0]);
    const forms = reader.choices(flags).map((each) => reader.parseRule(text, each));
    return { states: begun, hyperparameters: Object.entries(hyperparameters), flags: Object.entries(flags),
      forms: forms.map(({ outputs, lookahead }) => [outputs.map(nested), lookahead && nested(lookahead)]) };
  } catch (error) {
    if (!(error instanceof reader.GrammarError)) throw error;
    return { place: error.place, problem: error.problem };
  }
}
const SLOPES = [[0.5, -0.25], [0.75, 0], [-2, 0.125]];
function steps(rule) {
  const x = Float64Array.of(1, -2.5);
  const states = rule.start(x, rule.hyperparameters);
  return SLOPES.map((slope, k) => {
    const at = Float64Array.from(x);
    if (rule.point) rule.point(at, x, states, rule.hyperparameters);
    rule.step(x, Float64Array.from(slope), states, rule.hyperparameters, k + 1);
    return [at, x, ...Object.values(states)].map((array) => [...array].map(String));
  });
}
const typed = (text) => reader.choices(reader.parseRule(text).flags)
  .map((each) => steps(reader.stepping(reader.parseRule(text, each), "own")));
"""
SLOPES = [[0.5, -0.25], [0.75, 0], [-2, 0.125]]


@pytest.fixture(scope="module")
def reading(page):
    page.add_script_tag(content=f'"use strict";\n{LIBRARY}\n{READ % reader()}')
    return page


def nested(e):
    return e.value if e.op in ("constant", "input") else [e.op, *map(nested, e.args)]


def read(text):
    """The rule that Python reads, or what it says is wrong, as the page gives them."""
    try:
        rule = parse_lines(text)
    except GrammarError as error:
        return {"place": error.place, "problem": error.problem}
    return {
        "states": [list(pair) for pair in rule.states.items()],
        "hyperparameters": [list(pair) for pair in rule.hyperparameters.items()],
        "flags": [list(pair) for pair in rule.flags.items()],
        "forms": [form(parse_lines(text, **each)) for each in choices(rule.flags)],
    }


def form(rule):
    """A rule for one choice of its flags."""
    return [[nested(e) for e in rule.outputs.values()], None if rule.lookahead is None else nested(rule.lookahead)]


def assert_read_alike(reading, texts):
    for text, found in zip(texts, reading.evaluate("(texts) => texts.map(read)", texts), strict=True):
        assert found == read(text), text


# Rules and refusals

SIGNS = "( ) + - * / ** = += -= *= /= == < & ~ , ;"
WORDS = "x dx v t lr mu k 2 0.5 return pi where( sqrt( lambda __proto__ if not else True False"
PIECES = [*SIGNS.split(), *WORDS.split()]
PIECES += [
    "\n",
    " ",
    "\nx -= ",
    "\nv = ",
    "\nk = 3\n",
    "return x, v",
    "constructor",
    "\nk = True\n",
    "x if k else -v",
    "dx if not k else",
    "toString",
    *sorted(TAKEN)[:3],
]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=30).map(" ".join), min_size=10, max_size=30))
def test_any_pieces_are_read_alike(reading, texts):
    assert_read_alike(reading, texts)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), min_size=10, max_size=20))
def test_any_text_is_read_alike(reading, texts):
    assert_read_alike(reading, texts)


HOSTILE = [
    "__import__('os')",
    "constructor.constructor('alert(1)')()",
    "x = x\u2028y = 2",
    "x = dx\r\nx = 2",
    "x=𝟛",
    "=",
    "return",
]
HOSTILE += [
    "return return",
    "x = return",
    "return x,",
    "return x, return",
    "x +=",
    "v = 2; x -= v*dx; v = v/2",
    "lookahead = v*mu; v = mu*v - dx; x += v",
    "lookahead = v*dx; v = mu*v - dx; x += v",
    "lookahead = v > 0; v = mu*v - dx; x += v",
    "lookahead = v",
    "lookahead = 2 > 1; x -= dx",
    "a = dx\n" + "a = a*a + a\n" * 30 + "lookahead = a; x -= a",
    "v = -1e9; v += dx; return x - v",
    "v = 2; v = 3; v = v*dx; x -= v",
    "mu = 2; mu = mu*mu; x -= mu*dx",
    "x -= v*dx; v = 2; v = v/2",
    "x = v = 2",
    "v += v; x = v",
    "x = toString",
]
HOSTILE += [f"{name} = {value}; x -= {name}" for name in TAKEN for value in ("2", "dx")]
HOSTILE += [
    f"{name} {sign} -2; x -= {name}*dx" for name in (*DEFAULTS, "betaX", "k", "weight_decay") for sign in SETTING
]
HOSTILE += [piece * 10_000 for piece in ("(", "x = ", ";", "\n", "x=x;", "-", "𝟛")]
HOSTILE += [
    piece * (LONGEST // len(piece)) for piece in ("(", "x = ", ";", "\n", "x=-x;", "x=(", "x=dx\n", "v+=v;", "x=+", ")")
]
HOSTILE += [
    "x = (\n\n dx\n)\n\n\n x = (x\n;)",
    "x = dx)\nx = 3",
    "x = where(dx > 0,\n 1,\n 2)",
    "b = 2 > 1; x = where(b, dx, x)",
    "f = True; x = dx" + " if f else dx" * 35,
    "f = True; x = " + "(dx if f else " * 33 + "x",
    "f = False; g = True; x -= (dx if f else 2*dx if not g else sqrt(lr if f else mu))",
    "f = False; x = x if f else dx; return x if not f else x",
    "f = False; b = dx > 0 if f else ~(dx > 0); x -= where(b if f else b & (2 > 1), dx, lr)",
    "f = True; f += dx; x -= dx",
    "f = True; x -= f; g += f",
    "f = True; x -= dx if g else x; g = False",
    "f=True;g=True;h=True;i=True;x-=dx",
    "f = +True; x -= dx",
    "f = True False; x -= dx",
    "f += True; x -= dx",
    "f = True if f else False; x -= dx",
    "True = 2; x -= dx",
    "if = 2; x -= if",
    "f = False; x -= 1/(1 if f else 0)",
    "f = True; x -= 1/(1 if f else 0)",
    "f = True; lookahead = v if f else dx; v += dx; x -= v",
    "f = True; lookahead = v if f else mu*v; v += dx; x -= v",
    "f = True; return x - dx if f else x + dx, v",
]


def test_hostile_texts_are_read_alike(reading):
    assert_read_alike(reading, HOSTILE)


# Steps


@st.composite
def numbers(draw, names, depth=3):
    """Formulas of these names whose operations every library rounds alike."""
    if depth == 0 or draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from([*names, *names, "2", "0.5", "3"]))
    a, b, c = (draw(numbers(names, depth - 1)) for _ in range(3))
    forms = ["({a} + {b})", "({a} - {b})", "{a}*{b}", "({a})/({b})", "({a})**2", "-({a})", "abs({a})", "sqrt(abs({a}))"]
    forms += ["maximum({a}, {b})", "minimum({a}, {b})", "where({a} > {b}, {b}, {c})", "sign({a})", "({a})**3"]
    forms += ["where({a} <= 1 | ~({b} == {c}), {a}, {b})", "({a} if f else {b})", "({a} if not g else {b})"]
    return draw(st.sampled_from(forms)).format(a=a, b=b, c=c)


SIGN = st.sampled_from([*SETTING])


@st.composite
def lines(draw):
    """Rules that read what they set before and after they set it."""
    names = ["x", "dx", "v", "w", "lr", "mu", "t", "k"]
    text = ["f = True; g = False", draw(st.sampled_from(["k = 0.25", "k = 3; lr = 0.5", "k = -2"]))]
    first = [[], ["v = 2"], ["lookahead = mu*v"], ["w = -0.5; v = +3", "lookahead = w*k - v/mu"]]
    text += draw(st.sampled_from(first))
    text += draw(st.lists(st.builds("{} {} {} + 0*x".format, st.sampled_from("vwx"), SIGN, numbers(names)), max_size=3))
    text += [
        f"{name} = x*{draw(numbers(names, 1))}"
        for name in "vw"
        if not any(line[0] == name and "x" in line for line in text)
    ]
    return "\n".join([*text, draw(st.sampled_from(["x -= lr*v + w", "return x - lr*v", "return lr*dx + w"]))])


def walked(rule):
    """What `typed` gives in the page: the steps for each choice."""
    return [stepped(rule, compose(rule, **each)) for each in choices(rule.flags)]


def stepped(rule, program):
    """What `steps` gives in the page."""
    x = np.array([1.0, -2.5])
    values = {"x": x} | {name: np.full(2, value) for name, value in rule.states.items()}
    found = []
    for t, slope in enumerate(SLOPES, 1):
        at = interpret(program.lookahead, values, rule.hyperparameters)["x"] if program.lookahead else values["x"]
        new = interpret(program, {**values, "dx": np.array(slope)}, {**rule.hyperparameters, "t": t})
        values |= new
        found.append([at, *(values[name] for name in ("x", *rule.states))])
    return found


def emitted(reading, rule):
    """The steps of what Python writes of a rule, for each choice."""
    codes = ", ".join(javascript(compose(rule, **each)) for each in choices(rule.flags))
    return reading.evaluate(f"() => [{codes}].map(steps)")


@settings(deadline=None, max_examples=30)
@example("v = mu*v - lr*dx\nx += v")
@example("cache += dx**2\nx -= lr*dx/(sqrt(cache) + eps)")
@given(lines().filter(lambda text: len(text) <= LONGEST))
def test_a_typed_rule_takes_the_steps_of_pythons_rule_to_the_bit(reading, text):
    """In the page as typed, in the page as emitted by Python, and in Python."""
    typed = reading.evaluate("typed", text)
    rule = downslope.read_rule(text)
    assert typed == emitted(reading, rule)
    np.testing.assert_array_equal(np.array(typed, float), walked(rule))


ADAM = """lr = 0.001; bias_correction = True
m = beta1*m + (1 - beta1)*dx
v = beta2*v + (1 - beta2)*dx**2
m_hat = m / (1 - beta1**t) if bias_correction else m
v_hat = v if not bias_correction else v / (1 - beta2**t)
return x - lr * m_hat / (sqrt(v_hat) + eps), m, v"""


@pytest.mark.parametrize(
    "text", [ADAM, "x -= lr * tanh(dx)", "e = exp(-abs(dx)) + log(2 + t)\nx -= lr*sin(e)**1.5*cos(e)"]
)
def test_a_typed_rule_takes_the_steps_of_what_python_emits_of_it(reading, text):
    """To the bit where it is the same browser that computes; powers and functions of Python may end in another bit."""
    typed = reading.evaluate("typed", text)
    rule = downslope.read_rule(text)
    assert typed == emitted(reading, rule)
    np.testing.assert_allclose(np.array(typed, float), walked(rule), rtol=1e-14)


@pytest.mark.parametrize("called", CALLED)
def test_every_word_is_known_in_a_rule(reading, called):
    arguments = (
        ["dx > 0", "dx", "x"] if called == "where" else ["dx", "x"] if called in ("maximum", "minimum") else ["dx"]
    )
    text = f"x -= lr * {called}({', '.join(arguments)})"
    assert reading.evaluate("read", text) == read(text)

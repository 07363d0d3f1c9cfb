"""Rules as text: each is the rule that Python makes of the same lines; what is none is refused, at a place."""

import runpy

import numpy as np
import pytest

import downslope
from downslope import FormulaError, rules
from downslope.language.grammar import GrammarError
from downslope.language.lines import LONGEST, choices, parse_lines
from downslope.language.options import compose
from downslope.language.program import fingerprint

TEXTBOOK = {
    "sgd": "x -= lr * dx",
    "momentum": "v = mu * v - lr * dx\nx += v",
    "nesterov": "lookahead = mu * v\nv = mu * v - lr * dx\nx += v",
    "adagrad": "cache += dx**2\nreturn x - lr * dx / (sqrt(cache) + eps), cache",
    "rmsprop": """
        lr = 1e-3
        cache = decay_rate * cache + (1 - decay_rate) * dx**2
        return x - lr * dx / (sqrt(cache) + eps), cache
        """,
    "adam": """lr = 0.001; m = beta1*m + (1 - beta1)*dx; v = beta2*v + (1 - beta2)*dx**2
        bias_correction = True
        m_hat = m / (1 - beta1**t) if bias_correction else m
        v_hat = v if not bias_correction else v / (1 - beta2**t)
        x = x - lr * m_hat / (
            sqrt(v_hat) + eps
        )""",
    "lion": """lr = 1e-4; beta2 = 0.99
        direction = sign(beta1 * m + (1 - beta1) * dx)
        m = beta2 * m + (1 - beta2) * dx
        return x - lr * direction, m""",
}


@pytest.mark.parametrize("name", TEXTBOOK)
def test_the_rules_of_textbooks_are_read_as_what_they_are(name):
    read, rule = downslope.read_rule(TEXTBOOK[name], name), getattr(rules, name)
    for choice in choices(rule.flags):
        ours, theirs = compose(read, **choice), compose(rule, **choice)
        assert fingerprint(ours) == fingerprint(theirs)
        assert (ours.lookahead is None) == (theirs.lookahead is None)
        if ours.lookahead and theirs.lookahead:
            assert fingerprint(ours.lookahead) == fingerprint(theirs.lookahead)
    assert read.flags == rule.flags
    assert read.hyperparameters == rule.hyperparameters
    assert (read.states, read.ranges) == (rule.states, rule.ranges)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("dx = dx + decay*x\ng = where(t > 3, dx, 0*dx)\nx -= lr*g", "*, t, lr=0.01, decay=0.3"),
        ("p = x\nv = v*mu + (x - p)\nx = x - lr*(dx + v)\nx *= 1 - decay", "v=0, *, lr=0.01, mu=0.9, decay=0.3"),
        ("s = s + dx**2\nx -= lr*dx/s", "s=1, *, lr=0.01"),
        ("n += 1\nk = n**-0.5\nx = x - lr*k*sign(dx)*maximum(abs(dx), decay)", "n=0, *, lr=0.01, decay=0.3"),
    ],
)
def test_lines_mean_what_they_mean_in_python(text, arguments, tmp_path):
    """The same lines in a function, in a file, with what they are to return."""
    own = downslope.read_rule(f"decay = 0.3\n{text}" if "decay" in text else text)
    own = downslope.read_rule(f"s = 1\n{text}") if "s=1" in arguments else own
    body = "\n    ".join([*text.split("\n"), f"return {', '.join(['x', *own.states])}"])
    head = f"from downslope import *\nfrom downslope import rule\n\n\n@rule\ndef own(x, dx, {arguments}):\n    "
    (tmp_path / "own.py").write_text(head + body)
    written = runpy.run_path(str(tmp_path / "own.py"))["own"]
    assert fingerprint(compose(own)) == fingerprint(compose(written))
    state = dict.fromkeys(own.states, np.array([0.5, -0.25]))
    clock = {"t": 4} if own.uses_t else {}
    x, dx = np.array([1.0, -2.0]), np.array([0.3, 0.4])
    np.testing.assert_array_equal(own(x.copy(), dx, **state, **clock), written(x.copy(), dx, **state, **clock))


def test_a_choice_may_decide_what_is_remembered_and_where_the_slope_is_felt():
    """States and hyperparameters are the same for each choice, as they are in a signature."""
    own = downslope.read_rule(
        "ahead = False; lookahead = mu*v if ahead else 0*v; v = mu*v - lr*(dx if ahead else t*dx); x += v"
    )
    assert (own.flags, own.states, own.uses_t) == ({"ahead": False}, {"v": 0}, True)
    assert own(1.0, 2.0, t=3, lr=0.1) == (pytest.approx(0.4), pytest.approx(-0.6))
    assert own(1.0, 2.0, t=3, lr=0.1, ahead=True) == (pytest.approx(0.8), pytest.approx(-0.2))
    point = compose(own, ahead=True).lookahead
    assert point is not None
    assert fingerprint(point) == fingerprint(compose(rules.nesterov).lookahead)
    slow = downslope.read_rule("ahead = True; v = mu*v - lr*dx; x += v if ahead else 2*v")
    assert slow(1.0, 2.0, lr=0.1, ahead=False) == (pytest.approx(0.6), pytest.approx(-0.2))


def test_what_is_named_twice_is_worked_out_once():
    """Each line doubles what stands in the one before: as a tree it would have more branches than there are atoms."""
    lines = ["a = dx*dx", *("a = a*a + a" for _ in range(40)), "x -= a"]
    read = parse_lines("\n".join(lines))
    program = compose(downslope.read_rule("\n".join(lines)))
    assert read.states == {}
    assert len(program.body) == 2 + 2 * 40


REFUSED = {
    "": (0, "x never gets a new value: end with x = ... or return ..."),
    "v = mu*v": (8, "x never gets a new value: end with x = ... or return ..."),
    "x = x": (5, "x never gets a new value: end with x = ... or return ..."),
    "x": (0, "expected a line such as x = ..., or return ..."),
    "x == 3": (0, "expected a line such as x = ..., or return ..."),
    "3 = x": (0, "expected a line such as x = ..., or return ..."),
    "import os": (0, "expected a line such as x = ..., or return ..."),
    "x -= lr*g": (8, "there is no 'g'; a line g = 0.5 above would make it a hyperparameter"),
    "x -= dx\nx -= w; w = 2": (13, "w gets its number in a line below; put that line above"),
    "mu = 1\nx -= mu*dx": (0, "mu must be a number from 0 to below 1"),
    "lr = -1\nx -= lr*dx": (0, "lr must be a finite number of at least 0"),
    "k = 1e999\nx -= k": (4, "this is not a finite number"),
    "x -= dx*(1/(1 - 1))": (10, "this is not a finite number"),
    "v = mu*v - dx\nlookahead = v\nx += v": (
        14,
        "lookahead is made of states and hyperparameters, as they are before the step",
    ),
    "lookahead = mu; x -= dx": (0, "lookahead is made of states and hyperparameters, as they are before the step"),
    "lookahead = v + t; v = mu*v - dx; x += v": (
        0,
        "lookahead is made of states and hyperparameters, as they are before the step",
    ),
    "lookahead += v; v = mu*v - dx; x += v": (0, "'lookahead' cannot be set; choose another name"),
    "v = mu*v - dx\nv = 0\nx += v": (14, "v begins with a number only above all other lines that name it"),
    "v = 1; v = 2; v = mu*v - dx; x += v": (7, "v begins with a number only above all other lines that name it"),
    "x -= s*dx; s = 1; s = s/2": (11, "s begins with a number only above all other lines that name it"),
    "v = dx; v = 1; x -= v": (8, "v begins with a number only above all other lines that name it"),
    "mu = .5\nmu = .6\nx -= mu": (8, "mu has a number already; give it one once, in a line above"),
    "lambda = 3": (0, "'lambda' cannot be set; choose another name"),
    "t = 3": (0, "'t' cannot be set; choose another name"),
    "sqrt = 3": (0, "'sqrt' cannot be set; choose another name"),
    "__class__ = 3": (0, "'__class__' cannot be set; choose another name"),
    "x -= __class__; __class__ = dx": (5, "there is no '__class__'; a line __class__ = 0.5 above would make it a "),
    "nonfinite = dx\nx -= nonfinite": (0, "'nonfinite' cannot be set; choose another name"),
    "x = x > 0": (2, "a truth value where a number is needed"),
    "return x > 0": (0, "a truth value where a number is needed"),
    "x += v; v = v > 0": (10, "a truth value where a number is needed"),
    "return x - dx, v": (15, "behind the new weights only the names of states are returned"),
    "u += dx; v += u\nreturn x - v, v": (16, "return all states or none: u, v"),
    "return x - dx\nx = 2": (14, "nothing can follow what is returned"),
    "x -= dx y": (8, "expected an operator"),
    "x -= (dx": (8, "expected )"),
    "x -= (dx; dx": (8, "expected )"),
    "x -= dx[0]": (7, "unexpected '['"),
    "x = lr if t > 3 else 0": (10, "behind if stands a choice, as correction = True above makes one; numbers are com"),
    "x = dx if slow else 0; slow = True": (10, "behind if stands a choice, as correction = True above makes one"),
    "slow = True\nx -= dx if slow": (27, "expected else"),
    "slow = True\nx -= dx if not slow else": (36, "expected a number, a name or ("),
    "slow = True; x -= slow*dx": (18, "a choice stands only behind if, as in a if correction else b"),
    "x -= True*dx": (5, "a choice stands only behind if, as in a if correction else b"),
    "slow = True; slow = False; x -= dx": (13, "slow is something else too; give the choice a name of its own"),
    "slow = True; slow = 2; x -= dx": (0, "slow is something else too; give the choice a name of its own"),
    "slow = True; slow = dx; x -= dx": (0, "slow is something else too; give the choice a name of its own"),
    "lr = True; x -= dx": (0, "lr is something else too; give the choice a name of its own"),
    "x = True": (0, "x is something else too; give the choice a name of its own"),
    "slow = True; x += dx > 0 if slow else dx": (25, "a number and a truth value cannot take each other's place"),
    "slow = True + 1; x -= dx": (12, "expected an operator"),
    "a = True; b = True; c = True; d = True; x -= dx": (30, "a rule has at most 3 choices"),
    "slow = True; k = dx*(1/(2 if slow else 0)); x -= k": (22, "this is not a finite number"),
    "slow = False; x = x - dx if slow else x": (39, "x never gets a new value: end with x = ... or return ..."),
    "slow = True; x = x - dx if slow else x": (38, "x never gets a new value: end with x = ... or return ..."),
    "x -= if": (5, "expected a number, a name or ("),
    "x //= 2": (0, "expected a line such as x = ..., or return ..."),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_wrong_with_a_rule_is_said_and_where(text):
    place, problem = REFUSED[text]
    with pytest.raises(GrammarError) as caught:
        downslope.read_rule(text)
    assert caught.value.place == place
    assert caught.value.problem.startswith(problem)
    shown, pointer = str(caught.value).split("\n")[1:]
    line = text[:place].rpartition("\n")[2] + text[place:].partition("\n")[0]
    assert shown == f"  {line}"
    assert pointer.index("^") == 2 + len(text[:place].rpartition("\n")[2])


@pytest.mark.parametrize("name", ["text", "formula", "known", "flags"])
def test_a_choice_may_have_any_name(name):
    read = downslope.read_rule(f"{name} = True; x -= dx if {name} else 2*dx")
    assert (read(1.0, 0.25), read(1.0, 0.25, **{name: False})) == (0.75, 0.5)
    assert "2" in read.latex(**{name: False})


def test_long_texts_and_other_things_are_refused():
    with pytest.raises(GrammarError, match=f"has 501 characters; at most {LONGEST}"):
        downslope.read_rule("x" * 501)
    with pytest.raises(TypeError, match="expected lines such as"):
        downslope.read_rule(3)
    with pytest.raises(FormulaError, match="not the name"):
        downslope.read_rule("x -= dx", "two words")


def test_a_rule_that_was_read_is_a_rule_like_others():
    assert str(downslope.equivalent(downslope.read_rule(TEXTBOOK["adam"]), downslope.adam)).startswith(
        "The same formula"
    )
    walk = downslope.walk("valley", [downslope.read_rule(TEXTBOOK["momentum"]), "momentum"], lr=0.05, steps=20)
    np.testing.assert_array_equal(walk.paths[0].points, walk.paths[1].points)

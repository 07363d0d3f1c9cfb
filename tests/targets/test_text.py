import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import downslope
from downslope import rule, scalar, sqrt, where
from downslope.dialects import keras, torch
from downslope.language.operations import maximum
from downslope.language.options import compose
from downslope.targets.arrays import interpret, interpret_coefficients
from downslope.targets.formula import formula
from downslope.targets.python import READABLE, coefficients_source, kernel_target
from downslope.targets.write import body, identifier
from random_formulas import evaluate, formulas


def numpys(word):
    """The word for the text of a body, which runs on doubles here."""
    return lambda *args: np.float64(getattr(np, word)(*args))


def traced(some):
    """The program; parts of the formula that have only constants are worked out by NumPy on the way."""
    with np.errstate(all="ignore"):
        return compose(some)


@settings(deadline=None, max_examples=150, report_multiple_bugs=False)
@given(formula=formulas(), numbers=st.tuples(*[st.sampled_from([-1.5, 0.0, 0.25, 2.0, 7.0])] * 3))
def test_the_text_of_coefficients_computes_the_formula(formula, numbers):
    @rule
    def some(x, dx, *, a=0.0, b=0.0, c=0.0):
        return x * evaluate(formula, {"a": a, "b": b, "c": c})

    program = traced(some)
    values = dict(zip("abc", map(np.float64, numbers), strict=True))
    scope = {
        "np": np,
        "inf": math.inf,
        "nan": math.nan,
        **{w: getattr(math, w) for w in ("sqrt", "expm1", "log", "pow")},
    }
    exec(coefficients_source(program), scope)
    with np.errstate(all="ignore"):
        expected = np.float64(evaluate(formula, values))
        try:
            found = scope["coefficients"](*(float(values[name]) for name in program.scalars))
        except (ArithmeticError, ValueError):  # where IEEE has inf or nan; the kernel then falls back on the next line
            found = interpret_coefficients(program, values)
        x = np.array([1.0])
        arrays = {"x": x, "dx": x}
        np.testing.assert_equal(interpret(program, arrays, values)["x"][0], x[0] * expected)
    if program.coefficients:
        np.testing.assert_equal(found[-1], expected)


@settings(deadline=None, max_examples=150, report_multiple_bugs=False)
@given(formula=formulas(), numbers=st.tuples(*[st.sampled_from([-1.5, 0.0, 0.25, 2.0, 7.0])] * 3))
def test_the_text_of_a_body_computes_the_formula(formula, numbers):
    @rule
    def some(x, dx, b=0.0, *, c=0.0):
        return x, evaluate(formula, {"a": dx, "b": b, "c": c})

    program = traced(some)
    text = body(program, kernel_target("float64"), (), READABLE)
    a, b, c = map(np.float64, numbers)
    arrays = {"x": a, "dx": a, "b": b}
    scope = {name: arrays[array] for name, array in text.loads}
    scope |= {"float64": np.float64, "inf": math.inf, "nan": math.nan}
    scope |= {word: numpys(word) for word in ("sign", "maximum", "minimum")}
    with np.errstate(all="ignore"):
        coefficients = map(np.float64, interpret_coefficients(program, {"c": c}))  # with IEEE results, as kernels have
        scope |= {name: value for (name, _), value in zip(text.coefficients, coefficients, strict=True)}
        for line in text.lines:
            exec(line, scope)
        expected = np.float64(evaluate(formula, {"a": a, "b": b, "c": c}))
        stores = dict(text.stores)
        found = eval(stores["b"], scope) if "b" in stores else b
    np.testing.assert_equal(np.float64(found), expected)


# Conditions


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
@pytest.mark.parametrize("third", [True, False])
def test_and_or_and_not_keep_their_brackets(first, second, third):
    @rule
    def either(x, dx, *, a=0.0, b=0.0, c=0.0):
        mixed = ((a > 0) | (b > 0)) & ~((b > 0) & (c > 0))
        return x * where(mixed, 2.0, 3.0)

    scope = {"np": np}
    program = compose(either)
    exec(coefficients_source(program), scope)
    values = {"a": float(first), "b": float(second), "c": float(third)}
    (found,) = scope["coefficients"](*(values[name] for name in program.scalars))
    assert found == (2.0 if (first or second) and not (second and third) else 3.0)


# Readable text


def test_the_text_of_adam_reads_like_adam():
    text = body(compose(downslope.adam), kernel_target("float32"), (), READABLE)
    names = [line.partition(" = ")[0] for line in text.lines]
    assert [name for name in names if name in ("new_m", "m_hat")] == ["new_m", "m_hat"]
    assert [name for name in names if name in ("new_v", "v_hat")] == ["new_v", "v_hat"]
    assert [array for _, array in text.loads].count("x") == 1
    assert {meaning for _, meaning in text.coefficients} >= {"1.0 - beta1 ** t", "1.0 - beta2 ** t"}
    assert kernel_target("float32").words(compose(downslope.adam).body) == {"sqrt"}


@pytest.mark.parametrize(("taken", "found"), [((), "i"), (("i",), "i_"), (("i", "i_"), "i__")])
def test_an_identifier_avoids_what_is_taken(taken, found):
    assert identifier("i", taken) == found


def test_a_state_that_does_not_change_is_not_written():
    @rule
    def keeps(x, dx, anchor="x"):
        return x - (x - anchor) * dx, anchor

    assert [array for array, _ in body(compose(keeps), kernel_target("float32"), (), READABLE).stores] == ["x"]


# LaTeX

LATEX = {
    "sgd": [r"x_{t} &= x_{t-1} - \mathrm{lr} \, dx_{t}"],
    "momentum": [r"v_{t} &= \mu \, v_{t-1} - \mathrm{lr} \, dx_{t}", r"x_{t} &= x_{t-1} + v_{t}"],
    "adagrad": [
        r"\mathrm{cache}_{t} &= \mathrm{cache}_{t-1} + dx_{t}^{2}",
        r"x_{t} &= x_{t-1} - \frac{\mathrm{lr} \, dx_{t}}{\sqrt{\mathrm{cache}_{t}} + \varepsilon}",
    ],
    "adam": [
        r"m_{t} &= \beta_1 \, m_{t-1} + (1 - \beta_1) \, dx_{t}",
        r"\hat{m}_{t} &= \frac{m_{t}}{1 - \beta_1^{t}}",
        r"v_{t} &= \beta_2 \, v_{t-1} + (1 - \beta_2) \, dx_{t}^{2}",
        r"\hat{v}_{t} &= \frac{v_{t}}{1 - \beta_2^{t}}",
        r"x_{t} &= x_{t-1} - \frac{\mathrm{lr} \, \hat{m}_{t}}{\sqrt{\hat{v}_{t}} + \varepsilon}",
    ],
}


@pytest.mark.parametrize("name", LATEX)
def test_latex_is_the_formula_line_by_line(name):
    lines = getattr(downslope, name).latex().splitlines()
    assert lines[0] == r"\begin{aligned}"
    assert lines[-1] == r"\end{aligned}"
    assert sorted(line.removesuffix(r" \\") for line in lines[1:-1]) == sorted(LATEX[name])
    assert all(line.endswith(r"\\") for line in lines[1:-2])


def test_latex_defines_before_it_uses():
    lines = downslope.adam.latex().splitlines()
    order = [line.partition(" &=")[0] for line in lines[1:-1]]
    assert order.index(r"\hat{m}_{t}") > order.index("m_{t}")
    assert order[-1] == "x_{t}"


@rule
def wordy(x, dx, s=scalar(1.0), *, t, rate_up=0.5, beta12=0.5):
    s = where((t == 1) | (t > 3), -s, s * beta12)
    return x - rate_up * s * (x - dx) * (-dx) / abs(dx) ** 0.5 - (x + dx) ** 2 * maximum(sqrt(dx), 1e-8), s


@pytest.mark.parametrize(
    "part",
    [
        r"\begin{cases}",
        r"t = 1 \lor t > 3",
        r"\mathrm{rate\_up}",
        r"\beta_{12}",
        r"(x_{t-1} - dx_{t})",
        r"\, (-dx_{t})",
        r"\left|dx_{t}\right|^{0.5}",
        r"(x_{t-1} + dx_{t})^{2}",
        r"\max\left(\sqrt{dx_{t}}, ",
    ],
)
def test_latex_has_a_form_for_every_word(part):
    assert part in wordy.latex()


def test_latex_tells_products_of_matrices_from_those_of_entries():
    """Where there is no product of matrices there is nothing to tell apart."""
    assert (
        r"\mathrm{left\_basis}_{t-1} \odot (\mathrm{left}_{t} \, \mathrm{left\_basis}_{t-1})" in downslope.soap.latex()
    )
    assert r"\beta_1 \, m_{t-1}" in downslope.soap.latex()
    assert not any(r"\odot" in rule.latex() for rule in downslope.rules.RULES)


def test_a_state_that_stays_is_a_constant_in_latex():
    lines = downslope.prodigy.latex()
    assert "(x_0 - x_{t-1})" in lines
    assert "x_{0" not in lines
    assert latex_lines(_stays)["x_{t}"] == "x_{t-1}"


@rule
def _stays(x, dx, v=0):
    return x, v + dx


def test_the_name_of_a_part_is_words_in_latex():
    assert r"\text{inverse fourth root}\left(\mathrm{left}_{t}\right)" in downslope.shampoo.latex()


def test_latex_of_options():
    assert r"\mathrm{average}_{t} &=" in downslope.sgd.latex(averaging=True)
    assert r"\mathrm{weight\_decay} \, x_{t-1}" in downslope.sgd.latex(weight_decay=True)


def latex_lines(some, **flags):
    lines = some.latex(**flags).splitlines()[1:-1]
    return dict(line.removesuffix(r" \\").split(" &= ") for line in lines)


def test_latex_gives_scalars_the_names_of_their_author():
    lines = latex_lines(downslope.radam)
    assert lines[r"\rho_{t}"] == r"\frac{2 \, \mathrm{age}_{t}}{\mathrm{weight}_{t}} - 1"
    assert lines[r"\rho_{\mathrm{max}}"] == r"\frac{2}{1 - \beta_2} - 1"  # the same at every step
    assert lines["r_{t}"].count(r"\rho_{t}") == 3
    assert list(lines).index(r"\rho_{t}") < list(lines).index("r_{t}") < list(lines).index("x_{t}")
    assert max(map(len, lines.values())) < 200


def test_latex_of_torchs_radam_names_the_length_once():
    lines = latex_lines(torch.radam)
    assert lines["x_{t}"].startswith(r"x_{t-1} - \mathrm{lr} \, \left(\begin{cases} \mathrm{adapted}_{t} & \text{if } ")
    assert max(map(len, lines.values())) < 200


def test_latex_has_a_dot_between_numbers():
    lines = latex_lines(keras.nadam)
    assert lines["u_{t}"] == r"\beta_1 \, (1 - 0.5 \cdot 0.96^{t})"
    assert lines[r"u_{\mathrm{next},t}"] == r"\beta_1 \, (1 - 0.5 \cdot 0.96^{t + 1})"


@rule
def rewritten(x, dx, a=0, b=1, *, lr=0.1):
    dx = dx + 2 * x
    a, b = b, a
    x = x - 1e-8 * dx**2
    return x - lr * a, a, b


def test_latex_tells_a_new_meaning_of_a_name_from_the_old():
    lines = latex_lines(rewritten)
    assert lines["{dx'}_{t}"] == r"dx_{t} + 2 \, x_{t-1}"
    assert lines["{x'}_{t}"] == r"x_{t-1} - 10^{-8} \, {dx'}_{t}^{2}"
    assert lines["x_{t}"] == r"{x'}_{t} - \mathrm{lr} \, b_{t-1}"
    assert (lines["a_{t}"], lines["b_{t}"]) == ("b_{t-1}", "a_{t-1}")


# The formula as text


def test_the_formula_of_torchs_adam_is_what_its_author_wrote():
    assert [" = ".join(line) for line in formula(compose(torch.adam))] == [
        "dx = dx + where(weight_decay == 0, 0, weight_decay * x)",
        "exp_avg = exp_avg + (dx - exp_avg) * (1 - beta1)",
        "exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * dx * dx",
        "denominator = sqrt(exp_avg_sq) / sqrt(1 - beta2**t) + eps",
        "x = x - lr / (1 - beta1**t) * exp_avg / denominator",
    ]


def test_the_formula_begins_with_where_the_gradient_is_taken():
    assert formula(compose(downslope.nesterov))[0] == ("dx", "gradient at x + mu * v")


@rule
def two_of_one(x, dx, a=0.0, b=0.0, anchor="x"):
    step = a * dx + b
    a = step + (anchor - x)
    return x - step, a, a, anchor


NAMES = ("sqrt", "expm1", "log", "where", "maximum", "minimum", "sign")
WORDS = {name: getattr(np, name) for name in NAMES}
FORMULAS = [
    *((each, {}) for each in downslope.rules.RULES),
    *((each, {"cautious": True}) for each in (downslope.adam, rewritten)),
    (downslope.lion, {"weight_decay": True, "decoupled": True, "averaging": True}),
    (torch.adam, {"amsgrad": True, "decoupled_weight_decay": True}),
    (keras.rmsprop_momentum, {"centered": True}),
    (rewritten, {}),
    (two_of_one, {}),
]


@pytest.mark.parametrize(("some", "choices"), FORMULAS, ids=lambda value: getattr(value, "name", None))
def test_the_lines_of_a_formula_carried_out_one_after_the_other_compute_it(some, choices):
    program = compose(some, **choices)
    generator = np.random.default_rng(0)
    for _ in range(5):
        weight = {name: generator.uniform(0.1, 2.0) for name in program.arrays}
        numbers = dict.fromkeys([*program.hyperparameters, *program.scalar_states], 0.3) | {"t": 3}
        space = {**WORDS, **weight, **numbers}
        for name, text in formula(program):
            if not text.startswith("gradient at"):
                with np.errstate(invalid="ignore"):  # the root of a variance that these numbers make negative
                    space[name] = eval(text, space)
        for name, value in interpret(program, {k: np.float64(v) for k, v in weight.items()}, numbers).items():
            np.testing.assert_allclose(space[name], value, rtol=1e-12)

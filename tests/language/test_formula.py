import math
import pickle

import numpy as np
import pytest

import downslope
from downslope import FormulaError, rule, scalar, sqrt
from downslope.language.options import compose


@rule
def two_states(x, dx, v=1, shadow="x", *, t, lr=0.5, mu=0.9, centered=False):
    """Go down. And on.

    More about it.

    Source: Somebody, "Something", 2001;
    and another.

    Not the source any more.
    """
    v = v + dx
    shadow = shadow + (x - shadow) / t
    return (x - lr * v if centered else x - mu * v), v, shadow


# The signature is the schema


def test_the_signature_is_the_schema():
    assert two_states.name == "two_states"
    assert dict(two_states.states) == {"v": 1.0, "shadow": "x"}
    assert dict(two_states.hyperparameters) == {"lr": 0.5, "mu": 0.9}
    assert dict(two_states.flags) == {"centered": False}
    assert two_states.uses_t
    assert two_states.intuition == "Go down. And on."
    assert two_states.source == 'Somebody, "Something", 2001; and another.'
    assert repr(two_states) == "<rule two_states(lr=0.5, mu=0.9, centered=False)>"


def test_scalar_states_keep_their_place_in_the_signature():
    @rule
    def mixed(x, dx, a=0, s=scalar(2), b=3):
        return x, a, s, b

    assert dict(mixed.states) == {"a": 0.0, "b": 3.0}
    assert dict(mixed.scalar_states) == {"s": 2.0}
    assert mixed.signature_states == ("a", "s", "b")
    assert mixed(0.0, 0.0) == (0.0, 0.0, 2.0, 3.0)


def no_dx(x, v=0):
    return x, v


def wrong_names(weights, gradient):
    return weights - gradient


def state_without_default(x, dx, v):
    return x - dx, v


def positional_star(x, dx, *states):
    return x - dx


def keyword_star(x, dx, **hyperparameters):
    return x - dx


def t_with_default(x, dx, *, t=1):
    return x - dx / t


def t_as_state(x, dx, t=0):
    return x - dx, t


def takes_average(x, dx, average=0):
    return x - dx, average


def takes_grad_scale(x, dx, *, grad_scale=1.0):
    return x - grad_scale * dx


def takes_underscore(x, dx, *, _lr=1.0):
    return x - _lr * dx


def text_default(x, dx, *, lr="fast"):
    return x - dx


def state_of_text(x, dx, v="dx"):
    return x - dx, v


def boolean_state(x, dx, v=True):
    return x - dx, v


def array_state(x, dx, v=np.zeros(3)):
    return x - dx, v


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (no_dx, "dx"),
        (wrong_names, "x and dx"),
        (state_without_default, "v=0"),
        (positional_star, "states"),
        (keyword_star, "hyperparameters"),
        (t_with_default, "'t'"),
        (t_as_state, "'t'"),
        (takes_average, "'average'"),
        (takes_grad_scale, "'grad_scale'"),
        (takes_underscore, "'_lr'"),
        (text_default, "lr='fast'"),
        (state_of_text, "v='dx'"),
        (boolean_state, "v=True"),
        (array_state, "v="),
    ],
)
def test_what_is_not_the_signature_of_a_formula_is_refused(function, named):
    with pytest.raises(FormulaError) as caught:
        rule(function)
    assert named in str(caught.value)
    assert function.__name__ in str(caught.value)


def test_ranges_name_hyperparameters():
    with pytest.raises(FormulaError, match="slope"):
        rule(ranges={"slope": (0, 1)})(lambda x, dx, *, lr=1: x - lr * dx)


# Called with numbers or arrays, a rule computes


def test_a_call_computes_one_step_in_the_arguments_precision():
    x, v = downslope.momentum(np.float32([1, 2]), np.float32([1, -1]), np.float32([0.5, 0]), lr=0.25, mu=0.5)
    np.testing.assert_array_equal(v, np.float32([0, 0.25]))
    np.testing.assert_array_equal(x, np.float32([1, 2.25]))
    assert x.dtype == v.dtype == np.float32


def test_states_left_out_take_their_initial_values():
    x, v, shadow = two_states(4.0, 1.0, t=2)
    assert (x, v, shadow) == (4 - 0.9 * 2, 2, 4)
    assert two_states(4.0, 1.0, shadow=2.0, t=2)[2] == 3
    assert two_states(4.0, 1.0, t=2, centered=True)[0] == 3


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: downslope.sgd(1.0, 1.0, learning_rate=1), TypeError, "learning_rate"),
        (lambda: downslope.momentum(1.0, 1.0, mu=1.0), ValueError, "mu=1.0"),
        (lambda: downslope.momentum(1.0, 1.0, 0.0, 0.0), TypeError, "1 state"),
        (lambda: downslope.adam(1.0, 1.0), TypeError, "t"),
        (lambda: downslope.adam(1.0, 1.0, t=1, bias_correction=1), TypeError, "bias_correction=1"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(call, error, named):
    with pytest.raises(error) as caught:
        call()
    assert named in str(caught.value)


# Hyperparameters: kind, range and name

WRONG_VALUES = [
    ("sgd", "lr", -0.1, ValueError),
    ("sgd", "lr", math.nan, ValueError),
    ("sgd", "lr", math.inf, ValueError),
    ("sgd", "lr", 10**309, ValueError),
    ("sgd", "lr", True, TypeError),
    ("sgd", "lr", np.True_, TypeError),
    ("sgd", "lr", "0.1", TypeError),
    ("sgd", "lr", None, TypeError),
    ("sgd", "lr", 1j, TypeError),
    ("sgd", "lr", np.array([0.1]), TypeError),
    ("momentum", "mu", 1, ValueError),
    ("momentum", "mu", -0.5, ValueError),
    ("rmsprop", "decay_rate", 1.5, ValueError),
    ("adam", "beta1", 1.0, ValueError),
    ("adam", "beta2", 1.0, ValueError),
    ("adam", "eps", -1e-8, ValueError),
    ("adam", "bias_correction", 1, TypeError),
    ("adam", "bias_correction", None, TypeError),
]


@pytest.mark.parametrize(
    ("name", "hyperparameter", "value", "error"), WRONG_VALUES, ids=[f"{n}-{h}={v!r:.9}" for n, h, v, _ in WRONG_VALUES]
)
def test_a_wrong_value_is_shown_with_its_name(name, hyperparameter, value, error):
    with pytest.raises(error) as caught:
        getattr(downslope, name).complete({hyperparameter: value})
    assert hyperparameter in str(caught.value)
    assert repr(value)[:9] in str(caught.value)


@pytest.mark.parametrize("value", [0, 1, 1e-300, np.float32(0.5), np.int64(2), np.float64(1e30)])
def test_any_real_number_will_do_as_a_learning_rate(value):
    settings = downslope.sgd.complete({"lr": value})
    assert settings == {"lr": float(value)}
    assert type(settings["lr"]) is float


def test_a_misspelt_hyperparameter_names_the_valid_ones():
    with pytest.raises(TypeError) as caught:
        downslope.adam.complete({"beta_1": 0.5})
    for name in ("'beta_1'", "did you mean beta1?", "lr", "beta2", "eps", "bias_correction"):
        assert name in str(caught.value)


def test_a_required_hyperparameter_must_be_given():
    @rule
    def required(x, dx, *, lr):
        return x - lr * dx

    with pytest.raises(TypeError, match="lr"):
        required(1.0, 1.0)
    assert required(1.0, 1.0, lr=0.5) == 0.5


def test_own_ranges_replace_the_usual_ones():
    @rule(ranges={"mu": (-1.0, 1.0)})
    def both_ways(x, dx, *, mu=0.0, slope=-5.0):
        return x - mu * slope * dx

    assert both_ways.complete({"mu": -1.0})["mu"] == -1
    with pytest.raises(ValueError, match=r"mu=-1\.5"):
        both_ways.complete({"mu": -1.5})


# The look-ahead


def test_a_lookahead_may_use_states_and_hyperparameters_only():
    @rule
    def ahead(x, dx, v=0, *, mu=0.9):
        return x - dx, mu * v

    with pytest.raises(FormulaError, match="'dx'"):
        ahead.lookahead(lambda dx: dx)
    with pytest.raises(FormulaError, match="'beta'"):
        ahead.lookahead(lambda v, *, beta: beta * v)
    assert ahead.ahead is None
    other = ahead.lookahead(lambda v, *, mu: mu * v)
    assert other.ahead(2.0, mu=0.5) == 1.0
    assert ahead.ahead is None  # a rule does not change: this gives another one


def test_a_lookahead_leaves_the_librarys_own_rule_as_it_is():
    other = downslope.momentum.lookahead(lambda v, *, mu: mu * v)
    assert compose(other).lookahead is not None
    assert downslope.momentum.ahead is None
    assert compose(downslope.momentum).lookahead is None


def test_what_a_rule_holds_cannot_be_changed():
    with pytest.raises(TypeError, match="does not support item assignment"):
        downslope.adam.hyperparameters["lr"] = 1.0
    with pytest.raises(AttributeError):
        downslope.adam.name = "other"


def test_a_rule_is_pickled_by_the_name_under_which_it_is_found():
    assert pickle.loads(pickle.dumps(downslope.nesterov)) is downslope.nesterov
    other = downslope.momentum.lookahead(lambda v, *, mu: mu * v)
    with pytest.raises(pickle.PicklingError, match=r"downslope.rules.gradient.momentum"):
        pickle.dumps(other)


@pytest.mark.parametrize("name", ["seed", "rounding", "state_dtype", "clipnorm", "learning_rate", "cautious", "self"])
def test_no_hyperparameter_has_the_name_of_an_argument(name):
    scope = {"rule": rule}
    with pytest.raises(FormulaError, match=f"'{name}' is an argument of optimizers"):
        exec(f"@rule\ndef mine(x, dx, *, {name}=0.1):\n    return x - {name} * dx", scope)


# What a rule says about itself


@pytest.mark.parametrize(
    ("name", "read", "written"),
    [("sgd", 8, 4), ("momentum", 12, 8), ("nesterov", 12, 8), ("adagrad", 12, 8), ("rmsprop", 12, 8), ("adam", 16, 12)],
)
def test_the_cost_counts_every_array_once(name, read, written):
    cost = getattr(downslope, name).cost()
    assert (cost.read, cost.written) == (read, written)
    assert str(cost).startswith(f"{read} bytes read, {written} bytes written")
    double = getattr(downslope, name).cost(np.float64)
    assert (double.read, double.written) == (2 * read, 2 * written)


def test_the_cost_counts_operations():
    assert downslope.sgd.cost().operations == {"mul": 1, "sub": 1}
    assert downslope.momentum.cost().arithmetic == 4
    assert downslope.sgd.cost(averaging=True).written == 8
    for each in (downslope.adam, downslope.lamb, downslope.muon):  # as they come in the formula
        assert repr(each.cost().operations) == repr(dict(each.cost().operations))


def test_a_notebook_shows_the_formula():
    assert downslope.sgd._repr_latex_() == f"$\\displaystyle {downslope.sgd.latex()}$"


def test_a_state_may_start_from_a_hyperparameter():
    @rule
    def careful(x, dx, cache="start", *, lr=1.0, start=0.25):
        cache = cache + dx**2
        return x - lr * dx / sqrt(cache), cache

    assert careful(0.0, 1.0) == (-1.0 / np.sqrt(1.25), 1.25)
    assert careful(0.0, 1.0, start=3.0)[1] == 4.0
    weights = {"a": np.zeros(2), "b": np.zeros(3)}
    groups = [{"params": {"a": weights["a"]}, "start": 2.0}, {"params": {"b": weights["b"]}}]
    optimizer = downslope.Optimizer(groups, careful)
    assert optimizer.state["cache"]["a"][0] == 2.0
    assert optimizer.state["cache"]["b"][0] == 0.25
    with pytest.raises(TypeError, match="start is the initial value of the state cache"):
        optimizer.set(start=1.0)
    assert downslope.check_rule(careful).passed


def test_a_state_cannot_start_from_an_unknown_name():
    with pytest.raises(FormulaError, match="cache='begin' is not a number, 'x' or the name"):

        @rule
        def lost(x, dx, cache="begin", *, lr=1.0):
            return x - lr * dx, cache


@pytest.mark.parametrize("name", ["stored_ahead", "dtype"])
def test_what_compose_and_cost_take_is_no_name_for_a_flag(name):
    namespace = {}
    exec(f"def flagged(x, dx, *, lr=0.1, {name}=True):\n    return x - lr * dx", namespace)
    with pytest.raises(FormulaError, match=f"flagged: '{name}' is an argument of optimizers; choose another name"):
        downslope.rule(namespace["flagged"])

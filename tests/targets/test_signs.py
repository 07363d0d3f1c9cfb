"""What formulas show of their states' signs, for every rule there is, beside what the states do in steps."""

import importlib
import pkgutil

import numpy as np
import pytest

import downslope
from downslope import dialects, rules
from downslope.language.options import compose
from downslope.rule import Rule
from downslope.targets.arrays import interpret
from downslope.targets.signs import exact, nonnegative
from downslope.testing import hard_values


def every_rule():
    modules = [
        importlib.import_module(f"{package.__name__}.{module.name}")
        for package in (rules, dialects)
        for module in pkgutil.iter_modules(package.__path__)
    ]
    named = {f"{m.__name__.removeprefix('downslope.')}.{n}": r for m in modules for n, r in vars(m).items()}
    return {name: rule for name, rule in named.items() if isinstance(rule, Rule) and rule.states}


@pytest.mark.parametrize("name", every_rule())
def test_states_that_are_said_not_to_be_negative_never_are(name):
    program = compose(every_rule()[name])
    random = np.random.default_rng(0)
    numbers = {n: v for n, v in program.hyperparameters.items() if v is not None}
    given = {n: min(max(0.9, r.low), r.high) for n, r in program.ranges.items()} | numbers
    scalars = given | dict(program.scalar_states) | {"t": 1.0}
    arrays = {"x": random.standard_normal((8, 8)).astype(np.float32)}
    for state in program.states:
        start = program.initial(state, given)
        arrays[state] = arrays["x"].copy() if start is None else np.full((8, 8), start, np.float32)
    with np.errstate(all="ignore"):
        for t in range(1, 16):
            dx = hard_values(64, np.float32, seed=t) if t % 3 else random.standard_normal(64).astype(np.float32)
            dx = dx.reshape(8, 8)  # a matrix, for those who need one
            new = interpret(program, {**arrays, "dx": dx}, {**scalars, "t": float(t)})
            arrays |= {name: np.float32(new[name]) for name in arrays if name in new}
            scalars |= {name: float(new[name]) for name in program.scalar_states}
            for state in nonnegative(program):
                assert not (arrays[state] < 0).any()


@pytest.mark.parametrize(
    ("rule", "never_negative", "must_be_exact"),
    [
        (downslope.adam, {"v"}, set()),
        (downslope.amsgrad, {"v", "v_hat"}, set()),
        (downslope.momentum, set(), set()),
        (downslope.lion, set(), set()),
        (downslope.nesterov, set(), {"v"}),
        (downslope.schedule_free_adamw, {"v"}, {"d"}),
        (dialects.tf1.rmsprop, {"rms"}, set()),
        (dialects.torch.adadelta, {"square_avg", "acc_delta"}, set()),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_is_known_of_rules_by_heart(rule, never_negative, must_be_exact):
    program = compose(rule)
    assert nonnegative(program) == never_negative
    assert exact(program) == must_be_exact


def test_a_variance_needs_exact_states_and_a_second_moment_that_may_be_negative_does():
    centred = compose(dialects.torch.rmsprop, centered=True)
    assert {"square_avg", "grad_avg"} <= exact(centred)

    @downslope.rule
    def yogi(x, dx, v=0, *, lr, beta):
        v = v - (1 - beta) * downslope.sign(v - dx**2) * dx**2
        return x - lr * dx / downslope.sqrt(v), v

    assert exact(compose(yogi)) == {"v"}
    assert nonnegative(compose(yogi)) == frozenset()


def test_an_average_of_the_weights_is_exact():
    program = compose(downslope.adam, averaging=True)
    assert exact(program) == {"average"}

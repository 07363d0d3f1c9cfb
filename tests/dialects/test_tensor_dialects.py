"""The dialects of rules over whole tensors, beside the frameworks themselves, over 200 steps in double precision.

A step of Newton and Schulz can make a rounding error 3.4445 times as large, and five of them 485 times: that is what
the bound of the rules that multiply matrices has more.
"""

import copy
import functools
import inspect
import os

import numpy as np
import pytest
from coverage_table import assert_all_are_tested

import downslope.torch
import paths
from downslope.dialects import keras as keras_forms
from downslope.dialects import optax as optax_forms
from downslope.dialects import torch as torch_forms

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
optax = pytest.importorskip("optax")

BOUND = 485 * 9e-15
SINGLE = 2**-24
"""Optax works out how fast Adafactor forgets in single precision: a step of a tenth is off by half of that, at most."""
PROBLEMS = {"wide": paths.given((4, 9)), "tall": paths.given((9, 4))}
DECAY = {"weight_decay": 0.02}

TORCH = {
    "muon": (torch_forms.muon, {}, {}),
    "muon, matched to AdamW": (torch_forms.muon, {"match_rms_adamw": True}, {"adjust_lr_fn": "match_rms_adamw"}),
    "muon, plain momentum": (torch_forms.muon, {"nesterov": False, "momentum": 0.8}, {}),
}
FACTORED = {
    "adafactor": (torch_forms.adafactor, {"eps1": 2.0**-52}, {}),
    "adafactor, with decay (and least squares)": (
        torch_forms.adafactor,
        {"eps1": 0.5, "eps2": 0.2, "d": 1.2, "beta2_decay": -0.5, **DECAY},
        {"eps": (0.5, 0.2), "d": 1.2, "beta2_decay": -0.5, **DECAY},
    ),
}
KERAS = {
    "lamb": (keras_forms.lamb, keras.optimizers.Lamb, {}),
    "lamb, decoupled decay": (keras_forms.lamb, keras.optimizers.Lamb, DECAY),
    "muon": (keras_forms.muon, keras.optimizers.Muon, {"weight_decay": 0.004}),
    "muon, plain momentum": (keras_forms.muon, keras.optimizers.Muon, {"nesterov": False, **DECAY}),
    "adafactor": (keras_forms.adafactor, keras.optimizers.Adafactor, {"clip_threshold": 0.4}),
}
FACTOR_ALL = functools.partial(optax.adafactor, min_dim_size_to_factor=1)
OPTAX = {
    "lars, nesterov": (optax_forms.lars, optax.lars, {"nesterov": True, "trust_coefficient": 0.1, "eps": 0.3, **DECAY}),
    "lamb": (optax_forms.lamb, optax.lamb, {"eps_root": 0.3, **DECAY}),
    "muon": (optax_forms.muon, optax.contrib.muon, {"eps": 0.1}),
    "muon, matched to AdamW": (optax_forms.muon, optax.contrib.muon, {"consistent_rms": 0.2, **DECAY}),
    "muon, plain momentum": (optax_forms.muon, optax.contrib.muon, {"nesterov": False}),
    "adafactor": (optax_forms.adafactor, FACTOR_ALL, {}),
    "adafactor, with decay": (
        optax_forms.adafactor,
        FACTOR_ALL,
        {"multiply_by_parameter_scale": False, "weight_decay_rate": 1e-3, "clipping_threshold": 0.5},
    ),
}
NAMES = {"lr": "learning_rate", "beta1": "b1", "beta2": "b2"}
IN_KERAS = {"beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon", "lr": "learning_rate"}


@pytest.mark.parametrize("shape", PROBLEMS)
@pytest.mark.parametrize("case", TORCH)
def test_two_hundred_steps_are_those_of_torch_but_for_its_bfloat16(case, shape, monkeypatch):
    """PyTorch narrows the matrix before it multiplies; here it is told to copy it as it is."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    rule, ours, words = TORCH[case]
    theirs = {**{name: value for name, value in ours.items() if name != "match_rms_adamw"}, **words}
    made = paths.torch_path(lambda params: torch.optim.Muon(params, **theirs), PROBLEMS[shape], paths.rates())
    paths.assert_path(made, rule, ours, problem=PROBLEMS[shape], bound=BOUND)


@pytest.mark.parametrize("shape", [*PROBLEMS, "vector"])
@pytest.mark.parametrize("case", FACTORED)
def test_two_hundred_steps_are_those_of_torchs_adafactor(case, shape):
    rule, ours, theirs = FACTORED[case]
    problem = PROBLEMS[shape] if shape in PROBLEMS else paths.given((7,))
    made = paths.torch_path(lambda params: torch.optim.Adafactor(params, **theirs), problem, paths.rates())
    paths.assert_path(made, rule, ours, problem=problem)


def test_adafactor_goes_on_in_torch_and_comes_back():
    """Rows and columns are kept in the shape that PyTorch keeps them in."""
    weights = [torch.arange(1.0, 13.0, dtype=torch.float64).reshape(3, 4).requires_grad_() for _ in range(2)]
    ours = downslope.torch.Optimizer([weights[0]], torch_forms.adafactor, eps1=2.0**-52)
    theirs = torch.optim.Adafactor([weights[1]], lr=0.01)
    for t in range(6):
        for x in weights:
            x.grad = torch.cos(t + x.detach())
        if t == 3:
            state = theirs.state[weights[1]]
            assert {name: v.shape for name, v in state.items() if name != "variance" and v is not None} == {
                name: v.shape for name, v in ours.state[weights[0]].items()
            }
            loaded = copy.deepcopy(ours.state_dict())
            loaded["param_groups"] = theirs.state_dict()["param_groups"]
            loaded["state"][0]["variance"] = None
            theirs.load_state_dict(loaded)
        ours.step()
        theirs.step()
    torch.testing.assert_close(*(x.detach() for x in weights), rtol=1e-13, atol=0)


def test_a_step_of_torch_in_bfloat16_is_ours_to_two_digits():
    generator = np.random.default_rng(0)
    x, dx = generator.standard_normal((2, 40, 24))
    theirs = torch.tensor(x, requires_grad=True)
    theirs.grad = torch.tensor(dx)
    torch.optim.Muon([theirs], lr=1.0, weight_decay=0.0).step()
    ours = x - torch_forms.muon(x, dx, lr=1.0, weight_decay=0.0)[0]
    off = np.linalg.norm(x - theirs.detach().numpy() - ours) / np.linalg.norm(ours)
    assert 1e-4 < off < 0.02


class Rates(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rates of a path, in double precision."""

    def __call__(self, step):
        return keras.ops.take(keras.ops.convert_to_tensor(paths.rates(), "float64"), step)


@pytest.fixture
def floats_are_doubles():
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before)


@pytest.mark.usefixtures("floats_are_doubles")
@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="the others need telling what double precision is")
@pytest.mark.parametrize("case", KERAS)
def test_two_hundred_steps_are_those_of_keras(case):
    """All numbers are float64's, and so is what Keras makes of whole numbers such as the rows of a matrix."""
    tf = pytest.importorskip("tensorflow")
    rule, kind, given = KERAS[case]
    problem = PROBLEMS["wide" if "plain" in case else "tall"]
    settings = {name: p.default for name, p in inspect.signature(kind).parameters.items()}
    settings |= {IN_KERAS.get(name, name): value for name, value in given.items()}
    # The momentum is never cast, and NumPy would take a product with Keras's variable for its own to work out.
    floats = {name: value for name, value in settings.items() if type(value) is float}
    doubles = {name: value if name == "momentum" else np.float64(value) for name, value in floats.items()}
    variable = keras.Variable(problem.start, dtype="float64")
    optimizer = kind(**{**{k: v for k, v in given.items() if isinstance(v, bool)}, **doubles, "learning_rate": Rates()})
    optimizer.build([variable])
    step = tf.function(lambda gradient: optimizer.apply([gradient], [variable]), autograph=False)

    def walked():
        for gradient in problem.noise:
            step(tf.constant(gradient))
            yield variable.numpy()

    paths.assert_path(walked(), rule, given, problem=problem, bound=BOUND)


@pytest.fixture(scope="module")
def optax_paths():
    """All in one program for each of the shapes, the tall one for Muon's own stride alone."""
    made = {
        case: kind(paths.schedule(), **{NAMES.get(name, name): value for name, value in given.items()})
        for case, (_, kind, given) in OPTAX.items()
    }
    wide = zip(made, paths.optax_paths(list(made.values()), PROBLEMS["wide"]), strict=True)
    tall = paths.optax_paths([made["muon"]], PROBLEMS["tall"])
    return {**{(case, "wide"): path for case, path in wide}, ("muon", "tall"): tall[0]}


@pytest.mark.parametrize(("case", "shape"), [*((case, "wide") for case in OPTAX), ("muon", "tall")])
def test_two_hundred_steps_are_those_of_optax(case, shape, optax_paths):
    rule, _, given = OPTAX[case]
    bound = SINGLE if case.startswith("adafactor") else BOUND
    paths.assert_path(optax_paths[case, shape], rule, given, problem=PROBLEMS[shape], bound=bound)


def test_the_page_lists_what_is_tested():
    for dialect, cases in {"torch": {**TORCH, **FACTORED}, "keras": KERAS, "optax": OPTAX}.items():
        assert_all_are_tested(dialect, cases, "rule over whole tensors")

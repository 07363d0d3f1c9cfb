"""Rules over whole tensors against the published formula, written down anew in double precision, in every front end."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from in_one_program import in_keras, in_optax

import downslope
import downslope.keras
import downslope.optax
import downslope.torch
from downslope import Optimizer, norm
from downslope.rules.tensors import POLAR_EXPRESS, QUINTIC, orthogonal
from downslope.targets.shapes import ShapeError

STEPS = 200
SHAPES = {"wide": (3, 7), "tall": (9, 4), "kernel": (4, 2, 3, 3)}
VECTORS = {"bias": (5,), "scale": (), "zero": (4,)}


def unit(vector):
    return np.sqrt(np.sum(vector * vector))


def lars(x, dx, past, t, lr, weight_decay):
    v = past.get("v", 0.0)
    length, steep = unit(x), unit(dx) + weight_decay * unit(x)
    share = 1e-3 * length / steep if length > 0 and steep > 0 else 1.0
    past["v"] = 0.9 * v + lr * share * (dx + weight_decay * x)
    return x - past["v"]


def lamb(x, dx, past, t, lr, weight_decay):
    past["m"] = 0.9 * past.get("m", 0.0) + 0.1 * dx
    past["v"] = 0.999 * past.get("v", 0.0) + (1 - 0.999) * dx * dx
    step = past["m"] / (1 - 0.9**t) / (np.sqrt(past["v"] / (1 - 0.999**t)) + 1e-6) + weight_decay * x
    share = unit(x) / unit(step) if unit(x) > 0 and unit(step) > 0 else 1.0
    return x - lr * share * step


def moments(dx, past, t, beta1=0.9, beta2=0.999):
    past["m"] = beta1 * past.get("m", 0.0) + (1 - beta1) * dx
    past["v"] = beta2 * past.get("v", 0.0) + (1 - beta2) * dx * dx
    return past["m"] / (1 - beta1**t), past["v"] / (1 - beta2**t)


def adamp(x, dx, past, t, lr, weight_decay):
    m, v = moments(dx, past, t)
    step = m / (np.sqrt(v) + 1e-8)
    if np.abs(np.vdot(x, dx)) < 0.1 / np.sqrt(x.size) * unit(x) * unit(dx):
        along = x / unit(x)
        step = step - np.vdot(along, step) * along
        past["projected"] = past.get("projected", 0) + 1
    return x - lr * step - lr * weight_decay * x


def stable_adamw(x, dx, past, t, lr, weight_decay):
    m, v = moments(dx, past, t, beta2=0.99)
    rate = lr / max(1.0, np.sqrt(np.mean(dx * dx / np.maximum(v, 1e-16))))
    return (1 - rate * weight_decay) * x - rate * m / (np.sqrt(v) + 1e-8)


def mars(x, dx, past, t, lr, weight_decay):
    c = dx + 0.025 * 0.95 / 0.05 * (dx - past.get("g", dx))
    past["g"] = dx
    m, v = moments(c / unit(c) if unit(c) > 1 else c, past, t, beta1=0.95, beta2=0.99)
    return (1 - lr * weight_decay) * x - lr * m / (np.sqrt(v) + 1e-8)


def cautious_adamw(x, dx, past, t, lr, weight_decay):
    m, v = moments(dx, past, t)
    mask = (m * dx > 0).astype(float)
    step = m / (np.sqrt(v) + 1e-8) * mask / max(mask.mean(), 1e-3)
    return (1 - lr * weight_decay) * x - lr * step


def muon(x, dx, past, t, lr, weight_decay):
    """By singular values: the polynomial works on them alone."""
    matrix, g = (a.reshape(a.shape[0], -1) for a in (x, dx))
    past["m"] = 0.95 * past.get("m", 0.0) + g
    u = g + 0.95 * past["m"]
    left, values, right = np.linalg.svd(u / (unit(u) + 1e-7), full_matrices=False)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    rows, columns = matrix.shape
    return x - (lr * np.sqrt(max(1, rows / columns)) * (left * values) @ right).reshape(x.shape)


def adafactor(x, dx, past, t, lr, weight_decay):
    """With sums of rows and columns and their outer product; of a vector all squares are remembered."""
    decay, squares = 1 - t**-0.8, dx * dx + 1e-30
    if x.ndim < 2:
        past["v"] = v = decay * past.get("v", 0.0) + (1 - decay) * squares
    else:
        sums = squares.reshape(len(x), -1)
        past["r"] = decay * past.get("r", 0.0) + (1 - decay) * sums.sum(1)
        past["c"] = decay * past.get("c", 0.0) + (1 - decay) * sums.sum(0)
        v = (np.outer(past["r"], past["c"]) / past["r"].sum()).reshape(x.shape)
    u = dx / np.sqrt(v)
    u = u / max(1.0, unit(u) / np.sqrt(u.size))
    return x - max(1e-3, unit(x) / np.sqrt(x.size)) * min(lr, t**-0.5) * u


def adam_mini(x, dx, past, t, lr, weight_decay):
    squares = [np.vdot(row, row) / row.size for row in (dx.reshape(len(x), -1) if x.ndim > 1 else dx.reshape(1, -1))]
    past["m"] = 0.9 * past.get("m", 0.0) + 0.1 * dx
    past["v"] = 0.999 * past.get("v", 0.0) + (1 - 0.999) * np.array(squares)
    below = np.sqrt(past["v"] / (1 - 0.999**t)) + 1e-8
    below = below.reshape(-1, *[1] * (x.ndim - 1)) if x.ndim > 1 else below[0]
    return (1 - lr * weight_decay) * x - lr * past["m"] / (1 - 0.9**t) / below


def normuon(x, dx, past, t, lr, weight_decay):
    past["m"] = 0.95 * past.get("m", 0.0) + 0.05 * dx.reshape(len(x), -1)
    left, values, right = np.linalg.svd(past["m"] / (unit(past["m"]) + 1e-7), full_matrices=False)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    o = (left * values) @ right
    past["v"] = 0.95 * past.get("v", 0.0) + 0.05 * (o * o).mean(1)
    o = o / (np.sqrt(past["v"]) + 1e-8)[:, None]
    o = 0.2 * np.sqrt(o.size) / unit(o) * o
    return (1 - lr * weight_decay) * x - lr * o.reshape(x.shape)


CASES = [
    (downslope.lars, lars, {"lr": 2.0, "weight_decay": 0.01}, {**SHAPES, **VECTORS}),
    (downslope.lamb, lamb, {"lr": 0.003, "weight_decay": 0.01}, {**SHAPES, **VECTORS}),  # like Muon: see there
    (downslope.adamp, adamp, {"lr": 0.01, "weight_decay": 0.01}, {**SHAPES, **VECTORS}),
    (downslope.stable_adamw, stable_adamw, {"lr": 0.01, "weight_decay": 0.1}, {**SHAPES, **VECTORS}),
    (downslope.mars, mars, {"lr": 0.01, "weight_decay": 0.01}, {**SHAPES, **VECTORS}),
    (downslope.cautious_adamw, cautious_adamw, {"lr": 0.01, "weight_decay": 0.1}, {**SHAPES, **VECTORS}),
    (downslope.adafactor, adafactor, {"lr": 0.05}, {**SHAPES, **VECTORS}),
    (downslope.adam_mini, adam_mini, {"lr": 0.01, "weight_decay": 0.1}, {**SHAPES, **VECTORS}),
    (downslope.normuon, normuon, {"lr": 0.005, "weight_decay": 0.1}, SHAPES),
    (downslope.muon, muon, {"lr": 0.005}, SHAPES),  # not yet at the lowest point, around which steps of one size chase
]
IDS = [case[0].name for case in CASES]


def beginning(shapes):
    generator = np.random.default_rng(7)
    weights = {name: generator.normal(size=shape) * (name != "zero") for name, shape in shapes.items()}
    targets = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    return weights, targets


def slope(x, target, t):
    """The gradient of a bowl that shakes."""
    return (x - target) * (1 + 0.5 * np.sin(t))


def expected(reference, given, shapes, steps=STEPS):
    weights, targets = beginning(shapes)
    past = {name: {} for name in shapes}
    for t in range(1, steps + 1):
        for name, x in weights.items():
            numbers = {"weight_decay": 0.0, **given}
            weights[name] = reference(x, slope(x, targets[name], t), past[name], t, **numbers)
    return weights


@pytest.mark.parametrize(("rule", "reference", "given", "shapes"), CASES, ids=IDS)
def test_arrays_and_tensors_go_the_published_way_for_200_steps(rule, reference, given, shapes):
    wanted = expected(reference, given, shapes)
    weights, targets = beginning(shapes)
    arrays = {name: np.array(x) for name, x in weights.items()}
    optimizer = Optimizer(arrays, rule, **given)
    tensors = {name: torch.tensor(x, requires_grad=True) for name, x in weights.items()}
    trained = downslope.torch.Optimizer(tensors.items(), rule, **given)
    for t in range(1, STEPS + 1):
        optimizer.step({name: slope(x, targets[name], t) for name, x in arrays.items()})
        for name, p in tensors.items():
            p.grad = torch.as_tensor(slope(p.detach().numpy(), targets[name], t))
        trained.step()
    for name, x in wanted.items():
        np.testing.assert_allclose(arrays[name], x, rtol=1e-8, atol=1e-10, err_msg=name)
        np.testing.assert_allclose(tensors[name].detach().numpy(), x, rtol=1e-8, atol=1e-10, err_msg=name)


@pytest.mark.parametrize(("rule", "reference", "given", "shapes"), CASES, ids=IDS)
def test_optax_and_keras_go_the_published_way_for_200_steps(rule, reference, given, shapes):
    """Keras holds learning rates, and powers of `t`, in single precision."""
    shapes = {name: shape for name, shape in shapes.items() if name != "scale"}
    wanted = expected(reference, given, shapes)
    weights, targets = beginning(shapes)
    optax_way, _ = in_optax(rule, given, weights, targets, STEPS)
    keras_way, _ = in_keras(rule, given, weights, targets, STEPS)
    for name, x in wanted.items():
        np.testing.assert_allclose(optax_way[name], x, rtol=1e-8, atol=1e-10, err_msg=name)
        np.testing.assert_allclose(keras_way[name], x, rtol=1e-6, atol=1e-6, err_msg=name)


def test_lamb_is_that_of_optax():
    weights, targets = beginning(SHAPES)
    params = {name: np.float32(x) for name, x in weights.items()}
    pair = (downslope.optax.optimizer(downslope.lamb, lr=0.02, weight_decay=0.1), optax.lamb(0.02, weight_decay=0.1))
    ways = [(each, each.init(params), params) for each in pair]
    for t in range(1, 21):
        for k, (each, state, at) in enumerate(ways):
            gradients = {name: np.float32(slope(x, targets[name], t)) for name, x in at.items()}
            updates, state = each.update(gradients, state, at)
            ways[k] = each, state, {name: np.asarray(x) for name, x in optax.apply_updates(at, updates).items()}
    for name in params:
        np.testing.assert_allclose(ways[0][2][name], ways[1][2][name], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("coefficients", "reserve", "low", "high"), [(QUINTIC, 1.0, 0.68, 1.21), (POLAR_EXPRESS, 1.01, 0.85, 1.13)]
)
@pytest.mark.parametrize("shape", [(40, 60), (60, 40)])
def test_singular_values_of_a_step_are_near_one(shape, coefficients, reserve, low, high):
    """In the band that the polynomials promise, from a hundredth of the largest on; directions without slope stay."""
    generator = np.random.default_rng(3)
    left, _ = np.linalg.qr(generator.normal(size=(shape[0], 20)))
    right, _ = np.linalg.qr(generator.normal(size=(shape[1], 20)))
    for scale in (1e-12, 1.0, 1e12):
        u = left * np.geomspace(0.05, 1, 20) * scale @ right.T
        values = np.linalg.svd(orthogonal(u / (reserve * norm(u)), coefficients), compute_uv=False)
        assert low < values[:20].min()
        assert values[:20].max() < high
        assert values[20:].max() < 1e-9


def test_in_optax_a_partition_has_a_rule_for_each_part():
    """What becomes of each part is what its transformation makes of it alone."""
    params = {"embed": jnp.ones((6, 4)), "inner": jnp.eye(4), "b": jnp.ones(4)}
    muon, adamw = downslope.optax.optimizer(downslope.muon), downslope.optax.optimizer(downslope.adamw)
    both = optax.partition({"matrices": muon, "rest": adamw}, downslope.split(params).labels())
    state, alone = both.init(params), (muon.init(params["inner"]), adamw.init(params["b"]))
    for t in range(1, 4):
        gradients = {name: jnp.cos(t + p) for name, p in params.items()}
        updates, state = both.update(gradients, state, params)
        inner, its = muon.update(gradients["inner"], alone[0], params["inner"])
        b, others = adamw.update(gradients["b"], alone[1], params["b"])
        alone = its, others
        np.testing.assert_array_equal(updates["inner"], inner)
        np.testing.assert_array_equal(updates["b"], b)
        params = optax.apply_updates(params, updates)


def test_for_numpy_arrays_a_rule_of_a_group_is_refused_with_what_to_do():
    with pytest.raises(TypeError, match=r"a group has rule=.*for arrays of NumPy all groups have one rule"):
        Optimizer([{"params": np.ones((2, 2)), "rule": downslope.muon}], downslope.adamw)


def test_a_vector_given_to_muon_is_named_where_it_is_given():
    with pytest.raises(ShapeError, match=r"the parameter bias: muon multiplies.*\(5,\) is none.*; put it into"):
        downslope.torch.Optimizer([("bias", torch.zeros(5, requires_grad=True))], downslope.muon)
    with pytest.raises(ShapeError, match=r"the parameter bias: muon multiplies.*an optimizer of its own"):
        Optimizer({"W": np.zeros((2, 2)), "bias": np.zeros(5)}, downslope.muon)
    with pytest.raises(ShapeError, match=r"the parameter \['bias'\]: muon multiplies.*optax.partition"):
        downslope.optax.optimizer(downslope.muon).init({"W": jnp.zeros((2, 2)), "bias": jnp.zeros(5)})
    keras, ours = pytest.importorskip("keras"), pytest.importorskip("downslope.keras")
    bias = keras.Variable(np.zeros(5), name="bias")
    with pytest.raises(ShapeError, match=r"the parameter bias: muon multiplies.*MultiOptimizer"):
        ours.Optimizer(downslope.muon).build([bias])
    before = bias.numpy().copy()
    with pytest.raises(ShapeError, match="the parameter bias"):
        ours.Optimizer(downslope.muon).apply([bias + 1], [bias])
    np.testing.assert_array_equal(bias.numpy(), before)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"state_dtype": torch.uint8},
            "state_dtype=torch.uint8 is for rules.*lamb goes by whole tensors.*leave state_dtype out",
        ),
        ({"rounding": "stochastic"}, "rounding='stochastic'.*leave rounding out"),
    ],
)
def test_what_only_kernels_can_do_is_refused(settings, words):
    p = torch.zeros(300, dtype=torch.bfloat16, requires_grad=True)
    with pytest.raises((ValueError, TypeError), match=words):
        downslope.torch.Optimizer([p], downslope.lamb, **settings)
    with pytest.raises(
        ValueError, match=r"state_dtype=uint8 is for rules.*lamb goes by whole tensors.*leave state_dtype out"
    ):
        Optimizer(np.zeros(300, np.float32), downslope.lamb, state_dtype=np.uint8)


@pytest.mark.parametrize("rule", [downslope.adam_mini, downslope.normuon])
def test_by_columns_a_rule_does_what_it_does_by_rows_to_the_matrix_that_lies_the_other_way_round(rule):
    weights, targets = beginning({"tall": (9, 4)})
    ways = [weights["tall"].copy(), weights["tall"].T.copy()]
    optimizers = [Optimizer(x, rule, lr=0.01, by_columns=by) for x, by in zip(ways, (False, True), strict=True)]
    for t in range(1, 6):
        dx = slope(ways[0], targets["tall"], t)
        optimizers[0].step(dx)
        optimizers[1].step(dx.T.copy())
    np.testing.assert_allclose(*(ways[0], ways[1].T), rtol=1e-12)
    assert [{*each.state} for each in optimizers] == [{"m", "v"}, {"m", "w"}]


def test_without_a_gradient_normuon_stays_where_it_is():
    x = np.ones((3, 2), np.float32)
    assert (downslope.normuon(x, np.zeros_like(x))[0] == x).all()


@pytest.mark.parametrize("largest", [1e3, 1e6, 1e12])
def test_a_row_and_a_column_without_gradients_do_not_divide_adafactor_by_nothing(largest):
    """JAX takes numbers below the smallest normal one for 0, NumPy does so with what is smaller still."""
    dx = np.float32([[0], [1], [largest]]) * np.float32([[0, 1, 1]])
    x = np.ones((3, 3), np.float32)
    expected = downslope.adafactor(x.astype(float), dx.astype(float), t=1)[0] - 1
    for step in (downslope.adafactor(x, dx, t=1)[0] - 1, jitted(downslope.adafactor, x, dx) - 1):
        np.testing.assert_allclose(step, expected, rtol=1e-4, atol=1e-6)
        assert (step[0] == 0).all()


def jitted(rule, x, dx):
    """The weights after the first step that Optax does."""
    jax = pytest.importorskip("jax")
    made = pytest.importorskip("downslope.optax").optimizer(rule)
    updates, _ = jax.jit(made.update)(jax.numpy.asarray(dx), made.init(jax.numpy.asarray(x)), jax.numpy.asarray(x))
    return np.asarray(x + updates)


@pytest.mark.parametrize("rule", [downslope.lars, downslope.lamb])
def test_of_a_length_that_is_no_number_no_share_is_made_up(rule):
    """A nan is in all weights of its tensor, lest the others stride by a share of 1, 1,000 times that of LARS."""
    dx = np.ones((2, 3))
    dx[0, 0] = np.nan
    arrays = {"bad": np.ones((2, 3)), "good": np.ones((2, 3))}
    tensors = {name: torch.tensor(x, requires_grad=True) for name, x in arrays.items()}
    Optimizer(arrays, rule).step({"bad": dx, "good": np.ones((2, 3))})
    optimizer = downslope.torch.Optimizer(tensors.values(), rule)
    tensors["bad"].grad, tensors["good"].grad = torch.tensor(dx), torch.ones(2, 3, dtype=torch.float64)
    optimizer.step()
    made = downslope.optax.optimizer(rule)
    updates, _ = made.update(jnp.asarray(dx), made.init(jnp.ones((2, 3))), jnp.ones((2, 3)))
    for bad in (arrays["bad"], tensors["bad"].detach().numpy(), np.asarray(updates)):
        assert np.isnan(bad).all()
    for good in (arrays["good"], tensors["good"].detach().numpy()):
        assert (good < 1).all()


def test_a_look_ahead_may_go_by_the_length_of_a_state():
    @downslope.rule
    def ball(x, dx, v=0, *, lr=0.1, mu=0.9):
        v = mu * v - lr * dx
        return x + v, v

    longer = ball.lookahead(lambda *, v, mu: mu * v * downslope.norm(v))

    def slope_at(point):
        return np.cos(np.arange(6.0).reshape(2, 3) + point)

    x, v = np.ones((2, 3)), np.zeros((2, 3))
    array, tensor = x.copy(), torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    optimizers = Optimizer(array, longer), downslope.torch.Optimizer([tensor], longer)
    for _ in range(5):
        v = 0.9 * v - 0.1 * slope_at(x + 0.9 * v * np.linalg.norm(v))
        x = x + v
        optimizers[0].step(slope_at(array))
        tensor.grad = torch.tensor(slope_at(tensor.detach().numpy()))
        optimizers[1].step()
    for optimizer, at in zip(optimizers, (array, tensor.detach().numpy()), strict=True):
        with optimizer.at_weights():
            np.testing.assert_allclose(at, x, rtol=1e-13)


def test_what_is_not_finite_stays_in_its_tensor():
    tensors = [torch.ones(3, 2, requires_grad=True) for _ in range(2)]
    optimizer = downslope.torch.Optimizer(tensors, downslope.muon)
    tensors[0].grad, tensors[1].grad = torch.full((3, 2), torch.nan), torch.ones(3, 2)
    optimizer.step()
    assert not tensors[0].isfinite().any()
    assert tensors[1].isfinite().all()


def test_options_stand_around_a_rule_over_tensors_as_around_any():
    settings = {"lr": 0.02, "weight_decay": 0.1, "decoupled": True, "max_norm": 1.0, "averaging": 0.9}
    x, dx = np.arange(6.0).reshape(2, 3), np.ones((2, 3))
    arrays = {"W": x.copy()}
    optimizer = Optimizer(arrays, downslope.muon, **settings)
    tensor = torch.tensor(x, requires_grad=True)
    other = downslope.torch.Optimizer([tensor], downslope.muon, **settings)
    tensor.grad = torch.tensor(dx)
    optimizer.step({"W": dx})
    other.step()
    alone = downslope.muon(x * (1 - 0.02 * 0.1), dx / np.sqrt(6), lr=0.02)[0]
    np.testing.assert_allclose(arrays["W"], alone, rtol=1e-12)
    np.testing.assert_allclose(tensor.detach().numpy(), alone, rtol=1e-12)


def test_a_saved_training_goes_on_bit_for_bit(tmp_path):
    ways = []
    for _ in range(2):
        model = torch.nn.Linear(3, 4, bias=False)
        ways.append((model.weight, downslope.torch.Optimizer(model.parameters(), downslope.muon), model))
    p, optimizer, model = ways[0]
    p.grad = torch.arange(12.0).reshape(4, 3)
    optimizer.step()
    optimizer.save(tmp_path / "muon.safetensors", model)
    ways[1][1].load(tmp_path / "muon.safetensors", ways[1][2])
    for p, optimizer, _ in ways:
        p.grad = torch.eye(4, 3)
        optimizer.step()
    assert torch.equal(ways[0][0], ways[1][0])

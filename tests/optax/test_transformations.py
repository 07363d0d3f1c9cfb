"""A rule among Optax's own transformations, and under JAX's."""

import copy
import inspect
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import downslope
import downslope.optax
from downslope.optax import RuleState, factory, optimizer

PARAMS = {"layer": {"W": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3)}, "scale": jnp.float32(2.0)}


def gradients_of(params):
    """Those of half the sum of squares."""
    return params


def train(transformation, params, steps=3):
    """Some steps, in one compiled program."""

    def step(carry, _):
        params, state = carry
        updates, state = transformation.update(gradients_of(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    def run(params):
        return jax.lax.scan(step, (params, transformation.init(params)), length=steps)[0]

    return jax.jit(run)(params)


def assert_same(found, expected, **tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, **{"rtol": 1e-6, **tolerance})


MOVING = {
    "schedule": optimizer(downslope.adam, lr=lambda count: 0.1 * 0.99**count, max_norm=1.0, averaging=0.9),
    "scalar states": optimizer(downslope.nadam, weight_decay=0.1, decoupled=True, cautious=True),
    "look-ahead": optimizer(downslope.schedule_free_adamw, lr=optax.linear_schedule(0.1, 0.0, 10)),
    "in a chain": optax.chain(
        optax.clip(1.0),
        optax.inject_hyperparams(factory(downslope.radam))(lr=optax.cosine_decay_schedule(0.1, 10)),
    ),
}


@pytest.mark.parametrize("case", MOVING)
def test_nothing_is_compiled_after_the_first_step_and_buffers_are_reused(case):
    transformation = MOVING[case]
    traced = []

    def step(params, state):
        traced.append(1)
        updates, state = transformation.update(gradients_of(params), state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.array, PARAMS)
    compiled, state = jax.jit(step, donate_argnums=(0, 1)), transformation.init(params)
    for _ in range(3):
        before = [*jax.tree.leaves(params), *jax.tree.leaves(optax.tree_utils.tree_get(state, "states"))]
        params, state = compiled(params, state)
        assert all(buffer.is_deleted() for buffer in before)
    assert len(traced) == 1
    # compiled as a whole, operations may be fused: two roundings a step of a step of 0.1 or of a weight
    assert_same(params, train(transformation, PARAMS)[0], atol=2e-6)


def test_a_state_is_placed_from_the_start_as_a_step_leaves_it():
    """Or the second step would be compiled anew: for parameters that have been put on a device by hand."""
    transformation = optimizer(downslope.nadam, averaging=0.9)
    params = jax.device_put({"W": jnp.ones(2)}, jax.devices()[0])
    start = transformation.init(params)
    _, state = jax.jit(transformation.update)(params, start, params)
    for before, after in zip(jax.tree.leaves(start), jax.tree.leaves(state), strict=True):
        assert before.committed
        assert after.committed
        assert before.sharding == after.sharding


def test_chained_masked_and_divided_it_computes_what_it_computes_alone():
    mask = {"layer": True, "scale": False}
    chained = optax.chain(optax.clip_by_global_norm(1.0), optimizer(downslope.adam, lr=0.1), optax.scale(0.5))
    assert_same(train(chained, PARAMS)[0], train(optimizer(downslope.adam, lr=0.05, max_norm=1.0), PARAMS)[0])

    alone, _ = train(optimizer(downslope.momentum), PARAMS["layer"])
    masked, _ = train(optax.masked(optimizer(downslope.momentum), mask), PARAMS)
    assert_same(masked["layer"], alone)
    assert masked["scale"] == 2.0 * 2**3  # the gradient itself was added

    labels = {"layer": "first", "scale": "second"}
    rules = {
        "first": optimizer(downslope.momentum),
        "second": optimizer(downslope.schedule_free_sgd, lr=0.1, averaging=0.5),
    }
    divided, state = train(optax.multi_transform(rules, labels), PARAMS)
    assert_same(divided["layer"], alone)
    other, its_state = train(rules["second"], PARAMS["scale"])
    assert_same(divided["scale"], other)
    weights = downslope.optax.weights(rules["second"], divided, state)
    assert_same(weights["layer"], divided["layer"])
    assert_same(weights["scale"], downslope.optax.weights(rules["second"], other, its_state))
    assert not np.allclose(weights["scale"], divided["scale"])
    assert_same(downslope.optax.average(state)["scale"], downslope.optax.average(its_state))


def test_steps_may_be_gathered_or_left_out():
    rule = optimizer(downslope.adam, lr=0.1)
    gathered = optax.MultiSteps(rule, every_k_schedule=2)
    update, state = jax.jit(gathered.update), gathered.init(jnp.ones(2))
    first, state = update(jnp.array([1.0, 0.0]), state)
    second, state = update(jnp.array([3.0, 1.0]), state)
    assert_same(first, jnp.zeros(2))
    assert_same(second, rule.update(jnp.array([2.0, 0.5]), rule.init(jnp.ones(2)))[0])

    finite = optax.apply_if_finite(rule, max_consecutive_errors=3)
    held_still, state = jax.jit(finite.update)(jnp.array([jnp.nan, 1.0]), finite.init(jnp.ones(2)))
    assert_same(held_still, jnp.zeros(2))
    assert optax.tree_utils.tree_get(state, "m").tolist() == [0, 0]
    assert state.inner_state.count == 0


def test_hyperparameters_in_the_state_can_be_read_and_changed():
    make = optax.inject_hyperparams(factory(downslope.adam), static_args=("beta1", "beta2", "eps"))
    transformation = make(lr=0.1, weight_decay=lambda count: 0.01 * count, decoupled=True)
    state = transformation.init(jnp.ones(2))
    assert state.hyperparams.keys() == {"lr", "weight_decay"}
    update, state = transformation.update(jnp.ones(2), state, jnp.ones(2))
    assert_same(update, jnp.full(2, -0.1))
    state.hyperparams["lr"] = jnp.float32(0.2)
    update, state = transformation.update(jnp.ones(2), state, jnp.ones(2))
    assert_same(update, jnp.full(2, -0.2 - 0.2 * 0.01))

    drop_in = optax.inject_hyperparams(downslope.optax.adam)(learning_rate=0.1)
    assert drop_in.init(jnp.ones(2)).hyperparams.keys() == {"learning_rate", "b1", "b2", "eps", "eps_root"}
    assert_same(train(drop_in, PARAMS)[0], train(optax.inject_hyperparams(optax.adam)(learning_rate=0.1), PARAMS)[0])

    clipped = optax.inject_hyperparams(factory(downslope.momentum))(max_norm=1.0, averaging=0.9, lr=StatefulSchedule())
    expected = optimizer(downslope.momentum, max_norm=1.0, averaging=0.9, lr=0.1)
    assert_same(downslope.optax.average(train(clipped, PARAMS)[1]), train(expected, PARAMS)[1].states["average"])

    # all of them in single precision, the initial value of a state among them
    adagrad = optax.inject_hyperparams(downslope.optax.adagrad)(learning_rate=0.1, initial_accumulator_value=0.5)
    assert_same(train(adagrad, PARAMS)[0], train(optax.adagrad(0.1, initial_accumulator_value=0.5), PARAMS)[0])


def test_the_factory_has_the_signature_of_its_rule():
    parameters = inspect.signature(factory(downslope.adam)).parameters
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())
    defaults = {name: p.default for name, p in parameters.items()}
    assert defaults == {
        **downslope.adam.hyperparameters,
        **downslope.adam.flags,
        "weight_decay": None,
        "decoupled": False,
        "cautious_decay": False,
        "cautious": False,
        "maximize": False,
        "max_norm": None,
        "averaging": None,
        "lookahead": "stored",
    }
    assert inspect.signature(factory(downslope.dialects.optax.sgd)).parameters["lr"].default is inspect.Parameter.empty
    with pytest.raises(TypeError, match="beta3"):
        factory(downslope.adam)(beta3=0.9)
    with pytest.raises(TypeError, match="is not a rule"):
        factory("adam")


def test_a_population_with_a_learning_rate_each():
    rates, members = jnp.array([0.1, 0.2, 0.3]), jnp.arange(6.0).reshape(3, 2)
    found = jax.vmap(lambda lr, x: train(optimizer(downslope.nadam, lr=lr, max_norm=1.0), x)[0])(rates, members)
    for lr, x, end in zip([0.1, 0.2, 0.3], members, found, strict=True):
        assert_same(end, train(optimizer(downslope.nadam, lr=lr, max_norm=1.0), x)[0])


def test_what_is_not_there_is_left_alone():
    for params in ({}, [], {"W": None}, None):
        updates, state = optimizer(downslope.nadam).update(params, optimizer(downslope.nadam).init(params), params)
        assert updates == params
        assert state.count == 1
        assert 0 < state.scalars["product"] < 1
    transformation = optimizer(downslope.momentum)
    params = {"W": jnp.ones(2), "frozen": {"a": jnp.ones(2), "b": jnp.ones(3)}}
    updates, state = transformation.update(
        {"W": jnp.ones(2), "frozen": None}, transformation.init(params)._replace(count=jnp.int32(4)), params
    )
    assert updates["frozen"] is None
    assert state.states["v"]["frozen"]["b"].tolist() == [0, 0, 0]
    assert state.states["v"]["W"].tolist() == pytest.approx([-0.01, -0.01])


def test_a_copy_computes_the_same():
    transformation = optimizer(downslope.momentum)
    copied = copy.deepcopy({"transformation": transformation})["transformation"]
    assert_same(train(copied, PARAMS), train(transformation, PARAMS))


def test_its_state_is_one_that_tools_of_optax_understand():
    transformation = optimizer(downslope.nadam)
    state = transformation.init(PARAMS)
    assert isinstance(transformation, optax.GradientTransformationExtraArgs)
    assert_same(optax.tree_utils.tree_get(state, "n"), jax.tree.map(jnp.zeros_like, PARAMS))
    marked = optax.tree_map_params(
        transformation, lambda _: "weights", state, transform_non_params=lambda _: "one number"
    )
    assert marked.states["m"]["layer"] == {"W": "weights", "b": "weights"}
    assert (marked.count, marked.scalars) == ("one number", {"product": "one number"})


def test_a_look_ahead_that_reads_no_state():
    @downslope.rule
    def forward(x, dx, *, lr=0.5):
        return x - lr * dx

    @forward.lookahead
    def forward(lr):
        return 2 * lr

    transformation = optimizer(forward)
    params = jnp.ones(2)
    assert_same(downslope.optax.weights(transformation, params, transformation.init(params)), jnp.zeros(2))


class StatefulSchedule:
    """A schedule as `optax.inject_hyperparams` alone takes it."""

    def init(self):
        return 0

    def update(self, state, **extra_args):
        return state + 1

    def __call__(self, state, **extra_args):
        return 0.1


REFUSED = [
    (lambda: optimizer(downslope.adam, beta3=0.9), TypeError, "no hyperparameter 'beta3'.*did you mean beta2"),
    (lambda: optimizer(downslope.adam, beta3=lambda count: 0.9), TypeError, "no hyperparameter 'beta3'"),
    (lambda: optimizer(downslope.adam, lr=-0.1), ValueError, "lr=-0.1 is out of range"),
    (lambda: optimizer(downslope.adam, lr=jnp.float32(-1)), ValueError, "lr=-1.0 is out of range"),
    (lambda: optimizer(downslope.adam, lr=jnp.ones(2)), TypeError, r"lr is an array of shape \(2,\).*one number"),
    (lambda: optimizer(downslope.adam, lr="0.1"), TypeError, "lr='0.1' is a str"),
    (lambda: optimizer(downslope.adam, bias_correction=jnp.ones(())), TypeError, "takes True or False"),
    (lambda: optimizer(downslope.adam, decoupled=True), TypeError, "give weight_decay"),
    (lambda: optimizer(downslope.adam, cautious="yes"), TypeError, "cautious='yes': give True or False"),
    (lambda: optimizer(downslope.adam, max_norm=lambda count: 1.0), TypeError, "max_norm=.*give a number"),
    (lambda: optimizer(downslope.adam, lr=StatefulSchedule()), TypeError, "lr=.*is a schedule with a state"),
    (lambda: optimizer(downslope.adam, lookahead="none"), ValueError, "lookahead='none' is unknown"),
    (lambda: optimizer(downslope.dialects.optax.sgd), TypeError, "no default for lr"),
    (lambda: optimizer("adam"), TypeError, "is not a rule"),
    (lambda: downslope.optax.adam(None), TypeError, "learning_rate=None"),
    (lambda: downslope.optax.adam(0.1, b1=1.5), ValueError, "b1=1.5 is out of range"),
    (lambda: optimizer(downslope.nesterov, mu=jnp.float32(0.9)), TypeError, "mu is an array.*static_args"),
    (
        lambda: optax.inject_hyperparams(factory(downslope.nesterov))().init(jnp.ones(1)),
        TypeError,
        "mu is an array.*static_args",
    ),
    (lambda: optimizer(downslope.adam).init({"n": jnp.arange(3)}), TypeError, r"\['n'\] has dtype int32"),
    (lambda: optimizer(downslope.adam).init(jnp.ones(2, complex)), TypeError, "has dtype complex64"),
    (
        lambda: optimizer(downslope.sgd).update(jnp.arange(2), optimizer(downslope.sgd).init(jnp.ones(2))),
        TypeError,
        "a gradient has dtype int32",
    ),
    (
        lambda: optimizer(downslope.sgd).update(jnp.ones(2, complex), RuleState(0, {}, {}), jnp.ones(2)),
        TypeError,
        "a gradient has dtype complex64",
    ),
    (lambda: downslope.optax.adam(0.1, mu_dtype="int8"), TypeError, "'int8' as the dtype of mu"),
    (
        lambda: downslope.optax.adamw(0.1, mask="no").update(
            jnp.ones(2), downslope.optax.adamw(0.1).init(jnp.ones(2)), jnp.ones(2)
        ),
        TypeError,
        "mask: 'no' stands in it",
    ),
    (
        lambda: optimizer(downslope.adam).update(jnp.ones(2), optimizer(downslope.lion).init(jnp.ones(2))),
        TypeError,
        "is not one that init made for the rule adam",
    ),
    (
        lambda: optimizer(downslope.radam).update(jnp.ones(2), optimizer(downslope.adam).init(jnp.ones(2))),
        TypeError,
        "is not one that init made for the rule radam",
    ),
    (
        lambda: optimizer(downslope.adamw).update(jnp.ones(2), optimizer(downslope.adamw).init(jnp.ones(2))),
        ValueError,
        r"adamw with these options needs the weights: update\(gradients, state, params\)",
    ),
    (
        lambda: optimizer(downslope.sgd).update({"W": jnp.ones(3)}, RuleState(0, {}, {}), {"W": jnp.ones((3, 1))}),
        ValueError,
        r"a gradient of shape \(3,\) does not fit",
    ),
    (lambda: downslope.optax.average(optimizer(downslope.adam).init(jnp.ones(2))), ValueError, "0 averages"),
    (
        lambda: downslope.optax.weights(optax.adam(0.1), jnp.ones(2), optax.adam(0.1).init(jnp.ones(2))),
        TypeError,
        "is not one that downslope.optax made",
    ),
    (
        lambda: downslope.optax.weights(optimizer(downslope.nesterov), jnp.ones(2), ()),
        ValueError,
        "0 states of nesterov",
    ),
]


@pytest.mark.parametrize(("attempt", "kind", "message"), REFUSED)
def test_bad_input_is_refused_by_name(attempt, kind, message):
    with pytest.raises(kind, match=f"(?s){message}"):
        attempt()


def test_a_schedule_that_returns_what_cannot_be_is_refused():
    state = RuleState(jnp.int32(0), {}, {})
    with pytest.raises(TypeError, match=r"lr after 0 steps is an array of shape \(2,\)"):
        optimizer(downslope.sgd, lr=lambda count: jnp.ones(2)).update(jnp.ones(2), state)
    with pytest.raises(ValueError, match="lr=-1 is out of range"):
        optimizer(downslope.sgd, lr=lambda count: -1).update(jnp.ones(2), state)


MESH = """
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import NamedSharding, PartitionSpec as P
import downslope, downslope.optax

mesh = jax.make_mesh((2, 2), ("rows", "columns"))
kinds = {"W": NamedSharding(mesh, P("rows", "columns")), "b": NamedSharding(mesh, P("columns"))}
params = {"W": jnp.arange(32.0).reshape(4, 8), "b": jnp.ones(8)}
transformation = downslope.optax.optimizer(downslope.nadam, lr=0.1, weight_decay=0.1, max_norm=1.0, averaging=0.9)


traced = []


@jax.jit
def step(params, state):
    traced.append(1)
    updates, state = transformation.update(params, state, params)
    return optax.apply_updates(params, updates), state


def run(params):
    state = transformation.init(params)
    for _ in range(3):
        params, state = step(params, state)
    return params, state


def same_sharding(tree):
    return all(tree[name].sharding.is_equivalent_to(kinds[name], tree[name].ndim) for name in kinds)


alone, _ = run(params)
shared = jax.device_put(params, kinds)
start = transformation.init(shared)
assert all(same_sharding(tree) for tree in start.states.values()), "init"
found, state = run(shared)
assert all(same_sharding(tree) for tree in (found, *state.states.values())), "step"
assert traced == [1, 1], "one program for each layout"
for name in params:
    np.testing.assert_allclose(found[name], alone[name], rtol=1e-6)
print(len(jax.devices()), "devices")
"""


def test_on_a_mesh_states_are_sharded_like_their_weights():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    script = f"import os; os.environ.update({flags!r})\n{MESH}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "4 devices\n"


def test_without_jax_the_error_names_the_extra():
    script = "import sys; sys.modules['jax'] = None\nimport downslope.optax"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=900)
    assert 'ImportError: downslope.optax needs JAX and Optax: pip install "downslope[jax]"' in done.stderr

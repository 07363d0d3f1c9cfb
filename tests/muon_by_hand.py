"""A small network trained by Muon and AdamW, in double precision and with the formulas called as functions."""

import numpy as np

import downslope
from downslope.lab.engines.order import batch_order
from downslope.lab.problems.examples import examples_of

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(120, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
SIZES = ((4, 6), (6, 5), (5, 2))
EPOCHS, BATCH = 2, 16


def weights_of(seed):
    """Layer by layer a matrix of shape (inputs, outputs)."""
    draw = np.random.default_rng(seed)
    return [(draw.normal(size=size) / np.sqrt(size[0])).astype(np.float32) for size in SIZES]


def examples():
    return examples_of((X, Y), epochs=EPOCHS, batch_size=BATCH)


def _forward(weights, x):
    inputs = [x]
    for w in weights:
        inputs.append(np.tanh(inputs[-1] @ w) if w is not weights[-1] else inputs[-1] @ w)
    return inputs


def _loss(weights, rows):
    z = _forward(weights, np.float64(X[rows]))[-1]
    return np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(rows)), Y[rows]])


def _gradient(weights, rows):
    inputs = _forward(weights, np.float64(X[rows]))
    dz = np.exp(inputs[-1]) / np.exp(inputs[-1]).sum(1, keepdims=True)
    dz[np.arange(len(rows)), Y[rows]] -= 1
    dz /= len(rows)
    found = []
    for w, below in zip(weights[::-1], inputs[-2::-1], strict=True):
        found[:0] = [below.T @ dz]
        dz = (dz @ w.T) * (1 - below**2)
    return found


def losses_by_hand(seed, lr, *, ratio=1.0, outputs_first=True, **settings):
    """The validation losses before training and after every epoch.

    Args:
        seed: The seed of weights, split and batches.
        lr: Muon's learning rate.
        ratio: AdamW's over it.
        outputs_first: Whether rows of a matrix are outputs, as PyTorch has it.
        settings: Muon's.
    """
    weights = [np.float64(w) for w in weights_of(seed)]
    train, valid, _ = examples().split(0, seed)
    m, v, t = [0.0 * w for w in weights], [0.0 * w for w in weights], 0
    found = [_loss(weights, valid)]
    for epoch in range(1, EPOCHS + 1):
        for rows in train[batch_order(seed, epoch, len(train), BATCH)]:
            t += 1
            for k, (x, dx) in enumerate(zip(weights, _gradient(weights, rows), strict=True)):
                if k == 1:
                    turned = [a.T if outputs_first else a for a in (x, dx, m[k])]
                    new = downslope.muon(*turned, lr=lr, match_rms=True, **settings)
                    weights[k], m[k] = (a.T if outputs_first else a for a in new)
                else:
                    weights[k], m[k], v[k] = downslope.adamw(x, dx, m[k], v[k], t=t, lr=lr * ratio)
        found.append(_loss(weights, valid))
    return found

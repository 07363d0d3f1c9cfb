"""Pages for rules that go by a whole tensor: what they do to a matrix, in place of a walk of two weights."""

import inspect
import re

import numpy as np

import downslope
from downslope.language.spaces import COLUMN, ROW
from downslope.rules import edges, tensors


def turned(values, seed=0):
    """A matrix with these singular values, in no particular directions."""
    generator = np.random.default_rng(seed)
    left, right = (np.linalg.qr(generator.normal(size=(len(values),) * 2))[0] for _ in range(2))
    return left @ np.diag(values) @ right


def first_step(rule, x, dx, **settings):
    """How far a rule goes in its first step, per unit of its learning rate."""
    t = {"t": 1} if rule.uses_t else {}
    found = rule(x, dx, lr=1.0, **t, **settings)
    return x - (found[0] if isinstance(found, tuple) else found)


def table(head, rows):
    """Lines of a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def directions():
    """What becomes of the singular values of a gradient."""
    values = (1.0, 0.1, 0.01, 0.001)
    dx = turned(values)
    rows = []
    for rule in (downslope.sgd, downslope.adam, downslope.muon):
        step = np.linalg.svd(first_step(rule, np.zeros_like(dx), dx), compute_uv=False)
        rows.append([f"`{rule.name}`", *(f"{value:.3g}" for value in step), f"{step[0] / step[-1]:.4g}"])
    return f"""## What it does to a gradient, in numbers
A gradient whose slope is 1, 0.1, 0.01 and 0.001 in four directions (its singular values), and the first step of three
rules at a learning rate of 1, along its own four directions:

{table(["rule", "longest", "", "", "shortest", "ratio"], rows)}
Gradient descent goes a thousand times as far in the steepest direction as in the flattest. Adam's
signs are taken weight by weight, so that one direction may get nothing at all. Muon goes nearly as far in each.
"""


def layers(rule):
    """How far two layers go, of which one is large and hardly steep, and the other small and very steep."""
    large, small = turned((10.0,) * 4), turned((0.1,) * 4, seed=1)
    slopes = turned((1e-3,) * 4, seed=2), turned((100.0,) * 4, seed=3)
    rows = []
    for other in (downslope.sgd, downslope.adam, rule):
        shares = [
            np.linalg.norm(first_step(other, x, dx)) / np.linalg.norm(x)
            for x, dx in zip((large, small), slopes, strict=True)
        ]
        rows.append([f"`{other.name}`", *(f"{share:.4g}" for share in shares)])
    return f"""## What it does to two layers, in numbers
A large layer with a small gradient and a small layer with a large one, and how long the first step is as a share of
the layer's own length, at a learning rate of 1:

{table(["rule", "large and hardly steep", "small and steep"], rows)}
"""


def without_words(function):
    """The lines of a function, without its docstring."""
    return re.sub(r'    """.*?"""\n', "", inspect.getsource(function), flags=re.DOTALL)


def narrow(rule):
    """What is remembered of rows and columns."""
    said = {ROW: "row", COLUMN: "column"}
    return "".join(f", and 4 for each {said[space]} of a matrix (`{name}`)" for name, space in rule.spaces.items())


def page(rule, prose):
    """The whole page of such a rule."""
    printed = f"$$\n{rule.latex()}\n$$\n"
    written = without_words(rule.function)
    shared = [part for part in (tensors._adam, tensors.orthogonal, edges.rms) if f"{part.__name__}(" in written]
    body = "\n\n".join(without_words(part).strip() for part in (rule.function, *shared))
    kept = ", ".join(f"`{name}`" for name in rule.states)
    size = 4 * (len(rule.states) - len(rule.spaces))
    rows = [[f"`{name}`", f"{value:.6g}"] for name, value in rule.hyperparameters.items()]
    rows += [[f"`{name}`", value] for name, value in rule.flags.items()]
    shown = directions() if rule is downslope.muon else layers(rule)
    return f"""# {rule.name}

**{rule.intuition}**

{prose.get(rule.name, "")}
{shown}
## The formula
{printed}
`x` are the weights of one layer, as a matrix, `dx` the gradient of the loss at them; `norm` is
the root of the sum of all squares, `@` the product of matrices.

```python
{body.strip()}
```

## What it remembers
{kept}: {size} bytes per weight in float32{narrow(rule)}. It is computed array by array, without a
kernel of its own.

## Defaults
{table(["", "default"], rows)}
[What frameworks make of it](../../dialects.md).

## Use it
```python
downslope.Optimizer(weights, downslope.{rule.name})  # NumPy
downslope.torch.Optimizer(matrices, downslope.{rule.name})  # PyTorch
downslope.keras.Optimizer(downslope.{rule.name})  # Keras
downslope.optax.optimizer(downslope.{rule.name})  # Optax
```
With other rules for other layers in one network: [PyTorch](../../torch.md#rules-over-whole-tensors-lars-lamb-muon).

## Source
{rule.source}
"""

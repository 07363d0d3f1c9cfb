"""Pages for rules that go by a whole tensor: what they do to a matrix, in place of a walk of two weights."""

import functools
from dataclasses import replace

import matrix_pictures
import numpy as np
import shown
from shown import table, use

import downslope
from downslope.language.options import compose
from downslope.language.spaces import COLUMN, PAIR_OF_COLUMNS, PAIR_OF_ROWS, ROW
from downslope.targets.formula import text
from downslope.targets.latex import latex
from downslope.targets.passes import compiles, planned
from downslope.targets.shapes import settled


def turned(values, seed=0):
    """A matrix with these singular values, in no particular directions."""
    generator = np.random.default_rng(seed)
    left, right = (np.linalg.qr(generator.normal(size=(len(values),) * 2))[0] for _ in range(2))
    return left @ np.diag(values) @ right


def first_step(rule, x, dx, **settings):
    """How far a rule goes in its first step that moves, per unit of its learning rate."""
    states = ()
    for t in (1, 2):  # SOAP's first one only looks
        found = rule(x, dx, *states, lr=1.0, **({"t": t} if rule.uses_t else {}), **settings)
        new, *states = found if isinstance(found, tuple) else (found,)
        if (new != x).any():
            break
    return x - new


def directions(say):
    """What becomes of the singular values of a gradient."""
    values = (1.0, 0.1, 0.01, 0.001)
    dx = turned(values)
    rows = []
    for rule in (downslope.sgd, downslope.adam, downslope.muon):
        step = np.linalg.svd(first_step(rule, np.zeros_like(dx), dx), compute_uv=False)
        rows.append([f"`{rule.name}`", *(f"{value:.3g}" for value in step), f"{step[0] / step[-1]:.4g}"])
    before = say(
        "A gradient whose slope is 1, 0.1, 0.01 and 0.001 in four directions (its singular values), and the first step"
        " of three rules at a learning rate of 1, along its own four directions:"
    )
    after = say(
        "Gradient descent goes a thousand times as far in the steepest direction as in the flattest. Adam's signs are"
        " taken weight by weight, so that one direction may get nothing at all. Muon goes nearly as far in each."
    )
    return f"""## {say("What it does to a gradient, in numbers")}
{before}

{table([say("rule"), say("longest"), say("second"), say("third"), say("shortest"), say("ratio")], rows)}
{after}
"""


def layers(rule, say):
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
    before = say(
        "A large layer with a small gradient and a small layer with a large one, and how long the first step is as a"
        " share of the layer's own length, at a learning rate of 1:"
    )
    return f"""## {say("What it does to two layers, in numbers")}
{before}

{table([say("rule"), say("large and hardly steep"), say("small and steep")], rows)}
"""


@functools.cache
def left(rule, noise, max_norm, steps=300):
    """How much of the loss a rule without a learning rate leaves, down a valley of 100 weights."""
    generator, curvature = np.random.default_rng(0), np.logspace(-2, 0, 100)
    weights = {"x": np.ones(100)}
    optimizer = downslope.Optimizer(weights, rule, lr=1.0, max_norm=max_norm)
    for _ in range(steps):
        optimizer.step({"x": curvature * weights["x"] + noise * generator.normal(size=100)})
    return curvature @ weights["x"] ** 2 / curvature.sum()


def guesses(say):
    """What noise and clipping do to rules that guess the distance."""
    kinds = ((0, None), (0, 0.1), (0.1, None))
    rules = (downslope.d_adapt_adam, downslope.prodigy)
    rows = [[f"`{rule.name}`", *(f"{left(rule, *kind):.1g}" for kind in kinds)] for rule in rules]
    before = say(
        "Down a valley of 100 weights, curved 0.01 to 1, from 1 in all of them and with `lr=1`, this share of the loss"
        " is left after 300 steps:"
    )
    head = [say("rule"), say("slopes as they are"), say("clipped to a norm of 0.1"), say("with noise of 0.1 in each")]
    return f"""## {say("What it does to noisy slopes, in numbers")}
{before}

{table(head, rows)}
"""


def picture(rule, folder, say):
    """Draw the rule beside gradient descent and Adam, and say what is seen."""
    drawing = folder / f"{rule.name}.png"
    if say.is_english or not drawing.exists():
        drawing.write_bytes(matrix_pictures.picture(rule))
    told = []
    for other in matrix_pictures.beside(rule):
        lr, losses = matrix_pictures.best(other)
        left = f"{losses[-1] / losses[0]:.2g}"
        told.append(say("{name} at {lr} leaves {left} of the loss", name=f"`{other.name}`", lr=f"{lr:.2g}", left=left))
    seen = say(
        "Left: how long the first step is in each of its eight directions (its singular values), as a share of the"
        " longest. Right: down a valley of 8 by 8 weights, curved up to 10,000 times as much in one direction as in"
        " another, each rule at the best of 61 learning rates, which stay as they are: after 100 steps {told}. No"
        " network is such a valley; what a rule is worth for yours, a [race](../../race.md) tells.",
        told=say.semicolon.join(told),
    )
    return f"""![{say("The first step of {name} by its directions, and its loss", name=rule.name)}]({drawing.name})

{seen}
"""


def narrow(program, say):
    """What is remembered of rows and columns."""
    told = {
        ROW: say(", and 4 for each row of a matrix ({name})"),
        COLUMN: say(", and 4 for each column of a matrix ({name})"),
        PAIR_OF_ROWS: say(", and 4 for each pair of rows of a matrix ({name})"),
        PAIR_OF_COLUMNS: say(", and 4 for each pair of columns of a matrix ({name})"),
    }
    return "".join(told[program.spaces[name]].format(name=f"`{name}`") for name in program.narrow)


def formulas(rule, program, say):
    """The formula; where it has matrices for the sides of a tensor, as it is for a matrix, for each kind of step.

    Such a rule decides by conditions of which at most one holds in a step.
    """
    if not any(space.is_square for space in program.spaces.values()):
        return f"$$\n{rule.latex()}\n$$"
    shown = [say("Of a matrix of at most 10,000 rows and columns:")]
    count = len(program.conditions)
    for holds in (None, *reversed(range(count))):
        if holds is not None:
            name = f"`{program.names.get(program.conditions[holds], text(program.conditions[holds]))}`"
            shown.append(say("In steps in which {condition}:", condition=name))
        elif count:
            shown.append(say("In most steps:"))
        decided = settled(program, (1024, 1024), tuple(k == holds for k in range(count)))
        shown.append(f"$$\n{latex(replace(decided, scalar_outputs={}, scalar_states={}))}\n$$")
    return "\n\n".join(shown)


def in_numbers(rule, say):
    """What the rule does that others do not."""
    if rule is downslope.muon:
        return directions(say)
    return guesses(say) if rule in (downslope.d_adapt_adam, downslope.prodigy) else layers(rule, say)


def page(rule, prose, folder, say):
    """The whole page of such a rule."""
    program = compose(rule)
    kept = say.comma.join(f"`{name}`" for name in program.states)
    rows = [[f"`{name}`", f"{value:.6g}"] for name, value in rule.hyperparameters.items()]
    rows += [[f"`{name}`", value] for name, value in rule.flags.items()]
    symbols = say(
        "`x` are the weights of one layer, as a matrix, `dx` the gradient of the loss at them; `norm` is the root of"
        " the sum of all squares."
    )
    if any(e.op == "product" for e in program.expressions):
        symbols += say.blank + say(
            "Two matrices side by side, in Python with `@` between them, are multiplied as matrices; ⊙, squares, roots"
            " and quotients are of each entry."
        )
    else:
        symbols += say.blank + say("Products, squares, roots and quotients are of each entry.")
    told = {"states": kept, "size": 4 * (len(program.states) - len(program.narrow)), "narrow": narrow(program, say)}
    if compiles(program):
        remembered = say(
            "{states}: {size} bytes per weight in float32{narrow}. In NumPy and PyTorch it has a kernel of its own on"
            " the CPU, which goes through memory {passes} times.",
            passes=len(planned(program, program.arrays).passes),
            **told,
        )
    else:
        remembered = say(
            "{states}: {size} bytes per weight in float32{narrow}. It is computed array by array, without a kernel of"
            " its own.",
            **told,
        )
    others = say(
        "With other rules for other layers in one network:"
        " [PyTorch](../../torch.md#rules-over-whole-tensors-lars-lamb-muon)."
    )
    return f"""# {rule.name}

**{say(rule.intuition)}**

{picture(rule, folder, say)}
{say.page(prose.get(rule.name, ""))}
{in_numbers(rule, say)}
## {say("The formula")}
{formulas(rule, program, say)}

{symbols}

```python
{shown.formula(rule)}
```

## {say("What it remembers")}
{remembered}

## {say("Defaults")}
{table([say("hyperparameter"), say("default")], rows)}
{say("[What frameworks make of it](../../dialects.md).")}

## {say("Use it")}
{use(rule, "matrices")}
{others}

## {say("Source")}
{rule.source}
"""

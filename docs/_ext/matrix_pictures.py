"""What a rule that goes by a whole tensor does to a matrix, drawn: the directions of its step, and its way down."""

import functools
import io

import numpy as np
from matplotlib.figure import Figure

import downslope
from downslope.walks.pictures import COLOURS, INK, MARKERS, MUTED

SIZE, STEPS = 8, 100
RATES = np.geomspace(1e-3, 1e3, 61)


@functools.cache
def valley():
    """A valley of matrices: what the loss is multiplied by on either side, where it is lowest, and where he starts.

    Curvatures go from 0.01 to 1 on each side, so the steepest is 10,000 times the flattest, along no axis.
    """
    generator = np.random.default_rng(0)

    def side():
        turned = np.linalg.qr(generator.normal(size=(SIZE, SIZE)))[0]
        return turned @ np.diag(np.geomspace(1, 0.01, SIZE)) @ turned.T

    return side(), side(), generator.normal(size=(SIZE, SIZE)), generator.normal(size=(SIZE, SIZE))


def gradient(x):
    """The gradient at a matrix of weights."""
    left, right, lowest, _ = valley()
    return left @ (x - lowest) @ right


def loss(x):
    """The loss there."""
    return 0.5 * float(np.sum((x - valley()[2]) * gradient(x)))


def descended(rule, lr, steps=STEPS):
    """The losses on the way, from the start on, and the last step."""
    x, states, losses = valley()[3], (), [loss(valley()[3])]
    for t in range(1, steps + 1):
        before, clock = x, {"t": t} if rule.uses_t else {}
        found = rule(x, gradient(x), *states, lr=lr, **clock)
        x, *states = found if isinstance(found, tuple) else (found,)
        losses.append(loss(x))
        if not np.isfinite(losses[-1]) or losses[-1] > 10 * losses[0]:
            return np.array([*losses[:-1], *[np.inf] * (steps - t + 1)]), x - before
    return np.array(losses), x - before


@functools.cache
def best(rule):
    """The learning rate with which least of the loss is left, of those tried, and the losses on that way."""
    with np.errstate(all="ignore"):
        ways = {float(lr): descended(rule, float(lr))[0] for lr in RATES}
    lr = min(ways, key=lambda lr: ways[lr][-1])
    return lr, ways[lr]


@functools.cache
def directions(rule):
    """How long the first step is in each of its directions, as a share of the longest; the first that moves."""
    steps = (descended(rule, 1e-3, steps)[1] for steps in (1, 2))  # SOAP's first one only looks
    values = np.linalg.svd(next(step for step in steps if step.any()), compute_uv=False)
    return values / values[0]


def beside(rule):
    """Whom it is drawn beside."""
    return [*(other for other in (downslope.sgd, downslope.adam) if other is not rule), rule]


def picture(rule):
    """The picture, as PNG."""
    figure = Figure(figsize=(9, 3.9), dpi=80, layout="constrained", facecolor="white")
    across, down = figure.subplots(1, 2, width_ratios=(1, 1.35))
    titles = "the first step, in each of its directions", "loss, share of that at the start"
    for axes, title in zip((across, down), titles, strict=True):
        axes.set_title(title, fontsize=9.5, color=INK, loc="left")
        axes.grid(axis="y", color="#ebe8e1", linewidth=0.8)
        axes.tick_params(colors=MUTED, labelsize=8, length=0)
        for side in axes.spines.values():
            side.set_visible(False)
    for k, other in enumerate(beside(rule)):
        lr, losses = best(other)
        drawn = {"color": COLOURS[k], "marker": MARKERS[k], "markersize": 5, "linewidth": 1.6}
        across.plot(range(1, SIZE + 1), directions(other), **drawn)
        down.plot(losses / losses[0], label=f"{other.name}, {lr:.2g}", markevery=20, **drawn)
    across.set_ylim(-0.03, 1.06)
    down.set_yscale("log")
    across.set_xlabel("direction, from the longest to the shortest", fontsize=8.5, color=MUTED)
    down.set_xlabel("step", fontsize=8.5, color=MUTED)
    title, small = "rule, best learning rate here", {"fontsize": 8.5, "title_fontsize": 8.5}
    figure.legend(loc="outside lower center", ncols=3, frameon=False, title=title, **small)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()

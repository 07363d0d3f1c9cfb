"""Rules that follow the gradient itself, with or without inertia."""

from downslope.rule import rule

__all__ = ["sgd", "momentum", "nesterov"]


@rule
def sgd(x, dx, *, lr=1e-2):
    """A drunk man walks home in zigzags: each step goes straight down the slope he happens to feel.

    Source: Robbins & Monro, "A stochastic approximation method", 1951.
    """
    return x - lr * dx


@rule
def momentum(x, dx, v=0, *, lr=1e-2, mu=0.9):
    """He gathers inertia: what his steps have in common adds up, and what zigzags does not.

    Source: Polyak, "Some methods of speeding up the convergence of iteration methods", 1964; in the form of the
    CS231n notes, with the learning rate inside the velocity.
    """
    v = mu * v - lr * dx
    return x + v, v


@rule
def nesterov(x, dx, v=0, *, lr=1e-2, mu=0.9):
    """He looks where inertia alone is about to carry him, and corrects his step by the slope there.

    Source: Nesterov, "A method of solving a convex programming problem with convergence rate O(1/k^2)", 1983;
    Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013.
    """
    v = mu * v - lr * dx
    return x + v, v


@nesterov.lookahead
def nesterov(v, *, mu):
    """How far ahead of `x` the gradient is taken: where the velocity alone would lead."""
    return mu * v

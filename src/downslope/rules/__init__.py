"""The rules in their textbook form: `x` are the weights, `dx` the gradient of the loss at them.

The notation is that of the CS231n course notes. One picture runs through the intuitions: a drunk man on his way home.
"""

from downslope.rules.adaptive import adagrad, adam, rmsprop
from downslope.rules.gradient import momentum, nesterov, sgd

TEXTBOOK = (sgd, momentum, nesterov, adagrad, rmsprop, adam)
"""The rules in the order in which they are best learned."""

__all__ = ["adagrad", "adam", "momentum", "nesterov", "rmsprop", "sgd"]

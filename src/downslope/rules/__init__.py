"""The rules in their textbook form: `x` are the weights, `dx` the gradient of the loss at them.

The notation is that of the CS231n course notes. One picture runs through the intuitions: a drunk man on his way home.
It is often told so: momentum puts him on a slope, Adagrad gives him shoes that hurt when he strays, RMSprop is half the
slope and half the shoes, Adam is both. The formulas say less, and more:

- The slope is there from the beginning, in `sgd`. What momentum adds is inertia.
- Adagrad's shoes do not know what is astray. They add up the squares of all slopes of a weight, those that lead home
  too, and never forget, so that the same slope moves him less and less. If he walks straighter, it is because the
  steep directions are the ones in which he zigzags.
- RMSprop is not half of both: it has no inertia at all, and with a gradient of 0 it stands still. It is Adagrad with a
  mean that fades in place of the sum.
- Adam is both, but its inertia is a mean of the gradients, not a velocity, and its shoes are RMSprop's, not Adagrad's;
  the bias correction makes up for both having started from 0.
- Nesterov looks ahead and feels the slope there. NAdam does not: it feels the slope where it stands, and uses the next
  step's inertia.
"""

from downslope.rules import (
    adaptive,
    bases,
    descendants,
    distances,
    edges,
    gradient,
    primal_averaging,
    schedule_free,
    tensors,
)
from downslope.rules.adaptive import *
from downslope.rules.bases import *
from downslope.rules.descendants import *
from downslope.rules.distances import *
from downslope.rules.edges import *
from downslope.rules.gradient import *
from downslope.rules.primal_averaging import *
from downslope.rules.schedule_free import *
from downslope.rules.tensors import *

__all__: list[str] = []
__all__ += gradient.__all__
__all__ += adaptive.__all__
__all__ += descendants.__all__
__all__ += schedule_free.__all__
__all__ += primal_averaging.__all__
__all__ += tensors.__all__
__all__ += edges.__all__
__all__ += bases.__all__
__all__ += distances.__all__

TEXTBOOK = tuple(getattr(module, name) for module in (gradient, adaptive) for name in module.__all__)
"""The rules in the order in which they are best learned."""

DESCENDANTS = tuple(getattr(descendants, name) for name in descendants.__all__)
"""What grew out of Adagrad and Adam, in the order of publication."""

SCHEDULE_FREE = tuple(getattr(schedule_free, name) for name in schedule_free.__all__)
"""The rules that average instead of following a schedule of the learning rate."""

PRIMAL_AVERAGING = tuple(getattr(primal_averaging, name) for name in primal_averaging.__all__)
"""The rules that train between where their steps go and a fading average of that."""

OVER_TENSORS = tuple(getattr(module, name) for module in (tensors, edges, bases, distances) for name in module.__all__)
"""The rules that go by a whole tensor; then those that remember its rows and columns, and pairs of these; last those
that go by all tensors of a group."""

RULES = (*TEXTBOOK, *DESCENDANTS, *SCHEDULE_FREE, *PRIMAL_AVERAGING)
"""Every rule that treats each weight by itself."""

"""The textbook form, that of the CS231n course notes: the rules of `downslope.rules` themselves.

Here `momentum` and `nesterov` are rules of their own, where the frameworks have one rule with a choice, and `nesterov`
declares the point ahead at which its gradient is taken.
"""

from downslope.dialects.spelling import Dialect, Spelling
from downslope.rules import OVER_TENSORS, RULES, adagrad, adam, momentum, nesterov, rmsprop, sgd

__all__ = ["adagrad", "adam", "momentum", "nesterov", "rmsprop", "sgd"]

DIALECT = Dialect(
    framework="downslope",
    imports="import downslope",
    spellings=tuple(Spelling(f"downslope.{rule.name}", rule) for rule in (*RULES, *OVER_TENSORS)),
)
"""How downslope writes the rules, the descendants of the textbook's included."""

"""downslope: an update rule is written once, as its formula; everything else is derived from it."""

from downslope.expression import FormulaError, exp, log, maximum, minimum, sign, sqrt, tanh, where
from downslope.formula import Rule, rule, scalar
from downslope.rules import adagrad, adam, momentum, nesterov, rmsprop, sgd

__version__ = "0.1.0"

__all__ = [
    "FormulaError",
    "Rule",
    "adagrad",
    "adam",
    "exp",
    "log",
    "maximum",
    "minimum",
    "momentum",
    "nesterov",
    "rmsprop",
    "rule",
    "scalar",
    "sgd",
    "sign",
    "sqrt",
    "tanh",
    "where",
]

"""The exact forms that frameworks give the rules, under the frameworks' own names and defaults.

Two people who both write "RMSprop" train with different formulas. Each module here holds one framework's, to be tested
against the framework itself; `note` is the textbook form.

What is the same rule has the same name in every framework's dialect (`sgd_momentum`, `rmsprop_momentum`, `nadam`, ...).
States and hyperparameters are named as the framework names them, except for the hyperparameters that all of them have,
each under a name of its own: `lr`, `momentum`, `beta1`, `beta2`, `eps` and `nesterov` are called so throughout. A value
that a framework demands has no default here either.
"""

from downslope.dialects import keras, note, optax, tf1, torch
from downslope.dialects.spelling import Dialect, Spelling
from downslope.rule import Rule

DIALECTS: dict[str, Dialect] = {
    "note": note.DIALECT,
    "torch": torch.DIALECT,
    "keras": keras.DIALECT,
    "tf1": tf1.DIALECT,
    "optax": optax.DIALECT,
}
"""Every dialect by its name."""

ALSO_CALLED = (
    {"momentum", "nesterov", "sgd_momentum"},
    {"adam", "adamw", "amsgrad"},
)
"""Rules that one dialect has under several names and another under one name with a choice."""

SAME_NUMBER = (
    {"eps", "eps1", "epsilon_1"},
    {"eps2", "epsilon_2"},
    {"clip", "clip_threshold", "clipping_threshold", "d"},
)
"""Hyperparameters that are the same one in the rules of one name, and called otherwise."""

SQUARED = ((torch.adafactor, "eps1"),)
"""Hyperparameters whose square is what the rules of this name have under that name or another of `SAME_NUMBER`."""


def dialect_of(rule: Rule) -> str | None:
    """The dialect that a rule is of; None for a rule of your own."""
    return next((name for name, dialect in DIALECTS.items() if rule in dialect.rules.values()), None)


def full_name(rule: Rule) -> str:
    """What a rule is called beside those of other frameworks: `adam` is the textbook's, or one of your own.

    Example:
        >>> from downslope import dialects
        >>> full_name(dialects.note.adam), full_name(dialects.keras.adam)
        ('adam', 'keras.adam')
    """
    dialect = dialect_of(rule)
    return rule.name if dialect in (None, "note") else f"{dialect}.{rule.name}"


__all__ = [
    "ALSO_CALLED",
    "DIALECTS",
    "SAME_NUMBER",
    "SQUARED",
    "Dialect",
    "Spelling",
    "dialect_of",
    "full_name",
    "keras",
    "note",
    "optax",
    "tf1",
    "torch",
]

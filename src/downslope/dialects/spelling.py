"""How a framework writes its optimizers: the names of classes or functions and of their arguments, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from downslope.rule import Rule


@dataclass(frozen=True)
class Spelling:
    """One way in which a framework writes a rule.

    Attributes:
        call: The class or function, as in the framework's own code.
        rule: The rule it computes.
        defaults: The framework's defaults of arguments for which the rule's own are others, or that the rule has not.
        fixed: What the name settles by itself, or together with these words.
        words: Arguments that are words, and settle what is fixed.
        decay: What the framework's argument `weight_decay` does; empty where there is none, or where it is a
            hyperparameter of the rule.
        lacks: The options of the framework that this class has not.
    """

    call: str
    rule: Rule
    defaults: Mapping[str, float] = field(default_factory=dict)
    fixed: Mapping[str, bool] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    decay: Literal["", "coupled", "decoupled"] = ""
    lacks: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The name without its modules."""
        return self.call.rpartition(".")[2]

    def default(self, setting: str) -> Any:
        """The framework's default of a hyperparameter, flag or `weight_decay`; None where it must be given."""
        known: dict[str, Any] = {**self.rule.hyperparameters, **self.rule.flags}
        if self.decay:
            known["weight_decay"] = 0.0
        return {**known, **self.defaults, **self.fixed}[setting]


@dataclass(frozen=True)
class Dialect:
    """A framework, and how it writes its optimizers.

    Attributes:
        framework: What people call it.
        imports: The line of code that makes the names in `Spelling.call` known.
        spellings: All ways to write a rule; where two have one name, that with a `momentum` is meant if it is not 0.
        arguments: The framework's name of each hyperparameter, flag or option that has another one here.
        pairs: The arguments of the framework that hold several hyperparameters.
        options: The options of every optimizer that the framework has too.
        first: What stands before the settings in a call.
        coupled: How a weight decay that is added to the gradient is put around a call that has no argument for it.
        uphill: How walking up is put around a call, where it is not an argument.
    """

    framework: str
    imports: str
    spellings: Sequence[Spelling]
    arguments: Mapping[str, str] = field(default_factory=dict)
    pairs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    options: frozenset[str] = frozenset()
    first: str = ""
    coupled: str = ""
    uphill: str = ""

    @property
    def rules(self) -> dict[str, Rule]:
        """The rules by their names here."""
        return {spelling.rule.name: spelling.rule for spelling in self.spellings}

    def named(self, name: str) -> list[Spelling]:
        """The spellings that a person may mean: of the class or function of this name, else of the rule.

        Args:
            name: In large or small letters, with or without its modules, and without `Optimizer` at its end too.
        """
        wanted = name.lower().rpartition(".")[2]
        found = [s for s in self.spellings if wanted in (s.name.lower(), s.name.lower().removesuffix("optimizer"))]
        return found or [s for s in self.spellings if s.rule.name == wanted][:1]

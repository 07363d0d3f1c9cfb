"""What the options in a parameter group come to: a rule, the program around it, and its numbers."""

from __future__ import annotations

import difflib
import functools
import operator
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch.optim import optimizer as torch_optimizer

from downslope.language.program import Program
from downslope.language.ranges import Range, check_number
from downslope.rule import Rule
from downslope.torch.pieces import WHOLE, Pieces
from downslope.training.settings import Settings, without

Group = dict[str, Any]

PLACED = "placed_by"
"""The entry of a parameter group that tells by which hyperparameters its points ahead were placed."""

CARRIED = ("foreach", "fused", "capturable", "differentiable")
"""What `torch.optim` groups hold besides: which of its own implementations to run. downslope has one."""

_NO_SETTING = {"params", "param_names", PLACED, *CARRIED} - {"capturable"}


@dataclass(frozen=True)
class Shared:
    """What holds for a whole optimizer.

    Attributes:
        options: The names of the options around every rule; `weight_decay` is among them only if it is not the rule's.
        max_norm: The largest permitted norm of all gradients together, or None.
        stored_ahead: Whether parameters hold the point ahead, for a rule with a look-ahead.
    """

    options: frozenset[str] = frozenset()
    max_norm: float | None = None
    stored_ahead: bool = True

    @functools.lru_cache(maxsize=256)  # noqa: B019, an optimizer has one of these or two, and asks at every change
    def around(self, rule: Rule, flags: frozenset[tuple[str, bool]], maximize: bool, scaled: bool) -> Settings:
        """A rule with everything that is around it.

        Args:
            rule: The formula.
            flags: The choices among its formulas.
            maximize: Whether to walk up.
            scaled: Whether gradients are multiplied by a scale, for clipping or because they come scaled.
        """
        besides = {name for name, on in (("max_norm", scaled), ("maximize", maximize)) if on}
        options = without(self.options, {*rule.hyperparameters, *rule.flags}) | besides
        return Settings(rule, flags, options, self.stored_ahead and rule.ahead is not None)

    def with_decay(self) -> Shared:
        """The same with the option `weight_decay`."""
        return replace(self, options=self.options | {"weight_decay"})


@dataclass(frozen=True, eq=False)
class GroupSettings:
    """A group's settings, read and checked.

    Attributes:
        chosen: The rule with everything around it.
        program: The same, read.
        numbers: The hyperparameters by name; 0 in the place of those that are read where a GPU has them.
        tensors: These: each a tensor of one element, by name.
        capturable: Whether a CUDA graph may record the steps.
        pieces: How parameters are divided into matrices.
    """

    chosen: Settings
    program: Program
    numbers: Mapping[str, float]
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    capturable: bool = False
    pieces: Pieces = WHOLE

    @property
    def rule(self) -> Rule:
        """The rule."""
        return self.chosen.rule

    def asks_for_the_same(self, other: GroupSettings) -> bool:
        """Whether what is laid out with these settings can take over other ones."""
        same = self.program is other.program and self.capturable is other.capturable
        return same and self.pieces == other.pieces

    def says_the_same(self, other: GroupSettings) -> bool:
        """Whether other settings come to the same, with the very same tensors."""
        if self.numbers != other.numbers or not self.asks_for_the_same(other):
            return False
        mine, theirs = self.tensors, other.tensors
        return mine.keys() == theirs.keys() and all(tensor is theirs[name] for name, tensor in mine.items())

    def looked_at(self) -> GroupSettings:
        """The same with all hyperparameters as numbers, for which the host waits.

        Raises:
            ValueError: One is out of range.
        """
        if not self.tensors:
            return self
        read = {name: checked(name, tensor, self.program.ranges[name]) for name, tensor in self.tensors.items()}
        return replace(self, numbers={**self.numbers, **read})


class Reader:
    """Reads a parameter group, and works out only what has changed.

    It is asked at every step but for those in which a watch sees that nothing has (`downslope.torch.quick`).

    Whoever uses the settings keeps those he has used; the reader only answers what the group comes to now.

    Attributes:
        fixed: Whether no entry of the group can become another one in place, as a tensor or a list can; where one can,
            every step is a plain one, which reads all settings again.
    """

    def __init__(self, group: Group, choose: Callable[[Group], Rule], options: Shared, scaled: bool):
        self._choose, self._options, self._scaled = choose, options, scaled
        self._settings = settle(group, choose(group), options, scaled)
        self._look(group)

    def _look(self, group: Group) -> None:
        """Remember the entries by which the settings were read."""
        names = tuple(group)
        keys = [key for key in names if key not in _NO_SETTING]
        entries: Callable[[Group], Any] = operator.itemgetter(*keys, "params")

        def pick(group: Group) -> Any:
            return entries(group)[:-1] if tuple(group) == names else None

        self._pick = pick
        seen = self._pick(group)
        flat = [part for value in seen for part in (value if isinstance(value, tuple) else [value])]
        self.fixed = all(value is None or isinstance(value, (int, float, str, np.generic, Rule)) for value in flat)
        self._seen = seen

    def read(self, group: Group) -> GroupSettings:
        """What the group comes to now: the very same settings as long as nothing has changed.

        Raises:
            TypeError: A setting is missing or of the wrong kind.
            ValueError: A setting is out of range.
        """
        if self.fixed and alike(self._pick(group), self._seen):
            return self._settings
        settings = settle(group, self._choose(group), self._options, self._scaled)
        if not settings.says_the_same(self._settings):
            self._settings = settings
        self._look(group)
        return self._settings


def alike(seen: Any, before: Any) -> bool:
    """Whether a group's entries are those of before, types included: as NumPy has it, float32(0) == 1e-97."""
    try:
        return bool(seen == before) and _types(seen) == _types(before)
    except (ValueError, RuntimeError):  # an array or a tensor of several elements has been put where a number was
        return False


def _types(entries: Iterable[Any]) -> list[Any]:
    return [_types(entry) if type(entry) is tuple else type(entry) for entry in entries]


def check_carried(group: Group, rule: Rule) -> None:
    """Make sure that nothing is missing in a group, and that what it carries for `torch.optim` is possible.

    Raises:
        TypeError: A setting is missing or of the wrong kind.
        ValueError: Settings exclude each other, or are not possible here.
    """
    for name, value in group.items():
        if value is torch_optimizer.required:
            raise TypeError(f"{rule.name} has no default for {name}; give {name}=...")
    if group.get("differentiable"):
        raise ValueError(
            "differentiable=True is not possible: the step is compiled code outside of PyTorch's graphs; leave it out"
        )
    for name in ("foreach", "fused", "capturable"):
        if not isinstance(group.get(name), (bool, NoneType)):
            raise TypeError(f"{name}={group[name]!r}: give True, False or None")
    if group.get("foreach") and group.get("fused"):
        raise ValueError("foreach=True and fused=True exclude each other in torch.optim; give one or neither")


def in_main_memory(tensor: torch.Tensor) -> bool:
    """Whether a tensor is where the host computes."""
    return tensor.device.type == "cpu"


def recorded(group: Group) -> bool:
    """Whether a CUDA graph may record the steps of a group: it is `capturable`, and its parameters are on GPUs.

    With parameters in main memory `capturable` is refused where a group is given, and later on means nothing:
    `torch.compile` itself writes it into groups that are written to in code it has compiled.
    """
    return bool(group.get("capturable")) and not any(map(in_main_memory, _members(group)))


def refuse_capturable(group: Group) -> None:
    """Refuse a group that asks for steps which a graph records where there is none.

    Raises:
        ValueError: It does.
    """
    if group.get("capturable") and (places := [p.device for p in _members(group) if in_main_memory(p)]):
        raise ValueError(
            f"capturable=True is not possible for parameters on {places[0]}: it is for CUDA graphs, which record what "
            "a GPU is given and not what the host computes. Leave it out; in torch.compile a step needs nothing of it"
        )


def _members(group: Group) -> list[torch.Tensor]:
    """The parameters of a group, whose names may stand beside them."""
    entries = group["params"] if isinstance(group["params"], list) else [group["params"]]
    return [entry[1] if isinstance(entry, tuple) else entry for entry in entries]


def settle(group: Group, rule: Rule, options: Shared, scaled: bool) -> GroupSettings:
    """Read a group.

    Raises:
        TypeError: A setting is missing or of the wrong kind.
        ValueError: A setting is out of range.
        FormulaError: The rule cannot be compiled, or an option does not fit it.
    """
    flags = frozenset((name, rule.checked(name, _plain(look_up(group, name, rule)))) for name in rule.flags)
    maximize = _yes("maximize", group.get("maximize", False))
    chosen = options.around(rule, flags, maximize, scaled)
    program = chosen.program
    capturable = recorded(group)
    tensors = _held(group, chosen) if capturable else {}
    numbers = {
        name: 0.0
        if name in tensors
        else checked(_spelled(group, name), look_up(group, name, rule), program.ranges[name])
        for name in program.hyperparameters
    }
    return GroupSettings(chosen, program, numbers, tensors, capturable, Pieces.of(group, program))


def _held(group: Group, chosen: Settings) -> dict[str, torch.Tensor]:
    """The hyperparameters that are read where a GPU has them.

    Raises:
        ValueError: One has several elements, or the host has to know it.
    """
    program, ahead = chosen.program, chosen.ahead
    values = {name: look_up(group, name, chosen.rule) for name in program.hyperparameters}
    known = {*program.states.values()} | ({*ahead.scalars} if ahead is not None else set())
    held = {name: v for name, v in values.items() if isinstance(v, torch.Tensor) and not in_main_memory(v)}
    for name, tensor in held.items():
        _check_one(_spelled(group, name), tensor)
        if name in known:
            raise ValueError(
                f"{_spelled(group, name)} is a tensor on {tensor.device}, but with capturable=True the host has to "
                "know it without asking, for states that begin with it or for the point ahead; give a number, or a "
                "tensor on the CPU"
            )
    return held


def look_up(group: Group, name: str, rule: Rule) -> Any:
    """The value of a hyperparameter in a group, where `beta1` and `beta2` may stand together as `betas`."""
    if name in group:
        return group[name]
    if "betas" in group and name in ("beta1", "beta2"):
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"betas={betas!r}: give two numbers, such as (0.9, 0.999)")
        return betas[int(name[-1]) - 1]
    raise TypeError(f"{rule.name} needs {name}; the parameter group has {', '.join(k for k in group if k != 'params')}")


def _spelled(group: Group, name: str) -> str:
    """What the group's owner calls a hyperparameter."""
    return f"betas[{int(name[-1]) - 1}]" if name in ("beta1", "beta2") and name not in group else name


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value


def _yes(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}={value!r}: give True or False")
    return bool(value)


def checked(name: str, value: Any, allowed: Range) -> float:
    """A hyperparameter as a number, from a number or a tensor of one element."""
    if isinstance(value, torch.Tensor):
        _check_one(name, value)
    if callable(value):
        raise TypeError(f"{name}={value!r}: give a number; for a schedule use torch.optim.lr_scheduler")
    return check_number(name, _plain(value), allowed)


def _check_one(name: str, tensor: torch.Tensor) -> None:
    if tensor.numel() != 1:
        raise ValueError(f"{name} is a tensor of shape {tuple(tensor.shape)}; give a number or a tensor of one element")


def warn_of_misspelt(group: Group, known: Mapping[str, Any]) -> None:
    """Warn of an entry that is almost one of those that mean something; it is carried, as in `torch.optim`.

    An entry that contains such a name whole, as `no_weight_decay` does, is taken for the user's own.
    """
    for key in map(str, group):
        if key not in known and key not in ("params", "param_names", PLACED):
            close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.85)
            if close and close[0] not in key:
                warnings.warn(
                    f"the parameter group has {key}={group[key]!r}, which this optimizer does not use; did you mean "
                    f"{close[0]}?",
                    stacklevel=outside(),
                )


def outside() -> int:
    """How far up the stack from the caller the code is that is neither downslope's nor PyTorch's."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("downslope", "torch"):
        frame, level = frame.f_back, level + 1
    return level

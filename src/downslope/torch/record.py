"""What a saved file says of an optimizer besides the tensors: names, groups, settings, step counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from downslope.backends.cpu import COMPENSATION
from downslope.language.program import fingerprint
from downslope.torch.launch import STORAGES
from downslope.torch.points import at_weights, placed
from downslope.torch.settings import Group, GroupSettings
from downslope.torch.state import is_distributed
from downslope.training import checkpoint
from downslope.training.checkpoint import Clock

if TYPE_CHECKING:
    from downslope.torch.optimizer import Optimizer

Tensor = torch.Tensor


@dataclass(frozen=True)
class Member:
    """A parameter of an optimizer.

    Attributes:
        name: Its name in the model.
        p: The parameter.
        group: The number of its group.
        settings: The settings of its group.
    """

    name: str
    p: Tensor
    group: int
    settings: GroupSettings

    @property
    def start(self) -> Clock:
        """Its clock before the first step."""
        return Clock(0, dict(self.settings.program.scalar_states))

    def state_names(self, optimizer: Optimizer) -> list[str]:
        """The names of its states that are tensors of its shape."""
        compensated = optimizer._storage.rounding == "compensated"
        return [*self.settings.program.states, *([COMPENSATION] if compensated else [])]

    def stored_ahead(self, optimizer: Optimizer) -> bool:
        """Whether the parameter holds the point ahead in training."""
        return optimizer._options.stored_ahead and self.settings.rule.ahead is not None

    def at_weights(self, optimizer: Optimizer) -> bool:
        """Whether the parameter holds the weights themselves."""
        return not self.stored_ahead(optimizer) or at_weights(optimizer.param_groups[self.group])


def members_of(optimizer: Optimizer, model: torch.nn.Module) -> list[Member]:
    """All parameters of the optimizer, in its order, with the names they have in the model.

    Raises:
        TypeError: `model` is not a module, or a parameter cannot be saved by itself.
        ValueError: A parameter is not one of the model.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model={model!r:.60} is not a torch.nn.Module; give the one whose parameters are trained")
    names = {p: name for name, p in model.named_parameters()}
    found = []
    for k, group in enumerate(optimizer.param_groups):
        settings = optimizer._check_group(group)
        for i, p in enumerate(group["params"]):
            if p not in names:
                raise ValueError(
                    f"parameter {i} of group {k}, of shape {tuple(p.shape)}, is not a parameter of the "
                    f"{type(model).__name__} given as model; give the module that holds all that the optimizer trains"
                )
            if is_distributed(p):
                raise TypeError(
                    f"{names[p]} is shared out over processes (a DTensor); save and load it with "
                    "torch.distributed.checkpoint"
                )
            if p.is_meta:
                raise TypeError(f"{names[p]} is on the meta device and holds no numbers; give it memory first")
            if p.dtype not in STORAGES:
                raise TypeError(f"{names[p]} has dtype {p.dtype}; expected one of {', '.join(map(str, STORAGES))}")
            found.append(Member(names[p], p, k, settings))
    return found


def record_of(optimizer: Optimizer, members: Sequence[Member], clocks: Mapping[str, Clock]) -> dict[str, Any]:
    """The record of this optimizer, as `checkpoint` describes it."""
    t = max((clock.t for clock in clocks.values()), default=0)
    groups, ahead = [], []
    for k, group in enumerate(optimizer.param_groups):
        settings, own = optimizer._check_group(group), [member for member in members if member.group == k]
        furthest = next((clocks[m.name] for m in own if clocks[m.name].t == t), None)
        scalars = dict(furthest.scalar_states if furthest else settings.program.scalar_states)
        groups.append(
            {
                "names": [member.name for member in own],
                "hyperparameters": dict(settings.numbers),
                "scalar_states": scalars,
                **_computed(optimizer, group, settings),
            }
        )
        if complex_names := [member.name for member in own if member.p.is_complex()]:
            groups[-1]["complex"] = complex_names
        ahead.append(lookahead_scalars(Clock(t, scalars), placed(group, settings)))
    shared = {key: groups[0][key] for key in checkpoint.COMPUTED}
    for group in groups:
        for key in checkpoint.COMPUTED:
            if group[key] == shared[key]:
                del group[key]
    rest = {
        member.name: {"t": clock.t, "scalar_states": dict(clock.scalar_states)}
        for member in members
        if (clock := clocks[member.name]) != Clock(t, groups[member.group]["scalar_states"])
    }
    storage = optimizer._storage
    return {
        **shared,
        "max_norm": optimizer._options.max_norm,
        "groups": groups,
        **({"lookahead": ahead} if any(member.stored_ahead(optimizer) for member in members) else {}),
        "t": t,
        "skipped": optimizer.skipped,
        **({"clocks": rest} if rest else {}),
        **({"rounding": storage.rounding} if storage.rounding != "nearest" else {}),
        **({"seed": storage.seed} if storage.rounding == "stochastic" else {}),
    }


def _computed(optimizer: Optimizer, group: Group, settings: GroupSettings) -> dict[str, Any]:
    """What is computed for a group."""
    plain = replace(settings.chosen, stored_ahead=False).with_options(max_norm=optimizer._options.max_norm is not None)
    return {
        "rule": plain.rule.name,
        "flags": plain.choices,
        "options": plain.around,
        "formula": fingerprint(plain.program),
    }


def lookahead_scalars(clock: Clock, settings: GroupSettings) -> list[float]:
    """The scalars that points ahead depend on, placed by these settings."""
    ahead = settings.chosen.ahead
    if ahead is None:
        return []
    scalars = {**settings.numbers, **clock.scalar_states, "t": float(clock.t + 1)}
    return [scalars[name] for name in ahead.scalars]

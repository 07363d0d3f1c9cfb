"""Settings and states from a `state_dict`, of downslope or of `torch.optim`, whatever its age."""

from __future__ import annotations

import collections
import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from downslope.backends.cpu import COMPENSATION
from downslope.rule import Rule
from downslope.targets.codes import CODED, SCALES
from downslope.torch import codes as coding
from downslope.torch.codes import coded
from downslope.torch.launch import Storage
from downslope.torch.settings import Group, GroupSettings
from downslope.torch.state import complete_state, state_dtype, state_shape
from downslope.torch.tensors import is_distributed

Tensor = torch.Tensor
OF_TORCH = ("capturable", "differentiable")
"""What a saved group says of how `torch.optim` computed, and no longer matters."""
OF_OPTIONS = ("average", COMPENSATION)
"""The tensors that options keep, beside those of a rule."""


def merged_groups(
    groups: Sequence[Group], saved: Sequence[Any], admitted: Callable[[int, Group, Group], Group]
) -> list[Group]:
    """The groups with the settings of saved ones; what an older or another optimizer did not save stays as it is.

    Args:
        groups: The groups.
        saved: The saved ones.
        admitted: What is taken of a saved group: called with its number, itself and the group here.

    Raises:
        ValueError: There are others groups, or groups of other sizes, or one is not admitted.
    """
    if len(saved) != len(groups):
        raise ValueError(f"the state_dict has {len(saved)} parameter group(s), this optimizer {len(groups)}")
    merged = []
    for k, (group, other) in enumerate(zip(groups, saved, strict=True)):
        if len(other["params"]) != len(group["params"]):
            raise ValueError(
                f"group {k} of the state_dict has {len(other['params'])} parameter(s), that of this optimizer "
                f"{len(group['params'])}; load it into an optimizer for the same model, made in the same way"
            )
        settings = copy.deepcopy(admitted(k, dict(other), group))
        theirs = {name: value for name, value in settings.items() if name not in OF_TORCH}
        merged.append({**group, **theirs, "params": group["params"]})
    return merged


def loaded(
    groups: Sequence[Group],
    settings: Sequence[GroupSettings],
    state_dict: Mapping[str, Any],
    storage: Storage,
    current: Mapping[Any, Mapping[str, Any]],
    family: Sequence[Rule] = (),
) -> dict[Any, Any]:
    """The states of a state_dict, by parameter; what belongs to no parameter stays under its own key.

    Args:
        groups: The groups as they will be.
        settings: Their settings.
        state_dict: As a `state_dict()` of this optimizer or of its model in `torch.optim` gave it.
        storage: How states are kept.
        current: The states as they are; a state_dict may refer to the very same tensors, which then stay in place, so
            that it goes on describing them.
        family: The rules among which a group's settings choose, so that a state of one may wait while another is used;
            none where a group has one for good.

    Raises:
        TypeError: A state is not a floating-point tensor.
        ValueError: A state has another shape than its parameter, or another rule has left it.
    """
    members: dict[Any, tuple[Tensor, GroupSettings]] = {}
    for group, saved, own in zip(groups, state_dict["param_groups"], settings, strict=True):
        members |= {key: (p, own) for key, p in zip(saved["params"], group["params"], strict=True)}
    state: dict[Any, Any] = collections.defaultdict(dict)
    for key, values in state_dict["state"].items():
        if key not in members:
            state[key] = copy.deepcopy(values)
        else:
            p, own = members[key]
            if own_state := _loaded_state(p, values, own, storage, current.get(p, {}), family or (own.rule,)):
                state[p] = own_state
    return state


def _loaded_state(
    p: Tensor,
    saved: Any,
    settings: GroupSettings,
    storage: Storage,
    current: Mapping[str, Any],
    family: Sequence[Rule],
) -> dict[str, Any]:
    """A parameter's state from a saved one, of downslope or of `torch.optim`, whatever its age.

    Tensors are copied, unless they are the current ones. Those of the parameter's shape get the dtypes they are kept in
    here, whether the rule uses them with its present settings or not.

    Raises:
        TypeError: A state is not a floating-point tensor.
        ValueError: A state has another shape than the parameter, or another rule has left it.
    """
    own = {
        name: value if value is current.get(name) else _copied(value)
        for name, value in saved.items()
        if value is not None
    }
    if "variance" in own and {"row_var", "col_var"} <= settings.program.spaces.keys() - own.keys():
        variance = torch.as_tensor(own.pop("variance"))  # of a vector in torch.optim.Adafactor
        own["col_var"] = variance.reshape(state_shape(p, "col_var", settings))
        own["row_var"] = variance.mean().reshape(state_shape(p, "row_var", settings))
    _refuse_of_another(own, settings, family)
    own = coding.recoded(own, settings.program.states, coded(settings, storage))
    arrays = [name for name in settings.program.states if name in own or name + CODED in own]
    for name, value in own.items():
        if name.endswith((CODED, SCALES)):
            continue
        if name in arrays or (isinstance(value, Tensor) and value.is_floating_point() and value.shape == p.shape):
            own[name] = _as_kept(p, name, value, settings, storage)
    if arrays and "step" not in own:
        own["step"] = 1.0  # SGD of torch.optim does not count steps; what matters is that this is not the first
    with torch.no_grad(), torch.inference_mode(False):
        return complete_state(p, own, settings, storage)[0] if own else {}


def _refuse_of_another(own: Mapping[str, Any], settings: GroupSettings, family: Sequence[Rule]) -> None:
    """Refuse a saved state that no rule of a family has left: with tensors that none has, or without some all have.

    A state without any is the beginning, as when SGD is given a momentum; what options keep may begin later.

    Raises:
        ValueError: It is one.
    """
    program = settings.program
    used = {**program.states, **program.scalar_states}
    found = {name.removesuffix(CODED).removesuffix(SCALES): value for name, value in own.items()}
    each = [[*rule.states, *rule.scalar_states] for rule in family]
    known = {*itertools.chain(*each), *used, *OF_OPTIONS, "step"}
    foreign = [name for name, value in found.items() if name not in known and isinstance(value, Tensor)]
    needed = [name for name in each[0] if name in used and all(name in names for names in each)]
    missing = [name for name in needed if name not in found]
    if foreign or 0 < len(missing) < len(needed):
        there = ", ".join(name for name in found if name != "step")
        raise ValueError(
            f"the state_dict has the states {there} of a parameter, {settings.rule.name} has "
            f"{', '.join(needed) or 'none'}: another rule has left them. Load it into an optimizer with that rule "
            "(what torch.optim saved is for downslope.torch.Adam and its like, or for Optimizer with a rule of "
            "downslope.dialects.torch)"
        )


def _as_kept(p: Tensor, name: str, value: Any, settings: GroupSettings, storage: Storage) -> Any:
    """A state in the dtype and on the device it is kept in here; counts of steps and scalar states as they are."""
    if not isinstance(value, Tensor) or name in ("step", *settings.program.scalar_states):
        return value
    dtype = state_dtype(p, name, settings, storage)
    return value.to(dtype=dtype) if is_distributed(value) else value.to(device=p.device, dtype=dtype)


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)

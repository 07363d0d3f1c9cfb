"""An optimizer with the parameters of a model as a training that can be saved by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from downslope.torch.launch import STORAGES, Storage
from downslope.torch.points import at_weights, placed, placing, point
from downslope.torch.settings import PLACED, Group, GroupSettings
from downslope.torch.state import complete_state, kept
from downslope.torch.tensors import is_dense, is_distributed, same_order
from downslope.training import groups as shared
from downslope.training import saving
from downslope.training.checkpoint import CheckpointError, Raw
from downslope.training.groups import Clock
from downslope.training.protocol import Kind, Loaded
from downslope.training.record import seed_of

Tensor = torch.Tensor


def save(training: TorchTraining, path: str | Path) -> None:  # noqa: D417
    """Save the weights the optimizer trains, its states and settings, by name, as a safetensors file.

    Tensors have keys such as `x/net.0.weight` or `exp_avg/net.0.weight`; `x` are always the weights themselves, and
    where parameters hold the point ahead, that is saved too, as `lookahead/net.0.weight`. The file holds no code. It
    replaces an older one in one indivisible step: it is either the old one or the new one, whole. The optimizer for
    NumPy arrays and those of other frameworks go on from it too, as long as all parameters have done the same number
    of steps.

    What the optimizer does not train is not in the file: parameters that are not among its own, buffers such as running
    means, the state of schedulers. Save `model.state_dict()` besides if there is any.

    Args:
        path: The file to write.
        model: The module whose `named_parameters()` name the parameters. Give the module itself rather than a wrapper
            around it, which would put a prefix before all names.

    Raises:
        TypeError: `model` is not a module, or a parameter is shared out over processes; for such there is
            `torch.distributed.checkpoint`.
        ValueError: A parameter of the optimizer is not one of the model, or a state does not fit it.
        OSError: The file cannot be written.
        RuntimeError: The parameters hold something else at the moment (inside `at_weights` and such).

    Example:
        >>> import pathlib, tempfile, torch, downslope.torch
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = downslope.torch.AdamW(model.parameters())
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> path = pathlib.Path(tempfile.mkdtemp(), "training.safetensors")
        >>> optimizer.save(path, model)
        >>> later = torch.nn.Linear(2, 1)
        >>> resumed = downslope.torch.AdamW(later.parameters())
        >>> resumed.load(path, later)
        >>> bool((later.weight == model.weight).all()), resumed.state[later.weight]["step"].item()
        (True, 1.0)
    """
    with torch.inference_mode(False), torch.no_grad():
        for name, (p, k) in training.members.items():
            if training.state.get(p):
                own, _ = complete_state(p, training.state[p], training.settings[k], training.storage)
                training.own[name] = own
        saving.save(training, path)


def load(training: TorchTraining, path: str | Path) -> Loaded:  # noqa: D417
    """Go on from a file that `save` wrote, here or in another framework, bit for bit.

    Weights, states, step counts and hyperparameters become those of the file. Parameters and states are matched by
    name, whatever their order in a group; they are written in place, on whatever device they are. A parameter that had
    no state when it was saved has none afterwards.

    Args:
        path: The file to read.
        model: The module whose `named_parameters()` name the parameters.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is damaged, not downslope's, or of another rule, other options, groups or names, or of
            weights and states with other dtypes or shapes.
        TypeError: `model` is not a module, or a parameter is shared out over processes; for such there is
            `torch.distributed.checkpoint`.
        ValueError: A parameter of the optimizer is not one of the model.
        RuntimeError: The parameters hold something else at the moment (inside `at_weights` and such), or one was made
            in inference mode.

    In every case nothing has been changed.
    """
    with torch.inference_mode(False), torch.no_grad():
        return saving.load(training, path)


@dataclass
class TorchTraining:
    """Parameters and what is known of them; see `training.protocol.Training`.

    Attributes:
        model: The module that names the parameters.
        param_groups: The parameter groups.
        state: The states, by parameter.
        settings: What each group comes to.
        storage: How states are kept.
        check: What another group would come to.
        members: The parameters by name, each with the number of its group.
        own: The states to be saved, by the name of the parameter, whole.
    """

    model: torch.nn.Module
    param_groups: Sequence[Group]
    state: dict[Tensor, dict[str, Any]]
    settings: Sequence[GroupSettings]
    storage: Storage
    max_norm: float | None
    skipped: int
    check: Callable[[Group], GroupSettings]
    members: dict[str, tuple[Tensor, int]] = field(init=False)
    own: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.members = members_of(self.param_groups, self.model)

    @property
    def clocks(self) -> dict[str, Clock]:  # noqa: D102
        found = {}
        for name, (_, k) in self.members.items():
            scalar_states = self.settings[k].program.scalar_states
            own = self.own.get(name, {"step": 0.0, **scalar_states})
            t = float(own["step"])
            if t < 0 or not t.is_integer():
                raise ValueError(f"the state step of {name} is {t}; expected a whole number of at least 0")
            found[name] = Clock(int(t), {state: float(own[state]) for state in scalar_states})
        return found

    @property
    def t(self) -> int:  # noqa: D102
        return max((clock.t for clock in self.clocks.values()), default=0)

    @property
    def groups(self) -> list[shared.Group]:  # noqa: D102
        clocks, t, found = self.clocks, self.t, []
        for k, (group, settings) in enumerate(zip(self.param_groups, self.settings, strict=True)):
            names = [name for name, (_, of) in self.members.items() if of == k]
            start = Clock(t, settings.program.scalar_states)
            furthest = next((clocks[name] for name in names if clocks[name].t == t), start)
            found.append(
                shared.Group(
                    settings.chosen.with_options(max_norm=self.max_norm is not None),
                    names,
                    settings.numbers,
                    furthest.scalar_states,
                    group.get(PLACED) or {},
                    [name for name in names if self.members[name][0].is_complex()],
                    settings.pieces.said(),
                )
            )
        return found

    @property
    def rounding(self) -> dict[str, Any]:  # noqa: D102
        rounding = self.storage.rounding
        random = rounding == "stochastic" or self.storage.state_dtype is torch.uint8
        seed = {"seed": self.storage.seed} if random else {}
        return seed if rounding == "nearest" else {"rounding": rounding, **seed}

    def kinds(self, name: str) -> dict[str, Kind]:  # noqa: D102
        p, k = self.members[name]
        tensors = {"x": (p.dtype, tuple(p.shape)), **kept(p, self.settings[k], self.storage)}
        return {
            what: (_name(dtype.to_real()), (*shape, *((2,) if dtype.is_complex else ())))
            for what, (dtype, shape) in tensors.items()
        }

    def get(self, what: str, name: str) -> Raw | None:  # noqa: D102
        (p, k), own = self.members[name], self.own.get(name)
        if what not in ("x", "lookahead"):
            return None if own is None else _raw(own[what])
        group, settings = self.param_groups[k], self.settings[k]
        if own is None or not settings.chosen.stored_ahead or (what == "x") is at_weights(group):
            return _raw(p)
        return _raw(point(p, own, placed(group, settings), to_weights=what == "x"))

    def adopt(  # noqa: D102
        self, given: Sequence[Mapping[str, float]], max_norm: float | None
    ) -> list[Mapping[str, float]]:
        found = []
        for group, settings, numbers in zip(self.param_groups, self.settings, given, strict=True):
            try:
                new = self.check(_with_numbers(group, numbers))
            except (TypeError, ValueError) as error:
                raise CheckpointError(f"the file's {error}") from None
            if new.program is not settings.program:
                raise CheckpointError("the file's hyperparameters do not belong to the rule it names")
            found.append(new.numbers)
        return found

    def put(self, loaded: Loaded) -> None:  # noqa: D102
        if self.storage.rounding == "stochastic" or "seed" in loaded.record:
            seed_of(loaded.record)
        writes: list[tuple[Tensor, Tensor]] = []
        states: dict[Tensor, dict[str, Any]] = {}
        for name, (p, k) in self.members.items():
            if p.is_inference():
                raise RuntimeError(f"{name} was made inside torch.inference_mode() and cannot be written; clone() it")
            stored = self.settings[k].chosen.stored_ahead and not at_weights(self.param_groups[k])
            writes.append((p, _tensor(loaded.tensors["lookahead" if stored else "x", name], p)))
            states[p] = own = {} if name not in loaded.clocks else _begun(name, loaded.clocks[name])
            for state in self.kinds(name).keys() - {"x"} if own else ():
                source = _tensor(loaded.tensors[state, name], p)
                own[state] = _room(p, self.state.get(p, {}).get(state), source)
                writes.append((own[state], source))
        news = [_with_numbers(g, of.hyperparameters) for g, of in zip(self.param_groups, loaded.groups, strict=True)]
        for new in news:
            settings = self.check(new)
            if settings.chosen.stored_ahead and not at_weights(new):
                new[PLACED] = placing(settings)
        for target, source in writes:
            target.copy_(source)
        for group, new in zip(self.param_groups, news, strict=True):
            group.update(new)
        for p, own in states.items():
            if own:
                self.state[p] = own
            else:
                self.state.pop(p, None)


def members_of(groups: Sequence[Group], model: torch.nn.Module) -> dict[str, tuple[Tensor, int]]:
    """All parameters of these groups, in their order, with the number of each one's group, by their names in the model.

    Raises:
        TypeError: `model` is not a module, or a parameter cannot be saved by itself.
        ValueError: A parameter is not one of the model.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model={model!r:.60} is not a torch.nn.Module; give the one whose parameters are trained")
    names = {p: name for name, p in model.named_parameters()}
    found = {}
    for k, group in enumerate(groups):
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
            found[names[p]] = p, k
    return found


def _with_numbers(group: Group, numbers: Mapping[str, Any]) -> Group:
    """A group with other hyperparameters, each where and as it stands there."""
    new = group.copy()
    for name, value in numbers.items():
        if name in new:
            new[name] = _in_place_of(new[name], value)
        else:
            k = int(name[-1]) - 1  # beta1 or beta2
            betas = [_in_place_of(old, value) if i == k else old for i, old in enumerate(new["betas"])]
            new["betas"] = type(new["betas"])(betas)
    return new


def _in_place_of(old: Any, value: float) -> Any:
    if float(old) == value:
        return old
    return torch.full_like(old.detach(), value) if isinstance(old, Tensor) else float(value)


def _begun(name: str, clock: Clock) -> dict[str, Any]:
    """The clocks of a parameter that has a state."""
    step = torch.tensor(float(clock.t), dtype=torch.float32, device="cpu")
    if step.item() != clock.t:
        raise CheckpointError(f"the file's t of {name} is {clock.t}, more than a step in single precision can be")
    scalars = clock.scalar_states.items()
    return {"step": step} | {s: torch.tensor(v, dtype=torch.float64, device="cpu") for s, v in scalars}


def _room(p: Tensor, old: Any, source: Tensor) -> Tensor:
    """Where a state can be written to: what there is if it fits, else a new tensor, laid out like its parameter."""
    if not source.dtype.is_floating_point or source.shape != p.shape:  # codes, and their scales
        return torch.empty_like(source, memory_format=torch.contiguous_format)
    if isinstance(old, Tensor) and (old.dtype, old.shape, old.device) == (source.dtype, p.shape, p.device):
        ordered = old.layout is torch.strided and same_order(old, p) and is_dense(old)
        if ordered and not old.is_inference():
            return old
    return torch.empty_like(p.detach(), dtype=source.dtype, memory_format=torch.preserve_format)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _raw(tensor: Tensor) -> Raw:
    """The bytes of a tensor, those of a complex one as pairs of real numbers."""
    dense = _real(tensor.detach().resolve_conj().resolve_neg().cpu()).contiguous()
    return Raw(_name(dense.dtype), tuple(dense.shape), dense.reshape(-1).view(torch.uint8).numpy())


def _tensor(raw: Raw, p: Tensor) -> Tensor:
    """A tensor of these bytes, complex if the parameter is, on its device."""
    real = torch.from_numpy(raw.data).view(getattr(torch, raw.dtype)).reshape(raw.shape)
    if p.is_complex():
        return torch.view_as_complex(real.clone()).to(p.device)  # a file aligns real numbers, which is not enough here
    return real.to(p.device)

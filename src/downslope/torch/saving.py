"""Saving an optimizer and the weights it trains under the names of a model's parameters, and going on from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from downslope.torch.points import at_weights, placed, placing, point
from downslope.torch.record import Member, lookahead_scalars, members_of, record_of
from downslope.torch.settings import PLACED, Group, GroupSettings
from downslope.torch.state import complete_state, is_dense, same_order, state_dtype
from downslope.training import checkpoint
from downslope.training.checkpoint import CheckpointError, Clock, Raw

if TYPE_CHECKING:
    from downslope.torch.optimizer import Optimizer

Tensor = torch.Tensor


def save(optimizer: Optimizer, path: str | Path, model: torch.nn.Module) -> None:
    """Save the weights the optimizer trains, its states and settings, by name, as a safetensors file.

    Tensors have keys such as `x/net.0.weight` or `exp_avg/net.0.weight`; `x` are always the weights themselves, and
    where parameters hold the point ahead, that is saved too, as `lookahead/net.0.weight`. The file holds no code. It
    replaces an older one in one indivisible step: it is either the old one or the new one, whole. The optimizer for
    NumPy arrays and those of other frameworks go on from it too, as long as all parameters have done the same number
    of steps.

    What the optimizer does not train is not in the file: parameters that are not among its own, buffers such as running
    means, the state of schedulers. Save `model.state_dict()` besides if there is any.

    Args:
        optimizer: The optimizer.
        path: The file.
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
    with optimizer._progress.lock:
        if optimizer._progress.away:
            optimizer._progress.refuse("save")
        with torch.inference_mode(False), torch.no_grad():
            tensors, record = _contents(optimizer, members_of(optimizer, model))
        checkpoint.write(Path(path), {key: _raw(tensor) for key, tensor in tensors.items()}, record)


def load(optimizer: Optimizer, path: str | Path, model: torch.nn.Module) -> None:
    """Go on from a file that `save` wrote, here or in another framework, bit for bit.

    Weights, states, step counts and hyperparameters become those of the file. Parameters and states are matched by
    name, whatever their order in a group; they are written in place, on whatever device they are. A parameter that had
    no state when it was saved has none afterwards.

    Args:
        optimizer: The optimizer.
        path: The file.
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
    with optimizer._progress.lock:
        if optimizer._progress.away:
            optimizer._progress.refuse("load")
        members = members_of(optimizer, model)
        tensors, record = checkpoint.read_raw(Path(path))
        with torch.inference_mode(False), torch.no_grad():
            _restored(optimizer, members, tensors, record).carry_out(optimizer)


def _contents(optimizer: Optimizer, members: Sequence[Member]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What is to be saved: tensors by key, and the record."""
    tensors: dict[str, Tensor] = {}
    clocks: dict[str, Clock] = {}
    for member in members:
        name, p = member.name, member.p
        tensors[f"x/{name}"] = p
        if member.stored_ahead(optimizer):
            tensors[f"lookahead/{name}"] = p
        if not optimizer.state.get(p):
            clocks[name] = member.start
            continue
        own, states = complete_state(p, optimizer.state[p], member.settings, optimizer._storage)
        tensors |= {f"{state}/{name}": own[state] for state in states}
        if member.stored_ahead(optimizer):
            group = optimizer.param_groups[member.group]
            settings, to_weights = placed(group, member.settings), not at_weights(group)
            tensors[f"{'x' if to_weights else 'lookahead'}/{name}"] = point(p, own, settings, to_weights=to_weights)
        clocks[name] = _clock(member, own)
    return tensors, record_of(optimizer, members, clocks)


def _clock(member: Member, own: Mapping[str, Any]) -> Clock:
    t = float(own["step"])
    if t < 0 or not t.is_integer():
        raise ValueError(f"the state step of {member.name} is {t}; expected a whole number of at least 0")
    return Clock(int(t), {name: float(own[name]) for name in member.settings.program.scalar_states})


@dataclass
class _Restored:
    """A checked file, ready to be taken over: nothing that follows can fail.

    Attributes:
        groups: The new entries of every group.
        states: The new state of every parameter; an empty one for a parameter that has none.
        writes: Tensors, and what is to be written into them.
        max_norm: The largest permitted norm.
        seed: The seed of stochastic rounding.
        skipped: The number of steps left out.
    """

    groups: list[Group]
    max_norm: float | None
    seed: int
    skipped: int
    states: dict[Tensor, dict[str, Any]] = field(default_factory=dict)
    writes: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def carry_out(self, optimizer: Optimizer) -> None:
        """Change the optimizer and its parameters."""
        for target, source in self.writes:
            target.copy_(source)
        for group, new in zip(optimizer.param_groups, self.groups, strict=True):
            group.update(new)
        for p, state in self.states.items():
            if state:
                optimizer.state[p] = state
            else:
                optimizer.state.pop(p, None)
        if self.max_norm != optimizer._options.max_norm:
            optimizer._options = replace(optimizer._options, max_norm=self.max_norm)
        if self.seed != optimizer._storage.seed:
            optimizer._storage = replace(optimizer._storage, seed=self.seed)
        optimizer._progress.skipped = self.skipped
        optimizer._progress.layouts.clear()


def _restored(
    optimizer: Optimizer, members: Sequence[Member], tensors: Mapping[str, Raw], record: Mapping[str, Any]
) -> _Restored:
    """Check everything that a file says against this optimizer.

    Raises:
        CheckpointError: It does not fit.
        RuntimeError: A parameter cannot be written.
    """
    here = record_of(optimizer, members, {member.name: member.start for member in members})
    checkpoint.check_same(record, here, checkpoint.COMPUTED)
    checkpoint.check_same({"rounding": "nearest", **record}, {"rounding": "nearest", **here}, ["rounding"])
    saved = checkpoint.check_groups(record, here)
    clocks = checkpoint.clocks(record, saved)
    groups, settings = _groups(optimizer, saved)
    seed = _seed(record) if "seed" in here else optimizer._storage.seed
    found = _Restored(groups, checkpoint.bound(record), seed, checkpoint.count(record, "skipped"))
    states = {member.name: _states_in(member, optimizer, tensors, clocks[member.name]) for member in members}
    ahead = any(key.startswith("lookahead/") for key in tensors)
    _check_tensors(optimizer, members, tensors, states, ahead)
    done = checkpoint.count(record, "t")
    here_placed = [
        lookahead_scalars(Clock(done, group["scalar_states"]), own) for group, own in zip(saved, settings, strict=True)
    ]
    same = ahead and record.get("lookahead") == here_placed
    for member in members:
        name, p, names = member.name, member.p, states[member.name]
        if p.is_inference():
            raise RuntimeError(f"{name} was made inside torch.inference_mode() and cannot be written; clone() it")
        x = _tensor(tensors[f"x/{name}"], p)
        own = {} if names is None else _begun(name, clocks[name])
        sources = {state: _tensor(tensors[f"{state}/{name}"], p) for state in names or ()}
        if same and not member.at_weights(optimizer):
            x = _tensor(tensors[f"lookahead/{name}"], p)
        elif own and not member.at_weights(optimizer):
            x = point(p, {**own, **sources}, settings[member.group], to_weights=False, x=x)
        found.writes.append((p, x))
        for state, source in sources.items():
            own[state] = _room(p, optimizer.state.get(p, {}).get(state), source)
            found.writes.append((own[state], source))
        found.states[p] = own
    return found


def _groups(optimizer: Optimizer, saved: Sequence[Mapping[str, Any]]) -> tuple[list[Group], list[GroupSettings]]:
    """The groups with the hyperparameters of a file, and what they come to."""
    groups = [
        _with_numbers(group, s["hyperparameters"]) for group, s in zip(optimizer.param_groups, saved, strict=True)
    ]
    settings = []
    for group, new in zip(optimizer.param_groups, groups, strict=True):
        try:
            settings.append(optimizer._check_group(new))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"the file's {error}") from None
        if settings[-1].program is not optimizer._check_group(group).program:
            raise CheckpointError("the file's hyperparameters do not belong to the rule it names")
        if settings[-1].rule.ahead is not None and optimizer._options.stored_ahead and not at_weights(new):
            new[PLACED] = placing(settings[-1])
    return groups, settings


def _with_numbers(group: Group, numbers: Mapping[str, float | None]) -> Group:
    """A group with other hyperparameters, each where and as it stands there; None leaves one as it is."""
    new = group.copy()
    for name, value in numbers.items():
        if value is None:
            continue
        if name in new:
            new[name] = _in_place_of(new[name], value)
        else:
            k = int(name[-1]) - 1  # beta1 or beta2
            betas = [_in_place_of(old, value) if i == k else old for i, old in enumerate(new["betas"])]
            new["betas"] = type(new["betas"])(betas)
    return new


def _in_place_of(old: Any, value: float) -> Any:
    if isinstance(old, Tensor):
        return torch.full_like(old.detach(), value)
    return old if old == value else float(value)


def _seed(record: Mapping[str, Any]) -> int:
    seed = record.get("seed")
    if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
        raise CheckpointError(f"the file's seed is {seed!r:.60}; expected a whole number of at most 63 bits")
    return seed


def _states_in(member: Member, optimizer: Optimizer, tensors: Mapping[str, Raw], clock: Clock) -> list[str] | None:
    """The names of the states that a file must have of a parameter; None if it had none when it was saved."""
    names = member.state_names(optimizer)
    begun = clock != member.start or any(f"{state}/{member.name}" in tensors for state in names)
    return names if begun else None


@dataclass(frozen=True)
class _Kind:
    """What a tensor in a file must be like."""

    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, p: Tensor, dtype: torch.dtype) -> _Kind:
        """That of a tensor of a parameter's shape and this dtype."""
        pairs = (2,) if dtype.is_complex else ()
        return cls(_name(dtype.to_real()), (*p.shape, *pairs))


def _check_tensors(
    optimizer: Optimizer,
    members: Sequence[Member],
    tensors: Mapping[str, Raw],
    states: Mapping[str, list[str] | None],
    ahead: bool,
) -> None:
    """Make sure that a file has just the tensors that are needed, of the right dtypes and shapes."""
    mine = {}
    for member in members:
        p, name = member.p, member.name
        mine[f"x/{name}"] = _Kind.of(p, p.dtype)
        if ahead and member.settings.rule.ahead is not None:
            mine[f"lookahead/{name}"] = _Kind.of(p, p.dtype)
        for state in states[name] or ():
            mine[f"{state}/{name}"] = _Kind.of(p, state_dtype(p, state, optimizer._storage))
    checkpoint.check_tensors(tensors, mine)


def _begun(name: str, clock: Clock) -> dict[str, Any]:
    """The clocks of a parameter that has a state."""
    step = torch.tensor(float(clock.t), dtype=torch.float32, device="cpu")
    if step.item() != clock.t:
        raise CheckpointError(f"the file's t of {name} is {clock.t}, more than a step in single precision can be")
    scalars = clock.scalar_states.items()
    return {"step": step} | {s: torch.tensor(v, dtype=torch.float64, device="cpu") for s, v in scalars}


def _room(p: Tensor, old: Any, source: Tensor) -> Tensor:
    """Where a state can be written to: what there is if it fits, else a new tensor, laid out like its parameter."""
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

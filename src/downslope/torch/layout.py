"""Where everything an optimizer updates stands: its parameters, their states, and the launches they fall into."""

from __future__ import annotations

import functools
import operator
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any

import torch

from downslope.backends.cpu import THREADED_FROM
from downslope.backends.launch import Launch
from downslope.backends.taking import OTHER_CLOCKS
from downslope.targets.passes import compiles
from downslope.torch.device import has_addresses, has_kernels, refuse
from downslope.torch.gradients import called
from downslope.torch.interpreted import Interpreted
from downslope.torch.launch import (
    CODED,
    STORAGES,
    Compiled,
    Kind,
    Members,
    NoKernelError,
    Storage,
    Together,
    keep_while_recording,
    refuse_while_recording,
)
from downslope.torch.pieces import WHOLE
from downslope.torch.settings import GroupSettings, Reader, outside
from downslope.torch.sharing import Sharing
from downslope.torch.spans import overlaps, span
from downslope.torch.state import check_storage, complete_state, kept
from downslope.torch.tensors import (
    all_local,
    is_backed,
    is_dense,
    is_distributed,
    is_wrapper,
    local,
    readable_dtypes,
    same_order,
)
from downslope.torch.whole import check_together, check_whole

Tensor = torch.Tensor
_PARAMS, _GRAD = operator.itemgetter("params"), operator.attrgetter("grad")
State = Mapping[Tensor, dict[str, Any]]


def worst_of(codes: Sequence[int]) -> int:
    """2 if something is to be mended, 1 if it is enough to try again, else 0."""
    return 2 if max(codes, default=0) > 0 else 1 if OTHER_CLOCKS in codes else 0


def identities(state: State, sharded: bool) -> list[int]:
    """The identity of everything in the states, in their order."""
    values = [*chain.from_iterable(map(dict.values, state.values()))]
    return [*map(id, values), *map(id, all_local(values))] if sharded else [*map(id, values)]


@dataclass
class Layout:
    """What has been laid out.

    Attributes:
        params: All parameters, group by group.
        readers: One for each group.
        settings: Every group's settings, as they were laid out or last taken over.
        scaled: Whether gradients are multiplied by a scale.
        launches: What a step runs, one for each set of parameters that one kernel updates.
        sharded: Whether there are distributed tensors.
        suspects: The numbers of parameters whose gradients may be lazily negated or conjugated in a way that memory
            does not show.
        placements: How parameters are shared out; None for those that are not.
        specs: What last said so of their gradients; as a rule the very same objects say it again.
        staged: Parameters that are views with gaps, with dense tensors that stand in for them.
        weights: What is updated of each parameter: the part of it that this process holds, or what stands in for it.
        large: The numbers of parameters whose gradients are so long that reading beyond their memory would end the
            process, so that a look at it is worth its time.
        buffers: Copies of gradients that no kernel can read as they are, by the number of their parameter.
        names: What each parameter is called in messages: by its name if it has one, else by its number.
        gathered: The numbers of parameters that are made whole in a step, by the process groups that share them out.
    """

    params: list[Tensor]
    readers: list[Reader]
    settings: list[GroupSettings]
    scaled: bool
    launches: list[Launch] = field(default_factory=list)
    sharded: bool = False
    suspects: list[int] = field(default_factory=list)
    placements: list[Any] = field(default_factory=list)
    specs: list[Any] = field(default_factory=list)
    staged: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    param_ids: list[int] = field(default_factory=list)
    state_ids: list[int] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    large: list[int] = field(default_factory=list)
    buffers: dict[int, Tensor] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    gathered: dict[tuple[Any, ...], list[int]] = field(default_factory=dict)

    def holds(self, groups: Sequence[dict[str, Any]], state: State, scaled: bool) -> bool:
        """Whether this is still the layout of these parameters and states: they are the very same, in their order."""
        if scaled is not self.scaled or len(groups) != len(self.readers):
            return False
        if [*map(id, chain.from_iterable(map(_PARAMS, groups)))] != self.param_ids:
            return False
        if self.sharded and [*map(id, all_local(self.params))] != [*map(id, self.weights)]:
            return False
        if self.suspects and any(self.weights[i].is_conj() or self.weights[i].is_neg() for i in self.suspects):
            return False
        return identities(state, self.sharded) == self.state_ids

    def read(self, groups: Sequence[dict[str, Any]]) -> list[GroupSettings]:
        """What the groups' settings are now."""
        return [reader.read(group) for reader, group in zip(self.readers, groups, strict=True)]

    def adopt(self, settings: list[GroupSettings], scale: float) -> bool:
        """Have the launches take over these settings; whether they could: not if another program is asked for."""
        pairs = [*zip(settings, self.settings, strict=True)]
        if not all(new.asks_for_the_same(old) for new, old in pairs):
            return False
        if any(new is not old for new, old in pairs):
            self.settle(settings, scale)
        return True

    def settle(self, settings: list[GroupSettings], scale: float) -> None:
        """Have the launches take over settings whose programs are those that were laid out."""
        for launch in self.launches:
            launch.settle(settings, scale)
        self.settings = settings

    def take(self, gradients: Sequence[Tensor | None]) -> list[int]:
        """Look whether all tensors are as they should be: the launches' codes."""
        if len(self.launches) == 1:
            return [self.launches[0].take(gradients)]
        return [launch.take([gradients[i] for i in launch.which]) for launch in self.launches]

    def step(
        self, gradients: Sequence[Tensor | None], scale: float | Tensor, workers: int, left_out: Tensor | None = None
    ) -> int:
        """Update all weights and states.

        Args:
            gradients: One for each parameter, or None.
            scale: What they are multiplied by.
            workers: How many threads may share the work.
            left_out: A number of the device's that is not 0 if nothing is to be changed; None if there is none.

        Returns:
            0 or less: done; 1: nothing has been changed, try again; 2: nothing has been changed, and something is to
            be mended first.
        """
        launches = self.launches
        if len(launches) > 1:  # nothing may be changed if something is amiss in the last of them
            worst = worst_of(self.take(gradients))
            if worst > 0:
                return worst
        for own, stage in self.staged:
            stage.copy_(own.detach())
        moved: Sequence[Tensor] = self.weights
        for k, launch in enumerate(launches):
            launch.scale(scale)
            launch.leave_out(left_out)
            code = launch.step(gradients if len(launches) == 1 else [gradients[i] for i in launch.which], workers)
            if code > 0 or code == OTHER_CLOCKS:
                if k:
                    raise RuntimeError("another thread changed a gradient, parameter or state during the step")
                return worst_of([code])
            if code:
                moved = [w for w, g in zip(self.weights, gradients, strict=True) if g is not None]
        for own, stage in self.staged:
            with torch.no_grad():
                own.copy_(stage)
        if self.staged or self.buffers:
            for device in {w.device for w in self.weights}:
                keep_while_recording(device, [*self.staged], [*self.buffers.values()])
        torch._C._increment_version(moved)
        return 0

    def shards(self) -> list[Tensor | None] | None:
        """The gradients, or this process's parts of them; None unless all are shared out as their parameters are."""
        found = [*map(_GRAD, self.params)]
        if not self.sharded:
            return found
        specs = _specs(found)
        if len(specs) != len(self.specs) or not all(map(operator.is_, specs, self.specs)):
            if [*map(_placements, specs)] != self.placements:
                return None
            self.specs = specs
        return all_local(found)

    def gradients(self) -> list[Tensor | None]:
        """The gradients as they are now."""
        found = self.shards()
        if found is None:
            found = [p.grad for p in self.params]
            for i, (g, p) in enumerate(zip(found, self.params, strict=True)):
                if g is not None and is_distributed(p):
                    found[i] = _local_gradient(g, p)
        for i in self.large:
            g = found[i]
            if g is not None and g.layout is torch.strided and g.device.type == "cpu" and not is_backed(g):
                raise ValueError(
                    f"the memory of the gradient of parameter {self.names[i]}, of shape {tuple(g.shape)}, has been "
                    "released or cut short"
                )
        for i in self.suspects:
            g = found[i]
            if g is not None and (g.is_neg() or g.is_conj()):
                found[i] = self._copied(i, g)
        return found

    def ready(self, gradients: list[Tensor | None]) -> bool:
        """Put copies in the place of gradients that a kernel cannot read as they are; whether there were any."""
        found = False
        spans = sorted(map(span, chain(self.weights, *(launch_states(launch) for launch in self.launches))))
        for i, (g, x) in enumerate(zip(gradients, self.weights, strict=True)):
            if g is None:
                continue
            if g.shape != x.shape:
                raise ValueError(
                    f"the gradient of parameter {self.names[i]} has shape {tuple(g.shape)}, the parameter "
                    f"{tuple(x.shape)}"
                )
            same = g.layout is torch.strided and g.device == x.device and g.dtype in readable_dtypes(x)
            if not same or not same_order(g, x) or overlaps(span(g), spans):
                gradients[i] = self._copied(i, g)
                found = True
        return found

    def _copied(self, i: int, gradient: Tensor) -> Tensor:
        """The gradient, as a dense tensor that is kept for the next step."""
        x = self.weights[i]
        dense = gradient.detach().to_dense() if gradient.layout is not torch.strided else gradient.detach()
        dtype = dense.dtype if dense.dtype in readable_dtypes(x) else x.dtype
        buffer = self.buffers.get(i)
        with torch.inference_mode(False), torch.no_grad():
            if buffer is None or buffer.dtype != dtype or buffer.shape != x.shape or not same_order(buffer, x):
                buffer = self.buffers[i] = torch.empty_like(x.detach(), dtype=dtype)
            return buffer.copy_(dense)


def launch_states(launch: Launch) -> Iterable[Tensor]:
    """The states of a launch's tensors, clocks left out."""
    return (tensor for tensors in launch.held for tensor in tensors[1:] if tensor.dim())


def _local_gradient(gradient: Tensor, parameter: Any) -> Tensor:
    if not is_distributed(gradient):
        return gradient
    distributed: Any = gradient
    if distributed.placements != parameter.placements:
        distributed = distributed.redistribute(parameter.device_mesh, parameter.placements)
    return local(distributed)


def _specs(tensors: Sequence[Any]) -> list[Any]:
    """What says how tensors are shared out over processes; None for each that is not."""
    return [*map(getattr, tensors, repeat("_spec"), repeat(None))]


def _placements(spec: Any) -> Any:
    return None if spec is None else spec.placements


def lay_out(
    groups: Sequence[dict[str, Any]],
    state: dict[Tensor, dict[str, Any]],
    readers: list[Reader],
    scaled: bool,
    storage: Storage,
    first: int = 0,
) -> Layout:
    """Lay out parameters and states, beginning the states of parameters that have a gradient for the first time.

    Args:
        groups: The parameter groups.
        state: The states by parameter; new ones are put in.
        readers: What reads the settings of each group.
        scaled: Whether gradients are multiplied by a scale.
        storage: How states are kept.
        first: The number of the first of these parameters among all of the optimizer's.

    Raises:
        TypeError: A parameter has a dtype that cannot be trained, or a state is not a tensor.
        ValueError: A state does not fit, or shares memory with something else.
        RuntimeError: A parameter was made in inference mode, or a graph is being recorded.
    """
    settled = [reader.read(group) for reader, group in zip(readers, groups, strict=True)]
    for group, settings in zip(groups, settled, strict=True):
        refuse_while_recording({p.device for p in group["params"]}, settings.capturable)
    layout = Layout([p for group in groups for p in group["params"]], readers, settled, scaled)
    layout.param_ids = [*map(id, layout.params)]
    layout.placements = [*map(_placements, _specs(layout.params))]
    layout.names = called(groups, first)
    numbered = [(k, p) for k, group in enumerate(groups) for p in group["params"]]
    launches: dict[Together, Members] = {}
    for i, (k, p) in enumerate(numbered):
        name, settings = layout.names[i], settled[k]
        _check_parameter(name, p)
        check_whole(settings.program, [p], storage, [f"number {name}" if name.isdigit() else name], settings.pieces)
        own, tensors = local(p), []
        shared = Sharing.of(p) if settings.program.over_tensors else None
        kind = Interpreted if shared is not None else _kind_of(own, settings)
        if settings.capturable and kind is Interpreted:
            raise ValueError(
                f"capturable=True is not possible for parameter {name} on {p.device}, which no kernel updates by "
                f"{settings.program.name}; leave it out"
            )
        if kind.dense and (not is_dense(own) or own.is_conj() or own.is_neg()):
            own = _stand_in(p, layout)
        layout.weights.append(own)
        if own.is_complex() or own.numel() == 1:
            layout.suspects.append(i)
        if p.numel() >= THREADED_FROM:
            layout.large.append(i)
        layout.sharded |= is_distributed(p)
        program = settings.program
        if p.grad is not None or state.get(p):
            check_storage(storage, [p])  # parameters move to other dtypes and devices, and thaw
            with torch.inference_mode(False), torch.no_grad():
                new, names = complete_state(p, state.get(p, {}), settings, storage)
            state[p] = new
            tensors = [own, *(local(new[name]) for name in (*names, "step", *program.scalar_states))]
        if shared is not None:
            layout.gathered.setdefault(_mesh(p), []).append(i)
        members = launches.setdefault(_together(kind, p, own, tensors, settings, storage), Members())
        members.which.append(i)
        members.groups.append(k)
        members.held.append(tensors)
        members.shared.append(shared)
    check_together(launches)
    layout.launches = [_launch(together, members, storage, first) for together, members in launches.items()]
    layout.state_ids = identities(state, layout.sharded)
    _check_apart(layout)
    return layout


def _launch(together: Together, members: Members, storage: Storage, first: int) -> Launch:
    """What updates tensors: a kernel, if their device takes it."""
    try:
        return together.kind(together, members, storage, first)
    except NoKernelError as error:
        if storage.rounding != "nearest" or storage.state_dtype is torch.uint8 or not together.counted:
            raise
        refuse(together.device, str(error))
        return Interpreted(together, members, storage, first)


def _check_apart(layout: Layout) -> None:
    """Make sure that no state is there twice, and that nothing overlaps a parameter for which another tensor stands in.

    Raises:
        ValueError: It does.
    """
    states = [id(tensor) for launch in layout.launches for tensors in launch.held for tensor in tensors[1:]]
    if len(set(states)) < len(states):
        raise ValueError("one tensor is the state of two parameters; give each a tensor of its own")
    for original, _ in layout.staged:
        spans = sorted(span(local(p)) for p in layout.params if local(p) is not original)
        if overlaps(span(original), spans):
            raise ValueError(
                f"a parameter of shape {tuple(original.shape)} is a view with gaps into memory of another parameter; "
                "make it a tensor of its own, with clone()"
            )


def _kind_of(own: Tensor, settings: GroupSettings) -> Kind:
    """What updates a tensor; nowhere else does its device decide how a step is done.

    By a rule over whole tensors a kernel does so only where a tensor is one matrix in the order of its memory, and no
    share of one.
    """
    program = settings.program
    if program.over_tensors:
        ordered = settings.pieces == WHOLE and (not program.of_matrices or own.is_contiguous())
        possible = ordered and compiles(program) and not is_wrapper(own)
        return Compiled if possible and has_kernels(own.device) else Interpreted
    if is_wrapper(own):
        _say_slow(type(own))
        return Interpreted
    return Compiled if has_kernels(own.device) else Interpreted


def _together(
    kind: Kind,
    p: Any,
    own: Tensor,
    tensors: list[Any],
    settings: GroupSettings,
    storage: Storage,
) -> Together:
    """What must be alike for tensors to share a launch."""
    program = settings.program
    gradient = p.grad.dtype if p.grad is not None and p.grad.dtype in readable_dtypes(own) else own.dtype
    states = [t.dtype for t in tensors[1:]] or [dtype for dtype, _ in kept(p, settings, storage).values()]
    stored = (own.dtype, gradient, *states[: len(program.states)])
    storages = tuple(CODED.get(dtype) or STORAGES[dtype][0] for dtype in stored)
    if program.over_all:  # whatever tensors are kept as
        return Together(kind, own.device, program, ("float64",) * 2, False, (), True, settings.pieces)
    mesh = _mesh(p) if is_distributed(p) else ()
    counted = not settings.capturable
    return Together(kind, own.device, program, storages, own.is_complex(), mesh, counted, settings.pieces)


def _mesh(p: Any) -> tuple[Any, ...]:
    """The process groups over which a distributed tensor is shared out."""
    return tuple(p.device_mesh.get_group(d) for d, placement in enumerate(p.placements) if placement.is_shard())


@functools.cache
def _say_slow(kind: type) -> None:
    warnings.warn(
        f"parameters of type {kind.__name__} have no memory of their own that a kernel could update; the formula is "
        "computed operation by operation, which takes several times as long",
        stacklevel=outside(),
    )


def _check_parameter(name: str, p: Tensor) -> None:
    if p.dtype not in STORAGES:
        raise TypeError(f"parameter {name} has dtype {p.dtype}; expected one of {', '.join(map(str, STORAGES))}")
    if p.is_inference():
        raise RuntimeError(
            f"parameter {name} was made inside torch.inference_mode(), where tensors cannot be trained; "
            "make the model outside of it, or clone() its parameters"
        )
    if (
        p.layout is torch.strided
        and p.numel()
        and any(n > 1 and step == 0 for n, step in zip(p.shape, p.stride(), strict=True))
    ):
        raise ValueError(f"parameter {name} is expanded: several elements are one in memory; make it with clone()")
    if has_addresses(p.device) and p.layout is torch.strided and not is_backed(local(p)):
        raise ValueError(f"the memory of parameter {name}, of shape {tuple(p.shape)}, has been released or cut short")
    if p.layout is not torch.strided:
        raise TypeError(f"parameter {name} has the layout {p.layout}; only dense parameters can be trained")


def _stand_in(p: Tensor, layout: Layout) -> Tensor:
    own = local(p)
    stage = torch.empty_like(own.detach())
    layout.staged.append((own, stage))
    return stage

"""The ordinary step of a small model in one function, which takes less time than the calls that it spares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from operator import attrgetter, is_
from typing import Any

import torch

from downslope.backends.launch import Launch
from downslope.backends.taking import ALL, OTHER_CLOCKS, SOME
from downslope.backends.watch import Watch
from downslope.torch.layout import Layout, State
from downslope.torch.points import in_place
from downslope.torch.tensors import all_local, is_distributed

_GRAD, _LOCAL = attrgetter("grad"), attrgetter("_local_tensor")
_RESTLESS = 255
"""After how many steps at the most there is a watch again."""
_TRIES = 8
"""How often it is found that not all parameters have ordinary gradients, before Python is asked for them at once."""

Groups = Sequence[dict[str, Any]]


def quick_step(layout: Layout, limit: float | None = None) -> Callable[[Groups, State], bool] | None:
    """A step of everything that is laid out.

    Args:
        layout: Everything.
        limit: The largest norm that gradients may have, if they are clipped.

    Returns:
        A function of groups and states that updates all parameters and returns True; numbers that have changed in the
        groups are taken over on the way. If anything else is not as it was laid out, it changes nothing and returns
        False, and the plain step is due. None where there is more to do in a step.
    """
    more = (layout.scaled and limit is None) or layout.staged or layout.suspects or len(layout.launches) != 1
    update = None if more else _update(layout.launches[0], limit)
    if update is None or not all(reader.fixed for reader in layout.readers):
        return None
    current, params, weights, sharded = _Current(layout), layout.params, layout.weights, layout.sharded
    increase, tries = torch._C._increment_version, 0 if sharded else _TRIES

    def step(groups: Groups, state: State) -> bool:
        nonlocal tries
        watch = current.watch
        kept = watch is not None and watch.unchanged(groups, state) and not (sharded and current.shards_changed())
        if not kept and not current.caught_up(groups, state):
            return False
        if tries:
            code = update()
            if code == ALL:
                increase(weights)
                return True
            tries -= 1
        gradients = layout.shards() if sharded else [*map(_GRAD, params)]
        if gradients is None:
            return False
        code = update(*gradients)
        if code > 0 or code == OTHER_CLOCKS:
            return False
        increase(weights if code == ALL else [w for w, g in zip(weights, gradients, strict=True) if g is not None])
        return True

    return step


def _update(launch: Launch, limit: float | None) -> Callable[..., int] | None:
    """The launch's own quick step, with gradients clipped where their device does it; None if there is none."""
    update = launch.quick_step() if any(launch.held) else None
    if update is None or limit is None:
        return update
    double = launch.held[0][0].dtype in (torch.float64, torch.complex128)  # whose norm the host asks for
    if launch.mesh or double or not launch.scaled_there:
        return None

    def clipped(*gradients: Any) -> int:
        code = launch.take(gradients)
        factor = launch.within(limit) if code in (ALL, SOME) else None
        if factor is None:
            return max(code, 1)
        launch.scale(factor)
        return update(*gradients)

    return clipped


class _Current:
    """Whether what is laid out is up to date, but for gradients: by a watch, or else by asking.

    Attributes:
        watch: Over groups and states, since they were last asked. It takes time to make, so that there is none while
            settings change at every step.
    """

    def __init__(self, layout: Layout):
        self.watch: Watch | None = None
        self._layout = layout
        self._tensors: list[Any] = []  # that are shared out over processes, while there is a watch
        self._shards: list[Any] = []  # the parts of them that this process holds
        self._due = self._patience = 0  # after how many steps that ask there is a watch again

    def caught_up(self, groups: Groups, state: State) -> bool:
        """Ask the layout; settings that have changed are taken over, if they ask for nothing else than numbers."""
        layout = self._layout
        if not layout.holds(groups, state, layout.scaled):
            return False
        settings = layout.read(groups)
        if not all(map(in_place, groups, settings)) or not all(reader.fixed for reader in layout.readers):
            return False
        if not layout.adopt(settings, 1.0):
            return False
        if self.watch is not None:
            self.watch, self._patience = None, min(2 * self._patience + 1, _RESTLESS)
            self._due = self._patience
        elif self._due:
            self._due -= 1
        else:
            self.watch = _watch(groups, state)
            if layout.sharded:
                everything = *layout.params, *chain.from_iterable(map(dict.values, state.values()))
                self._tensors = [tensor for tensor in everything if is_distributed(tensor)]
                self._shards = all_local(self._tensors)
        return True

    def shards_changed(self) -> bool:
        """Whether a distributed tensor has come to hold another part than when the watch began."""
        return not all(map(is_, map(_LOCAL, self._tensors), self._shards))


def _watch(groups: Groups, state: State) -> Watch | None:
    """A watch over groups and states, unless their entries could become others in place."""
    found: list[Any] = [groups, state, *groups, *(group["params"] for group in groups), *state.values()]
    return Watch(found) if all(isinstance(container, (list, dict)) for container in found) else None

"""The modules whose parameters an optimizer trains, where `train()` is called before every step, as Trainer does.

Whoever calls it before every step calls it before the next one too. So what is read from a module between two steps, or
loaded into it, can be the weights themselves: the parameters are moved there, and back by the next `train()`.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

May = Callable[[Any], bool]
"""Whether an optimizer may move its parameters to the weights at the moment, with its `eval()`."""


@dataclass
class Rhythm:
    """When `train()` was called.

    Attributes:
        clock: How many steps were done at its last call; -1 before the first.
        every_step: Whether there was a call before each of the last two steps.
    """

    clock: float = -1
    every_step: bool = False

    def beat(self, optimizer: torch.optim.Optimizer, may: May) -> None:
        """Note a call.

        Args:
            optimizer: The optimizer.
            may: Whether it may move its parameters.
        """
        clock = _clock(optimizer)
        if self.clock < 0:
            hook = _ToWeights(optimizer, may)
            for module in _trained_by(optimizer):
                for handle in (
                    module.register_state_dict_pre_hook(hook),  # type: ignore[no-untyped-call]
                    module.register_load_state_dict_pre_hook(hook),  # type: ignore[no-untyped-call]
                ):
                    weakref.finalize(optimizer, handle.remove)
        elif clock > self.clock:
            self.every_step = clock == self.clock + 1
        self.clock = clock

    def between_steps(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether the step that the last call was made for is done, and another call will come before the next."""
        return self.every_step and _clock(optimizer) == self.clock + 1 and not _several_processes()


def _clock(optimizer: torch.optim.Optimizer) -> float:
    return max((float(own["step"]) for own in optimizer.state.values() if "step" in own), default=0.0)


def _several_processes() -> bool:
    """Whether there are others, which would not round their parameters when this one does."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _trained_by(optimizer: torch.optim.Optimizer) -> Iterator[torch.nn.Module]:
    """The modules that have parameters of an optimizer, which knows none of them.

    They are looked for among all objects, once: some 0.1 s for a million. A hook on the forward pass of every module
    would find them too, but `torch.compile` warns of such hooks, and they would run until there is a second call.
    """
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for module in gc.get_objects():
        if issubclass(type(module), torch.nn.Module):
            owned = module.__dict__.get("_parameters") or {}
            if any(id(p) in trained for p in owned.values()):
                yield module


class _ToWeights:
    """Before a module's parameters are saved or loaded: move to the weights, if the way back is certain.

    It does not keep its optimizer alive; in a copy of its module it does nothing.
    """

    def __init__(self, optimizer: Any = None, may: May | None = None):
        self._optimizer: Callable[[], Any] = (lambda: None) if optimizer is None else weakref.ref(optimizer)
        self._may = may

    def __deepcopy__(self, memory: dict[int, Any]) -> _ToWeights:
        return type(self)()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()

    def __call__(self, *_: Any) -> None:
        optimizer = self._optimizer()
        if optimizer is not None and self._may is not None and self._may(optimizer):
            optimizer.eval()

"""The modules whose parameters an optimizer trains, where `train()` is called before every step, as Trainer does.

Whoever calls it before every step calls it before the next one too. So what is read from a module between two steps, or
loaded into it, can be the weights themselves: the parameters are moved there, and back by the next `train()`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

May = Callable[[Any], bool]
"""Whether an optimizer may move its parameters to the weights at the moment, with its `eval()`."""


@dataclass
class Rhythm:
    """When `train()` was called.

    Attributes:
        clock: How many steps were done at its last call; -1 before the first.
        every_step: Whether there was a call before each of the last two steps.
        looking: The hook that looks for the modules, until they have been found.
    """

    clock: float = -1
    every_step: bool = False
    looking: Any = field(default=None, repr=False)

    def beat(self, optimizer: torch.optim.Optimizer, may: May) -> None:
        """Note a call.

        Args:
            optimizer: The optimizer.
            may: Whether it may move its parameters.
        """
        clock = _clock(optimizer)
        if self.clock < 0:
            self.looking = register_module_forward_pre_hook(_Finder(optimizer, may))
            weakref.finalize(optimizer, self.looking.remove)
        elif clock > self.clock:
            self.every_step = clock == self.clock + 1
            if self.looking is not None:
                self.looking.remove()
                self.looking = None
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


class _Hook:
    """A hook that knows its optimizer but does not keep it alive; in a copy of its module it does nothing."""

    def __init__(self, optimizer: Any = None, may: May | None = None):
        self._optimizer: Callable[[], Any] = (lambda: None) if optimizer is None else weakref.ref(optimizer)
        self._may = may

    def __deepcopy__(self, memory: dict[int, Any]) -> _Hook:
        return type(self)()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


class _Finder(_Hook):
    """Before a module's forward pass: put hooks on it if it has parameters of the optimizer."""

    def __call__(self, module: torch.nn.Module, inputs: Any) -> None:
        optimizer = self._optimizer()
        if torch.compiler.is_compiling() or optimizer is None or not module._parameters:
            return
        if any(isinstance(hook, _ToWeights) for hook in module._state_dict_pre_hooks.values()):
            return
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if any(id(p) in trained for p in module._parameters.values()):
            hook = _ToWeights(optimizer, self._may)
            module.register_state_dict_pre_hook(hook)  # type: ignore[no-untyped-call]
            module.register_load_state_dict_pre_hook(hook)  # type: ignore[no-untyped-call]


class _ToWeights(_Hook):
    """Before a module's parameters are saved or loaded: move to the weights, if the way back is certain."""

    def __call__(self, *_: Any) -> None:
        optimizer = self._optimizer()
        if optimizer is not None and self._may is not None and self._may(optimizer):
            optimizer.eval()

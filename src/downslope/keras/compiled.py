"""The step on tensors of PyTorch in main memory: compiled, all variables in one launch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from downslope import torch as front
from downslope.keras.states import States
from downslope.language.options import CHOICES
from downslope.torch.tensors import is_dense, same_order

Tensor = torch.Tensor


class Compiled:
    """A `downslope.torch.Optimizer` whose parameters and states are the tensors in an optimizer's variables.

    Attributes:
        variables: Every variable that a step reads or writes, and the tensor in it when this was made.
    """

    def __init__(self, states: States):
        settled, rule = states.settings.settled, states.settings.settled.rule
        self._states = states
        self._params = {id(v): v.value for v in states.variables}
        self.variables = [(v, v.value) for v in states.variables]
        given: dict[str, Any] = {**states.settings.numbers, **settled.choices}
        if "lr" in rule.hyperparameters:
            given["lr"] = 0.0
        given |= {name: True for name in CHOICES if name in settled.options}
        given["lookahead"] = "stored" if settled.stored_ahead else "explicit"
        self._inner = front.Optimizer(self._params.values(), rule, **given)
        self._clocks: list[dict[str, Tensor]] = []
        for k, p in enumerate(self._params.values()):
            own = {name: variables[k] for name, variables in states.by_name.items()}
            self.variables += [(v, v.value) for v in own.values()]
            clock = {"step": torch.tensor(0.0, dtype=torch.float32)}
            clock |= {name: torch.tensor(v.value.item(), dtype=torch.float64) for name, v in states.scalars.items()}
            self._clocks.append(clock)
            self._inner.state[p] = {**{name: v.value for name, v in own.items()}, **clock}
        self._told = dict.fromkeys(self._clocks[0], 0.0)
        self._lock = threading.RLock()  # reading a tensor's gradient while another thread sets it crashes PyTorch

    @staticmethod
    def fits(states: States) -> bool:
        """Whether compiled code can update these variables in place."""
        variables = states.variables
        for k, variable in enumerate(variables):
            own = [of[k] for of in states.by_name.values()]
            if any(state is None for state in own):
                return False
            x = variable.value
            for tensor in (x, *(state.value for state in own)):
                if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
                    return False
                if not tensor.is_leaf or tensor.is_conj() or tensor.is_neg():
                    return False
                if tensor.dtype != x.dtype or not is_dense(tensor):
                    return False
                if tensor.shape == x.shape and not same_order(tensor, x):
                    return False
        return bool(variables) and len({id(variable.value) for variable in variables}) == len(variables)

    def holds(self) -> bool:
        """Whether the variables still hold the same tensors."""
        return all(variable.value is tensor for variable, tensor in self.variables)

    def step(self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any) -> bool:
        """Update the variables that have a gradient; False, with nothing changed, if compiled code cannot do it now."""
        with self._lock:
            return self._step(grads, variables, learning_rate)

    def _step(self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any) -> bool:
        if torch.compiler.is_compiling() or not self.holds() or any(type(g) is not Tensor for g in grads):
            return False
        if len({id(variable) for variable in variables}) < len(variables):
            return False  # one that is there twice takes two steps
        states = self._states
        states.to_lookahead()
        iterations = states.optimizer.iterations
        told = {"step": float(getattr(iterations, "value", iterations).item())}
        told |= {name: variable.value.item() for name, variable in states.scalars.items()}
        if told != self._told:  # the first step, a state that was loaded, or variables without a gradient before
            for clock in self._clocks:
                for name, value in told.items():
                    clock[name].fill_(value)
        if "lr" in self._inner.param_groups[0]:
            self._inner.param_groups[0]["lr"] = float(getattr(learning_rate, "value", learning_rate))
        before = [p.grad for p in self._params.values()]
        try:
            if len(grads) < len(before):
                for p in self._params.values():
                    p.grad = None
            for gradient, variable in zip(grads, variables, strict=True):
                p = self._params[id(variable)]
                if p.grad is not gradient:
                    p.grad = gradient.detach().to(p.dtype)
            self._inner.step()
        finally:
            for p, gradient in zip(self._params.values(), before, strict=True):
                if p.grad is not gradient:
                    p.grad = gradient
        first = next(k for k, (v, _) in enumerate(self.variables) if v is variables[0])
        self._told = {name: clock.item() for name, clock in self._clocks[first].items()}
        for name, variable in states.scalars.items():
            variable.assign(self._told[name])
        if len(grads) < len(before):
            self._told = {}
        return True

"""Many modules of PyTorch trained as one: their weights stacked, and every operation done for all of them at once.

`torch.func` computes the losses of a stack, ordinary backpropagation of their sum the gradients, since no lane's loss
depends on another's weights; and one launch of the rule's kernel updates it: each lane is a group of parameters with a
learning rate of its own. A module can be stacked if its outputs follow from its weights and rows
alone, in operations that do not depend on their values.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call, vmap
from torch.overrides import TorchFunctionMode

from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.learner import Stacking, adds_up, class_axis
from downslope.lab.engines.optimizers import groups_in_parts, optimizer_for, optimizer_of_parts
from downslope.lab.engines.torch_learner import Rates, TorchLearner, TorchModels
from downslope.splitting.models import split

LANES = 32
"""So many runs are stacked, or fewer of large models."""

NUMBERS = 2**24
"""Weights, gradients and states of a stack are to be no more than this."""

STEPS = 20
"""So many steps are taken both ways before runs are stacked."""

FEW, ROUNDS = 2, 8
"""So many steps are timed, so often; the quickest count."""

FASTER = 1.05
"""So many times as fast stacked runs have to be: what is measured is not that certain."""

FINE = 1e-3
"""Seconds. A clock that ticks less often does not tell how long a few steps take."""

TRIED = 16
"""On so many rows, an even number, a loss of the user's own is tried."""

ROWS = 4096
"""Rows that are evaluated at a time, those of all lanes together."""

Tensors = tuple[torch.Tensor, ...]
Held = dict[str, torch.Tensor]


class TorchStack:
    """Runs of one rule that are trained together.

    Args:
        models: What is known of their modules.
        learners: Those runs before their first step, each of a module of its own.
        entrant: The rule.
        rates: Their learning rates.
    """

    def __init__(self, models: TorchModels, learners: Sequence[TorchLearner], entrant: Entrant, rates: Sequence[float]):
        self.models, self.module = models, learners[0].model
        self.names = [name for name, one in self.module.named_parameters() if one.requires_grad]
        held = [{**dict(one.model.named_parameters()), **dict(one.model.named_buffers())} for one in learners]
        self.x, self.y = [learner.x for learner in learners], [learner.y for learner in learners]
        self.fixed = {
            name: torch.stack([one[name].detach() for one in held]) for name in held[0] if name not in self.names
        }
        self._stack([torch.stack([one[name].detach() for one in held]) for name in self.names])
        self._lanes = [[nn.Parameter(w[lane]) for w in self.weights] for lane in range(len(rates))]
        parts = split(self.module) if entrant.rest else None
        groups: list[dict[str, Any]] = []
        for those, rate in zip(self._lanes, rates, strict=True):
            if parts is None:
                groups.append({"params": those, "lr": rate})
            else:
                lane = parts.with_values(dict(zip(self.names, those, strict=True)))
                groups += groups_in_parts(lane, entrant, rate)
        self._groups = len(groups) // len(rates)  # of each lane
        self.optimizer = (
            optimizer_for(groups, entrant, rates[0]) if parts is None else optimizer_of_parts(groups, entrant)
        )
        self._rates = Rates(self.optimizer)
        self._point()

    def _stack(self, weights: Sequence[torch.Tensor]) -> None:
        self.weights = tuple(weights)
        self._leaves = tuple(w.detach().requires_grad_() for w in self.weights)  # the same numbers
        self._gradients = tuple(torch.empty_like(w) for w in self.weights)

    def _point(self) -> None:
        """Have the parameters of each lane, and their gradients, be the lane's part of the stack."""
        for lane, those in enumerate(self._lanes):
            for one, weight, gradient in zip(those, self.weights, self._gradients, strict=True):
                one.data, one.grad = weight[lane], gradient[lane]

    def keep(self, lanes: Sequence[int]) -> None:
        """Go on with these lanes only."""
        at = torch.tensor(list(lanes), device=self.weights[0].device)
        self._stack([w[at] for w in self.weights])
        self.fixed = {name: one[at] for name, one in self.fixed.items()}
        self._lanes = [self._lanes[lane] for lane in lanes]
        n, groups = self._groups, self.optimizer.param_groups
        groups[:] = [group for lane in lanes for group in groups[lane * n : lane * n + n]]
        self.x, self.y = [self.x[lane] for lane in lanes], [self.y[lane] for lane in lanes]
        self._point()

    def epoch(self, batches: NDArray[np.int32], factors: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Train on some batches.

        Args:
            batches: Row numbers, shape `(lanes, steps, rows per step)`.
            factors: What learning rates are multiplied by at each step; None: nothing.

        Returns:
            The mean loss of each lane over its batches, taken where the gradient is.
        """
        self.module.train()
        device = self.weights[0].device
        total = torch.zeros(len(self._lanes), dtype=torch.float64, device=device)
        for step, rows in enumerate(torch.from_numpy(batches).long().to(device).unbind(1)):
            self._rates.follow(factors, step)
            loss, _ = self._losses(self._leaves, *self._rows(rows))
            gradients = torch.autograd.grad(loss.sum(), self._leaves, materialize_grads=True)
            for held, one in zip(self._gradients, gradients, strict=True):
                held.copy_(one)
            self.optimizer.step()
            total += loss.detach()
        return np.asarray((total / batches.shape[1]).cpu().numpy())

    def evaluate(self, rows: NDArray[np.int32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean loss and accuracy of each lane on rows of its own, shape `(lanes, rows)`, at the weights themselves."""
        self.module.eval()
        some = max(1, ROWS // len(self._lanes))
        loss, hits = np.zeros(len(self._lanes)), np.zeros(len(self._lanes))
        with torch.no_grad(), self.optimizer.at_weights():
            for first in range(0, rows.shape[1], some):
                part = torch.from_numpy(rows[:, first : first + some]).long().to(self.weights[0].device)
                x, y = self._rows(part)
                losses, outputs = self._losses(self.weights, x, y)
                loss += part.shape[1] * losses.double().cpu().numpy()
                if self.models.loss == "cross-entropy":
                    axis = class_axis(tuple(outputs.shape[1:]), tuple(y.shape[1:]))
                    right = outputs.argmax(axis + 1) == y
                    hits += part.shape[1] * right.flatten(1).double().mean(1).cpu().numpy()
        return loss / rows.shape[1], hits / rows.shape[1]

    def finite(self) -> NDArray[np.bool_]:
        """Which lanes have finite weights only."""
        found = torch.stack([torch.isfinite(w).flatten(1).all(1) for w in self.weights]).all(0)
        return np.asarray(found.cpu().numpy())

    def weights_of(self, lane: int) -> tuple[NDArray[np.float32], ...]:
        """A copy of the weights of a lane."""
        with self.optimizer.at_weights():
            return tuple(w[lane].cpu().numpy().copy() for w in self.weights)

    def _rows(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Some rows of each lane."""
        if all(one is self.x[0] for one in self.x):
            return _taken(self.x[0], rows), _taken(self.y[0], rows)
        pairs = [(_taken(a, at), _taken(b, at)) for a, b, at in zip(self.x, self.y, rows, strict=True)]
        return torch.stack([a for a, _ in pairs]), torch.stack([b for _, b in pairs])

    def _losses(self, weights: Tensors, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """The loss of each lane on rows of its own; and for a loss by name the outputs of all."""
        if isinstance(self.models.loss, str):
            outputs: torch.Tensor = vmap(self._outputs)(weights, self.fixed, x)
            return self.models.values(outputs, y), outputs
        return vmap(lambda *lane: self.models.value(self._outputs(*lane[:3]), lane[3]))(weights, self.fixed, x, y), None

    def _outputs(self, weights: Tensors, fixed: Held, x: torch.Tensor) -> Any:
        """What a lane says of its rows."""
        with _Padding():
            return functional_call(self.module, {**dict(zip(self.names, weights, strict=True)), **fixed}, (x,))


class _Padding(TorchFunctionMode):
    """While it is entered, what an embedding has for its `padding_idx` has no gradient in any lane.

    `vmap` looks all lanes up in one table, one lane's rows below the other's, and keeps the number of the padding: so
    that of the first lane only would stay as it is.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_embedding if func is nn.functional.embedding else func)(*args, **(kwargs or {}))


def _embedding(
    rows: torch.Tensor, weight: torch.Tensor, padding_idx: int | None = None, *others: Any, **more: Any
) -> torch.Tensor:
    found = nn.functional.embedding(rows, weight, None, *others, **more)
    if padding_idx is None:
        return found
    return torch.where((rows == padding_idx % len(weight)).unsqueeze(-1), found.detach(), found)


def _taken(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """`values[rows]`, in half the time."""
    return values.index_select(0, rows.flatten()).reshape(*rows.shape, *values.shape[1:])


def stacking(
    models: TorchModels, make: Callable[[int], TorchLearner], entrant: Entrant, rate: float, batches: NDArray[np.int32]
) -> Stacking:
    """Whether runs are to be stacked: it has to give what one run at a time gives, and to be faster.

    Args:
        models: What is known of the modules.
        make: Makes a run before its first step, of a new module, for one of two seeds: 0 and 1.
        entrant: A rule.
        rate: Its learning rate.
        batches: Row numbers of some steps, shape `(steps, rows per step)`.
    """
    singles = [make(0), make(1)]
    first = singles[0]
    size = sum(one.numel() for one in first.trained)
    lanes = min(LANES, NUMBERS // (4 * size))
    if lanes < 2:
        return _alone(f", since the model has {size:,} weights")
    batches = np.resize(batches, (STEPS, batches.shape[1]))
    if not isinstance(models.loss, str) and not _is_mean_over_rows(first, batches.ravel()[:TRIED]):
        return _alone(", since the loss of a batch is not the mean over its rows")
    begun = {name: one.detach().clone() for name, one in first.model.named_buffers()}
    means = [one.epoch(batches) for one in singles]
    if any(not torch.equal(one, begun[name]) for name, one in first.model.named_buffers()):
        return _alone(", since the model keeps statistics while it trains, as batch norm does")
    try:
        stack = TorchStack(models, [make(lane % 2) for lane in range(lanes)], entrant, [rate] * lanes)
        both = np.ascontiguousarray(np.broadcast_to(batches, (lanes, *batches.shape)))
        stacked = stack.epoch(both)
    except Exception as error:  # whatever a module of the user's own raises where its tensors are stacked
        reason = " ".join(str(error).split())[:160]
        if "random" in reason:
            return _alone(", since the model draws random numbers, as dropout does")
        return _alone(f", since torch.func cannot stack the model: {reason}")
    ends = [one.weights() for one in singles]
    if not (np.isfinite(means).all() and all(np.isfinite(one).all() for one in itertools.chain(*ends))):
        return _alone(f", since a trial run at {rate:g} diverged, which tells nothing of stacks")
    alike = all(
        np.allclose(stacked[lane], means[lane % 2], rtol=1e-4)
        and all(
            np.allclose(one, other, rtol=1e-3, atol=1e-5)
            for one, other in zip(stack.weights_of(lane), ends[lane % 2], strict=True)
        )
        for lane in {0, 1, lanes - 1}
    )
    if not alike:
        return _alone(f", since stacked ones were elsewhere after {STEPS} steps")
    together = alone = math.inf
    clock = _clock()
    for _ in range(ROUNDS):
        together = min(together, _seconds(lambda: stack.epoch(both[:, :FEW]), first.x, clock))
        alone = min(alone, _seconds(lambda: first.epoch(batches[:FEW]), first.x, clock))
    ratio = lanes * alone / together
    if ratio < FASTER:
        return _alone(f", since {lanes} stacked ones took {1 / ratio:.2g} times as long for each")
    return Stacking(lanes, f"up to {lanes} runs were stacked, which took 1/{ratio:.1f} of the time")


def _is_mean_over_rows(learner: TorchLearner, rows: NDArray[np.int32]) -> bool:
    """Whether a loss of the user's own may be added up part by part; by pairs, as a batch of one is often squeezed."""
    parts = [learner.evaluate(pair)[0] for pair in rows.reshape(-1, 2)]
    return adds_up(learner.evaluate(rows)[0], float(np.mean(parts)))


def _alone(why: str) -> Stacking:
    return Stacking(1, f"runs were trained one at a time{why}")


def _clock() -> Callable[[], float]:
    """The time in which this thread had the processor; that of the day where it ticks too rarely, as on Windows.

    By the latter, other programs interrupt a stack, which takes longer at a time, and not a run alone.
    """
    start = time.thread_time()
    while (tick := time.thread_time() - start) == 0:
        pass
    return time.thread_time if tick < FINE else time.perf_counter


def _seconds(code: Callable[[], Any], near: torch.Tensor, clock: Callable[[], float]) -> float:
    """The seconds that some code takes on the device of a tensor; on a processor, by this clock."""
    if not near.is_cuda:
        start = clock()
        code()
        return clock() - start
    torch.cuda.synchronize(near.device)
    start = time.perf_counter()
    code()
    torch.cuda.synchronize(near.device)
    return time.perf_counter() - start

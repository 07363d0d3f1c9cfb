"""What the parameters of an optimizer may hold besides what they hold in training, and how they come to it and back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._compile import _disable_dynamo

from downslope.rule import Rule
from downslope.torch.points import at_weights, elsewhere, follow, move, refuse_another_place
from downslope.torch.progress import Progress
from downslope.torch.settings import Group, GroupSettings

Tensor = torch.Tensor


@dataclass(frozen=True)
class Places:
    """The weights, the points ahead of them, their averages.

    What is said of its methods is said to whoever holds an optimizer, whose methods they are.

    Attributes:
        progress: Where the optimizer is.
        groups: All its groups.
        state: Its states, by parameter.
        choose: The rule of a group.
        read: The settings of a group.
        stored_ahead: Whether in training parameters hold the point ahead, if their rule has one.
    """

    progress: Progress
    groups: Sequence[Group]
    state: dict[Tensor, dict[str, Any]]
    choose: Callable[[Group], Rule]
    read: Callable[[Group], GroupSettings]
    stored_ahead: bool

    @_disable_dynamo
    def ahead(self, *, stored: bool = True) -> list[Group]:
        """The groups of rules with a look-ahead, if in training their parameters hold the points ahead, or do not."""
        groups = self.groups if self.stored_ahead is stored else ()
        return [group for group in groups if self.choose(group).ahead is not None]

    @_disable_dynamo
    def _settled(self, groups: Sequence[Group]) -> list[tuple[Group, GroupSettings]]:
        return [(group, self.read(group)) for group in groups]

    def follow(self) -> None:
        """Move points that are stored ahead to where the groups' settings now want them."""
        if groups := self.ahead():
            with self.progress.lock:
                for group, settings in self._settled(groups):
                    follow(group, self.state, settings)

    def refuse_another(self, group: Group) -> None:
        """Refuse to go on with settings that would have the points ahead of a group elsewhere.

        Raises:
            RuntimeError: They would.
        """
        if self.stored_ahead and self.choose(group).ahead is not None:
            refuse_another_place(group, self.read(group))

    @contextlib.contextmanager
    def at_weights(self) -> Iterator[None]:
        """Inside this block the parameters hold the weights themselves, for evaluation and saving.

        It makes a difference only for a rule with a look-ahead, whose parameters otherwise hold the point ahead.

        Example:
            >>> import torch, downslope, downslope.torch
            >>> x = torch.nn.Parameter(torch.tensor([1.0]))
            >>> optimizer = downslope.torch.Optimizer([x], downslope.nesterov, lr=0.1, mu=0.5)
            >>> x.grad = torch.tensor([2.0])
            >>> optimizer.step()
            >>> print(round(x.item(), 4))
            0.7
            >>> with optimizer.at_weights():
            ...     print(round(x.item(), 4))
            0.8
        """
        with self.progress.moved("at_weights", elsewhere(self._settled(self.ahead()), self.state, stored=True)):
            yield

    @contextlib.contextmanager
    def at_lookahead(self) -> Iterator[None]:
        """Inside this block parameters hold the point where the gradient is to be taken (`lookahead="explicit"`)."""
        groups = self._settled(self.ahead(stored=False))
        with self.progress.moved("at_lookahead", elsewhere(groups, self.state, stored=False)):
            yield

    @contextlib.contextmanager
    def at_average(self) -> Iterator[None]:
        """Inside this block the parameters hold the moving average of the weights, for evaluation and saving.

        Raises:
            RuntimeError: The optimizer was made without `averaging`.
        """
        averages = {p: own["average"] for p, own in self.state.items() if "average" in own}
        with self.progress.moved("at_average", averages):
            yield

    def eval(self) -> None:
        """Move the parameters to the weights themselves, for evaluation and saving, until `train` is called.

        It makes a difference only for a rule with a look-ahead, whose parameters otherwise hold the point ahead.
        Hugging Face's Trainer calls it by itself. A `state_dict` says which of the two the parameters hold, so that a
        training saved in either mode, together with the model's own, goes on in that mode, and equal to the last bit
        to one that went on without being saved.

        For one block of code there is `at_weights`, which leaves the very bits of the parameters as they were; `eval`
        and `train` keep no copy, and leave them rounded once more.

        Raises:
            RuntimeError: The parameters hold something else at the moment (inside `at_weights` and such).

        Example:
            >>> import torch, downslope, downslope.torch
            >>> x = torch.nn.Parameter(torch.tensor([1.0]))
            >>> optimizer = downslope.torch.Optimizer([x], downslope.nesterov, lr=0.1, mu=0.5)
            >>> x.grad = torch.tensor([2.0])
            >>> optimizer.step()
            >>> optimizer.eval()
            >>> print(round(x.item(), 4))
            0.8
            >>> optimizer.train()
            >>> print(round(x.item(), 4))
            0.7
        """
        self._move("eval", to_weights=True)

    def train(self) -> None:
        """Move the parameters to where gradients are to be taken: the way back from `eval`.

        Raises:
            RuntimeError: The parameters hold something else at the moment (inside `at_weights` and such).
        """
        self._move("train", to_weights=False)

    def _move(self, what: str, *, to_weights: bool) -> None:
        groups = self.ahead()
        if all(at_weights(group) is to_weights for group in groups):
            return
        with self.progress.alone(what):
            self.progress.quick_step = None
            move(self._settled(groups), self.state, to_weights=to_weights)

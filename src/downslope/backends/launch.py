"""What updates tensors together: the contract of a compiled kernel, and of whatever stands in for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from downslope.language.program import Program


class Numbered(Protocol):
    """A parameter group's settings, as far as a launch asks for them."""

    @property
    def numbers(self) -> Mapping[str, float]:
        """The hyperparameters, by name."""

    @property
    def tensors(self) -> Mapping[str, Any]:
        """Those that are read where a device has them, by name: tensors of one element."""


class Launch(Protocol):
    """Some tensors, laid out once, that are updated together at every step.

    `settle` comes before the first step, and whenever a setting has changed. A step is either `step`, or `take`,
    `survey`, `scale` and then `step`, for whoever has to know the norm of all gradients first. Whoever has a member
    of this kind need not know what computes, nor where.

    Attributes:
        dense: Whether it needs weights that fill their memory, so that another tensor stands in for those that do not.
        program: What is computed.
        which: The number of each slot's tensor among those of the optimizer.
        held: Per slot its tensors: weights, states, then one tensor for the step count and one for each scalar state.
        device: Where they are, as the framework says it.
        mesh: The process groups over which these tensors are shared out, so that sums have to be taken over them.
        counted: Whether the host counts their steps; if not, the device does, and may leave steps out by itself.
        scaled_there: Whether `scale` may be given a number on their device, for which the host does not wait.
    """

    dense: bool
    program: Program
    which: list[int]
    held: list[list[Any]]
    device: Any
    mesh: tuple[Any, ...]
    counted: bool
    scaled_there: bool

    def settle(self, settings: Sequence[Numbered], scale: float) -> None:
        """Take over the settings of all groups.

        Args:
            settings: One for each group.
            scale: What gradients are multiplied by, if the program takes `grad_scale`.
        """

    def scale(self, factor: Any) -> None:
        """Set what gradients are multiplied by from now on.

        Args:
            factor: A number; or a tensor of one, on the device, if the launch is `scaled_there`.
        """

    def leave_out(self, flag: Any) -> None:
        """Leave the next step out if a number is not 0, for which nobody waits: then nothing changes or is counted.

        Args:
            flag: A tensor of one number, if the device counts; or None for a step that is not left out.
        """

    def take(self, gradients: Sequence[Any]) -> int:
        """Look whether all tensors are as they were when they were laid out, and remember the gradients.

        Args:
            gradients: Per slot its gradient, or None.

        Returns:
            One of `ALL`, `SOME` and `OTHER_CLOCKS` of `backends.taking`, or 1 + the number of a slot whose tensors
            have to be laid out anew. Nothing has been changed in any case.
        """

    def step(self, gradients: Sequence[Any], workers: int) -> int:
        """Update weights, states and clocks of every slot that has a gradient.

        Args:
            gradients: As for `take`.
            workers: How many threads may share the work.

        Returns:
            What `take` returns; only for `ALL` and `SOME` has anything been changed, and then all of it.
        """

    def quick_step(self) -> Callable[..., int] | None:
        """A function that does `step` on one thread, given the gradients one by one; None where `step` is as quick."""

    def survey(self, workers: int) -> tuple[float, float, int]:
        """The norm of the gradients that were taken, times a scale; the scale; how many elements are not finite."""

    def within(self, limit: float) -> Any:
        """What keeps the norm of these tensors' gradients within a limit, for `scale`: see `stepping.Place`."""

    def squares(self) -> Any:
        """The sum of squares of the gradients that were taken, as a tensor on their device that nobody has waited for.

        It is finite if, and only if, all gradients are. None where only `survey` can tell.
        """

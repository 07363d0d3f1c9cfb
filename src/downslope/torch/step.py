"""One step: parameters laid out anew if something has changed, gradients surveyed if all count, kernels launched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from downslope.backends.launch import Launch
from downslope.rule import Rule
from downslope.torch.gradients import (
    check_agreed,
    describe_nonfinite,
    factor_within,
    norm_and_nonfinite,
    squares_on_device,
)
from downslope.torch.launch import Storage
from downslope.torch.layout import Layout, lay_out, worst_of
from downslope.torch.points import follow
from downslope.torch.progress import Progress
from downslope.torch.scaling import Scaling
from downslope.torch.settings import Group, Reader, Shared
from downslope.torch.whole import refuse_one_by_one
from downslope.training.groups import NonFiniteGradientError

Tensor = torch.Tensor
State = dict[Tensor, dict[str, Any]]
_ATTEMPTS = 5


class Verdict(NamedTuple):
    """What becomes of a step.

    Attributes:
        factor: What gradients are multiplied by.
        left_out: A number of their device's that is not 0 if the step is left out; None if it is not.
    """

    factor: float | Tensor
    left_out: Tensor | None


@dataclass(frozen=True)
class Step:
    """A step of an optimizer.

    Attributes:
        progress: Where the optimizer is.
        choose: The rule of a group.
        options: What holds for the whole optimizer.
        storage: How states are kept.
        nonfinite: What to do when a gradient holds nan or infinity.
        workers: How many threads may share a launch.
        all_groups: All groups of the optimizer.
        scaling: What it is told of scales, and of whether it counts.
    """

    progress: Progress
    choose: Callable[[Group], Rule]
    options: Shared
    storage: Storage
    nonfinite: str
    workers: int
    all_groups: Sequence[Group]
    scaling: Scaling

    def take(self, key: Tensor | None, groups: list[Group], state: State) -> Layout | None:
        """Take the step.

        Args:
            key: What the layout is kept under: None for all parameters, else the one that is updated by itself.
            groups: The groups with the parameters to update.
            state: Their states; new ones are put in.

        Returns:
            The layout of what has been updated; None if the step is left out.

        Raises:
            NonFiniteGradientError: A gradient holds nan or infinity, and `nonfinite` is "raise".
            ValueError: Processes that share out a tensor which has to be whole do not all have a gradient of it.
            RuntimeError: Other threads changed something again and again.
        """
        layout = self._current(key, groups, state)
        if key is None:  # else the gradient has just arrived, and others may have another that has
            check_agreed(layout.gathered, layout.params, layout.names)
        gradients = layout.gradients()
        surveys = self.options.max_norm is not None or self.nonfinite != "keep"
        verdict = None if surveys else Verdict(self._scale_of(layout.launches), self.scaling.left_out)
        for attempt in range(_ATTEMPTS):
            trouble = 0
            if verdict is None:  # once in a step, since other processes may be waiting for this one's part
                trouble = worst_of(layout.take(gradients))
                if not trouble:
                    verdict = self._survey(layout.launches)
                    if verdict is None:
                        self.progress.skipped += 1
                        return None
            if verdict is not None:
                self.progress.prepare(verdict.left_out)
                trouble = layout.step(gradients, verdict.factor, self.workers, verdict.left_out)
            if not trouble:
                if verdict is not None:
                    self.progress.note(verdict.left_out)
                return layout
            if trouble == 2 and not (attempt == 0 and layout.ready(gradients)):
                layout = self._laid_out(key, groups, state)
                gradients = layout.gradients()
                layout.ready(gradients)
        raise RuntimeError("parameters, gradients or states changed again and again while they were being checked")

    def _current(self, key: Tensor | None, groups: list[Group], state: State) -> Layout:
        """The layout of the parameters as they are now, with the settings of the groups as they are now."""
        layout = self.progress.layouts.get(key)
        if layout is None or not layout.holds(groups, state, self.scaling.scaled):
            layout = self._laid_out(key, groups, state)
        settings = layout.read(groups)
        if self.options.stored_ahead:
            for group, wanted in zip(groups, settings, strict=True):
                if wanted.rule.ahead is not None:
                    follow(group, state, wanted)
        if not layout.adopt(settings, self.scaling.number):
            return self._laid_out(key, groups, state)
        return layout

    def _laid_out(self, key: Tensor | None, groups: list[Group], state: State) -> Layout:
        self.progress.layouts.pop(key, None)
        readers = [Reader(group, self.choose, self.options, self.scaling.scaled) for group in groups]
        first = 0 if key is None else [id(p) for group in self.all_groups for p in group["params"]].index(id(key))
        layout = self.progress.layouts[key] = lay_out(groups, state, readers, self.scaling.scaled, self.storage, first)
        if key is not None:
            refuse_one_by_one(launch.program for launch in layout.launches)
        layout.settle(layout.settings, self.scaling.number)
        return layout

    def _scale_of(self, launches: Sequence[Launch]) -> float | Tensor:
        """The scale; as a number for programs that do more with it than to multiply gradients by it."""
        return self.scaling.scale if all(launch.scaled_there for launch in launches) else float(self.scaling.scale)

    def _survey(self, launches: Sequence[Launch]) -> Verdict | None:
        """What becomes of the step after a look at all gradients; None if the host knows that it is left out."""
        limit, scale = self.options.max_norm, self._scale_of(launches)
        counted = any(launch.counted for launch in launches)
        told = self.nonfinite == "raise" or (self.nonfinite == "skip" and counted)
        if not told and (limit is None or all(launch.scaled_there for launch in launches)):
            if self._alone(launches) and limit is not None and not isinstance(scale, Tensor) and scale == 1:
                factor = launches[0].within(limit)
                if factor is not None:
                    return Verdict(factor, self.scaling.left_out)
            squares = squares_on_device(launches)
            if squares is not None:
                left_out = self.scaling.left_out
                if self.nonfinite == "skip":
                    bad = ~squares.isfinite()
                    left_out = bad if left_out is None else bad | (left_out.to(bad.device).reshape(()) != 0)
                return Verdict(scale if limit is None else factor_within(squares, limit, scale), left_out)
        norm, bad_elements = norm_and_nonfinite(launches, self.workers)
        if bad_elements and self.nonfinite == "raise":
            raise NonFiniteGradientError(
                f"nan or infinity in {describe_nonfinite(self.all_groups)}; nothing was changed. A lower learning "
                "rate or max_norm=... may help; nonfinite='skip' leaves such steps out"
            )
        if bad_elements and self.nonfinite == "skip":
            return None
        return Verdict(scale if limit is None or norm * float(scale) <= limit else limit / norm, self.scaling.left_out)

    def _alone(self, launches: Sequence[Launch]) -> bool:
        """Whether one launch has all gradients, and nothing is asked of them but their norm."""
        return len(launches) == 1 and not launches[0].mesh and self.nonfinite == "keep"

"""One step: parameters laid out anew if something has changed, gradients surveyed if all count, kernels launched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from downslope.backends.launch import Launch
from downslope.rule import Rule
from downslope.torch.gradients import describe_nonfinite, factor_on_device, norm_and_nonfinite
from downslope.torch.launch import Storage
from downslope.torch.layout import Layout, lay_out, worst_of
from downslope.torch.points import follow
from downslope.torch.progress import Progress
from downslope.torch.settings import Group, Reader, Shared
from downslope.training.groups import NonFiniteGradientError

Tensor = torch.Tensor
State = dict[Tensor, dict[str, Any]]
_ATTEMPTS = 5


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
        scale: What gradients are multiplied by before anything else.
        scaled: Whether they are multiplied at all, by this or to be clipped.
    """

    progress: Progress
    choose: Callable[[Group], Rule]
    options: Shared
    storage: Storage
    nonfinite: str
    workers: int
    all_groups: Sequence[Group]
    scale: float
    scaled: bool

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
            RuntimeError: Other threads changed something again and again.
        """
        layout = self._current(key, groups, state)
        gradients = layout.gradients()
        surveys = self.options.max_norm is not None or self.nonfinite != "keep"
        factor: float | Tensor | None = None if surveys else self.scale
        for attempt in range(_ATTEMPTS):
            trouble = 0
            if factor is None:  # once in a step, since other processes may be waiting for this one's part
                trouble = worst_of(layout.take(gradients))
                if not trouble:
                    factor = self._survey(layout.launches)
                    if factor is None:
                        self.progress.skipped += 1
                        return None
            if factor is not None:
                trouble = layout.step(gradients, factor, self.workers)
            if not trouble:
                return layout
            if trouble == 2 and not (attempt == 0 and layout.ready(gradients)):
                layout = self._laid_out(key, groups, state)
                gradients = layout.gradients()
                layout.ready(gradients)
        raise RuntimeError("parameters, gradients or states changed again and again while they were being checked")

    def _current(self, key: Tensor | None, groups: list[Group], state: State) -> Layout:
        """The layout of the parameters as they are now, with the settings of the groups as they are now."""
        layout = self.progress.layouts.get(key)
        if layout is None or not layout.holds(groups, state, self.scaled):
            layout = self._laid_out(key, groups, state)
        settings = layout.read(groups)
        if self.options.stored_ahead:
            for group, wanted in zip(groups, settings, strict=True):
                if wanted.rule.ahead is not None:
                    follow(group, state, wanted)
        if not layout.adopt(settings, self.scale):
            return self._laid_out(key, groups, state)
        return layout

    def _laid_out(self, key: Tensor | None, groups: list[Group], state: State) -> Layout:
        self.progress.layouts.pop(key, None)
        readers = [Reader(group, self.choose, self.options, self.scaled) for group in groups]
        first = 0 if key is None else [id(p) for group in self.all_groups for p in group["params"]].index(id(key))
        layout = self.progress.layouts[key] = lay_out(groups, state, readers, self.scaled, self.storage, first)
        layout.settle(layout.settings, self.scale)
        return layout

    def _survey(self, launches: list[Launch]) -> float | Tensor | None:
        """What to multiply gradients with after a look at all of them; None for a step to be left out."""
        limit = self.options.max_norm
        if self.nonfinite == "keep" and limit is not None:
            factor = factor_on_device(launches, limit, self.scale)
            if factor is not None:
                return factor
        norm, bad = norm_and_nonfinite(launches, self.workers)
        if bad and self.nonfinite == "raise":
            raise NonFiniteGradientError(
                f"nan or infinity in {describe_nonfinite(self.all_groups)}; nothing was changed. A lower learning "
                "rate or max_norm=... may help; nonfinite='skip' leaves such steps out"
            )
        if bad and self.nonfinite == "skip":
            return None
        return self.scale if limit is None or norm * self.scale <= limit else limit / norm

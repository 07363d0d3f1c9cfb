"""What gradients are multiplied by, and whether a step counts, where a gradient scaler leaves both to the step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch

from downslope.torch import settings
from downslope.torch.settings import Group

Tensor = torch.Tensor


class Scaling(NamedTuple):
    """What a step is told.

    Attributes:
        scale: What gradients are multiplied by before anything else: a number, or a tensor where devices count steps.
        scaled: Whether they are multiplied at all, by this or to be clipped.
        left_out: What a device has that counts steps: a number that is not 0 if this one is to be left out.
    """

    scale: float | Tensor
    scaled: bool
    left_out: Tensor | None

    @property
    def number(self) -> float:
        """The scale to begin with, if it is a number; what is a tensor comes with the step itself."""
        return 1.0 if isinstance(self.scale, Tensor) else self.scale


def scaling(optimizer: Mapping[str, Any], groups: Iterable[Group], *, clipped: bool, raises: bool) -> Scaling | None:
    """What a step is told; None if it is left out, which the host then knows.

    Args:
        optimizer: The attributes of the optimizer: a scaler sets `found_inf` and `grad_scale` for the length of a step.
        groups: The groups of the step.
        clipped: Whether gradients may be multiplied to be clipped.
        raises: Whether the host looks at the gradients, and so has to know what it is told before it does.
    """
    found_inf, grad_scale = optimizer.get("found_inf"), optimizer.get("grad_scale")
    scaled = clipped or grad_scale is not None
    told = [each for each in (found_inf, grad_scale) if each is not None]
    if told and not raises and all(map(settings.recorded, groups)) and not any(map(settings.in_main_memory, told)):
        scale = 1.0 if grad_scale is None else grad_scale.detach().double().reciprocal().reshape(())
        return Scaling(scale, scaled, found_inf)
    if found_inf is not None and float(found_inf):
        return None
    return Scaling(1.0 if grad_scale is None else 1.0 / float(grad_scale), scaled, None)

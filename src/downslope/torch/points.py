"""From the weights to the point ahead of them where a gradient is to be taken, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch._compile import _disable_dynamo

from downslope.torch.settings import PLACED, Group, GroupSettings

Tensor = torch.Tensor


def placing(settings: GroupSettings) -> dict[str, float]:
    """The hyperparameters that the point ahead depends on; none for a rule without a look-ahead."""
    ahead = settings.chosen.ahead
    return {name: settings.numbers[name] for name in ahead.scalars if name in settings.numbers} if ahead else {}


def placed(group: Group, settings: GroupSettings) -> GroupSettings:
    """The settings by which a group's points ahead were placed: its own may have changed since its last step."""
    return replace(settings, numbers={**settings.numbers, **(group.get(PLACED) or {})})


def at_weights(group: Group) -> bool:
    """Whether the parameters of a group hold the weights themselves where they could hold the point ahead."""
    return PLACED in group and group[PLACED] is None


def refuse_at_weights(groups: Iterable[Group], what: str) -> None:
    """Refuse to do something while parameters hold the weights themselves.

    Raises:
        RuntimeError: They do.
    """
    if any(map(at_weights, groups)):
        raise RuntimeError(
            f"{what}() after eval(): the parameters hold the weights themselves, not the points ahead. "
            "Call optimizer.train() before the forward pass; nothing was changed"
        )


def refuse_another_place(group: Group, settings: GroupSettings) -> None:
    """Refuse to go on with settings that would have the points ahead of a group elsewhere.

    Raises:
        RuntimeError: They would.
    """
    wanted = placing(settings)
    if group.setdefault(PLACED, wanted) != wanted:
        raise RuntimeError(
            f"the look-ahead was placed with {group[PLACED]} and should now be placed with {wanted}, but "
            "parameters cannot be moved in the middle of backward(); use the ordinary loop for this"
        )


@_disable_dynamo
def elsewhere(
    groups: Iterable[tuple[Group, GroupSettings]], state: Mapping[Tensor, Mapping[str, Any]], *, stored: bool
) -> dict[Tensor, Tensor]:
    """Where the parameters of groups with a look-ahead would be at what they do not hold in training.

    Args:
        groups: The groups, and their settings.
        state: The states, by parameter.
        stored: Whether they hold the point ahead in training, rather than the weights.
    """
    found: dict[Tensor, Tensor] = {}
    for group, settings in groups:
        if not (stored and at_weights(group)):
            by = placed(group, settings) if stored else settings
            found |= {p: point(p, state[p], by, to_weights=stored) for p in group["params"] if state.get(p)}
    return found


@torch.no_grad()
def move(
    groups: Iterable[tuple[Group, GroupSettings]], state: Mapping[Tensor, Mapping[str, Any]], *, to_weights: bool
) -> None:
    """Move the parameters of groups with a look-ahead to the weights themselves or to the point ahead, all or none.

    Where a point is recorded in the groups, so that a saved state says what the weights saved with it are.

    Raises:
        ValueError: A state has another shape than its parameter.
    """
    points: dict[Tensor, Tensor] = {}
    places: list[tuple[Group, dict[str, float] | None]] = []
    for group, settings in groups:
        if at_weights(group) is to_weights:
            continue
        places.append((group, None if to_weights else placing(settings)))
        for p in group["params"]:
            if state.get(p):
                points[p] = point(p, state[p], placed(group, settings), to_weights=to_weights)
                if points[p].shape != p.shape:
                    raise ValueError(f"a parameter of shape {tuple(p.shape)} has states of {tuple(points[p].shape)}")
    try:
        _write(points, places)
    finally:
        _write(points, places)  # what a signal has interrupted is finished


def _write(points: dict[Tensor, Tensor], places: list[tuple[Group, dict[str, float] | None]]) -> None:
    while points:
        p = next(iter(points))
        p.copy_(points[p])
        del points[p]
    while places:
        group, place = places[-1]
        group[PLACED] = place
        places.pop()


def in_place(group: Group, settings: GroupSettings) -> bool:
    """Whether points ahead that are stored in parameters are where a group's settings want them."""
    return not settings.chosen.stored_ahead or group.get(PLACED) == placing(settings)


@torch.no_grad()
def follow(group: Group, state: Mapping[Tensor, Mapping[str, Any]], settings: GroupSettings) -> None:
    """Move points ahead that are stored in parameters to where a group's settings now want them."""
    wanted = placing(settings)
    if group.setdefault(PLACED, wanted) == wanted:
        return
    before = placed(group, settings)
    for p in group["params"]:
        if state.get(p):
            weights = point(p, state[p], before, to_weights=True)
            p.copy_(point(p, state[p], settings, to_weights=False, x=weights))
    group[PLACED] = wanted


@torch.no_grad()
def point(
    p: Tensor, own: Mapping[str, Any], settings: GroupSettings, *, to_weights: bool, x: Tensor | None = None
) -> Tensor:
    """The weights from the point ahead of them, or the point from the weights.

    Args:
        p: The tensor that is trained.
        own: Its state.
        settings: The settings of its group, whose rule has a look-ahead.
        to_weights: Which way to go.
        x: Where to start instead of at what the parameter holds.
    """
    ahead = settings.chosen.ahead
    assert ahead is not None
    arrays = {"x": (p if x is None else x).detach()}
    arrays |= {name: own[name] for name in settings.program.states if name in own}
    body = torch.float64 if p.dtype in (torch.float64, torch.complex128) else torch.float32
    real = {name: torch.view_as_real(array) if array.is_complex() else array for name, array in arrays.items()}
    scalars = {**settings.numbers, "t": float(own["step"]) + 1}
    scalars |= {name: float(own[name]) for name in settings.program.scalar_states}
    states = {name: array.to(body) for name, array in real.items()}
    new = ahead.move(states.pop("x"), states, scalars, to_weights=to_weights, xp=torch)
    return (torch.view_as_complex(new) if p.is_complex() else new).to(p.dtype)

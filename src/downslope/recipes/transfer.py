"""Moving a training that was saved to another framework: other names, other axes, another dialect."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from downslope.dialects import DIALECTS
from downslope.language.options import CHOICES, NAMES
from downslope.language.program import fingerprint
from downslope.recipes.conversion import Conversion, carried, carried_scalars, convert
from downslope.recipes.recipe import Recipe
from downslope.rule import Rule
from downslope.training import checkpoint
from downslope.training.checkpoint import CheckpointError, Raw
from downslope.training.groups import Array, Clock, Group
from downslope.training.record import COMPUTED, clocks_in
from downslope.training.settings import Settings

Tensors = dict[str, dict[str, Raw]]
"""The tensors of a file, by what they are (`x`, a state, `lookahead`) and by parameter."""

_WIDTHS = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


def convert_file(
    source: str | Path,
    target: str | Path,
    *,
    to: str | None = None,
    names: Mapping[str, str] | None = None,
    axes: Mapping[str, Sequence[int] | None] | None = None,
    closest: bool = False,
    rule: Rule | None = None,
    **settings: float,
) -> tuple[Conversion, ...]:
    """Write a saved training anew, for another framework to go on from.

    Without `to` the rule stays as it is, which every front end of downslope can run: names and axes are all that has to
    change between frameworks. With it rule, hyperparameters and states become those of another dialect.

    Args:
        source: A file that a front end saved.
        target: The file to write; may be the same.
        to: The dialect to convert to.
        names: New names of parameters, by those in the file; the rest keep theirs.
        axes: New orders of axes, as for `numpy.transpose`, by the names in the file: `(1, 0)` for the kernel of a dense
            layer between Keras and PyTorch; None reverses them. Weights and states are turned alike, so axis 0 stays
            where it is for a rule that has a state of one value for each row or column.
        closest: Convert also where the training would not go on along the same path.
        rule: The rule of the file, if it is your own.
        **settings: Hyperparameters to take instead of those in the file, such as the value of a schedule.

    Returns:
        What became of the rule of each parameter group; nothing without `to`.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, not downslope's, or of a rule that is not known here.
        TypeError: A setting is of the wrong kind, or given without `to`.
        ValueError: A name is unknown or would be there twice, axes do not fit or would turn states of rows into some
            of columns, there is no such dialect, or the conversion is not exact and `closest` was not given. In every
            case nothing is written.
        OSError: The file cannot be written.

    Example:
        >>> import pathlib, tempfile, numpy as np, downslope
        >>> from downslope import dialects
        >>> file = pathlib.Path(tempfile.mkdtemp(), "training.safetensors")
        >>> W = np.ones((2, 3))
        >>> optimizer = downslope.Optimizer({"dense/kernel": W}, dialects.keras.adadelta)
        >>> optimizer.step({"dense/kernel": np.ones((2, 3))})
        >>> optimizer.save(file)
        >>> (done,) = downslope.convert_file(
        ...     file, file, to="torch", names={"dense/kernel": "0.weight"}, axes={"dense/kernel": (1, 0)}
        ... )
        >>> done.recipe
        Recipe(dialects.torch.adadelta, lr=0.001, rho=0.95, eps=1e-7)
        >>> later = downslope.Optimizer({"0.weight": np.zeros((3, 2))}, dialects.torch.adadelta)
        >>> later.load(file)
    """
    if to is None and (settings or rule is not None or closest):
        raise TypeError("settings, rule and closest say how to convert to another dialect; give to=... as well")
    raw, record = checkpoint.read_raw(Path(source))
    tensors: Tensors = {}
    for key, tensor in raw.items():
        what, _, name = key.partition("/")
        tensors.setdefault(what, {})[name] = tensor
    _check_groups(source, record, set(tensors.get("x", {})))
    found = [] if to is None else _convert(tensors, record, to, rule, settings, closest)
    known = set(tensors.get("x", {}))
    for argument, given in (("names", names or {}), ("axes", axes or {})):
        if unknown := [name for name in given if name not in known]:
            raise ValueError(
                f"{argument} has {unknown[0]!r}, which is not in the file; it has {', '.join(sorted(known))}"
            )
    _turn(tensors, record, axes or {})
    _rename(tensors, record, names or {})
    flat = {f"{what}/{name}": tensor for what, by_name in tensors.items() for name, tensor in by_name.items()}
    checkpoint.write(Path(target), flat, record)
    return tuple(found)


def _check_groups(source: str | Path, record: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse a file whose groups are not records, or not of its parameters."""
    groups = record.get("groups")
    if not isinstance(groups, list) or not groups or not all(isinstance(group, dict) for group in groups):
        raise CheckpointError(f"{source}: the groups in the file are {groups!r:.200}; expected records")
    for group in groups:
        names = group.get("names")
        if not isinstance(names, list) or not all(isinstance(name, str) and name in known for name in names):
            raise CheckpointError(f"{source}: a group's names are {names!r:.200}; expected parameters of the file")
        for key in ("flags", "options", "hyperparameters", "scalar_states"):
            if not isinstance(found := group.get(key, record.get(key)), dict):
                raise CheckpointError(f"{source}: a group's {key} are {found!r:.200}; expected values by name")


def _turn(tensors: Tensors, record: Mapping[str, Any], axes: Mapping[str, Sequence[int] | None]) -> None:
    pairs = {name for group in record["groups"] for name in group.get("complex", [])}
    for what, by_name in tensors.items():
        for name in by_name.keys() & axes.keys():
            raw, order = by_name[name], axes[name]
            if what != "x" and _is_square(what, name, tensors, record):
                rank = len(tensors["x"][name].shape)
                if order is None or list(order) != list(range(rank)):
                    raise ValueError(
                        f"axes[{name!r}]={order}: {what} of {_group_of(name, record)['rule']} has one value for each "
                        f"pair of rows or columns of {name!r}, which are other ones when it is turned; begin anew there"
                    )
                continue
            rank = len(raw.shape) - (name in pairs)
            order = tuple(range(rank))[::-1] if order is None else tuple(order)
            if sorted(order) != list(range(rank)):
                raise ValueError(
                    f"axes[{name!r}]={order}: the shape is {raw.shape[:rank]}, so give the numbers "
                    f"{', '.join(map(str, range(rank)))} in their new order"
                )
            pieces = next(group for group in record["groups"] if name in group["names"]).get("pieces")
            if pieces and isinstance(pieces, dict) and order[:2] != (0, 1):
                raise ValueError(
                    f"axes[{name!r}]={order}: {name!r} is divided into pieces along its axis {pieces.get('axis')}, "
                    "which would be another one then; keep axes 0 and 1 first"
                )
            if what != "x" and order[:1] not in ((), (0,)) and _is_narrow(what, name, tensors, record):
                raise ValueError(
                    f"axes[{name!r}]={order}: {what} of {_group_of(name, record)['rule']} has one value for each row "
                    f"or column of {name!r}, and turned it would be one of the other, which the rule does not go on "
                    "from; keep axis 0 first, or begin anew where the weights are turned"
                )
            array = raw.data.view(f"u{_WIDTHS[raw.dtype]}").reshape(raw.shape)
            turned = np.ascontiguousarray(array.transpose(*order, *range(rank, len(raw.shape))))
            by_name[name] = Raw(raw.dtype, turned.shape, turned.reshape(-1).view(np.uint8))


def _group_of(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """What is computed for a parameter."""
    group = next(group for group in record["groups"] if name in group["names"])
    return {key: group.get(key, record.get(key)) for key in COMPUTED}


def _is_narrow(state: str, name: str, tensors: Tensors, record: Mapping[str, Any]) -> bool:
    """Whether a state has one value for each row or column; its shape says so where the rule is not known."""
    computed = _group_of(name, record)
    if not (fitting := _fitting(computed)):
        return tensors[state][name].shape != tensors["x"][name].shape
    return state in Settings.of(fitting[0], computed["flags"]).program.spaces


def _is_square(state: str, name: str, tensors: Tensors, record: Mapping[str, Any]) -> bool:
    """Whether a state has one value for each pair of rows or columns; its shape says so where the rule is not known."""
    computed, shapes = _group_of(name, record), [tensors[what][name].shape for what in (state, "x")]
    if not (fitting := _fitting(computed)):
        return len(shapes[0]) != len(shapes[1]) or (shapes[0] != shapes[1] and shapes[0][0] == shapes[0][-1] > 1)
    spaces = Settings.of(fitting[0], computed["flags"]).program.spaces
    return state in spaces and spaces[state].is_square


def _rename(tensors: Tensors, record: dict[str, Any], names: Mapping[str, str]) -> None:
    def new(name: str) -> str:
        return names.get(name, name)

    seen: dict[str, str] = {}
    for name in tensors.get("x", {}):
        if not isinstance(new(name), str) or not new(name):
            raise ValueError(f"names[{name!r}]={names[name]!r}: give the new name")
        if (other := seen.setdefault(new(name), name)) != name:
            raise ValueError(f"names would call both {other!r} and {name!r} {new(name)!r}; names must differ")
    for what, by_name in tensors.items():
        tensors[what] = {new(name): raw for name, raw in by_name.items()}
    for group in record["groups"]:
        for key in ("names", "complex"):
            if key in group:
                group[key] = [new(name) for name in group[key]]
    if "clocks" in record:
        record["clocks"] = {new(name): clock for name, clock in record["clocks"].items()}


def _convert(
    tensors: Tensors, record: dict[str, Any], to: str, rule: Rule | None, settings: Mapping[str, Any], closest: bool
) -> list[Conversion]:
    """Convert the tensors and the record of a file, group by group."""
    clocks = clocks_in(record, record["groups"])
    found = []
    for group in record["groups"]:
        computed = {key: group.get(key, record.get(key)) for key in COMPUTED}
        own = _recipe(computed, group, rule, settings)
        t = max((clocks[name].t for name in group["names"]), default=0)
        empty: dict[str, Any] = {state: {} for state in own.program.states}
        conversion = convert(own, to, states=empty, t=t) if t else convert(own, to)
        recipe = conversion.recipe
        if recipe is None or not (conversion.exact or closest):
            hint = "" if recipe is None else ", or give closest=True to convert all the same"
            raise ValueError(f"{conversion} Leave out to={to!r} to keep the rule, which every front end runs{hint}.")
        _carry(tensors, group["names"], own, recipe, clocks)
        _describe(group, record, computed, own, recipe, t)
        found.append(conversion)
    for key in COMPUTED:
        record[key] = record["groups"][0][key]
        for group in record["groups"]:
            if group[key] == record[key]:
                del group[key]
    ahead = [group.pop("lookahead") for group in record["groups"]]
    record.pop("lookahead", None)
    if any(ahead):
        record["lookahead"] = ahead
    return found


def _recipe(
    computed: Mapping[str, Any], group: Mapping[str, Any], own: Rule | None, settings: Mapping[str, Any]
) -> Recipe:
    """The recipe of a group, its rule found by the fingerprint of the formula."""
    options, flags = computed["options"], computed["flags"]
    if not (fitting := _fitting(computed, own)):
        raise CheckpointError(
            f"no rule of downslope has the formula of the file's {computed['rule']!r} with flags {flags} and options "
            f"{options}; give your own as rule=..."
            if own is None
            else f"rule={own!r} has not the formula of the file's {computed['rule']!r} with flags {flags}"
        )
    if fixed := [name for name in settings if name in CHOICES or name in flags]:
        raise TypeError(f"{fixed[0]}={settings[fixed[0]]!r}: the file settles this; only numbers can be given")
    numbers = {name: value for name, value in group["hyperparameters"].items() if name != "averaging"}
    numbers.update(settings)
    for name, value in numbers.items():
        if value is None:
            raise ValueError(f"{name} followed a schedule, and the file has no value of it; give it, as in {name}=0.01")
    return Recipe(fitting[0], **numbers, **flags, **{name: options[name] for name in CHOICES})


def _fitting(computed: Mapping[str, Any], own: Rule | None = None) -> list[Rule]:
    """The rules with the formula of a group: of those that are known here, or a rule of one's own."""
    known = [own] if own else [rule for dialect in DIALECTS.values() for rule in dialect.rules.values()]
    named = [rule for rule in known if own or rule.name == computed["rule"]]
    options, flags = computed["options"], computed["flags"]
    return [rule for rule in named if _fingerprint(rule, options, flags) == computed["formula"]]


def _fingerprint(rule: Rule, options: Mapping[str, bool], flags: Mapping[str, bool]) -> str | None:
    """The fingerprint of a rule's formula; None if it does not take these flags and options."""
    if rule.flags.keys() != flags.keys():
        return None
    if not options.keys() <= set(NAMES):
        return None
    try:
        return fingerprint(Settings.of(rule, flags, [name for name in options if options[name]]).program)
    except (TypeError, ValueError):
        return None


def _describe(
    group: dict[str, Any], record: dict[str, Any], computed: Mapping[str, Any], own: Recipe, recipe: Recipe, t: int
) -> None:
    """Write the new recipe into the record of a group and the clocks of its parameters."""
    options = {**computed["options"], **recipe.options, "weight_decay": recipe.decayed}
    kept = {name: value for name, value in group["hyperparameters"].items() if name == "averaging"}
    clocks = [record["clocks"][name] for name in group["names"] if name in record.get("clocks", {})]
    for part, steps in [(group, t), *((clock, clock["t"]) for clock in clocks)]:
        scalars = {name: float(value) for name, value in part["scalar_states"].items()}
        part["scalar_states"] = carried_scalars(own, recipe, scalars, steps)
    group.update(
        rule=recipe.rule.name,
        flags=dict(recipe.flags),
        options=options,
        formula=_fingerprint(recipe.rule, options, recipe.flags),
        hyperparameters={**recipe.numbers, **kept},
        lookahead=[] if recipe.rule.ahead is None else list(_point_scalars(recipe, group["scalar_states"], t).values()),
    )


def _carry(tensors: Tensors, names: Sequence[str], own: Recipe, recipe: Recipe, clocks: Mapping[str, Clock]) -> None:
    """Convert the states of parameters, and the weights if gradients are taken elsewhere than there."""
    mine = {name: {state: tensors.get(state, {}).pop(name, None) for state in own.program.states} for name in names}
    for name in names:
        t, scalars = clocks[name].t, clocks[name].scalar_states
        states = {state: raw.numbers() for state, raw in mine[name].items() if raw is not None}
        x = tensors["x"][name]
        missing = [state for state in own.program.states if state not in states]
        if missing and (states or t):
            raise CheckpointError(
                f"the file has no {missing[0]} of {name!r}, which has done {t} step(s); use another file"
            )
        new: dict[str, Array] = {}
        if not missing and (states or t):
            new = carried(own, recipe, states, t, like=x.numbers())
            dtype = next((raw.dtype for raw in mine[name].values() if raw is not None), x.dtype)
            for state, array in new.items():
                tensors.setdefault(state, {})[name] = Raw.rounded(array, dtype)
        if own.rule.ahead is recipe.rule.ahead:
            continue
        point = tensors.get("lookahead", {}).pop(name, None)
        if own.rule.ahead is not None:
            scalar_values = _point_scalars(own, scalars, t)
            point = point or Raw.rounded(_moved(own, x.numbers(), states, scalar_values, to_weights=False), x.dtype)
            tensors["x"][name] = point
        if recipe.rule.ahead is not None:
            its = _point_scalars(recipe, carried_scalars(own, recipe, scalars, t), t)
            tensors.setdefault("lookahead", {})[name] = x
            tensors["x"][name] = Raw.rounded(_moved(recipe, x.numbers(), new, its, to_weights=True), x.dtype)
    for what in [what for what, by_name in tensors.items() if not by_name]:
        del tensors[what]


def _point_scalars(recipe: Recipe, scalar_states: Mapping[str, float], t: int) -> dict[str, float]:
    """What the point ahead depends on besides weights and states, for the step after `t`."""
    ahead = recipe.chosen.ahead
    assert ahead is not None
    values = Group(recipe.chosen, [], recipe.numbers).ahead_scalars(Clock(t, scalar_states))
    return dict(zip(ahead.scalars, values, strict=True))


def _moved(
    recipe: Recipe, x: Array, states: Mapping[str, Array], scalars: Mapping[str, float], *, to_weights: bool
) -> Array:
    """The point ahead of the weights, or the weights from the point; the weights themselves before the first step."""
    ahead = recipe.chosen.ahead
    if ahead is None or len(states) < len(recipe.program.states):
        return x
    moved: Array = ahead.move(x, states, scalars, to_weights=to_weights)
    return moved

"""Parameter groups with a rule of their own: `{"params": matrices, "rule": downslope.muon, "lr": 0.02}`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch.optim import optimizer as torch_optimizer

from downslope.dialects import DIALECTS
from downslope.language.options import NUMBERS
from downslope.rule import Rule
from downslope.torch.settings import CARRIED, Group
from downslope.training.checks import check_rule

FOR_ALL = ("maximize", *CARRIED)
"""What groups have besides the hyperparameters of their rule, unless they say otherwise."""


def rule_of(group: Mapping[str, Any], usual: Rule | None) -> Rule:
    """The rule of a group: its own, else the one of the whole optimizer.

    Raises:
        TypeError: There is none, or it is something else.
    """
    rule = group.get("rule", usual)
    if rule is None:
        raise TypeError(
            "a parameter group has no rule, and there is none for the whole optimizer; give the group one, such as "
            "{'params': ..., 'rule': downslope.adamw}, or the optimizer"
        )
    return check_rule(rule)


def beginning(rule: Rule, usual: Rule | None, defaults: Group, options: Collection[str]) -> Group:
    """What a group has where it says nothing.

    Args:
        rule: Its rule. If that is its own, it begins with that rule's defaults: what the optimizer was given for its
            own rule is not meant for another one.
        usual: The rule of the whole optimizer.
        defaults: What a group has of that rule.
        options: The names of the options around all rules, which are meant for all groups. A weight decay that a group
            brought is among them and not in `defaults`: it is 0 for the other rules, unless they have one themselves.
    """
    numbers = [name for name in NUMBERS if name in options]
    if rule is usual:
        return defaults | {name: 0.0 for name in numbers if name not in defaults}
    own = {**rule.hyperparameters, **rule.flags}
    found = {name: torch_optimizer.required if value is None else value for name, value in own.items()}
    taken = () if usual is None else (*usual.hyperparameters, *usual.flags)
    for name in numbers:
        own_value = found.get(name, 0.0)
        found[name] = own_value if name in taken else defaults.get(name, own_value)
    return found | {name: defaults[name] for name in FOR_ALL if name in defaults}


def put_names(optimizer: Any, found: Mapping[str, Any]) -> None:
    """Put the name of every group's rule into a state_dict, if there are groups with rules of their own."""
    if any("rule" in group for group in optimizer.param_groups):
        for saved, group in zip(found["param_groups"], optimizer.param_groups, strict=True):
            saved["rule"] = rule_of(group, optimizer.rule).name


def refuse_another(k: int, saved: Mapping[str, Any], group: Group, usual: Rule | None) -> Group:
    """A saved group without its rule, which is made sure to be that of the group here.

    Raises:
        ValueError: It is another one.
    """
    theirs, own = saved.get("rule"), rule_of(group, usual)
    if theirs is not None and theirs != own.name:
        raise ValueError(
            f"group {k} of the state_dict was trained by {theirs}, that of this optimizer is by {own.name}, which "
            "would take its states for something else; give it that rule, or load another state_dict"
        )
    return _in_parts(k, {name: value for name, value in saved.items() if name != "rule"}, group, own)


def _in_parts(k: int, saved: Group, group: Group, rule: Rule) -> Group:
    """A saved group of `torch.optim`, its pairs under the names that the group here has for their parts.

    Raises:
        ValueError: What is a pair here is none there, or the other way round.
    """
    refuse_pairs(k, saved, rule)
    for pair, names in DIALECTS["torch"].pairs.items():
        here = all(name in group and name in rule.hyperparameters for name in names)
        if here and pair in saved and not any(name in saved for name in names):
            values = saved[pair]
            if not isinstance(values, (tuple, list)) or len(values) != len(names):
                raise ValueError(
                    f"group {k} of the state_dict has {pair}={values!r:.60}; {rule.name} has {' and '.join(names)} in "
                    "its place, and was not what trained it. Load it into an optimizer with the rule that did"
                )
            numbers = zip(names, values, strict=True)
            saved |= {name: rule.hyperparameters[name] if value is None else value for name, value in numbers}
            if pair not in group:
                del saved[pair]
    return saved


def refuse_pairs(k: int, saved: Mapping[str, Any], rule: Rule) -> None:
    """Refuse a saved group in which a pair stands for what is one number in a rule.

    Raises:
        ValueError: It is such a group.
    """
    for pair, names in DIALECTS["torch"].pairs.items():
        if pair in rule.hyperparameters and isinstance(saved.get(pair), (tuple, list)):
            raise ValueError(
                f"group {k} of the state_dict has {pair}={saved[pair]!r:.60}, of a rule with {' and '.join(names)}; "
                f"{rule.name} has one {pair}, and was not what trained it. Load it into an optimizer with the rule "
                "that did"
            )

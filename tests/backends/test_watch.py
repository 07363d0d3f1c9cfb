"""A watch over lists and dicts: any change in what they hold is seen, and nothing else is taken for one."""

import numpy as np
import pytest

from downslope.backends.watch import Watch


class Own(dict):
    pass


def watched():
    groups = [{"lr": 0.1, "params": [object(), object()]}, {"lr": 0.2, "params": [object()]}]
    state = Own({p: {"m": object(), "step": object()} for group in groups for p in group["params"]})
    return groups, state, Watch([groups, state, *groups, *(g["params"] for g in groups), *state.values()])


def test_what_has_not_changed_is_unchanged_however_often_it_is_asked():
    groups, state, watch = watched()
    assert [watch.unchanged(groups, state) for _ in range(3)] == [1, 1, 1]
    groups[0]["lr"], groups[1]["lr"] = groups[1]["lr"], groups[0]["lr"]
    assert watch.unchanged(groups, state) == 0
    groups[0]["lr"], groups[1]["lr"] = groups[1]["lr"], groups[0]["lr"]
    assert watch.unchanged(groups, state) == 1


def renamed(group):
    value = group.pop("lr")
    group["LR"] = value


def moved_to_the_end(group):
    group["lr"] = group.pop("lr")


CHANGES = {
    "a value": lambda g, s: g[0].update(lr=0.3),
    "a value that is equal": lambda g, s: g[0].update(lr=np.float64(0.1)),
    "a key": lambda g, s: renamed(g[1]),
    "the order": lambda g, s: moved_to_the_end(g[1]),
    "one more entry": lambda g, s: g[1].update(more=1),
    "one entry less": lambda g, s: g[0].pop("lr"),
    "a list of other objects": lambda g, s: g[0]["params"].reverse(),
    "a longer list": lambda g, s: g[0]["params"].append(object()),
    "a shorter list": lambda g, s: g[1]["params"].clear(),
    "another list of the same": lambda g, s: g[1].update(params=list(g[1]["params"])),
    "a group less": lambda g, s: g.pop(),
    "a state": lambda g, s: s[g[1]["params"][0]].update(m=object()),
    "the states of a parameter": lambda g, s: s.update({g[1]["params"][0]: dict(s[g[1]["params"][0]])}),
    "no states": lambda g, s: s.clear(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_seen(change):
    groups, state, watch = watched()
    change(groups, state)
    assert watch.unchanged(groups, state) == 0


def test_other_containers_that_hold_the_same_are_others():
    groups, state, watch = watched()
    assert watch.unchanged(list(groups), state) == 0
    assert watch.unchanged(groups, Own(state)) == 0


def test_what_was_there_is_kept_so_that_nothing_takes_its_place():
    for _ in range(200):
        groups, state, watch = watched()
        groups[0]["params"][0] = None
        groups[0]["params"][0] = object()  # a freed object's memory is the first to be used again
        assert watch.unchanged(groups, state) == 0

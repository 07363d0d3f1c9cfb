import collections
import collections.abc

import numpy as np
import pytest

import downslope
from downslope import Optimizer
from snapshot import refused

# The layouts of params, and of gradients like them

LAYOUTS = {
    "an array": lambda a, b: a,
    "a list": lambda a, b: [a, b],
    "a tuple": lambda a, b: (a, b),
    "a dict": lambda a, b: {"a": a, "b": b},
    "groups of arrays": lambda a, b: [{"params": a}, {"params": b}],
    "groups of lists": lambda a, b: [{"params": [a]}, {"params": [b]}],
    "groups of dicts": lambda a, b: [{"params": {"a": a}}, {"params": {"b": b}}],
    "a group": lambda a, b: [{"params": [a, b]}],
}
GRADIENTS_OF_GROUPS = {
    "groups of arrays": lambda a, b: [a, b],
    "groups of lists": lambda a, b: [[a], [b]],
    "groups of dicts": lambda a, b: [{"a": a}, {"b": b}],
    "a group": lambda a, b: [[a, b]],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_laid_out_like_params(layout):
    a, b = np.zeros((2, 3)), np.zeros(4)
    optimizer = Optimizer(LAYOUTS[layout](a, b), downslope.sgd, lr=1.0)
    optimizer.step(GRADIENTS_OF_GROUPS.get(layout, LAYOUTS[layout])(np.ones((2, 3)), np.full(4, 2.0)))
    np.testing.assert_array_equal(a, -1)
    if layout != "an array":
        np.testing.assert_array_equal(b, -2)


def test_arrays_without_names_are_numbered_through_all_groups():
    arrays = [np.zeros(k) for k in range(1, 5)]
    optimizer = Optimizer([{"params": arrays[:2]}, {"params": arrays[2]}, {"params": arrays[3:]}], downslope.sgd)
    assert list(optimizer.params) == ["0", "1", "2", "3"]
    assert all(found is given for found, given in zip(optimizer.params.values(), arrays, strict=True))


def test_a_dict_of_gradients_may_have_any_order():
    params = {"a": np.zeros(2), "b": np.zeros(2)}
    Optimizer(params, downslope.sgd, lr=1.0).step({"b": np.full(2, 2.0), "a": np.ones(2)})
    np.testing.assert_array_equal(params["a"], -1)
    np.testing.assert_array_equal(params["b"], -2)


# Groups: everything may differ, in one launch


def test_each_group_has_its_own_hyperparameters():
    params = [np.ones(3), np.ones(2), np.ones(4)]
    optimizer = Optimizer(
        [
            {"params": params[0], "lr": 0.5},
            {"params": params[1], "weight_decay": 0.25},
            {"params": params[2], "lr": lambda t: 0.25 * t, "mu": 0.5},
        ],
        downslope.momentum,
        lr=0.125,
        mu=0.75,
    )
    for _ in range(2):
        optimizer.step([np.ones(3), np.ones(2), np.ones(4)])
    np.testing.assert_array_equal(params[0], 1 - 0.5 - (0.75 * 0.5 + 0.5))
    first = 0.125 * (1 + 0.25)
    second = 0.75 * first + 0.125 * (1 + 0.25 * (1 - first))
    np.testing.assert_allclose(params[1], 1 - first - second, rtol=1e-15)
    np.testing.assert_array_equal(params[2], 1 - 0.25 - (0.5 * 0.25 + 0.5))
    assert [group["lr"] for group in optimizer.groups[:2]] == [0.5, 0.125]
    assert [group["weight_decay"] for group in optimizer.groups] == [0, 0.25, 0]


def test_set_changes_one_group_or_all():
    params = [np.zeros(1), np.zeros(1)]
    optimizer = Optimizer([{"params": params[0]}, {"params": params[1]}], downslope.sgd, lr=1.0)
    optimizer.set(group=1, lr=2.0)
    optimizer.step([np.ones(1), np.ones(1)])
    assert (params[0][0], params[1][0]) == (-1, -2)
    optimizer.set(lr=lambda t: float(t))
    optimizer.step([np.ones(1), np.ones(1)])
    assert (params[0][0], params[1][0]) == (-3, -4)


def test_groups_cannot_be_changed_behind_the_optimizers_back():
    optimizer = Optimizer(np.zeros(2), downslope.sgd)
    with pytest.raises(TypeError):
        optimizer.groups[0]["lr"] = -1.0
    with pytest.raises(TypeError):
        optimizer.params["new"] = np.zeros(2)


WRONG_SETTINGS = [
    ({"lr": -1.0}, ValueError, "lr=-1.0"),
    ({"learning_rate": 0.1}, TypeError, "'learning_rate'"),
    ({"group": 2, "lr": 0.1}, ValueError, "group=2"),
    ({"group": -1, "lr": 0.1}, ValueError, "group=-1"),
    ({"group": "0", "lr": 0.1}, ValueError, "group='0'"),
    ({"lr": 0.5, "mu": 2.0}, ValueError, "mu=2.0"),
    ({"lr": None}, TypeError, "lr=None"),
    ({"lr": lambda t: -1.0}, ValueError, "-1.0"),
    ({"max_norm": 1.0}, TypeError, "max_norm"),
    ({"weight_decay": 0.1}, TypeError, "weight_decay"),
    ({"averaging": 0.1}, TypeError, "averaging"),
]


@pytest.mark.parametrize(("settings", "error", "named"), WRONG_SETTINGS)
def test_a_wrong_setting_changes_nothing(settings, error, named):
    optimizer = Optimizer([{"params": np.ones(2)}, {"params": np.ones(3)}], downslope.nesterov)
    optimizer.step([np.ones(2), np.ones(3)])
    with refused(optimizer, error, named):
        optimizer.set(**settings)


WRONG_GROUPS = {
    "an unknown name": ([{"params": np.ones(2), "learning_rate": 0.1}], TypeError, "learning_rate"),
    "a value out of range": ([{"params": np.ones(2), "mu": 1.5}], ValueError, "mu=1.5"),
    "None": ([{"params": np.ones(2), "lr": None}], TypeError, "lr=None"),
    "no params": ([{"lr": 0.1}], TypeError, "'params'"),
    "an array among groups": ([{"params": np.ones(2)}, np.ones(2)], TypeError, "params[1]"),
    "a choice for one group": ([{"params": np.ones(2), "max_norm": 1.0}], TypeError, "max_norm"),
    "one name in two groups": (
        [{"params": {"W": np.ones(2)}}, {"params": {"W": np.ones(2)}}],
        ValueError,
        "'W'",
    ),
    "nothing in any group": ([{"params": []}, {"params": {}}], ValueError, "nothing to train"),
}


@pytest.mark.parametrize(("params", "error", "named"), WRONG_GROUPS.values(), ids=WRONG_GROUPS)
def test_wrong_groups_are_refused(params, error, named):
    with pytest.raises(error) as caught:
        Optimizer(params, downslope.momentum)
    assert named in str(caught.value)


def test_a_flag_is_for_the_whole_optimizer():
    with pytest.raises(TypeError, match="bias_correction"):
        Optimizer([{"params": np.ones(2), "bias_correction": False}], downslope.adam)


# Gradients in the wrong container

ONES = np.ones(2)
WRONG_GRADIENTS = [
    ("an array", [ONES], TypeError, "list"),
    ("an array", {"a": ONES}, TypeError, "dict"),
    ("a list", {"a": ONES, "b": ONES}, TypeError, "dict"),
    ("a list", ONES, TypeError, "ndarray"),
    ("a list", [ONES], ValueError, "1 array(s); params has 2"),
    ("a list", [ONES, ONES, ONES], ValueError, "3 array(s); params has 2"),
    ("a list", [], ValueError, "0 array(s)"),
    ("a list", None, TypeError, "NoneType"),
    ("a list", iter([ONES, ONES]), TypeError, "list_iterator"),
    ("a dict", [ONES, ONES], TypeError, "list"),
    ("a dict", {"a": ONES}, ValueError, "missing ['b']"),
    ("a dict", {"a": ONES, "b": ONES, "c": ONES}, ValueError, "unknown ['c']"),
    ("a dict", {"a": ONES, "B": ONES}, ValueError, "missing ['b'], unknown ['B']"),
    ("a dict", {"a": ONES, 1: ONES}, ValueError, "unknown [1]"),
    ("a dict", None, TypeError, "NoneType"),
    ("groups of lists", [[ONES]], ValueError, "1 group(s); params has 2"),
    ("groups of lists", [[ONES], [ONES, ONES]], ValueError, "2 array(s); params has 1"),
    ("groups of dicts", [{"a": ONES}, {"a": ONES}], ValueError, "missing ['b']"),
    ("groups of dicts", {"a": ONES, "b": ONES}, TypeError, "dict"),
    ("groups of arrays", [{"params": ONES}, {"params": ONES}], TypeError, "dict"),
]


@pytest.mark.parametrize(("layout", "gradients", "error", "named"), WRONG_GRADIENTS)
def test_gradients_in_the_wrong_container_are_refused(layout, gradients, error, named):
    optimizer = Optimizer(LAYOUTS[layout](np.zeros(2), np.zeros(2)), downslope.momentum)
    with refused(optimizer, error, named):
        optimizer.step(gradients)


def test_a_dict_that_makes_up_what_it_does_not_have():
    optimizer = Optimizer({"a": np.zeros(2), "b": np.zeros(2)}, downslope.sgd)
    gradients = collections.defaultdict(lambda: np.ones(2), a=np.ones(2))
    with refused(optimizer, ValueError, "missing ['b']"):
        optimizer.step(gradients)
    assert list(gradients) == ["a"]


class MadeOnDemand(collections.abc.Mapping):
    """A mapping that keeps no array: each is made when it is asked for."""

    def __init__(self, names):
        self.names = names

    def __getitem__(self, name):
        return np.full(1000, float(self.names.index(name)))

    def __iter__(self):
        return iter(self.names)

    def __len__(self):
        return len(self.names)


def test_gradients_that_nobody_else_holds_live_until_the_step_is_done():
    names = [f"p{k}" for k in range(50)]
    params = {name: np.zeros(1000) for name in names}
    optimizer = Optimizer(params, downslope.sgd, lr=1.0)
    for _ in range(5):
        optimizer.step(MadeOnDemand(names))
    for k, name in enumerate(names):
        np.testing.assert_array_equal(params[name], -5.0 * k)


# What can be trained

STRUCTURED = np.dtype([("f", np.float32)])


class Sub(np.ndarray):
    pass


WRONG_PARAMS = {
    "integers": (np.arange(3), TypeError, "int64"),
    "float16": (np.ones(3, np.float16), TypeError, "float16"),
    "complex": (np.ones(3, complex), TypeError, "complex128"),
    "objects": (np.array([1.0, None]), TypeError, "object"),
    "structured": (np.zeros(3, STRUCTURED), TypeError, "float32"),
    "byte-swapped": (np.ones(3, ">f4" if np.little_endian else "<f4"), TypeError, "f4"),
    "a number": (1.0, TypeError, "float"),
    "a NumPy number": (np.float32(1.0), TypeError, "float32"),
    "None": (None, TypeError, "NoneType"),
    "a list of numbers": ([1.0, 2.0], TypeError, "float"),
    "text": ("W", TypeError, "str"),
    "a generator": ((array for array in [np.ones(2)]), TypeError, "generator"),
    "masked": (np.ma.masked_array(np.ones(3)), TypeError, "MaskedArray"),
    "a subclass": (np.ones(3).view(Sub), TypeError, "Sub"),
    "nothing": ([], ValueError, "nothing to train"),
    "an empty dict": ({}, ValueError, "nothing to train"),
    "a name that is a number": ({1: np.ones(2)}, TypeError, "1"),
    "an empty name": ({"": np.ones(2)}, TypeError, "''"),
    "a transposed view": (np.ones((3, 2)).T, ValueError, "strides"),
    "a strided view": (np.ones(6)[::2], ValueError, "strides"),
    "Fortran order": (np.asfortranarray(np.ones((3, 2))), ValueError, "strides"),
    "a broadcast": (np.broadcast_to(np.ones(1), 3), ValueError, "read-only"),
    "two dtypes": ({"a": np.ones(2), "b": np.ones(2, np.float32)}, TypeError, "'b' is float32"),
}


@pytest.mark.parametrize(("params", "error", "named"), WRONG_PARAMS.values(), ids=WRONG_PARAMS)
def test_what_cannot_be_updated_in_place_is_refused(params, error, named):
    with pytest.raises(error) as caught:
        Optimizer(params, downslope.sgd)
    assert named in str(caught.value)


def test_read_only_weights_are_refused():
    W = np.ones(3)
    W.flags.writeable = False
    with pytest.raises(ValueError, match="'W' is read-only"):
        Optimizer({"W": W}, downslope.sgd)


def test_unaligned_weights_are_refused():
    W = np.zeros(33, np.uint8)[1:].view(np.float32)
    assert not W.flags.aligned
    with pytest.raises(ValueError, match=r"'W' .*aligned"):
        Optimizer({"W": W}, downslope.sgd)


MEMORY = np.zeros(20)
SHARING = {
    "the same array twice": (lambda: [MEMORY, MEMORY]),
    "a view of it": (lambda: {"a": MEMORY, "b": MEMORY.reshape(4, 5)}),
    "overlapping ends": (lambda: {"a": MEMORY[:11], "b": MEMORY[10:]}),
    "one inside another": (lambda: {"inner": MEMORY[5:6], "outer": MEMORY, "other": np.zeros(3)}),
    "across groups": (lambda: [{"params": MEMORY[:11]}, {"params": MEMORY[9:]}]),
    "around an empty one": (lambda: [MEMORY[:11], MEMORY[5:5], MEMORY[10:]]),
}


@pytest.mark.parametrize("params", SHARING.values(), ids=SHARING)
def test_weights_that_share_memory_are_refused(params):
    with pytest.raises(ValueError, match="share memory"):
        Optimizer(params(), downslope.sgd)
    np.testing.assert_array_equal(MEMORY, 0)


def test_neighbours_do_not_share_memory():
    memory = np.zeros(20)
    parts = [memory[:10], memory[10:10], memory[10:]]
    Optimizer(parts, downslope.sgd, lr=1.0).step([np.ones(10), np.ones(0), np.full(10, 2.0)])
    np.testing.assert_array_equal(memory, np.repeat([-1, -2], 10))

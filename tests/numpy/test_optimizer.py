"""The optimizer for NumPy arrays: steps, schedules, the look-ahead, and everything that can be wrong."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import downslope
from downslope import FormulaError, NonFiniteGradientError, Optimizer, rule, scalar, where
from snapshot import refused, snapshot

RNG = np.random.default_rng(3)
THREADED = (1 << 18) + 5
RULES = [downslope.sgd, downslope.momentum, downslope.nesterov, downslope.adagrad, downslope.rmsprop, downslope.adam]
BY_NAME = {each.name: each for each in RULES}
EPS = np.finfo(np.float64).eps


def made(formula=downslope.momentum, dtype=np.float32, **options):
    """An optimizer of three arrays that has made two steps."""
    params = {"W": RNG.standard_normal((4, 3)), "b": RNG.standard_normal(3), "s": RNG.standard_normal(())}
    params = {name: array.astype(dtype) for name, array in params.items()}
    optimizer = Optimizer(params, formula, **options)
    for _ in range(2):
        optimizer.step(gradients(optimizer))
    return optimizer


def gradients(optimizer):
    return {name: np.asarray(RNG.standard_normal(array.shape), array.dtype) for name, array in optimizer.params.items()}


def copied(optimizer):
    return {name: array.copy() for name, array in optimizer.params.items()}


# Steps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_step_updates_in_place_and_counts(dtype):
    x = np.array([1.0, 2.0], dtype)
    before = x
    optimizer = Optimizer(x, downslope.sgd, lr=0.5)
    assert optimizer.step(np.array([2.0, -2.0], dtype)) is None
    np.testing.assert_array_equal(before, [0, 3])
    assert optimizer.t == 1
    assert optimizer.state == {}
    assert optimizer.params["0"] is before


@pytest.mark.parametrize("formula", RULES, ids=BY_NAME)
def test_shapes_without_axes_and_without_weights(formula):
    shapes = [(), (0,), (2, 0, 3), (1,), (2, 2)]
    params = [np.full(shape, 2.0, np.float32) for shape in shapes]
    optimizer = Optimizer(params, formula, lr=0.5)
    for _ in range(3):
        optimizer.step([np.ones(shape, np.float32) for shape in shapes])
    assert [array.shape for array in params] == shapes
    assert params[0] == params[3][0] == params[4][1, 1] < 2


def test_only_empty_arrays():
    optimizer = Optimizer(np.zeros((0, 5)), downslope.adam, max_norm=1.0, nonfinite="raise", averaging=0.5)
    optimizer.step(np.zeros((0, 5)))
    assert optimizer.t == 1
    with optimizer.at_average():
        pass


def test_a_number_of_numpys_is_a_gradient_without_axes():
    x = np.array(3.0)
    optimizer = Optimizer(x, downslope.sgd, lr=1.0)
    optimizer.step(np.float64(1.0))
    assert x == 2
    with refused(optimizer, TypeError, "'0'", "1.0"):
        optimizer.step(1.0)


def test_states_start_as_the_formula_says():
    @rule
    def starts(x, dx, anchor="x", v=0.5):
        return anchor - v * dx, anchor, v

    x = np.array([1.0, 2.0])
    optimizer = Optimizer(x, starts)
    assert not np.shares_memory(optimizer.state["anchor"]["0"], x)
    for _ in range(2):
        optimizer.step(np.ones(2))
    np.testing.assert_array_equal(x, [0.5, 1.5])
    np.testing.assert_array_equal(optimizer.state["anchor"]["0"], [1, 2])


def test_a_scalar_state_is_one_number_per_group():
    @rule
    def warm(x, dx, product=scalar(1.0), *, t, lr=1.0, mu=0.5):
        product = where(t == 1, mu, product * mu)
        return x - lr * dx / (1 - product), product

    params = [np.zeros(3), np.zeros(2)]
    optimizer = Optimizer([{"params": params[0]}, {"params": params[1], "mu": 0.25}], warm)
    for _ in range(2):
        optimizer.step([np.ones(3), np.ones(2)])
    np.testing.assert_allclose(params[0], -(1 / 0.5 + 1 / 0.75), rtol=4 * EPS)
    np.testing.assert_allclose(params[1], -(1 / 0.75 + 1 / (1 - 1 / 16)), rtol=4 * EPS)


def test_a_group_without_arrays_counts_its_steps_too():
    @rule
    def counts(x, dx, total=scalar(1.0), *, t):
        total = total * 2
        return x - t * dx / total, total

    x = np.zeros(2)
    optimizer = Optimizer([{"params": []}, {"params": [x]}], counts)
    for t in (1, 2, 3):
        optimizer.step([[], [np.ones(2)]])
        assert optimizer.t == t
    np.testing.assert_array_equal(x, -(1 / 2 + 2 / 4 + 3 / 8))


def test_the_optimizer_tells_what_it_is():
    assert repr(made(downslope.adam)) == "<Optimizer adam: 3 array(s), 16 weights, t=2>"


# Schedules


def test_a_schedule_is_called_with_the_number_of_the_step_from_one():
    x = np.array([0.0])
    optimizer = Optimizer(x, downslope.sgd, lr=lambda t: 10.0**t)
    optimizer.step(np.ones(1))
    assert x[0] == -10
    optimizer.step(np.ones(1))
    assert x[0] == -110


def test_a_schedule_may_return_any_real_number():
    x = np.array([0.0])
    optimizer = Optimizer(x, downslope.sgd, lr=lambda t: np.float32(0.5) if t % 2 else 1)
    for _ in range(2):
        optimizer.step(np.ones(1))
    assert x[0] == -1.5


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-1.0, ValueError),
        (np.nan, ValueError),
        (np.inf, ValueError),
        (10**400, ValueError),
        ("fast", TypeError),
        (None, TypeError),
        (True, TypeError),
        (1j, TypeError),
    ],
    ids=lambda value: f"{value!r:.9}" if not isinstance(value, type) else "",
)
@pytest.mark.parametrize("formula", [downslope.momentum, downslope.nesterov], ids=["momentum", "nesterov"])
def test_a_schedule_that_goes_wrong_changes_nothing(formula, value, error):
    optimizer = made(formula, lr=lambda t: 0.1 if t < 3 else value)
    with refused(optimizer, error, "lr", "t=3", repr(value)[:20]):
        optimizer.step(gradients(optimizer))
    with pytest.raises(error, match="lr"):
        made(formula, lr=lambda t: value)


def test_a_schedule_that_raises_changes_nothing():
    class FellOffError(Exception):
        pass

    def falling(t):
        if t == 4:
            raise FellOffError("at four")
        return 0.1

    optimizer = made(downslope.nesterov, mu=falling, averaging=0.5)
    with refused(optimizer, FellOffError, "at four"):
        optimizer.step(gradients(optimizer))


def test_set_takes_effect_at_the_next_step():
    x = np.array([0.0])
    optimizer = Optimizer(x, downslope.sgd, lr=1.0)
    for lr, total in [(1.0, -1), (0.5, -1.5), (lambda t: float(t), -4.5), (2, -6.5)]:
        optimizer.set(lr=lr)
        optimizer.step(np.ones(1))
        assert x[0] == total


def test_setting_a_schedule_that_goes_wrong_changes_nothing():
    optimizer = made(downslope.nesterov)
    with refused(optimizer, ValueError, "mu"):
        optimizer.set(mu=lambda t: 0.9 if t == 1 else 7.0)  # fine at the first step, not at the next one


# One trajectory, wherever the look-ahead is kept


def trajectory(lookahead, options, groups=None, change=None, steps=40):
    rng = np.random.default_rng(0)
    W, b = rng.standard_normal((5, 4)), rng.standard_normal(6)
    params = [{"params": {"W": W}}, {"params": {"b": b}, **groups}] if groups else {"W": W, "b": b}
    optimizer = Optimizer(params, downslope.nesterov, lookahead=lookahead, **({"lr": 0.05} | options))
    weights = []
    for step in range(steps):
        if change and step == steps // 2:
            change(optimizer)
        with optimizer.at_lookahead():
            noise = rng.standard_normal(26)
            dW, db = 0.7 * W + noise[:20].reshape(5, 4), 0.3 * b + noise[20:]
        optimizer.step([{"W": dW}, {"b": db}] if groups else {"W": dW, "b": db})
        with optimizer.at_weights():
            weights.append(np.concatenate([W.ravel(), b]))
    states = [array for by_name in optimizer.state.values() for array in by_name.values()]
    return weights, states


TRAJECTORIES = {
    "plain": {"options": {}},
    "lr by schedule": {"options": {"lr": lambda t: 0.1 / t**0.5}},
    "mu by schedule": {"options": {"mu": lambda t: 1 - 1 / (t + 1)}},
    "both by schedule": {"options": {"lr": lambda t: 0.1 / t, "mu": lambda t: 0.5 + 0.4 * (t % 2)}},
    "mu set midway": {"options": {}, "change": lambda optimizer: optimizer.set(mu=0.3)},
    "a schedule set midway": {"options": {}, "change": lambda optimizer: optimizer.set(mu=lambda t: 1 / (t + 1))},
    "groups": {"options": {}, "groups": {"lr": 0.01, "mu": 0.5, "weight_decay": 0.2}},
    "a group set midway": {
        "options": {},
        "groups": {"mu": 0.5},
        "change": lambda optimizer: optimizer.set(group=1, mu=0.8),
    },
    "averaging": {"options": {"averaging": 0.9}},
    "coupled weight decay": {"options": {"weight_decay": 0.1}},
    "decoupled weight decay": {"options": {"weight_decay": 0.1, "decoupled": True}},
    "clipping": {"options": {"max_norm": 0.5, "maximize": True}},
}


@pytest.mark.parametrize("case", TRAJECTORIES)
def test_stored_and_explicit_lookahead_are_one_trajectory(case):
    (stored, stored_states), (explicit, explicit_states) = (
        trajectory(lookahead, **TRAJECTORIES[case]) for lookahead in ("stored", "explicit")
    )
    # the stored form subtracts and adds mu v once per step: a dozen roundings of quantities below 8, remembered ten
    # times over by the velocity, 40 times
    np.testing.assert_allclose(stored, explicit, rtol=0, atol=40 * 12 * 8 * 10 * EPS / 2)
    for ours, theirs in zip(stored_states, explicit_states, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=40 * 12 * 8 * 10 * EPS / 2)
    assert np.abs(stored[-1] - stored[0]).max() > 0.1


def test_momentum_knows_no_lookahead():
    optimizer = made(downslope.momentum)
    before = copied(optimizer)
    for place in (optimizer.at_weights, optimizer.at_lookahead):
        with place():
            np.testing.assert_equal(copied(optimizer), before)


# Moving the arrays for the length of a block

PLACES = {
    "at_weights": (made, {"formula": downslope.nesterov}),
    "at_lookahead": (made, {"formula": downslope.nesterov, "lookahead": "explicit"}),
    "at_average": (made, {"averaging": 0.9}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("place", PLACES)
def test_a_block_restores_every_bit(place, dtype):
    make, options = PLACES[place]
    optimizer = make(dtype=dtype, **options)
    before, held = snapshot(optimizer), dict(optimizer.params)
    with getattr(optimizer, place)():
        assert snapshot(optimizer)["arrays"] != before["arrays"]
        assert all(optimizer.params[name] is array for name, array in held.items())
        held["W"][...] = 7  # whatever is done to the arrays in here
    assert snapshot(optimizer) == before
    with pytest.raises(KeyError), getattr(optimizer, place)():
        raise KeyError("from the body")
    assert snapshot(optimizer) == before
    optimizer.step(gradients(optimizer))  # and it goes on


@pytest.mark.parametrize("place", ["at_weights", "at_lookahead", "at_average"])
def test_nothing_that_needs_the_arrays_where_they_were_works_inside_a_block(place, tmp_path):
    optimizer = made(downslope.nesterov, averaging=0.9)
    optimizer.save(tmp_path / "file")
    with getattr(optimizer, place)():
        with refused(optimizer, RuntimeError, "step()", place):
            optimizer.step(gradients(optimizer))
        with refused(optimizer, RuntimeError, "load()", place):
            optimizer.load(tmp_path / "file")
        for other in ("at_weights", "at_lookahead", "at_average"):
            with refused(optimizer, RuntimeError, place), getattr(optimizer, other)():
                pass


@pytest.mark.parametrize("place", ["at_weights", "at_lookahead", "at_average"])
@pytest.mark.parametrize("lookahead", ["stored", "explicit"])
def test_set_inside_a_block_is_refused_or_right(place, lookahead):
    ends = []
    for inside in (False, True):
        x = np.array([1.0, -2.0])
        optimizer = Optimizer(x, downslope.nesterov, lr=0.1, averaging=0.5, lookahead=lookahead)
        optimizer.step(np.ones(2))
        try:
            if inside:
                with getattr(optimizer, place)():
                    optimizer.set(mu=0.2)
            else:
                optimizer.set(mu=0.2)
        except RuntimeError as error:
            assert place in str(error)  # noqa: PT017
            assert optimizer.groups[0]["mu"] == 0.9
            return
        optimizer.step(np.ones(2))
        with optimizer.at_weights():
            ends.append(x.copy())
    np.testing.assert_allclose(ends[1], ends[0], rtol=0, atol=16 * EPS)


def test_a_move_that_fails_halfway_moves_nothing():
    params = [np.ones(2), np.ones(2)]
    groups = [{"params": params[0]}, {"params": params[1], "mu": lambda t: 0.5 if t < 3 else 2.0}]
    optimizer = Optimizer(groups, downslope.nesterov, lr=0.1, lookahead="explicit")
    for _ in range(2):
        optimizer.step([np.ones(2), np.ones(2)])
    with refused(optimizer, ValueError, "mu"), optimizer.at_lookahead():
        pass
    with pytest.raises(ValueError, match="mu"):  # and not that it is still away
        optimizer.step([np.ones(2), np.ones(2)])


def test_there_is_no_average_without_averaging():
    optimizer = made()
    with refused(optimizer, RuntimeError, "averaging="), optimizer.at_average():
        pass


# Gradients that are not what they should be


class Arrayish:
    """Something with `__array__`, as tensors of other libraries are."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values


GOOD = np.float32([1.0, -2.0, 3.0])
WRONG_GRADIENTS = {
    "double precision": (GOOD.astype(np.float64), TypeError, "float64"),
    "half precision": (GOOD.astype(np.float16), TypeError, "float16"),
    "integers": (np.array([1, 2, 3]), TypeError, "int64"),
    "byte-swapped": (GOOD.astype(GOOD.dtype.newbyteorder()), TypeError, "f4"),
    "structured": (np.zeros(3, [("f", np.float32)]), TypeError, "[('f'"),
    "objects": (GOOD.astype(object), TypeError, "object"),
    "complex": (GOOD.astype(np.complex64), TypeError, "complex64"),
    "truth values": (GOOD > 0, TypeError, "bool"),
    "a longer one": (np.ones(4, np.float32), ValueError, "(4,)"),
    "another axis": (np.ones((3, 1), np.float32), ValueError, "(3, 1)"),
    "no axis": (np.float32(1.0), ValueError, "()"),
    "one that would broadcast": (np.ones(1, np.float32), ValueError, "(1,)"),
    "a list": ([1.0, -2.0, 3.0], TypeError, "[1.0, -2.0, 3.0]"),
    "a number": (1.0, TypeError, "1.0"),
    "None": (None, TypeError, "None"),
    "text": ("123", TypeError, "'123'"),
    "masked": (np.ma.masked_array(GOOD, [0, 1, 0]), TypeError, "masked"),
    "of the wrong dtype inside": (Arrayish(GOOD.astype(np.float64)), TypeError, "float64"),
    "of the wrong shape inside": (Arrayish(GOOD[:2]), ValueError, "(2,)"),
    "its class": (np.ndarray, TypeError, "object"),
}


@pytest.mark.parametrize(("gradient", "error", "named"), WRONG_GRADIENTS.values(), ids=WRONG_GRADIENTS)
def test_a_wrong_gradient_changes_nothing(gradient, error, named):
    params = {"W": np.ones((2, 2), np.float32), "b": np.ones(3, np.float32)}
    optimizer = Optimizer(params, downslope.adam)
    optimizer.step({"W": np.ones((2, 2), np.float32), "b": GOOD})
    with refused(optimizer, error, "'b'", named):
        optimizer.step({"W": np.ones((2, 2), np.float32), "b": gradient})


def unaligned(values):
    memory = np.zeros(values.nbytes + 1, np.uint8)[1:].view(values.dtype).reshape(values.shape)
    memory[...] = values
    return memory


def frozen(values):
    values = values.copy()
    values.flags.writeable = False
    return values


UNUSUAL_GRADIENTS = {
    "transposed": lambda g: np.ascontiguousarray(g.T).T,
    "reversed": lambda g: g[::-1, ::-1].copy()[::-1, ::-1],
    "strided": lambda g: np.repeat(np.repeat(g, 2, 0), 3, 1)[::2, ::3],
    "a broadcast": lambda g: np.broadcast_to(g[:1, :1], g.shape),
    "unaligned": unaligned,
    "read-only": frozen,
    "with __array__": Arrayish,
    "with a strided __array__": lambda g: Arrayish(np.asfortranarray(g)),
    "a subclass": lambda g: g.view(type("Sub", (np.ndarray,), {})),
    "a memory map": lambda g: g.view(np.memmap),
    "unpickled": lambda g: pickle.loads(pickle.dumps(g)),
    "with a dtype of its own": lambda g: g.astype(np.dtype(g.dtype, metadata={"unit": "1"})),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", UNUSUAL_GRADIENTS)
def test_an_unusual_gradient_is_read_right(kind, dtype):
    x = RNG.standard_normal((6, 4)).astype(dtype)
    expected = x.copy()
    g = RNG.standard_normal((6, 4)).astype(dtype)
    given_ = UNUSUAL_GRADIENTS[kind](g)
    plain = np.array(np.asarray(given_), dtype)
    for weights, gradient in ((x, given_), (expected, plain)):
        optimizer = Optimizer(weights, downslope.adam, max_norm=0.5)
        optimizer.step(gradient)
        optimizer.step(gradient)
    assert x.tobytes() == expected.tobytes()


@pytest.mark.parametrize("formula", RULES, ids=BY_NAME)
def test_a_gradient_that_shares_memory_with_a_weight_or_a_state_counts_as_it_was(formula):
    memory = RNG.standard_normal(12)
    sources = [lambda x, state: x[:4], lambda x, state: x[4:], lambda x, state: memory[2:6]]
    sources += [lambda x, state: state] * bool(formula.states)
    for source in sources:
        ends = []
        for shared in (True, False):
            memory[:] = np.arange(12.0) - 5
            params = [memory[:4], memory[4:8]]
            optimizer = Optimizer(params, formula, lr=0.5)
            optimizer.step([np.ones(4), np.ones(4)])
            state = optimizer.state[next(iter(formula.states))]["0"] if formula.states else None
            g = source(memory[:8], state)
            g = g if shared else g.copy()
            optimizer.step([g, g])
            ends.append(memory.tobytes())
        assert ends[0] == ends[1]


def test_one_array_may_be_the_gradient_of_several_weights():
    params = [np.zeros(3), np.zeros(3)]
    g = np.ones(3)
    Optimizer(params, downslope.sgd, lr=1.0).step([g, g])
    np.testing.assert_array_equal(params, -1)


def test_a_gradient_without_weights_may_be_anywhere():
    x = np.zeros(4)
    params = [x, np.zeros(0)]
    Optimizer(params, downslope.sgd, lr=1.0).step([np.ones(4), x[2:2]])
    np.testing.assert_array_equal(x, -1)


# Weights that are not what they were


def resized(optimizer, W):
    W.resize((50, 50), refcheck=False)


def shrunk(optimizer, W):
    W.resize(2, refcheck=False)


def flattened(optimizer, W):
    W.shape = (6,)


def retyped(optimizer, W):
    W.dtype = np.int32


def halved(optimizer, W):
    W.dtype = np.float16


def frozen_weights(optimizer, W):
    W.flags.writeable = False


def frozen_state(optimizer, W):
    optimizer.state["v"]["W"].flags.writeable = False


def resized_state(optimizer, W):
    optimizer.state["v"]["W"].resize(1, refcheck=False)


TAMPERED = {
    each.__name__: each
    for each in (resized, shrunk, flattened, retyped, halved, frozen_weights, frozen_state, resized_state)
}


@pytest.mark.filterwarnings("ignore:Setting the .* on a NumPy array:DeprecationWarning")
@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
def test_weights_changed_in_place_are_noticed(tamper):
    W, b = np.ones((2, 3), np.float32), np.ones(3, np.float32)
    optimizer = Optimizer({"b": b, "W": W}, downslope.momentum)
    g = {"W": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)}
    optimizer.step(g)
    tamper(optimizer, W)
    with refused(optimizer, ValueError, "'W'"):
        optimizer.step(g)
    with refused(optimizer, ValueError, "'W'"):
        optimizer.step({**g, "W": np.ones(W.shape, np.float32)})


@pytest.mark.filterwarnings("ignore:Setting the .* on a NumPy array:DeprecationWarning")
def test_weights_changed_in_place_and_back_are_fine():
    W = np.ones((2, 3), np.float32)
    optimizer = Optimizer(W, downslope.sgd, lr=1.0)
    W.shape = (3, 2)
    W.shape = (2, 3)
    W.flags.writeable = False
    W.flags.writeable = True
    optimizer.step(np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(W, 0)


def test_weights_whose_memory_moved_are_updated_where_they_are():
    W = np.ones(3, np.float32)
    optimizer = Optimizer(W, downslope.sgd, lr=1.0)
    for _ in range(50):
        address = W.ctypes.data
        W.__setstate__((1, (3,), np.dtype(np.float32), False, np.float32([1, 2, 3]).tobytes()))
        keep = np.ones(3, np.float32)  # takes the place of the memory that was let go
        try:
            optimizer.step(np.ones(3, np.float32))
        except (ValueError, RuntimeError):
            np.testing.assert_array_equal(W, [1, 2, 3])
        else:
            np.testing.assert_array_equal(W, [0, 1, 2])
        np.testing.assert_array_equal(keep, 1)
        if W.ctypes.data != address:
            break


def test_weights_resized_away_and_back_are_updated_where_they_are():
    W = np.ones(3, np.float32)
    optimizer = Optimizer(W, downslope.sgd, lr=1.0)
    W.resize(300_000, refcheck=False)
    W.resize(3, refcheck=False)
    optimizer.step(np.ones(3, np.float32))
    np.testing.assert_array_equal(W, 0)


def test_weights_in_a_memory_map(tmp_path):
    W = np.memmap(tmp_path / "weights", np.float32, "w+", shape=(100,))
    optimizer = Optimizer({"W": W}, downslope.adam, lr=0.5, averaging=0.5)
    optimizer.step({"W": np.ones(100, np.float32)})
    W.flush()
    np.testing.assert_array_equal(np.fromfile(tmp_path / "weights", np.float32), -0.5)
    with optimizer.at_average():
        np.testing.assert_array_equal(W, -0.25)
    np.testing.assert_array_equal(W, -0.5)


def test_a_read_only_memory_map_is_refused(tmp_path):
    np.zeros(4, np.float32).tofile(tmp_path / "weights")
    with pytest.raises(ValueError, match="read-only"):
        Optimizer(np.memmap(tmp_path / "weights", np.float32, "r"), downslope.sgd)


DTYPES_OF_THEIR_OWN = {
    "unpickled": lambda array: pickle.loads(pickle.dumps(array)),
    "newbyteorder": lambda array: array.view(array.dtype.newbyteorder("=")),
    "metadata": lambda array: array.view(np.dtype(array.dtype, metadata={"unit": "1"})),
}


@pytest.mark.parametrize("kind", DTYPES_OF_THEIR_OWN)
@pytest.mark.parametrize("formula", [downslope.sgd, downslope.adam], ids=["sgd", "adam"])
def test_an_equal_dtype_will_do(kind, formula):
    params = [np.zeros(3, np.float32), DTYPES_OF_THEIR_OWN[kind](np.zeros(3, np.float32))]
    optimizer = Optimizer(params, formula, lr=0.5, averaging=0.5)
    optimizer.step([np.ones(3, np.float32), np.ones(3, np.float32)])
    np.testing.assert_array_equal(params[0], params[1])
    np.testing.assert_array_equal(params[0], -0.5)
    alone = DTYPES_OF_THEIR_OWN[kind](np.zeros(3, np.float32))
    Optimizer(alone, formula, lr=0.5).step(np.ones(3, np.float32))
    np.testing.assert_array_equal(alone, -0.5)


# Gradients that are not finite

SPOILT = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [7, THREADED])
@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_one_bad_element_anywhere_is_found(policy, size, dtype):
    params = {"a": np.ones(5, dtype), "b": np.ones(size, dtype), "c": np.ones((2, 2), dtype)}
    optimizer = Optimizer(params, downslope.momentum, nonfinite=policy, threads=2)
    g = {name: np.ones_like(array) for name, array in params.items()}
    optimizer.step(g)
    skipped = 0
    for name in params:
        flat = g[name].reshape(-1)
        for where_ in (0, flat.size // 2, flat.size - 1):
            for value in SPOILT:
                flat[where_] = value
                if policy == "raise":
                    with refused(optimizer, NonFiniteGradientError, f"'{name}' (1 of {flat.size})", "step 2"):
                        optimizer.step(g)
                else:
                    before = snapshot(optimizer)
                    optimizer.step(g)
                    skipped += 1
                    assert optimizer.skipped == skipped
                    assert snapshot(optimizer) == {**before, "skipped": skipped}
                flat[where_] = 1
    optimizer.step(g)
    assert optimizer.t == 2


def test_keep_lets_everything_through():
    x = np.ones(3)
    optimizer = Optimizer(x, downslope.sgd, lr=1.0)
    optimizer.step(np.array([np.nan, np.inf, 1.0]))
    np.testing.assert_array_equal(x, [np.nan, -np.inf, 0])
    assert optimizer.t == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_the_largest_numbers_are_finite(policy, dtype):
    largest = np.finfo(dtype).max
    x = np.zeros(4, dtype)
    optimizer = Optimizer(x, downslope.sgd, lr=1.0, nonfinite=policy)
    optimizer.step(np.array([largest, -largest, largest, 0], dtype))
    assert optimizer.t == 1
    assert optimizer.skipped == 0
    np.testing.assert_array_equal(x, [-largest, largest, -largest, 0])


def test_the_largest_numbers_are_clipped():
    x = np.zeros(4)
    Optimizer(x, downslope.sgd, lr=1.0, max_norm=2.0).step(np.full(4, np.finfo(np.float64).max))
    np.testing.assert_allclose(x, -1, rtol=8 * EPS)


def test_clipping_keeps_nan_visible():
    x = np.zeros(2)
    Optimizer(x, downslope.sgd, lr=1.0, max_norm=1.0).step(np.array([np.nan, 1.0]))
    assert np.isnan(x).any()


@settings(deadline=None, max_examples=40)
@given(values=st.lists(st.floats(width=32), min_size=1, max_size=6), policy=st.sampled_from(["raise", "skip", "keep"]))
def test_a_step_happens_unless_the_policy_says_no(values, policy):
    g = np.array(values, np.float32)
    x = np.zeros_like(g)
    optimizer = Optimizer(x, downslope.sgd, lr=1.0, nonfinite=policy, threads=1)
    good = bool(np.isfinite(g).all())
    try:
        optimizer.step(g)
    except NonFiniteGradientError:
        assert policy == "raise"
        assert not good
    stepped = good or policy == "keep"
    assert optimizer.t == stepped
    assert optimizer.skipped == (policy == "skip" and not good)
    np.testing.assert_array_equal(x, -g if stepped else 0)


# Making one

WRONG_OPTIONS = [
    ({"lr": -0.1}, ValueError, "lr=-0.1"),
    ({"lr": np.nan}, ValueError, "lr=nan"),
    ({"lr": "0.1"}, TypeError, "lr='0.1'"),
    ({"lr": True}, TypeError, "lr=True"),
    ({"lr": None}, TypeError, "lr=None"),
    ({"lr": [0.1]}, TypeError, "lr=[0.1]"),
    ({"lr": 10**400}, ValueError, "lr=10000"),
    ({"beta1": 1.0}, ValueError, "beta1=1.0"),
    ({"beta3": 0.5}, TypeError, "did you mean beta"),
    ({"learning_rate": 0.5}, TypeError, "'learning_rate'"),
    ({"momentum": 0.9}, TypeError, "'momentum'"),
    ({"bias_correction": 1}, TypeError, "bias_correction=1"),
    ({"bias_correction": None}, TypeError, "bias_correction=None"),
    ({"weight_decay": -0.1}, ValueError, "weight_decay=-0.1"),
    ({"weight_decay": np.inf}, ValueError, "weight_decay=inf"),
    ({"weight_decay": True}, TypeError, "weight_decay=True"),
    ({"weightdecay": 0.1}, TypeError, "did you mean weight_decay"),
    ({"averaging": 1.0}, ValueError, "averaging=1.0"),
    ({"averaging": "0.9"}, TypeError, "averaging='0.9'"),
    ({"max_norm": -1.0}, ValueError, "max_norm=-1.0"),
    ({"max_norm": np.nan}, ValueError, "max_norm=nan"),
    ({"max_norm": "1"}, TypeError, "max_norm='1'"),
    ({"max_norm": lambda t: 1.0}, TypeError, "max_norm="),
    ({"decoupled": True}, TypeError, "weight_decay="),
    ({"decoupled": "no", "weight_decay": 0.1}, TypeError, "decoupled='no'"),
    ({"maximize": "no"}, TypeError, "maximize='no'"),
    ({"maximize": None}, TypeError, "maximize=None"),
    ({"nonfinite": "ignore"}, ValueError, "nonfinite='ignore'"),
    ({"nonfinite": None}, ValueError, "nonfinite=None"),
    ({"nonfinite": ["skip"]}, ValueError, "nonfinite=['skip']"),
    ({"lookahead": "implicit"}, ValueError, "lookahead='implicit'"),
    ({"threads": 0}, ValueError, "threads=0"),
    ({"threads": 1.5}, ValueError, "threads=1.5"),
    ({"threads": True}, ValueError, "threads=True"),
]


@pytest.mark.parametrize(("options", "error", "named"), WRONG_OPTIONS, ids=[named for _, _, named in WRONG_OPTIONS])
def test_a_wrong_option_is_named_with_its_value(options, error, named):
    x = np.ones(3)
    with pytest.raises(error) as caught:
        Optimizer(x, downslope.adam, **options)
    assert named in str(caught.value)
    np.testing.assert_array_equal(x, 1)


@pytest.mark.parametrize("wrong", [None, "adam", downslope.adam.function, 3])
def test_what_is_not_a_rule_is_refused(wrong):
    with pytest.raises(TypeError, match=r"rule=.*@rule"):
        Optimizer(np.ones(3), wrong)


def test_a_rule_that_is_no_formula_is_refused():
    @rule
    def not_elementwise(x, dx):
        return x - dx / dx.sum()

    with pytest.raises(FormulaError, match=r"not_elementwise: .*\.sum"):
        Optimizer(np.ones(3), not_elementwise)


@pytest.mark.parametrize(
    "name",
    ["self", "params", "rule", "decoupled", "max_norm", "maximize", "nonfinite", "lookahead", "threads", "group"],
)
def test_a_hyperparameter_named_like_an_option_is_refused_or_reaches_the_rule(name):
    scope = {}
    exec(f"def clashing(x, dx, *, {name}=2.0):\n    return x - {name} * dx", scope)
    x = np.zeros(2)
    try:
        optimizer = Optimizer(x, rule(scope["clashing"]), **{name: 0.5})
    except (TypeError, ValueError) as error:
        assert name in str(error)  # noqa: PT017
    else:
        optimizer.step(np.ones(2))
        np.testing.assert_array_equal(x, -0.5)


def test_making_an_optimizer_leaves_the_weights_alone():
    x = np.array([1.5, 0.0, -np.inf, 1e-320])
    before = x.tobytes()
    Optimizer(x, downslope.nesterov)
    assert x.tobytes() == before


def test_a_cautious_step_holds_weights_still_that_would_climb():
    """Heavy momentum against the new gradient: the bold weight goes on, the cautious one waits."""
    bold, cautious = np.array([1.0, 1.0]), np.array([1.0, 1.0])
    for x, choice in ((bold, False), (cautious, True)):
        optimizer = Optimizer(x, downslope.momentum, lr=0.1, mu=0.9, cautious=choice)
        optimizer.step(np.array([1.0, 1.0]))
        optimizer.step(np.array([-0.1, 0.1]))
    np.testing.assert_allclose(bold, [0.82, 0.8], rtol=1e-15)
    np.testing.assert_allclose(cautious, [0.9, 0.8], rtol=1e-15)
    with pytest.raises(TypeError, match="cautious='yes'"):
        Optimizer(bold, downslope.adam, cautious="yes")

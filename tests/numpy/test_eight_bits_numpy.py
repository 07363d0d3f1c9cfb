"""States in eight bits for NumPy arrays: steps, trainings that go on from files, and refusals."""

import numpy as np
import pytest

import downslope
from downslope import CheckpointError
from downslope.targets.codes import BLOCK, blocks, decode, encode
from downslope.training import checkpoint

SHAPES = {"W": (30, 40), "b": (BLOCK,), "c": (7,), "s": (), "none": (0, 3)}
RULES = {
    "momentum": (downslope.momentum, {"lr": 0.01}),
    "adam": (downslope.adam, {"max_norm": 1.0, "cautious": True, "averaging": 0.9}),
    "rmsprop": (downslope.rmsprop, {"lr": lambda t: 0.01 / t}),
    "schedule-free": (downslope.schedule_free_adamw, {"lr": 0.01}),
}


class Training:
    """Arrays by name and an optimizer for them."""

    def __init__(self, name="adam", seed=0, **more):
        random = np.random.default_rng(seed)
        self.weights = {key: np.asarray(random.standard_normal(shape), np.float32) for key, shape in SHAPES.items()}
        rule, settings = RULES[name]
        self.optimizer = downslope.Optimizer(self.weights, rule, **settings, **more)

    def run(self, steps, seed=100):
        for k in range(steps):
            random = np.random.default_rng(seed + k)
            self.optimizer.step({key: random.standard_normal(s).astype(np.float32) for key, s in SHAPES.items()})
        return self

    def bits(self):
        states = [array for by_name in self.optimizer.state.values() for array in by_name.values()]
        return [array.tobytes() for array in (*self.weights.values(), *states)]

    def numbers(self, state, key):
        """A state as numbers, whichever way it is kept."""
        own = self.optimizer.state
        if state in own:
            return own[state][key]
        codes = own[f"{state}.codes"][key]
        return decode(codes.reshape(-1), own[f"{state}.scales"][key]).reshape(codes.shape)


EIGHT = {"state_dtype": np.uint8}


@pytest.mark.parametrize("name", RULES)
def test_a_step_is_that_of_the_same_states_in_single_precision_then_kept_as_codes(name, tmp_path):
    eight, single = Training(name, **EIGHT).run(3), Training(name)
    eight.optimizer.save(tmp_path / "file")
    single.optimizer.load(tmp_path / "file")
    eight.run(1, seed=7)
    single.run(1, seed=7)
    for key in SHAPES:
        np.testing.assert_array_equal(eight.weights[key], single.weights[key])
        for state, by_name in single.optimizer.state.items():
            due, found = by_name[key], eight.numbers(state, key)
            assert (np.abs(found - due) <= np.abs(due) / 16 + np.abs(due).max(initial=0) / 236 + 2.0**-134).all()
    assert any(what.endswith(".codes") for what in eight.optimizer.state)


def test_which_states_are_kept_how():
    own = Training("adam", **EIGHT).optimizer.state
    found = {what: (by_name["W"].dtype, by_name["W"].shape) for what, by_name in own.items()}
    assert found == {
        "average": (np.float32, (30, 40)),
        "m.codes": (np.int8, (30, 40)),
        "v.codes": (np.uint8, (30, 40)),
        "m.scales": (np.float32, (blocks(1200),)),
        "v.scales": (np.float32, (blocks(1200),)),
    }
    begun = downslope.Optimizer(np.ones(300, np.float32), downslope.adagrad, lr=0.1, **EIGHT)
    assert not any(array.any() for array in begun.state["cache.codes"].values())


def test_any_number_of_threads_ends_in_the_same_bits_and_another_seed_in_others():
    ends = []
    for threads, seed in ((1, 0), (2, 0), (3, 0), (1, 1)):
        random = np.random.default_rng(0)
        x = random.standard_normal(300_007).astype(np.float32)
        optimizer = downslope.Optimizer(x, downslope.adam, threads=threads, seed=seed, **EIGHT)
        for _ in range(3):
            optimizer.step(random.standard_normal(x.size).astype(np.float32))
        ends.append(x.tobytes())
    assert ends[0] == ends[1] == ends[2] != ends[3]


def test_a_training_goes_on_bit_for_bit(tmp_path):
    one, other = Training(seed=3, **EIGHT).run(4), Training(**EIGHT).run(1)
    one.optimizer.save(tmp_path / "file")
    other.optimizer.load(tmp_path / "file")
    assert one.bits() == other.bits()
    assert one.run(3, 200).bits() == other.run(3, 200).bits()


def test_the_seed_is_that_of_the_file(tmp_path):
    def optimizer(seed):
        x = np.ones(700, np.float32)
        return x, downslope.Optimizer(x, downslope.adam, seed=seed, **EIGHT)

    (x, one), (y, other) = optimizer(11), optimizer(12)
    one.step(x * 0.3)
    one.save(tmp_path / "file")
    other.load(tmp_path / "file")
    for _ in range(3):
        gradient = np.linspace(-1, 1, 700, dtype=np.float32)
        one.step(gradient)
        other.step(gradient)
    np.testing.assert_array_equal(x, y)
    tensors, record = checkpoint.read_raw(tmp_path / "file")
    assert record["seed"] == 11
    checkpoint.write(tmp_path / "forged", tensors, {**record, "seed": 2**70})
    before = y.copy()
    with pytest.raises(CheckpointError, match="the file's seed is"):
        other.load(tmp_path / "forged")
    np.testing.assert_array_equal(y, before)


def test_states_go_from_eight_bits_to_single_precision_exactly_and_back_to_the_same_codes(tmp_path):
    eight = Training(**EIGHT).run(4)
    eight.optimizer.save(tmp_path / "eight")
    single = Training(seed=1)
    single.optimizer.load(tmp_path / "eight")
    single.optimizer.save(tmp_path / "single")
    again = Training(seed=2, **EIGHT)
    again.optimizer.load(tmp_path / "single")
    for key in SHAPES:
        for state in ("m", "v"):
            np.testing.assert_array_equal(single.numbers(state, key), eight.numbers(state, key))
            np.testing.assert_array_equal(again.numbers(state, key), eight.numbers(state, key))
    again.run(1)


def test_a_gradient_that_shares_memory_or_has_gaps_is_copied_and_codes_that_were_changed_are_found():
    x = np.linspace(1, 2, 300, dtype=np.float32)
    ends = []
    for gradient in (x, np.repeat(x, 2)[::2]):
        y = x.copy()
        optimizer = downslope.Optimizer(y, downslope.adam, lr=0.1, **EIGHT)
        optimizer.step(y if gradient is x else gradient)
        ends.append(y)
    np.testing.assert_array_equal(*ends)
    optimizer.state["m.codes"]["0"].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        optimizer.step(x)


def test_points_ahead_are_there_and_back():
    training = Training("schedule-free", **EIGHT).run(3)
    ahead = {key: array.copy() for key, array in training.weights.items()}
    with training.optimizer.at_weights():
        assert not np.array_equal(training.weights["W"], ahead["W"])
    for key, array in training.weights.items():
        np.testing.assert_array_equal(array, ahead[key])


def test_a_network_learns_as_with_states_in_single_precision():
    ends = {}
    for kind in (None, np.uint8):
        found = []
        for seed in range(5):
            random = np.random.default_rng(seed)
            inputs = random.standard_normal((64, 16)).astype(np.float32)
            true = random.standard_normal((16, 4)).astype(np.float32)
            W = np.zeros((16, 4), np.float32)
            optimizer = downslope.Optimizer(W, downslope.adam, lr=0.02, state_dtype=kind)
            for _ in range(150):
                optimizer.step(inputs.T @ (inputs @ W - inputs @ true) / 64)
            found.append(np.log(np.square(inputs @ (W - true)).mean()))
        ends[kind] = np.array(found)
    assert abs(ends[None].mean() - ends[np.uint8].mean()) < ends[None].std(ddof=1)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"state_dtype": np.float16}, ValueError, "state_dtype=float16 is not there for NumPy arrays; numpy.uint8"),
        ({"state_dtype": "eight"}, TypeError, "state_dtype='eight' is no dtype; give numpy.uint8"),
        ({"state_dtype": np.uint8, "seed": 1.5}, TypeError, "seed=1.5: give a whole number"),
        ({"state_dtype": np.uint8, "rule": downslope.nesterov}, ValueError, "nesterov has no state that eight bits"),
        ({"state_dtype": np.uint8, "dtype": np.float64}, ValueError, "weights of float32; these are float64"),
    ],
)
def test_what_cannot_be_kept_so_is_refused(settings, error, words):
    x = np.ones(3, settings.pop("dtype", np.float32))
    with pytest.raises(error, match=words):
        downslope.Optimizer(x, settings.pop("rule", downslope.adam), lr=0.1, **settings)


def test_numbers_that_have_no_code_are_refused(tmp_path):
    single = Training().run(2)
    single.optimizer.state["v"]["W"][3, 4] = -1
    single.optimizer.save(tmp_path / "file")
    victim = Training(**EIGHT, seed=1).run(2)
    before = victim.bits()
    with pytest.raises(CheckpointError, match="'v/W' is -1 somewhere"):
        victim.optimizer.load(tmp_path / "file")
    assert victim.bits() == before


def test_the_codes_are_those_that_are_said():
    """One step of momentum from zero: the state is the gradient, whose codes are within what rounding makes of it."""
    gradient = np.random.default_rng(0).standard_normal(600).astype(np.float32)
    optimizer = downslope.Optimizer(np.zeros(600, np.float32), downslope.momentum, lr=1.0, mu=0.9, **EIGHT)
    optimizer.step(gradient)
    codes, scales = optimizer.state["v.codes"]["0"], optimizer.state["v.scales"]["0"]
    due, due_scales = encode(-gradient, "int8")
    np.testing.assert_array_equal(scales, due_scales)
    apart = np.abs((codes.view(np.uint8) & 0x7F).astype(int) - (due.view(np.uint8) & 0x7F).astype(int))
    assert apart.max() <= 1

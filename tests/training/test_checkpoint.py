import json
import os
import stat
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import downslope
from downslope import CheckpointError, Optimizer, rule, scalar
from snapshot import refused, snapshot

RNG = np.random.default_rng(4)
GRADIENTS = [{"W": RNG.standard_normal((4, 3)), "b": RNG.standard_normal(()), "e": np.zeros(0)} for _ in range(20)]


def made(formula=downslope.adam, steps=0, dtype=np.float32, **options):
    start = np.random.default_rng(0)
    params = {"W": start.standard_normal((4, 3)), "b": start.standard_normal(()), "e": np.zeros(0)}
    optimizer = Optimizer({name: np.asarray(array, dtype) for name, array in params.items()}, formula, **options)
    walk(optimizer, 0, steps)
    return optimizer


def walk(optimizer, begin, end):
    dtype = optimizer.params["W"].dtype
    for t in range(begin, end):
        optimizer.step({name: g.astype(dtype) for name, g in GRADIENTS[t].items()})


@rule
def warm(x, dx, product=scalar(1.0), anchor="x", *, lr=0.1, mu=0.9):
    product = product * mu
    return x - lr * (dx + x - anchor) / (1 - product), product, anchor


# Going on

CASES = {
    "sgd": (downslope.sgd, {}),
    "adam with everything": (downslope.adam, {"averaging": 0.9, "weight_decay": 0.1, "max_norm": 1.0}),
    "nesterov, stored": (downslope.nesterov, {"averaging": 0.9}),
    "nesterov, explicit": (downslope.nesterov, {"lookahead": "explicit"}),
    "a schedule": (downslope.nesterov, {"mu": lambda t: 1 - 1 / (t + 1), "lr": lambda t: 0.1 / t}),
    "scalar states": (warm, {}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_a_loaded_optimizer_goes_on_bit_for_bit(case, dtype, tmp_path):
    formula, options = CASES[case]
    straight = made(formula, 20, dtype, **options)
    made(formula, 10, dtype, **options).save(tmp_path / "file")
    resumed = made(formula, 3, dtype, **options)
    resumed.load(tmp_path / "file")
    assert resumed.t == 10
    walk(resumed, 10, 20)
    assert snapshot(resumed)["arrays"] == snapshot(straight)["arrays"]
    assert resumed.t == 20


def test_hyperparameters_groups_and_counts_come_back(tmp_path):
    def groups(**first):
        return [{"params": {"a": np.ones(2)}, **first}, {"params": {"b": np.ones(3)}}]

    saved = Optimizer(groups(lr=0.5), downslope.momentum, lr=0.25, mu=0.5, nonfinite="skip")
    saved.step([{"a": np.ones(2)}, {"b": np.ones(3)}])
    saved.step([{"a": np.ones(2)}, {"b": np.full(3, np.nan)}])
    saved.set(group=1, mu=0.125)
    saved.save(tmp_path / "file")
    loaded = Optimizer(groups(), downslope.momentum, nonfinite="skip")
    loaded.load(str(tmp_path / "file"))
    assert snapshot(loaded) == snapshot(saved)
    assert loaded.skipped == 1
    assert [dict(group) for group in loaded.groups] == [{"lr": 0.5, "mu": 0.5}, {"lr": 0.25, "mu": 0.125}]


def test_a_schedule_of_this_optimizer_stays(tmp_path):
    made(downslope.sgd, 2, lr=0.5).save(tmp_path / "file")
    schedule = lambda t: 0.1  # noqa: E731
    loaded = made(downslope.sgd, lr=schedule)
    loaded.load(tmp_path / "file")
    assert loaded.groups[0]["lr"] is schedule
    made(downslope.sgd, 2, lr=schedule).save(tmp_path / "file")
    plain = made(downslope.sgd, lr=0.75)
    plain.load(tmp_path / "file")
    assert plain.groups[0]["lr"] == 0.75


def test_the_weights_come_back_whatever_the_schedule_of_the_lookahead(tmp_path):
    saved = made(downslope.nesterov, 3, np.float64, mu=0.9)
    with saved.at_weights():
        weights = saved.params["W"].copy()
    saved.save(tmp_path / "file")
    loaded = made(downslope.nesterov, 1, np.float64, mu=lambda t: 0.25)
    loaded.load(tmp_path / "file")
    with loaded.at_weights():
        np.testing.assert_allclose(loaded.params["W"], weights, rtol=0, atol=1e-15)


def test_the_arrays_stay_the_same_objects(tmp_path):
    optimizer = made(steps=2)
    held = [*optimizer.params.values(), *optimizer.state["m"].values()]
    optimizer.save(tmp_path / "file")
    walk(optimizer, 2, 4)
    optimizer.load(tmp_path / "file")
    assert all(a is b for a, b in zip(held, [*optimizer.params.values(), *optimizer.state["m"].values()], strict=True))
    walk(optimizer, 2, 4)  # and the kernel still knows where they are


@pytest.mark.parametrize("place", ["at_weights", "at_average"])
def test_saving_inside_a_block_is_refused_or_right(place, tmp_path):
    optimizer = made(downslope.nesterov, 5, averaging=0.5)
    try:
        with getattr(optimizer, place)():
            optimizer.save(tmp_path / "file")
    except RuntimeError as error:
        assert place in str(error)  # noqa: PT017
        assert not (tmp_path / "file").exists()
    else:
        loaded = made(downslope.nesterov, averaging=0.5)
        loaded.load(tmp_path / "file")
        assert snapshot(loaded)["arrays"] == snapshot(optimizer)["arrays"]


# The file


def test_the_file_is_plain_safetensors_keyed_by_name(tmp_path):
    from safetensors import safe_open

    optimizer = made(steps=3, averaging=0.5, lr=0.25)
    optimizer.save(tmp_path / "file")
    with safe_open(tmp_path / "file", framework="numpy") as file:
        keys = {f"{state}/{name}" for state in ("x", "m", "v", "average") for name in ("W", "b", "e")}
        assert set(file.keys()) == keys
        np.testing.assert_array_equal(file.get_tensor("m/W"), optimizer.state["m"]["W"])
        assert file.get_tensor("x/b").shape == ()
        metadata = file.metadata()
    record = json.loads(metadata["record"])
    assert metadata["version"] == downslope.__version__
    assert record["rule"] == "adam"
    assert record["t"] == 3
    assert record["groups"][0]["hyperparameters"]["lr"] == 0.25


def test_saving_leaves_one_file_that_the_umask_allows_to_read(tmp_path):
    mask = os.umask(0o022)
    try:
        optimizer = made(steps=1)
        for _ in range(2):
            optimizer.save(tmp_path / "file")
    finally:
        os.umask(mask)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_what_cannot_be_written_is_an_oserror_and_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    optimizer = made(steps=1)
    for path in (tmp_path / "folder", tmp_path / "missing" / "file", tmp_path / ("n" * 300)):
        with refused(optimizer, OSError):
            optimizer.save(path)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("name", ["a/b", "a b", "ü/\n", "__metadata__", "x", "../up", "n" * 500])
def test_any_name_is_a_key(name, tmp_path):
    saved = Optimizer({name: np.ones(2)}, downslope.momentum)
    saved.step({name: np.ones(2)})
    saved.save(tmp_path / "file")
    loaded = Optimizer({name: np.zeros(2)}, downslope.momentum)
    loaded.load(tmp_path / "file")
    assert snapshot(loaded) == snapshot(saved)


@pytest.mark.parametrize(("saved", "loaded"), [("explicit", "stored"), ("stored", "explicit")])
def test_a_file_goes_on_with_either_way_of_looking_ahead(tmp_path, saved, loaded):
    first = made(downslope.nesterov, 3, lookahead=saved)
    first.save(tmp_path / "file")
    second = made(downslope.nesterov, 1, lookahead=loaded)
    second.load(tmp_path / "file")
    with first.at_weights(), second.at_weights():
        for name, array in first.params.items():
            np.testing.assert_array_max_ulp(array, second.params[name], 2)
    assert second.t == first.t


def test_weights_that_cannot_be_written_are_noticed_before_anything_is(tmp_path):
    optimizer = made(steps=1)
    optimizer.save(tmp_path / "file")
    walk(optimizer, 1, 2)
    for array in (optimizer.params["b"], optimizer.state["v"]["b"]):
        array.flags.writeable = False
        with refused(optimizer, ValueError, "'b'"):
            optimizer.load(tmp_path / "file")
        array.flags.writeable = True


# Files that are damaged


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "file"
    made(steps=2).save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def victim():
    return made(steps=5)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "file"


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_is_noticed(data, good, victim, damaged):
    position = data.draw(st.integers(0, len(good) * 8 - 1))
    content = bytearray(good)
    content[position // 8] ^= 1 << position % 8
    damaged.write_bytes(content)
    reference = made(steps=2)
    try:
        with refused(victim, CheckpointError):
            victim.load(damaged)
    except pytest.fail.Exception:  # it loaded: then the bit must be one that says nothing
        assert snapshot(victim) == snapshot(reference)
        walk(victim, 2, 5)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_file_cut_short_or_too_long_is_noticed(data, good, victim, damaged):
    length = data.draw(st.integers(0, len(good) - 1))
    for content in (good[:length], good + good[:length] + b"\0"):
        damaged.write_bytes(content)
        with refused(victim, CheckpointError, str(damaged)):
            victim.load(damaged)


# Killed at any moment

KILLED = """
import json, os, pathlib, signal, sys
import numpy as np
import downslope
from downslope import files

path = pathlib.Path(sys.argv[1])

def made():
    x = np.zeros(50_000, np.float32), np.zeros(7, np.float32)
    return downslope.Optimizer(list(x), downslope.momentum, lr=1.0, mu=0.5, threads=1)

def exact(t):  # v(t) = -2 + 2**(1-t), x(t) = -2 t + 2 - 2**(1-t), all exact in single precision while t is small
    return sum(-2 + 2.0 ** (1 - k) for k in range(1, t + 1)), (-2 + 2.0 ** (1 - t) if t else 0.0)

left = 0

def kill_before_line(frame, event, argument):
    global left
    if frame.f_code.co_filename == files.__file__ and event == "line":
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
    return kill_before_line

saved, kills, leftovers = set(), 0, 0
while True:
    optimizer = made()
    optimizer.save(path)
    child = os.fork()
    if not child:
        optimizer.step([np.ones(50_000, np.float32), np.ones(7, np.float32)])
        left = kills + 1
        sys.settrace(kill_before_line)
        optimizer.save(path)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    leftovers += len(list(path.parent.iterdir())) - 1
    optimizer.load(path)
    x, v = exact(optimizer.t)
    for name, array in optimizer.params.items():
        assert (array == np.float32(x)).all() and (optimizer.state["v"][name] == np.float32(v)).all(), optimizer.t
    saved.add(optimizer.t)
    if not status:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    kills += 1
print(json.dumps([sorted(saved), kills, leftovers, len(list(path.parent.iterdir()))]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killing_the_process_before_any_line_of_the_writer_leaves_a_whole_file(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(KILLED), str(tmp_path / "file")]
    saved, kills, leftovers, files = json.loads(subprocess.check_output(command))
    assert saved == [0, 1]  # the old file, and the new one
    assert kills > 20
    assert leftovers > 5  # it was caught in the middle of it
    assert files == 1  # and the next start cleaned up


def test_an_interrupted_save_keeps_the_old_file(tmp_path, monkeypatch):
    optimizer = made(steps=1)
    optimizer.save(tmp_path / "file")
    before = (tmp_path / "file").read_bytes()
    walk(optimizer, 1, 2)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with refused(optimizer, KeyboardInterrupt):
        optimizer.save(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == before

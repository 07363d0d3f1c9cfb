"""Files that are damaged, forged, or of something else: no front end loads them, and nothing has changed."""

import contextlib
import json
import struct
import zlib

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from saved_trainings import DX, Keras, Numpy, Optax, Torch, X

import downslope
from downslope import CheckpointError, rule, scalar


@rule
def warm(x, dx, product=scalar(1.0), anchor="x", *, lr=0.1, mu=0.9, centered=False):
    product = product * mu
    pull = dx + x - anchor
    return x - lr * (pull - anchor if centered else pull) / (1 - product), product, anchor


FRONT_ENDS = {
    "numpy": lambda: Numpy(warm),
    "torch": lambda: Torch("Optimizer", warm),
    "optax": lambda: Optax("optimizer", warm),
    "keras": lambda: Keras("Optimizer", warm),
}


@pytest.fixture(scope="module", params=FRONT_ENDS)
def victim(request):
    """A training that has come five steps far, and stays there."""
    training = FRONT_ENDS[request.param]()
    for _ in range(5):
        training.step()
    return training


@pytest.fixture
def refused(victim, tmp_path):
    """A block in which a file is not loaded: it raises this error with all these words, and nothing has changed."""

    def contents():
        victim.save(tmp_path / "contents")
        return (tmp_path / "contents").read_bytes()

    @contextlib.contextmanager
    def block(error, *words):
        before = contents()
        with pytest.raises(error) as caught:
            yield
        assert contents() == before
        for word in words:
            assert word in str(caught.value)

    return block


def save(path, formula=warm, params=X, steps=3, **options):
    """Write a file with the optimizer for NumPy arrays, from which all others go on."""
    arrays = {name: np.array(x) for name, x in params.items()}
    optimizer = downslope.Optimizer(arrays, formula, **options)
    for _ in range(steps):
        optimizer.step({name: np.resize(DX["W"], x.shape).astype(x.dtype) for name, x in arrays.items()})
    optimizer.save(path)


# Files that belong to something else


def also_warm():
    @rule
    def warm(x, dx, product=scalar(1.0), anchor="x", *, lr=0.1, mu=0.9, centered=False):
        product = product * mu
        return x - lr * dx / (1 - product), product, anchor

    return warm


W, B = X["W"], X["b"]
FOREIGN = {
    "another rule": ({"formula": downslope.momentum}, "rule is 'momentum'", "'warm'"),
    "another formula of the same name": (
        {"formula": also_warm()},
        "the file's warm is another formula",
    ),
    "another option": ({"weight_decay": 0.1}, "the file's options"),
    "decoupled": ({"weight_decay": 0.1, "decoupled": True}, "the file's options"),
    "with an average": ({"averaging": 0.5}, "the file's options"),
    "walking up": ({"maximize": True}, "the file's options"),
    "clipped": ({"max_norm": 1.0}, "the file's options"),
    "another flag": ({"centered": True}, "the file's flags", "centered"),
    "another name": ({"params": {"W": W, "c": B}}, "group 0 holds ['W', 'c']", "missing in the file: ['b']"),
    "one less": ({"params": {"W": W}}, "group 0 holds ['W']", "missing in the file: ['b']"),
    "one more": ({"params": {**X, "c": B}}, "group 0 holds ['W', 'b', 'c']", "unknown here: ['c']"),
    "another shape": ({"params": {"W": W.T.copy(), "b": B}}, "'x/W' is float32 of shape (3, 2)", "(2, 3)"),
    "another dtype": ({"params": {name: x.astype(np.float64) for name, x in X.items()}}, "is float64", "float32"),
}


@pytest.mark.parametrize(("options", "words"), [(o, w) for o, *w in FOREIGN.values()], ids=FOREIGN)
def test_a_file_of_something_else_is_refused(options, words, victim, refused, tmp_path):
    save(tmp_path / "file", **options)
    with refused(CheckpointError, *words):
        victim.load(tmp_path / "file")


def test_a_file_of_two_groups_is_refused(victim, refused, tmp_path):
    groups = [{"params": {name: x.copy()}} for name, x in X.items()]
    downslope.Optimizer(groups, warm).save(tmp_path / "file")
    with refused(CheckpointError, "this optimizer has 1"):
        victim.load(tmp_path / "file")


def test_what_is_no_file_is_refused(victim, refused, tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with refused((CheckpointError, OSError), str(path)):
            victim.load(path)
    with refused(FileNotFoundError, "there is no file"):
        victim.load(tmp_path / "missing")


def test_a_safetensors_file_of_another_program_is_refused(victim, refused, tmp_path):
    save_file({"x/W": W}, tmp_path / "file")
    with refused(CheckpointError, "format"):
        victim.load(tmp_path / "file")


# Files that are damaged


def test_damage_is_noticed(victim, refused, tmp_path):
    save(tmp_path / "file")
    good, bad = (tmp_path / "file").read_bytes(), tmp_path / "bad"
    start = 8 + int.from_bytes(good[:8], "little")
    positions = [0, 3, 8, 20, good.index(b"product"), good.index(b"data_offsets") + 16, start, start + 9, len(good) - 1]
    flipped = [good[:k] + bytes([good[k] ^ 1]) + good[k + 1 :] for k in positions]
    for content in [*flipped, *(good[:k] for k in (0, 7, 100, start, len(good) - 1)), good + b"\0"]:
        bad.write_bytes(content)
        with refused(CheckpointError, str(bad)):
            victim.load(bad)


def header_of(text):
    return struct.pack("<Q", len(text)) + text


GARBAGE = {
    "nothing": b"",
    "zeros": bytes(1000),
    "text": b"x = 1\n" * 100,
    "a huge header": b"\xff" * 8 + b"{}",
    "an empty header": header_of(b"{}"),
    "a header that is a list": header_of(b"[]"),
    "a header that is deep": header_of(b"[" * 100_000),
    "no json": header_of(b"{'a': 1}"),
    "no UTF-8": header_of(b'{"\xff": 1}'),
    "offsets outside": header_of(b'{"x/W":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'),
    "a negative shape": header_of(b'{"x/W":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]}}'),
    "an overflowing shape": header_of(
        b'{"x/W":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}',
    ),
    "a pickle": b"\x80\x04cos\nsystem\n(S'exit 1'\ntR.",
    "foreign metadata": header_of(b'{"__metadata__":{"format":"pt"}}'),
    **{
        f"a tensor of {dtype}": header_of(
            json.dumps(
                {
                    "__metadata__": {"format": "downslope-1", "record": "{}", "checksum": "0"},
                    "x/W": {"dtype": dtype, "shape": [8], "data_offsets": [0, size]},
                }
            ).encode()
        )
        + bytes(size)
        for dtype, size in {"BF16": 16, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "I64": 64, "BOOL": 8, "C64": 64}.items()
    },
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_checkpoint_is_refused(content, victim, refused, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with refused(CheckpointError, str(tmp_path / "file")):
        victim.load(tmp_path / "file")


# Records that are well formed, with a checksum that is right, and wrong all the same


def forge(path, change):
    """Rewrite the record of a file and make its checksum right again, as documented by the format."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    changed = change(json.loads(metadata["record"]), tensors)
    text = changed if isinstance(changed, str) else json.dumps(changed)
    with contextlib.suppress(ValueError, RecursionError):
        total = zlib.crc32(json.dumps(json.loads(text), sort_keys=True).encode())
        for key in sorted(tensors):
            array = tensors[key]
            total = zlib.crc32(f"{key} {array.dtype} {array.shape}".encode(), total)
            total = zlib.crc32(array.tobytes(), total)
        metadata["checksum"] = f"{total:08x}"
    save_file(tensors, path, {**metadata, "record": text})


def put(*keys, value):
    def change(record, tensors):
        inner = record
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        return record

    return change


def drop(*keys):
    def change(record, tensors):
        inner = record
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        return record

    return change


def without_a_tensor(record, tensors):
    del tensors["anchor/b"]
    return record


def with_one_more(record, tensors):
    tensors["y/b"] = np.zeros(3)
    return record


def with_points(record, tensors):
    tensors |= {f"lookahead/{name}": tensors[f"x/{name}"] for name in record["groups"][0]["names"]}
    return record


def turned(record, tensors):
    tensors["anchor/W"] = np.ascontiguousarray(tensors["anchor/W"].T)
    return record


def in_double(record, tensors):
    tensors["x/b"] = tensors["x/b"].astype(np.float64)
    return record


FIRST = ("groups", 0)
LR, PRODUCT = (*FIRST, "hyperparameters", "lr"), (*FIRST, "scalar_states", "product")
HOSTILE = {
    "a list": lambda record, tensors: [],
    "null": lambda record, tensors: None,
    "a number": lambda record, tensors: 1,
    "deep": lambda record, tensors: "[" * 100_000 + "]" * 100_000,
    "cut": lambda record, tensors: json.dumps(record)[:-1],
    "no t": drop("t"),
    "t is -1": put("t", value=-1),
    "t is true": put("t", value=True),
    "t is 1.5": put("t", value=1.5),
    "t is text": put("t", value="1"),
    "t is huge": put("t", value=10**400),
    "skipped is null": put("skipped", value=None),
    "skipped is huge": put("skipped", value=-(10**400)),
    "no rule": drop("rule"),
    "the rule is a list": put("rule", value=["warm"]),
    "no formula": drop("formula"),
    "flags is text": put("flags", value="none"),
    "no options": drop("options"),
    "no groups": drop("groups"),
    "groups is a dict": put("groups", value={"0": {}}),
    "groups is empty": put("groups", value=[]),
    "a group too many": put("groups", value=[{}, {}]),
    "a group is null": put("groups", 0, value=None),
    "other names": put(*FIRST, "names", value=["W", "c"]),
    "names is a number": put(*FIRST, "names", value=3),
    "no hyperparameters": drop(*FIRST, "hyperparameters"),
    "hyperparameters is a list": put(*FIRST, "hyperparameters", value=["lr", "mu"]),
    "one hyperparameter less": drop(*LR),
    "one hyperparameter more": put(*FIRST, "hyperparameters", "nu", value=1.0),
    "lr is negative": put(*LR, value=-1.0),
    "lr is nan": put(*LR, value=float("nan")),
    "lr is infinite": put(*LR, value=float("inf")),
    "lr is huge": put(*LR, value=10**400),
    "lr is true": put(*LR, value=True),
    "lr is text": put(*LR, value="0.1"),
    "lr is a list": put(*LR, value=[0.1]),
    "mu is 1": put(*FIRST, "hyperparameters", "mu", value=1),
    "max_norm is a number though nothing is clipped": put("max_norm", value=1.0),
    "max_norm is text": put("max_norm", value="1"),
    "clocks is a list": put("clocks", value=["W"]),
    "clocks is text": put("clocks", value="W"),
    "a clock of nothing": put("clocks", value={"V": {"t": 1, "scalar_states": {"product": 1.0}}}),
    "a clock is a number": put("clocks", value={"W": 1}),
    "a clock without t": put("clocks", value={"W": {"scalar_states": {"product": 1.0}}}),
    "a clock without its scalar": put("clocks", value={"W": {"t": 3, "scalar_states": {}}}),
    "a clock whose scalar is text": put("clocks", value={"W": {"t": 3, "scalar_states": {"product": "1"}}}),
    "names are numbers": put(*FIRST, "names", value=[1, 2]),
    "a name twice": put(*FIRST, "names", value=["W", "W"]),
    "complex": put(*FIRST, "complex", value=["W"]),
    "a rule of its own": put(*FIRST, "rule", value="sgd"),
    "no scalar states": drop(*FIRST, "scalar_states"),
    "a scalar state less": drop(*PRODUCT),
    "a scalar state is null": put(*PRODUCT, value=None),
    "a scalar state is text": put(*PRODUCT, value="1"),
    "a scalar state is huge": put(*PRODUCT, value=10**400),
    "a tensor less": without_a_tensor,
    "a tensor more": with_one_more,
    "points ahead that no rule asked for": with_points,
    "a state of another shape": turned,
    "weights of another dtype": in_double,
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_forged_record_is_refused(change, victim, refused, tmp_path):
    save(tmp_path / "file")
    forge(tmp_path / "file", change)
    with refused(CheckpointError):
        victim.load(tmp_path / "file")


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_record_forged_into_what_it_was_loads(front_end, tmp_path):
    """The forgeries above are refused for what they say, not for how they were made."""
    save(tmp_path / "file")
    before = safe_open(tmp_path / "file", framework="numpy").metadata()
    forge(tmp_path / "file", put(*PRODUCT, value=0.5))
    training = FRONT_ENDS[front_end]()
    training.load(tmp_path / "file")
    training.save(tmp_path / "again")
    after = safe_open(tmp_path / "again", framework="numpy").metadata()
    found, expected = json.loads(after["record"]), json.loads(before["record"])
    expected["groups"][0]["scalar_states"]["product"] = 0.5
    if front_end == "keras":  # whose learning rate is a variable in single precision
        expected["groups"][0]["hyperparameters"]["lr"] = float(np.float32(0.1))
    assert found == expected

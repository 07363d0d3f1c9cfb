"""What a model of one's own learns from: the same rows out of whatever holds them, and what is refused."""

import gzip
import itertools
import zipfile

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
import torch
from torch.utils.data import RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler

from downslope.lab.problems.columns import DataError
from downslope.lab.problems.examples import examples_of
from downslope.lab.problems.problem import Problem

ROWS = np.random.default_rng(0).normal(size=(40, 3))
CLASSES = np.arange(40) % 2


class Stream(torch.utils.data.IterableDataset):
    """Rows that have no number."""

    def __init__(self, ends):
        self.ends = ends

    def __iter__(self):
        return iter(zip(ROWS, CLASSES, strict=True)) if self.ends else itertools.cycle(zip(ROWS, CLASSES, strict=True))


def test_rows_that_have_no_number_are_read_to_their_end_and_no_longer_than_they_fit(monkeypatch):
    np.testing.assert_array_equal(examples_of(Stream(True)).x, ROWS.astype(np.float32))
    monkeypatch.setattr("downslope.lab.problems.readers.MOST_BYTES", 10_000)
    with pytest.raises(DataError, match=r"the Stream gave .* GB of rows and has not ended"):
        examples_of(Stream(False))


class Pairs(torch.utils.data.Dataset):
    """Rows as tensors, with their class as an int; `noise` is what augmentation adds."""

    def __init__(self, rows=ROWS, noise=0.0):
        self.rows, self.noise = rows, noise

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, at):
        return torch.from_numpy(self.rows[at] + self.noise * np.random.rand(3)), int(CLASSES[at])  # noqa: NPY002


def held_in_npz(folder):
    np.savez(folder / "pairs.npz", X=ROWS, labels=CLASSES)
    return str(folder / "pairs.npz")


def loader(**options):
    return torch.utils.data.DataLoader(Pairs(), **options)


def shuffled(folder):
    return loader(batch_size=7, shuffle=True)


@pytest.mark.parametrize(
    "hold",
    [
        lambda folder: (ROWS, CLASSES),
        lambda folder: [ROWS.tolist(), CLASSES.tolist()],
        lambda folder: (torch.from_numpy(ROWS).requires_grad_(), torch.from_numpy(CLASSES)),
        lambda folder: (jnp.array(ROWS, jnp.float32), CLASSES.astype(bool)),
        lambda folder: (pl.DataFrame(ROWS), pl.Series(CLASSES)),
        lambda folder: (ROWS, CLASSES[:, None].astype(np.uint8)),
        lambda folder: Pairs(),
        lambda folder: torch.utils.data.TensorDataset(torch.from_numpy(ROWS), torch.from_numpy(CLASSES)),
        shuffled,
        held_in_npz,
    ],
)
def test_the_same_rows_out_of_whatever_holds_them(hold, tmp_path):
    examples, plain = examples_of(hold(tmp_path)), examples_of((ROWS, CLASSES))
    np.testing.assert_array_equal(examples.x, ROWS.astype(np.float32))
    np.testing.assert_array_equal(examples.y, CLASSES)
    assert (examples.x.dtype, examples.y.dtype) == (np.float32, np.int64)
    assert (examples.task, examples.classes, examples.remarks) == ("classification", 2, ())
    assert examples.data_hash == plain.data_hash
    assert examples.batch_size == (7 if hold is shuffled else 4)
    for one, other in zip(examples.split(1, 2), plain.split(1, 2), strict=True):
        np.testing.assert_array_equal(one, other)


def test_each_row_is_in_one_part_and_each_class_has_its_share():
    examples = examples_of((ROWS, np.repeat([0, 1], [10, 30])))
    seen = {number: examples.split(number=number) for number in range(3)}
    for parts in seen.values():
        assert sorted(np.concatenate(parts)) == list(range(40))
        assert [(examples.y[rows] == 0).sum() for rows in parts] == [6, 2, 2]
        np.testing.assert_array_equal(parts.test, examples.test_rows)
    assert not np.array_equal(seen[0].valid, seen[1].valid)


def test_a_table_is_read_as_a_race_on_it_reads_it(tmp_path):
    frame = pl.DataFrame({"a": ROWS[:, 0], "b": ROWS[:, 1], "kind": ["x", "y"] * 20})
    frame.write_csv(tmp_path / "rows.csv")
    for data in (frame, tmp_path / "rows.csv", frame.to_pandas()):
        problem = examples_of(data, target="kind", epochs=3, batch_size=6)
        assert isinstance(problem, Problem)
        assert (problem.classes, problem.epochs, problem.batch_size) == (("x", "y"), 3, 6)
    assert examples_of("digits", epochs=2).epochs == 2


def test_text_and_gaps_between_classes_are_numbered_and_told():
    examples = examples_of((ROWS, np.array(["cat", "dog"] * 20)))
    assert examples.remarks == ("The classes cat, dog are numbered from 0 to 1 in this order.",)
    assert set(examples_of((ROWS, CLASSES + 5)).y) == {0, 1}
    assert set(examples_of((ROWS, CLASSES + 5), as_they_are=True).y) == {5, 6}


def test_whole_numbers_are_classes_unless_the_loss_says_otherwise():
    assert examples_of((ROWS, CLASSES), task="regression").y.dtype == np.float32
    assert examples_of((ROWS, ROWS)).task == "regression"
    assert examples_of((CLASSES.reshape(40, 1), CLASSES)).x.dtype == np.int64  # tokens
    assert examples_of((CLASSES.reshape(40, 1).astype(np.uint8), CLASSES)).x.dtype == np.float32  # pixels


def test_augmentation_is_told():
    (said,) = examples_of(Pairs(noise=1.0)).remarks
    assert "every row was read once" in said


def test_reading_leaves_the_generator_of_torch_as_it_is():
    before = torch.get_rng_state()
    for one in (Pairs(), shuffled(None)):
        examples_of(one)
        assert torch.equal(torch.get_rng_state(), before)


def broken(folder):
    (folder / "broken.npz").write_bytes(gzip.compress(b"no zip file"))
    return str(folder / "broken.npz")


def pickled(folder):
    np.savez(folder / "objects.npz", x=np.array([{}] * 40, object), y=CLASSES)
    return str(folder / "objects.npz")


def nameless(folder):
    np.savez(folder / "nameless.npz", ROWS, CLASSES)
    return str(folder / "nameless.npz")


def cut(folder):
    path = held_in_npz(folder)
    with zipfile.ZipFile(path) as held, zipfile.ZipFile(folder / "cut.npz", "w") as new:
        for name in held.namelist():
            new.writestr(name, held.read(name)[:-50])
    return str(folder / "cut.npz")


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        ((ROWS, CLASSES[:30]), {}, "40 rows of inputs and 30 of targets"),
        ((ROWS[:0], CLASSES[:0]), {}, "no rows cannot be split"),
        ((ROWS[:8], CLASSES[:8]), {}, "class 0 has 4 rows|8 rows cannot be split"),
        ((ROWS, np.zeros(40, int)), {}, "all 40 targets are of one class, 0"),
        ((ROWS, np.zeros(40)), {}, "all 40 targets are the same"),
        ((np.where(ROWS > 2, np.nan, ROWS), CLASSES), {}, r"inputs are not finite in \d of 40 rows, first nan in row"),
        ((ROWS, np.where(CLASSES, np.inf, 0.0)), {}, "targets are not finite in 20 of 40 rows, first inf in row 1"),
        ((ROWS * 1e300, CLASSES), {}, "too large for 32-bit floats"),
        ((ROWS, np.r_[CLASSES[:39], 2]), {}, "class 2 has 1 row; each of the 3 classes needs at least 5"),
        ((ROWS, ROWS[:, 0]), {"task": "classification"}, "cross-entropy needs classes, and the targets are float64"),
        ((np.array([["a"]] * 40), CLASSES), {}, "inputs of the kind str32"),
        (([[1.0], [1.0, 2.0]], CLASSES), {}, "the inputs are no array"),
        (ROWS, {}, "a ndarray holds no pairs"),
        ((ROWS, CLASSES, CLASSES), {}, "a tuple of 3 holds no pairs"),
        (None, {}, "a NoneType holds no pairs"),
        ("numbers.npy", {}, "'numbers.npy' ends in none of .npz"),
        ("missing.npz", {}, "there is no file 'missing.npz'"),
        (broken, {}, "broken.npz' "),
        (cut, {}, "cut.npz' "),
        (pickled, {}, "cannot be read as .npz"),
        (nameless, {}, "nameless.npz holds arr_0, arr_1; of x, inputs"),
        ((ROWS, CLASSES), {"target": "y"}, "target='y' names a column of a table"),
        (pl.DataFrame(ROWS), {}, "target: say which column"),
        ("digits", {"task": "regression"}, "which the loss does not fit"),
        ((ROWS, CLASSES), {"batch_size": 25}, "25 is more than the 24 training rows"),
        ((ROWS, CLASSES), {"epochs": 0}, "epochs=0"),
        (torch.utils.data.TensorDataset(torch.zeros(40, 2)), {}, "gives a tuple, and a race needs pairs"),
        (Pairs(ROWS[:0]), {}, "the Pairs is empty"),
        (loader(sampler=SubsetRandomSampler(range(20))), {}, r"by a SubsetRandomSampler, .*data.Subset\(dataset, ind"),
        (loader(sampler=WeightedRandomSampler([1.0] * 40, 40)), {}, "draws rows by a WeightedRandomSampler"),
        (loader(sampler=RandomSampler(Pairs(), replacement=True)), {}, "draws rows by a RandomSampler"),
        (loader(sampler=SequentialSampler(range(20))), {}, "draws rows by a SequentialSampler"),
        (loader(batch_sampler=[[0, 1], [2, 3]]), {}, "draws rows by a list"),
    ],
)
def test_data_that_no_race_can_be_made_of_are_refused(data, options, said, tmp_path):
    with pytest.raises(DataError, match=said):
        examples_of(data(tmp_path) if callable(data) else data, **options)

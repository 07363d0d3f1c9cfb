import datetime
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from downslope.lab import PROBLEMS, DataError, load_problem, load_table

WITH_DATA = [name for name in PROBLEMS if name not in ("noisy-quadratic", "deep-quadratic", "rosenbrock")]


def write(tmp_path, columns, name="table.csv"):
    path = tmp_path / name
    frame = pl.DataFrame(columns)
    if path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)
    return path


def columns(rows=100, **more):
    rng = np.random.default_rng(1)
    return {"a": rng.normal(3, 5, rows), "b": rng.normal(size=rows), "y": rng.normal(7, 2, rows), **more}


def all_rows(problem, field):
    return np.concatenate([getattr(split, field) for split in (problem.train, problem.valid, problem.test)])


# The problems that come with the package


@pytest.mark.parametrize(
    ("name", "rows", "features", "outputs", "classes"),
    [
        ("digits", 1797, 64, 10, tuple("0123456789")),
        ("breast-cancer", 569, 30, 2, ("malignant", "benign")),
        ("diabetes", 442, 10, 1, None),
        ("parabola", 1000, 1, 1, None),
    ],
)
def test_built_in_problem(name, rows, features, outputs, classes):
    problem = load_problem(name)
    assert problem.name == name
    assert problem.outputs == outputs
    assert problem.classes == classes
    assert all_rows(problem, "x").shape == (rows, features)
    assert len(problem.features) == features
    assert abs(len(problem.train.x) - 0.6 * rows) < 2
    assert abs(len(problem.valid.x) - 0.2 * rows) < 2
    assert problem.batch_size <= len(problem.train.x)
    for split in (problem.train, problem.valid, problem.test):
        assert split.x.dtype == np.float32
        if classes is None:
            assert split.y.dtype == np.float32
            assert split.y.shape == (len(split.x), 1)
        else:
            assert split.y.dtype == np.int32
            assert split.y.shape == (len(split.x),)
            shares = np.bincount(split.y, minlength=outputs) / len(split.y)
            whole = np.bincount(all_rows(problem, "y"), minlength=outputs) / rows
            np.testing.assert_allclose(shares, whole, atol=0.01)


def test_every_row_is_in_exactly_one_split():
    x = np.sort(all_rows(load_problem("parabola"), "x").ravel())
    np.testing.assert_array_equal(x, np.linspace(-1, 1, 1000).astype(np.float32))


@pytest.mark.parametrize("name", WITH_DATA)
def test_splits_are_disjoint_whole_different_and_leave_the_test_rows_alone(name):
    problem = load_problem(name)
    in_all = np.arange(len(problem.columns.values))
    splits = {(seed, number): problem.split(seed, number) for seed in (0, 1) for number in (0, 1, 1000)}
    for split in splits.values():
        np.testing.assert_array_equal(np.sort(np.concatenate(split)), in_all)
        np.testing.assert_array_equal(split.test, problem.test_rows)
        assert [len(part) for part in split] == [len(part) for part in splits[0, 0]]
        if problem.task == "classification" and problem.targets.ndim == 1:
            shares = [np.bincount(problem.targets[part]) / len(part) for part in (split.train, split.valid)]
            np.testing.assert_allclose(shares[0], shares[1], atol=0.01)
    assert len({split.valid.tobytes() for split in splits.values()}) == len(splits)
    np.testing.assert_array_equal(problem.split(1, 1000).valid, splits[1, 1000].valid)


def test_validation_rows_come_from_all_rows_but_the_test_rows():
    problem = load_problem("parabola")
    seen = np.zeros(1000)
    for number in range(200):
        seen[problem.split(0, number).valid] += 1
    assert (seen[problem.test_rows] == 0).all()
    often = np.delete(seen, problem.test_rows)
    assert often.mean() == 50
    assert often.std() == pytest.approx(np.sqrt(200 * 0.25 * 0.75), rel=0.15)  # each row a quarter of the time


@pytest.mark.parametrize("number", [1, 2])
def test_every_split_is_scaled_by_its_own_training_rows(number):
    from sklearn.datasets import load_diabetes

    raw = load_diabetes(scaled=False)
    problem = load_problem("diabetes")
    parts = problem.split(5, number)
    x, y = raw.data, raw.target[:, None]
    for split, rows in zip(problem.divided(parts), parts, strict=True):
        for found, column in ((split.x, x), (split.y, y)):
            chosen = column[parts.train]
            np.testing.assert_allclose(found, (column[rows] - chosen.mean(axis=0)) / chosen.std(axis=0), atol=2e-5)


def test_a_split_that_leaves_nothing_to_predict_is_refused(tmp_path):
    y = np.zeros(12)
    y[:2] = 1.0
    path = write(tmp_path, columns(12, y=y), "t.parquet")

    def every_split():
        problem = load_table(path, target="y", task="regression")
        return [problem.split(0, number) for number in range(100)]

    with pytest.raises(DataError, match=r"target: of split .* training rows have the same value"):
        every_split()


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_same_problem_every_time(name):
    first, second = load_problem(name), load_problem(name)
    assert first.data_hash == second.data_hash
    np.testing.assert_array_equal(first.train.x, second.train.x)


def test_hashes_tell_problems_apart():
    assert len({load_problem(name).data_hash for name in PROBLEMS}) == len(PROBLEMS)


def test_digits_are_pixels_between_zero_and_one():
    x = all_rows(load_problem("digits"), "x")
    assert x.min() == 0
    assert x.max() == 1


def test_parabola_is_raw_with_the_stated_noise():
    problem = load_problem("parabola")
    residuals = all_rows(problem, "y") - all_rows(problem, "x") ** 2
    assert residuals.std() == pytest.approx(0.1, rel=0.05)
    assert residuals.mean() == pytest.approx(0, abs=0.01)
    assert (problem.hidden, problem.batch_size, problem.epochs) == ((20,), 32, 12)


@pytest.mark.parametrize("name", ["breast-cancer", "diabetes"])
def test_features_are_standardised_by_the_training_rows_alone(name):
    problem = load_problem(name)
    np.testing.assert_allclose(problem.train.x.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(problem.train.x.std(axis=0), 1, rtol=1e-5)
    assert np.abs(problem.valid.x.mean(axis=0)).max() > 1e-3


def test_predicting_the_mean_of_diabetes_costs_one():
    problem = load_problem("diabetes")
    assert np.mean(problem.train.y**2) == pytest.approx(1, rel=1e-5)
    assert abs(problem.valid.y.mean()) > 1e-3


def test_unknown_problem_lists_the_names():
    with pytest.raises(DataError, match=r"'didgits'.*digits, breast-cancer, diabetes, parabola.*target=COLUMN"):
        load_problem("didgits")


def test_import_is_light():
    code = (
        "import sys, downslope.lab.problems.tables, downslope.lab.problems.cells, downslope.lab.report.page; "
        "from downslope.lab import *; dir(PROBLEMS); "
        "heavy = ('polars', 'sklearn', 'scipy', 'plotly', 'jax', 'latex2mathml', 'llvmlite'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Tables


@pytest.mark.parametrize("name", ["house prices.csv", "house prices.parquet"])
def test_regression_table(tmp_path, name):
    problem = load_table(write(tmp_path, columns(), name), target="y", hidden=(8, 4), epochs=5)
    assert problem.name == "house prices"
    assert name in problem.title
    assert (problem.task, problem.outputs, problem.classes) == ("regression", 1, None)
    assert (problem.features, problem.hidden, problem.epochs) == (("a", "b"), (8, 4), 5)
    assert [len(split.x) for split in (problem.train, problem.valid, problem.test)] == [60, 20, 20]
    np.testing.assert_allclose(problem.train.x.std(axis=0), 1, rtol=1e-5)
    assert problem.train.y.std() == pytest.approx(1, rel=1e-5)
    assert problem.train.y.mean() == pytest.approx(0, abs=1e-5)


def test_rows_keep_their_targets(tmp_path):
    a = np.arange(50.0)
    problem = load_table(write(tmp_path, {"a": a, "y": 3 * a + 1}), target="y")
    np.testing.assert_allclose(all_rows(problem, "y"), all_rows(problem, "x"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (["pear", "apple", "fig", "apple"] * 25, ("apple", "fig", "pear")),
        ([True, False] * 50, ("false", "true")),
        ([10, 9, -1, 9] * 25, ("-1", "9", "10")),
    ],
)
def test_classification_table(tmp_path, target, classes):
    x = {"apple": 0, "fig": 1, "pear": 2, False: 0, True: 1, -1: 0, 9: 1, 10: 2}
    table = {"a": [float(x[value]) for value in target], "b": np.linspace(0, 1, 100), "y": target}
    problem = load_table(write(tmp_path, table), target="y")
    assert (problem.task, problem.outputs, problem.classes) == ("classification", len(classes), classes)
    # Column `a` is the number of the class, so that after standardising its order must be that of the labels.
    for number in range(len(classes)):
        assert len(np.unique(problem.train.x[problem.train.y == number, 0])) == 1
    order = [problem.train.x[problem.train.y == number, 0][0] for number in range(len(classes))]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("target", "task"),
    [
        (np.arange(200) % 20, "classification"),
        (np.arange(210) % 21, "regression"),
        ((np.arange(200) % 2).astype(float), "regression"),
    ],
)
def test_task_is_inferred_from_the_target(tmp_path, target, task):
    table = {"a": np.random.default_rng(0).normal(size=len(target)), "y": target}
    # Parquet keeps a float column of whole numbers apart from an integer column.
    assert load_table(write(tmp_path, table, "t.parquet"), target="y").task == task


def test_task_can_be_chosen(tmp_path):
    path = write(tmp_path, columns(y=np.arange(100) % 4))
    assert load_table(path, target="y", task="regression").outputs == 1
    assert load_table(path, target="y", task="classification").outputs == 4
    with pytest.raises(DataError, match="task: 'regresion' is neither"):
        load_table(path, target="y", task="regresion")


def test_a_class_of_five_rows_reaches_every_split(tmp_path):
    for seed in range(20):
        target = np.random.default_rng(seed).permutation(["rare"] * 5 + ["scarce"] * 6 + ["common"] * 52)
        problem = load_table(write(tmp_path, columns(63, y=target)), target="y")
        for split in (problem.train, problem.valid, problem.test):
            assert set(split.y) == {0, 1, 2}


def test_constant_column_becomes_zero(tmp_path):
    problem = load_table(write(tmp_path, columns(c=np.full(100, 0.1), d=np.zeros(100))), target="y")
    np.testing.assert_array_equal(all_rows(problem, "x")[:, 2:], 0)


def a_validation_row(tmp_path):
    problem = load_table(write(tmp_path, columns(a=np.arange(100.0))), target="y")
    return int((all_rows(problem, "x")[:, 0] < problem.valid.x[0, 0]).sum())


def test_column_constant_in_training_becomes_zero_everywhere(tmp_path):
    spike = np.zeros(100)
    spike[a_validation_row(tmp_path)] = 1e300
    problem = load_table(write(tmp_path, columns(c=spike)), target="y")
    np.testing.assert_array_equal(all_rows(problem, "x")[:, 2], 0)


def test_a_value_out_of_the_range_of_float32_is_refused(tmp_path):
    spike = np.arange(100.0) % 7
    spike[a_validation_row(tmp_path)] = 1e300
    row = int(np.argmax(spike)) + 1
    with pytest.raises(DataError, match=rf"column 'c', row {row} below the header: 1e\+300 is too far from the other"):
        load_table(write(tmp_path, columns(c=spike)), target="y")


def test_booleans_and_integers_too_large_for_float32(tmp_path):
    large = 2**60 + np.arange(100) * 2**20
    table = columns(flag=[True, False] * 50, large=large)
    problem = load_table(write(tmp_path, table, "t.parquet"), target="y")
    assert problem.features == ("a", "b", "flag", "large")
    assert len(np.unique(all_rows(problem, "x")[:, 2])) == 2
    assert len(np.unique(all_rows(problem, "x")[:, 3])) == 100


def test_huge_floats_do_not_overflow(tmp_path):
    table = columns(huge=np.linspace(-1, 1, 100) * 1.7e308)
    problem = load_table(write(tmp_path, table, "t.parquet"), target="y")
    assert problem.train.x[:, 2].std() == pytest.approx(1, rel=1e-5)


def test_dropped_columns_are_not_checked(tmp_path):
    path = write(tmp_path, columns(name=["x"] * 99 + [None]))
    assert load_table(path, target="y", drop=["name"]).features == ("a", "b")
    assert load_table(path, target="y", drop=("name", "b")).features == ("a",)


@pytest.mark.parametrize(("rows", "batch"), [(10, 4), (100, 4), (1000, 32), (100_000, 128)])
def test_usual_batch_size(tmp_path, rows, batch):
    path = write(tmp_path, columns(rows), "t.parquet")
    assert load_table(path, target="y").batch_size == batch
    assert load_table(path, target="y", batch_size=3).batch_size == 3


def test_the_hash_notices_one_changed_value(tmp_path):
    table = columns()
    before = load_table(write(tmp_path, table), target="y").data_hash
    assert load_table(write(tmp_path, table, "same.parquet"), target="y").data_hash == before
    table["b"][17] += 0.01
    assert load_table(write(tmp_path, table), target="y").data_hash != before


# What is refused

REFUSED_COLUMNS = {
    "unknown target": (columns(), {"target": "Yy"}, r"target: there is no column 'Yy'.*'a', 'b', 'y'.*mean 'y'\?"),
    "unknown drop": (columns(), {"drop": ("bb",)}, r"drop: there is no column 'bb'.*Did you mean 'b'\?"),
    "dropped target": (columns(), {"drop": ("y",)}, "drop: 'y' is the target"),
    "missing": (
        columns(b=[None] * 3 + [1.0] * 97, y=[None] + [1.0, 2.0] * 49 + [3.0]),
        {},
        r"'b' \(3, first in row 1\), 'y' \(1, first",
    ),
    "nan": (columns(b=[np.nan, -np.inf] + [1.0] * 98), {}, r"missing values: 'b' \(1, first in row 1\), of 100"),
    "infinite": (columns(b=[1.0, -np.inf] + [1.0] * 98), {}, r"column 'b', row 2: the value is infinite"),
    "nan target": (columns(y=[np.inf] + [1.0, 2.0] * 49 + [3.0]), {}, "column 'y', row 1: the value is infinite"),
    "text": (columns(c=["x"] + ["1"] * 99), {}, r"'c' \(text, e\.g\. 'x' in row 1\).*drop=NAME.*encode=True"),
    "dates": (columns(c=[datetime.date(2024, 1, 1)] * 100), {}, r"'c' \(dates or times\)"),
    "no feature": (columns(), {"drop": ("a", "b")}, "no feature is left"),
    "one class": (columns(y=["yes"] * 100), {}, "target: 'y' is 'yes' in every row"),
    "rare class": (columns(y=["no"] * 96 + ["yes"] * 4), {}, "'yes' has 4 rows, the first row 97; each needs"),
    "ids": (columns(y=[f"id{i}" for i in range(100)]), {}, "'id0' has 1 row, row 1 .and 99 more of its 100"),
    "one row": (columns(1), {}, "1 row cannot be split .* at least 10"),
    "nine rows": (columns(9), {}, "9 rows cannot be split"),
    "no rows": (columns(0), {}, "0 rows cannot be split"),
    "constant target": (columns(y=[2.5] * 100), {}, "target: 'y' is 2.5 in every row"),
    "text as number": (columns(y=["u", "v"] * 50), {"task": "regression"}, "target: 'y' holds no numbers.*'u'"),
    "date target": (columns(y=[datetime.date(2024, 1, 1)] * 100), {}, "'y' holds no numbers .dates or times"),
    "date class": (
        columns(y=[datetime.date(2024, 1, 1)] * 100),
        {"task": "classification"},
        "'y' holds no classes .dates or times",
    ),
    "hidden": (columns(), {"hidden": (8, 0)}, r"hidden: layer 2 of \(8, 0\) has size 0"),
    "batch": (columns(), {"batch_size": 0}, "batch_size: 0"),
    "large batch": (columns(), {"batch_size": 61}, "batch_size: 61 is more than the 60 training rows"),
    "epochs": (columns(), {"epochs": 0}, "epochs: 0"),
}


@pytest.mark.parametrize("case", REFUSED_COLUMNS)
def test_refused_table(tmp_path, case):
    table, arguments, message = REFUSED_COLUMNS[case]
    path = write(tmp_path, table, "t.parquet")
    with pytest.raises(DataError, match=message):
        load_table(path, **{"target": "y", **arguments})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.xls", b"a,y\n", "ends in none of .csv, .tsv, .txt, .csv.gz"),
        ("t.csv", None, "there is no file"),
        ("t.csv", b"", "is empty"),
        ("t.csv", b"a,y\n1,2,3\n", "row 1 below the header: it has 3 cells where the header has 2"),
        ("t.csv", b"\xff\xfe\x00\x01", "there is no column 'y'"),
        ("t.csv", b"a,b,y,a\n1,2,3,4\n", "header of 't.csv' repeats 'a';"),
        ("t.csv", b"a:y\n1:2\n", "separated by something else, say by what with separator=CHARACTER"),
        ("t.csv", b"1,2\n1,2\n", "needs a line with the names of the columns"),
        ("t.csv", b"a,y\n", "0 rows cannot be split"),
        ("t.parquet", b"PAR1 this is not parquet PAR1", "cannot be read as parquet"),
        ("t.parquet", b"", "cannot be read as parquet|is empty"),
    ],
)
def test_refused_file(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_table(path, target="y")


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(DataError, match=r"t\.csv"):
        load_table(tmp_path / "t.csv", target="y")

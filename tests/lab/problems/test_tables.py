"""Tables of many dialects give the same numbers, or are refused in words."""

import csv
import gzip
import io
import re

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from downslope.lab import load_table, race
from downslope.lab.problems.cells import MISSING
from downslope.lab.problems.columns import LARGEST, Columns
from downslope.lab.problems.tables import DataError, read_table

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252")
NAMES = ("a", "größe", "a;b", "a|b", 'a"b', "x,y", "two words", "tab\there")
WORDS = ("red", "blau", "grün", "x;y", "x,y", 'say "x"', "two\nlines", "pipe|d")
in_one_folder = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def tables(draw):
    """Columns of numbers with gaps, one of text, and a target."""
    rows = draw(st.integers(10, 16))
    numbers = st.builds(lambda whole, places: whole / 10**places, st.integers(-(10**7), 10**7), st.integers(0, 9))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    columns = {}
    for name in names:
        kind = draw(st.sampled_from([numbers, numbers.map(lambda x: round(x, 3)), st.integers(-(10**6), 10**6)]))
        columns[name] = draw(st.lists(kind, min_size=rows, max_size=rows))
        for row in draw(st.lists(st.integers(1, rows - 1), max_size=2)):
            columns[name][row] = None
    if draw(st.booleans()):
        columns["word"] = draw(st.lists(st.sampled_from(WORDS), min_size=rows, max_size=rows))
    columns["y"] = [row + draw(numbers) % 1 for row in range(rows)]
    return columns


@st.composite
def dialects(draw):
    return {
        "separator": draw(st.sampled_from([",", ";", "\t", "|"])),
        "decimal_comma": draw(st.booleans()),
        "encoding": draw(st.sampled_from(ENCODINGS)),
        "quoting": draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        "missing": draw(st.sampled_from(["", *MISSING])),
        "index": draw(st.sampled_from([None, 0, 1])),
        "newline": draw(st.sampled_from(["\n", "\r\n"])),
        "blank": draw(st.booleans()),
        "packed": draw(st.booleans()),
    }


def written(columns, dialect):
    def cell(value):
        if value is None:
            return dialect["missing"]
        text = value if isinstance(value, str) else repr(value)
        return text.replace(".", ",") if dialect["decimal_comma"] and not isinstance(value, str) else text

    text = io.StringIO()
    writer = csv.writer(
        text, delimiter=dialect["separator"], quoting=dialect["quoting"], lineterminator=dialect["newline"]
    )
    index = dialect["index"]
    writer.writerow([*([] if index is None else [""]), *columns])
    for number, row in enumerate(zip(*columns.values(), strict=True)):
        writer.writerow([*([] if index is None else [index + number]), *map(cell, row)])
    content = (text.getvalue() + dialect["newline"] * 2 * dialect["blank"]).encode(dialect["encoding"])
    return gzip.compress(content) if dialect["packed"] else content


def assert_same(table, columns):
    x = dict(zip(table.x.names, table.x.values.T, strict=True))
    for name, values in columns.items():
        if name == "word":
            for word in set(values):
                np.testing.assert_array_equal(x.pop(f"word={word}"), [value == word for value in values])
        elif name != "y":
            np.testing.assert_array_equal(x.pop(name), np.array(values, dtype=float))
    assert not x
    np.testing.assert_array_equal(table.y.values[:, 0], np.array(columns["y"], dtype=float))


def table_or_refusal(path, **arguments):
    try:
        return read_table(path, target="y", impute=True, encode=True, **arguments), ""
    except DataError as error:
        return None, str(error)


@in_one_folder
@given(columns=tables(), dialect=dialects())
def test_what_is_found_out_about_a_file_is_right_or_refused(tmp_path, columns, dialect):
    path = tmp_path / ("t.csv.gz" if dialect["packed"] else "t.csv")
    path.write_bytes(written(columns, dialect))
    table, refusal = table_or_refusal(path, task="regression")
    if table is not None:
        assert_same(table, columns)
    else:
        assert re.search("may be separated|may have a decimal comma|has a comma, and", refusal), refusal


@in_one_folder
@given(columns=tables(), dialect=dialects())
def test_what_is_said_about_a_file_is_heeded(tmp_path, columns, dialect):
    path = tmp_path / ("t.txt.gz" if dialect["packed"] else "t.txt")
    path.write_bytes(written(columns, dialect))
    said = {name: dialect[name] for name in ("separator", "decimal_comma", "encoding")}
    table = read_table(
        path, target="y", task="regression", impute=True, encode=True, missing=[dialect["missing"]], **said
    )
    assert_same(table, columns)


@in_one_folder
@given(start=st.sampled_from(["", "a,y\n", "a;y\n1;2\n", '"a"\ty\n', "\ufeffa,y\r\n"]), rest=st.data())
def test_no_file_ends_in_anything_but_a_table_or_a_refusal(tmp_path, start, rest):
    piece = st.text(st.sampled_from(',;\t|"\n\r01.5ay -?eE\x00\x1bö'), max_size=60).map(str.encode) | st.binary(
        max_size=60
    )
    path = tmp_path / "t.csv"
    path.write_bytes(start.encode() + rest.draw(piece) * rest.draw(st.sampled_from([1, 7])))
    table, refusal = table_or_refusal(path)
    assert "\x1b" not in refusal
    assert table is None or not np.isinf(table.x.values).any()


@settings(deadline=None)
@given(
    values=st.lists(
        st.sampled_from([0.0, 0.1, 1.0, 3.0, -2.0, 1e-9, 1e-300, 1e5, 1e9, -1e14, 1e15, 1e20, 1.7e308, np.nan]),
        min_size=10,
        max_size=30,
    ),
    seed=st.integers(0, 99),
)
def test_what_is_not_too_far_at_reading_is_not_too_far_in_any_split(values, seed):
    columns = Columns(np.array(values)[:, None], ("a",), ("number",))
    try:
        columns.far()
    except DataError:
        return
    order = np.random.default_rng(seed).permutation(len(values))
    train, pool = order[: round(0.6 * len(values))], order[: round(0.8 * len(values))]
    scaled = columns.centred(pool).prepared(train)
    assert np.abs(scaled).max() <= LARGEST


ROWS = 40
GENERATOR = np.random.default_rng(2)
PLAIN = {"a": GENERATOR.normal(size=ROWS), "y": GENERATOR.normal(size=ROWS)}


def file(tmp_path, columns, name="t.csv"):
    path = tmp_path / name
    pl.DataFrame(columns).write_csv(path)
    return path


@pytest.mark.parametrize("row", [*range(0, ROWS, 3), ROWS - 1])
@pytest.mark.parametrize(("column", "value"), [("a", 1e20), ("a", -1e30), ("y", 1e20)])
def test_a_value_whose_square_is_no_32_bit_float_is_refused_in_every_row(tmp_path, column, value, row):
    columns = {name: values.copy() for name, values in PLAIN.items()}
    columns[column][row] = value
    with pytest.raises(DataError, match=rf"column '{column}', row {row + 1} below the header: .*drop='{column}'"):
        load_table(file(tmp_path, columns), target="y")


@pytest.mark.parametrize("row", [0, 17, 39])
def test_a_value_that_is_far_from_the_others_is_remarked_on(tmp_path, row):
    assert load_table(file(tmp_path, PLAIN), target="y").remarks == ()
    columns = {**PLAIN, "a": PLAIN["a"].copy()}
    columns["a"][row] = 1e12
    (remark,) = load_table(file(tmp_path, columns), target="y").remarks
    assert remark.startswith(f"Column 'a', row {row + 1} below the header: 1e+12 is ")


@pytest.mark.parametrize("word", ["", *MISSING])
def test_words_for_missing_values_are_refused_or_filled(tmp_path, word):
    cells = [word if row == 3 else repr(float(value)) for row, value in enumerate(PLAIN["a"])]
    path = file(tmp_path, {"a": cells, "y": PLAIN["y"]})
    with pytest.raises(DataError, match=r"missing values: 'a' \(1, first in row 4 below the header\).*impute=True"):
        load_table(path, target="y")
    problem = load_table(path, target="y", impute=True)
    assert problem.remarks == ("Column 'a': 1 missing value, filled with the median of the training rows.",)
    parts = problem.split()
    x = problem.columns.prepared(parts.train)
    known = [row for row in parts.train if row != 3]
    assert x[3, 0] == pytest.approx(np.median(x[known, 0]), abs=1e-6)


def test_other_words_for_missing_values(tmp_path):
    cells = ["none yet" if row == 3 else repr(float(value)) for row, value in enumerate(PLAIN["a"])]
    path = file(tmp_path, {"a": cells, "t": ["NA", "DE"] * 20, "y": PLAIN["y"]})
    with pytest.raises(DataError, match=r"'none yet' in row 4.*looks like numbers in 39 of 40.*missing=WORD"):
        load_table(path, target="y", encode=True, missing=[])
    problem = load_table(path, target="y", encode=True, impute=True, missing=["none yet"])
    assert problem.features == ("a", "t=DE", "t=NA")


def test_rows_without_a_target_are_left_out_and_numbered_on(tmp_path):
    y = [None if row == 2 else float(value) for row, value in enumerate(PLAIN["y"])]
    problem = load_table(file(tmp_path, {"a": PLAIN["a"], "y": y}), target="y", impute=True)
    assert problem.remarks == ("Left out 1 row in which the target 'y' is missing.",)
    assert len(problem.columns.values) == ROWS - 1
    far = {"a": np.where(np.arange(ROWS) == 30, 1e20, PLAIN["a"]), "y": y}
    with pytest.raises(DataError, match="row 31 below the header"):
        load_table(file(tmp_path, far), target="y", impute=True)


def test_a_category_that_no_training_row_has_is_all_zeros(tmp_path):
    plain = load_table(file(tmp_path, PLAIN), target="y")
    row = int(plain.split().valid[0])
    words = ["rare" if one == row else "uv"[one % 2] for one in range(ROWS)]
    path = file(tmp_path, {**PLAIN, "t": words})
    with pytest.raises(DataError, match=r"features must be numbers: 't' \(text.*encode=True"):
        load_table(path, target="y")
    problem = load_table(path, target="y", encode=True)
    assert problem.features == ("a", "t=rare", "t=u", "t=v")
    x = problem.columns.prepared(problem.split().train)
    np.testing.assert_array_equal(x[row, 1:], 0)
    np.testing.assert_array_equal(np.delete(x, row, axis=0)[:, 1:].sum(axis=1), 1)


def test_too_many_categories_name_their_column(tmp_path):
    rows = 120
    path = file(tmp_path, {"t": [f"street {row}" for row in range(rows)], "y": np.arange(rows) / 7})
    with pytest.raises(DataError, match=r"column 't' has 120 categories, e\.g\. 'street 0'; more than 100"):
        load_table(path, target="y", encode=True)


@pytest.mark.parametrize("first", [0, 1, 7])
@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_a_first_column_that_counts_the_rows(tmp_path, first, name):
    path = file(tmp_path, {name: np.arange(ROWS) + first, **PLAIN})
    problem = load_table(path, target="y")
    assert problem.features == ("a",)
    assert "keep_index=True keeps it" in problem.remarks[0]
    assert load_table(path, target="y", keep_index=True).features == (name, "a")
    assert load_table(path, target="y", drop=[name]).remarks == ()


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ('"1,007",1.5', {}, r"column 'a', row 1 below the header: '1,007' has a comma, and column 'y'.*'1\.5' a point"),
        ('"1,007",3', {}, "'1,007' may have a decimal comma or a separator of thousands; say decimal_comma=True"),
        ('"1,5","2.5"', {"decimal_comma": True}, r"column 'y', row 1 below the header: '2\.5' has a point"),
        ("1,2,3", {}, "row 1 below the header: it has 3 cells where the header has 2"),
        ('"1,2', {}, "a quotation mark is not closed"),
        ("1,2", {"separator": "ab"}, "separator='ab': give one character"),
        ("1,2", {"encoding": "klingon"}, "encoding='klingon': there is none of this name"),
        ("\x81,2", {"encoding": "ascii"}, "encoding='ascii': byte 0xc2 in line 2 of 't.csv'"),
        ("1e400,2.5", {}, "column 'a', row 1 below the header: the value is infinite or beyond"),
        ("\x1b[31m,2.5", {}, r"'\\x1b\[31m' in row 1 below the header"),
        ("1,\x00", {}, "holds zero bytes"),
    ],
)
def test_refusals_name_column_row_and_argument(tmp_path, content, arguments, message):
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "\n".join([content] * 12), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_table(path, target="y", **arguments)


def test_two_separators_that_both_fit(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a;b,y;z\n" + "\n".join(f"{k};{k * k},{k / 4};{k % 5}" for k in range(20)))
    with pytest.raises(DataError, match="may be separated by commas or semicolons; say by which, with separator=';'"):
        load_table(path, target="z")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,y\n\x81,1\n")
    with pytest.raises(DataError, match=r"neither UTF-8 nor cp1252 \(byte 0x81 in line 2\); name its encoding"):
        load_table(path, target="y")


@pytest.mark.parametrize("content", [b"a,y\n1,2\n", gzip.compress(b"a,y\n1,2\n" * 50, mtime=0)[:-9], b""])
def test_a_broken_archive_is_refused(tmp_path, content):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.csv\.gz' (cannot be read|is empty)"):
        load_table(path, target="y")


def test_a_line_that_states_the_separator(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("sep=;\na;b,c;y\n" + "\n".join(f"{k};{k};{k / 3}" for k in range(20)))
    assert load_table(path, target="y").features == ("a", "b,c")


# Tables in memory


def same_numbers(source, path):
    return load_table(source, target="y").data_hash == load_table(path, target="y").data_hash


def test_polars_frames(tmp_path):
    path = file(tmp_path, PLAIN)
    assert same_numbers(pl.DataFrame(PLAIN), path)
    assert same_numbers(pl.LazyFrame(PLAIN), path)


def test_pandas_frames(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = file(tmp_path, PLAIN)
    frame = pandas.DataFrame(PLAIN)
    assert same_numbers(frame, path)
    assert same_numbers(frame.sample(frac=1, random_state=0).sort_index(), path)
    frame.loc[3, "a"] = None
    frame["t"] = pandas.Categorical(["u", None] * (ROWS // 2))
    with pytest.raises(DataError, match=r"'a' \(1, first in row 4\), 't' \(20, first in row 2\)"):
        load_table(frame, target="y")
    assert load_table(frame, target="y", impute=True, encode=True).features == ("a", "t=(missing)", "t=u")


def test_arrow_tables(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    path = file(tmp_path, PLAIN)
    assert same_numbers(pyarrow.table(PLAIN), path)
    assert same_numbers(pyarrow.record_batch(PLAIN), path)


@pytest.mark.parametrize("source", [3, None, {"a": [1]}, [[1]], np.ones((3, 2))])
def test_what_is_no_table_is_refused(source):
    with pytest.raises(DataError, match="is neither a path nor a data frame"):
        load_table(source, target="y")


def test_a_frame_is_no_problem_until_its_target_is_named():
    with pytest.raises(DataError, match=r"problem: a DataFrame is no problem; make one with load_table"):
        race(pl.DataFrame(PLAIN))


def test_arguments_about_text_are_refused_for_tables_in_memory():
    with pytest.raises(DataError, match="separator=';': that is for files of text"):
        load_table(pl.DataFrame(PLAIN), target="y", separator=";")


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_zstandard(tmp_path, newline):
    pyarrow = pytest.importorskip("pyarrow")
    path = tmp_path / "t.tsv.zst"
    text = pl.DataFrame(PLAIN).write_csv(separator="\t").replace("\n", newline)
    with pyarrow.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(text.encode())
    assert same_numbers(path, file(tmp_path, PLAIN))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"t\.tsv\.zst' (cannot be read|is empty)|missing values|cannot be divided"):
        load_table(path, target="y")


def test_a_number_that_stands_for_a_missing_value_in_typed_columns():
    frame = pl.DataFrame({**PLAIN, "whole": [-999, *range(1, ROWS)]}).with_columns(
        a=pl.col("a").replace(PLAIN["a"][5], -999)
    )
    with pytest.raises(DataError, match=r"'a' \(1, first in row 6\), 'whole' \(1, first in row 1\)"):
        load_table(frame, target="y", missing=["-999"])
    assert len(load_table(frame, target="y", missing=["-999"], impute=True).remarks) == 2

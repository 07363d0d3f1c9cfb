"""The command `downslope rules`."""

import json

import pytest
from typer.testing import CliRunner

import downslope
from downslope.cli import app
from downslope.recipes import catalogue
from downslope.recipes.families import families


def run(*arguments, width=80):
    return CliRunner().invoke(app, ["rules", *arguments], env={"COLUMNS": str(width)})


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("arguments", [[], ["rmsprop"], ["keras"], ["optax.sgd_momentum"]])
def test_every_screen_fits_and_ends_its_lines(arguments, width):
    done = run(*arguments, width=width)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= width
    assert lines == [line.rstrip() for line in lines]
    assert "…" not in done.stdout  # nothing is cut off
    assert "\x1b" not in done.stdout  # plain text where it is not a terminal


def test_the_list_has_a_line_for_every_rule():
    lines = run().stdout.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:] if line and line.split()[0] in families()}
    assert list(rows) == list(families())
    assert lines[0].split() == ["rule", "note", "torch", "keras", "tf1", "optax", "states", "read", "written"]
    assert rows["adam"] == ["yes"] * 5 + ["2", "16", "12"]
    assert rows["nesterov"] == ["yes"] + ["(yes)"] * 4 + ["1", "12", "8"]


def test_states_by_rows_and_columns_are_no_states_of_a_weight():
    """Adafactor keeps nothing for each weight, Adam-mini one state and one for each row."""
    screen = run()
    counts = {line.split()[0]: line.split()[-3] for line in screen.stdout.splitlines() if line.count(" ") > 20}
    assert (counts["adafactor"], counts["adam_mini"], counts["adam"]) == ("0", "1", "2")
    assert "States by rows or columns are next to nothing" in " ".join(screen.stdout.split())
    one = run("adafactor", width=120).stdout
    assert "at first r = 0 (one for each row), c = 0 (one for each column)" in one
    assert "at first v_row = 0 (one for each row), v_col = 0 (one for each column)" in one
    rows = {line.split()[0]: line.split()[-4:] for line in one.splitlines() if line}
    assert rows["states"] == ["0"] * 4
    assert rows["by"] == ["2"] * 4
    assert "by rows or columns" not in run("adam").stdout
    assert catalogue.differences("adafactor")["elsewhere"]["optax"]["with_lr"] == 0.3  # as the screen says
    assert "with lr=0.3 they part at step 12" in one
    facts = catalogue.facts(downslope.adam_mini)
    assert facts["spaces"] == {"v": "one for each row"}
    assert facts["states"] == {"m": 0.0, "v": 0.0}


def test_a_narrow_list_leaves_out_what_does_not_fit():
    done = run(width=60)
    assert "…" not in done.stdout
    assert done.stdout.splitlines()[0].split() == ["rule", "note", "torch", "keras", "tf1", "optax"]


def test_a_wide_list_has_the_pictures():
    assert "A drunk man walks home in zigzags" in run(width=140).stdout
    assert "drunk" not in run().stdout


def test_the_limit_of_stability_is_shown_and_explained():
    def row(name):
        return next(line.split()[5:] for line in run(name).stdout.splitlines() if "stable to lr * curvature" in line)

    assert row("sgd") == ["2"] * 5
    assert row("nesterov") == ["1.357"]
    assert row("adam") == ["38*"] * 5
    assert row("lion") == ["?"] * 3
    assert "* of the preconditioned curvature" in run("adam").stdout
    assert "preconditioned" not in run("sgd").stdout
    assert "? it goes by the sign of something" in run("lion").stdout
    assert "stable with momentum=0.9 where it has no default" in run("keras.sgd_momentum").stdout


def test_a_rule_has_formulas_differences_defaults_cost_source_and_use():
    screen = run("rmsprop").stdout
    assert "note = torch = optax(decay=0.99, eps_in_sqrt=False)" in screen
    assert "cache = decay_rate * cache + (1 - decay_rate) * dx**2" in screen
    assert "rms = rms + (dx**2 - rms) * (1 - decay)" in screen
    assert "at first rms = 1" in screen
    assert screen.count("Compared with note:") == 2
    rows = {line.split()[0]: line.split()[1:] for line in screen.splitlines() if line}
    assert rows["lr"] == ["0.001", "0.01", "0.001", "required", "required"]
    assert rows["eps"] == ["1e-8", "1e-8", "1e-7", "1e-10", "1e-8"]
    assert rows["rho"] == ["0.9"]
    assert rows["centered"] == ["False"] * 4
    assert " ".join(rows["first"]) == "step at dx = 1 10 lr 10 lr 3.16 lr 1 lr 3.16 lr"
    assert rows["operations"] == ["9", "12", "9", "9", "10"]
    assert "Tieleman & Hinton" in screen
    assert "tf.compat.v1.train.RMSPropOptimizer" in screen
    assert "downslope.optax.optimizer(downslope.rmsprop)" in screen


def test_rules_that_stand_in_are_named_with_their_choices():
    screen = run("nesterov", width=140).stdout
    assert "dx = gradient at x + mu * v" in screen
    assert "note = keras.sgd_momentum(momentum=0.9, nesterov=True)" in screen
    assert "See also: momentum (note), sgd_momentum (torch, keras, tf1, optax)" in screen
    assert "There is none in torch, keras, tf1, optax." in run("grams").stdout


def test_one_form_alone():
    screen = run("keras.Adam").stdout
    assert screen.startswith("keras.adam\n")
    assert "alpha     = lr * sqrt(1 - beta2**t) / (1 - beta1**t)" in screen
    assert "exp_avg" not in screen
    assert "0 to below 1" in screen
    assert "keras.optimizers.AdamW: weight_decay=0.004, decoupled" in screen
    assert "downslope.torch.Optimizer(model.parameters(), dialects.keras.adam)" in screen


def test_a_dialect():
    screen = run("TF1").stdout
    assert screen.startswith("TensorFlow 1\n")
    assert "sgd_momentum      lr, momentum, nesterov=False" in screen


def test_what_must_be_given_is_in_the_calls():
    screen = run("optax.adam").stdout
    assert "downslope.optax.optimizer(dialects.optax.adam, lr=...)" in screen
    assert "downslope.keras.Optimizer(dialects.optax.adam, learning_rate=...)" in screen


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from downslope import rule, sign\n\n@rule\ndef signs(x, dx, *, lr=0.01):\n    return x - lr * sign(dx)\n"
        "\n@rule\ndef wrong(x, dx):\n    return x / (1 / 0)\n"
    )
    return tmp_path / "mine.py"


def test_a_rule_of_ones_own(mine):
    screen = run(f"{mine}:signs").stdout
    assert "x = x - lr * sign(dx)" in screen
    assert "downslope.torch.Optimizer(model.parameters(), signs)" in screen
    assert "Source" not in screen
    assert json.loads(run(f"{mine}:signs", "--json").stdout)["cost"]["bytes_read"] == 8


@pytest.mark.parametrize(
    ("arguments", "data"),
    [
        ([], catalogue.overview),
        (["lion"], lambda: catalogue.entry("lion")),
        (["optax.Lion"], lambda: catalogue.facts(downslope.dialects.optax.lion)),
        (["keras"], lambda: catalogue.dialect("keras")),
    ],
    ids=["all", "rule", "form", "dialect"],
)
def test_json_is_what_the_catalogue_says(arguments, data):
    assert json.loads(run(*arguments, "--json").stdout) == data()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("adamm", "NAME adamm: there is no rule adamm; there are adam, "),
        ("keras.adan", "NAME keras.adan: keras has no adan, which is in note"),
        ("gone.py:mine", "NAME gone.py:mine: there is no file gone.py"),
        ("{mine}:other", "has no rule of this name; it has signs, wrong"),
        ("{mine}:wrong", "the formula raised ZeroDivisionError"),
    ],
)
def test_bad_names_end_with_one_clear_line(mine, name, said):
    done = run(name.format(mine=mine))
    assert done.exit_code == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("terminal", [False, True])
def test_what_a_rule_of_ones_own_says_of_itself_does_the_screen_no_harm(tmp_path, monkeypatch, terminal):
    path = tmp_path / "mine.py"
    path.write_text(
        "from downslope import rule\n\n@rule\ndef mine(x, dx, *, lr=0.01):\n"
        '    "Slides\\x1b[2J\\x1b]0;title\\x07 down\\r the \\u202eslope."\n    return x - lr * dx\n'
    )
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    screen = run(f"{path}:mine").stdout
    assert [c for c in ("\x1b[2J", "\x1b]", "\x07", "\r", "\u202e") if c in screen] == []
    assert r"\x1b[2J" in screen
    assert json.loads(run(f"{path}:mine", "--json").stdout)["intuition"].startswith("Slides\x1b[2J")


@pytest.mark.parametrize("width", [60, 80, 100])
def test_names_longer_than_the_screen_are_folded_not_cut_off(tmp_path, width):
    name, setting, state = ("n" * 130, "h" * 130, "s" * 130)
    (tmp_path / "mine.py").write_text(
        f"from downslope import rule\n\n@rule\ndef {name}(x, dx, {state}=0, *, lr=0.01, {setting}=0.9):\n"
        f"    {state} = {setting} * {state} + dx\n    return x - lr * {state}, {state}\n"
    )
    done = run(f"{tmp_path / 'mine.py'}:{name}", width=width)
    assert done.exit_code == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= width
    assert "…" not in done.stdout
    letters = "".join(done.stdout.split())
    assert letters.count("n" * 130) >= 5  # title and four ways to run it

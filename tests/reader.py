"""What README and docs tell a reader to do is done: Python block by block, commands in this process."""

import doctest
import functools
import gzip
import importlib.metadata
import importlib.util
import re
import shlex
import webbrowser
from pathlib import Path

import numpy as np
import pytest
from sybil import Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser, SkipParser
from typer.testing import CliRunner

ROOT = Path(__file__).parent.parent
RULE = """from downslope import rule, sign

@rule
def my_rule(x, dx, *, lr=0.01):
    return x - lr * sign(dx)
"""
TRAINING = """import numpy as np
import torch

def make_net(seed):
    return torch.nn.Linear(2, 2)

def train(run):
    w = {"w": np.random.default_rng(run.seed).normal(size=3)}
    optimizer = run.optimizer(w)
    for step in range(50):
        if not run.report(step, float(w["w"] @ w["w"])):
            return
        optimizer.step({"w": 2 * w["w"]})
"""
LINES = ["area,quarter,price", *(f"{40 + row},{'north' if row % 3 else ''},{row % 7}.5" for row in range(40))]


def write_files(folder):
    """The files that a reader of the pages has: tables, rules, trainings."""
    table = "\n".join(f"{line.split(',')[0]},{line.split(',')[2]}" for line in LINES)
    for name in ("data.csv", "houses.csv"):
        (folder / name).write_text(table)
    (folder / "data.tsv.gz").write_bytes(gzip.compress("\n".join(LINES).replace(",", "\t").encode()))
    (folder / "my_rules.py").write_text(RULE)
    for name in ("mine.py", "my_module.py", "my_training.py"):
        (folder / name).write_text(TRAINING)
    generator = np.random.default_rng(0)
    np.savez(folder / "train.npz", x=generator.normal(size=(60, 2)), y=np.arange(60) % 2)
    (folder / "docs").mkdir()


class _Ready(BaseException):
    """A race of a command line has all that it needs for its first run; nothing is to take it for an error."""


def _ready(*arguments, **more):
    raise _Ready


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A folder to be in, races small enough to be run, a compiler that takes no time, a browser that opens all."""
    import torch

    import downslope.lab

    folder, race = tmp_path_factory.mktemp("reader"), downslope.lab.race
    few = {"learning_rates": [0.1], "tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 1}
    few["rules"] = [downslope.sgd, downslope.adam]
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(downslope.lab, "race", functools.wraps(race)(lambda *given, **more: race(*given, **few | more)))
        patch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
        patch.setattr(webbrowser, "open", lambda address: address.startswith("file:"))
        yield folder


def pip(arguments):
    """Check that what is to be installed is something that there is."""
    named = [word for word in arguments[1:] if re.match(r"(\.|downslope)\[|\.$|downslope$", word)]
    extras = {extra for word in named for extra in re.findall(r"[\w-]+", word.partition("[")[2])}
    there = set(importlib.metadata.metadata("downslope").get_all("Provides-Extra"))
    assert arguments[0] == "install"
    assert extras <= there, f"there is no extra {', '.join(sorted(extras - there))}"


@functools.cache
def downslope_command(*arguments):
    """Run a command as it stands: a race until its first run, a walk as far as it takes to have something to draw."""
    import downslope.lab.racing
    from downslope.cli import app

    short = ["--steps", "3"] if arguments[0] == "walk" and "--steps" not in arguments else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downslope.lab.racing, "_raced", _ready)
        try:
            done = CliRunner().invoke(app, [*arguments, *short])
        except _Ready:
            return
    assert arguments[0] != "race" or "--dry-run" in arguments, "a race of which nobody has made the first run"
    if done.exception is not None:
        raise AssertionError(f"downslope {shlex.join(arguments)}\n{done.output}") from done.exception


def python(arguments):
    """Check that the script of the repository that is to be run is there."""
    if arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1]) is not None
    else:
        assert (ROOT / arguments[0]).is_file(), arguments[0]


def nothing(arguments):
    """A command that is running already, or is about the whole project: `.ci/run` runs it."""


COMMANDS = {
    "downslope": lambda arguments: downslope_command(*arguments),
    "pip": pip,
    "python": python,
    "pytest": nothing,
    "pre-commit": nothing,
    "sphinx-build": nothing,
}


def run_commands(example):
    """Run the lines of a block of commands."""
    for line in example.parsed.replace("\\\n", " ").splitlines():
        for command in re.split(r"\s&&\s", line):
            words = shlex.split(command, comments=True)
            if words:
                assert words[0] in COMMANDS, f"{words[0]} is no command that the tests know; see tests/reader.py"
                COMMANDS[words[0]](words[1:])


FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
COMMAND_LINES = [CodeBlockParser(language, run_commands) for language in ("sh", "shell")]
PARSERS = [PythonCodeBlockParser(doctest_optionflags=FLAGS), *COMMAND_LINES, SkipParser()]
PAGES = ["README.md", "CONTRIBUTING.md", "docs/*.md", "docs/learn/*.md"]

# A page is a module: its blocks run one after the other, in one namespace and one folder.
WRITTEN = ["docs/*.zh.md"]  # from the English, with its blocks
pytest_collect_file = Sybil(PARSERS, patterns=PAGES, excludes=WRITTEN, path=str(ROOT), fixtures=["reader"]).pytest()

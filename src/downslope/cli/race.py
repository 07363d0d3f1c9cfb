"""The command `downslope race`."""

from __future__ import annotations

import inspect
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.text import Text

import downslope
import downslope.rules
from downslope import files
from downslope.cli.ending import Stoppable, refuse
from downslope.cli.names import names_a_file, own_function, recipe_typed, rules_named
from downslope.cli.raced import raced_on
from downslope.cli.wording import as_typed
from downslope.extras import require
from downslope.printable import printable

if TYPE_CHECKING:
    from downslope.lab import Race
    from downslope.rule import Rule

TEXTBOOK = ",".join(rule.name for rule in downslope.rules.TEXTBOOK)
LAB = ("jax", "scipy", "sklearn.model_selection", "plotly.offline", "latex2mathml.converter")
STANDARD_OUTPUT = Path("-")


def race(
    problem: Annotated[
        str,
        typer.Argument(
            help="digits, breast-cancer, diabetes, parabola; to learn from: noisy-quadratic, deep-quadratic, "
            "rosenbrock, heavy-tail, separable. Or a table of yours: .csv, .tsv or .txt, perhaps compressed (.gz, "
            ".zst), or .parquet. Or a training of yours, in any framework, as file.py:function; with --data that "
            "function makes a model for a seed."
        ),
    ] = "digits",
    data: Annotated[
        str,
        typer.Option(
            help="What your model learns from: an .npz file with x and y, a table with its --target, or a problem "
            "that comes with downslope."
        ),
    ] = "",
    loss: Annotated[
        str,
        typer.Option(
            help="What your model minimises: mse, cross-entropy, or file.py:function; by default told from the targets."
        ),
    ] = "",
    target: Annotated[str, typer.Option(help="The column of your table to predict.")] = "",
    hidden: Annotated[str, typer.Option(help="Sizes of the hidden layers for your table; by default 64.")] = "",
    task: Annotated[
        str, typer.Option(help="classification or regression, for your table; by default told from the target.")
    ] = "",
    drop: Annotated[
        list[str] | None, typer.Option(help="A column of your table to leave out. Repeat for more.")
    ] = None,
    encode: Annotated[
        bool, typer.Option("--encode", help="Turn columns of text into zeros and ones, one per category.")
    ] = False,
    impute: Annotated[
        bool, typer.Option("--impute", help="Fill missing values of features by what the training rows say.")
    ] = False,
    missing: Annotated[
        list[str] | None,
        typer.Option(help="A word that means a missing value, instead of NA, nan, null, ? and the like. Repeat."),
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="What stands between the cells of your table, such as ';' or tab.")
    ] = None,
    decimal_comma: Annotated[
        bool | None, typer.Option("--decimal-comma/--no-decimal-comma", help="Whether numbers are written as 1,5.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="The encoding of your table, such as cp1252.")] = None,
    keep_index: Annotated[
        bool, typer.Option("--keep-index", help="Keep a first column without name that only counts the rows.")
    ] = False,
    batch_size: Annotated[int | None, typer.Option(help="Rows per step, for your table or model.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training rows.")] = None,
    rules: Annotated[
        str, typer.Option(help="Names of rules, and rules of your own as file.py:name, with commas between.")
    ] = TEXTBOOK,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A hyperparameter other than its default, as RULE.NAME=VALUE. Repeat for more."),
    ] = None,
    lrs: Annotated[
        str, typer.Option(help="Learning rates to start from, with commas; default: 19 from 1e-5 to 10.")
    ] = "",
    tuning_seeds: Annotated[int | None, typer.Option(help="Runs per learning rate; default: 3.")] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Fresh runs of each rule's best learning rate, for the verdict; default: 10.")
    ] = None,
    schedule: Annotated[
        str,
        typer.Option(
            help="How the learning rate changes in a run: constant, linear, cosine, one-cycle, or a function of yours, "
            "file.py:function, of the share of the training that is done.",
        ),
    ] = "constant",
    budget: Annotated[
        str,
        typer.Option(
            help="How long the race may take, such as 90s, 5min or 1h30min. Rules, learning rates, seeds and epochs "
            "that you do not give are chosen so that it fits.",
        ),
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only measure, and say how many runs the race has, how long it takes and what it proves."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Which initial weights and batches; another number is another race.")] = 0,
    split_seed: Annotated[int, typer.Option(help="Which random splits of the rows.")] = 0,
    splits: Annotated[
        str, typer.Option(help="varied: each seed has a split of its own; fixed: one split for all.")
    ] = "varied",
    margin: Annotated[
        float, typer.Option(help="The smallest difference in loss that matters, as a share: 0.01 is 1 %.")
    ] = 0.01,
    target_loss: Annotated[float | None, typer.Option(help="Time the rules by this validation loss.")] = None,
    now: Annotated[
        str,
        typer.Option(
            help="What you use now, such as 'torch.optim.AdamW lr=3e-4'. It is raced as it is, and the verdict begins "
            "with what the best rule saves against it.",
        ),
    ] = "",
    steps: Annotated[int | None, typer.Option(help="The steps of a run of your own training.")] = None,
    limit: Annotated[float | None, typer.Option(help="The most seconds of a run of your own training.")] = None,
    why: Annotated[
        bool,
        typer.Option(
            "--why",
            help="Say why learning rates stop working where they do: curvature, preconditioned curvature, gradient "
            "noise and updates along the best runs and at the cliffs. Takes 10 to 20 % longer.",
        ),
    ] = False,
    out: Annotated[Path, typer.Option(help="Where to write the report.")] = Path("report.html"),
    json: Annotated[
        Path | None, typer.Option(help="Where to write all numbers as JSON; - for standard output.", show_default=False)
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(help="Where to write a table with one row per run; - for standard output.", show_default=False),
    ] = None,
) -> None:
    """Race update rules on a network and data, and get a verdict.

    Every rule gets the same runs, on the same weights and splits, and is judged on seeds it was not tuned on.
    """
    if not names_a_file(problem):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the networks are small, and a GPU would only wait for them
    with Stoppable() as stoppable:
        try:
            from downslope.lab import foresee
            from downslope.lab import race as run_race  # says what is missing

            about_table = {
                "target": target,
                "hidden": hidden,
                "task": task,
                "drop": drop,
                "encode": encode,
                "impute": impute,
                "missing": missing,
                "separator": separator,
                "decimal_comma": decimal_comma,
                "encoding": encoding,
                "keep_index": keep_index,
                "batch_size": batch_size,
            }
            entrants = rules_named(rules, "--rules")
            given: dict[str, Any] = {"learning_rates": _numbers(lrs, "--lrs")} if lrs else {}
            hyperparameters = _settings(settings or [], entrants)
            kind = _splits(splits)
            present = recipe_typed(now, "--now") if now else None
            _check_outputs(out, json, csv)
            chosen = raced_on(problem, about_table, epochs=epochs, data=data, loss=loss)
            # All that was typed is right; now what takes seconds to load: what is broken is said before training.
            require("A race", "lab", [*LAB, *(["polars"] if csv else [])], load=True)
            from downslope.cli.screen import Screen
            from downslope.lab.races.plan import NOW

            names = [*entrants, *([] if present is None else [NOW])]
            for remark in chosen.remarks:
                typer.echo(f"downslope race: note: {as_typed(remark, OPTIONS)}", err=True)
            taken = any(map(_is_output, (out, json, csv)))
            # The file itself: while a training runs, what goes to sys.stdout and sys.stderr is held back.
            console = Console(file=sys.stderr if taken else sys.stdout, highlight=False)
            arguments: dict[str, Any] = {
                **chosen.arguments,
                "rules": None if rules == TEXTBOOK else entrants,
                "tuning_seeds": tuning_seeds,
                "verdict_seeds": seeds,
                "seed": seed,
                "split_seed": split_seed,
                "splits": kind,
                "margin": margin,
                "target_loss": target_loss,
                "now": present,
                "schedule": own_function(schedule, "--schedule", "of the share that is done")
                if names_a_file(schedule)
                else schedule,
                "budget": budget or None,
                "epochs": epochs,
                "steps": steps,
                "limit": limit,
                "why": why,
                "hyperparameters": hyperparameters,
                **given,
            }
            if dry_run:
                for sentence in foresee(**arguments).sentences:
                    _say(console, sentence)
                return
            lines, threads = chosen.about(len(names), kind), 1 if chosen.own else None
            with Screen(lines, names, chosen.epochs, console, threads=threads) as screen:
                result = run_race(watch=screen.watch, **arguments)
            screen.show(result)
            _write(result, out, json, csv, console)
        except ImportError as error:
            refuse("race", error, 1)
        except (ValueError, downslope.FormulaError) as error:
            refuse("race", as_typed(str(error), OPTIONS))
        except KeyboardInterrupt:
            refuse("race", "stopped before the end; what was not written yet is lost", stoppable.status)
    if result.interrupted and not (result.budget and result.budget.over):
        raise typer.Exit(stoppable.status)


OPTIONS = [name for name in inspect.signature(race).parameters if name not in ("problem", "settings")]


def _is_output(path: Path | None) -> bool:
    """Whether a path stands for standard output."""
    return path is not None and (path == STANDARD_OUTPUT or files.descriptor(path) == 1)


def _check_outputs(out: Path, json: Path | None, csv: Path | None) -> None:
    """Refuse outputs that could not be written, before anything is trained."""
    taken: dict[Path, str] = {}
    for option, path in (("--out", out), ("--json", json), ("--csv", csv)):
        if path is None:
            continue
        try:
            place = STANDARD_OUTPUT if _is_output(path) else path if files.descriptor(path) else files.check(path)
        except OSError as error:
            raise ValueError(f"{option} {path}: {error}") from None
        other = taken.setdefault(place, option)
        if other != option:
            raise ValueError(f"{option} {path}: {other} is written there; give another name")


def _write(race: Race, out: Path, json: Path | None, csv: Path | None, console: Console) -> None:
    """Write the report and, where asked for, the numbers; say where they are."""
    from downslope.lab.report.page import report_page

    wanted: list[tuple[str, Path | None, Callable[[], str]]] = [
        ("Report", out, lambda: report_page(race)),
        ("Numbers", json, lambda: f"{race.to_json()}\n"),
        ("Runs", csv, lambda: race.runs().write_csv()),
    ]
    failed = ""
    for what, path, text in wanted:
        if path is None:
            continue
        place = path if _is_output(path) else _place(race, path)
        if place is None:
            _say(console, f"{what}: not written. No rule had been judged yet, so {path} is left as it was.")
            continue
        try:
            if place == STANDARD_OUTPUT:
                _to_standard_output(text())
            else:
                files.write(place, text())
        except OSError as error:
            failed = failed or f"the {what.lower()} could not be written to {place}: {error}"
            continue
        more = "" if place == path else f"; {path}, which was there before, is left as it was"
        _say(console, f"{what}: {place}{more}")
    if failed:
        refuse("race", failed, 1)


def _to_standard_output(text: str) -> None:
    """Write the bytes that a file would hold, in UTF-8 whatever the terminal's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def _place(race: Race, path: Path) -> Path | None:
    """Where a file about a race goes: that of an interrupted race replaces no other file. None: nowhere."""
    if files.descriptor(path) is not None or not (race.interrupted and path.is_file()):
        return path
    if not any(len(result.verdict) == len(race.verdict_seeds) for result in race.rules):
        return None
    names = (
        f"{path.stem}-interrupted{more}{path.suffix}"
        for more in itertools.chain([""], (f"-{k}" for k in itertools.count(2)))
    )
    return next(free for free in map(path.with_name, names) if not os.path.lexists(free))


def _say(console: Console, text: str) -> None:
    console.print(Text(printable(text)), soft_wrap=True)


def _splits(choice: str) -> Literal["varied", "fixed"]:
    if choice not in ("varied", "fixed"):
        raise ValueError(f"--splits {choice}: choose varied or fixed")
    return "varied" if choice == "varied" else "fixed"


def _settings(texts: list[str], rules: dict[str, Rule]) -> dict[str, dict[str, float | bool]]:
    """The hyperparameters given as `RULE.NAME=VALUE`; refuses a race in which one without default is not given."""
    from downslope.lab.races.entrants import called

    chosen: dict[str, dict[str, float | bool]] = {name: {} for name in rules}
    for text in texts:
        place, equals, value = text.partition("=")
        owner, dot, key = place.strip().rpartition(".")
        if not (equals and dot):
            raise ValueError(f"--set {text}: give RULE.NAME=VALUE, such as momentum.mu=0.95")
        meant = called(owner, rules)
        if not meant:
            raise ValueError(f"--set {text}: no rule of this race is named {owner}; it has {', '.join(rules)}")
        if len(meant) > 1:
            raise ValueError(f"--set {text}: say which {owner} is meant: {' or '.join(meant)}")
        if key == "lr":
            raise ValueError(f"--set {text}: lr is what the race tunes; give --lrs")
        try:
            chosen[meant[0]][key] = rules[meant[0]].checked(key, _value(value.strip()))
        except (TypeError, ValueError) as error:
            raise ValueError(f"--set {text}: {error}") from None
    for name, rule in rules.items():
        required = [key for key, value in rule.hyperparameters.items() if value is None and key != "lr"]
        if lacking := [key for key in required if key not in chosen[name]]:
            options = " ".join(f"--set {name}.{key}=VALUE" for key in lacking)
            raise ValueError(f"{name} needs a value for {', '.join(lacking)}; give {options}")
    return {name: given for name, given in chosen.items() if given}


def _value(text: str) -> float | bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither a number nor true or false") from None


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"{option} {text}: give numbers with commas between") from None

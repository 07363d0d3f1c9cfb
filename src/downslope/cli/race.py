"""The command `downslope race`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import downslope
import downslope.rules
from downslope import files
from downslope.cli.own_rule import names_a_file, own_rule

if TYPE_CHECKING:
    from downslope.formula import Rule
    from downslope.lab import Problem

TEXTBOOK = ",".join(rule.name for rule in downslope.rules.TEXTBOOK)


def race(
    problem: Annotated[
        str,
        typer.Argument(help="digits, breast-cancer, diabetes, parabola, or a table of yours (.csv or .parquet)."),
    ] = "digits",
    target: Annotated[str, typer.Option(help="The column of your table to predict.")] = "",
    hidden: Annotated[str, typer.Option(help="Sizes of the hidden layers for your table; by default 64.")] = "",
    task: Annotated[
        str, typer.Option(help="classification or regression, for your table; by default told from the target.")
    ] = "",
    drop: Annotated[
        list[str] | None, typer.Option(help="A column of your table to leave out. Repeat for more.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows per step, for your table.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training rows.")] = None,
    rules: Annotated[
        str, typer.Option(help="Names of rules, and rules of your own as file.py:name, with commas between.")
    ] = TEXTBOOK,
    lrs: Annotated[
        str, typer.Option(help="Learning rates to start from, with commas; default: 19 from 1e-5 to 10.")
    ] = "",
    tuning_seeds: Annotated[int, typer.Option(help="Runs per learning rate.")] = 3,
    seeds: Annotated[int, typer.Option(help="Fresh runs of each rule's best learning rate, for the verdict.")] = 10,
    seed: Annotated[int, typer.Option(help="Which initial weights and batches; another number is another race.")] = 0,
    split_seed: Annotated[int, typer.Option(help="Which random splits of the rows.")] = 0,
    splits: Annotated[
        str, typer.Option(help="varied: each seed has a split of its own; fixed: one split for all.")
    ] = "varied",
    margin: Annotated[
        float, typer.Option(help="The smallest difference in loss that matters, as a share: 0.01 is 1 %.")
    ] = 0.01,
    target_loss: Annotated[float | None, typer.Option(help="Time the rules by this validation loss.")] = None,
    out: Annotated[Path, typer.Option(help="Where to write the report.")] = Path("report.html"),
) -> None:
    """Race update rules on a network and data, and get a verdict.

    Every rule gets the same runs, on the same weights and splits, and is judged on seeds it was not tuned on.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the networks are small, and a GPU would only wait for them
    from downslope.lab import DataError, write_report
    from downslope.lab import race as run_race
    from downslope.lab.screen import Screen

    try:
        chosen = _problem(problem, target, hidden, task, drop or [], batch_size, epochs)
        entrants = [_rule(name.strip()) for name in rules.split(",") if name.strip()]
        given: dict[str, Any] = {"learning_rates": _numbers(lrs, "--lrs")} if lrs else {}
        _check_output("--out", out)
        with Screen(chosen, entrants) as screen:
            result = run_race(
                chosen,
                entrants,
                tuning_seeds=tuning_seeds,
                verdict_seeds=seeds,
                seed=seed,
                split_seed=split_seed,
                splits=_splits(splits),
                margin=margin,
                target_loss=target_loss,
                watch=screen.watch,
                **given,
            )
    except (DataError, ValueError, downslope.FormulaError) as error:
        typer.echo(f"downslope race: {error}", err=True)
        raise typer.Exit(2) from None
    screen.show(result)
    try:
        write_report(result, out)
    except OSError as error:
        typer.echo(f"downslope race: the report could not be written to {out}: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"Report: {out}")
    if result.interrupted:
        raise typer.Exit(130)


def _check_output(option: str, path: Path) -> None:
    """Refuse before anything is trained what could not be written after it."""
    if files.descriptor(path) is None:
        try:
            files.check(path)
        except OSError as error:
            raise ValueError(f"{option} {path}: {error}") from None


def _problem(
    name: str, target: str, hidden: str, task: str, drop: list[str], batch_size: int | None, epochs: int | None
) -> Problem:
    from dataclasses import replace

    from downslope.lab import load_problem, load_table
    from downslope.lab.problems import check_sizes

    if task not in ("", "classification", "regression"):
        raise ValueError(f"--task {task}: choose classification or regression")
    if name.lower().endswith((".csv", ".parquet")):
        if not target:
            raise ValueError(f"{name}: say which column to predict, with --target COLUMN")
        sizes = tuple(int(size) for size in _numbers(hidden or "64", "--hidden", whole=True))
        kind: Any = task or None
        return load_table(
            name,
            target=target,
            hidden=sizes,
            task=kind,
            drop=drop,
            batch_size=batch_size,
            epochs=30 if epochs is None else epochs,
        )
    options = {"--target": target, "--hidden": hidden, "--task": task, "--drop": drop, "--batch-size": batch_size}
    used = [option for option, value in options.items() if value not in ("", [], None)]
    if used:
        raise ValueError(f"{used[0]} is for a table of yours; {name} is a built-in problem")
    chosen = load_problem(name)
    if epochs is not None:
        check_sizes(hidden=chosen.hidden, batch_size=None, epochs=epochs)
        chosen = replace(chosen, epochs=epochs)
    return chosen


def _splits(choice: str) -> Literal["varied", "fixed"]:
    if choice not in ("varied", "fixed"):
        raise ValueError(f"--splits {choice}: choose varied or fixed")
    return "varied" if choice == "varied" else "fixed"


def _rule(name: str) -> Rule:
    """A rule by its name, or from a file as `file.py:name`."""
    if names_a_file(name):
        return own_rule(name, "--rules")
    if name not in downslope.rules.__all__:
        known = ", ".join(downslope.rules.__all__)
        raise ValueError(f"--rules {name}: there is no such rule; the names are {known}; your own are file.py:name")
    found: Rule = getattr(downslope.rules, name)
    return found


def _numbers(text: str, option: str, *, whole: bool = False) -> list[float]:
    try:
        return [int(part) if whole else float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"{option} {text}: give {'whole ' if whole else ''}numbers with commas between") from None

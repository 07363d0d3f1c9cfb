"""The command `downslope race`."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

import downslope
import downslope.rules
from downslope import files
from downslope.cli.ending import Stoppable, refuse
from downslope.cli.keeping import GOES_ON, beside, continued, go_on, only_joins, typed
from downslope.cli.names import names_a_file, own_function, recipe_typed, rules_named
from downslope.cli.outputs import check_outputs, is_output, say, write_outputs
from downslope.cli.raced import raced_on
from downslope.cli.tuned import grid_typed, hyperparameters_typed, numbers_typed, rules_of_a_race
from downslope.cli.wording import as_typed
from downslope.extras import require

if TYPE_CHECKING:
    from downslope.lab.keeping.folder import Folder

TEXTBOOK = ",".join(rule.name for rule in downslope.rules.TEXTBOOK)
LAB = ("latex2mathml.converter", "plotly.offline", "scipy")


def race(
    context: typer.Context,
    problem: Annotated[
        str,
        typer.Argument(
            help="digits, breast-cancer, diabetes, parabola; to learn from: noisy-quadratic, deep-quadratic, "
            "rosenbrock, heavy-tail, separable, mnist-5k, unicode-names. Or a table of yours: .csv, .tsv or .txt, "
            "perhaps compressed (.gz, .zst), or .parquet. Or a training of yours, in any framework, as "
            "file.py:function; with --data that function makes a model for a seed."
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
    grid: Annotated[
        list[str] | None,
        typer.Option(
            help="Values of another hyperparameter to tune too, as weight_decay=0,0.01,0.1 or batch_size=32,128; for "
            "each rule that has it. Repeat for all combinations with another one.",
        ),
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
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Where every run is kept when it ends; what is there already is not trained again. Default: a new "
            "folder beside the report.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with the race in this folder, as it was typed.", show_default=False),
    ] = None,
    join: Annotated[
        Path | None,
        typer.Option(
            help="A folder that several processes share, on one machine or many, each begun with the same command: "
            "they divide the runs among them. With nothing else, the race that is there.",
            show_default=False,
        ),
    ] = None,
    mix: Annotated[
        bool,
        typer.Option(
            "--mix", help="Count runs too that another processor or other versions of libraries have rounded otherwise."
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(help="How many processes of this machine train runs; by default this one.", show_default=False),
    ] = None,
    scheduler: Annotated[
        str, typer.Option(help="The scheduler of Dask whose workers train the runs, such as tcp://127.0.0.1:8786.")
    ] = "",
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
    if not context.meta.get(GOES_ON) and (resume is not None or (join is not None and only_joins(context))):
        try:
            again = continued(context, resume, join)
        except ImportError as error:
            refuse("race", error, 1)
        except ValueError as error:
            refuse("race", str(error))
        race(context, **again)
        return
    place: Folder | None = None
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
            entrants = rules_of_a_race(rules_named(rules, "--rules"))
            given: dict[str, Any] = {"learning_rates": numbers_typed(lrs, "--lrs")} if lrs else {}
            varied = grid_typed(grid or [])
            hyperparameters = hyperparameters_typed(settings or [], entrants, varied)
            kind = _splits(splits)
            present = recipe_typed(now, "--now") if now else None
            check_outputs(out, json, csv)
            chosen = raced_on(problem, about_table, epochs=epochs, data=data, loss=loss)
            # All that was typed is right; now what takes seconds to load: what is broken is said before training.
            require("A race", "lab", [*LAB, *chosen.needs, *(["polars"] if csv else [])], load=True)
            from downslope.cli.screen import show
            from downslope.lab.keeping.folder import Folder
            from downslope.lab.live import LivePage
            from downslope.lab.races.plan import NOW
            from downslope.lab.ticker import Ticker
            from downslope.lab.workers.cluster import executor_at
            from downslope.lab.workers.pool import size_of

            names = [*entrants, *([] if present is None else [NOW])]
            for remark in chosen.remarks:
                typer.echo(f"downslope race: note: {as_typed(remark, OPTIONS)}", err=True)
            taken = any(map(is_output, (out, json, csv)))
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
                "grid": varied or None,
                **given,
            }
            if dry_run:
                for sentence in foresee(**arguments).sentences:
                    say(console, sentence)
                return
            if folder is not None and join is not None:
                raise ValueError(f"--join {join} is the folder of the race; leave --folder {folder} out")
            if folder is not None or join is not None:
                anew = None if context.meta.get(GOES_ON) else typed(context)
                place = Folder(folder or join or "", typed=anew, mix=mix, join=join is not None)
            elif not (mix or is_output(out) or files.descriptor(out)):
                place = Folder(beside(out), typed=typed(context), other=True)
            lines, threads = chosen.about(len(names), kind), 1 if chosen.own else None
            with contextlib.ExitStack() as around:
                spread: Any = workers
                if scheduler:
                    if workers is not None:
                        raise ValueError(
                            f"--workers {workers} is for this machine, --scheduler for others; leave one out"
                        )
                    spread = around.enter_context(executor_at(scheduler))
                threads = threads if spread is None else size_of(spread)
                ticker = Ticker(lines, names, chosen.epochs, console, threads=threads)
                page = None
                if not is_output(out) and not files.descriptor(out):
                    page = around.enter_context(LivePage(out, lines[0], names, ticker, ticker.underway.unit))
                watch = ticker.watch if page is None else page.watch
                with ticker:
                    result = run_race(watch=watch, folder=place, mix=mix, workers=spread, **arguments)
                show(result, console)
                if page is not None:
                    page.over()
                report = write_outputs(result, out, json, csv, console)
                if page is not None:
                    page.over(report)
            if place is not None:
                say(console, f"Runs: {place.path}{_before(place)}{_beside(place)}")
        except ImportError as error:
            refuse("race", error, 1)
        except (ValueError, downslope.FormulaError) as error:
            refuse("race", as_typed(str(error), OPTIONS))
        except RuntimeError as error:
            if type(error).__name__ != "WorkersError":
                raise
            more = f"; go on with: {go_on(place.path)}" if place is not None and place.planned is not None else ""
            refuse("race", f"{as_typed(str(error), OPTIONS)}{more}", 1)
        except KeyboardInterrupt:
            lost = "nothing was finished"
            if place is not None and place.planned is not None:
                lost = f"what is finished is kept; go on with: {go_on(place.path)}"
            refuse("race", f"stopped before the end; {lost}", stoppable.status)
    if result.interrupted and not (result.budget and result.budget.over):
        if place is not None:
            typer.echo(f"downslope race: stopped before the end; go on with: {go_on(place.path)}", err=True)
        raise typer.Exit(stoppable.status)


def _beside(folder: Folder) -> str:
    """How many other folders of races pile up beside one that was not asked for."""
    path = folder.path
    others = [one for one in path.parent.glob(f"{folder.first.name}*") if one != path and (one / "plan.json").is_file()]
    if not folder.other or not others:
        return ""
    many = "another race's folder lies" if len(others) == 1 else f"{len(others)} folders of other races lie"
    return f"; {many} beside it, to go on with (--folder) or to delete"


def _before(folder: Folder) -> str:
    """How many runs were in a folder already, if any were."""
    return f"; {folder.answered:,} of them were there and were not trained again" if folder.answered else ""


OPTIONS = [name for name in inspect.signature(race).parameters if name not in ("problem", "settings")]


def _splits(choice: str) -> Literal["varied", "fixed"]:
    if choice not in ("varied", "fixed"):
        raise ValueError(f"--splits {choice}: choose varied or fixed")
    return "varied" if choice == "varied" else "fixed"

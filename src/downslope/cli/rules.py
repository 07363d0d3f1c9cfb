"""The command `downslope rules`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

import downslope
from downslope.cli.ending import refuse
from downslope.cli.names import named
from downslope.dialects import DIALECTS
from downslope.printable import printable
from downslope.recipes import catalogue
from downslope.recipes.spelled import FRONT_ENDS

NARROW = 78
"""Below this many columns, the list has no room for the costs."""

WIDE = 110
"""From this many columns on, the list has room for the pictures."""

LIBRARIES = {"NumPy": "note", "PyTorch": "torch", "Keras": "keras", "Optax": "optax"}
"""Where any rule is run, whatever framework its form is of; and the dialect at home there."""

Facts = Mapping[str, Any]
"""What `downslope.recipes.catalogue` says about a rule."""


def rules(
    name: Annotated[
        str,
        typer.Argument(
            help="A rule (adam), one form of it (keras.adam), a dialect (keras), or a rule of your own (file.py:name). "
            "Without it, all rules are listed.",
            show_default=False,
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for programs.")] = False,
) -> None:
    """List the rules, or show one in every framework.

    One rule: its formula, what differs, defaults, cost, source and use.
    """
    try:
        data, screen = _chosen(name, whole=as_json)
    except (ValueError, downslope.FormulaError) as error:
        refuse("rules", error)
    if as_json:
        typer.echo(json.dumps(data, indent=2, allow_nan=False))
    else:
        _show(screen(_escaped(data)))


def _chosen(name: str, *, whole: bool) -> tuple[dict[str, Any], Callable[[dict[str, Any]], RenderableType]]:
    """What was asked for, as data, whole or as far as the screen shows it, and the screen for it."""
    if not name:
        return catalogue.overview(stability=whole), _overview
    if name.lower() in DIALECTS:
        return catalogue.dialect(name.lower(), stability=whole), _dialect
    found = named(name, "NAME")
    if isinstance(found, str):
        return catalogue.entry(found), _family
    return catalogue.facts(found), _form


def _escaped(data: Any) -> Any:
    """Facts with control characters escaped: the docstring of a user's own rule may hold any."""
    if isinstance(data, str):
        return printable(data, keep="\n")
    if isinstance(data, Mapping):
        return {_escaped(key): _escaped(value) for key, value in data.items()}
    return [_escaped(item) for item in data] if isinstance(data, list | tuple) else data


def _show(screen: RenderableType) -> None:
    """Print a screen; into a pipe or a file without the blanks that fill lines up."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(screen)
        return
    with console.capture() as capture:
        console.print(screen)
    typer.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


# The list


def _overview(data: Facts) -> RenderableType:
    wide, narrow = Console().width >= WIDE, Console().width < NARROW
    table = _table("rule", *data["dialects"], *(() if narrow else ("states", "read", "written")))
    if wide:
        table.add_column("the picture", ratio=1)
    for entry in data["rules"]:
        forms = entry["forms"].values()
        costs = [
            _spread(_per_weight(form) for form in forms),
            _spread(form["cost"]["bytes_read"] for form in forms),
            _spread(form["cost"]["bytes_written"] for form in forms),
        ]
        table.add_row(
            entry["name"],
            *(_mark(entry, dialect) for dialect in data["dialects"]),
            *([] if narrow else costs),
            *([Text(entry["intuition"])] if wide else []),
        )
    explained = "" if narrow else " Per weight: states; bytes that a step reads and writes in float32."
    if not narrow and any(form["spaces"] for entry in data["rules"] for form in entry["forms"].values()):
        explained += " States by rows or columns are next to nothing, and are not counted."
    return Group(
        table,
        Text(f"\n(yes): under another name.{explained}"),
        Text("More: downslope rules adam (one rule), keras.adam (one form), keras (one dialect)."),
    )


def _mark(entry: Facts, dialect: str) -> str:
    return "yes" if dialect in entry["forms"] else "(yes)" if dialect in entry["stand_ins"] else ""


def _per_weight(form: Facts) -> int:
    """How many states a rule has for each weight."""
    return len(form["states"]) - len(form["spaces"])


def _spread(numbers: Iterable[int]) -> str:
    found = sorted(numbers)
    return str(found[0]) if found[0] == found[-1] else f"{found[0]}-{found[-1]}"


def _dialect(data: Facts) -> RenderableType:
    table = _table("rule", "defaults")
    table.columns[1].justify = "left"
    for form in data["rules"]:
        table.add_row(form["name"], ", ".join(_settings(form)))
    return Group(_title(data["framework"]), Text(), table, Text("\nWhat has no value must be given."))


def _settings(form: Facts) -> list[str]:
    numbers = {name: each["default"] for name, each in form["hyperparameters"].items()}
    return [name if value is None else _setting(name, value) for name, value in {**numbers, **form["flags"]}.items()]


def _setting(name: str, value: float | bool | str, between: str = "=") -> str:
    return f"{name}{between}{_number(value)}"


def _number(value: float | bool | str) -> str:
    """A number, with exponents as people write them; anything else as it is."""
    return f"{value:g}".replace("e-0", "e-") if type(value) is float else str(value)


# One rule


def _family(entry: Facts) -> RenderableType:
    forms = entry["forms"]
    parts: list[RenderableType] = [
        _title(entry["name"]),
        Text(entry["intuition"]),
        _heading("Formula"),
        *_formulas(entry),
    ]
    parts += [_heading("Defaults"), _defaults(forms), _heading("Cost of a step, per weight"), _cost(forms)]
    if entry["rates"]:
        parts += [_heading("Learning rates"), _rates(entry["rates"])]
    parts += [_heading("Source"), _sources(forms), _heading("Use"), _use(next(iter(forms.values())))]
    other = next((form for dialect, form in forms.items() if dialect not in entry["differences"]["groups"][0]), None)
    if other:
        parts.append(_indented(Text(f"and any other form likewise: {_call(other, 'PyTorch')}")))
    alone = [f"One form alone: downslope rules {list(forms)[-1]}.{entry['name']}"] if len(forms) > 1 else []
    others = [f"{name} ({', '.join(dialects)})" for name, dialects in entry["see_also"].items()]
    more = [*alone, *([f"See also: {', '.join(others)}"] if others else [])]
    return Group(*parts, *([Text("\n" + "\n".join(more))] if more else []))


def _formulas(entry: Facts) -> Iterator[RenderableType]:
    """The formula of each group of dialects that gives a path of its own, and how far that leads from the first."""
    reference, elsewhere = entry["differences"]["reference"], entry["differences"]["elsewhere"]
    form = entry["forms"][reference["dialect"]]
    for index, group in enumerate(entry["differences"]["groups"]):
        names = " = ".join(_counterpart(entry, dialect) for dialect in group)
        yield Text(f"\n{names}" if index else names, style="bold")
        if reference["dialect"] in group:
            yield _formula(form)
        else:
            found = elsewhere[group[0]]
            yield _formula(found)
            yield _indented(Text(f"Compared with {reference['dialect']}: {found['sentence']}"))
    notes = []
    if any(len(group) > 1 for group in entry["differences"]["groups"]):
        notes.append("An = joins dialects that give the same path with the same hyperparameters.")
    if missing := [dialect for dialect, found in elsewhere.items() if found is None]:
        notes.append(f"There is none in {', '.join(missing)}.")
    if notes:
        yield Text("\n" + "\n".join(notes))


def _counterpart(entry: Facts, dialect: str) -> str:
    """A dialect, with its rule and settings where they go by another name."""
    reference = entry["differences"]["reference"]
    if dialect == reference["dialect"]:
        return dialect
    found = entry["differences"]["elsewhere"][dialect]
    label = dialect if found["rule"] == entry["name"] else f"{dialect}.{found['rule']}"
    settings = [_setting(key, value) for key, value in found["settings"].items() if key not in reference["settings"]]
    return f"{label}({', '.join(settings)})" if settings else label


def _form(form: Facts) -> RenderableType:
    name = f"{form['dialect']}.{form['name']}" if form["dialect"] else form["name"]
    parts: list[RenderableType] = [_title(name)]
    if form["intuition"]:
        parts.append(Text(form["intuition"]))
    parts += [_heading("Formula"), _formula(form)]
    forms = {form["dialect"] or "default": form}
    parts += [_heading("Defaults"), _defaults(forms, ranges=True), _heading("Cost of a step, per weight"), _cost(forms)]
    if form["source"]:
        parts += [_heading("Source"), _sources(forms)]
    return Group(*parts, _heading("Use"), _use(form))


def _formula(form: Facts) -> RenderableType:
    """The lines of a form, and how its states begin."""
    lines = Table.grid(padding=(0, 1, 0, 0))
    parts = [line.partition(" = ") for line in form["formula"]]
    lines.add_column(no_wrap=_short(name for name, _, _ in parts), overflow="fold")
    lines.add_column(no_wrap=True)
    lines.add_column(ratio=1, overflow="fold")
    for name, _, value in parts:
        lines.add_row(Text(name), "=", Text(value))
    starts = {**form["states"], **form.get("scalar_states", {})}
    spaces = {name: f" ({space})" for name, space in form["spaces"].items()}
    first = ", ".join(f"{_setting(name, start, ' = ')}{spaces.get(name, '')}" for name, start in starts.items())
    return _indented(Group(lines, *([Text(f"at first {first}")] if first else [])))


def _defaults(forms: Mapping[str, Facts], *, ranges: bool = False) -> RenderableType:
    table = _table("", *forms, *(["range"] if ranges else []))
    names = [name for form in forms.values() for name in (*form["hyperparameters"], *form["flags"])]
    table.columns[0].no_wrap = _short(names)
    for name in dict.fromkeys(name for form in forms.values() for name in form["hyperparameters"]):
        known = [form["hyperparameters"].get(name) for form in forms.values()]
        allowed = [_allowed(each) for each in known if each] if ranges else []
        table.add_row(name, *map(_default, known), *allowed)
    for name in dict.fromkeys(name for form in forms.values() for name in form["flags"]):
        table.add_row(name, *(str(form["flags"].get(name, "")) for form in forms.values()), *[""] * ranges)
    steps = [form["first_update"] for form in forms.values()]
    if any(step is not None for step in steps):
        texts = ["" if step is None else f"{float(f'{step:.3g}'):g} lr" for step in steps]
        table.add_row(*[""] * len(table.columns))
        table.add_row("first step at dx = 1", *texts, *[""] * ranges)
    table.add_row("stable to lr * curvature", *(_limit(form["stability"]) for form in forms.values()), *[""] * ranges)
    return _indented(Group(table, *_about_stability(forms)))


def _limit(stability: Facts) -> str:
    """The limit, starred where the curvature is the preconditioned one."""
    limit = stability["limit"]
    if limit is None:
        return "?"
    return f"{limit if isinstance(limit, str) else f'{limit:.4g}'}{'*' if stability['held'] else ''}"


def _about_stability(forms: Mapping[str, Facts]) -> Iterator[RenderableType]:
    found = [form["stability"] for form in forms.values()]
    if any(each["held"] for each in found):
        yield Text("* of the preconditioned curvature: that of the loss, times the factor before the gradient")
    for settings in {tuple(each["settings"].items()) for each in found if each["settings"]}:
        yield Text(f"stable with {', '.join(_setting(*each) for each in settings)} where it has no default")
    for reason in dict.fromkeys(each["reason"] for each in found if each["reason"]):
        yield Text(f"? {reason}")


def _default(setting: Facts | None) -> str:
    if setting is None:
        return ""
    return "required" if setting["required"] else _number(setting["default"])


def _allowed(setting: Facts) -> str:
    low, high = setting["low"], setting["high"]
    if low is None or high is None:
        return "any number" if low is None else f"{_number(low)} or more"
    return f"{_number(low)} to {'' if setting['high_included'] else 'below '}{_number(high)}"


def _cost(forms: Mapping[str, Facts]) -> RenderableType:
    table = _table("", *forms)
    rows: dict[str, Callable[[Facts], int]] = {
        "states": _per_weight,
        "by rows or columns": lambda form: len(form["spaces"]),
        "bytes read": lambda form: form["cost"]["bytes_read"],
        "bytes written": lambda form: form["cost"]["bytes_written"],
        "operations": lambda form: sum(form["cost"]["operations"].values()),
    }
    if not any(form["spaces"] for form in forms.values()):
        del rows["by rows or columns"]
    for name, count in rows.items():
        table.add_row(name, *(str(count(form)) for form in forms.values()))
    return _indented(table)


def _rates(rates: Facts) -> RenderableType:
    """The learning rates that are as long as one of AdamW, by the size of the layer."""
    table = _table("layer", *rates["forms"])
    for index, (inputs, outputs) in enumerate(rates["layers"]):
        table.add_row(f"{inputs} to {outputs}", *(f"{of[index]:.3g}" for of in rates["forms"].values()))
    said = f"with which a step, by the form's defaults, is as long as AdamW's at {_number(rates['adamw'])}"
    return _indented(Group(table, Text(said)))


def _sources(forms: Mapping[str, Facts]) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    for dialect, form in forms.items():
        grid.add_row(dialect if form["dialect"] else "", Text(form["source"].replace("`", "")))
        for call in form["calls"]:
            fixed = {key: value for key, value in call["fixed"].items() if form["flags"].get(key) != value}
            changed = [_setting(key, value) for key, value in {**call["defaults"], **(call["words"] or fixed)}.items()]
            kind = [call["weight_decay"]] if "weight_decay" in call["defaults"] and call["weight_decay"] else []
            if changed:
                grid.add_row("", Text(f"{call['name']}: {', '.join([*changed, *kind])}"))
    return _indented(grid)


def _use(form: Facts) -> RenderableType:
    lines = Table.grid(padding=(0, 2, 0, 0))
    lines.add_column(no_wrap=True)
    lines.add_column(overflow="fold")
    for library in LIBRARIES:
        lines.add_row(library, Text(_call(form, library)))
    return _indented(lines)


def _call(form: Facts, library: str) -> str:
    """How a form is run in a library, after `from downslope import dialects`, with what must be given."""
    front_end = FRONT_ENDS[LIBRARIES[library]]
    name = (form["python"] or form["name"]).replace("downslope.dialects.", "dialects.")
    required = [key for key, each in form["hyperparameters"].items() if each["required"]]
    given = [f"{front_end.lr if key == 'lr' else key}=..." for key in required]
    return f"{front_end.call}{', '.join([name, *given])})"


# Parts of screens


def _title(text: str) -> Text:
    return Text(text, style="bold")


def _heading(text: str) -> Text:
    return Text.assemble("\n", (text, "bold underline"))


def _indented(part: RenderableType) -> RenderableType:
    return Padding(part, (0, 0, 0, 2))


def _table(*titles: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for index, title in enumerate(titles):
        table.add_column(title, no_wrap=not index, overflow="fold", justify="right" if index else "left")
    return table


def _short(names: Iterable[str]) -> bool:
    """Whether the names are of a length that any screen has room for, so that they need not be broken."""
    return max(map(len, names), default=0) <= 24

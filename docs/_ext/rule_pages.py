"""A page for every rule, written from the rule when the site is built; what no formula says is in `learn/prose.md`."""

import functools
import hashlib
import inspect
import math
import re
import sys
from pathlib import Path

import matplotlib
import numpy
import tensor_pages
from migration import tables

import downslope
from downslope.dialects import DIALECTS
from downslope.play.page import page as playground
from downslope.recipes import catalogue
from downslope.rules import OVER_TENSORS, RULES
from downslope.walks.pictures import picture as drawn

HERE = Path(__file__).parents[1] / "learn"
PARTS = ("language", "targets", "rules", "dialects", "recipes", "training", "walks", "pages")
"""The folders of the package that a page depends on."""

FRAMEWORKS = {name: dialect.framework for name, dialect in DIALECTS.items()}


def number(value):
    """A value as it is written in a formula."""
    return str(value) if isinstance(value, str | bool | None) else f"{value:.6g}"


def table(head, rows):
    """Lines of a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def code(text):
    """A few words of code within a line."""
    return f"`{text}`"


def played(rule, words):
    """A link into the playground, set to this rule. The page is built with the site."""
    state = f"surface=rotated_valley&rules=sgd,{rule.name}&lr=best&look={rule.name}"
    return f'<a href="../../playground.html#{state.replace("&", "&amp;")}">{words}</a>'


def picture(rule, folder):
    """Draw the rule beside gradient descent, and say what is seen."""
    rules = [downslope.sgd] if rule is downslope.sgd else [downslope.sgd, rule]
    walked = downslope.walk("rotated_valley", rules)
    (folder / f"{rule.name}.png").write_bytes(drawn(walked, "png", dots=80))
    said = []
    for path in walked.paths:
        ends = "does not get there" if path.arrival is None else f"is there from step {path.arrival} on"
        said.append(f"`{path.name}` at {path.lr:.2g} {ends}, {path.detour:.2g} times the way")
    return f"""![The path of {rule.name} down a valley that lies across the axes]({rule.name}.png)

A valley 50 times as curved across as along, turned against the axes; each rule at the best of 91 learning rates for it.
{"; ".join(said)}.
{played(rule, "Walk it yourself")}: drag the start, change the learning rate, look at every number.
"""


def formula(rule, facts):
    """The formula twice: as it is read, and as it is written."""
    source = inspect.getsource(rule.function)
    body = re.sub(r'    """.*?"""\n', "", source, flags=re.DOTALL)
    ahead = f"\nThe gradient is taken at `{facts['lookahead']}`, not at `x`.\n" if facts["lookahead"] else ""
    t = " `t` is the number of the step, from 1." if facts["uses_t"] else ""
    return f"""## The formula
$$
{facts["latex"]}
$$

`x` are the weights, `dx` is the gradient of the loss; all operations are done for each weight by itself.{t}
{ahead}
This is all that has been written of it; kernels, pages and this page are made from these lines:

```python
{body.strip()}
```
"""


def steps(rule):
    """Three steps in numbers."""
    path = downslope.walk("x**2", [rule], start=1.0, lr="own", steps=3).paths[0]
    names = [name for name in path.states if len(path.states[name])]
    head = ["step", "gradient", *map(code, names), "`x`"]
    rows = [
        [
            step,
            "" if step == 0 else f"{path.gradients[step - 1][0]:.5g}",
            *(f"{float(path.states[name][step].ravel()[0]):.5g}" for name in names),
            f"{path.points[step][0]:.7g}",
        ]
        for step in range(4)
    ]
    return f"""## Three steps, in numbers
Down $x^2$ from $x = 1$, at the learning rate of its default, {path.lr:g}:

{table(head, rows)}"""


def costs(facts):
    """What is kept for each weight, and what a step moves."""
    kept = {**facts["states"], **facts["scalar_states"]}
    starts = ", ".join(
        f"`{name}`, at first {'a copy of the weights' if start == 'x' else number(start)}"
        + (" (one number for all weights)" if name in facts["scalar_states"] else "")
        for name, start in kept.items()
    )
    cost = facts["cost"]
    done = ", ".join(f"{count} × `{name}`" for name, count in cost["operations"].items())
    size = 4 * len(facts["states"])
    remembered = f"It remembers {starts}: {size} bytes per weight in float32." if kept else "It remembers nothing."
    return f"""## What it remembers, and what a step costs
{remembered} A step reads {cost["bytes_read"]} bytes per weight and writes {cost["bytes_written"]}; per weight it takes
{done}. For large models only the bytes count: that is how long it takes.
"""


def limit(rule, facts):
    """How large the learning rate may be."""
    said = facts["stability"]
    if said["limit"] is None:
        return f"""## How large may the learning rate be?
No limit can be read off its formula: {said["reason"]}.
"""
    which = "preconditioned curvature" if said["held"] else "curvature"
    held = (
        " (the curvature times the factor before the gradient, which changes as it walks; "
        f"`{'`, `'.join(said['held'])}` held still)"
        if said["held"]
        else ""
    )
    below = (
        "whatever it is, errors do not grow"
        if math.isinf(said["limit"])
        else f"below **{said['limit']:.4g}** divided by the largest {which} it is stable{held}, above it is thrown "
        "farther each time"
    )
    rate = (
        f" On a parabola it is fastest at {said['fastest']:.4g}, where each step leaves {said['rate']:.3g} of the "
        "error."
        if said["fastest"]
        else ""
    )
    first = facts["first_update"]
    step = f" Its first step at a gradient of 1 is {first:.3g} learning rates long." if first is not None else ""
    return f"""## How large may the learning rate be?
Read off the formula, with its defaults: {below}.{rate}{step}
[More about limits](../../walk.md#how-large-may-the-learning-rate-be).
"""


def defaults(entry):
    """The hyperparameters of every form of it."""
    forms = entry["forms"]
    names = list(dict.fromkeys(name for form in forms.values() for name in (*form["hyperparameters"], *form["flags"])))
    rows = []
    for name in names:
        row = [code(name)]
        for form in forms.values():
            if name in form["hyperparameters"]:
                of = form["hyperparameters"][name]
                row.append("required" if of["required"] else number(of["default"]))
            else:
                row.append(str(form["flags"].get(name, "")))
        rows.append(row)
    return f"## Defaults\n{table(['', *(FRAMEWORKS[d] for d in forms)], rows)}"


def elsewhere(entry):
    """What frameworks call by its name, and where their formulas part."""
    said = entry["differences"]
    rows = [
        [FRAMEWORKS[other], code(f"{other}.{found['rule']}"), found["sentence"]]
        for other, found in said["elsewhere"].items()
        if found is not None
    ]
    none = [FRAMEWORKS[other] for other, found in said["elsewhere"].items() if found is None]
    missing = f"\nNo counterpart in {', '.join(none)}.\n" if none else ""
    groups = [" = ".join(FRAMEWORKS[d] for d in group) for group in said["groups"] if len(group) > 1]
    alike = (
        f"Always on the same path: {'; '.join(groups)}." if groups else "No two of them are always on the same path."
    )
    body = f"{alike}\n\n{table(['framework', 'form', 'beside the textbook'], rows)}\n{written(said)}" if rows else ""
    return f"""## In the frameworks
{body}{missing}
`downslope rules {entry["name"]}` shows all formulas; [what differs, and what is tested](../../dialects.md).
"""


def written(said):
    """The formulas of the frameworks, to be unfolded; those that are the textbook's line by line are not repeated."""
    blocks = [
        f"{FRAMEWORKS[other]}, `{other}.{found['rule']}`{settings(found)}:\n\n```python\n"
        + "\n".join(found["formula"])
        + "\n```\n"
        for other, found in said["elsewhere"].items()
        if found is not None
    ]
    return "<details><summary>Their formulas</summary>\n\n" + "\n".join(blocks) + "\n</details>\n"


def settings(found):
    """What has to be said for a form of a framework to be this rule."""
    given = ", ".join(f"{name}={number(value)}" for name, value in found["settings"].items())
    return f" with `{given}`" if given else ""


def use(rule):
    """How to train with it."""
    return f"""## Use it
```python
downslope.Optimizer(weights, downslope.{rule.name})  # NumPy
downslope.torch.Optimizer(model.parameters(), downslope.{rule.name})  # PyTorch
downslope.keras.Optimizer(downslope.{rule.name})  # Keras
downslope.optax.optimizer(downslope.{rule.name})  # Optax
```
"""


def page(rule, prose, folder):
    """The whole page of a rule."""
    entry = catalogue.entry(rule.name)
    facts = entry["forms"]["note"]
    parts = [
        f"# {rule.name}\n\n**{rule.intuition}**\n",
        picture(rule, folder),
        prose.get(rule.name, ""),
        formula(rule, facts),
        steps(rule),
        costs(facts),
        limit(rule, facts),
        defaults(entry),
        elsewhere(entry),
        use(rule),
        f"## Source\n{rule.source}\n",
    ]
    return "\n".join(parts)


def prose_of(path):
    """What `learn/prose.md` says of each rule: the text below the heading of its name."""
    parts = re.split(r"^# (\w+)\n", path.read_text(), flags=re.MULTILINE)[1:]
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    if unknown := found.keys() - {rule.name for rule in (*RULES, *OVER_TENSORS)}:
        raise ValueError(f"{path} has a heading for {', '.join(sorted(unknown))}, and there is no such rule")
    return found


def basis():
    """A hash of all that a page is written from but its prose: formulas, what works on them, this extension."""
    house = Path(downslope.__file__).parent
    files = [house / "rule.py", *(path for part in PARTS for path in sorted((house / part).rglob("*.py")))]
    digest = hashlib.sha256(f"{numpy.__version__} {matplotlib.__version__} {sys.version}".encode())
    for path in (*files, *sorted(Path(__file__).parent.glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def kept(path, made_from, make, beside=()):
    """Write a page, unless it and the files beside it are there, made from the same: so its last line says."""
    stamp = f"% {hashlib.sha256(made_from.encode()).hexdigest()}\n"
    whole = all(file.exists() for file in (path, *beside))
    if not (whole and path.read_text().endswith(stamp)):
        path.write_text(f"{make()}\n{stamp}")


def write(app):
    """Write all pages, before the site is read."""
    folder = HERE / "rules"
    folder.mkdir(exist_ok=True)
    prose, made_from = prose_of(HERE / "prose.md"), basis()
    wanted = {rule.name for rule in (*RULES, *OVER_TENSORS)}
    for old in folder.iterdir():
        if old.stem not in wanted:
            old.unlink()
    for rule in RULES:
        about = f"{made_from} {prose.get(rule.name, '')}"
        kept(
            folder / f"{rule.name}.md",
            about,
            functools.partial(page, rule, prose, folder),
            [folder / f"{rule.name}.png"],
        )
    for rule in OVER_TENSORS:
        about = f"{made_from} {prose.get(rule.name, '')}"
        kept(folder / f"{rule.name}.md", about, functools.partial(tensor_pages.page, rule, prose))
    kept(HERE / "migration.md", made_from, tables)


def write_playground(app, error):
    """The playground lies beside the pages that link to it, under a name that no page has."""
    if error is None and app.builder.format == "html":
        (Path(app.outdir) / "playground.html").write_text(playground())


def setup(app):
    """Write the pages first, and the playground last."""
    app.connect("builder-inited", write)
    app.connect("build-finished", write_playground)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

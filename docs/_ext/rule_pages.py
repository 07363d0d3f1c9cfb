"""A page for every rule, written from the rule when the site is built; what no formula says is in `learn/prose.md`."""

import functools
import hashlib
import math
import re
import sys
from pathlib import Path

import claims_page
import matplotlib
import numpy
import shown
import tensor_pages
from languages import SAYINGS
from migration import tables
from shown import table, use

import downslope
from downslope.dialects import DIALECTS
from downslope.play.page import page as playground
from downslope.recipes import catalogue
from downslope.rules import OVER_TENSORS, RULES
from downslope.walks.pictures import picture as drawn

HERE = Path(__file__).parents[1] / "learn"
PARTS = ("language", "targets", "rules", "dialects", "recipes", "training", "walks", "pages", "claims")
"""The folders of the package that a page depends on."""

FRAMEWORKS = {name: dialect.framework for name, dialect in DIALECTS.items()}


def number(value):
    """A value as it is written in a formula."""
    return str(value) if isinstance(value, str | bool | None) else f"{value:.6g}"


def code(text):
    """A few words of code within a line."""
    return f"`{text}`"


def played(rule, words):
    """A link into the playground, set to this rule. The page is built with the site."""
    rules = ",".join(dict.fromkeys(("sgd", rule.name)))
    state = f"surface=rotated_valley&rules={rules}&lr=best&look={rule.name}"
    return f'<a href="../../playground.html#{state.replace("&", "&amp;")}">{words}</a>'


@functools.cache
def walked(rule):
    """The rule beside gradient descent, in the valley of the picture."""
    return downslope.walk("rotated_valley", [downslope.sgd] if rule is downslope.sgd else [downslope.sgd, rule])


def picture(rule, folder, say):
    """Draw the rule beside gradient descent, and say what is seen."""
    drawing = folder / f"{rule.name}.png"
    if say.is_english or not drawing.exists():
        drawing.write_bytes(drawn(walked(rule), "png", dots=80))
    told = []
    for path in walked(rule).paths:
        known = {"name": code(path.name), "lr": f"{path.lr:.2g}", "detour": f"{path.detour:.2g}"}
        if path.arrival is None:
            told.append(say("{name} at {lr} does not get there, {detour} times the way", **known))
        else:
            told.append(
                say("{name} at {lr} is there from step {step} on, {detour} times the way", **known, step=path.arrival)
            )
    seen = say(
        "A valley 50 times as curved across as along, turned against the axes; each rule at the best of 91 learning"
        " rates for it. {told}.",
        told=say.semicolon.join(told),
    )
    by_hand = say(
        "{link}: drag the start, change the learning rate, look at every number.",
        link=played(rule, say("Walk it yourself")),
    )
    return f"""![{say("The path of {name} down a valley that lies across the axes", name=rule.name)}]({drawing.name})

{seen}

{by_hand}
"""


def formula(rule, facts, say):
    """The formula twice: as it is read, and as it is written."""
    symbols = [
        say(
            "`x` are the weights, `dx` is the gradient of the loss; all operations are done for each weight by itself."
        ),
    ]
    if facts["uses_t"]:
        symbols.append(say("`t` is the number of the step, from 1."))
    if facts["lookahead"]:
        symbols.append(say("The gradient is taken at {where}, not at `x`.", where=code(facts["lookahead"])))
    return f"""## {say("The formula")}
$$
{facts["latex"]}
$$

{say.blank.join(symbols)}

{say("This is all that has been written of it; kernels, pages and this page are made from these lines:")}

```python
{shown.formula(rule)}
```
"""


def steps(rule, say):
    """Three steps in numbers."""
    path = downslope.walk("x**2", [rule], start=1.0, lr="own", steps=3).paths[0]
    names = [name for name in path.states if len(path.states[name])]
    head = [say("step"), say("gradient"), *map(code, names), "`x`"]
    rows = [
        [
            step,
            "" if step == 0 else f"{path.gradients[step - 1][0]:.5g}",
            *(f"{float(path.states[name][step].ravel()[0]):.5g}" for name in names),
            f"{path.points[step][0]:.7g}",
        ]
        for step in range(4)
    ]
    return f"""## {say("Three steps, in numbers")}
{say("Down $x^2$ from $x = 1$, at the learning rate of its default, {lr}:", lr=f"{path.lr:g}")}

{table(head, rows)}"""


def costs(facts, say):
    """What is kept for each weight, and what a step moves."""
    kept = {**facts["states"], **facts["scalar_states"]}
    starts = []
    for name, start in kept.items():
        first = {"name": code(name), "start": say("a copy of the weights") if start == "x" else number(start)}
        alone = name in facts["scalar_states"]
        starts.append(
            say("{name} (one number for all weights, at first {start})", **first)
            if alone
            else say("{name} (at first {start})", **first)
        )
    cost = facts["cost"]
    remembered = (
        say(
            "It remembers {states}: {size} bytes per weight in float32.",
            states=say.comma.join(starts),
            size=4 * len(facts["states"]),
        )
        if kept
        else say("It remembers nothing.")
    )
    moved = say(
        "A step reads {read} bytes per weight and writes {written}; per weight it takes {done}. For large models only"
        " the bytes count: that is how long it takes.",
        read=cost["bytes_read"],
        written=cost["bytes_written"],
        done=say.comma.join(f"{count} × `{name}`" for name, count in cost["operations"].items()),
    )
    return f"""## {say("What it remembers, and what a step costs")}
{remembered}{say.blank}{moved}
"""


def limit(facts, say):
    """How large the learning rate may be."""
    title, found = say("How large may the learning rate be?"), facts["stability"]
    if found["limit"] is None:
        why = say("No limit can be read off its formula: {reason}.", reason=say(found["reason"]))
        return f"## {title}\n{why}\n"
    parts = [below(found, say)]
    if found["fastest"]:
        parts.append(
            say(
                "On a parabola it is fastest at {lr} divided by that curvature, where each step leaves {rate} of the"
                " error.",
                lr=f"{found['fastest']:.4g}",
                rate=f"{found['rate']:.3g}",
            )
        )
    if facts["first_update"] is not None:
        many = f"{facts['first_update']:.3g}"
        parts.append(
            say("Its first step at a gradient of 1 is one learning rate long.")
            if many == "1"
            else say("Its first step at a gradient of 1 is {many} times the learning rate.", many=many)
        )
    more = say("[More about limits](../../walk.md#how-large-may-the-learning-rate-be).")
    return f"## {title}\n{say.blank.join([*parts, more])}\n"


def below(found, say):
    """Up to where it is stable."""
    if math.isinf(found["limit"]):
        return say("Read off the formula, with its defaults: whatever it is, errors do not grow.")
    most = f"{found['limit']:.4g}"
    if not found["held"]:
        return say(
            "Read off the formula, with its defaults: below **{most}** divided by the largest curvature it is stable,"
            " above it is thrown farther each time.",
            most=most,
        )
    return say(
        "Read off the formula, with its defaults: below **{most}** divided by the largest preconditioned curvature it"
        " is stable (the curvature times the factor before the gradient, which changes as it walks; {held} held still),"
        " above it is thrown farther each time.",
        most=most,
        held=say.comma.join(map(code, found["held"])),
    )


def defaults(entry, say):
    """The hyperparameters of every form of it."""
    forms = entry["forms"]
    names = list(dict.fromkeys(name for form in forms.values() for name in (*form["hyperparameters"], *form["flags"])))
    rows = []
    for name in names:
        row = [code(name)]
        for form in forms.values():
            if name in form["hyperparameters"]:
                of = form["hyperparameters"][name]
                row.append(say("required") if of["required"] else number(of["default"]))
            else:
                row.append(str(form["flags"].get(name, "")))
        rows.append(row)
    return f"## {say('Defaults')}\n{table([say('hyperparameter'), *(FRAMEWORKS[d] for d in forms)], rows)}"


def elsewhere(entry, say):
    """What frameworks call by its name, and where their formulas part."""
    told = entry["differences"]
    rows = [
        [FRAMEWORKS[other], code(f"{other}.{found['rule']}"), said(other, found, say)]
        for other, found in told["elsewhere"].items()
        if found is not None
    ]
    none = [FRAMEWORKS[other] for other, found in told["elsewhere"].items() if found is None]
    missing = say("No counterpart in {names}.", names=say.comma.join(none)) if none else ""
    groups = [" = ".join(FRAMEWORKS[d] for d in group) for group in told["groups"] if len(group) > 1]
    alike = (
        say("Always on the same path: {groups}.", groups=say.semicolon.join(groups))
        if groups
        else say("No two of them are always on the same path.")
    )
    head = [say("framework"), say("form"), say("beside the textbook")]
    body = f"{alike}\n\n{table(head, rows)}\n{written(told, say)}" if rows else ""
    more = say(
        "{command} shows all formulas; [what differs, and what is tested](../../dialects.md).",
        command=code(f"downslope rules {entry['name']}"),
    )
    return f"""## {say("In the frameworks")}
{body}
{missing}

{more}
"""


def said(other, found, say):
    """What is said of a form of a framework; the textbook's form has the name that it has in Python."""
    return say.form(f"{other}.{found['rule']}", found["sentence"].replace("note.", "downslope."))


def written(told, say):
    """The formulas of the frameworks, to be unfolded; those that are the textbook's line by line are not repeated."""
    blocks = [
        say(
            "{framework}, {form}{settings}:",
            framework=FRAMEWORKS[other],
            form=code(f"{other}.{found['rule']}"),
            settings=settings(found, say),
        )
        + "\n\n```python\n"
        + "\n".join(found["formula"])
        + "\n```\n"
        for other, found in told["elsewhere"].items()
        if found is not None
    ]
    return f"<details><summary>{say('Their formulas')}</summary>\n\n" + "\n".join(blocks) + "\n</details>\n"


def claimed(rule, say):
    """What is said of it everywhere, and how that ended."""
    lines = claims_page.told_of(rule.name, say.is_english)
    if not lines:
        return ""
    return f"## {say('What everybody says of it, measured')}\n" + "\n".join(lines) + "\n"


def settings(found, say):
    """What has to be said for a form of a framework to be this rule."""
    given = ", ".join(f"{name}={number(value)}" for name, value in found["settings"].items())
    return say(" with {settings}", settings=code(given)) if given else ""


@functools.cache
def known(name):
    """What the catalogue has of a rule: both languages say the same of it."""
    return catalogue.entry(name)


def page(rule, prose, folder, say):
    """The whole page of a rule."""
    entry = known(rule.name)
    facts = entry["forms"]["note"]
    parts = [
        f"# {rule.name}\n\n**{say(rule.intuition)}**\n",
        picture(rule, folder, say),
        say.page(prose.get(rule.name, "")),
        formula(rule, facts, say),
        steps(rule, say),
        costs(facts, say),
        limit(facts, say),
        defaults(entry, say),
        elsewhere(entry, say),
        claimed(rule, say),
        f"## {say('Use it')}\n{use(rule)}",
        f"## {say('Source')}\n{rule.source}\n",
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
    for path in (*files, claims_page.MEASURED, *sorted(Path(__file__).parent.glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def kept(path, made_from, make, beside=()):
    """Write a page, unless it and the files beside it are there, made from the same: so its last line says."""
    stamp = f"% {hashlib.sha256(made_from.encode()).hexdigest()}\n"
    whole = all(file.exists() for file in (path, *beside))
    if not (whole and path.read_text().endswith(stamp)):
        path.write_text(f"{make()}\n{stamp}")


def write(app):
    """Write all pages, before the site is read: in every language, since both say what was worked out once."""
    folder = HERE / "rules"
    folder.mkdir(exist_ok=True)
    prose, made_from = prose_of(HERE / "prose.md"), basis()
    wanted = {rule.name for rule in (*RULES, *OVER_TENSORS)}
    for old in folder.iterdir():
        if old.name.partition(".")[0] not in wanted:
            old.unlink()
    for say in SAYINGS:
        for rule in RULES:
            about = f"{made_from} {say.basis} {prose.get(rule.name, '')}"
            make, beside = functools.partial(page, rule, prose, folder, say), [folder / f"{rule.name}.png"]
            kept(folder / f"{rule.name}{say.suffix}", about, make, beside)
        for rule in OVER_TENSORS:
            about = f"{made_from} {say.basis} {prose.get(rule.name, '')}"
            make, beside = functools.partial(tensor_pages.page, rule, prose, folder, say), [folder / f"{rule.name}.png"]
            kept(folder / f"{rule.name}{say.suffix}", about, make, beside)
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

"""The Chinese of README, Start, Learn and claims, held to the English by paragraph: `docs/locale/zh_CN.po`.

    python docs/_ext/chinese.py          # take up what has changed, write what is written, and name what is to be done
    python docs/_ext/chinese.py --check  # only name it

A paragraph, a heading, a cell of a table is one entry: the English, and below it the Chinese. Code is in no entry, so
that it is the same in both. What the playground says of a rule in Chinese is said here in the same words.
"""

import ast
import datetime
import functools
import hashlib
import inspect
import io
import json
import re
import sys
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po
from markdown_it import MarkdownIt
from mdit_py_plugins.deflist import deflist_plugin

import downslope
from downslope.claims import CLAIMS, claim, languages, words
from downslope.rules import OVER_TENSORS, RULES
from downslope.walks.surfaces import SURFACES

ROOT = Path(__file__).parents[2]
PO = ROOT / "docs/locale/zh_CN.po"
README = ROOT / "README.zh.md"
PAGES = [
    "README.md",
    *(f"docs/{name}.md" for name in ("index", "learn/index", "learn/lesson", "learn/glossary", "learn/prose")),
]
HOUSE = "src/downslope/claims"
HOUSES = (HOUSE, "src/downslope/cli/claims.py")
SPOKEN = ROOT / HOUSE / "zh.json"
WRITTEN = [
    *("docs/_ext/rule_pages.py", "docs/_ext/tensor_pages.py", "docs/_ext/claims_page.py"),
    *(f"{HOUSE}/{name}.py" for name in ("page", "words")),
    HOUSES[1],
]
"""What writes the pages of rules and of claims; its sentences are arguments of `say`."""

THEME = ("Home", "Next", "Previous", "On this page", "Back to top", "Made with")
"""What the theme says that Sphinx's own catalogue does not have in Chinese."""

PARSER = MarkdownIt("commonmark").enable("table").use(deflist_plugin)
STAMP = "in step: "


def paragraphs(text):
    """What is to be translated of a page, and the lines where it stands: first, behind the last, text."""
    for token in PARSER.parse(text):
        if token.type == "inline" and said(token.content):
            yield *token.map, token.content
        elif token.type == "fence" and token.info.startswith("{"):
            for at, line in enumerate(token.content.splitlines(), start=token.map[0] + 1):
                if line.startswith(":caption: "):
                    yield at, at + 1, line.removeprefix(":caption: ")


def said(text):
    """Whether there are words in it beside code, addresses and numbers."""
    return re.search(r"[^\W\d_]{2}", re.sub(r"`[^`]*`|<[^>]*>|\]\([^)]*\)", " ", text))


GROUNDS = {surface.name.replace("_", " "): f"surface.{surface.name}.name" for surface in SURFACES}
"""The names of surfaces, as pictures of claims have them, and what the playground has them under."""


def flat(text):
    """A paragraph as one line: how it is wrapped says nothing."""
    return " ".join(text.split())


def translated(text, words):
    """A page of Markdown with its paragraphs in the other language; what there is no word for stays as it is."""
    lines = text.split("\n")
    done = [0] * len(lines)
    for first, end, content in paragraphs(text):
        new = words.get(flat(content))
        if new is None:
            continue
        head = content.split("\n")[0]
        if head not in lines[first][done[first] :]:
            head, new = head.replace("|", "\\|"), new.replace("|", "\\|")
        at = lines[first].index(head, done[first])
        lines[first] = lines[first][:at] + new + lines[first][at + len(head) :]
        done[first] = at + len(new)
        lines[first + 1 : end] = [None] * (end - first - 1)
    return "\n".join(line for line in lines if line is not None)


def sentences(source):
    """What is said by `say` in a piece of Python, in its order, inside of f-strings too."""
    calls = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "say"
    ]
    for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
        if isinstance(call.args[0], ast.Constant):
            yield call.args[0].value


@functools.cache
def spoken():
    """What the playground says of each rule, by what the rule says in English, and of each surface by its name."""
    known = json.loads((Path(downslope.__file__).parent / "play/words/zh.json").read_text(encoding="utf-8"))
    grounds = {name: known[key] for name, key in GROUNDS.items()}
    return grounds | {flat(rule.intuition): known[f"rule.{rule.name}"] for rule in RULES}


@functools.cache
def wanted():
    """All that is to be said in Chinese and is not said by the playground, in the order of the pages."""
    catalog, known = Catalog(locale="zh_CN", fuzzy=False, project="downslope"), spoken()
    names = {"downslope"}, {rule.name for rule in (*RULES, *OVER_TENSORS)}  # headings of prose.md are names of rules

    def add(text, path):
        if flat(text) not in known and text not in names[path.endswith("prose.md")]:
            catalog.add(flat(text), locations=[(path, 1)])

    for path in PAGES:
        for _, _, content in paragraphs((ROOT / path).read_text(encoding="utf-8")):
            add(content, path)
    for path in WRITTEN:
        for text in sentences((ROOT / path).read_text(encoding="utf-8")):
            add(text, path)
    for rule in OVER_TENSORS:
        add(rule.intuition, Path(inspect.getfile(rule.function)).relative_to(ROOT).as_posix())
    for rule in RULES:
        if reason := rule.stability().reason:
            add(reason, "src/downslope/targets/stability.py")
    for text in THEME:
        add(text, "furo")
    for path, text in claimed():
        add(text, f"{HOUSE}/{path}.py")
    return catalog


def claimed():
    """What is said of claims beside the arguments of `say`."""
    for one in CLAIMS:
        yield from (("entries", text) for text in (one.words, one.expected, *one.literature))
        yield from (("entries", part.when) for part in one.parts)
    yield from (("languages", text) for text in (*languages.PUT_TOGETHER, *languages.PARTS))
    yield from (("claim", text) for text in (*claim.SAID.values(), *claim.WHEN.values()))
    yield "words", words.ABOUT
    yield from (("words", text) for text in words.SHOWN.values())
    yield from (("words", text) for one in words.COUNTED.values() for text in one)


def read():
    """The catalogue as it lies there."""
    return read_po(io.BytesIO(PO.read_bytes()), locale="zh_CN") if PO.exists() else Catalog(locale="zh_CN", fuzzy=False)


def chinese():
    """The Chinese of every paragraph that has some."""
    entries = (entry for entry in read() if entry.id and entry.string and not entry.fuzzy)
    return {entry.id: entry.string for entry in entries} | spoken()


def stamp(entry):
    """What says that both languages of an entry have been seen together."""
    return STAMP + hashlib.sha256(f"{entry.id}\0{entry.string}".encode()).hexdigest()[:8]


def shape(text):
    """What has to be alike in both languages: code, links, emphasis, numbers, places for values."""
    inline = PARSER.parseInline(text)[0].children
    words = " ".join(token.content for token in inline if token.type == "text")
    return {
        "code": sorted(token.content for token in inline if token.type in ("code_inline", "html_inline")),
        "links": sorted(
            token.attrs.get("href") or token.attrs["src"] for token in inline if token.type in ("link_open", "image")
        ),
        "emphasis": sorted(token.type for token in inline if token.type in ("strong_open", "em_open")),
        "places": sorted(re.findall(r"\{\w+\}", text)),
        "numbers": sorted(re.findall(r"\d+(?:[.,]\d+)*", words)),
    }


def complaints():
    """Each paragraph that is not the same in both languages, and why."""
    there, needed, found = read(), wanted(), []

    def complain(entry, text):
        found.append(f"{entry.locations[0][0]}: {text}: {entry.id[:100]!r}")

    for entry in needed:
        if not entry.id:
            continue
        kept = there.get(entry.id)
        if kept is None:
            complain(entry, "changed or new in English only")
        elif not kept.string:
            complain(entry, "not translated")
        elif kept.fuzzy:
            complain(entry, "changed in English only: the Chinese is of an older one (marked fuzzy)")
        elif stamp(kept) not in kept.user_comments:
            complain(entry, f"changed in Chinese only, to {kept.string[:60]!r}")
        elif other := [part for part, held in shape(kept.id).items() if held != shape(kept.string)[part]]:
            complain(entry, f"other {' and '.join(other)} in Chinese")
    found += [
        f"{entry.locations[0][0] if entry.locations else PO.name}: gone from the English: {entry.id[:100]!r}"
        for entry in there
        if entry.id and needed.get(entry.id) is None
    ]
    if not SPOKEN.exists() or SPOKEN.read_text(encoding="utf-8") != spoken_claims():
        found.append(f"{HOUSE}/{SPOKEN.name}: not what the catalogue says; it is written, not edited")
    if not README.exists() or README.read_text(encoding="utf-8") != readme():
        found.append("README.zh.md: not what the catalogue says; it is written, not edited")
    return found


def readme():
    """The README in Chinese."""
    return translated((ROOT / "README.md").read_text(encoding="utf-8"), chinese())


def of_claims(*more):
    """The Chinese of claims alone, with that of more files: a word of them may mean something else elsewhere."""
    known = chinese()
    ours = [entry.id for entry in wanted() if any(path.startswith((*HOUSES, *more)) for path, _ in entry.locations)]
    return {text: known[text] for text in [*ours, *GROUNDS] if text in known}


def spoken_claims():
    """What the page of `downslope claims` says in Chinese, as the package has it."""
    return f"{json.dumps(of_claims(), indent=1, ensure_ascii=False)}\n"


def update():
    """Take up what has changed: the Chinese of a changed paragraph is kept, marked as fuzzy, with the older English."""
    there = read()
    there.update(wanted())
    there.obsolete.clear()
    for entry in there:
        entry.user_comments = [stamp(entry)] if entry.id and entry.string and not entry.fuzzy else []
    there.header_comment = (
        "# The Chinese of README, Start, Learn and claims. After a change: python docs/_ext/chinese.py"
    )
    there.revision_date = there.creation_date = datetime.datetime(
        2026, 11, 28, tzinfo=datetime.UTC
    )  # no date of its own
    written = io.BytesIO()
    write_po(written, there, width=120, include_lineno=False, omit_header=False, include_previous=True)
    PO.write_bytes(written.getvalue())
    README.write_text(readme(), encoding="utf-8")
    SPOKEN.write_text(spoken_claims(), encoding="utf-8")


if __name__ == "__main__":
    if "--check" not in sys.argv:
        update()
    if to_do := complaints():
        sys.exit(
            "\n".join(
                [*to_do, "To take up a change: translate it in docs/locale/zh_CN.po, take `fuzzy` away, and run this."]
            )
        )

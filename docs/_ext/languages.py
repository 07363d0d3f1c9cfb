"""English and Chinese: a page is read in the language of the site that is built, and leads to its like in the other.

The Chinese site has Start and Learn, and lies in the folder `zh` of the English one, to which its other links lead.
"""

import hashlib
import json
import re
from pathlib import Path

import chinese
from myst_parser.slugs import github_slugify
from sphinx.locale import _ as sphinx
from sphinx.search import languages
from sphinx.search.zh import SearchChinese

import downslope

PAGES = ["index", "claims", "learn/index", "learn/lesson", "learn/glossary"]
"""What is translated beside the pages of rules."""

RULE = "learn/rules/"
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([\w./-]+)\.md(#[\w-]+)?\)")


class English:
    """What a page of a rule says in English."""

    is_english = True
    suffix = ".md"
    blank = " "
    comma = ", "
    semicolon = "; "
    basis = ""

    def __call__(self, text, **values):
        """A sentence with its values."""
        return text.format(**values) if values else text

    def form(self, name, sentence):
        """What is said of the form of a framework."""
        return sentence

    def page(self, text):
        """Paragraphs of Markdown."""
        return text


class Chinese(English):
    """The same in Chinese; of a framework's form what the playground says of it."""

    is_english = False
    suffix = ".zh.md"
    blank = ""
    comma = "、"
    semicolon = "；"

    def __init__(self):
        self.words = chinese.chinese()
        played = Path(downslope.__file__).parent / "play/words/zh.json"
        self.forms = json.loads(played.read_text(encoding="utf-8"))
        self.basis = hashlib.sha256(json.dumps([self.words, self.forms]).encode()).hexdigest()

    def __call__(self, text, **values):
        """A sentence with its values."""
        return super().__call__(self.words.get(chinese.flat(text), text), **values)

    def form(self, name, sentence):
        """What is said of the form of a framework."""
        return self.forms.get(f"rule.{name}", sentence)

    def page(self, text):
        """Paragraphs of Markdown."""
        return chinese.translated(text, self.words)


SAYINGS = (English(), Chinese())


def is_translated(name):
    """Whether a page is there in both languages."""
    return name in PAGES or name.startswith(RULE)


def slug(title):
    """The address of a heading: in both languages that of the English one."""
    return github_slugify(headings().get(title, title))


def headings():
    """The English of every paragraph, by its Chinese, both without marks."""
    return {re.sub(r"[`*]", "", known): re.sub(r"[`*]", "", text) for text, known in SAYINGS[1].words.items()}


def read(app, name, source):
    """Read the Chinese of a page, with links that lead out of the Chinese site into the English one."""
    twin = Path(app.srcdir) / f"{name}.zh.md"
    text = twin.read_text(encoding="utf-8") if twin.exists() else SAYINGS[1].page(source[0])
    up, folder = "../" * (name.count("/") + 1), Path(name).parent
    app.env.note_dependency(str(chinese.PO))

    def led(found):
        words, page, anchor = found[1], (Path(app.srcdir) / folder / found[2]).resolve(), found[3] or ""
        page = page.relative_to(app.srcdir).as_posix()
        return found[0] if is_translated(page) else f'<a href="{up}{page}.html{anchor}" hreflang="en">{words}</a>'

    def played(found):
        return f'href="{up}playground.html#lang=zh{"&amp;" if found[1] else ""}{found[1]}"'

    def listed(found):
        lines = found[0].splitlines()
        kept = [line for line in lines[1:-1] if is_translated((folder / line).as_posix())]
        options = [line for line in lines if line.startswith(":")]
        return "\n".join([lines[0], *options, "", *kept, lines[-1]]) if kept else ""

    text = re.sub(r'href="(?:\.\./)*playground\.html#?([^"]*)"', played, LINK.sub(led, text))
    source[0] = re.sub(r"```\{toctree\}\n.*?```", listed, text, flags=re.DOTALL)


def lead(app, page, template, context, doctree):
    """Put the way into the other language onto a page, into Chinese where the Chinese site has been built."""
    is_english = app.config.language == "en"
    if is_english and not (Path(app.outdir) / "zh" / "index.html").exists():
        return
    same = page if is_translated(page) else "index"
    up = "../" * page.count("/")
    to = f"{up}zh/{same}.html" if is_english else f"{up}../{same}.html"
    other, words = ("zh-CN", "中文") if is_english else ("en", "English")
    if not is_english:
        context["_"] = context["gettext"] = theme
    if "body" in context:
        way = f'<p class="language"><a href="{to}" lang="{other}" hreflang="{other}">{words}</a></p>'
        context["body"] = way + context["body"]
    if is_translated(page):
        context["metatags"] = context.get("metatags", "") + f'<link rel="alternate" hreflang="{other}" href="{to}">'


def theme(text):
    """A word of the theme: in our catalogue, else in Sphinx's."""
    return SAYINGS[1].words.get(text.strip(), sphinx(text))


class Search(SearchChinese):
    """Finds any two to four letters that stand beside each other: there are no blanks between Chinese words."""

    language_name = "English"  # of the stemmer; Sphinx 9.0 has the page ask for a Chinese one, which is not there

    def split(self, input):
        """The words of Latin letters, and every short piece of what is Chinese."""
        runs = re.findall(r"[\u4e00-\u9fff]+", input)
        pieces = [run[at : at + size] for run in runs for size in (2, 3, 4) for at in range(len(run) - size + 1)]
        return super().split(input) + pieces


def setup(app):
    """Read in the language of the build."""
    languages["zh"] = Search
    if app.config.language != "en":
        app.connect("source-read", read)
    app.connect("html-page-context", lead)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

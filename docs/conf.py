"""The documentation site: `sphinx-build -W -n -b html docs build/site`, without a network.

What there is in Chinese lies in a folder of it: `sphinx-build -W -n -b html -t zh docs build/site/zh`, and is built
first, since the English pages lead to it where it is there.
"""

import os
import re
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")  # the lightest of the three to import
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import languages

from downslope.rule import Rule
from downslope.version import __version__

project = "downslope"
author = "the downslope authors"
project_copyright = "the downslope authors, Apache-2.0"
release = version = __version__
is_chinese = tags.has("zh")  # noqa: F821 - Sphinx gives it
language = "zh_CN" if is_chinese else "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
extensions += ["mathml_renderer", "claims_page", "rule_pages", "languages"]  # in docs/_ext
exclude_patterns = ["_ext", "_templates", "locale", "learn/prose.md", "learn/migration.md", "**.zh.md"]
if is_chinese:
    include_patterns = [*(f"{name}.md" for name in languages.PAGES), f"{languages.RULE}*.md"]
source_suffix = {".md": "markdown"}

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
if is_chinese:
    myst_heading_slug_func = "languages.slug"

# Docstrings are written in plain text with `code` and a few `**words**`.
default_role = "code"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_param = False  # `lr, eps: ...` is one entry, as it is written
autodoc_inherit_docstrings = False  # what a method of a framework's does is for the framework's own pages
nitpick_ignore_regex = [
    (r"py:.*", r"(?!downslope\.).*"),  # what frameworks call their classes is for their own pages
    (
        r"py:class",
        r"downslope\.(language|targets|training|walks|lab)\..*",
    ),  # types of fields, on no page
]

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"downslope {release}"
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
# Every letter is in the page's own files: no font, script or picture comes from elsewhere.
html_theme_options = {"sidebar_hide_name": False, "navigation_with_keys": True}


def _has_a_page(app, kind, name, thing, skip, options):
    """Rules are documented by pages of their own, written from their formulas."""
    return True if isinstance(thing, Rule) else None


def _sentences(app, kind, name, thing, options, lines):
    """Napoleon takes what stands before a colon, in a property and behind `Returns:`, for a type: a comment bars it."""
    barred = [0] if kind == "property" else [k + 1 for k, line in enumerate(lines) if line.strip() == "Returns:"]
    for k in reversed(barred):
        indent = re.match(" *", lines[k])[0]
        lines[k:k] = [f"{indent}.. a sentence", ""]
    said = ""  # the last line that is not empty
    for k, line in enumerate(lines.copy()):
        if line.startswith("    ") and said and said == lines[k - 2] and said[0] != " " and said[-1] != ":":
            lines[k:k] = ["::", ""]  # a formula, which keeps its lines
            break
        said = line or said


def _for_keyboards(app, page, template, context, doctree):
    """What is wider than a phone can be scrolled by the keyboard too, and the menu's captions have a level."""
    body, menu = context.get("body", ""), context.get("furo_navigation_tree", "")
    body = re.sub(r'(<span class="pre">[^<]*?\()(?=[^<)])', r"\1<wbr>", body)  # a call may be broken behind its bracket
    context["body"] = re.sub(r'<(pre|table class="docutils[^"]*"|div class="math")>', r'<\1 tabindex="0">', body)
    context["furo_navigation_tree"] = menu.replace('role="heading"', 'role="heading" aria-level="2"')


def setup(app):
    app.connect("html-page-context", _for_keyboards, priority=900)  # after the theme's
    app.connect("autodoc-skip-member", _has_a_page)
    app.connect("autodoc-process-docstring", _sentences, priority=100)  # before napoleon's

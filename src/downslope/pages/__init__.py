"""What all pages of downslope share: their colours, how they are sealed, and formulas as MathML."""

import base64
import hashlib
import html
import json
import zlib
from importlib import resources
from typing import Any


def asset(package: str, name: str) -> str:
    """The text of a file that comes with a package."""
    return (resources.files(package) / name).read_text(encoding="utf-8")


def theme() -> str:
    """The colours and letters of a page in light and dark, as CSS variables.

    Paper is light: the class `printing` on the root asks for the light ones.
    """
    return asset("downslope.pages", "theme.css")


def policy(style: str | None, *scripts: str) -> str:
    """The content security policy of a page that runs these scripts only, and loads nothing.

    Args:
        style: What its element `style` holds; None: a library of the page's makes styles of its own.
        scripts: What its scripts hold, or what they put into another one.

    Example:
        >>> policy("", "")[:60]
        "default-src 'none'; style-src 'sha256-47DEQpj8HBSa+/TImW+5JC"
    """
    styles = "'unsafe-inline'" if style is None else _hashed(style)
    allowed = " ".join(map(_hashed, scripts)) or "'none'"
    return f"default-src 'none'; style-src {styles}; script-src {allowed}"


def _hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def document(
    title: str, body: str, *, style: str, policy: str, language: str = "en", refresh: float | None = None
) -> str:
    """A page.

    Args:
        title: What it is called, as text.
        body: What is in it, as HTML.
        style: Its style sheet.
        policy: What it may run and load, as `policy` makes it.
        language: The mark of its language.
        refresh: After how many seconds a browser is to load it again.
    """
    again = "" if refresh is None else f'<meta http-equiv="refresh" content="{refresh:.0f}">\n'
    return f"""<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">
{again}<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def packed(text: str) -> str:
    """A text deflated, in base64: what a page that unpacks it can hold of it, whatever it says.

    Example:
        >>> packed("0123456789" * 100)
        'eJwzMDQyNjE1M7ewNBhljbJGWcOUBQDsuM0V'
    """
    return base64.b64encode(zlib.compress(text.encode(), 6)).decode()


def data_in_page(data: Any) -> str:
    r"""Data as JSON that does not end the element of a page that it stands in.

    Raises:
        ValueError: It holds numbers that are not finite.

    Example:
        >>> data_in_page({"name": "</script>"})
        '{"name":"\\u003c/script>"}'
    """
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")

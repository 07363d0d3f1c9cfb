"""What all pages of downslope share: their colours, how they are sealed, and formulas as MathML."""

import base64
import hashlib
import json
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


def policy(style: str, script: str) -> str:
    """The content security policy of a page that runs this script only, and loads nothing.

    Example:
        >>> policy("", "")[:60]
        "default-src 'none'; style-src 'sha256-47DEQpj8HBSa+/TImW+5JC"
    """
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    return "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'".format(*hashes)


def data_in_page(data: Any) -> str:
    r"""Data as JSON that does not end the element of a page that it stands in.

    Raises:
        ValueError: It holds numbers that are not finite.

    Example:
        >>> data_in_page({"name": "</script>"})
        '{"name":"\\u003c/script>"}'
    """
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")

"""Documents that carry their own hash, so that one that was changed is not taken for what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

FORMAT = 1
AGAIN = "it is not as it was written"


def sealed(document: Mapping[str, Any]) -> str:
    """A document as JSON, with its format and its hash.

    Example:
        >>> unsealed(sealed({"seed": 3}))
        {'seed': 3}
        >>> unsealed(sealed({"seed": 3}).replace("3", "4", 1))
        Traceback (most recent call last):
        ...
        ValueError: it is not as it was written
    """
    whole = {"format": FORMAT, **document}
    return json.dumps({**whole, "hash": _hash(whole)}, indent=1, allow_nan=False)


def unsealed(text: str) -> dict[str, Any]:
    """The document that `sealed` made this of.

    Raises:
        ValueError: It is not JSON, was changed, or is in another format.
    """
    try:
        document = json.loads(text)
    except RecursionError:
        raise ValueError(AGAIN) from None
    if not isinstance(document, dict) or "format" not in document:
        raise ValueError("it is no document of downslope's")
    if document["format"] != FORMAT:
        raise ValueError(f"it is in format {document['format']!r}, and this version reads {FORMAT}")
    if document.pop("hash", None) != _hash(document):
        raise ValueError(AGAIN)
    del document["format"]
    return document


def _hash(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

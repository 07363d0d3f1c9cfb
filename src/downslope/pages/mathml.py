"""Formulas for a page that must not load anything: LaTeX to MathML, which every current browser draws by itself."""

from __future__ import annotations

import html
import re
from xml.etree import ElementTree

NAMESPACE = "http://www.w3.org/1998/Math/MathML"
ELEMENTS = re.compile(
    "math|m(enclose|error|fenced|frac|i|multiscripts|n|o|over|padded|phantom|prescripts|root|row|s|space|sqrt|style|sub"
    "|subsup|sup|table|td|text|tr|under|underover)"
)


def mathml(latex: str) -> str:
    r"""Write a formula as MathML.

    The formula may come from anyone's rule, so the converter's output is parsed and only elements of MathML are let
    through. What cannot be converted is shown as its LaTeX source, which is readable too.

    Args:
        latex: The formula, without dollar signs.

    Returns:
        A `<math>` element, or a `<code>` element holding the source.

    Example:
        >>> mathml(r"x_{t}")
        '<math display="block"><mrow><msub><mi>x</mi><mrow><mi>t</mi></mrow></msub></mrow></math>'
        >>> mathml(r"\frac{<b>")
        '<code class="latex">\\frac{&lt;b&gt;</code>'
    """
    from latex2mathml.converter import convert

    source = f'<code class="latex">{html.escape(latex)}</code>'
    if latex.count("{") != latex.count("}"):
        return source
    # The converter knows the starred form only, and takes an escaped underscore in text for a backslash.
    text = re.sub(r"\\(begin|end)\{(aligned|align|split|eqnarray)\}", r"\\\1{align*}", latex)
    text = re.sub(r"\\text\{[^{}]*\}", lambda found: found[0].replace(r"\_", "_"), text)
    try:
        root = ElementTree.fromstring(convert(text, display="block"))
    except Exception:  # every mistake in a formula is an exception of its own there
        return source
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{NAMESPACE}}}")
        if not ELEMENTS.fullmatch(element.tag) or any(
            "\\" in part for part in (element.text or "", element.tail or "")
        ):
            return source
        for name in [name for name in element.attrib if name.startswith("on") or name in ("href", "style", "src")]:
            del element.attrib[name]
    for element in root.iter():
        _spell(element)
    return ElementTree.tostring(root, encoding="unicode")


def _spell(row: ElementTree.Element) -> None:
    """Make one element of the upright letters that stand beside each other: they are a word, and read out as one."""
    kept: list[ElementTree.Element] = []
    for element in row:
        if kept and _is_upright(element) and _is_upright(kept[-1]):
            kept[-1].text = f"{kept[-1].text}{element.text}"
        else:
            kept.append(element)
    row[:] = kept


def _is_upright(element: ElementTree.Element) -> bool:
    return element.tag == "mi" and element.get("mathvariant") == "normal"

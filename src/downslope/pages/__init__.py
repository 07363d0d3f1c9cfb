"""What all pages of downslope share: their colours, and formulas as MathML."""

from importlib import resources


def asset(package: str, name: str) -> str:
    """The text of a file that comes with a package."""
    return (resources.files(package) / name).read_text(encoding="utf-8")


def theme() -> str:
    """The colours and letters of a page in light and dark, as CSS variables.

    Paper is light: the class `printing` on the root asks for the light ones.
    """
    return asset("downslope.pages", "theme.css")

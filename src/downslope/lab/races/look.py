"""How a rule looks: its colour, its dash and its marker, by which it is known in every picture and table of a race."""

from __future__ import annotations

from dataclasses import dataclass

COLOURS = 7

DASHES = {
    "solid": "",
    "dash": "6 3",
    "dot": "1.5 3",
    "dashdot": "6 3 1.5 3",
    "longdash": "10 4",
    "longdashdot": "10 3 1.5 3",
}
"""Dashes by their names in Plotly, as SVG has them."""

SHAPES = {
    "circle": "",
    "square": "-4,-4 4,-4 4,4 -4,4",
    "diamond": "0,-5.4 5.4,0 0,5.4 -5.4,0",
    "triangle-up": "0,-5 5,4 -5,4",
    "triangle-down": "0,5 5,-4 -5,-4",
    "cross": "-1.7,-5 1.7,-5 1.7,-1.7 5,-1.7 5,1.7 1.7,1.7 1.7,5 -1.7,5 -1.7,1.7 -5,1.7 -5,-1.7 -1.7,-1.7",
    "star": "0,-5.5 1.3,-1.8 5.2,-1.7 2.1,0.7 3.2,4.5 0,2.2 -3.2,4.5 -2.1,0.7 -5.2,-1.7 -1.3,-1.8",
    "pentagon": "0,-5 4.8,-1.5 2.9,4 -2.9,4 -4.8,-1.5",
    "triangle-left": "-5,0 4,-5 4,5",
    "triangle-right": "5,0 -4,-5 -4,5",
    "hourglass": "-4,-4.5 4,-4.5 -4,4.5 4,4.5",
    "bowtie": "-4.5,-4 -4.5,4 4.5,-4 4.5,4",
}
"""Markers by their names in Plotly, as points in a square from -5 to 5; the first is a circle."""


@dataclass(frozen=True)
class Look:
    """How a rule is drawn, the same in every picture; no two of twelve rules share their marker."""

    colour: str  # "@c3": the page has it in light and in dark
    dash: str
    symbol: str

    @classmethod
    def at(cls, place: int) -> Look:
        """That of the rule with this place in a race."""
        dashes, symbols = list(DASHES), list(SHAPES)
        return cls(f"@c{place % COLOURS}", dashes[place % len(dashes)], symbols[place % len(symbols)])

    @property
    def variable(self) -> str:
        """Its colour in the style sheet of downslope's pages."""
        return f"var(--{self.colour[1:]})"

    @property
    def stroke(self) -> str:
        """The dash, as an attribute of SVG with a space before it; empty where the line is whole."""
        return f' stroke-dasharray="{DASHES[self.dash]}"' if DASHES[self.dash] else ""

    @property
    def marker(self) -> str:
        """The marker, as an element of SVG."""
        points = SHAPES[self.symbol]
        return f'<polygon points="{points}"/>' if points else '<circle r="4.6"/>'

    def key(self, colour: str = "") -> str:
        """Its line and marker, to stand before its name.

        Args:
            colour: That of a page without the colours of downslope's.
        """
        line = f'<line x1="-15" x2="15" stroke="currentColor" stroke-width="2.2"{self.stroke}/>'
        return (
            '<svg class="key" viewBox="-15 -7 30 14" width="30" height="14" aria-hidden="true" '
            f'style="color:{colour or self.variable}" fill="currentColor">{line}{self.marker}</svg>'
        )

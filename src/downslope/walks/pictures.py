"""Pictures of a walk for slides, papers and READMEs: one image, or a film as GIF. Drawn by Matplotlib."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from downslope.extras import require
from downslope.walks.film import title_of
from downslope.walks.paths import Walk

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

COLOURS = ("#003f94", "#b3370f", "#03716f", "#d02aae", "#ba7c0c", "#2a1a1c", "#1184f2")
MARKERS = ("o", "s", "D", "^", "v", "P", "*", "X")
LEVELS = (0.0005, 0.002, 0.006, 0.014, 0.03, 0.055, 0.09, 0.14, 0.2, 0.27, 0.35, 0.45, 0.56, 0.68, 0.8, 0.9, 0.97)
LOW, HIGH, LINE, INK, MUTED = "#e4f0f2", "#fbfaf6", "#a8bcc1", "#1c1f24", "#5d6570"
EXACT = 64
"""How many colours of a GIF are those of the largest areas: the bands of a surface differ by little."""

INCHES = 4.6
FRAMES = 70
PER_SECOND = 14


def picture(walk: Walk, kind: str, *, dots: int = 110) -> bytes:
    """The whole walk as an image.

    Args:
        walk: The walk.
        kind: `"png"`, `"svg"` or `"pdf"`.
        dots: Per inch, for a PNG.

    Raises:
        ImportError: Matplotlib is missing.
    """
    drawing = _Drawing(walk, dots)
    drawing.move(walk.steps)
    content = io.BytesIO()
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    drawing.figure.savefig(content, format=kind, metadata=undated.get(kind))
    return content.getvalue()


def animation(walk: Walk, *, dots: int = 90) -> bytes:
    """The walk as a GIF that repeats, with some seventy frames.

    Args:
        walk: The walk.
        dots: Per inch.

    Raises:
        ImportError: Matplotlib is missing.
    """
    require("A picture of a walk", "walk", ["matplotlib", "PIL"])
    from PIL import Image

    drawing = _Drawing(walk, dots)
    drawing.move(walk.steps)
    drawing.hold()
    shown = list(dict.fromkeys(np.linspace(0, walk.steps, FRAMES).round().astype(int).tolist()))
    frames = [drawing.frame(step) @ np.array([1 << 16, 1 << 8, 1, 0]) for step in shown]
    palette = _palette(frames)
    nearest = _nearest(frames, palette)
    flat = [Image.fromarray(nearest[frame]) for frame in frames]
    for image in flat:
        image.putpalette(_parts(palette).tobytes())
    content = io.BytesIO()
    each = round(1000 / PER_SECOND * max(1.0, 30 / len(shown)))
    pauses = [each] * (len(flat) - 1) + [1800]
    flat[0].save(content, "GIF", save_all=True, append_images=flat[1:], duration=pauses, loop=0, optimize=True)
    return content.getvalue()


# The colours of a GIF


def _palette(frames: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """At most 256 colours: those of large areas exactly, however near to each other, and some between the others."""
    from PIL import Image

    found, counts = np.unique(frames[-1], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    areas, others = found[order[:EXACT]], found[order[EXACT:]]
    if not len(others):
        return areas
    row = Image.fromarray(_parts(others)[None])
    mixed = row.quantize(256 - EXACT, Image.Quantize.MEDIANCUT).getpalette() or []
    return np.concatenate([areas, np.reshape(mixed, (-1, 3)) @ np.array([1 << 16, 1 << 8, 1])])


def _nearest(frames: Iterable[NDArray[np.int64]], palette: NDArray[np.int64]) -> NDArray[np.uint8]:
    """For every colour there is the place of the nearest in the palette."""
    places = np.zeros(1 << 24, np.uint8)
    seen = np.zeros(1 << 24, bool)
    for frame in frames:
        seen[frame] = True
    colours = np.flatnonzero(seen)
    for some in np.array_split(colours, len(colours) // 4096 + 1):
        away = _parts(some)[:, None].astype(np.int32) - _parts(palette)
        places[some] = (away**2).sum(axis=2).argmin(axis=1)
    return places


def _parts(colours: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Red, green and blue of colours."""
    return np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1).astype(np.uint8)


class _Drawing:
    """The surface with the ways on it, and the losses beside it, up to a step that can be changed."""

    def __init__(self, walk: Walk, dots: int):
        require("A picture of a walk", "walk", ["matplotlib"])
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.walk = walk
        self.figure = Figure(figsize=(1.95 * INCHES, INCHES), dpi=dots, layout="constrained", facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)
        self.ground, self.curves = self.figure.subplots(1, 2, width_ratios=(1.35, 1))
        for axes in (self.ground, self.curves):
            axes.tick_params(colors=MUTED, labelsize=8, length=0)
            for side in axes.spines.values():
                side.set_visible(False)
        _surface(walk, self.ground)
        self.floor = _losses(walk, self.curves)
        self.ground.set_title(title_of(walk.surface), fontsize=11, color=INK, loc="left", fontweight="bold")
        self.note = self.curves.set_title(" ", fontsize=9.5, color=INK, loc="left")
        self.lines = [self._lines(k) for k in range(len(walk.paths))]
        self._legend()

    def _lines(self, k: int) -> list[Line2D]:
        """Of a rule: its way, where it is, its losses, the loss there."""
        colour, symbol = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
        line: dict[str, Any] = {"color": colour, "linestyle": "-" if k < len(COLOURS) else "--", "linewidth": 1.6}
        head: dict[str, Any] = {"color": colour, "marker": symbol, "markeredgecolor": "white", "linestyle": "none"}
        head["zorder"] = 5
        return [
            *self.ground.plot([], [], alpha=0.75, **line),
            *self.ground.plot([], [], markersize=9, clip_on=False, **head),
            *self.curves.plot([], [], **line),
            *self.curves.plot([], [], markersize=7, clip_on=False, **head),
        ]

    def _legend(self) -> None:
        from matplotlib.lines import Line2D

        keys = []
        for k, path in enumerate(self.walk.paths):
            keys.append(Line2D([], []))
            keys[-1].update_from(self.lines[k][2])
            keys[-1].set(
                marker=MARKERS[k % len(MARKERS)],
                markersize=6,
                label=path.name if path.lr is None else f"{path.name}, {path.lr:g}",
            )
        title = "rule, best learning rate here" if self.walk.lr == "best" else "rule, learning rate"
        known: dict[str, Any] = {"loc": "outside lower center", "ncols": 3, "frameon": False}
        self.figure.legend(handles=keys, title=title, fontsize=8.5, title_fontsize=8.5, **known)

    def move(self, step: int) -> None:
        """Let everything end at a step."""
        walk = self.walk
        what = "loss above the lowest point" if walk.minima else "loss"
        self.note.set_text(f"{what}, step {step} of {walk.steps}")
        for (way, head, line, end), path in zip(self.lines, walk.paths, strict=True):
            until = step if path.diverged is None else min(step, path.diverged - 1)
            x = path.points[: until + 1, 0]
            y = path.points[: until + 1, 1] if len(walk.start) > 1 else path.losses[: until + 1]
            way.set_data(x, y)
            head.set_data([np.clip(x[-1], *self.ground.get_xlim())], [np.clip(y[-1], *self.ground.get_ylim())])
            losses = np.maximum(path.losses[: until + 1] - self.floor[0], self.floor[1])
            line.set_data(np.arange(until + 1), losses)
            end.set_data([until], np.clip(losses[-1:], *self.curves.get_ylim()))

    def hold(self) -> None:
        """Draw what does not move, once."""
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")
        self.moving = [self.note, *(line for lines in self.lines for line in lines)]
        for artist in self.moving:
            artist.set_animated(True)
        self.canvas.draw()  # type: ignore[no-untyped-call]
        self.still = self.canvas.copy_from_bbox(self.figure.bbox)  # type: ignore[no-untyped-call]

    def frame(self, step: int) -> NDArray[np.uint8]:
        """The picture at a step, in red, green, blue and opacity."""
        self.move(step)
        self.canvas.restore_region(self.still)  # type: ignore[no-untyped-call]
        for artist in self.moving:
            self.figure.draw_artist(artist)
        return np.array(self.canvas.buffer_rgba())  # type: ignore[no-untyped-call]


def _surface(walk: Walk, axes: Axes) -> None:
    """Draw the surface."""
    surface = walk.surface
    x = np.linspace(*surface.ranges["x"], 241)
    if len(surface.variables) == 1:
        height = surface(x)
        axes.plot(x, height, color=MUTED, linewidth=1.2)
        axes.fill_between(x, height, height.min() - np.ptp(height), color=LOW)
        axes.set(xlim=surface.ranges["x"], ylim=(height.min() - 0.1 * np.ptp(height), height.max()))
        return
    y = np.linspace(*surface.ranges["y"], 241)
    height = surface(*np.meshgrid(x, y))
    known = np.sort(height[np.isfinite(height)])
    edges = np.unique(known[(np.array(LEVELS) * (known.size - 1)).astype(int)])
    colours = _between(LOW, HIGH, len(edges) + 1)
    axes.contourf(x, y, height, [known[0], *edges[edges > known[0]], known[-1]], colors=colours)
    axes.contour(x, y, height, edges, colors=LINE, linewidths=0.6, linestyles="solid")
    for minimum in walk.minima:
        axes.plot(*minimum, marker="+", color=INK, markersize=9)
    axes.set(xlim=surface.ranges["x"], ylim=surface.ranges["y"])


def _losses(walk: Walk, axes: Axes) -> tuple[float, float]:
    """Prepare the axes of the losses: what is taken off them, and the lowest that is shown."""
    axes.grid(axis="y", color="#ebe8e1", linewidth=0.8)
    axes.set_xlim(0, 1.025 * walk.steps)
    first = walk.paths[0].losses[0]
    if not walk.minima:
        axes.set_ylim(walk.lowest, first + 0.4 * abs(first - walk.lowest))
        return 0.0, -np.inf
    height = first - walk.lowest
    losses = np.concatenate([path.losses for path in walk.paths]) - walk.lowest
    low = max(float(losses[losses > 0].min(initial=height)), 1e-9 * height)
    axes.set_yscale("log")
    axes.set_ylim(low / 2, 3 * height)
    return walk.lowest, low / 2


def _between(first: str, last: str, count: int) -> list[tuple[float, ...]]:
    ends = [np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]) for colour in (first, last)]
    parts: Iterable[float] = np.linspace(0, 1, count)
    return [tuple(ends[0] + part * (ends[1] - ends[0])) for part in parts]

"""Writing a walk to a file of the kind that its name says."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

from downslope import files
from downslope.walks.film import film
from downslope.walks.paths import Walk
from downslope.walks.pictures import animation, picture

KINDS = (".html", ".png", ".svg", ".pdf", ".gif", ".csv")


def check_kind(path: str | Path) -> str:
    """The ending of a name that a walk can be written to; to an open stream such as `/dev/stdout` goes the film.

    Raises:
        ValueError: It ends otherwise.
    """
    kind = Path(path).suffix.lower() if files.descriptor(path) is None else ".html"
    if kind not in KINDS:
        raise ValueError(f"path={str(path)!r} should end with {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    return kind


def write(walk: Walk, path: str | Path) -> None:
    """Write a walk: `.html` is the film, `.gif` an animation, `.png`, `.svg` and `.pdf` a picture, `.csv` the numbers.

    Args:
        walk: The walk.
        path: Where to write.

    Raises:
        ValueError: The name ends otherwise, or a rule over whole tensors is to walk in a film.
        ImportError: A picture is asked for and Matplotlib is missing.
        OSError: The file cannot be written, or there is something that is no file; see `downslope.files.write`.
    """
    kind = check_kind(path)
    makers: dict[str, Callable[[Walk], str | bytes]] = {".html": film, ".gif": animation, ".csv": table}
    files.write(path, makers[kind](walk) if kind in makers else picture(walk, kind[1:]))


def table(walk: Walk) -> str:
    """All steps of all rules as CSV: weights, loss and states after each step, and the gradient that it was given.

    Example:
        >>> import downslope
        >>> print(table(downslope.walk("bowl", ["momentum"], steps=1, lr=0.5)))
        rule,lr,step,x,loss,dx,v_x
        momentum,0.5,0,-3.0,4.5,,0.0
        momentum,0.5,1,-1.5,1.125,-3.0,1.5
        <BLANKLINE>
    """
    names = walk.surface.variables
    states = dict.fromkeys(f"{state}_{name}" for path in walk.paths for state in path.states for name in names)
    text = io.StringIO()
    rows = csv.DictWriter(
        text, ["rule", "lr", "step", *names, "loss", *(f"d{name}" for name in names), *states], lineterminator="\n"
    )
    rows.writeheader()
    for path in walk.paths:
        for step, (point, loss) in enumerate(zip(path.points, path.losses, strict=True)):
            row = {"rule": path.name, "lr": path.lr, "step": step, "loss": float(loss)}
            row |= dict(zip(names, map(float, point), strict=True))
            for k, name in enumerate(names):
                row |= {f"d{name}": float(path.gradients[step - 1, k])} if step else {}
                row |= {f"{state}_{name}": float(values[step, k]) for state, values in path.states.items()}
            rows.writerow(row)
    return text.getvalue()

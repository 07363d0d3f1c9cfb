"""Who watches a race: what the caller gave, and those who wait for it before a terminal or in a notebook."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

from downslope.lab.engines.protocol import Engine, Progress
from downslope.lab.races.stage import Stage

Watch = Callable[[Stage | Progress], None]
"""What a race calls with its events."""


@contextlib.contextmanager
def watched(watch: Watch | None, progress: bool | None, rules: Sequence[str], engine: Engine) -> Iterator[Watch]:
    """What a race calls with its events, while its progress is shown to those who wait for it.

    Args:
        watch: What the caller wants called.
        progress: Whether to show it; None: where somebody can see it change, and `watch` does not take care of it.
        rules: What the rules are called.
        engine: What trains the runs.
    """
    if not (watch is None and seen() if progress is None else progress):
        yield watch or (lambda _: None)
        return
    from downslope.lab.ticker import Ticker

    described = engine.description
    with Ticker((), rules, None if described is None else described.epochs, threads=engine.threads) as ticker:

        def both(event: Stage | Progress) -> None:
            if watch is not None:
                watch(event)
            ticker.watch(event)

        yield both


def seen() -> bool:
    """Whether what is written is before somebody's eyes, and can be replaced: in a terminal, or in a notebook."""
    if sys.stderr is not None and sys.stderr.isatty():
        return True
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None

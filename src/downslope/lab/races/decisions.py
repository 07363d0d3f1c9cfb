"""What a race with a budget decided on its way, in order: so that it decides the same when it goes on, by no clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Note:
    """A decision.

    Attributes:
        what: What it was about.
        value: What was decided, as JSON can hold it.
        elapsed: The seconds of the budget that were over.
        trained: The seconds of all runs that were kept by then; None: what was trained since is another race's.
    """

    what: str
    value: Any
    elapsed: float
    trained: float | None

    def spent(self, trained: float) -> float:
        """The seconds of the budget that are over, now that all runs that are kept took so many."""
        return self.elapsed + (0.0 if self.trained is None else max(0.0, trained - self.trained))


class Decisions:
    """The decisions of a race, those of before first.

    Args:
        known: Those of before.
        trained: Gives the seconds of all runs that are kept.
        keep: Takes all decisions whenever there is a new one.

    Attributes:
        spent: The seconds of the budget that were over when the race was stopped, as far as its runs say.

    Example:
        >>> first = Decisions()
        >>> first.decide("seeds", lambda: 8, elapsed=3.0), first.decide("seeds", lambda: 6, elapsed=5.0)
        (8, 6)
        >>> again = Decisions(first.notes)
        >>> again.decide("seeds", lambda: 40, elapsed=6.0), again.spent
        (8, 5.0)
    """

    def __init__(
        self,
        known: Sequence[Note] = (),
        trained: Callable[[], float] = lambda: 0.0,
        keep: Callable[[Sequence[Note]], None] = lambda notes: None,
    ):
        self._trained, self._keep, self._next = trained, keep, 0
        self.notes = list(known)
        self.spent = 0.0
        if self.notes:
            self.spent = self.notes[-1].spent(now := trained())
            self.notes[-1] = replace(self.notes[-1], elapsed=self.spent, trained=now)
            if self.notes[-1] != known[-1]:
                keep(self.notes)
        self.decide("begin", lambda: None, elapsed=0.0)

    def known(self, what: str) -> Note | None:
        """The next decision, if it was made before; what follows it is forgotten if it is about something else."""
        if self._next == len(self.notes):
            return None
        if self.notes[self._next].what != what:
            del self.notes[self._next :]
            return None
        self._next += 1
        return self.notes[self._next - 1]

    def note(self, what: str, value: Any, *, elapsed: float) -> None:
        """Take note of a decision.

        Args:
            what: What it is about.
            value: What was decided, as JSON can hold it.
            elapsed: The seconds of the budget that are over.
        """
        self.notes.append(Note(what, value, elapsed, self._trained()))
        self._next += 1
        self._keep(self.notes)

    def decide(self, what: str, find: Callable[[], Any], *, elapsed: float) -> Any:
        """What was decided before or, where nothing was, what is found now."""
        if (before := self.known(what)) is not None:
            return before.value
        found = find()
        self.note(what, found, elapsed=elapsed)
        return found

    def forget(self) -> None:
        """Have none of these decisions made when the race goes on: it begins anew."""
        self.notes.clear()
        self._next = 0
        self._keep(self.notes)

    @property
    def ended(self) -> bool:
        """Whether the race came to its end before."""
        return any(note.what == "end" for note in self.notes)

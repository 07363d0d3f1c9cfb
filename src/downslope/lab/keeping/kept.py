"""An engine that keeps the runs of another one in a folder, and answers from there what is finished."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.protocol import Description, Engine, Entry, Progress, Run, Snapshot, priced
from downslope.lab.keeping.claims import Claims
from downslope.lab.keeping.folder import Folder
from downslope.lab.keeping.identity import Identity, rule_of
from downslope.lab.keeping.rows import Kept, Trail
from downslope.lab.keeping.told import write_race
from downslope.lab.keeping.writer import Writer
from downslope.lab.races.allowance import stoppable
from downslope.lab.races.plane import Trails
from downslope.lab.races.results import Race
from downslope.lab.races.tuning import Tuning

LOOK = 0.3
"""After how many seconds it is looked again what other processes have finished."""

Check = Callable[[Sequence[Run], int], Sequence[str]]
"""What the first runs say about code of the user's own, in sentences."""


class KeptEngine:
    """Trains only the runs that a folder lacks: an `Engine` around another.

    Runs that are trained together, so that they may depend on each other in their last digits, are trained together
    again if one of them is lacking. So a race that goes on ends where one ends that was never stopped, bit for bit.

    Args:
        engine: What trains the runs.
        entrants: The rules that runs may ask for.
        folder: Where finished runs are, and go; it is open.
        identity: What decides all runs alike.

    Attributes:
        trails: What is to be kept of the weights of runs that are observed in the verdict; None: nothing.
        trained: The seconds that all runs took which are kept.
        watched: Says of a run that is observed whether all of it is to be seen, and not only its trail: such a run is
            trained again.
    """

    def __init__(self, engine: Engine, entrants: Mapping[str, Entrant], folder: Folder, identity: Identity):
        self.engine, self.entrants, self.folder, self.identity = engine, entrants, folder, identity
        self.threads = engine.threads
        self.writer = Writer(folder)
        self.trails: Trails | None = None
        self.watched: Callable[[Entry], bool] = lambda entry: False
        self.trained = folder.seconds
        self._seconds = dict.fromkeys(entrants, 0.0)  # of runs that were answered
        self._told = dict.fromkeys(entrants, 0.0)  # of the engine's, what has been counted for a run
        self._seen: dict[Entry, dict[int, NDArray[np.float64]]] = {}
        self._rules: dict[str, Mapping[str, Any]] = {}
        self._keys: dict[tuple[Entry, int | None], str] = {}

    @property
    def description(self) -> Description | None:
        """The network, and what each run of it is."""
        return self.engine.description

    @property
    def seconds(self) -> Mapping[str, float]:
        """Per name of a rule, the seconds that its runs took: those in the folder too, when they were trained."""
        return {name: self._seconds[name] + spent for name, spent in self.engine.seconds.items()}

    def split_number(self, seed: int) -> int | None:
        """Which split of the family the runs of a seed are trained and validated on."""
        return self.engine.split_number(seed)

    def together(self, entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
        """The runs in groups, of which each is trained as one."""
        return self.engine.together(entries)

    def key(self, entry: Entry) -> str:
        """All that decides a run."""
        training = self.engine.description
        epochs = None if training is None else training.epochs
        if (entry, epochs) not in self._keys:
            if entry.rule not in self._rules:
                self._rules[entry.rule] = rule_of(self.entrants[entry.rule])
            self._keys[entry, epochs] = self.identity.key(entry, self._rules[entry.rule], epochs)
        return self._keys[entry, epochs]

    def train(self, entries: Sequence[Entry]) -> Iterator[Progress]:
        """Report the runs that the folder has, and train the others."""
        finished: list[Entry] = []
        missing: list[Entry] = []
        for group in self.engine.together(entries):
            whole = all(self._answers(entry) for entry in group)
            (finished if whole else missing).extend(group)
        for entry in finished:
            yield self._answer(entry)
        if not missing:
            return
        if self.folder.join:
            yield from self._shared(missing)
        else:
            yield from self._trained(missing)

    def _trained(self, entries: Sequence[Entry]) -> Iterator[Progress]:
        """Train runs, and keep them."""
        try:
            with stoppable(self.engine.train(entries)) as reports:
                for progress in reports:
                    self._keep(progress)
                    yield progress
        finally:
            self.writer.flush()

    def _shared(self, entries: Sequence[Entry]) -> Iterator[Progress]:
        """Train what no other process trains, a part at a time, and take what the others have finished."""
        missing = [list(group) for group in self.engine.together(entries)]
        most = self.threads * int(getattr(self.engine, "lanes", 1))
        claims = Claims(self.folder.path)
        with claims.beating():
            while missing:
                self.folder.refresh()
                for group in [group for group in missing if all(map(self._answers, group))]:
                    missing.remove(group)
                    for entry in group:
                        yield self._answer(entry)
                mine: list[list[Entry]] = []
                try:
                    for group in missing:
                        if len(mine) < most and claims.take(self.key(group[0])):
                            mine.append(group)
                    if mine and self.folder.refresh() and any(all(map(self._answers, group)) for group in mine):
                        continue  # finished by another process after it was looked last
                    if mine:
                        yield from self._trained([entry for group in mine for entry in group])
                        missing = [group for group in missing if group not in mine]
                    elif missing:
                        time.sleep(LOOK)
                finally:
                    claims.release(self.key(group[0]) for group in mine)

    def _answers(self, entry: Entry) -> bool:
        """Whether the folder has all that is asked of a run."""
        kept = self.folder.find(self.key(entry))
        if kept is None:
            return False
        if not entry.observed or self.trails is None or entry.seed not in self.trails.seeds:
            return not (entry.observed and self.watched(entry))
        return not self.watched(entry) and kept.trail is not None and kept.trail.epochs[:1] == (0,)

    def _answer(self, entry: Entry) -> Progress:
        """A run of the folder, as if it had been trained."""
        key = self.key(entry)
        kept = self.folder.find(key)
        assert kept is not None
        self._seconds[entry.rule] += kept.seconds
        self.folder.answered += 1
        self.folder.mixed += kept.key != key
        snapshots: list[Snapshot] = []
        if entry.observed and self.trails is not None and (trail := self.folder.trail(key)) is not None:
            snapshots = [
                Snapshot(entry, epoch, (), {}, {}, 0, brief=point.astype(np.float64))
                for epoch, point in zip(trail.epochs, trail.points, strict=True)
                if len(point) == self.trails.size
            ]
        training = self.engine.description
        epochs = 1 if training is None else training.epochs
        run = replace(kept.run, rule=entry.rule)
        kind = priced(entry.setting)
        return Progress(entry.rule, 0, epochs, (run,), kept.seconds, tuple(snapshots), kept=True, setting=kind)

    def _keep(self, progress: Progress) -> None:
        """Take in what finished, to be written."""
        for snapshot in progress.snapshots:
            if self.trails is not None and snapshot.entry.phase == "verdict" and snapshot.epoch in self.trails.epochs:
                self._seen.setdefault(snapshot.entry, {})[snapshot.epoch] = (
                    self.trails.brief(snapshot.weights) if snapshot.brief is None else snapshot.brief
                )
        if not progress.finished:
            return
        spent = self.engine.seconds[progress.rule]
        each = (spent - self._told[progress.rule]) / len(progress.finished)
        self._told[progress.rule] = spent
        self.trained += max(0.0, each) * len(progress.finished)
        self.writer.put([self._finished(run, each) for run in progress.finished])

    def _finished(self, run: Run, seconds: float) -> Kept:
        seen = self._seen.pop(replace(run.entry, observed=True), None)
        trail = None
        if seen:
            assert self.trails is not None
            points = np.stack(list(seen.values()))
            trail = Trail(tuple(seen), points if self.trails.summed else points.astype(np.float32))
        return Kept(self.key(run.entry), run, max(0.0, seconds), trail)

    def observe(self, tuning: Tuning) -> None:
        """Keep what a race needs of the weights of its runs."""
        self.trails = tuning.trails
        self.watched = tuning.looks_around

    def conclude(self, race: Race) -> None:
        """Keep what the runs say, beside them; where that fails, they are there all the same."""
        with contextlib.suppress(OSError):
            write_race(self.folder.path, race, lambda run: self.key(run.entry))

    def checked(self, check: Check | None) -> Check | None:
        """A check that is made once for a folder, and then remembered."""
        if check is None:
            return None

        def once(firsts: Sequence[Run], seed: int) -> Sequence[str]:
            planned = self.folder.planned
            assert planned is not None
            if planned.checked is not None:
                return list(planned.checked)
            found = check(firsts, seed)
            with contextlib.suppress(OSError):  # then it is made again the next time
                self.folder.write_plan(replace(planned, checked=tuple(found)))
            return found

        return once

    @property
    def cautions(self) -> list[str]:
        """What is to be borne in mind of runs that were answered, or could not be kept, in sentences."""
        found = []
        if self.folder.mixed:
            found.append(
                f"{self.folder.mixed} of the runs were trained on another processor, or by other versions of "
                "libraries, so that their last digits may differ from those of runs trained here."
            )
        if self.writer.waiting:
            found.append(
                f"{self.writer.waiting} finished runs could not be written to {self.folder.path} "
                f"({self.writer.failed}): a race that goes on from there trains them again."
            )
        return found

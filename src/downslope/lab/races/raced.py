"""What rules are raced on, as far as a race tells of it: a problem, or a training of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from downslope.lab.problems.baseline import NAMES, baseline_on
from downslope.lab.problems.examples import Examples
from downslope.lab.problems.problem import Problem
from downslope.lab.problems.tables import Task
from downslope.lab.races.plan import Plan


@dataclass(frozen=True)
class Raced:
    """What rules are raced on. What is not known of it stays empty, and is then said nowhere.

    Attributes:
        name: Its name in files.
        title: Its name for people.
        about: What it is, in one sentence without its full stop; empty where the race's other fields say it.
        task: What is learned.
        data_hash: The hash of its data.
        sizes: The rows of each part of its data.
        numbers: Which split the runs of each reporting seed have.
        constant: Loss and accuracy of predicting the same for every row, for each reporting seed.
        constant_name: How that prediction is made.
        remarks: How the data were read, in sentences.
        shows: What a right implementation shows on it, in one sentence with its source.
    """

    name: str
    title: str
    about: str = ""
    task: Task | None = None
    data_hash: str = ""
    sizes: dict[str, int] = field(default_factory=dict)
    numbers: tuple[int, ...] = ()
    constant: tuple[tuple[float, float | None], ...] = ()
    constant_name: str = ""
    remarks: tuple[str, ...] = ()
    shows: str = ""

    @classmethod
    def table(
        cls,
        problem: Problem | Examples,
        plan: Plan,
        numbers: Sequence[int],
        *,
        about: str = "",
        comparable: bool = True,
        remarks: Sequence[str] = (),
    ) -> Raced:
        """A problem, or a model of the user's own on examples.

        Args:
            problem: The rows, and the model of a problem.
            plan: The plan of the race.
            numbers: Which split the runs of each reporting seed have.
            about: What the network is, where that is the user's own.
            comparable: Whether its losses are those that a constant prediction has too.
            remarks: What is to be said besides, in sentences.
        """
        if problem.task is None:
            return cls(
                name=problem.name,
                title=problem.title,
                about=problem.about,
                data_hash=problem.data_hash,
                shows=problem.shows,
            )
        by_split = {}
        for number in set(numbers) if comparable else ():
            train, valid, _ = problem.split(plan.split_seed, number)
            by_split[number] = baseline_on(problem, train, valid)
        return cls(
            name=problem.name,
            title=problem.title,
            about=about,
            task=problem.task,
            data_hash=problem.data_hash,
            sizes={name: len(rows) for name, rows in problem.split(plan.split_seed)._asdict().items()},
            numbers=tuple(numbers),
            constant=tuple(by_split[number] for number in numbers if comparable),
            constant_name=NAMES[problem.task],
            remarks=(*problem.remarks, *remarks),
            shows="" if about or isinstance(problem, Examples) else problem.shows,
        )

    @property
    def splits(self) -> int:
        """How many different splits of the data the reporting seeds have; 0 where downslope splits nothing."""
        return len(set(self.numbers))

    @property
    def overlap(self) -> float:
        """Validation rows per training row if every reporting seed has its own split, otherwise 0."""
        return self.sizes["valid"] / self.sizes["train"] if self.splits > 1 else 0.0

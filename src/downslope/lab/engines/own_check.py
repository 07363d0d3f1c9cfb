"""What can be found out about a training of the user's own from its first runs, before hundreds of them are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from downslope.lab.engines.protocol import Entry, Run


class Repeatable(Protocol):
    """What trains one run at a time by code of the user's own.

    Attributes:
        argument: As which argument of a race that code was given.
        used: Whether any run used what it was handed.
        error: The first that a run raised.
    """

    argument: str
    used: bool
    error: BaseException | None

    def run(self, entry: Entry) -> Run:
        """Train one run to its end."""


def check_training(engine: Repeatable, firsts: Sequence[Run], other_seed: int) -> list[str]:
    """Refuse a training that no race can be made of, and say what a race is to bear in mind of another.

    The first run that ended is repeated, and trained on another seed.

    Args:
        engine: What trains the runs.
        firsts: One run of every rule, each on the same seed.
        other_seed: Another seed.

    Returns:
        Sentences.

    Raises:
        ValueError: Every run failed, the training uses nothing of what it is handed, or is the same on both seeds.
    """
    if firsts and all(run.cause for run in firsts):
        causes = list(dict.fromkeys(run.cause for run in firsts))
        raise ValueError(
            f"{engine.argument}: none of the first {len(firsts)} runs ended, one of each rule; the first: {causes[0]}"
        ) from engine.error
    ended = next((run for run in firsts if run.diverged_at is None), None)
    tried = next(iter(firsts), None) if ended is None else ended
    other = None if tried is None else engine.run(Entry(tried.rule, tried.lr, other_seed))
    if not engine.used:  # only now: the first runs may have been made by another process
        raise ValueError(
            "train: it asked for neither run.optimizer(...) nor run.rule, run.lr or run.settings, so that every rule "
            "would do the same; train with the optimizer of the run"
        )
    if ended is None or other is None:
        return []
    if _curves(other) == _curves(ended):
        raise ValueError(
            f"{engine.argument}: seeds {ended.seed} and {other_seed} gave the same losses, so that more seeds would "
            "prove nothing; take initial weights and the order of batches from run.seed, or from generators that you "
            "do not seed yourself"
        )
    again = engine.run(Entry(ended.rule, ended.lr, ended.seed))
    if _curves(again) == _curves(ended):
        return []
    return [
        f"The training is no function of its seed: {ended.rule} at {ended.lr:g} on seed {ended.seed}, run twice, ended "
        f"at {_end(ended)} and {_end(again)}. Rules share less luck than they could, and the race cannot be repeated."
    ]


def _curves(run: Run) -> tuple[object, ...]:
    return run.steps, run.valid_loss, run.valid_accuracy


def _end(run: Run) -> str:
    return run.cause or f"{run.final_loss:.8g}"

"""What an engine reports of runs that go on, held against what they are in the end."""

from dataclasses import replace


def heard_rightly(reports):
    """The reports of an engine, of which every run has told all losses but the last when it is finished."""
    heard = {}
    for progress in reports:
        for entry, time, loss in progress.heard:
            told = heard.setdefault(replace(entry, observed=False), [])
            if told and time <= told[-1][0]:
                told.clear()  # it was begun anew
            told.append((time, loss))
        for run in progress.finished:
            known = len(run.valid_loss) - 1 if run.diverged_at is None else run.diverged_at
            told = heard.pop(run.entry, [])
            assert told == list(enumerate(run.valid_loss))[:known] or (known == 1 and not told)  # it ended at once
        yield progress

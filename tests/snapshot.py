"""What a refused call must leave as it was."""

import contextlib

import pytest


def snapshot(optimizer):
    """Every byte of weights and states, the counts and the hyperparameters."""
    arrays = {"x": optimizer.params, **optimizer.state}
    return {
        "t": optimizer.t,
        "skipped": optimizer.skipped,
        "max_norm": optimizer.max_norm,
        "groups": [dict(group) for group in optimizer.groups],
        "arrays": {
            (state, name): (array.tobytes(), array.shape, array.dtype)
            for state, by_name in arrays.items()
            for name, array in by_name.items()
        },
    }


@contextlib.contextmanager
def refused(optimizer, error, *words):
    """The block raises this error, its message holds all these words, and nothing has changed."""
    before = snapshot(optimizer)
    with pytest.raises(error) as caught:
        yield
    assert snapshot(optimizer) == before
    for word in words:
        assert word in str(caught.value)

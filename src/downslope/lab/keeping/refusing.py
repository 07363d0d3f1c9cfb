"""What a folder says that cannot be used."""

from __future__ import annotations


class FolderError(ValueError):
    """A folder cannot be used for a race; the message says why, and what to do."""


def told(error: OSError) -> str:
    """What the system says is wrong."""
    return error.strerror or str(error)

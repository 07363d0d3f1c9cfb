"""Workers of Dask, on other machines."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any

from downslope.extras import require

ANSWERS = 10.0
"""So many seconds a scheduler has to answer."""

RETRIES = 3
"""How often a run is sent again that a worker did not bring back."""


@contextlib.contextmanager
def executor_at(address: str) -> Iterator[Executor]:
    """The workers of a scheduler of Dask, as an executor.

    A scheduler runs what it is sent, by whoever reaches it: have it listen on this machine only (`tcp://127.0.0.1:8786`)
    or by TLS (`tls://...`, with the certificates in Dask's configuration).

    Args:
        address: Where the scheduler listens.

    Raises:
        ImportError: Dask is not installed.
        ValueError: No scheduler answers there, or it has no workers.
    """
    require("A scheduler", "cluster", ["distributed"])
    distributed: Any = importlib.import_module("distributed")
    try:
        client = distributed.Client(address, timeout=ANSWERS)
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"scheduler={address}: no scheduler answers there ({error}); begin one with dask scheduler, and then its "
            "workers with dask worker"
        ) from None
    with client:
        if not client.ncores():
            raise ValueError(f"scheduler={address}: it has no workers; begin some with dask worker {address}")
        with client.get_executor(retries=RETRIES) as executor:
            yield executor

"""In how many threads runs are computed: in every worker in as many as in the process that asks for them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from downslope.backends.threads import available
from downslope.lab.keeping.identity import threads_of_frameworks


@dataclass(frozen=True)
class Threads:
    """How many threads compute at a time.

    Attributes:
        torch: Those of PyTorch.
        pools: Those of the libraries of linear algebra (`"blas"`) and of OpenMP, as far as they are loaded.
        xla: Those of JAX and of TensorFlow's compiled code, which read them from the environment when they begin.
    """

    torch: int
    pools: Mapping[str, int]
    xla: int

    @classmethod
    def here(cls) -> Threads:
        """Those of this process."""
        control: Any = importlib.import_module("threadpoolctl")
        pools: dict[str, int] = {}
        for pool in control.threadpool_info():
            pools[pool["user_api"]] = max(pools.get(pool["user_api"], 1), int(pool["num_threads"]))
        given = os.environ.get("NPROC", "")
        return cls(threads_of_frameworks(), pools, int(given) if given.isdecimal() and int(given) else available())

    def set(self) -> None:
        """Have this process compute in as many."""
        os.environ["NPROC"] = str(self.xla)
        importlib.import_module("threadpoolctl").threadpool_limits(dict(self.pools))
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(self.torch)

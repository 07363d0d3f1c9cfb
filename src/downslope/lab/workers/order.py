"""What a worker is sent, and what it does with it: all of a race that is the same for its runs, and some of them."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from downslope.lab.engines.protocol import Engine, Entry, Run, Snapshot
from downslope.lab.keeping.identity import FRAMEWORKS, Identity
from downslope.lab.races.plan import Plan
from downslope.lab.races.plane import Trails
from downslope.lab.subjects.course import Subject
from downslope.lab.workers.threads import Threads


@dataclass(frozen=True)
class Order:
    """All of a race that a worker has to know.

    Attributes:
        subject: What is raced on.
        plan: The plan of the race.
        decided: What was found out by measuring, and is not to be found out again.
        machine: Processor and versions that runs are decided by; the worker's are to be the same.
        threads: In how many threads a run is computed.
        path: Where modules are looked for.
    """

    subject: Subject
    plan: Plan
    decided: Mapping[str, Any]
    machine: Mapping[str, Any]
    threads: Threads
    path: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What became of some runs.

    Attributes:
        runs: They, as far as they are finished.
        snapshots: What is kept of where they went.
        seconds: What they took.
        error: Why they could not be trained; empty if they were.
    """

    runs: tuple[Run, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    seconds: float = 0.0
    error: str = ""


def packed(order: Order) -> bytes:
    """An order as bytes, with the code of the user's own that no module has.

    Raises:
        ValueError: It cannot be sent.
    """
    import cloudpickle

    try:
        content: bytes = cloudpickle.dumps(order)
    except Exception as error:  # whatever the user's objects raise
        raise ValueError(
            f"workers: what is raced on cannot be sent to another process ({type(error).__name__}: {error}); make what "
            "it holds inside the function, or leave workers out"
        ) from None
    return content


def work(content: bytes, entries: Sequence[Entry]) -> Answer:
    """Train some runs, in a worker. Whatever is raised comes back as words, since not every exception can be sent.

    Args:
        content: What `packed` made of an order.
        entries: The runs.
    """
    if os.getpid() != _BEGUN:
        return Answer(
            error="its processes are forked, and JAX, PyTorch and others hang in such a one; give an executor whose "
            "processes begin anew, as with mp_context=multiprocessing.get_context('spawn')"
        )
    try:
        with _ONE_AT_A_TIME:
            return _trained(content, entries)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return Answer(error=f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})")


def _trained(content: bytes, entries: Sequence[Entry]) -> Answer:
    engine, trails = _ready(hashlib.sha256(content).hexdigest(), content)
    begun = time.perf_counter()
    runs: list[Run] = []
    snapshots: list[Snapshot] = []
    for progress in engine.train(entries):
        runs += progress.finished
        for snapshot in progress.snapshots:
            if trails is not None and snapshot.epoch in trails.epochs:
                brief = trails.brief(snapshot.weights)
                snapshots.append(replace(snapshot, weights=(), states={}, scalars={}, brief=brief))
    return Answer(tuple(runs), tuple(snapshots), time.perf_counter() - begun)


_BEGUN = os.getpid()  # the process that loaded this: one that is forked from it is another
_ONE_AT_A_TIME = threading.Lock()  # a worker of Dask has several threads
_KEPT: dict[str, tuple[Engine, Trails | None]] = {}  # the last order's


def _ready(name: str, content: bytes) -> tuple[Engine, Trails | None]:
    """The engine of an order, made once."""
    if name not in _KEPT:
        import cloudpickle

        order: Order = cloudpickle.loads(content)
        sys.path += [folder for folder in order.path if folder not in sys.path]
        order.threads.set()
        _refuse_others(order.machine)
        course = order.subject.course(order.plan, time.perf_counter, order.plan.seeds)
        course.decide(order.decided)
        training, plan = course.engine.description, order.plan
        trails = None
        if training is not None:
            trails = Trails(len(plan.entrants), plan.verdict_seeds, training.epochs, training.weights)
        _KEPT.clear()
        _KEPT[name] = course.engine, trails
    return _KEPT[name]


def _refuse_others(machine: Mapping[str, Any]) -> None:
    """Refuse to train on another processor or with other versions, which would round otherwise."""
    here = machine_here(tuple(machine))
    if differing := [f"{name} {here.get(name)}, not {value}" for name, value in machine.items() if here[name] != value]:
        raise RuntimeError(f"this worker has {'; '.join(differing)}: its last digits may be others")


def machine() -> Mapping[str, Any]:
    """What decides runs by rounding, here."""
    return machine_here(("downslope", "processor", "numpy", "jaxlib", *FRAMEWORKS))


@functools.cache
def machine_here(names: tuple[str, ...]) -> Mapping[str, Any]:
    """Processor, downslope and versions of libraries, here."""
    identity = Identity.of({}, {}, [name for name in names if name not in ("processor", "downslope")])
    here = {"downslope": identity.what["downslope"], **identity.rounding}
    return {name: here.get(name) for name in names}

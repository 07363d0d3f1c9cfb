"""What decides the runs of a race: two races whose runs are decided alike have the same runs, bit for bit."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from downslope.backends.threads import available
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.protocol import Entry
from downslope.lab.races.store import encode
from downslope.language.program import fingerprint
from downslope.version import __version__

FRAMEWORKS = ("torch", "keras", "tensorflow", "jax", "optax", "flax")
"""What code of the user's own may train with, as far as a version of it matters."""


@dataclass(frozen=True)
class Identity:
    """What decides all runs of a race alike.

    Attributes:
        what: What is trained on which data, and how: where that is another, so are the runs.
        rounding: On what, and by which versions of which libraries: what the last digits of the runs depend on.
        labelled: Whether a run may also depend on what its rule is called, because code of the user's own is told.
    """

    what: Mapping[str, Any]
    rounding: Mapping[str, Any] = field(default_factory=dict)
    labelled: bool = False

    @classmethod
    def of(
        cls, what: Mapping[str, Any], rounding: Mapping[str, Any], libraries: Iterable[str], *, labelled: bool = False
    ) -> Identity:
        """An identity, with this machine and the versions that are installed of some libraries.

        Args:
            what: See the attributes.
            rounding: What else the last digits depend on, such as how many runs are trained side by side.
            libraries: Those that runs are trained with.
            labelled: See the attributes.
        """
        about = {"downslope": __version__, **what}
        return cls(encode(about, "identity"), {**encode(dict(rounding), "identity"), **_machine(libraries)}, labelled)

    def key(self, entry: Entry, rule: Mapping[str, Any], epochs: int | None) -> str:
        """All that decides a run, as text: the same for the same run.

        Args:
            entry: The run; what is trained is the same whether or not it is observed.
            rule: What `rule_of` says of its rule.
            epochs: Those it is trained; None where it is as long as it is.
        """
        of_run = {one.name: getattr(entry, one.name) for one in dataclasses.fields(entry) if one.name != "observed"}
        if not entry.setting:  # so that it is the key of before there were any
            del of_run["setting"]
        label = of_run.pop("rule")
        called = {"label": label} if self.labelled else {}
        run = {"rule": {**rule, **called}, "epochs": epochs, **of_run}
        return canonical({"what": self.what, "rounding": self.rounding, "run": run})

    def difference(self, other: Identity) -> tuple[list[str], list[str]]:
        """What another identity has otherwise, in words: of what is trained, and of what only rounding depends on.

        Args:
            other: The one in a folder.
        """
        return _difference(self.what, other.what), _difference(self.rounding, other.rounding)


def rule_of(entrant: Entrant) -> dict[str, Any]:
    """What decides a run of its rule: the formula and its numbers, whatever the rule is called in the race."""
    settings = entrant.settings
    return {
        "formula": fingerprint(settings.program),
        "name": settings.rule.name,
        "flags": dict(sorted(settings.flags)),
        "options": sorted(settings.options),
        "numbers": dict(entrant.numbers),
        **({} if entrant.rest is None else {"rest": rule_of(entrant.rest)}),
    }


def canonical(document: Any) -> str:
    """A document as text that is the same for equal ones."""
    return json.dumps(encode(document, "key"), sort_keys=True, separators=(",", ":"), allow_nan=False)


def name_of(key: str) -> str:
    """The name of a run: the hash of all that decides it."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def threads_of_frameworks() -> int:
    """In how many threads code of the user's own computes: of PyTorch, where it is there, else as it is set."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else available()


def but_for_rounding(key: str) -> str:
    """The key of a run without what only its last digits depend on."""
    return canonical({**json.loads(key), "rounding": {}})


def _machine(libraries: Iterable[str]) -> dict[str, Any]:
    """The processor, which compiled code and matrix products depend on, and versions."""
    import llvmlite.binding as llvm

    versions = {}
    for name in sorted({"numpy", *libraries}):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    features = ",".join(sorted(name for name, there in llvm.get_host_cpu_features().items() if there))
    level = hashlib.sha256(features.encode()).hexdigest()[:8]
    return {"processor": f"{platform.machine()} {llvm.get_host_cpu_name()}, features {level}", **versions}


def _difference(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    names = [*here, *(name for name in there if name not in here)]
    return [
        f"{name}: {_shown(here, name)} here, {_shown(there, name)} in the folder"
        for name in names
        if canonical(here.get(name)) != canonical(there.get(name))
    ]


def _shown(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if value is None:
        return "none"
    text = value if isinstance(value, str) else canonical(value)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"

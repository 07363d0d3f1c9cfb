"""What keeping a race in a folder costs, and what reading 1,000 runs of 1,000 steps takes.

    python bench/race_folder.py

The share of a race is that of the seconds of the processor which the folder takes, of those of the whole race; waiting
for the disk keeps no run from being trained.
"""

import dataclasses
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import downslope
from downslope.lab import race
from downslope.lab.engines.protocol import Run
from downslope.lab.keeping.folder import Folder
from downslope.lab.keeping.identity import Identity, canonical
from downslope.lab.keeping.kept import KeptEngine
from downslope.lab.keeping.rows import Kept
from downslope.lab.keeping.told import kept_runs


def share() -> None:
    spent = {"add": 0.0, "keep": 0.0}

    def timed(owner: type, name: str, where: str) -> None:
        plain = getattr(owner, name)

        def wrapped(*args, **named):
            begun = time.thread_time()
            try:
                return plain(*args, **named)
            finally:
                spent[where] += time.thread_time() - begun

        setattr(owner, name, wrapped)

    timed(Folder, "add", "add")
    timed(KeptEngine, "_keep", "keep")
    with tempfile.TemporaryDirectory() as place:
        begun = time.process_time()
        result = race("digits", [downslope.sgd, downslope.adam], folder=f"{place}/race")
        seconds = time.process_time() - begun
        files = list(Path(place).rglob("*.parquet"))
        size = sum(file.stat().st_size for file in files) / 1e6
        runs = sum(len(one.tuning) + len(one.verdict) for one in result.rules)
        part = 100 * sum(spent.values()) / seconds
        print(f"digits, {runs} runs in {seconds:.1f} s of the processor: {len(files)} files, {size:.1f} MB")
        print(f"  {part:.1f} %: {spent['keep']:.2f} s between epochs, {spent['add']:.2f} s in the thread that writes")
        begun = time.perf_counter()
        again = race("digits", [downslope.sgd, downslope.adam], folder=f"{place}/race")
        assert again.verdict == result.verdict
        print(f"the same again, nothing trained: {time.perf_counter() - begun:.2f} s")


def reading() -> None:
    rng = np.random.default_rng(0)
    identity = Identity.of({"data": "none"}, {}, [])
    with tempfile.TemporaryDirectory() as place:
        folder = Folder(Path(place) / "race")
        folder.open(identity)
        for seed in range(1000):
            curve = tuple(rng.random(1001).tolist())
            run = Run("sgd", 0.1, seed, "tuning", curve, curve, curve)
            key = canonical({"what": {}, "rounding": {}, "run": {"lr": 0.1, "seed": seed, "phase": "tuning"}})
            folder.add([Kept(key, dataclasses.replace(run), 1.0)])
        begun = time.perf_counter()
        assert len(kept_runs(folder.path)) == 1000
        print(f"1,000 files of one run of 1,000 steps: read in {time.perf_counter() - begun:.2f} s")
        begun = time.perf_counter()
        code = "from downslope.cli import main; main()"
        subprocess.run([sys.executable, "-c", code, "show", str(folder.path)], check=True, stdout=subprocess.DEVNULL)
        print(f"downslope show of them, a process of its own: {time.perf_counter() - begun:.2f} s")


reading()
share()

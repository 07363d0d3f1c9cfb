"""Races that are ended at random moments and go on: how many say in the end what one says that was not ended.

    python bench/killed_races.py 50                   # by SIGKILL and by SIGTERM
    unshare -rm python bench/killed_races.py 50       # and on a disk that fills up, or that nothing can be written to

Every race is `downslope race`, and goes on by the same command or by `--resume`, again and again until it comes to its
end. Processes are forked from one that has loaded all they need, so that one begins within milliseconds. What is said
is all that `--json` and race.json have, but for the seconds; whoever ends otherwise than by the signal or with one line
counts as a fault.
"""

import contextlib
import dataclasses
import importlib
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

from downslope.cli import main as downslope
from downslope.lab.keeping.told import read_race
from downslope.lab.races.results import Race

TRAINING = """
import time
import numpy as np

def train(run):
    x = np.random.default_rng(run.seed).normal(size=3)
    optimizer = run.optimizer(x)
    for step in range(4):
        run.report(step, x @ x)
        optimizer.step(2 * x)
    time.sleep(0.01)
    run.report(4, x @ x)
"""
RACE = ["mine.py:train", "--rules", "sgd,adam", "--lrs", "0.01,0.1", "--tuning-seeds", "1", "--seeds", "6"]
ENDS = {0, 1, 2, 128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGKILL, -signal.SIGTERM}
"""How a command may end: by itself, with one line of what is wrong, or of how to go on; by the signal."""


class Shell:
    """What races are typed in.

    Attributes:
        place: The folder that it is in; the folder of the race is below, and perhaps a disk of its own.
        faults: What went wrong, in words.
    """

    def __init__(self, place: Path):
        self.place, self.faults = place, []
        (place / "disk").mkdir()
        (place / "mine.py").write_text(TRAINING)

    @property
    def command(self) -> list[str]:
        """The race, or how it goes on."""
        kept = (self.place / "disk" / "race" / "plan.json").exists()
        what = ["--resume", "disk/race"] if kept and random.random() < 0.5 else [*RACE, "--folder", "disk/race"]
        return ["race", *what, "--json", "race.json"]

    def begin(self) -> int:
        """Begin the race, or go on with it; gives the process."""
        command = self.command
        process = os.fork()
        if process:
            return process
        os.chdir(self.place)
        with Path("said").open("wb") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        sys.argv = ["downslope", *command]
        status = 1
        try:
            downslope()
        except SystemExit as error:
            status = error.code or 0
        except BaseException:
            traceback.print_exc()
        Path("loaded").write_text("\n".join(sys.modules))
        os._exit(status)

    def load(self) -> None:
        """Load what a race has loaded."""
        for name in (self.place / "loaded").read_text().splitlines():
            with contextlib.suppress(Exception):  # what only `__main__` is, or another module has made
                importlib.import_module(name)
        assert threading.active_count() == 1

    def end(self, process: int) -> int:
        """Wait for a process, and give how it ended."""
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        said = (self.place / "said").read_text()
        if status not in ENDS or "Traceback" in said or (status > 0 and "downslope race:" not in said):
            self.faults.append(f"status {status}: {said[-2000:]}")
        return status

    def told(self) -> str:
        """What the race said, and what its folder says."""
        out = _told(Race.from_json((self.place / "race.json").read_text()))
        reader, writer = os.pipe()
        if not os.fork():  # a process of its own: this one would have threads afterwards, and could not be forked
            with os.fdopen(writer, "w") as pipe:
                pipe.write(_told(read_race(self.place / "disk" / "race")))
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            kept = pipe.read()
        os.wait()
        return out if out == kept else f"{out}, and in the folder {kept}"


def _told(race: Race) -> str:
    rules = tuple(dataclasses.replace(one, seconds=0.0) for one in race.rules)
    return repr(dataclasses.replace(race, rules=rules, seconds=0.0, environment={}))


@contextlib.contextmanager
def new_shell(faults: list[str]):
    with tempfile.TemporaryDirectory() as place:
        shell = Shell(Path(place))
        yield shell
        faults += shell.faults


def by_signals(kills: int, whole: str, seconds: float, faults: list[str]) -> None:
    """End races by signals, at any moment of the time that a whole one takes."""
    count = {signal.SIGKILL: 0, signal.SIGTERM: 0}
    races = same = 0
    while sum(count.values()) < kills:
        with new_shell(faults) as shell:
            while True:
                process = shell.begin()
                number = random.choice(list(count))
                time.sleep(random.uniform(0.0, 0.7 * seconds))
                os.kill(process, number)  # nobody has waited for it, so that it is there, if only by name
                if shell.end(process) == 0:
                    break
                count[number] += 1
            races += 1
            same += shell.told() == whole
    killed = f"{count[signal.SIGKILL]} times by SIGKILL and {count[signal.SIGTERM]} by SIGTERM"
    print(f"ended {killed}, in {races} races: {same} of them say what one says that was not ended", flush=True)


def _filled(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "other").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def _closed(disk: Path) -> None:
    while subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True).returncode:
        time.sleep(0.002)  # a file is being written


def _opened(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    (disk / "other").unlink(missing_ok=True)


def by_disks(count: int, whole: str, seconds: float, faults: list[str]) -> None:
    """Let the disk of a race fill up, or be mounted read-only, at any moment, and go on when it can be written to."""
    for name, fails in (("filled up", _filled), ("was read-only", _closed)):
        same = ended = 0
        for _ in range(count):
            with new_shell(faults) as shell:
                disk = shell.place / "disk"
                if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk]).returncode:
                    sys.exit("no disk could be mounted: run it as unshare -rm python bench/killed_races.py")
                try:
                    process = shell.begin()
                    time.sleep(random.uniform(0.0, seconds))
                    fails(disk)
                    ended += shell.end(process) == 0
                    _opened(disk)
                    if shell.end(shell.begin()) == 0:
                        same += shell.told() == whole
                finally:
                    subprocess.run(["umount", disk], check=True)
        print(
            f"a disk that {name}, {count} races: {ended} came to their end all the same, the others ended with one "
            f"line; gone on with, {same} say what one says that was not disturbed",
            flush=True,
        )


def main(kills: int) -> int:
    random.seed(0)
    faults: list[str] = []
    with new_shell(faults) as shell:
        shell.end(shell.begin())
        shell.load()
        whole = shell.told()
    with new_shell(faults) as shell:
        begun = time.perf_counter()
        shell.end(shell.begin())
        seconds = time.perf_counter() - begun
        assert shell.told() == whole
    print(f"a race of {whole.count('Run(')} runs takes {seconds:.1f} s", flush=True)
    by_signals(kills, whole, seconds, faults)
    if os.access("/proc/self/ns/mnt", os.R_OK) and os.geteuid() == 0:
        by_disks(max(1, kills // 3), whole, seconds, faults)
    for fault in itertools.islice(faults, 5):
        print(f"FAULT: {fault}")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))

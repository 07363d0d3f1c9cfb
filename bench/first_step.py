"""How long until the first step: what is imported, a rule that was never compiled before, one that is in the cache.

    python bench/first_step.py [numpy] [torch] [--rounds 5] [--json first_step.json]

Every figure is from a process of its own. In each round every front end has two: one that finds the directory of
kernels empty, one that finds in it what the first has left. The parts of a start follow one another in one process:

- `framework`: importing NumPy, or PyTorch and making one of its own optimizers, which imports much more of it.
- `import`: importing downslope's front end after that.
- `first step`: making an optimizer of ours for two arrays and taking a step.
- `another rule`: the same for another rule, when what no rule has a part in is there already.

Reported are medians over the rounds, elapsed and, since machines are busy, of the processor: what the process has used.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

_CLOCK = """
import os, time

def now():
    return time.perf_counter(), sum(os.times()[:2])

moments = [now()]
def end_of_part():
    moments.append(now())
"""
_REPORT = """
import json
names = ("framework", "import", "first step", "another rule")
print(json.dumps({n: [b - a for a, b in zip(m, o)] for n, m, o in zip(names, moments, moments[1:])}))
"""
PROGRAMS = {
    "numpy": """
import numpy as np
end_of_part()
import downslope
end_of_part()
for rule in (downslope.adam, downslope.nadam):
    weights = [np.ones((10, 5), np.float32), np.ones(10, np.float32)]
    optimizer = downslope.Optimizer(weights, rule, lr=0.1)
    optimizer.step([np.ones_like(array) for array in weights])
    end_of_part()
""",
    "torch": """
import torch
torch.optim.Adam([torch.nn.Parameter(torch.ones(1))])
end_of_part()
import downslope.torch
end_of_part()
for kind in (downslope.torch.Adam, downslope.torch.NAdam):
    weights = [torch.nn.Parameter(torch.ones(10, 5)), torch.nn.Parameter(torch.ones(10))]
    for parameter in weights:
        parameter.grad = torch.ones_like(parameter)
    kind(weights, lr=0.1).step()
    end_of_part()
""",
}


def measured(program: str, directory: str) -> dict[str, list[float]]:
    """Elapsed and processor seconds of every part."""
    environment = {**os.environ, "DOWNSLOPE_CACHE_DIR": directory}
    command = [sys.executable, "-c", _CLOCK + program + _REPORT]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("front_ends", nargs="*", metavar="front end", default=[], help=", ".join(PROGRAMS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write what was found")
    arguments = parser.parse_args()
    if unknown := set(arguments.front_ends) - set(PROGRAMS):
        parser.error(f"no such front end: {', '.join(sorted(unknown))}; give {' or '.join(PROGRAMS)}")
    names = arguments.front_ends or list(PROGRAMS)
    seconds: dict[tuple[str, str, str], list[list[float]]] = defaultdict(list)
    for _ in range(arguments.rounds):
        for name in names:
            with tempfile.TemporaryDirectory() as directory:
                for state in ("never compiled", "in the cache"):
                    for part, found in measured(PROGRAMS[name], directory).items():
                        seconds[name, state, part].append(found)
    print(f"{'':<44}{'elapsed':>10}{'processor':>12}")
    for (name, state, part), values in seconds.items():
        elapsed, used = (statistics.median(each) for each in zip(*values, strict=True))
        print(f"{name:<8}{state:<18}{part:<18}{elapsed:>8.2f} s{used:>10.2f} s")
    if arguments.json:
        found = {" / ".join(key): values for key, values in seconds.items()}
        load = os.getloadavg()
        arguments.json.write_text(json.dumps({"load average at the end": load, "seconds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""One optimizer step on a GPU: `downslope.torch` beside others (`gpu_steps.py`), and first whether numbers are right.

    python bench/gpu.py [correct] [start] [few] [convnet] [gpt2] [billion] [clip] [compilers] [--seconds 330]
                        [--rounds 9] [--json gpu.json]

Besides torch.optim and Optax there stand apex, optimi, FlashOptim and HeavyBall where they are installed; those that
are not are named. Nothing is downloaded. Every part is written to the file as soon as it is measured, and a part for
which the time will not suffice is left out and named. Without a GPU it says what it could not measure.

- `correct`: every rule in float32 and float64 within the bounds of its formula in double precision, in bfloat16 and
  float16 bit for bit the formula in single precision, rounded once; with states in eight bits bit for bit what kernels
  of the CPU do.
- `start`: the first step of a rule in a new process that finds no kernels kept, and in a second one that does.
- `few`, `convnet`, `gpt2`, `billion`: a step of 4 tensors, of 161 with 25 M weights, of 148 with 124 M, of 300 with
  1,000 M, in float32 and bfloat16; weights in float32 also with states in eight bits.
- `clip`: Adam with clipping by the norm of all gradients, which for torch.optim is a call of its own.
- `compilers`: Adam and RMSprop, 4 and 161 tensors in float32, by `torch.compile` and by JAX, whose time is the clock's;
  Adam by HeavyBall, which compiles its steps.

A step is `optimizer.step()` with the gradients there. Two times are taken. The device's: between two events around some
steps, all of which the host has given out while the device was kept busy with something else, so that it never waits
for the host. The host's: of the calls that give them out. Every round times each contender once, in random order;
shown are medians over the rounds. Bytes are those that a step has to read and write; beside them stands what a plain
copy of a gigabyte reaches in the same run. Memory is what an optimizer has allocated after its first steps.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX, wherever it is imported, leaves room for others

import numpy as np
import torch
from gpu_steps import (
    EIGHT_BITS,
    LR,
    OTHERS,
    RULES,
    Make,
    Step,
    compilers,
    contenders,
    ours,
    seconds_to_compile,
    size,
    theirs,
)
from networks import Shapes, gpt2, resnet50

import downslope
import downslope.torch
from downslope import rules
from downslope.backends.coded import codes_of
from downslope.installed import Target, on_device
from downslope.language.options import compose
from downslope.rule import Rule
from downslope.targets.arrays import interpret
from downslope.targets.codes import BLOCK
from downslope.targets.cost import cost
from downslope.testing import check_target, hard_values
from downslope.torch.device import AHEAD

STEPS = 4  # that are given out together
assert STEPS <= AHEAD  # or the host would wait for the first of them
CYCLES = 2e9  # of a device in a second, at the most


MODELS: dict[str, tuple[str, Shapes]] = {
    "few": ("perceptron 64-32-10", [(32, 64), (32,), (10, 32), (10,)]),
    "convnet": ("ResNet-50", resnet50(0.99)),
    "gpt2": ("GPT-2 small", gpt2()),
    "billion": ("300 tensors", [(2048, 3255)] * 150 + [(2048,)] * 150),
}


class Report:
    """What has been found, written as it comes."""

    def __init__(self, path: Path, seconds: float):
        self.path, self.until = path, time.monotonic() + seconds
        self.found: dict[str, Any] = {"left out": []}

    def put(self, part: str, value: Any) -> None:
        """Add a finding to a part."""
        self.found.setdefault(part, []).append(value)
        self.write()

    def write(self) -> None:
        """Write all that there is."""
        self.path.write_text(json.dumps(self.found, indent=1) + "\n")

    def left_out(self, what: str, why: str) -> None:
        """Say what is not measured."""
        print(f"left out: {what}: {why}", flush=True)
        self.put("left out", f"{what}: {why}")

    def enough(self, what: str, needed: float) -> bool:
        """Whether there is time for something that takes so many seconds."""
        if time.monotonic() + needed < self.until:
            return True
        self.left_out(what, "no time was left")
        return False


# ---- right numbers


def all_rules() -> dict[str, Rule]:
    return {each.name: each for each in rules.RULES}


def halves(device: torch.device, each: Rule, dtype: torch.dtype) -> str:
    """How a step in half precision, states in single, differs from the formula in single; nothing if it does not."""
    program = compose(each)
    x = torch.from_numpy(hard_values(5000, np.float32)).to(dtype)
    parameter = torch.nn.Parameter(x.to(device, copy=True))
    parameter.grad = torch.from_numpy(hard_values(5000, np.float32, seed=1)).to(dtype).to(device)
    settings = {name: LR for name, value in each.hyperparameters.items() if value is None}
    options = {"lookahead": "explicit"} if each.ahead else {}
    downslope.torch.Optimizer([parameter], each, state_dtype=torch.float32, **settings, **options).step()
    scalars = {**program.hyperparameters, **settings, "t": 1.0, **program.scalar_states}
    before = x.float().numpy()
    starts = {name: program.initial(name, scalars) for name in program.states}
    states = {name: before if start is None else np.full_like(before, start) for name, start in starts.items()}
    gradient = parameter.grad.float().cpu().numpy()
    due = torch.from_numpy(interpret(program, {"x": before, "dx": gradient, **states}, scalars)["x"]).to(dtype)
    wrong = ~((parameter.detach().cpu() == due) | (due.isnan() & parameter.detach().cpu().isnan()))
    return f"{int(wrong.sum())} of {wrong.numel()} weights differ" if wrong.any() else ""


def eight(device: torch.device, each: Rule) -> str:
    """How three steps with states in eight bits differ from those on the CPU; nothing if they do not."""
    settings = {name: LR for name, value in each.hyperparameters.items() if value is None}
    options = {"lookahead": "explicit"} if each.ahead else {}
    ends = []
    for place in (torch.device("cpu"), device):
        random_ = torch.Generator().manual_seed(0)
        parameter = torch.nn.Parameter(torch.randn(5000, generator=random_).to(place))
        optimizer = downslope.torch.Optimizer([parameter], each, state_dtype=torch.uint8, **settings, **options)
        for _ in range(3):
            parameter.grad = torch.randn(5000, generator=random_).to(place)
            optimizer.step()
        ends.append({"x": parameter.detach().cpu(), **{k: v.cpu() for k, v in optimizer.state[parameter].items()}})
    wrong = [name for name, due in ends[0].items() if not torch.equal(due, ends[1][name])]
    return f"{', '.join(wrong)} differ from the CPU's" if wrong else ""


def correct(device: torch.device, report: Report) -> None:
    """Hold every rule to its formula."""
    for name, each in all_rules().items():
        if not report.enough(f"correct: {name}", 5):
            return
        program, wrong = compose(each), {}
        settings = {key: LR if value is None else value for key, value in program.hyperparameters.items()}
        begun = time.perf_counter()
        for dtype in (np.float32, np.float64):
            target = Target(f"triton {dtype.__name__}", dtype, partial(on_device, device), flush=True)
            check = check_target(target, program, settings)
            wrong[dtype.__name__] = "" if check.passed else check.seen
        for half in (torch.bfloat16, torch.float16):
            wrong[str(half).removeprefix("torch.")] = halves(device, each, half)
        if codes_of(program):
            wrong[EIGHT_BITS] = eight(device, each)
        seconds = time.perf_counter() - begun
        print(f"{name:22} {'; '.join(filter(None, wrong.values())) or 'right'}  ({seconds:.1f} s)", flush=True)
        report.put("correct", {"rule": name, "wrong": wrong, "seconds": seconds})


# ---- times


def parameters(shapes: Shapes, device: torch.device, dtype: torch.dtype) -> list[torch.nn.Parameter]:
    torch.manual_seed(0)  # the same for all contenders
    made = [torch.nn.Parameter(torch.randn(shape, device=device, dtype=dtype)) for shape in shapes]
    for p in made:
        p.grad = torch.randn_like(p)
    return made


def timed(step: Step, device: torch.device, busy: float = 0.01, steps: int = STEPS) -> tuple[float, float]:
    """Seconds of the device and of the host for one step of several, given out in the seconds that it is busy."""
    if hasattr(step, "wall"):
        return step.wall(steps), float("nan")
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    torch.cuda._sleep(int(busy * CYCLES))
    first.record()
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    host = time.perf_counter() - begun
    last.record()
    torch.cuda.synchronize(device)
    return first.elapsed_time(last) / 1000 / steps, host / steps


def copy_rate(device: torch.device) -> float:
    """Bytes read and written per second by a plain copy of a gigabyte."""
    source = torch.empty(1 << 28, device=device)
    copy = torch.empty_like(source)
    times = [timed(lambda: copy.copy_(source), device)[0] for _ in range(9)]
    return 2 * source.nbytes / statistics.median(times)


def compare(part: str, name: str, makes: Iterator[tuple[str, Make]], shapes: Shapes, setting: Any) -> None:
    """Time contenders in turn and report what was found."""
    gc.collect()  # optimizers of PyTorch are parts of circles
    torch.cuda.empty_cache()
    device, dtype, report, rounds = setting
    label = f"{part}, {name}, {str(dtype).removeprefix('torch.')}"
    steps: dict[str, Step] = {}
    ends: dict[str, torch.Tensor] = {}
    busy: dict[str, float] = {}
    row: dict[str, Any] = {"model": part, "rule": name, "dtype": str(dtype), "weights": size(shapes)}
    for contender, make in makes:
        needed = 4 + size(shapes) / 2e8 + seconds_to_compile(contender, shapes)
        if not report.enough(f"{label}: {contender}", needed):
            continue
        before, begun = torch.cuda.memory_allocated(device), time.perf_counter()
        try:
            params = parameters(shapes, device, dtype)
            held = torch.cuda.memory_allocated(device)
            step = make(params)
            step()
            torch.cuda.synchronize(device)
            ends[contender] = params[0].detach().flatten()[:1000].float().cpu()
            row[f"{contender}: first step, seconds"] = time.perf_counter() - begun
            _, host = timed(step, device)
            busy[contender] = 0.0 if host != host else 0.002 + 1.5 * STEPS * host
            row[f"{contender}: bytes of states per weight"] = (torch.cuda.memory_allocated(device) - held) / size(
                shapes
            )
            steps[contender] = step
        except Exception as error:  # whatever a contender cannot do is no reason to stop
            report.left_out(f"{label}: {contender}", f"{type(error).__name__}: {error!s:.120}")
        row[f"{contender}: bytes held"] = torch.cuda.memory_allocated(device) - before
    times: dict[str, list[tuple[float, float]]] = {contender: [] for contender in steps}
    for _ in range(rounds):
        for contender in random.sample(list(steps), len(steps)):
            times[contender].append(timed(steps[contender], device, busy[contender]))
    print(f"\n{label}: {len(shapes)} tensors, {size(shapes):,} weights")
    for contender, found in times.items():
        on_device_, on_host = (statistics.median(column) for column in zip(*found, strict=True))
        spread = [1e6 * seconds for seconds in statistics.quantiles([first for first, _ in found], n=4)]
        row[contender] = {"device µs": 1e6 * on_device_, "quartiles µs": spread, "host µs": 1e6 * on_host}
        rate = ""
        if contender in ("downslope", EIGHT_BITS) and "few" not in part:
            moved = bytes_per_weight(name, dtype, contender == EIGHT_BITS) * size(shapes)
            row[contender]["GB/s"] = moved / on_device_ / 1e9
            row[contender]["of a copy"] = moved / on_device_ / report.found["copy, bytes per second"]
            rate = f"  {row[contender]['GB/s']:.0f} GB/s, {row[contender]['of a copy']:.2f} of a copy"
        if (away := elsewhere(contender, ends)) > (0.1 if dtype == torch.float32 else 20):
            row[contender]["steps away"] = away
            rate += f"  ends {away:.2g} steps away from downslope"
        print(f"  {contender:16} {1e6 * on_device_:10.1f} µs, host {1e6 * on_host:8.1f} µs{rate}", flush=True)
    report.put("times", row)
    steps.clear()


def elsewhere(contender: str, ends: dict[str, torch.Tensor]) -> float:
    """How far a weight is at the most, after the first step, from where downslope has it: in steps of Adam."""
    if contender.endswith(" jit") or "downslope" not in ends:  # JAX has arrays of its own
        return 0.0
    return float((ends[contender] - ends["downslope"]).abs().max()) / LR


def bytes_per_weight(name: str, dtype: torch.dtype, coded: bool = False) -> float:
    """What a step has to read and write for one weight, everything in this dtype, or states in eight bits."""
    program = compose(RULES[name][0])
    moved = cost(program, np.float16 if dtype == torch.bfloat16 else np.float32)
    saved = 2 * (4 - 1 - 4 / BLOCK) * len(codes_of(program)) if coded else 0
    return moved.read + moved.written - saved


def clip(setting: Any) -> None:
    """Adam with clipping: one optimizer against two calls."""
    shapes = MODELS["convnet"][1]

    def two_calls(params: list[torch.nn.Parameter]) -> Step:
        step = theirs("Adam", "fused", params)

        def both() -> None:
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            step()

        return both

    makes = [("downslope", partial(ours, downslope.adam, max_norm=1.0)), ("torch fused and clip_grad_norm_", two_calls)]
    compare("convnet, clipped", "adam", iter(makes), shapes, setting)


_START = """
import time
import torch
weights = [torch.nn.Parameter(torch.ones(shape, device="cuda")) for shape in ((10, 5), (10,))]
for p in weights:
    p.grad = torch.ones_like(p)
import downslope, downslope.torch
torch.optim.Adam(weights).step()
torch.cuda.synchronize()
moments = [time.perf_counter()]
for rule in (downslope.adam, downslope.nadam):
    downslope.torch.Optimizer(weights, rule, lr=0.1).step()
    torch.cuda.synchronize()
    moments.append(time.perf_counter())
print(*(after - before for before, after in zip(moments, moments[1:])))
"""


def start(report: Report) -> None:
    """Time first steps, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        kept = {name: str(Path(folder, name)) for name in ("DOWNSLOPE_CACHE_DIR", "TRITON_CACHE_DIR")}
        for found in ("nothing kept", "kernels kept"):
            run = [sys.executable, "-c", _START]
            seconds = subprocess.run(run, env=os.environ | kept, capture_output=True, text=True, check=True).stdout
            first, another = map(float, seconds.split())
            print(f"a first step, {found}: {first:.2f} s; of another rule then: {another:.2f} s", flush=True)
            report.put("start", {"found": found, "first": first, "another rule": another})


def machine() -> dict[str, str]:
    found = {"Python": platform.python_version(), "PyTorch": torch.__version__, "NumPy": np.__version__}
    with suppress(ImportError):
        import triton

        found["Triton"] = triton.__version__
    if torch.cuda.is_available():
        found["card"] = torch.cuda.get_device_name()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["correct", "start", *MODELS, "clip", "compilers"]
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="by default all of them")
    parser.add_argument("--seconds", type=float, default=330, help="after which nothing new is begun")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    chosen = parser.parse_args()
    wanted = chosen.parts or parts
    report = Report(chosen.json, chosen.seconds)
    report.found |= machine()
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    for package, why in {other.package: other.missing() for other in OTHERS}.items():
        if why:
            report.left_out(package, why)
    if not torch.cuda.is_available():
        for part in wanted:
            report.left_out(part, "PyTorch finds no GPU here")
        return
    device = torch.device("cuda", torch.cuda.current_device())
    if "correct" in wanted:
        correct(device, report)
    if "start" in wanted and report.enough("start", 30):
        start(report)
    report.found["copy, bytes per second"] = copy_rate(device)
    print(f"a copy: {report.found['copy, bytes per second'] / 1e9:.0f} GB/s")
    dtypes = (torch.float32, torch.bfloat16)
    for part in (part for part in MODELS if part in wanted):
        for dtype in dtypes:
            for name in RULES:
                if report.enough(f"{part}, {name}, {dtype}", 6):
                    setting = device, dtype, report, chosen.rounds
                    shapes = MODELS[part][1]
                    compare(part, name, contenders(name, shapes, dtype), shapes, setting)
    if "clip" in wanted:
        clip((device, torch.float32, report, chosen.rounds))
    if "compilers" in wanted:
        for part in ("few", "convnet"):
            for name in ("adam", "rmsprop"):
                setting = device, torch.float32, report, chosen.rounds
                compare(f"{part}, compilers", name, compilers(name), MODELS[part][1], setting)
    if any(wrong for row in report.found.get("correct", []) for wrong in row["wrong"].values()):
        sys.exit("some numbers are wrong: see above")


if __name__ == "__main__":
    main()

"""What `bench/gpu.py` times: steps of `downslope.torch`, of torch.optim, of JAX, and of other libraries of optimizers.

Of another library only that is timed which computes the same formula. `gpu.py` looks where each has ended after its
first step, and says so if that is somewhere else.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from networks import Shapes

import downslope
import downslope.torch
from downslope import rule, sqrt
from downslope.backends.coded import codes_of
from downslope.language.options import compose
from downslope.rule import Rule

LR = 1e-3
EIGHT_BITS, COMPILED = "8-bit states", "torch compiled"
Step = Callable[[], object]
Make = Callable[[list[torch.nn.Parameter]], Step]


@rule
def own_rule(x, dx, m=0, v=0, *, lr=LR, beta=0.9, eps=1e-8):
    """A user's own: momentum along a smoothed sign of the gradient."""
    m = beta * m + (1 - beta) * dx
    v = beta * v + (1 - beta) * abs(dx)
    return x - lr * m / (v + eps) / sqrt(1 + m * m), m, v


# a rule, its class in torch.optim, and which forms of that there are
RULES: dict[str, tuple[Rule, str, tuple[str, ...]]] = {
    "adam": (downslope.adam, "Adam", ("fused", "foreach", "default")),
    "rmsprop": (downslope.rmsprop, "RMSprop", ("foreach", "default")),
    "nadam": (downslope.nadam, "NAdam", ("foreach",)),
    "lion": (downslope.lion, "", ()),
    "schedule-free AdamW": (downslope.schedule_free_adamw, "", ()),
    "a user's own": (own_rule, "", ()),
}


def size(shapes: Shapes) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes)


def ours(each: Rule, params: list[torch.nn.Parameter], **options: Any) -> Step:
    return downslope.torch.Optimizer(
        params, each, **({"lr": LR} if "lr" in each.hyperparameters else {}), **options
    ).step


def theirs(name: str, form: str, params: list[torch.nn.Parameter]) -> Step:
    if form == "compiled":  # with the rate on the device, as a change of a number would be compiled anew
        optimizer = getattr(torch.optim, name)(params, lr=torch.tensor(LR, device=params[0].device), capturable=True)
        return torch.compile(optimizer.step, fullgraph=False)
    chosen = {"foreach": False} if form == "default" else {form: True}
    return getattr(torch.optim, name)(params, lr=LR, **chosen).step


def optax_step(name: str, of: str, params: list[torch.nn.Parameter]) -> Step:
    """A step of JAX by a transformation of Optax's own, or by that of a rule."""
    import jax
    import optax

    arrays = [jax.device_put(p.detach().cpu().numpy(), jax.devices("gpu")[0]) for p in params]
    gradients = [jax.device_put(p.grad.cpu().numpy(), jax.devices("gpu")[0]) for p in params]
    if of == "optax":
        transformation = getattr(optax, name)(LR)
    else:
        from downslope.optax import optimizer

        each = RULES[name][0]
        transformation = optimizer(each, **({"lr": LR} if "lr" in each.hyperparameters else {}))

    def step(arrays: Any, state: Any) -> Any:
        updates, state = transformation.update(gradients, state, arrays)
        return optax.apply_updates(arrays, updates), state

    jitted = jax.jit(step, donate_argnums=(0, 1))
    held = [arrays, transformation.init(arrays)]

    def one() -> None:
        held[:] = jitted(*held)

    def wall(count: int) -> float:
        jax.block_until_ready(held)
        begun = time.perf_counter()
        for _ in range(count):
            one()
        jax.block_until_ready(held)
        return (time.perf_counter() - begun) / count

    one.wall = wall  # type: ignore[attr-defined]  # JAX has a stream of its own
    return one


@dataclass(frozen=True)
class Other:
    """An optimizer of another library.

    Attributes:
        name: What it is called in reports.
        module: Where it is.
        package: What is to be installed.
        rule: The rule whose formula it computes.
        dtypes: Of what weights.
        make: Of the module and parameters, the optimizer.
        compiled: Whether its first step compiles for long.
    """

    name: str
    module: str
    package: str
    rule: str
    dtypes: tuple[torch.dtype, ...]
    make: Callable[[Any, list[torch.nn.Parameter]], torch.optim.Optimizer]
    compiled: bool = False

    def missing(self) -> str:
        """Why it cannot be imported; nothing if it can."""
        try:
            importlib.import_module(self.module)
        except ImportError as error:
            return f"not installed: {error!s:.120}"
        return ""

    def step(self, params: list[torch.nn.Parameter]) -> Step:
        """A step of it."""
        return self.make(importlib.import_module(self.module), params).step


_SINGLE, _HALF = (torch.float32,), (torch.bfloat16,)
_OPTIMI = {"kahan_sum": False, "triton": True}
_FLASH = {"quantize": False, "master_weight_bits": None}

OTHERS = (
    Other(
        "apex fused",
        "apex.optimizers",
        "apex (github.com/NVIDIA/apex)",
        "adam",
        _SINGLE + _HALF,
        lambda apex, params: apex.FusedAdam(params, lr=LR, adam_w_mode=False),
    ),
    Other(
        "optimi",
        "optimi",
        "torch-optimi",
        "adam",
        _SINGLE + _HALF,
        lambda optimi, params: optimi.Adam(params, lr=LR, betas=(0.9, 0.999), eps=1e-8, **_OPTIMI),
    ),
    Other(
        "optimi",
        "optimi",
        "torch-optimi",
        "lion",
        _SINGLE + _HALF,
        lambda optimi, params: optimi.Lion(params, lr=LR, **_OPTIMI),
    ),
    Other(
        "FlashOptim",
        "flashoptim",
        "flashoptim",
        "adam",
        _SINGLE,
        lambda flash, params: flash.FlashAdam(params, lr=LR, **_FLASH),
    ),
    Other(
        "FlashOptim, 8-bit states",
        "flashoptim",
        "flashoptim",
        "adam",
        _SINGLE,
        lambda flash, params: flash.FlashAdam(params, lr=LR, master_weight_bits=None),
    ),
    Other(
        "FlashOptim, 8-bit states, weights in 24",
        "flashoptim",
        "flashoptim",
        "adam",
        _HALF,
        lambda flash, params: flash.FlashAdam(params, lr=LR),
    ),
    Other(
        "FlashOptim",
        "flashoptim",
        "flashoptim",
        "lion",
        _SINGLE,
        lambda flash, params: flash.FlashLion(params, lr=LR, **_FLASH),
    ),
    Other(
        "HeavyBall",
        "heavyball",
        "heavyball",
        "adam",
        _SINGLE,
        lambda heavyball, params: heavyball.AdamW(params, lr=LR, betas=(0.9, 0.999), consume_grad=False),
        compiled=True,
    ),
)


def others(name: str, dtype: torch.dtype, *, compiled: bool) -> Iterator[tuple[str, Make]]:
    """What other libraries have of a rule, as far as they are installed."""
    for other in OTHERS:
        wanted = other.rule == name and dtype in other.dtypes and other.compiled is compiled
        if wanted and not other.missing():
            yield other.name, other.step


def contenders(name: str, shapes: Shapes, dtype: torch.dtype) -> Iterator[tuple[str, Make]]:
    each, theirs_name, forms = RULES[name]
    yield "downslope", partial(ours, each)
    if dtype == torch.float32 and codes_of(compose(each)):
        yield EIGHT_BITS, partial(ours, each, state_dtype=torch.uint8)
    for form in forms:
        if form == "default" and size(shapes) > 100_000_000:
            continue
        yield f"torch {form}", partial(theirs, theirs_name, form)
    yield from others(name, dtype, compiled=False)


def compilers(name: str) -> Iterator[tuple[str, Make]]:
    each, theirs_name, _ = RULES[name]
    yield "downslope", partial(ours, each)
    if importlib.util.find_spec("optax"):
        yield "optax jit", partial(optax_step, name, "optax")
        yield "downslope.optax jit", partial(optax_step, name, "downslope")
    yield COMPILED, partial(theirs, theirs_name, "compiled")
    yield from others(name, torch.float32, compiled=True)


def seconds_to_compile(contender: str, shapes: Shapes) -> float:
    """How long a contender's first step may take to compile, at the most that has been seen."""
    if contender == COMPILED:
        return len(shapes) / 3
    if contender in [other.name for other in OTHERS if other.compiled]:
        return 60 + len(shapes) / 3
    return len(shapes) / 6 if contender.endswith(" jit") else 0

"""Two hundred steps of every class with the numbers of `torch.optim`, for all dtypes and layouts of parameters.

The bounds. `u` is half the distance from 1 to the next number of a dtype: no rounding errs by more than `u` times what
is rounded.

Double precision: each side makes fewer than 40 roundings per step and weight, on numbers of the size of the weights and
of the step, so after `t` steps the two differ by at most `2 * 40 * t * u` of the largest weight; likewise the states.

One step from identical weights and states, in any precision: PyTorch rounds after every operation and downslope, which
computes halves in single precision, only what it stores. Either makes at most 20 roundings on numbers of the size of
the step and 2 on those of the size of the weights or of the state (20 if it is one of steps, as Adadelta's). As sums
may cancel, "the size" is that of the largest step, weight or state among all tensors.

Single precision over the whole run is held to PyTorch in double precision: `t` roundings of the weights, each at most
`u` of the largest; and steps that are wrong by 20 roundings and by what a state gathers, which is at most 4 roundings
(two of them, of the decay and of its complement, are the same at every step) for each of the steps it remembers, at
most all of them.

Halves over the whole run are held to PyTorch's fused kernels, which also compute in single precision and round what is
stored. A result falls on the other side of a rounding boundary with a chance of at most 40 roundings of single
precision per spacing, 40 * 2**-24 / 2**-9 = 0.0012 for bfloat16 and 0.01 for float16: in 200 steps and up to three
stored numbers at most 1 and 6 times, each time by one spacing of the largest weight, 2u, up or down. Six standard
deviations of such a walk are 6 and 15 spacings.

The learning rate changes from its largest to a fifth of it and back, and so the two groups' do.
"""

import functools
import math

import pytest
import torch

import downslope.torch

STEPS = 200
DECAY = {"weight_decay": 0.01}
UP = {"maximize": True}
RATES = {"SGD": 0.05, "Adagrad": 0.3, "Adadelta": 1.0}
ORDINARY_RATE = 0.02

# Every class with the options of its first and of its second parameter group.
CASES = {
    "SGD": ("SGD", {}, DECAY),
    "SGD, up": ("SGD", UP, {**UP, **DECAY}),
    "SGD, momentum": ("SGD", {"momentum": 0.9}, {"momentum": 0.8, "dampening": 0.3, **DECAY}),
    "SGD, nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "nesterov": True, **DECAY}),
    "SGD, mixed": ("SGD", {"momentum": 0.9, **UP}, {}),
    "Adagrad": ("Adagrad", {}, {"lr_decay": 0.01, "eps": 1e-3, **DECAY}),
    "Adagrad, begun": ("Adagrad", {}, {**UP, **DECAY}),
    "RMSprop": ("RMSprop", {}, {"alpha": 0.9, "eps": 1e-3, **DECAY}),
    "RMSprop, centered": ("RMSprop", {"centered": True}, {"centered": True, **DECAY}),
    "RMSprop, momentum": ("RMSprop", {"momentum": 0.9}, {"momentum": 0.5, "centered": True, **DECAY}),
    "RMSprop, mixed": ("RMSprop", UP, {"momentum": 0.5, "centered": True, **UP}),
    "Adam": ("Adam", {}, {"betas": (0.8, 0.99), "eps": 1e-3, **DECAY}),
    "Adam, amsgrad": ("Adam", {"amsgrad": True}, {"amsgrad": True, **UP, **DECAY}),
    "Adam, decoupled": ("Adam", {"decoupled_weight_decay": True, "weight_decay": 0.1}, UP),
    "AdamW": ("AdamW", {}, {"weight_decay": 0.3, **UP}),
    "AdamW, amsgrad": ("AdamW", {"amsgrad": True}, {"weight_decay": 0}),
    "NAdam": ("NAdam", {}, {"momentum_decay": 0.01, **DECAY}),
    "NAdam, decoupled": ("NAdam", {"decoupled_weight_decay": True, **DECAY}, UP),
    "Adamax": ("Adamax", {}, {"betas": (0.8, 0.99), **DECAY, **UP}),
    "Adadelta": ("Adadelta", {}, {"rho": 0.8, "eps": 1e-3, **DECAY, **UP}),
    "RAdam": ("RAdam", {}, {"betas": (0.8, 0.99), **DECAY}),
    "RAdam, decoupled": ("RAdam", {"decoupled_weight_decay": True, **DECAY}, UP),
}
WHOLE = {"Adagrad, begun": {"initial_accumulator_value": 0.5}}  # torch.optim.Adagrad does not read it from groups
CLASSES = [name for name in CASES if "," not in name]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.complex64]
FUSED = ["Adagrad", "Adam", "AdamW"]  # that of SGD leaves most halves where they are: pytorch/pytorch#191763
SINGLE = 2.0**-24
SPACINGS = {torch.bfloat16: 6, torch.float16: 15}

# One parameter of each layout.
LAYOUTS = [
    lambda dtype: torch.empty(5, 3, dtype=dtype),
    lambda dtype: torch.empty((), dtype=dtype),
    lambda dtype: torch.empty(3, 6, dtype=dtype)[:, ::2],
    lambda dtype: torch.empty(0, 3, dtype=dtype),
    lambda dtype: torch.empty(4, 3, dtype=dtype).t(),
    lambda dtype: torch.empty(2, 3, 2, 2, dtype=dtype).to(memory_format=torch.channels_last),
]
ALL, FEW = (0, 1, 2, 3, 4, 5), (1, 2, 5)  # which of them a training has; its first group, the first or the first two
COMPARED = [*range(1, 21), *range(21, STEPS + 1, 3)]  # steps from the same states, every tenth of them a large one
TIGHT = {torch.float16: {"eps": 1e-3}}  # Adadelta's epsilon of 1e-6 is not one that float16 can hold


@pytest.fixture(autouse=True)
def _double_scalars():
    """NAdam's product of momenta is kept in torch's default dtype, whatever that of the weights."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def wide(dtype):
    """The dtype of double precision of the same kind."""
    return torch.complex128 if dtype.is_complex else torch.float64


def size(numbers):
    """The largest of the numbers, 0 if there are none."""
    return numbers.abs().max().item() if numbers.numel() else 0.0


def flat(tensors):
    """All elements of the tensors, in double precision."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).to(wide(tensors[0].dtype))


def parameters(dtype, which=ALL):
    """Weights in these layouts, always the same ones."""
    generator = torch.Generator().manual_seed(1)
    empty = [layout(dtype) for layout in LAYOUTS]
    values = [torch.randn(tensor.shape, dtype=wide(dtype), generator=generator) for tensor in empty]
    return [empty[i].copy_(values[i]).requires_grad_() for i in which]


@functools.cache
def gradients(dtype):
    """For every step the gradients of all parameters, most laid out like their parameters, at every third contiguous.

    Their elements are between 0.5 and 1.5, up or down, at every tenth step ten times as large: second moments then
    neither underflow nor overflow in float16.
    """
    generator = torch.Generator().manual_seed(2)
    largest = torch.tensor([10.0 if t % 10 == 0 else 1.0 for t in range(1, STEPS + 1)])
    columns = []
    for like in parameters(dtype):
        shape = (STEPS, *like.shape, 2) if dtype.is_complex else (STEPS, *like.shape)
        values = torch.rand(shape, generator=generator) + 0.5
        values *= torch.randint(0, 2, shape, generator=generator) * 2 - 1
        values *= largest.view(STEPS, *[1] * (len(shape) - 1))
        given = (torch.view_as_complex(values) if dtype.is_complex else values).to(dtype).unbind()
        columns.append([g if t % 3 == 0 else torch.empty_like(like).detach().copy_(g) for t, g in enumerate(given)])
    return list(zip(*columns, strict=True))


class Training:
    """One optimizer of the case, with parameters of its own.

    Args:
        module: Where to take the class from.
        case: The name of the case.
        dtype: The dtype of the weights.
        which: The numbers of the layouts of its parameters.
        params: The parameters; by default those of `parameters`.
        **options: Options of all groups.
    """

    def __init__(self, module, case, dtype, which=ALL, params=None, **options):
        name, first, second = CASES[case]
        self.which = which
        self.params = parameters(dtype, which) if params is None else params
        half = len(which) - len(which) // 2
        self.rate = RATES.get(name, ORDINARY_RATE)
        groups = [{"params": self.params[:half], **first}, {"params": self.params[half:], **second}]
        self.optimizer = getattr(module, name)(groups, lr=self.rate, **WHOLE.get(case, {}), **options)

    def step(self, t, given):
        """Step number `t`, with the gradients given for all layouts, at the learning rate of that step."""
        for factor, group in zip((1.0, 0.3), self.optimizer.param_groups, strict=True):
            group["lr"] = factor * self.rate * (0.6 + 0.4 * math.cos(t / 30))
        for parameter, i in zip(self.params, self.which, strict=True):
            parameter.grad = given[i]
        self.optimizer.step()

    @property
    def x(self):
        """All weights."""
        return flat(self.params)

    def states(self):
        """All states of arrays by name, one long vector each."""
        found = {}
        for parameter in self.params:
            for name, value in self.optimizer.state[parameter].items():
                if name not in ("step", "mu_product") and value is not None:
                    found.setdefault(name, []).append(value)
        return {name: flat(tensors) for name, tensors in sorted(found.items())}

    def clocks(self):
        """Step counts and products of momenta."""
        states = [self.optimizer.state[parameter] for parameter in self.params]
        return [(float(own.get("step", 0)), float(own.get("mu_product", 0))) for own in states]

    def take_over(self, other):
        """Make weights and states those of the other, which has states from its first step on."""
        with torch.no_grad():
            for mine, theirs in zip(self.params, other.params, strict=True):
                mine.copy_(theirs)
                own = self.optimizer.state[mine] if other.optimizer.state else {}
                for name, value in own.items():
                    if value is not None:
                        value.copy_(other.optimizer.state[theirs][name])


@pytest.mark.parametrize("case", CASES)
def test_two_hundred_steps_in_double_precision(case):
    which = FEW if "," in case else ALL
    mine, theirs = (Training(module, case, torch.float64, which) for module in (downslope.torch, torch.optim))
    u = 2.0**-53
    largest = size(mine.x)
    for t, given in enumerate(gradients(torch.float64), 1):
        mine.step(t, given)
        theirs.step(t, given)
        if t in (1, 2, 3, 5, 6, 10, 20, 100, STEPS):
            largest = max(largest, size(theirs.x))
            assert size(mine.x - theirs.x) <= 80 * t * u * largest
    assert size(theirs.x) > 0.5
    ours = mine.states()
    assert ours.keys() == theirs.states().keys()
    for name, expected in theirs.states().items():
        assert size(ours[name] - expected) <= 80 * STEPS * u * size(expected), name
    for (step, product), (expected_step, expected_product) in zip(mine.clocks(), theirs.clocks(), strict=True):
        assert step == (expected_step or step) == STEPS or "SGD" in case
        assert product == pytest.approx(expected_product, rel=80 * STEPS * u)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [*CLASSES, "SGD, momentum"])
def test_two_hundred_steps_in_other_precisions(case, dtype):
    """Before a step that is compared PyTorch is given downslope's weights and states: no difference hides in others."""
    options = TIGHT.get(dtype, {}) if case == "Adadelta" else {}
    mine, theirs = (Training(module, case, dtype, FEW, **options) for module in (downslope.torch, torch.optim))
    u = torch.finfo(dtype).eps / 2
    longest = 0.0
    for t, given in enumerate(gradients(dtype), 1):
        if t not in COMPARED:
            mine.step(t, given)
            continue
        theirs.take_over(mine)
        before = mine.x
        mine.step(t, given)
        theirs.step(t, given)
        expected = theirs.x
        step = size(expected - before)
        assert size(mine.x - expected) <= u * (2 * 2 * size(expected) + 2 * 20 * step), t
        states = mine.states()
        for name, values in theirs.states().items():
            roundings = 20 if name == "acc_delta" else 2
            assert size(states[name] - values) <= 2 * roundings * u * size(values), (name, t)
        longest = max(longest, step)
    assert longest > 0.01
    if u == SINGLE:
        truth, largest, way = reference(case, dtype)
        assert size(mine.x - truth) <= u * (STEPS * largest + (20 + 4 * STEPS) * way)


def reference(case, dtype):
    """The weights after two hundred steps of PyTorch in double precision, the largest of all weights, the way gone."""
    params = [p.detach().to(wide(dtype)) for p in parameters(dtype, FEW)]
    truth = Training(torch.optim, case, wide(dtype), FEW, params)
    before, way = truth.x, 0.0
    largest = size(before)
    for t, given in enumerate(gradients(dtype), 1):
        truth.step(t, [gradient.to(wide(dtype)) for gradient in given])
        after = truth.x
        before, way, largest = after, way + size(after - before), max(largest, size(after))
    return before, largest, way


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", FUSED)
def test_two_hundred_steps_of_halves_are_those_of_the_fused_kernels(case, dtype):
    mine = Training(downslope.torch, case, dtype)
    contiguous = [p.detach().clone(memory_format=torch.contiguous_format) for p in parameters(dtype)]
    theirs = Training(torch.optim, case, dtype, ALL, contiguous, fused=True)
    largest = 0.0
    for t, given in enumerate(gradients(dtype), 1):
        mine.step(t, given)
        theirs.step(t, [gradient.contiguous() for gradient in given])
        if t % 10 == 0:
            largest = max(largest, size(theirs.x))
            assert size(mine.x - theirs.x) <= SPACINGS[dtype] * torch.finfo(dtype).eps * largest, t

"""Kernels for GPUs, run by Triton's interpreter on tensors of the CPU: the numbers are those of the formula."""

import functools

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import downslope
from downslope import cos, exp, expm1, log, maximum, minimum, rule, rules, scalar, sign, sin, sqrt, tanh, where
from downslope.backends import cpu, triton, triton_kernel
from downslope.backends.stepping import Stepper
from downslope.installed import Target, on_device
from downslope.language.options import NUMBERS, compose
from downslope.targets.arrays import interpret
from downslope.testing import check_target, hard_values

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from downslope.backends.table import SlotTable  # noqa: E402
from downslope.backends.taking import ALL, SOME  # noqa: E402
from downslope.torch.describe import describer  # noqa: E402
from downslope.torch.device import DeviceMemory  # noqa: E402
from random_formulas import evaluate, formulas  # noqa: E402

HOST = torch.device("cpu")
SIZES = (5, 1024, 0, 1, 1030)
RULES = {each.name: each for each in rules.RULES}
DTYPES = {name: getattr(torch, name) for name in cpu.SIZES}


@pytest.fixture(autouse=True, scope="module")
def interpreter():
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        patch.setenv("TRITON_INTERPRET", "1")
        yield


class Slots:
    """Tensors of several slots, and what updates them.

    Attributes:
        before: Per slot the arrays by name, gradients included, as single or double precision.
        held: Per slot weights, states and clocks.
        gradients: Per slot the gradient.
    """

    def __init__(self, program, storages, sizes=SIZES, *, rounding="nearest", memory=True, seed=0, rows=None, **more):
        self.program, storages = program, dict(zip(program.arrays, storages, strict=True))
        own = dict(program.scalar_states)
        self.held, self.gradients, self.before = [], [], []
        for k, size in enumerate(sizes):
            arrays = {}
            for j, (name, storage) in enumerate(storages.items()):
                dtype = np.float64 if storage == "float64" else np.float32
                values = hard_values(size, dtype, seed=100 * k + j + seed)
                arrays[name] = torch.from_numpy(np.abs(values) if j > 1 else values).to(DTYPES[storage])
            self.before.append({name: numbers(tensor) for name, tensor in arrays.items()})
            self.gradients.append(arrays.pop("dx"))
            clocks = [torch.tensor(0.0), *(torch.tensor(v, dtype=torch.float64) for v in own.values())]
            lost = [torch.zeros_like(arrays["x"])] if rounding == "compensated" else []
            self.held.append([*arrays.values(), *lost, *clocks])
        kept = [*storages.values(), *([storages["x"]] if rounding == "compensated" else [])]
        looked_at = describer(torch.device("cpu"))
        self.table = SlotTable(looked_at, self.held, kept, scalars=len(own), own_clocks=True, seed=7, **more)
        self.stepper = Stepper(program, rounding, self.table, DeviceMemory(HOST) if memory else None)
        self.rows = rows or [0] * len(sizes)
        self.stepper.group_rows(self.rows, [[0.0, *own.values()]] * (1 + max(self.rows)))

    def step(self, *scalars, gradients=None):
        """A step with scalars for each row."""
        for row, numbers_ in enumerate(scalars):
            self.stepper.settle(row, [numbers_.get(name, 0.0) for name in self.program.scalars])
        return self.stepper.step(*(self.gradients if gradients is None else gradients), workers=1)

    def after(self, slot):
        """The arrays of a slot by name, as they are stored."""
        names = [name for name in self.program.arrays if name != "dx"]
        return dict(zip([*names, "compensation"], self.held[slot][: len(self.table.storages) - 1], strict=False))

    def bits(self):
        """All that is held, as bytes."""
        return [tensor.numpy().tobytes() for tensors in self.held for tensor in map(bitwise, tensors)]


def numbers(tensor):
    """A tensor as an array of single or double precision."""
    return tensor.to(torch.float64 if tensor.dtype == torch.float64 else torch.float32).numpy().copy()


def bitwise(tensor):
    """A tensor as one that NumPy knows, with the same bytes."""
    return tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor


def scalars_of(program, **more):
    """A number for everything that a program takes."""
    own = {"lr": 0.05, "grad_scale": 0.5, "averaging": 0.9, "weight_decay": 0.01, "t": 1.0, **program.scalar_states}
    given = {name: value for name, value in program.hyperparameters.items() if value is not None}
    return {**own, **given, **more}


def assert_bits(found, expected):
    """Equal to the last bit, signs of zeros included; nan is nan."""
    found, expected = np.broadcast_arrays(found, expected)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    good = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found)[good], np.signbit(expected)[good])


def assert_step(slots, scalars):
    """One step ends, bit for bit, where the operations of the formula do, each rounded to the precision of the body."""
    assert slots.step(scalars) == ALL
    for k, before in enumerate(slots.before):
        expected = interpret(slots.program, before, scalars)
        for name, tensor in slots.after(k).items():
            if name in expected:
                due = torch.from_numpy(np.asarray(expected[name])).to(tensor.dtype)
                assert_bits(numbers(tensor), numbers(due))


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_its_formula(name):
    program = compose(RULES[name])
    assert_step(Slots(program, ["float32"] * len(program.arrays)), scalars_of(program))


def with_all_options(chosen):
    own = {*chosen.hyperparameters, *chosen.flags}
    options = {option: True for option in NUMBERS if option not in own}
    decoupled = {"decoupled": True} if "weight_decay" in options and "lr" in own else {}
    return compose(chosen, max_norm=True, maximize=True, cautious=True, **options, **decoupled)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_with_all_options_is_its_formula_in_double_precision_too(name):
    program = with_all_options(RULES[name])
    assert_step(Slots(program, ["float64"] * len(program.arrays), (3, 1030)), scalars_of(program))


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["adam", "schedule_free_adamw"])
def test_halves_are_read_exactly_and_rounded_once(name, storage):
    program = compose(RULES[name])
    assert_step(Slots(program, [storage] * len(program.arrays)), scalars_of(program))
    mixed = [storage, storage, *["float32"] * len(program.states)]
    assert_step(Slots(program, mixed), scalars_of(program))
    assert_step(Slots(program, ["float32", storage, *[storage] * len(program.states)]), scalars_of(program))


@pytest.mark.parametrize("rounding", ["compensated", "stochastic"])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_weights_are_rounded_as_on_the_cpu(name, rounding):
    """Bit for bit, over several steps: the random numbers depend on seed, tensor, step and place alone."""
    program = compose(RULES[name], averaging=True)
    storages = ["bfloat16", "bfloat16", *["float32"] * len(program.states)]
    ours, due = (Slots(program, storages, rounding=rounding, memory=memory) for memory in (True, False))
    for _ in range(3):
        assert ours.step(scalars_of(program)) == due.step(scalars_of(program)) == ALL
    assert ours.bits() == due.bits()
    plain = Slots(program, storages)
    for _ in range(3):
        plain.step(scalars_of(program))
    assert not torch.equal(plain.held[-1][0], ours.held[-1][0])


@rule
def every_word(x, dx, v=0.5, second=0, third=0, fourth=0, power=0, *, lr=0.1, beta=0.9):
    a = exp(-abs(dx)) + expm1(-abs(dx) * beta) + tanh(dx) * sign(x)
    v = where((dx > 0) & (x <= 1) | ~(v >= dx) & (x != dx) | (v == x), maximum(a, v), minimum(a, v))
    new = x - lr * expm1(beta) * sqrt(log(1 + abs(a))) + cos(x) * sin(x * cos(lr)) - (-dx) ** 3
    return new, v, dx**2, dx**3 / (1 + x**2), dx**4, abs(x) ** 1.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("formula", [every_word, downslope.adam, downslope.radam], ids=lambda each: each.name)
def test_everything_is_within_the_bounds_of_the_formula_in_double_precision(formula, dtype):
    program = compose(formula)
    target = Target("interpreted", dtype, functools.partial(on_device, HOST))
    check = check_target(target, program, scalars_of(program))
    assert check.passed, check.seen


@settings(deadline=None, max_examples=6, phases=[Phase.generate])
@given(several=st.lists(formulas(), min_size=8, max_size=8), dtype=st.sampled_from(["float32", "float64"]))
def test_the_text_of_any_formula_computes_it(several, dtype):
    @rule
    def some(x, dx, b=0.0, p=0.0, q=0.0, r=0.0, s=0.0, u=0.0, w=0.0, *, c=0.0):
        return tuple(where(x == x, evaluate(each, {"a": dx, "b": b, "c": c}), x) for each in several)

    program = compose(some)
    assert_step(Slots(program, [dtype] * len(program.arrays), [500]), {"c": -0.3})


# Steps that a graph repeats: the device counts them


def counting(program, storages, done, **more):
    """Three slots that have done so many steps, counted by the host and counted by the device."""
    runs = []
    for counted in (True, False):
        slots = Slots(program, storages, (70, 3, 0), rows=[0, 1, 2], counted=counted, **more)
        for tensors, steps in zip(slots.held, done, strict=True):
            tensors[len(storages) - 1 + (more.get("rounding") == "compensated")].fill_(steps)
        own = dict(program.scalar_states)
        slots.stepper.group_rows([0, 1, 2], [[steps, *own.values()] for steps in done])
        runs.append(slots)
    return runs


@pytest.mark.parametrize("name", RULES)
def test_the_device_works_out_the_coefficients_of_the_host_to_the_last_bit(name):
    """In double precision, at counts far apart, with hyperparameters that differ; clocks included."""
    program = with_all_options(RULES[name])
    host, device = counting(program, ["float64"] * len(program.arrays), (0.0, 9.0, 3e6))
    for lr in (0.05, 0.01):
        scalars = [scalars_of(program, lr=lr / k) for k in (1, 2, 3)]
        assert host.step(*scalars) == device.step(*scalars) == ALL
    assert device.bits() == host.bits()
    assert [float(tensors[-1 - len(program.scalar_states)]) for tensors in device.held] == [2, 11, 3000002]


@pytest.mark.parametrize("rounding", ["compensated", "stochastic"])
def test_random_numbers_are_those_of_the_count(rounding):
    program = compose(downslope.adam)
    storages = ["bfloat16", "bfloat16", "float32", "float32"]
    host, device = counting(program, storages, (0.0, 4.0, 7.0), rounding=rounding)
    for _ in range(3):
        assert host.step(*[scalars_of(program)] * 3) == device.step(*[scalars_of(program)] * 3) == ALL
    assert device.bits() == host.bits()


def test_a_slot_without_a_gradient_is_not_counted():
    program = compose(downslope.nadam)
    host, device = counting(program, ["float32"] * 4, (0.0, 0.0, 0.0))
    for slots in (host, device):
        given = [slots.gradients[0], None, slots.gradients[2]]
        assert slots.step(*[scalars_of(program)] * 3, gradients=given) == SOME
        assert slots.step(*[scalars_of(program)] * 3) == ALL
    assert device.bits() == host.bits()
    assert [float(tensors[3]) for tensors in device.held] == [2, 1, 2]


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_a_step_that_the_device_leaves_out_changes_nothing_and_is_not_counted(rounding):
    """The gradients can be looked at all the same, before the next step too."""
    program = compose(downslope.nadam, max_norm=True)
    host, device = counting(program, ["bfloat16", "bfloat16", "float32", "float32"], (0.0, 4.0, 7.0), rounding=rounding)
    for found in (0.0, 1.0, 1.0, 0.0, torch.nan, None):
        if found is not None:  # said of the next step only
            device.stepper.leave_out(torch.tensor(found))
        before = device.bits()
        device.table.take(*device.gradients)
        squares = sum(float(gradient.double().square().sum()) for gradient in device.gradients)
        assert float(device.stepper.squares()) == pytest.approx(squares)
        assert device.step(*[scalars_of(program)] * 3) == ALL
        if found:
            assert device.bits() == before
        else:
            host.step(*[scalars_of(program)] * 3)
    assert device.bits() == host.bits()


def test_a_number_of_the_device_is_read_at_every_step():
    program = compose(downslope.momentum)
    host, device = counting(program, ["float64"] * 3, (0.0, 0.0, 0.0))
    rate = torch.tensor(0.0)
    device.stepper.follow([(slice(0, 2), program.scalars.index("lr"), rate)])
    for lr in (0.5, 0.25):
        rate.fill_(lr)
        host.step(*[scalars_of(program, lr=each) for each in (lr, lr, 0.1)])
        device.step(*[scalars_of(program, lr=each) for each in (9.0, 9.0, 0.1)])
    assert device.bits() == host.bits()


# The launch


def test_a_slot_takes_the_row_of_its_group_and_one_without_a_gradient_stays_as_it_is():
    program = compose(downslope.adam)
    slots = Slots(program, ["float32"] * 4, (1030, 70, 4), rows=[1, 0, 1])
    rates = [scalars_of(program, lr=rate) for rate in (0.5, 0.25)]
    assert slots.step(*rates, gradients=[slots.gradients[0], slots.gradients[1], None]) == SOME
    for k, row in ((0, 1), (1, 0)):
        assert_bits(slots.after(k)["x"].numpy(), interpret(program, slots.before[k], rates[row])["x"])
    for name in ("x", "m", "v"):
        assert_bits(slots.after(2)[name].numpy(), slots.before[2][name])
    assert [float(tensors[-1]) for tensors in slots.held] == [1, 1, 0]


def test_what_has_moved_is_found_and_the_count_of_steps_goes_on():
    """Ten steps, each with another gradient at another place, end where the kernel of the CPU does."""

    @rule
    def counted(x, dx, m=0, product=scalar(1.0), *, t, lr=0.1, beta=0.9):
        m = beta * m + dx / t
        product = product * beta
        return x - lr * m / (1 - product), m, product

    program = compose(counted)
    runs = [Slots(program, ["float32"] * 3, (1500, 3), memory=memory) for memory in (True, False)]
    moved = [torch.from_numpy(hard_values(1503, np.float32, seed=k) % 3) for k in range(10)]
    for values in moved:
        for slots in runs:
            assert slots.step(scalars_of(program), gradients=[values[:1500].clone(), values[1500:].clone()]) == ALL
    assert runs[0].bits() == runs[1].bits()
    assert float(runs[0].held[0][-2]) == 10
    assert float(runs[0].held[0][-1]) == pytest.approx(0.9**10)


def test_views_that_begin_anywhere_and_weights_that_overlap_are_updated_one_after_the_other():
    program = compose(downslope.momentum)
    ends = []
    for memory in (DeviceMemory(HOST), None):
        x = torch.from_numpy(hard_values(5000, np.float32) % 2)
        gradients = [torch.from_numpy(hard_values(n, np.float32, seed=n) % 2) for n in (2500, 3000)]
        held = [[view, torch.zeros_like(view), torch.tensor(0.0)] for view in (x[1:2501], x[1999:4999])]
        table = SlotTable(describer(torch.device("cpu")), held, ["float32"] * 3, own_clocks=True)
        assert table.shared
        stepper = Stepper(program, "nearest", table, memory)
        stepper.group_rows([0, 0], [[0.0]])
        stepper.settle(0, [0.1, 0.9])
        assert stepper.step(*gradients, workers=1) == ALL
        ends.append(x.numpy())
    assert_bits(*ends)


def test_more_than_2_to_the_31_weights_are_counted():
    """A block of a slot that begins billions of weights before the memory that the block is to find."""
    program = compose(downslope.sgd)
    module, memory = triton_kernel.load(program, ["float32"] * 2), DeviceMemory(HOST)
    for first in (1 << 33, (1 << 32) - triton.BLOCK):
        for length, found in ((first + triton.BLOCK, triton.BLOCK), (first + 100, 100), (first, 0), (0, 0)):
            x, dx = torch.ones(triton.BLOCK), torch.full([triton.BLOCK], 0.5)
            row = [length, 0, x.data_ptr() - 4 * first, dx.data_ptr() - 4 * first]
            slots, blocks = (memory.hold(np.array(each)) for each in (row, [first // triton.BLOCK]))
            given = {"BLOCK_": triton.BLOCK, "FROM_": triton_kernel.TABLE}
            module.update[(1,)](blocks, slots, torch.tensor([0.5]), 0.0, **given)
            assert (x[:found] == 0.75).all()
            assert (x[found:] == 1.0).all()


def test_blocks_are_those_of_their_slots():
    found = triton.blocks([0, 1, 1024, 0, 2050, 0])
    assert (found >> 32).tolist() == [1, 2, 4, 4, 4]
    assert (found & 0xFFFFFFFF).tolist() == [0, 0, 0, 1, 2]


def test_a_formula_that_changes_nothing_changes_nothing():
    @rule
    def still(x, dx):
        return x

    slots = Slots(compose(still), ["float32"] * 2, (3, 1024))
    assert slots.step({}) == ALL
    for k, before in enumerate(slots.before):
        assert_bits(slots.after(k)["x"].numpy(), before["x"])


def test_what_a_kernel_cannot_store_is_refused():
    with pytest.raises(ValueError, match="storage 'int16' is not one of those for a GPU: float32, float64"):
        triton_kernel.kernel_source(compose(downslope.momentum), ["float32", "float32", "int16"])
    with pytest.raises(ValueError, match="rounding='stochastic' is for weights stored as bfloat16, not float32"):
        triton_kernel.kernel_source(compose(downslope.sgd), ["float32"] * 2, "stochastic")

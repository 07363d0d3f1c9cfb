"""States in eight bits on a GPU: kernels run by Triton's interpreter end, bit for bit, where those of the CPU do."""

import numpy as np
import pytest

import downslope
from downslope import rules
from downslope.backends.coded import codes_of
from downslope.backends.stepping import Stepper
from downslope.language.options import compose
from downslope.targets.codes import BLOCK, decode, encode
from downslope.testing import hard_values

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from downslope.backends.table import SlotTable  # noqa: E402
from downslope.backends.taking import ALL, SOME  # noqa: E402
from downslope.torch.describe import describer  # noqa: E402
from downslope.torch.device import DeviceMemory  # noqa: E402

RULES = {each.name: each for each in rules.RULES}
CODED = [name for name, each in RULES.items() if codes_of(compose(each))]
SIZES = (700, 256, 0, 5, 300)
BITS = {"float32": torch.int32, "bfloat16": torch.int16, "float16": torch.int16}


@pytest.fixture(autouse=True, scope="module")
def interpreter():
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        patch.setenv("TRITON_INTERPRET", "1")
        yield


def given(kind, size, seed):
    """Values of a slot of this size: some of everything, or nothing but zeros where there are 300."""
    random = np.random.default_rng(seed)
    values = (random.standard_normal(size) * 10.0 ** random.uniform(-7, 1, size)).astype(np.float32)
    if size == 700:
        values[:BLOCK] = hard_values(BLOCK, np.float32, seed=seed)
    if size == 300:
        values[:] = 0
    return np.abs(values) if kind == "uint8" else values


class Eight:
    """Tensors of several slots with states in eight bits, and what updates them: by a device's memory, or the CPU."""

    def __init__(self, program, *, memory, storage="float32", rounding="nearest", offset=0):
        self.program, kinds = program, codes_of(program)
        dtype = getattr(torch, storage)
        self.held, self.gradients = [], []
        for k, size in enumerate(SIZES):
            x, dx = (torch.from_numpy(given("", size, 10 * k + j)).to(dtype) for j in range(2))
            room = torch.empty(size + offset, dtype=dtype)
            room[offset:] = x
            arrays, scales = [room[offset:]], []
            for j, state in enumerate(program.states):
                values = given(kinds.get(state, "uint8"), size, 10 * k + 2 + j)
                if state in kinds:
                    codes, scale = encode(values, kinds[state])
                    arrays.append(torch.from_numpy(codes))
                    scales.append(torch.from_numpy(scale))
                else:
                    arrays.append(torch.from_numpy(values))
            if rounding == "compensated":
                arrays.append(torch.zeros(size, dtype=dtype))
            clocks = [torch.tensor(0.0), *(torch.tensor(v).double() for v in program.scalar_states.values())]
            self.held.append([*arrays, *scales, *clocks])
            self.gradients.append(dx)
        kept = [storage, storage, *(kinds.get(state, "float32") for state in program.states)]
        kept += [storage] * (rounding == "compensated") + ["float32"] * len(kinds)
        own = list(program.scalar_states.values())
        looked_at = describer(torch.device("cpu"))
        table = SlotTable(looked_at, self.held, kept, scales=len(kinds), scalars=len(own), own_clocks=True, seed=7)
        self.stepper = Stepper(program, rounding, table, DeviceMemory(torch.device("cpu")) if memory else None)
        self.stepper.group_rows([0] * len(SIZES), [[0.0, *own]])
        numbers = {name: value for name, value in program.hyperparameters.items() if value is not None}
        numbers = {"lr": 0.05, "grad_scale": 0.5, "averaging": 0.9, "weight_decay": 0.01, **numbers}
        self.stepper.settle(0, [numbers.get(name, 0.0) for name in program.scalars])

    def step(self, *, without=()):
        listed = [None if k in without else gradient for k, gradient in enumerate(self.gradients)]
        return self.stepper.step(*listed, workers=1)

    def bits(self):
        """All that is held, as whole numbers."""
        return [
            tensor.view(BITS.get(str(tensor.dtype).removeprefix("torch."), tensor.dtype)).numpy().copy()
            for tensors in self.held
            for tensor in tensors
        ]


def assert_alike(program, steps=2, **more):
    ours, due = (Eight(program, memory=memory, **more) for memory in (True, False))
    for _ in range(steps):
        assert ours.step() == due.step() == ALL
    before = Eight(program, memory=False, **more).bits()
    found, expected = ours.bits(), due.bits()
    for mine, yours in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, yours)
    assert sum((mine != old).sum() for mine, old in zip(found, before, strict=True)) > 1000
    return ours


@pytest.mark.parametrize("name", CODED)
def test_every_rule_ends_where_the_kernel_of_the_cpu_does(name):
    assert_alike(compose(RULES[name]), steps=1)


@pytest.mark.parametrize(
    ("storage", "rounding"), [("float16", "nearest"), ("bfloat16", "compensated"), ("bfloat16", "stochastic")]
)
def test_weights_in_half_precision_with_everything_around_the_formula(storage, rounding):
    program = compose(downslope.adam, averaging=True, cautious=True, max_norm=True, weight_decay=True, decoupled=True)
    assert_alike(program, storage=storage, rounding=rounding)


def test_weights_that_begin_at_no_multiple_of_16_bytes():
    assert_alike(compose(downslope.adam), offset=1)


def test_a_slot_without_a_gradient_stays_as_it_is():
    ours, before = (Eight(compose(downslope.adam), memory=True) for _ in range(2))
    assert ours.step(without=(0, 3)) == SOME
    width = len(ours.held[0])
    for k, (mine, old) in enumerate(zip(ours.bits(), before.bits(), strict=True)):
        if k // width in (0, 3):
            np.testing.assert_array_equal(mine, old)
    assert (ours.held[1][0] != before.held[1][0]).any()


def test_what_is_zero_stays_zero_and_what_is_no_number_shows_in_its_block():
    slots = Eight(compose(downslope.adam), memory=True)
    slots.gradients[1][9] = torch.nan
    slots.step()
    x, m, v, *scales = slots.held[1][:5]
    assert x.isnan().nonzero().flatten().tolist() == [9]
    for codes, scale in zip((m, v), scales, strict=True):
        assert np.isnan(decode(codes.numpy(), scale.numpy())).all()
    for codes, scale in zip(slots.held[4][1:3], slots.held[4][3:5], strict=True):
        assert not decode(codes.numpy(), scale.numpy()).any()


def test_a_state_that_becomes_a_number_of_its_group_becomes_it_everywhere():
    @downslope.rule
    def reset(x, dx, v=0, *, lr=0.5):
        return x - lr * dx * (1 + v), lr * lr

    slots = assert_alike(compose(reset), steps=1)
    codes, scales = slots.held[0][1:3]
    assert decode(codes.numpy(), scales.numpy()) == pytest.approx(0.25, rel=1 / 16)

"""Many processes train as one does: DistributedDataParallel, fully_shard, tensor parallelism, distributed checkpoints.

The gradients here are exact in whatever order they are added (see `Readout`), and kernels compute each weight by
itself, so many processes must give the very numbers of one, to the last bit.
"""

import re
from pathlib import Path

import numpy as np
import pytest

distributed = pytest.importorskip("torch.distributed")
if not (distributed.is_available() and distributed.is_gloo_available()):
    pytest.skip("this PyTorch has no gloo", allow_module_level=True)

import torch  # noqa: E402
import trainings  # noqa: E402
from processes import Groups  # noqa: E402

import downslope  # noqa: E402

pytestmark = pytest.mark.slow

STEPS = 4
CLIP = {"max_norm": 8.0}  # gradients are about 17 long on even steps and 2 on odd ones
# No state, one, three, an average, one number of a parameter: what a formula makes of them is no process's concern.
CASES = [
    ("SGD", {}, torch.float32),
    ("SGD", {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}, torch.float64),
    ("Adam", {"amsgrad": True}, torch.float32),
    ("AdamW", {"averaging": 0.9, "nonfinite": "skip"}, torch.float32),
    ("NAdam", {}, torch.float32),
]
CLIPPED = [
    ("SGD", {"momentum": 0.9, "nesterov": True, **CLIP}, torch.float64),
    ("AdamW", {"weight_decay": 0.1, "averaging": 0.9, **CLIP}, torch.float64),
]
WAYS = [(2, "ddp"), (4, "ddp, views"), (4, "fsdp"), (4, "hsdp")]


@pytest.fixture(scope="module")
def run_on():
    with Groups() as groups:
        yield groups.run_on


def assert_same(results, expected, tolerance=0.0):
    """Every process has, in each of the cases, what one process has."""
    for rank, result in enumerate(results):
        for k, (ours, theirs) in enumerate(zip(result, expected, strict=True)):
            assert ours.keys() == theirs.keys()
            for name, value in theirs.items():
                message = f"process {rank}, case {k}: {name}"
                np.testing.assert_allclose(ours[name], value, rtol=tolerance, atol=tolerance, err_msg=message)


@pytest.mark.parametrize(("world", "how"), WAYS)
def test_many_processes_train_as_one_does(run_on, world, how):
    """Where gradients are clipped, the norm is rounded once per process more, to 1e-16; a wrong one shows at once."""
    cases = [*CASES, *CLIPPED]
    expected = trainings.readouts("single", cases, STEPS)
    results = run_on(world, trainings.readouts, how, cases, STEPS)
    exact = len(CASES)
    assert_same([result[:exact] for result in results], expected[:exact])
    assert_same([result[exact:] for result in results], expected[exact:], 1e-13)


def test_the_clipping_compared_is_at_work():
    """Half of the gradients are longer than permitted: longer steps or shorter ones would be others."""
    plain, *others = trainings.readouts(
        "single", [("SGD", {"max_norm": norm}, torch.float64) for norm in (CLIP["max_norm"], 1.0, 100.0)], STEPS
    )
    for other in others:
        assert not np.allclose(plain["inner.weights.0"], other["inner.weights.0"], rtol=0.01)


@pytest.mark.parametrize(("world", "how"), [(2, "ddp"), (4, "fsdp")])
def test_a_network_trains_as_in_one_process(run_on, world, how):
    """Its gradients are rounded, to 1e-16 of their size, which training magnifies to far less than 1e-10 in 5 steps."""
    job = [("SGD", {"momentum": 0.9}), ("AdamW", {"max_norm": 0.1})], STEPS
    expected = trainings.networks("single", *job)
    assert_same(run_on(world, trainings.networks, how, *job), expected, 1e-10)


OVER_TENSORS = [
    ("normuon", {}, torch.float32),
    ("muon", {"averaging": 0.9, "polar_express": True}, torch.bfloat16),
    ("lamb", {"weight_decay": 0.1}, torch.float64),
    ("muon", {"nonfinite": "skip", **CLIP}, torch.float64),
]


def test_shares_of_matrices_go_where_the_whole_ones_go(run_on):
    """To the bit with Muon; what a kernel sums up, or the norm of all gradients, is rounded in another order."""
    expected = trainings.over_tensors("single", OVER_TENSORS, 3)
    results = run_on(4, trainings.over_tensors, "fsdp", OVER_TENSORS, 3)
    assert_same([result[:2] for result in results], expected[:2])
    assert_same([result[2:] for result in results], expected[2:], 1e-6)


@pytest.mark.parametrize(
    ("name", "world", "tolerance"),
    [("muon", 2, 0.0), ("normuon", 2, 0.0), ("normuon", 4, 0.0), ("adafactor", 4, 1e-12), ("adam_mini", 4, 1e-12)],
)
def test_matrices_divided_by_rows_and_columns_go_where_whole_ones_go(run_on, name, world, tolerance):
    expected = trainings.laid_out("single", name, 3)
    assert_same(run_on(world, trainings.laid_out, "mesh", name, 3), expected, tolerance)


@pytest.mark.parametrize(("name", "times"), [("muon", 1), ("lamb", 2)])
def test_matrices_of_one_shape_are_gathered_at_once_and_not_again(run_on, name, times):
    """Muon's before it is divided by its norm, LAMB's weights and step."""
    assert run_on(2, trainings.gathered, name) == [times, times]


@pytest.mark.parametrize("name", ["muon", "lamb"])
def test_processes_that_disagree_on_who_has_a_gradient_are_all_told(run_on, name):
    """A process that gathered another matrix than the others would mix two of them, or wait for ever."""
    for said, steps, same in run_on(2, trainings.disagreeing, name):
        for text, parameter in zip(said, ("first", "first", "second"), strict=False):
            assert f"parameter {parameter} has a gradient on 1 of the 2 processes that share it" in text
        assert said[3:] == ["", ""]
        assert steps == [0, 1]
        assert same


def test_shares_that_cannot_be_made_whole_are_refused_with_the_reason(run_on):
    for said in run_on(2, trainings.refused_shards):
        assert "number 0 is shared out over processes" in said
        assert "it is divided into pieces, which may begin in one share and end in another" in said


AHEAD = [
    ("nesterov", {}),
    ("schedule_free_adamw", {"averaging": 0.9}),
    ("adam", {"averaging": 0.9, **CLIP}),
    ("lion", {"cautious": True}),
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
@pytest.mark.parametrize("kernels", ["", "interpreted"])
def test_points_ahead_and_kernels_of_a_gpu_are_sharded(run_on, kernels):
    """The norm is exact too, so that whoever sums it gets the same; on two processes all but one weight are shared."""
    if kernels:
        pytest.importorskip("triton")
    expected = trainings.looking_ahead("single", AHEAD, 4, kernels)
    assert_same(run_on(2, trainings.looking_ahead, "fsdp", AHEAD, 4, kernels), expected)
    assert {"launches: OnDevice" if kernels else "launches: OnHost"} < set.intersection(*map(set, expected))


def test_the_quick_step_of_shards_is_the_plain_step(run_on):
    """Whatever becomes of parameters, states and gradients between two steps."""
    quick, plain = (run_on(2, trainings.changed_between_steps, quickly) for quickly in (True, False))
    assert_same([[end] for end, _ in quick], [plain[0][0]])
    assert all(count == 0 for _, count in plain)
    assert all(count >= 10 for _, count in quick), quick


def test_processes_without_any_weights_take_part(run_on):
    """Of four processes two hold nothing, but the norm and the verdict on non-finite gradients are everybody's."""
    cases = [("SGD", {"max_norm": 0.5, "nonfinite": "skip"}, torch.float64)]
    expected = trainings.readouts("single", cases, STEPS, trainings.FEW)
    assert_same(run_on(4, trainings.readouts, "fsdp", cases, STEPS, trainings.FEW), expected, 1e-13)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_the_layouts_of_tensor_parallelism(run_on, name):
    """A weight counts once in the norm, however many processes hold copies, and addends are added before squaring."""
    job = name, {"max_norm": 20.0}, STEPS
    expected, norms = trainings.placed("single", *job)
    assert min(norms) < 20.0 < max(norms)
    results = [[weights] for weights, _ in run_on(4, trainings.placed, "mesh", *job)]
    assert_same(results, [expected], 1e-13)


@pytest.mark.parametrize(("world", "how"), [(4, "fsdp"), (4, "hsdp"), (2, "ddp")])
def test_all_processes_skip_a_step_that_is_bad_on_one(run_on, world, how):
    job = "AdamW", {"averaging": 0.9, "nonfinite": "skip"}, STEPS, 2
    *_, expected = trainings.poisoned("single", *job)
    assert all(np.isfinite(value).all() for value in expected.values())
    results = run_on(world, trainings.poisoned, how, *job)
    holders = {"fsdp": [True, False, False, False], "hsdp": [True, False, True, False], "ddp": [True, True]}
    assert [seen for seen, *_ in results] == holders[how]
    for _, error, before, after, end in results:
        assert error is None
        assert_same([[after]], [before])
        assert_same([[end]], [expected])


@pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
def test_all_devices_leave_out_a_step_that_is_bad_on_one(run_on):
    """A GPU decides by itself, but for the one number that goes between them."""
    pytest.importorskip("triton")
    options = {"averaging": 0.9, "nonfinite": "skip", "capturable": True}
    job = "AdamW", options, 4, 2
    *_, expected = trainings.poisoned("single", *job, "interpreted")
    assert {float(value) for name, value in expected.items() if name.endswith("step")} == {3.0}
    results = run_on(2, trainings.poisoned, "fsdp", *job, "interpreted")
    assert [seen for seen, *_ in results] == [True, False]
    for _, error, before, after, end in results:
        assert error is None
        assert_same([[after]], [before])
        assert_same([[end]], [expected])


@pytest.mark.parametrize(("world", "how"), [(4, "fsdp"), (2, "ddp")])
def test_all_processes_raise_where_one_has_a_bad_gradient(run_on, world, how):
    """And go on together afterwards."""
    job = "AdamW", {"averaging": 0.9, "nonfinite": "raise"}, STEPS, 2
    *_, expected = trainings.poisoned("single", *job)
    for seen, error, before, after, end in run_on(world, trainings.poisoned, how, *job):
        assert error is not None
        assert ("another process" in error) is not seen
        assert_same([[after]], [before])
        assert_same([[end]], [expected])


@pytest.mark.parametrize(("world", "how"), [(2, "ddp"), (4, "hsdp")])
def test_copies_are_rounded_alike_at_random(run_on, world, how):
    """Stochastic rounding draws the same numbers wherever a copy of a weight is held."""
    cases = [("AdamW", {"rounding": "stochastic", "seed": 7}, torch.bfloat16)]
    results = run_on(world, trainings.readouts, how, cases, STEPS)
    assert_same(results, results[0])


RESUMED = [
    ("SGD", {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}, torch.float64),
    ("AdamW", {"averaging": 0.9, "nonfinite": "skip"}, torch.float32),
    ("NAdam", {}, torch.float32),
    ("Adagrad", {"lr_decay": 0.1}, torch.float64),
    ("AdamW", {"averaging": 0.9, "rounding": "compensated"}, torch.bfloat16),
    ("AdamW", {"state_dtype": torch.bfloat16}, torch.float32),
]


@pytest.mark.parametrize(
    ("cases", "flat", "ways"),
    [(RESUMED[::2], False, [(2, "fsdp"), (1, "single")]), (RESUMED[1::2], True, [(4, "hsdp"), (2, "ddp")])],
    ids=["nested", "flat"],
)
def test_a_checkpoint_of_four_processes_resumes_on_any_number(run_on, tmp_path, cases, flat, ways):
    expected = trainings.readouts("single", cases, 6)
    job = cases, flat, tmp_path / "checkpoint", 3, 6
    assert_same(run_on(4, trainings.saved, "fsdp", *job), expected)
    for world, how in ways:
        assert_same(run_on(world, trainings.resumed, how, *job), expected)


def test_a_checkpoint_of_one_process_resumes_on_four(run_on, tmp_path):
    job = RESUMED[1::2], False, tmp_path / "checkpoint", 3, 6
    [expected] = run_on(1, trainings.saved, "single", *job)
    assert_same(run_on(4, trainings.resumed, "fsdp", *job), expected)


def test_states_gathered_on_one_process_go_back_to_all(run_on):
    expected = trainings.readouts("single", RESUMED[::2], 6)
    assert_same(run_on(4, trainings.handed_over, "fsdp", RESUMED[::2], 3, 6), expected)


EXAMPLE = Path(__file__).parents[2] / "examples" / "torch_fsdp.py"


def test_the_example(run_on, tmp_path):
    printed, nothing = run_on(2, trainings.example, EXAMPLE, tmp_path / "checkpoints")
    [loss] = re.findall(r"2 processes, steps 0 to 200: loss (.*)", printed)
    assert (float(loss) < 0.1, nothing) == (True, "")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000200"]


@pytest.mark.parametrize(
    ("options", "refused"), [({"max_norm": 1.0}, True), ({"nonfinite": "skip"}, True), ({"averaging": 0.9}, False)]
)
def test_what_needs_all_gradients_is_refused_where_a_process_has_its_share(run_on, options, refused):
    """Each process would clip by the norm of its own part, and skip steps that the others take."""
    for said in run_on(2, trainings.sharing, options):
        assert ("clip_grad_norm_" in said) == refused, said


def test_sums_over_all_tensors_are_refused_where_a_process_has_its_share(run_on):
    for said in run_on(2, trainings.sharing, {}, downslope.prodigy):
        assert "prodigy sums up all tensors of a group, which needs all gradients" in said

"""What a training of one's own is handed: what it takes, what it refuses, and the run that comes of it."""

import logging
import math
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import downslope
import downslope.optax
import downslope.torch
from downslope.lab.engines import own_engine
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.own_engine import OwnEngine
from downslope.lab.engines.own_run import OwnRun
from downslope.lab.engines.protocol import Entry
from downslope.training.settings import Settings

SGD = Entrant.of("sgd", downslope.sgd, {})


def run_of(entrant=SGD, lr=0.1, seed=0, **limits):
    return OwnRun(Entry("sgd", lr, seed), entrant, **limits)


def one(train, entrant=SGD, lr=0.1, seed=0, **options):
    """The run that a training makes."""
    return OwnEngine(train, {"sgd": entrant}, **options).run(Entry("sgd", lr, seed))


def reporting(*losses):
    """A training that takes no step, and reports these losses after 0, 1, 2 ... steps, whatever it is told."""

    def train(run):
        for step, loss in enumerate(losses):
            run.report(step, loss)

    return train


def test_a_run_is_over_when_its_steps_are_taken_and_what_comes_later_does_not_count():
    run = run_of(steps=3)
    assert [run.report(step, 1 / (1 + step)) for step in range(5)] == [True, True, True, False, False]
    assert run.finished().steps == (0, 1, 2, 3)
    assert run.finished().final_loss == 0.25


@pytest.mark.parametrize(
    "value", [np.float32(0.5), np.array([[0.5]]), torch.tensor([0.5], requires_grad=True), jnp.ones(()) / 2]
)
def test_losses_of_every_framework_are_taken(value):
    assert one(reporting(1, value)).valid_loss == (1.0, 0.5)


@pytest.mark.parametrize(
    ("losses", "kept", "step"),
    [
        ((1.0, 2.0, math.nan, 0.1), (1.0, 2.0, math.inf), 2),
        ((1.0, math.inf), (1.0, math.inf), 1),
        ((2.0, 2001.0, 0.1), (2.0, math.inf), 1),
    ],
)
def test_divergence_is_infinite_and_final(losses, kept, step):
    run = one(reporting(*losses))
    assert (run.valid_loss, run.diverged_at, run.cause) == (kept, step, "")
    assert run.final_loss == math.inf


def test_a_loss_that_is_not_finite_before_the_first_step_is_no_rules_fault():
    run = one(reporting(math.nan, 1.0))
    assert (run.valid_loss, run.cause) == ((math.inf,), "reported a loss of nan before its first step")


def test_a_loss_of_two_thousand_times_zero_is_no_divergence():
    assert one(reporting(0.0, 1.0)).diverged_at is None


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (lambda run: run.report(1, -0.5), "loss=-0.5 is negative"),
        (lambda run: run.report(0, 0.5), "step=0 is not after 0"),
        (lambda run: run.report(1.5, 0.5), "step=1.5 is no number of steps"),
        (lambda run: run.report(-1, 0.5), "step=-1 is no number of steps"),
        (lambda run: run.report(True, 0.5), "step=True is no number"),
        (lambda run: run.report(1, np.ones(3)), "is no single number; give its mean"),
        (lambda run: run.report(1, "low"), "loss='low' is no single number"),
        (lambda run: run.report(1, 0.5, 98.0), "accuracy=98 is no share"),
        (lambda run: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda run: run.optimizer({"W": "weights"}), "for parameters of PyTorch, variables of Keras"),
        (lambda run: run.optimizer([torch.zeros(1), np.zeros(1)]), "found Tensor, ndarray"),
    ],
)
def test_what_goes_wrong_is_the_cause_of_a_failure(report, said):
    def train(run):
        run.report(0, 1.0, 0.25)
        report(run)

    run = one(train)
    assert said in run.cause
    assert (run.steps, run.valid_loss, run.valid_accuracy) == ((0, 1), (1.0, math.inf), (0.25, 0.0))
    assert run.diverged_at == 1


def test_a_wrong_report_that_the_training_swallows_is_a_failure_all_the_same():
    def train(run):
        run.report(0, 1.0)
        try:
            run.report(0, 0.9)
        except ValueError:
            run.report(1, 0.1)

    assert "not after 0" in one(train).cause


@pytest.mark.parametrize("losses", [(), (1.0,)])
def test_a_training_that_reports_no_loss_after_a_step_failed(losses):
    run = one(reporting(*losses))
    assert run.cause == "reported no loss after a step"
    assert run.final_loss == math.inf


def hang(run):
    run.report(0, 1.0)
    while True:
        pass


def wait(run):
    import time

    run.report(0, 1.0)
    try:
        time.sleep(60)
    except Exception:
        time.sleep(60)


def swallow(run):
    run.report(0, 1.0)
    try:
        while True:
            pass
    except BaseException:
        while True:
            pass


def go_on(run):
    step = 0
    while run.report(step, 1.0):
        step += 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it may ring while JAX collects garbage
@pytest.mark.parametrize("train", [hang, wait, swallow, go_on])
def test_a_run_that_hangs_is_stopped(train):
    assert one(train, limit=0.05).cause == "took longer than its limit of 0.05 seconds"


def test_what_a_run_prints_is_held_back_and_told_when_it_fails(capsys):
    def train(run):
        print("epoch 1: all is well")
        raise SystemExit(3)

    assert one(train).cause == "SystemExit: 3 (it printed last: epoch 1: all is well)"
    assert capsys.readouterr().out == ""
    assert "printed" not in one(train, quiet=False).cause
    assert "all is well" in capsys.readouterr().out


def test_what_a_run_logs_on_the_terminal_is_held_back_and_what_it_logs_in_a_file_is_not(capsys, tmp_path):
    logger, kept = logging.getLogger("a framework"), tmp_path / "kept.log"
    handlers = [logging.StreamHandler(), logging.StreamHandler(sys.stdout), logging.FileHandler(kept)]
    for handler in handlers:
        logger.addHandler(handler)

    def train(run):
        logger.warning("one callback more")
        raise ValueError("no loss")

    try:
        assert one(train).cause.endswith("(it printed last: one callback more one callback more)")
        assert capsys.readouterr() == ("", "")
        logger.warning("all as before")
        assert capsys.readouterr() == ("all as before\n", "all as before\n")
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
    assert kept.read_text() == "one callback more\nall as before\n"


def test_a_handler_made_in_a_run_logs_on_the_terminal_after_it_and_one_that_finds_its_stream_itself_is_left(capsys):
    class Finds(logging.StreamHandler):
        stream = property(lambda self: sys.stderr)

        def __init__(self):
            logging.Handler.__init__(self)

    logger, finds, made = logging.getLogger("another framework"), Finds(), []

    def train(run):
        if not made:
            made.append(logging.StreamHandler())
            logger.addHandler(made[0])
        logger.warning("one callback more")
        raise ValueError("no loss")

    logger.addHandler(finds)
    try:
        for _ in range(2):
            assert one(train).cause.endswith("(it printed last: one callback more one callback more)")
        assert capsys.readouterr() == ("", "")
        logger.warning("all as before")
        assert capsys.readouterr() == ("", "all as before\nall as before\n")
    finally:
        for handler in (finds, *made):
            logger.removeHandler(handler)


def test_generators_are_set_by_the_seed_and_set_back():
    def train(run):
        for step in range(2):
            run.report(step, float(torch.rand(()) + np.random.rand()))  # noqa: NPY002 - what trainings draw from

    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = one(train), one(train), one(train, seed=1)
    assert first == again
    assert first.valid_loss != other.valid_loss
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpys).all()  # noqa: NPY002


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        (torch.nn.Linear(2, 1), downslope.torch.Optimizer),
        (torch.nn.Linear(2, 1).parameters(), downslope.torch.Optimizer),
        (torch.nn.Linear(2, 1).named_parameters(), downslope.torch.Optimizer),
        ([{"params": torch.nn.Linear(2, 1).parameters(), "lr": 0.3}], downslope.torch.Optimizer),
        ({"W": np.ones(2, np.float32)}, downslope.Optimizer),
        ([{"params": {"W": np.ones(2, np.float32)}, "lr": 0.3}], downslope.Optimizer),
        ({"W": jnp.ones(2), "b": {"c": jnp.ones(1)}}, downslope.optax.transformation.Transformation),
    ],
)
def test_the_optimizer_is_of_the_framework_of_the_parameters(params, kind):
    assert type(run_of().optimizer(params)) is kind


def test_a_loss_is_taken_at_the_weights_whatever_the_framework():
    run = run_of(Entrant.of("nesterov", downslope.nesterov, {"mu": 0.5}))
    tensor, array, tree = torch.nn.Parameter(torch.ones(1)), np.ones(1), jnp.ones(1)
    tensor.grad = torch.tensor([2.0])
    run.optimizer([tensor]).step()
    run.optimizer(array).step(np.array([2.0]))
    transformation = run.optimizer(tree)
    updates, state = transformation.update(jnp.array([2.0]), transformation.init(tree))
    tree = tree + updates
    assert (tensor.item(), array.item(), tree.item()) == pytest.approx((0.7, 0.7, 0.7))
    with run.at_weights():
        assert (tensor.item(), array.item(), run.weights(tree, state).item()) == pytest.approx((0.8, 0.8, 0.8))
    assert (tensor.item(), array.item()) == pytest.approx((0.7, 0.7))
    assert run_of().weights(tree, None) is tree
    run.optimizer(tree)
    with pytest.raises(ValueError, match="the run has made 2 transformations"):
        run.weights(tree, state)


def test_an_optimizer_has_all_that_the_rule_was_given():
    numbers = {"beta1": 0.8, "beta2": 0.99, "eps": 1e-6, "weight_decay": 0.1}
    entrant = Entrant(Settings.of(downslope.adam, {}, ("weight_decay", "decoupled")), numbers)
    run = run_of(entrant, lr=0.02)
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    theirs = torch.nn.Parameter(weight.detach().clone())
    pairs = (
        (run.optimizer([weight]), weight),
        (torch.optim.AdamW([theirs], lr=0.02, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1), theirs),
    )
    for optimizer, parameter in pairs:
        for step in range(5):
            parameter.grad = torch.tensor([0.3, -0.1]) * (step - 2)
            optimizer.step()
    assert torch.allclose(weight, theirs, rtol=1e-6)
    assert run.settings == {**numbers, "bias_correction": True, "decoupled": True, "lr": 0.02}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps=0"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"limit": 0}, "limit=0"),
        ({"limit": "5"}, "limit='5'"),
    ],
)
def test_limits_that_are_none_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        OwnEngine(reporting(1.0), {"sgd": SGD}, **options)


def test_losses_are_heard_while_a_run_goes_on_and_what_the_listener_raises_is_no_fault_of_the_run(monkeypatch):
    monkeypatch.setattr(own_engine, "HEARD", 0.0)
    engine, heard = OwnEngine(reporting(4.0, 3.0, 2.0), {"sgd": SGD}), []
    entry = Entry("sgd", 0.1, 0)
    engine.listen(lambda progress: heard.extend(progress.heard))
    run = engine.run(entry)
    assert heard == [(entry, step, loss) for step, loss in zip(run.times, run.valid_loss, strict=True)]

    def broken(progress):
        raise LookupError("mine")

    engine.listen(broken)
    with pytest.raises(LookupError, match="mine"):
        engine.run(entry)
    engine.listen(lambda progress: None)
    assert engine.run(entry) == run

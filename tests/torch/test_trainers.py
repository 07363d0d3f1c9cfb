"""downslope's optimizers where people train: a plain loop, Lightning, Hugging Face's Trainer and accelerate.

How near do two trainings have to end? `torch.optim` trains in single and in double precision; their distance is how
far the roundings of single precision carry this training. downslope makes no more of them, so it ends about as far from
the training in double precision, and at most about twice that from the one in single precision; four times leaves
room, as one distance is one draw. This must be less than a thousandth of the way that the weights go.

A training that is saved, loaded and continued ends at the very bits of the uninterrupted one.
"""

import copy
import functools
import re
import runpy
import tomllib
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import downslope
import downslope.torch

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.usefixtures("quiet_and_alone")

SETTINGS = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "Adagrad": {"lr": 0.05},
    "RMSprop": {"lr": 0.01, "momentum": 0.5},
    "Adam": {"lr": 0.01, "weight_decay": 0.01},
    "AdamW": {"lr": 0.01, "weight_decay": 0.1},
    "NAdam": {"lr": 0.01},
    "Adamax": {"lr": 0.01},
    "Adadelta": {"lr": 1.0},
    "RAdam": {"lr": 0.01},
}
OWN_RULES = {
    "schedule-free": {"rule": downslope.schedule_free_adamw, "lr": 0.05},
    "a rule": {"rule": downslope.sgd, "lr": 0.1},
    "a rule with a look-ahead": {"rule": downslope.nesterov, "lr": 0.02, "mu": 0.8},
}
COMPARED = ("SGD", "AdamW", "a rule")
RESUMED = ("SGD", "Adagrad", "NAdam", "a rule with a look-ahead")
RESUMED_BY_OTHERS = ("NAdam", "a rule with a look-ahead")  # with a state that is one number, and with a point ahead
EPOCHS = 4


def ours(name, **options):
    """downslope's class with its settings, to be called with the parameters."""
    if name in OWN_RULES:
        return functools.partial(downslope.torch.Optimizer, **OWN_RULES[name], **options)
    return functools.partial(getattr(downslope.torch, name), **SETTINGS[name], **options)


def theirs(name):
    """PyTorch's class with the same settings."""
    if name == "a rule":
        return functools.partial(torch.optim.SGD, lr=OWN_RULES[name]["lr"])
    return functools.partial(getattr(torch.optim, name), **SETTINGS[name])


def parameters_of(model):
    """All weights, as one vector of doubles."""
    return torch.cat([parameter.detach().double().flatten() for parameter in model.parameters()])


def assert_trained_alike(train, name, **options):
    """Hold `train(make_optimizer, dtype)`, the weights before and after, to the bound above."""
    start, end = train(theirs(name), torch.float32)
    allowed = 4 * (end - train(theirs(name), torch.float64)[1]).abs().max()
    assert allowed < (end - start).abs().max() / 1000
    assert (end - train(ours(name, **options), torch.float32)[1]).abs().max() <= allowed


def regression(dtype):
    """Sixty-four points of a smooth function of four variables."""
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    return TensorDataset(inputs.to(dtype), torch.sin(inputs.sum(1, keepdim=True)).to(dtype))


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)).to(dtype)


def ending(model, optimizer):
    """The last weights and their average."""
    last = parameters_of(model)
    with optimizer.at_average():
        average = parameters_of(model)
    assert not torch.equal(last, average)
    return torch.stack([last, average])


def run_example(name, capsys):
    """The last line that an example prints."""
    with torch.random.fork_rng():
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out.splitlines()[-1]


class TestPlainLoop:
    @staticmethod
    def train(make, dtype, clip=True):
        model, data = network(dtype), DataLoader(regression(dtype), batch_size=8)
        start, optimizer = parameters_of(model), make(model.parameters())
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=2 * optimizer.param_groups[0]["lr"], total_steps=EPOCHS * len(data), cycle_momentum=False
        )
        clipped = 0
        for _ in range(EPOCHS):
            for inputs, targets in data:
                optimizer.zero_grad()
                nn.functional.mse_loss(model(inputs), targets).backward()
                if clip:
                    clipped += nn.utils.clip_grad_norm_(model.parameters(), 0.5).item() > 0.5
                optimizer.step()
                scheduler.step()
        assert clipped > len(data) or not clip
        return start, parameters_of(model)

    @pytest.mark.parametrize("name", [*SETTINGS, "a rule"])
    def test_it_ends_where_torch_does(self, name):
        assert_trained_alike(self.train, name)

    @pytest.mark.parametrize("name", COMPARED)
    def test_clipping_in_the_step_is_clipping_before_it(self, name):
        def train(make, dtype):
            return self.train(make, dtype, clip="max_norm" not in make.keywords)

        assert_trained_alike(train, name, max_norm=0.5)

    @pytest.mark.parametrize("name", RESUMED)
    def test_it_resumes(self, name, tmp_path):
        """From a file that holds nothing but tensors, numbers and strings."""
        data = list(DataLoader(regression(torch.float32), batch_size=8))

        def begin():
            model = network()
            optimizer = ours(name, averaging=0.9, max_norm=0.5)(model.parameters())
            return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.8)

        def go_on(model, optimizer, scheduler, batches):
            for inputs, targets in batches:
                optimizer.zero_grad()
                nn.functional.mse_loss(model(inputs), targets).backward()
                optimizer.step()
                scheduler.step()

        whole = begin()
        go_on(*whole, data[:5])
        torch.save([part.state_dict() for part in whole], tmp_path / "half.pt")
        go_on(*whole, data[5:])

        resumed = begin()
        for part, state in zip(resumed, torch.load(tmp_path / "half.pt", weights_only=True), strict=True):
            part.load_state_dict(state)
        go_on(*resumed, data[5:])
        assert torch.equal(ending(*resumed[:2]), ending(*whole[:2]))

    @pytest.mark.slow
    def test_the_example(self, capsys):
        last, average = map(float, re.findall(r"([\d.]+)%", run_example("torch_loop", capsys)))
        assert last > 95
        assert average > 98


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
class TestLightning:
    @pytest.fixture(autouse=True)
    def installed(self, quiet_and_alone):
        self.lightning = pytest.importorskip("pytorch_lightning")

    def module(self, make, dtype=torch.float32, manual=False):
        """A module whose optimizer and scheduler Lightning steps with a closure, or with `manual` the module itself."""

        class Module(self.lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.network = network(dtype)
                self.automatic_optimization = not manual
                self.stepped = 0

            def training_step(self, batch, batch_idx):
                inputs, targets = batch
                loss = nn.functional.mse_loss(self.network(inputs), targets)
                if manual:
                    optimizer = self.optimizers()
                    optimizer.zero_grad()
                    self.manual_backward(loss)
                    self.clip_gradients(optimizer, gradient_clip_val=0.5, gradient_clip_algorithm="norm")
                    optimizer.step()
                    self.lr_schedulers().step()
                return loss

            def on_before_optimizer_step(self, optimizer):
                assert all(parameter.grad is not None for parameter in self.parameters())
                self.stepped += 1

            def configure_optimizers(self):
                optimizer = make(self.parameters())
                scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.8)
                return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

        return Module()

    @pytest.fixture
    def entry_points(self, monkeypatch, tmp_path_factory):
        """The package's entry points, as an installation writes them, where an older one may lack them."""
        declared = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text())["project"]["entry-points"]
        lines = [line for group, names in declared.items() for line in (f"[{group}]", *map(" = ".join, names.items()))]
        installed = tmp_path_factory.mktemp("installed")
        folder = installed / f"downslope-{downslope.__version__}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: downslope\nVersion: {downslope.__version__}\n")
        (folder / "entry_points.txt").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(installed)

    def watched(self, name, tmp_path, epochs=EPOCHS, resume=None, callbacks=()):
        """A training with validation, a checkpoint each epoch and after ten steps, and what a callback saw."""
        seen = []

        class Watch(self.lightning.Callback):
            def on_validation_end(self, trainer, module):
                with trainer.optimizers[0].at_weights():
                    seen.append((trainer.callback_metrics["loss"].item(), parameters_of(module)))

        def validation_step(batch, batch_idx):
            module.log("loss", nn.functional.mse_loss(module.network(batch[0]), batch[1]))

        module = self.module(ours(name))
        module.validation_step = validation_step
        save = functools.partial(self.lightning.callbacks.ModelCheckpoint, tmp_path, save_top_k=-1)
        stopping = self.lightning.callbacks.EarlyStopping("loss", patience=1, min_delta=1.0)
        trainer = self.lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=1,
            callbacks=[
                *callbacks,
                Watch(),
                save(filename="{epoch}"),
                save(filename="{step}", every_n_train_steps=10),
                *([stopping] if epochs > EPOCHS else []),
            ],
        )
        loaders = [DataLoader(regression(torch.float32), batch_size=size) for size in (8, 64)]
        trainer.fit(module, *loaders, ckpt_path=resume, weights_only=True)
        return trainer, module, seen[1 if resume is None else 0 :]

    @pytest.mark.usefixtures("entry_points")
    @pytest.mark.parametrize("name", ["a rule with a look-ahead", "schedule-free"])
    def test_it_evaluates_and_saves_the_weights_themselves(self, name, tmp_path):
        trainer, module, seen = self.watched(name, tmp_path)
        data = regression(torch.float32).tensors
        other = self.module(ours(name))
        assert len(seen) == EPOCHS
        for epoch, (loss, weights) in enumerate(seen):
            saved = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=True)["state_dict"]
            other.load_state_dict(saved)
            assert torch.equal(parameters_of(other), weights)
            assert nn.functional.mse_loss(other.network(data[0]), data[1]).item() == pytest.approx(loss, rel=1e-5)
        assert torch.equal(parameters_of(module), seen[-1][1])
        optimizer = trainer.optimizers[0]
        optimizer.train()
        assert (parameters_of(module) - seen[-1][1]).abs().max() > 1e-4

        other, resumed = network(), ours(name)
        state = torch.load(tmp_path / "step=10.ckpt", weights_only=True)
        other.load_state_dict({key.removeprefix("network."): value for key, value in state["state_dict"].items()})
        resumed = resumed(other.parameters())
        resumed.load_state_dict(state["optimizer_states"][0])
        with resumed.at_weights():
            assert torch.equal(
                parameters_of(other), torch.cat([v.double().flatten() for v in state["state_dict"].values()])
            )

    @pytest.mark.usefixtures("entry_points")
    @pytest.mark.filterwarnings("ignore:The dirpath has changed")
    def test_it_resumes_at_the_weights_bit_for_bit(self, tmp_path):
        _, whole, seen = self.watched("schedule-free", tmp_path / "whole")
        resume = tmp_path / "whole" / "epoch=1.ckpt"
        _, resumed, later = self.watched("schedule-free", tmp_path / "resumed", resume=resume)
        assert torch.equal(parameters_of(resumed), parameters_of(whole))
        assert later[-1][0] == seen[-1][0]

    @pytest.mark.usefixtures("entry_points")
    def test_early_stopping_leaves_the_weights(self, tmp_path):
        trainer, module, seen = self.watched("schedule-free", tmp_path, epochs=50)
        assert trainer.current_epoch < 10
        assert torch.equal(parameters_of(module), seen[-1][1])

    @pytest.mark.usefixtures("entry_points")
    @pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
    def test_averages_are_of_the_weights(self, tmp_path):
        swa = self.lightning.callbacks.StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2, device=None)
        _, module, seen = self.watched("schedule-free", tmp_path, callbacks=[swa])
        mean = torch.stack([weights for _, weights in seen[0:3]]).mean(0)
        torch.testing.assert_close(parameters_of(module), mean, rtol=1e-6, atol=1e-7)

    @pytest.mark.usefixtures("entry_points")
    def test_other_optimizers_see_nothing_of_it(self, tmp_path):
        trainer, module, seen = self.watched("AdamW", tmp_path)
        assert torch.equal(parameters_of(module), seen[-1][1])
        assert "placed_by" not in trainer.optimizers[0].param_groups[0]

    def fit(self, module, dtype=torch.float32, epochs=EPOCHS, resume=None, **settings):
        trainer = self.lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            devices=1,
            gradient_clip_val=0.5 if module.automatic_optimization else None,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **settings,
        )
        trainer.fit(module, DataLoader(regression(dtype), batch_size=8), ckpt_path=resume, weights_only=True)
        return trainer

    @pytest.mark.parametrize(
        ("name", "manual"), [("AdamW", False), ("a rule", False), ("AdamW", True)], ids=["AdamW", "a rule", "manual"]
    )
    def test_it_ends_where_it_does_with_torch(self, name, manual):
        def train(make, dtype):
            module = self.module(make, dtype, manual)
            start = parameters_of(module)
            self.fit(module, dtype)
            assert module.stepped == EPOCHS * 8
            return start, parameters_of(module)

        assert_trained_alike(train, name)

    def test_it_clips_in_mixed_precision(self):
        """One step with a network in bfloat16, from equal gradients: only the optimizer's own roundings can differ."""
        ends = []
        for make in (ours("AdamW"), theirs("AdamW")):
            module = self.module(make)
            self.fit(module, precision="bf16-mixed", limit_train_batches=1, epochs=1)
            ends.append(parameters_of(module))
        torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("name", RESUMED_BY_OTHERS)
    def test_it_resumes_from_its_checkpoint(self, name, tmp_path):
        whole = self.module(ours(name, averaging=0.9))
        optimizer = self.fit(whole).optimizers[0]

        half = self.module(ours(name, averaging=0.9))
        self.fit(half, epochs=EPOCHS // 2).save_checkpoint(tmp_path / "half.ckpt")
        resumed = self.module(ours(name, averaging=0.9))
        trainer = self.fit(resumed, resume=tmp_path / "half.ckpt")
        assert torch.equal(ending(resumed, trainer.optimizers[0]), ending(whole, optimizer))

    def test_the_wrapper_knows_where_the_parameters_are(self):
        """Lightning's wrapper runs the methods of the class on itself; what they note must reach the optimizer."""
        model = network()
        optimizer = ours("AdamW", averaging=0.9)(model.parameters())
        wrapper = self.lightning.core.optimizer.LightningOptimizer(optimizer)
        assert isinstance(wrapper, downslope.torch.AdamW)
        model(torch.ones(1, 4)).backward()
        optimizer.step()
        assert torch.equal(ending(model, wrapper), ending(model, optimizer))
        with wrapper.at_average(), pytest.raises(RuntimeError, match="at_average"):
            optimizer.step()
        optimizer.step()

    def test_the_example(self, capsys):
        last, average = map(float, re.findall(r"([\d.]+)%", run_example("lightning_trainer", capsys)))
        assert last > 95
        assert average > 98


@pytest.mark.slow
class TestHuggingFaceTrainer:
    @pytest.fixture(autouse=True)
    def installed(self, quiet_and_alone):
        pytest.importorskip("accelerate")
        self.transformers = pytest.importorskip("transformers")

    def model(self, dtype=torch.float32, dropout=0.0):
        """A Llama of two layers of width 8.

        It has no biases. Those of GPT-2's keys do not influence the loss: their gradients are roundings alone, which
        adaptive rules turn into steps of full length, and no two trainings in single precision agree about them.
        """
        torch.manual_seed(0)
        config = self.transformers.LlamaConfig(
            vocab_size=11,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=8,
            attention_dropout=dropout,
        )
        return self.transformers.LlamaForCausalLM(config).to(dtype)

    def fit(self, model, make, directory, resume=None, **settings):
        """Train with the class and the settings of `make`, which Trainer puts into groups with and without decay."""
        sequences = [(start + stride * torch.arange(8)) % 11 for stride in (1, 2, 3) for start in range(11)]
        arguments = self.transformers.TrainingArguments(
            str(directory),
            num_train_epochs=3,
            per_device_train_batch_size=6,
            lr_scheduler_type="linear",
            warmup_steps=3,
            weight_decay=0.1,
            max_grad_norm=0.5,
            **{"save_strategy": "no", **settings},
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
        )
        trainer = self.transformers.Trainer(
            model,
            arguments,
            train_dataset=(data := [{"input_ids": sequence, "labels": sequence} for sequence in sequences]),
            eval_dataset=data[:6],
            optimizer_cls_and_kwargs=(make.func, dict(make.keywords)),
        )
        trainer.train(resume_from_checkpoint=resume)
        assert trainer.state.global_step == 18
        return trainer

    def test_it_ends_where_it_does_with_torch(self, tmp_path):
        def train(make, dtype):
            model = self.model(dtype)
            start = parameters_of(model)
            self.fit(model, make, tmp_path)
            return start, parameters_of(model)

        assert_trained_alike(train, "AdamW")

    @pytest.mark.parametrize("name", RESUMED_BY_OTHERS)
    def test_it_resumes_in_the_middle_of_an_epoch(self, name, tmp_path):
        def train(directory, **settings):
            model = self.model(dropout=0.1)
            trainer = self.fit(model, ours(name, averaging=0.9), directory, **settings)
            return ending(model, trainer.optimizer.optimizer)

        saving = {"save_strategy": "steps", "save_steps": 8}  # which moves to the weights and back, with one rounding
        whole = train(tmp_path / "whole", **saving)
        resume = str(tmp_path / "whole" / "checkpoint-8")
        assert torch.equal(train(tmp_path / "resumed", resume=resume, **saving), whole)

    def test_it_evaluates_and_saves_the_weights_themselves(self, tmp_path):
        from safetensors.torch import load_file

        trainer = self.fit(
            self.model(), ours("schedule-free"), tmp_path, eval_strategy="steps", eval_steps=18, save_strategy="epoch"
        )
        model, optimizer = trainer.model, trainer.optimizer.optimizer
        inputs = torch.stack([row["input_ids"] for row in trainer.eval_dataset])
        evaluated = trainer.state.log_history[-2]["eval_loss"]
        saved = load_file(tmp_path / "checkpoint-18" / "model.safetensors")
        with optimizer.at_weights(), torch.no_grad():
            model.eval()
            at_weights = model(input_ids=inputs, labels=inputs).loss.item()
            assert all(torch.equal(saved[key], value) for key, value in model.state_dict().items() if key in saved)
        optimizer.train()
        with torch.no_grad():
            ahead = model(input_ids=inputs, labels=inputs).loss.item()
        assert evaluated == pytest.approx(at_weights, rel=1e-5)
        assert abs(ahead - at_weights) > 1e-3

    @pytest.mark.parametrize("best", [False, True], ids=["last", "best"])
    def test_the_model_after_training_is_the_weights_themselves(self, best, tmp_path):
        """Without an evaluation since the last step: as saved by `save_model`, or as the best one was loaded."""
        from safetensors.torch import load_file

        settings = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 5, "save_steps": 5}
        settings = {**settings, "load_best_model_at_end": True} if best else {}
        trainer = self.fit(self.model(), ours("schedule-free"), tmp_path / "run", **settings)
        model, optimizer = trainer.model, trainer.optimizer.optimizer
        trainer.save_model(tmp_path / "model")
        saved = load_file(tmp_path / "model" / "model.safetensors")
        with optimizer.at_weights():
            there = {key: value.clone() for key, value in model.state_dict().items() if key in saved}
        assert all(torch.equal(saved[key], value) for key, value in there.items())
        if best:
            from_best = load_file(f"{trainer.state.best_model_checkpoint}/model.safetensors")
            assert all(torch.equal(from_best[key], value) for key, value in there.items())
            trainer.evaluate()
            assert all(torch.equal(from_best[key], model.state_dict()[key]) for key in from_best)
        copy.deepcopy(model).state_dict()
        optimizer.train()
        assert not all(torch.equal(model.state_dict()[key], value) for key, value in there.items())

    def test_the_example(self, capsys):
        assert run_example("huggingface_trainer", capsys).endswith(": 13, 16, 19, 2, 5, 8, 11")


@pytest.mark.slow
class TestAccelerate:
    @pytest.fixture(autouse=True)
    def installed(self, quiet_and_alone):
        self.accelerate = pytest.importorskip("accelerate")

    def prepare(self, make, dtype=torch.float32):
        """What accelerate makes of a model, an optimizer, a loader and a scheduler; two batches make a step."""
        model = network(dtype)
        optimizer = make(model.parameters())
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.8)
        accelerator = self.accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
        loader = DataLoader(regression(dtype), batch_size=4)
        return accelerator, *accelerator.prepare(model, optimizer, scheduler, loader)

    @staticmethod
    def go_on(accelerator, model, optimizer, scheduler, batches):
        for inputs, targets in batches:
            with accelerator.accumulate(model):
                accelerator.backward(nn.functional.mse_loss(model(inputs), targets))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()

    @pytest.mark.parametrize("name", ["AdamW", "a rule"])
    def test_it_ends_where_it_does_with_torch(self, name):
        def train(make, dtype):
            accelerator, model, *rest = self.prepare(make, dtype)
            start = parameters_of(model)
            for _ in range(EPOCHS):
                self.go_on(accelerator, model, *rest)
            return start, parameters_of(model)

        assert_trained_alike(train, name)

    @pytest.mark.parametrize("name", RESUMED_BY_OTHERS)
    def test_it_resumes_in_the_middle_of_an_epoch(self, name, tmp_path):
        *whole, loader = self.prepare(ours(name, averaging=0.9))
        self.go_on(*whole, loader)
        for k, batch in enumerate(loader):
            if k == 6:
                whole[0].save_state(tmp_path / "half")
            self.go_on(*whole, [batch])

        *resumed, loader = self.prepare(ours(name, averaging=0.9))
        resumed[0].load_state(tmp_path / "half")
        self.go_on(*resumed, resumed[0].skip_first_batches(loader, 6))
        assert torch.equal(ending(resumed[1], resumed[2].optimizer), ending(whole[1], whole[2].optimizer))

    def test_the_example(self, capsys):
        half, whole, resumed = re.findall(r"0\.\d+", run_example("accelerate_loop", capsys))
        assert whole == resumed
        assert float(whole) < float(half) / 2

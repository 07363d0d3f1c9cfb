"""A race on a module of Lightning: three lines of a training script become a run of a race.

    pip install "downslope[lab]" pytorch-lightning && python examples/race_lightning.py

The module asks the run for its optimizer, a callback reports the validation loss, and the Trainer stops where the run
says so. Everything random comes from the run's seed.
"""

import math

import pytorch_lightning as lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from downslope.lab import OwnRun, race, write_report


def spiral(points: int, noise: float = 0.3) -> TensorDataset:
    """Three interleaved arms in the plane, and which arm each point belongs to."""
    radius = torch.rand(3, points)
    angle = 4 * (radius + torch.arange(3)[:, None] * math.tau / 12) + noise * torch.randn(3, points)
    inputs = torch.stack([radius * angle.sin(), radius * angle.cos()], dim=-1)
    return TensorDataset(inputs.reshape(-1, 2), torch.arange(3).repeat_interleave(points))


class Classifier(lightning.LightningModule):
    """A small network, trained as a run says."""

    def __init__(self, run: OwnRun) -> None:
        super().__init__()
        self.run = run
        self.network = nn.Sequential(nn.Linear(2, 50), nn.ReLU(), nn.Linear(50, 3))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The loss of one batch."""
        inputs, labels = batch
        return nn.functional.cross_entropy(self.network(inputs), labels)

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """The loss on points that are not trained on."""
        inputs, labels = batch
        self.log("valid_loss", nn.functional.cross_entropy(self.network(inputs), labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer of the run."""
        return self.run.optimizer(self.parameters())


class Report(lightning.Callback):
    """Tells the run its validation loss, and the Trainer whether to go on."""

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """After every validation."""
        going_on = module.run.report(trainer.global_step, trainer.callback_metrics["valid_loss"])
        trainer.should_stop = not going_on


def train(run: OwnRun) -> None:
    """One run: 100 steps, validated after every 25."""
    lightning.seed_everything(run.seed, verbose=False)
    trainer = lightning.Trainer(
        max_steps=100,
        val_check_interval=25,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        accelerator="cpu",
        callbacks=[Report()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    learn, held_out = DataLoader(spiral(200), batch_size=32, shuffle=True), DataLoader(spiral(100), batch_size=300)
    trainer.fit(Classifier(run), learn, held_out)


def main() -> None:
    result = race(train, now=torch.optim.Adam([torch.zeros(1)], lr=1e-3), limit=60, verdict_seeds=10)
    print(result.verdict)
    write_report(result, "report.html")


if __name__ == "__main__":
    main()

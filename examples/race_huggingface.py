"""A race on a language model that Hugging Face's Trainer trains; nothing is downloaded.

    pip install "downslope[lab]" transformers accelerate && python examples/race_huggingface.py

`model_init` makes the model of every run, a callback reports the loss of every evaluation, and the Trainer stops where
the run says so. The model, a very small GPT-2 built here, learns to count modulo 20 from any start.
"""

import functools
import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from downslope.lab import OwnRun, race, write_report

MODULUS = 20
CONFIG = {"vocab_size": MODULUS, "n_positions": 16, "n_embd": 32, "n_layer": 1, "n_head": 2}


def counting(starts: range) -> list[dict[str, torch.Tensor]]:
    """Sequences `start, start + stride, ...` modulo 20, for strides of 1, 2 and 3."""
    sequences = [(start + stride * torch.arange(12)) % MODULUS for stride in (1, 2, 3) for start in starts]
    return [{"input_ids": sequence, "labels": sequence} for sequence in sequences]


class RunTrainer(Trainer):
    """A Trainer with the optimizer of a run: those that have a `model_init` make theirs late."""

    run: OwnRun

    def create_optimizer(self, model=None):
        """The optimizer of the run."""
        self.optimizer = self.run.optimizer(self.model.parameters())
        return self.optimizer


class Report(TrainerCallback):
    """Tells the run the loss of every evaluation, and the Trainer whether to go on."""

    def __init__(self, run: OwnRun) -> None:
        self.run = run

    def on_evaluate(self, args, state, control, metrics, **others):
        """After every evaluation."""
        if not self.run.report(state.global_step, metrics["eval_loss"]):
            control.should_training_stop = True


def train(run: OwnRun, steps: int = 60) -> None:
    """One run: evaluated before its first step and after every twentieth."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            seed=run.seed,
            max_steps=steps,
            per_device_train_batch_size=8,
            lr_scheduler_type="constant",
            eval_strategy="steps",
            eval_steps=20,
            eval_on_start=True,
            save_strategy="no",
            report_to="none",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = RunTrainer(
            model_init=lambda: GPT2LMHeadModel(GPT2Config(**CONFIG, bos_token_id=None, eos_token_id=None)),
            args=arguments,
            train_dataset=counting(range(15)),
            eval_dataset=counting(range(15, 20)),
            callbacks=[Report(run)],
        )
        trainer.run = run
        trainer.train()


def main() -> None:
    now = functools.partial(torch.optim.AdamW, lr=5e-5, weight_decay=0.0)  # what the Trainer takes by itself
    result = race(train, now=now, limit=120, tuning_seeds=2)
    print(result.verdict)
    write_report(result, "report.html")


if __name__ == "__main__":
    main()

"""The formula in the docstring of each class is what the class computes."""

import itertools

import pytest
import torch

import downslope.torch
from docstring_formula import GRADIENTS, NUMBERS, START, assert_same_path, formula_of

CLASSES = [name for name in downslope.torch.__all__ if name != "Optimizer"]
CARRIED = ("maximize", "foreach", "fused", "capturable", "differentiable")


def cases():
    for name in CLASSES:
        cls = getattr(downslope.torch, name)
        own = torch.optim.__dict__[name]([torch.nn.Parameter(torch.ones(1))]).defaults
        flags = [n for n, default in own.items() if isinstance(default, bool) and n not in CARRIED]
        flags = [n for n in flags if not (name == "AdamW" and n == "decoupled_weight_decay")]
        for values in itertools.product([False, True], repeat=len(flags)):
            chosen = dict(zip(flags, values, strict=True))
            for momentum in [0.0, NUMBERS["momentum"]] if "momentum" in own else [None]:
                if chosen.get("nesterov") and not momentum:
                    continue
                numbers = {n: NUMBERS[n] for n in own if n in NUMBERS}
                if momentum is not None:
                    numbers["momentum"] = momentum
                if chosen.get("nesterov"):
                    numbers["dampening"] = 0.0
                yield pytest.param(cls, numbers | chosen, id=f"{name}-{momentum}-{chosen}")


def test_every_class_says_its_formula():
    assert len(CLASSES) == 9
    assert all(formula_of(getattr(downslope.torch, name)) for name in CLASSES)


@pytest.mark.parametrize(("cls", "settings"), list(cases()))
def test_a_class_computes_the_formula_in_its_docstring(cls, settings):
    x = torch.tensor(START, requires_grad=True)
    betas = {"betas": (NUMBERS["beta1"], NUMBERS["beta2"])} if "beta1" in formula_of(cls) else {}
    optimizer = cls([x], **settings, **betas)

    def found():
        for gradient in GRADIENTS:
            x.grad = torch.tensor(gradient)
            optimizer.step()
            yield x.detach().numpy().copy()

    assert_same_path(cls, {**NUMBERS, **settings}, found())

"""downslope in PyTorch: `torch.optim`'s optimizers with its numbers, and an optimizer for any rule.

Example:
    >>> import torch, downslope.torch
    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = downslope.torch.AdamW(model.parameters(), lr=1e-3, max_norm=1.0)
    >>> model(torch.ones(2, 3)).sum().backward()
    >>> optimizer.step()
"""

try:
    import torch
except ImportError as error:
    raise ImportError('downslope.torch needs PyTorch: pip install "downslope[torch]"') from error

from downslope.torch.classes import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop
from downslope.torch.optimizer import Optimizer

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "Optimizer", "RAdam", "RMSprop"]

del torch

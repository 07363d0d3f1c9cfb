"""What the parameters of a model are, of whatever framework: modules of PyTorch, models of Keras, trees of arrays."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from downslope.splitting.judge import Seen, judged
from downslope.splitting.split import NAMES_ONLY, Split, below, corrected

_LAYERS = ("Linear", "Conv1d", "Conv2d", "Conv3d", "Conv1D", "MultiheadAttention", "Dense", "EinsumDense")


def split(model: Any, *, matrices: Iterable[str] = (), rest: Iterable[str] = ()) -> Split:
    """Which parameters are a network's inner matrices, for a rule such as `downslope.muon`, and which are not.

    It is a proposal: print it before you use it. Embeddings, the first and the last layer, norms and biases are the
    rest, as the authors of Muon have it. What a parameter is says the type of its layer first, and whether it is the
    same as that of another (a head tied to an embedding), then its name, then its shape. Several matrices in one
    parameter (a fused projection to queries, keys and values; a grouped convolution) are recognised where their sizes
    are certain, and then orthogonalised one by one.

    Args:
        model: A `torch.nn.Module`, a Keras model that has its variables, or a tree of arrays: dicts and lists of them,
            as in JAX. In a tree nobody can see which layer is the first or the last unless a name tells.
        matrices: Patterns of names, such as `"blocks.*.mix.weight"`, of what is an inner matrix whatever was found.
        rest: Those of what is not.

    Raises:
        TypeError: `model` is something else.
        ValueError: It has no parameters, or a pattern fits no name.

    Example:
        >>> import torch, downslope, downslope.torch
        >>> from torch.nn import Embedding, LayerNorm, Linear, Sequential
        >>> model = Sequential(Embedding(50, 8), Linear(8, 32), LayerNorm(32), Linear(32, 8), Linear(8, 50))
        >>> split = downslope.split(model)
        >>> split
        matrices: 2 of 9 parameters, 512 of 1,466 weights
          1.weight   32 x 8  Linear
          3.weight   8 x 32  Linear
        rest: 7 of 9 parameters, 954 of 1,466 weights
          0.weight   50 x 8  embedding
          1.bias     32      bias
          2.weight   32      norm
          2.bias     32      norm
          3.bias     8       bias
          4.weight   50 x 8  last layer
          4.bias     50      bias
        >>> muon, adamw = {"rule": downslope.muon, "lr": 0.02}, {"rule": downslope.adamw, "lr": 3e-4}
        >>> optimizer = downslope.torch.Optimizer(split.groups(muon, adamw))
    """
    torch, keras = sys.modules.get("torch"), sys.modules.get("keras")
    unknown, tree = "", None
    if keras is not None and isinstance(model, keras.Model):  # on its backend of PyTorch it is one of its modules too
        entries = judged(_of_keras(model), in_order=True)
    elif torch is not None and isinstance(model, torch.nn.Module):
        entries = judged(_of_torch(model), in_order=True)
    elif isinstance(model, (Mapping, list, tuple)):
        entries = judged([*_of_tree(model, "")], in_order=False)
        tree, unknown = model, f"{NAMES_ONLY}; rest=[...] says which they are"
    else:
        raise TypeError(
            f"model={model!r:.60}: give a torch.nn.Module, a Keras model, or a tree of arrays (dicts and lists)"
        )
    if not entries:
        raise ValueError("the model has no parameters that are trained; a Keras model must be built first")
    return Split(corrected(entries, matrices, rest), unknown, tree)


def _kind(layer: type) -> str:
    """What a type of layer says of its parameters."""
    names = {each.__name__ for each in layer.__mro__}
    if any("Embedding" in name for name in names):
        return "embedding"
    if any("Norm" in name for name in names):
        return "norm"
    if names & {"RNNBase", "RNNCellBase", "RNN", "LSTMCell", "GRUCell", "SimpleRNNCell"}:
        return "recurrent"
    return "matrix" if names.intersection(_LAYERS) else ""


def _called(layer: type) -> str:
    """The name of a type of layer: that of a usual one if it is one."""
    return next((each.__name__ for each in layer.__mro__ if each.__name__ in _LAYERS), layer.__name__)


def _of_torch(model: Any) -> list[Seen]:
    """The parameters of a module that are trained, from its first layer to its last as it lists them."""
    owners: dict[int, list[tuple[str, Any]]] = {}
    values: dict[int, Any] = {}
    for path, module in model.named_modules():
        for own, p in module.named_parameters(recurse=False):
            owners.setdefault(id(p), []).append((f"{path}.{own}" if path else own, module))
            values[id(p)] = p
    found = []
    for key, p in values.items():
        if not p.requires_grad:
            continue
        (name, module), *others = owners[key]
        kinds = [_kind(type(owner)) for _, owner in owners[key]]
        layer = _called(type(module))
        found.append(
            Seen(
                name,
                p,
                tuple(p.shape),
                layer,
                "embedding" if "embedding" in kinds else kinds[0],
                tuple(other for other, _ in others),
                groups=getattr(module, "groups", 1) if layer.startswith("Conv") else 1,
                turned=layer == "Conv1D",  # as GPT-2 of transformers has it, a Linear whose rows are inputs
            )
        )
    return found


def _of_keras(model: Any) -> list[Seen]:
    """The variables of a Keras model that are trained."""
    owners = {
        id(variable): layer
        for layer in model._flatten_layers(include_self=False, recursive=True)  # nothing public finds inner ones
        for variable in layer.trainable_variables
    }
    found = []
    for variable in model.trainable_variables:
        layer = type(owners.get(id(variable), model))
        # Kernels of convolutions begin with the axes of the kernel, projections out of attention with heads.
        shape, kind = tuple(variable.shape), _kind(layer)
        found.append(Seen(variable.path, variable, shape, _called(layer), kind, rows=False, divisible=False))
    return found


def _of_tree(tree: Any, path: str) -> Iterator[Seen]:
    """The arrays of a tree, by name."""
    if isinstance(tree, (Mapping, list, tuple)):
        for _, value, name in below(tree, path):
            yield from _of_tree(value, name)
    elif hasattr(tree, "shape"):
        yield Seen(path, tree, tuple(tree.shape), divisible=type(tree).__module__.partition(".")[0] == "torch")
    else:
        raise TypeError(f"{path}={tree!r:.60} is no array")

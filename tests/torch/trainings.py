"""Trainings that one process or many can run, for `test_distributed`.

A function here runs in every process of a group, or in a single one, and returns NumPy arrays.
"""

import contextlib
import io
import runpy

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn.parallel import DistributedDataParallel

import downslope
import downslope.torch
from downslope.torch import device as devices
from downslope.torch import launch, settings

BATCH = 8
# Rows that neither 2 nor 4 processes can share evenly, and parameters with fewer rows than processes.
SHAPES = {"inner": [(5, 6), (5,), (3, 5), (1,)], "outer": [(37, 29), (3,), (1, 4)]}
# For rules over whole tensors: two of one shape, a kernel, and fewer rows than processes.
MATRICES = {"inner": [(5, 6), (6, 5), (3, 5)], "outer": [(5, 6), (4, 2, 3), (1, 7)]}
# Of four processes the last two hold no weight at all.
FEW = {"inner": [(2, 3)], "outer": [(1,)]}


class Block(nn.Module):
    """Parameters of the given shapes, read out with one coefficient per weight."""

    def __init__(self, shapes, dtype):
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in shapes)
        self.lengths = [weight.numel() for weight in self.weights]

    def forward(self, coefficients):
        pieces = coefficients.split(self.lengths, dim=1)
        return sum(piece @ weight.flatten() for piece, weight in zip(pieces, self.weights, strict=True))


class Readout(nn.Module):
    """Linear in every weight, so that a weight's gradient is the mean of its coefficients.

    With coefficients that are small multiples of 1/8, and a batch that is a power of two, gradients are exact even in
    bfloat16, and the squares of their norms in float32, in whatever order they are added.
    """

    def __init__(self, shapes, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = (Block(part, dtype) for part in shapes.values())
        self.lengths = [sum(self.inner.lengths), sum(self.outer.lengths)]

    def forward(self, coefficients):
        left, right = coefficients.split(self.lengths, dim=1)
        return self.inner(left) + self.outer(right)

    def batch(self, t):
        """The coefficients of step `t`; those of every other step are eight times smaller."""
        integers = torch.randint(-2, 3, (BATCH, sum(self.lengths)), generator=torch.Generator().manual_seed(t))
        return integers.to(self.inner.weights[0].dtype) / (8 if t % 2 else 1)


class Network(nn.Module):
    """A perceptron in double precision, whose gradients depend on its weights."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Linear(6, 5), nn.Tanh())
        self.outer = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 1))
        self.double()

    def forward(self, inputs):
        return self.outer(self.inner(inputs)).squeeze(1).square()

    def batch(self, t):
        return torch.randn(BATCH, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(t))


class Training:
    """A model, made ready for the processes of the group in one of the ways PyTorch has, and its optimizer."""

    def __init__(self, how, model, name, options):
        self.batch = model.batch
        self.model = parallel(model, how)
        self.optimizer = getattr(downslope.torch, name)(groups(self.model), **options)

    def backward(self, batch):
        """Take the gradient of the mean over the batch, of which each process sees its share."""
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.optimizer.zero_grad()
        self.model(batch[rank::world]).mean().backward()

    def run(self, steps):
        """Train for the given numbers of steps, at a learning rate that changes from step to step."""
        for t in steps:
            for group in self.optimizer.param_groups:
                group["lr"] = 0.5 / (t + 1)
            self.backward(self.batch(t))
            self.optimizer.step()

    def weights(self):
        return {name.removeprefix("module."): whole(parameter) for name, parameter in self.model.named_parameters()}

    def states(self):
        """All states by the names of their parameters and their own, gathered from the shards."""
        return {
            f"{name.removeprefix('module.')}: {state}": whole(value)
            for name, parameter in self.model.named_parameters()
            for state, value in self.optimizer.state[parameter].items()
        }

    def everything(self):
        return self.weights() | self.states()


def parallel(model, how):
    if how == "single":
        return model
    if how.startswith("ddp"):
        return DistributedDataParallel(model, gradient_as_bucket_view=how == "ddp, views")
    world = dist.get_world_size()
    if how == "hsdp":
        mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("copies", "shards"))
    else:
        mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("shards",))
    for part in (model.inner, model.outer, model):
        fully_shard(part, mesh=mesh)
    return model


def groups(model):
    """Two parameter groups: weight decay, where an option asks for it, is for matrices."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    return [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]


def whole(tensor):
    own = (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()
    return (own.float() if own.dtype == torch.bfloat16 else own.clone()).numpy()


def readouts(how, cases, steps, shapes=SHAPES):
    """Weights and states after a training with each of the cases, (name of the class, options, dtype)."""
    results = []
    for name, options, dtype in cases:
        training = Training(how, Readout(shapes, dtype), name, options)
        training.run(range(steps))
        results.append(training.everything())
    return results


@contextlib.contextmanager
def updated_by(kernels):
    """With `kernels="interpreted"` those of a GPU update parameters in this block, on tensors of the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        if kernels:
            patch.setenv("TRITON_INTERPRET", "1")
            patch.setattr(launch, "memory_of", devices.DeviceMemory)
            patch.setattr(settings, "in_main_memory", lambda tensor: False)
        yield


def looking_ahead(how, cases, steps, kernels=""):
    """Weights at the end of trainings, by rule and options, and what `eval`, `at_weights` and `at_average` show."""
    with updated_by(kernels):
        return [_looked_ahead(how, name, options, steps) for name, options in cases]


def _looked_ahead(how, name, options, steps):
    training = Training(how, Readout(SHAPES, torch.float32), "Optimizer", {"rule": getattr(downslope, name), **options})
    optimizer, found = training.optimizer, {}
    training.run(range(steps - 1))
    found["eval"] = (optimizer.eval(), training.weights())[1]
    optimizer.train()
    training.run(range(steps - 1, steps))
    with optimizer.at_weights():
        found["at_weights"] = training.weights()
    if "averaging" in options:
        with optimizer.at_average():
            found["at_average"] = training.weights()
    found["end"] = training.everything()
    [layout] = optimizer._progress.layouts.values()
    found["launches"] = {type(each._stepper.place).__name__: 1 for each in layout.launches}
    return {f"{where}: {name}": value for where, values in found.items() for name, value in values.items()}


def changed_between_steps(quickly):
    """A training of shards to which something happens before every step.

    Args:
        quickly: Whether steps are taken as they are; else each with a closure, which asks for everything anew.

    Returns:
        Weights and states at the end, and how many steps were taken the quick way.
    """
    shapes = {"inner": [(5, 6), (4,), (3, 5)], "outer": [(37, 29), (1, 4)]}
    training = Training("fsdp", Readout(shapes, torch.float32), "Adam", {"lr": 0.1})
    optimizer, params = training.optimizer, [*training.model.parameters()]
    mesh, quick = params[0].device_mesh, []

    def moved(tensor):
        tensor._local_tensor = tensor._local_tensor.clone()

    happens = {
        4: lambda: moved(params[0]),
        6: lambda: moved(optimizer.state[params[1]]["exp_avg"]),
        8: lambda: setattr(params[0], "grad", params[0].grad.redistribute(mesh, [Replicate()])),
        10: lambda: setattr(params[2], "grad", None),
        12: lambda: params[0].grad.to_local().mul_(2),
        14: lambda: optimizer.param_groups[0].update(lr=0.05),
        16: lambda: optimizer.state[params[1]].update(exp_avg=optimizer.state[params[1]]["exp_avg"].clone()),
    }
    for t in range(18):
        training.backward(training.batch(t))
        happens.get(t, lambda: None)()
        before = optimizer._progress.quick_step
        optimizer.step(*() if quickly else [lambda: None])
        quick.append(before is not None and before is optimizer._progress.quick_step)
    return training.everything(), quick.count(True)


def over_tensors(how, cases, steps):
    """Weights and states after a training by each of the rules over whole tensors, with options and dtype."""
    results = []
    for name, options, dtype in cases:
        given = {"rule": getattr(downslope, name), **options}
        training = Training(how, Readout(MATRICES, dtype), "Optimizer", given)
        training.run(range(steps))
        results.append(training.everything())
    return results


LAYOUTS = [("rows", "columns"), ("", "columns"), ("columns", ""), ("rows", "")]


def laid_out(how, name, steps):
    """Weights after a training of matrices that stand on a mesh of two by one or two processes in every way."""
    placements = {"rows": Shard(0), "columns": Shard(1), "": Replicate()}
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2)) if how == "mesh" else None

    def placed(tensor, layout):
        return tensor if mesh is None else distribute_tensor(tensor, mesh, [placements[way] for way in layout])

    generator = torch.Generator().manual_seed(1)
    matrices = [torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in LAYOUTS]
    params = [nn.Parameter(placed(matrix, layout)) for matrix, layout in zip(matrices, LAYOUTS, strict=True)]
    optimizer = downslope.torch.Optimizer(params, getattr(downslope, name))
    for _ in range(steps):
        for p, layout in zip(params, LAYOUTS, strict=True):
            p.grad = placed(torch.randn(5, 3, generator=generator, dtype=torch.float64), layout)
        optimizer.step()
    states = {f"{k}: {name}": whole(s) for k, p in enumerate(params) for name, s in optimizer.state[p].items()}
    return [{str(k): whole(p) for k, p in enumerate(params)} | states]


def gathered(name):
    """How often something is gathered in a step of two matrices of one shape."""
    mesh = init_device_mesh("cpu", (2,))
    params = [nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [Shard(0)])) for _ in range(2)]
    optimizer = downslope.torch.Optimizer(params, getattr(downslope, name))
    for p in params:
        p.grad = p.detach().clone()
    optimizer.step()
    with CommDebugMode() as seen:
        optimizer.step()
    return sum(count for operation, count in seen.get_comm_counts().items() if "reduce" not in str(operation))


def disagreeing(name):
    """What each process is told where it has no gradient that another one has, and whether anything has changed."""
    mesh, rank = init_device_mesh("cpu", (2,)), dist.get_rank()
    params = {key: nn.Parameter(distribute_tensor(torch.eye(4), mesh, [Shard(0)])) for key in ("first", "second")}
    optimizer = downslope.torch.Optimizer(params.items(), getattr(downslope, name))
    said = []
    for has in ([("first",), ("second",)], [("first", "second"), ()], [(), ("second",)], [(), ()], [("second",)] * 2):
        for key, p in params.items():
            p.grad = torch.ones_like(p) if key in has[rank] else None
        try:
            optimizer.step()
            said.append("")
        except ValueError as error:
            said.append(str(error))
    steps = [float(optimizer.state[p].get("step", 0)) for p in params.values()]
    return said, steps, torch.equal(params["first"].full_tensor(), torch.eye(4))


def refused_shards():
    """What is said where a rule over whole tensors cannot do with shares."""
    mesh = init_device_mesh("cpu", (2,))
    p = nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [Shard(0)]))
    with pytest.raises(ValueError, match="shared out over processes") as error:
        downslope.torch.Optimizer([{"params": [p], "pieces": 2}], downslope.muon)
    return str(error.value)


def networks(how, cases, steps):
    """Weights after a training of a perceptron with each of the cases, (name of the class, options)."""
    results = []
    for name, options in cases:
        training = Training(how, Network(), name, options)
        training.run(range(steps))
        results.append(training.weights())
    return results


def poisoned(how, name, options, steps, bad, kernels=""):
    """A training in which the first weight's gradient is infinite at step `bad`.

    Returns:
        Whether this process saw something infinite, what `step` raised, and weights and states before and after it
        and at the end.
    """
    with updated_by(kernels):
        training = Training(how, Readout(SHAPES, torch.float32), name, options)
        training.run(range(bad))
        before = training.everything()
        batch = training.batch(bad)
        batch[0, 0] = torch.inf
        training.backward(batch)
        own = [p.grad.to_local() if isinstance(p.grad, DTensor) else p.grad for p in training.model.parameters()]
        seen = not all(gradient.isfinite().all() for gradient in own)
        error = None
        try:
            training.optimizer.step()
        except downslope.NonFiniteGradientError as caught:
            error = str(caught)
        after = training.everything()
        training.run(range(bad + 1, steps))
        return seen, error, before, after, training.everything()


def placed(how, name, options, steps):
    """A training of tensors laid out over a 2 × 2 mesh in the ways of tensor parallelism, on gradients given.

    Returns:
        The weights, and the norms of the gradients.
    """
    mesh = None if how == "single" else init_device_mesh("cpu", (2, 2))
    tensors = _drawn(torch.Generator().manual_seed(steps))
    parameters = {at: nn.Parameter(_laid_out(tensor, mesh, PLACED[at][1])) for at, tensor in tensors.items()}
    optimizer = getattr(downslope.torch, name)(parameters.values(), **options)
    norms = []
    for t in range(steps):
        gradients = _drawn(torch.Generator().manual_seed(t), 8 if t % 2 else 1)
        norms.append(sum(gradient.square().sum() for gradient in gradients.values()).sqrt().item())
        for at, gradient in gradients.items():
            parameters[at].grad = _laid_out(gradient, mesh, PLACED[at][2])
        optimizer.step()
    return {at: whole(parameter) for at, parameter in parameters.items()}, norms


# Shape, layout of the parameter and layout of its gradient, which tensor parallelism may leave in another one: Partial
# means addends that nobody has added yet. None is a plain tensor, of which every process has a copy.
PLACED = {
    "rows and columns": ((5, 7), [Shard(0), Shard(1)], [Shard(0), Shard(1)]),
    "columns, copied": ((3, 5), [Replicate(), Shard(1)], [Replicate(), Shard(1)]),
    "copied": ((4,), [Replicate(), Replicate()], [Replicate(), Replicate()]),
    "partial gradient": ((3, 3), [Replicate(), Replicate()], [Partial(), Partial()]),
    "partly partial gradient": ((4, 3), [Shard(0), Replicate()], [Shard(0), Partial()]),
    "gradient sharded otherwise": ((6, 5), [Shard(0), Replicate()], [Replicate(), Shard(1)]),
    "plain": ((2, 3), None, None),
}


def _drawn(generator, divisor=1):
    return {
        at: torch.randint(-8, 9, shape, generator=generator).double() / divisor for at, (shape, _, _) in PLACED.items()
    }


def _laid_out(tensor, mesh, placements):
    if mesh is None or placements is None:
        return tensor
    placed = distribute_tensor(tensor, mesh, [Replicate() if p.is_partial() else p for p in placements])
    if not any(p.is_partial() for p in placements):
        return placed
    addends = [
        (0.25, 0.75)[rank] if p.is_partial() else 1 for p, rank in zip(placements, mesh.get_coordinate(), strict=True)
    ]
    return DTensor.from_local(
        placed.to_local() * addends[0] * addends[1], mesh, placements, shape=placed.shape, stride=placed.stride()
    )


def saved(how, cases, flat, path, at, steps):
    """A training that saves a checkpoint before step `at` and goes on; its weights and states at the end."""
    trainings = [Training(how, Readout(SHAPES, dtype), name, options) for name, options, dtype in cases]
    for training in trainings:
        training.run(range(at))
    dcp.save(_checkpoint(trainings, flat), checkpoint_id=path)
    return [_finished(training, at, steps) for training in trainings]


def resumed(how, cases, flat, path, at, steps):
    """The rest of a training, from a checkpoint; its weights and states at the end."""
    trainings = [Training(how, Readout(SHAPES, dtype), name, options) for name, options, dtype in cases]
    checkpoint = _checkpoint(trainings, flat)
    dcp.load(checkpoint, checkpoint_id=path)
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    for training, states in zip(trainings, checkpoint.values(), strict=True):
        _set(training, states, options)
    return [_finished(training, at, steps) for training in trainings]


def handed_over(how, cases, at, steps):
    """A training whose weights and states are gathered before step `at`, on process 0, and dealt out to another."""
    gather = StateDictOptions(full_state_dict=True, cpu_offload=True)
    deal = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    results = []
    for name, options, dtype in cases:
        first, second = (Training(how, Readout(SHAPES, dtype), name, options) for _ in range(2))
        first.run(range(at))
        second.run(range(1))
        _set(second, _states(first, gather), deal)
        results.append(_finished(second, at, steps))
    return results


def _states(training, options):
    model, optimizer = get_state_dict(training.model, training.optimizer, options=options)
    return {"model": model, "optimizer": optimizer}


def _set(training, states, options):
    set_model_state_dict(training.model, states["model"], options=options)
    set_optimizer_state_dict(training.model, training.optimizer, states["optimizer"], options=options)


def _checkpoint(trainings, flat):
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    return {str(k): _states(training, options) for k, training in enumerate(trainings)}


def _finished(training, at, steps):
    training.run(range(at, steps))
    return training.everything()


def sharing(options, rule=downslope.adamw):
    """What `ZeroRedundancyOptimizer` says to this rule and these options; an empty text if it trains."""
    from torch.distributed.optim import ZeroRedundancyOptimizer  # warns of what it uses itself

    model = Network()
    try:
        optimizer = ZeroRedundancyOptimizer(
            model.parameters(), optimizer_class=downslope.torch.Optimizer, rule=rule, lr=0.1, **options
        )
    except ValueError as error:
        return str(error)
    model(model.batch(0)).mean().backward()
    optimizer.step()
    return ""


def example(path, folder):
    """What an example prints on this process, whose group is there already."""
    main = runpy.run_path(str(path))["main"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(dist, "init_process_group", lambda backend: None)
        patch.setattr(dist, "destroy_process_group", lambda: None)
        main(folder)
    return printed.getvalue()

"""Kernels of rules over whole tensors against the same program, computed array by array in double precision."""

import numpy as np
import pytest
import torch

import downslope
import downslope.torch
from downslope import Optimizer, columns, mean, norm, rows, rule, size, where
from downslope import max as largest
from downslope import sum as total
from downslope.backends.staged_text import pieces_of
from downslope.language.options import compose
from downslope.targets import passes
from downslope.targets.arrays import interpret
from downslope.targets.passes import compiles, planned
from downslope.targets.shapes import held_shape
from downslope.torch.interpreted import Interpreted
from downslope.torch.launch import Compiled
from whole_formulas import every_word, late

SHAPES = {
    "vector": (13,),
    "one": (1,),
    "number": (),
    "empty": (0, 3),
    "wide": (3, 10),
    "tall": (41, 3),
    "kernel": (4, 2, 3, 3),
}
PIECES = {"pieces": (70, 2053)}  # two below each other and three side by side


def settings_of(program):
    numbers = {name: 1e-2 if value is None else value for name, value in program.hyperparameters.items()}
    return numbers | ({"weight_decay": 1e-2} if "weight_decay" in numbers else {})


def walked(program, settings, name, x, steps):
    """The weights and states of a tensor after so many steps by the interpretation in double precision."""
    arrays = {"x": x.astype(np.float64)}
    for state in program.states:
        arrays[state] = np.full(held_shape(program, state, x.shape), program.initial(state, settings), np.float64)
    for t in range(1, steps + 1):
        arrays["dx"] = slopes(name, x.shape, t).astype(np.float64)
        arrays |= interpret(program, arrays, {**settings, "t": t})
    return arrays


def slopes(name, shape, t):
    random = np.random.default_rng([t, *name.encode()])
    return np.asarray(random.standard_normal(shape) * 10.0 ** (t % 3 - 1) + 0.1, np.float32)


@pytest.mark.parametrize("chosen", [downslope.lamb, downslope.adafactor, every_word, late])
def test_kernels_are_near_double_precision(chosen):
    """After fifty steps; `tests/rules` has those in double precision of every rule."""
    program = compose(chosen)
    assert compiles(program)
    for shapes, steps in ((SHAPES, 50), (PIECES, 3)):
        random = np.random.default_rng(7)
        start = {
            name: random.standard_normal(shape).astype(np.float32)
            for name, shape in shapes.items()
            if len(shape) <= (program.most_dimensions or 9)
        }
        settings = settings_of(program)
        params = {name: x.copy() for name, x in start.items()}
        optimizer = Optimizer(params, chosen, **settings)
        for t in range(1, steps + 1):
            optimizer.step({name: slopes(name, x.shape, t) for name, x in params.items()})
        for name, x in start.items():
            due = walked(program, settings, name, x, steps)
            for what, values in {"x": params, **optimizer.state}.items():
                near = 2e-4 * max(1.0, np.abs(due[what]).max(initial=0.0))
                np.testing.assert_allclose(values[name], due[what], 1e-4, near, err_msg=f"{what} of {name}")


@pytest.mark.parametrize(
    "chosen", [downslope.lamb, downslope.adafactor, every_word], ids=["lamb", "adafactor", "words"]
)
def test_the_number_of_threads_changes_no_bit(chosen):
    shapes = {"large": (530, 1031), "long": (300_001,), "small": (7, 5), "tall": (9001, 3)}
    ends = []
    for threads in (1, 2, 4):
        random = np.random.default_rng(3)
        params = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        optimizer = Optimizer(params, chosen, threads=threads)
        for t in (1, 2):
            optimizer.step({name: slopes(name, shape, t) for name, shape in shapes.items()})
        ends.append({name: array.tobytes() for by in (params, *optimizer.state.values()) for name, array in by.items()})
    assert ends[0] == ends[1] == ends[2]


def test_pieces_cover_a_matrix():
    assert pieces_of(1, 25_000_000) == (382, 1)
    assert pieces_of(512, 1024) == (1, 8)
    assert pieces_of(1_000_000, 3) == (1, 46)
    assert pieces_of(3, 1_000_000) == (46, 1)


def test_as_little_memory_as_possible_is_moved():
    moved = {}
    for chosen in (downslope.lamb, downslope.lars, downslope.adafactor, downslope.stable_adamw, downslope.mars):
        program = compose(chosen)
        moved[chosen.name] = planned(program, program.arrays).moved
    assert moved == {"lamb": 10, "lars": 7, "adafactor": 6, "stable_adamw": 9, "mars": 11}
    assert planned(compose(downslope.lamb), ["x"]).moved == 11  # a state that is rounded is worked out twice

    @rule
    def by_its_norm(x, dx, m=0, *, lr=0.1):
        m = 0.9 * m + dx
        return x - lr * dx * norm(m), m

    program = compose(by_its_norm)
    assert [[*one.reads.values()] for one in planned(program, program.arrays).passes] == [["dx", "m"], ["dx", "x"]]


def test_a_state_whose_old_value_is_needed_later_is_not_overwritten_before():
    @rule
    def lags(x, dx, m=0, *, lr=0.1):
        new = 0.9 * m + dx
        return x - lr * (m + new / (1 + norm(new))), new  # the old m, after the pass that makes the new one

    first = planned(compose(lags), ("x", "m")).passes[0]
    assert not first.stores
    params = {"W": np.ones(3)}
    optimizer = Optimizer(params, lags)
    optimizer.step({"W": np.array([3.0, 0.0, 4.0])})
    np.testing.assert_allclose(params["W"], 1 - 0.1 * np.array([3.0, 0.0, 4.0]) / 6)
    optimizer.step({"W": np.zeros(3)})
    np.testing.assert_allclose(optimizer.state["m"]["W"], [2.7, 0, 3.6])


def test_a_state_that_is_only_written_is_one_for_each_row():
    @rule
    def noted(x, dx, r=rows(0), c=columns(2), *, lr=0.1):
        return x - lr * dx, mean(abs(dx)), 3.0

    x, dx = np.ones((3, 4)), np.arange(12.0).reshape(3, 4)
    optimizer = Optimizer({"W": x}, noted)
    optimizer.step({"W": dx})
    np.testing.assert_array_equal(x, 1 - 0.1 * dx)
    np.testing.assert_array_equal(optimizer.state["r"]["W"], np.full((3, 1), 5.5))
    np.testing.assert_array_equal(optimizer.state["c"]["W"], np.full((1, 4), 3.0))

    @rule
    def only_written(x, dx, r=rows(0), *, lr=0.1):
        return x - lr * dx, 1.0

    assert compose(only_written).of_matrices


def test_numbers_chosen_by_shape():
    @rule
    def by_shape(x, dx, *, lr=0.1, other=0.2):
        return x - where(size(x, axis=0) > 2 * size(x, axis=1), lr, other) * dx * norm(dx) / norm(dx)

    params = {"tall": np.zeros((5, 2)), "square": np.zeros((3, 3))}
    Optimizer(params, by_shape).step({name: np.ones(x.shape) for name, x in params.items()})
    np.testing.assert_allclose(params["tall"], -0.1)
    np.testing.assert_allclose(params["square"], -0.2)


def test_sizes_of_anything_and_sums_of_sizes_are_those_of_the_direct_call():
    @rule
    def sized(x, dx, r=rows(0), c=columns(1.0), *, lr=0.1):
        r = r + mean(dx**2, axis=1)
        wide, one = size(r) + 10 * size(c) + 100 * size(c, axis=0), 1000 * size(r, axis=1) + 10000 * size(norm(dx))
        return x - lr * dx * (wide + one), r, c

    @rule
    def summed(x, dx, *, lr=0.1):
        return x - lr * dx * mean(where(size(x) > 3, 1, 0.5)) / (total(size(x, axis=1)) + norm(-size(x, axis=0)))

    @rule
    def counted(x, dx, *, lr=0.1):
        chosen = where(size(x) > 3, 2, dx)
        return x - lr * dx * (total(chosen) + norm(chosen, axis=1) + largest(chosen) - 0.5 * norm(chosen))

    x, dx = np.zeros((3, 4)), np.ones((3, 4))
    for each in (sized, summed, counted):
        program = compose(each)
        states = {name: np.full(held_shape(program, name, x.shape), start) for name, start in program.states.items()}
        direct = each(x, dx, *states.values())
        direct = direct if not states and isinstance(direct, np.ndarray) else direct[0]
        params = {"W": x.copy()}
        Optimizer(params, each).step({"W": dx})
        found = interpret(program, {"x": x, "dx": dx, **states}, program.hyperparameters)
        np.testing.assert_allclose(found["x"], direct, rtol=1e-15)
        np.testing.assert_allclose(params["W"], direct, rtol=1e-15)
    assert compiles(compose(sized))
    assert compiles(compose(summed))
    assert not compiles(compose(counted))


def test_a_sum_of_rows_or_of_weights_by_shape_is_no_kernel():
    @rule
    def either(x, dx, r=rows(0.5), *, lr=0.1):
        chosen = where(size(x, axis=0) > size(x, axis=1), r, dx)  # five numbers, or all
        return x - lr * total(chosen), r

    @rule
    def mean_of_either(x, dx, r=rows(0.5), *, lr=0.1):
        return x - lr * mean(where(size(x, axis=0) > size(x, axis=1), r, dx)), r

    assert not compiles(compose(either))
    assert compiles(compose(mean_of_either))
    x = np.zeros((5, 2))
    Optimizer({"W": x}, either).step({"W": np.ones((5, 2))})
    np.testing.assert_allclose(x, -0.5)  # of all ten weights


def test_matrix_products_are_no_kernel():
    assert not compiles(compose(downslope.muon))
    assert not any(word in passes.REDUCTIONS for word in ("product", "transpose"))


def parameters(shapes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]
    for p in found:
        p.grad = torch.randn(p.shape, generator=generator, dtype=dtype)
    return found


def kinds(optimizer):
    """What updates the parameters."""
    return {type(launch) for layout in optimizer._progress.layouts.values() for launch in layout.launches}


@pytest.mark.parametrize(
    ("chosen", "dtype"),
    [(downslope.lamb, torch.float16), (downslope.lamb, torch.complex64), (downslope.adafactor, torch.bfloat16)],
)
def test_other_storages_of_pytorch(chosen, dtype, monkeypatch):
    ends = []
    for kernel in (True, False):
        params = parameters([(19, 33), (21,)], dtype)
        optimizer = downslope.torch.Optimizer(params, chosen)
        if not kernel:
            monkeypatch.setattr("downslope.torch.layout.compiles", lambda program: False)
        for _ in range(3):
            optimizer.step()
        assert kinds(optimizer) == {Compiled if kernel else Interpreted}
        ends.append([*params, *(value for p in params for value in optimizer.state[p].values())])
    for ours, due in zip(*ends, strict=True):
        assert ours.dtype == due.dtype
        least = torch.finfo(ours.real.dtype).eps  # a sum in another order may round one way or the other
        torch.testing.assert_close(ours.detach(), due.detach(), rtol=2 * least, atol=least)


def test_a_missing_gradient_leaves_weights_states_and_count():
    params = parameters([(4, 6), (5, 2)])
    optimizer = downslope.torch.Optimizer(params, downslope.adafactor)
    optimizer.step()
    before = [tensor.clone() for tensor in (params[0], *optimizer.state[params[0]].values())]
    other = params[1].detach().clone()
    params[0].grad = None
    optimizer.step()
    after = [params[0], *optimizer.state[params[0]].values()]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert not torch.equal(params[1], other)
    assert [float(optimizer.state[p]["step"]) for p in params] == [1, 2]
    params[0].grad = torch.ones(4, 6)
    optimizer.step()
    assert kinds(optimizer) == {Compiled}
    assert [float(optimizer.state[p]["step"]) for p in params] == [2, 3]


def test_nan_in_one_tensor_touches_no_other():
    clean, dirty = ({n: np.ones(s, np.float32) for n, s in (("a", (3, 4)), ("b", (5, 7)))} for _ in range(2))
    slope = {"a": np.full((3, 4), 0.5, np.float32), "b": np.full((5, 7), 0.25, np.float32)}
    Optimizer(clean, every_word).step(slope)
    spoiled = slope["a"].copy()
    spoiled[1, 2] = np.nan
    Optimizer(dirty, every_word).step(slope | {"a": spoiled})
    assert np.isnan(dirty["a"]).all()  # by its mean, its largest element and its norm
    np.testing.assert_array_equal(dirty["b"], clean["b"])


def test_a_transposed_matrix_goes_by_its_own_rows():
    start, slope = np.random.default_rng(1).standard_normal((2, 6, 4)).astype(np.float32)
    plain = torch.nn.Parameter(torch.tensor(start))
    turned = torch.nn.Parameter(torch.tensor(np.ascontiguousarray(start.T)).T)
    for p in (plain, turned):
        p.grad = torch.tensor(slope)
    optimizer = downslope.torch.Optimizer([plain, turned], downslope.adafactor)
    optimizer.step()
    assert kinds(optimizer) == {Compiled, Interpreted}
    torch.testing.assert_close(turned, plain)


def test_weights_that_take_another_shape_are_noticed():
    (p,) = parameters([(4, 6)])
    optimizer = downslope.torch.Optimizer([p], downslope.adafactor)
    optimizer.step()
    p.data = p.data.view(6, 4)
    p.grad = torch.ones(6, 4)
    with pytest.raises(ValueError, match=r"the state r has shape \(4, 1\), its parameter \(6, 4\) and needs \(6, 1\)"):
        optimizer.step()
    (p,) = parameters([(4, 4)])
    optimizer = downslope.torch.Optimizer([p], downslope.adafactor)
    optimizer.step()
    p.data = p.data.T
    p.grad = torch.ones(4, 4)
    optimizer.step()
    assert kinds(optimizer) == {Interpreted}


def test_what_is_one_for_each_column_is_read_in_the_order_of_its_memory():
    """Of more than two dimensions it may come in another: put there by hand, or from a file."""
    ways = ("as it is", "by hand", "loaded")
    params = dict(zip(ways, parameters([(4, 2, 3, 3)] * 3), strict=True))
    with torch.no_grad():
        params["by hand"].copy_(params["as it is"])
        params["loaded"].copy_(params["as it is"])
    optimizers = {way: downslope.torch.Optimizer([p], downslope.adafactor) for way, p in params.items()}
    for t in (1, 2):
        for way, p in params.items():
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(t))
            optimizers[way].step()
        if t == 1:
            state = optimizers["by hand"].state[params["by hand"]]
            state["c"] = state["c"].to(memory_format=torch.channels_last)
            assert not state["c"].is_contiguous()
            optimizers["loaded"].load_state_dict(optimizers["by hand"].state_dict())
    assert set.union(*map(kinds, optimizers.values())) == {Compiled}
    for way in ways[1:]:
        assert torch.equal(params[way], params["as it is"])


def test_a_state_of_columns_whose_strides_change_in_place_is_put_in_order():
    (p, q) = parameters([(4, 2, 3, 3)] * 2)
    q.data.copy_(p.data)
    optimizers = [downslope.torch.Optimizer([each], downslope.adafactor) for each in (p, q)]
    for t in (1, 2):
        for each, optimizer in zip((p, q), optimizers, strict=True):
            each.grad = torch.randn(each.shape, generator=torch.Generator().manual_seed(t))
            optimizer.step()
        c = optimizers[1].state[q]["c"]
        values = c.clone()
        c.as_strided_(c.shape, (18, 1, 6, 2)).copy_(values)  # where it was, in the order of torch.channels_last
    assert torch.equal(p, q)

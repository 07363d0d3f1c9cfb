import hashlib
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

import downslope
from downslope import Optimizer, maximum, rule, scalar, where
from downslope.backends import cpu
from downslope.backends.cpu import kernel_source
from downslope.language.options import compose
from downslope.targets.arrays import interpret

RNG = np.random.default_rng(1)
MILLION = 1_000_000


def any_bits(count, dtype=np.float32):
    """Every bit pattern of a finite number is as likely as any other, and some that are special come first."""
    bits = {np.float32: np.uint32, np.float64: np.uint64}[dtype]
    values = RNG.integers(0, np.iinfo(bits).max, count, bits, endpoint=True).view(dtype)
    values[~np.isfinite(values)] = 0
    limits = np.finfo(dtype)
    edge = [
        limits.smallest_subnormal,
        limits.tiny,
        limits.eps,
        np.sqrt(limits.tiny),
        1,
        np.sqrt(limits.max),
        limits.max,
    ]
    special = np.array([0.0, *edge, *np.nextafter(np.array(edge[:-1], dtype), dtype(np.inf))], dtype)
    special = np.concatenate([special, -special])
    values[: special.size] = special
    return values


def ulps(a, b):
    """How many representable numbers lie between two, element by element; nan only agrees with nan."""
    assert a.dtype == b.dtype
    bits = {4: np.int32, 8: np.int64}[a.dtype.itemsize]
    whole = [v.view(bits).astype(object if bits is np.int64 else np.int64) for v in (a, b)]
    first, second = (np.where(v < 0, np.iinfo(bits).min - v, v) for v in whole)
    nan = np.isnan(a), np.isnan(b)
    np.testing.assert_array_equal(*nan)
    return np.where(nan[0], 0, abs(first - second))


# The kernel against the interpretation of the same program

RULES = {
    "sgd": (downslope.sgd, {}),
    "momentum": (downslope.momentum, {}),
    "nesterov": (downslope.nesterov, {}),
    "adagrad": (downslope.adagrad, {}),
    "rmsprop": (downslope.rmsprop, {}),
    "adam": (downslope.adam, {}),
    "adam-simple": (downslope.adam, {"bias_correction": False}),
}
ALL = {"weight_decay": 0.1, "maximize": True, "averaging": 0.9, "max_norm": True}  # a third of the norm
DECOUPLED = {"weight_decay": 0.1, "decoupled": True}
CASES = [
    *((name, {}) for name in RULES),
    *((name, ALL) for name in RULES if name != "adam-simple"),
    *((name, DECOUPLED) for name in ("sgd", "nesterov", "adam")),
]


@pytest.fixture(scope="module")
def pool():
    values = any_bits(MILLION)
    with np.errstate(all="ignore"):
        squares = values**2
    assert np.isinf(squares).any()
    assert ((squares == 0) & (values != 0)).any()
    assert ((abs(values) < np.finfo(np.float32).tiny) & (values != 0)).any()
    return values


@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{name}-{'-'.join(options)}" for name, options in CASES])
def test_a_million_hard_values_within_two_units_in_the_last_place(name, options, pool):
    formula, flags = RULES[name]
    used = {option: bool(value) for option, value in options.items()}
    program = compose(formula, **used, **flags, stored_ahead=formula.ahead is not None)
    arrays = {key: RNG.permutation(pool) for key in program.arrays}
    if "mu" not in formula.hyperparameters:  # a mean of squares is not negative; a few are here, to see nan
        for key in {"v", "cache"} & set(arrays):
            arrays[key][1000:] = abs(arrays[key][1000:])
    norm = float(np.linalg.norm(arrays["dx"].astype(np.float64)))
    weights = arrays["x"].copy()
    optimizer = Optimizer(
        weights, formula, lr=0.3, **flags, **options | ({"max_norm": norm / 3} if options == ALL else {})
    )
    weights[...] = arrays["x"]  # creation moves the weights to the point ahead
    for state, by_name in optimizer.state.items():
        by_name["0"][...] = arrays[state]
    optimizer.step(arrays["dx"])

    settings = {**optimizer.groups[0], "t": 1, "grad_scale": 1 / 3}
    settings["mu next"] = settings.get("mu")
    expected = interpret(program, arrays, settings)
    found = {"x": weights, **{state: by_name["0"] for state, by_name in optimizer.state.items()}}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert ulps(found[key], value).max() <= 2, key


@pytest.mark.parametrize("name", RULES)
def test_doubles_agree_too(name):
    formula, flags = RULES[name]
    program = compose(formula, **flags)
    arrays = {key: any_bits(10_000, np.float64) for key in program.arrays}
    weights = arrays["x"].copy()
    optimizer = Optimizer(weights, formula, **flags, lookahead="explicit", lr=0.3)
    for state, by_name in optimizer.state.items():
        by_name["0"][...] = arrays[state]
    optimizer.step(arrays["dx"])
    expected = interpret(program, arrays, {**optimizer.groups[0], "t": 1})
    assert ulps(weights, expected["x"]).max() <= 2


@pytest.mark.parametrize("name", RULES)
def test_nan_and_infinity_end_up_in_the_same_places(name):
    formula, flags = RULES[name]
    program = compose(formula, **flags)
    special = np.float32([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1e-45, 3e38])
    grid = np.meshgrid(*[special] * len(program.arrays), indexing="ij")
    arrays = {key: axis.ravel().copy() for key, axis in zip(program.arrays, grid, strict=True)}
    weights = arrays["x"].copy()
    optimizer = Optimizer(weights, formula, **flags, lookahead="explicit")
    for state, by_name in optimizer.state.items():
        by_name["0"][...] = arrays[state]
    optimizer.step(arrays["dx"])
    expected = interpret(program, arrays, {**optimizer.groups[0], "t": 1})
    assert ulps(weights, expected["x"]).max() <= 2


# Rules of one's own


@rule
def every_word(x, dx, v=0.5, *, t, lr=0.1):
    v = downslope.maximum(v, downslope.exp(-abs(dx))) + downslope.minimum(dx, 0) * downslope.tanh(dx)
    lift = downslope.log(1 + dx**4) + downslope.sqrt(abs(v)) ** 0.5 - downslope.sign(dx) * dx**3
    flat = ((dx > 0.5) | ~(x <= 0)) & (v != 0)
    return where(flat, x - lr * lift, where(t == 1, x + 1, -x)), v


@rule
def mixed_conditions(x, dx, v=1.0, *, t, lr=0.25):
    late = t > 1
    up = dx > 0
    return x - where((up | late) & (v > 0.5), lr, -lr), where(up & ~late, v, -v)


@rule
def swaps(x, dx, v="x", w=3):
    return v + dx, w, x


@rule
def fills(x, dx, v=0, *, lr=0.5):
    return -0.0, lr * 2


@rule
def untouched(x, dx, v=0):
    return x, v


@rule
def counts_itself(x, dx, total=scalar(1.0), *, t, mu=0.5):
    total = where(t == 1, total * 2, total + mu)
    return x - dx / total, total


@rule
def swells(x, dx, *, t, lr=1.0):
    return x - lr * dx / maximum(t - 1, 0)


@rule
def root_of_a_negative(x, dx, *, t, lr=1.0):
    return x - lr * dx * (1 - t) ** 0.5


@rule
def too_large_for_float32(x, dx, *, lr=1e30):
    return x - lr * lr * dx


OWN = [swaps, fills, untouched, counts_itself, swells, root_of_a_negative, too_large_for_float32]


@pytest.mark.parametrize(
    ("formula", "dtype"),
    [
        *((formula, dtype) for formula in (every_word, mixed_conditions) for dtype in (np.float32, np.float64)),
        *((formula, np.float32) for formula in OWN),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_rule_of_ones_own_computes_its_formula(formula, dtype):
    program = compose(formula)
    x = RNG.standard_normal(50).astype(dtype)
    values = {
        "x": x.copy(),
        **{state: x.copy() if v == "x" else np.full(50, v, dtype) for state, v in formula.states.items()},
    }
    scalars = dict(formula.scalar_states)
    optimizer = Optimizer(x, formula)
    for t in (1, 2, 3):
        dx = RNG.standard_normal(50).astype(dtype)
        dx[:2] = 0.0, -0.0
        optimizer.step(dx)
        values = interpret(program, {**values, "dx": dx}, {**formula.hyperparameters, **scalars, "t": t})
        scalars = {state: values.pop(state) for state in scalars}
        found = {"x": x, **{state: by_name["0"] for state, by_name in optimizer.state.items()}}
        for key, value in values.items():
            # exp, log, tanh and powers come from another library there; two of them follow one another here
            tolerance = 8 * np.finfo(dtype).eps if formula is every_word else 0
            np.testing.assert_allclose(found[key], value, rtol=tolerance, atol=tolerance, err_msg=key)
            if formula is every_word:  # go on from the same values
                found[key][...] = value


def test_coefficients_that_are_not_finite_warn_of_nothing():
    x = np.ones(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Optimizer(x, swells).step(np.ones(3))
    np.testing.assert_array_equal(x, -np.inf)


def test_a_rule_without_a_name_of_its_own():
    x = np.ones(3)
    Optimizer(x, rule(lambda x, dx, *, lr=0.5: x - lr * dx)).step(np.ones(3))
    np.testing.assert_array_equal(x, 0.5)


# Names that mean something in the generated text

TAKEN = [
    "row row_ slots slots_ coefficients coefficients_ begin_ end_ s i i_ first_ last_ x_ dx_ at_x_ load_x_ store_x_",
    "load store access update float32 float64 np njit range max min abs int float inf inf_ nan nan_ numba math",
    "sqrt sqrt_ exp log tanh sin cos sign maximum minimum c0 c1 c0_ r0 new_x new_v v_ void body this",
    "match case type print len sum pow names rows program total scale path threads_ group_ λ",
]


@pytest.mark.parametrize("names", TAKEN)
def test_a_name_may_be_anything(names):
    """Every hyperparameter has a value of its own, and so does every way to confuse two of them."""
    names = names.split()
    arguments = ", ".join(f"{name}=1.0" for name in names)
    sum_ = " + ".join(f"{name} * dx" for name in names)
    check = " + ".join(f"abs_({name} * x)" for name in names)
    scope = {"abs_": abs, "root": downslope.sqrt, "larger": downslope.maximum, "signum": downslope.sign}
    text = f"""
    def named(x, dx, v=0.0, *, {arguments}):
        v = v + {sum_} + root(dx) - root(dx)
        return larger(x, signum(dx)) - ({check}) * ({" + ".join(f"{name}**2" for name in names)}), v
    """
    exec(textwrap.dedent(text), scope)
    formula = rule(scope["named"])
    values = {name: 1.5 + k for k, name in enumerate(names)}
    x, dx = np.full(3, 0.5), np.full(3, 2.0)
    expected = formula(x, dx, **values)
    optimizer = Optimizer([x, np.ones(2)], formula, **values)
    optimizer.step([dx, np.ones(2)])
    np.testing.assert_allclose(x, expected[0], rtol=1e-14)
    np.testing.assert_allclose(optimizer.state["v"]["0"], expected[1], rtol=1e-14)


def test_states_and_local_names_may_be_anything():
    @rule
    def named(x, dx, slots=1.0, max=2.0, i=3.0, float64=4.0, at_x_=5.0):
        update = slots + dx
        range = max * i
        first_ = float64 - at_x_
        return x - update * range * first_, update, range, first_, dx, i

    x = np.array([1.0, 2.0])
    dx = np.array([0.5, -0.5])
    expected = named(x, dx)
    optimizer = Optimizer(x, named)
    optimizer.step(dx)
    np.testing.assert_array_equal(x, expected[0])
    for state, value in zip(named.states, expected[1:], strict=True):
        np.testing.assert_array_equal(optimizer.state[state]["0"], value)


def test_a_hyperparameter_named_like_the_next_value_of_another():
    @rule
    def ahead(x, dx, v=0, *, mu=0.9, mu_next=0.5):
        v = mu * v - mu_next * dx
        return x + v, v

    ahead.lookahead(lambda v, *, mu: mu * v)
    ends = []
    for lookahead in ("stored", "explicit"):
        x = np.array([1.0])
        optimizer = Optimizer(x, ahead, lookahead=lookahead)
        for _ in range(5):
            with optimizer.at_lookahead():
                dx = 0.5 * x
            optimizer.step(dx)
        with optimizer.at_weights():
            ends.append(x[0])
    assert ends[0] == pytest.approx(ends[1], rel=1e-14)


# Threads


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_change_no_bit(dtype):
    sizes = [3, 300_001, 0, 1 << 20, 77_777, 65_536]
    start = [RNG.standard_normal(size).astype(dtype) for size in sizes]
    gradients = [[RNG.standard_normal(size).astype(dtype) for size in sizes] for _ in range(2)]
    ends = []
    for threads in (1, 2, 3):
        params = [array.copy() for array in start]
        optimizer = Optimizer(params, downslope.adam, max_norm=0.5, nonfinite="skip", threads=threads)
        for dx in gradients:
            optimizer.step(dx)
        ends.append([array.tobytes() for array in params])
    assert ends[0] == ends[1] == ends[2]
    assert ends[0] != [array.tobytes() for array in start]


def test_every_weight_of_a_shared_launch_is_updated_once():
    x = np.zeros(3_000_001, np.float32)
    optimizer = Optimizer(x, downslope.sgd, lr=1.0, threads=2)
    dx = np.ones_like(x)
    for _ in range(5):
        optimizer.step(dx)
    np.testing.assert_array_equal(x, -5)


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 64, 5000, 10**9])
def test_every_thread_gets_one_piece_and_has_something_to_do(threads, monkeypatch):
    shared, share_out = [], cpu.threads.share_out

    def noted(work, pieces, *arguments, **options):
        shared.append(pieces)
        share_out(work, pieces, *arguments, **options)

    monkeypatch.setattr(cpu.threads, "share_out", noted)
    x = np.zeros(300_001, np.float32)
    Optimizer(x, downslope.sgd, lr=1.0, threads=threads).step(np.ones_like(x))
    np.testing.assert_array_equal(x, -1)
    assert [len(pieces) for pieces in shared] == ([] if threads == 1 else [min(threads, 19)])


def test_two_threads_step_two_optimizers():
    params = [np.zeros(400_000, np.float32), np.zeros(400_000, np.float32)]
    optimizers = [Optimizer(x, downslope.momentum, lr=1.0, threads=2) for x in params]
    dx = np.ones(400_000, np.float32)

    def work(optimizer):
        for _ in range(20):
            optimizer.step(dx)

    run_together(work, optimizers)
    alone = np.zeros(3, np.float32)
    optimizer = Optimizer(alone, downslope.momentum, lr=1.0)
    for _ in range(20):
        optimizer.step(dx[:3])
    np.testing.assert_array_equal(params[0], alone[0])
    np.testing.assert_array_equal(params[1], alone[0])


def test_two_threads_step_one_optimizer():
    x = np.zeros(300_000)
    optimizer = Optimizer(x, downslope.sgd, lr=1.0, threads=2)
    dx = np.ones_like(x)
    run_together(lambda _: [optimizer.step(dx) for _ in range(25)], [0, 1])
    assert optimizer.t == 50
    np.testing.assert_array_equal(x, -50)


def test_two_threads_make_the_same_kernel_at_once():
    @rule
    def brand_new(x, dx, *, lr=0.125):
        return x - lr * dx * 3

    ends = []

    def work(_):
        x = np.zeros(2)
        Optimizer(x, brand_new).step(np.ones(2))
        ends.append(x[0])

    run_together(work, [0, 1])
    assert ends == [-0.375, -0.375]


def run_together(work, arguments):
    """Call `work` with each argument, each in a thread of its own, all at once; errors are raised here."""
    start = threading.Barrier(len(arguments))
    errors = []

    def thread(argument):
        start.wait()
        try:
            work(argument)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=thread, args=(argument,)) for argument in arguments]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if errors:
        raise errors[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_after_a_shared_launch_goes_on():
    script = """
    import os, signal, numpy as np, downslope
    x = np.zeros(600_000, np.float32)
    optimizer = downslope.Optimizer(x, downslope.sgd, lr=1.0, threads=2)
    dx = np.ones_like(x)
    optimizer.step(dx)
    child = os.fork()
    if not child:
        signal.alarm(20)
        optimizer.step(dx)
        os._exit(0 if (x == -2).all() else 1)
    _, status = os.waitpid(child, 0)
    optimizer.step(dx)
    assert status == 0 and (x == -2).all(), status
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)], check=True, timeout=900)


# The generated file


def test_kernels_of_one_pass_are_what_they_were():
    """To the byte. Whoever means to change them times them before and after, and writes down the new digest."""
    programs = [compose(chosen, **flags) for chosen, flags in RULES.values()]
    texts = [kernel_source(p, [scalar] * len(p.arrays)) for p in programs for scalar in ("float32", "float64")]
    text = "".join(texts).replace(f"downslope {downslope.__version__}", "downslope")
    assert hashlib.blake2b(text.encode(), digest_size=8).hexdigest() == "710b3ff8a4dd8b7c"


def test_the_source_reads_like_the_rule_and_stands_in_a_file():
    text = kernel_source(compose(downslope.momentum), ["float32"] * 3)
    for line in ("new_v = mu * v - lr * dx", "momentum", "float32"):
        assert line in text
    compile(text, "momentum", "exec")
    Optimizer(np.ones(1, np.float32), downslope.momentum, lookahead="explicit")
    files = list(Path(os.environ["DOWNSLOPE_CACHE_DIR"]).glob("_downslope_momentum_float32_*.py"))
    assert text in [file.read_text() for file in files]

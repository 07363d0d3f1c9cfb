"""Kernels for GPUs, compiled for devices that need not be there: what their machine code is made of."""

import collections
import re
import subprocess

import pytest

import downslope
from downslope import cos, exp, expm1, log, maximum, minimum, rule, rules, sign, sin, sqrt, tanh
from downslope.backends import (
    source_cache,
    triton,
    triton_coefficients,
    triton_functions,
    triton_kernel,
    triton_pieces,
    triton_staged,
)
from downslope.backends.coded import codes_of
from downslope.backends.cpu import SIZES
from downslope.backends.triton_survey import survey_source
from downslope.language.options import compose
from downslope.language.program import in_order
from downslope.targets.codes import CODES

tt = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

RULES = {each.name: each for each in rules.RULES}
THREADS = 32 * triton.WARPS
EIGHT = ["float32", "float32", "int8", "uint8"]


@pytest.fixture(autouse=True, scope="module")
def compiler(tmp_path_factory):
    """Triton compiles, and keeps what it makes in a folder of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRITON_INTERPRET", raising=False)
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


def compiled(function, types, constants, capability, warps=triton.WARPS, registers=None):
    """The instructions of a function in PTX and how often each stands there, and the text."""
    aligned = {(k,): [["tt.divisibility", 16]] for k, kind in enumerate(types.values()) if kind.startswith("*")}
    source = ASTSource(function, types | dict.fromkeys(constants, "constexpr"), constants, aligned)
    options = {**triton.OPTIONS, "num_warps": warps, "maxnreg": registers}
    text = tt.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["ptx"]
    return collections.Counter(re.findall(r"^\s*(?:@!?%p\d+\s+)?([a-z]\w*\.[\w.:]+)", text, re.MULTILINE)), text


def types_of(program, storages):
    """The types of what `update` is given."""
    types = {"blocks_": "*i64", "slots_": "*i64", "coefficients_": "*fp64" if "float64" in storages else "*fp32"}
    return types | {f"given_{k}_": "fp32" for k in range(triton_kernel.numbers_of(program, storages))}


def assert_sound(program, storages, rounding="nearest", capability=90, source=triton_kernel.GIVEN):
    """Whole blocks are read and written 16 bytes at a time, from addresses of 64 bits; nothing is rounded otherwise."""
    module, types = triton_kernel.load(program, storages, rounding), types_of(program, storages)
    block, warps, registers = triton_kernel.shape_of(storages)
    constants = {"BLOCK_": block, "FROM_": source if "given_0_" in types else triton_kernel.TABLE}
    instructions, text = compiled(module.update, types, constants, capability, warps, registers)
    assert f".target sm_{capability}" in text
    stored = dict(zip(program.arrays, storages, strict=True))
    read = [e.value for e in program.expressions if e.op == "input" and e.from_arrays]
    written = [name for name, e in program.outputs.items() if e.value != name]
    each = block // (32 * warps)  # weights of a thread
    codes = [name for name, storage in stored.items() if storage in CODES]
    pieces = {name: each * SIZES[storage] // 16 for name, storage in stored.items()}  # none for codes: 8 of a thread
    extra = pieces["x"] if rounding == "compensated" else 0
    vector = "v2.b64" if "float64" in storages else "v4.b32"
    assert instructions[f"ld.global.{vector}"] == sum(pieces[name] for name in read) + extra
    assert instructions[f"st.global.{vector}"] == sum(pieces[name] for name in written) + extra
    assert instructions["ld.global.v2.b32"] == len(set(codes) & set(read))
    assert instructions["st.global.v2.b32"] == len(set(codes) & set(written))
    assert instructions["redux.sync.max.u32"] == 2 * len(set(codes) & set(written))  # the largest of a block
    addresses = re.findall(r"(?:ld|st)\.global\..*\[\s*(%[a-z]+)", text)
    assert len(addresses) >= sum(count for name, count in instructions.items() if re.match(r"(ld|st)\.global", name))
    assert set(addresses) == {"%rd"}
    done = {e.op for e in program.body}
    inexact = {"exp", "expm1", "log", "tanh", "sin", "cos", "pow"} & done
    width = "f64" if "float64" in storages else "f32"
    per_thread = 2 * each  # once unmasked and once masked
    for op, name in (("div", f"div.rn.{width}"), ("sqrt", f"sqrt.rn.{width}")):
        due = per_thread * sum(e.op == op for e in program.body)
        assert instructions[name] == due if not inexact else instructions[name] >= due
    if not inexact:
        assert not [name for name in instructions if name.startswith(("fma", "mad.f")) or "approx" in name]
        assert width == "f64" or not [name for name in instructions if "f64" in name]
        assert not [name for name in instructions if ".ftz" in name]


@pytest.mark.parametrize("capability", [80, 90])
def test_single_precision(capability):
    assert_sound(compose(downslope.adam), ["float32"] * 4, capability=capability)


@pytest.mark.parametrize("capability", [80, 90])
def test_states_in_eight_bits(capability):
    program = compose(downslope.adam)
    assert_sound(program, EIGHT, capability=capability)
    assert_sound(program, ["bfloat16", "bfloat16", "int8", "uint8"], "stochastic", capability)
    assert_sound(compose(downslope.rmsprop), [*EIGHT[:2], "uint8"], capability=capability, source=triton_kernel.TABLE)


@pytest.mark.parametrize("capability", [80, 90])
def test_a_block_of_codes_waits_for_no_other_and_stays_in_registers(capability, tmp_path):
    """In whole blocks nothing is handed over by shared memory; in masked ones it may be."""
    program = compose(downslope.adam)
    module, types = triton_kernel.load(program, EIGHT), types_of(program, EIGHT)
    block, warps, _ = triton_kernel.shape_of(EIGHT)  # a limit, which is not kept to here, would spill some on purpose
    assert (block, warps) == (256, 1)
    _, text = compiled(module.update, types, {"BLOCK_": block, "FROM_": triton_kernel.GIVEN}, capability, warps)
    older = re.sub(r"^\.version .*$", ".version 8.0", text, flags=re.MULTILINE)  # which any assembler reads
    (tmp_path / "text").write_text(older)
    target = re.search(r"^\.target (\w+)", text, re.MULTILINE)[1]
    assembler = [tt.knobs.nvidia.ptxas.path, "-v", "--gpu-name", target, "-o", tmp_path / "code"]
    said = subprocess.run([*assembler, tmp_path / "text"], capture_output=True, text=True, check=True).stderr
    assert " 0 bytes spill stores, 0 bytes spill loads" in said
    assert int(re.search(r"Used (\d+) registers", said)[1]) <= 128
    whole = max(text.split("st.global.v2.b32")[0].split("ld.global.v4.b32"), key=len)
    assert "div.rn.f32" in whole
    assert not re.search(r"\bbar\.sync|shared", whole)


def test_double_precision():
    assert_sound(compose(downslope.lion), ["float64"] * 3)


def test_halves_with_everything_around_the_formula():
    program = compose(
        downslope.adam, averaging=True, cautious=True, max_norm=True, weight_decay=True, decoupled=True, maximize=True
    )
    mixed = ["bfloat16", "bfloat16", "float32", "float32", "float32"]
    assert_sound(program, mixed, rounding="compensated", capability=80)


def test_halves_rounded_at_random():
    assert_sound(compose(downslope.rmsprop), ["bfloat16"] * 3, rounding="stochastic")
    assert_sound(compose(downslope.rmsprop), ["float16"] * 3)


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_a_survey_reads_whole_blocks_16_bytes_at_a_time_and_adds_up_in_a_fixed_order(storage):
    module = source_cache.load(f"survey_{storage}_triton", survey_source(storage))
    pointers = {"blocks": "*i64", "slots": "*i64", "scale": "*fp64", "found": "*fp64"}
    constants = {"WIDTH": 6, "COLUMN": 3, "BLOCK": triton.BLOCK}
    instructions, text = compiled(module.look, pointers, constants, 80)
    assert instructions["ld.global.v4.b32"] >= triton.BLOCK * SIZES[storage] // THREADS // 16
    pointers = {"found": "*fp64", "count": "*i64", "limit": "*fp64", "result": "*fp64", "factor": "*fp32"}
    more, last = compiled(module.together, pointers, {"BLOCK": triton.BLOCK}, 80)
    assert more["st.global.b64"] == 2
    assert more["sqrt.rn.f64"] == more["div.rn.f64"] == more["st.global.b32"] == 1
    assert not re.search(r"^\s*(@!?%p\d+\s+)?(atom|red)\.", text + last, re.MULTILINE)


def staged(program, storages):
    """The functions of a rule over whole tensors, and their module."""
    functions = triton_staged.staged(program, storages)
    return functions.turns, triton_staged.load(program, storages, functions)


def staged_code(module, program, turn, tile, capability=90):
    """The instructions of one, as `compiled`."""
    constants = {"TALL_": tile[0], "WIDE_": tile[1], "FROM_": triton_kernel.GIVEN}
    types = types_of(program, ["float32"])
    warps = triton_staged.shape_of_passes(["float32"]).warps if turn.startswith("pass") else triton.WARPS
    instructions, text = compiled(getattr(module, turn), types, constants, capability, warps)
    assert f".target sm_{capability}" in text
    assert not re.search(r"^\s*(@!?%p\d+\s+)?(atom|red)\.", text, re.MULTILINE)
    assert set(re.findall(r"(?:ld|st)\.global\..*\[\s*(%[a-z]+)", text)) == {"%rd"}
    assert not [name for name in instructions if name.startswith(("fma", "mad.f")) or "approx" in name]
    return instructions


@pytest.mark.parametrize(("capability", "tile"), [(80, triton_pieces.FLAT), (90, triton_pieces.WIDE)])
def test_passes_read_whole_pieces_16_bytes_at_a_time(capability, tile):
    """LAMB sums up squares while it writes its moments; Adafactor's last pass goes by rows and columns."""
    program, name = (
        (compose(downslope.lamb), "pass_0") if tile == triton_pieces.FLAT else (compose(downslope.adafactor), "pass_2")
    )
    turns, module = staged(program, ["float32"] * len(program.arrays))
    assert name in [turn.name for turn in turns]
    found = staged_code(module, program, name, tile, capability)
    each = triton_pieces.TILE // (32 * triton_staged.shape_of_passes(["float32"]).warps)
    assert each == 4
    arrays, stores = (4, 2) if name == "pass_0" else (2, 1)
    assert found["ld.global.v4.b32"] == arrays
    assert found["st.global.v4.b32"] == stores
    if name == "pass_0":
        assert found["div.rn.f32"] == 2 * 3 * each
        assert found["mul.rn.f64"] == 2 * 2 * each  # squares, of what is in single precision
        assert found["st.global.b64"] == 2  # a sum of each


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lars", "lamb", "adamp", "stable_adamw", "mars", "cautious_adamw", "adafactor"])
def test_everything_of_rules_over_whole_tensors_compiles(name):
    program = compose(getattr(downslope, name))
    turns, module = staged(program, ["float32"] * len(program.arrays))
    tiles = [triton_pieces.FLAT, *((triton_pieces.WIDE, triton_pieces.TALL) if program.of_matrices else ())]
    for turn in turns:
        for tile in tiles if turn.shared == triton_functions.PASSES else tiles[:1]:
            assert staged_code(module, program, turn.name, tile)


@pytest.mark.parametrize("capability", [80, 90])
def test_coefficients_are_worked_out_in_double_precision(capability):
    """By single operations rounded as IEEE 754 says, at addresses of 64 bits; in single precision they are stored."""
    program = compose(downslope.radam, max_norm=True)
    module = triton_coefficients.load(program, "float32", triton_kernel.slot_columns(["float32"] * 4, "stochastic"))
    types = {
        "clocks_": "*i64",
        "scalars_": "*fp64",
        "known_": "*i64",
        "left_out_": "*fp64",
        "slots_": "*i64",
        "coefficients_": "*fp32",
    }
    instructions, text = compiled(module.work_out, types, {"SLOTS_": triton_coefficients.SLOTS}, capability)
    assert f".target sm_{capability}" in text
    per_thread = triton_coefficients.SLOTS // THREADS
    due = {e.op for c in (*program.coefficients, *program.scalar_outputs.values()) for e in in_order([c])}
    assert {"div", "sqrt", "pow"} <= due
    assert instructions["div.rn.f64"] >= per_thread
    assert instructions["sqrt.rn.f64"] >= per_thread
    assert instructions["cvt.rn.f32.f64"] >= len(program.coefficients) * per_thread
    assert not [name for name in instructions if re.match(r"(div|sqrt|add|sub|mul|fma|rcp|ex2|lg2)\S*\.f32", name)]
    addresses = re.findall(r"(?:ld|st)\.global\..*\[\s*(%[a-z]+)", text)
    assert set(addresses) == {"%rd"}
    assert not re.search(r"^\s*(@!?%p\d+\s+)?(atom|red)\.", text, re.MULTILINE)


@rule
def every_word(x, dx, v=0.5, *, lr=0.1):
    a = exp(-abs(dx)) + expm1(-abs(dx)) + tanh(dx) * sign(x) + abs(x) ** 1.5
    return x - lr * sqrt(log(1 + abs(a))) + cos(x) * sin(x), maximum(a, v) - minimum(a, v) / x


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_are_those_of_the_device(dtype):
    assert_sound(compose(every_word), [dtype] * 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_every_rule(name):
    """In half precision, and what can be in eight bits."""
    program = compose(RULES[name])
    assert_sound(program, ["bfloat16"] * len(program.arrays), capability=80)
    if codes := codes_of(program):
        assert_sound(program, [codes.get(name, "float32") for name in program.arrays], source=triton_kernel.GIVEN)

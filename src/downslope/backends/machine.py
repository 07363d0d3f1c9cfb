"""Libraries of compiled functions: from their text to addresses, and to functions that Python can call.

A library is compiled as a whole when one of its functions is first needed, and its machine code is kept for the next
process, in the directory of generated code, under a digest of everything it depends on: its text, the text of what it
is compiled with, LLVM, Python and the processor.
"""

from __future__ import annotations

import ast
import ctypes
import functools
import hashlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from downslope.backends import compiler, instructions, source_cache

_log = logging.getLogger(__name__)
_lock = threading.RLock()

_CONVERTED = {"i64": ("i64", "PyLong_AsLongLong"), "double": ("double", "PyFloat_AsDouble")}
_OF_PYTHON = {
    "PyErr_BadArgument": "declare i32 @PyErr_BadArgument()",
    "PyErr_Occurred": "declare ptr @PyErr_Occurred()",
    "PyEval_RestoreThread": "declare void @PyEval_RestoreThread(ptr)",
    "PyEval_SaveThread": "declare ptr @PyEval_SaveThread()",
    "PyFloat_AsDouble": "declare double @PyFloat_AsDouble(ptr)",
    "PyLong_AsLongLong": "declare i64 @PyLong_AsLongLong(ptr)",
    "PyLong_FromLongLong": "declare ptr @PyLong_FromLongLong(i64)",
}
_FASTCALL = 0x0080


@dataclass(frozen=True)
class Way:
    """How a function is called.

    Attributes:
        python: Python calls it, with integers and floats.
        release: Without the interpreter's lock.
        objects: Python calls it with objects, whose identities it is given: its arguments are the number it is bound
            to, the address of the identities, and how many there are.
        address: Other compiled code calls it by its address.
        flags: How its sums may be written, "reassoc" or nothing.
    """

    python: bool = False
    release: bool = False
    objects: bool = False
    address: bool = False
    flags: str = ""


class Compiled:
    """A function of a library; calling it from Python is what `Way` has asked for."""

    def __init__(self, library: Library, name: str):
        self._library, self.name = library, name

    def __call__(self, *arguments: Any) -> int:
        """Call it."""
        return self.call(*arguments)

    @functools.cached_property
    def address(self) -> int:
        """Where its machine code is."""
        return self._library.address(self.name)

    @functools.cached_property
    def _method(self) -> _Method:
        address = self._library.address(f"{self.name}.python")
        method = _Method(self.name.encode(), address, _FASTCALL, None)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(method))  # Python's functions point to it, and may outlive this
        return method

    def bound(self, number: int = 0) -> Callable[..., int]:
        """The function as Python's own functions are, bound to this number."""
        new = ctypes.pythonapi.PyCFunction_NewEx
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p]
        function: Callable[..., int] = new(ctypes.addressof(self._method), number, None)
        return function

    @functools.cached_property
    def call(self) -> Callable[..., int]:
        """The function as Python's own functions are."""
        return self.bound()


class _Method(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("description", ctypes.c_char_p),
    )


class Library:
    """The compiled functions of a module.

    Example:
        library = Library(__file__)

        @library.function(python=True)
        def twice(a: int64) -> int64:
            return 2 * a

        twice.call(21)
    """

    def __init__(self, file: str):
        """Begin the library of the module in this file; nothing is compiled before it is needed."""
        self.file = Path(file)
        self._functions: dict[str, tuple[Way, dict[str, Any]]] = {}
        self._addresses: dict[str, int] = {}

    def function(
        self,
        *,
        python: bool = False,
        release: bool = False,
        objects: bool = False,
        address: bool = False,
        flags: str = "",
    ) -> Callable[[Any], Compiled]:
        """Make the function that follows one of the library; see `Way`."""

        def add(function: Any) -> Compiled:
            way = Way(python, release, objects, address, flags)
            self._functions[function.__name__] = way, function.__globals__
            return Compiled(self, function.__name__)

        return add

    def in_place(self, function: Any) -> Any:
        """Make a function of floats, which Python can call as it is, one that the library writes where it is called."""
        self._functions[function.__name__] = Way(), function.__globals__
        return function

    def address(self, name: str) -> int:
        """Where the machine code of a function is."""
        if not self._addresses:
            with _lock:
                if not self._addresses:
                    self._addresses = self._loaded()
        return self._addresses[name]

    def _loaded(self) -> dict[str, int]:
        import llvmlite.binding as llvm

        text = self.file.read_bytes()
        numbers = repr([*map(_numbers, {id(scope): scope for _, scope in self._functions.values()}.values())])
        depends = text + numbers.encode() + _basis() + _processor().encode()
        digest = hashlib.blake2b(depends, digest_size=12).hexdigest()
        name = f"_downslope_{self.file.stem.removeprefix('_downslope_')}_{digest}.o"
        code = _intact(source_cache.kept(name))
        if code is None:
            code = _machine_code(self._assembly(text.decode()))
            source_cache.keep(name, hashlib.blake2b(code).digest() + code)
            _log.debug("compiled %s", name)
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        names = [name for name, (way, _) in self._functions.items() if way.address]
        names += [f"{name}.python" for name, (way, _) in self._functions.items() if way.python or way.objects]
        found = {name: int(engine.get_function_address(name)) for name in names}
        engine.detach()  # it stays as long as the process
        return found

    def _assembly(self, text: str) -> str:
        trees = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
        functions, callers = [], []
        for name, (way, scope) in self._functions.items():
            function = compiler.Function(name, trees[name], scope, way.address, way.flags)
            functions.append(function)
            if way.python or way.objects:
                callers.append(_caller(function, way))
        return "\n".join([compiler.assembly(functions), *callers, *_OF_PYTHON.values()])


def _intact(kept: bytes | None) -> bytes | None:
    size = hashlib.blake2b().digest_size
    return kept[size:] if kept and hashlib.blake2b(kept[size:]).digest() == kept[:size] else None


def _caller(function: compiler.Function, way: Way) -> str:
    """The text of a function that Python can call."""
    name = function.name
    lines = [f"define ptr @{name}.python(ptr %self, ptr %objects, i64 %count) nounwind {{"]
    if way.objects:
        lines += [
            "  %number = call i64 @PyLong_AsLongLong(ptr %self)",
            "  %identities = ptrtoint ptr %objects to i64",
        ]
        values = ["i64 %number", "i64 %identities", "i64 %count"]
    else:
        kinds = [instructions.machine_type(kind) for _, kind in function.arguments]
        lines += [
            f"  %right = icmp eq i64 %count, {len(kinds)}",
            "  br i1 %right, label %convert, label %wrong",
            "wrong:",
            "  call i32 @PyErr_BadArgument()",
            "  br label %failed",
            "failed:",
            "  ret ptr null",
            "convert:",
        ]
        values = []
        for k, kind in enumerate(kinds):
            to, convert = _CONVERTED[kind]
            lines += [
                f"  %at{k} = getelementptr ptr, ptr %objects, i64 {k}",
                f"  %object{k} = load ptr, ptr %at{k}",
                f"  %value{k} = call {to} @{convert}(ptr %object{k})",
            ]
            values.append(f"{to} %value{k}")
        lines += [
            "  %error = call ptr @PyErr_Occurred()",
            "  %fine = icmp eq ptr %error, null",
            "  br i1 %fine, label %work, label %failed",
            "work:",
        ]
    if way.release:
        lines.append("  %state = call ptr @PyEval_SaveThread()")
    nothing = function.returns == "void"
    lines.append(f"  {'' if nothing else '%found = '}call {function.returns} @{name}({', '.join(values)})")
    if way.release:
        lines.append("  call void @PyEval_RestoreThread(ptr %state)")
    lines += [f"  %result = call ptr @PyLong_FromLongLong(i64 {0 if nothing else '%found'})", "  ret ptr %result", "}"]
    return "\n".join(lines)


def _numbers(scope: dict[str, Any]) -> list[tuple[str, int | float]]:
    """The numbers that functions of a module find by name, wherever they come from."""
    return [(name, value) for name, value in sorted(scope.items()) if type(value) in (int, float)]


@functools.cache
def _basis() -> bytes:
    """The text of what is compiled with, and of what is compiled into kernels."""
    here = Path(__file__)
    names = "codes", "compiler", "instructions", "machine", "memory", "sums"
    files = [*(here.with_name(f"{name}.py") for name in names), here.parents[1] / "targets" / "codes.py"]
    return b"".join(file.read_bytes() for file in files)


@functools.cache
def _processor() -> str:
    """What machine code depends on besides its text."""
    import llvmlite.binding as llvm

    python = sys.implementation.cache_tag, object.__basicsize__
    features = llvm.get_host_cpu_features().flatten()
    return f"{llvm.llvm_version_info} {llvm.get_process_triple()} {llvm.get_host_cpu_name()} {features} {python}"


@functools.cache
def converts_halves() -> bool:
    """Whether the processor has instructions that convert half precision; LLVM would else call what may not exist."""
    import llvmlite.binding as llvm

    arm = llvm.get_process_triple().startswith(("aarch64", "arm64"))
    return arm or bool(llvm.get_host_cpu_features().get("f16c"))


@functools.cache
def _initialize() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for name in _OF_PYTHON:
        llvm.add_symbol(name, ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value)
    mathematics = ctypes.CDLL("ucrtbase" if os.name == "nt" else None)
    for name in instructions.OF_THE_C_LIBRARY:
        llvm.add_symbol(name, ctypes.cast(mathematics[name], ctypes.c_void_p).value)


def _target_machine() -> Any:
    """A new one: an engine takes it over, and frees it when an exception ends it early."""
    import llvmlite.binding as llvm

    _initialize()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        reloc="static" if target.name.startswith("x86") else "default",
        codemodel="jitdefault",
        jit=True,
    )


def _machine_code(text: str) -> bytes:
    """An object file, from LLVM's assembly."""
    import llvmlite.binding as llvm

    machine = _target_machine()
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = True
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    code: bytes = machine.emit_object(module)
    return code

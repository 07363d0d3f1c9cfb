"""What pages of rules are made of: tables, and formulas as blocks of code that run as they stand."""

import ast
import importlib
import inspect
import re

import downslope


def table(head, rows):
    """Lines of a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def formula(rule):
    """The lines of a rule, and of what else of `rules/` it is made of, below the line that imports the rest."""
    source = written(rule.function.__module__)
    parts, at = {rule.name: definition(source, rule.name)}, 0
    while at < len(parts):
        called = names(list(parts.values())[at])
        parts |= {name: found for name in sorted(called - parts.keys()) if (found := definition(source, name))}
        at += 1
    used = set().union(*map(names, parts.values()))
    words = sorted(used & {*downslope.__all__} - parts.keys())
    typed = "from typing import Any\n\n" if "Any" in used else ""
    return f"{typed}from downslope import {', '.join(words)}\n\n\n" + "\n\n\n".join(reversed(parts.values()))


def written(module):
    """The text of a module of rules, and of those that it imports from."""
    source = inspect.getsource(importlib.import_module(module))
    others = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    return "\n".join([source, *(written(name) for name in sorted(others) if name.startswith("downslope.rules."))])


def names(source):
    """The names that a piece of code takes from outside."""
    nodes = list(ast.walk(ast.parse(source)))
    given = {node.arg for node in nodes if isinstance(node, ast.arg)}
    given |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return read(source) - given


def read(source):
    """The names that a piece of code reads."""
    nodes = ast.walk(ast.parse(source))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def definition(source, name):
    """The lines of a module that define a name, without docstrings: of a rule that looks ahead both functions."""
    lines, found = source.splitlines(), []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            text = "\n".join(lines[first - 1 : node.end_lineno])
            found.append(re.sub(r'    """.*?"""\n+', "", text, flags=re.DOTALL))
        elif isinstance(node, ast.Assign) and name in [getattr(target, "id", None) for target in node.targets]:
            found.append(ast.get_source_segment(source, node))
    return "\n\n\n".join(found)


def use(rule, weights="model.parameters()"):
    """How to train with it."""
    return f"""```python
import downslope.keras, downslope.optax, downslope.torch

downslope.Optimizer(weights, downslope.{rule.name})  # NumPy
downslope.torch.Optimizer({weights}, downslope.{rule.name})  # PyTorch
downslope.keras.Optimizer(downslope.{rule.name})  # Keras
downslope.optax.optimizer(downslope.{rule.name})  # Optax
```
"""

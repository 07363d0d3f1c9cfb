"""A message of the library in the words of the command line: options for arguments, control characters as text."""

from __future__ import annotations

import re
from collections.abc import Iterable

from downslope.printable import printable

RENAMED = {"verdict_seeds": "--seeds", "learning_rates": "--lrs", "hyperparameters": "--set", "path": "PROBLEM"}
VALUE = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\[[^\]]*\]|[^\s,;:()\]]+[^\s,;:.()\]]|[^\s,;:.()\]]"""


def as_typed(message: str, arguments: Iterable[str]) -> str:
    r"""The message, with `name=value` and a `name:` at its start written as the options that a person types.

    Args:
        message: The message of an error or a remark.
        arguments: The names of the command's options as Python names, such as `batch_size`.

    Example:
        >>> as_typed("verdict_seeds=0: give more, or say task='regression' and impute=True", ["task", "impute"])
        "--seeds 0: give more, or say --task 'regression' and --impute"
    """
    options = {name: "--" + name.replace("_", "-") for name in arguments} | RENAMED
    names = "|".join(sorted(options, key=len, reverse=True))

    def option(found: re.Match[str]) -> str:
        name, value = found["name"], found["value"]
        return options[name] if value == "True" else f"{options[name]} {value}"

    message = re.sub(rf"(?<![\w'\"-])(?P<name>{names})=(?P<value>{VALUE})", option, message)
    message = re.sub(rf"^({names})(?=:| of )", lambda found: options[found[0]], message)
    return printable(message, keep="\n")

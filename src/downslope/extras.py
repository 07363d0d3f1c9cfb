"""What parts of downslope need beyond the bare library, and what to install where it is missing."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable


def require(what: str, extra: str, packages: Iterable[str], *, load: bool = False) -> None:
    """Raise an error that says what to install, if a package is missing.

    Args:
        what: What needs the packages, for the message.
        extra: The extra of downslope that brings them.
        packages: The modules, such as `"sklearn"` or `"plotly.offline"`.
        load: Import them, which finds broken ones too; otherwise only look whether they are there.

    Raises:
        ImportError: A package is missing or, with `load`, cannot be imported.

    Example:
        >>> require("A race", "lab", ["no_such_package"])
        Traceback (most recent call last):
        ...
        ImportError: A race needs no_such_package, which is not installed: pip install "downslope[lab]"
    """
    for name in packages:
        package = name.partition(".")[0]
        if not _there(package):
            raise ImportError(f'{what} needs {package}, which is not installed: pip install "downslope[{extra}]"')
        if load:
            try:
                importlib.import_module(name)
            except Exception as error:  # a broken installation may raise anything
                raise ImportError(
                    f"{what} needs {package}, which cannot be imported ({type(error).__name__}: {error}): "
                    f'pip install --force-reinstall "downslope[{extra}]"'
                ) from error


def _there(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False

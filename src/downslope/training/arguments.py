"""What a constructor takes without naming it: the options of every optimizer, and what all of a framework's take.

Such a constructor names its own arguments and ends in `*more, **options`; `takes` says what these stand for. They are
then in its signature, may be given by place where their framework allows that, and arrive by name, all of them.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter
from typing import Any, TypeVar, cast

from downslope.language.options import DEFAULTS, NAMES

Function = TypeVar("Function", bound=Callable[..., Any])

_VARIABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def keywords(defaults: Mapping[str, Any]) -> list[Parameter]:
    """Keyword-only parameters with these defaults."""
    return [Parameter(name, Parameter.KEYWORD_ONLY, default=default) for name, default in defaults.items()]


def every_option(*, but: Iterable[str] = ()) -> list[Parameter]:
    """The options of every optimizer, but for some, as parameters."""
    return keywords({name: DEFAULTS[name] for name in NAMES if name not in but})


def takes(*more: Parameter, rest: str = "") -> Callable[[Function], Function]:
    """A decorator for a function that takes these parameters besides those that it names.

    The function gets its own arguments, and by keyword all others, with their defaults where they are not given. One of
    `more` that the function names itself is its own, and stands where it has it, or, keyword-only, where `more` has it.

    Args:
        *more: The parameters.
        rest: What the signature calls further arguments by keyword, which reach the function too; by default there are
            none, and other names are refused with a TypeError that says which there are.

    Example:
        >>> import inspect
        >>> @takes(*keywords({"maximize": False, "fused": None}))
        ... def start(lr=0.1, **options):
        ...     return lr, options
        >>> inspect.signature(start)
        <Signature (lr=0.1, *, maximize=False, fused=None)>
        >>> start(0.5, fused=True)
        (0.5, {'maximize': False, 'fused': True})
        >>> start(maximise=True)
        Traceback (most recent call last):
        TypeError: start has no argument 'maximise'; it has lr, maximize, fused; did you mean maximize?
    """

    def decorate(function: Function) -> Function:
        signature = _signature(function, more, rest)

        @functools.wraps(function)
        def complete(*args: Any, **named: Any) -> Any:
            owner = type(args[0]).__name__ if function.__name__ == "__init__" else function.__name__
            if not rest:
                _refuse_unknown(owner, named, [name for name in signature.parameters if name != "self"])
            try:
                bound = signature.bind(*args, **named)
            except TypeError as error:
                raise TypeError(f"{owner}: {error}") from None
            bound.apply_defaults()
            given = dict(bound.arguments)
            return function(**given.pop(rest, {}), **given)

        complete.__signature__ = signature  # type: ignore[attr-defined]
        return cast(Function, complete)

    return decorate


def _signature(function: Callable[..., Any], more: tuple[Parameter, ...], rest: str) -> inspect.Signature:
    own = [p for p in inspect.signature(function).parameters.values() if p.kind not in _VARIABLE]
    its = {p.name: p for p in own}
    later = [its.get(p.name, p) for p in more if p.kind is Parameter.KEYWORD_ONLY or p.name not in its]
    later += [Parameter(rest, Parameter.VAR_KEYWORD)] if rest else []
    return inspect.Signature(sorted([*(p for p in own if p not in later), *later], key=lambda p: p.kind))


def _refuse_unknown(owner: str, named: Mapping[str, Any], known: list[str]) -> None:
    for name in named:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise TypeError(f"{owner} has no argument {name!r}; it has {', '.join(known)}{hint}")

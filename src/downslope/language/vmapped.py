"""What JAX's `vmap` makes of a factorisation: one matrix after another, and only where it is wanted.

LAPACK in JAX shares a stack of matrices among the threads of XLA and waits for them on one of these threads. Where a
program factorises several stacks, each of its threads can come to wait so, and it stands still for ever; see
docs/decisions.md. And a `cond` of which the condition is one for each lane computes both things for all lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def one_by_one(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of a JAX array that `vmap`, on a processor, calls for one array after another.

    Derivatives are those of the function.

    Args:
        function: It gives one array.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> jax.vmap(one_by_one(jnp.linalg.det))(jnp.array([[[2.0]], [[3.0]]]))
        Array([2., 3.], dtype=float32)
    """
    from jax import lax, vmap
    from jax.custom_batching import custom_vmap

    @custom_vmap
    def one(a: Any) -> Any:
        return function(a)

    @one.def_vmap
    def _(size: int, batched: Sequence[bool], stack: Any) -> tuple[Any, bool]:
        def mapped(stack: Any) -> Any:
            return lax.map(one, stack)

        return lax.platform_dependent(stack, cpu=mapped, default=vmap(function)), True

    return _differentiable(one, function)


def choose(condition: Any, a: Callable[..., Any], b: Callable[..., Any], operands: Sequence[Any]) -> Any:
    """One of two arrays alike, of which only the one wanted is computed: of `vmap` too, in each lane.

    Args:
        condition: A traced truth value.
        a: What is computed of the operands if it is true.
        b: What is computed if it is not.
        operands: Arrays, all that depends on a lane among them.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> jax.vmap(lambda x: choose(x > 2, lambda x: 10 * x, lambda x: x, [x]))(jnp.array([1.0, 2.0, 3.0]))
        Array([ 1.,  2., 30.], dtype=float32)
    """
    import jax.numpy as jnp
    from jax import lax, vmap
    from jax.custom_batching import custom_vmap

    def plain(condition: Any, *operands: Any) -> Any:
        return lax.cond(condition, a, b, *operands)

    @custom_vmap
    def one(condition: Any, *operands: Any) -> Any:
        return plain(condition, *operands)

    @one.def_vmap
    def _(size: int, batched: Sequence[bool], condition: Any, *operands: Any) -> tuple[Any, bool]:
        by_lane, *are = batched
        full = [x if is_one else jnp.broadcast_to(x, (size, *x.shape)) for x, is_one in zip(operands, are, strict=True)]
        if not by_lane:
            return choose(condition, vmap(a), vmap(b), full), True

        def each(conditions: Any, *operands: Any) -> Any:
            return lax.map(lambda lane: one(*lane), (conditions, *operands))

        def none(_: Any, *operands: Any) -> Any:
            return vmap(b)(*operands)

        return choose(condition.any(), each, none, [condition, *full]), True

    return _differentiable(one, plain)(condition, *operands)


def _differentiable(function: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is differentiated as another that computes the same: JAX goes back through no `custom_vmap`."""
    import jax.numpy as jnp
    from jax import custom_jvp, jvp

    def derivative(primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
        moving = [k for k, x in enumerate(primals) if jnp.issubdtype(x.dtype, jnp.inexact)]

        def moved(*values: Any) -> Any:
            now = dict(zip(moving, values, strict=True))
            return plain(*(now.get(k, x) for k, x in enumerate(primals)))

        return jvp(moved, [primals[k] for k in moving], [tangents[k] for k in moving])

    found = custom_jvp(function)
    found.defjvp(derivative)
    return found

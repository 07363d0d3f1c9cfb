"""Any rule as a gradient transformation of Optax."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Unpack, cast, overload

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from downslope.language.options import Options
from downslope.language.program import Program
from downslope.language.together import divided
from downslope.optax.computation import Computation, Number, Schedule, precision
from downslope.rule import Rule
from downslope.targets.arrays import interpret_body, interpret_scalars, with_sums
from downslope.targets.shapes import check_shapes, held_shape
from downslope.training.arguments import every_option, keywords, takes
from downslope.training.checks import check_rule

Tree = Any

REMEDY = (
    "give each part its own rule with optax.partition; downslope.split(params).labels() proposes the labels of both"
)
"""What to do with a parameter of a shape that the rule cannot work on."""


class RuleState(NamedTuple):
    """What a transformation remembers.

    Attributes:
        count: The number of steps done.
        scalars: The rule's scalar states, by name.
        states: The rule's other states, by name, each a tree like the parameters.
    """

    count: jax.Array  # type: ignore[assignment]  # as Optax calls it; tuples have a method of that name
    scalars: dict[str, jax.Array]
    states: dict[str, Tree]


class Transformation(optax.GradientTransformationExtraArgs):  # type: ignore[misc]
    """A gradient transformation of Optax that knows what it computes."""

    computation: Computation

    @classmethod
    def of(cls, computation: Computation) -> Transformation:
        """The transformation that computes this."""

        def init(params: Tree) -> RuleState:
            return _init(computation, params)

        def update(updates: Tree, state: Any, params: Tree = None, **extra_args: Any) -> tuple[Tree, RuleState]:
            del extra_args  # those of other transformations in a chain
            return _update(computation, updates, state, params)

        made = cls(init, update)
        made.computation = computation
        return made

    def __deepcopy__(self, memo: Any) -> Transformation:
        return self  # nothing in it changes

    def __repr__(self) -> str:
        return f"<Transformation {self.computation.chosen.rule.name}>"


class Arguments(Options[Number | Schedule], total=False):
    """What `optimizer` takes by name besides the hyperparameters of its rule.

    Attributes:
        averaging: Keeps an exponential moving average of the weights with this decay; see `downslope.optax.average`.
        max_norm: Scales all gradients that this transformation sees, when their common Euclidean norm is larger.
        lookahead: "stored" (the default) has the parameters of a rule with a look-ahead hold the point where the
            gradient is taken, and `downslope.optax.weights` gives the weights; "explicit" keeps the weights in the
            parameters, and the gradient is to be taken at `downslope.optax.point_ahead`.
    """

    lookahead: Literal["stored", "explicit"]


@overload
def optimizer(rule: Rule, **settings: Unpack[Arguments]) -> Transformation: ...


@overload
def optimizer(rule: Rule, **settings: Any) -> Transformation: ...


@takes(*every_option(), *keywords({"lookahead": "stored"}), rest="hyperparameters")
def optimizer(rule: Rule, **settings: Any) -> Transformation:
    """Any rule, your own included, as a gradient transformation.

    The updates are to be added to the parameters, as `optax.apply_updates` does. They are computed as differences from
    the start, never as the difference of new and old weights, which single precision cannot hold. Half precision is
    computed with in single, and rounded once.

    Args:
        rule: The rule, one of downslope's or your own.
        **settings: The options of every optimizer (`downslope.Options`; what is special of them here, and `lookahead`:
            `downslope.optax.transformation.Arguments`), and the rule's hyperparameters: numbers, scalars of JAX, or
            schedules, which are called with the number of steps done, as Optax does. Numbers are checked against their
            ranges; what is traced cannot be.

    Raises:
        TypeError: Something is of the wrong kind, a name is unknown, or a hyperparameter is missing.
        ValueError: A value is out of range.
        FormulaError: The rule is not a formula that can be compiled.

    Example:
        >>> import jax, jax.numpy as jnp, optax, downslope, downslope.optax
        >>> schedule = optax.cosine_decay_schedule(0.2, decay_steps=200)
        >>> transformation = downslope.optax.optimizer(downslope.adam, lr=schedule, max_norm=1.0)
        >>> params = jnp.array([3.0, -2.0])
        >>> state = transformation.init(params)
        >>> @jax.jit
        ... def step(params, state):
        ...     gradients = jax.grad(lambda x: (x**2).sum())(params)
        ...     updates, state = transformation.update(gradients, state, params)
        ...     return optax.apply_updates(params, updates), state
        >>> for _ in range(200):
        ...     params, state = step(params, state)
        >>> bool(abs(params).max() < 0.01)
        True
    """
    lookahead = settings.pop("lookahead")
    return Transformation.of(Computation.make(rule, settings, lookahead=lookahead))


def factory(rule: Rule) -> Callable[..., Transformation]:
    """The function that makes transformations of one rule, with its hyperparameters in its signature.

    It is what `optax.inject_hyperparams` wants: hyperparameters in the state, to be read, and changed between steps.
    Optax puts every number into the state that is not named in its `static_args`. A number in the state is single
    precision, and `1 - 0.999` is then wrong by 5e-5: name in `static_args` what is not going to change. For a rule with
    a stored look-ahead, its hyperparameters must be named there.

    Args:
        rule: One of downslope's, of a dialect or your own.

    Example:
        >>> import jax.numpy as jnp, optax, downslope, downslope.optax
        >>> make = downslope.optax.factory(downslope.adam)
        >>> make
        <function adam(*, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-08, bias_correction=True, weight_decay=None, ...)>
        >>> transformation = optax.inject_hyperparams(make, static_args=("beta1", "beta2", "eps"))(lr=0.1)
        >>> state = transformation.init(jnp.zeros(3))
        >>> state.hyperparams
        {'lr': Array(0.1, dtype=float32)}
        >>> state.hyperparams["lr"] = jnp.float32(0.2)
        >>> transformation.update(jnp.ones(3), state)[0]
        Array([-0.2, -0.2, -0.2], dtype=float32)
    """
    return cast(Callable[..., Transformation], _Factory(check_rule(rule)))


class _Factory:
    """A function with a rule's hyperparameters in its signature."""

    def __init__(self, rule: Rule):
        keyword, empty = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
        own = {**rule.hyperparameters, **rule.flags}
        parameters = [
            inspect.Parameter(name, keyword, default=empty if default is None else default)
            for name, default in own.items()
        ]
        options = list(inspect.signature(optimizer).parameters.values())[1:-1]
        parameters += [p.replace(annotation=empty) for p in options if p.name not in own]
        self.rule = rule
        self.__name__ = self.__qualname__ = rule.name
        self.__doc__ = f"The rule {rule.name} as a gradient transformation; see `downslope.optax.optimizer`."
        self.__signature__ = inspect.Signature(parameters)

    def __call__(self, *args: Any, **keywords: Any) -> Transformation:
        given = self.__signature__.bind(*args, **keywords)
        return optimizer(self.rule, **given.kwargs)

    def __repr__(self) -> str:
        return f"<function {self.__name__}{self.__signature__}>"


def _init(computation: Computation, params: Tree) -> RuleState:
    """The state before the first step."""
    for path, p in jax.tree.leaves_with_path(params):
        if not jnp.issubdtype(jnp.result_type(p), jnp.floating):
            raise TypeError(
                f"the parameter {jax.tree_util.keystr(path)} has dtype {jnp.result_type(p)}; expected real floating "
                "point numbers. Leave it out with optax.masked, or make a pair of real numbers of a complex one"
            )

    program = computation.program
    shapes = ((jax.tree_util.keystr(path), jnp.shape(p)) for path, p in jax.tree.leaves_with_path(params))
    check_shapes(program, shapes, REMEDY)

    def tree(state: str) -> Tree:
        start, dtype = computation.start(state), computation.dtypes.get(state)
        if state in program.spaces:
            return _beside(params, jax.tree.map(lambda p: _narrow(program, state, p, start, dtype), params))
        return jax.tree.map(lambda p: _filled(p, start, dtype), params)

    numbers = {name: jnp.asarray(start, precision()) for name, start in program.scalar_states.items()}
    count, scalars = _beside(params, (jnp.zeros([], jnp.int32), numbers))
    return RuleState(count, scalars, {state: tree(state) for state in program.states})


def _beside(params: Tree, numbers: Tree) -> Tree:
    """Numbers where parameters have been put by hand, as a step leaves them, lest the second recompile."""
    for p in jax.tree.leaves(params):
        if isinstance(p, jax.Array) and not isinstance(p, jax.core.Tracer) and p.committed:
            if isinstance(p.sharding, NamedSharding):
                return jax.device_put(numbers, NamedSharding(p.sharding.mesh, PartitionSpec()))  # type: ignore[no-untyped-call]
            if len(p.devices()) == 1:
                return jax.device_put(numbers, *p.devices())
    return numbers


def _narrow(program: Program, state: str, p: Any, start: Number | None, dtype: Any) -> jax.Array:
    """A new state that is one for each row or column of these weights: in single precision where they are halves."""
    assert start is not None
    if dtype is None:
        dtype = jnp.promote_types(jnp.asarray(p).dtype, jnp.float32)
    return jnp.full(held_shape(program, state, jnp.shape(p)), start, dtype)


def _filled(p: Any, start: Number | None, dtype: Any) -> jax.Array:
    """A new array like these weights, each element the initial value of a state; None for a copy."""
    p = jnp.asarray(p)
    dtype = p.dtype if dtype is None else dtype
    return jnp.array(p, dtype, copy=True) if start is None else jnp.full_like(p, start, dtype)


def _update(computation: Computation, updates: Tree, state: RuleState, params: Tree) -> tuple[Tree, RuleState]:
    """The updates of one step, and the new state."""
    rule, program = computation.chosen.rule, computation.program
    wanted = program.states.keys(), program.scalar_states.keys()
    if not isinstance(state, RuleState) or (state.states.keys(), state.scalars.keys()) != wanted:
        raise TypeError(f"state={state!r:.200} is not one that init made for the rule {rule.name} with these options")
    gradients: list[Any]
    tree: Any
    gradients, tree = jax.tree.flatten(updates, is_leaf=_is_none)
    programs = _programs(computation, updates, tree)
    if params is None and any(_reads_weights(program) for program in programs):
        raise ValueError(f"{rule.name} with these options needs the weights: update(gradients, state, params)")
    weights = [None] * len(gradients) if params is None else tree.flatten_up_to(params)
    held = {name: tree.flatten_up_to(by_parameter) for name, by_parameter in state.states.items()}

    count = jnp.minimum(state.count, 2**31 - 2) + 1
    others = {"t": count.astype(precision()), "grad_scale": _grad_scale(computation, gradients), **state.scalars}
    given = {
        k: _working(programs[k], weights[k], dx, {name: by_parameter[k] for name, by_parameter in held.items()})
        for k, dx in enumerate(gradients)
        if dx is not None
    }
    update = divided(computation.update).rest
    if computation.update.over_all:
        known = computation.scalars(computation.update, state.count, others)
        taken = [(programs[k], arrays) for k, (arrays, _) in given.items()]
        others |= with_sums(computation.update, lambda: taken, known, jnp)
        programs = [divided(program).rest for program in programs]
    settled = {
        program: interpret_scalars(program, computation.scalars(program, state.count, others), jnp)
        for program in dict.fromkeys((update, *programs))
    }
    changes = list(gradients)
    for k, (arrays, dtype) in given.items():
        new = interpret_body(programs[k], arrays, settled[programs[k]], jnp)
        changes[k] = new["x"].astype(dtype)
        for name, by_parameter in held.items():
            by_parameter[k] = new[name].astype(by_parameter[k].dtype)
    new_scalars = {name: settled[update][e] for name, e in update.scalar_outputs.items()}
    return tree.unflatten(changes), RuleState(
        count=count,
        scalars={name: jnp.asarray(new_scalars[name], old.dtype) for name, old in state.scalars.items()},
        states={name: tree.unflatten(by_parameter) for name, by_parameter in held.items()},
    )


def _is_none(gradient: Any) -> bool:
    return gradient is None


def _reads_weights(program: Program) -> bool:
    return any(e.value == "x" for e in program.expressions if e.op == "input")


def _programs(computation: Computation, updates: Tree, tree: Any) -> list[Program]:
    """What is to be computed for each parameter: with weight decay or, where the mask says so, without."""
    if computation.mask is None:
        return [computation.update] * tree.num_leaves
    mask = computation.mask(updates) if callable(computation.mask) else computation.mask
    whole = jax.tree.map(lambda m, part: jax.tree.map(lambda _: _truth(m), part, is_leaf=_is_none), mask, updates)
    return [computation.update if decays else computation.update_without_decay for decays in tree.flatten_up_to(whole)]


def _truth(m: Any) -> bool:
    if np.shape(m) or np.asarray(m).dtype != bool:
        raise TypeError(f"mask: {m!r:.200} stands in it; expected True or False for each parameter or branch")
    return bool(m)


def _working(program: Program, x: Any, dx: Any, states: Mapping[str, Any]) -> tuple[dict[str, jax.Array], Any]:
    """One parameter, its gradient and its states in the precision of single or better, and the dtype of its change."""
    shapes = {name: jnp.shape(value) for name, value in states.items()} | ({} if x is None else {"x": jnp.shape(x)})
    wrong = [name for name, shape in shapes.items() if shape != held_shape(program, name, jnp.shape(dx))]
    if wrong:
        said = ", ".join(f"{'the weights' if name == 'x' else name}: {shapes[name]}" for name in wrong)
        raise ValueError(f"a gradient of shape {jnp.shape(dx)} does not fit its weights or states: {said}")
    alike = {name: state for name, state in states.items() if name not in program.spaces}
    given = {"dx": dx, **alike} if x is None else {"x": x, "dx": dx}
    dtype = jnp.result_type(*(jnp.asarray(value).dtype for value in given.values()))
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"a gradient has dtype {jnp.result_type(dx)}; expected real floating point numbers")
    working = jnp.promote_types(dtype, jnp.float32)
    arrays = {name: jnp.asarray(value, working) for name, value in {"dx": dx, **states}.items()}
    arrays["x"] = arrays["dx"] if x is None else jnp.asarray(x, working)
    return arrays, dtype


def _grad_scale(computation: Computation, gradients: Sequence[Any]) -> Any:
    """1 where the norm of all gradients together is permitted, else what brings it down to the largest permitted."""
    if computation.max_norm is None:
        return 1.0
    norm = _norm([jnp.asarray(dx) for dx in gradients if dx is not None])
    return jnp.where(norm <= computation.max_norm, 1, computation.max_norm / norm)


def _norm(gradients: Sequence[jax.Array]) -> jax.Array:
    """The Euclidean norm of all of them together, whose square may be too large or too small for their dtype."""
    dtype = jnp.result_type(jnp.float32, *gradients)
    arrays = [dx.astype(dtype) for dx in gradients]

    def with_care() -> jax.Array:
        largest = jnp.max(jnp.array([jnp.max(jnp.abs(a), initial=0) for a in arrays], dtype), initial=0)
        unit = jnp.where((largest > 0) & (largest < jnp.inf), largest, 1)
        return unit * jnp.sqrt(_sum_of_squares([a / unit for a in arrays], dtype))

    total = _sum_of_squares(arrays, dtype)
    norm: jax.Array = jax.lax.cond((total > 1e-30) & (total < jnp.inf), lambda: jnp.sqrt(total), with_care)
    return norm


def _sum_of_squares(arrays: Sequence[jax.Array], dtype: Any) -> jax.Array:
    total = jnp.zeros([], dtype)
    for a in arrays:
        total += jnp.sum(jnp.square(a))
    return total

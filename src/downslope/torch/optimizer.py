"""The optimizer for PyTorch: a `torch.optim.Optimizer` for any rule."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack, overload

import torch
from torch._compile import _disable_dynamo
from torch.optim import optimizer as torch_optimizer

from downslope.backends import threads as pool
from downslope.language.options import NUMBERS
from downslope.rule import Rule
from downslope.torch import backward, training
from downslope.torch.codes import check_codable
from downslope.torch.extras import STORING, Arguments, Chosen, sort_out
from downslope.torch.gradients import refuse_a_share
from downslope.torch.groups import AliasedGroup, aliases, aliases_beside, cycled, refuse_contradiction
from downslope.torch.layout import Layout
from downslope.torch.loading import loaded, merged_groups
from downslope.torch.own_rules import beginning, put_names, refuse_another, rule_of
from downslope.torch.places import Places
from downslope.torch.points import refuse_at_weights
from downslope.torch.progress import Progress
from downslope.torch.quick import quick_step
from downslope.torch.scaling import scaling
from downslope.torch.settings import (
    Group,
    GroupSettings,
    Shared,
    check_carried,
    refuse_capturable,
    settle,
    warn_of_misspelt,
)
from downslope.torch.state import check_members
from downslope.torch.step import Step
from downslope.torch.whole import check_whole, refuse_one_by_one, refuse_parts
from downslope.training.arguments import every_option, keywords, takes

Tensor = torch.Tensor
_profiler = torch.autograd.profiler
_is_traced = torch.compiler.is_dynamo_compiling


class Optimizer(torch.optim.Optimizer):
    """Updates the parameters of a PyTorch model by any rule, all of them in one compiled pass over memory.

    A real `torch.optim.Optimizer`: parameter groups, schedulers, hooks, gradient scalers, checkpoints work as ever.

    Args:
        params: What to train: parameters, named parameters, or groups, dicts such as `{"params": [...], "lr": 0.1}`.
            A group may have a rule of its own, `{"params": [...], "rule": downslope.muon, "lr": 0.02}`, and then begins
            with the defaults of that rule and with the options of the optimizer. For a rule over whole tensors
            `"pieces": 3` says that each parameter of the group is made of three matrices, one above another (with
            `"axis": 1` side by side), and a list of sizes that they are not of one.
        rule: The rule of all other groups, one of downslope's, of a dialect, or your own. What is given by name for
            its hyperparameters holds for these groups only.
        **settings: The options of every optimizer, such as weight decay, clipping and averaging (`downslope.Options`);
            what those for PyTorch take besides, such as `nonfinite` and `state_dtype` (`downslope.torch.extras`); and
            the rule's hyperparameters and choices. These may differ from group to group, and so may options that are
            numbers, and `maximize`.

    Raises:
        TypeError: Something is of the wrong kind, a name is unknown, or a hyperparameter or a rule is missing.
        ValueError: A value is out of range.
        FormulaError: The rule is not a formula that can be compiled.

    Example:
        >>> import torch, downslope, downslope.torch
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = downslope.torch.Optimizer(model.parameters(), downslope.momentum, lr=0.1)
        >>> x = torch.eye(3)
        >>> for _ in range(200):
        ...     optimizer.zero_grad()
        ...     loss = (model(x) - 1).square().mean()
        ...     loss.backward()
        ...     optimizer.step()
        >>> bool(loss < 1e-3)
        True
    """

    rule: Rule | None
    _family: tuple[Rule, ...] = ()  # among which the settings of a group choose

    @overload
    def __init__(self, params: Any, rule: Rule | None = None, **settings: Unpack[Arguments]) -> None: ...

    @overload
    def __init__(self, params: Any, rule: Rule | None = None, **settings: Any) -> None: ...

    @takes(*every_option(), *keywords({**STORING, "lookahead": "stored", "capturable": False}), rest="hyperparameters")
    def __init__(self, params: Any, rule: Rule | None = None, **settings: Any) -> None:
        self.rule = None if rule is None else rule_of({}, rule)
        defaults, extras, stored_ahead = sort_out(rule, settings)
        usual = defaults if rule is None else dict(AliasedGroup(defaults, aliases(rule)))
        self._begin(params, usual, extras, stored_ahead=stored_ahead)

    def _begin(
        self, params: Any, defaults: dict[str, Any], extras: Mapping[str, Any], *, stored_ahead: bool = True
    ) -> None:
        """Settle the options and take the parameters."""
        chosen = Chosen.among(extras)
        defaults |= chosen.numbers
        self._options = Shared(chosen.options, chosen.max_norm, stored_ahead)
        self._storage, self._nonfinite, self._threads = chosen.storage, chosen.nonfinite, chosen.threads
        if chosen.max_norm is not None or chosen.nonfinite != "keep":
            refuse_a_share(
                f"max_norm={chosen.max_norm} and nonfinite={chosen.nonfinite!r} need",
                "Leave them out, and call torch.nn.utils.clip_grad_norm_ before the step; or shard with FSDP2 "
                "(fully_shard), where max_norm is the norm over all processes",
            )
        if defaults.get("fused"):
            self._step_supports_amp_scaling = True  # a gradient scaler then leaves unscaling and skipping to the step
        self._ready(0)
        self.defaults, self.param_groups = defaults, []  # for what follows; those of torch.optim come after it
        entries = params if isinstance(params, Tensor) else [*params]
        for group in entries if isinstance(entries, list) else ():
            if isinstance(group, dict):  # an option that one group brings is there for all, whatever their order
                self._admit(self._admitted(group))
        super().__init__(entries, defaults)

    def _ready(self, skipped: int) -> None:
        """Set up what is not part of the state."""
        self._progress = Progress(skipped=skipped)
        self._workers = self._threads or pool.available()
        self._surveys = self._options.max_norm is not None or self._nonfinite != "keep"

    @property
    def skipped(self) -> int:
        """How many steps were left out, for gradients that were not finite."""
        return self._progress.all_skipped()

    @property
    def max_norm(self) -> float | None:
        """The largest norm of all gradients together that is left as it is, to read: a loaded file brings its own."""
        return self._options.max_norm

    def _choose(self, group: Group) -> Rule:
        """The rule of a group."""
        return rule_of(group, self.rule)

    def _named(self, group: Group) -> Mapping[str, tuple[str, ...]]:
        """What schedules call the momentum of a group."""
        rule = self._choose(group)
        return aliases(rule) if rule is self.rule else aliases_beside(rule, self.defaults)

    def _beginning(self, group: Group) -> Group:
        """What a group has where it says nothing."""
        return beginning(self._choose(group), self.rule, self.defaults, self._options.options)

    @_disable_dynamo
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; see `torch.optim.Optimizer.add_param_group`.

        Raises:
            TypeError: A setting is of the wrong kind or missing.
            ValueError: A setting is out of range, or a parameter is there twice. Nothing has been changed.
        """
        if isinstance(param_group, dict):
            admitted, names, usual = self._admitted(param_group), self._named(param_group), self._beginning(param_group)
            refuse_contradiction(param_group, names)
            warn_of_misspelt(param_group, {**usual, "weight_decay": 0.0, "rule": None, "pieces": 1, "axis": 0})
            if not isinstance(param_group.get("params"), (Tensor, set)):
                param_group["params"] = list(param_group["params"])
            if names:
                param_group = AliasedGroup(param_group, names)
            trial = {**usual, **param_group}
            self._check_group(trial, admitted)
            refuse_capturable(trial)
            check_members(param_group, self._storage)
            self._admit(admitted)
            for name, value in self._beginning(param_group).items():
                param_group.setdefault(name, value)
        ours = self.defaults
        try:
            self.defaults = {}  # which are in the group already, those of its own rule
            super().add_param_group(param_group)
        finally:
            self.defaults = ours
        self._let_cycle(param_group)

    def _let_cycle(self, added: Group) -> None:
        """Let schedules that cycle the momentum find its name, in `defaults` and then in every group.

        Where a rule has none, the entry has no effect.
        """
        groups, found = [added], cycled(self.defaults)
        if not found:  # this may be the first rule with a momentum
            groups, found = self.param_groups, cycled({*self._choose(added).hyperparameters, *self._named(added)})
            self.defaults |= found
        for group in groups if found else ():
            for name, value in found.items():
                group.setdefault(name, value)

    def _admitted(self, group: Group) -> Shared:
        """The options with the `weight_decay` that a group may bring, which then is 0 in those whose rule has none."""
        own = self._beginning(group)
        added = {name for name in NUMBERS if name in group and name not in own}
        if late := sorted(added - {"weight_decay"}):
            raise ValueError(f"a group has {late[0]}={group[late[0]]!r}; make the optimizer with {late[0]}=...")
        return self._options.with_decay() if added else self._options

    def _admit(self, options: Shared) -> None:
        if "weight_decay" in options.options - self._options.options:
            for group in self.param_groups:
                group.setdefault("weight_decay", 0.0)
        self._options = options

    def _check_group(self, group: Group, options: Shared | None = None) -> GroupSettings:
        """Read a group's settings, or say what is wrong with them."""
        rule = self._choose(group)
        check_carried(group, rule)
        settings = settle(group, rule, options or self._options, self._options.max_norm is not None)
        params, names = group.get("params", ()), group.get("param_names", ())
        check_whole(settings.program, params, self._storage, names, settings.pieces)
        if self._options.max_norm is not None or self._nonfinite != "keep":
            refuse_parts(params, names, f"max_norm={self._options.max_norm} and nonfinite={self._nonfinite!r}")
        check_codable(settings, self._storage)
        return settings.looked_at()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient by one step of the rule.

        Args:
            closure: Clears the gradients, computes the loss and its gradients, and returns the loss.

        Returns:
            What the closure returned, or None.

        Raises:
            ValueError: A setting is out of range, or a gradient or state does not fit its parameter.
            NonFiniteGradientError: A gradient holds nan or infinity, and `nonfinite` is "raise".
            RuntimeError: The parameters do not hold the point where gradients are taken (inside `at_weights` and such,
                or after `eval`).

        In every case no parameter and no state has been changed.
        """
        if _is_traced():
            return self._untraced_step(closure)
        if (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
            or _profiler._is_profiler_enabled
        ):
            return self._hooked_step(closure) if closure is not None else self._hooked_step()
        progress, own = self._progress, self.__dict__
        if closure is None and progress.quick_step is not None and "grad_scale" not in own and "found_inf" not in own:
            with progress.lock:
                quick = progress.quick_step
                if quick is not None and not progress.away:
                    try:
                        progress.away = "step"  # signal handlers and finalizers may run any code
                        done = quick(self.param_groups, self.state)
                    finally:
                        progress.away = ""
                    if done:
                        return None
        return self._plain_step(closure)

    step.hooked = True  # type: ignore[attr-defined] # torch would wrap it otherwise, which takes longer than a small step

    @_disable_dynamo  # as torch.optim's own zero_grad: compiled code cannot be traced, and need not be
    def _untraced_step(self, closure: Callable[[], Any] | None) -> Any:
        """The step between two graphs of `torch.compile`."""
        return self.step(closure)

    def _plain_step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        refuse_at_weights(self.param_groups, "step")
        if closure is not None:
            self._places.follow()
            with torch.enable_grad():
                loss = closure()
        with self._progress.lock:
            if self._progress.away:
                self._progress.refuse("step")
            self._progress.quick_step = None
            try:
                self._progress.away = "step"  # until the end: signal handlers and hooks may run any code
                layout = self._update(None, self.param_groups, self.state)
            except BaseException:
                self._progress.layouts.clear()
                raise
            finally:
                self._progress.away = ""
            if layout is not None and self._nonfinite == "keep":
                self._progress.quick_step = quick_step(layout, self._options.max_norm)
        return loss

    _hooked_step = torch.optim.Optimizer.profile_hook_step(_plain_step)

    def _update(self, key: Tensor | None, groups: list[Group], state: dict[Tensor, dict[str, Any]]) -> Layout | None:
        """One step of the parameters in these groups, whose layout is kept under this key; None if it is left out."""
        clipped, raises = self._options.max_norm is not None, self._nonfinite == "raise"
        told = scaling(self.__dict__, groups, clipped=clipped, raises=raises)
        if told is None:
            self._progress.skipped += 1
            return None
        storage, nonfinite, workers = self._storage, self._nonfinite, self._workers
        step = Step(self._progress, self._choose, self._options, storage, nonfinite, workers, self.param_groups, told)
        return step.take(key, groups, state)

    @_disable_dynamo
    def step_in_backward(self) -> contextlib.ExitStack:  # noqa: D102
        refuse_one_by_one(self._check_group(group).program for group in self.param_groups)
        return backward.step_in_backward(self, self._surveys, self._update_one)

    step_in_backward.__doc__ = backward.step_in_backward.__doc__

    def _update_one(self, k: int, p: Tensor) -> None:
        """Update a parameter of group `k` by itself."""
        with self._progress.alone("backward"):
            refuse_at_weights(self.param_groups, "backward")
            group = self.param_groups[k]
            self._places.refuse_another(group)
            own = {p: self.state[p]} if p in self.state else {}
            self._update(p, [{**group, "params": [p]}], own)
            self.state[p] = own[p]

    @property
    def _places(self) -> Places:
        stored_ahead = self._options.stored_ahead
        return Places(self._progress, self.param_groups, self.state, self._choose, self._check_group, stored_ahead)

    @_disable_dynamo
    def at_weights(self) -> contextlib.AbstractContextManager[None]:  # noqa: D102
        return self._places.at_weights()

    @_disable_dynamo
    def at_lookahead(self) -> contextlib.AbstractContextManager[None]:  # noqa: D102
        return self._places.at_lookahead()

    @_disable_dynamo
    def at_average(self) -> contextlib.AbstractContextManager[None]:  # noqa: D102
        if "averaging" not in self._options.options:
            raise RuntimeError("there is no average of the weights; make the optimizer with averaging=0.999, say")
        return self._places.at_average()

    @_disable_dynamo
    def eval(self) -> None:  # noqa: D102
        self._places.eval()

    @_disable_dynamo
    def train(self) -> None:  # noqa: D102
        places = self._places
        places.train()
        if places.ahead():
            self._progress.rhythm.beat(self, _may_move)

    at_weights.__doc__, at_lookahead.__doc__ = Places.at_weights.__doc__, Places.at_lookahead.__doc__
    at_average.__doc__, eval.__doc__, train.__doc__ = (
        Places.at_average.__doc__,
        Places.eval.__doc__,
        Places.train.__doc__,
    )

    def state_dict(self) -> dict[str, Any]:
        """The state, laid out as `torch.optim` does, so that it can be loaded there too.

        It refers to the states themselves; `copy.deepcopy` or saving makes it independent of further steps. If groups
        have rules of their own, it has for each group the name of its rule.

        Raises:
            RuntimeError: The parameters hold something else at the moment (inside `at_weights` and such): weights and
                states saved now would not belong together.
        """
        self._progress.refuse_elsewhere("state_dict")
        with self.register_state_dict_post_hook(put_names, prepend=True):  # before those who may save what they see
            found: dict[str, Any] = super().state_dict()
        return found

    @_disable_dynamo
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the state of an optimizer of downslope or of `torch.optim`, whatever its version.

        Groups and parameters are matched by their order, as in `torch.optim`. Settings and states that the other
        optimizer does not have stay, or begin at the next step.

        Raises:
            TypeError: A setting or a state is of the wrong kind.
            ValueError: There are other groups, one was trained by another rule, a state has another shape than its
                parameter, or a setting is out of range.

        In every case nothing has been changed.
        """
        self._progress.refuse_elsewhere("load_state_dict")
        state_dict = state_dict.copy()
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = before(self, state_dict) or state_dict
        groups = merged_groups(self.param_groups, state_dict["param_groups"], self._unnamed)
        for group in groups:
            self._adapt(group)
        options = next((new for new in map(self._admitted, groups) if new != self._options), self._options)
        for group in groups if options != self._options else ():
            group.setdefault("weight_decay", 0.0)
        settings = [self._check_group(group, options) for group in groups]
        state = loaded(groups, settings, state_dict, self._storage, self.state, self._family)
        self._admit(options)
        self.__setstate__({"state": state, "param_groups": groups})
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    @_disable_dynamo
    def save(self, path: str | Path, model: torch.nn.Module) -> None:  # noqa: D102
        with self._progress.alone("save"):
            training.save(self._training(model), path)

    @_disable_dynamo
    def load(self, path: str | Path, model: torch.nn.Module) -> None:  # noqa: D102
        with self._progress.alone("load"):
            loaded = training.load(self._training(model), path)
            self._options = replace(self._options, max_norm=loaded.max_norm)
            self._storage = replace(self._storage, seed=loaded.record.get("seed", self._storage.seed))
            self._progress.begin_skipped(loaded.skipped)
            self._progress.layouts.clear()

    save.__doc__, load.__doc__ = training.save.__doc__, training.load.__doc__

    def _training(self, model: torch.nn.Module) -> training.TorchTraining:
        settled = [*map(self._check_group, self.param_groups)]
        means = settled, self._storage, self._options.max_norm, self.skipped, self._check_group
        return training.TorchTraining(model, self.param_groups, self.state, *means)

    def _unnamed(self, k: int, saved: Group, group: Group) -> Group:
        """A saved group without the name of its rule, which is made sure to be that of the group here."""
        return refuse_another(k, saved, group, self.rule)

    def _adapt(self, group: Group) -> None:
        """Bring a group from elsewhere up to date."""

    def __getstate__(self) -> dict[str, Any]:
        self._progress.refuse_elsewhere("copying or pickling")
        own = ("rule", "_options", "_storage", "_nonfinite", "_threads", "_step_supports_amp_scaling")
        kept = {name: self.__dict__[name] for name in own if name in self.__dict__}
        return {**super().__getstate__(), **kept, "_skipped": self.skipped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        skipped = state.pop("_skipped", self._progress.all_skipped() if "_progress" in self.__dict__ else 0)
        super().__setstate__(state)
        named = [(group, self._named(group)) for group in self.param_groups]
        self.param_groups = [AliasedGroup(group, names) if names else group for group, names in named]
        self._ready(skipped)


def _may_move(optimizer: Optimizer) -> bool:
    """Whether the parameters may be moved to the weights: they are where they are in training, and will be again."""
    return not optimizer._progress.away and optimizer._progress.rhythm.between_steps(optimizer)

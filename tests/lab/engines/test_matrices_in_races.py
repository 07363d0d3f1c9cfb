"""Rules for matrices in races: who trains what, and the very numbers of both formulas called as functions."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import downslope
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.jax_engine import JaxEngine
from downslope.lab.engines.learner import Stacking
from downslope.lab.engines.model_engine import ModelEngine
from downslope.lab.engines.network import Network
from downslope.lab.engines.own_run import OwnRun
from downslope.lab.engines.protocol import Entry
from downslope.lab.problems.builtin import load_problem
from downslope.lab.problems.letters import Transformer
from downslope.lab.problems.pictures import Convolutional
from downslope.lab.races.entrants import called, named
from downslope.lab.races.plan import Plan
from muon_by_hand import examples, losses_by_hand, weights_of

MUON = Entrant.of("muon+adamw", downslope.muon, {})


def module(seed):
    layers = [nn.Linear(*w.shape, bias=False) for w in weights_of(seed)]
    with torch.no_grad():
        for layer, w in zip(layers, weights_of(seed), strict=True):
            layer.weight.copy_(torch.from_numpy(w.T))
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


def pair(seed):
    stem, mix, head = map(jnp.asarray, weights_of(seed))
    return {
        "stem": stem,
        "mix": mix,
        "head": head,
    }, lambda w, x: jnp.tanh(jnp.tanh(x @ w["stem"]) @ w["mix"]) @ w["head"]


def engine_of(make, entrant=MUON):
    return ModelEngine(make, examples(), {"muon+adamw": entrant})


def runs_of(engine, entries):
    found = [run for progress in engine.train(entries) for run in progress.finished]
    return sorted(found, key=lambda run: (run.seed, run.setting))


def test_modules_are_trained_by_both_formulas_alone_and_in_a_stack():
    engine = engine_of(module)
    assert "1 of 3 arrays with 30 of 64 weights, and adamw the rest at the same" in engine.cautions[-1]
    entries = [Entry("muon+adamw", 0.05, seed) for seed in range(4)]
    for lanes in (1, 4):
        engine.stacking = Stacking(lanes, "")
        for run in runs_of(engine, entries):
            np.testing.assert_allclose(run.valid_loss, losses_by_hand(run.seed, 0.05), rtol=2e-4)


def test_a_network_of_jax_is_in_a_heat_and_a_grid_varies_the_ratio_of_both_rates():
    heats = engine_of(pair).in_heats(range(2))
    entries = [Entry("muon+adamw", 0.05, 1, setting=(("rest_ratio", ratio),)) for ratio in (0.1, 1.0)]
    for run, ratio in zip(runs_of(heats, entries), (0.1, 1.0), strict=True):
        np.testing.assert_allclose(run.valid_loss, losses_by_hand(1, 0.05, ratio=ratio), rtol=2e-4)


def test_which_of_the_weights_of_a_model_are_inner_matrices():
    assert Network((9, 8, 7, 6)).inner == (0, 0, 1, 0, 0, 0)
    assert Transformer(blocks=2).inner == (0, 0, 3, 1, 1, 1, 3, 1, 1, 1, 0)
    assert Convolutional().inner == (0, 0, 1, 0, 0, 0)


def test_a_network_without_an_inner_matrix_is_refused():
    with pytest.raises(ValueError, match=r"muon\+adamw: the 64-64-10 MLP, ReLU has no matrix between"):
        JaxEngine(load_problem("digits"), {"muon+adamw": MUON})
    with pytest.raises(ValueError, match=r"the model has no matrix between .* says why of each parameter"):
        engine_of(lambda seed: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)))


def test_a_rule_for_matrices_is_called_by_what_is_beside_it_too():
    rules = named([downslope.muon, downslope.dialects.keras.muon, downslope.adam])
    assert list(rules) == ["muon+adamw", "keras.muon+adamw", "adam"]
    assert called("keras.muon", rules) == ["keras.muon+adamw"]


@pytest.mark.parametrize(
    ("rule", "settings", "said"),
    [
        (downslope.muon, {"match_rms": False}, "not as long as those of adamw.*match_rms=True, or rest_ratio"),
        (downslope.dialects.keras.muon, {"rms_rate": 1.0}, "rms_rate=0.2, or rest_ratio"),
        (downslope.muon, {"rest_ratio": 0.0}, "rest_ratio=0.0: give a positive number"),
        (downslope.adam, {"rest_ratio": 1.0}, "rest_ratio"),
    ],
)
def test_what_one_learning_rate_does_not_fit_needs_a_ratio(rule, settings, said):
    with pytest.raises(ValueError, match=said):
        Entrant.of("it", rule, settings)


def test_forms_of_muon_get_the_length_of_adamws_steps_and_what_is_set_for_both_is_for_both():
    forms = [
        downslope.muon,
        downslope.dialects.torch.muon,
        downslope.dialects.keras.muon,
        downslope.dialects.optax.muon,
    ]
    made = [Entrant.of("it", rule, {}) for rule in forms]
    assert [one.settings.choices.get("match_rms", one.settings.choices.get("match_rms_adamw")) for one in made] == [
        *(True, True),
        *(None, None),
    ]
    assert (made[2].numbers["rms_rate"], made[3].numbers["consistent_rms"]) == (0.2, 0.2)
    decayed = MUON.at((("weight_decay", 0.3), ("rest_ratio", 2.0)))
    assert decayed.rest.numbers["weight_decay"] == 0.3
    assert "weight_decay" in decayed.settings.options
    assert decayed.rest_at(0.1)[1] == 0.2
    plan = Plan.of({"muon+adamw": downslope.muon}, hyperparameters={}, grid={"rest_ratio": [0.1, 1]})
    assert len(plan.settings["muon+adamw"]) == 2


def own(params):
    return OwnRun(Entry("muon+adamw", 0.05, 0), MUON).optimizer(params)


def test_a_training_of_ones_own_gives_its_model_or_says_which_parameters_are_which():
    net = module(0)
    for params in (net, downslope.split(net)):
        groups = own(params).param_groups
        assert [(group["rule"].name, group["lr"], len(group["params"])) for group in groups] == [
            ("muon", 0.05, 1),
            ("adamw", 0.05, 2),
        ]
    weights, _ = pair(0)
    transformation = own(weights)
    state = transformation.init(weights)
    updates, _ = transformation.update(weights, state, weights)
    moved = downslope.muon(np.float64(weights["mix"]), np.float64(weights["mix"]), 0.0, lr=0.05, match_rms=True)[0]
    np.testing.assert_allclose(updates["mix"], moved - np.float64(weights["mix"]), rtol=1e-4, atol=1e-6)
    for params, said in ((list(net.parameters()), "give the optimizer the model itself"), (None, "the model itself")):
        with pytest.raises(TypeError, match=said):
            own(params)
    with pytest.raises(TypeError, match="NumPy arrays has one rule"):
        own({"stem": weights_of(0)[0], "mix": weights_of(0)[1], "bias": np.zeros(3)})


def test_what_is_used_now_cannot_be_muon_alone():
    with pytest.raises(ValueError, match="what trains the rest of your network it does not say"):
        downslope.lab.race("parabola", now=downslope.Recipe(downslope.dialects.torch.muon, lr=0.01))


def test_a_race_with_muon_is_not_explained():
    with pytest.raises(ValueError, match=r"not muon\+adamw; leave one of the two out"):
        downslope.lab.race("unicode-names", [downslope.muon], why=True)

import json
import math
import re
import subprocess
import sys

import pytest

import downslope
from downslope import dialects, minimum, rule, where
from downslope.dialects import DIALECTS
from downslope.recipes import catalogue
from downslope.recipes.families import families, find

FORMS = [(name, dialect) for name, forms in families().items() for dialect in forms]


def test_every_rule_of_every_dialect_is_there():
    every = families()
    found = {form for forms in every.values() for form in forms.values()}
    modules = (dialects.torch, dialects.keras, dialects.tf1, dialects.optax)
    written = {value for module in modules for value in vars(module).values() if isinstance(value, downslope.Rule)}
    assert found == written | {*downslope.rules.RULES, *downslope.rules.OVER_TENSORS}
    assert list(every)[:6] == ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam"]
    assert list(every["sgd_momentum"]) == ["torch", "keras", "tf1", "optax"]


# Facts

KEYS = {
    "name",
    "dialect",
    "python",
    "calls",
    "intuition",
    "source",
    "formula",
    "latex",
    "hyperparameters",
    "flags",
    "states",
    "spaces",
    "optional_states",
    "optional_scalar_states",
    "scalar_states",
    "uses_t",
    "lookahead",
    "cost",
    "first_update",
    "stability",
}


@pytest.mark.parametrize(("name", "dialect"), FORMS)
def test_facts_are_those_of_the_rule_and_fit_into_json(name, dialect):
    form = families()[name][dialect]
    facts = catalogue.facts(form)
    assert set(facts) == KEYS
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert {key: value["default"] for key, value in facts["hyperparameters"].items()} == form.hyperparameters
    assert all(value["required"] == (value["default"] is None) for value in facts["hyperparameters"].values())
    assert {*facts["states"], *facts["optional_states"]} == set(form.states)
    assert {*facts["scalar_states"], *facts["optional_scalar_states"]} == set(form.scalar_states)
    assert (facts["cost"]["bytes_read"], facts["cost"]["bytes_written"]) == (form.cost().read, form.cost().written)
    assert any(line.startswith("x = ") for line in facts["formula"])  # sums over all may follow it
    assert facts["intuition"]
    assert facts["source"]
    assert eval(facts["python"], {"downslope": downslope}) is form


@pytest.mark.parametrize(
    ("form", "steps"),
    [
        (downslope.rmsprop, 10),
        (dialects.torch.rmsprop, 10),
        (dialects.keras.rmsprop, math.sqrt(10)),
        (dialects.optax.rmsprop, math.sqrt(10)),
        (dialects.tf1.rmsprop, 1),
        (dialects.torch.adagrad, 1),
        (dialects.keras.adagrad, 1 / math.sqrt(1.1)),
        (dialects.torch.sgd_momentum, 1),
        (dialects.optax.sgd_momentum, 1),
        (downslope.amsgrad, 0.1 / math.sqrt(0.001)),
        (downslope.nesterov, 1),
    ],
    ids=lambda value: value if isinstance(value, (int, float)) else f"{value.function.__module__}.{value.name}",
)
def test_the_first_update_in_learning_rates(form, steps):
    assert catalogue.facts(form)["first_update"] == pytest.approx(steps, rel=1e-5)


@rule(ranges={"shift": (-1e308, 1e308), "part": (0.0, 1.0)})
def own(x, dx, m=0, anchor="x", spare=0, *, lr=0.1, shift, part=0.5, share=0.25, beta=0.5, spared=False):
    m = beta * m + dx + shift
    spare = spare + dx if spared else spare
    return x - lr * m * part * share + (anchor - x) * 0.1 - 0 * spare if spared else x - lr * m, m, anchor, spare


def test_facts_of_a_rule_of_ones_own():
    facts = catalogue.facts(own)
    assert (facts["dialect"], facts["python"], facts["calls"], facts["source"]) == (None, None, [], "")
    assert facts["hyperparameters"]["shift"] == {
        "default": None,
        "required": True,
        "low": None,
        "high": None,
        "high_included": False,
    }
    ranges = {name: (each["low"], each["high"]) for name, each in facts["hyperparameters"].items()}
    assert ranges["lr"] == (0.0, None)
    assert ranges["part"] == ranges["beta"] == (0.0, 1.0)
    assert facts["hyperparameters"]["part"]["high_included"]
    assert not facts["hyperparameters"]["beta"]["high_included"]
    assert facts["flags"] == {"spared": False}
    assert facts["states"] == {"m": 0.0}
    assert facts["optional_states"] == {"anchor": "x", "spare": 0.0}
    assert facts["first_update"] is None  # it depends on shift
    assert facts["formula"] == ["m = beta * m + dx + shift", "x = x - lr * m"]


@rule
def infinite(x, dx, low=math.inf, *, lr=0.1, most=math.inf):
    low = minimum(low, dx)
    return x - lr * minimum(low, most) / where(dx > 0, 0, 1), low


@rule
def without_a_rate(x, dx, *, rate=0.1):
    return x - rate * dx


@pytest.mark.parametrize("form", [infinite, without_a_rate])
def test_there_is_no_first_update_where_there_is_no_number(form):
    assert catalogue.facts(form)["first_update"] is None


@rule(ranges={"part": (4.0, 8.0)})
def weighed(x, dx, *, lr, part):
    return x - lr * part * dx


def test_stability_as_data():
    adam = catalogue.facts(downslope.adam)["stability"]
    assert adam["limit"] == pytest.approx(38)
    assert (adam["held"], adam["settings"], adam["reason"]) == (["v"], {}, "")
    assert catalogue.facts(dialects.keras.sgd_momentum)["stability"]["settings"] == {"momentum": 0.9}
    own = catalogue.facts(weighed)["stability"]
    assert (own["settings"], own["limit"]) == ({"part": 4.0}, pytest.approx(0.5))
    lion = catalogue.facts(downslope.lion)["stability"]
    assert lion["limit"] is None
    assert "sign" in lion["reason"]


def test_what_is_not_finite_fits_into_json_too():
    facts = json.loads(json.dumps(catalogue.facts(infinite), allow_nan=False))
    assert facts["hyperparameters"]["most"]["default"] == facts["states"]["low"] == "inf"


def test_where_the_gradient_is_taken():
    assert catalogue.facts(downslope.nesterov)["lookahead"] == "x + mu * v"
    assert catalogue.facts(downslope.adam)["lookahead"] is None


def test_how_a_framework_writes_it():
    plain, decoupled = catalogue.facts(dialects.torch.adam)["calls"]
    assert plain == {"name": "torch.optim.Adam", "defaults": {}, "fixed": {}, "words": {}, "weight_decay": None}
    assert decoupled["name"] == "torch.optim.AdamW"
    assert decoupled["defaults"] == {"weight_decay": 0.01}
    assert decoupled["fixed"] == {"decoupled_weight_decay": True}


# Overview and entries


@pytest.fixture(scope="module")
def overview():
    return catalogue.overview()


def test_the_overview_has_every_form(overview):
    assert json.loads(json.dumps(overview, allow_nan=False)) == overview
    assert overview["version"] == downslope.__version__
    assert list(overview["dialects"]) == list(DIALECTS)
    assert [(entry["name"], dialect) for entry in overview["rules"] for dialect in entry["forms"]] == FORMS
    assert {"name", "intuition", "forms", "stand_ins", "see_also"} == set(overview["rules"][0])


@pytest.mark.parametrize(
    ("name", "stand_ins"),
    [
        ("adam", {}),
        ("nesterov", dict.fromkeys(["torch", "keras", "tf1", "optax"], "sgd_momentum")),
        ("amsgrad", {"torch": "adam", "keras": "adam"}),
        ("adamw", {"torch": "adam", "keras": "adam", "optax": "adam"}),
        ("sgd_momentum", {"note": "momentum"}),
        ("lion", {}),
    ],
)
def test_what_stands_in_for_a_rule_in_other_dialects(overview, name, stand_ins):
    entry = next(entry for entry in overview["rules"] if entry["name"] == name)
    assert entry["stand_ins"] == stand_ins


def test_an_entry_is_that_of_the_overview_with_differences(overview):
    entry = catalogue.entry("lion")
    assert json.loads(json.dumps(entry, allow_nan=False)) == entry
    assert entry.pop("differences")["groups"] == [["note", "keras", "optax"]]
    assert entry.pop("rates") is None
    assert entry in overview["rules"]
    assert entry["see_also"] == {}


def test_one_dialect():
    data = catalogue.dialect("tf1")
    assert data["framework"] == "TensorFlow 1"
    assert [facts["python"].rpartition(".")[2] for facts in data["rules"]] == [
        name for name, dialect in FORMS if dialect == "tf1"
    ]


# Differences


def test_adam_has_two_forms():
    found = catalogue.differences("adam")
    assert found["groups"] == [["note", "torch", "optax"], ["keras", "tf1"]]
    keras = found["elsewhere"]["keras"]
    assert (keras["rule"], keras["same"], keras["first_step"]) == ("adam", "never", 1)
    assert keras["settings"]["eps"] == 1e-8  # the note's, not Keras's own
    # At a gradient far below epsilon the note goes g / eps, and Keras g * sqrt(1 - beta2) / eps.
    assert keras["at_step_1"] == pytest.approx(1 - math.sqrt(0.001), abs=0.005)
    assert keras["formula"][-1] == "x = x - momentums * alpha / (sqrt(velocity) + eps)"


def test_momentum_parts_only_when_the_learning_rate_changes():
    found = catalogue.differences("momentum")
    assert found["groups"] == [["note", "keras"], ["torch", "tf1", "optax"]]
    assert {dialect: each["same"] for dialect, each in found["elsewhere"].items()} == {
        "torch": "constant lr",
        "keras": "always",
        "tf1": "constant lr",
        "optax": "constant lr",
    }
    assert {each["rule"] for each in found["elsewhere"].values()} == {"sgd_momentum"}
    assert found["reference"]["settings"] == {"lr": 0.01, "mu": 0.9}


def test_where_a_choice_makes_it_the_same_the_choice_is_told():
    found = catalogue.differences("rmsprop")
    assert found["groups"][0] == ["note", "torch", "optax"]
    assert found["elsewhere"]["optax"]["settings"]["eps_in_sqrt"] is False
    assert found["elsewhere"]["tf1"]["states"] == {"rms": 1.0}


def test_what_only_comes_close_does_not_stand_for_the_rule():
    found = catalogue.differences("amsgrad")
    assert found["elsewhere"]["tf1"] is None
    assert found["elsewhere"]["torch"]["settings"]["amsgrad"] is True
    assert catalogue.differences("grams")["elsewhere"] == dict.fromkeys(["torch", "keras", "tf1", "optax"])


# Names


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("adam", "adam"),
        (" AdamW ", "adamw"),
        ("NAdam", "nadam"),
        ("RMSPropOptimizer", "rmsprop"),
        ("GradientDescentOptimizer", "sgd"),
        ("keras.Adam", dialects.keras.adam),
        ("torch.SGD", dialects.torch.sgd),
        ("note.lion", downslope.lion),
        ("keras.AdamW", dialects.keras.adam),
        ("torch.optim.Adam", dialects.torch.adam),
    ],
)
def test_a_name_is_found_as_people_write_it(text, found):
    assert find(text) == found if isinstance(found, str) else find(text) is found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adamm", "there is no rule adamm; there are adam, "),
        ("kera.adam", "there is no dialect kera; there are keras, note, torch"),
        ("keras.adan", "keras has no adan, which is in note, optax; keras has adam, "),
        ("tf1.rmspro", "tf1 has no rule rmspro; there are rmsprop, "),
        ("", "there is no rule ; there are sgd, momentum"),
        ("tf1.muon", "tf1 has no muon, which is in note, torch, keras, optax; tf1 has "),
    ],
)
def test_an_unknown_name_is_answered_with_the_closest_first(text, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        find(text)


def test_entries_and_dialects_want_names_that_exist():
    with pytest.raises(ValueError, match="name='adamm': there is no rule adamm; there are adam, "):
        catalogue.entry("adamm")
    with pytest.raises(ValueError, match="name='jax' is not a dialect; choose one of note, torch"):
        catalogue.dialect("jax")
    with pytest.raises(ValueError, match="name='adamm'"):
        catalogue.differences("adamm")


def test_no_framework_is_loaded():
    script = (
        "import sys\nfrom downslope.recipes import catalogue\ncatalogue.overview(), catalogue.entry('sgd')\n"
        "print(*{name.partition('.')[0] for name in sys.modules} & {'torch', 'keras', 'tensorflow', 'jax', 'optax'})"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == ""

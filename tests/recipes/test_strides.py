"""Which learning rate in one form of Muon is which in another: checked by the formulas that the papers give."""

import math

import pytest

import downslope
from downslope import Recipe, convert, dialects
from downslope.recipes import catalogue
from downslope.recipes.spelled import native, read_recipe
from downslope.recipes.strides import rate_as_long, rate_of_adamw

MATCHED = {
    "note": Recipe(downslope.muon, match_rms=True),
    "torch": Recipe(dialects.torch.muon, match_rms_adamw=True),
    "keras": Recipe(dialects.keras.muon),
    "optax": Recipe(dialects.optax.muon, lr=1.0, consistent_rms=0.2),
}
PLAIN = {
    "note": Recipe(downslope.muon),
    "torch": Recipe(dialects.torch.muon),
    "optax": Recipe(dialects.optax.muon, lr=1.0),
}


@pytest.mark.parametrize("layer", [(16, 16), (16, 48), (48, 16)])
def test_a_learning_rate_of_adamw_becomes_that_of_each_form(layer):
    inputs, outputs = layer
    ratio = 0.2 * math.sqrt(max(layer)) / math.sqrt(max(1, outputs / inputs))
    for form in MATCHED.values():
        assert rate_of_adamw(3e-4, form, layer) == pytest.approx(3e-4, rel=1e-5)
    for form in PLAIN.values():
        assert rate_of_adamw(3e-4, form, layer) == pytest.approx(3e-4 * ratio, rel=1e-5)
    for own in MATCHED.values():
        there = own.numbers["lr"] * ratio
        assert all(rate_as_long(own, to, layer) == pytest.approx(there, rel=1e-5) for to in PLAIN.values())


def test_a_conversion_says_with_which_learning_rate_steps_are_as_long():
    assert str(convert(dialects.torch.muon, "keras", lr=0.016)).endswith(
        "Its steps are as long at lr=0.005 in a layer from 256 to 256, 0.005 in a layer from 256 to 1024, 0.0025 "
        "in a layer from 1024 to 256."
    )
    assert str(convert(dialects.torch.muon, "optax")).endswith("Its steps are as long at the same learning rate.")
    assert "as long at" not in str(convert(dialects.torch.adam, "keras"))


def test_no_value_goes_into_an_argument_of_another_kind():
    keras = convert(dialects.optax.muon, "keras", lr=0.01).recipe
    assert keras == Recipe(dialects.keras.muon, lr=0.01)
    optax = convert(MATCHED["torch"].with_settings(momentum=0.9, weight_decay=0.1), "optax").recipe
    assert (optax.numbers["beta"], optax.numbers["consistent_rms"]) == (0.9, 0.0)


def test_muon_is_compared_as_matrices_and_parts_by_an_epsilon_only():
    found = catalogue.differences("muon")
    assert found["groups"] == [["note"], ["torch"], ["keras"], ["optax"]]
    assert found["elsewhere"]["torch"]["at_last_step"] < 1e-4
    assert found["elsewhere"]["keras"]["at_last_step"] > 0.1
    alike = {"eps": 0.0, "lr": 0.02, "weight_decay": 0.0}
    assert downslope.equivalent(downslope.muon, dialects.torch.muon, steps=20, **alike)
    assert catalogue.differences("lamb")["groups"] == [["note", "keras", "optax"]]


def test_words_of_pytorch_are_read_and_written():
    matched = read_recipe("torch", "Muon", {"adjust_lr_fn": "match_rms_adamw"})
    assert matched == MATCHED["torch"]
    assert native(matched) == "torch.optim.Muon(model.parameters(), lr=0.001, adjust_lr_fn='match_rms_adamw')"
    assert (
        read_recipe("torch", "Muon", {"adjust_lr_fn": "original"}) == PLAIN["torch"] == read_recipe("torch", "Muon", {})
    )
    with pytest.raises(TypeError, match="has no hyperparameter 'adjust_lr_fn'"):
        read_recipe("torch", "Muon", {"adjust_lr_fn": "other"})

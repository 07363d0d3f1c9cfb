"""Settings: honoured or refused, under Keras's names, the same when they are given and when they are assigned."""

import keras
import numpy as np
import pytest
from each_backend import once
from hypothesis import given, settings
from hypothesis import strategies as st
from network import values_of

import downslope
import downslope.keras

KINDS = {
    "float": float,
    "np.float64": np.float64,
    "np.float32": np.float32,
    "0-d array": np.array,
    "tensor": keras.ops.convert_to_tensor,
    "variable": lambda value: keras.Variable(value, dtype="float32"),
}
WHOLE = {"int": int, "np.int64": np.int64, "0-d array of integers": lambda value: np.array(int(value))}
rates = st.one_of(
    st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from([0.0, 0.125, 0.5, 1.5])),
    st.tuples(st.sampled_from(sorted(WHOLE)), st.sampled_from([0, 1, 2])),
)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(steps=st.lists(st.one_of(st.none(), rates, st.just("momentum")), min_size=1, max_size=8), late=st.booleans())
def test_a_rate_of_any_kind_is_taken_at_any_step(steps, late):
    """Beside Keras's own optimizer, through any sequence of steps and assignments."""
    found = []
    for place in (downslope.keras, keras.optimizers):
        optimizer = place.SGD(0.25, momentum=0.5)
        variable = keras.Variable(np.zeros(2, "float32"))
        if not late:
            optimizer.build([variable])
        for what in steps:
            if isinstance(what, tuple):
                kind, value = what
                optimizer.learning_rate = (KINDS | WHOLE)[kind](value)
            elif what == "momentum" and place is downslope.keras and optimizer.built:
                with pytest.raises(AttributeError, match=r"momentum=0.9: .*make a new optimizer"):
                    optimizer.momentum = 0.9
            optimizer.apply([keras.ops.convert_to_tensor(np.array([1.0, -2.0], "float32"))], [variable])
            found.append(values_of(variable))
    mine, theirs = found[: len(steps)], found[len(steps) :]
    np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6)


@once
def test_a_rate_that_a_function_gives_may_be_of_any_kind():
    for kind, make in {**KINDS, **WHOLE}.items():
        variable = keras.Variable(np.zeros(2, "float32"))
        downslope.keras.SGD(lambda make=make: make(1.0)).apply([keras.ops.ones(2)], [variable])
        np.testing.assert_array_equal(values_of(variable), [-1, -1], err_msg=kind)


@once
def test_the_first_rate_may_be_of_any_kind():
    for make in (KINDS | WHOLE).values():
        assert float(downslope.keras.SGD(make(1.0)).learning_rate) == 1.0


NAN = float("nan")
REFUSED = {
    "learning_rate": [-1.0, NAN, "x", True, np.ones(2), np.True_],
    "beta_1": [-0.5, 1.0, NAN, "x", None, True],
    "epsilon": [-1.0, "x"],
    "amsgrad": [1, "yes", None],
    "weight_decay": [-1.0, NAN, "x", True],
    "clipnorm": [-1.0, 0.0, NAN, "x", True],
    "clipvalue": [-2.0, 0.0],
    "global_clipnorm": [-2.0, 0.0],
    "use_ema": ["yes", 1],
    "ema_momentum": [2.0, -0.5, NAN, "x", None, True],
    "ema_overwrite_frequency": [-1, 2.5, True, "x"],
    "loss_scale_factor": [0.0, -1.0, "x"],
    "gradient_accumulation_steps": [0, 1, 2.5, True, "x"],
}


@once
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, of in REFUSED.items() for value in of], ids=repr)
def test_what_the_constructor_refuses_cannot_be_assigned(name, value):
    """And the message speaks of what the user wrote."""
    if value is not None or name == "beta_1":  # None is a default elsewhere
        with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
            downslope.keras.Adam(**{name: value})
    for built in (False, True):
        optimizer = downslope.keras.Adam(0.5)
        if built:
            optimizer.build([keras.Variable(np.ones(2, "float32"))])
        before = optimizer.get_config()
        with pytest.raises((TypeError, ValueError, AttributeError), match=rf"^{name}\b"):
            setattr(optimizer, name, value)
        assert optimizer.get_config() == before
        assert downslope.keras.Adam.from_config(before).get_config() == before


@once
def test_only_one_kind_of_clipping():
    message = r"clipnorm=1.0, global_clipnorm=2.0: only one of clipnorm, clipvalue and global_clipnorm"
    with pytest.raises(ValueError, match=message):
        downslope.keras.Adam(clipnorm=1.0, global_clipnorm=2.0)
    optimizer = downslope.keras.Adam(clipnorm=1.0)
    with pytest.raises(ValueError, match=message):
        optimizer.global_clipnorm = 2.0
    optimizer.clipnorm = None
    optimizer.global_clipnorm = 2.0
    assert optimizer.get_config()["global_clipnorm"] == 2.0

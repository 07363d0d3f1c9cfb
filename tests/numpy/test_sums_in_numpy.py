"""Rules that sum up all tensors of a group, for NumPy arrays."""

import numpy as np
import pytest

import downslope
from training.sums_over_all import SHAPES, STEPS, clipped, gradients, spread, trained, weights


def by_hand():
    """The rule `spread`, written out."""
    x, v, d = weights(np.float64), {name: np.zeros(shape) for name, shape in SHAPES.items()}, 1e-3
    for t in range(1, STEPS + 1):
        g = gradients(t - 1, np.float64)
        v = {name: 0.9 * v[name] + (1 - 0.9) * g[name] for name in x}
        flat = np.concatenate([each.ravel() for each in v.values()])
        d = max(d, ((flat - flat.mean()) ** 2).sum() / t)
        x = {name: x[name] - 0.1 * np.sqrt(d) * v[name] / (1 + np.linalg.norm(v[name])) for name in x}
    return x, d


def test_it_computes_what_the_formula_says():
    arrays, optimizer = trained(spread)
    expected, d = by_hand()
    for name, array in arrays.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-12)
    (group,) = optimizer._groups
    assert group.scalar_states["d"] == pytest.approx(d, rel=1e-12)


def test_clipping_as_a_formula_is_the_option():
    formula, _ = trained(clipped)
    option, _ = trained(downslope.sgd, lr=0.05, max_norm=1.5)
    for name, array in formula.items():
        np.testing.assert_allclose(array, option[name], rtol=1e-13)


def test_a_group_is_all_there_is():
    halves = [("wide", "bias", "empty"), ("tall", "gain", "kernel")]
    together = weights(np.float64)
    groups = [{"params": {name: together[name] for name in half}} for half in halves]
    optimizer = downslope.Optimizer(groups, spread)
    alone = [{name: weights(np.float64)[name] for name in half} for half in halves]
    each = [downslope.Optimizer(arrays, spread) for arrays in alone]
    for step in range(3):
        g = gradients(step, np.float64)
        parts = [{name: g[name] for name in half} for half in halves]
        optimizer.step(parts)
        for one, part in zip(each, parts, strict=True):
            one.step(part)
    for name, array in {**alone[0], **alone[1]}.items():
        assert np.array_equal(together[name], array)
    first, second = (group.scalar_states["d"] for group in optimizer._groups)
    assert first != second


def test_saved_and_loaded_it_goes_on_bit_for_bit(tmp_path):
    arrays, optimizer = trained(spread, steps=3)
    optimizer.save(tmp_path / "state.safetensors")
    others = weights(np.float64)
    second = downslope.Optimizer(others, spread)
    second.load(tmp_path / "state.safetensors")
    for one in (optimizer, second):
        one.step(gradients(4, np.float64))
    for name, array in arrays.items():
        assert np.array_equal(array, others[name])


def test_a_nan_reaches_its_group_and_no_other():
    a, b, c = np.ones(3), np.ones(2), np.ones(2)
    optimizer = downslope.Optimizer([{"params": {"a": a, "b": b}}, {"params": {"c": c}}], spread)
    bad = [{"a": np.array([np.nan, 1, 1]), "b": np.ones(2)}, {"c": np.array([1.0, 2.0])}]
    optimizer.step(bad)
    assert np.isnan(a).all()
    assert np.isnan(b).all()
    assert np.isfinite(c).all()
    kept = np.ones(3), np.ones(2)
    careful = downslope.Optimizer(list(kept), spread, nonfinite="skip")
    careful.step([np.array([np.nan, 1, 1]), np.ones(2)])
    assert careful.skipped == 1
    assert (np.concatenate(kept) == 1).all()


@pytest.mark.parametrize("options", [{"weight_decay": 0.1}, {"cautious": True, "averaging": 0.9}, {"max_norm": 0.5}])
def test_options_stand_around_it(options):
    arrays, _ = trained(spread, **options)
    plain, _ = trained(spread)
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert any(not np.array_equal(arrays[name], plain[name]) for name in arrays)
    if "max_norm" in options:  # which it is given as its gradient
        expected = weights(np.float64)
        optimizer = downslope.Optimizer(expected, spread)
        for step in range(STEPS):
            g = gradients(step, np.float64)
            length = np.sqrt(sum((each**2).sum() for each in g.values()))
            optimizer.step({name: each * np.minimum(1, 0.5 / length) for name, each in g.items()})
        for name, array in arrays.items():
            np.testing.assert_allclose(array, expected[name], rtol=1e-12)

"""Walks: beside the rule called step by step and beside the optimizer, what is measured, and what is refused."""

import dataclasses

import numpy as np
import pytest

import downslope
from downslope import Recipe, dialects, rule, surfaces
from downslope.rules import RULES
from downslope.walks.walking import RATES, lowest_places


def by_hand(of, place, start, steps, **settings):
    """The points, each step by calling the rule and the surface."""
    numbers = of.complete(settings)
    starts = {**{name: numbers.get(v, v) for name, v in of.states.items()}, **of.scalar_states}
    x = np.array(start)
    states = {name: value if name in of.scalar_states else np.full(len(x), value) for name, value in starts.items()}
    points = [x]
    for t in range(1, steps + 1):
        point = x
        if of.ahead:
            asked = of.ahead.__code__.co_varnames[: of.ahead.__code__.co_argcount + of.ahead.__code__.co_kwonlyargcount]
            point = x + of.ahead(**{name: {**states, **numbers}[name] for name in asked})
        clock = {"t": t} if of.uses_t else {}
        given = [states[name] for name in of.signature_states]
        with np.errstate(all="ignore"):
            new = of(x, np.array(place.gradient(*point)), *given, **numbers, **clock)
        x, *rest = new if isinstance(new, tuple) else (new,)
        states = dict(zip(of.signature_states, rest, strict=True))
        points.append(x)
    return np.stack(points)


@pytest.mark.parametrize("place", [surfaces.valley, surfaces.rosenbrock, surfaces.bumps], ids=lambda place: place.name)
@pytest.mark.parametrize("of", RULES, ids=lambda of: of.name)
def test_a_path_is_that_of_the_rule_called_step_by_step(of, place):
    path = downslope.walk(place, [of], lr=1e-3, steps=60).paths[0]
    expected = by_hand(of, place, place.start, 60, lr=1e-3)
    np.testing.assert_allclose(path.points, expected, rtol=1e-11)
    np.testing.assert_array_equal(path.losses, place(*path.points.T))
    assert np.abs(path.points[-1] - place.start).max() > 1e-4


@pytest.mark.parametrize("of", [downslope.nesterov, downslope.adam, dialects.torch.rmsprop, dialects.keras.nadam])
def test_a_path_is_that_of_the_optimizer(of):
    path = downslope.walk("himmelblau", [of], lr=0.004, steps=80).paths[0]
    weights = np.array(surfaces.himmelblau.start)
    optimizer = downslope.Optimizer(weights, of, lr=0.004)
    for _ in range(80):
        optimizer.step(np.array(surfaces.himmelblau.gradient(*weights)))
    with optimizer.at_weights():
        np.testing.assert_allclose(path.points[-1], weights, rtol=1e-11)
    assert set(path.states) == set(optimizer.state)


def test_the_classroom_valley_by_hand():
    """On x**2/10 + 5 y**2 a step of lr = 0.15 leaves 0.97 of x and -0.5 of y."""
    path = downslope.walk("x**2/10 + 5*y**2", [downslope.sgd], start=(-9, 1.5), lr=0.15, steps=4).paths[0]
    expected = np.stack([-9 * 0.97 ** np.arange(5), 1.5 * (-0.5) ** np.arange(5)], axis=1)
    np.testing.assert_allclose(path.points, expected, rtol=1e-14)
    np.testing.assert_allclose(path.gradients[0], [-1.8, 15], rtol=1e-14)
    np.testing.assert_array_equal(path.asked, path.points[:-1])
    steps = np.hypot(*np.diff(expected, axis=0).T)
    assert path.length == pytest.approx(steps.sum())
    assert path.distance == pytest.approx(np.hypot(*(expected[-1] - expected[0])))
    assert path.detour == pytest.approx(path.length / path.distance)
    assert path.sign_changes == (0, 3)
    np.testing.assert_allclose(path.curvature, 10)
    assert path.diverged is None
    assert path.lr == 0.15
    assert not path.is_best


def test_the_gradient_is_taken_ahead_where_the_rule_looks_ahead():
    path = downslope.walk("valley", [downslope.nesterov], lr=0.01, steps=5).paths[0]
    np.testing.assert_allclose(path.asked, path.points[:-1] + 0.9 * path.states["v"][:-1], rtol=1e-15)
    np.testing.assert_array_equal(path.gradients, np.stack(surfaces.valley.gradient(*path.asked.T), axis=1))


# What is measured


def test_the_effective_step():
    rules = [downslope.sgd, downslope.momentum, downslope.rmsprop, downslope.adam]
    walked = downslope.walk("valley", rules, lr=0.1, steps=200)
    np.testing.assert_allclose(walked["sgd"].effective, 0.1)
    np.testing.assert_allclose(walked["momentum"].effective, 0.1)
    cache = walked["rmsprop"].states["cache"][1:]
    np.testing.assert_allclose(walked["rmsprop"].effective, 0.1 / (np.sqrt(cache) + 1e-8), rtol=1e-13)
    t = np.arange(1, 201)[:, None]
    v_hat = walked["adam"].states["v"][1:] / (1 - 0.999**t)
    expected = 0.1 * 0.1 / (1 - 0.9**t) / (np.sqrt(v_hat) + 1e-8)
    np.testing.assert_allclose(walked["adam"].effective, expected, rtol=1e-12)


def test_the_effective_step_of_a_rule_that_goes_by_signs():
    path = downslope.walk("valley", [downslope.lion], lr=0.1, steps=5).paths[0]
    np.testing.assert_allclose(path.effective, 0.1 / np.abs(path.gradients))


@pytest.mark.parametrize("of", RULES, ids=lambda of: of.name)
def test_every_rule_has_a_path_states_and_effective_steps(of):
    path = downslope.walk("rosenbrock", [of], lr="own", steps=7).paths[0]
    assert path.points.shape == (8, 2)
    assert path.gradients.shape == path.asked.shape == path.effective.shape == (7, 2)
    assert {name: each.shape for name, each in path.states.items()} == dict.fromkeys(path.states, (8, 2))
    assert np.isfinite(path.effective).all()
    first = 1 if of is downslope.adopt else 0  # its first step only measures
    assert (path.effective[:first] == 0).all()
    assert (path.effective[first:] > 0).all()


def test_who_diverges_is_shown_as_what_he_is():
    path = downslope.walk("rosenbrock", [downslope.sgd], lr=0.1, steps=50).paths[0]
    assert 3 < path.diverged < 12
    assert np.isfinite(path.points[: path.diverged]).all()
    assert np.isfinite([path.length, path.distance, path.detour]).all()
    assert path.arrival is None
    assert np.isnan(path.curvature[-1])


def test_arrival_is_where_the_loss_stays_low():
    path = downslope.walk("bowl", [downslope.momentum], lr=0.1, start=1.0, goal=0.01).paths[0]
    assert (path.losses[path.arrival :] <= 0.01).all()
    assert path.losses[path.arrival - 1] > 0.01
    first = int((path.losses <= 0.01).argmax())
    assert first < path.arrival  # it passed through before
    assert downslope.walk("bowl", [downslope.sgd], lr=0.1, goal=9.0).paths[0].arrival == 0


@pytest.mark.parametrize(
    ("place", "curvature"), [("valley", 10), ("rotated_valley", 10), ("x**2 - 3*y**2", 2), ("bumps", None)]
)
def test_the_sharpness_is_the_learning_rate_times_the_curvature(place, curvature):
    damped = Recipe(dialects.torch.sgd_momentum, momentum=0.5, dampening=0.3)
    for path in downslope.walk(place, ["sgd", "momentum", "nesterov", damped], lr=0.03, steps=4).paths:
        expected = 0.03 * (curvature or path.curvature)
        np.testing.assert_allclose(path.sharpness, expected + np.zeros(5), rtol=1e-12)
    assert path.stability == dialects.torch.sgd_momentum.stability(momentum=0.5, dampening=0.3, lr=0.03)


def test_the_sharpness_of_adam_is_the_preconditioned_one():
    """Cohen et al., 2022, equation 3: P = (1 - beta1**t) (sqrt(v / (1 - beta2**t)) + eps), and lr times P**-1 H."""
    path = downslope.walk("rosenbrock", [downslope.adam], lr=0.1, steps=40).paths[0]
    t = np.arange(1, 41)[:, None]
    preconditioner = (1 - 0.9**t) * (np.sqrt(path.states["v"][1:] / (1 - 0.999**t)) + 1e-8)
    for k in range(40):
        hessian = np.array(surfaces.rosenbrock.hessian(*path.points[k]))
        expected = 0.1 * np.linalg.eigvals(hessian / preconditioner[k][:, None]).max()
        assert path.sharpness[k] == pytest.approx(expected, rel=1e-9)
    assert path.stability.limit == pytest.approx(38)


def test_what_is_remembered_shrinks_until_the_sharpness_is_at_the_limit():
    """Steps that no longer shrink end in an orbit, whose size holds the rule where it would begin to grow."""
    path = downslope.walk("valley", [dialects.keras.rmsprop], lr=0.05, steps=1500).paths[0]
    assert path.sharpness[0] < 1
    np.testing.assert_allclose(path.sharpness[-300:], path.stability.limit, rtol=1e-9)
    path = downslope.walk("valley", [Recipe(downslope.adamax, beta2=0.99)], lr=0.05, steps=1500).paths[0]
    assert np.median(path.sharpness[-300:]) == pytest.approx(path.stability.limit, rel=0.1)


def test_there_is_no_sharpness_without_a_limit():
    path = downslope.walk("valley", [downslope.lion], lr=0.1, steps=5).paths[0]
    assert "sign" in path.stability.reason
    assert np.isnan(path.sharpness).all()


# Noise


def test_the_noise_is_the_same_for_all_and_given_by_the_seed():
    given = {"lr": 0.01, "noise": 0.3, "steps": 30}
    walked = downslope.walk("valley", [downslope.sgd, downslope.adam], **given, seed=4)
    noises = [path.gradients - np.stack(surfaces.valley.gradient(*path.asked.T), axis=1) for path in walked.paths]
    np.testing.assert_allclose(noises[0], noises[1], atol=1e-12)
    drawn = 0.3 * np.random.default_rng(4).standard_normal((30, 2))
    np.testing.assert_allclose(noises[0], drawn, rtol=6e-8, atol=1e-12)  # of single precision
    again = downslope.walk("valley", [downslope.adam], **given, seed=4).paths[0]
    np.testing.assert_array_equal(again.points, walked["adam"].points)
    other = downslope.walk("valley", [downslope.adam], **given, seed=5).paths[0]
    assert not np.array_equal(other.points, again.points)


# Learning rates


@pytest.mark.parametrize("place", [surfaces.valley, surfaces.rosenbrock], ids=lambda place: place.name)
@pytest.mark.parametrize("of", [downslope.sgd, downslope.nesterov, downslope.rmsprop, downslope.schedule_free_sgd])
def test_the_best_learning_rate_is_the_best(of, place):
    """Beside walks of one learning rate each, ordered in Python."""
    best = downslope.walk(place, [of], steps=100).paths[0]
    assert best.is_best
    low, high = np.array(list(place.ranges.values())).T

    def worth(lr):
        path = downslope.walk(place, [of], lr=lr, steps=100).paths[0]
        off = not ((path.points >= low) & (path.points <= high)).all()
        with np.errstate(all="ignore"):
            last = path.losses[-10:].max()
        return off, 101 if path.arrival is None else path.arrival, np.inf if np.isnan(last) else last

    assert worth(best.lr) <= min(map(worth, RATES[20:85:3]))


def test_nobody_is_best_by_leaping_off_the_map():
    """Without the limit Adagrad's best on the valley is 200: to the far side of the map and back by symmetry."""
    for path in downslope.walk("valley").paths:
        assert np.abs(path.points[:, 0]).max() <= 10
        assert np.abs(path.points[:, 1]).max() <= 3


def test_gradient_descents_best_is_below_its_limit():
    path = downslope.walk("valley", [downslope.sgd]).paths[0]
    limit = downslope.sgd.stability().limit / 10
    assert limit / 2 < path.lr < limit


def test_ones_own_learning_rate():
    walked = downslope.walk("valley", [Recipe(downslope.sgd, lr=0.03), downslope.adam], lr="own")
    assert [path.lr for path in walked.paths] == [0.03, 1e-3]
    assert not any(path.is_best for path in walked.paths)


# Who walks


def test_recipes_and_names():
    two = [Recipe(downslope.adam, beta1=0.5), downslope.adam, dialects.keras.adam, dialects.optax.sgd]
    walked = downslope.walk("valley", two, lr=0.1, steps=3)
    names = ["adam(beta1=0.5)", "adam(lr=0.001)", "keras.adam", "optax.sgd"]
    assert [path.name for path in walked.paths] == names
    assert walked["adam(beta1=0.5)"].recipe.numbers["beta1"] == 0.5
    decayed = downslope.walk("bowl", [Recipe(downslope.sgd, weight_decay=1.0)], lr=0.1, steps=1, start=1.0).paths[0]
    assert decayed.points[-1, 0] == pytest.approx(0.8)
    twice = downslope.walk("bowl", [downslope.sgd] * 2, lr=0.1, steps=1)
    assert len({path.name for path in twice.paths}) == 2
    with pytest.raises(KeyError, match="there are adam"):
        walked["rmsprop"]


def test_a_rule_without_a_learning_rate():
    @rule
    def halving(x, dx, *, part=0.5):
        return part * x

    assert downslope.walk("bowl", [halving], start=8.0, steps=3).paths[0].points[-1, 0] == 1
    with pytest.raises(ValueError, match="halving has no learning rate"):
        downslope.walk("bowl", [halving], lr=0.1)


def test_the_summary():
    walked = downslope.walk("rosenbrock", [Recipe(downslope.sgd, lr=1.0), downslope.adam], lr="own", steps=30)
    assert repr(walked) == "<walk on rosenbrock: sgd, adam; 30 steps>"
    rows = walked.summary()
    assert [row["rule"] for row in rows] == ["sgd", "adam"]
    assert rows[0]["diverged"] is not None


def test_names_and_settings_for_all():
    walked = downslope.walk("bowl", ["keras.adam", "momentum", "sgd"], lr=0.1, steps=3, mu=0.7)
    assert [path.name for path in walked.paths] == ["keras.adam", "momentum", "sgd"]
    assert walked["momentum"].recipe.numbers["mu"] == 0.7
    assert downslope.walk("bowl", "adam", steps=3).paths[0].recipe.rule is downslope.adam
    with pytest.raises(TypeError, match=r"nonsense=1.0: none of the rules has a hyperparameter"):
        downslope.walk("bowl", ["sgd"], nonsense=1.0)
    with pytest.raises(ValueError, match="mu"):
        downslope.walk("bowl", ["momentum"], mu=2.0)
    with pytest.raises(ValueError, match="adamm"):
        downslope.walk("bowl", ["adamm"])


# Where it is lowest


def test_without_a_number_of_steps_it_ends_when_all_have_arrived():
    found = downslope.walk("bowl", ["sgd", "adam"])
    assert max(path.arrival for path in found.paths) < found.steps < 200
    assert downslope.walk("rosenbrock", ["adagrad"]).steps == 200


def test_what_is_measured_ends_at_the_goal():
    path = downslope.walk("valley", ["sgd"], steps=120, lr=0.19).paths[0]
    assert 20 < path.arrival < 100
    moves = np.diff(path.points[: path.arrival + 1], axis=0)
    assert path.length == pytest.approx(np.hypot(*moves.T).sum())
    assert path.distance == pytest.approx(np.hypot(*moves.sum(axis=0)))
    assert path.sign_changes == (0, path.arrival - 1)


def test_the_lowest_place_of_a_typed_surface_is_found():
    walked = downslope.walk("(x-1)**2 + 3*(y+2)**2 + 5", ["sgd"])
    np.testing.assert_allclose(walked.minima, [(1, -2)], atol=1e-7)
    assert walked.lowest == pytest.approx(5)
    assert walked["sgd"].arrival is not None


@pytest.mark.parametrize("surface", surfaces.SURFACES, ids=lambda surface: surface.name)
def test_the_lowest_place_of_a_surface_is_found_if_it_is_not_said(surface):
    places, height = lowest_places(dataclasses.replace(surface, minima=()))
    assert height == pytest.approx(surface.lowest, abs=1e-9)
    assert min(np.abs(np.subtract(places[0], known)).max() for known in surface.minima) < 1e-4


@pytest.mark.parametrize("surface", ["x*y", "log(abs(x)) + y**2"])
def test_a_surface_that_falls_without_end_has_none(surface):
    walked = downslope.walk(surface, ["sgd"])
    assert walked.minima == ()
    assert np.isfinite(walked.lowest)
    path = walked["sgd"]
    assert path.goal == pytest.approx((path.losses[0] + walked.lowest) / 2)
    assert path.arrival is not None


# Bad input


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"steps": 0}, "steps=0"),
        ({"steps": 1.5}, "steps=1.5"),
        ({"steps": 10**9}, "steps=1000000000: expected a whole number from 1 to 100,000"),
        ({"steps": True}, "steps=True"),
        ({"seed": -1}, "seed=-1"),
        ({"lr": 0}, "lr=0"),
        ({"lr": -0.1}, r"lr=-0\.1"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"lr": "fast"}, "lr='fast': expected a number above 0, 'best' or 'own'"),
        ({"noise": -1}, "noise=-1"),
        ({"goal": float("inf")}, "goal=inf"),
        ({"start": (1, 2, 3)}, r"start=\(1, 2, 3\): expected a number for each of x, y"),
        ({"start": 1.0}, "start=1.0"),
        ({"start": (0, float("nan"))}, "start=nan"),
        ({"start": (1e200, 1e200)}, "not finite there"),
        ({"rules": []}, "rules is empty"),
    ],
)
def test_what_cannot_be(given, problem):
    with pytest.raises(ValueError, match=problem):
        downslope.walk("himmelblau", given.pop("rules", [downslope.sgd]), **given)


@pytest.mark.parametrize("what", [3, None, lambda x, dx: x])
def test_who_is_no_rule(what):
    with pytest.raises(TypeError, match="expected rules"):
        downslope.walk("bowl", [what])


def test_the_best_learning_rate_of_a_rule_over_tensors_is_looked_for_one_by_one():
    """The columns of several learning rates are no tensor: its norm would be that of all of them."""
    found = downslope.walk("valley", [downslope.lamb], steps=10)["lamb"]
    assert found.is_best
    for lr in RATES[20:80:12]:
        other = downslope.walk("valley", [downslope.lamb], steps=10, lr=lr)["lamb"]
        low, high = np.array([found.surface.ranges[name] for name in found.surface.variables]).T
        if ((other.points >= low) & (other.points <= high)).all() and other.arrival is None:
            assert found.losses[-1] <= other.losses[-1] or found.arrival is not None


def test_a_state_by_rows_is_shown_at_each_weight_and_a_matrix_is_asked_for_by_name(tmp_path):
    path = downslope.walk("valley", [downslope.adafactor], steps=3, lr=0.1)["adafactor"]
    assert {name: values.shape for name, values in path.states.items()} == {"r": (4, 2), "c": (4, 2)}
    assert (path.states["r"][:, 0] == path.states["r"][:, 1]).all()
    with pytest.raises(ValueError, match=r"adafactor goes by whole tensors, and a film.*such as walk.gif"):
        downslope.walk("valley", [downslope.adafactor], steps=3, lr=0.1).write(tmp_path / "walk.html")
    with pytest.raises(ValueError, match=r"muon multiplies matrices, and a tensor of shape \(2,\) is none"):
        downslope.walk("valley", [downslope.muon], steps=3)

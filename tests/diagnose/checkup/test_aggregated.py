"""A check-up behind an aggregator is that of the one loss whose gradient the aggregator hands on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax.diagnose import checkup, update_rule, watch
from nablax.follow import fit
from nablax.regulate import (
    bloop,
    dual_ascent,
    graddrop,
    importance_sampling,
    mean,
    modality_modulation,
    multi_value_and_grad,
    sam_gs,
    upgrad,
)

KEY = jax.random.key(0)
RATE = 0.1
X = jax.random.normal(jax.random.key(1), (32, 3))
START = jnp.array([0.5, -0.9, 0.2])


def first(params, batch):
    return jnp.mean((batch @ params - 1.0) ** 2)


def second(params, batch):
    return jnp.mean(jnp.cos(batch @ (params + 0.3)))


def both(params, batch):
    return (first(params, batch) + second(params, batch)) / 2


SEVERAL = {"first": first, "second": second}


def numbers(record):
    """What does not speak of several losses."""
    return {name: value for name, value in record.metrics().items() if not name.startswith("conflicts")}


@pytest.mark.parametrize("rest", [optax.sgd(RATE), optax.adam(1e-2), optax.chain(optax.trace(0.9), optax.scale(-RATE))])
def test_behind_a_mean_it_is_the_check_up_of_the_mean(rest):
    """Every number of it: rates, curvature, noise, step, rehearsal."""
    plain = checkup(both, START, X, optimizer=rest, key=KEY, losses=SEVERAL)
    behind = checkup(first, START, X, optimizer=optax.chain(mean(), rest), key=KEY, losses=SEVERAL)
    expected, found = numbers(plain), numbers(behind)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-5, err_msg=name)
    assert behind.sharpness.rule.name() == plain.sharpness.rule.name()
    np.testing.assert_allclose(behind.conflicts.weights, 0.5)
    assert np.isnan(plain.conflicts.weights).all()
    np.testing.assert_allclose(behind.conflicts.first_order.value, plain.conflicts.first_order.value, rtol=1e-4)


@pytest.mark.parametrize("told", [None, 2])
@pytest.mark.parametrize(
    ("one", "other", "weights"),
    [
        # Orthogonal gradients are left as they are.
        ([3.0, 0.0], [0.0, 1.0], [0.5, 0.5]),
        # Of opposed ones each is projected off the other: w₁ = (1 − g₁·g₂ / ‖g₁‖²) / 2.
        ([1.0, 0.0], [-1.0, 2.0], [(1 + 1) / 2, (1 + 1 / 5) / 2]),
    ],
)
def test_behind_upgrad_it_is_that_of_the_weighted_sum(one, other, weights, told):
    """Slope, curvature and edge of stability of two quadratics in closed form."""
    g, h = jnp.array([one, other]), jnp.array([[4.0, 1.0], [2.0, 6.0]])

    def losses(params, batch):
        return g @ params + 0.5 * h @ params**2 + 1.0

    optimizer = optax.chain(upgrad(objectives=told), optax.sgd(RATE))
    record = checkup(lambda p, batch: p @ p, jnp.zeros(2), None, optimizer=optimizer, key=KEY, losses=losses)
    w = np.array(weights)
    direction, curvatures = w @ np.asarray(g), w @ np.asarray(h)
    np.testing.assert_allclose(record.conflicts.weights, w, rtol=1e-4)
    np.testing.assert_allclose(record.sharpness.ratio.value, RATE * curvatures.max() / 2, rtol=1e-4)
    np.testing.assert_allclose(record.sharpness.sharpness.value, curvatures.max(), rtol=1e-4)
    np.testing.assert_allclose(record.step.slope.value, -RATE * direction @ direction, rtol=1e-4)
    np.testing.assert_allclose(record.step.curvature.value, RATE**2 * curvatures @ direction**2, rtol=1e-4)
    np.testing.assert_allclose(record.conflicts.first_order.value, -RATE * np.asarray(g) @ direction, atol=1e-5)
    np.testing.assert_allclose(record.loss, w.sum(), rtol=1e-4)
    np.testing.assert_allclose(record.sharpness.rule.learning_rate, RATE, rtol=1e-5)
    assert any("weights that the aggregator finds" in note for note in record.notes)


def test_the_rehearsal_weighs_anew_at_each_step():
    """Step by step by hand, the loss that is looked at being the sum by the weights of the first step."""
    optimizer = optax.chain(upgrad(), optax.adam(0.05))
    record = checkup(both, START, X, optimizer=optimizer, key=KEY, losses=SEVERAL)
    half, weights = X[0::2], np.asarray(record.conflicts.weights)
    params, state, own = START, optimizer.init(START), []
    for _ in range(33):
        values, stack = multi_value_and_grad(list(SEVERAL.values()))(params, half)
        own.append(float(weights @ np.asarray(values)))
        update, state = optimizer.update(stack, state, params)
        params = params + update
    np.testing.assert_allclose(record.rehearsal.own, own, rtol=1e-3)


def test_a_rehearsal_that_leaves_the_numbers_is_said_and_raises_nothing():
    """Four times the rate diverges to infinity within sixteen steps, where the aggregator itself would raise."""

    def steep(params, batch):
        return jnp.stack([jnp.sum(params**4), jnp.sum((params - 1) ** 4)])

    optimizer = optax.chain(upgrad(), optax.sgd(1.0))
    record = checkup(first, 3 * START, X, optimizer=optimizer, key=KEY, losses=steep)
    assert not record.safe and not np.isfinite(record.rehearsal.ends).all()


def test_gradients_gathered_behind_an_aggregator():
    every = optax.MultiSteps(optax.sgd(RATE, momentum=0.9), 3).gradient_transformation()
    gathered = checkup(both, START, X, optimizer=optax.chain(mean(), every), key=KEY, losses=SEVERAL)
    once = checkup(
        both, START, X, optimizer=optax.chain(mean(), optax.sgd(RATE, momentum=0.9)), key=KEY, losses=SEVERAL
    )
    np.testing.assert_allclose(gathered.sharpness.ratio.value, once.sharpness.ratio.value, rtol=1e-4)
    np.testing.assert_allclose(gathered.step.slope.value, once.step.slope.value, rtol=1e-4)


@pytest.mark.parametrize("aggregator", [graddrop(key=KEY), bloop(objectives=2)], ids=["graddrop", "bloop"])
def test_without_weights_curvature_is_of_the_loss_and_the_rule_is_not_known(aggregator):
    """The step is the chain's own all the same."""
    optimizer = optax.chain(aggregator, optax.sgd(RATE))
    record = checkup(both, START, X, optimizer=optimizer, key=KEY, losses=SEVERAL)
    stack = multi_value_and_grad(list(SEVERAL.values()))(START, X)[1]
    update = optimizer.update(stack, optimizer.init(START))[0]
    assert "no weighted sum" in record.sharpness.rule.name() and np.isnan(record.sharpness.ratio.value)
    np.testing.assert_allclose(record.step.slope.value, jax.grad(both)(START, X) @ update, rtol=1e-3)
    assert np.isnan(record.conflicts.weights).all()


def test_a_direction_that_the_weights_do_not_make_is_not_believed():
    """SAM-GS mixes in an average of gradients where they are of like length."""
    alike = {"first": first, "same": lambda params, batch: first(params, batch) * 1.01}
    optimizer = optax.chain(sam_gs(objectives=2), optax.sgd(RATE))
    record = checkup(first, START, X, optimizer=optimizer, key=KEY, losses=alike)
    assert not bool(record.sharpness.rule.known) and "does not predict the update" in record.sharpness.rule.name()


def test_update_rule_is_of_what_follows_the_aggregator():
    optimizer = optax.chain(upgrad(), optax.sgd(0.2, momentum=0.9))
    rule = update_rule(optimizer, optimizer.init(START), START, jnp.ones(3))
    assert rule.name() == "heavy ball, momentum 0.9"
    np.testing.assert_allclose(rule.learning_rate, 0.2, rtol=1e-5)


def test_a_watch_of_fit():
    def losses(model, batch):
        return jnp.stack([first(model, batch), second(model, batch)])

    optimizer = optax.chain(upgrad(), optax.adam(1e-2))
    watching = watch(both, every=4, key=KEY, optimizer=optimizer, losses=losses)
    done = fit(
        losses,
        START,
        X,
        optimizer=optimizer,
        steps=8,
        batch_size=16,
        key=KEY,
        value_and_grad=multi_value_and_grad,
        watch=watching,
    )
    assert done.result == "completed" and [number for number, _ in watching.records] == [0, 4]
    np.testing.assert_allclose(watching.records[1][1].sharpness.rule.learning_rate, 1e-2, rtol=1e-3)


def test_where_no_direction_helps_nothing_moves_and_nothing_is_wrong():
    """Two quadratics at a point between their minima; what their gradients leave is rounding, which Adam would blow up."""

    def opposed(params, batch):
        return jnp.stack([jnp.sum((params - 0.3) ** 2), jnp.sum((params + 0.7) ** 2)])

    optimizer = optax.chain(upgrad(), optax.adam(0.1))
    record = checkup(lambda p, batch: p @ p, jnp.zeros(2), None, optimizer=optimizer, key=KEY, losses=opposed)
    assert record.safe and float(record.step.slope.value) == 0 and float(record.step.actual.value) == 0


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (dual_ascent(0.1, jnp.ones(1)), "dual_ascent"),
        (importance_sampling(32), "importance_sampling"),
        (modality_modulation(2), "modality_modulation"),
    ],
)
@pytest.mark.parametrize("losses", [None, SEVERAL])
def test_of_what_combines_a_stack_of_its_own_the_rule_is_unknown_in_words(head, name, losses):
    """Everything else is measured, of the loss that is given and the step that is passed."""
    optimizer, step = optax.chain(head, optax.sgd(RATE)), -RATE * jax.grad(both)(START, X)
    call = {"optimizer": optimizer, "opt_state": optimizer.init(START), "losses": losses, "key": KEY}
    record = checkup(both, START, X, update=step, **call)
    assert f"unknown: {name} combines" in record.table() and "has not at hand" in record.sharpness.rule.name()
    assert np.isnan(record.sharpness.ratio.value) and record.rehearsal is None
    descent = checkup(both, START, X, learning_rate=RATE, key=KEY)
    np.testing.assert_allclose(record.step.slope.value, descent.step.slope.value, rtol=1e-4)
    np.testing.assert_allclose(record.sharpness.sharpness.value, descent.sharpness.sharpness.value, rtol=1e-3)
    assert checkup(both, START, X, **call).step is None

"""Target-space surrogates: descent with one step, a projection with many, and one gradient of the loss for all."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import follow, optimize

RANDOM = np.random.default_rng(2)
BATCH = {"x": RANDOM.normal(size=(6, 3)), "y": RANDOM.integers(0, 2, size=6)}
WEIGHTS = {"in": RANDOM.normal(size=(3, 4)), "out": RANDOM.normal(size=(4, 2)), "none": None}


def predict(params, row):
    return jnp.tanh(row["x"] @ params["in"]) @ params["out"]


def entropy(outputs, row):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, row["y"])


def mean_loss(params, batch):
    return jnp.mean(jax.vmap(lambda row: entropy(predict(params, row), row))(batch))


def test_with_one_step_of_an_optimiser_it_is_that_optimiser_on_the_loss(x64):
    params, batch = jax.tree.map(jnp.asarray, (WEIGHTS, BATCH))
    rule = optimize.target_surrogate(optax.sgd(0.3), predict, entropy, eta=0.01, steps=1)
    update, _ = rule.update(params, rule.init(params), params, inputs=batch)
    gradient = jax.grad(mean_loss)(params, batch)
    for name in ("in", "out"):
        np.testing.assert_allclose(update[name], -0.3 * gradient[name], rtol=1e-10)


def test_with_many_steps_outputs_go_to_the_nearest_to_their_targets_that_the_model_makes(x64):
    """Six rows and three weights: the targets lie outside of what a linear model makes. η falls with the steps."""
    batch = jax.tree.map(jnp.asarray, BATCH)
    x, w = batch["x"], jnp.asarray([0.5, -1.0, 2.0])
    rule = optimize.target_surrogate(
        optax.sgd(0.2),
        lambda w, row: row["x"] @ w,
        lambda out, row: jnp.logaddexp(0, (1 - 2 * row["y"]) * out),
        eta=lambda step: 0.8 / jnp.sqrt(step + 1.0),
        steps=2000,
    )
    state = rule.init(w)
    for eta in (0.8, 0.8 / np.sqrt(2)):
        slopes = np.asarray((1 - 2 * batch["y"]) * jax.nn.sigmoid((1 - 2 * batch["y"]) * (x @ w)))
        expected = np.linalg.lstsq(np.asarray(x), np.asarray(x @ w) - eta * slopes)[0]
        update, state = jax.jit(rule.update)(w, state, w, inputs=batch)
        w = w + update
        np.testing.assert_allclose(w, expected, rtol=1e-6)
        moved = np.asarray(x @ update)
        surrogate = np.mean(slopes * moved + moved**2 / (2 * eta))
        np.testing.assert_allclose(state.decrease, -surrogate, rtol=1e-6)


def test_inner_steps_do_not_ask_the_loss_again():
    asked = []

    def oracle(outputs, row):
        jax.debug.callback(lambda _: asked.append(1), outputs[0], ordered=False)
        return entropy(outputs, row)

    params, batch = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32 if a.dtype == float else None), (WEIGHTS, BATCH))
    counts = []
    for steps in (1, 20):
        rule = optimize.target_surrogate(optax.sgd(0.1), predict, oracle, eta=0.1, steps=steps)
        asked.clear()
        jax.block_until_ready(jax.jit(rule.update)(params, rule.init(params), params, inputs=batch))
        jax.effects_barrier()
        counts.append(len(asked))
    assert counts[0] == counts[1] > 0


def test_a_line_search_goes_down_the_surrogate_and_below_it_the_loss(x64):
    """For η below one over the loss's curvature in an output, at most ½ of a softmax's entropy, it is an upper bound."""
    params, batch = jax.tree.map(jnp.asarray, (WEIGHTS, BATCH))
    search = optax.scale_by_backtracking_linesearch(50, slope_rtol=0.1, decrease_factor=0.9, increase_factor=1.8)
    optimizer = optimize.target_surrogate(optax.chain(optax.sgd(10.0), search), predict, entropy, eta=2.0)
    step = jax.jit(follow.train_step(mean_loss, optimizer, extra=lambda params, batch, grads: {"inputs": batch}))
    state, values, falls = optimizer.init(params), [], []
    for _ in range(6):
        params, state, value = step(params, state, batch)
        values.append(value)
        falls.append(state.decrease)
    assert np.all(np.array(falls) > 0)
    assert np.all(-np.diff(values) >= np.array(falls)[:-1] - 1e-12)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="inner"):
        optimize.target_surrogate(optax.sgd, predict, entropy, eta=0.1)
    with pytest.raises(ValueError, match="eta above 0"):
        optimize.target_surrogate(optax.sgd(0.1), predict, entropy, eta=0.0)
    with pytest.raises(ValueError, match="steps as a whole number"):
        optimize.target_surrogate(optax.sgd(0.1), predict, entropy, eta=0.1, steps=0)

"""Real-time gradients against backpropagation through the whole sequence."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import estimate

pytestmark = pytest.mark.usefixtures("x64")
DRAWS = np.random.default_rng(0)
UNITS, INPUTS, LENGTH = 5, 3, 12
# NumPy's, for the module is read before double precision is on.
PARAMS = {
    "out": DRAWS.normal(size=(2, UNITS)),
    "recurrent": 0.5 * DRAWS.normal(size=(UNITS, UNITS)),
    "in": DRAWS.normal(size=(UNITS, INPUTS)),
}
US, YS = DRAWS.normal(size=(LENGTH, INPUTS)), DRAWS.normal(size=(LENGTH, 2))


TRUNCATED = estimate.real_time(lambda p, x, u: step(p, x, u), lambda p, x, y: loss(p, x, y), mode="truncated")


def step(p, x, u):
    return jnp.tanh(p["recurrent"] @ x + p["in"] @ u)


def loss(p, x, y):
    return 0.5 * jnp.sum((p["out"] @ x - y) ** 2)


def through_time(p, us=US, ys=YS):
    def one(x, pair):
        x = step(p, x, pair[0])
        return x, loss(p, x, pair[1])

    return jnp.sum(jax.lax.scan(one, jnp.zeros(UNITS), (us, ys))[1])


def summed(mode, key=None, params=PARAMS, us=US, ys=YS):
    learner = estimate.real_time(step, loss, mode=mode)

    def one(state, pair):
        value, grads, state = learner.update(params, state, *pair)
        return state, (value, grads)

    _, (values, grads) = jax.lax.scan(one, learner.init(params, jnp.zeros(UNITS), key=key), (us, ys))
    return jnp.sum(values), jax.tree.map(lambda g: jnp.sum(g, axis=0), grads)


def test_with_weights_that_stay_the_sum_is_backpropagation_through_time():
    value, grads = jax.jit(lambda: summed("exact"))()
    truth, expected = jax.value_and_grad(through_time)(jax.tree.map(jnp.asarray, PARAMS))
    assert float(value) == pytest.approx(float(truth), rel=1e-12)
    jax.tree.map(lambda g, t: np.testing.assert_allclose(g, t, rtol=1e-10, atol=1e-12), grads, expected)


def test_each_moment_has_the_gradient_of_its_own_loss():
    learner = estimate.real_time(step, loss)
    state = learner.init(PARAMS, jnp.zeros(UNITS))
    for n in range(4):
        value, grads, state = learner.update(PARAMS, state, US[n], YS[n])
    alone = jax.grad(lambda p: through_time(p, US[:4], YS[:4]) - through_time(p, US[:3], YS[:3]))(
        jax.tree.map(jnp.asarray, PARAMS)
    )
    jax.tree.map(lambda g, t: np.testing.assert_allclose(g, t, rtol=1e-10, atol=1e-12), grads, alone)


def test_rank_one_is_unbiased():
    draws = jax.jit(jax.vmap(lambda key: summed("rank one", key, us=US[:5], ys=YS[:5])[1]))(
        jax.random.split(jax.random.key(0), 40_000)
    )
    truth = jax.grad(lambda p: through_time(p, US[:5], YS[:5]))(jax.tree.map(jnp.asarray, PARAMS))
    scores = []
    np.testing.assert_allclose(draws["out"][0], truth["out"], rtol=1e-10)  # it acts on no state
    for name in ("in", "recurrent"):
        drawn = np.asarray(draws[name])
        scores.append(((drawn.mean(0) - truth[name]) / (drawn.std(0) / 200)).ravel())
    scores = np.concatenate(scores)
    # Tails are heavy; the root mean square of what is a standard normal at last is within a third.
    assert np.sqrt(np.mean(scores**2)) < 1.35 and np.abs(scores).max() < 5.5


def test_sparse_keeps_each_weights_own_unit_and_is_exact_where_units_do_not_meet():
    apart = PARAMS | {"recurrent": jnp.diag(jnp.diag(PARAMS["recurrent"]))}
    sparse, truth = summed("sparse", params=apart)[1], jax.grad(through_time)(apart)
    for name in ("in", "out"):
        np.testing.assert_allclose(sparse[name], truth[name], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(jnp.diag(sparse["recurrent"]), jnp.diag(truth["recurrent"]), rtol=1e-10)
    learner = estimate.real_time(step, loss, mode="sparse")
    _, _, state = learner.update(PARAMS, learner.init(PARAMS, jnp.ones(UNITS)), US[0], YS[0])
    _, _, state = learner.update(PARAMS, state, US[1], YS[1])
    kept = np.count_nonzero(state.influence)
    assert kept == UNITS * (UNITS + INPUTS)  # of 5 × 50 entries
    jax.tree.map(
        lambda g, t: np.testing.assert_raises(AssertionError, np.testing.assert_allclose, g, t),
        summed("sparse")[1]["recurrent"],
        jax.grad(through_time)(jax.tree.map(jnp.asarray, PARAMS))["recurrent"],
    )


def test_sparse_keeps_what_a_weight_has_done_while_its_input_is_zero():
    """Inputs that come one at a time: a weight whose input is 0 still acts by what its unit remembers."""
    apart = PARAMS | {"recurrent": jnp.diag(jnp.diag(PARAMS["recurrent"]))}
    us = US * np.eye(INPUTS)[np.arange(LENGTH) % INPUTS]
    sparse, truth = summed("sparse", params=apart, us=us)[1], jax.grad(through_time)(apart, us)
    for name in ("in", "out"):
        np.testing.assert_allclose(sparse[name], truth[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", ["exact", "sparse", "rank one", "truncated"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_model_with_leaves_that_are_not_trained_is_carried_in_its_own_dtype(mode, dtype):
    cell = eqx.nn.MLP(2 * UNITS, UNITS, 4, 1, key=jax.random.key(1), dtype=jnp.dtype(dtype))
    params = {"cell": cell, "doubled": jnp.array(2), "name": "net", "nothing": None}

    def move(p, x, u):
        return jnp.tanh(p["cell"](jnp.concatenate([x, u]))) * p["doubled"].astype(x.dtype)

    learner = estimate.real_time(move, lambda p, x: jnp.sum(x**2) / p["doubled"].astype(x.dtype), mode=mode)
    ones = jnp.ones(UNITS, dtype)

    def one(state, u):
        value, grads, state = learner.update(params, state, u)
        return state, (value, eqx.filter(grads, eqx.is_array))

    start = learner.init(params, ones, key=jax.random.key(2), u=ones)
    _, (values, grads) = jax.lax.scan(one, start, jnp.ones((3, UNITS), dtype))
    assert values.dtype == dtype and grads["cell"].layers[0].weight.dtype == dtype
    assert grads["doubled"] is None and grads["name"] is None
    if mode == "exact" and dtype == "float32":

        def through(cell):
            def one(x, u):
                x = move(params | {"cell": cell}, x, u)
                return x, jnp.sum(x**2) / 2

            return jnp.sum(jax.lax.scan(one, ones, jnp.ones((3, UNITS), dtype))[1])

        truth = eqx.filter_grad(through)(cell).layers[0].weight
        np.testing.assert_allclose(grads["cell"].layers[0].weight.sum(0), truth, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", ["exact", "sparse", "rank one", "truncated"])
def test_a_step_of_another_shape_and_a_state_of_whole_numbers_are_refused(mode):
    learner = estimate.real_time(lambda w, x, u: w * jnp.ones(2), lambda w, x: jnp.sum(x), mode=mode)
    with pytest.raises(ValueError, match="a step whose value"):
        learner.update(1.0, learner.init(1.0, jnp.ones(3), key=jax.random.key(0), u=1.0), 1.0)
    with pytest.raises(ValueError, match="floating-point"):
        learner.init(1.0, jnp.ones(3, int), key=jax.random.key(0), u=1.0)


def test_truncated_runs_each_moment_of_its_window_once():
    """In the program are the present step's forward pass, and the loop's body for those before it."""
    learner = estimate.real_time(step, loss, mode="truncated", window=4)
    state = learner.init(PARAMS, jnp.zeros(UNITS), u=US[0])
    program = str(jax.make_jaxpr(learner.update)(PARAMS, state, US[0], YS[0]))
    assert program.count("tanh") == 2 and "length=3" in program


@pytest.mark.parametrize("window", [1, 3, LENGTH, LENGTH + 5])
def test_truncated_is_backpropagation_through_the_last_steps_alone(window):
    learner = estimate.real_time(step, loss, mode="truncated", window=window)

    def late(p, end):
        """The last loss of so many moments, which reaches back through so many steps."""
        x = jnp.zeros(UNITS)
        for n in range(end):
            x = step(p, jax.lax.stop_gradient(x) if n == end - window else x, US[n])
        return loss(p, x, YS[end - 1])

    params = jax.tree.map(jnp.asarray, PARAMS)
    state = learner.init(params, jnp.zeros(UNITS), u=US[0])
    update = jax.jit(learner.update)
    for n in range(LENGTH):
        value, grads, state = update(params, state, US[n], YS[n])
        if n in (0, 1, 4, LENGTH - 1):
            truth, expected = jax.value_and_grad(late)(params, n + 1)
            assert float(value) == pytest.approx(float(truth), rel=1e-12)
            jax.tree.map(lambda g, t: np.testing.assert_allclose(g, t, rtol=1e-10, atol=1e-12), grads, expected)
    held = window - 1  # and the present
    assert state.influence.xs.shape == (held, UNITS) and int(state.influence.seen) == min(LENGTH, held)


def test_moments_that_were_not_are_no_part_of_a_window():
    learner = estimate.real_time(
        lambda w, x, u: w * x / jnp.linalg.norm(x) + u, lambda w, x: x[0], mode="truncated", window=4
    )
    state = learner.init(2.0, jnp.array([3.0, 4.0]), u=jnp.zeros(2))
    _, grads, _ = learner.update(2.0, state, jnp.ones(2))
    assert float(grads) == pytest.approx(0.6)  # where memory is empty a norm of 0 has no derivative


def test_memory_does_not_grow_with_the_sequence():
    def used(function, length):
        shapes = jax.ShapeDtypeStruct((length, INPUTS), float), jax.ShapeDtypeStruct((length, 2), float)
        return jax.jit(function).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    def carried(us, ys):
        learner = estimate.real_time(step, loss)

        def one(carry, pair):
            state, total = carry
            value, grads, state = learner.update(PARAMS, state, *pair)
            return (state, jax.tree.map(jnp.add, total, grads)), None

        start = learner.init(PARAMS, jnp.zeros(UNITS)), jax.tree.map(jnp.zeros_like, PARAMS)
        return jax.lax.scan(one, start, (us, ys))[0][1]

    assert used(carried, 10_000) < used(carried, 1_000) + 1000
    assert (
        used(lambda us, ys: jax.grad(through_time)(jax.tree.map(jnp.asarray, PARAMS), us, ys), 10_000)
        > 10_000 * UNITS * 8
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: estimate.real_time(3, loss), "step, a function"),
        (lambda: estimate.real_time(step, loss, mode="kalman"), "mode"),
        (lambda: estimate.real_time(step, loss, mode="rank one").init(PARAMS, jnp.zeros(5)), "a key for the signs"),
        (lambda: estimate.real_time(step, loss).init(PARAMS, jnp.zeros((5, 1))), "Ravel"),
        (lambda: estimate.real_time(step, loss, mode="truncated", window=0), "window"),
        (lambda: estimate.real_time(step, loss, mode="truncated").init(PARAMS, jnp.zeros(5)), "an input"),
        (lambda: TRUNCATED.update(PARAMS, TRUNCATED.init(PARAMS, jnp.zeros(5), u=US[0]), jnp.ones(2), YS[0]), "inputs"),
        (lambda: estimate.real_time(step, loss).init(jnp.arange(3), jnp.zeros(5)), "floating-point leaves"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.diagnose import discretisation_drift, modified_flow
from nablax.follow import Solver, flow


def follow(field, y, time=1.0):
    return flow(field, y, 0.0, time, solver=Solver(steps=16, method=diffrax.Dopri5())).ys


def bowl(p):
    return jnp.sum(jnp.cosh(p["a"])) + 0.3 * jnp.sum(p["a"] ** 3) * p["b"] + 0.5 * p["b"] ** 2


def orders(errors):
    return np.diff(np.log(errors)) / np.log(0.5)


def test_a_step_is_matched_to_third_order(x64):
    start = {"a": jnp.array([0.4, -0.7, 0.2]), "b": jnp.array(0.5)}

    @jax.jit
    def miss(rate):
        stepped = jax.tree.map(lambda p, g: p - rate * g, start, jax.grad(bowl)(start))
        ends = [follow(modified_flow(bowl, rate, drift=drift), start) for drift in (True, False)]
        return jnp.stack([jnp.linalg.norm(jnp.append(e["a"] - stepped["a"], e["b"] - stepped["b"])) for e in ends])

    errors = np.array([miss(rate) for rate in (0.04, 0.02, 0.01)])
    np.testing.assert_allclose(orders(errors[:, 0]), 3, atol=0.1)
    np.testing.assert_allclose(orders(errors[:, 1]), 2, atol=0.1)


@pytest.mark.parametrize("alternating", [False, True])
def test_a_round_of_a_game_is_matched_to_third_order(x64, alternating):
    matrix = jnp.array([[1.0, -0.4], [0.3, 0.8]])
    losses = (
        lambda z: z[0] @ matrix @ z[1] + 0.2 * jnp.sum(z[0] ** 4) + jnp.sum(z[1]) ** 2 * z[0][0],
        lambda z: -jnp.sin(z[0] @ matrix @ z[1]) + 0.3 * jnp.sum(z[1] ** 2),
    )
    start = (jnp.array([0.5, -0.3]), jnp.array([0.2, 0.9]))

    @jax.jit
    def miss(scale):
        rates = (scale, 0.6 * scale)
        first = start[0] - rates[0] * jax.grad(losses[0])(start)[0]
        seen = (first, start[1]) if alternating else start
        second = start[1] - rates[1] * jax.grad(losses[1])(seen)[1]
        results = []
        for order in (alternating, not alternating):
            end = follow(modified_flow(losses, rates, alternating=order), start)
            results.append(jnp.linalg.norm(jnp.concatenate([end[0] - first, end[1] - second])))
        return jnp.stack(results)

    errors = np.array([miss(scale) for scale in (0.04, 0.02, 0.01)])
    np.testing.assert_allclose(orders(errors[:, 0]), 3, atol=0.1)
    # The flow of the other order of updates is one order worse.
    np.testing.assert_allclose(orders(errors[:, 1]), 2, atol=0.1)


def test_one_players_flow_descends_the_modified_loss(x64):
    start = {"a": jnp.array([0.4, -0.7, 0.2]), "b": jnp.array(0.5)}

    def modified(p):
        g = jax.grad(bowl)(p)
        return bowl(p) + 0.1 / 4 * (jnp.sum(g["a"] ** 2) + g["b"] ** 2)

    expected = jax.tree.map(lambda g: -0.1 * g, jax.grad(modified)(start))
    jax.tree.map(np.testing.assert_allclose, modified_flow(bowl, 0.1)(0.0, start), expected)


def test_the_record_of_a_quadratic_game(x64):
    # L1 = a x²/2 + c x y, L2 = b y²/2 - c x y: every term by hand.
    a, b, c, h, x, y = 2.0, 3.0, 0.7, 0.1, 0.6, -0.4
    losses = (lambda z: a * z[0] ** 2 / 2 + c * z[0] * z[1], lambda z: b * z[1] ** 2 / 2 - c * z[0] * z[1])
    f, g = -(a * x + c * y), -(b * y - c * x)
    at = (jnp.array(x), jnp.array(y))
    for alternating, sign in ((False, -1), (True, 1)):
        record = discretisation_drift(losses, at, learning_rates=(h, h), alternating=alternating)
        np.testing.assert_allclose(record.step, h * np.abs([f, g]))
        own = h**2 / 2 * np.array([a * f, b * g])
        interaction = h**2 / 2 * np.array([c * g, sign * c * f])
        np.testing.assert_allclose(record.own, np.abs(own))
        np.testing.assert_allclose(record.interaction, np.abs(interaction))
        np.testing.assert_allclose(record.ratio, np.abs(own + interaction) / (h * np.abs([f, g])))
        np.testing.assert_allclose(record.adjusted_rate, [2 / a, 2 / b])
    assert "player 2: drift-adjusted rate" in record.table()


def test_edges():
    record = discretisation_drift(lambda p: jnp.sum(p["w"]), {"w": jnp.ones(2), "name": 3}, learning_rates=0.1)
    assert float(record.ratio[0]) == 0.0 and np.isinf(record.adjusted_rate[0])
    assert record.step.dtype == jnp.float32
    still = discretisation_drift(lambda p: jnp.sum(p**2), jnp.zeros(2), learning_rates=0.1)
    assert float(still.ratio[0]) == 0.0 and np.isnan(still.adjusted_rate[0])
    unmoved = discretisation_drift(lambda p: jnp.sum(p**2), jnp.ones(2), learning_rates=0.0)
    assert np.isnan(unmoved.adjusted_rate[0]) and float(unmoved.step[0]) == 0.0
    with pytest.raises(ValueError, match="2 learning rates"):
        modified_flow((lambda z: z[0], lambda z: z[1]), 0.1)


def test_a_schedule_is_compiled_once(key, counted):
    loss, traced = counted
    xs = jax.random.normal(key, (5, 2))
    for rate in (0.1, 0.2):
        once = len(traced)
        record = discretisation_drift(loss, jnp.ones(2), xs[0], learning_rates=rate)
        np.testing.assert_allclose(record.ratio[0], rate / 2, rtol=1e-5)
    assert len(traced) == once > 0

"""The rehearsal is what the optimiser would do: step by step by hand, with what a step may ask for."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax.diagnose import checkup
from nablax.diagnose._checkup._shared import Given, Walk, _beginning
from nablax.regulate import safe_rate

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (32, 3))
Y = jnp.sin(X @ jnp.array([1.0, -2.0, 0.5]))
START = jnp.array([0.5, -0.9, 0.2])


def loss(params, batch):
    return jnp.mean((jnp.tanh(batch[0] @ params) - batch[1]) ** 2)


def by_hand(optimizer, multiple, steps=32, product=False):
    """Losses of the rows stepped on, and of all rows, with the step times a multiple."""
    half = (X[0::2], Y[0::2])
    params, state, own, whole = START, optimizer.init(START), [], []
    for _ in range(steps + 1):
        own.append(float(loss(params, half)))
        whole.append(float(loss(params, (X, Y))))
        extra = {}
        if product:
            extra["product_fn"] = lambda v, at=params: jax.jvp(lambda p: jax.grad(loss)(p, half), (at,), (v,))[1]
        update, state = optimizer.update(jax.grad(loss)(params, half), state, params, **extra)
        params = params + multiple * update
    return np.array(own), np.array(whole)


def test_the_rehearsal_is_the_walk_by_hand():
    """On every second row; the whole batch is looked at before the first step and after the last four."""
    optimizer = optax.adam(optax.linear_schedule(0.002, 0.05, 10))
    record = checkup(loss, START, (X, Y), optimizer=optimizer, key=KEY).rehearsal
    own, whole = by_hand(optimizer, 1)
    np.testing.assert_allclose(record.own, own, rtol=2e-5)
    np.testing.assert_allclose(record.losses, [whole[0], *whole[-4:]], rtol=2e-5)
    np.testing.assert_allclose(record.ends[0], np.mean(whole[-4:]), rtol=2e-5)


def test_what_the_second_half_of_it_did_is_a_sign():
    """Of a rate that warms up the loss falls late; the share is of the loss of all rows."""
    optimizer = optax.sgd(optax.linear_schedule(0.0, 0.05, 32))
    signs = checkup(loss, START, (X, Y), optimizer=optimizer, key=KEY).signs
    own, whole = by_hand(optimizer, 1)
    np.testing.assert_allclose(signs.late, (own[32] - own[16]) / whole[0], rtol=1e-4)
    assert signs.late < 0.6 * signs.heart < 0


def test_other_rates_are_tried_where_the_run_is_likely_to_fail():
    """A healthy run, for which none would be advised, is spared them."""
    low, kind = optax.sgd(1e-4), optax.sgd(0.02)
    sick = checkup(loss, START, (X, Y), optimizer=low, key=KEY, chance=1.0)
    tried = sick.rehearsal.multiples[np.isfinite(sick.rehearsal.multiples)]
    assert sick.risk > sick.thresholds.fault and not sick.safe
    np.testing.assert_allclose(tried, [1, 0.25, *(4.0 ** np.arange(1, len(tried) - 1))])
    for multiple, end in zip(tried, sick.rehearsal.ends):
        np.testing.assert_allclose(end, np.mean(by_hand(low, float(multiple))[1][-4:]), rtol=1e-4)
    assert sick.rehearsal.best == 4.0**5
    healthy = checkup(loss, START, (X, Y), optimizer=kind, key=KEY, chance=10.0)
    assert healthy.safe and np.isfinite(healthy.rehearsal.multiples).sum() == 1
    # Four times the rate is better here too: what spares it is that nothing is likely to fail.
    assert np.mean(by_hand(kind, 4.0)[1][-4:]) < healthy.rehearsal.ends[0]


def test_a_safe_rate_is_checked_as_it_steps():
    """It asks for products with the Hessian: at the step, and at every point of the rehearsal."""
    optimizer, batch = safe_rate(optax.sgd(30.0)), (X, Y)
    record = checkup(loss, START, batch, optimizer=optimizer, key=KEY)
    product = lambda v: jax.jvp(lambda p: jax.grad(loss)(p, batch), (START,), (v,))[1]  # noqa: E731
    update, state = optimizer.update(jax.grad(loss)(START, batch), optimizer.init(START), START, product_fn=product)
    assert state.scale < 0.5  # it holds the step
    np.testing.assert_allclose(
        record.step.actual.value, loss(START + update, batch) - loss(START, batch), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(record.rehearsal.own, by_hand(optimizer, 1, product=True)[0], rtol=1e-4)
    assert "holds its rate anew" in record.sharpness.rule.name()


def test_signs_are_taken_once_and_of_the_record_that_is_asked():
    record = checkup(loss, START, (X, Y), optimizer=optax.sgd(0.1), key=KEY, chance=1.0)
    assert record.signs is record.signs
    other = eqx.tree_at(lambda r: r.loss, record, 2 * record.loss)
    np.testing.assert_allclose(other.signs.chance, 2 * record.signs.chance, rtol=1e-6)


@pytest.mark.parametrize("make", [optax.adam, optax.lion, optax.contrib.muon, lambda r: optax.sgd(r, momentum=0.9)])
def test_a_first_step_is_known_by_moments_that_are_as_they_began(make):
    """Muon keeps coefficients beside its moments; of what has no moments nothing is known."""
    params = {"w": jnp.ones((3, 3)), "b": jnp.ones(3)}
    optimizer = optax.with_extra_args_support(make(0.1))
    state = optimizer.init(params)
    _, later = optimizer.update(params, state, params)
    given = Given(params, None, None, None, None, None, KEY)

    def beginning(optimizer, state):
        """Whether all moments are as before the first step, and whether none bear on this one."""
        return tuple(bool(one) for one in _beginning(Walk(optimizer, state), given, params))

    assert beginning(optimizer, state) == (True, True)
    assert beginning(optimizer, later) == (False, False)
    plain = optax.with_extra_args_support(optax.sgd(0.1))
    assert beginning(plain, plain.init(params)) == (False, True)

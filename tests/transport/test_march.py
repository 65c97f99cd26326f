"""The loop under the samplers: where it starts, when its steps are, which keys they get, what it collects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.follow import Solver
from nablax.spaces import Euclidean
from nablax.transport import (
    Empirical,
    Linear,
    Normal,
    Transport,
    VariancePreserving,
    march,
)

KEY = jax.random.key(3)
PLANE = Transport(lambda t, y, args: jnp.sin(y) + (0.0 if args is None else args), Linear(), Normal(2), Euclidean(2))


def still(now, ys, args):
    return ys, (now.index, now.t, now.s)


def test_euler_steps_are_those_of_the_solver(x64):
    import diffrax

    def euler(now, y, args):
        return y + (now.s - now.t) * PLANE.velocity(now.t, y, args), None

    args = jax.random.normal(jax.random.key(1), (5, 2))
    ours, _ = march(PLANE, jax.vmap(euler, in_axes=(None, 0, 0)), 5, key=KEY, steps=7, args=args)
    theirs = PLANE.sample(5, key=KEY, args=args, solver=Solver(steps=7, method=diffrax.Euler()))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("path", [Linear(), Linear(0.1), VariancePreserving()], ids=["linear", "margin", "vp"])
def test_it_starts_at_the_prior_and_visits_equal_times(path):
    transport = Transport(PLANE.field, path, Normal(2, 3.0), Euclidean(2))
    ys, (index, t, s) = march(transport, still, 6, key=KEY, steps=4)
    np.testing.assert_array_equal(ys, jax.vmap(transport.prior.sample)(jax.random.split(KEY, 6)))
    assert index.tolist() == [0, 1, 2, 3]
    edges = np.linspace(*path.times, 5)
    np.testing.assert_allclose(t, edges[:-1], atol=1e-7)
    np.testing.assert_allclose(s, edges[1:], atol=1e-7)
    assert t[0] == np.float32(path.times[0]) and s[-1] == np.float32(path.times[1])


def test_times_may_be_given_and_a_single_one_takes_no_step():
    times = jnp.array([0.0, 0.5, 0.6])
    _, (_, t, s) = march(PLANE, still, 2, key=KEY, steps=times)
    np.testing.assert_array_equal(jnp.append(t, s[-1]), times)
    ys, (index, _, _) = march(PLANE, still, 2, key=KEY, steps=times[:1])
    assert ys.shape == (2, 2) and index.shape == (0,)


def test_each_step_has_a_key_of_its_own_and_none_where_none_was_given():
    def draw(now, ys, args):
        return ys, jax.random.normal(now.key, (3,))

    _, drawn = march(PLANE, draw, 2, key=KEY, noise_key=jax.random.key(5), steps=200)
    assert drawn.shape == (200, 3)
    assert abs(float(drawn.mean())) < 4 / 600**0.5 and abs(float(drawn.std()) - 1) < 4 / 1200**0.5
    assert len(np.unique(np.asarray(drawn))) == 600
    _, again = march(PLANE, draw, 2, key=jax.random.key(9), noise_key=jax.random.key(5), steps=200)
    np.testing.assert_array_equal(drawn, again)

    def look(now, ys, args):
        assert now.key is None
        return ys, None

    march(PLANE, look, 2, key=KEY, steps=2)


def test_a_state_may_be_more_than_the_samples():
    def start(t, ys):
        return ys, jnp.full(len(ys), t)

    def step(now, state, args):
        ys, clock = state
        return (ys, clock + now.s - now.t), clock[0]

    (_, clock), seen = march(PLANE, step, 3, key=KEY, steps=4, start=start)
    np.testing.assert_allclose(clock, 1.0, rtol=1e-6)
    np.testing.assert_allclose(seen, [0, 0.25, 0.5, 0.75])


def test_any_prior_will_do():
    transport = Transport(PLANE.field, Linear(), Empirical(jnp.full((3, 2), 4.0)), Euclidean(2))
    ys, _ = march(transport, still, 5, key=KEY, steps=2)
    np.testing.assert_array_equal(ys, jnp.full((5, 2), 4.0))


def test_faults():
    for wrong, message in (
        ({"count": 0}, "count as a whole number, at least 1"),
        ({"steps": 0}, "steps as a whole number, at least 1"),
        ({"steps": 2.5}, "steps as a whole number, at least 1"),
        ({"steps": jnp.ones((2, 2))}, r"times of shape \[…\]"),
        ({"key": 0}, "key: a random key"),
        ({"noise_key": 0}, "noise_key: a random key"),
        ({"args": jnp.ones(4)}, "args with leading axis 3"),
        ({"step": None}, "a step, a function"),
        ({"step": lambda now, ys: (ys, None)}, r"a step of 3 arguments, got one of \(now, ys\)"),
        ({"start": lambda ys: ys}, r"start of 2 arguments, got one of \(ys\)"),
        ({"step": lambda now, ys, args: ys}, r"a step that returns \(ys, record\), got f32\[3,2\]\. Return both"),
        ({"step": lambda now, ys, args: None}, r"a step that returns \(ys, record\), got None"),
        ({"step": lambda now, ys, args: (ys[:1], None)}, r"shaped like f32\[3,2\], got f32\[1,2\]\. Return the whole"),
    ):
        with pytest.raises(ValueError, match=message):
            march(PLANE, **{"step": still, "count": 3, "key": KEY, "steps": 2} | wrong)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"transport": lambda t, y, args: y}, r"expected a transport, got .*Transport\(field, path, prior, space\)"),
        ({"steps": jnp.zeros(0)}, "at least one time, got none"),
        ({"start": 3}, "expected start, a function, got 3"),
    ],
    ids=["field", "no times", "start"],
)
def test_what_cannot_be_marched_is_refused(change, message):
    call = {"transport": PLANE, "step": still, "count": 2, "steps": 3, **change}
    with pytest.raises(ValueError, match=message):
        march(**call, key=KEY)

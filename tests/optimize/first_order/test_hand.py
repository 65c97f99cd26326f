"""First steps of every first-order rule, worked out by hand, in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import optimize

RATE, START, STEPS = 0.1, 0.5, 3


def rolled(rule, params, gradient, steps=STEPS, state=None, extra=lambda params: {}):
    """Parameters after each step."""
    state = rule.init(params) if state is None else state
    path = []
    for _ in range(steps):
        update, state = rule.update(gradient(params), state, params, **extra(params))
        params = optax.apply_updates(params, update)
        path.append(params)
    return path


def identity(x):
    """The gradient of x²/2."""
    return x


@pytest.fixture(scope="module")
def paths():
    """All trajectories, by one compiled program."""

    def run():
        x, matrix = jnp.asarray(START, jnp.float64), jnp.full((1, 1), START, jnp.float64)
        still = optimize.gravity(RATE, alpha=0.0)
        counted = still.init(x)
        counted = (counted[0]._replace(step=counted[0].step + 1), *counted[1:])
        ahead = optimize.xgrad(optax.adam(RATE))
        state, at, proper = ahead.init(x), x, []
        for _ in range(STEPS):
            update, state = ahead.update(at, state, at)
            at = at + update
            proper.append(optimize.xgrad_eval_params(state, at))
        paths = {
            "aegd": rolled(optimize.aegd(RATE), x, identity, extra=lambda x: {"value": x**2 / 2}),
            "mars": rolled(optimize.mars(RATE), matrix, identity),
            "mars lion": rolled(optimize.mars(RATE, "lion"), matrix, identity),
            "diffgrad": rolled(optimize.diffgrad(RATE), x, identity),
            "adamomentum": rolled(optimize.adamomentum(RATE, eps=1e-8), x, identity),
            "gravity": rolled(still, x, identity),
            "gravity from one": rolled(still, x, identity, state=counted),
            "nag_gs": rolled(optimize.nag_gs(RATE), x, identity, steps=4),
            "xgrad": proper,
        }
        return {name: jnp.stack([jnp.squeeze(point) for point in path]) for name, path in paths.items()}

    with jax.enable_x64(True):
        return {name: np.asarray(path) for name, path in jax.jit(run)().items()}


HAND = {
    "aegd": [0.4505494505, 0.4059279033, 0.3656786387],
    "mars": [0.4000000020, 0.3018182494, 0.2062274249],
    "mars lion": [0.4, 0.3, 0.2],
    "diffgrad": [0.4377541062, 0.3864897108, 0.3359442008],
    "adamomentum": [-0.4980059801, -0.4271322187, 0.0083522096],
    "gravity": [0.4764705882, 0.4449543396, 0.4100478362],
    "gravity from one": [0.4827450980, 0.4569303204, 0.4264434378],
    "nag_gs": [0.5, 0.4970760234, 0.4916072682, 0.4839439926],
    "xgrad": [0.4000000020, 0.3042509865, 0.2130397298],
}


@pytest.mark.parametrize("name", HAND)
def test_first_steps(paths, name):
    np.testing.assert_allclose(paths[name], HAND[name], rtol=0, atol=6e-11)

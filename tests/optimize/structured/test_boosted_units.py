"""Boosted hidden units: residuals and Newton steps by autodiff, and one network that is every stage's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import optimize
from nablax.optimize._structured import _boosted_units as boosting

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(40, 3))
SCORES = RANDOM.normal(size=(40, 4))
TARGETS = {
    "squared": RANDOM.normal(size=(40, 4)),
    "binary": RANDOM.choice([-1.0, 1.0], size=(40, 4)),
    "classes": np.eye(4)[RANDOM.integers(0, 4, size=40)],
}
losses = pytest.mark.parametrize("loss", TARGETS)


@losses
def test_residuals_are_the_negative_gradient(x64, loss):
    y = jnp.asarray(TARGETS[loss])
    gradient = jax.grad(lambda scores: boosting.mean_loss(y, scores, loss) * len(y))(jnp.asarray(SCORES))
    if loss == "binary":
        gradient = gradient * 4  # its mean is over all entries, of which the method has one a row
    np.testing.assert_allclose(boosting.residuals(y, jnp.asarray(SCORES), loss), -gradient, rtol=1e-10)


@losses
def test_the_rate_is_newtons_along_what_a_stage_says(x64, loss):
    y, scores, said = jnp.asarray(TARGETS[loss]), jnp.asarray(SCORES), jnp.asarray(RANDOM.normal(size=(40, 4)))

    def along(scores, row, said):
        return boosting.mean_loss(row[None], scores[None], loss) * (4 if loss == "binary" else 1)

    gradient = jax.vmap(jax.grad(along))(scores, y, said)
    hessian = jax.vmap(lambda *row: jnp.diag(jax.hessian(along)(*row)))(scores, y, said)
    newton = -jnp.sum(gradient * said) / jnp.sum(hessian * said**2)
    expected = 1.0 if loss == "squared" else newton
    np.testing.assert_allclose(boosting.newton_rate(y, scores, said, loss), expected, rtol=1e-10)


@losses
def test_the_start_is_the_best_constant_or_without_preference(x64, loss):
    y = jnp.asarray(TARGETS[loss])[:, :1] if loss == "binary" else jnp.asarray(TARGETS[loss])
    constant = boosting.best_constant(y, loss)
    slope = jax.grad(lambda c: boosting.mean_loss(y, jnp.broadcast_to(c[None], y.shape), loss))(constant)
    if loss == "classes":
        assert not constant.any()
    else:
        np.testing.assert_allclose(slope, 0, atol=1e-12)


@pytest.fixture(scope="module")
def nets():
    labels = (INPUTS[:, 0] + INPUTS[:, 1] ** 2 > 0.5).astype(int)
    common = {"steps": 5, "units": 2, "fit_steps": 8, "key": jax.random.key(0)}
    with jax.enable_x64(True):
        return {
            "squared": (optimize.boosted_units(INPUTS, INPUTS[:, :2] ** 2, "squared", **common), INPUTS[:, :2] ** 2),
            "binary": (optimize.boosted_units(INPUTS, labels, "binary", shrink=0.5, **common), labels),
            "classes": (optimize.boosted_units(INPUTS, labels, "classes", classes=3, **common), labels),
        }


@losses
def test_the_first_stages_of_the_network_are_the_model_that_they_made(x64, nets, loss):
    """What was added up while training is what the merged network says, at every stage."""
    net, targets = nets[loss]
    for stages in range(6):
        out = net(INPUTS, stages=stages)
        if loss == "squared":
            value = np.mean(np.sum((np.asarray(out) - targets) ** 2, axis=1)) / 2
        elif loss == "binary":
            value = np.mean(np.log1p(np.exp(-(2 * targets - 1) * np.asarray(out)[:, 0])))
        else:
            value = -np.mean(np.asarray(jax.nn.log_softmax(out))[np.arange(40), targets])
        np.testing.assert_allclose(net.losses[stages], value, rtol=1e-12)
    np.testing.assert_array_equal(net(INPUTS), net(INPUTS, stages=5))
    assert net.weights.shape == (10, 3) and net.losses[-1] < 0.7 * net.losses[0]


def test_stages_are_fitted_to_a_part_of_the_rows_and_the_key_decides(x64):
    def run(seed, share):
        return optimize.boosted_units(
            INPUTS, INPUTS[:, 0], "squared", steps=2, fit_steps=8, share=share, key=jax.random.key(seed)
        )

    np.testing.assert_array_equal(run(0, 0.5).weights, run(0, 0.5).weights)
    assert not np.allclose(run(0, 0.5).weights, run(1, 0.5).weights)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda k: optimize.boosted_units(INPUTS, INPUTS[:, 0], "hinge", key=k), "a loss among squared, binary"),
        (lambda k: optimize.boosted_units(INPUTS, INPUTS[:, 0], "binary", key=k), "whole labels from 0 to 1"),
        (lambda k: optimize.boosted_units(INPUTS, np.full(40, 3), "classes", classes=3, key=k), "from 0 to 2"),
        (lambda k: optimize.boosted_units(INPUTS, np.zeros(3), "squared", key=k), "a target for each of 40 rows"),
        (lambda k: optimize.boosted_units(INPUTS, INPUTS[:, 0], "squared", shrink=2.0, key=k), "shrink above 0"),
        (lambda k: optimize.boosted_units(INPUTS, INPUTS[:, 0], "squared", key=3), "key: a random key"),
    ],
)
def test_what_cannot_be_is_refused(key, make, says):
    with pytest.raises(ValueError, match=says):
        make(key)


def test_more_stages_than_there_are_cannot_be_on(nets):
    with pytest.raises(ValueError, match="at most 5 stages"):
        nets["squared"][0](INPUTS, stages=6)

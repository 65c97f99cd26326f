"""A loss is one number, and what goes with parameters is shaped like them."""

import jax
import jax.numpy as jnp
import pytest

from nablax import diagnose

KEY = jax.random.key(0)
PARAMS = jnp.ones(3)
EXAMPLES = jnp.ones((4, 3))

# Each a plausible slip: no mean, a mean that keeps its axis, an auxiliary output, a count, a Python number.
WRONG = {
    "vector": (lambda p, *args: p**2, r"got f32\[3\]"),
    "kept axis": (lambda p, *args: jnp.mean(p, keepdims=True), r"got f32\[1\]"),
    "auxiliary output": (lambda p, *args: (jnp.sum(p), p), r"got \(f32\[\], f32\[3\]\)"),
    "count": (lambda p, *args: jnp.sum(p > 0), r"got i32\[\]"),
    "complex": (lambda p, *args: jnp.sum(p) * 1j, r"got c64\[\]"),
}
USES = {
    "generalisation_gap": lambda f: diagnose.generalisation_gap(f, PARAMS, EXAMPLES, learning_rate=0.1, key=KEY),
    "flow_sharpness": lambda f: diagnose.flow_sharpness(f, PARAMS, key=KEY),
    "discretisation_drift": lambda f: diagnose.discretisation_drift(f, PARAMS, learning_rates=0.1),
    "noether": lambda f: diagnose.noether(
        f, PARAMS, PARAMS, generators={"scale": diagnose.scaling_symmetry()}, learning_rate=0.1
    ),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize(("loss", "got"), WRONG.values(), ids=WRONG)
def test_a_loss_that_is_not_one_real_number_is_refused(use, loss, got):
    with pytest.raises(ValueError, match=r"a loss that returns one real number, " + got):
        use(loss)


def test_a_velocity_that_would_broadcast_is_refused():
    with pytest.raises(ValueError, match=r"a velocity that is shaped like f32\[3\], got f32\[1\]"):
        diagnose.noether(
            lambda p: jnp.sum(p**2),
            PARAMS,
            jnp.ones(1),
            generators={"s": diagnose.scaling_symmetry()},
            learning_rate=0.1,
        )


def test_keys_counts_and_examples_are_checked():
    def loss(p, x):
        return jnp.sum(p * x)

    with pytest.raises(ValueError, match="a random key"):
        diagnose.generalisation_gap(loss, PARAMS, EXAMPLES, learning_rate=0.1, key=0)
    with pytest.raises(ValueError, match="a random key"):
        diagnose.flow_sharpness(lambda p: jnp.sum(p**2), PARAMS, key=0)
    for probes in (1, 2.0):
        with pytest.raises(ValueError, match="probes as a whole number, at least 2"):
            diagnose.generalisation_gap(loss, PARAMS, EXAMPLES, learning_rate=0.1, probes=probes, key=KEY)
    for examples in (EXAMPLES[:1], jnp.ones(()), (EXAMPLES, EXAMPLES[:3])):
        with pytest.raises(ValueError, match="one leading axis of at least two examples"):
            diagnose.generalisation_gap(loss, PARAMS, examples, learning_rate=0.1, key=KEY)


@pytest.mark.parametrize("rate", [-1.0, jnp.nan, "0.1", jnp.ones(2), lambda step: 0.1])
def test_a_learning_rate_is_a_number_and_not_negative(rate):
    def loss(p, *args):
        return jnp.sum(p**2)

    for use in (
        lambda: diagnose.generalisation_gap(loss, PARAMS, EXAMPLES, learning_rate=rate, key=KEY),
        lambda: diagnose.discretisation_drift(loss, PARAMS, learning_rates=rate),
        lambda: diagnose.discretisation_drift([loss, loss], (PARAMS, PARAMS), learning_rates=[0.1, rate]),
        lambda: diagnose.modified_flow(loss, rate),
    ):
        with pytest.raises(ValueError, match=r"expected (a )?learning.rate.*, got .*Of a schedule pass its value"):
            use()


def test_a_traced_rate_is_taken_as_it_is():
    def drift(rate):
        return diagnose.discretisation_drift(lambda p: jnp.sum(p**2), PARAMS, learning_rates=rate).own

    assert jax.jit(drift)(0.1).tolist() == drift(0.1).tolist()

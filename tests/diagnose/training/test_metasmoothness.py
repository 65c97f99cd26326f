"""Metasmoothness of trainings whose motion is known."""

import jax
import jax.numpy as jnp
import pytest

from nablax import diagnose

KEY = jax.random.key(0)


def test_what_goes_on_is_one_what_turns_back_is_minus_one_and_parts_are_weighed_by_how_far_they_move():
    def goes(z):
        return {"w": 2.0 * z["x"], "steps": 3}

    z = {"x": jnp.zeros(4), "name": "weights"}
    found = diagnose.metasmoothness(goes, z, step=0.5, key=KEY)
    assert float(found.value) == 1.0 and float(found.standard_error) == 0.0

    # From 0 to 1 up, from 1 to 2 down by less: |2h| - |0| is a third of the way there.
    def turns(z):
        size = jnp.abs(z["x"])
        return jnp.where(size <= 0.5, size, 1.5 * 0.5 - 0.5 * size)

    assert float(diagnose.metasmoothness(turns, z, step=0.5, key=KEY).value) == -1.0

    def both(z):
        # Three times as far in a part that goes on as in one that turns: (3 - 1) / 4.
        size = jnp.abs(z["x"][0])
        return jnp.stack([3 * 0.25 * size / 1.0, turns(z)[0]])

    assert float(diagnose.metasmoothness(both, z, step=0.5, key=KEY).value) == pytest.approx(0.5)
    assert float(diagnose.metasmoothness(lambda z: jnp.ones(2), z, step=0.5, key=KEY).value) == 0.0


def test_a_chaotic_training_is_not_smooth_and_a_short_one_of_it_is():
    def train(z, steps):
        return jax.lax.fori_loop(0, steps, lambda _, x: 3.9 * x * (1 - x), 0.3 + 0.1 * jnp.tanh(z))

    z = jnp.linspace(-1.0, 1.0, 50)
    short, long = (diagnose.metasmoothness(train, z, steps, step=1e-3, key=KEY) for steps in (1, 60))
    assert float(short.value) > 0.99 and abs(float(long.value)) < 0.3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: diagnose.metasmoothness(3, jnp.ones(2), step=0.1, key=KEY), "train, a function"),
        (lambda: diagnose.metasmoothness(jnp.sin, jnp.ones(2), step=0.0, key=KEY), "step"),
        (lambda: diagnose.metasmoothness(jnp.sin, jnp.ones(2), step=0.1, probes=1, key=KEY), "probes"),
        (lambda: diagnose.metasmoothness(jnp.sin, jnp.ones(2), step=0.1, key=0), "a random key"),
        (lambda: diagnose.metasmoothness(jnp.sin, jnp.arange(2), step=0.1, key=KEY), "real floating-point leaves"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()

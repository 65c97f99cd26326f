"""Training a convolutional network: its loop holds the convolutions that XLA is fast at on a CPU, and nothing else changes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax.fields import EMA
from nablax.follow import _loop, fit

SGD = optax.sgd(0.1, momentum=0.9)
ROWS = {
    "x": np.random.default_rng(0).normal(size=(24, 2, 6, 6)).astype(np.float32),
    "y": np.random.default_rng(1).normal(size=24).astype(np.float32),
}


def model():
    return [eqx.nn.Conv2d(a, b, 3, padding=1, key=jax.random.key(a)) for a, b in ((2, 4), (4, 3))]


def loss(layers, batch, *, key):
    def one(image):
        for layer in layers:
            image = jnp.tanh(layer(image))
        return image.mean()

    return jnp.mean((jax.vmap(one)(batch["x"]) - batch["y"]) ** 2) + 0 * jax.random.uniform(key)


def test_loops_hold_fast_convolutions_alone(monkeypatch, loop_convolutions):
    programs = {}

    def watched(name, function):
        def call(constants, state):
            if name not in programs:
                programs[name] = eqx.filter_make_jaxpr(function)(constants, state)[0]
            return function(constants, state)

        return call

    for name in ("advance", "validate"):
        monkeypatch.setattr(_loop, name, watched(name, getattr(_loop, name)))
    fit(loss, model(), ROWS, optimizer=SGD, steps=2, batch_size=8, key=jax.random.key(0), validation=ROWS)
    found = {name: loop_convolutions(program) for name, program in programs.items()}
    # Two layers forward and as many kernels' gradients, and one back to the first; validation is forward alone.
    assert len(found["advance"]) == 5 and len(found["validate"]) == 2
    rows, kernel = (0, 3, 1, 2), (3, 2, 0, 1)
    assert {tuple(one.params["dimension_numbers"]) for all_ in found.values() for one in all_} == {(rows, kernel, rows)}


def test_steps_are_those_by_hand():
    batch = {name: value[:8] for name, value in ROWS.items()}
    done = fit(loss, model(), batch, optimizer=SGD, steps=6, batch_size=8, key=jax.random.key(0), ema=EMA(0.5))
    layers = model()
    state = SGD.init(eqx.filter(layers, eqx.is_inexact_array))
    values = []
    for _ in range(6):
        value, gradient = eqx.filter_value_and_grad(loss)(layers, batch, key=jax.random.key(0))
        updates, state = SGD.update(gradient, state)
        layers = eqx.apply_updates(layers, updates)
        values.append(value)
    np.testing.assert_allclose(done.history.loss, values, rtol=1e-5)
    for found, wanted in zip(jax.tree.leaves(done.last), jax.tree.leaves(layers), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_interrupted_training_ends_bit_identical(tmp_path):
    settings = {"optimizer": SGD, "steps": 12, "batch_size": 8, "key": jax.random.key(3), "validation": ROWS}
    whole = fit(loss, model(), ROWS, **settings, validate_every=4)

    class Stop(Exception):
        pass

    def interrupt(report):
        if report.step >= 4:
            raise Stop

    with pytest.raises(Stop):
        fit(
            loss, model(), ROWS, **settings, validate_every=4, checkpoint=tmp_path, checkpoint_every=2,
            progress=interrupt,
        )  # fmt: skip
    assert list(tmp_path.iterdir())
    resumed = fit(loss, model(), ROWS, **settings, validate_every=4, checkpoint=tmp_path, checkpoint_every=2)
    np.testing.assert_array_equal(resumed.history.loss, whole.history.loss)
    for found, wanted in zip(jax.tree.leaves(resumed.last), jax.tree.leaves(whole.last), strict=True):
        np.testing.assert_array_equal(found, wanted)

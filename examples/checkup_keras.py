"""A check-up of a Keras 3 model on JAX, between epochs of its own `fit`; its Adam is read into Optax's."""

import os
import sys

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from nablax import diagnose

os.environ["KERAS_BACKEND"] = "jax"
try:
    import keras
except ImportError:
    print("Keras is not installed: pip install keras")
    sys.exit()

images, labels = load_digits(return_X_y=True)
x, y = (images[:1024] / 16).astype("float32"), labels[:1024]
batch = (jnp.asarray(x[:256]), jnp.asarray(y[:256]))

keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)])


def logits(params, batch):
    held = [v.value for v in model.non_trainable_variables]
    return model.stateless_call(params, held, batch[0], training=True)[0]


def loss(params, batch):
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits(params, batch), batch[1]))


def as_optax(adam):
    """Optax's Adam at the state of Keras's; but for where ε stands they make the same step."""
    optimizer = optax.inject_hyperparams(optax.adam)(0.0, b1=adam.beta_1, b2=adam.beta_2, eps=adam.epsilon)
    params = [v.value for v in model.trainable_variables]
    state = optimizer.init(params)
    state.hyperparams["learning_rate"] = jnp.asarray(adam.learning_rate.value)
    mean, *rest = state.inner_state
    mean = mean._replace(
        count=jnp.asarray(adam.iterations.value, jnp.int32),
        mu=[v.value for v in adam.variables if v.name.endswith("momentum")],
        nu=[v.value for v in adam.variables if v.name.endswith("velocity")],
    )
    return optimizer, params, state._replace(inner_state=(mean, *rest))


for rate in (1e-3, 1.0):
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(x, y, batch_size=256, epochs=3, verbose=0).history["loss"]
    optimizer, params, state = as_optax(model.optimizer)
    record = diagnose.checkup(
        loss, params, batch, optimizer=optimizer, opt_state=state, logits=logits, key=jax.random.key(0)
    )
    print(f"rate {rate:g}: loss {history[0]:.2f} → {history[-1]:.2f}; {record.sharpness.rule.name()}")
    print(f"  [{record.findings[0].level}] {record.findings[0].text}")
    assert bool(record.sharpness.rule.known)

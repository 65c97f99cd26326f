"""A check-up of a Flax Linen model with batch normalisation and dropout, from its `TrainState`, before a step."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from nablax import diagnose

try:
    from flax import linen
    from flax.training import train_state
except ImportError:
    print("Flax is not installed: pip install flax")
    sys.exit()

images, labels = load_digits(return_X_y=True)
batch = (jnp.asarray(images[:256] / 16, jnp.float32), jnp.asarray(labels[:256]))


class Model(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.BatchNorm(use_running_average=False)(linen.Dense(64)(x)))
        return linen.Dense(10)(linen.Dropout(0.1, deterministic=False)(x))


class TrainState(train_state.TrainState):
    statistics: Any


model = Model()
variables = model.init({"params": jax.random.key(0), "dropout": jax.random.key(0)}, batch[0])


def loss(params, statistics, key, batch):
    variables = {"params": params, "batch_stats": statistics}
    logits, changed = model.apply(variables, batch[0], rngs={"dropout": key}, mutable=["batch_stats"])
    value = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]))
    return value, changed["batch_stats"]


@jax.jit
def step(state, key, batch):
    (value, statistics), grads = jax.value_and_grad(loss, has_aux=True)(state.params, state.statistics, key, batch)
    return state.apply_gradients(grads=grads, statistics=statistics), value


for rate in (1e-2, 1.0):
    state = TrainState.create(
        apply_fn=model.apply,
        params=variables["params"],
        tx=optax.sgd(rate, momentum=0.9),
        statistics=variables["batch_stats"],
    )
    values = []
    for number in range(5):
        state, value = step(state, jax.random.fold_in(jax.random.key(1), number), batch)
        values.append(float(value))

    key = jax.random.fold_in(jax.random.key(1), 5)

    def of_params(params, batch, now=state.statistics, key=key):
        return loss(params, now, key, batch)[0]  # statistics and the key of this step held

    record = diagnose.checkup(
        of_params,
        state.params,
        batch,
        optimizer=state.tx,
        opt_state=state.opt_state,
        rows=0,  # batch normalisation makes a row's loss depend on the others
        key=jax.random.key(2),
    )
    print(f"rate {rate:g}: loss {values[0]:.2f} → {values[-1]:.2f}; {record.sharpness.rule.name()}")
    print(f"  [{record.findings[0].level}] {record.findings[0].text}")
    assert bool(record.sharpness.rule.known)

"""A check-up of a Haiku model with state and dropout, before a step of its own loop."""

import sys

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from nablax import diagnose

try:
    import haiku
except ImportError:
    print("Haiku is not installed: pip install dm-haiku")
    sys.exit()

images, labels = load_digits(return_X_y=True)
batch = (jnp.asarray(images[:256] / 16, jnp.float32), jnp.asarray(labels[:256]))


def network(x, training):
    x = haiku.Linear(64)(x)
    x = jax.nn.relu(haiku.BatchNorm(True, True, 0.9)(x, training))
    x = haiku.dropout(haiku.next_rng_key(), 0.1, x) if training else x
    return haiku.Linear(10)(x)


model = haiku.transform_with_state(network)
params, statistics = model.init(jax.random.key(0), batch[0], True)


def loss(params, statistics, key, batch):
    logits, statistics = model.apply(params, statistics, key, batch[0], True)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])), statistics


optimizer = optax.adam(1e-2)
opt_state = optimizer.init(params)


@jax.jit
def step(params, opt_state, statistics, key, batch):
    (value, statistics), grads = jax.value_and_grad(loss, has_aux=True)(params, statistics, key, batch)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, statistics, value


for number in range(10):
    key = jax.random.fold_in(jax.random.key(1), number)
    if number == 9:  # statistics and the key of this step held, the loss is a function of parameters and batch

        def of_params(params, batch, now=statistics, key=key):
            return loss(params, now, key, batch)[0]

        record = diagnose.checkup(
            of_params,
            params,
            batch,
            optimizer=optimizer,
            opt_state=opt_state,
            rows=0,  # batch normalisation makes a row's loss depend on the others
            key=jax.random.key(2),
        )
    params, opt_state, statistics, value = step(params, opt_state, statistics, key, batch)

print(f"loss {float(value):.2f}; {record.sharpness.rule.name()}")
print(f"[{record.findings[0].level}] {record.findings[0].text}")
assert bool(record.sharpness.rule.known)

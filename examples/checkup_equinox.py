"""A check-up of an Equinox model with batch normalisation and dropout, before a step of its loop, and its log."""

import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from nablax import diagnose

images, labels = load_digits(return_X_y=True)
batch = (jnp.asarray(images[:256] / 16, jnp.float32), jnp.asarray(labels[:256]))


class Model(eqx.Module):
    hidden: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    out: eqx.nn.Linear

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.hidden, self.out = eqx.nn.Linear(64, 64, key=one), eqx.nn.Linear(64, 10, key=two)
        self.norm = eqx.nn.BatchNorm(64, axis_name="batch", mode="batch")
        self.dropout = eqx.nn.Dropout(0.1)

    def __call__(self, x, state, key):
        x, state = self.norm(self.hidden(x), state)
        return self.out(self.dropout(jax.nn.relu(x), key=key)), state


def loss(model, state, key, batch):
    keys = jax.random.split(key, len(batch[1]))
    run = jax.vmap(model, in_axes=(0, None, 0), out_axes=(0, None), axis_name="batch")
    logits, state = run(batch[0], state, keys)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])), state


model, state = eqx.nn.make_with_state(Model)(jax.random.key(0))
optimizer = optax.adamw(1e-2)
opt_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))


@eqx.filter_jit
def step(model, opt_state, state, key, batch):
    (value, state), grads = eqx.filter_value_and_grad(loss, has_aux=True)(model, state, key, batch)
    updates, opt_state = optimizer.update(grads, opt_state, eqx.filter(model, eqx.is_inexact_array))
    return eqx.apply_updates(model, updates), opt_state, state, value


log = Path(tempfile.mkdtemp()) / "checkups.csv"
for number in range(10):
    key = jax.random.fold_in(jax.random.key(1), number)
    if number == 9:  # state and key of this step held, the loss is a function of model and batch
        now = state

        def of_model(model, batch, now=now, key=key):
            # A copy, for a state is spent by being used.
            return loss(model, jax.tree.map(lambda leaf: leaf, now), key, batch)[0]

        # Batch normalisation makes a row's loss depend on the others: rows=0.
        watching = diagnose.watch(of_model, optimizer=optimizer, rows=0, on_fault="warn", key=jax.random.key(2)).log(
            log
        )
        record = watching.step(model, batch, opt_state, number=0)
    model, opt_state, state, value = step(model, opt_state, state, key, batch)

print(f"loss {float(value):.2f}; {record.sharpness.rule.name()}")
print(f"[{record.findings[0].level}] {record.findings[0].text}")
print(log.read_text()[:300])
assert bool(record.sharpness.rule.known)

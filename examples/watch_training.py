"""A learning rate raised by mistake kills a network: the check-up before that step says so, and later ones, how."""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from nablax import diagnose

images, labels = load_digits(return_X_y=True)
train = (jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels))


def logits(params, batch):
    return jax.nn.relu(batch[0] @ params["hidden"]) @ params["out"]


def loss(params, batch):
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits(params, batch), batch[1]))


# The rate is twenty times higher from step 200 on, as a schedule with a slip in it would have it, and lowered at 250.
rate = optax.join_schedules([optax.constant_schedule(r) for r in (0.2, 4.0, 0.2)], [200, 250])
optimizer = optax.sgd(rate, momentum=0.9)
first, second = jax.random.split(jax.random.key(0))
params = {"hidden": jax.random.normal(first, (64, 64)) / 8, "out": jax.random.normal(second, (64, 10)) / 8}
state = optimizer.init(params)


@jax.jit
def step(params, state, batch):
    value, gradient = jax.value_and_grad(loss)(params, batch)
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state, value


# One line more than a loop without: it does nothing but every fifty steps.
watching = diagnose.watch(loss, every=50, optimizer=optimizer, logits=logits, key=jax.random.key(1))
values = []
for number in range(301):
    rows = jax.random.choice(jax.random.fold_in(jax.random.key(2), number), len(labels), (256,), replace=False)
    batch = (train[0][rows], train[1][rows])
    watching.step(params, batch, state)
    params, state, value = step(params, state, batch)
    values.append(float(value))

print(watching.table())
print("\nstep   loss  said of the step to come")
for number, record in watching.records:
    worst = record.findings[0]
    print(f"{number:4d}  {values[number]:5.2f}  [{worst.level}] {worst.text.partition('. ')[0]}")
sharp = {number: float(record.sharpness.ratio.value) for number, record in watching.records}
assert sharp[200] > 10 * sharp[150]

page = Path(tempfile.mkdtemp()) / "watch.html"
watching.to_html(page)
print(f"\npage with curves: {page}")

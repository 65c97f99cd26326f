"""SOAP in a training loop of one's own, beside Adam: one network of the digits, each at its best of four rates."""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from nablax import optimize

images, labels = load_digits(return_X_y=True)
images, labels = jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels)
train, test = slice(0, 1400), slice(1400, None)
STEPS, BATCH = 150, 64


def logits(params, x):
    return jnp.tanh(x @ params["in"] + params["shift"]) @ params["out"]


def loss(params, x, y):
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y))


in_key, out_key, row_key = jax.random.split(jax.random.key(0), 3)
start = {
    "in": jax.random.normal(in_key, (64, 32)) / 8,
    "shift": jnp.zeros(32),
    "out": jax.random.normal(out_key, (32, 10)) / 6,
}
batches = jax.random.randint(row_key, (STEPS, BATCH), train.start, train.stop)


def run(rule, rate):
    """Loss on the images trained on and accuracy on the others, after training at a rate that falls to zero."""
    optimizer = rule(lambda count: rate * (1 - count / STEPS))

    def step(carry, rows):
        params, state = carry
        grads = jax.grad(loss)(params, images[rows], labels[rows])
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), batches)
    right = jnp.argmax(logits(params, images[test]), axis=1) == labels[test]
    return loss(params, images[train], labels[train]), jnp.mean(right)


rates = jnp.array([1e-2, 3e-2, 1e-1, 3e-1])
rules = {
    "Adam": optax.adam,
    "SOAP, a basis each 10 steps": lambda rate: optimize.soap(rate, weight_decay=0.0),
}
print(f"{'':30}{'best rate':>10}{'train loss':>12}{'test accuracy':>15}")
for name, rule in rules.items():
    side_by_side = jax.jit(jax.vmap(lambda rate, rule=rule: run(rule, rate)))
    losses, accuracies = side_by_side(rates)
    best = int(jnp.argmin(losses))
    print(f"{name:30}{rates[best]:10.3g}{losses[best]:12.5f}{accuracies[best]:15.3f}")

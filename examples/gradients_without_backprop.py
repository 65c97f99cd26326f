"""One training loop, four roads to its gradient: what each reaches in the same time, and how good its gradient is.

python examples/gradients_without_backprop.py
"""

import functools
import time

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from nablax import diagnose, estimate, follow

digits = load_digits()
images = jnp.asarray(digits.data / 16.0, jnp.float32)
labels = jnp.asarray(digits.target)
train, test = (images[:1500], labels[:1500]), (images[1500:], labels[1500:])


def logits(params, x):
    return jnp.tanh(x @ params["inner"]) @ params["outer"]


def loss(params, batch):
    x, y = batch
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y))


params = {
    "inner": jax.random.normal(jax.random.key(0), (64, 32)) / 8,
    "outer": jax.random.normal(jax.random.key(1), (32, 10)) / 6,
}
roads = {
    "backprop": jax.value_and_grad,
    "forward gradient": estimate.forward_gradient,
    "forward gradient, 32 probes": functools.partial(estimate.forward_gradient, directions="rademacher", probes=32),
    "SPSA, 8 probes": functools.partial(estimate.spsa, step=1e-2, probes=8),
}
STEPS = 1500

print(f"{'road':28} {'loss':>7} {'accuracy':>9} {'seconds':>8}")
for name, road in roads.items():
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, STEPS))
    step = follow.train_step(loss, optimizer, value_and_grad=road)

    @jax.jit
    def run(params, step=step, optimizer=optimizer):
        def body(carry, key):
            pick, draw = jax.random.split(key)
            rows = jax.random.randint(pick, (128,), 0, 1500)
            trained, state, value = step(*carry, (train[0][rows], train[1][rows]), key=draw)
            return (trained, state), value

        keys = jax.random.split(jax.random.key(2), STEPS)
        (trained, _), values = jax.lax.scan(body, (params, optimizer.init(params)), keys)
        return trained, jnp.mean(values[-50:])

    compiled = run.lower(params).compile()
    began = time.perf_counter()
    trained, value = jax.block_until_ready(compiled(params))
    taken = time.perf_counter() - began
    accuracy = jnp.mean(jnp.argmax(logits(trained, test[0]), axis=1) == test[1])
    print(f"{name:28} {float(value):7.3f} {float(accuracy):9.1%} {taken:8.2f}")

print()
print(diagnose.alignment(roads, loss, params, (train[0][:128], train[1][:128]), key=jax.random.key(3)).table())

"""A network of the digits that several first-order rules train alike: 64-64-10, tanh, batches of 32, 300 steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from ..._core import Key
from ...optimize import XGradState, xgrad_eval_params
from .._problems._classifier import logits, loss, network, split_digits

TRAIN, BATCH, STEPS = 1280, 32, 300
# Of rules whose steps are as long as their rate, and of those whose steps are as long as the gradient times it.
RATES = np.logspace(-3.5, -0.5, 13).tolist()
LONG_RATES = np.logspace(-2, 1, 13).tolist()


def trained(rule: optax.GradientTransformation, key: Key) -> dict[str, Array]:
    """Loss on all images trained on, nats, and accuracy on the others, %, of the weights at the end."""
    data_key, start_key, batch_key = jax.random.split(key, 3)
    images, labels, *held_out = split_digits(data_key, TRAIN)
    params = network(start_key, (64, 64, 10))

    def step(carry: tuple, rows: Array) -> tuple[tuple, None]:
        params, state = carry
        grads = jax.grad(loss)(params, images[rows], labels[rows])
        updates, state = rule.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    rows = jax.random.randint(batch_key, (STEPS, BATCH), 0, TRAIN)
    (params, state), _ = jax.lax.scan(step, (params, rule.init(params)), rows)
    if isinstance(state, XGradState):
        params = xgrad_eval_params(state, params)
    right = jnp.mean(jnp.argmax(logits(params, held_out[0]), axis=1) == held_out[1])
    return {"loss": loss(params, images, labels), "accuracy": 100 * right}

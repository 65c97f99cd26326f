"""Forward gradients along guesses: the gradients of local losses against directions drawn at random.

A net of three hidden blocks on the digits, each block with a linear head that guesses the class. What trains the blocks
is the derivative of the last block's loss along the guess, block by block.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...estimate import guessed_gradient
from .._problems._classifier import cross_entropy, digits, network
from .._problems._training import trained
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="forward-gradient-guesses",
    title="Can Forward Gradient Match Backpropagation?",
    year=2023,
    link="https://arxiv.org/abs/2306.06968",
    rooms=("estimate",),
    row=87,
    read="code",
)

_BATCH, _TRAIN, _WIDTH, _BLOCKS = 64, 1200, 48, 3
_RATES = {
    "local guess": [0.1, 0.3, 1.0, 3.0],
    "random guess": [0.1, 0.3, 1.0, 3.0],
}


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train by the gradient's part along two guesses, with as many Jacobian-vector products.

    Args:
        key: of the split, the net, the batches and the random directions.
        full: ten times the steps.

    Returns:
        One check of two contrasts.
    """
    runs = tuned(
        {name: _run(name, 3000 if full else 200) for name in _RATES},
        _RATES,
        "higher",
        key=key,
        keys=4,
        of="accuracy",
    )
    return [
        Check(
            "Guesses from local losses point the gradient's way, and train further than random ones.",
            "stated in words: strongly better than random guesses, and a gap to backpropagation",
            contrasts=(
                runs.contrast("test accuracy, %", "higher", of="accuracy", margin=5.0),
                runs.contrast("cosine to the gradient at the end of training", "higher", of="cosine", margin=0.1),
            ),
        )
    ]


def _run(name: str, steps: int) -> Callable[[Array, Key], dict[str, Array]]:
    images, labels = digits()

    def features(blocks: PyTree, x: Array, *, held: bool) -> list[Array]:
        seen = []
        for weight, bias in blocks:
            x = jnp.tanh((jax.lax.stop_gradient(x) if held else x) @ weight + bias[None])
            seen.append(x)
        return seen

    def scores(head: PyTree, x: Array) -> Array:
        return x @ head[0] + head[1][None]

    def last(blocks: PyTree, heads: PyTree, batch: PyTree) -> Array:
        return cross_entropy(scores(heads[-1], features(blocks, batch[0], held=False)[-1]), batch[1])

    def local(blocks: PyTree, heads: PyTree, batch: PyTree) -> Array:
        seen = features(blocks, batch[0], held=True)
        return jnp.sum(jnp.stack([cross_entropy(scores(head, x), batch[1]) for head, x in zip(heads, seen)]))

    def guess(blocks: PyTree, heads: PyTree, batch: PyTree, *, key: Key) -> PyTree:
        if name == "local guess":
            return jax.grad(local)(blocks, heads, batch)
        leaves, structure = jax.tree.flatten(blocks)
        keys = jax.random.split(key, len(leaves))
        return jax.tree.unflatten(structure, [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves)])

    # As many products as leaves: each block's part is found by itself.
    guessed = guessed_gradient(last, guess, by_leaf=True)

    def gradient(loss: Callable[..., Array], **options: bool) -> Callable[..., tuple[Array, PyTree]]:
        def value_and_grad(params: PyTree, batch: PyTree, *, key: Key) -> tuple[Array, PyTree]:
            blocks, heads = params
            value, found = guessed(blocks, heads, batch, key=key)
            # Heads are local: their gradient takes no backward pass through a block.
            return value, (found, jax.grad(local, argnums=1)(blocks, heads, batch))

        return value_and_grad

    def run(rate: Float[Array, ""], key: Key) -> dict[str, Array]:
        split_key, net_key, head_key, run_key, end_key = jax.random.split(key, 5)
        order = jax.random.permutation(split_key, len(images))
        x, y = images[order], labels[order]
        blocks = network(net_key, (64, *[_WIDTH] * _BLOCKS))
        heads = [network(k, (_WIDTH, 10))[0] for k in jax.random.split(head_key, _BLOCKS)]

        def batches(step: Array, key: Key) -> PyTree:
            rows = jax.random.randint(key, (_BATCH,), 0, _TRAIN)
            return x[rows], y[rows]

        def loss(params: PyTree, batch: PyTree) -> Array:
            blocks, heads = params
            return last(blocks, heads, batch)

        (blocks, heads), _ = trained(
            loss, (blocks, heads), optax.sgd(rate), batches, steps, key=run_key, value_and_grad=gradient
        )
        whole = x[:_TRAIN], y[:_TRAIN]
        exact = jax.grad(last)(blocks, heads, whole)
        found = guessed(blocks, heads, whole, key=end_key)[1]
        cosine = optax.tree.vdot(found, exact) / (optax.tree.norm(found) * optax.tree.norm(exact))
        answered = jnp.argmax(scores(heads[-1], features(blocks, x[_TRAIN:], held=False)[-1]), axis=1)
        return {"accuracy": 100 * jnp.mean((answered == y[_TRAIN:]).astype(x.dtype)), "cosine": cosine}

    return run


__all__ = ["PAPER", "checks"]

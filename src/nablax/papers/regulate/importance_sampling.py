"""Sampling data and paths by gradient norm: the variance of the gradient, with norms as old as training makes them."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import Key
from ...follow import train_step
from ...regulate import classification_norms, importance_draw, importance_sampling, multi_value_and_grad
from .._contrast import Contrast
from .._problems._classifier import cross_entropy, digits, logits, loss, network
from .._records import Check, Paper

PAPER = Paper(
    slug="importance-sampling",
    title="PA&DA: Jointly Sampling PAth and DAta for Consistent NAS",
    year=2023,
    link="https://arxiv.org/abs/2302.14772",
    rooms=("regulate",),
    row=239,
    read="code",
)

_TRAIN, _SHOWN, _OPERATIONS, _LAYERS = 400, 120, 3, 3


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train on the digits with sampled data, and a small supernet with sampled paths, and take the variance at the end.

    As in the authors' code what stands for a row's gradient is that of its logits, and paths are drawn from one law of
    operations. Gradients are weighted, as in their theorem.

    Args:
        key: of all randomness.
        full: four times the repetitions. The paper's search spaces, and the ranking of architectures, are not run.

    Returns:
        Two checks.
    """
    keys = jax.random.split(key, (2, 12 if full else 3))

    def claim(name: str, run: Callable[[Key], Array], keys: Key, ratio: float, **said: Any) -> Check:
        ours, uniform = jax.jit(jax.vmap(run))(keys).T
        found = {"by gradient norm": ours / uniform, "uniform": uniform / uniform}
        return Check(
            f"Sampling {name} by gradient norm lowers the gradient's variance.",
            "derived, and shown by the variance in training (figure)",
            contrasts=Contrast("variance of one draw, of uniform sampling's", found, "lower", ratio=ratio),
            **said,
        )

    whole = "by whole gradients' norms, at most 0.9 for the worst repetition, not the mean"
    paths = "by a law of whole paths, at most 0.9 for the worst repetition, then 0.95 in the mean"
    tried = (
        "the uniform share at 0.2; by a law of whole paths and their whole gradients' norms 0.81 ± 0.01: what an "
        "operation has of a gradient says little of the path's when one law serves all layers"
    )
    return [
        claim("data", _data, keys[0], 0.9, moved_from=whole),
        claim("paths", _paths, keys[1], 0.95, moved_from=paths, expected=False, tried=tried),
    ]


def _variance(
    one: Callable[[PyTree, Int[Array, "..."]], Array],
    norms: Callable[[PyTree, Int[Array, "K ..."], PyTree], Float[Array, "K ..."]],
    start: PyTree,
    every: Int[Array, "all ..."],
    key: Key,
    *,
    items: int,
    draws: int,
    steps: int,
) -> Float[Array, "2"]:
    """Of the gradient at one draw at the end of training, by the law learnt and uniformly; ``every`` is what there is.

    What is drawn is one item, a row, or several, the operations of a path.
    """
    optimizer = optax.chain(importance_sampling(items, uniform=0.2), optax.sgd(0.1))
    step = train_step(
        jax.vmap(one, in_axes=(None, 0)),
        optimizer,
        value_and_grad=multi_value_and_grad,
        extra=lambda params, indices, grads: {"indices": indices, "norms": norms(params, indices, grads)},
    )
    shape = (draws, *every.shape[1:])

    def update(carry: tuple[PyTree, PyTree], key: Key) -> tuple[tuple[PyTree, PyTree], None]:
        drawn = importance_draw(carry[1][0], math.prod(shape), key=key).reshape(shape)
        params, state, _ = step(*carry, drawn)
        return (params, state), None

    # Own loop: what is drawn depends on what the aggregator has seen.
    (params, (state, _)), _ = jax.lax.scan(update, (start, optimizer.init(start)), jax.random.split(key, steps))
    grads = jax.vmap(jax.grad(one), in_axes=(None, 0))(params, every)
    count = len(every)
    rows = jnp.concatenate([leaf.reshape(count, -1) for leaf in jax.tree.leaves(grads)], axis=1)
    learnt = jnp.prod(state.probabilities[every].reshape(count, -1), axis=1)
    laws = jnp.stack([learnt, jnp.full(count, 1 / count)])
    centre = jnp.sum(jnp.square(jnp.mean(rows, axis=0)))
    return jnp.sum(jnp.sum(jnp.square(rows), axis=1)[None] / laws, axis=1) / count**2 - centre


def _data(key: Key) -> Float[Array, "2"]:
    start_key, run_key = jax.random.split(key)
    images, labels = digits()

    def one(params: PyTree, index: Array) -> Array:
        return loss(params, images[index][None], labels[index][None])

    def norms(params: PyTree, indices: Array, grads: PyTree) -> Array:
        return classification_norms(logits(params, images[indices]), labels[indices])

    start, every = network(start_key, (64, 16, 10)), jnp.arange(_TRAIN)
    return _variance(one, norms, start, every, run_key, items=_TRAIN, draws=16, steps=150)


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

    def one(params: PyTree, path: Array) -> Array:
        hidden = images @ mixing
        for layer, choice in enumerate(path):
            moved = hidden @ params["layers"][layer, choice]
            hidden = jnp.stack([jnp.tanh(moved), jax.nn.relu(moved), hidden + moved])[choice]
        return cross_entropy(hidden @ params["head"], labels)

    def norms(params: PyTree, paths: Array, grads: PyTree) -> Array:
        """Of the weights of each operation that a path goes through."""
        sizes = jnp.linalg.norm(grads["layers"], axis=(-2, -1))
        return jnp.take_along_axis(sizes, paths[..., None], axis=-1)[..., 0]

    every = jnp.array(list(itertools.product(range(_OPERATIONS), repeat=_LAYERS)))
    return _variance(one, norms, start, every, run_key, items=_OPERATIONS, draws=2, steps=60)


__all__ = ["PAPER", "checks"]

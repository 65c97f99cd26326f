"""Structured knowledge accumulation on the digits: time in units of the rate, and where the tensor net changes sign."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...estimate import knowledge_accumulation
from .._contrast import Contrast
from .._problems._classifier import split_digits
from .._records import Check, Paper

PAPER = Paper(
    slug="structured-knowledge-accumulation",
    title="Structured Knowledge Accumulation: The Principle of Entropic Least Action in Forward-Only Neural Learning",
    year=2025,
    link="https://arxiv.org/abs/2504.03214",
    rooms=("estimate",),
    row=70,
    read="code",
)

_SIZES, _RATE, _STEPS, _IMAGES = (64, 128, 64, 32, 10), 0.01, 50, 300


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Take the authors' steps on one batch, at their rate and at others of the same rate times number.

    Args:
        key: of all randomness.
        full: sixteen keys in place of four.

    Returns:
        Two checks.
    """
    keys = jax.random.split(key, 16 if full else 4)

    def runs(rate: float, steps: int, slope: Callable[[PyTree, Key], PyTree]) -> dict[str, np.ndarray]:
        return jax.tree.map(np.asarray, jax.jit(jax.vmap(lambda key: _run(key, rate, steps, slope)))(keys))

    plain, fine = runs(_RATE, _STEPS, _as_it_is), runs(_RATE / 2, 2 * _STEPS, _as_it_is)
    random = runs(_RATE, _STEPS, _either_way)
    # By decisions, whose course is what the claim is of: every step against the second or against the same number.
    course, slower = plain["decisions"], fine["decisions"]
    moved = np.linalg.norm(course[:, -1] - course[:, 0], axis=1)

    def apart(other: np.ndarray) -> np.ndarray:
        return np.max(np.linalg.norm(course - other, axis=2), axis=1) / moved

    return [
        Check(
            "The course of learning is one of the rate times the number of steps.",
            "curves of entropy at a constant product, in figures",
            contrasts=Contrast(
                "largest distance between the courses at rates η and η/2, share of the way",
                {"at equal ηk": apart(slower[:, 1::2]), "at equal k": apart(slower[:, :_STEPS])},
                "lower",
                ratio=0.1,
            ),
        ),
        Check(
            "The tensor net of each layer crosses zero on the way, and marks by that where to stop.",
            "zero crossings in figures",
            contrasts=Contrast(
                "share of layers whose tensor net changes its sign once",
                {
                    "the rule": _crossings(plain["net"]),
                    "the same with signs at random": _crossings(random["net"]),
                },
                "higher",
                margin=0.25,
            ),
            expected=False,
            tried="the authors' layers of 256, 128, 64 and 10 units on 1,000 images, and smaller ones: a layer's "
            "net crosses zero where its units' knowledge is below zero on the whole at the start, which is chance; the "
            "nets of the other layers are positive from the second step on",
        ),
    ]


def _crossings(net: Float[np.ndarray, "keys steps layers"]) -> np.ndarray:
    """Share of layers in which the net, from the second step on, changes its sign once and no more."""
    changes = np.sum(np.diff(np.sign(net[:, 1:]), axis=1) != 0, axis=1)
    return np.mean(changes == 1, axis=1)


def _as_it_is(grads: PyTree, key: Key) -> PyTree:
    return grads


def _either_way(grads: PyTree, key: Key) -> PyTree:
    """Each entry's size, and a sign drawn once."""
    leaves, structure = jax.tree.flatten(grads)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [g * jax.random.rademacher(k, g.shape, g.dtype) for g, k in zip(leaves, keys)])


def _run(key: Key, rate: float, steps: int, slope: Callable[[PyTree, Key], PyTree]) -> dict[str, Array]:
    data_key, sign_key, *weight_keys = jax.random.split(key, 2 + len(_SIZES))
    x = split_digits(data_key, _IMAGES)[0]
    weights = [
        (0.01 * jax.random.normal(k, (fan_in, out)), jnp.zeros(out))
        for k, fan_in, out in zip(weight_keys, _SIZES, _SIZES[1:])
    ]
    rule = knowledge_accumulation()

    def step(carry: tuple, _: None) -> tuple[tuple, dict[str, Array]]:
        weights, state = carry
        found, grads, state = rule.update(weights, state, x)
        weights = jax.tree.map(lambda w, g: w - rate * g, weights, slope(grads, sign_key))
        decisions = jnp.concatenate([jnp.mean(d, axis=0) for d in state.decisions])
        return (weights, state), {"net": found.net, "decisions": decisions}

    # Own loop: the rule remembers decisions, beside the weights.
    return jax.lax.scan(step, (weights, rule.init(weights, x)), length=steps)[1]


__all__ = ["PAPER", "checks"]

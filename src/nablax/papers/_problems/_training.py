"""The training loop of the papers: one scan of `nablax.follow.train_step`, with what a paper looks at on the way."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..._core import Key, fault
from ...follow import train_step


def trained(
    loss: Callable[..., Any],
    params: PyTree,
    optimizer: optax.GradientTransformation,
    batches: Callable[[Int[Array, ""], Key], PyTree],
    steps: int,
    *,
    key: Key,
    record: Callable[..., PyTree] | None = None,
    every: int = 1,
    **gradient: Any,
) -> tuple[PyTree, PyTree]:
    """Train from given weights; to be jitted, and vmapped over keys, rates and strengths.

    Where a convolutional network is trained, ``jax.jit(canonical_convolutions(jax.vmap(...)))`` makes it fast on a CPU.

    Args:
        loss: ``loss(params, batch)``, or with ``key``, as `nablax.follow.train_step` takes it.
        params: arrays to start from.
        optimizer: any Optax transformation.
        batches: ``batches(step, key) -> batch``: rows drawn with the key, or taken by the number of the step; a key of
            its own in each step, ``jax.random.split(key, steps)[step]``.
        steps: number of updates, a multiple of ``every``.
        key: of the batches, and of the loss where it takes one.
        record: ``record(params, opt_state, value) -> pytree``, called with what a step returns: the weights after it,
            the loss before it, with ``has_aux`` also the auxiliary value. Nothing is recorded by default.
        every: steps between two records.
        **gradient: ``value_and_grad``, ``extra`` and ``has_aux`` of `nablax.follow.train_step`.

    Returns:
        The weights after the last step, and the records, stacked ``[steps // every, ...]``.

    Raises:
        ValueError: ``steps`` is no multiple of ``every``.
    """
    if steps % every:
        raise fault(expected=f"steps, a multiple of every = {every}", got=steps, fix="Round one of them.")
    step = train_step(loss, optimizer, **gradient)

    def one(carry: tuple[PyTree, PyTree], now: tuple[Array, Key]) -> tuple[tuple[PyTree, PyTree], list[PyTree]]:
        number, key = now
        params, opt_state, *measured = step(*carry, batches(number, key), key=jax.random.fold_in(key, 1))
        return (params, opt_state), measured

    def stretch(carry: tuple[PyTree, PyTree], now: tuple[Array, Key]) -> tuple[tuple[PyTree, PyTree], PyTree]:
        carry, measured = jax.lax.scan(one, carry, now)
        last = jax.tree.map(lambda x: x[-1], measured)
        return carry, None if record is None else record(*carry, *last)

    numbered = jnp.arange(steps), jax.random.split(key, steps)
    stretches = jax.tree.map(lambda x: x.reshape(-1, every, *x.shape[1:]), numbered)
    (params, _), records = jax.lax.scan(stretch, (params, optimizer.init(params)), stretches)
    return params, records

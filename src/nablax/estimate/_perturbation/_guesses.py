"""The gradient's part along a guess of it, which takes one Jacobian-vector product for each part of the tree."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._core import Key, check_callable, check_like, divide, exact, peak, split, wide_dtype
from .._frame import Objective, ValueAndGrad, estimator, shaped_as


def guessed_gradient(
    loss: Callable[..., Any], guess: Callable[..., PyTree], *, has_aux: bool = False, by_leaf: bool = False
) -> ValueAndGrad:
    r"""Project the gradient onto the span of guesses, in forward mode alone.

    .. math:: \hat g = U (U^{\top}U)^{+} U^{\top}\nabla L, \qquad\text{for one guess}\quad
        \hat g = \frac{\nabla L\cdot u}{\lVert u\rVert^2}\,u

    It is never longer than the gradient, and :math:`\hat g\cdot\nabla L=\lVert\hat g\rVert^2`: a step along it does
    not climb. It does not depend on the guesses' lengths. Of a guess of random direction it keeps a share 1/d of the
    squared gradient; of one that points the right way, all of it. It is biased, unless the gradient lies in the span.

    Args:
        loss: ``loss(params, *args) -> scalar``, differentiable in forward mode.
        guess: ``guess(params, *args, key=key) -> u``, shaped like the parameters (the gradient of a local loss, an
            older gradient), or K of them stacked on a leading axis of every leaf.
        has_aux: whether the loss returns ``(scalar, aux)``.
        by_leaf: project each leaf of the tree onto its own guess: as many JVPs as leaves. Otherwise the tree is one
            vector.

    Returns:
        ``(params, *args, key=key) -> (value, grads)`` as `jax.value_and_grad` has it.

    Raises:
        ValueError: an argument makes no sense; when called: no key, or a guess that is shaped otherwise.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> loss = lambda w: jnp.sum(w ** 2)
        >>> along = estimate.guessed_gradient(loss, lambda w, key: jnp.array([1.0, 0.0]))
        >>> along(jnp.array([3.0, 4.0]), key=jax.random.key(0))[1].tolist()
        [6.0, 0.0]

    Cost:
        One forward pass, one guess, and K JVPs, by leaf K times the number of leaves.

    References:
        - Fournier, Rivaud, Belilovsky, Eickenberg and Oyallon, "Can Forward Gradient Match Backpropagation?", 2023,
          https://arxiv.org/abs/2306.06968 (projection on one guess, there for each sample; the span is derived here)
    """
    check_callable(loss, what="loss", fix="Pass loss(params, *args) -> scalar.")
    check_callable(guess, what="guess", fix="Pass guess(params, *args, key=key) -> a tree like the parameters.")

    def value_and_grad(params: PyTree, *args: Any, key: Key | None = None, **kwargs: Any) -> tuple[Any, PyTree]:
        def estimate(objective: Objective, trained: PyTree, key: Key) -> tuple[Array, PyTree, PyTree]:
            guesses, _ = split(guess(params, *args, key=key, **kwargs))
            return _projected(objective, trained, guesses, by_leaf)

        return estimator(loss, estimate, has_aux=has_aux, by="guessed_gradient")(params, *args, key=key, **kwargs)

    return value_and_grad


@exact
def _projected(objective: Objective, params: PyTree, guesses: PyTree, by_leaf: bool) -> tuple[Array, PyTree, PyTree]:
    leaves, structure = jax.tree.flatten(params)
    if [x.ndim for x in jax.tree.leaves(guesses)] == [x.ndim for x in leaves]:
        guesses = jax.tree.map(lambda u: u[None], guesses)
    first = jax.eval_shape(lambda guesses: jax.tree.map(lambda u: u[0], guesses), guesses)
    check_like(first, params, what="a guess that", fix="Return a tree like the parameters, or K stacked on an axis.")
    # Lengths do not matter, and in units of the largest entry no square leaves the range.
    stacked = [u.astype(wide_dtype(u)) for u in jax.tree.leaves(guesses)]
    parts = [[number] for number in range(len(leaves))] if by_leaf else [list(range(len(leaves)))]
    found: list[Array] = [jnp.zeros(0)] * len(leaves)
    value, aux = jnp.zeros(()), None
    for part in parts:
        size = peak(jnp.stack([jnp.max(jnp.abs(stacked[number]), initial=0) for number in part]))
        frame = {number: stacked[number] / size for number in part}

        def along(frame: dict[int, Array]) -> tuple[Array, Array, PyTree]:
            tangents = [
                frame[number].astype(leaf.dtype) if number in frame else jnp.zeros_like(leaf)
                for number, leaf in enumerate(leaves)
            ]
            return jax.jvp(objective, (params,), (jax.tree.unflatten(structure, tangents),), has_aux=True)

        value, slopes, aux = jax.vmap(along, out_axes=(None, 0, None))(frame)
        flat = jnp.concatenate([u.reshape(len(u), -1) for u in frame.values()], axis=1)
        if len(flat) == 1:
            weights = divide(slopes, jnp.sum(jnp.square(flat), axis=1))
        else:
            weights = jnp.linalg.pinv(flat @ flat.T, hermitian=True) @ slopes.astype(flat.dtype)
        for number, u in frame.items():
            found[number] = jnp.tensordot(weights.astype(u.dtype), u, axes=1)
    return value, aux, shaped_as(jax.tree.unflatten(structure, found), params)

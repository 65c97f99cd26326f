"""The mean of an estimator over keys, with its standard error."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._core import (
    Estimate,
    Key,
    canonical_convolutions,
    check_callable,
    check_count,
    check_like,
    divide,
    split,
    wide_dtype,
)
from .._frame import ValueAndGrad, required_key, shaped_as


def average(estimator: ValueAndGrad, *, probes: int, errors: bool = False) -> ValueAndGrad:
    r"""Call an estimator with independent keys, one after the other, and average.

    .. math:: \bar g = \frac1m\sum_i \hat g_i,\qquad
        \operatorname{se}^2 = \frac{1}{m(m-1)}\sum_i(\hat g_i - \bar g)^2

    entry by entry, in one pass over the draws (Welford's): memory does not grow with m.

    Args:
        estimator: ``(params, *args, key=key) -> (value, grads)``, such as ``estimate.spsa(loss)``.
        probes: m, the number of keys, at least 2 where errors are asked for.
        errors: give each gradient leaf as a `nablax.calculus.Estimate`, a mean and its standard error.

    Returns:
        An estimator. Its ``value`` (and ``aux``) is the mean over the draws, of leaves that are no floats that of the
        last draw.

    Raises:
        ValueError: an argument makes no sense, or, when called, there is no key, or a gradient that is no tree like the
            parameters, such as the seeds of `nablax.estimate.seed_replay`, which averages over probes of its own.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> loss = lambda w: jnp.sum(w ** 2)
        >>> many = estimate.average(estimate.forward_gradient(loss), probes=1000, errors=True)
        >>> value, grads = many(jnp.array([1.0, 2.0]), key=jax.random.key(0))
        >>> bool(jnp.all(abs(grads.value - jnp.array([2.0, 4.0])) < 4 * grads.standard_error))
        True

    Cost:
        m times the estimator; memory of one call and two copies of the gradient, three with errors.
    """
    check_callable(estimator, what="estimator", fix="Pass estimate.spsa(loss), for one.")
    check_count(probes, what="probes", least=2 if errors else 1)

    def averaged(params: PyTree, *args: Any, key: Key | None = None, **kwargs: Any) -> tuple[Any, PyTree]:
        key = required_key(key, by="average")

        def drawn(key: Key) -> tuple[PyTree, PyTree]:
            value, grads = estimator(params, *args, key=key, **kwargs)
            return split((value, grads))

        shapes, others = jax.eval_shape(drawn, key)
        check_like(
            shapes[1],
            split(params)[0],
            what="an estimator whose gradient",
            fix="Of seeds take more by themselves: estimate.seed_replay(loss, probes=m).",
        )
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, wide_dtype(s)), shapes)
        nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), others)

        @canonical_convolutions
        def add(carry: tuple, now: tuple[Array, Key]) -> tuple[tuple, None]:
            mean, squares, _ = carry
            number, key = now
            found, others = drawn(key)
            apart = jax.tree.map(lambda x, m: x.astype(m.dtype) - m, found, mean)
            mean = jax.tree.map(lambda m, d: m + d / (number + 1).astype(m.dtype), mean, apart)
            if errors:
                squares = jax.tree.map(lambda s, d, x, m: s + d * (x - m), squares, apart, found, mean)
            return (mean, squares, others), None

        start = (zeros, zeros if errors else None, nothing)
        (mean, squares, last), _ = jax.lax.scan(add, start, (jnp.arange(probes), jax.random.split(key, probes)))
        mean = shaped_as(mean, shapes)
        value, grads = jax.tree.map(lambda m, o: o if m is None else m, mean, last, is_leaf=lambda leaf: leaf is None)
        if errors:
            deviations = jax.tree.map(lambda s: jnp.sqrt(divide(s, probes * (probes - 1))), squares)
            grads = jax.tree.map(lambda g, e: Estimate(g, e.astype(g.dtype)), grads, deviations[1])
        return value, grads

    return averaged

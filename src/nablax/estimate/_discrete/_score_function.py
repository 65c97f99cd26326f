"""The score function's estimate of a gradient through binary draws, with a baseline that keeps it unbiased."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import Key, check_count, check_floats, check_key, check_loss, divide, fault
from ._bernoulli import binary, sloped


def score_function(
    loss: Callable[[Float[Array, "..."]], Float[Array, ""]],
    logits: Float[Array, "..."],
    *,
    key: Key,
    draws: int = 8,
    baseline: Literal["none", "mean", "best"] = "best",
) -> Float[Array, ""]:
    r"""Expected loss over binary units, whose derivative in their logits is REINFORCE's.

    .. math::
        h\sim\operatorname{Bernoulli}(\sigma(a)),\qquad
        \hat g_i = \frac1m\sum_{k}(h_{ki}-\sigma(a_i))\,(L(h_k)-c_{ki})

    is unbiased for any loss, whatever its form, while :math:`c_{ki}` does not depend on :math:`h_k`. Here it is taken
    from the other draws: their mean loss, or, unit by unit, towards the constant of least variance,
    :math:`c_i=\operatorname{E}[(h_i-\sigma_i)^2L]/\operatorname{E}[(h_i-\sigma_i)^2]`. Of a unit that is mostly on or
    off few draws say much about :math:`c_i`, so that from the mean it goes the share
    :math:`\frac{m-1}{m-1+n}` of the way, n the number of units: the least error where each unit has its part in the
    loss's variance, and with many draws all of the way.

    Args:
        loss: ``loss(h) -> scalar`` of binary units shaped like the logits; parameters that it closes over get their own
            derivative, averaged over the draws.
        logits: a, any shape.
        key: of the draws.
        draws: m, 8 by default; at least 2 where there is a baseline.
        baseline: c: none, the others' mean, or the others' best.

    Returns:
        The mean loss over the draws; its gradient is the estimate.

    Raises:
        ValueError: an argument makes no sense, or the loss is no real scalar.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> expected = lambda a: estimate.score_function(lambda h: h[0] * 3.0, a, key=jax.random.key(0), draws=4000)
        >>> bool(abs(jax.grad(expected)(jnp.zeros(1))[0] - 0.75) < 0.05)  # 3 σ'(0)
        True

    Cost:
        m evaluations of the loss at once; its own derivative only for what it closes over.

    References:
        - Bengio, Léonard and Courville (2013), https://arxiv.org/abs/1308.3432 (after the abstract: the unbiased
          estimate of least variance, hence the best constant, unit by unit; that it is taken from the other draws, so
          that no bias is left, is ours, and so is the share, derived: for a loss that is a sum over units the square of
          the best's distance from the mean is 1/n, and the variance of its estimate 1/(m - 1), of one and the same
          number)
        - the code of others after https://r2rt.com/binary-stochastic-neurons-in-tensorflow.html: the same best
          constant, from running means over earlier batches and one for a layer; of one draw that is all there is
    """
    check_floats(logits, what="logits", fix="Pass the units' inputs, before any sigmoid.")
    check_key(key)
    if baseline not in ("none", "mean", "best"):
        raise fault(expected="a baseline among none, mean, best", got=repr(baseline), fix="Choose one of these names.")
    check_count(draws, what="draws", least=1 if baseline == "none" else 2)
    held = jax.lax.stop_gradient(logits)
    probability = jax.nn.sigmoid(held)
    units = binary(jnp.broadcast_to(probability, (draws, *logits.shape)), key)
    values = jax.vmap(lambda h: check_loss(loss(h), what="a loss of the units"))(units)
    scores = units - probability[None]
    advantage = jax.lax.stop_gradient(_less_baseline(values, scores, baseline))
    weights = jnp.mean(advantage * scores, axis=0)
    return jnp.mean(values) + jnp.sum(weights * sloped(logits))


def _less_baseline(values: Float[Array, " draws"], scores: Float[Array, "draws ..."], baseline: str) -> Array:
    spread = jnp.reshape(values, (-1, *[1] * (scores.ndim - 1)))
    if baseline == "none":
        return jnp.broadcast_to(spread, scores.shape)
    mean = _of_others(spread, jnp.ones_like(scores))
    if baseline == "mean":
        return spread - mean
    count, units = len(values), scores[0].size
    share = (count - 1) / (count - 1 + units)
    return spread - mean - share * (_of_others(spread, jnp.square(scores)) - mean)


def _of_others(spread: Array, weights: Float[Array, "draws ..."]) -> Array:
    """Weighted mean of the losses of all draws but one, on which that one's baseline must not depend."""
    others = jnp.sum(weights * spread, axis=0, keepdims=True) - weights * spread
    return divide(others, jnp.sum(weights, axis=0, keepdims=True) - weights)


__all__ = ["score_function"]

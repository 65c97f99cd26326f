"""CLASSP: weights that have learnt much learn less, and weights whose gradient is small do not learn at all."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import fault, nonzero, wide_dtype


class ClasspState(NamedTuple):
    """How much every weight has been adjusted.

    Attributes:
        adjustment: the p-norm of the gradients that each weight has followed so far, in units of the gradient and
            structured like the parameters, in single precision at least.
    """

    adjustment: PyTree


def classp(
    threshold: float | Float[Array, ""] = 0.0, *, power: float = 2.0, epsilon: float = 1e-5
) -> optax.GradientTransformationExtraArgs:
    r"""Suppress adjustments of weights that were adjusted before, and those whose gradient is below a threshold.

    $$
    s_i \leftarrow \Big(\varepsilon + \sum_{\text{steps}} m_i |g_i|^p\Big)^{1/p}, \qquad
    \tilde g_i = m_i\,\frac{g_i}{s_i}, \qquad m_i = [\,|g_i| > \text{threshold}\,]
    $$

    With p = 2 and no threshold this is AdaGrad, our default. The author's is ``classp(0.5**0.5, power=1.0)``: his
    threshold of 0.5 is one of squared gradients. The state is meant to last through all tasks: what a weight learnt on
    one task slows it down on the next, and the threshold leaves weights untouched for tasks to come.

    Args:
        threshold: least magnitude of a gradient that is followed, in units of the gradient; 0 by default, the author's
            is the root of 0.5.
        power: the exponent p, positive; 2 by default, the author's is 1. The smaller it is, the faster adjustments are
            suppressed.
        epsilon: what the sum starts from, in units of the gradient to the power p, 1e-5 by default, as the author's.

    Returns:
        The regulator; its state is a `ClasspState`.

    Raises:
        ValueError: a negative threshold, or a power or an epsilon that is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> regulator = regulate.classp(threshold=0.5, epsilon=1e-12)
        >>> state = regulator.init(jnp.zeros(2))
        >>> updates, state = regulator.update(jnp.array([3.0, 0.1]), state)
        >>> updates.tolist()
        [1.0, 0.0]

    Cost: a few operations a weight, and one number of memory a weight.

    References:
        - Ludwig, "CLASSP: a Biologically-Inspired Approach to Continual Learning through Adjustment Suppression and
          Sparsity Promotion", 2024, https://arxiv.org/abs/2405.09637 (the text's rule for each weight; the author's
          code, as published, compares whether any gradient of the layer is not zero with the threshold, so that below
          a threshold of 1 all that are not zero pass, and drops the power of the sum. Keeping the
          root of the sum in place of the sum, which leaves no range at extreme scales, is ours)
    """
    if (isinstance(threshold, float | int) and threshold < 0) or power <= 0 or epsilon <= 0:
        raise fault(
            expected="threshold ≥ 0, power > 0 and epsilon > 0",
            got=f"threshold={threshold}, power={power}, epsilon={epsilon}",
            fix="The defaults give AdaGrad.",
        )

    def init(params: PyTree) -> ClasspState:
        return ClasspState(
            jax.tree.map(lambda leaf: jnp.full_like(leaf, epsilon ** (1 / power), wide_dtype(leaf)), params)
        )

    def update(
        updates: PyTree, state: ClasspState, params: PyTree = None, **extra: object
    ) -> tuple[PyTree, ClasspState]:
        def accumulate(gradient: Array, old: Array) -> Array:
            size = jnp.where(jnp.abs(gradient) > threshold, jnp.abs(gradient), 0).astype(old.dtype)
            largest = jnp.maximum(old, size)
            # The start of the sum may lie below the number range; without a gradient nothing is divided then.
            unit = nonzero(largest)
            return largest * ((old / unit) ** power + (size / unit) ** power) ** (1 / power)

        def suppress(gradient: Array, total: Array) -> Array:
            share = gradient / nonzero(total)
            return jnp.where(jnp.abs(gradient) > threshold, share, 0).astype(gradient.dtype)

        adjustment = jax.tree.map(accumulate, updates, state.adjustment)
        return jax.tree.map(suppress, updates, adjustment), ClasspState(adjustment)

    return optax.GradientTransformationExtraArgs(init, update)

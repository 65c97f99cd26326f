"""Binary units: a draw forwards, a derivative backwards that is not the draw's."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import Key, check_floats, check_key, fault, wide_dtype


def straight_through(
    logits: Float[Array, "..."], *, key: Key | None = None, derivative: str = "identity"
) -> Float[Array, "..."]:
    r"""Binary units whose derivative is as if the draw were not there.

    .. math:: h\sim\operatorname{Bernoulli}(\sigma(a)),\qquad \frac{\partial h}{\partial a} := 1
        \quad\text{or}\quad \sigma'(a)

    The derivative of the loss at the drawn value stands for its difference between 1 and 0: for a loss that is linear
    in h and with :math:`\sigma'` the estimate is unbiased; else its bias has the size of the curvature.

    Args:
        logits: a, any shape.
        key: of the draws; without one h is 1 where a > 0, and 0 elsewhere.
        derivative: "identity", the authors' best, or "sigmoid".

    Returns:
        Zeros and ones in the logits' dtype and shape, each differentiable.

    Raises:
        ValueError: the logits are no floats, or an argument makes no sense.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> jax.grad(lambda a: jnp.sum(3.0 * estimate.straight_through(a)))(jnp.array([-1.0, 2.0])).tolist()
        [3.0, 3.0]

    Cost: one draw.

    References:
        - Bengio, Léonard and Courville, "Estimating or Propagating Gradients Through Stochastic Neurons for
          Conditional Computation", 2013, https://arxiv.org/abs/1308.3432 (after the abstract)
        - the code of others, https://github.com/sebastianlettner/tf-graph-tool: the draw is passed as if it were not
          there, and so is the sigmoid by default, which is "identity", or not, which is "sigmoid"; there with a slope
          that is to grow, which is not here
    """
    check_floats(logits, what="logits", fix="Pass the units' inputs, before any sigmoid.")
    if derivative not in ("identity", "sigmoid"):
        raise fault(expected='derivative "identity" or "sigmoid"', got=repr(derivative), fix="Choose one of them.")
    probability = jax.nn.sigmoid(logits)
    drawn = jax.lax.stop_gradient(binary(probability, key))
    return drawn + sloped(logits if derivative == "identity" else probability)


def smooth_times_stochastic(logits: Float[Array, "..."], *, key: Key) -> Float[Array, "..."]:
    r"""Binary gates times a smooth part: :math:`h = b\sqrt p` with :math:`b\sim\operatorname{Bernoulli}(\sqrt p)`.

    With :math:`p=\sigma(a)`, E h = p, and h is 0 where the gate is shut. Derivatives go through :math:`\sqrt p` alone,
    not through the gate: in the mean that is one half of :math:`\sigma'(a)` for a loss that is linear in h. It is not
    doubled here: a learning rate takes it up.

    Args:
        logits: a, any shape.
        key: of the gates.

    Returns:
        h in the logits' dtype and shape, between 0 and 1.

    Raises:
        ValueError: the logits are no floats, or the key is none.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> h = estimate.smooth_times_stochastic(jnp.zeros(10_000), key=jax.random.key(0))
        >>> bool(abs(jnp.mean(h) - 0.5) < 0.02), sorted({round(float(x), 3) for x in h[:50]})
        (True, [0.0, 0.707])

    Cost: one draw.

    References:
        - Bengio, Léonard and Courville (2013), https://arxiv.org/abs/1308.3432 (after the abstract; the factor one half
          is derived here, and tested)
        - the code of others, https://github.com/intsystems/relaxit: the same draw, with the same derivative
    """
    check_floats(logits, what="logits", fix="Pass the units' inputs, before any sigmoid.")
    # Not the root of σ, whose slope is infinite where σ is too small for a float.
    root = jnp.exp(0.5 * jax.nn.log_sigmoid(logits))
    return jax.lax.stop_gradient(binary(root, key)) * root


def binary(probability: Float[Array, "..."], key: Key | None) -> Float[Array, "..."]:
    """Ones with this probability, zeros otherwise, in its dtype; without a key where it is above a half."""
    if key is None:
        return (probability > 0.5).astype(probability.dtype)
    check_key(key)
    # Of half precision's 256 or 2,048 uniform numbers too many lie below a small probability.
    return jax.random.bernoulli(key, probability.astype(wide_dtype(probability))).astype(probability.dtype)


def sloped(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Zeros with the identity's derivative; without one where it is infinite, less which it would be NaN."""
    held = jax.lax.stop_gradient(x)
    return jnp.where(jnp.isinf(held), 0, x - held)


__all__ = ["binary", "sloped", "smooth_times_stochastic", "straight_through"]

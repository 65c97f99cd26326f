"""Categorical draws as one-hot vectors that have a derivative."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import Key, check_floats, check_key, described, fault, unrolled, wide_dtype


def categorical_straight_through(
    logits: Float[Array, "*batch classes"], *, key: Key, temperature: float | Float[Array, ""] = 1.0
) -> Float[Array, "*batch classes"]:
    r"""A categorical draw with the derivative of the softmax.

    .. math:: D\sim\operatorname{softmax}\theta,\qquad
        \frac{\partial D}{\partial\theta} := \frac{\partial}{\partial\theta}\operatorname{softmax}(\theta/\tau)

    For a loss that is linear in D it is unbiased at τ = 1: the estimate is of first order in the distance between the
    classes.

    Args:
        logits: θ, classes on the last axis.
        key: of the draws, one for each row.
        temperature: τ > 0 of the derivative, 1 by default; the draw does not depend on it.

    Returns:
        One-hot vectors in the logits' dtype and shape.

    Raises:
        ValueError: the logits are no floats or have no classes, the key is none, or the temperature is not above 0.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> estimate.categorical_straight_through(jnp.array([0.0, 9.0, 0.0]), key=jax.random.key(0)).tolist()
        [0.0, 1.0, 0.0]

    Cost: one draw and one softmax.

    References:
        - Bengio, Léonard and Courville (2013), https://arxiv.org/abs/1308.3432 (after the abstract), for categories as
          in Liu et al. (2023), https://arxiv.org/abs/2304.08612, and its code
    """
    scores = _classes_first(logits, key, temperature)
    scaled = scores / jnp.asarray(temperature, scores.dtype)
    return _classes_last(_by_softmax(scaled, _drawn(scores, key), jax.nn.softmax(scaled, axis=0)))


def gumbel(
    logits: Float[Array, "*batch classes"],
    *,
    key: Key,
    temperature: float | Float[Array, ""] = 1.0,
    hard: bool = True,
) -> Float[Array, "*batch classes"]:
    r"""Gumbel softmax: a draw relaxed to :math:`y=\operatorname{softmax}((\theta+G)/\tau)`, G of Gumbel's law.

    Its largest entry is distributed as the draw. As τ falls y tends to a one-hot vector, its derivative's bias to zero
    and its variance to infinity.

    Args:
        logits: θ, classes on the last axis.
        key: of the draws.
        temperature: τ > 0, 1 by default.
        hard: return the largest entry's one-hot vector with y's derivative (straight-through Gumbel softmax), not y.

    Returns:
        One-hot vectors, or points of the simplex, in the logits' dtype and shape.

    Raises:
        ValueError: the logits are no floats or have no classes, the key is none, or the temperature is not above 0.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> y = estimate.gumbel(jnp.zeros((1000, 2)), key=jax.random.key(0))
        >>> bool(abs(jnp.mean(y[:, 0]) - 0.5) < 0.05)
        True

    Cost: one draw and one softmax.

    References:
        - Jang, Gu and Poole, "Categorical Reparameterization with Gumbel-Softmax", 2016, https://arxiv.org/abs/1611.01144
    """
    scores = _classes_first(logits, key, temperature)
    noisy = scores + _noise(scores, key)
    noisy = noisy / jnp.asarray(temperature, noisy.dtype)
    soft = jax.nn.softmax(noisy, axis=0)
    found = _by_softmax(noisy, _largest(noisy), soft) if hard else soft
    return _classes_last(found.astype(logits.dtype))


def reinmax(
    logits: Float[Array, "*batch classes"], *, key: Key, temperature: float | Float[Array, ""] = 1.0
) -> Float[Array, "*batch classes"]:
    r"""A draw whose derivative is right to second order: Heun's rule between the draw and the mean.

    With :math:`p=\operatorname{softmax}\theta`, :math:`\pi=\tfrac12(\operatorname{softmax}(\theta/\tau)+D)` and
    :math:`S(q)=\operatorname{diag}q-qq^{\top}`, a gradient g at the draw becomes

    .. math:: \big(2S(\pi) - \tfrac12 S(p)\big)\,g

    whose mean over draws is, at τ = 1, exactly the gradient of the expectation for every loss that is quadratic in D.

    Args:
        logits: θ, classes on the last axis.
        key: of the draws.
        temperature: τ ≥ 1, 1 by default; higher ones have less variance and a bias.

    Returns:
        One-hot vectors in the logits' dtype and shape.

    Raises:
        ValueError: the logits are no floats or have no classes, the key is none, or the temperature is below 1.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> key, logits = jax.random.key(0), jnp.array([0.3, -0.2])
        >>> square = lambda logits, key: jnp.sum(estimate.reinmax(logits, key=key)[0] ** 2)
        >>> slopes = jax.vmap(lambda key: jax.grad(square)(logits, key))(jax.random.split(key, 20_000))
        >>> p = jax.nn.softmax(logits)
        >>> bool(jnp.all(abs(jnp.mean(slopes, axis=0) - p[0] * p[1] * jnp.array([1.0, -1.0])) < 0.005))
        True

    Cost: one draw and two softmaxes, one at τ = 1.

    References:
        - Liu, Dong, Liu, Yu and Gao, "Bridging Discrete and Backpropagation: Straight-Through and Beyond", 2023,
          https://arxiv.org/abs/2304.08612, and its code (the rule, and the bound on the temperature)
    """
    scores = _classes_first(logits, key, temperature, least=1.0)
    drawn = _drawn(scores, key)
    middle = 0.5 * (jax.nn.softmax(scores / jnp.asarray(temperature, scores.dtype), axis=0) + drawn)
    return _classes_last(_by_heun(scores, drawn, middle, jax.nn.softmax(scores, axis=0)))


# Rules of their own in place of x - stop_gradient(x): nothing is computed for a derivative on the way forward.
@jax.custom_jvp
def _by_softmax(scaled: Array, drawn: Array, soft: Array) -> Array:
    """The draw, with the softmax's derivative by its inputs, S(soft)."""
    return drawn


@_by_softmax.defjvp
def _softmax_slope(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    _, drawn, soft = primals
    return drawn, _covariance(soft, tangents[0])


@jax.custom_jvp
def _by_heun(logits: Array, drawn: Array, middle: Array, mean: Array) -> Array:
    """The draw, with the derivative 2 S(π) − S(p) / 2 by the logits."""
    return drawn


@_by_heun.defjvp
def _heun_slope(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    _, drawn, middle, mean = primals
    return drawn, 2.0 * _covariance(middle, tangents[0]) - 0.5 * _covariance(mean, tangents[0])


def _covariance(q: Array, v: Array) -> Array:
    """S(q) v, classes first."""
    return q * (v - jnp.sum(q * v, axis=0, keepdims=True))


def _drawn(scores: Array, key: Key) -> Array:
    """One-hot vectors of draws from the softmax, by the largest of logits with noise."""
    held = jax.lax.stop_gradient(scores)
    return _largest(held + _noise(held, key)).astype(scores.dtype)


def _noise(scores: Array, key: Key) -> Array:
    """Gumbel's, in single precision at least: in half of it equal scores are common, and the first would win them."""
    return jax.random.gumbel(unrolled(key), scores.shape, wide_dtype(scores))


def _largest(scores: Array) -> Array:
    """The one-hot vector of the largest, the first of equal ones."""
    number = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 0)
    below = scores < jnp.max(scores, axis=0, keepdims=True)
    first = jnp.min(jnp.where(below, len(scores), number), axis=0, keepdims=True)
    return (number == first).astype(scores.dtype)


def _classes_first(logits: Array, key: Key, temperature: float | Array, *, least: float | None = None) -> Array:
    """What came, checked, its classes on the first axis: sums over two of them are then sums of rows.

    XLA for CPUs vectorises the last axis, and an index of the largest not at all.
    """
    _check(logits, key, temperature, least=least)
    return jnp.moveaxis(logits, -1, 0)


def _classes_last(found: Array) -> Array:
    return jnp.moveaxis(found, 0, -1)


def _check(logits: Array, key: Key, temperature: float | Array, *, least: float | None = None) -> None:
    check_floats(logits, what="logits", fix="Pass the inputs of a softmax, classes on the last axis.")
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise fault(
            expected="logits [..., classes] of a class or more",
            got=described(logits),
            fix="Put the classes on the last axis.",
        )
    check_key(key)
    if isinstance(temperature, jax.core.Tracer):  # a schedule's value, which is not known here
        return
    if not (float(temperature) > 0 if least is None else float(temperature) >= least):
        bound = "above 0" if least is None else f"of {least:g} or more"
        raise fault(expected=f"a temperature {bound}", got=temperature, fix="Pass temperature=1.0.")


__all__ = ["categorical_straight_through", "gumbel", "reinmax"]

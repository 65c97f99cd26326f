"""What a network is told besides the state: features of time and the condition, as one context vector."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import Key, check_shape, fault


def check_time_features(features: int) -> None:
    """Refuse a number of time features that ``time_features`` cannot make.

    Args:
        features: 0 for the raw time, or an even number of sines and cosines.

    Raises:
        ValueError: the number is negative or odd.
    """
    if features < 0 or features % 2:
        raise fault(
            expected="time_features = 0 or an even positive number",
            got=features,
            fix="Sines and cosines come in pairs; 0 gives the network the raw time.",
        )


def time_features(t: Float[Array, ""], features: int) -> Float[Array, " features"]:
    r"""Sines and cosines of t at geometrically spaced frequencies; the raw t for ``features=0``.

    $$\left(\sin \omega_k t, \cos \omega_k t\right)_k, \qquad
      \omega_k = \tfrac{\pi}{2}\, 32^{k/(K-1)}, \quad k = 0, \dots, K-1, \quad K = \text{features}/2$$

    The slowest wave makes a quarter turn over the unit interval, so that it tells the ends apart; the fastest
    makes eight turns: a velocity can change within a few hundredths of an end, and no faster.

    Args:
        t: time, scalar, the unit interval being the range meant.
        features: how many; 0 or even.

    Returns:
        The features, shape ``[features]`` (``[1]`` for 0), dtype of ``t``.

    Example:
        >>> import jax.numpy as jnp
        >>> time_features(jnp.asarray(0.0), 4).tolist()
        [0.0, 0.0, 1.0, 1.0]

    Cost: ``features`` sines; no JVP through the state, since t is not part of it.

    References:
        M. Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional
        Domains", 2020, https://arxiv.org/abs/2006.10739.
    """
    if features == 0:
        return jnp.reshape(t, (1,))
    count = features // 2
    exponents = [k / max(count - 1, 1) for k in range(count)]
    frequencies = jnp.asarray([math.pi / 2 * 32.0**exponent for exponent in exponents], dtype=t.dtype)
    angles = frequencies * t
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


def outside_features(
    t: Float[Array, ""],
    args: Float[Array, " condition"] | None,
    features: int,
    condition: int,
    dtype: jnp.dtype,
) -> Float[Array, " outside"]:
    """Join the features of time and the condition vector.

    A missing condition is refused rather than taken for the null one, all zeros: a network that was trained without
    ``condition_dropout`` has never seen zeros, and what it says of them is no density of anything.

    Args:
        t: time, scalar.
        args: the condition; None for a network without one.
        features: number of time features.
        condition: length of the condition that the network was built for.
        dtype: dtype of the result.

    Returns:
        The vector, shape ``[max(features, 1) + condition]``.

    Raises:
        ValueError: ``t`` is not one time; ``args`` has another shape, or is missing.
    """
    t = check_shape(t, (), what="one time", fix="For a batch, wrap the call in jax.vmap.")
    if args is None and condition:
        raise fault(
            expected=f"a condition of shape ({condition},)",
            got="args=None",
            fix=f"Pass args, one row a sample. The null condition is jnp.zeros({condition}), where the network was "
            "trained with condition_dropout.",
        )
    vector = jnp.zeros((0,), dtype) if args is None else jnp.asarray(args)
    if vector.shape != (condition,):
        label = vector.ndim == 0 and jnp.issubdtype(vector.dtype, jnp.integer) and condition > 1
        raise fault(
            expected=f"a condition of shape ({condition},)" if condition else "args=None",
            got=f"shape {vector.shape}",
            fix=f"A label becomes a vector by jax.nn.one_hot(label, {condition})."
            if label
            else "Build the network with condition=<length of the vector>; for a batch use jax.vmap.",
        )
    vector = vector.astype(dtype)
    return jnp.concatenate([time_features(jnp.asarray(t, dtype), features), vector])


class Context(eqx.Module):
    """Two layers from time features and condition to the vector that modulates a network's blocks."""

    first: eqx.nn.Linear
    second: eqx.nn.Linear

    def __init__(self, outside: int, width: int, *, key: Key):
        first_key, second_key = jax.random.split(key)
        self.first = eqx.nn.Linear(outside, width, key=first_key)
        self.second = eqx.nn.Linear(width, width, key=second_key)

    def __call__(
        self, outside: Float[Array, " outside"], activation: Callable[[Array], Array]
    ) -> Float[Array, " width"]:
        return activation(self.second(activation(self.first(outside))))

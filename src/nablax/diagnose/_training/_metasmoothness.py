"""Whether gradients through a training can be trusted for more than an infinitesimal step."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..._core import (
    Estimate,
    Key,
    canonical_convolutions,
    check_callable,
    check_count,
    check_key,
    check_rate,
    divide,
    space,
    split,
)


def metasmoothness(
    train: Callable[..., PyTree], params: PyTree, *args: Any, step: float, probes: int = 8, key: Key
) -> Estimate:
    r"""Measure how steadily a trained model moves as what it was trained with is moved.

    With :math:`\theta_j=A(z+jhv)`, the model trained at metaparameters z that are moved by j steps of length h,

    .. math:: S = \sum_i w_i\,\operatorname{sign}(\theta_1-\theta_0)_i\,\operatorname{sign}(\theta_2-\theta_1)_i,
        \qquad w = \frac{|\theta_2-\theta_0|}{\lVert\theta_2-\theta_0\rVert_1}

    from −1 to 1, on average over random directions v of ±1: 1 where each parameter goes on as it began, so that a
    gradient through the training says where a step of this length leads; about 0 where it does not.

    Args:
        train: ``train(params, *args) -> model``, a whole training, of which each floating-point number counts.
        params: z, metaparameters; leaves that are not inexact arrays are held.
        *args: handed to ``train``.
        step: h, in the metaparameters' unit: the length of the step that is to be taken.
        probes: directions, 8 by default.
        key: of the directions.

    Returns:
        The mean over directions with its standard error, no unit; 0 where nothing moves at all.

    Raises:
        ValueError: an argument makes no sense, or a model or metaparameters without real floating leaves.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import diagnose
        >>> smooth = diagnose.metasmoothness(lambda z: jnp.tanh(z), jnp.ones(3), step=0.1, key=jax.random.key(0))
        >>> round(float(smooth.value), 4)
        1.0

    Cost:
        One training, and two more a direction, one after the other in one compiled loop; their models are held.

    References:
        - Engstrom et al., "Optimizing ML Training with Metagradient Descent", 2025, https://arxiv.org/abs/2503.13751
          (the measure along one direction; that it is averaged over random ones is ours)
    """
    check_callable(train, what="train", fix="Pass train(params, *args) -> the trained model.")
    check_rate(step, what="step")
    check_count(probes, what="probes", least=2)
    check_key(key)
    trained, held = split(params)
    space(trained)  # refuses metaparameters of integers, and complex ones

    leaves, structure = jax.tree.flatten(trained)
    keys = jax.random.split(key, len(leaves))
    signs = [jax.random.rademacher(k, (probes, *leaf.shape), leaf.dtype) for k, leaf in zip(keys, leaves)]

    @canonical_convolutions
    def model(now: tuple[Int[Array, ""], Float[Array, ""]]) -> Float[Array, " dim"]:
        probe, length = now
        moved = [leaf + length.astype(leaf.dtype) * sign[probe] for leaf, sign in zip(leaves, signs)]
        return space(train(eqx.combine(jax.tree.unflatten(structure, moved), held), *args)).flat

    # One program for all: the numbers of a training that is compiled twice may differ in their last bit.
    of = jnp.concatenate([jnp.zeros(1, int), jnp.repeat(jnp.arange(probes), 2)])
    models = jax.lax.map(model, (of, step * jnp.concatenate([jnp.zeros(1), jnp.tile(jnp.array([1.0, 2.0]), probes)])))
    start, first, second = models[:1], models[1::2], models[2::2]
    weights = jnp.abs(second - start)
    agreement = jnp.sign(first - start) * jnp.sign(second - first)
    return Estimate.from_samples(divide(jnp.sum(weights * agreement, axis=1), jnp.sum(weights, axis=1)))


__all__ = ["metasmoothness"]

"""Classifier-free guidance: lean towards the condition."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import Field, check_shape, checked_field, fault


class _Guided(eqx.Module):
    field: Field
    scale: Array

    def __call__(self, t: Array, y: Array, args: PyTree) -> Array:
        if not jax.tree.leaves(args):
            raise fault(expected="a condition to be guided to", got="args=None", fix="Pass args, or use scale=1.")
        null = jax.tree.map(jnp.zeros_like, args)
        # One batched call for both: a network's matrix products then run once.
        both = jax.tree.map(lambda c, n: jnp.stack([c, n]), args, null)
        conditional, unconditional = jax.vmap(checked_field(self.field), in_axes=(None, None, 0))(t, y, both)
        return unconditional + self.scale * (conditional - unconditional)


def guidance(field: Field, scale: float | Float[Array, ""]) -> Field:
    r"""Return the field $v_\varnothing + \mathrm{scale}\,(v_c - v_\varnothing)$.

    Scale 1 is the conditional field itself (returned unchanged), 0 the unconditional one; above 1 the samples agree
    more with the condition and vary less, and their density is no longer the model's.

    Args:
        field: ``field(t, y, args)``, trained with ``condition_dropout``; the null condition is zeros.
        scale: dimensionless.

    Returns:
        A field of the same form. Linear views (velocity, score, noise, denoiser) may all be guided.

    Raises:
        ValueError: ``scale`` is not one number; ``field`` is no field; or, when it is called, there is no condition or
            the field's value is not shaped like its state.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.transport import guidance
        >>> guided = guidance(lambda t, y, args: y + args, 2.0)
        >>> guided(jnp.array(0.0), jnp.ones(1), jnp.ones(1)).tolist()
        [3.0]

    Cost:
        Two forward passes (one at scale 1).

    References:
        Ho, Salimans (2022), Classifier-Free Diffusion Guidance, https://arxiv.org/abs/2207.12598.
    """
    checked_field(field)
    check_shape(scale, (), what="a scale", fix="One number for all components and samples.")
    unguided: Any = isinstance(scale, int | float) and scale == 1
    return field if unguided else _Guided(field, jnp.asarray(scale))


__all__ = ["guidance"]

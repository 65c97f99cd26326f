"""What of an observation was observed: NaN is a hole, and so is a component of which the operator says nothing."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._core import check_callable, check_floats, check_shape
from .._transport import Transport

Operator = Callable[[Array], Array]


class Observed(eqx.Module):
    """An operator that is zero in the holes of its observation."""

    operator: Operator
    known: Bool[Array, "*observed"]

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*observed"]:
        """Apply the operator, and write zero in the holes."""
        return jnp.where(self.known, self.operator(x), 0)


def observed(
    transport: Transport, operator: Operator, observation: Any, noise_scale: Any
) -> tuple[Observed, Float[Array, "*observed"]]:
    """Set the holes of an observation, and the operator there, to zero.

    Args:
        transport: says how a sample is shaped.
        operator: a linear map of one sample.
        observation: of its output shape; NaN for a component that was not observed.
        noise_scale: one number.

    Returns:
        The operator and the observation, both zero in the holes; the operator's ``known`` tells where.

    Raises:
        ValueError: the observation is not an array of floats of the operator's output shape; the noise scale is not one
            number.
    """
    check_callable(operator, what="an operator", fix="It is operator(x) -> y, linear, of one sample.")
    check_shape(noise_scale, (), what="a noise scale", fix="One number for all components.")
    check_floats(observation, what="an observation", fix="Convert it to a float dtype.")
    observation = jnp.asarray(observation, jnp.promote_types(observation.dtype, jnp.float32))
    sample = jax.random.normal(jax.random.key(0), transport.space.shape, observation.dtype)
    image = operator(sample)
    check_shape(observation, image.shape, what="an observation", fix="Apply the operator once to see its shape.")
    # The operator is linear: what it leaves at exactly zero for a random sample, it leaves there for every one.
    known = ~jnp.isnan(observation) & (image != 0)
    return Observed(operator, known), jnp.where(known, observation, 0)


__all__ = ["Observed", "Operator", "observed"]

"""What the Jacobian estimators of this room share: one linearisation, and a map with bounded memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from .._core import Field, Key, canonical_convolutions, check_floats, checked_field

# Tangents pushed through the field at once. Above this the rest waits its turn in a loop, so that the memory
# of an exact divergence grows like CHUNK × activations and not like D × activations.
CHUNK = 64


def linearise(field: Field, t: Float[Array, ""], y: PyTree, args: PyTree) -> tuple[PyTree, Callable[[PyTree], PyTree]]:
    """Value of the field at ``y`` and its Jacobian there as a linear map, the primal computed once.

    Args:
        field: ``field(t, y, args) -> dy``.
        t: time.
        y: one sample.
        args: condition, passed on.

    Returns:
        ``dy`` and the function ``v -> Jv``.

    Raises:
        ValueError: ``y`` is not floating-point; ``dy`` is not shaped like ``y``, so that the Jacobian is not square.
    """
    checked = checked_field(field)
    check_floats(jax.tree.map(jnp.asarray, y), what="a point", fix="Convert y to a float dtype.")
    return jax.linearize(lambda z: checked(t, z, args), y)


def draw_probes(key: Key, y: PyTree, probes: int, sampler: Callable[..., Array] = jax.random.normal) -> PyTree:
    """Random directions shaped like ``y``, leading axis ``probes``: one draw, cheaper than a key for each."""
    stacked = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (probes, *jnp.shape(leaf))), y)
    return optax.tree.random_like(key, stacked, sampler=sampler)


def chunked_map(function: Callable[[Any], PyTree], inputs: PyTree) -> PyTree:
    """Apply ``function`` along the leading axis: all at once when short, in chunks of ``CHUNK`` when long."""
    if jax.tree.leaves(inputs)[0].shape[0] <= CHUNK:
        return jax.vmap(function)(inputs)
    return canonical_convolutions(lambda inputs: jax.lax.map(function, inputs, batch_size=CHUNK))(inputs)

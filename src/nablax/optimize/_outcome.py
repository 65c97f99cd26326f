"""How a solver's run ended: reported always, and raised where that was asked for."""

import jax
import jax.numpy as jnp
import optimistix
from jaxtyping import Array, Bool, PyTree


def outcome(params: PyTree, good: Bool[Array, ""], throw: bool) -> tuple[PyTree, optimistix.RESULTS]:
    """The parameters, which raise when they are looked at where the run failed and ``throw`` is true, and the result.

    Args:
        params: what was found.
        good: whether the run has gone well.
        throw: raise where it has not.
    """
    failed = optimistix.RESULTS.nonlinear_divergence
    result = optimistix.RESULTS.where(good, optimistix.RESULTS.successful, failed)
    if throw:
        params = result.error_if(params, ~good)
    return params, result


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether no array of a tree holds NaN or infinity."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))

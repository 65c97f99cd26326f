"""What is refused and what is said: stacks that fit no parameters, numbers that are not finite, solves that failed."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import check_floats, check_shape, described, fault, wide_dtype
from ._arithmetic import finite
from ._state import Weights


def leading_axis(grads: PyTree, params: PyTree = None) -> int:
    """Number of objectives; a fault where the leaves disagree, are complex, or are no stack for the parameters."""
    leaves = jax.tree.leaves(grads)
    shapes = [jnp.shape(leaf) for leaf in leaves]
    counts = {shape[0] if shape else 0 for shape in shapes}
    if any(jnp.iscomplexobj(leaf) for leaf in leaves):
        raise fault(
            expected="real gradients", got="a complex one", fix="Split parameters into real and imaginary parts."
        )
    check_floats(grads, what="gradients", fix="multi_value_and_grad makes them, of parameters that are floats.")
    if len(counts) != 1 or 0 in counts:
        raise fault(
            expected="gradients whose leaves all have the same leading axis, one entry for each objective",
            got=f"leaves of shapes {shapes}",
            fix="multi_value_and_grad makes them; an aggregator is the first link of optax.chain.",
        )
    if params is not None:
        _check_stacked(grads, params)
    return shapes[0][0]


def _check_stacked(grads: PyTree, params: PyTree) -> None:
    # By name, for gradients may leave out what has none. One gradient alone would be taken for a stack of its rows.
    known = {path: jnp.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        if known.get(path) != jnp.shape(leaf)[1:]:
            name = jax.tree_util.keystr(path) or "the gradient"
            raise fault(
                expected=f"{name} of shape [objectives, *{known.get(path, 'that of a parameter of this name')}]",
                got=f"shape {jnp.shape(leaf)}",
                fix="multi_value_and_grad makes such stacks; an aggregator is the first link of optax.chain.",
            )


def check_weights(found: Any, count: int) -> Weights:
    """What a rule has found, where that is one real number for each objective."""
    fix = "Return regulate.Weights(weights), one real number for each objective."
    if not isinstance(found, Weights):
        raise fault(expected="weigh that returns Weights", got=described(found), fix=fix)
    weights = check_shape(found.weights, (count,), what="weights", fix=fix)
    if jnp.iscomplexobj(weights):
        raise fault(expected="real weights", got=described(weights), fix=fix)
    check_shape(found.residual, (), what="a residual", fix="Pass one number, the largest, for one.")
    return found._replace(weights=weights)


@jax.jit
def judged(found: Weights, cosines: Float[Array, "K K"], norms: Float[Array, " K"]) -> Weights:
    """The same weights; a failure where they, or what they were made of, are not finite."""
    numbers = (cosines, norms, found.weights)
    return _failed_unless(jnp.all(jnp.stack([finite(x) for x in numbers])), found, norms.dtype)


@jax.jit
def still_finite(vector: PyTree, found: Weights) -> Weights:
    """The same weights; a failure where the vector that was made by them is not finite."""
    each = [finite(leaf) for leaf in jax.tree.leaves(vector)]
    return _failed_unless(jnp.all(jnp.stack(each)), found, jnp.result_type(found.residual))


@jax.jit
def judged_by_vector(vector: PyTree, weights: Any = None) -> Weights:
    """What a method finds that looks at no Gramian: a failure where the vector that it made is not finite."""
    return still_finite(vector, Weights(weights, jnp.zeros((), wide_dtype(vector))))


def _failed_unless(sane: Bool[Array, ""], found: Weights, dtype: jnp.dtype) -> Weights:
    result = optx.RESULTS.where(sane, found.result, optx.RESULTS.nonlinear_divergence)
    return Weights(found.weights, jnp.where(sane, found.residual, jnp.inf).astype(dtype), result)


def checked(vector: PyTree, weights: Weights, throw: bool) -> PyTree:
    """The vector, which raises where the solve has failed.

    Under plain ``jax.jit`` the runtime wraps the sentence in its own report of the callback, some seventeen lines down,
    and nothing raised from within a program can stand above that; ``state.result`` says the same without one.
    """
    if not throw:
        return vector
    not_finite = weights.result == optx.RESULTS.nonlinear_divergence
    return eqx.branched_error_if(
        vector,
        weights.result != optx.RESULTS.successful,
        jnp.where(not_finite, 0, 1),
        [
            "expected finite gradients, got NaN or infinity. Look for NaN in the losses, or pass throw=False.",
            "expected a solve within tolerance, got a residual above it (state.residual). "
            "Look for NaN in the losses, or pass throw=False.",
        ],
    )

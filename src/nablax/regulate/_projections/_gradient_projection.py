"""Gradient projection memory: learn a new task only in directions that old tasks' layers never see."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import exact, fault, nonzero, scaled, wide_dtype


class GradientProjectionState(NamedTuple):
    """What is protected.

    Attributes:
        bases: for each leaf of the parameters a matrix ``[inputs, inputs]``; its first columns are orthonormal and
            span the protected inputs, the others are zero, so that protecting more changes no shape.
    """

    bases: PyTree


def gradient_projection() -> optax.GradientTransformationExtraArgs:
    r"""Project each layer's gradient off the inputs that the layer has seen on earlier tasks.

    $$
    \tilde G = G\,(I - BB^{\top}), \qquad G = \partial L/\partial W \in \mathbb{R}^{\text{outputs}\times\text{inputs}}
    $$

    Where every protected input x lies in the span of B, a step along $\tilde G$ leaves Wx as it is, so that a
    network whose every layer is protected gives on old data the outputs it gave, to rounding. A leaf ``[outputs,
    ...]`` of two axes or more is read as a matrix with its last axes flattened (a dense layer, a convolution over
    flattened patches); a leaf of one axis, such as a bias, as a matrix with one input, which is constantly 1.

    The state starts with nothing protected. After a task, extend its bases by `extend_bases` and put them back,
    ``optax.tree.set(state, bases=bases)``; the shapes stay, so that nothing is compiled anew.

    Momentum of protected gradients stays protected, while per-weight preconditioning and weight decay do not keep
    the span: put this transformation after them.

    Returns:
        The regulator; its state is a `GradientProjectionState`.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import regulate
        >>> regulator = regulate.gradient_projection()
        >>> params = jnp.ones((1, 2))
        >>> state = regulator.init(params)
        >>> bases = regulate.extend_bases(state.bases, jnp.array([[1.0, 1.0]]), threshold=1.0)
        >>> grads, _ = regulator.update(jnp.array([[3.0, 1.0]]), state._replace(bases=bases))
        >>> bool(jnp.allclose(grads, jnp.array([[1.0, -1.0]]), atol=1e-5))
        True

    Cost: two products of each gradient with a matrix ``[inputs, inputs]``, and the memory of that matrix.

    References:
        - Saha, Garg and Roy, "Gradient Projection Memory for Continual Learning", 2021,
          https://openreview.net/forum?id=3AOj0RCNC2 (bases of fixed shape and the reading of biases are ours)
    """

    def init(params: PyTree) -> GradientProjectionState:
        return GradientProjectionState(empty_bases(params))

    def update(
        updates: PyTree, state: GradientProjectionState, params: PyTree = None, **extra: object
    ) -> tuple[PyTree, GradientProjectionState]:
        return jax.tree.map(project_off, updates, state.bases), state

    return optax.GradientTransformationExtraArgs(init, update)


def extend_bases(bases: PyTree, inputs: PyTree, *, threshold: float | Float[Array, ""] = 0.97) -> PyTree:
    r"""Protect more inputs: the fewest directions that bring the protected share of their energy to a threshold.

    $$
    \lVert BB^{\top}X\rVert_F^2 \ge \text{threshold}\cdot\lVert X\rVert_F^2
    $$

    The directions added are the leading singular vectors of what the present basis leaves of the inputs.

    Args:
        bases: of a `GradientProjectionState`, structured like the parameters.
        inputs: structured like the parameters; where the layer is to be protected an array ``[samples, inputs]`` of
            what the layer was given (ones, ``[samples, 1]``, for a bias), elsewhere None.
        threshold: share of the energy in [0, 1], 0.97 by default. With 1 every direction is protected whose
            singular value is above rounding.

    Returns:
        Bases of the same shapes.

    Raises:
        ValueError: an array of inputs does not fit its layer.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> bases = regulate.extend_bases(jnp.zeros((3, 3)), jnp.eye(3)[:2], threshold=1.0)
        >>> (abs(bases).sum(0) > 0).tolist()
        [True, True, False]

    Cost: one singular value decomposition ``[samples, inputs]`` a layer.

    References:
        - Saha, Garg and Roy, "Gradient Projection Memory for Continual Learning", 2021,
          https://openreview.net/forum?id=3AOj0RCNC2 (there the last direction, which crosses the threshold, is left
          out after the first task and kept after the others; here it is always kept)
    """

    def extend(basis: Array, seen: Array | None) -> Array:
        if seen is None:
            return basis
        if seen.ndim != 2 or seen.shape[1] != basis.shape[0]:
            raise fault(
                expected=f"inputs [samples, {basis.shape[0]}]", got=str(seen.shape), fix="One row for each sample."
            )
        return extend_basis(basis, seen.astype(basis.dtype), threshold)

    return jax.tree.map(extend, bases, inputs)


def empty_bases(params: PyTree) -> PyTree:
    """Make bases that protect nothing, of the dtype of each leaf, single precision at least."""

    def empty(leaf: Array) -> Array:
        columns = as_matrix(leaf).shape[1]
        return jnp.zeros((columns, columns), wide_dtype(leaf))

    return jax.tree.map(empty, params)


def as_matrix(leaf: Array) -> Float[Array, "outputs inputs"]:
    """Read a leaf as a matrix of outputs by inputs; a bias has one input."""
    return leaf.reshape(leaf.shape[0], -1) if leaf.ndim >= 2 else leaf.reshape(-1, 1)


@exact
def project_off(gradient: Array, basis: Float[Array, "inputs inputs"]) -> Array:
    """Take out of each row of the gradient its part in the span of the basis."""
    rows = as_matrix(gradient).astype(basis.dtype)
    # The largest entry is taken out, so that neither tiny nor huge gradients leave the range in the products.
    unit, scale = scaled(rows)
    for _ in range(2):  # what rounding leaves of the span after one pass, the second takes away
        unit = unit - (unit @ basis) @ basis.T
    return (unit * scale).reshape(gradient.shape).astype(gradient.dtype)


@jax.jit
@exact
def extend_basis(
    basis: Float[Array, "inputs inputs"], seen: Float[Array, "samples inputs"], threshold: float | Array
) -> Float[Array, "inputs inputs"]:
    """Append to a basis the leading directions of what it leaves of the rows ``seen``."""
    dimension = basis.shape[0]
    seen, _ = scaled(seen)
    left = seen
    for _ in range(2):
        left = left - (left @ basis) @ basis.T
    _, values, vectors = jnp.linalg.svd(left, full_matrices=False)
    energy = jnp.square(values)
    total = jnp.sum(jnp.square(seen))
    held = (total - jnp.sum(energy)) / nonzero(total)
    before = held + (jnp.cumsum(energy) - energy) / nonzero(total)
    floor = jnp.finfo(basis.dtype).eps * max(seen.shape) * jnp.sqrt(total)
    rank = jnp.sum(jnp.any(basis != 0, axis=0))
    place = jnp.arange(values.size)
    # At threshold 1 the sum of shares may reach 1 by rounding before the last direction; the floor decides there.
    wanted = jnp.where(threshold >= 1, True, before < threshold) & (values > floor) & (place < dimension - rank)
    columns = jnp.zeros_like(basis).at[:, : values.size].set(jnp.where(wanted[:, None], vectors, 0).T)
    return basis + jnp.roll(columns, rank, axis=1)

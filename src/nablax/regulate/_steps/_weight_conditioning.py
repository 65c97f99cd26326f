"""Row-equilibrated weights: matrices better conditioned where they are used, the stored ones left alone."""

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from ..._core import fault, unit_vector


def weight_conditioning(params: PyTree, *, row_axis: int = 0) -> PyTree:
    r"""Divide every row of every weight matrix by its norm; used in the forward pass and differentiated through.

    .. math::
        W \mapsto D^{-1} W,\qquad D = \operatorname{diag}(\lVert W_{1:}\rVert,\dots,\lVert W_{m:}\rVert)

    Of all diagonal scalings of m rows this is within a factor :math:`\sqrt m` of the one with the smallest condition
    number. A model is trained by taking gradients of ``loss(weight_conditioning(params), batch)`` with respect to
    ``params``; when training is over, ``weight_conditioning(params)`` are the weights to keep.

    Args:
        params: pytree; floating-point leaves whose rows have two entries or more are taken as weights, convolutions
            with all but the row axis flattened. Others pass, among them biases with trailing axes of length one.
        row_axis: axis of the rows, the outputs: 0 by default, as in Equinox; -1 for weights that inputs are multiplied
            with from the left.

    Returns:
        Pytree of the same structure, shapes and dtypes. A row of zeros stays zero.

    Raises:
        ValueError: a weight has no such axis.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> regulate.weight_conditioning({"weight": jnp.array([[3.0, 4.0], [0.0, 0.5]]), "bias": jnp.ones(2)})["weight"]
        Array([[0.6, 0.8],
               [0. , 1. ]], dtype=float32)

    Cost:
        A few operations a weight, forward and backward.

    References:
        - Saratchandran, Wang and Lucey, "Weight Conditioning for Smooth Optimization of Neural Networks", 2024,
          https://arxiv.org/abs/2409.03424 (read in the abstract; that the diagonal is differentiated through, as in
          weight normalisation with gains fixed at one, is our reading)
        - van der Sluis, "Condition numbers and equilibration of matrices", 1969 (the factor)
    """

    def condition(leaf: Array) -> Array:
        if not eqx.is_inexact_array(leaf) or leaf.ndim < 2:
            return leaf
        if not -leaf.ndim <= row_axis < leaf.ndim:
            raise fault(
                expected=f"weights with an axis {row_axis}",
                got=f"shape {leaf.shape}",
                fix="The rows are the outputs: axis 0 in Equinox.",
            )
        if leaf.size <= leaf.shape[row_axis]:
            return leaf
        axes = tuple(axis for axis in range(leaf.ndim) if axis != row_axis % leaf.ndim)
        return unit_vector(leaf, axes)

    return jax.tree.map(condition, params)

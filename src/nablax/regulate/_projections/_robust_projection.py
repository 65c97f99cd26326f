"""Projection on both sides of a layer: outputs and sample gradients of old data stay, and with them robustness."""

from typing import NamedTuple

import jax
import optax
from jaxtyping import Array, PyTree

from ._gradient_projection import as_matrix, empty_bases, project_off


class RobustProjectionState(NamedTuple):
    """What is protected on either side of each layer; bases of fixed shape, as in `GradientProjectionState`.

    Attributes:
        bases: protected inputs, ``[inputs, inputs]`` for each leaf.
        output_bases: protected sensitivities, ``[outputs, outputs]`` for each leaf.
    """

    bases: PyTree
    output_bases: PyTree


def robust_projection() -> optax.GradientTransformationExtraArgs:
    r"""Project each layer's gradient off what it was given and off what was propagated back through it.

    $$
    \tilde G = (I - DD^{\top})\,G\,(I - BB^{\top})
    $$

    The gradient of the loss with respect to a sample, on which attacks and defences by smoothing rest, is
    $\partial L/\partial x = W_1^{\top}\delta_1$ with $\delta_l = \varphi'(a_l)\odot W_{l+1}^{\top}\delta_{l+1}$.
    Where B spans the old inputs of every layer the activations stay, and where D spans the old sensitivities
    $\delta_l = \partial L/\partial a_l$ so do, layer by layer from the last, all δ and the sample gradients, to
    rounding.
    Both hold exactly for the matrices $\{\Delta W: \Delta W B = 0,\ D^{\top}\Delta W = 0\}$, onto which this is the
    orthogonal projection.

    The state starts with nothing protected. Extend both members by `extend_bases`: ``bases`` with what each layer was
    given, ``output_bases`` with sensitivities ``[samples, outputs]``. As in `gradient_projection` leaves are read as
    matrices of outputs by inputs, a bias as one constant input, and the transformation comes after preconditioning.

    Returns:
        The regulator; its state is a `RobustProjectionState`.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> regulator = regulate.robust_projection()
        >>> state = regulator.init(jnp.ones((2, 2)))
        >>> first = jnp.array([[1.0, 0.0]])
        >>> state = regulate.RobustProjectionState(
        ...     regulate.extend_bases(state.bases, first), regulate.extend_bases(state.output_bases, first)
        ... )
        >>> abs(regulator.update(jnp.ones((2, 2)), state)[0]).tolist()
        [[0.0, 0.0], [0.0, 1.0]]

    Cost: two products of each gradient with a matrix ``[inputs, inputs]`` and two with one ``[outputs, outputs]``, and
    the memory of these.

    References:
        - Ru et al., "Maintaining Adversarial Robustness in Continuous Learning", 2024,
          https://arxiv.org/abs/2402.11196 (the aim: projections that keep both outputs and smoothed sample gradients.
          There the second basis holds Jacobians of a layer's inputs with respect to the sample, again on the right; the
          two-sided form, which needs no Jacobians and leaves the first layer free to learn, is derived here)
    """

    def init(params: PyTree) -> RobustProjectionState:
        columns = jax.tree.map(lambda leaf: as_matrix(leaf).T, params)
        return RobustProjectionState(empty_bases(params), empty_bases(columns))

    def update(
        updates: PyTree, state: RobustProjectionState, params: PyTree = None, **extra: object
    ) -> tuple[PyTree, RobustProjectionState]:
        def both(gradient: Array, basis: Array, output_basis: Array) -> Array:
            rows = project_off(as_matrix(gradient), basis)
            return project_off(rows.T, output_basis).T.reshape(gradient.shape)

        return jax.tree.map(both, updates, state.bases, state.output_bases), state

    return optax.GradientTransformationExtraArgs(init, update)

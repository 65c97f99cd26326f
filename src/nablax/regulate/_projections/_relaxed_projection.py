"""Restricted orthogonal gradient projection: reuse the old weights where the new task pulls on protected inputs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ..._core import exact, fault, nonzero, required, scaled
from ._gradient_projection import as_matrix, empty_bases, project_off


class RelaxedProjectionState(NamedTuple):
    """What is protected, and where protection is relaxed.

    Attributes:
        bases: protected inputs, as in `GradientProjectionState`.
        relaxed: orthonormal bases of the same shapes whose spans lie in those of ``bases``.
        anchor: the parameters at the start of the task.
    """

    bases: PyTree
    relaxed: PyTree
    anchor: PyTree


def relaxed_projection(penalty: float = 1.0) -> optax.GradientTransformationExtraArgs:
    r"""Project gradients off protected inputs, except that old weights may be recombined on a chosen part of them.

    In the relaxed span R, within the protected span B, the weights may only become $W_0 R Q R^{\top}$, old weights
    $W_0$ recombined by a small matrix Q that starts at the identity. A gradient step on W off B and on Q is the step

    $$
    \tilde G = G\,(I - BB^{\top}) + W_0R\,(W_0R)^{\top} G\,RR^{\top} + 2\beta\,(W - W_0)\,RR^{\top}
    $$

    on W alone, where the last term is the gradient of $\beta\lVert Q - I\rVert_F^2$: no parameters are added and none
    need be merged after the task. Without relaxed directions this is `gradient_projection`. As there, leaves are read
    as matrices of outputs by inputs, with a bias as one constant input.

    Start a task with ``state._replace(anchor=params, relaxed=zeros like bases)``, choose ``relaxed`` with `relax_bases`
    from the gradient of the new task, and extend ``bases`` by `extend_bases` after the task.

    The equivalence with steps on Q holds for plain gradient descent: momentum and preconditioning come after.

    Args:
        penalty: the weight β, in units of the loss, 1 by default.

    Returns:
        The regulator; ``update`` needs ``params``. Its state is a `RelaxedProjectionState`.

    Raises:
        ValueError: a negative penalty, or ``update`` without ``params``.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> regulator = regulate.relaxed_projection(penalty=0.0)
        >>> params = jnp.array([[2.0, 0.0], [0.0, 1.0]])
        >>> state = regulator.init(params)
        >>> first = jnp.array([[1.0, 0.0], [0.0, 0.0]])
        >>> state = state._replace(bases=first, relaxed=first)
        >>> regulator.update(jnp.ones((2, 2)), state, params)[0].tolist()
        [[4.0, 1.0], [0.0, 1.0]]

    Cost: six products of each gradient with a matrix ``[inputs, inputs]``; the memory of two such matrices and of one
    copy of the parameters.

    References:
        - Yang, Yang, Li and Liu, "Restricted Orthogonal Gradient Projection for Continual Learning", 2023,
          https://arxiv.org/abs/2301.12131
        - the authors' code, https://github.com/THUNLP-MT/ROGO, followed here (there Q is a parameter; that its step is
          a step on W alone is derived here. The penalty is theirs for permuted MNIST. There, besides, an epoch of hard
          projection comes first in each task, the rate is halved whenever more has been relaxed, and nothing more is
          relaxed for the task after an epoch that relaxes nothing: all this is left to the caller)
    """
    if penalty < 0:
        raise fault(expected="a penalty of 0 or more", got=penalty, fix="Large values approach plain projection.")

    def init(params: PyTree) -> RelaxedProjectionState:
        bases = empty_bases(params)
        return RelaxedProjectionState(bases, jax.tree.map(jnp.zeros_like, bases), jax.tree.map(jnp.copy, params))

    def update(
        updates: PyTree, state: RelaxedProjectionState, params: PyTree = None, **extra: object
    ) -> tuple[PyTree, RelaxedProjectionState]:
        params = required(params, "params", by="relaxed_projection")

        @exact
        def regulate(gradient: Array, basis: Array, relaxed: Array, anchor: Array, leaf: Array) -> Array:
            old = as_matrix(anchor).astype(basis.dtype)
            inside = as_matrix(gradient).astype(basis.dtype) @ relaxed
            reused = old @ relaxed
            drift = (as_matrix(leaf).astype(basis.dtype) - old) @ relaxed
            oblique = (reused @ (reused.T @ inside) + 2 * penalty * drift) @ relaxed.T
            return project_off(gradient, basis) + oblique.reshape(gradient.shape).astype(gradient.dtype)

        return jax.tree.map(regulate, updates, state.bases, state.relaxed, state.anchor, params), state

    return optax.GradientTransformationExtraArgs(init, update)


def relax_bases(
    bases: PyTree, relaxed: PyTree, gradient: PyTree, *, energy: float = 0.97, cosine: float = 0.9
) -> PyTree:
    r"""Relax the protected directions that nearly lie in the span of a new task's gradient.

    With U the leading right singular vectors of the layer's gradient that hold a share ``energy`` of it, and F the
    protected span not yet relaxed, the directions added are the principal vectors of F whose principal angle θ to U has
    $\cos\theta \ge$ ``cosine``: one singular value decomposition in place of a greedy search.

    Args:
        bases: protected inputs, of a `RelaxedProjectionState`.
        relaxed: directions relaxed so far, of the same shapes.
        gradient: of the new task's loss, structured like the parameters.
        energy: share of the gradient's energy in [0, 1], 0.97 by default.
        cosine: least cosine of the angle to the gradient's span, in (0, 1], 0.9 by default.

    Returns:
        The relaxed bases, old directions first.

    Raises:
        ValueError: ``cosine`` lies outside (0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> bases = jnp.diag(jnp.array([1.0, 1.0, 0.0]))
        >>> relaxed = regulate.relax_bases(bases, jnp.zeros((3, 3)), jnp.array([[0.0, 5.0, 0.0]]))
        >>> abs(relaxed @ relaxed.T).round(5).tolist()
        [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]

    Cost: two singular value decompositions a layer.

    References:
        - Yang, Yang, Li and Liu, "Restricted Orthogonal Gradient Projection for Continual Learning", 2023,
          https://arxiv.org/abs/2301.12131
        - the authors' code, https://github.com/THUNLP-MT/ROGO (there the search is greedy, one direction at a time;
          each is the next principal vector. The cosine is theirs, and the energy that of their first layer,
          with 0.99 for the others)
    """
    if not 0 < cosine <= 1:
        raise fault(expected="a cosine in (0, 1]", got=cosine, fix="0.9 relaxes what nearly lies in the gradient.")

    def relax(basis: Array, old: Array, leaf: Array) -> Array:
        return _relax(basis, old, leaf, energy, cosine)

    return jax.tree.map(relax, bases, relaxed, gradient)


@jax.jit
@exact
def _relax(basis: Array, old: Array, leaf: Array, energy: float, cosine: float) -> Array:
    rows, _ = scaled(as_matrix(leaf).astype(basis.dtype))
    _, values, vectors = jnp.linalg.svd(rows, full_matrices=False)
    share = jnp.square(values) / nonzero(jnp.sum(jnp.square(values)))
    leading = jnp.where(((jnp.cumsum(share) - share < energy) & (values > 0))[:, None], vectors, 0)
    free = (leading @ basis) @ basis.T - (leading @ old) @ old.T
    _, cosines, directions = jnp.linalg.svd(free, full_matrices=False)
    rank = jnp.sum(jnp.any(old != 0, axis=0))
    # A direction that lies in the span of the gradient exactly has a cosine of 1 less rounding.
    close = cosines >= cosine - 10 * jnp.finfo(basis.dtype).eps
    wanted = close & (jnp.arange(cosines.size) < basis.shape[0] - rank)
    columns = jnp.zeros_like(basis).at[:, : cosines.size].set(jnp.where(wanted[:, None], directions, 0).T)
    return old + jnp.roll(columns, rank, axis=1)

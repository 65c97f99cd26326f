"""Make a function smooth everywhere on the data's manifold, by a Laplacian penalty weighted where it is steepest."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import check_finite, check_number, check_shape, fault, required, wide_dtype


class ManifoldSmoothnessState(NamedTuple):
    r"""Multipliers, and the smoothness reached.

    Attributes:
        weights: one for each point, on the simplex; the next step's.
        multiplier: of the loss, not negative; the next step's.
        lipschitz: estimate of the Lipschitz constant on the manifold at the last step, the largest
            :math:`\lVert\nabla f\rVert` over points.
    """

    weights: Float[Array, " points"]
    multiplier: Float[Array, ""]
    lipschitz: Float[Array, ""]


def manifold_affinity(points: Float[Array, "points dim"], width: float) -> Float[Array, "points points"]:
    r"""Weights whose sums of squared differences are squared gradients on the manifold that points lie on.

    .. math::
        \sum_j a_{ij}(f_i-f_j)^2 \to \lVert\nabla_{\mathcal M} f(x_i)\rVert^2,\qquad
        a_{ij} = \frac{k_{ij}}{h^2\sum_l k_{il}},\quad k_{ij} = e^{-\lVert x_i-x_j\rVert^2/2h^2}

    as points grow dense and the width narrow, whatever the density and the manifold's dimension. At its edges and
    where neighbours are further apart than the width, the estimate is low.

    Args:
        points: in the surrounding space.
        width: h, a distance, larger than that between neighbours and smaller than the manifold bends.

    Returns:
        Affinities, not symmetric: rows have sum one over h².

    Raises:
        ValueError: points are not ``[points, dim]``, or not finite; the width is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> line = jnp.linspace(0.0, 1.0, 101)
        >>> affinity = regulate.manifold_affinity(line[:, None], 0.05)
        >>> slope = jnp.sum(affinity[50] * jnp.square(3 * line[50] - 3 * line))  # of 3 x, squared
        >>> round(float(slope), 2)
        9.0

    Cost:
        points² distances.

    References:
        - Belkin and Niyogi, "Towards a theoretical foundation for Laplacian-based manifold methods", 2008 (the kernel;
          dividing by the row's sum, which leaves the dimension out, is derived here from the kernel's second moment)
    """
    points = check_shape(points, (None, None), what="points", fix="Give points of a line a column: points[:, None].")
    check_finite(points, what="points", fix="Leave those rows out.")
    check_number(width, what="width", above=0, fix="Try twice the distance between neighbours.")
    squares = jnp.sum(jnp.square(points[:, None] - points[None]), axis=-1)
    kernel = jnp.exp(-squares / (2 * width**2))
    return kernel / (width**2 * jnp.sum(kernel, axis=1, keepdims=True))


def manifold_smoothness(
    outputs: Callable[[PyTree], Float[Array, " points *features"]],
    affinity: Float[Array, "points points"],
    *,
    level: float | Float[Array, ""],
    dual_rate: float | Float[Array, ""],
    loss_rate: float | Float[Array, ""],
) -> optax.GradientTransformationExtraArgs:
    r"""Seek the function with the smallest Lipschitz constant on the manifold among those of at most a given loss.

    .. math::
        g = \mu\nabla L + \nabla\sum_i\lambda_i s_i,\qquad s_i = \sum_j a_{ij}\lVert f(x_i)-f(x_j)\rVert^2

    .. math::
        \lambda\leftarrow\Pi_\Delta(\lambda+\eta s),\qquad \mu\leftarrow\max(0,\;\mu+\eta_\mu(L-\varepsilon))

    This is descent and ascent on the Lagrangian of "minimise ρ subject to :math:`L\le\varepsilon` and
    :math:`\lVert\nabla_{\mathcal M}f(x_i)\rVert^2\le\rho` at every point", in which ρ leaves λ on the simplex Δ. With
    ``dual_rate`` zero the weights stay uniform: manifold regularisation, smooth on average only.

    Args:
        outputs: ``outputs(params) -> [points, ...]``, the function at the points, labelled or not.
        affinity: of the points, see `manifold_affinity`.
        level: ε, the loss allowed.
        dual_rate: η of the points' weights, in weight per squared gradient.
        loss_rate: :math:`\eta_\mu` of the loss's multiplier, which starts from one.

    Returns:
        The regulator. ``update(grads, state, params, value=loss)`` needs the parameters and the loss whose gradient
        comes in; it comes first in a chain. Its state is a `ManifoldSmoothnessState`.

    Raises:
        ValueError: the affinity is not square; parameters or the loss are missing at an update; the outputs' first axis
            is not that of the points.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> affinity = jnp.array([[0.0, 1.0], [1.0, 0.0]])
        >>> regulator = regulate.manifold_smoothness(
        ...     lambda f: f, affinity, level=0.1, dual_rate=0.1, loss_rate=1.0
        ... )
        >>> f = jnp.array([0.0, 3.0])
        >>> updates, state = regulator.update(jnp.zeros(2), regulator.init(f), f, value=0.3)
        >>> updates.tolist(), float(state.lipschitz), round(float(state.multiplier), 2)
        ([-6.0, 6.0], 3.0, 1.2)

    Cost:
        One VJP of the outputs, and points² differences.

    References:
        - Cerviño, Chamon, Haeffele, Vidal and Ribeiro, "Learning Globally Smooth Functions on Manifolds", 2023,
          https://arxiv.org/abs/2210.00301 (read in the abstract and a review: the constraints, the weighted Laplacian
          and dual ascent), and the authors' code, https://github.com/JuanCervino/smoothbench. That penalises
          :math:`f^\top\operatorname{diag}(\lambda)Lf` with a symmetric Laplacian L, which agrees with the sum here for
          even λ; raises each weight by the largest quotient :math:`|f_i-f_j|/d_{ij}` at its point, which is no
          square, and divides by their sum; and holds μ to at most 1 or 2. The squared gradients, the constraints'
          own, and the projection on the simplex, ascent on the Lagrangian, are ours
    """
    if affinity.ndim != 2 or affinity.shape[0] != affinity.shape[1]:
        raise fault(expected="a square affinity", got=f"shape {affinity.shape}", fix="manifold_affinity makes one.")
    count = affinity.shape[0]

    def init(params: PyTree) -> ManifoldSmoothnessState:
        dtype = wide_dtype(params)
        return ManifoldSmoothnessState(jnp.full(count, 1 / count, dtype), jnp.ones((), dtype), jnp.zeros((), dtype))

    def update(
        updates: PyTree,
        state: ManifoldSmoothnessState,
        params: PyTree = None,
        *,
        value: Float[Array, ""] | float | None = None,
        **extra: Any,
    ) -> tuple[PyTree, ManifoldSmoothnessState]:
        params = required(params, "params", by="manifold_smoothness")
        loss: Any = required(value, "value", by="manifold_smoothness")
        dtype = state.weights.dtype

        def roughness(params: PyTree) -> tuple[Array, Array]:
            values = outputs(params)
            if values.ndim == 0 or values.shape[0] != count:
                raise fault(
                    expected=f"outputs [{count}, ...], one for each point of the affinity",
                    got=f"shape {values.shape}",
                    fix="Let outputs(params) return the points along its first axis.",
                )
            rows = jnp.reshape(values, (count, -1)).astype(dtype)
            # Differences are taken before they are squared: a common offset of the outputs costs no digits.
            squares = jnp.sum(jnp.square(rows[:, None] - rows[None]), axis=-1)
            slopes = jnp.sum(affinity.astype(dtype) * squares, axis=1)
            return jnp.sum(state.weights * slopes), slopes

        penalty, slopes = jax.grad(roughness, has_aux=True)(params)
        combined = jax.tree.map(lambda g, p: state.multiplier.astype(g.dtype) * g + p.astype(g.dtype), updates, penalty)
        weights = optax.projections.projection_simplex(state.weights + dual_rate * slopes)
        multiplier = jnp.maximum(state.multiplier + loss_rate * (loss - level), 0)
        following = (weights, multiplier, jnp.sqrt(jnp.max(slopes)))
        return combined, ManifoldSmoothnessState(*(leaf.astype(dtype) for leaf in following))

    return optax.GradientTransformationExtraArgs(init, update)

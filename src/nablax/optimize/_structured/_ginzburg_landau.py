"""Labels for all nodes of a graph from a few: the Ginzburg–Landau energy, minimised with momentum."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..._core import AbstractRecord, check_count, check_finite, check_shape, exact, fault, norm
from .._settings import check_decays, check_not_negative, check_positive


class GinzburgLandau(AbstractRecord):
    """A phase for each node, and how it came about.

    Attributes:
        phases: about -1 and 1, between them where the graph is cut, [nodes].
        energies: before each step, [steps].
        gradients: length of the energy's gradient before each step, [steps].
        converged: whether the last gradient is at most the tolerance times the first.
    """

    phases: Float[Array, " nodes"]
    energies: Float[Array, " steps"]
    gradients: Float[Array, " steps"]
    converged: Bool[Array, ""]


@exact
def ginzburg_landau(
    laplacian: Float[Array, "nodes nodes"],
    start: Float[Array, " nodes"],
    labels: Int[Array, " nodes"],
    *,
    width: float,
    rate: float | Float[Array, ""],
    momentum: float = 0.9,
    fidelity: float = 1.0,
    convexity: float | None = None,
    steps: int,
    tolerance: float = 1e-4,
    throw: bool = True,
) -> GinzburgLandau:
    r"""Minimise the Ginzburg–Landau energy of a graph by a convex–concave splitting with momentum.

    .. math::
        E(u) = \frac\epsilon2u^\top Lu+\frac1\epsilon\sum_iW(u_i)+\frac\mu2\sum_{i\text{ labelled}}(u_i-l_i)^2, \qquad
        W(u) = \tfrac14(u^2-1)^2

    .. math::
        y = u_t+\beta(u_t-u_{t-1}), \qquad
        u_{t+1} = (I+\tau(\epsilon L+cI))^{-1}\bigl(y-\tau(\tfrac1\epsilon W'(y)+\mu\,m\odot(y-l)-c\,y)\bigr)

    with m of one where there is a label. What is convex is taken implicitly, the rest at y. Without momentum the energy
    falls at every rate where c is at least half of the greatest curvature of what is taken at y.

    Args:
        laplacian: L, symmetric, its eigenvalues not negative; a graph's, or a grid's.
        start: u₀, such as the labels and zeros.
        labels: -1 and 1 where they are known, 0 elsewhere.
        width: ε, of the transition, in units of the root of 1/L.
        rate: τ, a step of time.
        momentum: β, in [0, 1); 0.9 by default, ours.
        fidelity: μ, how much a label weighs, 0 or more; 1 by default.
        convexity: c; 2/ε + μ by default, enough for phases up to 1.29.
        steps: how many are made.
        tolerance: of the last gradient over the first; 1e-4 by default, ours.
        throw: raise where it is not reached; True by default.

    Returns:
        `GinzburgLandau`. The nodes' classes are the signs of its phases.

    Raises:
        ValueError: shapes that do not match, a Laplacian that is not symmetric, labels of other values, or a setting
            out of its range. While it runs, by ``throw``: the tolerance is not reached.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> chain = jnp.diag(jnp.array([1.0, 2.0, 2.0, 1.0])) - jnp.eye(4, k=1) - jnp.eye(4, k=-1)
        >>> labels = jnp.array([-1, 0, 0, 1])
        >>> found = optimize.ginzburg_landau(chain, 1.0 * labels, labels, width=0.5, rate=1.0, steps=300)
        >>> jnp.sign(found.phases).astype(int).tolist()
        [-1, -1, 1, 1]

    Cost: one eigendecomposition; a step: two products with the eigenvectors and two with L, 8 nodes² operations.

    References:
        - Akande, Dondl, Gupta, Onwunta and Wojtowytsch, "Momentum-based minimization of the Ginzburg-Landau functional
          on Euclidean spaces and graphs", 2024, https://arxiv.org/abs/2501.00389, after the abstract: the splitting's
          constants, the momentum's default and the labels' term are ours.
    """
    matrix = check_shape(laplacian, (None, None), what="laplacian", fix="Pass a matrix, nodes by nodes.")
    nodes = len(matrix)
    matrix = check_shape(matrix, (nodes, nodes), what="laplacian", fix="Pass a matrix, nodes by nodes.")
    u = check_shape(start, (nodes,), what="start", fix="Pass a number for each node.")
    known = check_shape(labels, (nodes,), what="labels", fix="Pass -1, 0 or 1 for each node.")
    check_finite((matrix, u), what="laplacian and start", fix="Drop nodes without edges or data.")
    check_positive(width=width, rate=rate, tolerance=tolerance)
    check_not_negative(fidelity=fidelity, convexity=0.0 if convexity is None else convexity)
    check_decays(momentum=momentum)
    check_count(steps, what="steps")
    if known.dtype == bool or _known_not(known, lambda known: np.isin(known, (-1, 0, 1))):
        got = "booleans, of which False would be not known" if known.dtype == bool else "others"
        raise fault(expected="labels of -1, 0 (not known) and 1", got=got, fix="Two classes only.")
    if _known_not(matrix, lambda m: np.abs(m - m.T) <= 1e-4 * np.max(np.abs(m))):
        raise fault(expected="a symmetric laplacian", got="another", fix="Take D - W of symmetric weights W.")
    dtype = jnp.result_type(matrix.dtype, u.dtype, jnp.float32)
    c = 2 / width + fidelity if convexity is None else convexity
    found = _settled(
        matrix.astype(dtype), u.astype(dtype), known.astype(dtype), width, rate, momentum, fidelity, c, steps, tolerance
    )
    if not throw:
        return found
    phases = eqx.error_if(
        found.phases,
        ~found.converged,
        f"expected a gradient of {tolerance:g} of the first after {steps} steps, got a larger one. Allow more steps, "
        "change the rate or the momentum, or take throw=False.",
    )
    return eqx.tree_at(lambda one: one.phases, found, phases)


@eqx.filter_jit
def _settled(
    matrix: Array,
    start: Array,
    labels: Array,
    width: Array | float,
    rate: Array | float,
    momentum: Array | float,
    fidelity: Array | float,
    convexity: Array | float,
    steps: int,
    tolerance: float,
) -> GinzburgLandau:
    values, vectors = jnp.linalg.eigh(matrix)
    implicit = 1 + rate * (width * values + convexity)
    known = jnp.abs(labels)

    def energy(u: Array) -> Float[Array, ""]:
        wells, misfit = jnp.sum((u**2 - 1) ** 2) / 4, jnp.sum(known * (u - labels) ** 2) / 2
        return width / 2 * u @ matrix @ u + wells / width + fidelity * misfit

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        u, before = carry
        value, gradient = jax.value_and_grad(energy)(u)
        y = u + momentum * (u - before)
        explicit = y * (y**2 - 1) / width + fidelity * known * (y - labels) - convexity * y
        following = vectors @ ((vectors.T @ (y - rate * explicit)) / implicit)
        return (following, u), (value, norm(gradient))

    (u, _), (energies, gradients) = jax.lax.scan(step, (start, start), length=steps)
    last = norm(jax.grad(energy)(u))
    return GinzburgLandau(u, energies, gradients, last <= tolerance * gradients[0])


def _known_not(array: Array, holds: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Whether something is known not to hold throughout; of what is traced nothing is known."""
    return not isinstance(array, jax.core.Tracer) and not bool(np.all(holds(np.asarray(array))))

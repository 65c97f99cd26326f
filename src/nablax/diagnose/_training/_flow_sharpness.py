"""The sharpness of where the gradient flow would lead from here: what gradient descent lowers at every step."""

from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._core import (
    AbstractRecord,
    Key,
    canonical_convolutions,
    check_key,
    checked_loss,
    nonzero,
    split,
    table,
    tree_norm,
)
from ...calculus import hessian_product, top_eigenvalues
from ...follow import Solver, flow


class FlowSharpness(AbstractRecord):
    r"""The largest Hessian eigenvalue here and where the gradient flow ends.

    Attributes:
        sharpness: here, units of the loss over parameters squared.
        solution_sharpness: at the end of the gradient flow, same unit.
        residual: of the eigenvalue at the end, :math:`\lVert Hv-\lambda v\rVert`, same unit.
        solution_loss: the loss at the end.
        movement: over the second half of the time, relative to the parameters' length, no unit.
        time: for which the flow was followed, units of the learning rate.
        steps: of the solver.
        solution: parameters at the end of the flow.
        converged: whether ``movement`` fell below the tolerance. Where it did not, ``solution_sharpness`` is that of
            a point on the way, or NaN where the solver gave up.
    """

    sharpness: Float[Array, ""]
    solution_sharpness: Float[Array, ""]
    residual: Float[Array, ""]
    solution_loss: Float[Array, ""]
    movement: Float[Array, ""]
    time: Float[Array, ""]
    steps: Int[Array, ""]
    solution: PyTree
    converged: Bool[Array, ""]

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with its unit.
        """
        unit = "loss / parameters²"
        return table(
            "Sharpness of the gradient flow's solution",
            [
                ("sharpness here", self.sharpness, unit),
                ("sharpness of the solution", self.solution_sharpness, unit),
                ("eigenvalue's residual", self.residual, unit),
                ("loss of the solution", self.solution_loss, "loss"),
                ("time of flow", self.time, "learning rate"),
                ("movement in the last half of it", self.movement, "1"),
            ],
            ["converged" if bool(self.converged) else "NOT converged: read it as a point on the way"],
        )


@eqx.filter_jit
@canonical_convolutions
def flow_sharpness(
    loss: Callable[..., Float[Array, ""]],
    params: PyTree,
    *args: PyTree,
    key: Key,
    tolerance: float = 1e-4,
    accuracy: float = 1e-5,
    doublings: int = 16,
    eigenvalue_steps: int = 40,
) -> FlowSharpness:
    r"""Follow the gradient flow from here to its end and measure the largest Hessian eigenvalue there.

    .. math:: \dot\theta = -\nabla L(\theta), \qquad \phi(\theta_0) = \lambda_{\max}(\nabla^2 L(\theta(\infty)))

    At the edge of stability the loss and the sharpness of gradient descent go up and down; :math:`\phi` of its
    iterates falls, and where it comes below two over the learning rate, descent settles.

    The flow is followed in stretches, each doubling the time, first to one over the sharpness here, until a
    doubling moves the parameters by less than ``tolerance`` of their length. With a loss whose minimum is at infinity
    (cross-entropy on data that can be separated) this may never come, and a start on a plateau may stop there.

    Args:
        loss: ``loss(params, *args) -> scalar``, of the whole data.
        params: the parameters, any pytree; leaves that are not inexact arrays are held.
        *args: handed to the loss.
        key: of the eigenvalue's start vectors.
        tolerance: on ``movement``, 1e-4 by default.
        accuracy: relative and absolute tolerance of the solver's steps, 1e-5 by default.
        doublings: stretches to try, 16 by default: up to 2¹⁵ over the sharpness here.
        eigenvalue_steps: Hessian products for each of the two eigenvalues, 40 by default.

    Returns:
        A :class:`FlowSharpness`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.diagnose import flow_sharpness
        >>> loss = lambda p: 0.5 * (p[0] * p[1] - 1) ** 2
        >>> record = flow_sharpness(loss, jnp.array([1.5, 1.5]), key=jax.random.key(0))
        >>> round(float(record.sharpness), 2), round(float(record.solution_sharpness), 2)
        (5.75, 2.0)

    Cost:
        Six gradients a step of the solver. The solver is explicit, so that its steps number some t λ/3, with the
        time t set by the smallest eigenvalue that still moves: hundreds for small networks, many thousands where
        the spectrum is wide.

    References:
        - Kreisler, Shpigel Nacson, Soudry and Carmon, "Gradient Descent Monotonically Decreases the Sharpness of
          Gradient Flow Solutions in Scalar Networks and Beyond", 2023, https://arxiv.org/abs/2305.13064 (after the
          abstract: the quantity; the stopping rule is ours)
    """
    check_key(key)
    loss = checked_loss(loss, fix="It is loss(params, *args): take its mean.")
    at, rest = split(params)
    first_key, last_key = jax.random.split(key)

    def value(at: PyTree) -> Float[Array, ""]:
        return loss(eqx.combine(at, rest), *args)

    def sharpness(at: PyTree, key: Key) -> tuple[Float[Array, ""], Float[Array, ""]]:
        def product(v: PyTree) -> PyTree:
            return hessian_product(value)(at, v)

        found = top_eigenvalues(product, at, count=1, steps=eigenvalue_steps, key=key)
        return found.values[0], found.residuals[0]

    def field(t: Array, at: PyTree, scale: Array) -> PyTree:
        return jax.tree.map(lambda g: -scale.astype(g.dtype) * g, jax.grad(value)(at))

    here, _ = sharpness(at, first_key)
    gradient = tree_norm(jax.grad(value)(at))
    length = tree_norm(at)
    # A negative or vanishing curvature sets no time; then the time in which the start would move by its own length.
    natural = jnp.where(here > 0, here, gradient / nonzero(length))
    start = 1 / jnp.where(natural > 0, natural, 1)

    def unfinished(state: tuple) -> Bool[Array, ""]:
        _, _, _, movement, _, count = state
        return (movement > tolerance) & (count < doublings)

    def stretch(state: tuple) -> tuple:
        at, time, extent, _, steps, count = state
        # Time is counted in stretches, so that one program and one dtype serve all their lengths.
        walked = flow(
            field, at, 0.0, 1.0, args=extent, solver=Solver(rtol=accuracy, atol=accuracy, max_steps=16384), throw=False
        )
        time = time + extent
        # Where the solver gave up, its last state is no point of the flow; the loop ends at a movement of NaN.
        there = jax.tree.map(lambda y: jnp.where(walked.result == diffrax.RESULTS.successful, y, jnp.nan), walked.ys)
        move = tree_norm(jax.tree.map(jnp.subtract, there, at)) / (tree_norm(there) + 1e-30)
        # A single stretch has no first half to be compared with.
        movement = jnp.where((count > 0) | jnp.isnan(move), move, jnp.inf)
        return there, time, time, movement, steps + walked.stats["num_steps"], count + 1

    far = jnp.full_like(start, jnp.inf)
    zero = jnp.zeros((), jnp.int32)
    state = (at, jnp.zeros_like(start), start, far, zero, zero)
    end, time, _, movement, steps, _ = jax.lax.while_loop(unfinished, stretch, state)
    there, residual = sharpness(end, last_key)
    return FlowSharpness(
        sharpness=here,
        solution_sharpness=there,
        residual=residual,
        solution_loss=value(end),
        movement=movement,
        time=time,
        steps=steps,
        solution=eqx.combine(end, rest),
        converged=movement <= tolerance,
    )


__all__ = ["FlowSharpness", "flow_sharpness"]

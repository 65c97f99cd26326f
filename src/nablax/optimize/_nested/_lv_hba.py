"""LV-HBA: two levels with a constraint on both, by first derivatives alone and in one loop."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optimistix
from jaxtyping import Array, Float, PyTree

from ..._core import (
    AbstractRecord,
    canonical_convolutions,
    check_callable,
    check_count,
    check_floats,
    check_like,
    check_loss,
    described,
    exact,
    fault,
    space,
)
from .._leaves import like
from .._outcome import all_finite, outcome
from .._settings import check_positive, rate_at


class ConstrainedBilevel(AbstractRecord):
    """Where a run over two levels under a constraint has led.

    Attributes:
        params: of the upper level.
        lower: the lower level's variable.
        multipliers: of the constraints.
        values: the upper loss before each step, [steps].
        gap: by how much the lower level's loss at its variable lies above that at its proximal answer, before each
            step, [steps]; it tends to zero, from either side.
        result: ``optimistix.RESULTS.successful``, or that a number was not finite.
        evaluations: gradients of both levels and of the constraint, in all.
    """

    params: PyTree
    lower: PyTree
    multipliers: Float[Array, " constraints"]
    values: Float[Array, " steps"]
    gap: Float[Array, " steps"]
    result: optimistix.RESULTS
    evaluations: int = eqx.field(static=True)


@eqx.filter_jit
@canonical_convolutions
@exact
def lv_hba(
    upper: Callable[[PyTree, PyTree], Array],
    lower: Callable[[PyTree, PyTree], Array],
    constraint: Callable[[PyTree, PyTree], Array],
    project: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    start: PyTree,
    x: PyTree,
    *,
    steps: int,
    rate: float | Float[Array, ""],
    answer_rate: float | Float[Array, ""],
    centre_rate: float | Float[Array, ""],
    penalty: optax.ScalarOrSchedule = lambda step: (step + 1.0) ** 0.3,
    proximity: float = 10.0,
    bounds: tuple[float, float] = (0.0, 1e3),
    project_answer: Callable[[PyTree, PyTree], PyTree] | None = None,
    throw: bool = True,
) -> ConstrainedBilevel:
    r"""Minimise an upper loss among answers of a lower level that is constrained, without second derivatives.

    Of :math:`\min_{\theta,x}g(x,\theta)` where x minimises :math:`h(\cdot,\theta)` under :math:`c(x,\theta)\le0`, with
    an answer y, multipliers λ and their centre z,

    .. math::
        y^+ = P\bigl(y-\eta\,[\nabla_xh(y)+\nabla_xc(y)^\top\lambda+\tfrac{y-x}\gamma]\bigr), \qquad
        \lambda^+ = P_{[l,u]}\bigl(\lambda+\eta\,[c(y)-\tfrac{\lambda-z}\gamma]\bigr)

    .. math::
        (\theta,x)^+ = P_C\Bigl((\theta,x)-\alpha\bigl[\tfrac1{c_k}\nabla g+\nabla h(x)
        -\nabla v\bigr]\Bigr), \qquad
        \nabla v = \bigl(\partial_\theta h(y^+)+\partial_\theta c(y^+)^\top\lambda^+,\ \tfrac{x-y^+}\gamma\bigr),
        \qquad z^+ = P_{[l,u]}\bigl(z+\tfrac\beta\gamma(\lambda^+-z)\bigr)

    v is the value of the lower level's Lagrangian with a proximal term in both x and λ: smooth, where the plain value
    of a constrained level is not, and with the multipliers' part, without which the constraint's own dependence on θ
    is not seen.

    Args:
        upper: g, ``upper(x, params) -> scalar``.
        lower: h, ``lower(x, params) -> scalar``, convex in x.
        constraint: c, ``constraint(x, params) -> [constraints]``, at most 0 where it holds; convex in x.
        project: ``project(x, params) -> (x, params)``, onto what both levels' constraints leave.
        start: θ at first, a tree of floats.
        x: the lower level's variable at first.
        steps: turns.
        rate: α, of both levels' variables.
        answer_rate: η, of the answer and the multipliers.
        centre_rate: β, of the multipliers' centre.
        penalty: :math:`c_k`, that grows, a number or a schedule; the authors' power 0.3 of the step by default.
        proximity: γ, 10 by default, of their toy.
        bounds: of the multipliers, (0, 1000) by default; (-u, u) where the constraint is an equation.
        project_answer: ``project_answer(y, params) -> y``, onto what the lower level allows but for the constraint; by
            default everything.
        throw: raise where a number is not finite (default), or only report it in ``result``.

    Returns:
        A :class:`ConstrainedBilevel`.

    Raises:
        ValueError: settings out of range, a loss that is no real scalar, a constraint that is no vector, or a
            projection that does not return what it took.
        RuntimeError: a number was not finite; raised when it is run.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> def project(x, params):  # onto x ≤ params
        ...     over = jnp.maximum(x - params, 0) / 2
        ...     return x - over, params + over
        >>> found = optimize.lv_hba(
        ...     lambda x, params: (x - 1.0) ** 2 + (params - 2.0) ** 2 / 2,
        ...     lambda x, params: (x - 5.0) ** 2 / 2,  # would be 5, and is params
        ...     lambda x, params: (x - params)[None],
        ...     project,
        ...     jnp.array(0.0),
        ...     jnp.array(0.0),
        ...     steps=3000, rate=0.02, answer_rate=0.02, centre_rate=0.1, proximity=1.0,
        ... )
        >>> round(float(found.params), 1)  # (1 · 2 + 2 · 1) / 3
        1.3

    Cost: a step two gradients of the lower loss, two of the constraint, one of the upper loss, and a projection.

    References:
        - Yao, Yu, Zeng and Zhang, "Constrained Bi-Level Optimization: Proximal Lagrangian Value function Approach and
          Hessian-free Algorithm", 2024, https://arxiv.org/abs/2401.16164, and the authors' code
          (https://github.com/SUSTech-Optimization/LV-HBA), which has γ of its own for the answer and for the
          multipliers; they are one here.
    """
    for name, given in (("upper", upper), ("lower", lower), ("constraint", constraint), ("project", project)):
        check_callable(given, what=name, fix=f"Pass {name}(x, params).", takes=2)
    steps = check_count(steps, what="steps")
    check_positive(rate=rate, answer_rate=answer_rate, centre_rate=centre_rate, proximity=proximity)
    if not callable(penalty):
        check_positive(penalty=penalty)
    if project_answer is not None:
        check_callable(project_answer, what="project_answer", fix="Pass project_answer(y, params) -> y.", takes=2)
    low, high = _rising(bounds)
    check_floats((start, x), what="start and x", fix="Keep what is not solved for out of them, in the losses.")
    above, below = space(start), space(x)

    def g(x: Array, params: Array) -> Array:
        return check_loss(upper(below.tree(x), above.tree(params)), what="an upper loss")

    def h(x: Array, params: Array) -> Array:
        return check_loss(lower(below.tree(x), above.tree(params)), what="a lower loss")

    def c(x: Array, params: Array) -> Array:
        value = constraint(below.tree(x), above.tree(params))
        if not isinstance(value, jax.Array) or value.ndim != 1 or not jnp.issubdtype(value.dtype, jnp.floating):
            raise fault(
                expected="a constraint that is a vector of floats",
                got=described(value),
                fix="Return an array [k], of one number for each constraint.",
            )
        return value

    def feasible(x: Array, params: Array) -> tuple[Array, Array]:
        took = below.tree(x), above.tree(params)
        gave = project(*took)
        check_like(gave, took, what="a projection whose value", fix="Return (x, params).")
        return space(gave[0]).flat, space(gave[1]).flat

    def allowed(y: Array, params: Array) -> Array:
        if project_answer is None:
            return y
        gave = project_answer(below.tree(y), above.tree(params))
        check_like(gave, below.tree(y), what="a projection of the answer whose value", fix="Return y.")
        return space(gave).flat

    def lagrangian(y: Array, params: Array, multipliers: Array) -> Array:
        return h(y, params) + multipliers @ c(y, params)

    def turn(carry: tuple[Array, ...], step: Array) -> tuple[tuple[Array, ...], tuple[Array, Array]]:
        params, x, y, multipliers, centre = carry
        pull, over = jax.grad(lagrangian)(y, params, multipliers), c(y, params)
        y = allowed(y - answer_rate * (pull + (y - x) / proximity), params)
        multipliers = jnp.clip(multipliers + answer_rate * (over - (multipliers - centre) / proximity), low, high)
        value, (up_x, up_params) = jax.value_and_grad(g, argnums=(0, 1))(x, params)
        own, (here_x, here_params) = jax.value_and_grad(h, argnums=(0, 1))(x, params)
        there = jax.grad(lagrangian, argnums=1)(y, params, multipliers)
        weight = rate_at(penalty, step)
        moved_x = x - rate * (up_x / weight + here_x - (x - y) / proximity)
        moved_params = params - rate * (up_params / weight + here_params - there)
        gap = own - h(y, params)
        x, params = feasible(moved_x, moved_params)
        centre = jnp.clip(centre + centre_rate / proximity * (multipliers - centre), low, high)
        return like((params, x, y, multipliers, centre), carry), (value, gap)

    x_flat, params = feasible(below.flat, above.flat)
    zero = jnp.zeros_like(c(x_flat, params))
    none = like(jnp.clip(zero, low, high), zero)
    begin: tuple[Array, ...] = (params, x_flat, allowed(x_flat, params), none, none)
    last, (values, gap) = jax.lax.scan(turn, begin, jnp.arange(steps))
    found, result = outcome(above.tree(last[0]), all_finite((last, values)), throw)
    return ConstrainedBilevel(found, below.tree(last[1]), last[3], values, gap, result, 5 * steps)


def _rising(bounds: Any) -> tuple[Any, Any]:
    """The two bounds; what is traced is taken as it is.

    Raises:
        ValueError: they are no two numbers, or do not rise.
    """
    fix = "(0, 1000) for an inequality, say."
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise fault(expected="bounds, two numbers", got=described(bounds), fix=fix)
    if any(isinstance(bound, jax.core.Tracer) for bound in bounds):
        return bounds[0], bounds[1]
    if not all(isinstance(bound, int | float) for bound in bounds) or not bounds[0] < bounds[1]:
        raise fault(expected="bounds that rise", got=repr(bounds), fix=fix)
    return bounds[0], bounds[1]

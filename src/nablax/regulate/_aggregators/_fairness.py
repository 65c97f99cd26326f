"""Nash-MTL and FairGrad: weights that share the improvement fairly, as the minimum of one convex function."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import divide, fault, peak
from ._aggregator import aggregator, of_gramian, weighting
from ._arithmetic import with_unit_diagonal
from ._state import Weights, outcome

_STEPS = 100


def nash_mtl_weights(gramian: Float[Array, "K K"]) -> Weights:
    r"""Nash-MTL's weights of a Gramian: :math:`Gw = 1/w`; see `nash_mtl`.

    Args:
        gramian: :math:`JJ^{\top}`, in any unit.

    Returns:
        `Weights`, in units of one over a gradient's norm. Their residual is :math:`\max_i|w_i(Gw)_i - 1|`, the ridge
        on G counted in.

    Raises:
        ValueError: the Gramian is not square.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.regulate import nash_mtl_weights
        >>> [round(float(w), 4) for w in nash_mtl_weights(jnp.diag(jnp.array([1.0, 4.0]))).weights]
        [1.0, 0.5]

    Cost:
        About ten factorisations of a K × K matrix.
    """
    return of_gramian(_fair, gramian, 1.0)


def nash_mtl(*, objectives: int | None = None, throw: bool = True) -> optax.GradientTransformationExtraArgs:
    r"""Nash's bargaining solution: the direction of unit size that maximises :math:`\sum_i\log\langle g_i, d\rangle`.

    .. math::
        d = J^{\top}w,\qquad Gw = 1/w,\ w>0

    The direction does not depend on the gradients' norms, and :math:`\lVert d\rVert=\sqrt{K}` whatever they are: the
    learning rate alone sets the step, as with a sign method, so let it decay. (The authors' code clips d to norm 1
    and solves every few steps only; chain ``optax.clip_by_global_norm`` for the former.) Where no direction helps all,
    bargaining has no solution; a ridge on the cosines (2e-10 in double, 5e-5 in single precision) defines one, and d
    goes to zero with it. A vanished gradient gets weight 0.

    Args:
        objectives: number K; see `aggregator`.
        throw: whether failures raise; see `aggregator`.

    Returns:
        A gradient transformation; leading axis K in, none out.

    Raises:
        ValueError: leading axes disagree.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.nash_mtl()
        >>> grads = jnp.array([[3.0, 0.0], [0.0, 0.01]])
        >>> [round(float(d), 4) for d in aggregator.update(grads, aggregator.init(jnp.zeros(2)))[0]]
        [1.0, 1.0]

    Cost:
        One Gramian, `nash_mtl_weights`, one weighted sum.

    References:
        - Navon et al., "Multi-Task Learning as a Bargaining Game", 2022, https://arxiv.org/abs/2202.01017 (the
          equation; that it is the minimum of :math:`\tfrac12w^{\top}Gw-\sum\log w`, and Newton's method on it, is used
          here in place of a sequence of convex programmes)
    """
    return aggregator(lambda cosines, norms: _fair(cosines, norms, 1.0), objectives=objectives, throw=throw)


def fairgrad_weights(gramian: Float[Array, "K K"], alpha: float = 1.0) -> Weights:
    r"""FairGrad's weights of a Gramian: :math:`Gw = w^{-1/\alpha}`; see `fairgrad`.

    Args:
        gramian: :math:`JJ^{\top}`. Its unit matters for alpha other than 1.
        alpha: positive.

    Returns:
        `Weights`; residual :math:`\max_i|w_i^{1/\alpha}(Gw)_i - 1|`, the ridge on G counted in.

    Raises:
        ValueError: the Gramian is not square, or alpha not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.regulate import fairgrad_weights
        >>> [round(float(w), 4) for w in fairgrad_weights(jnp.diag(jnp.array([1.0, 8.0])), 2.0).weights]
        [1.0, 0.25]

    Cost:
        About ten factorisations of a K × K matrix.
    """
    return of_gramian(_fair, gramian, _valid(alpha))


def fairgrad(
    alpha: float = 1.0, *, objectives: int | None = None, throw: bool = True
) -> optax.GradientTransformationExtraArgs:
    r"""Share the improvement alpha-fairly: :math:`d=J^{\top}w` with :math:`Gw = w^{-1/\alpha}`.

    d maximises :math:`\sum_i\langle g_i,d\rangle^{1-\alpha}/(1-\alpha)` over directions of one size: proportional
    fairness (`nash_mtl`) for 1, the largest total as alpha goes to 0, the best worst case as it goes to infinity. Only
    for alpha 1 does d's length not depend on the gradients': else, all gradients s times as long make it
    :math:`s^{(1-\alpha)/(1+\alpha)}` times as long.

    Args:
        alpha: positive, 1 by default.
        objectives: number K; see `aggregator`.
        throw: whether failures raise; see `aggregator`.

    Returns:
        A gradient transformation; leading axis K in, none out.

    Raises:
        ValueError: alpha is not positive; leading axes disagree.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.fairgrad(2.0)
        >>> aggregator.update(jnp.eye(2), aggregator.init(jnp.zeros(2)))[0].round(4).tolist()
        [1.0, 1.0]

    Cost:
        One Gramian, `fairgrad_weights`, one weighted sum.

    References:
        - Ban and Ji, "Fair Resource Allocation in Multi-Task Learning", 2024, https://arxiv.org/abs/2402.15638 (the
          equation; there by least squares, here by Newton's method on the convex function it is the gradient of)
    """
    alpha = _valid(alpha)
    return aggregator(lambda cosines, norms: _fair(cosines, norms, alpha), objectives=objectives, throw=throw)


def _valid(alpha: float) -> float:
    if not alpha > 0:
        raise fault(expected="a positive alpha", got=str(alpha), fix="For alpha 0 use regulate.sum.")
    return alpha


@weighting("alpha")
def _fair(cosines: Float[Array, "K K"], norms: Float[Array, " K"], alpha: float) -> Weights:
    # w = c z / norms turns Gw = w^(-1/α) into Cz = p z^(-1/α) with p = shares^(1/α-1) and a common factor c.
    dtype = norms.dtype
    power = 1 / alpha
    largest = peak(norms)
    shares = norms / largest
    present = norms > 0
    pressures = jnp.where(present, jnp.where(present, shares, 1) ** (power - 1), 0)
    highest = peak(pressures)
    pressures = pressures / highest
    # Where bargaining has no solution z reaches ridge^(-1/2), and rounding times z² has to stay small.
    precision = float(jnp.finfo(dtype).eps)
    ridge = precision**0.625
    matrix = with_unit_diagonal(cosines) + ridge * jnp.eye(len(norms), dtype=dtype)

    def utility(z: Array) -> Array:
        if power == 1:
            return jnp.log(z)
        return z ** (1 - power) / (1 - power)

    def objective(z: Array) -> Array:
        return 0.5 * z @ matrix @ z - jnp.sum(jnp.where(present, pressures * utility(z), jnp.log(z)))

    forces = jnp.where(present, pressures, 1)
    powers = jnp.where(present, power, 1).astype(dtype)

    def missed(z: Array) -> Array:
        return jnp.max(jnp.where(present, jnp.abs((matrix @ z) * z**powers / forces - 1), 0))

    shrink = jnp.asarray(0.5, dtype) ** jnp.arange(24)

    def step(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        # Newton in log z: there the function is smooth to the edge, and a step cannot leave the positive numbers.
        log, best, lowest, steps = carry
        z = jnp.exp(log)
        product = matrix @ z
        gradient = z * (product - forces * z**-powers)
        # The Hessian's part Z M Z + diag(p z^(1-1/α)/α) is positive; what is left of it has the gradient's sign and
        # is kept where it is positive as well.
        curvature = powers * forces * z ** (1 - powers) + jnp.maximum(gradient, 0)
        hessian = z[:, None] * matrix * z[None, :] + jnp.diag(curvature)
        factor = jax.scipy.linalg.cho_factor(hessian, lower=True)
        move = jnp.clip(-jax.scipy.linalg.cho_solve(factor, gradient), -3, 3)
        tried = log[None, :] + shrink[:, None] * move[None, :]
        values = jax.vmap(lambda candidate: objective(jnp.exp(candidate)))(tried)
        merits = jax.vmap(lambda candidate: missed(jnp.exp(candidate)))(tried)
        # Close to the minimum the function's own rounding hides progress; there the full step is right.
        chosen = jnp.where(merits[0] < 0.1, 0, jnp.argmin(jnp.where(jnp.isnan(values), jnp.inf, values)))
        log, merit = tried[chosen], merits[chosen]
        better = merit < lowest
        return log, jnp.where(better, log, best), jnp.where(better, merit, lowest), steps + 1

    goal = 32 * float(jnp.finfo(dtype).eps)
    start = jnp.zeros_like(norms)
    _, log, residual, _ = jax.lax.while_loop(
        lambda carry: (carry[2] > goal) & (carry[3] < _STEPS),
        step,
        (start, start, missed(jnp.exp(start)), jnp.asarray(0)),
    )
    # c solves c n² C z = (c z / n)^(-1/α) n ... in units of the largest norm.
    factor_ = (highest ** (1 / (1 + power))) * largest ** (-2 / (1 + power)) * largest
    weights = jnp.where(present, divide(jnp.exp(log), norms) * factor_, 0)
    return Weights(weights, residual, outcome(residual <= 10 * precision / ridge))

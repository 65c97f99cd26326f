"""Langevin dynamics on the sphere, whose average knows a direction that no state of it does."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix
from jaxtyping import Array, Float

from ..._core import (
    AbstractRecord,
    canonical_convolutions,
    check_callable,
    check_count,
    check_floats,
    check_key,
    check_loss,
    check_shape,
    exact,
    norm,
    unit_vector,
    wide_dtype,
)
from ...spaces import Sphere
from .._leaves import like
from .._outcome import all_finite, outcome
from .._settings import check_not_negative, check_positive


class AveragedLangevin(AbstractRecord):
    """What a run on the sphere says of a direction.

    Attributes:
        params: the direction, of length 1, [dim].
        last: the last state, of length 1, [dim].
        average: of the states, [dim]; where ``even``, of their outer products, [dim, dim].
        values: the loss before each step, [steps].
        result: ``optimistix.RESULTS.successful``, or that a number was not finite.
        evaluations: of the gradient.
    """

    params: Float[Array, " dim"]
    last: Float[Array, " dim"]
    average: Float[Array, "..."]
    values: Float[Array, " steps"]
    result: optimistix.RESULTS
    evaluations: int = eqx.field(static=True)


@eqx.filter_jit
@canonical_convolutions
@exact
def averaged_langevin(
    loss: Callable[[Float[Array, " dim"]], Array],
    start: Float[Array, " dim"],
    *,
    steps: int,
    step_size: float,
    strength: float | Float[Array, ""] = 1.0,
    even: bool = False,
    key: jax.Array,
    throw: bool = True,
) -> AveragedLangevin:
    r"""Follow noise and a gradient on the sphere, and average.

    .. math::
        d\theta = \Bigl(-\frac{d-1}2\theta-\varepsilon P_\theta\nabla L(\theta)\Bigr)dt+P_\theta\,dW, \qquad
        P_\theta = I-\theta\theta^\top, \qquad
        \hat\theta = \frac{\int\theta\,dt}{\lVert\int\theta\,dt\rVert}

    Without a gradient it is Brownian motion: mean 0, covariance I/d. A gradient too weak to be seen in any state leans
    the average towards where the loss averaged over directions falls, which points to a planted direction long before
    descent finds it. Where the loss is ``even`` in θ the first average is 0, and :math:`\hat\theta` is the top
    eigenvector of :math:`\int\theta\theta^\top dt`.

    A step is the geodesic along :math:`P_\theta(-\varepsilon h\nabla L+\sqrt h\,\xi)`: its states are of length 1.

    Args:
        loss: ``loss(theta) -> scalar``.
        start: θ at first, [dim], of any length but 0; halves are computed with in single precision.
        steps: turns.
        step_size: h, time a step; well below 1/d, within which the walk forgets where it was.
        strength: ε, per unit of the loss; 1 by default. Too weak and the noise of the average hides it (which falls
            with the root of the time), too strong and the walk is caught where descent would be.
        even: average outer products, False by default; d² numbers of memory.
        key: of the noise.
        throw: raise where a number is not finite (default), or only report it in ``result``.

    Returns:
        An :class:`AveragedLangevin`.

    Raises:
        ValueError: settings out of range, no key, a start that is no vector, or a loss that is no real scalar.
        RuntimeError: a number was not finite, or the start is zero; raised when it is run.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import optimize
        >>> planted = jnp.eye(5)[0]
        >>> found = optimize.averaged_langevin(
        ...     lambda x: -x @ planted, jnp.ones(5), steps=20_000, step_size=0.02, key=jax.random.key(0)
        ... )
        >>> bool(found.params @ planted > 0.9)
        True

    Cost: a gradient and d normal numbers a step; where ``even`` d² multiplications.

    References:
        - Wei, Damian and Lee, "Improved high-dimensional estimation with Langevin dynamics and stochastic weight
          averaging", 2026, https://arxiv.org/abs/2603.06028 (after the abstract: the dynamics and both averages;
          geodesic steps are ours).
    """
    check_callable(loss, what="loss", fix="Pass loss(theta) -> scalar.")
    start = check_shape(start, (None,), what="start", fix="Pass a vector.")
    check_floats(start, what="start", fix="Pass a vector of floats.")
    start = start.astype(wide_dtype(start))
    start = eqx.error_if(start, norm(start) == 0, "averaged_langevin: the start is zero, and has no direction.")
    steps = check_count(steps, what="steps")
    check_positive(step_size=step_size)
    check_not_negative(strength=strength)
    check_key(key)
    sphere = Sphere(start.shape[0])
    descent = jax.value_and_grad(lambda theta: check_loss(loss(theta)))

    def turn(carry: tuple[Array, Array], key: jax.Array) -> tuple[tuple[Array, Array], Array]:
        theta, average = carry
        value, slope = descent(theta)
        moved = step_size**0.5 * jax.random.normal(key, theta.shape, theta.dtype) - strength * step_size * slope
        # Projected anew, so that roundings do not add up.
        theta = sphere.project(sphere.exp(theta, sphere.tangent(theta, moved)))
        seen = jnp.outer(theta, theta) if even else theta
        return like((theta, average + seen / steps), carry), value

    dim = start.shape[0]
    nothing = jnp.zeros((dim, dim) if even else (dim,), start.dtype)
    (last, average), values = jax.lax.scan(turn, (unit_vector(start), nothing), jax.random.split(key, steps))
    direction = jnp.linalg.eigh(average)[1][:, -1] if even else unit_vector(average)
    params, result = outcome(direction, all_finite((average, values)), throw)
    return AveragedLangevin(params, last, average, values, result, steps)

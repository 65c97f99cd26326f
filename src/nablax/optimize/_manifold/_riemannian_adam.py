"""Adam and AMSGrad where parameters live on curved spaces: one adapted rate a point."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..._core import nonzero, register_rule
from .._leaves import wide_zeros
from .._settings import check_decays, check_not_negative, check_rate, rate_at
from ._factors import scalar_zeros, walk


class RiemannianAdamState(NamedTuple):
    """What Riemannian Adam remembers.

    Attributes:
        step: number of steps made.
        mu: average of gradients, tangents at the present parameters.
        nu: average of their squared lengths, one number a point, one an element where flat.
        nu_max: largest corrected ``nu`` so far, of AMSGrad; None otherwise.
    """

    step: Int[Array, ""]
    mu: PyTree
    nu: PyTree
    nu_max: PyTree


register_rule(RiemannianAdamState, unreadable="Riemannian Adam: its steps are geodesics, along which momentum turns")


def riemannian_adam(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    spaces: PyTree = None,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    amsgrad: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam along geodesics, with one adapted rate a point and momentum carried with it.

    .. math::
        m \leftarrow \beta_1 m + (1-\beta_1)\operatorname{grad} f(x), \qquad
        v \leftarrow \beta_2 v + (1-\beta_2)\lVert\operatorname{grad} f(x)\rVert_x^2

    .. math::
        x^+ = \exp_x\Big(-\eta\,\frac{m/(1-\beta_1^t)}{\sqrt{v/(1-\beta_2^t)}+\epsilon}\Big), \qquad
        m \leftarrow \Gamma_{x\to x^+} m

    A curved space has no coordinates to adapt to, so that v is one number a point; of many points on leading axes, as
    in a table of embeddings, each has its own. Flat parts have one an element, and go as ``optax.adam`` or
    ``optax.amsgrad``. Steps have about the length η, in the space's own unit (radians on a sphere), and nothing
    depends on how points are written: in the ball and on the hyperboloid the path is the same.

    Gradients come as JAX gives them. Updates are :math:`x^+ - x`, so that ``optax.apply_updates`` lands on the space
    to one rounding; the next step projects first. Nothing may rescale them afterwards: the rule goes last in a chain.

    Args:
        learning_rate: η, about the distance that a step goes; a number or a schedule, 1e-3 by default.
        spaces: a space for each part of the parameters, a prefix of their tree; a part's last axes are a point, axes
            before count points. `Euclidean` and None (default) are flat.
        b1: β₁, 0.9 by default.
        b2: β₂, 0.999 by default.
        eps: ε, in units of the gradient's length, 1e-8 by default.
        amsgrad: divide by the largest corrected v so far, as ``optax.amsgrad``; False by default.

    Returns:
        The optimiser; its state is a `RiemannianAdamState`. It needs ``params``.

    Raises:
        ValueError: a decay outside [0, 1), a negative ε or rate, spaces that are no prefix of the parameters, a part
            whose last axes are no points of its space; at an update, ``params`` are missing.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax import optimize, spaces
        >>> matrix = jnp.diag(jnp.array([4.0, 3.0, 2.0, 1.0]))
        >>> loss = lambda frame: -jnp.trace(frame.T @ matrix @ frame)  # least at the two largest eigenvectors
        >>> optimizer = optimize.riemannian_adam(0.1, spaces.Stiefel(4, 2))
        >>> frame = spaces.Stiefel(4, 2).project(jnp.arange(8.0).reshape(4, 2) ** 2)
        >>> @jax.jit
        ... def step(frame, state):
        ...     update, state = optimizer.update(jax.grad(loss)(frame), state, frame)
        ...     return optax.apply_updates(frame, update), state
        >>> state = optimizer.init(frame)
        >>> for _ in range(200):
        ...     frame, state = step(frame, state)
        >>> round(float(loss(frame)), 3)
        -7.0

    Cost: a projection, a gradient, an exponential and a transport a point; memory of one array and one number a point
    (two numbers by AMSGrad).

    References:
        - Bécigneul, Ganea, "Riemannian Adaptive Optimization Methods", 2019, https://arxiv.org/abs/1810.00760 (after
          the text: its RAMSGrad and RAdam, with their decays. It corrects nothing for the start and has no ε; both are
          Optax's here, so that flat parts are its Adam. Its embeddings of a tree have five dimensions and begin with
          twenty epochs of Riemannian descent at 0.03, and a retraction reached a lower loss than the exponential)
        - https://github.com/geoopt/geoopt, the code of others (compared line by line: the same averages, one squared
          length a point, corrections of the start and ε, momentum carried along. It steps by a retraction unless a
          space is asked for its exponential, and its AMSGrad takes the largest v before the correction)
    """
    check_decays(b1=b1, b2=b2)
    check_not_negative(eps=eps)
    check_rate(learning_rate)

    def init(params: PyTree) -> RiemannianAdamState:
        nu, nu_max = (scalar_zeros(spaces, params) if needed else None for needed in (True, amsgrad))
        return RiemannianAdamState(jnp.zeros((), jnp.int32), wide_zeros(params), nu, nu_max)

    def update(
        updates: PyTree, state: RiemannianAdamState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, RiemannianAdamState]:
        rate = rate_at(learning_rate, state.step)
        count = optax.safe_increment(state.step)

        def rule(gradient: Array, square: Array, carried: tuple, scalars: tuple) -> tuple[Array, tuple, tuple]:
            mu = (1 - b1) * gradient + b1 * carried[0]
            nu = (1 - b2) * square + b2 * scalars[0]
            divisor = optax.tree.bias_correction(nu, b2, count)
            kept: tuple[Array, ...] = (nu,)
            if amsgrad:
                divisor = jnp.maximum(scalars[1], divisor)
                kept = (nu, divisor)
            root = nonzero(jnp.sqrt(divisor) + eps)
            return -rate * (optax.tree.bias_correction(mu, b1, count) / root), (mu,), kept

        scalars = (state.nu, state.nu_max) if amsgrad else (state.nu,)
        done = walk(rule, spaces, updates, params, (state.mu,), scalars, by="riemannian_adam")
        largest = done.scalars[1] if amsgrad else None
        return done.update, RiemannianAdamState(count, done.carried[0], done.scalars[0], largest)

    return optax.GradientTransformationExtraArgs(init, update)

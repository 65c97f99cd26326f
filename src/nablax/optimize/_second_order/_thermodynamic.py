"""Thermodynamic natural gradient: a noisy relaxation in place of the linear solve, stopped when one likes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import Key, check_count, check_key, exact, register_rule, required, space
from .._answers import multiplying
from .._leaves import like
from .._settings import check_not_negative, check_positive, is_zero, with_rate


class ThermodynamicState(NamedTuple):
    """What the thermodynamic natural gradient remembers.

    Attributes:
        step: number of steps made.
    """

    step: Int[Array, ""]


register_rule(
    ThermodynamicState, unreadable="thermodynamic natural gradient: it turns the gradient by a whole curvature matrix"
)


def scale_by_thermodynamic_natural_gradient(
    time: float, *, damping: float = 1e-2, temperature: float = 0.0, steps: int = 100, key: Key
) -> optax.GradientTransformationExtraArgs:
    r"""Where a relaxation towards the natural gradient has come to after some time, without a learning rate.

    .. math::
        dx = -\big((F+\lambda I)\,x-g\big)\,dt+\sqrt{2T}\,dW,\qquad x(0) = g

    In the mean it goes from the gradient to the natural gradient :math:`(F+\lambda I)^{-1}g`, the directions of large
    curvature first, and about that it ends with the covariance :math:`T(F+\lambda I)^{-1}`. An analog computer does
    this by itself; here it is simulated by Euler's rule. In digital arithmetic `scale_by_natural_gradient` solves the
    same system in fewer products: this is to see what such a machine would do.

    Args:
        time: t of the relaxation, in units of one over the curvature: 0 is the gradient itself.
        damping: λ, in units of the curvature; 1e-2 by default, the authors' for images; for a language model they
            took 1.
        temperature: T, in units of the loss; 0, no noise, by default.
        steps: of the simulation, 100 by default. It is stable where ``time / steps`` is below two over the largest
            curvature, and x grows without bound otherwise.
        key: of the noise.

    Returns:
        The rule; its state is a `ThermodynamicState`. It needs ``product_fn``, of a positive semidefinite curvature,
        as in `scale_by_natural_gradient`.

    Raises:
        ValueError: settings out of range, or no key; at an update, an argument is missing.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import optimize
        >>> curvature, w = jnp.array([0.5, 4.0]), jnp.ones(2)
        >>> for time in (0.0, 2.0, 20.0):
        ...     rule = optimize.scale_by_thermodynamic_natural_gradient(time, key=jax.random.key(0))
        ...     x, _ = rule.update(curvature * w, rule.init(w), product_fn=lambda v: curvature * v)
        ...     print([round(float(part), 2) for part in x])
        [0.5, 4.0]
        [0.81, 1.0]
        [0.98, 1.0]

    Cost: ``steps`` products.

    References:
        - Donatella, Duffield, Aifer, Melanson, Crooks and Coles, "Thermodynamic Natural Gradient Descent", 2024,
          https://arxiv.org/abs/2405.13817 (after the text: the equation, its stationary law, the start at the gradient
          as one of two, Euler's rule, the default of λ). For images the authors took a learning rate of 1e-2, steps of
          a tenth of the machine's time constant and fifty constants, after which it went as the exact solve, and noise
          below a variance of 1e-2 made no difference. Not here: their Algorithm 1 goes on from where the last
          relaxation ended, and a delay before the new gradient comes in; a little of it helped them, as momentum
          does. For language they gave x to Adam: `scale_by_thermodynamic_natural_gradient` before
          ``optax.scale_by_adam``.
        - the authors' package for such relaxations, https://github.com/normal-computing/thermox, draws them exactly, by
          the eigenvectors of the matrix, and takes the mean over the path for the solution. 100 steps and no noise are
          our defaults.
    """
    check_key(key)
    check_not_negative(time=time, temperature=temperature)
    check_positive(damping=damping)
    steps = check_count(steps, what="steps")

    def init(params: PyTree) -> ThermodynamicState:
        return ThermodynamicState(jnp.zeros((), jnp.int32))

    @exact
    def update(
        updates: PyTree,
        state: ThermodynamicState,
        params: PyTree = None,
        *,
        product_fn: Callable[[PyTree], PyTree] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, ThermodynamicState]:
        product = multiplying(required(product_fn, "product_fn", by="thermodynamic_natural_gradient"))
        vectors = space(updates)
        gradient, lapse = vectors.flat, time / steps

        def step(x: Float[Array, " dim"], key: Key) -> tuple[Float[Array, " dim"], None]:
            force = gradient - space(product(vectors.tree(x))).flat - damping * x
            moved = x + lapse * force
            if not is_zero(temperature):
                moved += jnp.sqrt(2 * temperature * lapse) * jax.random.normal(key, x.shape, x.dtype)
            return moved.astype(x.dtype), None

        keys = jax.random.split(jax.random.fold_in(key, state.step), steps)
        found, _ = jax.lax.scan(step, gradient, keys)
        return like(vectors.tree(found), updates), ThermodynamicState(optax.safe_increment(state.step))

    return optax.GradientTransformationExtraArgs(init, update)


def thermodynamic_natural_gradient(
    learning_rate: optax.ScalarOrSchedule,
    time: float,
    *,
    damping: float = 1e-2,
    temperature: float = 0.0,
    steps: int = 100,
    key: Key,
) -> optax.GradientTransformationExtraArgs:
    r"""Thermodynamic natural gradient descent: steps of `scale_by_thermodynamic_natural_gradient` at a rate.

    .. math:: \theta^+ = \theta-\eta\,x(t),\qquad dx = -\big((F+\lambda I)\,x-g\big)\,dt+\sqrt{2T}\,dW,\quad x(0) = g

    Args:
        learning_rate: η, a number or a schedule; no unit where the time is long, a gradient's rate where it is short.
        time: t of the relaxation, in units of one over the curvature.
        damping: λ, in units of the curvature; 1e-2 by default.
        temperature: T, in units of the loss; 0 by default.
        steps: of the simulation, 100 by default.
        key: of the noise.

    Returns:
        The optimiser. It needs ``product_fn``.

    Raises:
        ValueError: settings out of range, or no key; at an update, an argument is missing.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import follow, optimize
        >>> optimizer = optimize.thermodynamic_natural_gradient(1.0, 20.0, key=jax.random.key(0))
        >>> step = jax.jit(follow.train_step(lambda w, scale: jnp.sum(scale * w**2) / 2, optimizer))
        >>> w, scale = jnp.ones(2), jnp.array([0.5, 4.0])
        >>> w, _, _ = step(w, optimizer.init(w), scale)
        >>> [round(abs(float(part)), 2) for part in w]
        [0.02, 0.0]

    Cost: that of `scale_by_thermodynamic_natural_gradient`.

    References:
        - Donatella, Duffield, Aifer, Melanson, Crooks and Coles, "Thermodynamic Natural Gradient Descent", 2024,
          https://arxiv.org/abs/2405.13817
    """
    rule = scale_by_thermodynamic_natural_gradient(time, damping=damping, temperature=temperature, steps=steps, key=key)
    return with_rate(rule, learning_rate)

"""Extragradient: look where the step would lead, and step by the gradient there; with a rate for each player."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..._core import check_like, fault, register_rule, required, wide_dtype
from .._answers import looking
from .._settings import check_positive, check_rate, rate_at
from ._players import Ascends, by_player


class ExtragradientState(NamedTuple):
    """What extragradient remembers.

    Attributes:
        step: number of steps made.
    """

    step: Int[Array, ""]


register_rule(ExtragradientState, unreadable="extragradient: its step is by the gradient at another point")


def extragradient(
    learning_rate: optax.ScalarOrSchedule = 0.1, *, ascends: Ascends | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Extragradient: the step that the gradient where a step would lead says.

    .. math:: z^+ = z-\eta F\bigl(z-\eta F(z)\bigr)

    where F is each player's gradient of their own loss: of :math:`\min_x\max_y f` it is
    :math:`(\nabla_xf,-\nabla_yf)`. On :math:`f=xy` descent and ascent together spiral out, by
    :math:`\sqrt{1+\eta^2}` a step, and this rule spirals in, by :math:`\sqrt{1-\eta^2+\eta^4}`.

    Optax's ``optimistic_gradient_descent`` guesses the gradient there by the last two, at the price of one.

    Args:
        learning_rate: η, a number or a schedule; 0.1 by default, ours.
        ascends: who ascends the loss whose gradients come: a tree of booleans that the parameters' tree begins with, as
            ``(False, True)`` for a pair, or a function of the parameters that returns one. By default none does: what
            comes is F.

    Returns:
        The optimiser; its state is an `ExtragradientState`. It needs ``params`` and ``grad_fn`` (of the same batch as
        the gradient) and goes last in a chain.

    Raises:
        ValueError: a negative rate, or a tree of booleans that the parameters' does not begin with; at an update, an
            argument is missing.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> value_and_grad = jax.value_and_grad(lambda z: z["x"] * z["y"])  # x descends, y ascends
        >>> optimizer = optimize.extragradient(0.5, ascends={"x": False, "y": True})
        >>> z = {"x": jnp.array(1.0), "y": jnp.array(0.0)}
        >>> update, _ = optimizer.update(value_and_grad(z)[1], optimizer.init(z), z, grad_fn=value_and_grad)
        >>> {name: float(value) for name, value in optax.apply_updates(z, update).items()}
        {'x': 0.75, 'y': 0.5}

    Cost: a second gradient a step; no memory.

    References:
        - Korpelevich, "The extragradient method for finding saddle points and other problems", 1976 (after memory).
    """
    return _extragradient(learning_rate, 1.0, ascends)


def two_timescale_extragradient(
    learning_rate: optax.ScalarOrSchedule = 0.1, timescale: float = 10.0, *, ascends: Ascends
) -> optax.GradientTransformationExtraArgs:
    r"""Extragradient with the descending player slower than the ascending one.

    .. math::
        z^+ = z-\eta\Lambda F\bigl(z-\eta\Lambda F(z)\bigr), \qquad F = (\nabla_xf,-\nabla_yf), \qquad
        \Lambda = \mathrm{diag}(I/\tau, I)

    A local minimax point of :math:`\min_x\max_yf` need not be a minimum in x: it is enough that it is one once y has
    answered. The slower x is, the more it sees of y's answer, and where :math:`\nabla^2_{yy}f` is singular, so that
    descent and ascent spiral out whatever their rates are, this rule may still come in: of
    :math:`f=-\tfrac a2x^2+xy` it does for :math:`\eta>a` at τ large, and at no τ for :math:`\eta<a`.

    Args:
        learning_rate: η, of who ascends; a number or a schedule, 0.1 by default, ours.
        timescale: τ, by which who descends is slower; above 0, 10 by default, ours.
        ascends: who ascends the loss whose gradients come, as in `extragradient`.

    Returns:
        The optimiser, as `extragradient`.

    Raises:
        ValueError: as `extragradient`, or a τ not above 0.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> value_and_grad = jax.value_and_grad(lambda z: -0.15 * z[0] ** 2 + z[0] * z[1])
        >>> optimizer = optimize.two_timescale_extragradient(0.6, 4.0, ascends=(False, True))
        >>> def step(i, carry):
        ...     z, state = carry
        ...     update, state = optimizer.update(value_and_grad(z)[1], state, z, grad_fn=value_and_grad)
        ...     return optax.apply_updates(z, update), state
        >>> z = (jnp.array(1.0), jnp.array(1.0))
        >>> z, _ = jax.lax.fori_loop(0, 1000, step, (z, optimizer.init(z)))
        >>> max(abs(float(x)) for x in z) < 1e-4
        True

    Cost: as `extragradient`.

    References:
        - Chae, Kim and Kim, "Two-timescale Extragradient for Finding Local Minimax Points", 2023,
          https://arxiv.org/abs/2305.16242 (after the abstract; the condition on η of the example is derived here).
    """
    if ascends is None:
        raise fault(
            expected="ascends, to tell the slow player from the fast one",
            got="None",
            fix="Pass (False, True), for one.",
        )
    return _extragradient(learning_rate, timescale, ascends)


def _extragradient(
    learning_rate: optax.ScalarOrSchedule, timescale: float, ascends: Ascends | None
) -> optax.GradientTransformationExtraArgs:
    check_rate(learning_rate)
    check_positive(timescale=timescale)

    def init(params: PyTree) -> ExtragradientState:
        by_player(ascends, params, 0, 0)  # refuses what does not fit
        return ExtragradientState(jnp.zeros((), jnp.int32))

    def update(
        updates: PyTree,
        state: ExtragradientState,
        params: PyTree = None,
        *,
        grad_fn: Callable[[PyTree], tuple[Array, PyTree]] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, ExtragradientState]:
        params = required(params, "params", by="extragradient")
        gradient = looking(required(grad_fn, "grad_fn", by="extragradient"), updates)
        check_like(params, updates, what="parameters that", fix="Pass the parameters that are trained.")
        rate = rate_at(learning_rate, state.step)
        rates = by_player(ascends, updates, -rate / timescale, rate)

        def step(g: Array, r: Any) -> Array:
            wide = g.astype(wide_dtype(g))
            return (r * wide).astype(g.dtype)

        ahead = optax.apply_updates(params, jax.tree.map(step, updates, rates))
        _, there = gradient(ahead)
        there = jax.tree.map(lambda g, old: g.astype(old.dtype), there, updates)
        return jax.tree.map(step, there, rates), ExtragradientState(optax.safe_increment(state.step))

    return optax.GradientTransformationExtraArgs(init, update)

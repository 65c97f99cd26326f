"""Gradients of a recurrent network as time goes on: what each weight has done to the state is carried along."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..._core import (
    Key,
    canonical_convolutions,
    check_callable,
    check_count,
    check_floats,
    check_key,
    check_like,
    check_loss,
    check_shape,
    divide,
    exact,
    fault,
    norm,
    space,
    split,
)
from .._arrays import as_arrays

Mode = Literal["exact", "sparse", "rank one", "truncated"]
_MODES: tuple[str, ...] = get_args(Mode)


class Window(NamedTuple):
    """The moments before the present one, one less than the window, the latest last.

    Attributes:
        xs: the states that steps were made from ``[moments, state]``.
        us: their inputs, stacked likewise.
        seen: how many moments there have been, at most so many.
    """

    xs: Float[Array, "moments state"]
    us: PyTree
    seen: Int[Array, ""]


class RealTimeState(NamedTuple):
    r"""What is carried along a sequence.

    Attributes:
        x: the network's state ``[state]``.
        influence: :math:`\partial x/\partial\theta`, ``[state, parameters]``, exact or with the entries that are kept;
            for rank one the pair ``(s [state], t [parameters])`` whose product it is in the mean; for truncated a
            `Window`, from which it is worked out anew.
        key: of the signs of rank one; None otherwise.
    """

    x: Float[Array, " state"]
    influence: Any
    key: Key | None


class RealTime(NamedTuple):
    """A pair of functions to go along a sequence with.

    Attributes:
        init: ``init(params, x, *, key=None, u=None) -> RealTimeState``; a key for rank one, an input like those that
            come for truncated.
        update: ``update(params, state, u, *args) -> (value, grads, state)``: one step, its loss and the gradient of
            that, to be used at once or summed.
    """

    init: Callable[..., RealTimeState]
    update: Callable[..., tuple[Float[Array, ""], PyTree, RealTimeState]]


def real_time(
    step: Callable[..., Float[Array, " state"]],
    loss: Callable[..., Float[Array, ""]],
    *,
    mode: Mode = "exact",
    window: int = 10,
) -> RealTime:
    r"""Real-time recurrent learning: the gradient of each moment's loss when the moment is there.

    For :math:`x_{n+1}=f(\theta,x_n,u_n)` and a loss of :math:`x_{n+1}`,

    .. math::
        \Lambda_{n+1} = \partial_xf\,\Lambda_n + \partial_\theta f, \qquad
        \frac{d\ell_{n+1}}{d\theta} = \partial_x\ell\,\Lambda_{n+1} + \partial_\theta\ell

    With weights that stay, the sum over a sequence is backpropagation's gradient through it. With weights that are
    updated at every step it differs from that by as much as they change: :math:`\Lambda` holds derivatives at past
    weights. Modes:

    - "exact": all of :math:`\Lambda`.
    - "sparse": only those of its entries where :math:`\partial_\theta f` has, or has had, any (SnAp-1): each weight
      acts on its own unit alone. Biased, and exact for a network without recurrence between units.
    - "rank one": :math:`\Lambda` is :math:`s\,t^{\top}` in the mean (UORO), with signs drawn at every step. Unbiased,
      in the memory of the weights, and noisy, the more so the longer the network remembers.
    - "truncated": backpropagation through the last ``window`` steps, at the states that were, which forgets what lies
      before. The usual way, to compare with: biased, and exact for a network that remembers no longer.

    Args:
        step: ``step(params, x, u) -> x``, one moment of the network, its state a vector.
        loss: ``loss(params, x, *args) -> scalar``, of the state after the step.
        mode: "exact", "sparse", "rank one" or "truncated".
        window: steps that truncated goes back through, 10 by default (ours); no other mode has one.

    Returns:
        A `RealTime`: ``init`` and ``update``, both to be jitted, and ``update`` to be scanned.

    Raises:
        ValueError: an argument makes no sense; when called: the state is no vector of floats, or has another shape
            after the step, parameters without real floating leaves, a loss that is no scalar, no key for rank one, or
            no input for truncated to begin with.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> learner = estimate.real_time(lambda w, x, u: jnp.tanh(w * x + u), lambda w, x, y: jnp.sum((x - y) ** 2))
        >>> def one(state, pair):
        ...     value, grads, state = learner.update(0.5, state, *pair)
        ...     return state, grads
        >>> inputs = jnp.array([1.0, -0.5, 0.3])
        >>> _, grads = jax.lax.scan(one, learner.init(0.5, jnp.zeros(1)), (inputs, jnp.zeros(3)))
        >>> round(float(jnp.sum(grads)), 4)  # as backpropagation through the three steps
        -0.0637

    Cost:
        For q numbers of state and p parameters. Exact: q backward passes of one step and q²p multiplications, memory
        q·p. Sparse: the same in dense arithmetic. Rank one: three products with the step's Jacobians, memory p + q.
        Truncated: as many backward passes of a step as the window has, memory of its states and inputs. None grows with
        the length of the sequence.

    References:
        - Williams and Zipser, "A Learning Algorithm for Continually Running Fully Recurrent Neural Networks", 1989,
          https://doi.org/10.1162/neco.1989.1.2.270
        - Tallec and Ollivier, "Unbiased Online Recurrent Optimization", 2017, https://arxiv.org/abs/1702.05043
        - Williams and Peng, "An Efficient Gradient-Based Algorithm for On-Line Training of Recurrent Network
          Trajectories", 1990, https://doi.org/10.1162/neco.1990.2.4.490 (truncated; after memory)
        - Menick et al., "A Practical Sparse Approximation for Real Time Recurrent Learning", 2020,
          https://arxiv.org/abs/2006.07232
    """
    check_callable(step, what="step", fix="Pass step(params, x, u) -> x.")
    check_callable(loss, what="loss", fix="Pass loss(params, x, *args) -> scalar.")
    if mode not in _MODES:
        raise fault(expected=f"a mode of {', '.join(_MODES)}", got=repr(mode), fix="Choose one of them.")
    window = check_count(window, what="window")

    def init(params: PyTree, x: Float[Array, " state"], *, key: Key | None = None, u: PyTree = None) -> RealTimeState:
        vectors = space(as_arrays(params))
        x = check_shape(x, (None,), what="x", fix="Ravel the network's state to a vector.")
        check_floats(x, what="x", fix="Begin with an array of floats.")
        if mode == "truncated":
            if u is None:
                raise fault(
                    expected="an input like those that come", got="none", fix="Pass init(params, x, u=the first input)."
                )
            xs, us = jax.tree.map(lambda leaf: jnp.zeros((window - 1, *jnp.shape(leaf)), jnp.result_type(leaf)), (x, u))
            return RealTimeState(x, Window(xs, us, jnp.zeros((), jnp.int32)), None)
        if mode != "rank one":
            return RealTimeState(x, jnp.zeros((len(x), vectors.flat.size), vectors.flat.dtype), None)
        if key is None:
            raise fault(expected="a key for the signs of rank one", got="none", fix="Pass init(params, x, key=key).")
        check_key(key)
        return RealTimeState(x, (jnp.zeros_like(x), jnp.zeros_like(vectors.flat)), key)

    @exact
    def update(
        params: PyTree, state: RealTimeState, u: PyTree, *args: Any
    ) -> tuple[Float[Array, ""], PyTree, RealTimeState]:
        trained, held = split(as_arrays(params))
        vectors = space(trained)

        def moved(flat: Array, x: Array, u: PyTree = u) -> Array:
            after = step(eqx.combine(vectors.tree(flat), held), x, u)
            check_like(after, x, what="a step whose value", fix="Return the state after the step.")
            return after

        def cost(flat: Array, x: Array) -> Array:
            return check_loss(loss(eqx.combine(vectors.tree(flat), held), x, *args))

        key, influence = state.key, state.influence
        if mode == "truncated":
            past, influence = influence, _and_now(influence, state.x, u)
            x, pull = jax.vjp(moved, vectors.flat, state.x)
        elif mode == "rank one":
            key, now = jax.random.split(state.key)  # type: ignore[arg-type]
            x, influence = _rank_one(moved, vectors.flat, state.x, influence, now)
        else:
            x, influence = _dense(moved, vectors.flat, state.x, influence, sparse=mode == "sparse")

        value, (direct, back) = jax.value_and_grad(cost, argnums=(0, 1))(vectors.flat, x)
        if mode == "truncated":
            by_weight, by_state = pull(back)
            through = by_weight + _back_through(moved, vectors.flat, past, by_state)
        elif mode == "rank one":
            through = jnp.vdot(back, influence[0]) * influence[1]
        else:
            through = back @ influence
        return value, vectors.tree(direct + through), RealTimeState(x, influence, key)

    return RealTime(init, update)


def _dense(
    moved: Callable[[Array, Array], Array], flat: Array, x: Array, influence: Array, *, sparse: bool
) -> tuple[Array, Array]:
    following, back = jax.vjp(moved, flat, x)
    by_weight, by_state = jax.vmap(back)(jnp.eye(len(following), dtype=following.dtype))
    carried = by_state @ influence
    return following, by_weight + (jnp.where((by_weight != 0) | (influence != 0), carried, 0) if sparse else carried)


def _and_now(window: Window, x: Array, u: PyTree) -> Window:
    """The moments with the present one, the oldest gone."""
    like = jax.eval_shape(lambda us: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), us), window.us)
    check_like(u, like, what="inputs that", fix="Give init an input like those that come.")
    xs, us = jax.tree.map(
        lambda rows, new: jnp.concatenate([rows, jnp.asarray(new, rows.dtype)[None]])[1:],
        (window.xs, window.us),
        (x, u),
    )
    return Window(xs, us, jnp.minimum(window.seen + 1, len(xs)))


def _back_through(step: Callable[..., Array], flat: Array, window: Window, back: Array) -> Array:
    """A derivative by the last state, carried back to the weights through the moments that were."""

    @canonical_convolutions
    def one(carry: tuple[Array, Array], moment: tuple) -> tuple[tuple[Array, Array], None]:
        (back, total), (age, x, u) = carry, moment
        by_weight, by_state = jax.vjp(lambda flat, x: step(flat, x, u), flat, x)[1](back)
        was = age < window.seen
        return (jnp.where(was, by_state, 0), total + jnp.where(was, by_weight, 0)), None

    ages = jnp.arange(len(window.xs))[::-1]
    (_, total), _ = jax.lax.scan(one, (back, jnp.zeros_like(flat)), (ages, window.xs, window.us), reverse=True)
    return total


def _rank_one(
    moved: Callable[[Array, Array], Array], flat: Array, x: Array, influence: tuple[Array, Array], key: Key
) -> tuple[Array, tuple[Array, Array]]:
    s, t = influence
    following, pushed = jax.jvp(lambda x: moved(flat, x), (x,), (s,))
    signs = jax.random.rademacher(key, following.shape, following.dtype)
    (pulled,) = jax.vjp(lambda flat: moved(flat, x), flat)[1](signs)
    # Factors of least variance: both parts of each sum equally long, whatever their units.
    old = jnp.sqrt(divide(norm(t), norm(pushed), 1))
    new = jnp.sqrt(divide(norm(pulled), norm(signs), 1))
    s = (old * pushed + new * signs).astype(s.dtype)
    return following, (s, divide(t, old) + divide(pulled, new))


__all__ = ["RealTime", "RealTimeState", "real_time"]

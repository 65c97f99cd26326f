"""Gradients of a recurrent network as time goes on: what each weight has done to the state is carried along."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import Key, check_callable, check_key, check_loss, check_shape, divide, exact, fault, norm, space

Mode = Literal["exact", "sparse", "rank one"]


class RealTimeState(NamedTuple):
    r"""What is carried along a sequence.

    Attributes:
        x: the network's state ``[state]``.
        influence: :math:`\partial x/\partial\theta`, ``[state, parameters]``, exact or with the entries that are kept;
            for rank one the pair ``(s [state], t [parameters])`` whose product it is in the mean.
        key: of the signs of rank one; None otherwise.
    """

    x: Float[Array, " state"]
    influence: Any
    key: Key | None


class RealTime(NamedTuple):
    """A pair of functions to go along a sequence with.

    Attributes:
        init: ``init(params, x, *, key=None) -> RealTimeState``; a key for rank one.
        update: ``update(params, state, u, *args) -> (value, grads, state)``: one step, its loss and the gradient of
            that, to be used at once or summed.
    """

    init: Callable[..., RealTimeState]
    update: Callable[..., tuple[Float[Array, ""], PyTree, RealTimeState]]


def real_time(
    step: Callable[..., Float[Array, " state"]], loss: Callable[..., Float[Array, ""]], *, mode: Mode = "exact"
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
    - "sparse": only those of its entries where :math:`\partial_\theta f` has any (SnAp-1): each weight acts on its own
      unit alone. Biased, and exact for a network without recurrence between units.
    - "rank one": :math:`\Lambda` is :math:`s\,t^{\top}` in the mean (UORO), with signs drawn at every step. Unbiased,
      in the memory of the weights, and noisy, the more so the longer the network remembers.

    Args:
        step: ``step(params, x, u) -> x``, one moment of the network, its state a vector.
        loss: ``loss(params, x, *args) -> scalar``, of the state after the step.
        mode: "exact", "sparse" or "rank one".

    Returns:
        A `RealTime`: ``init`` and ``update``, both to be jitted, and ``update`` to be scanned.

    Raises:
        ValueError: an argument makes no sense; when called: the state is no vector, parameters without real floating
            leaves, a loss that is no scalar, or no key for rank one.

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
        None grows with the length of the sequence.

    References:
        - Williams and Zipser, "A Learning Algorithm for Continually Running Fully Recurrent Neural Networks", 1989,
          https://doi.org/10.1162/neco.1989.1.2.270
        - Tallec and Ollivier, "Unbiased Online Recurrent Optimization", 2017, https://arxiv.org/abs/1702.05043
        - Menick et al., "A Practical Sparse Approximation for Real Time Recurrent Learning", 2020,
          https://arxiv.org/abs/2006.07232
    """
    check_callable(step, what="step", fix="Pass step(params, x, u) -> x.")
    check_callable(loss, what="loss", fix="Pass loss(params, x, *args) -> scalar.")
    if mode not in ("exact", "sparse", "rank one"):
        raise fault(expected='mode "exact", "sparse" or "rank one"', got=repr(mode), fix="Choose one of them.")

    def init(params: PyTree, x: Float[Array, " state"], *, key: Key | None = None) -> RealTimeState:
        vectors = space(jax.tree.map(jnp.asarray, params))
        x = check_shape(x, (None,), what="x", fix="Ravel the network's state to a vector.")
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
        vectors = space(jax.tree.map(jnp.asarray, params))

        def moved(flat: Array, x: Array) -> Array:
            return step(vectors.tree(flat), x, u)

        key, influence = state.key, state.influence
        if mode == "rank one":
            key, now = jax.random.split(state.key)  # type: ignore[arg-type]
            x, influence = _rank_one(moved, vectors.flat, state.x, influence, now)
        else:
            x, influence = _dense(moved, vectors.flat, state.x, influence, sparse=mode == "sparse")

        def cost(flat: Array, x: Array) -> Array:
            return check_loss(loss(vectors.tree(flat), x, *args))

        value, (direct, back) = jax.value_and_grad(cost, argnums=(0, 1))(vectors.flat, x)
        through = jnp.vdot(back, influence[0]) * influence[1] if mode == "rank one" else back @ influence
        return value, vectors.tree(direct + through), RealTimeState(x, influence, key)

    return RealTime(init, update)


def _dense(
    moved: Callable[[Array, Array], Array], flat: Array, x: Array, influence: Array, *, sparse: bool
) -> tuple[Array, Array]:
    following, back = jax.vjp(moved, flat, x)
    by_weight, by_state = jax.vmap(back)(jnp.eye(len(following), dtype=following.dtype))
    carried = by_state @ influence
    return following, by_weight + (jnp.where(by_weight != 0, carried, 0) if sparse else carried)


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
    return following, (old * pushed + new * signs, divide(t, old) + divide(pulled, new))


__all__ = ["RealTime", "RealTimeState", "real_time"]

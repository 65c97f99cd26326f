"""OASIS: descent scaled by a running diagonal of the Hessian, at a rate found from gradients on the way."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import Key, check_count, check_key, divide, register_rule, required, tree_norm, wide_dtype
from .._answers import looking, multiplying
from .._leaves import like, wide_zeros
from .._settings import check_decays, check_positive


class OasisState(NamedTuple):
    """What OASIS remembers.

    Attributes:
        step: number of steps made.
        previous: the last parameters.
        diagonal: average of z ⊙ Hz, in units of the curvature, shaped like the parameters.
        rate: the last rate, no unit.
        growth: the last rate over the one before.
    """

    step: Int[Array, ""]
    previous: PyTree
    diagonal: PyTree
    rate: Float[Array, ""]
    growth: Float[Array, ""]


register_rule(OasisState, unreadable="OASIS: it finds its rate anew at each step")


def oasis(
    initial_rate: float = 1e-3, *, b2: float = 0.999, floor: float = 1e-5, probes: int = 20, key: Key
) -> optax.GradientTransformationExtraArgs:
    r"""OASIS: descent scaled by a running diagonal of the Hessian, at a rate that it finds itself.

    .. math::
        D_t = \beta_2 D_{t-1} + (1-\beta_2)\, z_t\odot H_tz_t, \qquad \hat D_t = \max(|D_t|, \alpha), \qquad z_i=\pm1

    .. math::
        \eta_t = \min\Big(\sqrt{1+\theta_{t-1}}\;\eta_{t-1},\;
        \frac{\lVert w_t-w_{t-1}\rVert_{\hat D_t}}{2\,\lVert\nabla f(w_t)-\nabla f(w_{t-1})\rVert_{\hat D_t^{-1}}}\Big),
        \qquad \theta_t = \frac{\eta_t}{\eta_{t-1}}, \qquad w_{t+1} = w_t-\eta_t\hat D_t^{-1}\nabla f(w_t)

    Both gradients are of the present batch. Neither the loss's unit nor that of any parameter matters, but for α. At
    the first step D is a mean over probes and the rate is small; from the second on the rate follows from what was
    seen. On a quadratic with D its true diagonal the rate is ½.

    Args:
        initial_rate: η of the first step, no unit, 1e-3 by default; it is meant to be too small.
        b2: β₂, 0.999 by default; 0.99 where the curvature changes.
        floor: α, in units of the curvature, 1e-5 by default: where the diagonal is less, it is taken for so much.
        probes: z of the first diagonal, 20 by default.
        key: of the z.

    Returns:
        The optimiser; its state is an `OasisState`. It needs ``params``, ``product_fn`` and ``grad_fn`` (that of the
        same batch as the gradient), takes no learning rate, and goes last in a chain.

    Raises:
        ValueError: settings out of range, or no key; at an update, an argument is missing.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import optimize
        >>> curvature = jnp.array([1e-2, 1.0, 1e2])
        >>> optimizer, x = optimize.oasis(key=jax.random.key(0)), jnp.ones(3)
        >>> state = optimizer.init(x)
        >>> for _ in range(4):
        ...     update, state = optimizer.update(
        ...         curvature * x,
        ...         state,
        ...         x,
        ...         product_fn=lambda v: curvature * v,
        ...         grad_fn=lambda w: (0.0, curvature * w),
        ...     )
        ...     x = x + update
        >>> round(float(state.rate), 4), [round(float(value), 3) for value in x]
        (0.5, [0.125, 0.125, 0.125])

    Cost: two arrays of memory; a second gradient and a Hessian product a step; at the first, as many products as
        probes.

    References:
        - Jahani et al., "Doubly Adaptive Scaled Algorithm for Machine Learning Using Second-Order Information", 2021,
          https://arxiv.org/abs/2109.05198, and code of others after the text,
          https://github.com/bogdantoader/simplecryoem (the same D, floor, rate and step; its products are of the last
          parameters, and averaged over steps, for a Hessian that does not change). Keeping the rate where the
          parameters stand still is ours, and so are the numbers of probes and the first rate.
    """
    check_key(key)
    check_decays(b2=b2)
    check_positive(initial_rate=initial_rate, floor=floor)
    probes = check_count(probes, what="probes")

    def init(params: PyTree) -> OasisState:
        dtype = wide_dtype(params)
        return OasisState(
            jnp.zeros((), jnp.int32),
            jax.tree.map(lambda p: jnp.array(p, copy=True), params),  # a buffer of its own
            wide_zeros(params),
            jnp.asarray(initial_rate, dtype),
            jnp.asarray(1e10, dtype),  # so large that the second rate is by what was seen alone
        )

    def update(
        updates: PyTree,
        state: OasisState,
        params: PyTree = None,
        *,
        product_fn: Callable[[PyTree], PyTree] | None = None,
        grad_fn: Callable[[PyTree], tuple[Array, PyTree]] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, OasisState]:
        params = required(params, "params", by="oasis")
        product = multiplying(required(product_fn, "product_fn", by="oasis"))
        _, before = looking(required(grad_fn, "grad_fn", by="oasis"), updates)(state.previous)

        def probed(key: Key) -> PyTree:
            draws = iter(range(len(jax.tree.leaves(updates))))
            signs = jax.tree.map(
                lambda g: jax.random.rademacher(jax.random.fold_in(key, next(draws)), g.shape, g.dtype), updates
            )
            return jax.tree.map(lambda z, h: (z * h).astype(wide_dtype(z)), signs, product(signs))

        def first(_: None) -> PyTree:
            drawn = jax.lax.map(probed, jax.random.split(key, probes))
            return like(jax.tree.map(lambda d: jnp.mean(d, axis=0), drawn), state.diagonal)

        def later(_: None) -> PyTree:
            drawn = probed(jax.random.fold_in(key, state.step))
            return like(jax.tree.map(lambda old, new: b2 * old + (1 - b2) * new, state.diagonal, drawn), state.diagonal)

        diagonal = jax.lax.cond(state.step == 0, first, later, None)
        metric = jax.tree.map(lambda d: jnp.maximum(jnp.abs(d), floor), diagonal)
        moved = tree_norm(jax.tree.map(lambda d, p, q: jnp.sqrt(d) * (p - q), metric, params, state.previous))
        turned = tree_norm(jax.tree.map(lambda d, g, h: (g - h) / jnp.sqrt(d), metric, updates, before))
        grown = jnp.sqrt(1 + state.growth) * state.rate
        rate = jnp.minimum(grown, divide(moved, 2 * turned, jnp.inf))
        still = moved == 0  # at the first step, and where a run has ended
        rate = like(jnp.where(still, state.rate, rate), state.rate)
        growth = like(jnp.where(still, state.growth, rate / state.rate), state.growth)
        steps = jax.tree.map(lambda g, d: (-rate * g.astype(d.dtype) / d).astype(g.dtype), updates, metric)
        following = OasisState(
            optax.safe_increment(state.step), jax.tree.map(jnp.asarray, params), diagonal, rate, growth
        )
        return steps, following

    return optax.GradientTransformationExtraArgs(init, update)

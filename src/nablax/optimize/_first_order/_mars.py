"""MARS: a gradient corrected by its own change, scaled, before an adaptive rule takes it."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import fault, nonzero, norm, register_rule, required, wide_dtype
from .._answers import looking
from .._leaves import bias, like, over_leaves, wide_zeros
from .._settings import check_decays, check_not_negative, check_positive, is_zero, with_rate

Form = Literal["adamw", "lion", "shampoo"]
_FORMS = ("adamw", "lion", "shampoo")


class MarsState(NamedTuple):
    """What MARS remembers.

    Attributes:
        step: number of steps made.
        mu: average of corrected gradients (of gradients, for vectors), shaped like the parameters.
        nu: average of their squares; empty where a form takes no squares.
        previous: the last gradient of each matrix, empty for vectors; of the exact form the last parameters.
    """

    step: Int[Array, ""]
    mu: PyTree
    nu: PyTree
    previous: PyTree


register_rule(MarsState, unreadable="MARS: its step is of the gradient's change as well, and clipped")


def scale_by_mars(
    form: Form = "adamw",
    *,
    gamma: float = 0.025,
    b1: float = 0.95,
    b2: float = 0.99,
    eps: float = 1e-8,
    exact: bool = False,
    vectors: bool = False,
    vector_b1: float = 0.9,
    vector_b2: float = 0.95,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale updates by MARS, without a learning rate.

    .. math::
        c_t = g_t + \gamma\frac{\beta_1}{1-\beta_1}\,(g_t - g_{t-1}), \qquad
        \tilde c_t = \frac{c_t}{\max(1, \lVert c_t\rVert)}, \qquad
        m_t = \beta_1 m_{t-1} + (1-\beta_1)\tilde c_t

    and the update is :math:`\hat m_t/(\sqrt{\hat v_t}+\epsilon)` with :math:`v` the average of :math:`\tilde c^2`
    (``"adamw"``), :math:`\operatorname{sign} m_t` (``"lion"``), or the matrix :math:`m_t/(1-\beta_1)` with its singular
    values brought near 1, times :math:`\sqrt{\max(1, \text{rows}/\text{columns})}` (``"shampoo"``). :math:`g_{t-1}` is
    the last batch's gradient or, exactly, that of the present batch at the last parameters. At the first step there is
    no change, and :math:`c=g`. Norms are of one tensor each.

    Args:
        form: what takes the corrected gradient, ``"adamw"`` by default. ``"shampoo"`` is for matrices proper; tensors
            of more axes go by ``"adamw"`` there.
        gamma: γ, how much of the correction is used, no unit; 0.025 by default. 0 is the rule without it, clipped.
        b1: β₁, 0.95 by default.
        b2: β₂, of the squares, 0.99 by default.
        eps: ε, in units of the gradient, 1e-8 by default.
        exact: the gradient of the present batch at the last parameters is taken, by ``grad_fn``; False by default. The
            whole of the parameters is needed then: no mask around the rule.
        vectors: whether leaves with fewer than two axes (biases, scales) are treated alike. By default, as the
            authors', they go by Adam with the next two decays, neither corrected nor clipped.
        vector_b1: their β₁, 0.9 by default.
        vector_b2: their β₂, 0.95 by default.

    Returns:
        The rule; its state is a `MarsState`.

    Raises:
        ValueError: an unknown form, a decay outside [0, 1), or a negative γ or ε; at an update of the exact form,
            ``params`` or ``grad_fn`` are missing.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> rule = optimize.scale_by_mars("lion")
        >>> params = jnp.zeros((1, 2))
        >>> rule.update(jnp.array([[3.0, -0.1]]), rule.init(params))[0].tolist()
        [[1.0, -1.0]]

    Cost: three arrays of memory (two for ``"lion"`` and ``"shampoo"``); one norm more than Adam. ``"shampoo"``: 15
        products of matrices; ``exact``: a second gradient.

    References:
        - Yuan et al., "MARS: Unleashing the Power of Variance Reduction for Training Large Models", 2024,
          https://arxiv.org/abs/2411.10438, and the authors' code (https://github.com/AGI-Arena/MARS), whose defaults
          these are. The first step is the paper's; the code starts from a last gradient of zero, so that
          its first is (1 + γβ₁/(1 − β₁)) g, clipped. Its default treats leaves of exactly two axes; ours two or more.
    """
    if form not in _FORMS:
        raise fault(expected=f"a form among {', '.join(_FORMS)}", got=repr(form), fix="The default is 'adamw'.")
    check_decays(b1=b1, b2=b2, vector_b1=vector_b1, vector_b2=vector_b2)
    check_not_negative(gamma=gamma)
    check_positive(eps=eps)

    def corrected(leaf: Array) -> bool:
        return vectors or leaf.ndim >= 2

    def form_of(leaf: Array) -> str:
        return "adamw" if not corrected(leaf) or (form == "shampoo" and leaf.ndim != 2) else form

    def init(params: PyTree) -> MarsState:
        squares = jax.tree.map(
            lambda leaf: wide_zeros(leaf) if form_of(leaf) == "adamw" else optax.MaskedNode(), params
        )
        if exact:
            previous = jax.tree.map(lambda p: jnp.array(p, copy=True), params)  # a buffer of its own
        else:
            previous = jax.tree.map(lambda p: jnp.zeros_like(p) if corrected(p) else optax.MaskedNode(), params)
        return MarsState(jnp.zeros((), jnp.int32), wide_zeros(params), squares, previous)

    def update(
        updates: PyTree,
        state: MarsState,
        params: PyTree = None,
        *,
        grad_fn: Callable[[PyTree], tuple[Array, PyTree]] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, MarsState]:
        before = state.previous
        if exact:
            _, before = looking(required(grad_fn, "grad_fn", by="mars(exact=True)"), updates)(state.previous)
        count = optax.safe_increment(state.step)

        def one(g: Array, mu: Array, nu: Any, last: Any) -> tuple[Array, Array, Any]:
            wide, decay, square_decay = g.astype(wide_dtype(g)), vector_b1, vector_b2
            if corrected(g):
                decay, square_decay = b1, b2
                change = jnp.where(count == 1, 0, wide - last.astype(wide.dtype))
                wide = wide + gamma * b1 / (1 - b1) * change
                wide = wide / jnp.maximum(norm(wide), 1)
            mu = like(decay * mu + (1 - decay) * wide, mu)
            if form_of(g) == "lion":
                step = jnp.sign(mu)
            elif not g.size:
                step = mu
            elif form_of(g) == "shampoo":
                step = _orthogonalised(mu / (1 - b1), eps) * max(1, g.shape[0] / g.shape[1]) ** 0.5
            else:
                nu = like(square_decay * nu + (1 - square_decay) * wide**2, nu)
                step = mu / bias(decay, count) / (jnp.sqrt(nu / bias(square_decay, count)) + eps)
            return step.astype(g.dtype), mu, nu

        steps, mu, nu = over_leaves(one, 3, updates, state.mu, state.nu, before)
        if exact:
            last = jax.tree.map(jnp.asarray, required(params, "params", by="mars(exact=True)"))
        else:
            last = jax.tree.map(lambda g, old: g.astype(old.dtype) if corrected(g) else old, updates, state.previous)
        return steps, MarsState(count, mu, nu, last)

    return optax.GradientTransformationExtraArgs(init, update)


def mars(
    learning_rate: optax.ScalarOrSchedule = 3e-3,
    form: Form = "adamw",
    *,
    gamma: float = 0.025,
    b1: float = 0.95,
    b2: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    exact: bool = False,
    vectors: bool = False,
    vector_b1: float = 0.9,
    vector_b2: float = 0.95,
    vector_weight_decay: float = 0.1,
) -> optax.GradientTransformationExtraArgs:
    r"""MARS: variance reduction by a gradient's own change, before AdamW, Lion or an orthogonalising step.

    .. math:: \theta_{t+1} = \theta_t - \eta\,(u_t + \lambda\theta_t)

    with :math:`u` of `scale_by_mars`.

    Args:
        learning_rate: η, a number or a schedule; 3e-3 by default, the authors' for ``"adamw"``. ``"lion"``
            wants about a tenth of it.
        form: ``"adamw"``, ``"lion"`` or ``"shampoo"``.
        gamma: γ, 0.025 by default.
        b1: β₁, 0.95 by default.
        b2: β₂, 0.99 by default.
        eps: ε, in units of the gradient, 1e-8 by default.
        weight_decay: λ of leaves with two axes or more, decoupled; 0 by default, as in the authors' class.
        exact: takes a second gradient by ``grad_fn``; see `scale_by_mars`.
        vectors: whether leaves of fewer axes are treated alike, the decay included.
        vector_b1: β₁ of leaves of fewer axes otherwise, 0.9 by default.
        vector_b2: their β₂, 0.95 by default.
        vector_weight_decay: their λ, 0.1 by default, as the authors'.

    Returns:
        The optimiser.

    Raises:
        ValueError: as `scale_by_mars`.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> optimizer = optimize.mars(0.1)
        >>> params = jnp.full((1, 1), 0.5)
        >>> update, _ = optimizer.update(params, optimizer.init(params), params)
        >>> round(float(optax.apply_updates(params, update)[0, 0]), 6)
        0.4

    Cost: as `scale_by_mars`.

    References:
        - Yuan et al., https://arxiv.org/abs/2411.10438, and https://github.com/AGI-Arena/MARS. A rate of their own for
          vectors, as in that code, is left to ``optax.multi_transform``.
    """
    check_not_negative(weight_decay=weight_decay, vector_weight_decay=vector_weight_decay)
    rule = scale_by_mars(
        form,
        gamma=gamma,
        b1=b1,
        b2=b2,
        eps=eps,
        exact=exact,
        vectors=vectors,
        vector_b1=vector_b1,
        vector_b2=vector_b2,
    )

    def matrices(params: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: vectors or jnp.ndim(leaf) >= 2, params)

    def others(params: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: not leaf, matrices(params))

    decayed = optax.chain(
        rule,
        *([] if is_zero(weight_decay) else [optax.add_decayed_weights(weight_decay, matrices)]),
        *([] if vectors or is_zero(vector_weight_decay) else [optax.add_decayed_weights(vector_weight_decay, others)]),
    )
    return with_rate(decayed, learning_rate)


def _orthogonalised(matrix: Float[Array, "rows columns"], eps: Any) -> Float[Array, "rows columns"]:
    """The matrix with its singular values between about 0.7 and 1.2: five rounds of a quintic iteration."""
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / nonzero(norm(wide) + eps)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x

"""Stochastic model building: where a trial step fails, a step of a quadratic model through both gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, PyTree

from ..._core import divide, exact, fault, norm, register_rule, required, tree_norm, wide_dtype
from .._answers import looking, one_value
from .._leaves import like, over_leaves
from .._settings import check_positive, check_rate, check_share, rate_at


class SmbState(NamedTuple):
    """What stochastic model building remembers.

    Attributes:
        step: number of steps made.
        built: whether the last step was a model's, its trial having failed.
    """

    step: Int[Array, ""]
    built: Bool[Array, ""]


register_rule(SmbState, unreadable="SMB: its steps are those of a model that it builds anew at each step")


def smb(
    learning_rate: optax.ScalarOrSchedule = 1.0, *, eta: float = 0.99, c: float = 0.1
) -> optax.GradientTransformationExtraArgs:
    r"""Stochastic model building: descent whose failed trials become a model's steps instead of shorter ones.

    The trial is a step of descent, :math:`s=-\alpha g`. Where the batch's loss falls by less than
    :math:`c\,\alpha\lVert g\rVert^2`, the gradient there, :math:`y` more than the first, tells each array of the
    parameters by itself how its curvature and its direction should be, and the step is

    .. math::
        -\lVert s\rVert^2\big(2\sigma I+sy^{\top}+ys^{\top}\big)^{-1}g,\qquad
        \sigma = \tfrac12\Big(\lVert s\rVert\big(\lVert y\rVert+\lVert g\rVert/\eta\big)-y^{\top}s\Big)

    It is shorter than the trial and turned towards where both gradients agree. It is taken as it is, without a trial.

    Args:
        learning_rate: α of the trial, a number or a schedule; 1, the authors', by default. One that is too large is
            mended by the model.
        eta: η, how long the model's step may be beside the trial, above 0 and below 1; 0.99, the authors', by default.
        c: share of the slope by which the trial must lower the loss; 0.1, the authors', by default.

    Returns:
        The optimiser; its state is an `SmbState`. It needs ``params``, ``value`` and ``grad_fn`` of the same batch as
        the gradient, and goes last in a chain, with nothing before it that changes the gradient.

    Raises:
        ValueError: settings out of range; at an update, an argument is missing.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import follow, optimize
        >>> optimizer = optimize.smb(0.5)
        >>> step = follow.train_step(lambda w, scale: jnp.sum(scale * w**2) / 2, optimizer)
        >>> w, scale = jnp.full(2, 0.5), jnp.array([1.0, 10.0])  # descent at 0.5 diverges
        >>> state = optimizer.init(w)
        >>> for _ in range(3):
        ...     w, state, _ = step(w, state, scale)
        >>> [round(float(x), 4) for x in w]
        [0.2129, 0.0898]

    Cost: a second value and gradient a step, no memory.

    References:
        - Birbil, Martin, Onay and Öztoprak, "Bolstering Stochastic Gradient Descent with Model Building", 2021,
          https://arxiv.org/abs/2111.07058 (their code, sibirbil/SMB: trial, model by arrays, settings). The form by a
          matrix is derived here from their coefficients; the gradient at the trial is taken whether it fails or not,
          as in a compiled program; the variant with a batch of its own for the trial, and its schedule of α, are not
          here.
    """
    check_rate(learning_rate)
    check_share(eta=eta)
    if not isinstance(eta, jax.core.Tracer) and eta == 1:
        raise fault(expected="eta below 1", got=repr(eta), fix="At 1 the model's matrix may be singular.")
    check_positive(c=c)

    def init(params: PyTree) -> SmbState:
        return SmbState(jnp.zeros((), jnp.int32), jnp.array(False))

    @exact
    def update(
        updates: PyTree,
        state: SmbState,
        params: PyTree = None,
        *,
        value: Array | None = None,
        grad_fn: Callable[[PyTree], tuple[Array, PyTree]] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, SmbState]:
        params = required(params, "params", by="smb")
        value = one_value(required(value, "value", by="smb"), by="smb")
        look = looking(required(grad_fn, "grad_fn", by="smb"), updates)
        rate = jnp.asarray(rate_at(learning_rate, state.step), wide_dtype(updates))
        trial = jax.tree.map(lambda g: (-rate * g).astype(g.dtype), updates)
        after, slope = look(jax.tree.map(lambda p, s: (p + s).astype(p.dtype), params, trial))
        length = tree_norm(updates)
        # What is no number has not fallen.
        failed = ~(one_value(after, by="smb") <= value - c * rate * length * length)
        (built,) = over_leaves(lambda g, h: (_model_step(g, h, rate, eta),), 1, updates, slope)
        step = jax.tree.map(lambda s, m: jnp.where(failed, m, s), trial, like(built, trial))
        return step, SmbState(optax.safe_increment(state.step), failed)

    return optax.GradientTransformationExtraArgs(init, update)


def _model_step(gradient: Array, there: Array, rate: Array, eta: Any) -> Array:
    """The step of the model of one array, from the gradients before and after the trial.

    With s = -rate * gradient in it, all is in the plane of the gradient g and of y; both are measured in the length of
    g, so that no product leaves the range. A gradient that is no number at the trial gives no step.
    """
    wide = wide_dtype(gradient)
    g, h = gradient.astype(wide), there.astype(wide)
    length = norm(g)
    unit, change = divide(g, length), divide(h - g, length)
    # In these units ‖g‖ = 1, ‖s‖ = rate, yᵀs = -rate yᵀg, and s = -rate g.
    across, size = jnp.sum(change * unit), norm(change)
    twice_sigma = rate * (size + 1 / eta + across)
    bent = twice_sigma - rate * across  # yᵀs + 2σ
    theta = bent**2 - (rate * size) ** 2
    c_g = divide(-(rate**2), twice_sigma)
    c_s = divide(c_g, theta) * (-bent * across - rate * size**2)
    c_y = divide(c_g, theta) * (bent * rate + rate**2 * across)
    step = length * ((c_g - rate * c_s) * unit + c_y * change)
    return jnp.where(jnp.isfinite(step), step, jnp.zeros_like(step))

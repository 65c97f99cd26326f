"""Steepest descent: each tensor goes where the loss falls most within the unit ball of its own norm."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import divide, exact, fault, norm, peak, register_rule, unit_vector, wide_dtype
from .._prefix import by_leaf
from .._settings import check_positive, with_rate

Norm = Literal["frobenius", "max", "spectral", "columns", "rows"]
_NORMS = ("frobenius", "max", "spectral", "columns", "rows")
_FIX = "Name a norm for each part, as in {'table': 'rows', 'hidden': 'spectral', 'bias': 'frobenius'}."


class SteepestState(NamedTuple):
    """What steepest descent remembers.

    Attributes:
        dual: the last gradient's dual norm, summed over the tensors; in units of the loss per unit of the norms.
    """

    dual: Float[Array, ""]


register_rule(SteepestState, unreadable="steepest descent: its step's length is set by the dual norm of all tensors")


def scale_by_steepest(
    norms: PyTree = None, *, scales: PyTree = 1.0, normalised: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""Turn a gradient into the direction of steepest descent under a norm per tensor, without a learning rate.

    .. math::
        u_l = \frac{D}{s_l}\,T_l, \qquad T_l = \arg\max_{\lVert T\rVert_l=1}\langle G_l, T\rangle, \qquad
        D = \sum_k \frac{\lVert G_k\rVert_k^*}{s_k}

    which solves :math:`\min_{\Delta} \sum_l\langle G_l,\Delta_l\rangle + \tfrac\lambda2\max_l s_l^2\lVert\Delta_l
    \rVert_l^2` for a rate of :math:`1/\lambda`: every tensor goes as far as the norm of the whole allows, so that the
    dual norms of all are summed. Of :math:`G=U\Sigma V^\top` the norms are

    - ``"frobenius"``, the root of the sum of squares: dual to itself, T is G over it;
    - ``"max"``, the largest entry: the dual is the sum of magnitudes, T is sign G;
    - ``"spectral"``, the largest singular value: the dual is the sum of all of them, T is :math:`UV^\top`;
    - ``"columns"`` or ``"rows"``, the longest of them: the dual is the sum of their lengths, T has each at length 1.

    Args:
        norms: names, in a tree that the parameters' tree begins with; where nothing is said (None, the default)
            ``"spectral"`` for leaves of two axes and ``"frobenius"`` for others. For a table with an embedding in each
            row ``"rows"``; ``"columns"`` where they are columns.
        scales: s, above 0, for all (1 by default) or in such a tree. A layer's steps go with 1/s², its own dual norm
            being counted by 1/s.
        normalised: leaves :math:`D` out, so that steps have length 1/s whatever the gradient: sign descent, Muon
            without momentum. False by default.

    Returns:
        The rule; its state is a `SteepestState`. Momentum goes before it: ``optax.trace``.

    Raises:
        ValueError: a name that is none, norms or scales that fit no part of the parameters, a scale not above 0, or
            a norm of matrices for a leaf that is none.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> gradient = jnp.array([[3.0, 0.0], [4.0, 0.0]])
        >>> for norm in ("frobenius", "max", "rows"):
        ...     rule = optimize.scale_by_steepest(norm)
        ...     print(rule.update(gradient, rule.init(gradient))[0].tolist())
        [[3.0, 0.0], [4.0, 0.0]]
        [[7.0, 0.0], [7.0, 0.0]]
        [[7.0, 0.0], [7.0, 0.0]]

    Cost: one number of memory. ``"spectral"``: a singular value decomposition a step, the others as much as a norm.

    References:
        - Bernstein and Newhouse, "Old Optimizer, New Norm: An Anthology", 2024, https://arxiv.org/abs/2409.20325:
          without their averages Adam is this under "max" and Shampoo under "spectral". The problem with a scale for
          each tensor and its solution are the text's proposition 7, derived here before it was read; it recommends the
          spectral norm for layers and the longest embedding for tables, both with the scales of the library below, and
          trains nothing.
        - the authors' library, https://github.com/modula-systems/modula: the directions of "spectral" and, for
          embeddings, "rows" are those of its ``dualize``, with s the root of inputs over outputs and one over the root
          of an embedding's length; as with ``normalised`` its steps do not go with :math:`D`, but are shared out among
          layers by masses that the user sets. The polar factor is exact here; Newton–Schulz, as there and in
          ``optax.contrib.muon``, brings singular values only near 1. Defaults for leaves without a name are ours.
    """
    for name in jax.tree.leaves(norms):
        if name not in _NORMS:
            raise fault(expected=f"norms among {', '.join(_NORMS)}", got=repr(name), fix=_FIX)
    for scale in jax.tree.leaves(scales):
        check_positive(scales=scale)

    def init(params: PyTree) -> SteepestState:
        return SteepestState(jnp.zeros((), wide_dtype(params)))

    def update(
        updates: PyTree, state: SteepestState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, SteepestState]:
        leaves, structure = jax.tree.flatten(updates)
        names = by_leaf(norms, updates, kind=str, what="norms", fix=_FIX)
        numbers = (int, float, np.generic, jax.Array)
        weights = by_leaf(scales, updates, kind=numbers, what="scales", fix="Give a number above 0 for each part.")
        weights = [1.0 if weight is None else weight for weight in weights]
        steepest = [_steepest(leaf.astype(wide_dtype(leaf)), name) for leaf, name in zip(leaves, names)]
        total = sum((size / scale for (_, size), scale in zip(steepest, weights)), jnp.zeros_like(state.dual))
        factor = 1.0 if normalised else total
        steps = [
            (factor / scale * direction).astype(leaf.dtype)
            for leaf, (direction, _), scale in zip(leaves, steepest, weights)
        ]
        return jax.tree.unflatten(structure, steps), SteepestState(jnp.asarray(total, state.dual.dtype))

    return optax.GradientTransformationExtraArgs(init, update)


def steepest_descent(
    learning_rate: optax.ScalarOrSchedule,
    norms: PyTree = None,
    *,
    scales: PyTree = 1.0,
    normalised: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Steepest descent under a norm per tensor.

    .. math:: \theta_{t+1} = \theta_t - \eta\,u_t

    with :math:`u` of `scale_by_steepest`. Where the loss is smooth with the constant L in the norm of the whole,
    a rate of 1/L makes it fall by at least :math:`D^2/2L` a step.

    Args:
        learning_rate: η = 1/λ, a number or a schedule; in units of parameters² over the loss. ``normalised``: a
            length, in units of the parameters.
        norms: as of `scale_by_steepest`.
        scales: s, 1 by default.
        normalised: whether steps have the same length whatever the gradient; False by default.

    Returns:
        The optimiser.

    Raises:
        ValueError: as `scale_by_steepest`, or a negative rate.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> optimizer, x = optimize.steepest_descent(0.25, "max"), jnp.array([1.0, -0.5])
        >>> update, _ = optimizer.update(x, optimizer.init(x), x)  # the gradient of |x|²/2
        >>> optax.apply_updates(x, update).tolist()
        [0.625, -0.125]

    Cost: as `scale_by_steepest`.

    References:
        - Bernstein and Newhouse, https://arxiv.org/abs/2409.20325.
    """
    return with_rate(scale_by_steepest(norms, scales=scales, normalised=normalised), learning_rate)


@exact
def _steepest(gradient: Array, name: str | None) -> tuple[Array, Float[Array, ""]]:
    """The direction of length 1 that the gradient favours most, and by how much: its dual norm."""
    if name is None:
        name = "spectral" if gradient.ndim == 2 else "frobenius"
    if name in ("spectral", "columns", "rows") and gradient.ndim != 2:
        raise fault(
            expected=f"a matrix where the norm is {name!r}",
            got=f"shape {gradient.shape}",
            fix="Take 'frobenius' or 'max' there, or bring the leaf into the form of a matrix.",
        )
    if name == "frobenius" or not gradient.size:
        return unit_vector(gradient), norm(gradient)
    if name == "max":
        return jnp.sign(gradient), jnp.sum(jnp.abs(gradient))
    if name == "spectral":
        return _polar(gradient)
    axis = 0 if name == "columns" else 1
    return unit_vector(gradient, axis), jnp.sum(norm(gradient, axis))


def _polar(gradient: Float[Array, "rows columns"]) -> tuple[Float[Array, "rows columns"], Float[Array, ""]]:
    """All singular values that are not zero to rounding made 1, and their sum before."""
    size = peak(gradient)
    left, sigma, right = jnp.linalg.svd(gradient / size, full_matrices=False)
    least = max(gradient.shape) * jnp.finfo(gradient.dtype).eps * sigma[0]
    kept = divide(sigma, sigma) * (sigma > least)
    return (left * kept[None]) @ right, size * jnp.sum(sigma)

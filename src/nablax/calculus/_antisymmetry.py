"""How far a field's Jacobian is from symmetric, by two JVPs a probe."""

from collections.abc import Callable

import optax
from jaxtyping import Array, Float, PyTree

from .._core import AbstractRecord, Estimate, Field, Key, fault, ratio_of_means, scaled_estimate
from ._linear import chunked_map, draw_probes, linearise


class Antisymmetry(AbstractRecord):
    r"""Size of the antisymmetric part of a Jacobian, in absolute terms and as a share of the whole.

    Attributes:
        antisymmetric: :math:`\tfrac12\lVert J-J^{\top}\rVert_F^2`, units of the Jacobian squared.
        jacobian: :math:`\lVert J\rVert_F^2`, units of the Jacobian squared.
        ratio: :math:`\lVert (J-J^{\top})/2\rVert_F^2 / \lVert J\rVert_F^2`, without unit: 0 for a gradient,
            1 for a pure rotation. Zero where the Jacobian vanishes (a constant field is a gradient).
    """

    antisymmetric: Estimate
    jacobian: Estimate
    ratio: Estimate


def antisymmetry(field: Field, *, probes: int = 8) -> Callable[..., Antisymmetry]:
    r"""Estimate the antisymmetric part of a field's Jacobian, which is zero where the field is a gradient.

    .. math::
        \mathbb{E}\lVert Jv\rVert^2 - \mathbb{E}\,v^{\top}JJv
        = \operatorname{tr} J^{\top}J - \operatorname{tr} JJ
        = \tfrac12\lVert J-J^{\top}\rVert_F^2, \qquad v\sim\mathcal{N}(0, I)

    A symmetric Jacobian gives zero on every single probe, not only on average. The ratio is one of two means
    over the same probes; its standard error is by the delta method, which takes their covariance into
    account, and its bias falls like one over ``probes``.

    Args:
        field: ``field(t, y, args) -> dy``, ``dy`` shaped like ``y`` (any pytree).
        probes: number of random directions, 8 by default.

    Returns:
        ``function(t, y, args=None, *, key) -> Antisymmetry``, all scalars. Standard errors are NaN for one
        probe.

    Raises:
        ValueError: fewer than one probe, the field's value is not shaped like ``y``, or ``y`` is not
            floating-point.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.calculus import antisymmetry
        >>> rotation = lambda t, y, args: jnp.array([-y[1], y[0]])
        >>> round(float(antisymmetry(rotation)(0.0, jnp.ones(2), key=jax.random.key(0)).ratio.value), 5)
        1.0

    Cost:
        One forward pass and two JVPs a probe, at most 64 probes at a time; no VJP.

    References:
        - Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing
          splines", 1989, https://doi.org/10.1080/03610918908812806
        - Chao, Sun, Cheng and Lee, "On Investigating the Conservative Property of Score-Based Generative
          Models", 2023, https://arxiv.org/abs/2209.12753 (asymmetry of a score's Jacobian by Hutchinson's
          estimator, there as a penalty)
    """
    if probes < 1:
        raise fault(expected="at least one probe", got=str(probes), fix="Pass probes=1 or more.")

    def function(t: Float[Array, ""], y: PyTree, args: PyTree = None, *, key: Key) -> Antisymmetry:
        _, push = linearise(field, t, y, args)

        def two_traces(v: PyTree) -> tuple[Float[Array, ""], Float[Array, ""]]:
            jv = push(v)
            return optax.tree.vdot(jv, jv), optax.tree.vdot(v, push(jv))

        squares, doubles = chunked_map(two_traces, draw_probes(key, y, probes))
        differences = squares - doubles
        return Antisymmetry(
            antisymmetric=scaled_estimate(differences),
            jacobian=scaled_estimate(squares),
            ratio=ratio_of_means(differences / 2, squares),
        )

    return function

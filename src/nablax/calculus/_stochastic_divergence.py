"""The divergence of a field by Hutchinson's estimator, with its standard error."""

from collections.abc import Callable
from typing import Literal

import jax
import optax
from jaxtyping import Array, Float, PyTree

from .._core import (
    Estimate,
    Field,
    Key,
    fault,
)
from ._linear import chunked_map, draw_probes, linearise

_SAMPLERS = {"rademacher": jax.random.rademacher, "normal": jax.random.normal}


def value_and_stochastic_divergence(
    field: Field, *, probes: int = 1, distribution: Literal["rademacher", "normal"] = "rademacher"
) -> Callable[..., tuple[PyTree, Estimate]]:
    r"""Evaluate a field and an unbiased estimate of its divergence, sharing the forward pass.

    .. math:: \nabla\cdot f = \mathbb{E}\,[v^{\top} J v], \qquad \mathbb{E}\,[v v^{\top}] = I

    Rademacher probes never have the larger variance: with :math:`S=(J+J^{\top})/2` it is
    :math:`2\sum_{i\ne j} S_{ij}^2` a probe, against :math:`2\lVert S\rVert_F^2` for normal ones.

    Args:
        field: ``field(t, y, args) -> dy``, ``dy`` shaped like ``y`` (any pytree).
        probes: number of random directions, 1 by default.
        distribution: ``"rademacher"`` (default) or ``"normal"``.

    Returns:
        ``function(t, y, args=None, *, key) -> (dy, Estimate)``; value and standard error are scalars in units
        of the field over units of ``y``. The error is NaN for one probe, since one draw says nothing of its
        own spread.

    Raises:
        ValueError: unknown distribution, fewer than one probe, the field's value is not shaped like ``y``, or ``y`` is
            not floating-point.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.calculus import value_and_stochastic_divergence
        >>> both = value_and_stochastic_divergence(lambda t, y, args: 3 * y, probes=4)
        >>> dy, estimate = both(0.0, jnp.ones(2), key=jax.random.key(0))
        >>> float(estimate.value), float(estimate.standard_error)
        (6.0, 0.0)

    Cost:
        One forward pass and one JVP a probe, at most 64 probes at a time.

    References:
        - Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing
          splines", 1989, https://doi.org/10.1080/03610918908812806
        - Grathwohl et al., "FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models",
          2019, https://arxiv.org/abs/1810.01367
    """
    if distribution not in _SAMPLERS:
        raise fault(
            expected=f"a distribution among {sorted(_SAMPLERS)}",
            got=repr(distribution),
            fix="Rademacher probes have the smaller variance.",
        )
    if probes < 1:
        raise fault(expected="at least one probe", got=str(probes), fix="Pass probes=1 or more.")
    sampler = _SAMPLERS[distribution]

    def function(t: Float[Array, ""], y: PyTree, args: PyTree = None, *, key: Key) -> tuple[PyTree, Estimate]:
        dy, push = linearise(field, t, y, args)

        def quadratic_form(v: PyTree) -> Float[Array, ""]:
            return optax.tree.vdot(v, push(v))

        return dy, Estimate.from_samples(chunked_map(quadratic_form, draw_probes(key, y, probes, sampler)))

    return function


def stochastic_divergence(
    field: Field, *, probes: int = 1, distribution: Literal["rademacher", "normal"] = "rademacher"
) -> Callable[..., Estimate]:
    r"""Estimate the divergence of a field without bias, :math:`\nabla\cdot f = \mathbb{E}\,[v^{\top} J v]`.

    Args:
        field: ``field(t, y, args) -> dy``, ``dy`` shaped like ``y`` (any pytree).
        probes: number of random directions, 1 by default.
        distribution: ``"rademacher"`` (default) or ``"normal"``.

    Returns:
        ``function(t, y, args=None, *, key) -> Estimate``; see :func:`value_and_stochastic_divergence`.

    Raises:
        ValueError: unknown distribution, fewer than one probe, the field's value is not shaped like ``y``, or ``y`` is
            not floating-point.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.calculus import stochastic_divergence
        >>> estimate = stochastic_divergence(lambda t, y, args: -y)(0.0, jnp.ones(5), key=jax.random.key(0))
        >>> float(estimate.value)
        -5.0

    Cost:
        One forward pass and one JVP a probe, at most 64 probes at a time.

    References:
        - Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing
          splines", 1989, https://doi.org/10.1080/03610918908812806
    """
    both = value_and_stochastic_divergence(field, probes=probes, distribution=distribution)

    def function(t: Float[Array, ""], y: PyTree, args: PyTree = None, *, key: Key) -> Estimate:
        return both(t, y, args, key=key)[1]

    return function

"""Taylor coefficients of a function along a direction, to any order, in one pass."""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.experimental.jet import jet
from jaxtyping import Array, Float, PyTree

from .._core import check_count, fault


def taylor_coefficients(
    function: Callable[..., PyTree], *, order: int, mode: Literal["jet", "nested"] = "jet"
) -> Callable[..., PyTree]:
    r"""Expand a function, a trained network say, about a point along a direction.

    .. math:: f(y + s\,v) = \sum_{k=0}^{K} c_k\,s^k + O(s^{K+1}),\qquad
              c_k = \frac{1}{k!}\left.\frac{d^k}{ds^k}\right|_{s=0} f(y + s\,v)

    ``c_k`` is the homogeneous part of degree k of the expansion about ``y``, taken at ``v``; mixed partial
    derivatives are combinations of it over a few directions (polarisation).

    Args:
        function: ``function(y, *args)`` with any pytrees in and out.
        order: K, at least 1.
        mode: ``"jet"`` (default) propagates truncated series, with a rule for most primitives but not all: loops,
            products along an axis and linear solves have none, nor have ``jax.nn.relu`` and ``softplus``.
            ``"nested"`` differentiates forward K times over, which always works and takes :math:`2^K` the time.

    Returns:
        ``coefficients(y, direction, *args)``, the function's value with a leading axis of ``order + 1`` on every
        leaf; units of the function over those of ``s`` to the power k.

    Raises:
        ValueError: the order is no positive whole number, the mode unknown, or a primitive has no series rule.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.calculus import taylor_coefficients
        >>> geometric = taylor_coefficients(lambda y: 1 / (1 - y), order=3)
        >>> geometric(jnp.array(0.0), jnp.array(2.0)).round(3).tolist()
        [1.0, 2.0, 4.0, 8.0]

    Cost:
        About K² / 2 forward passes by series, :math:`2^K` nested, for all coefficients at once.

    References:
        - Kaspschak and Meißner, "A Neural Network Perturbation Theory Based on the Born Series", 2020,
          https://arxiv.org/abs/2009.03192 (after the abstract: why coefficients beyond the first are wanted;
          there they are summed over diagrams, here series are propagated)
        - Griewank and Walther, "Evaluating Derivatives", 2008, https://doi.org/10.1137/1.9780898717761 (Taylor
          arithmetic)
    """
    order = check_count(order, what="order")
    if mode not in ("jet", "nested"):
        raise fault(expected="mode 'jet' or 'nested'", got=repr(mode), fix='"nested" always works, and takes longer.')

    def coefficients(y: PyTree, direction: PyTree, *args: PyTree) -> PyTree:
        def curve(s: Float[Array, ""]) -> PyTree:
            return function(jax.tree.map(lambda a, v: a + s.astype(a.dtype) * v, y, direction), *args)

        zero, one = (jnp.asarray(x, jnp.result_type(*jax.tree.leaves(y))) for x in (0, 1))
        if mode == "nested":
            derivatives = _nested(curve, order)(zero)
        else:
            try:
                value, series = jet(curve, (zero,), ([one] + [zero] * (order - 1),))
            except (KeyError, NotImplementedError, jax.errors.UnexpectedTracerError) as error:
                raise fault(
                    expected="a function whose every primitive has a series rule",
                    got=f"one without: {error.args[0] if isinstance(error, KeyError) else type(error).__name__}",
                    fix='Pass mode="nested".',
                ) from error
            # A series is a tree of lists; what is wanted is a list of trees.
            structure = jax.tree.structure(value)
            columns = jax.tree.leaves(series)
            derivatives = [value] + [jax.tree.unflatten(structure, columns[k::order]) for k in range(order)]
        return jax.tree.map(
            lambda *leaves: jnp.stack([d / math.factorial(k) for k, d in enumerate(leaves)]), *derivatives
        )

    return coefficients


def _nested(curve: Callable[[Array], PyTree], order: int) -> Callable[[Array], list[PyTree]]:
    if order == 0:
        return lambda s: [curve(s)]
    inner = _nested(curve, order - 1)

    def derivatives(s: Array) -> list[PyTree]:
        values, slopes = jax.jvp(inner, (s,), (jnp.ones_like(s),))
        return [*values, slopes[-1]]

    return derivatives

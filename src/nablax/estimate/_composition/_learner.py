"""Learners: a parametrised map with an update and a request, which compose as the maps do."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..._core import check_callable, check_instance, check_rate


class Learner(eqx.Module):
    r"""A map with parameters that learns from pairs of input and wanted output.

    .. math:: I: P\times A\to B,\qquad U: P\times A\times B\to P,\qquad r: P\times A\times B\to A

    ``implement`` gives the output, ``update`` the parameters after seeing a pair, and ``request`` the input that would
    have been better, at the old parameters. In ``f >> g`` the request of g is what f is to learn: no error has to be
    sent back by name. Parameters of a composite are the pair of both.

    Args:
        implement: ``I(p, a) -> b``.
        update: ``U(p, a, b) -> p``.
        request: ``r(p, a, b) -> a``.

    Raises:
        ValueError: one of them is no function.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import estimate
        >>> scale = estimate.learner(lambda p, a: p * a, rate=0.1)
        >>> (scale >> scale).implement((2.0, 3.0), 1.0)
        6.0

    Cost: of a composite, both parts' and one more ``implement`` of the first.

    References:
        - Fong, Spivak and Tuyéras, "Backprop as Functor: A Compositional Perspective on Supervised Learning", 2017,
          https://arxiv.org/abs/1711.10455
    """

    implement: Callable[[PyTree, PyTree], PyTree]
    update: Callable[[PyTree, PyTree, PyTree], PyTree]
    request: Callable[[PyTree, PyTree, PyTree], PyTree]

    def __check_init__(self) -> None:
        for name in ("implement", "update", "request"):
            check_callable(getattr(self, name), what=name, fix="See the arguments of estimate.Learner.")

    def __rshift__(self, after: "Learner") -> "Learner":
        """This learner, then the other; parameters are the pair of both."""
        check_instance(after, Learner, what="what follows a learner", fix="See estimate.learner.")

        def implement(p: tuple[PyTree, PyTree], a: PyTree) -> PyTree:
            return after.implement(p[1], self.implement(p[0], a))

        def wanted(p: tuple[PyTree, PyTree], a: PyTree, c: PyTree) -> tuple[PyTree, PyTree]:
            middle = self.implement(p[0], a)
            return middle, after.request(p[1], middle, c)

        def update(p: tuple[PyTree, PyTree], a: PyTree, c: PyTree) -> tuple[PyTree, PyTree]:
            middle, better = wanted(p, a, c)
            return self.update(p[0], a, better), after.update(p[1], middle, c)

        def request(p: tuple[PyTree, PyTree], a: PyTree, c: PyTree) -> PyTree:
            return self.request(p[0], a, wanted(p, a, c)[1])

        return Learner(implement, update, request)


def learner(function: Callable[[PyTree, PyTree], PyTree], *, rate: float) -> Learner:
    r"""Make the learner of a differentiable map by gradient descent on half the squared error.

    With :math:`E(p,a,b)=\tfrac12\lVert I(p,a)-b\rVert^2`,

    .. math:: U = p-\varepsilon\,\partial_pE,\qquad r = a-\partial_aE

    For this error the request's inverse of :math:`\partial e(a,\cdot)` is a subtraction, and making learners is
    functorial: the learner of a composition is the composition of the learners, exactly.

    Args:
        function: ``I(p, a) -> b``, of trees of floats.
        rate: ε, the same in all parts of a composition.

    Returns:
        The learner.

    Raises:
        ValueError: it is no function, or the rate is none.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import estimate
        >>> linear = estimate.learner(lambda p, a: p * a, rate=0.1)
        >>> round(float(linear.update(1.0, 2.0, 6.0)), 4)  # 1 - 0.1 · (2 - 6) · 2
        1.8

    Cost: an update or a request is one forward and one backward pass.

    References:
        - Fong, Spivak and Tuyéras (2017), https://arxiv.org/abs/1711.10455
    """
    check_callable(function, what="function", fix="Pass function(parameters, input).", takes=2)
    check_rate(rate, what="rate")

    def slopes(p: PyTree, a: PyTree, b: PyTree) -> tuple[PyTree, PyTree]:
        p, a = jax.tree.map(jnp.asarray, (p, a))
        value, back = jax.vjp(function, p, a)
        return back(jax.tree.map(lambda v, b: v - b, value, b))

    def update(p: PyTree, a: PyTree, b: PyTree) -> PyTree:
        return jax.tree.map(lambda p, g: p - rate * g, p, slopes(p, a, b)[0])

    def request(p: PyTree, a: PyTree, b: PyTree) -> PyTree:
        return jax.tree.map(lambda a, g: a - g, a, slopes(p, a, b)[1])

    return Learner(function, update, request)


__all__ = ["Learner", "learner"]

"""Is what the optimiser follows a gradient, or the field of a game?"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from ..._core import AbstractRecord, Finding, Key, canonical_convolutions, check_callable, check_count, check_key, table
from ...calculus import Estimate, antisymmetry
from ._along import Point
from ._part import Part, Setting, percent
from ._shared import Shared

PROBES = 4
# Share of the Jacobian that turns from which it is mentioned.
TURNING = 0.1


class Rotation(AbstractRecord):
    r"""How much an update field turns.

    Attributes:
        share: :math:`\lVert(J-J^{\top})/2\rVert_F^2/\lVert J\rVert_F^2`, no unit: 0 for the gradient of one loss,
            1 for a pure game (each player's gain the other's loss); standard error over probes.
        jacobian: :math:`\lVert J\rVert_F^2`, unit of the field over that of the parameters, squared.
    """

    share: Estimate
    jacobian: Estimate

    def rows(self) -> list[tuple[str, Any, str]]:
        """Lines of the table."""
        return [("rotation (0 = gradient, 1 = game)", self.share, "1")]

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with standard error and unit.
        """
        return table("Rotation", self.rows())


def rotation(field: Callable[..., PyTree], params: PyTree, *args: Any, key: Key, probes: int = PROBES) -> Rotation:
    r"""Measure the antisymmetric part of an update field's Jacobian.

    .. math:: J = \partial F/\partial\theta, \qquad \lVert(J-J^{\top})/2\rVert_F^2 \,/\, \lVert J\rVert_F^2

    A field that turns has no loss that falls along it: plain steps spiral outwards round its equilibria, and no
    learning rate mends that.

    Args:
        field: ``field(params, *args) -> direction`` for each parameter, such as the players' gradients side by side;
            shaped like ``params`` (or its inexact leaves).
        params: any pytree; inexact leaves move.
        *args: passed on.
        key: of the probes.
        probes: random directions, 4 by default.

    Returns:
        A `Rotation`.

    Raises:
        ValueError: the field's value has other leaves than the parameters.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.diagnose import rotation
        >>> game = lambda p: {"x": p["y"], "y": -p["x"]}
        >>> record = rotation(game, {"x": jnp.ones(2), "y": jnp.ones(2)}, key=jax.random.key(0))
        >>> round(float(record.share.value), 5)
        1.0

    Cost:
        One evaluation of the field and two of its JVPs a probe; for a gradient field a JVP is a Hessian product.

    References:
        - Balduzzi et al., "The Mechanics of n-Player Differentiable Games", 2018, https://arxiv.org/abs/1802.05642
          (symmetric and antisymmetric part of a game's Jacobian)
    """
    check_callable(field, what="field", fix="Pass field(params, *args) -> direction.", takes=1 + len(args))
    check_key(key)
    check_count(probes, what="probes")
    return _rotation(field, params, args, key, probes)


@eqx.filter_jit
@canonical_convolutions
def _rotation(field: Callable, params: PyTree, args: tuple, key: Key, probes: int) -> Rotation:
    return turning(field, Point.of(params), args, key, probes)


def turning(field: Callable, point: Point, args: tuple, key: Key, probes: int) -> Rotation:
    """The record, not compiled by itself."""

    def of_time(t: Any, vector: Float[Array, " dim"], nothing: Any) -> Float[Array, " dim"]:
        return point.like(point.take(field, *args)(vector), "a field")

    record = antisymmetry(of_time, probes=probes)(0.0, point.vector, key=key)
    return Rotation(record.ratio, record.jacobian)


def measure(shared: Shared) -> Rotation | None:
    """Of a check-up, where a field was given."""
    field = shared.asked.field
    return None if field is None else turning(field, shared.point, (shared.batch,), shared.field_key, PROBES)


def judge(part: Rotation, setting: Setting) -> list[Finding]:
    """Whether what is followed turns."""
    share, error = float(part.share.value), float(part.share.standard_error)
    if share - 2 * error > TURNING:
        text = (
            f"The field that is followed is no gradient: {percent(share)} of its Jacobian turns. Plain steps spiral; "
            "use extragradient, optimistic or two-time-scale steps."
        )
        return [Finding("warning", "rotation", text)]
    return []


def card(part: Rotation, setting: Setting) -> None:
    """None: it is one number, which stands among all of them."""


PART = Part("rotation", measure, judge, card)

"""How a field is followed: the options of a solver, one record that travels whole."""

import math
from functools import partial
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from .._core import check_count, check_instance, check_shape, fault


def _whole(steps: Any) -> int | Array | None:
    if not (isinstance(steps, jax.Array) and steps.ndim == 0 and jnp.issubdtype(steps.dtype, jnp.integer)):
        return None if steps is None else check_count(steps, what="steps")
    if not isinstance(steps, jax.core.Tracer):
        check_count(int(steps), what="steps")
    return steps


class Solver(eqx.Module):
    r"""Adaptive steps to a tolerance, or a number of equal steps, and the rule of one step.

    An adaptive step is taken again, shorter, where its error estimate exceeds $\mathrm{atol} + \mathrm{rtol}\,|y|$ in
    the root mean square over the state.

    Args:
        steps: take this many equal steps. Default: adaptive steps. An integer array, at most ``max_steps``, may be
            traced, so that one compiled program serves many numbers of steps.
        rtol: relative tolerance of adaptive steps (dimensionless). Default 1e-5.
        atol: absolute tolerance of adaptive steps, in units of the state. Default 1e-5.
        method: the rule of one step, a Diffrax solver. Default: ``Tsit5`` when adaptive, ``Heun`` with fixed steps,
            ``Euler`` with noise.
        max_steps: give up after this many adaptive steps. Default 4096.

    Raises:
        ValueError: ``steps`` or ``max_steps`` is not a positive whole number; a tolerance is negative, infinite or not
            a number, or both are zero; ``method`` is no solver of Diffrax's, or the class of one.

    Example:
        >>> import diffrax, jax.numpy as jnp
        >>> from nablax.follow import Solver, flow
        >>> euler = Solver(steps=2, method=diffrax.Euler())
        >>> float(flow(lambda t, y, args: -y, jnp.array(1.0), 0.0, 1.0, solver=euler).ys)  # (1 - 1/2)²
        0.25

    Cost:
        Evaluations of the field a step: six with ``Tsit5``, two with ``Heun``, one with ``Euler``.

    References:
        Kidger (2021), On Neural Differential Equations, https://arxiv.org/abs/2202.02435, chapter 5.
    """

    steps: int | Int[Array, ""] | None = eqx.field(converter=_whole, default=None)
    rtol: float | Array = 1e-5
    atol: float | Array = 1e-5
    method: diffrax.AbstractSolver | None = None
    max_steps: int = eqx.field(static=True, converter=partial(check_count, what="max_steps"), default=4096)

    def __check_init__(self) -> None:
        for name, tolerance in (("rtol", self.rtol), ("atol", self.atol)):
            _check_tolerance(name, tolerance)
        both = self.rtol, self.atol
        if not any(isinstance(tolerance, jax.core.Tracer) or tolerance > 0 for tolerance in both):
            raise fault(expected="a tolerance above 0", got="rtol=0 and atol=0", fix="Pass atol=1e-6, for one.")
        if self.method is not None:
            check_instance(
                self.method, diffrax.AbstractSolver, what="a method", fix="Pass one of Diffrax's, as diffrax.Heun()."
            )


def _check_tolerance(name: str, tolerance: Any) -> None:
    """Refuse what no error can be compared with. What is traced cannot be looked at, and passes."""
    fix = f"Pass {name}=1e-5, for one."
    check_shape(tolerance, (), what=name, fix=fix)
    if not isinstance(tolerance, jax.core.Tracer) and not 0 <= float(tolerance) < math.inf:
        raise fault(expected=f"{name}, a number from 0 up", got=tolerance, fix=fix)


__all__ = ["Solver"]

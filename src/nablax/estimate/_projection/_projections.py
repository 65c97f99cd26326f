"""Nearest points of the graphs of a network's parts, in closed form or by one increasing equation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import nonzero

# Of Newton's method, which doubles its figures with each once it is near.
_STEPS = {"float32": 10, "float64": 16}


def project_product(
    a: Float[Array, "*batch n"], b: Float[Array, "*batch n"], z: Float[Array, "*batch"]
) -> tuple[Array, Array, Array]:
    r"""The nearest point with :math:`z=a\cdot b`.

    .. math:: a'=\frac{a+tb}{1-t^2},\quad b'=\frac{b+ta}{1-t^2},\quad z'=z-t,\qquad
        \frac{A}{(1-t)^2}-\frac{B}{(1+t)^2}-z+t=0

    with :math:`A=\lVert a+b\rVert^2/4` and :math:`B=\lVert a-b\rVert^2/4`. The left side increases on (−1, 1), from −∞
    to ∞ where neither A nor B is 0. (Where one is, there may be no root, and no single nearest point.) A root above 0
    has :math:`(1-t)^2\ge A/(z+B)`, one below 0 likewise :math:`(1+t)^2\ge B/(A-z)`: Newton's method starts there, and
    halves the bracket where a step would leave it.
    """
    upper, lower = jnp.sum((a + b) ** 2, axis=-1) / 4, jnp.sum((a - b) ** 2, axis=-1) / 4
    zero = jnp.zeros_like(upper)
    rises = upper - lower - z < 0
    # At least a rounding away from the pole, should A or B be 0.
    edge = 1 - jnp.finfo(upper.dtype).eps ** 0.5
    far = jnp.minimum(1 - jnp.sqrt(upper / jnp.where(rises, z + lower, 1)), edge)
    near = jnp.maximum(jnp.sqrt(lower / jnp.where(rises, 1, nonzero(upper - z))) - 1, -edge)

    def step(_: int, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        t, low, high = carry
        value = upper / (1 - t) ** 2 - lower / (1 + t) ** 2 - z + t
        slope = 2 * upper / (1 - t) ** 3 + 2 * lower / (1 + t) ** 3 + 1
        low, high = jnp.where(value <= 0, t, low), jnp.where(value >= 0, t, high)
        newton = t - value / slope
        return jnp.where((newton >= low) & (newton <= high), newton, (low + high) / 2), low, high

    bracket = jnp.where(rises, far, near), jnp.where(rises, zero, near), jnp.where(rises, far, zero)
    t, _, _ = jax.lax.fori_loop(0, _STEPS[upper.dtype.name], step, bracket)
    rest = (1 - t * t)[..., None]
    return (a + t[..., None] * b) / rest, (b + t[..., None] * a) / rest, z - t


def project_unit(
    inputs: Float[Array, "*batch k"], outputs: Float[Array, "*batch m"], kind: str, level: float = 1.0
) -> tuple[Array, Array]:
    r"""The nearest point where m copies of one output are the activation of the sum of k inputs.

    All inputs move by the same, all outputs become one: with s the sum, :math:`\bar h` the mean of the outputs and
    :math:`s_0` what s was, the least of :math:`(s-s_0)^2/k + m(h-\bar h)^2` along each branch of the activation.

    Args:
        inputs: of each unit.
        outputs: copies that its consumers hold.
        kind: "relu", "sign" (both at 0) or "identity".
        level: the size of a sign.
    """
    count, copies = inputs.shape[-1], outputs.shape[-1]
    before, mean = jnp.sum(inputs, axis=-1), jnp.mean(outputs, axis=-1)
    along = (before / count + copies * mean) / (1 / count + copies)  # of h = s, free
    still = jnp.zeros_like(before)
    branches: dict[str, list[tuple[Array, Array]]] = {
        "identity": [(along, along)],
        "relu": [(jnp.minimum(before, 0), still), (jnp.maximum(along, 0), jnp.maximum(along, 0))],
        "sign": [(jnp.minimum(before, 0), still - level), (jnp.maximum(before, 0), still + level)],
    }
    best, *others = branches[kind]

    def distance(branch: tuple[Array, Array]) -> Array:
        return (branch[0] - before) ** 2 / count + copies * (branch[1] - mean) ** 2

    for other in others:
        nearer = distance(other) < distance(best)
        best = jnp.where(nearer, other[0], best[0]), jnp.where(nearer, other[1], best[1])
    after, output = best
    moved = inputs + ((after - before) / count)[..., None]
    return moved, jnp.broadcast_to(output[..., None], outputs.shape)


def approach_label(
    logits: Float[Array, "*batch classes"], target: Float[Array, "*batch classes"], strength: Float[Array, ""] | float
) -> Array:
    r"""The proximal point of cross-entropy: the x with :math:`x = \ell + \lambda\,(y-\operatorname{softmax}x)`.

    By Newton's method, whose matrix :math:`I+\lambda(\operatorname{diag}s-ss^{\top})` is inverted in closed form
    (a diagonal and one more direction), damped while the step does not lessen the residual.
    """

    def residual(x: Array) -> tuple[Array, Array]:
        s = jax.nn.softmax(x, axis=-1)
        return x - logits - strength * (target - s), s

    def step(_: int, x: Array) -> Array:
        wrong, s = residual(x)
        diagonal = 1 + strength * s
        first, other = wrong / diagonal, s / diagonal
        inner = 1 - strength * jnp.sum(s * other, axis=-1, keepdims=True)
        move = first + strength * other * jnp.sum(s * first, axis=-1, keepdims=True) / inner
        shares = jnp.asarray([1.0, 0.5, 0.25, 0.125], x.dtype).reshape(-1, *[1] * x.ndim)
        tried = x[None] - shares * move[None]
        best = jnp.argmin(jnp.sum(jax.vmap(residual)(tried)[0] ** 2, axis=-1), axis=0)
        return jnp.take_along_axis(tried, best[None, ..., None], axis=0)[0]

    return jax.lax.fori_loop(0, 12, step, logits)


def reflect(project: Callable[[tuple], tuple], x: tuple) -> tuple:
    """Twice the projection less the point."""
    return jax.tree.map(lambda nearest, here: 2 * nearest - here, project(x), x)


__all__ = ["approach_label", "project_product", "project_unit", "reflect"]

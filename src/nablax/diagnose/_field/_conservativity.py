"""Is a field the gradient of something? A differential and an integral test, at given samples."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..._core import (
    AbstractRecord,
    Field,
    Key,
    canonical_convolutions,
    check_count,
    check_key,
    checked_field,
    fault,
    ratio_of_means,
    root_mean_square,
    table,
)
from ...calculus import Estimate, antisymmetry
from .._samples import align

# Field evaluations at once: enough to fill a machine with a small network, few enough for a large one.
EVALUATIONS = 256


class Conservativity(AbstractRecord):
    r"""How far a field is from a gradient.

    Attributes:
        antisymmetry: mean over samples of :math:`\lVert (J-J^{\top})/2\rVert_F^2/\lVert J\rVert_F^2`, no unit;
            0 for a gradient, 1 for a rotation. Standard error over samples, the probes' noise included. NaN for
            one sample, as are the other errors.
        pooled_antisymmetry: the same as a ratio of sums over samples, which a few samples with a tiny Jacobian
            do not sway and whose bias falls with the number of samples, not of probes.
        circulation: root mean square of :math:`\oint f\cdot d\ell` over random circles, in units of the field
            times length.
        net_work: :math:`\sum|\oint f\cdot d\ell| / \sum\oint|f\cdot d\ell|`, no unit: of all the work done along
            the loops, the share that does not cancel. 0 for a gradient, 1 when the field drives round every loop
            without ever turning back.
        quadrature_error: root mean square over loops of the change in :math:`\oint f\cdot d\ell` when every
            other node is dropped, same unit as ``circulation``. A circulation below it is not resolved.
        radius: of the circles, in units of ``y``.
        samples: number of samples.
        probes: random directions per sample.
        loops: number of circles.
    """

    antisymmetry: Estimate
    pooled_antisymmetry: Estimate
    circulation: Estimate
    net_work: Estimate
    quadrature_error: Float[Array, ""]
    radius: Float[Array, ""]
    samples: int = eqx.field(static=True)
    probes: int = eqx.field(static=True)
    loops: int = eqx.field(static=True)

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with standard error and unit.
        """
        return table(
            "Conservativity (0 = gradient field)",
            [
                ("antisymmetry, mean over samples", self.antisymmetry, "1"),
                ("antisymmetry, pooled", self.pooled_antisymmetry, "1"),
                ("net work round loops", self.net_work, "1"),
                ("circulation, RMS", self.circulation, "field × length"),
                ("quadrature error, RMS", self.quadrature_error, "field × length"),
                ("loop radius", self.radius, "length"),
            ],
            [f"{self.samples} samples, {self.probes} probes each; {self.loops} loops"],
        )


def conservativity(
    field: Field,
    t: float | Float[Array, "..."],
    ys: PyTree,
    args: PyTree = None,
    *,
    key: Key,
    probes: int = 8,
    loops: int = 64,
    nodes: int = 64,
    radius: float | None = None,
) -> Conservativity:
    r"""Test whether a field is conservative where its samples are, by derivative and by integral.

    .. math::
        \text{differential:}\quad
        \frac{\lVert (J-J^{\top})/2\rVert_F^2}{\lVert J\rVert_F^2},\qquad
        \text{integral:}\quad
        \oint f\cdot d\ell = r\int_0^{2\pi} f(y + r(u\cos\theta + w\sin\theta))\cdot
        (w\cos\theta - u\sin\theta)\,d\theta

    The circles are centred on samples, spread evenly through the set, and lie in random planes (u, w
    orthonormal), each at its sample's own time and condition. On a circle the rectangle rule converges faster
    than any power of ``nodes`` for a smooth field, so that a gradient comes out as zero to rounding. The two
    tests meet for small circles:
    :math:`\mathbb{E}(\oint f\cdot d\ell)^2 \to \pi^2r^4\lVert J-J^{\top}\rVert_F^2/(D(D-1))`.

    Not conservative does not mean wrong: a field may carry any part r with
    :math:`\nabla\cdot r + r\cdot\nabla\log p = 0` and still transport p exactly (see :func:`continuity`). It
    does matter wherever the field is read as a score: densities by path integration, intrinsic dimension.

    Args:
        field: ``field(t, y, args) -> dy``, a score or a velocity.
        t: one time, or one per sample.
        ys: samples, every leaf with leading axis ``samples``. They say where the field is tested.
        args: conditions with the same leading axis, or None.
        key: for the probes and the loops' planes.
        probes: random directions per sample in the differential test, 8 by default.
        loops: number of circles, 64 by default.
        nodes: points on a circle, even, 64 by default.
        radius: of the circles, in units of ``y``. Default: the root mean square over coordinates of the samples'
            standard deviation, so that no coordinate leaves its usual range.

    Returns:
        A `Conservativity`. On the line every field is a gradient, and all its numbers are zero.

    Raises:
        ValueError: leading axes disagree; samples are not finite floats; the field's value is not shaped like ``y``; a
            count is too small; ``nodes`` is odd; ``radius`` is not positive, or missing with a single sample.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.diagnose import conservativity
        >>> rotation = lambda t, y, args: jnp.array([-y[1], y[0]])
        >>> ys = jax.random.normal(jax.random.key(0), (4, 2))
        >>> record = conservativity(rotation, 0.0, ys, key=jax.random.key(1), loops=4, radius=1.0)
        >>> bool(abs(record.circulation.value - 2 * jnp.pi) < 1e-4)
        True

    Cost:
        ``samples`` × (1 forward pass + 2 ``probes`` JVPs) + ``loops`` × ``nodes`` forward passes, about 256 at
        once.

    References:
        - Vuong, McCann, Santos and Lin, "Are We Really Learning the Score Function? Reinterpreting Diffusion
          Models Through Wasserstein Gradient Flow Matching", 2025, https://arxiv.org/abs/2509.00336 (after
          the abstract: that trained networks fail the integral and the differential constraint; the choice of loops
          and the normalisations here are ours)
        - Horvat and Pfister, "On gauge freedom, conservativity and intrinsic dimensionality estimation in
          diffusion models", 2024, https://openreview.net/forum?id=92KV9xAMhF
    """
    field = checked_field(field)
    times, ys, samples = align(t, ys, args)
    check_key(key)
    probes, loops, nodes = (
        check_count(count, what=what, least=least)
        for count, what, least in ((probes, "probes", 1), (loops, "loops", 1), (nodes, "nodes", 4))
    )
    if nodes % 2:
        raise fault(
            expected="an even number of nodes",
            got=str(nodes),
            fix="The half rule that gives the quadrature error needs every other node.",
        )
    if radius is None and samples == 1:
        raise fault(expected="a radius with a single sample", got="None", fix="Pass radius=... in units of y.")
    if radius is not None and not radius > 0:
        raise fault(expected="a positive radius", got=str(radius), fix="Pass it in units of y.")
    size = None if radius is None else jnp.asarray(radius, times.dtype)
    numbers = _measure(field, times, ys, args, size, key, probes, loops, nodes)
    return Conservativity(*numbers, samples=samples, probes=probes, loops=loops)


@eqx.filter_jit
@canonical_convolutions
def _measure(
    field: Field,
    times: Float[Array, " samples"],
    ys: PyTree,
    args: PyTree,
    radius: Float[Array, ""] | None,
    key: Key,
    probes: int,
    loops: int,
    nodes: int,
) -> tuple[Estimate, Estimate, Estimate, Estimate, Float[Array, ""], Float[Array, ""]]:
    samples = times.shape[0]
    probe_key, plane_key = jax.random.split(key)

    def differential(row: tuple) -> tuple[Float[Array, ""], ...]:
        t, y, condition, k = row
        record = antisymmetry(field, probes=probes)(t, y, condition, key=k)
        return record.ratio.value, record.antisymmetric.value, record.jacobian.value

    rows = (times, ys, args, jax.random.split(probe_key, samples))
    ratios, differences, squares = jax.lax.map(differential, rows, batch_size=max(1, EVALUATIONS // probes))

    flat = jax.vmap(lambda y: ravel_pytree(y)[0])(ys)
    if radius is None:
        radius = jnp.sqrt(jnp.mean(jnp.var(flat, axis=0)))
    # Evenly through the samples, so that a sorted set is covered as well as a shuffled one.
    centres = jnp.asarray(np.arange(loops) * samples // loops)
    planes = jax.random.normal(plane_key, (loops, 2, flat.shape[1]), flat.dtype)

    def integral(row: tuple) -> tuple[Float[Array, ""], ...]:
        centre, plane = row
        t, y, condition = jax.tree.map(lambda leaf: leaf[centre], (times, ys, args))
        work = _work_round_a_circle(field, t, y, condition, radius, plane, nodes)
        net = 2 * jnp.pi * jnp.mean(work)
        half = 2 * jnp.pi * jnp.mean(work[::2])
        return net, 2 * jnp.pi * jnp.mean(jnp.abs(work)), net - half

    net, gross, change = jax.lax.map(integral, (centres, planes), batch_size=max(1, EVALUATIONS // nodes))
    return (
        Estimate.from_samples(ratios),
        ratio_of_means(differences / 2, squares),
        root_mean_square(net),
        ratio_of_means(jnp.abs(net), gross),
        root_mean_square(change).value,
        radius,
    )


def _work_round_a_circle(
    field: Field,
    t: Float[Array, ""],
    y: PyTree,
    args: PyTree,
    radius: Float[Array, ""],
    plane: Float[Array, "2 dim"],
    nodes: int,
) -> Float[Array, " nodes"]:
    """Work per radian, ``f · dℓ/dθ``, at equally spaced nodes of a circle round ``y`` in the given plane."""
    centre, unravel = ravel_pytree(y)
    first, second = plane
    first = first / jnp.linalg.norm(first)
    if centre.size == 1:
        # On the line the circle folds into a segment, there and back.
        second = jnp.zeros_like(second)
    else:
        second = second - (first @ second) * first
        second = second / jnp.linalg.norm(second)

    def work(angle: Float[Array, ""]) -> Float[Array, ""]:
        position = centre + radius * (jnp.cos(angle) * first + jnp.sin(angle) * second)
        tangent = radius * (jnp.cos(angle) * second - jnp.sin(angle) * first)
        return ravel_pytree(field(t, unravel(position), args))[0] @ tangent

    return jax.vmap(work)(jnp.linspace(0, 2 * jnp.pi, nodes, endpoint=False, dtype=centre.dtype))

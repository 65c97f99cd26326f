"""What an autoencoder does to its own latent codes: the field z → encode(decode(z)) − z and where it leads."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._core import (
    AbstractRecord,
    Field,
    canonical_convolutions,
    check_callable,
    check_count,
    check_like,
    check_shape,
    fault,
    table,
    unit_vector,
)
from ...calculus import Estimate
from .._field._fixed_points import _distinct
from .._samples import align

_AGAIN = "Both work on one sample: wrap what takes a batch."


class LatentAttractors(AbstractRecord):
    r"""Attractors of an autoencoder's latent field, the most often reached first.

    Attributes:
        points: ``[attractors, latent]``.
        decoded: ``[attractors, ...]`` the decoder's output there.
        residuals: ``[attractors]`` norm of the field there, latent units.
        spectral_radius: ``[attractors]`` largest modulus of an eigenvalue of the Jacobian of encode∘decode there; below
            1 nearby codes are drawn in, by that factor a step.
        hits: ``[attractors]`` how many starts ended there.
        ends: ``[starts, latent]`` where each start was when its iteration stopped.
        converged: ``[starts]`` whether that was by the tolerance.
        steps: ``[starts]`` iterations made.
        memorisation: over attractors, the greatest cosine of a decoded attractor with a training sample, both less the
            mean training sample; NaN without training samples, or without attractors. 1 where every attractor is a
            training sample; some cosine is found by chance, the more so the more samples there are: compare with as
            many fresh ones.
    """

    points: Float[Array, "attractors latent"]
    decoded: Float[Array, "attractors ..."]
    residuals: Float[Array, " attractors"]
    spectral_radius: Float[Array, " attractors"]
    hits: Int[Array, " attractors"]
    ends: Float[Array, "starts latent"]
    converged: Bool[Array, " starts"]
    steps: Int[Array, " starts"]
    memorisation: Estimate

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, and one per attractor for the first ten.
        """
        rows: list[tuple[str, Any, str]] = [
            ("attractors", self.points.shape[0], "count"),
            ("starts that converged", jnp.mean(self.converged.astype(self.ends.dtype)), "share"),
            ("memorisation", self.memorisation, "cosine"),
        ]
        found = zip(self.hits, self.residuals, self.spectral_radius)
        notes = [
            f"attractor {i}: {int(h)} starts, residual {float(r):.2g}, spectral radius {float(s):.4g}"
            for i, (h, r, s) in enumerate(found)
            if i < 10
        ]
        return table("Latent field of an autoencoder", rows, notes)


def latent_field(encode: Callable[[PyTree], Array], decode: Callable[[Array], PyTree]) -> Field:
    r"""Make the vector field of an autoencoder on its latent space.

    .. math:: f(z) = E(D(z)) - z

    Args:
        encode: ``encode(x) -> z`` for one sample.
        decode: ``decode(z) -> x`` for one code.

    Returns:
        ``field(t, z, args) -> dz``, of use with any diagnostic of a field: `fixed_points`, `conservativity`,
        `lyapunov`. Time and condition are ignored.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import latent_field
        >>> field = latent_field(lambda x: x[:1] / 2, lambda z: jnp.tile(z + 1, 2))
        >>> field(0.0, jnp.array([3.0]), None).tolist()
        [-1.0]

    Cost:
        One pass through the decoder and one through the encoder.

    References:
        - Fumero, Moschella, Rodolà and Locatello, "Navigating the Latent Space Dynamics of Neural Models", 2025,
          https://arxiv.org/abs/2505.22785
    """
    for name, function in (("encode", encode), ("decode", decode)):
        check_callable(function, what=name, fix="It is a function of one sample, or of one code.")

    def field(t: Any, z: Array, args: PyTree = None) -> Array:
        again = encode(decode(z))
        check_like(again, z, what="a decoded code, encoded again, that", fix=_AGAIN)
        return again - z

    return field


def latent_attractors(
    encode: Callable[[Array], Array],
    decode: Callable[[Array], Array],
    starts: Float[Array, "starts latent"],
    training: Float[Array, "samples ..."] | None = None,
    *,
    max_steps: int = 2000,
    tolerance: float = 1e-6,
    merge: float = 1e-2,
) -> LatentAttractors:
    r"""Iterate an autoencoder on its latent codes until they stand still, and describe where they do.

    .. math:: z_{k+1} = E(D(z_k)),\qquad \rho(z^*) = \max|\operatorname{eig} J_{E\circ D}(z^*)|

    Iteration finds attractors only; `fixed_points` of `latent_field` finds the unstable points too. Slow contraction
    looks like standing still: with factor ρ a step, the distance left is residual / (1 − ρ).

    Args:
        encode: ``encode(x) -> z`` for one sample.
        decode: ``decode(z) -> x`` for one code.
        starts: codes to start from: of samples, or noise where there is no data.
        training: samples the autoencoder was trained on, for the memorisation coefficient.
        max_steps: iterations at most, 2000 by default. A start that needs more counts as not converged.
        tolerance: a start has converged when a step is below this × (1 + the code's norm), 1e-6 by default.
        merge: attractors closer than this × (1 + the root mean square spread of the starts) are one, 1e-2 by default.

    Returns:
        A `LatentAttractors`; starts that did not converge are counted in it, and none found is an answer.

    Raises:
        ValueError: no starts; codes that are not vectors, or not shaped alike after a round; codes that are not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import latent_attractors
        >>> record = latent_attractors(lambda x: x[:1] / 2, lambda z: jnp.tile(z + 1, 2), jnp.array([[3.0], [-4.0]]))
        >>> [round(float(x), 4) for x in (record.points[0, 0], record.spectral_radius[0])]
        [1.0, 0.5]

    Cost:
        A start: up to ``max_steps`` passes through decoder and encoder, all starts at once; an attractor: as many JVPs
        as the latent space has dimensions, and a dense eigenproblem on the host.

    References:
        - Fumero, Moschella, Rodolà and Locatello, "Navigating the Latent Space Dynamics of Neural Models", 2025,
          https://arxiv.org/abs/2505.22785 (iteration, attractors, memorisation by similarity of decoded attractors to
          training samples; centring by the mean sample, merging and the stopping rule are ours)
    """
    _, starts, _ = align(0.0, starts, None)
    if starts.ndim != 2:
        raise fault(expected="starts of shape [starts, latent]", got=str(starts.shape), fix="Flatten the codes.")
    max_steps = check_count(max_steps, what="max_steps")
    jax.eval_shape(lambda z: latent_field(encode, decode)(0.0, z, None), starts[0])
    ends, converged, steps = _iterate(encode, decode, starts, tolerance, max_steps)
    sizes = np.asarray(_residuals(encode, decode, ends))
    fine = np.asarray(converged)
    spread = float(np.sqrt(np.sum(np.var(np.asarray(starts), axis=0))))
    kept, hits = _distinct(np.asarray(ends)[fine], sizes[fine], merge * (1 + spread))
    points = jnp.asarray(kept)
    decoded, residuals, matrices = _describe(encode, decode, points)
    # On the host: not every accelerator has the unsymmetric eigenproblem.
    radius = np.max(np.abs(np.linalg.eigvals(np.asarray(matrices))), axis=1, initial=0).astype(kept.dtype)
    nothing = jnp.full((), jnp.nan, points.dtype)
    memorisation = Estimate(nothing, nothing)
    if training is not None and len(kept):
        memorisation = Estimate.from_samples(_nearest_cosine(decoded, jnp.asarray(training)))
    return LatentAttractors(
        points=points,
        decoded=decoded,
        residuals=residuals,
        spectral_radius=jnp.asarray(radius),
        hits=jnp.asarray(hits, jnp.int32),
        ends=ends,
        converged=converged,
        steps=steps,
        memorisation=memorisation,
    )


def trajectory_score(
    encode: Callable[[Array], Array],
    decode: Callable[[Array], Array],
    xs: Float[Array, "samples ..."],
    attractors: Float[Array, "attractors latent"],
    *,
    steps: int = 20,
) -> Float[Array, " samples"]:
    r"""Score samples by how far their latent trajectories pass from the attractors of known data; high is unfamiliar.

    .. math:: s(x) = \frac1{K+1}\sum_{k=0}^{K}\min_{z^*}\lVert z_k - z^*\rVert,\qquad z_0 = E(x),\ z_{k+1} = E(D(z_k))

    Args:
        encode: ``encode(x) -> z`` for one sample.
        decode: ``decode(z) -> x`` for one code.
        xs: samples to score, leading axis ``samples``.
        attractors: ``[attractors, latent]`` reached from known data, ``latent_attractors(...).points``; where iteration
            is slow to converge, ``.ends`` serves.
        steps: K, iterations followed, 20 by default.

    Returns:
        ``[samples]`` scores, latent units.

    Raises:
        ValueError: no samples or no attractors.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import trajectory_score
        >>> encode, decode = lambda x: x[:1] / 2, lambda z: jnp.tile(z + 1, 2)
        >>> trajectory_score(encode, decode, jnp.array([[2.0, 2.0], [6.0, 6.0]]), jnp.array([[1.0]]), steps=1).tolist()
        [0.0, 1.5]

    Cost:
        ``samples`` × ``steps`` passes through decoder and encoder and as many distances to all attractors.

    References:
        - Fumero, Moschella, Rodolà and Locatello, "Navigating the Latent Space Dynamics of Neural Models", 2025,
          https://arxiv.org/abs/2505.22785 (distance of the trajectory to the nearest attractor of training data; the
          equal weights over a fixed number of steps are ours)
    """
    _, xs, _ = align(0.0, xs, None)
    _, attractors, _ = align(0.0, attractors, None)
    code = jax.eval_shape(encode, xs[0])
    check_shape(attractors, (None, *code.shape), what="attractors", fix="One code a row, as LatentAttractors.points.")
    jax.eval_shape(lambda z: latent_field(encode, decode)(0.0, z, None), code)
    steps = check_count(steps, what="steps", least=0)
    return _scores(encode, decode, xs, attractors, steps)


@eqx.filter_jit
@canonical_convolutions
def _iterate(encode: Callable, decode: Callable, starts: Array, tolerance: float, max_steps: int) -> tuple:
    def settled(z: Array, step: Array) -> Array:
        # A code that has run so far that its norm overflows has not settled there.
        return jnp.isfinite(jnp.linalg.norm(z)) & (step <= tolerance * (1 + jnp.linalg.norm(z)))

    def follow(start: Array) -> tuple[Array, Array, Array]:
        def going(state: tuple) -> Array:
            z, step, count = state
            return (count < max_steps) & ~settled(z, step) & jnp.isfinite(jnp.linalg.norm(z))

        def advance(state: tuple) -> tuple:
            z, _, count = state
            after = encode(decode(z))
            return after, jnp.linalg.norm(after - z), count + 1

        infinite = jnp.asarray(jnp.inf, start.dtype)
        z, step, count = jax.lax.while_loop(going, advance, (start, infinite, jnp.zeros((), jnp.int32)))
        return z, settled(z, step), count

    return jax.vmap(follow)(starts)


@eqx.filter_jit
def _residuals(encode: Callable, decode: Callable, codes: Array) -> Array:
    return jax.vmap(lambda z: jnp.linalg.norm(encode(decode(z)) - z))(codes)


@eqx.filter_jit
def _describe(encode: Callable, decode: Callable, points: Array) -> tuple[Array, Array, Array]:
    def at(z: Array) -> tuple[Array, Array, Array]:
        x = decode(z)
        return x, jnp.linalg.norm(encode(x) - z), jax.jacfwd(lambda w: encode(decode(w)))(z)

    return jax.vmap(at)(points)


@jax.jit
def _nearest_cosine(decoded: Array, training: Array) -> Array:
    training = training.reshape(training.shape[0], -1)
    centre = jnp.mean(training, axis=0, keepdims=True)
    # A single sample is its own mean, and has no direction from it.
    centre = centre if training.shape[0] > 1 else jnp.zeros_like(centre)

    def directions(rows: Array) -> Array:
        return unit_vector(rows - centre, 1)

    return jnp.max(directions(decoded.reshape(decoded.shape[0], -1)) @ directions(training).T, axis=1)


@eqx.filter_jit
@canonical_convolutions
def _scores(encode: Callable, decode: Callable, xs: Array, attractors: Array, steps: int) -> Array:
    def score(x: Array) -> Array:
        def advance(z: Array, _: None) -> tuple[Array, Array]:
            return encode(decode(z)), jnp.min(jnp.linalg.norm(attractors - z[None], axis=1))

        return jnp.mean(jax.lax.scan(advance, encode(x), length=steps + 1)[1])

    return jax.vmap(score)(xs)

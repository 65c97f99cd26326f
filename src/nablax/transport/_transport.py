"""A learned transport from a prior to data: draw, score, encode, and look at it from four sides."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import (
    Field,
    Key,
    canonical_convolutions,
    check_floats,
    check_key,
    check_like,
    check_shape,
    checked_field,
    fault,
    guarded_jit,
)
from ..follow import Solver, flow
from ..spaces import AbstractSpace
from ._batch import check_batch, check_draws, check_times, with_stand_ins
from ._likelihood._density import log_density
from ._likelihood._log_prob import LogProb
from ._parts import check_defined, check_finite_ends, check_parts
from ._paths._affine import View
from ._paths._path import AbstractPath
from ._priors import Prior

# Samples are looked at, densities compared: the ones ask for fewer digits than the others.
_SAMPLES, _DENSITIES = Solver(rtol=1e-4, atol=1e-4), Solver()


class Transport(eqx.Module):
    r"""A field that carries a prior at $t=0$ to data at $t=1$ along a path.

    The views (`velocity`, `score`, `noise`, `denoiser`) take one sample, ``(t, y, args)``; ``jax.vmap`` them. The verbs
    (`sample`, `log_prob`, `encode`) take a whole batch, because one step size for the batch is what makes them fast;
    their ``args`` carry the same leading axis. Rows in half precision are computed with in single precision. Nothing is
    broadcast: rows of another shape than ``space``'s and a field whose value is not shaped like its state are refused.

    Args:
        field: ``field(t, y, args) -> prediction`` for one sample, shaped like ``y``.
        path: the path it was trained on; affine, for any view but the one that ``field`` returns.
        prior: the distribution at the first time; `Normal` or `Empirical`.
        space: where the samples live; its shape is a sample's shape. The flow is solved in these coordinates.
        prediction: what ``field`` returns: "velocity" (default), "score", "noise" or "denoiser".
        independent: whether noise and data were paired independently in training (default). With an optimal-transport
            pairing the velocity is all that is defined: the noise given the data is no longer normal.

    Raises:
        ValueError: the shapes of ``prior`` and ``space`` differ; ``prediction`` is unknown; a view other than the
            velocity is asked of a transport that does not define it; the velocity would be 0/0 at an end of the path
            for this ``prediction``; a part is a class that was not called, such as ``Linear`` for ``Linear()``; when it
            is used, the field's value is not shaped like its state, a state is not floating-point or a time no scalar.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.spaces import Euclidean
        >>> from nablax.transport import Linear, Normal, Transport
        >>> # The exact velocity between N(0, 1) and N(3, 1/4): both ends are normal, so it is known.
        >>> def velocity(t, y, args):
        ...     variance = (1 - t) ** 2 + t**2 / 4
        ...     return 3 + (t / 4 - (1 - t)) / variance * (y - 3 * t)
        >>> transport = Transport(velocity, Linear(), Normal((1,)), Euclidean((1,)))
        >>> samples = transport.sample(2000, key=jax.random.key(0))
        >>> bool(abs(samples.mean() - 3) < 0.05) and bool(abs(samples.std() - 0.5) < 0.05)
        True
        >>> round(float(transport.log_prob(jnp.full((1, 1), 3.0)).value[0]), 3)  # -log(0.5 sqrt(2π))
        -0.226

    Cost:
        A view is one forward pass. See each verb.

    References:
        Song et al. (2021), https://arxiv.org/abs/2011.13456 (probability flow and its likelihood); Lipman et al.
        (2023), https://arxiv.org/abs/2210.02747; Albergo, Boffi, Vanden-Eijnden (2023), Stochastic Interpolants,
        https://arxiv.org/abs/2303.08797 (the conversions).
    """

    field: Field
    path: AbstractPath
    prior: Prior
    space: AbstractSpace
    prediction: View = eqx.field(static=True, default="velocity")
    independent: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        check_parts(self.field, self.path, self.prior, self.space, self.prediction)
        if self.prediction != "velocity":
            path = check_defined(self.prediction, self.path, self.prior, independent=self.independent)
            check_finite_ends(self.prediction, path)

    def velocity(self, t: Array, y: Float[Array, "*shape"], args: PyTree = None) -> Float[Array, "*shape"]:
        r"""Return $\dot x_t$'s conditional mean, the velocity of the flow."""
        return self.views(t, y, args, "velocity")[0]

    def score(self, t: Array, y: Float[Array, "*shape"], args: PyTree = None) -> Float[Array, "*shape"]:
        r"""Return $\nabla \log p_t(y)$."""
        return self.views(t, y, args, "score")[0]

    def noise(self, t: Array, y: Float[Array, "*shape"], args: PyTree = None) -> Float[Array, "*shape"]:
        r"""Return $E[x_0 | x_t = y]$."""
        return self.views(t, y, args, "noise")[0]

    def denoiser(self, t: Array, y: Float[Array, "*shape"], args: PyTree = None) -> Float[Array, "*shape"]:
        r"""Return $E[x_1 | x_t = y]$."""
        return self.views(t, y, args, "denoiser")[0]

    def views(
        self, t: Array, y: Float[Array, "*shape"], args: PyTree, *names: View
    ) -> tuple[Float[Array, "*shape"], ...]:
        """Return several views by their names, such as "velocity" and "score", from one evaluation of the field."""
        one = jax.ShapeDtypeStruct(self.space.shape, jnp.float32)
        paths = {
            name: check_defined(name, self.path, self.prior, independent=self.independent)
            for name in names
            if name != self.prediction
        }
        check_shape(t, (), what="one time", fix="For a batch use jax.vmap, over the times too.")
        check_like(y, one, what="a state that", fix="For a batch use jax.vmap.")
        y = jnp.asarray(y)
        check_floats(y, what="a state", fix="Convert y to a float dtype.")
        value = checked_field(self.field)(t, y, args)
        return tuple(
            paths[name].convert(t, y, value, source=self.prediction, target=name) if name in paths else value
            for name in names
        )

    def interpolate(
        self, t: float | Array, ys: Float[Array, " rows *shape"], *, key: Key
    ) -> Float[Array, " rows *shape"]:
        r"""Put fresh noise on data: draw $x_t = a(t) x_1 + b(t) x_0$, the points on which the field was trained.

        Args:
            t: one time, or one a row; between 0 and 1.
            ys: data $x_1$, leading axis over rows.
            key: for the noise.

        Returns:
            The points at time ``t``, shaped like ``ys``: the samples that a diagnostic of the field at ``t`` asks for.

        Raises:
            ValueError: noise and data were not paired independently, so that fresh noise would give other points; a
                time is outside; ``ys`` is not an array of floats with one sample a row.

        Example:
            >>> import jax, jax.numpy as jnp
            >>> from nablax.spaces import Euclidean
            >>> from nablax.transport import Linear, Normal, Transport
            >>> transport = Transport(lambda t, y, args: y, Linear(), Normal(1), Euclidean(1))
            >>> points = transport.interpolate(0.5, jnp.full((4000, 1), 6.0), key=jax.random.key(0))
            >>> round(float(points.mean()), 1), round(float(points.std()), 1)
            (3.0, 0.5)

        Cost:
            None of the model.
        """
        ys = check_batch(ys, None, self.space.shape)
        check_key(key)
        if not self.independent:
            raise fault(
                expected="noise paired independently with the data",
                got="independent=False",
                fix="Pair them as in training, and pass each pair to path.interpolate.",
            )
        times = check_times(t, ys)
        # At the first time the path's own b is the prior's scale.
        noise = jax.vmap(self.prior.sample)(jax.random.split(key, len(ys))).astype(ys.dtype) / self.path.prior_scale
        return jax.vmap(self.path.interpolate)(times, noise, ys)

    def sample(
        self,
        count: int,
        *,
        key: Key,
        args: PyTree = None,
        solver: Solver = _SAMPLES,
        per_sample: bool = False,
    ) -> Float[Array, " count *shape"]:
        """Draw samples by following the velocity from the prior.

        Args:
            count: how many.
            key: for the prior; the flow itself draws nothing.
            args: condition, leading axis ``count``, or None.
            solver: steps, tolerances and method. Default: adaptive, both tolerances 1e-4.
            per_sample: let every sample control its own step, instead of one step size for the batch.

        Returns:
            Samples, leading axis ``count``.

        Raises:
            ValueError: ``count`` is not a positive whole number; ``args`` have another leading axis.

        Cost:
            The solver's evaluations of the field on the whole batch.
        """
        count = check_draws(count, key, args)
        return self._sample(count, key, args, solver, per_sample)

    @guarded_jit
    @canonical_convolutions
    def _sample(self, count: int, key: Key, args: PyTree, solver: Solver, per_sample: bool) -> Array:
        y0 = jax.vmap(self.prior.sample)(jax.random.split(key, count))
        first, last = self.path.times
        return self._follow(y0, args, first, last, solver, per_sample)

    @guarded_jit
    @canonical_convolutions
    def encode(
        self,
        ys: Float[Array, " rows *shape"],
        args: PyTree = None,
        *,
        solver: Solver = _SAMPLES,
        per_sample: bool = False,
    ) -> Float[Array, " rows *shape"]:
        """Follow the velocity backwards, from data to the point of the prior that would become it.

        Args:
            ys: data, leading axis over rows.
            args: condition, the same leading axis, or None.
            solver: steps, tolerances and method. Default: adaptive, both tolerances 1e-4.
            per_sample: let every row control its own step.

        Returns:
            The codes, shaped like ``ys``; NaN for a row that is not finite.

        Raises:
            ValueError: ``ys`` is not an array of floats with one sample a row; ``args`` have another leading axis.

        Cost:
            The solver's evaluations of the field on the whole batch.
        """
        ys = check_batch(ys, args, self.space.shape)
        clean, args, finite = with_stand_ins(ys, args)
        first, last = self.path.times
        codes = self._follow(clean, args, last, first, solver, per_sample)
        return jnp.where(finite.reshape(-1, *(1,) * (codes.ndim - 1)), codes, jnp.nan)

    @guarded_jit
    @canonical_convolutions
    def log_prob(
        self,
        ys: Float[Array, " rows *shape"],
        args: PyTree = None,
        *,
        divergence: Literal["auto", "exact", "stochastic"] = "auto",
        probes: int = 8,
        key: Key | None = None,
        panels: int = 4,
        solver: Solver = _DENSITIES,
        round_trip: bool = False,
    ) -> LogProb:
        r"""Log-density of the flow's samples, $\log p_1(x_1) = \log p_0(x_0) - \int_0^1 \nabla\cdot v\,dt$.

        Args:
            ys: data, leading axis over rows.
            args: condition, the same leading axis, or None.
            divergence: "exact" (D Jacobian-vector products an evaluation), "stochastic" (Hutchinson's estimate with
                Rademacher probes held fixed along each trajectory), or "auto": exact up to 256 dimensions.
            probes: of the stochastic divergence. Default 8.
            key: for the probes.
            panels: of the divergence's quadrature along the trajectories, 15 nodes each. Default 4, plenty for a
                smooth field; with kinked activations the error falls as one over this number.
            solver: steps, tolerances and method of the trajectories. Default: adaptive, both tolerances 1e-5, one step
                size for the batch.
            round_trip: also send the codes forwards again and report the gap.

        Returns:
            A `LogProb`: nats, with the errors of the probes, of the integration, and of the round trip. A row with a
            NaN, or whose condition is not finite, gets NaN and an infinite one $-\infty$; the others do not feel it.

        Raises:
            ValueError: the prior has no density; stochastic divergence without ``key`` or with ``probes < 1``;
                ``panels < 1``; ``ys`` is not an array of floats with one sample a row; ``args`` have another leading
                axis.

        Cost:
            The solver's evaluations twice (once to place the panels, with adaptive steps), and 15 ``panels``
            evaluations with D (exact) or ``probes`` Jacobian-vector products each; memory is 15 ``panels`` copies of
            the rows, and rows × D (or rows × probes) activations of the field.
        """
        return log_density(
            self.velocity,
            self._batched,
            self.path.times,
            self.prior,
            self.space,
            ys,
            args,
            divergence=divergence,
            probes=probes,
            key=key,
            panels=panels,
            solver=solver,
            round_trip=round_trip,
        )

    @eqx.filter_jit  # a solver asks for the field in many places: it is traced at the first
    def _batched(self, t: Array, ys: Array, args: PyTree) -> Array:
        return jax.vmap(self.velocity, in_axes=(None, 0, 0))(t, ys, args)

    def _follow(self, ys: Array, args: PyTree, start: float, end: float, solver: Solver, per_sample: bool) -> Array:
        def solve(field: Field, y: Array, args: PyTree) -> Array:
            return flow(field, y, start, end, args=args, solver=solver).ys

        if per_sample:
            return jax.vmap(lambda y, args: solve(self.velocity, y, args))(ys, args)

        return solve(self._batched, ys, args)


__all__ = ["LogProb", "Transport"]

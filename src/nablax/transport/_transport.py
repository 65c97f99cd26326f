"""A learned transport from a prior to data: draw, score, encode, and look at it from four sides."""

import math
from typing import Any, Literal

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._core import (
    Field,
    Key,
    canonical_convolutions,
    check_count,
    check_instance,
    check_key,
    check_like,
    checked_field,
    fault,
    guarded_jit,
)
from ..calculus import divergence as exact_divergence
from ..follow import flow
from ..spaces import Euclidean
from ._batch import check_batch, check_draws, check_times, finite_rows, with_stand_ins
from ._likelihood._log_prob import LogProb, divergence_along
from ._paths._affine import AbstractPath, View, check_path, check_view
from ._priors import Empirical, Normal, Prior

_EXACT_UP_TO = 256  # dimensions; beyond it D Jacobian products an evaluation cost more than a few probes


class Transport(eqx.Module):
    r"""A field that carries a prior at $t=0$ to data at $t=1$ along an affine path.

    The views (`velocity`, `score`, `noise`, `denoiser`) take one sample, ``(t, y, args)``; ``jax.vmap`` them. The verbs
    (`sample`, `log_prob`, `encode`) take a whole batch, because one step size for the batch is what makes them fast;
    their ``args`` carry the same leading axis. Rows in half precision are computed with in single precision. Nothing is
    broadcast: rows of another shape than ``space``'s and a field whose value is not shaped like its state are refused.

    Args:
        field: ``field(t, y, args) -> prediction`` for one sample, shaped like ``y``.
        path: the affine path it was trained on.
        prior: the distribution at the first time; `Normal` or `Empirical`.
        space: where the samples live; its shape is a sample's shape.
        prediction: what ``field`` returns: "velocity" (default), "score", "noise" or "denoiser".
        independent: whether noise and data were paired independently in training (default). With an optimal-transport
            pairing the velocity is all that is defined: the noise given the data is no longer normal.

    Raises:
        ValueError: the shapes of ``prior`` and ``space`` differ; ``prediction`` is unknown; a view other than the
            velocity is asked of a transport that does not define it; the velocity would be 0/0 at an end of the path
            for this ``prediction``; a part is a class that was not called, such as ``Linear`` for ``Linear()``; when it
            is used, the field's value is not shaped like its state.

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
    space: Euclidean
    prediction: View = eqx.field(static=True, default="velocity")
    independent: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        checked_field(self.field)
        check_path(self.path)
        check_instance(self.prior, (Normal, Empirical), what="a prior", fix="Pass Normal(shape), for instance.")
        check_instance(self.space, Euclidean, what="a space", fix="Pass spaces.Euclidean(shape).")
        check_view(self.prediction)
        if self.prior.shape != self.space.shape:
            raise fault(
                expected=f"a prior over the space's shape {self.space.shape}",
                got=f"shape {self.prior.shape}",
                fix="Give both the shape of one sample.",
            )
        if self.prediction != "velocity":
            self._check_defined(self.prediction)
            self._check_finite_ends()

    def velocity(self, t: Array, y: Float[Array, "*shape"], args: PyTree = None) -> Float[Array, "*shape"]:
        r"""Return $\dot x_t$'s conditional mean, the velocity of the flow."""
        return self._view(t, y, args, "velocity")

    def score(self, t: Array, y: Float[Array, "*shape"], args: PyTree = None) -> Float[Array, "*shape"]:
        r"""Return $\nabla \log p_t(y)$."""
        return self._view(t, y, args, "score")

    def noise(self, t: Array, y: Float[Array, "*shape"], args: PyTree = None) -> Float[Array, "*shape"]:
        r"""Return $E[x_0 | x_t = y]$."""
        return self._view(t, y, args, "noise")

    def denoiser(self, t: Array, y: Float[Array, "*shape"], args: PyTree = None) -> Float[Array, "*shape"]:
        r"""Return $E[x_1 | x_t = y]$."""
        return self._view(t, y, args, "denoiser")

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
        steps: int | Int[Array, ""] | None = None,
        solver: diffrax.AbstractSolver | None = None,
        rtol: float | Array = 1e-4,
        atol: float | Array = 1e-4,
        per_sample: bool = False,
    ) -> Float[Array, " count *shape"]:
        """Draw samples by following the velocity from the prior.

        Args:
            count: how many.
            key: for the prior; the flow itself draws nothing.
            args: condition, leading axis ``count``, or None.
            steps: fixed number of steps. Default: adaptive.
            solver: a Diffrax solver. Default: as in `follow.flow`.
            rtol: relative tolerance.
            atol: absolute tolerance, in units of the data.
            per_sample: let every sample control its own step, instead of one step size for the batch.

        Returns:
            Samples, leading axis ``count``.

        Raises:
            ValueError: ``count`` is not a positive whole number; ``args`` have another leading axis.

        Cost:
            The solver's evaluations of the field on the whole batch.
        """
        count = check_draws(count, key, args)
        return self._sample(count, key, args, steps, solver, rtol, atol, per_sample)

    @guarded_jit
    @canonical_convolutions
    def _sample(self, count: int, key: Key, args: PyTree, *settings: Any) -> Array:
        y0 = jax.vmap(self.prior.sample)(jax.random.split(key, count))
        first, last = self.path.times
        return self._follow(y0, args, first, last, *settings)

    @guarded_jit
    @canonical_convolutions
    def encode(
        self,
        ys: Float[Array, " rows *shape"],
        args: PyTree = None,
        *,
        steps: int | Int[Array, ""] | None = None,
        solver: diffrax.AbstractSolver | None = None,
        rtol: float | Array = 1e-4,
        atol: float | Array = 1e-4,
        per_sample: bool = False,
    ) -> Float[Array, " rows *shape"]:
        """Follow the velocity backwards, from data to the point of the prior that would become it.

        Args:
            ys: data, leading axis over rows.
            args: condition, the same leading axis, or None.
            steps: fixed number of steps. Default: adaptive.
            solver: a Diffrax solver. Default: as in `follow.flow`.
            rtol: relative tolerance.
            atol: absolute tolerance, in units of the data.
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
        codes = self._follow(clean, args, last, first, steps, solver, rtol, atol, per_sample)
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
        steps: int | Int[Array, ""] | None = None,
        solver: diffrax.AbstractSolver | None = None,
        rtol: float | Array = 1e-5,
        atol: float | Array = 1e-5,
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
            steps: fixed number of steps. Default: adaptive, one step size for the batch.
            solver: a Diffrax solver. Default: as in `follow.flow`.
            rtol: relative tolerance of the trajectories.
            atol: absolute tolerance of the trajectories, in units of the data.
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
        if not isinstance(self.prior, Normal):
            raise fault(expected="a prior with a density", got="Empirical", fix="Use a Normal prior for likelihoods.")
        if divergence not in ("auto", "exact", "stochastic"):
            raise fault(expected="auto, exact or stochastic", got=repr(divergence), fix="Use the default, auto.")
        panels = check_count(panels, what="panels")
        given = check_batch(ys, args, self.space.shape)
        conditions = args
        ys, args, finite = with_stand_ins(given.astype(jnp.promote_types(given.dtype, jnp.float32)), args)
        rows = ys.shape[0]
        first, last = self.path.times
        exact = divergence == "exact" or (divergence == "auto" and self.space.dim <= _EXACT_UP_TO)
        if exact:
            trace = jax.vmap(exact_divergence(self.velocity), in_axes=(None, 0, 0))
        else:
            if key is None or probes < 1:
                raise fault(
                    expected="a key and probes ≥ 1 for the stochastic divergence",
                    got=f"key={'given' if key is not None else None}, probes={probes}",
                    fix="Pass key=jax.random.key(...), or divergence='exact'.",
                )
            check_key(key)
            directions = jax.random.rademacher(key, (rows, probes, *self.space.shape), ys.dtype)

            def trace(t: Array, ys: Array, args: PyTree) -> Array:
                return jax.vmap(self._probed, in_axes=(None, 0, 0, 0))(t, ys, args, directions)

        codes, integral, gap, evaluations = divergence_along(
            self._batched, trace, ys, args, last, first, panels=panels, steps=steps, solver=solver, rtol=rtol, atol=atol
        )
        log_prior = jax.vmap(self.prior.log_prob)(codes)  # the integral runs backwards: it is minus the formula's
        if exact:
            value, error = log_prior + integral, jnp.zeros_like(log_prior)
        else:
            value, gap = log_prior + jnp.mean(integral, axis=1), jnp.mean(gap, axis=1)
            error = jnp.full_like(value, jnp.nan) if probes == 1 else jnp.std(integral, axis=1, ddof=1) / probes**0.5
        missed = jnp.full_like(value, jnp.nan)
        if round_trip:
            back = self._follow(codes, args, first, last, steps, solver, rtol, atol, False)
            missed = jnp.sqrt(jnp.mean(jnp.square(back - ys).reshape(rows, -1), axis=1))
        # The density of what is infinite, unlike that of what is not known, is zero.
        known = finite_rows(conditions, rows) & ~jnp.any(jnp.isnan(given).reshape(rows, -1), axis=1)
        value = jnp.where(finite, value, jnp.where(known, -jnp.inf, jnp.nan).astype(value.dtype))
        error, gap, missed = (jnp.where(finite, part, jnp.nan) for part in (error, gap, missed))
        return LogProb(value, error, gap, missed, evaluations)

    def _probed(self, t: Array, y: Array, args: PyTree, directions: Array) -> Array:
        _, product = jax.linearize(lambda y: self.velocity(t, y, args), y)
        return jax.vmap(lambda e: jnp.vdot(e, product(e)))(directions)

    @eqx.filter_jit  # a solver asks for the field in many places: it is traced at the first
    def _batched(self, t: Array, ys: Array, args: PyTree) -> Array:
        return jax.vmap(self.velocity, in_axes=(None, 0, 0))(t, ys, args)

    def _follow(
        self,
        ys: Array,
        args: PyTree,
        start: float,
        end: float,
        steps: int | Int[Array, ""] | None,
        solver: diffrax.AbstractSolver | None,
        rtol: float | Array,
        atol: float | Array,
        per_sample: bool,
    ) -> Array:
        def solve(field: Field, y: Array, args: PyTree) -> Array:
            return flow(field, y, start, end, args=args, solver=solver, steps=steps, rtol=rtol, atol=atol).ys

        if per_sample:
            return jax.vmap(lambda y, args: solve(self.velocity, y, args))(ys, args)

        return solve(self._batched, ys, args)

    def _view(self, t: Array, y: Array, args: PyTree, view: View) -> Array:
        if view != self.prediction:
            self._check_defined(view)
        one = jax.ShapeDtypeStruct(self.space.shape, jnp.float32)
        check_like(y, one, what="a state that", fix="For a batch use jax.vmap.")
        value = checked_field(self.field)(t, y, args)
        return self.path.convert(t, y, value, source=self.prediction, target=view)

    def _check_defined(self, view: str) -> None:
        if view == "velocity":
            return
        if not (self.independent and isinstance(self.prior, Normal)):
            raise fault(
                expected=f"normal noise paired independently with the data, for the {view}",
                got=f"prior {type(self.prior).__name__}, independent={self.independent}",
                fix="Only the velocity is defined here; train with an independent coupling to have the other views.",
            )
        if view == "score" and not math.isclose(self.prior.scale, self.path.prior_scale, rel_tol=1e-3):
            raise fault(
                expected=f"a prior of the path's own scale {self.path.prior_scale}, for the score",
                got=f"scale {self.prior.scale}",
                fix="The score is minus the noise over b only for standard normal noise; use Normal(shape, scale="
                "path.prior_scale), or ask for the noise.",
            )

    def _check_finite_ends(self) -> None:
        # The velocity needs the pair (noise, denoiser); where a or b is zero the state says nothing of one of them.
        with jax.ensure_compile_time_eval():
            start, _, _, _ = self.path.coefficients(jnp.asarray(self.path.times[0]))
            _, end, _, _ = self.path.coefficients(jnp.asarray(self.path.times[1]))
            singular = float(end if self.prediction == "denoiser" else start) < 1e-6
        if singular:
            raise fault(
                expected=f"a path that keeps clear of its {'last' if self.prediction == 'denoiser' else 'first'} time",
                got=f"{type(self.path).__name__} with times {self.path.times} and prediction={self.prediction!r}",
                fix=f"The velocity is 0/0 there: use {type(self.path).__name__}(margin=1e-3).",
            )


__all__ = ["LogProb", "Transport"]

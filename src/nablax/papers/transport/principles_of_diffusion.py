r"""The Principles of Diffusion Models: the variational, the score and the flow view are one.

After the text, chapter 6. The views learn $E[x_0|x_t]$ (the noise to remove), $\nabla\log p_t$ and $E[\dot x_t|x_t]$.
Here each is written down on its own for a mixture of Gaussians, so that they share nothing but the data and the path:
the noise by Bayes' rule over the components, the score by differentiating the log-density, the velocity by averaging
the components' own velocities.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import Field, Key
from ...follow import Solver, flow
from ...spaces import Euclidean
from ...transport import Linear, Moment, Normal, Transport, VariancePreserving, View, march
from .._contrast import Contrast
from .._problems._mixture import Mixture, energy_distances, ring
from .._records import Check, Paper

PAPER = Paper(
    slug="principles-of-diffusion",
    title="The Principles of Diffusion Models",
    year=2025,
    link="https://arxiv.org/abs/2510.21890",
    rooms=("transport",),
    row=57,
    read="text",
)

PATH = VariancePreserving()


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Check that the three views draw the same samples, regress the same error, and share marginals step by step.

    Args:
        key: of all randomness.
        full: more samples, steps and repetitions; the monograph has no experiments to follow.

    Returns:
        Three checks.
    """
    data = ring()
    first, second, third = jax.random.split(key, 3)
    return [
        _same_samples(data, first, 5000 if full else 500),
        _same_error(data, second, 2000 if full else 200),
        _stepwise(data, third, (5000, 1000, 8) if full else (2000, 150, 3)),
    ]


def _noise(data: Mixture) -> Field:
    def field(t: Array, y: Array, args: None) -> Array:
        a, b, _, _ = PATH.coefficients(t)
        share = jax.nn.softmax(data.log_parts(y, a, b))
        return share @ (b * (y[None] - a * data.means) / (a**2 * data.scale**2 + b**2))

    return field


def _velocity(data: Mixture) -> Field:
    def field(t: Array, y: Array, args: None) -> Array:
        a, b, da, db = PATH.coefficients(t)
        share = jax.nn.softmax(data.log_parts(y, a, b))
        # Each component moves its centre and stretches about it.
        growth = (a * da * data.scale**2 + b * db) / (a**2 * data.scale**2 + b**2)
        return share @ (da * data.means + growth * (y[None] - a * data.means))

    return field


def _transport(field: Field, prediction: View) -> Transport:
    return Transport(field, PATH, Normal((2,)), Euclidean((2,)), prediction)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _denoise(transport: Transport, count: int, steps: int, key: Key, noise_key: Key) -> Array:
    """Remove noise step by step: draw the state at s from its law given the state at t and the expected data."""

    def step(now: Moment, ys: Array, args: None) -> tuple[Array, None]:
        a, b, _, _ = PATH.coefficients(now.t)
        a_next, b_next, _, _ = PATH.coefficients(now.s)
        shrink = a / a_next
        added = b**2 - shrink**2 * b_next**2
        expected = jax.vmap(transport.denoiser, in_axes=(None, 0))(now.t, ys)
        mean = (shrink * b_next**2 * ys + a_next * added * expected) / b**2
        return mean + jnp.sqrt(added) * b_next / b * jax.random.normal(now.key, ys.shape), None

    return march(transport, step, count, key=key, steps=steps, noise_key=noise_key)[0]


def _same_samples(data: Mixture, key: Key, count: int) -> Check:
    noise = _noise(data)
    views = [_transport(_velocity(data), "velocity"), _transport(noise, "noise"), data.transport(PATH)]

    def drift(t: Array, ys: Float[Array, "views count 2"], args: None) -> Float[Array, "views count 2"]:
        return jnp.stack([jax.vmap(view.velocity, in_axes=(None, 0))(t, y) for view, y in zip(views, ys)])

    start_key, noise_key = jax.random.split(key)
    starts, _ = march(views[1], lambda now, ys, args: (ys, None), count, key=start_key, steps=1)
    ends = flow(
        drift,
        jnp.broadcast_to(starts, (len(views), count, 2)),
        *PATH.times,
        solver=Solver(rtol=1e-5, atol=1e-5),
    ).ys
    stepwise = _denoise(views[1], count, 150, start_key, noise_key)

    def gap(other: Array) -> Array:
        return jnp.sqrt(jnp.mean(jnp.sum(jnp.square(other - ends[0]), axis=1)))

    gaps = {
        "the worse of noise and score": jnp.maximum(gap(ends[1]), gap(ends[2])),
        "the variational view's own steps, which add noise": gap(stepwise),
    }
    return Check(
        "From the same noise the variational, score and flow views carry every sample to the same point.",
        "proposition 6.3.2: one flow, written in each",
        contrasts=Contrast("root-mean-square gap to the ends by the velocity", gaps, "lower", threshold=0.01),
        moved_from="the same against a score that lacks its factor, a planted error",
    )


def _same_error(data: Mixture, key: Key, rows: int) -> Check:
    draw_key, noise_key, guess_key = jax.random.split(key, 3)
    x1, x0 = data.sample(draw_key, rows), jax.random.normal(noise_key, (rows, 2))
    guess = x0 + jax.random.normal(guess_key, (rows, 2))  # what some network might say of the noise

    def unevenness(t: Array) -> Array:
        """Spread of the ratio of squared errors, view against noise, over samples at one time; relative."""

        def ratios(x0: Array, x1: Array, guess: Array) -> Array:
            y = PATH.interpolate(t, x0, x1)
            _, b, _, _ = PATH.coefficients(t)
            answers: list[tuple[View, Array]] = [("velocity", PATH.target(t, x0, x1)), ("score", -x0 / b)]
            answers += [("denoiser", x1), ("velocity", Linear().target(t, x0, x1))]
            errors = [PATH.convert(t, y, guess, source="noise", target=view) - answer for view, answer in answers]
            return jnp.sum(jnp.square(jnp.stack(errors)), axis=1) / jnp.sum(jnp.square(guess - x0))

        found = jax.vmap(ratios)(x0, x1, guess)
        return jnp.std(found, axis=0) / jnp.mean(found, axis=0)

    # In powers of ten: of errors that differ by more than a weight the ratio has heavy tails.
    uneven = jnp.log10(jax.jit(jax.vmap(unevenness))(jnp.array([0.3, 0.6, 0.9])))
    found = {
        "score, data and velocity, the worst": jnp.max(uneven[:, :3]),
        "velocity of the straight path, the best": jnp.min(uneven[:, 3]),
    }
    return Check(
        "The regressions on noise, score, data and velocity are one, up to a weight of time alone.",
        "equation 6.3.6: equal up to weights of time; other paths, by proposition 6.3.3, up to time and scale too",
        contrasts=Contrast(
            "log10 of the relative spread of squared errors over the noise's", found, "lower", threshold=-3
        ),
    )


def _stepwise(data: Mixture, key: Key, scale: tuple[int, int, int]) -> Check:
    count, steps, repeats = scale
    transport = _transport(_noise(data), "noise")

    distances = energy_distances(
        {
            "step by step": lambda key: _denoise(transport, count, steps, *jax.random.split(key)),
            "at once, by the expected data": lambda key: _denoise(transport, count, 1, *jax.random.split(key)),
        },
        lambda key: transport.sample(count, key=key),
        key,
        repeats,
    )
    return Check(
        "Removing noise step by step, by the variational view's posteriors, draws what the flow draws.",
        "section 6.4: one equation governs the density of both, in words",
        contrasts=Contrast("energy distance to samples of the flow", distances, "lower", threshold=0.005),
        moved_from="the same against steps to the posteriors' means, without their noise, a planted error",
    )


__all__ = ["PAPER", "checks"]

r"""Are We Really Learning the Score Function? Diffusion models reinterpreted as Wasserstein gradient flow matching.

Two networks learn the noise of a ring of Gaussians: one free, one the gradient of a scalar and so conservative by
construction. A last claim needs no network: with $A$ antisymmetric, $\nabla\cdot(p\,A\nabla\log p) = 0$, so that the
exact score plus $A$ times itself is no gradient and yet leaves every marginal where it was.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...diagnose import conservativity
from ...fields import MLP
from ...follow import Solver, fit
from ...spaces import Euclidean
from ...transport import (
    Normal,
    Transport,
    VariancePreserving,
    denoising_score_matching,
)
from .._contrast import Contrast
from .._problems._mixture import Mixture, energy_distance, ring
from .._records import Check, Paper

PAPER = Paper(
    slug="score-or-flow",
    title="Are We Really Learning the Score Function? Reinterpreting Diffusion Models Through Wasserstein Gradient "
    "Flow Matching",
    year=2025,
    link="https://arxiv.org/abs/2509.00336",
    rooms=("diagnose", "transport"),
    row=14,
    read="abstract",
)

# Of the antisymmetric share, in decades.
_ROUNDING = -6.0
PATH = VariancePreserving()


class _Gradient(eqx.Module):
    """The gradient of half the squared distance to a network's output: conservative at every time."""

    network: MLP

    def __call__(self, t: Array, y: Float[Array, " dim"], args: None = None) -> Float[Array, " dim"]:
        return jax.grad(lambda y: 0.5 * jnp.sum(jnp.square(y - self.network(t, y, None))))(y)


class _Changed(eqx.Module):
    """The exact velocity and a matrix times the exact score, faded in and out to leave prior and stiff end alone."""

    data: Mixture
    matrix: Float[Array, "2 2"]

    def __call__(self, t: Array, y: Float[Array, "2"], args: None = None) -> Float[Array, "2"]:
        a, b, _, _ = PATH.coefficients(t)
        score = jax.grad(self.data.log_density)(y, a, b)
        velocity = PATH.convert(t, y, score, source="score", target="velocity")
        return velocity + 4 * jnp.sin(jnp.pi * t) ** 2 * self.matrix @ score


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Check that a learned score is not conservative, that this does not cost samples, and why it need not.

    Args:
        key: of all randomness.
        full: training ten times as long and more repetitions. The paper's own networks are trained on images, which is
            not attempted: data are planar in both.

    Returns:
        Three checks.
    """
    data, steps, repeats, count = ring(), *((10_000, 8, 5000) if full else (1200, 2, 2000))
    train_key, test_key, sample_key, gauge_key = jax.random.split(key, 4)
    optimizer, loss = optax.adam(optax.cosine_decay_schedule(2e-3, steps)), denoising_score_matching(PATH)

    def train(model: MLP | _Gradient, key: Key) -> Transport:
        data_key, fit_key = jax.random.split(key)
        rows = data.sample(data_key, 20_000)
        model = fit(loss, model, rows, optimizer=optimizer, steps=steps, batch_size=256, key=fit_key).model
        return Transport(model, PATH, Normal((2,)), Euclidean((2,)), "noise")

    keys = jax.random.split(train_key, repeats)
    networks = [MLP(2, width=64, depth=3, time_features=16, residual=True, key=k) for k in keys]
    free = [train(network, k) for network, k in zip(networks, keys)]
    constrained = [train(_Gradient(network), k) for network, k in zip(networks, keys)]
    return [
        _violated(free[0], constrained[0], data, test_key),
        _as_good({"free network": free, "gradient by construction": constrained}, data, sample_key, count),
        _gauge(data, gauge_key, count, repeats),
    ]


def _violated(free: Transport, gradient: Transport, data: Mixture, key: Key) -> Check:
    t, noise_key, data_key, probe_key = jnp.asarray(0.6), *jax.random.split(key, 3)
    ys = PATH.interpolate(t, jax.random.normal(noise_key, (256, 2)), data.sample(data_key, 256))
    records = {
        name: conservativity(model.score, t, ys, key=probe_key)
        for name, model in (("free network", free), ("gradient by construction", gradient))
    }
    # In decades, of which networks trained apart span several; the estimate of a share of zero may be negative.
    differential = {
        name: np.log10(max(float(r.antisymmetry.value), 10 ** (_ROUNDING - 1))) for name, r in records.items()
    }
    integral = {name: np.log10(float(r.circulation.value / r.quadrature_error)) for name, r in records.items()}
    return Check(
        "A trained network violates both the differential and the integral constraint of a score.",
        "stated in words: both are violated",
        contrasts=[
            Contrast("log10 of the Jacobian's antisymmetric share", differential, "higher", threshold=_ROUNDING),
            Contrast("log10 of the circulation round loops in quadrature errors", integral, "higher", threshold=1.0),
        ],
        moved_from="the same limits, 1e-6 and ten, on scales on which three keys did not resolve shares of decades",
    )


def _as_good(trained: dict[str, list[Transport]], data: Mixture, key: Key, count: int) -> Check:
    """Networks of one size, from the same starts, on the same data, as long: one a gradient, one not."""
    distances: dict[str, list[float]] = {name: [] for name in trained}
    for name, transports in trained.items():
        for transport, k in zip(transports, jax.random.split(key, len(transports))):
            truth_key, sample_key = jax.random.split(k)
            drawn = transport.sample(count, key=sample_key, solver=Solver(rtol=1e-3, atol=1e-3))
            distances[name].append(energy_distance(drawn, data.sample(truth_key, count)))
    return Check(
        "The network that is not conservative samples better than one that is by construction.",
        "stated in words: it performs remarkably well as a generative mechanism, and need not be a gradient",
        contrasts=Contrast("energy distance to the data", distances, "lower"),
        expected=False,
        tried="one key of two networks each: the free network at 0.0011 ± 0.0002, the constrained one at 0.0004 ± "
        "0.0003; both are near what two draws of the data have",
        moved_from="the free network against the normal law of the data's own moments, which any network beats",
    )


def _gauge(data: Mixture, key: Key, count: int, repeats: int) -> Check:
    """The exact score with a third of itself added, turned (which is not conservative) or stretched (which is)."""
    matrices = {"turned": jnp.asarray([[0.0, -0.3], [0.3, 0.0]]), "stretched": 0.3 * jnp.eye(2)}
    test = data.sample(key, 200)
    density = jax.vmap(data.log_density)(test)
    distances: dict[str, list[float]] = {name: [] for name in matrices}
    gaps = {}
    for name, matrix in matrices.items():
        transport = Transport(_Changed(data, matrix), PATH, Normal((2,)), Euclidean((2,)))
        for k in jax.random.split(key, repeats):
            truth_key, sample_key = jax.random.split(k)
            truth = data.sample(truth_key, count)
            distances[name].append(
                energy_distance(transport.sample(count, key=sample_key, solver=Solver(steps=100)), truth)
            )
        gaps[name] = float(jnp.mean(jnp.abs(transport.log_prob(test, solver=Solver(steps=100)).value - density)))
    return Check(
        "A part that is not conservative need not harm the transport of the density.",
        "stated in words, with a proof",
        contrasts=[
            Contrast("energy distance to the data", distances, "lower", threshold=0.005),
            Contrast("mean error of the log-density, nats", gaps, "lower", threshold=0.05),
        ],
    )


__all__ = ["PAPER", "checks"]

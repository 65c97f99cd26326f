r"""Are We Really Learning the Score Function? Diffusion models reinterpreted as Wasserstein gradient flow matching.

Two networks learn the noise of a ring of Gaussians: one free, one the gradient of a scalar and so conservative by
construction. A last claim needs no network: with $A$ antisymmetric, $\nabla\cdot(p\,A\nabla\log p) = 0$, so that the
exact score plus $A$ times itself is no gradient and yet leaves every marginal where it was.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...diagnose import Conservativity, conservativity
from ...fields import MLP
from ...follow import Solver, fit
from ...spaces import Euclidean
from ...transport import (
    Normal,
    Transport,
    VariancePreserving,
    denoising_score_matching,
)
from .._problems._mixture import (
    Mixture,
    energy_distance,
    ring,
    spread,
)
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

    pairs = []
    for k in jax.random.split(train_key, repeats):
        network = MLP(2, width=64, depth=3, time_features=16, residual=True, key=k)
        pairs.append((train(network, k), train(_Gradient(network), k)))
    return [
        _violated(*pairs[0], data, test_key),
        _as_good(pairs, data, sample_key, count),
        _gauge(data, gauge_key, count, repeats),
    ]


def _violated(free: Transport, gradient: Transport, data: Mixture, key: Key) -> Check:
    t, noise_key, data_key, probe_key = jnp.asarray(0.6), *jax.random.split(key, 3)
    ys = PATH.interpolate(t, jax.random.normal(noise_key, (256, 2)), data.sample(data_key, 256))
    ours, other = (conservativity(m.score, t, ys, key=probe_key) for m in (free, gradient))

    def fails(record: Conservativity) -> bool:
        differential = record.antisymmetry.value > 1e-6 + 3 * record.antisymmetry.standard_error
        return bool(differential and record.circulation.value > 10 * record.quadrature_error)

    def words(record: Conservativity) -> str:
        share, work = record.antisymmetry, record.net_work
        return (
            f"antisymmetric share {float(share.value):.1e} ± {float(share.standard_error):.1e}, "
            f"net work round loops {float(work.value):.1e} ± {float(work.standard_error):.1e}"
        )

    return Check(
        statement="A trained network violates both the differential and the integral constraint of a score.",
        stated="stated in words: both are violated",
        measured=words(ours),
        criterion="antisymmetric share of the Jacobian above rounding (1e-6) by three standard errors, and circulation "
        "above ten times its quadrature error",
        holds=fails(ours) and not fails(other),
        baseline=f"a network that is a gradient by construction: {words(other)}",
    )


def _as_good(pairs: list[tuple[Transport, Transport]], data: Mixture, key: Key, count: int) -> Check:
    ours: list[float] = []
    constrained: list[float] = []
    moments: list[float] = []
    for (free, gradient), k in zip(pairs, jax.random.split(key, len(pairs))):
        truth_key, sample_key = jax.random.split(k)
        truth = data.sample(truth_key, count)
        for found, transport in ((ours, free), (constrained, gradient)):
            found.append(
                energy_distance(transport.sample(count, key=sample_key, solver=Solver(rtol=1e-3, atol=1e-3)), truth)
            )
        # The score of the normal law with the data's own moments: a perfect gradient, and the wrong one.
        scale = jnp.sqrt(jnp.mean(jnp.square(data.means)) + data.scale**2)
        moments.append(energy_distance(scale * jax.random.normal(sample_key, (count, 2)), truth))
    (distance, error), (other, other_error), (wrong, wrong_error) = spread(ours), spread(constrained), spread(moments)
    return Check(
        statement="The network that is not conservative samples well; to be conservative is not enough to do so.",
        stated="stated in words: it performs remarkably well as a generative mechanism",
        measured=f"energy distance {distance:.4f} ± {error:.4f} ({len(pairs)} trainings); the network "
        f"constrained to be a gradient, after as many steps, {other:.4f} ± {other_error:.4f}",
        criterion="energy distance at most a tenth of the baseline's",
        holds=bool(distance < 0.1 * wrong),
        baseline=f"a conservative field of the data's mean and covariance alone: {wrong:.4f} ± {wrong_error:.4f}",
    )


def _gauge(data: Mixture, key: Key, count: int, repeats: int) -> Check:
    turn, stretch = jnp.asarray([[0.0, -0.3], [0.3, 0.0]]), 0.3 * jnp.eye(2)
    turned, stretched = (Transport(_Changed(data, m), PATH, Normal((2,)), Euclidean((2,))) for m in (turn, stretch))
    t, exact = jnp.asarray(0.6), data.transport(PATH)
    ys = PATH.interpolate(t, *(f(key, 128) for f in (lambda k, n: jax.random.normal(k, (n, 2)), data.sample)))
    share = conservativity(lambda t, y, args: (jnp.eye(2) + turn) @ exact.score(t, y), t, ys, key=key).antisymmetry
    right: list[float] = []
    wrong: list[float] = []
    for k in jax.random.split(key, repeats):
        truth_key, sample_key = jax.random.split(k)
        truth = data.sample(truth_key, count)
        for found, transport in ((right, turned), (wrong, stretched)):
            found.append(energy_distance(transport.sample(count, key=sample_key, solver=Solver(steps=100)), truth))
    test = data.sample(key, 200)
    density = jax.vmap(data.log_density)(test)
    gaps = [
        float(jnp.mean(jnp.abs(m.log_prob(test, solver=Solver(steps=100)).value - density)))
        for m in (turned, stretched)
    ]
    (distance, error), (other, other_error) = spread(right), spread(wrong)
    return Check(
        statement="A part that is not conservative need not harm the transport of the density.",
        stated="stated in words, with a proof",
        measured=f"exact score turned by a third of itself (antisymmetric share {float(share.value):.2f}): energy "
        f"distance {distance:.4f} ± {error:.4f}, log-density off by {gaps[0]:.3f} nats",
        criterion="energy distance below 0.005 and mean error of the log-density below 0.05 nats",
        holds=bool(distance < 0.005 <= other and gaps[0] < 0.05 <= gaps[1]),
        baseline=f"stretched by as much, which is conservative: {other:.4f} ± {other_error:.4f}, {gaps[1]:.3f} nats",
    )


__all__ = ["PAPER", "checks"]

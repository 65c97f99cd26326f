"""Gauge freedom in diffusion models: which part of a score's error does harm, and to what."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..._core import Field, Key
from ...diagnose import gauge, intrinsic_dimension
from ...follow import Solver
from ...transport import VariancePreserving
from .._contrast import Contrast
from .._problems._mixture import Mixture, energy_distance, ring, score_transport
from .._records import Check, Paper

PAPER = Paper(
    slug="gauge-freedom",
    title="On gauge freedom, conservativity and intrinsic dimensionality estimation in diffusion models",
    year=2024,
    link="https://arxiv.org/abs/2402.03845",
    rooms=("diagnose",),
    row=22,
    read="abstract",
)

_TURN = jnp.array([[0.0, -1.0], [1.0, 0.0]])
# What is added to the score s: this matrix times s.
_ERRORS = {
    "exact": jnp.zeros((2, 2)),
    "gauge": _TURN,
    "mirror": jnp.array([[1.0, 0.0], [0.0, -1.0]]),
    "stretched": jnp.eye(2),
}
_MOMENT = 0.7
_SIGMA = 0.05
_SPIN = 300.0


def checks(key: Key, *, full: bool = False) -> list[Check]:
    r"""Give exact scores errors of one size and different kinds, and see what each spoils.

    The remainder is :math:`r = S\nabla\log p` with S antisymmetric: of any density it satisfies
    :math:`\nabla\cdot r + r\cdot\nabla\log p = 0`. The baseline :math:`M\nabla\log p` with a mirror M is as long at
    every point. The data are a ring of eight normal distributions in the plane, and for the dimension a normal
    distribution on a disc in space; both with their scores in closed form, so that no training blurs the claim. The
    paper's trained networks, Swiss roll and sphere are not run.

    Args:
        key: of all randomness.
        full: five times the samples.

    Returns:
        Four checks.
    """
    count = 10_000 if full else 2000
    keys = jax.random.split(key, 4)
    mixture, path = ring(), VariancePreserving()

    def score(t: Array, y: Array, args: Array) -> Array:
        a, b, _, _ = path.coefficients(t)
        exact = jax.grad(mixture.log_density)(y, a, b)
        return exact + args @ exact

    transport = score_transport(score, path, 2)
    data, fresh = jnp.split(jax.jit(lambda k: mixture.sample(k, 2 * count))(keys[0]), 2)
    floor = energy_distance(fresh, data)
    # All four in one call, with the error as the condition: one program for method and baselines.
    drawn = transport.sample(
        4 * count, key=keys[1], args=_rows(list(_ERRORS.values()), count), solver=Solver(steps=100)
    )
    distances = {name: energy_distance(part, data) for name, part in zip(_ERRORS, jnp.split(drawn, 4))}

    scored = data[:20]
    truth = jax.jit(jax.vmap(lambda y: mixture.log_density(y)))(scored)
    density = transport.log_prob(
        jnp.tile(scored, (2, 1)), _rows([_ERRORS["gauge"], _ERRORS["mirror"]], 20), solver=Solver(rtol=1e-4, atol=1e-4)
    ).value
    # In decades, of which the mirror's errors span several.
    errors = dict(zip(("gauge", "mirror"), jnp.log10(jnp.mean(jnp.abs(density.reshape(2, 20) - truth[None]), axis=1))))

    curls, harms = _split(mixture, path, score, 4 * count, keys[2])
    dimension = _dimensions(50 * count, keys[3])

    def sampled(baseline: str) -> Contrast:
        above = {name: distances[name] - floor for name in ("gauge", baseline)}
        return Contrast("energy distance above that of two samples of the data", above, "lower", threshold=0.01)

    return [
        Check(
            "A remainder that satisfies the gauge condition leaves sampling exact.",
            "proved",
            contrasts=sampled("mirror"),
        ),
        Check(
            "It leaves the density exact.",
            "proved",
            contrasts=Contrast(
                "log10 of the mean absolute error of the log-density in nats", errors, "lower", threshold=-1.3
            ),
            moved_from="0.05 nats, the same limit on a scale on which three keys did not resolve errors of decades",
        ),
        Check(
            "To be conservative is neither necessary nor sufficient (a stretched score is); that the conservative part "
            "be the score is both.",
            "proved",
            contrasts=[
                Contrast("harmful error, of the score's square", harms, "lower", threshold=0.05),
                sampled("stretched"),
                Contrast(
                    "antisymmetry, of which a conservative field has none", curls, "lower", threshold=1e-3, margin=0.1
                ),
            ],
        ),
        Check(
            "The intrinsic dimension (2) must be read from a conservative field, not from one that draws the same.",
            "stated in words",
            contrasts=[
                Contrast(f"error of the dimension by its {by}", dimension[by], "lower", threshold=0.25)
                for by in ("slope", "spectrum")
            ],
        ),
    ]


def _rows(matrices: list[Array], count: int) -> Array:
    return jnp.repeat(jnp.stack(matrices), count, axis=0)


def _split(
    mixture: Mixture, path: VariancePreserving, score: Field, count: int, key: Key
) -> tuple[dict[str, float], dict[str, float]]:
    """Antisymmetry, and the share of the difference from the score that moves probability, at one time."""

    @jax.jit
    def draw(key: Key) -> Array:
        keys = jax.random.split(key)
        data = mixture.sample(keys[0], count)
        return path.interpolate(jnp.asarray(_MOMENT), jax.random.normal(keys[1], data.shape), data)

    states = draw(key)

    def exact(t: Array, y: Array, args: Array) -> Array:
        return score(t, y, jnp.zeros((2, 2)))

    @jax.jit
    def curl(ys: Array, args: Array) -> Array:
        jacobians = jax.vmap(lambda y: jax.jacfwd(score, 1)(jnp.asarray(_MOMENT), y, args))(ys)
        return jnp.mean((jacobians - jacobians.mT) ** 2) / 4 / jnp.mean(jacobians**2)

    harms = {}
    for name in ("gauge", "stretched"):
        split = gauge(score, _MOMENT, states, _ERRORS[name], reference=exact, waves=64, key=key)
        assert split.harmful is not None
        harms[name] = float(split.harmful.value)
    return {name: float(curl(states[:200], _ERRORS[name])) for name in ("stretched", "gauge")}, harms


def _dimensions(count: int, key: Key) -> dict[str, dict[str, float]]:
    """Errors of both readings for a disc in space, of a spinning score and of its conservative part."""
    keys = jax.random.split(key, 2)
    variances = jnp.array([1.0, 1.0, 0.0])
    clean = jnp.sqrt(variances)[None] * jax.random.normal(keys[0], (count, 3))
    noisy = clean + _SIGMA * jax.random.normal(keys[1], (count, 3))
    spin = _SPIN * jnp.zeros((3, 3)).at[:2, :2].set(_TURN)

    def whole(t: Array, y: Array, args: None) -> Array:
        score = -y / (variances + _SIGMA**2)
        return score + spin @ score

    potential = gauge(whole, 0.0, noisy, waves=8, key=key).potential

    def part(t: Array, y: Array, args: None) -> Array:
        return jax.grad(potential)(y)

    errors: dict[str, dict[str, float]] = {"slope": {}, "spectrum": {}}
    for name, field in (("conservative part", part), ("the field itself", whole)):
        record = intrinsic_dimension(field, 0.0, clean[:200], sigma=_SIGMA)
        assert record.spectral is not None
        errors["slope"][name] = abs(float(record.dimension.value) - 2)
        errors["spectrum"][name] = abs(float(record.spectral.value) - 2)
    return errors


__all__ = ["PAPER", "checks"]

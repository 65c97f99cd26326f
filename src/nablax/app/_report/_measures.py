"""What a report says in numbers: likelihoods beside the baselines, features for distances, the field on its path."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import diagnose
from ...follow import Solver
from .._ask._draw import draw
from .._ask._score import Scores
from .._data._codec import Codec
from .._kinds._quantity import AbstractQuantity
from .._runs._run import Model
from ._baselines import (
    Baseline,
    Likelihood,
    gaussian_mixture,
    kernel_density,
    likelihood,
)
from ._evidence import ConservativityCurve, PathEnergy, SolverCurve

_FIELD = 128  # samples at which the field itself is looked at
_SOLVER_STEPS = (2, 4, 8, 16, 32)
_REFERENCE_STEPS = 128
_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
_MANY = 40  # states of a column that the baselines do not model jointly with the others


def likelihoods(
    model: Model, scores: Scores, given: Scores | None, train: np.ndarray, base: np.ndarray, seed: int
) -> list[Likelihood]:
    """The model beside the baselines, all on the same dequantised rows."""
    key = jax.random.key(seed)
    found = [likelihood_of(model, "this model", scores.log_likelihood)]
    if given is not None:
        names = ", ".join(model.codec.condition)
        score_given = likelihood_of(model, f"this model, given {names}", given.log_likelihood)
        found.append(dataclasses.replace(score_given, baseline=False))
    codec, apart = model.codec, np.zeros(len(base))
    if isinstance(codec, Codec):
        codec, train, base, apart = _without_many(codec, train, base)
    y_train, _ = codec.dequantise(jnp.asarray(train), jax.random.fold_in(key, 0))
    y, correction = codec.dequantise(jnp.asarray(base), jax.random.fold_in(key, 1))
    flat_train, flat = (np.asarray(part, np.float64).reshape(len(part), -1) for part in (y_train, y))
    baselines: list[Baseline] = [fit(flat_train, flat, seed=seed) for fit in (gaussian_mixture, kernel_density)]
    for baseline in baselines:
        nats = baseline.log_density + np.asarray(correction, np.float64) + apart
        found.append(likelihood_of(model, baseline.name, nats, baseline.note))
    return found


def _without_many(
    codec: Codec, train: np.ndarray, base: np.ndarray
) -> tuple[Codec, np.ndarray, np.ndarray, np.ndarray]:
    """The table without its columns of many states, which no mixture fits, and what their shares alone give."""
    many = np.array([kind.states > _MANY for kind in codec.modelled])
    if not many.any() or many.all():
        return codec, train, base, np.zeros(len(base))
    nats = np.zeros(len(base))
    for j in np.flatnonzero(many):
        counts = np.bincount(train[:, j, 0].astype(np.int64), minlength=codec.modelled[j].states) + 0.5
        states = base[:, j, 0].astype(np.int64)
        nats += np.where(states >= 0, np.log(counts / counts.sum())[states], -np.inf)
    few = tuple(kind for kind in codec.columns if kind.states <= _MANY)
    return dataclasses.replace(codec, columns=few), train[:, ~many], base[:, ~many], nats


def likelihood_of(model: Model, name: str, nats: np.ndarray, note: str = "") -> Likelihood:
    """Nats of rows as a score in the unit of the model's report."""
    unit: Any = "bits/dim" if model.config.kind == "images" else "nats per row"
    return likelihood(name, nats, unit=unit, dimension=model.codec.cells, note=note)


def features(model: Model, base: np.ndarray) -> np.ndarray:
    """Encoded rows as numbers that distances make sense of: categories become indicators."""
    if model.config.kind == "images":
        return np.asarray(base, np.float64).reshape(len(base), -1)
    parts = []
    for j, kind in enumerate(model.table("features").modelled):
        state, value = (np.asarray(base[:, j, part], np.float64) for part in (0, 1))
        if isinstance(kind, AbstractQuantity):
            # An atom lies where its number does.
            parts.append(kind.place(state, value)[:, None])
            continue
        indicators = (state[:, None] == np.arange(kind.levels)).astype(np.float64)
        gone = (state < 0) | (state >= kind.levels)
        parts.append(np.where(gone[:, None], np.nan, indicators))
    return np.concatenate(parts, axis=1)


def solver_curve(model: Model, condition: np.ndarray, seed: int) -> SolverCurve:
    """Error against evaluations of the field: Heun's method from the same noise, beside a much finer solution."""
    count = min(len(condition), 256)
    given = condition[:count]

    def by_steps(steps: int) -> np.ndarray:
        # As an array, so that one compiled program takes any number of steps.
        return draw(model, count, seed=seed, condition=given, solver=Solver(steps=jnp.asarray(steps)))

    reference = by_steps(_REFERENCE_STEPS)
    scale = float(np.std(reference))

    def error(samples: np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.square(samples - reference))) / scale)

    errors = [error(by_steps(steps)) for steps in _SOLVER_STEPS]
    adaptive = error(draw(model, count, seed=seed, condition=given))
    return SolverCurve(
        evaluations=2 * np.array(_SOLVER_STEPS), error=np.array(errors), chosen=None, chosen_error=adaptive
    )


def conservativity(model: Model, base: np.ndarray, condition: np.ndarray, seed: int) -> ConservativityCurve:
    """Antisymmetry of the velocity's Jacobian and loop integrals, where the path's states are."""
    path, key = model.transport.path, jax.random.key(seed)
    y, args = model.points(jnp.asarray(base[:_FIELD]), jnp.asarray(condition[:_FIELD]), key)
    noise = jax.random.normal(jax.random.fold_in(key, 1), y.shape, y.dtype)
    ratios, errors, loops, loop_errors = [], [], [], []
    for number, t in enumerate(_TIMES):
        states = path.interpolate(jnp.asarray(t, y.dtype), noise, y)
        found = diagnose.conservativity(
            model.transport.velocity, jnp.asarray(t, y.dtype), states, args, key=jax.random.fold_in(key, 2 + number)
        )
        ratios.append(found.antisymmetry.value)
        errors.append(found.antisymmetry.standard_error)
        loops.append(found.net_work.value)
        loop_errors.append(found.net_work.standard_error)
    return ConservativityCurve(
        times=np.array(_TIMES),
        ratio=np.array(ratios, np.float64),
        standard_error=np.array(errors, np.float64),
        loop_integral=float(np.mean(loops)),
        loop_integral_standard_error=float(np.sqrt(np.sum(np.square(loop_errors))) / len(loops)),
    )


def path_energy(model: Model, condition: np.ndarray, seed: int) -> PathEnergy:
    """How far and how straight the field carries noise to samples."""
    transport = model.transport
    keys = jax.random.split(jax.random.key(seed + 1), min(_FIELD, len(condition)))
    y0s = jax.vmap(transport.prior.sample)(keys)
    args = model.arguments(condition[: len(keys)])
    first, last = transport.path.times
    found = diagnose.path_geometry(transport.velocity, y0s, args, t0=first, t1=last, steps=32)
    return PathEnergy(
        energy=float(found.energy.value),
        energy_standard_error=float(found.energy.standard_error),
        straightness=float(found.relative_straightness.value),
        straightness_standard_error=float(found.relative_straightness.standard_error),
    )


__all__ = ["conservativity", "features", "likelihood_of", "likelihoods", "path_energy", "solver_curve"]

"""The field itself: how finely it must be followed, how far it is from a gradient, how straight it runs."""

import jax
import jax.numpy as jnp
import numpy as np

from ... import diagnose
from ...follow import Solver
from .._ask._draw import draw
from .._key import random_key
from .._model._along import STEPS
from .._runs._run import Model
from ._evidence import ConservativityCurve, PathEnergy, SolverCurve

_FIELD = 128  # samples at which the field is looked at
_TOLERANCE = 1e-4  # of every sampler here
_SOLVER_STEPS = (2, 4, 8, 16, 32)
_REFERENCE_STEPS = 128
_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


def drawn_twice(model: Model, condition: np.ndarray, seed: int) -> tuple[np.ndarray, SolverCurve]:
    """Samples, and what they are off by for want of solver steps, from the same noise.

    Those of images are compared with finer ones, at a tenth of the tolerances; those of a table with coarser ones, of
    half as many steps, which differ by more than the samples are off.

    Args:
        model: the opened run.
        condition: condition vectors, one a sample.
        seed: of the noise.

    Returns:
        float32 [n, ...] samples under the run's guidance, and a curve that holds their error alone.
    """
    scale = float(model.config.choices["guidance_scale"])

    def at(tolerance: float) -> np.ndarray:
        # As an array, so that one compiled program serves every tolerance.
        tolerances = jnp.asarray(tolerance, jnp.float32)
        solver = Solver(rtol=tolerances, atol=tolerances)
        return draw(model, len(condition), seed=seed, condition=condition, scale=scale, solver=solver)

    if model.joint is None:
        y, other = at(_TOLERANCE), at(_TOLERANCE / 10)
    else:
        y, other = (
            draw(model, len(condition), seed=seed, condition=condition, steps=steps) for steps in (STEPS, STEPS // 2)
        )
    error = float(np.sqrt(np.mean(np.square(y - other))) / np.std(other))
    return y, SolverCurve(np.zeros(0, int), np.zeros(0), chosen=None, chosen_error=error)


def solver_curve(model: Model, condition: np.ndarray, seed: int) -> SolverCurve:
    """Error against evaluations of the field, from the same noise, beside a much finer solution.

    By Heun's method for images, and by the method that draws a table's samples for tables.
    """
    count = min(len(condition), 256)
    given, table = condition[:count], model.joint is not None
    every = 4 if table else 2  # evaluations in a step

    def by_steps(steps: int) -> np.ndarray:
        # As an array, so that one compiled program takes any number of steps.
        if table:
            return draw(model, count, seed=seed, condition=given, steps=steps)
        return draw(model, count, seed=seed, condition=given, solver=Solver(steps=jnp.asarray(steps)))

    reference = by_steps(_REFERENCE_STEPS)
    scale = float(np.std(reference))

    def error(samples: np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.square(samples - reference))) / scale)

    steps = [2 * number // every for number in _SOLVER_STEPS]
    errors = [error(by_steps(number)) for number in steps]
    chosen = error(draw(model, count, seed=seed, condition=given))
    return SolverCurve(evaluations=every * np.array(steps), error=np.array(errors), chosen=None, chosen_error=chosen)


def conservativity(model: Model, base: np.ndarray, condition: np.ndarray, seed: int) -> ConservativityCurve:
    """Antisymmetry of the velocity's Jacobian and loop integrals, where the path's states are."""
    path, key = model.transport.path, random_key(seed)
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
    keys = jax.random.split(random_key(seed + 1), min(_FIELD, len(condition)))
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


__all__ = ["conservativity", "drawn_twice", "path_energy", "solver_curve"]

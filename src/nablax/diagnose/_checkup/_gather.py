"""The signs of a check-up, taken from the records of its parts."""

import math
from typing import Any

import numpy as np

from ._conflicts import Conflicts
from ._layers import LayerHealth
from ._noise_scale import NoiseScale
from ._rehearsal import Rehearsal
from ._sharpness import Sharpness
from ._signs import Signs
from ._step import StepQuality
from ._through_time import ThroughTime

# Numbers are kept within this many powers of ten, so that no overflow outweighs all else.
MOST = 30.0


def signs_of(
    *,
    loss: float,
    chance: float | None,
    sharpness: Sharpness,
    step: StepQuality | None,
    rehearsal: Rehearsal | None,
    noise: NoiseScale | None,
    layers: LayerHealth,
    conflicts: Conflicts | None,
    through_time: ThroughTime | None,
    batch_size: int | None,
    fresh: bool,
    unaided: bool,
    growth: float,
) -> Signs:
    """Take them from the parts of a check-up."""
    scale = max(abs(loss), 1e-30) if math.isfinite(loss) else math.nan
    found: dict[str, Any] = dict.fromkeys(Signs._fields, math.nan)
    found["fresh"], found["growth"] = float(fresh), growth
    found["chance"] = math.nan if chance is None else loss / chance
    found["ratio"], found["decay"] = float(sharpness.ratio.value), float(sharpness.decay)
    if step is not None:
        found["change"], found["slope"] = float(step.actual.value) / scale, float(step.slope.value) / scale
        found["surely"] = float(step.actual.value) / max(float(step.actual.standard_error), 1e-12 * scale)
        found["holds"], found["furthest"] = float(step.holds), float(step.best)
        found["lost"], found["radius"] = float(step.lost), float(step.radius)
    if rehearsal is not None:
        found["rise"], found["best"], found["gain"] = rehearsal.change(), rehearsal.best, rehearsal.gain
        own = np.asarray(rehearsal.own, float)
        first, middle, last = own[0], own[len(own) // 2], own[-1]
        found["heart"] = (last - first) / scale if math.isfinite(last) else math.inf
        found["late"] = (last - middle) / scale if math.isfinite(last) else math.inf
    if noise is not None and batch_size is not None:
        rows = float(noise.preconditioned.value) if noise.resolved else noise.at_least
        found["noise"], found["tail"] = rows / batch_size, float(noise.tail)
    found |= _of_layers(layers, rehearsal, scale)
    if unaided and step is not None:
        found["uphill"] = _cosine(float(step.slope.value), layers)
    if conflicts is not None:
        found["cosine"], found["paying"] = conflicts.lowest(), float(len(conflicts.paying()) > 0)
    if through_time is not None:
        found["decades"] = through_time.decades
    return Signs(**{name: _within(value) for name, value in found.items()})


def _within(value: float) -> float:
    limit = 10**MOST
    return float(np.clip(value, -limit, limit))


def _cosine(slope: float, layers: LayerHealth) -> float:
    """Between step and gradient."""
    sizes = np.array([math.prod(shape) for shape in layers.shapes], float)
    squares = [np.sum(np.asarray(part, np.float64) ** 2 * sizes) for part in (layers.gradient, layers.update)]
    return slope / math.sqrt(max(squares[0] * squares[1], 1e-300))


def _says_nothing(rehearsal: Rehearsal, before: np.ndarray, after: np.ndarray) -> bool:
    """Whether what has no gradient after the rehearsal may live at another rate: it blew up, or all came to rest."""
    blown = not float(rehearsal.own[-1]) <= float(rehearsal.own[0])
    return blown or (bool((before > 0).any()) and not (after > 0).any())


def _of_layers(layers: LayerHealth, rehearsal: Rehearsal | None, scale: float) -> dict[str, float]:
    sizes = np.array([math.prod(shape) for shape in layers.shapes], float)
    weight, gradient, update = (
        np.asarray(part, np.float64) for part in (layers.weight, layers.gradient, layers.update)
    )
    matrix = np.array([len(shape) >= 2 for shape in layers.shapes]) & (weight > 0)
    elastic = weight * gradient * sizes / scale
    moving = ~(update == 0) | (gradient > 0)
    after = np.zeros_like(gradient) if rehearsal is None else np.asarray(rehearsal.gradient, np.float64)
    if rehearsal is not None and _says_nothing(rehearsal, gradient, after):
        after = np.full_like(gradient, np.inf)
    silent = (gradient == 0) & ~(after > 0)
    cut, mute = silent & moving, silent & ~moving & bool(layers.unfelt)
    alive = gradient[np.isfinite(gradient) & (gradient > 0)]
    return {
        "elasticity": float(np.max(elastic[matrix], initial=0.0)) if matrix.any() else math.nan,
        "faint": float(alive.min() / np.quantile(alive, 0.5, method="higher")) if len(alive) else math.nan,
        "loud": float(alive.max() / np.quantile(alive, 0.5, method="lower")) if len(alive) else math.nan,
        "dead": layers.dead_share(),
        "cut": float(sizes[cut].sum() / max(sizes[moving].sum(), 1.0)),
        "mute": float(sizes[mute].sum() / max(sizes[moving | mute].sum(), 1.0)),
        "moved": float(np.max((update / np.maximum(weight, 1e-30))[matrix], initial=0.0)),
    }

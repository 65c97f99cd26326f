"""What levels and risk are judged from: a few numbers of a check-up, each without unit."""

import math
from typing import Any, NamedTuple

import numpy as np

from ._conflicts import Conflicts
from ._layers import LayerHealth
from ._noise_scale import NoiseScale
from ._rehearsal import Rehearsal
from ._sharpness import Sharpness
from ._step import StepQuality
from ._through_time import ThroughTime

# Logarithms and shares are kept within this, so that no overflow outweighs all else.
MOST = 30.0


class Signs(NamedTuple):
    """Numbers without unit; NaN where not known.

    Attributes:
        chance: loss over that of a model that knows nothing.
        ratio: top eigenvalue over the threshold.
        step: change of the loss by the step, as a share of the loss.
        surely: the same change over its standard error.
        holds: multiple of the step up to which its quadratic model holds.
        furthest: tested multiple of the step with the lowest loss.
        rise: change of the loss over the rehearsal, as a share of the loss.
        peak: highest loss of the rehearsal above its first, as a share.
        turn: how far the loss ends above the lowest of the rehearsal, as a share.
        best: multiple of the rate that rehearses best.
        gain: by how much lower the loss ends there, as a share.
        noise: noise scale over batch size; its lower bound where noise hides it.
        tail: longest gradient of a row over the median one.
        elasticity: of matrices that are not zero, the largest relative change of the loss by a relative change.
        faint: smallest gradient of a parameter over the median one, and
        loud: the largest.
        dead: largest share of dead units in a layer.
        cut: share of the elements that are to move which get no gradient, now or after the rehearsal.
        moved: largest change of a matrix by the step, relative to it.
        cosine: the lowest between gradients of losses that is resolved.
        paying: whether the step raises one of these.
        lost: share of the step that rounding takes.
        decades: of the loss's sensitivity to the first position of a sequence over that to the last.
        decay: share of the threshold that decay takes.
        slope: of the loss along the step, as a share of the loss.
        radius: of the softmax's series, in steps.
    """

    chance: float
    ratio: float
    step: float
    surely: float
    holds: float
    furthest: float
    rise: float
    peak: float
    turn: float
    best: float
    gain: float
    noise: float
    tail: float
    elasticity: float
    faint: float
    loud: float
    dead: float
    cut: float
    moved: float
    cosine: float
    paying: float
    lost: float
    decades: float
    decay: float
    slope: float
    radius: float


def signs(
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
) -> Signs:
    """Take them from the parts of a check-up."""
    scale = max(abs(loss), 1e-30) if math.isfinite(loss) else math.nan
    found: dict[str, Any] = dict.fromkeys(Signs._fields, math.nan)
    found["chance"] = math.nan if chance is None else loss / chance
    found["ratio"], found["decay"] = float(sharpness.ratio.value), float(sharpness.decay)
    if step is not None:
        found["step"], found["slope"] = float(step.actual.value) / scale, float(step.slope.value) / scale
        found["surely"] = float(step.actual.value) / max(float(step.actual.standard_error), 1e-12 * scale)
        found["holds"], found["furthest"] = float(step.holds), float(step.best)
        found["lost"], found["radius"] = float(step.lost), float(step.radius)
    if rehearsal is not None:
        found["rise"], found["best"], found["gain"] = rehearsal.rise, rehearsal.best, rehearsal.gain
        losses = np.asarray(rehearsal.losses, float)
        finite = bool(np.isfinite(losses).all())
        found["peak"] = (float(losses.max()) - loss) / scale if finite else math.inf
        found["turn"] = (float(rehearsal.ends[0]) - float(losses.min())) / scale if finite else math.inf
    if noise is not None and batch_size is not None:
        rows = float(noise.preconditioned.value) if noise.resolved else noise.at_least
        found["noise"], found["tail"] = rows / batch_size, float(noise.tail)
    found |= _of_layers(layers, rehearsal, scale)
    if conflicts is not None:
        found["cosine"], found["paying"] = conflicts.lowest(), float(len(conflicts.paying()) > 0)
    if through_time is not None:
        found["decades"] = through_time.decades
    return Signs(**{name: _within(value) for name, value in found.items()})


def _within(value: float) -> float:
    limit = 10**MOST
    return float(np.clip(value, -limit, limit))


def _of_layers(layers: LayerHealth, rehearsal: Rehearsal | None, scale: float) -> dict[str, float]:
    sizes = np.array([math.prod(shape) for shape in layers.shapes], float)
    weight, gradient, update = (
        np.asarray(part, np.float64) for part in (layers.weight, layers.gradient, layers.update)
    )
    matrix = np.array([len(shape) >= 2 for shape in layers.shapes]) & (weight > 0)
    elastic = weight * gradient * sizes / scale
    moving = ~(update == 0) | (gradient > 0)
    after = np.zeros_like(gradient) if rehearsal is None else np.asarray(rehearsal.gradient, np.float64)
    silent = moving & (gradient == 0) & ~(after > 0)
    alive = gradient[np.isfinite(gradient) & (gradient > 0)]
    return {
        "elasticity": float(np.max(elastic[matrix], initial=0.0)) if matrix.any() else math.nan,
        "faint": float(alive.min() / np.quantile(alive, 0.5, method="higher")) if len(alive) else math.nan,
        "loud": float(alive.max() / np.quantile(alive, 0.5, method="lower")) if len(alive) else math.nan,
        "dead": layers.dead_share(),
        "cut": float(sizes[silent].sum() / max(sizes[moving].sum(), 1.0)),
        "moved": float(np.max((update / np.maximum(weight, 1e-30))[matrix], initial=0.0)),
    }

"""What a check-up's numbers mean, in plain words."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from ._conflicts import Conflicts
from ._layers import LayerHealth
from ._noise_scale import NoiseScale
from ._rotation import Rotation
from ._sharpness import Sharpness
from ._step import StepQuality

LEVELS = ("fault", "warning", "note")

# Top eigenvalue over threshold from which the step is called near, or beyond, the edge.
NEAR, BEYOND = 0.8, 1.1
# Noise scale over batch size from which the batch is called small, or far too small; and its inverse for too large.
SMALL, FAR_TOO_SMALL, LARGE = 4.0, 16.0, 16.0
# Cosine between gradients, and ratio of their lengths, from which they are mentioned.
OPPOSED, UNEVEN = -0.1, 10.0
TURNING = 0.1
# Share by which the mean of the rows' losses may miss the loss, where all rows were taken, and where only a part.
MISMATCH, PARTLY = 0.05, 0.5
LISTED = 4


class Finding(NamedTuple):
    """One thing that a check-up has to say.

    Attributes:
        level: "fault" (fix it now), "warning" or "note".
        topic: "not finite", "learning rate", "step", "softmax", "batch", "conflict", "rotation" or "layers".
        text: a sentence or two, with the numbers and what to do.
    """

    level: str
    topic: str
    text: str


def findings(
    *,
    sharpness: Sharpness,
    step: StepQuality | None,
    noise: NoiseScale | None,
    conflicts: Conflicts | None,
    rotation: Rotation | None,
    layers: LayerHealth,
    loss: Float[Array, ""],
    batch_size: int | None,
) -> list[Finding]:
    """All findings of a check-up's parts, the gravest first."""
    broken = layers.not_finite()
    if broken or not np.isfinite(loss):
        where = f": {_list(broken)}" if broken else ""
        text = (
            f"The loss is {float(loss):.4g} and there are numbers that are not finite{where}. Do not make this "
            "step; go back to the last good state, and look at the first parameter named."
        )
        return [Finding("fault", "not finite", text)]
    found = [
        *_learning_rate(sharpness),
        *_step(step),
        *_batch(noise, batch_size, loss),
        *_conflicts(conflicts),
        *_rotation(rotation),
        *_layers(layers, noise),
    ]
    if not any(finding.level != "note" for finding in found):
        found.insert(0, Finding("note", "step", "Nothing here needs mending."))
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def _list(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _learning_rate(part: Sharpness) -> list[Finding]:
    ratio, rate = float(part.ratio.value), float(part.rule.learning_rate)
    if not np.isfinite(ratio) and np.isfinite(part.rule.threshold):
        text = (
            "How near the edge of stability is cannot be said: the curvature is not finite. Look for a square root, a "
            "norm or |x| at 0 (second derivatives), or a curvature too large for the loss's type."
        )
        return [Finding("warning", "learning rate", text)]
    if np.isnan(ratio):
        return [
            Finding("note", "learning rate", f"How near the edge of stability is cannot be said: {part.rule.name()}.")
        ]
    error = "" if np.isnan(part.ratio.standard_error) else f" ± {float(part.ratio.standard_error):.2g}"
    said = f"{ratio:.3g}{error} of the largest that {part.rule.name()} can bear"
    target = "" if np.isnan(rate) else f", from {rate:.3g} to below {rate / ratio:.2g}" if ratio > 0 else ""
    if ratio > BEYOND:
        text = (
            f"The learning rate is too high: curvature times rate is {said}. Divide the rate by {ratio:.2g} or "
            f"more{target}, or warm it up; otherwise the steps overshoot further each time."
        )
        return [Finding("fault", "learning rate", text)]
    if ratio > NEAR:
        text = (
            f"At the edge of stability: curvature times rate is {said}. Full-batch training hovers here; there is no "
            "room for a larger rate."
        )
        return [Finding("warning" if ratio > 1 else "note", "learning rate", text)]
    text = f"Curvature times rate is {said}"
    if ratio > 0:
        text += f"; by curvature alone it could be {float(part.headroom.value):.2g} times higher"
    return [Finding("note", "learning rate", text + ".")]


def _step(part: StepQuality | None) -> list[Finding]:
    if part is None:
        return []
    found = []
    actual, predicted = float(part.actual.value), float(part.predicted.value)
    if not np.isfinite(actual):
        text = (
            f"After this step the loss is {float(part.loss) + actual:.4g}: do not make it. Lower the rate or clip it."
        )
        return [Finding("fault", "step", text)]
    best, holds, lost = float(part.best), float(part.holds), float(part.lost)
    error = float(part.actual.standard_error)
    rounding = 64 * np.finfo(np.asarray(part.loss).dtype).eps * abs(float(part.loss))
    if actual > rounding:
        where = f"of the multiples tried, {best:g} times the step lowers it most" if best else "so does every multiple"
        sure = "fault" if actual > 2 * error else "warning"  # a warning, too, where the error is not known
        text = (
            f"This step raises the loss on its own batch by {actual:.3g}{'' if np.isnan(error) else f' ± {error:.1g}'} "
            f"(the quadratic model said {predicted:+.3g}); {where}."
        )
        found.append(Finding(sure, "step", text))
    elif lost > 0.5:
        text = (
            f"The step is lost in the parameters' rounding: {_percent(lost)} of the elements that it is to change stay "
            "as they are. Keep a float32 copy of the parameters and add the steps to that."
        )
        found.append(Finding("warning", "step", text))
    elif holds < 1:
        model = f"it holds up to {holds:g} of it" if holds else "not even an eighth of it is within the model"
        text = (
            f"The step goes beyond its quadratic model ({model}): predicted {predicted:+.3g}, actual {actual:+.3g}. "
            "Conclusions from curvature are worth little at this step size."
        )
        found.append(Finding("warning", "step", text))
    elif best >= 4:
        text = f"The step is short: along it the loss of this batch is lowest at {best:g} times its length."
        found.append(Finding("note", "step", text))
    radius = float(part.radius)
    if radius < 1:
        text = (
            f"The step is {1 / radius:.3g} times the convergence radius of the softmax's series ("
            f"{_percent(float(part.rows_beyond))} of rows are beyond theirs). Scale it by {radius:.2g} to be safe."
        )
        found.append(Finding("warning", "softmax", text))
    return found


def _batch(part: NoiseScale | None, size: int | None, of_batch: Float[Array, ""]) -> list[Finding]:
    if part is None or size is None:
        return []
    mean, loss = float(part.mean_loss), float(of_batch)
    if part.coupled:
        text = (
            "The losses of rows depend on which other rows are there (batch normalisation, contrast between rows?): a "
            "row has no gradient of its own, so that there is no noise scale, and standard errors are not to be relied "
            "on. Leave these parts out with rows=0."
        )
        return [Finding("warning", "batch", text)]
    if not np.isfinite([mean, float(part.noise.value), float(part.signal.value)]).all():
        text = (
            "There are rows whose loss or gradient by itself is not finite (all masked, 0/0?): nothing can be said of "
            "noise, nor of standard errors. Divide by at least one, leave such rows out, pass example_losses= that are "
            "finite, or rows=0."
        )
        return [Finding("warning", "batch", text)]
    share = MISMATCH if part.rows == part.batch else PARTLY
    if abs(mean - loss) > share * max(abs(mean), abs(loss)):
        text = (
            f"The loss ({loss:.4g}) is not the mean of its rows' losses ({mean:.4g}): noise and standard errors are "
            "not to be relied on. Pass example_losses= whose mean it is, or rows=0 where the rows see one another "
            "(batch normalisation, contrast)."
        )
        return [Finding("warning", "batch", text)]
    value, error = float(part.preconditioned.value), float(part.preconditioned.standard_error)
    suggested = part.suggested
    if not np.isfinite(suggested):
        return []
    if not part.resolved:
        return [_hidden(part, size)]
    said = f"the noise scale is {value:.3g} ± {error:.2g} rows, against {size} rows a step"
    if value > SMALL * size:
        noise = value / size
        text = (
            f"The batch is {'far too small' if value > FAR_TOO_SMALL * size else 'small'}: {said}, so that a step is "
            f"{_percent(noise / (1 + noise))} noise. Up to about {suggested:g} rows, larger batches save nearly as "
            "many steps as they cost rows; with this one lower the rate."
        )
        return [Finding("fault" if value > FAR_TOO_SMALL * size else "warning", "batch", text)]
    if size > LARGE * max(value, 1):
        text = f"The batch could be smaller: {said}; {suggested:g} rows would do nearly as well a step."
        return [Finding("note", "batch", text)]
    return [Finding("note", "batch", f"{said[0].upper()}{said[1:]}.")]


def _hidden(part: NoiseScale, size: int) -> Finding:
    """Of a noise scale that is known by its lower bound only."""
    said = f"the noise scale is at least {part.at_least:.3g}, against {size} rows a step"
    more = f"rows={part.batch}" if part.rows < part.batch else "a larger batch, and batch_size= for that of a step"
    if part.at_least <= size:
        text = f"The noise scale cannot be seen in {part.rows} rows: {said}. Measure with {more} if you want to know."
        return Finding("note", "batch", text)
    text = (
        f"The gradient does not stand out of its noise in {part.rows} rows: {said}. Raise the batch to "
        f"{part.suggested:g} or more, or average over steps (lower rate, more momentum); near the end of training this "
        "is how it has to be."
    )
    if part.rows < size:
        # Fewer rows than a step has may say that more of them pay, but not how badly.
        return Finding("warning", "batch", f"{text} To see it measure with {more}.")
    return Finding("fault" if part.suggested >= 4 * size else "warning", "batch", text)


def _conflicts(part: Conflicts | None) -> list[Finding]:
    if part is None:
        return []
    found = []
    cosines, errors = np.asarray(part.cosines.value), np.asarray(part.cosines.standard_error)
    slopes, changes = np.asarray(part.first_order.value), np.asarray(part.changes)
    slope_errors = np.nan_to_num(np.asarray(part.first_order.standard_error))
    for i in range(len(part.names)):
        for j in range(i):
            if cosines[i, j] > OPPOSED or cosines[i, j] + 2 * np.nan_to_num(errors[i, j]) > 0:
                continue
            known = not np.isnan(errors[i, j])
            paying = [k for k in (i, j) if slopes[k] > 2 * slope_errors[k] and changes[k] > 0]
            text = (
                f"{part.names[j]} and {part.names[i]} pull against one another (cosine {cosines[i, j]:.2f}"
                f"{f' ± {errors[i, j]:.1g}' if known else ', standard error not known'})"
            )
            for k in paying:
                text += f"; this step raises {part.names[k]} by {changes[k]:.3g}"
            text += ". Put an aggregator (UPGrad, PCGrad, MGDA) before the optimiser, so that no step pays with one."
            level = "fault" if paying else "warning"
            found.append(Finding(level if known else "note", "conflict", text))
    norms = np.asarray(part.norms.value)
    if len(norms) and norms.max() > UNEVEN * norms.min():
        most, least = part.names[int(norms.argmax())], part.names[int(norms.argmin())]
        times = f"{norms.max() / norms.min():.3g} times" if norms.min() > 0 else "infinitely many times"
        text = f"The gradient of {most} is {times} that of {least}: {least} hardly counts. Weigh the losses."
        found.append(Finding("warning", "conflict", text))
    return found


def _rotation(part: Rotation | None) -> list[Finding]:
    if part is None:
        return []
    share, error = float(part.share.value), float(part.share.standard_error)
    if share - 2 * error > TURNING:
        text = (
            f"The field that is followed is no gradient: {_percent(share)} of its Jacobian turns. Plain steps spiral; "
            "use extragradient, optimistic or two-time-scale steps."
        )
        return [Finding("warning", "rotation", text)]
    return []


def _layers(part: LayerHealth, noise: NoiseScale | None) -> list[Finding]:
    found = []
    if exploding := part.exploding():
        text = "Exploding: the gradient of " + _list([f"{n} is {r:.2g} times" for n, r in exploding])
        text += " the median parameter's. Look at the scale of the weights between it and the loss."
        found.append(Finding("fault", "layers", text))
    if vanishing := part.vanishing():
        text = "Vanishing: the gradient of " + _list([f"{n} is {r:.1g} times" for n, r in vanishing])
        text += " the median parameter's: it hardly learns."
        found.append(Finding("warning", "layers", text))
    if large := part.large_steps():
        text = "One step changes " + _list([f"{n} by {_percent(r)}" for n, r in large]) + " of its size."
        found.append(Finding("warning", "layers", text))
    dead = part.without_gradient()
    looked = "" if noise is None else f" from any of the {noise.rows} rows looked at"
    whole = [name for name, axis, _, _ in dead if axis < 0]
    if whole:
        text = f"No gradient at all reaches {_list(whole)}{looked}: frozen, unused, or behind dead units."
        found.append(Finding("warning", "layers", text))
    # A vector's elements are units; a slice of a matrix may as well be an input that is always zero.
    shapes = dict(zip(part.names, part.shapes))
    units = [f"{name}: {count} of {of}" for name, axis, count, of in dead if axis >= 0 and len(shapes[name]) == 1]
    if units:
        text = f"Dead units (no gradient{looked}): {_list(units)}. Smaller steps, leaky activations or fresh weights."
        found.append(Finding("warning", "layers", text))
    slices = [
        f"{name}: {count} of {of} on axis {axis}"
        for name, axis, count, of in dead
        if axis >= 0 and len(shapes[name]) > 1
    ]
    if slices:
        text = (
            f"Rows or columns without gradient{looked}: {_list(slices)} (dead units, or inputs that are always zero)."
        )
        found.append(Finding("note", "layers", text))
    return found

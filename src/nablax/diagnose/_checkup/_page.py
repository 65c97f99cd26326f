"""The page of a check-up: its figures in words and pictures, handed to the template."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from ..._pages import Series, heat, markup, plot, render
from ._advice import Finding
from ._conflicts import Conflicts
from ._layers import LayerHealth
from ._noise_scale import NoiseScale
from ._sharpness import Sharpness
from ._step import StepQuality
from ._subspace import Subspace

TEMPLATES = Path(__file__).parent / "templates"


class Cell(NamedTuple):
    """One cell of a table.

    Attributes:
        text: as it is printed.
        bad: whether it stands out.
    """

    text: str
    bad: bool = False


class Table(NamedTuple):
    """A table, its first column left and the others right.

    Attributes:
        head: names of the columns.
        rows: cells of each row.
    """

    head: tuple[str, ...]
    rows: list[list[Cell]]


class Card(NamedTuple):
    """One part of a page; whatever is empty is not shown.

    Attributes:
        title: heading.
        figure: the number to see first.
        small: what that number is.
        said: a sentence or two.
        picture: an SVG, as ``markup``.
        table: a table under it.
    """

    title: str
    figure: str = ""
    small: str = ""
    said: str = ""
    picture: Any = None
    table: Table | None = None


def page(
    findings: list[Finding],
    *,
    sharpness: Sharpness,
    step: StepQuality | None,
    noise: NoiseScale | None,
    subspace: Subspace,
    conflicts: Conflicts | None,
    layers: LayerHealth,
    loss: Float[Array, ""],
    batch_size: int | None,
    notes: tuple[str, ...],
    numbers: str,
) -> str:
    """The page of one check-up: what it says, a card for each part, and all ``numbers`` as text."""
    parts = [
        _edge(sharpness, subspace),
        _step(step),
        _noise(noise, batch_size),
        _spectrum(subspace),
        _conflicts(conflicts),
    ]
    return render(
        TEMPLATES,
        "checkup.html.jinja",
        findings=findings,
        loss=_figure(loss),
        rule=sharpness.rule.name(),
        batch_size=batch_size,
        cards=[part for part in parts if part is not None],
        parameters=_layers(layers),
        notes=notes,
        numbers=numbers,
    )


def _figure(number: object, unit: str = "") -> str:
    value = float(number)  # type: ignore[arg-type]
    return f"{value:.3g}{unit}" if math.isfinite(value) else "–" if math.isnan(value) else "∞"


def _edge(part: Sharpness, subspace: Subspace) -> Card:
    title = "Edge of stability"
    ratio = float(part.ratio.value)
    if math.isnan(ratio):
        return Card(title, "–", said=part.rule.name())
    eigenvalues = np.asarray(subspace.values) / float(part.rule.threshold)
    picture = plot(
        [Series("eigenvalues over threshold", np.arange(1, len(eigenvalues) + 1), eigenvalues, "stems")],
        x_label="eigenvalue, largest first",
        y_label="share of the threshold",
        horizontal=[(1.0, "edge of stability")],
        y_range=(min(0.0, float(eigenvalues.min())), 1.15 * max(1.0, float(eigenvalues.max()))),
    )
    error = "" if np.isnan(part.ratio.standard_error) else f"± {float(part.ratio.standard_error):.2g} "
    small = f"{error}of the threshold; headroom {_figure(part.headroom.value, '×')}"
    said = (
        "Top eigenvalue of rate × Hessian in this optimiser's own metric, over the largest that it can bear. "
        "Below 1 steps settle, above 1 they overshoot."
    )
    return Card(title, f"{ratio:.3g}", small, said, markup(picture))


def _step(part: StepQuality | None) -> Card | None:
    title = "Along the step"
    if part is None:
        return None
    s, changes = np.asarray(part.multiples, float), np.asarray(part.changes, float)
    if not np.isfinite(changes[s <= 1]).all():
        return Card(title, "–", "change of the loss", "The loss is not finite along the step.")
    # Of the far multiples only those are drawn that leave the near ones visible.
    near = np.abs(changes[s <= 1])
    shown = (s <= 1) | (np.abs(changes) <= 12 * max(float(np.max(near)), 1e-30))
    end = float(s[shown].max())
    fine = np.linspace(0, end, 60)
    model = fine * float(part.slope.value) + fine**2 / 2 * float(part.curvature.value)
    marks = [(1.0, "this step")]
    if math.isfinite(part.radius) and float(part.radius) < end:
        marks.append((float(part.radius), "softmax radius"))
    if 0 < float(part.holds) < end:
        marks.append((float(part.holds), "model holds to here"))
    values = np.concatenate([[0.0], changes[shown]])
    low, high = float(np.min(values)), float(np.max(values))
    gap = max(high - low, 1e-30)
    picture = plot(
        [
            Series("quadratic model", fine, model),
            Series("actual", np.concatenate([[0.0], s[shown]]), values, "both"),
        ],
        x_label="multiple of the step",
        y_label="change of the loss",
        vertical=marks,
        y_range=(low - 0.4 * gap, high + 0.4 * gap),
    )
    said = f"The model holds up to {_figure(part.holds)} times the step; "
    said += f"the loss is lowest at {_figure(part.best)} times (of those tried)."
    if not math.isnan(part.radius):
        said += f" Softmax radius: {_figure(part.radius)} steps."
    small = f"change of the loss, predicted {float(part.predicted.value):+.3g}"
    return Card(title, f"{float(part.actual.value):+.3g}", small, said, markup(picture))


def _noise(part: NoiseScale | None, batch_size: int | None) -> Card | None:
    title = "Gradient noise"
    if part is None:
        return None
    if math.isnan(part.at_least):
        return Card(title, "–", "rows: noise scale", "Not known: rows have no gradient of their own that is finite.")
    if not part.resolved:
        hidden = "Not resolved: the gradient does not stand out of its noise in these rows."
        return Card(title, f"≥ {_figure(part.at_least)}", "rows: noise scale, at least", hidden)
    scale, size = float(part.preconditioned.value), batch_size or part.batch
    if not math.isfinite(scale) or scale <= 0:
        return Card(title, _figure(scale))
    sizes = 2.0 ** np.arange(0, 1 + math.ceil(math.log2(max(scale, size, 16) * 4)))
    picture = plot(
        [Series("share of a step that is noise", sizes, scale / (scale + sizes), "line")],
        x_label="batch size (rows)",
        y_label="noise in a step",
        log_x=True,
        vertical=[(size, f"this batch: {size}"), (scale, f"noise scale: {scale:.3g}")],
        y_range=(0.0, 1.0),
    )
    small = f"± {float(part.preconditioned.standard_error):.2g} rows: noise scale in the optimiser's metric"
    said = f"At a batch of this size noise and gradient are alike. Suggested: {part.suggested:g} rows."
    return Card(title, f"{scale:.3g}", small, said, markup(picture))


def _spectrum(part: Subspace) -> Card | None:
    nodes, weights = np.asarray(part.spectrum.nodes[0], float), np.asarray(part.spectrum.weights[0], float)
    if not np.isfinite(nodes).all():
        return None
    width = max(float(np.max(np.abs(nodes))) * 1e-3, 1e-300)
    picture = plot(
        [Series("quadrature of the spectrum", nodes, np.maximum(weights * part.spectrum.dimension, 1e-3), "stems")],
        x_label="eigenvalue of rate × Hessian",
        y_label="eigenvalues there",
        log_y=True,
        x_symlog=width,
    )
    top = part.values.shape[0]
    small = f"of the gradient lies in the top {top} of {part.spectrum.dimension:,} directions"
    said = f"Of the update: {_figure(100 * part.update_share[-1], ' %')}. "
    said += f"The smallest eigenvalue is at most {_figure(part.lowest)}."
    return Card("Spectrum", _figure(100 * part.gradient_share[-1], " %"), small, said, markup(picture))


def _conflicts(part: Conflicts | None) -> Card | None:
    if part is None:
        return None
    rows = [
        [
            Cell(name),
            Cell(_figure(part.values[i])),
            Cell(_figure(part.norms.value[i])),
            Cell(_figure(part.first_order.value[i]), bad=bool(part.first_order.value[i] > 0)),
            Cell(_figure(part.changes[i])),
        ]
        for i, name in enumerate(part.names)
    ]
    return Card(
        "Several losses",
        said="Cosines between their gradients, and what this step does to each.",
        picture=markup(heat(np.asarray(part.cosines.value), part.names)),
        table=Table(("loss", "value", "gradient", "change, first order", "change, actual"), rows),
    )


def _layers(part: LayerHealth) -> Card:
    dead, rows = part.dead_cells(), []
    for i, (name, shape) in enumerate(zip(part.names, part.shapes)):
        weight, gradient, update = (float(x[i]) for x in (part.weight, part.gradient, part.update))
        bad = bool(part.bad_weight[i] or part.bad_gradient[i] or part.bad_update[i])
        share = _figure(100 * update / weight, " %") if weight > 0 else "–"
        texts = ["×".join(map(str, shape)), _figure(weight), _figure(gradient), _figure(update), share, dead[name]]
        rows.append([Cell(f"{name} (not finite)" if bad else name, bad), *map(Cell, texts)])
    head = ("parameter", "shape", "weight", "gradient", "update", "update/weight", "zero gradient")
    return Card("Parameters", said="Root mean square per element.", table=Table(head, rows))

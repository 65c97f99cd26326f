"""The page of a check-up, and of a run of them: plain HTML with pictures."""

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ._figures import Series, heat, plot

if TYPE_CHECKING:
    from ._checkup import Checkup

STYLE = """
:root{color-scheme:light}*{box-sizing:border-box}
body{margin:0;background:#f4f4f1;color:#222;font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1060px;margin:0 auto;padding:28px 20px 60px}h1{font-size:25px;margin:0 0 2px}
h2{font-size:16px;margin:0 0 8px}.sub{color:#666;margin:0 0 18px}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(440px,1fr));gap:16px}
section{overflow-x:auto;background:#fff;border:1px solid #e2e2dc;border-radius:8px;padding:16px 18px}
.wide{margin-top:16px;overflow-x:auto}ul.advice{list-style:none;padding:0;margin:0 0 20px}
ul.advice li{background:#fff;border:1px solid #e2e2dc;border-left:6px solid #999;border-radius:6px;
padding:9px 14px;margin:7px 0}
ul.advice li.fault{border-left-color:#b3261e}ul.advice li.warning{border-left-color:#d08700}
ul.advice li.note{border-left-color:#5b8a5f}ul.advice b{font-weight:600;margin-right:6px}
.figure{font-size:28px;font-weight:600;margin:0;line-height:1.25}
.figure small{font-size:14px;font-weight:400;color:#666}
.say{color:#444;margin:4px 0 10px}svg{width:100%;height:auto;display:block}
table{border-collapse:collapse;width:100%;font-size:13px}
th,td{text-align:right;padding:3px 9px;border-bottom:1px solid #eee;
white-space:nowrap}th{font-weight:600;color:#555;white-space:normal}td:first-child,th:first-child{text-align:left}
td.bad{color:#b3261e;font-weight:600}details{margin-top:16px}
pre{background:#fff;border:1px solid #e2e2dc;border-radius:8px;
padding:14px;overflow-x:auto;font-size:12.5px}
"""


def page(record: "Checkup") -> str:
    """The page of one check-up."""
    worst = record.findings[0].level
    title = {
        "fault": "This step needs mending",
        "warning": "This step can be made better",
        "note": "This step is sound",
    }
    parts = [_edge(record), _step(record), _noise(record), _spectrum(record), _conflicts(record)]
    sections = "".join(f"<section>{part}</section>" for part in parts if part)
    notes = "".join(f"<p class='say'>Not measured: {html.escape(note)}.</p>" for note in record.notes)
    rows = f", {record.batch_size} rows a step" if record.batch_size else ""
    body = (
        f"<h1>{title[worst]}</h1>"
        f"<p class='sub'>Loss {_figure(record.loss)}; {html.escape(record.sharpness.rule.name())}{rows}</p>"
        f"{advice(record)}<div class='grid2'>{sections}</div>"
        f"<section class='wide'>{_layers(record)}</section>{notes}"
        f"<details><summary>All numbers</summary><pre>{html.escape(record.table())}</pre></details>"
    )
    return document("Check-up", body)


def document(title: str, body: str) -> str:
    """A whole page that loads nothing."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><main>{body}</main></body></html>\n"
    )


def advice(record: "Checkup") -> str:
    """The findings as a list."""
    items = "".join(
        f"<li class='{finding.level}'><b>{html.escape(finding.topic.capitalize())}</b>{html.escape(finding.text)}</li>"
        for finding in record.findings
    )
    return f"<ul class='advice'>{items}</ul>"


def _figure(number: object, unit: str = "") -> str:
    value = float(number)  # type: ignore[arg-type]
    return f"{value:.3g}{unit}" if math.isfinite(value) else "–" if math.isnan(value) else "∞"


def _edge(record: "Checkup") -> str:
    part = record.sharpness
    said = (
        "Top eigenvalue of rate × Hessian in this optimiser's own metric, over the largest that it can bear. "
        "Below 1 steps settle, above 1 they overshoot."
    )
    ratio = float(part.ratio.value)
    if math.isnan(ratio):
        return f"<h2>Edge of stability</h2><p class='figure'>–</p><p class='say'>{html.escape(part.rule.name())}</p>"
    eigenvalues = np.asarray(record.subspace.values) / float(part.rule.threshold)
    picture = plot(
        [Series("eigenvalues over threshold", np.arange(1, len(eigenvalues) + 1), eigenvalues, "stems")],
        x_label="eigenvalue, largest first",
        y_label="share of the threshold",
        horizontal=[(1.0, "edge of stability")],
        y_range=(min(0.0, float(eigenvalues.min())), 1.15 * max(1.0, float(eigenvalues.max()))),
    )
    error = "" if np.isnan(part.ratio.standard_error) else f" ± {float(part.ratio.standard_error):.2g}"
    headroom = _figure(part.headroom.value, "×")
    return _card("Edge of stability", f"{ratio:.3g}", f"{error} of the threshold; headroom {headroom}", said) + picture


def _step(record: "Checkup") -> str:
    part = record.step
    if part is None:
        return ""
    s, changes = np.asarray(part.multiples, float), np.asarray(part.changes, float)
    if not np.isfinite(changes[s <= 1]).all():
        return _card("Along the step", "–", "change of the loss", "The loss is not finite along the step.")
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
    predicted = f"change of the loss, predicted {float(part.predicted.value):+.3g}"
    return _card("Along the step", f"{float(part.actual.value):+.3g}", predicted, said) + picture


def _noise(record: "Checkup") -> str:
    part = record.noise
    if part is None:
        return ""
    if not part.signal.value > 0:
        said = "Not resolved: the gradient does not stand out of its noise in these rows."
        return _card("Gradient noise", f"≥ {_figure(part.suggested)}", "rows: noise scale, at least", said)
    scale = max(float(part.noise.value), 0.0) / float(part.signal.value)
    size = record.batch_size or part.batch
    if not math.isfinite(scale) or scale <= 0:
        return f"<h2>Gradient noise</h2><p class='figure'>{_figure(scale)}</p>"
    sizes = 2.0 ** np.arange(0, 1 + math.ceil(math.log2(max(scale, size, 16) * 4)))
    picture = plot(
        [Series("share of a step that is noise", sizes, scale / (scale + sizes), "line")],
        x_label="batch size (rows)",
        y_label="noise in a step",
        log_x=True,
        vertical=[(size, f"this batch: {size}"), (scale, f"noise scale: {scale:.3g}")],
        y_range=(0.0, 1.0),
    )
    error = float(part.preconditioned.standard_error)
    said = f"At a batch of this size noise and gradient are alike. Suggested: {part.suggested:g} rows."
    if not part.resolved:
        said += " Not resolved: the gradient does not stand out of its noise in these rows."
    small = f"± {error:.2g} rows: noise scale in the optimiser's metric"
    return _card("Gradient noise", f"{scale:.3g}", small, said) + picture


def _spectrum(record: "Checkup") -> str:
    part = record.subspace
    nodes, weights = np.asarray(part.spectrum.nodes[0], float), np.asarray(part.spectrum.weights[0], float)
    if not np.isfinite(nodes).all():
        return ""
    width = max(float(np.max(np.abs(nodes))) * 1e-3, 1e-300)
    top = part.values.shape[0]
    picture = plot(
        [Series("quadrature of the spectrum", nodes, np.maximum(weights * part.spectrum.dimension, 1e-3), "stems")],
        x_label="eigenvalue of rate × Hessian",
        y_label="eigenvalues there",
        log_y=True,
        x_symlog=width,
    )
    said = f"Of the update: {_figure(100 * part.update_share[-1], ' %')}. "
    said += f"The smallest eigenvalue is at most {_figure(part.lowest)}."
    small = f"of the gradient lies in the top {top} of {part.spectrum.dimension:,} directions"
    return _card("Spectrum", _figure(100 * part.gradient_share[-1], " %"), small, said) + picture


def _card(title: str, figure: str, small: str, said: str) -> str:
    words = html.escape(small), html.escape(said)
    return f"<h2>{title}</h2><p class='figure'>{figure} <small>{words[0]}</small></p><p class='say'>{words[1]}</p>"


def _conflicts(record: "Checkup") -> str:
    part = record.conflicts
    if part is None:
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{_figure(part.values[i])}</td><td>{_figure(part.norms.value[i])}</td>"
        f"<td class='{'bad' if part.first_order.value[i] > 0 else ''}'>{_figure(part.first_order.value[i])}</td>"
        f"<td>{_figure(part.changes[i])}</td></tr>"
        for i, name in enumerate(part.names)
    )
    return (
        "<h2>Several losses</h2><p class='say'>Cosines between their gradients, and what this step does to each.</p>"
        f"{heat(np.asarray(part.cosines.value), part.names)}<table><tr><th>loss</th><th>value</th><th>gradient</th>"
        f"<th>change, first order</th><th>change, actual</th></tr>{rows}</table>"
    )


def _layers(record: "Checkup") -> str:
    part = record.layers
    dead, rows = part.dead_cells(), []
    for i, (name, shape) in enumerate(zip(part.names, part.shapes)):
        weight, gradient, update = (float(x[i]) for x in (part.weight, part.gradient, part.update))
        bad = bool(part.bad_weight[i] or part.bad_gradient[i] or part.bad_update[i])
        share = _figure(100 * update / weight, " %") if weight > 0 else "–"
        cells = [_figure(weight), _figure(gradient), _figure(update), share, html.escape(dead[name])]
        name_cell = f"<td class='{'bad' if bad else ''}'>{html.escape(name)}{' (not finite)' if bad else ''}</td>"
        rows.append(
            f"<tr>{name_cell}<td>{'×'.join(map(str, shape))}</td>{''.join(f'<td>{c}</td>' for c in cells)}</tr>"
        )
    head = "".join(
        f"<th>{h}</th>"
        for h in ("parameter", "shape", "weight", "gradient", "update", "update/weight", "zero gradient")
    )
    table = f"<table><tr>{head}</tr>{''.join(rows)}</table>"
    return f"<h2>Parameters</h2><p class='say'>Root mean square per element.</p>{table}"


def curves(steps: Sequence[int], records: Sequence["Checkup"]) -> str:
    """Pictures of a run of check-ups over the step number."""
    x = np.asarray(steps, float)

    def line(name: str, values: Sequence[float], errors: Sequence[float] | None = None) -> Series:
        return Series(name, x, values, "both", errors)

    ratio = [r.sharpness.ratio for r in records]
    parts = [
        _titled("Loss", plot([line("", [float(r.loss) for r in records])], x_label="step", y_label="loss")),
        _titled(
            "Edge of stability",
            plot(
                [
                    line(
                        "top eigenvalue / threshold",
                        [float(r.value) for r in ratio],
                        [float(r.standard_error) for r in ratio],
                    )
                ],
                x_label="step",
                y_label="share of the threshold",
                horizontal=[(1.0, "edge of stability")],
            ),
        ),
    ]
    noises = [r.noise for r in records]
    if any(n is not None for n in noises):
        value = [float(n.preconditioned.value) if n is not None and n.resolved else math.nan for n in noises]
        error = [math.nan if n is None else float(n.preconditioned.standard_error) for n in noises]
        size = records[-1].batch_size
        marks = [(float(size), f"batch: {size}")] if size else []
        drawn = plot(
            [line("noise scale, rows", value, error)], x_label="step", y_label="rows", log_y=True, horizontal=marks
        )
        parts.append(_titled("Gradient noise", drawn))
    made = [r.step for r in records]
    if any(s is not None for s in made):
        actual = [math.nan if s is None else float(s.actual.value) for s in made]
        model = [math.nan if s is None else float(s.predicted.value) for s in made]
        drawn = plot([line("predicted", model), line("actual", actual)], x_label="step", y_label="change of the loss")
        parts.append(_titled("Change of the loss by a step", drawn))
        radius = [math.nan if s is None else float(s.radius) for s in made]
        if np.isfinite(radius).any():
            drawn = plot(
                [line("softmax radius, steps", radius)],
                x_label="step",
                y_label="multiple of the step",
                log_y=True,
                horizontal=[(1.0, "this step")],
            )
            parts.append(_titled("Softmax radius", drawn))
    shares = [line("gradient", [float(r.subspace.gradient_share[-1]) for r in records])]
    shares.append(line("update", [float(r.subspace.update_share[-1]) for r in records]))
    drawn = plot(shares, x_label="step", y_label="share", y_range=(0.0, 1.0))
    parts.append(_titled(f"In the top {records[-1].subspace.values.shape[0]} directions", drawn))
    if all(r.conflicts is not None for r in records):
        names = records[-1].conflicts.names if records[-1].conflicts else ()
        lines = [
            line(f"{names[j]}, {names[i]}", [float(r.conflicts.cosines.value[i, j]) for r in records if r.conflicts])
            for i in range(len(names))
            for j in range(i)
        ]
        if lines:
            drawn = plot(lines, x_label="step", y_label="cosine", horizontal=[(0.0, "")], y_range=(-1.05, 1.05))
            parts.append(_titled("Between the losses", drawn))
    return f"<div class='grid2'>{''.join(f'<section>{part}</section>' for part in parts)}</div>"


def _titled(title: str, picture: str) -> str:
    return f"<h2>{html.escape(title)}</h2>{picture}"

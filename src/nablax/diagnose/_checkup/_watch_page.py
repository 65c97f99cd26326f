"""The page of a run of check-ups: curves over the step number, handed to the template."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._core import Finding
from ..._pages import Card, Series, markup, plot, render, short
from ._record import Checkup


def watch_page(steps: Sequence[int], records: Sequence[Checkup], findings: Sequence[Finding]) -> str:
    """The page of check-ups made at these steps, of which there may be none, and what they say together."""
    return render(
        "watch.html.jinja",
        steps=steps,
        findings=findings,
        cards=_cards(np.asarray(steps, float), records) if records else [],
    )


def _cards(x: np.ndarray, records: Sequence[Checkup]) -> list[Card]:
    """One card a picture."""

    def line(name: str, values: Sequence[float], errors: Sequence[float] | None = None) -> Series:
        return Series(name, x, values, "both", errors)

    def card(title: str, lines: Sequence[Series], **options: Any) -> Card:
        return Card(title, picture=markup(plot(lines, x_label="step", **options)))

    ratio = [r.sharpness.ratio for r in records]
    ratios, errors = [float(r.value) for r in ratio], [float(r.standard_error) for r in ratio]
    cards = [
        card("Loss", [line("", [float(r.loss) for r in records])], y_label="loss"),
        card(
            "Edge of stability",
            [line("top eigenvalue / threshold", ratios, errors)],
            y_label="share of the threshold",
            horizontal=[(1.0, "edge of stability")],
        ),
    ]
    noises = [r.noise for r in records]
    if any(n is not None for n in noises):
        value = [float(n.preconditioned.value) if n is not None and n.resolved else math.nan for n in noises]
        error = [math.nan if n is None else float(n.preconditioned.standard_error) for n in noises]
        size = records[-1].batch_size
        marks = [(float(size), f"batch: {size}")] if size else []
        noise = line("noise scale, rows", value, error)
        cards.append(card("Gradient noise", [noise], y_label="rows", log_y=True, horizontal=marks))
    made = [r.step for r in records]
    if any(s is not None for s in made):
        actual = [math.nan if s is None else float(s.actual.value) for s in made]
        model = [math.nan if s is None else float(s.predicted.value) for s in made]
        both = [line("predicted", model), line("actual", actual)]
        cards.append(card("Change of the loss by a step", both, y_label="change of the loss"))
        radius = [math.nan if s is None else float(s.radius) for s in made]
        if np.isfinite(radius).any():
            cards.append(
                card(
                    "Softmax radius",
                    [line("softmax radius, steps", radius)],
                    y_label="multiple of the step",
                    log_y=True,
                    horizontal=[(1.0, "this step")],
                )
            )
    shares = [line("gradient", [float(r.subspace.gradient_share[-1]) for r in records])]
    shares.append(line("update", [float(r.subspace.update_share[-1]) for r in records]))
    top = records[-1].subspace.values.shape[0]
    cards.append(card(f"In the top {top} directions", shares, y_label="share", y_range=(0.0, 1.0)))
    if all(r.conflicts is not None for r in records):
        names = records[-1].conflicts.names if records[-1].conflicts else ()
        pairs = [
            line(
                f"{short(names[j], 17)}, {short(names[i], 17)}",
                [float(r.conflicts.cosines.value[i, j]) for r in records if r.conflicts],
            )
            for i in range(len(names))
            for j in range(i)
        ]
        if pairs:
            options = {"horizontal": [(0.0, "")], "y_range": (-1.05, 1.05)}
            # A legend is drawn for several curves; a single one is named by the axis.
            label = f"cosine of {pairs[0].name}" if len(pairs) == 1 else "cosine"
            cards.append(card("Between the losses", pairs, y_label=label, **options))
    return cards

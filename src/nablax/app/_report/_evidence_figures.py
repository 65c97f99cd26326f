"""Pictures of what was measured of a run, as SVG text, the same for the same input."""

from collections.abc import Sequence

import numpy as np

from ..._pages import (
    DATA,
    INK,
    MUTED,
    SAMPLES,
    THIRD,
    WIDTH,
    canvas,
    histogram,
    short,
)
from ._telling import ColumnGap


def training_curve(
    step: np.ndarray, loss: np.ndarray, validation_step: np.ndarray, validation: np.ndarray, best_step: int | None
) -> str:
    """Draw the loss (faint as it came, firm when smoothed) and the validation loss, the best step marked."""
    with canvas() as (figure, show):
        axis = figure.subplots()
        axis.plot(step, loss, color=THIRD, lw=0.6, alpha=0.45, rasterized=len(step) > 2000)
        axis.plot(step, smooth(loss), color=THIRD, label="training")
        if len(validation):
            axis.plot(validation_step, validation, color=DATA, label="validation", marker=".", ms=3.5, lw=1.2)
        # The first steps fall from far above; what matters is seen by scaling to the rest.
        settled = 0.1 * step[-1] if len(step) else 0.0
        seen = np.concatenate([smooth(loss)[step >= settled], validation[validation_step >= settled]])
        if len(seen := seen[np.isfinite(seen)]):
            span = max(float(np.ptp(seen)), 1e-9)
            axis.set_ylim(seen.min() - 0.15 * span, seen.max() + 0.2 * span)
        if best_step is not None:
            axis.axvline(best_step, color=MUTED, lw=0.9, ls=(0, (3, 2)))
            axis.annotate(
                f" best, step {best_step:,}",
                (best_step, 0.97),
                xycoords=("data", "axes fraction"),
                va="top",
                ha="right" if len(step) and best_step > 0.6 * step[-1] else "left",
                fontsize=8.5,
                color=MUTED,
            )
        axis.grid(axis="y")
        axis.set_xlabel("step")
        axis.set_ylabel("loss")
        axis.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.16))
        figure.subplots_adjust(left=0.14, right=0.97, top=0.88, bottom=0.16)
        return show()


def likelihoods(names: Sequence[str], means: Sequence[float], errors: Sequence[float], unit: str) -> str:
    """Draw held-out scores with whiskers of two standard errors; the first name is the model."""
    with canvas(WIDTH, 0.62 * len(names) + 0.85) as (figure, show):
        axis = figure.subplots()
        place = np.arange(len(names))[::-1]
        whisker = 2 * np.nan_to_num(np.asarray(errors))
        edges = np.concatenate([np.asarray(means) - whisker, np.asarray(means) + whisker])
        span = max(float(np.ptp(edges)), 1e-3)
        # Points, not bars: a log-density has no natural zero for a bar to start from.
        for index, (y, mean, error) in enumerate(zip(place, means, whisker)):
            colour = SAMPLES if index == 0 else THIRD
            axis.errorbar(mean, y, xerr=error, fmt="o", color=colour, ms=8, lw=2, capsize=4)
            label = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center"}
            axis.annotate(f"{mean:.2f}", (mean, y), fontsize=9, **label)
        axis.set_yticks(place, names)
        axis.tick_params(axis="y", length=0, labelcolor=INK)
        axis.set_xlim(edges.min() - 0.12 * span, edges.max() + 0.12 * span)
        axis.set_ylim(-0.5, len(names) - 0.3)
        axis.locator_params(axis="x", nbins=5)
        axis.spines["left"].set_visible(False)
        axis.grid(axis="x")
        axis.set_xlabel(f"{unit} ({'← better' if unit.startswith('bits') else 'better →'})")
        figure.subplots_adjust(left=0.27, right=0.98, top=0.97, bottom=0.47 / (0.62 * len(names) + 0.85))
        return show()


def permutation_null(null: np.ndarray, statistic: float) -> str:
    """Draw the energy distance beside what relabelling gives."""
    with canvas(WIDTH, 2.3) as (figure, show):
        axis = figure.subplots()
        axis.hist(null, bins=30, color=THIRD, alpha=0.75, label="if they were one distribution")
        axis.axvline(statistic, color=SAMPLES, lw=2.2, label="held-out rows and samples")
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.set_xlabel("energy distance")
        axis.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.22), columnspacing=1.2, handlelength=1.4)
        figure.subplots_adjust(left=0.04, right=0.97, top=0.84, bottom=0.2)
        return show()


def accuracy_scale(accuracy: float, error: float, caution: float, bad: float) -> str:
    """Draw where the classifier stands between chance and certainty."""
    with canvas(WIDTH, 1.15) as (figure, show):
        axis = figure.subplots()
        for left, right, alpha, name in (
            (0.5, caution, 0.12, "hard to tell"),
            (caution, bad, 0.3, "tellable"),
            (bad, 1.0, 0.55, "easy to tell"),
        ):
            axis.barh(0, right - left, 1.0, left=left, color=THIRD, alpha=alpha, lw=0)
            axis.text((left + right) / 2, 0.65, name, ha="center", va="bottom", fontsize=8, color=MUTED)
        axis.errorbar(max(accuracy, 0.5), 0, xerr=2 * error, fmt="o", color=SAMPLES, ms=8, lw=2, capsize=3)
        axis.set_xlim(0.485, 1.0)
        axis.set_ylim(-0.5, 1.3)
        axis.set_yticks([])
        axis.set_xticks([0.5, caution, bad, 1.0], [f"{tick:.0%}" for tick in (0.5, caution, bad, 1.0)])
        axis.tick_params(length=0)
        axis.spines[["left", "bottom"]].set_visible(False)
        figure.subplots_adjust(left=0.03, right=0.95, top=0.97, bottom=0.2)
        return show()


def column_gaps(gaps: Sequence[ColumnGap]) -> str:
    """Draw what each column gives away of the classifier's accuracy, the most telling on top."""
    height = 0.26 * len(gaps) + 0.75
    with canvas(WIDTH, height) as (figure, show):
        axis = figure.subplots()
        place = np.arange(len(gaps))[::-1]
        lost = 100 * np.array([gap.lost for gap in gaps])
        whisker = 200 * np.array([gap.standard_error for gap in gaps])
        axis.barh(place, np.maximum(lost, 0.0), 0.6, color=SAMPLES, alpha=0.45)
        axis.errorbar(lost, place, xerr=whisker, fmt="o", color=SAMPLES, ms=4, lw=1.2, capsize=2)
        axis.axvline(0.0, color=MUTED, lw=0.9)
        axis.set_yticks(place, [short(gap.name, 20) for gap in gaps])
        axis.tick_params(axis="y", length=0, labelcolor=INK)
        axis.locator_params(axis="x", nbins=5)
        axis.spines["left"].set_visible(False)
        axis.grid(axis="x")
        axis.set_xlabel("points of accuracy lost when it is shuffled")
        figure.subplots_adjust(left=0.34, right=0.97, top=0.98, bottom=0.5 / height)
        return show()


def distances(held_out: np.ndarray, samples: np.ndarray, threshold: float) -> str:
    """Draw distances to the nearest training row: fresh real rows and samples."""
    with canvas(WIDTH, 2.5) as (figure, show):
        axis = figure.subplots()
        histogram(axis, held_out, samples)
        axis.axvline(threshold, color=MUTED, lw=0.9, ls=(0, (3, 2)))
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.set_xlabel("distance to the nearest training row (standard deviations)")
        figure.subplots_adjust(left=0.04, right=0.97, top=0.97, bottom=0.2)
        return show()


def solver_curve(evaluations: np.ndarray, error: np.ndarray, chosen: int | None, unit: str) -> str:
    """Draw the error of sampling against the field evaluations spent, both on logarithmic axes."""
    with canvas(WIDTH, 2.6) as (figure, show):
        axis = figure.subplots()
        axis.loglog(evaluations, np.maximum(error, 1e-12), color=SAMPLES, marker="o", ms=4)
        axis.set_xticks(evaluations, [str(int(count)) for count in evaluations])
        axis.minorticks_off()
        if chosen is not None:
            axis.axvline(chosen, color=MUTED, lw=0.9, ls=(0, (3, 2)), label=f"used here: {chosen} evaluations")
            axis.legend(loc="upper right")
        axis.grid()
        axis.set_xlabel("field evaluations for one sample")
        axis.set_ylabel(f"error ({unit})")
        figure.subplots_adjust(left=0.17, right=0.97, top=0.97, bottom=0.19)
        return show()


def conservativity(times: np.ndarray, ratio: np.ndarray, error: np.ndarray) -> str:
    """Draw the antisymmetric share of the Jacobian along t, with a band of two standard errors."""
    with canvas(WIDTH, 2.5) as (figure, show):
        axis = figure.subplots()
        band = 2 * np.nan_to_num(error)
        axis.fill_between(times, np.maximum(ratio - band, 0), ratio + band, color=DATA, alpha=0.25, lw=0)
        axis.plot(times, ratio, color=DATA, marker="o", ms=4)
        axis.set_ylim(0, max(1.15 * float(np.nanmax(ratio + band)), 1e-6))
        axis.set_xlim(-0.02, 1.02)
        axis.grid(axis="y")
        axis.set_xlabel("time t (noise at 0, data at 1)")
        axis.set_ylabel("antisymmetric share")
        figure.subplots_adjust(left=0.15, right=0.97, top=0.97, bottom=0.19)
        return show()


def smooth(values: np.ndarray) -> np.ndarray:
    """Average over a window of a twenty-fifth of the curve, shortened at the ends."""
    from scipy.ndimage import uniform_filter1d

    values = np.asarray(values, np.float64)
    return uniform_filter1d(values, max(1, len(values) // 25), mode="nearest") if len(values) else values

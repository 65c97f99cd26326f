"""The guide's tables and picture of the optimisers side by side, from what was stored."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ._optimizer_problems import VECTORS

DOCS = Path(__file__).parents[1] / "docs"
GUIDE, PICTURE = DOCS / "guides/optimisers_side_by_side.md", DOCS / "assets/optimisers.svg"
BEGIN, END = "<!-- optimisers: python -m benchmarks.optimizers -->\n", "<!-- end of optimisers -->\n"
NETS = ("network", "convolution", "transformer")
YARDSTICK = "optax.adamw"
# Drawn in colour, those that people ask for; the others are grey.
SHOWN = {
    YARDSTICK: "#1F2933",
    "optax.sgd, momentum .9": "#7A8794",
    "optax.lion": "#B8860B",
    "optax.contrib.muon": "#3B82C4",
    "soap": "#E0762B",
    "psgd": "#2E8B57",
}


class Outcome(NamedTuple):
    """A rule on a problem.

    Attributes:
        rate: the best of its grid, in words.
        at_end: whether that lies at the grid's end.
        milliseconds: of a step, processor time.
        losses: ``[seeds, looks]``, the first before the first step.
    """

    rate: str
    at_end: bool
    milliseconds: float
    losses: np.ndarray


def gather(rows: Sequence[Mapping[str, str]]) -> dict[tuple[str, str], Outcome]:
    """By problem and rule."""
    found: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        found.setdefault((row["problem"], row["rule"]), []).append(row)
    return {
        pair: Outcome(
            seeds[0]["rate"],
            seeds[0]["at_end"] == "1",
            float(seeds[0]["milliseconds"]),
            np.array([[float(loss) for loss in row["losses"].split()] for row in seeds]),
        )
        for pair, seeds in found.items()
    }


def write(
    rows: Sequence[Mapping[str, str]], families: Mapping[str, str], titles: Mapping[str, str], steps: int
) -> None:
    """Put the tables into the guide, and draw the picture of the networks."""
    outcomes = gather(rows)
    text = GUIDE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    run = {problem for problem, _ in outcomes}
    vectors, nets = ([name for name in names if name in run] for names in (VECTORS, NETS))
    tables = [_ends(outcomes, families, titles, vectors), _nets(outcomes, families, titles, nets, steps)]
    GUIDE.write_text(before + BEGIN + "\n" + "\n".join(tables) + "\n" + END + after, encoding="utf-8")
    draw(outcomes, titles, nets, steps)


def spread(losses: np.ndarray) -> str:
    """Of the seeds' last losses the middle, and between which they lie."""
    last = np.sort(losses[:, -1])
    if not np.isfinite(last).all():
        return "diverged"
    return f"{short(np.median(last))} ({short(last[0])}–{short(last[-1])})"


def short(number: float) -> str:
    """Two digits, from 1 to 10 three, of small numbers one and the power of ten."""
    if number == 0:
        return "0"
    if 1 <= abs(number) < 10:
        return f"{number:.2f}"
    if 1e-2 <= abs(number) < 1e3:
        return f"{number:#.2g}".rstrip(".")
    mantissa, _, power = f"{number:.0e}".partition("e")
    return f"{mantissa}e{int(power)}"


def reached(outcome: Outcome, goal: float) -> float:
    """At what share of the steps the median loss is first at most that; infinite where it never is."""
    path = np.median(outcome.losses, axis=0)
    below = np.flatnonzero(path <= goal)
    if not len(below):
        return float("inf")
    place = int(below[0])
    if place == 0:
        return 0.0
    high, low = path[place - 1], path[place]
    return float((place - (goal - low) / (high - low)) / (len(path) - 1))


def _ends(
    outcomes: Mapping[tuple[str, str], Outcome],
    families: Mapping[str, str],
    titles: Mapping[str, str],
    problems: Sequence[str],
) -> str:
    lines = [
        "| rule | " + " | ".join(titles[problem] for problem in problems) + " |",
        "| --- |" + " --- |" * len(problems),
    ]
    for rule, family in _in_families(families):
        if rule is None:
            lines.append(f"| **{family}** |" + " |" * len(problems))
            continue
        cells = [_cell(outcomes.get((problem, rule))) for problem in problems]
        lines.append(f"| `{rule}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return "–"
    return spread(outcome.losses) + ("\\*" if outcome.at_end else "")


def _nets(
    outcomes: Mapping[tuple[str, str], Outcome],
    families: Mapping[str, str],
    titles: Mapping[str, str],
    nets: Sequence[str],
    steps: int,
) -> str:
    head = "| rule |" + "".join(f" {titles[problem]} | ms | steps, time |" for problem in nets)
    lines = [head, "| --- |" + " --- |" * 3 * len(nets)]
    for rule, family in _in_families(families):
        if rule is None:
            lines.append(f"| **{family}** |" + " |" * 3 * len(nets))
            continue
        line = f"| `{rule}` |"
        for problem in nets:
            outcome, yardstick = outcomes.get((problem, rule)), outcomes.get((problem, YARDSTICK))
            if outcome is None or yardstick is None:
                line += " – | | |"
                continue
            share = reached(outcome, float(np.median(yardstick.losses[:, -1])))
            longer = share * outcome.milliseconds / yardstick.milliseconds
            to_goal = f"{share:.2f}, {longer:.2f}" if np.isfinite(share) else "–"
            line += f" {_cell(outcome)} | {short(outcome.milliseconds)} | {to_goal} |"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _in_families(families: Mapping[str, str]) -> list[tuple[str | None, str]]:
    """Rules under their families' names, in the order of both."""
    listed: list[tuple[str | None, str]] = []
    for family in dict.fromkeys(families.values()):
        listed += [(None, family), *((rule, family) for rule, its in families.items() if its == family)]
    return listed


def draw(
    outcomes: Mapping[tuple[str, str], Outcome], titles: Mapping[str, str], nets: Sequence[str], steps: int
) -> None:
    """Loss of the networks against steps, and against time."""
    from matplotlib.ticker import LogFormatter

    from nablax._pages import canvas, standing_alone

    with canvas(width=3.5 * len(nets), height=6.0) as (figure, text):
        figure.set_layout_engine("constrained")
        axes = figure.subplots(2, len(nets), sharey="col", squeeze=False)
        for column, problem in enumerate(nets):
            here = {rule: outcome for (name, rule), outcome in outcomes.items() if name == problem}
            for row, (axis, what) in enumerate(zip(axes[:, column], ("steps", "seconds of processor time"))):
                # The grey ones first, which the others lie on.
                for rule in sorted(here, key=lambda rule: rule in SHOWN):
                    _line(axis, here[rule], rule, steps, in_time=row == 1)
                axis.set_yscale("log")
                axis.yaxis.set_minor_formatter(LogFormatter())  # of less than a decade: no powers
                axis.set_xlabel(what)
                if row == 1 and YARDSTICK in here:
                    axis.set_xlim(0, 3 * steps * here[YARDSTICK].milliseconds / 1e3)
            axes[0, column].set_title(titles[problem], fontsize=9)
        axes[0, 0].set_ylabel("loss, nats")
        axes[1, 0].set_ylabel("loss, nats")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
        PICTURE.write_text(standing_alone(text()), encoding="utf-8")


def _line(axis: Any, outcome: Outcome, rule: str, steps: int, *, in_time: bool) -> None:
    path = np.median(outcome.losses, axis=0)
    along = np.linspace(0, steps, len(path)) * (outcome.milliseconds / 1e3 if in_time else 1.0)
    # What leaves for infinity would say how far the axis goes.
    path = np.where(path <= 2 * path[0], path, np.nan)
    if rule in SHOWN:
        axis.plot(along, path, color=SHOWN[rule], linewidth=1.6, label=rule, zorder=3)
    else:
        axis.plot(along, path, color="#CBD2D9", linewidth=0.7, zorder=1)

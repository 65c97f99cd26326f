"""The tables of the bank, from ``tables.csv`` alone: a short one for the guide, one a figure for the README."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from ._tables import TABLES
from .tables import FILE, METHODS, OURS, SEEDS, Cell, stored

GUIDE = Path(__file__).parents[1] / "docs/guides/data.md"
README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- tables: python -m benchmarks.tables --write -->\n", "<!-- end of tables -->\n"
RANKED_BESIDE = (OURS, "arf", "copula")  # a table is ranked where these three stand
Rows = dict[Cell, dict[str, str]]


class Figure(NamedTuple):
    """How a column of ``tables.csv`` is shown.

    Attributes:
        title: above its table.
        value: of a row, from its columns.
        digits: after the point.
        best: the least, or the greatest, or neither.
        error: the column of a single row's standard error.
    """

    title: str
    value: Callable[[dict[str, float]], float]
    digits: int = 2
    best: Callable[[Iterable[float]], float] | None = min
    error: str = ""


def _column(name: str) -> Callable[[dict[str, float]], float]:
    return lambda row: row[name]


DRAWING = {
    "auc": Figure(
        "A classifier's AUC, held-out rows against samples (0.5 is best, and what is below is taken for it)",
        lambda row: max(row["auc"], 0.5),
        error="auc_error",
    ),
    "utility_gap": Figure(
        "What a predictor loses that learns from samples: accuracy, or R²", _column("utility_gap"), 3
    ),
    "distance": Figure("Distance of columns' distributions, mean: KS of numbers, TV of others", _column("distance"), 3),
    "correlation_error": Figure("Error of rank correlations, root mean square", _column("correlation_error"), 3),
    "atoms": Figure(
        "Share of recurring numbers whose share is off by more than two errors (0.05 by chance)",
        lambda row: row["atoms_off"] / row["atoms"] if row["atoms"] else math.nan,
    ),
    "tails": Figure(
        "Share of numbers whose 99.9 % quantile is outside of the bootstrap's 95 %",
        lambda row: row["tails_off"] / row["tails"] if row["tails"] else math.nan,
    ),
    "copies": Figure(
        "How often a sample is nearer to a training row than a fresh row is (0.5 is right, 1 are copies)",
        _column("copies"),
        best=None,
    ),
    "draw_cpu": Figure("CPU seconds: learn, and draw as many rows", _column("draw_cpu"), 0),
}
FILLING = {
    "nrmse": Figure("Error of numbers filled in, root mean square, in standard deviations", _column("nrmse"), 3),
    "accuracy": Figure("Categories filled in rightly", _column("accuracy"), 3, max),
    "crps": Figure("CRPS of draws, in standard deviations", _column("crps"), 3),
    "coverage_80": Figure(
        "Coverage of the middle 80 % of draws († outside of the binomial 95 % band)", _column("coverage_80"), 3, None
    ),
    "coverage_90": Figure("Coverage of the middle 90 % († as above)", _column("coverage_90"), 3, None),
    "fill_cpu": Figure("CPU seconds: learn, and fill (ours: fill alone)", _column("fill_cpu"), 0),
}
RANKED = {
    "auc": "AUC",
    "utility_gap": "utility",
    "distance": "columns",
    "correlation_error": "correlations",
    "atoms": "shares",
}
ASKED_FIRST = {name: kind for name, kind in RANKED.items() if name != "distance"}
NATS = Figure(
    "Held-out nats per row: probability of the cells as they are written", _column("nats"), 2, max, "nats_error"
)


class Shown(NamedTuple):
    """A figure of a method on a table: mean over seeds, and their spread or one row's own error."""

    mean: float
    spread: float
    rows: list[dict[str, float]]


def gather(rows: Rows, figure: Figure) -> dict[tuple[str, str], Shown]:
    """By table and method; what has no such figure lacks."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for (table, _, method), row in rows.items():
        if row["outcome"] != "done":
            continue
        numbers = {
            n: float(v) if v else math.nan for n, v in row.items() if n not in ("table", "method", "code", "outcome")
        }
        if not math.isnan(figure.value(numbers)):
            found.setdefault((table, method), []).append(numbers)
    shown = {}
    for place, several in found.items():
        values = [figure.value(row) for row in several]
        mean = sum(values) / len(values)
        if len(values) > 1:
            spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
        else:
            spread = several[0][figure.error] if figure.error else math.nan
        shown[place] = Shown(mean, spread, several)
    return shown


def by_table(rows: Rows, figure: Figure, nominal: float | None = None) -> list[str]:
    """One line a table, one column a method; the best in bold."""
    shown = gather(rows, figure)
    methods = [m for m in METHODS if any(place[1] == m for place in shown)]
    if not methods:
        return []
    lines = [f"**{figure.title}**", "", f"| table | {' | '.join(methods)} |", f"| --- |{' --- |' * len(methods)}"]
    for table in TABLES:
        here = {m: shown[table, m] for m in methods if (table, m) in shown}
        if not here:
            continue
        best = figure.best(s.mean for s in here.values()) if figure.best else None
        cells = []
        for method in methods:
            if method not in here:
                cells.append("–")
                continue
            one = here[method]
            text = f"{one.mean:.{figure.digits}f}".replace("-", "−")
            text = f"**{text}**" if best is not None and one.mean == best and len(here) > 1 else text
            if not math.isnan(one.spread):
                text += f" ± {one.spread:.{figure.digits}f}"
            if nominal is not None and not in_band(one, nominal):
                text += " †"
            cells.append(text)
        lines.append(f"| {table} | {' | '.join(cells)} |")
    return [*lines, ""]


def in_band(shown: Shown, nominal: float) -> bool:
    """Whether coverage is within the binomial 95 % band of all cells that it rests on."""
    count = sum(row["numbers"] for row in shown.rows)
    return abs(shown.mean - nominal) <= 1.96 * math.sqrt(nominal * (1 - nominal) / count)


def ranks(rows: Rows, figure: Figure) -> dict[str, list[float]]:
    """Of each method over the tables on which all that are compared stand; ties share their ranks."""
    shown = gather(rows, figure)
    tables = [t for t in TABLES if all((t, m) in shown for m in RANKED_BESIDE)]
    methods = [m for m in METHODS if tables and all((t, m) in shown for t in tables)]
    found: dict[str, list[float]] = {m: [] for m in methods}
    for table in tables:
        values = {m: shown[table, m].mean for m in methods}
        for m, value in values.items():
            below = sum(v < value for v in values.values())
            found[m].append(below + (sum(v == value for v in values.values()) + 1) / 2)
    return found


def beside(rows: Rows, figure: Figure) -> dict[tuple[str, str], tuple[float, float]]:
    """Ours and a peer's, by table and peer: means over the seeds at which both stand."""
    shown = gather(rows, figure)
    found = {}
    for (table, method), theirs in shown.items():
        if method == OURS or (table, OURS) not in shown:
            continue
        values = [{row["seed"]: figure.value(row) for row in s.rows} for s in (shown[table, OURS], theirs)]
        if seeds := values[0].keys() & values[1].keys():
            mine, other = (sum(v[seed] for seed in seeds) / len(seeds) for v in values)
            found[table, method] = (mine, other)
    return found


def asked(rows: Rows) -> list[str]:
    """What was asked of ours, and what stands."""
    lines = ["| asked of ours | stands |", "| --- | --- |"]
    found = {name: ranks(rows, DRAWING[name]) for name in ASKED_FIRST}
    found = {name: f for name, f in found.items() if len(f) > 1}
    if found:
        first = sum(sum(f[OURS]) <= min(sum(each) for each in f.values()) for f in found.values())
        last = sum(rank == len(f) for f in found.values() for rank in f[OURS])
        lines.append(f"| first by mean rank: {', '.join(ASKED_FIRST.values())} | in {first} of {len(found)} |")
        lines.append(
            f"| never last on a table in these | last {last} of {sum(len(f[OURS]) for f in found.values())} times |"
        )
    auc = gather(rows, DRAWING["auc"])
    for table, least in (("nmes", 0.60), ("diamonds", 0.75)):
        if (table, OURS) in auc:
            one = auc[table, OURS]
            lines.append(f"| AUC on {table} at most {least:.2f} | {one.mean:.2f} ± {one.spread:.2f} |")
    for name, sign, worst in (("nrmse", 1, 1.05), ("accuracy", -1, 0.95), ("crps", 1, 1.0)):
        pairs = beside(rows, FILLING[name])
        tables = {table for table, _ in pairs}
        held = len(tables - {t for (t, _), (mine, theirs) in pairs.items() if sign * mine > sign * worst * theirs})
        words = {
            "nrmse": "within 5 % of the least error",
            "accuracy": "within 5 % of the best accuracy",
            "crps": "the least CRPS",
        }
        if tables:
            lines.append(f"| filling: {words[name]}, on every table | {held} of {len(tables)} tables |")
    for nominal in (80, 90):
        shown = gather(rows, FILLING[f"coverage_{nominal}"])
        mine = [s for (_, m), s in shown.items() if m == OURS]
        if mine:
            held = sum(in_band(s, nominal / 100) for s in mine)
            lines.append(
                f"| coverage at {nominal} % within the binomial band, on every table | {held} of {len(mine)} tables |"
            )
    atoms = [s for (_, m), s in gather(rows, DRAWING["atoms"]).items() if m == OURS]
    if atoms:
        off, every = (sum(row[n] for s in atoms for row in s.rows) for n in ("atoms_off", "atoms"))
        lines.append(
            f"| every share of a recurring number within two errors (95 % are by chance) | {every - off:.0f} of {every:.0f} shares |"
        )
    pairs = beside(rows, NATS)
    if tables := {table for table, _ in pairs}:
        held = len(tables - {t for (t, _), (mine, theirs) in pairs.items() if mine < theirs})
        lines.append(
            f"| the greatest held-out likelihood, on every table of numbers | {held} of {len(tables)} tables |"
        )
    return [*lines, ""]


def standing(rows: Rows) -> list[str]:
    """How much of the bank has been run."""
    counts = [sum(row["outcome"] == "done" for (_, s, _), row in rows.items() if s == seed) for seed in SEEDS]
    lines = ["Cells that stand: " + ", ".join(f"{n} at seed {s}" for n, s in zip(counts, SEEDS)) + "."]
    if lacking := [m for m in METHODS if not any(place[2] == m for place in rows)]:
        lines.append(f"Not run yet: {', '.join(lacking)}.")
    return lines


def duels(rows: Rows) -> list[str]:
    """On how many of the tables where both stand ours is better than each peer, or as good."""
    pairs = {kind: beside(rows, DRAWING[name]) for name, kind in RANKED.items()}
    peers = [m for m in METHODS if any(method == m for found in pairs.values() for _, method in found)]
    lines = [f"| ours is no worse than | {' | '.join(RANKED.values())} |", f"| --- |{' --- |' * len(RANKED)}"]
    for peer in peers:
        both = [[mine <= theirs for (_, m), (mine, theirs) in found.items() if m == peer] for found in pairs.values()]
        lines.append(f"| {peer} | {' | '.join(f'{sum(b)} of {len(b)}' if b else '–' for b in both)} |")
    return [*lines, ""] if peers else []


def summary(rows: Rows) -> str:
    """The guide's tables: mean ranks, each peer by itself, and what was asked."""
    found = {kind: ranks(rows, DRAWING[name]) for name, kind in RANKED.items()}
    methods = [m for m in METHODS if any(m in f for f in found.values())]
    lines = [f"| mean rank over tables | {' | '.join(RANKED.values())} |", f"| --- |{' --- |' * len(RANKED)}"]
    for method in methods:
        cells = [
            f"{sum(f[method]) / len(f[method]):.1f} of {len(f)} on {len(f[method])}" if f.get(method) else "–"
            for f in found.values()
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join([*(lines if methods else []), "", *duels(rows), *asked(rows), *standing(rows)]) + "\n"


def whole(rows: Rows) -> str:
    """The README's tables: one a figure, and why cells lack."""
    lines: list[str] = []
    for name, figure in (DRAWING | FILLING).items():
        lines += by_table(rows, figure, int(name[-2:]) / 100 if name.startswith("coverage") else None)
    lines += by_table(rows, NATS)
    failed = [
        f"| {t} | {m} | {s} | {row['outcome']} |"
        for (t, s, m), row in rows.items()
        if row["outcome"] not in ("done", "not for this table")
    ]
    if failed:
        lines += ["| table | method | seed | why there is no figure |", "| --- | --- | --- | --- |", *failed, ""]
    return "\n".join([*lines, *standing(rows)]) + "\n"


def write() -> str:
    """Put the tables of what stands into the guide and into the README, and give them back."""
    rows = stored(FILE)
    for page, text in ((GUIDE, summary(rows)), (README, whole(rows))):
        before, rest = page.read_text(encoding="utf-8").split(BEGIN)
        page.write_text(before + BEGIN + text + END + rest.split(END)[1], encoding="utf-8")
    return whole(rows) + "\n" + summary(rows)

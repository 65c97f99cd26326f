"""Levels and risk judged on the stored bank of runs; nothing is trained.

``python -m benchmarks.checkup_rules`` writes the table of the guide; ``python -m benchmarks.checkup_rules fit`` prints the
risk's coefficients from the making half, ``python -m benchmarks.checkup_rules cross`` what thresholds are chosen by: the
figures of the making half, the risk of each run by coefficients from the others.
"""

import sys
from pathlib import Path

import numpy as np

from ._bank_outcomes import area, making, outcome, seen, table

GUIDE = Path(__file__).parents[1] / "docs/guides/checkup.md"
BEGIN, END = "<!-- bank: python -m benchmarks.checkup_rules -->\n", "<!-- end of bank -->\n"
HORIZON = 200
# Penalty of the logistic fit, in units of features of variance one.
RIDGE = 3.0
# Parts that the making half is cut into, so that each is judged by coefficients from the others.
PARTS = 10


class Half:
    """One half of the bank: its signs, what failed, which rules hold; by the risk that the check-up has, or another."""

    def __init__(self, columns, chosen, risk=None):
        from nablax.diagnose._checkup._risk import risk_of
        from nablax.diagnose._checkup._signs import Signs
        from nablax.diagnose._checkup._verdict import raised

        self.columns = {name: column[chosen] for name, column in columns.items()}
        # Signs that came after the bank was made are not known in it.
        unknown = np.full(len(chosen[chosen]), np.nan)
        self.signs = Signs(**{name: self.columns.get(name, unknown) for name in Signs._fields})
        self.fails = outcome(self.columns, HORIZON).fails
        self.risk = risk_of(self.signs) if risk is None else risk
        self.raised = raised(self.signs, risk=self.risk)
        self.fault, self.warning = (
            np.any([each[level] for each in self.raised.values()], axis=0) for level in ("fault", "warning")
        )

    def said(self, *names, levels=("fault", "warning")):
        """Where one of these rules is raised to one of these levels."""
        return np.any([self.raised[name][level] for name in names for level in levels], axis=0)

    def precision(self, said):
        return float(self.fails[said].mean()) if said.any() else float("nan")

    def recall(self, said):
        return float(said[self.fails].mean())

    def odds(self, said):
        """Odds of failure where it is said over those where it is not, half a run added to each count."""
        counts = [
            np.sum(said & self.fails),
            np.sum(said & ~self.fails),
            np.sum(~said & self.fails),
            np.sum(~said & ~self.fails),
        ]
        a, b, c, d = (count + 0.5 for count in counts)
        return float(a * d / (b * c))


def halves():
    """The half that makes rules, the one that judges them, and of that what earlier rules were judged by."""
    columns = table()
    made, old = making(columns), seen(columns)
    return Half(columns, made), Half(columns, ~made & ~old), Half(columns, old)


def unjudged():
    """The making half without a risk, to fit one to."""
    columns = table()
    made = making(columns)
    return Half(columns, made, np.full(made.sum(), np.nan))


def held_out():
    """The making half, where the check-ups of a run have their risk by coefficients from other settings' runs."""
    columns, half = table(), unjudged()
    x, _ = design(half)
    names = zip(*(half.columns[name] for name in ("model", "optimizer", "seed")))
    _, run = np.unique([" ".join(map(str, name)) for name in names], return_inverse=True)
    part = np.random.default_rng(0).permutation(run.max() + 1)[run] % PARTS
    risk = np.zeros(len(run))
    for each in range(PARTS):
        among = part == each
        constant, slopes = logistic(x[~among], half.fails[~among].astype(float), RIDGE)
        risk[among] = 1 / (1 + np.exp(-(constant + x[among] @ slopes)))
    return Half(columns, making(columns), risk)


def design(half):
    """Features of the risk, a column each, and their names."""
    from nablax.diagnose._checkup._risk import features

    with np.errstate(all="ignore"):
        named = features(half.signs)
    return np.stack(list(named.values()), 1), list(named)


def by_rate(half, maker):
    """Failure by the learning rate alone: a parabola of its logarithm for each optimiser, fitted on the making half."""
    scores = np.zeros(len(half.fails))
    for name in np.unique(half.columns["optimizer"]):
        among, of = (part.columns["optimizer"] == name for part in (maker, half))
        rate, other = (np.log10(part.columns["rate"][rows]) for part, rows in ((maker, among), (half, of)))
        middle = rate.mean()
        design = lambda r: np.stack([(r - middle), (r - middle) ** 2], 1)  # noqa: B023, E731
        constant, slopes = logistic(design(rate), maker.fails[among].astype(float), 1.0)
        scores[of] = constant + design(other) @ slopes
    return scores


def logistic(x, y, penalty):
    """Constant and slopes of a ridge logistic regression by Newton's method."""
    mean, spread = x.mean(0), np.maximum(x.std(0), 1e-9)
    z = np.concatenate([np.ones((len(y), 1)), (x - mean) / spread], 1)
    weights, ridge = np.zeros(z.shape[1]), penalty * np.eye(z.shape[1])
    ridge[0, 0] = 1e-3
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(z @ weights, -30, 30)))
        weights -= np.linalg.solve((z.T * (p * (1 - p))) @ z + ridge, z.T @ (p - y) + ridge @ weights)
    slopes = weights[1:] / spread
    return weights[0] - slopes @ mean, slopes


def figures(half, maker) -> dict[str, float]:
    """The numbers that are promised, on a half."""
    from nablax.diagnose._checkup._trends import Trend, stalled

    said = half.fault | half.warning
    base = half.fails.mean()
    columns = half.columns
    rate = half.said("rises", "too high", "too low", levels=("fault",))
    advised = half.said("rises", "too high", "too low") & (columns["best"] != 1)
    with np.errstate(all="ignore"):
        end, other, best, chance = (columns[name] for name in ("loss_200", "advised_200", "best_200", "chance_loss"))
        tried = rate & ~np.isnan(other)
        # Better or equal, up to a hundredth of the way from knowing nothing to the best.
        better = ~np.isfinite(end) | (other <= end + 0.01 * (chance - best))
    first = (columns["step"] == 0) & ~half.fails
    kin = np.isin(columns["optimizer"], ["adam", "rmsprop", "lion", "muon"])
    head = columns["zero_head"] == 1
    late = columns["step"] == 200
    stuck = late & stalled(
        Trend(columns["step"], columns["now_loss"] / np.minimum(columns["start_loss"], chance), np.nan, np.nan)
    )
    return {
        "check-ups": len(half.fails),
        "share that fails": float(base),
        "precision of any fault": half.precision(half.fault),
        "recall of any fault": half.recall(half.fault),
        **{
            f"recall of it at step {step}": float(half.fault[half.fails & (columns["step"] == step)].mean())
            for step in (0, 20, 200)
        },
        "recall of any fault or warning": half.recall(said),
        "area under the curve of the risk": area(half.risk, half.fails),
        **{
            f"the same at step {step}": area(half.risk[at], half.fails[at])
            for step in (0, 20, 200)
            for at in (columns["step"] == step,)
        },
        "area by the learning rate alone": area(by_rate(half, maker), half.fails),
        "Brier score of the risk": float(np.mean((half.risk - half.fails) ** 2)),
        "Brier score of the base rate": float(base * (1 - base)),
        "healthy runs with a fault or a warning": float(said[~half.fails].mean()),
        "false faults at first steps of Adam and its kin": float(half.fault[first & kin].mean()),
        "false faults at first steps behind a head of zeros": float(half.fault[first & head].mean()),
        "suggested rate better or equal, of runs with a fault of the rate": float(better[tried].mean()),
        "healthy runs to which another rate is suggested": float(advised[~half.fails].mean()),
        "precision of no progress, by the watch at step 200": half.precision(stuck),
        "recall of it among the check-ups there": float(stuck[half.fails & late].mean()),
    }


def text() -> str:
    """The tables of the guide."""
    from nablax.diagnose._checkup._verdict import RULES, Rule

    made, judged, old = halves()
    lines = [
        "| rule | topic | at least | fault or warning in | precision | recall | odds of failure × |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    likely = Rule("risk", "likely to fail, and nothing says why", None, lambda signs, thresholds: False)
    for name, rule in [*RULES.items(), ("likely", likely)]:
        said = judged.said(name)
        numbers = "– | – | –"
        if said.any():
            numbers = f"{judged.precision(said):.2f} | {judged.recall(said):.2f} | {judged.odds(said):.2g}"
        lines.append(f"| {rule.says} | {rule.topic} | {rule.least or 'by risk'} | {said.sum()} | {numbers} |")
    lines += ["", "| | judging | judging, seen before | making, each run by the others |", "| --- | --- | --- | --- |"]
    columns = [figures(judged, made), figures(old, made), figures(held_out(), made)]
    for name in columns[0]:
        digits = 0 if name == "check-ups" else 2
        shown = " | ".join(f"{each[name]:.{digits}f}" for each in columns)
        lines.append(f"| {name} | {shown} |")
    return "\n".join(lines) + "\n"


def fit() -> dict[str, float]:
    """Weights of the risk by ridge logistic regression on the making half, Newton's method."""
    half = unjudged()
    x, names = design(half)
    constant, slopes = logistic(x, half.fails.astype(float), RIDGE)
    return {"": float(constant)} | dict(zip(names, map(float, slopes)))


def main() -> None:
    if "fit" in sys.argv:
        print("\n".join(f'    "{name}": {value:.3f},' for name, value in fit().items()))
        return
    if "cross" in sys.argv:
        half = held_out()
        print("\n".join(f"{name}: {value:.3f}" for name, value in figures(half, half).items()))
        return
    page = GUIDE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    GUIDE.write_text(before + BEGIN + text() + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()

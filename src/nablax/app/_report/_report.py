"""The report of a run: one HTML file that opens anywhere, written from the evidence gathered."""

from pathlib import Path

import numpy as np

from ..._core import require, write_whole
from ..._pages import DATA, SAMPLES, THIRD, render
from .._data._relations import percent
from ._evidence import Evidence
from ._levels import ACCURACY
from ._pictures import pictures
from ._verdict import Verdict, verdict

GIVEN_AWAY = 5  # columns named in the printed lines
RELATIONS = 8  # between columns, in the same


def write_report(path: str | Path, evidence: Evidence) -> Verdict:
    """Write the report as one HTML file: pictures inside, no script, nothing fetched.

    The file appears whole or not at all: it is written beside its place and moved there.

    Args:
        path: where to write it.
        evidence: what was measured.

    Returns:
        The verdict that the first paragraph states.

    Raises:
        ImportError: matplotlib, Pillow or Jinja2 is not installed; the message names the extra.

    Cost:
        A few seconds, most of it drawing.
    """
    for module in ("matplotlib", "PIL", "jinja2"):
        require(module, extra="app")
    judged = verdict(evidence)
    page = render(
        "report.html.jinja",
        e=evidence,
        verdict=judged,
        pictures=pictures(evidence),
        accuracy=ACCURACY,
        colours={"data": DATA, "samples": SAMPLES, "third": THIRD},
        percent=percent,
        quantile=lambda values, share: float(np.quantile(values, share)),
        missing=lambda name: evidence.why_missing.get(name, "it was not part of this run"),
    )
    write_whole(Path(path), page)
    return judged


def headline(evidence: Evidence) -> dict[str, str]:
    """Say the verdict and the numbers behind it, formatted for printing.

    Args:
        evidence: what was measured; what is missing is left out.

    Returns:
        Label to text, the verdict first.
    """
    judged = verdict(evidence)
    numbers = {"verdict": judged.headline}
    numbers |= {finding.topic.lower(): finding.text for finding in judged.findings if finding.topic == "Fresh rows"}
    for score in evidence.likelihoods:
        numbers[f"held-out, {score.name}"] = f"{score.mean:.3f} ± {score.standard_error:.3f} {evidence.unit}"
    if (test := evidence.two_sample) is not None:
        told = (
            f"{test.accuracy:.1%} ± {test.accuracy_standard_error:.1%} (50% is chance, p = {test.accuracy_p_value:.2g})"
        )
        numbers["samples told from data"] = told
        numbers["test of distances"] = f"p = {test.p_value:.3g}"
        if telling := [gap for gap in test.columns if gap.lost > 2 * gap.standard_error][:GIVEN_AWAY]:
            shown = (f"{gap.name} {100 * gap.lost:.1f} ± {100 * gap.standard_error:.1f}" for gap in telling)
            numbers["given away by"] = f"{', '.join(shown)} (points of accuracy lost when shuffled)"
        elif test.columns:
            numbers["given away by"] = "no one column"
    if (hidden := evidence.hidden) is not None:
        text = f"{hidden.share:.1%} ± {hidden.standard_error:.1%} (80% is right)"
        numbers["hidden numbers in the middle four fifths of their draws"] = text
    for relation in evidence.relations[:RELATIONS]:
        numbers[f"relation {relation.text}"] = relation.sentence.removeprefix(f"{relation.text} ")
    if (found := evidence.memorised) is not None:
        numbers["samples near a training row"] = (
            f"{found.share_close:.1%} (fresh rows: {found.expected_share:.1%}, p = {found.p_value:.2g})"
        )
    if (curve := evidence.solver_curve) is not None and curve.chosen_error is not None:
        numbers["solver error"] = f"{curve.chosen_error:.2g} {curve.unit}"
    if evidence.round_trip_error is not None:
        numbers["round-trip error"] = f"{evidence.round_trip_error:.2g} standard deviations"
    if (field_ := evidence.conservativity) is not None and len(field_.ratio):
        numbers["antisymmetric share"] = f"{float(np.nanmean(field_.ratio)):.3g} (mean over t)"
    for name, attack in (("samples", evidence.left_by_samples), ("likelihood", evidence.left_by_scores)):
        if attack is not None:
            text = f"area under the curve {attack.auc:.3f} ± {attack.standard_error:.3f} (0.5 is guessing)"
            numbers[f"training rows told by {name}"] = text
    if evidence.training_seconds is not None and evidence.report_seconds is not None:
        seconds = f"training {evidence.training_seconds:.1f}, measuring {evidence.report_seconds:.1f}"
        numbers["processor seconds"] = seconds
    return numbers

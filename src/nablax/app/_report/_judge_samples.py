"""What to make of the samples of a run: whether they can be told from rows, and what they give away of rows."""

import math
from collections.abc import Iterator

from ..._core import Finding, Level
from ._evidence import Evidence
from ._levels import (
    ACCURACY,
    CLOSE_SHARE,
    COPIED_EXCESS,
    KNOWN,
    MEMBERSHIP,
    SIGNIFICANT,
    SURELY,
    grade,
)
from ._relations_kept import judged
from ._two_sample import TwoSample


def samples(evidence: Evidence) -> Iterator[Finding]:
    test = evidence.two_sample
    rule = f"a classifier tells at most {ACCURACY[0]:.0%} apart, within two standard errors, and the distances agree "
    rule += f"(p at least {SIGNIFICANT:g}); a fault above {ACCURACY[1]:.0%}"
    if test is None:
        yield Finding("unknown", "Samples", "Its samples were not tested against held-out rows.", rule)
        return
    width = 2 * test.accuracy_standard_error
    told = f"a classifier tells the two apart {test.accuracy:.0%} ± {test.accuracy_standard_error:.0%} of the time"
    told += f" (50% is chance; p = {test.accuracy_p_value:.2g})"
    sure = test.accuracy - width > ACCURACY[0]
    if sure and test.accuracy > ACCURACY[1]:
        sentence = f"Its samples are easily told from held-out rows: {told}{_by(test)}."
        fix = "Train longer or use a larger network, and see in the pictures below what differs."
        yield Finding("fault", "Samples", sentence, rule, fix)
    elif sure:
        sentence = f"Its samples resemble held-out rows but are not the same: {told}{_by(test)}."
        yield Finding("warning", "Samples", sentence, rule, "The pictures below show what differs.")
    elif test.p_value < SIGNIFICANT:
        sentence = f"Its samples resemble held-out rows, but their distances differ (p = {test.p_value:.2g}): {told}."
        yield Finding("warning", "Samples", sentence, rule, "The pictures below show what differs.")
    elif test.accuracy > ACCURACY[0]:
        sentence = f"Whether its samples can be told from held-out rows is not known: {told}, which "
        sentence += f"{test.rows[0]} rows leave open."
        yield Finding("unknown", "Samples", sentence, rule, "Hold out more rows.")
    else:
        yield Finding("good", "Samples", f"Its samples are hard to tell from held-out rows: {told}.", rule)


def _by(test: TwoSample) -> str:
    """The columns that surely give the samples away, as the end of a sentence."""
    named = [gap.name for gap in test.columns if gap.lost > 2 * gap.standard_error][:3]
    return f", mostly by {', '.join(named)}" if named else ""


def relations(evidence: Evidence) -> Iterator[Finding]:
    yield from judged(list(evidence.relations))


def fresh(evidence: Evidence) -> Iterator[Finding]:
    """Whether the rows that it is checked on are ones that it was trained on."""
    found = evidence.memorised
    if found is None:
        return
    material, surely = KNOWN
    share, usual, count = found.held_out_share_copied, found.train_share_copied, len(found.held_out_distance)
    if share - usual > max(material, surely * math.sqrt(share * (1.0 - share) / count)):
        sentence = f"{share:.0%} of the rows that it is checked on are training rows, {usual:.0%} of which recur: "
        sentence += "what is said here of fresh rows is not said of such."
        rule = f"at most {material:.0%} more than recur, or {surely:g} standard errors"
        yield Finding("warning", "Fresh rows", sentence, rule, "Check it against rows that it was not learnt from.")


def memorised(evidence: Evidence) -> Iterator[Finding]:
    found = evidence.memorised
    rule = f"no more near or exact copies than fresh rows show (p at least {SIGNIFICANT:g})"
    if found is None:
        yield Finding("unknown", "Memorised rows", "It was not checked for memorised rows.", rule)
        return
    excess = found.share_copied - found.held_out_share_copied
    copies = found.copied_p_value < SIGNIFICANT and excess > 0
    near = found.p_value < SIGNIFICANT and found.share_close > found.expected_share
    fix = "Do not publish its samples as new rows; use more rows, fewer steps or a smaller network."
    if copies:
        sentence = f"{found.share_copied:.1%} of its samples are copies of training rows"
        sentence += f", where {found.held_out_share_copied:.1%} of fresh rows would be."
        level: Level = "fault" if excess > COPIED_EXCESS else "warning"
        yield Finding(level, "Memorised rows", sentence, rule, fix)
    elif near:
        sentence = f"{found.share_close:.0%} of its samples lie as near to a training row as only "
        sentence += f"{found.expected_share:.1%} of fresh rows do."
        level = "fault" if found.share_close > CLOSE_SHARE else "warning"
        yield Finding(level, "Memorised rows", sentence, rule, fix)
    else:
        yield Finding("good", "Memorised rows", "There is no sign that it repeats its training rows.", rule)


def privacy(evidence: Evidence) -> Iterator[Finding]:
    attacks = (
        ("by how near they lie to its samples", evidence.left_by_samples),
        ("by how likely it finds them", evidence.left_by_scores),
    )
    known = [(how, found) for how, found in attacks if found is not None]
    if not known:
        return
    how, worst = max(known, key=lambda attack: attack[1].auc)
    rule = f"area under the curve at most {MEMBERSHIP[0]:g}, within the error; a fault above {MEMBERSHIP[1]:g}"
    sure = worst.auc - 0.5 > SURELY * worst.standard_error
    level = grade(worst.auc, MEMBERSHIP) if sure else "good"
    amount = f"(area under the curve {worst.auc:.2f} ± {worst.standard_error:.2f}; 0.5 is guessing)"
    if level == "good":
        yield Finding("good", "Privacy", f"Its training rows are hard to tell from fresh ones {how} {amount}.", rule)
        return
    sentence = f"Its training rows can be told from fresh ones {how} {amount}."
    yield Finding(level, "Privacy", sentence, rule, "Use more rows, fewer steps or a smaller network.")

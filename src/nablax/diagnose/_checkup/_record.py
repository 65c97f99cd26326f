"""What a check-up found: the records of its parts together, what is said of them, and how it is shown."""

from functools import cached_property
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float

from ..._core import AbstractRecord, Finding, Level, gravest_first
from ..._pages import figure, render
from . import (
    _conflicts,
    _layers,
    _noise_scale,
    _rehearsal,
    _repeats,
    _rotation,
    _sharpness,
    _step,
    _subspace,
    _through_time,
)
from ._conflicts import Conflicts
from ._gather import signs_of
from ._layers import LayerHealth
from ._metrics import as_json, metrics
from ._noise_scale import NoiseScale
from ._part import Part, Setting, listed, percent
from ._rehearsal import Rehearsal
from ._repeats import Repeats
from ._risk import risk_of
from ._rotation import Rotation
from ._schedule import HORIZON
from ._sharpness import Sharpness
from ._signs import TO_TELL, Signs
from ._step import StepQuality
from ._subspace import Subspace
from ._through_time import ThroughTime
from ._verdict import RISING, Thresholds, levels

# In the order of the page; a part is a file with its measure, its thresholds and verdicts, and its card.
PARTS = (
    _sharpness.PART,
    _step.PART,
    _rehearsal.PART,
    _noise_scale.PART,
    _subspace.PART,
    _conflicts.PART,
    _rotation.PART,
    _layers.PART,
    _through_time.PART,
    _repeats.PART,
)


# In the order in which findings of one level are said: causes before what they bring about.
JUDGED = (
    _repeats.PART,
    _layers.PART,
    _through_time.PART,
    _conflicts.PART,
    _rotation.PART,
    _sharpness.PART,
    _step.PART,
    _noise_scale.PART,
)
# Rules after which another rate is advised.
RATE = ("rises", "too high", "too low")


class Checkup(AbstractRecord):
    """What one check-up found; each part is a record of its own.

    Attributes:
        sharpness: top eigenvalue against this optimiser's threshold.
        step: the actual update against its quadratic model; None without an update.
        noise: gradient noise scales; None where the batch has no rows to tell apart.
        subspace: top of the spectrum, and the share of gradient and update there.
        conflicts: of several losses; None unless they were given.
        rotation: of the update field; None unless one was given.
        rehearsal: the next steps on this batch; None where no optimiser makes them.
        layers: weights, gradients and steps by parameter.
        through_time: what the loss feels of each position of a sequence; None without sequences of numbers.
        repeats: whether rows are the same; None of few rows.
        loss: on the batch.
        chance: the loss of a model that knows nothing; None where not known.
        fresh: whether the optimiser has moments and all are zero, as before its first step.
        unaided: whether the step is of this batch alone: there are no moments, or all are zero.
        growth: how many times as long its schedule makes the step within 200 steps, 1 without one; NaN where the
            optimiser is not known.
        finite: whether all numbers of the batch are.
        thresholds: that levels are judged by.
        batch_size: rows of a training step; None where not known.
        notes: what was not measured, and why, and what was measured in another way.
    """

    sharpness: Sharpness
    step: StepQuality | None
    noise: NoiseScale | None
    subspace: Subspace
    conflicts: Conflicts | None
    rotation: Rotation | None
    rehearsal: Rehearsal | None
    layers: LayerHealth
    through_time: ThroughTime | None
    repeats: Repeats | None
    loss: Float[Array, ""]
    chance: Float[Array, ""] | None
    fresh: Bool[Array, ""]
    unaided: Bool[Array, ""]
    growth: Float[Array, ""]
    finite: Bool[Array, ""]
    thresholds: Thresholds = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)
    notes: tuple[str, ...] = eqx.field(static=True)

    @property
    def findings(self) -> list[Finding]:
        """What is wrong or worth knowing, the gravest first: level ("fault", "warning", "note"), topic and text."""
        if self._broken():
            return [Finding("fault", "not finite", self._what_is_broken())]
        setting = self._setting
        parts = self._parts(JUDGED)
        if self.step is not None and not np.isfinite(self.step.actual.value):
            parts.sort(key=lambda pair: pair[0] is not _step.PART)
        found = [finding for part, record in parts for finding in part.judge(record, setting)]
        if level := setting.levels.get("likely"):
            found.append(Finding(level, "risk", self._likely(level)))
        if not setting.levels and all(finding.level == "note" for finding in found):
            found.insert(0, Finding("note", "step", self._nothing_found()))
        return gravest_first(found)

    def _what_is_broken(self) -> str:
        broken = self.layers.not_finite()
        where = f": {listed(broken)}" if broken else ""
        text = f"The loss is {float(self.loss):.4g} and there are numbers that are not finite{where}. "
        text += "Do not make this step"
        if not self.finite:
            return f"{text}: the batch holds NaN or infinite numbers. Look at where it comes from."
        if not broken:
            return (
                f"{text}: parameters, gradients and batch are finite, and the loss is not. Look for a logarithm or a "
                "quotient of 0, an overflow, and labels beyond the classes."
            )
        return f"{text}; go back to the last good state, and look at the first parameter named."

    def _likely(self, level: Level) -> str:
        text = f"Of runs that look like this one {percent(self.risk)} fail within {HORIZON} steps"
        if level == "fault":
            return f"{text}, and nothing measured here says why: look again in a few steps, and keep this state."
        if self.signs.growth >= RISING:
            return f"{text}, but its schedule makes the step {self._grown()}: ask again then."
        if self.signs.fresh:
            return f"{text}, but before a first step little can be told: ask again at step 20."
        known = (
            "it has learned something" if self.chance is not None else "what knowing nothing would give is not known"
        )
        text += f", but {known}: it may be as far as it goes."
        return f"{text} {TO_TELL}" if self.chance is None else text

    def _grown(self) -> str:
        grown = self.signs.growth
        return f"{grown:.2g} times as long within {HORIZON} steps" if np.isfinite(grown) else "grow from nothing"

    def _nothing_found(self) -> str:
        risk = self.risk
        if np.isnan(risk):
            return "Nothing measured here needs mending; pass optimizer= to have the next steps looked at."
        if risk >= 0.5:
            return f"Nothing measured here needs mending, though {percent(risk)} of runs that look like this one fail."
        return "Nothing here needs mending."

    @property
    def advice(self) -> list[str]:
        """The findings in plain words, the gravest first; never empty."""
        return [finding.text for finding in self.findings]

    def table(self) -> str:
        """Lay everything out as plain text.

        Returns:
            Advice, then the tables of the parts.
        """
        words = "\n".join(f"[{finding.level}] {finding.text}" for finding in self.findings)
        return "\n\n".join([words, *(record.table() for _, record in self._parts(PARTS)), *self.notes])

    def metrics(self) -> dict[str, float]:
        """Every single number by name, to be logged.

        Returns:
            Numbers by path, such as ``"loss"``, ``"sharpness/ratio"`` and ``"sharpness/ratio_error"``, and how many
            findings of each level there are, ``"findings/faults"``. Names depend on the arguments of the check-up
            alone. Truths are 1 and 0; what is not known is NaN.
        """
        return metrics(self)

    def to_json(self) -> str:
        """Numbers, findings and notes as JSON.

        Returns:
            ``{"metrics": {name: number}, "findings": [{"level", "topic", "text"}], "notes": [...]}``; NaN and infinity
            are null.
        """
        return as_json(self)

    def to_html(self, path: str | Path | None = None) -> str:
        """Write everything as one page that opens offline.

        Args:
            path: where to write it; None to write nothing.

        Returns:
            The page.

        Raises:
            ImportError: matplotlib or Jinja2 is not installed; the message names the extra.
        """
        setting = self._setting
        cards = [part.card(record, setting) for part, record in self._parts(PARTS)]
        text = render(
            "checkup.html.jinja",
            findings=self.findings,
            loss=figure(self.loss),
            rule=self.sharpness.rule.name(),
            batch_size=self.batch_size,
            cards=[card for card in cards if card is not None],
            notes=self.notes,
            numbers=self.table(),
        )
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    @property
    def safe(self) -> bool:
        """Whether nothing is a fault."""
        return not any(finding.level == "fault" for finding in self.findings)

    @property
    def risk(self) -> float:
        """How likely the run is to fail within 200 steps, 0 to 1, by its likes in the bank of runs (guide)."""
        return 1.0 if self._broken() else float(risk_of(self.signs))

    @property
    def suggested_learning_rate(self) -> float | None:
        """The rate at which the rehearsal went best; None where the rate in use is to stay, or is not known."""
        advised, rate = self._setting.advised, float(self.sharpness.rule.learning_rate)
        return None if advised is None or not np.isfinite(rate) else rate * advised

    def _broken(self) -> bool:
        return bool(self.layers.not_finite()) or not np.isfinite(self.loss)

    def _parts(self, parts: tuple[Part, ...]) -> list[tuple[Part, Any]]:
        """Those parts that were measured, with their records."""
        return [(part, getattr(self, part.name)) for part in parts if getattr(self, part.name) is not None]

    @cached_property
    def _setting(self) -> Setting:
        rows = None if self.noise is None else self.noise.rows
        signs, eigenvalues = self.signs, np.asarray(self.subspace.values)
        found = levels(signs, self.thresholds)
        grave = any(found.get(name) in ("fault", "warning") for name in RATE)
        advised = signs.best if grave and signs.best != 1 else None
        return Setting(float(self.loss), self.batch_size, rows, eigenvalues, signs, found, advised)

    @cached_property
    def signs(self) -> Signs:
        """The numbers without unit that levels and risk are judged from."""
        return signs_of(
            loss=float(self.loss),
            chance=None if self.chance is None else float(self.chance),
            sharpness=self.sharpness,
            step=self.step,
            rehearsal=self.rehearsal,
            noise=self.noise,
            layers=self.layers,
            conflicts=self.conflicts,
            through_time=self.through_time,
            batch_size=self.batch_size,
            fresh=bool(self.fresh),
            unaided=bool(self.unaided),
            growth=float(self.growth),
        )

"""What was measured of a run: everything that its report says."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from ._baselines import Likelihood
from ._hidden import Coverage
from ._memorised import Memorised
from ._privacy import Membership
from ._relations_kept import Kept
from ._two_sample import TwoSample


@dataclass
class Training:
    """Curves of the fit.

    Attributes:
        step: ``[k]`` steps at which the loss was recorded.
        loss: ``[k]`` training loss.
        validation_step: ``[v]`` steps of validation; may be empty.
        validation: ``[v]`` validation loss.
        best_step: step whose weights were kept; None for the last.
        result: "completed", "stopped early" or "diverged".
    """

    step: np.ndarray
    loss: np.ndarray
    validation_step: np.ndarray
    validation: np.ndarray
    best_step: int | None = None
    result: str = "completed"


@dataclass
class SolverCurve:
    """Error of sampling against field evaluations.

    Attributes:
        evaluations: ``[k]`` field evaluations for one sample, rising; empty where only ``chosen_error`` is known.
        error: ``[k]`` error against a much finer solution.
        chosen: evaluations that sampling uses; None when adaptive and not known.
        chosen_error: error there.
        unit: of the error.
    """

    evaluations: np.ndarray
    error: np.ndarray
    chosen: int | None = None
    chosen_error: float | None = None
    unit: str = "standard deviations"


@dataclass
class ConservativityCurve:
    """How far the velocity is from a gradient.

    Attributes:
        times: ``[k]`` times.
        ratio: ``[k]`` antisymmetric share of the Jacobian, 0 for a gradient, 1 for a rotation.
        standard_error: ``[k]`` of ``ratio``.
        loop_integral: share of the work along small loops that does not cancel: 0 for a gradient, up to 1
            (``net_work`` of ``diagnose.conservativity``).
        loop_integral_standard_error: of it.
    """

    times: np.ndarray
    ratio: np.ndarray
    standard_error: np.ndarray
    loop_integral: float | None = None
    loop_integral_standard_error: float | None = None


@dataclass
class PathEnergy:
    """How far and how straight samples travel.

    Attributes:
        energy: mean of the integral of squared speed along a path, in squared standard deviations.
        energy_standard_error: of it.
        straightness: mean squared departure of the velocity from the path's chord, as a share of the energy: 0
            is straight (``relative_straightness`` of ``diagnose.path_geometry``).
        straightness_standard_error: of it.
    """

    energy: float
    energy_standard_error: float
    straightness: float
    straightness_standard_error: float


class Choice(NamedTuple):
    """One choice in the configuration: its name, value, and why it was made."""

    name: str
    value: object
    why: str


class Command(NamedTuple):
    """A command to go on with, and what it does."""

    command: str
    purpose: str


@dataclass
class Evidence:
    """Everything that a report says. Fill what was measured; what stays None is said to be missing.

    Attributes:
        name: the data's name.
        rows: rows of the data set.
        columns: columns of the table, or pixels times channels.
        model: the model in a few words, such as "flow matching, MLP 4 × 256".
        when: date and time, as it shall be printed.
        data: real rows for the pictures (held-out ones by choice). A table is a mapping from column name to a
            one-dimensional array: numbers with NaN for missing, anything else is a category with None for
            missing. Images are an array ``[n, height, width]`` or ``[n, height, width, channels]``.
        samples: the model's samples, decoded, in the same form.
        dates: columns of both that hold days since 1970.
        data_labels: ``[n]`` condition of each image, by which the grids are ordered; optional.
        sample_labels: the same of the samples.
        image_limits: pixel values of black and white.
        held_out_rows: rows the figures below rest on.
        unit: of the likelihoods: "nats per row" or "bits/dim".
        training: the curves.
        likelihoods: on held-out rows, the model first, then the baselines; build with
            ``_baselines.likelihood``.
        train_likelihood: the model on training rows.
        two_sample: result of ``two_sample``.
        memorised: result of ``memorised``.
        hidden: how often hidden numbers lie in the middle of their draws.
        left_by_samples: how well training rows are told by their distance to samples.
        left_by_scores: how well they are told by the model's own likelihood of them.
        training_seconds: CPU seconds of training.
        report_seconds: CPU seconds of measuring, before the pictures are drawn.
        closest_pairs: for images, (samples, training rows) of ``memorised.closest``, arrays of images.
        solver_curve: error against evaluations.
        conservativity: antisymmetry along t.
        path_energy: energy and straightness.
        clipped_fraction: share of sampled cells moved back into the data's range.
        round_trip_error: largest or mean distance of rows carried to noise and back, standard deviations.
        choices: the whole configuration.
        dropped: name of each column that is not modelled, and why.
        relations: exact relations between columns, and how often samples keep each.
        notices: sentences the user must see: what was left out, repaired, or shortened.
        commands: how to go on.
        why_missing: field name to the reason it was not computed.
    """

    name: str
    rows: int
    columns: int
    model: str
    when: str
    data: Mapping[str, np.ndarray] | np.ndarray
    samples: Mapping[str, np.ndarray] | np.ndarray
    dates: Collection[str] = ()
    data_labels: np.ndarray | None = None
    sample_labels: np.ndarray | None = None
    image_limits: tuple[float, float] = (0.0, 255.0)
    held_out_rows: int | None = None
    unit: Literal["nats per row", "bits/dim"] = "nats per row"
    training: Training | None = None
    likelihoods: list[Likelihood] = field(default_factory=list)
    train_likelihood: Likelihood | None = None
    two_sample: TwoSample | None = None
    memorised: Memorised | None = None
    hidden: Coverage | None = None
    left_by_samples: Membership | None = None
    left_by_scores: Membership | None = None
    training_seconds: float | None = None
    report_seconds: float | None = None
    closest_pairs: tuple[np.ndarray, np.ndarray] | None = None
    solver_curve: SolverCurve | None = None
    conservativity: ConservativityCurve | None = None
    path_energy: PathEnergy | None = None
    clipped_fraction: float | None = None
    round_trip_error: float | None = None
    choices: Sequence[Choice] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    relations: Sequence[Kept] = ()
    notices: Sequence[str] = ()
    commands: Sequence[Command] = ()
    why_missing: Mapping[str, str] = field(default_factory=dict)

"""What a trained run is worth: everything that its report says is measured here."""

import dataclasses
import datetime
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
import polars as pl

from .._ask._draw import conditions_for
from .._ask._names import free_name
from .._ask._score import encode_frame
from .._ask._write import write_frame
from .._data._plain_text import TextOptions
from .._data._sources import read
from .._errors import UserError
from .._key import random_key
from .._runs._rows import Rows, encode
from .._runs._run import Model, Run, load
from ._cost import Allowance
from ._evidence import Choice, Evidence
from ._field import conservativity, drawn_twice, path_energy, solver_curve
from ._health import field_health, shifted
from ._hidden import DRAWS, hidden_cells
from ._material import commands_of, dates_of, shown, training_of
from ._measures import Scored, feature_groups, features, likelihood_of, likelihoods, scores_of
from ._memorised import memorised
from ._privacy import by_samples, membership
from ._relations_kept import Kept, relations_kept
from ._report import headline, write_report
from ._two_sample import FEWEST, two_sample

if TYPE_CHECKING:
    from .._data._sources import Source

_HELD_OUT = 1000  # rows scored
_FEWEST = 2  # rows to check against: of one, no standard error can be given
_TRAIN = 500  # training rows scored, for the gap
_PICTURES = 1.0  # CPU seconds
_SEARCHED = 100_000  # training rows searched for copies
_SAMPLES = 1000  # of a table at least, however few rows were held out: fewer make ragged pictures

Notice = Callable[[str], None]
Stage = Callable[[str, float], None]  # what is being done, and the share of the report that was done before


def evaluate(
    run: Run, opened: "Source", *, notice: Notice, stage: Stage = lambda name, share: None, full: bool = False
) -> Evidence:
    """Measure a trained run on its held-out rows and write its samples, scores and report.

    What takes long is left out where training was short: likelihoods are compared only where that fits into half of
    the CPU seconds that training took, or into twelve, and the field itself is looked at only in a full report.

    Args:
        run: a trained run.
        opened: the data it was learnt from.
        notice: called with lines for the person.
        stage: called with what is being done, and how much of the report is done.
        full: leave nothing out, however long it takes.

    Returns:
        The evidence. The report is written last: it marks the run as finished.
    """
    allowance = Allowance(None if full else run)
    model = load(run.path)
    rows = encode(opened, model.codec, model.config, run)
    positions = rows.held_out[:_HELD_OUT]
    condition = np.asarray(rows.condition[positions])
    base = np.asarray(rows.base[positions])
    return _evaluate(model, rows, base, condition, opened.notices, notice, stage, allowance, full)


def check(
    folder: Path,
    data: str | None,
    *,
    encoding: str | None = None,
    notice: Notice,
    stage: Stage = lambda name, share: None,
) -> Evidence:
    """Measure a run again, on its held-out rows or on others, and write its report anew, with nothing left out.

    Args:
        folder: the run.
        data: rows to check against; by default those held out. Whether columns have shifted is asked beside the latter,
            and where none were held out, beside those that decided when to stop.
        encoding: of those, where they are text.
        notice: called with lines for the person.
        stage: called with what is being done, and how much of the report is done.

    Returns:
        The evidence.

    Raises:
        UserError: the run's own data are gone or have changed, no rows were held out and none are given, or those given
            do not fit.
    """
    model = load(folder)
    config = model.config
    if config.source == "-":
        raise UserError(f"{folder} was learnt from standard input, which is gone: its rows cannot be looked at again")
    opened = read(
        config.source, condition=config.condition, image_size=config.image_size, text=TextOptions(**config.text)
    )
    if opened.fingerprint != model.config.fingerprint:
        raise UserError(f"{model.config.source} has changed since {folder} was learnt from it")
    rows = encode(opened, model.codec, model.config, model.run)
    if data is None and not len(rows.held_out):
        command = f"nablax check {shlex.quote(str(folder))} ROWS"
        raise UserError(f"{folder} was learnt from all of its rows: check it against others, in a file ROWS: {command}")
    positions = (rows.held_out if len(rows.held_out) else rows.validation)[:_HELD_OUT]
    base, condition = np.asarray(rows.base[positions]), np.asarray(rows.condition[positions])
    seed, lines = model.config.seed + 2, []
    if data is not None:
        held_out = base
        frame = model.read(data, encoding)
        if len(frame) < _FEWEST:
            raise UserError(data, f"too few rows to check against: {len(frame)}, at least {_FEWEST} are needed")
        if len(frame) > _HELD_OUT:
            notice(f"a random {_HELD_OUT} of the {len(frame)} rows are looked at")
            frame = frame.sample(_HELD_OUT, shuffle=True, seed=seed)
        base, given = encode_frame(model, frame)
        condition = np.zeros((len(base), model.codec.condition_dim), np.float32) if given is None else given
        lines = shifted(model, held_out, base, seed)
    evidence = _evaluate(
        model, rows, base, condition, (*opened.notices, *lines), notice, stage, Allowance(model.run), True
    )
    vectors = condition if model.joint is None else conditions_for(model, len(condition), {}, seed)
    notice(field_health(model, vectors, seed))
    for line in lines:
        notice(line)
    return evidence


def _evaluate(
    model: Model,
    rows: Rows,
    base: np.ndarray,
    condition: np.ndarray,
    notices: tuple[str, ...],
    notice: Notice,
    stage: Stage,
    allowance: Allowance,
    full: bool,
) -> Evidence:
    config, codec = model.config, model.codec
    images = config.kind == "images"
    seed = config.seed + 1
    conditional = bool(codec.condition_dim)
    missing: dict[str, str] = {}
    more = f"'nablax check {shlex.quote(str(model.run.path))}' measures it"

    stage("drawing samples", 0.0)
    # Of a table a multiple of the draws of a row with hidden cells, which are then drawn by the same program.
    count = len(base) if images else -(-max(len(base), _SAMPLES) // DRAWS) * DRAWS
    before = allowance.spent
    drawn_condition = conditions_for(model, count, {}, seed)
    y, solver = drawn_twice(model, drawn_condition, seed)
    of_drawing = allowance.spent - before
    drawn = model.decode(y, drawn_condition if conditional or model.joint else None)
    relations: list[Kept] = []
    if not images:
        table = model.table("report")
        obeys = table.obeys(drawn)
        obeys |= not obeys.any()  # a model that draws no row that does is looked at as it is
        drawn, y, drawn_condition = drawn.filter(pl.Series(obeys)), y[obeys], drawn_condition[obeys]
        relations = relations_kept(table, drawn)
    drawn_base, _ = encode_frame(model, drawn)
    real = _decode(model, base, condition)

    stage("comparing them with held-out rows", 0.2)
    searched = np.asarray(rows.base[np.sort(rows.train[:_SEARCHED])])
    held, made, trained = (features(model, part) for part in (base, drawn_base, searched))
    values: Any = tuple(part.reshape(len(part), -1) for part in (searched, base, drawn_base))
    copies = memorised(trained, held, made, values=values, one_scale=images, seed=seed)
    told = None
    if len(base) >= FEWEST:
        told = two_sample(held, made, groups=None if images else feature_groups(model, base), seed=seed)
    else:
        missing["two_sample"] = f"it takes {FEWEST} rows, and there are {len(base)}"

    # The density takes about as long as the sampler, most of it compiling; of images half as long again. Then there are
    # the pictures.
    scored: Scored | None = None
    if full or allowance.covers((1.5 if images else 1.0) * of_drawing + _PICTURES):
        stage("scoring held-out rows", 0.4)
        train_rows = rows.take(rows.train[: min(_TRAIN, len(base))])
        scored = scores_of(model, base, condition, train_rows["base"], seed, round_trip=full)
        stage("fitting simple models to compare with", 0.6)
        compared = likelihoods(model, scored, searched, base, seed)
    else:
        missing["likelihoods"] = (
            f"training was so short that it would have taken over half as long, and over twelve seconds; {more}"
        )
        compared = []
    hidden = None
    if not images and (full or allowance.covers(of_drawing + _PICTURES)):
        stage("drawing hidden cells", 0.65)
        hidden = hidden_cells(model, base, count, seed)
    turning = None
    if full:
        stage("looking at the field", 0.75)
        solver = solver_curve(model, drawn_condition, seed)
        turning = conservativity(model, base, condition, seed), path_energy(model, drawn_condition, seed)
    else:
        missing |= dict.fromkeys(("conservativity", "path_energy", "solver_evaluations"), more)

    clipped = list(model.clipped(y, drawn_condition).values())
    evidence = Evidence(
        name=config.name,
        rows=config.rows,
        columns=codec.cells,
        model=f"flow matching, {config.choices['network']} {config.choices['depth']} × {config.choices['width']}",
        when=datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        data=shown(real),
        samples=shown(drawn),
        dates=() if images else dates_of(real),
        held_out_rows=len(base),
        unit="bits/dim" if images else "nats per row",
        training=training_of(model.run),
        likelihoods=compared,
        train_likelihood=None
        if scored is None
        else likelihood_of(model, "this model, training rows", scored.training.log_likelihood),
        two_sample=told,
        why_missing=missing,
        memorised=copies,
        hidden=hidden,
        left_by_samples=by_samples(trained, held, made, seed=seed, one_scale=images) if len(base) >= FEWEST else None,
        left_by_scores=membership(scored.training.log_likelihood, scored.held_out.log_likelihood)
        if scored is not None and len(base) >= FEWEST
        else None,
        solver_curve=solver,
        conservativity=None if turning is None else turning[0],
        path_energy=None if turning is None else turning[1],
        clipped_fraction=float(np.mean(clipped)) if clipped else None,
        round_trip_error=float(np.mean(scored.held_out.round_trip_error)) if scored is not None and full else None,
        choices=[Choice(name, value, config.reasons.get(name, "")) for name, value in config.choices.items()],
        dropped={} if images else dict(model.table("report").dropped),
        relations=relations,
        notices=[*notices, *codec.notices, *(f"Relation: {relation.sentence}." for relation in relations)],
        commands=commands_of(model),
    )
    if images:
        evidence = _with_images(evidence, model, real, drawn, condition, drawn_condition, searched, copies.closest)
    stage("drawing pictures", 0.8)
    evidence = dataclasses.replace(evidence, training_seconds=allowance.training, report_seconds=allowance.spent)
    _write(model, real, drawn, scored, evidence)
    stage("", 1.0)
    for label, text in headline(evidence).items():
        notice(f"  {label}: {text}")
    return evidence


def _decode(model: Model, base: np.ndarray, condition: np.ndarray) -> pl.DataFrame:
    if model.joint is not None:
        return model.table("report").decode_base(base)
    y, args = model.points(jnp.asarray(base), jnp.asarray(condition), random_key(0))
    return model.decode(np.asarray(y), args)


def _with_images(
    evidence: Evidence,
    model: Model,
    real: pl.DataFrame,
    drawn: pl.DataFrame,
    condition: np.ndarray,
    drawn_condition: np.ndarray,
    searched: np.ndarray,
    closest: np.ndarray,
) -> Evidence:
    codec: Any = model.codec
    limits = (0.0, float(codec.levels - 1)) if codec.levels else (float(codec.low), float(codec.high))
    shown = slice(0, 8)
    nearest = _decode(model, searched[closest[shown, 1]], np.zeros((len(closest[shown]), codec.condition_dim)))
    pairs = (np.asarray(evidence.samples)[closest[shown, 0]], nearest["image"].to_numpy())
    labels = codec.condition[0] if codec.condition else None
    return dataclasses.replace(
        evidence,
        image_limits=limits,
        closest_pairs=pairs,
        data_labels=real[labels].to_numpy() if labels else None,
        sample_labels=drawn[labels].to_numpy() if labels else None,
    )


def _write(model: Model, real: pl.DataFrame, drawn: pl.DataFrame, scored: Scored | None, evidence: Evidence) -> None:
    """Write samples and scores, and then the report."""
    run = model.run
    if model.config.kind == "images":
        write_frame(drawn, run.path / "samples.npz")
        from ..._pages import image_grid

        order = np.argsort(evidence.sample_labels, kind="stable") if evidence.sample_labels is not None else slice(None)
        grid = np.asarray(evidence.samples)[order]
        step = max(1, len(grid) // 80)
        run.write("samples.png", image_grid(grid[::step][:80], limits=evidence.image_limits, columns=10))
    else:
        write_frame(model.codec.spell(drawn), run.path / "samples.csv")
    if scored is not None:
        _write_scores(model, real, scored)
    write_report(run.path / "report.html", evidence)


def _write_scores(model: Model, real: pl.DataFrame, scored: Scored) -> None:
    scores = scored.given or scored.held_out
    value, error, name = scores.log_likelihood, scores.standard_error, "log_likelihood_nats"
    if model.config.kind == "images":
        value, error = scores.bits_per_dimension(model.codec.cells)
        name = "bits_per_dimension"
    spelled = model.codec.spell(real)
    plain = spelled.drop([column for column, dtype in spelled.schema.items() if dtype.is_nested()])
    new = {name: pl.Series(value), f"{name}_standard_error": pl.Series(error).fill_nan(None)}
    table = plain.with_columns(**{free_name(name, plain.columns): series for name, series in new.items()})
    write_frame(table, model.run.path / "scores.csv")


__all__ = ["check", "evaluate"]

"""What a trained run is worth: everything that its report says is measured here."""

import dataclasses
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from .._ask._draw import conditions_for, draw
from .._ask._names import free_name
from .._ask._score import Scores, encode_frame, score
from .._ask._write import write_frame
from .._data._plain_text import TextOptions
from .._data._sources import read
from .._errors import UserError
from .._runs._rows import Rows, encode
from .._runs._run import Model, Run, load
from ._evidence import Choice, Command, Evidence, Training
from ._health import field_health, shifted
from ._measures import (
    conservativity,
    features,
    likelihood_of,
    likelihoods,
    path_energy,
    solver_curve,
)
from ._memorised import memorised
from ._report import headline, write_report
from ._two_sample import FEWEST, two_sample

if TYPE_CHECKING:
    from .._data._sources import Source

_HELD_OUT = 1000  # rows scored
_TRAIN = 500  # training rows scored, for the gap
_SEARCHED = 100_000  # training rows searched for copies

Notice = Callable[[str], None]


def evaluate(run: Run, opened: "Source", *, notice: Notice) -> Evidence:
    """Measure a trained run on its held-out rows and write its samples, scores and report.

    Args:
        run: a trained run.
        opened: the data it was learnt from.
        notice: called with lines for the person.

    Returns:
        The evidence. The report is written last: it marks the run as finished.
    """
    model = load(run.path)
    rows = encode(opened, model.codec, model.config, run)
    positions = rows.held_out[:_HELD_OUT]
    condition = np.asarray(rows.condition[positions])
    notice(f"measuring on {len(positions)} held-out rows")
    return _evaluate(model, rows, np.asarray(rows.base[positions]), condition, opened.notices, notice)


def check(folder: Path, data: str | None, *, encoding: str | None = None, notice: Notice) -> Evidence:
    """Measure a run again, on its held-out rows or on others, and write its report anew.

    Args:
        folder: the run.
        data: rows to check against; by default those held out.
        encoding: of those, where they are text.
        notice: called with lines for the person.

    Returns:
        The evidence.

    Raises:
        UserError: the run's own data are gone or have changed, or the rows given do not fit.
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
    positions = rows.held_out[:_HELD_OUT]
    base, condition = np.asarray(rows.base[positions]), np.asarray(rows.condition[positions])
    seed, lines = model.config.seed + 2, []
    if data is not None:
        held_out = base
        frame = model.read(data, encoding)
        if len(frame) > _HELD_OUT:
            notice(f"a random {_HELD_OUT} of the {len(frame)} rows are looked at")
            frame = frame.sample(_HELD_OUT, shuffle=True, seed=seed)
        base, given = encode_frame(model, frame)
        condition = np.zeros((len(base), model.codec.condition_dim), np.float32) if given is None else given
        lines = shifted(model, held_out, base, seed)
    evidence = _evaluate(model, rows, base, condition, (*opened.notices, *lines), notice)
    vectors = condition if model.joint is None else conditions_for(model, len(condition), {}, seed)
    notice(field_health(model, vectors, seed))
    for line in lines:
        notice(line)
    return evidence


def _evaluate(
    model: Model, rows: Rows, base: np.ndarray, condition: np.ndarray, notices: tuple[str, ...], notice: Notice
) -> Evidence:
    config, codec = model.config, model.codec
    images = config.kind == "images"
    seed = config.seed + 1
    conditional = bool(codec.condition_dim)
    real = _decode(model, base, condition)

    # All with the round trip that only the first needs: one compiled program serves the three.
    scores = score(model, base, None, draws=1, seed=seed, round_trip=True)
    given = score(model, base, condition, draws=1, seed=seed, round_trip=True) if conditional else None
    train_rows = rows.take(rows.train[:_TRAIN])
    train_scores = score(model, train_rows["base"], None, draws=1, seed=seed, round_trip=True)
    searched = np.asarray(rows.base[np.sort(rows.train[:_SEARCHED])])
    compared = likelihoods(model, scores, given, searched, base, seed)
    notice("drawing samples")
    count = len(base)
    drawn_condition = conditions_for(model, count, {}, seed)
    scale = float(config.choices["guidance_scale"])
    y = draw(model, count, seed=seed, condition=drawn_condition, scale=scale)
    drawn = model.decode(y, drawn_condition if conditional or model.joint else None)
    drawn_base, _ = encode_frame(model, drawn)
    notice("comparing them with held-out rows")
    held, made, trained = (features(model, part) for part in (base, drawn_base, searched))
    values: Any = tuple(part.reshape(len(part), -1) for part in (searched, base, drawn_base))
    copies = memorised(trained, held, made, values=values, one_scale=images, seed=seed)
    notice("looking at the field")
    curve = solver_curve(model, drawn_condition, seed)
    clipped = list(model.clipped(y, drawn_condition).values())
    evidence = Evidence(
        name=config.name,
        rows=config.rows,
        columns=codec.cells,
        model=f"flow matching, {config.choices['network']} {config.choices['depth']} × {config.choices['width']}",
        when=datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        data=_shown(real),
        samples=_shown(drawn),
        held_out_rows=count,
        unit="bits/dim" if images else "nats per row",
        training=_training(model.run),
        likelihoods=compared,
        train_likelihood=likelihood_of(model, "this model, training rows", train_scores.log_likelihood),
        two_sample=two_sample(held, made, seed=seed) if count >= FEWEST else None,
        why_missing={} if count >= FEWEST else {"two_sample": f"it takes {FEWEST} rows, and there are {count}"},
        memorised=copies,
        solver_curve=curve,
        conservativity=conservativity(model, base, condition, seed),
        path_energy=path_energy(model, drawn_condition, seed),
        clipped_fraction=float(np.mean(clipped)) if clipped else None,
        round_trip_error=float(np.mean(scores.round_trip_error)),
        choices=[Choice(name, value, config.reasons.get(name, "")) for name, value in config.choices.items()],
        dropped={} if images else dict(model.table("report").dropped),
        notices=[*notices, *codec.notices],
        commands=_commands(model),
    )
    if images:
        evidence = _with_images(evidence, model, real, drawn, condition, drawn_condition, searched, copies.closest)
    _write(model, real, drawn, given or scores, evidence)
    for label, text in headline(evidence).items():
        notice(f"  {label}: {text}")
    return evidence


def _decode(model: Model, base: np.ndarray, condition: np.ndarray) -> pl.DataFrame:
    y, args = model.points(jnp.asarray(base), jnp.asarray(condition), jax.random.key(0))
    return model.decode(np.asarray(y), args)


def _shown(frame: pl.DataFrame) -> Any:
    """Rows as the report's pictures want them."""
    if isinstance(frame.schema.get("image"), pl.Array):
        return frame["image"].to_numpy()
    shown = {}
    for series in frame:
        if series.dtype.is_temporal():
            series = series.to_physical().cast(pl.Float64)
        if series.dtype.is_numeric():
            shown[series.name] = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        else:
            shown[series.name] = np.array(series.cast(pl.String).to_list(), dtype=object)
    return shown


def _training(run: Run) -> Training:
    curve = run.metrics()
    outcome = json.loads((run.path / "training.json").read_text())
    validated = np.isfinite(curve["validation"])
    return Training(
        step=curve["step"],
        loss=curve["loss"],
        validation_step=curve["step"][validated],
        validation=curve["validation"][validated],
        best_step=outcome["best_step"],
        result=outcome["result"],
    )


def _commands(model: Model) -> list[Command]:
    run, images = model.run.path, model.config.kind == "images"
    new, other = ("new.png", "other.npz") if images else ("new.csv", "other.csv")
    commands = [
        Command(f"nablax sample {run} -n 500 -o {new}", "draw new rows"),
        Command(f"nablax score {run} {other} -o scored.csv", "log-likelihood of other rows; the unusual ones"),
    ]
    if not images:
        commands.append(Command(f"nablax complete {run} holes.csv -o filled.csv", "fill missing cells"))
    return commands


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


def _write(model: Model, real: pl.DataFrame, drawn: pl.DataFrame, scores: Scores, evidence: Evidence) -> None:
    """Write samples and scores, and then the report."""
    run = model.run
    value, error, name = scores.log_likelihood, scores.standard_error, "log_likelihood_nats"
    if model.config.kind == "images":
        value, error = scores.bits_per_dimension(model.codec.cells)
        name = "bits_per_dimension"
        write_frame(drawn, run.path / "samples.npz")
        from ..._pages import image_grid

        order = np.argsort(evidence.sample_labels, kind="stable") if evidence.sample_labels is not None else slice(None)
        grid = np.asarray(evidence.samples)[order]
        step = max(1, len(grid) // 80)
        run.write("samples.png", image_grid(grid[::step][:80], limits=evidence.image_limits, columns=10))
    else:
        write_frame(model.codec.spell(drawn), run.path / "samples.csv")
    spelled = model.codec.spell(real)
    plain = spelled.drop([column for column, dtype in spelled.schema.items() if dtype.is_nested()])
    new = {name: pl.Series(value), f"{name}_standard_error": pl.Series(error).fill_nan(None)}
    scored = plain.with_columns(**{free_name(name, plain.columns): series for name, series in new.items()})
    write_frame(scored, run.path / "scores.csv")
    write_report(run.path / "report.html", evidence)


__all__ = ["check", "evaluate"]

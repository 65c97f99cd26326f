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

from .. import diagnose
from ._baselines import Baseline, Likelihood, gaussian_mixture, kernel_density, likelihood
from ._errors import UserError
from ._health import field_health, shifted
from ._memorised import memorised
from ._report import (
    Choice,
    Command,
    Conservativity,
    Evidence,
    PathEnergy,
    SolverCurve,
    Training,
    headline,
    write_report,
)
from ._rows import Rows, encode
from ._run import Model, Run, load
from ._sample import conditions_for, draw, write_frame
from ._score import Scores, encode_frame, score
from ._sources import read, read_frame
from ._two_sample import two_sample

if TYPE_CHECKING:
    from ._sources import Source

_HELD_OUT = 1000  # rows scored
_TRAIN = 500  # training rows scored, for the gap
_SEARCHED = 100_000  # training rows searched for copies
_FIELD = 128  # samples at which the field itself is looked at
_SOLVER_STEPS = (2, 4, 8, 16, 32)
_REFERENCE_STEPS = 128
_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)

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


def check(folder: Path, data: str | None, *, notice: Notice) -> Evidence:
    """Measure a run again, on its held-out rows or on others, and write its report anew.

    Args:
        folder: the run.
        data: rows to check against; by default those held out.
        notice: called with lines for the person.

    Returns:
        The evidence.

    Raises:
        UserError: the run's own data are gone or have changed, or the rows given do not fit.
    """
    model = load(folder)
    opened = read(model.config.source, condition=model.config.condition)
    if opened.fingerprint != model.config.fingerprint:
        raise UserError(f"{model.config.source} has changed since {folder} was learnt from it")
    rows = encode(opened, model.codec, model.config, model.run)
    positions = rows.held_out[:_HELD_OUT]
    base, condition = np.asarray(rows.base[positions]), np.asarray(rows.condition[positions])
    seed, lines = model.config.seed + 2, []
    if data is not None:
        held_out = base
        base, given = encode_frame(model, read_frame(data, model.config.kind).head(_HELD_OUT))
        condition = np.zeros((len(base), model.codec.condition_dim), np.float32) if given is None else given
        lines = shifted(model, held_out, base, seed)
    evidence = _evaluate(model, rows, base, condition, (*opened.notices, *lines), notice)
    notice(field_health(model, condition, seed))
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
    likelihoods = _likelihoods(model, scores, given, searched, base, seed)
    notice("drawing samples")
    count = len(base)
    drawn_condition = conditions_for(model, count, {}, seed)
    scale = float(config.choices["guidance_scale"])
    y = draw(model, count, seed=seed, condition=drawn_condition, scale=scale)
    drawn = codec.decode(y, drawn_condition if conditional else None)
    drawn_base, _ = encode_frame(model, drawn)
    notice("comparing them with held-out rows")
    held, made, trained = (_features(model, part) for part in (base, drawn_base, searched))
    values = tuple(_values(model, part) for part in (searched, base, drawn_base))
    copies = memorised(trained, held, made, values=values, one_scale=images, seed=seed)
    notice("looking at the field")
    curve = _solver_curve(model, drawn_condition, seed)
    clipped = list(codec.out_of_range(y).values())
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
        likelihoods=likelihoods,
        train_likelihood=_likelihood(model, "this model, training rows", train_scores.log_likelihood),
        two_sample=two_sample(held, made, seed=seed),
        memorised=copies,
        solver_curve=curve,
        conservativity=_conservativity(model, base, condition, seed),
        path_energy=_path_energy(model, drawn_condition, seed),
        clipped_fraction=float(np.mean(clipped)) if clipped else None,
        round_trip_error=float(np.mean(scores.round_trip_error)),
        choices=[Choice(name, value, config.reasons.get(name, "")) for name, value in config.choices.items()],
        notices=[*notices, *codec.notices],
        commands=_commands(model),
    )
    if images:
        evidence = _with_images(evidence, model, real, drawn, condition, drawn_condition, searched, copies.closest)
    _write(model, real, drawn, given or scores, evidence)
    for label, text in headline(evidence).items():
        notice(f"  {label}: {text}")
    return evidence


def _likelihoods(
    model: Model, scores: Scores, given: Scores | None, train: np.ndarray, base: np.ndarray, seed: int
) -> list[Likelihood]:
    """The model beside the baselines, all on the same dequantised rows."""
    key = jax.random.key(seed)
    found = [_likelihood(model, "this model", scores.log_likelihood)]
    if given is not None:
        names = ", ".join(model.codec.condition)
        score_given = _likelihood(model, f"this model, given {names}", given.log_likelihood)
        found.append(dataclasses.replace(score_given, baseline=False))
    y_train, _ = model.codec.dequantise(jnp.asarray(train), jax.random.fold_in(key, 0))
    y, correction = model.codec.dequantise(jnp.asarray(base), jax.random.fold_in(key, 1))
    flat_train, flat = (np.asarray(part, np.float64).reshape(len(part), -1) for part in (y_train, y))
    baselines: list[Baseline] = [fit(flat_train, flat, seed=seed) for fit in (gaussian_mixture, kernel_density)]
    for baseline in baselines:
        nats = baseline.log_density + np.asarray(correction, np.float64)
        found.append(_likelihood(model, baseline.name, nats, baseline.note))
    return found


def _likelihood(model: Model, name: str, nats: np.ndarray, note: str = "") -> Likelihood:
    unit: Any = "bits/dim" if model.config.kind == "images" else "nats per row"
    return likelihood(name, nats, unit=unit, dimension=model.codec.cells, note=note)


def _decode(model: Model, base: np.ndarray, condition: np.ndarray) -> pl.DataFrame:
    y, _ = model.codec.dequantise(jnp.asarray(base), jax.random.key(0))
    return model.codec.decode(np.asarray(y), condition if model.codec.condition_dim else None)


def _features(model: Model, base: np.ndarray) -> np.ndarray:
    """Encoded rows as numbers that distances make sense of: categories become indicators."""
    if model.config.kind == "images":
        return np.asarray(base, np.float64).reshape(len(base), -1)
    parts = []
    for j, column in enumerate(model.table("features").modelled):
        cells = np.asarray(base[:, j], np.float64)
        if column.kind != "category":
            parts.append(cells[:, None])
            continue
        indicators = (cells[:, None] == np.arange(len(column.categories))).astype(np.float64)
        parts.append(np.where(np.isnan(cells)[:, None], np.nan, indicators))
    return np.concatenate(parts, axis=1)


def _values(model: Model, base: np.ndarray) -> Any:
    return np.asarray(base).reshape(len(base), -1)


def _shown(frame: pl.DataFrame) -> Any:
    """Rows as the report's pictures want them."""
    if "image" in frame.columns:
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


def _solver_curve(model: Model, condition: np.ndarray, seed: int) -> SolverCurve:
    """Error against evaluations of the field: Heun's method from the same noise, beside a much finer solution."""
    count = min(len(condition), 256)
    given = condition[:count]

    def by_steps(steps: int) -> np.ndarray:
        # As an array, so that one compiled program takes any number of steps.
        return draw(model, count, seed=seed, condition=given, steps=jnp.asarray(steps))

    reference = by_steps(_REFERENCE_STEPS)
    scale = float(np.std(reference))

    def error(samples: np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.square(samples - reference))) / scale)

    errors = [error(by_steps(steps)) for steps in _SOLVER_STEPS]
    adaptive = error(draw(model, count, seed=seed, condition=given))
    return SolverCurve(
        evaluations=2 * np.array(_SOLVER_STEPS), error=np.array(errors), chosen=None, chosen_error=adaptive
    )


def _conservativity(model: Model, base: np.ndarray, condition: np.ndarray, seed: int) -> Conservativity:
    """Antisymmetry of the velocity's Jacobian and loop integrals, where the path's states are."""
    path, key = model.transport.path, jax.random.key(seed)
    y, _ = model.codec.dequantise(jnp.asarray(base[:_FIELD]), key)
    noise = jax.random.normal(jax.random.fold_in(key, 1), y.shape, y.dtype)
    args = jnp.asarray(condition[:_FIELD]) if model.codec.condition_dim else None
    ratios, errors, loops, loop_errors = [], [], [], []
    for number, t in enumerate(_TIMES):
        states = path.interpolate(jnp.asarray(t, y.dtype), noise, y)
        found = diagnose.conservativity(
            model.transport.velocity, jnp.asarray(t, y.dtype), states, args, key=jax.random.fold_in(key, 2 + number)
        )
        ratios.append(found.antisymmetry.value)
        errors.append(found.antisymmetry.standard_error)
        loops.append(found.net_work.value)
        loop_errors.append(found.net_work.standard_error)
    return Conservativity(
        times=np.array(_TIMES),
        ratio=np.array(ratios, np.float64),
        standard_error=np.array(errors, np.float64),
        loop_integral=float(np.mean(loops)),
        loop_integral_standard_error=float(np.sqrt(np.sum(np.square(loop_errors))) / len(loops)),
    )


def _path_energy(model: Model, condition: np.ndarray, seed: int) -> PathEnergy:
    transport = model.transport
    keys = jax.random.split(jax.random.key(seed + 1), min(_FIELD, len(condition)))
    y0s = jax.vmap(transport.prior.sample)(keys)
    args = jnp.asarray(condition[: len(keys)]) if model.codec.condition_dim else None
    first, last = transport.path.times
    found = diagnose.path_geometry(transport.velocity, y0s, args, t0=first, t1=last, steps=32)
    return PathEnergy(
        energy=float(found.energy.value),
        energy_standard_error=float(found.energy.standard_error),
        straightness=float(found.relative_straightness.value),
        straightness_standard_error=float(found.relative_straightness.standard_error),
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
        from ._figures import image_grid

        order = np.argsort(evidence.sample_labels, kind="stable") if evidence.sample_labels is not None else slice(None)
        grid = np.asarray(evidence.samples)[order]
        step = max(1, len(grid) // 80)
        run.write("samples.png", image_grid(grid[::step][:80], limits=evidence.image_limits, columns=10))
    else:
        write_frame(drawn, run.path / "samples.csv")
    plain = real.drop([column for column, dtype in real.schema.items() if dtype.is_nested()])
    scored = plain.with_columns(pl.Series(name, value), pl.Series(f"{name}_standard_error", error))
    write_frame(scored, run.path / "scores.csv")
    write_report(run.path / "report.html", evidence)


__all__ = ["check", "evaluate"]

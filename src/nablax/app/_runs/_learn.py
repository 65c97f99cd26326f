"""`nablax learn`: from a data file to a trained field and its report."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array

from ... import __version__
from ..._core import PART, Key
from ...fields import EMA
from ...follow import Fit, Progress, fit
from ...transport import flow_matching
from .._data._plain_text import AS_IT_IS, TextOptions
from .._data._sources import read
from .._data._spool import remove_leftovers
from .._errors import UserError
from .._key import random_key
from ._config import (
    GENERATION,
    Choices,
    Config,
    choose,
    shares,
)
from ._meter import Meter
from ._optimizer import recipe
from ._place import run_there
from ._rows import Rows, encode, split
from ._run import (
    PATH,
    Run,
    build,
    codec_of,
)

if TYPE_CHECKING:
    from .._data._codec import Codec
    from .._data._images import ImageCodec

Notice = Callable[[str], None]

_RELATIONS = 8  # said before training; the report has them all


def configure(
    source: str,
    *,
    condition: Sequence[str] = (),
    seed: int = 0,
    choices: Choices | None = None,
    kinds: Mapping[str, str] | None = None,
    image_size: int | None = None,
    memory_limit: int | None = None,
    text: TextOptions = AS_IT_IS,
    keep_relations: bool = False,
    reported: bool = True,
) -> "tuple[Config, Any]":
    """Read the data's shape and make every choice.

    Args:
        source: file, folder or named set.
        condition: names of conditioning columns, for images the name of their label.
        seed: of all randomness.
        choices: what was asked for.
        kinds: column to kind, where that is not to be chosen from the data.
        image_size: side to which images are cropped and scaled.
        memory_limit: bytes of data above which rows are read from disk batch by batch; 1 GiB by default.
        text: how a file of text is to be read.
        keep_relations: work columns that follow exactly from others out of them, and have orders obeyed, in place of
            learning them.
        reported: whether a report is to be written, for which rows have to be held out.

    Returns:
        The configuration, and the opened source.

    Raises:
        UserError: the data cannot be learnt from, a choice is out of range, or there is to be a report on no rows.
    """
    from .._data._codec import fit_codec
    from .._data._find_relations import find_relations
    from .._data._images import fit_image_codec
    from .._data._kept import keep

    if reported and choices is not None and choices.held_out == 0:
        raise UserError("--held-out 0 leaves no rows to report on: give --report none as well")
    limit: dict[str, Any] = {} if memory_limit is None else {"memory_limit": memory_limit}
    opened = read(source, condition=tuple(condition), image_size=image_size, text=text, **limit)
    codec: Codec | ImageCodec
    if opened.kind == "images":
        if keep_relations:
            raise UserError(opened.name, "--keep-relations is for tables, and these are images")
        held_out, validation = shares(choices or Choices(), opened.rows)
        training, _, _ = split(opened.rows, seed, held_out, validation)
        codec = fit_image_codec(opened, condition=tuple(condition), training=training)
    else:
        # Any columns of a table can be given to the model that is learnt of it.
        codec = fit_codec(opened, kinds=kinds)
        found = find_relations(opened, codec.columns)
        codec = dataclasses.replace(codec, relations=keep(found) if keep_relations else found)
        for name in condition:
            codec.place_of(name)
        if condition:
            said = "any columns of a table can be given later, so --condition changes nothing in what is learnt"
            codec = dataclasses.replace(codec, notices=(*codec.notices, said))
    dim = int(np.prod(codec.shape)) if opened.kind == "images" else codec.cells
    chosen, reasons = choose(
        choices or Choices(), kind=opened.kind, rows=opened.rows, dim=dim, condition_dim=codec.condition_dim
    )
    place = Path(source)
    config = Config(
        version=__version__,
        source=str(place.resolve()) if place.exists() else source,
        name=opened.name,
        kind=opened.kind,
        rows=opened.rows,
        fingerprint=opened.fingerprint,
        condition=codec.condition,
        codec=json.loads(codec.to_json()),
        seed=seed,
        choices=chosen,
        reasons=reasons,
        image_size=image_size,
        text={name: value for name, value in dataclasses.asdict(text).items() if value is not None},
        generation=GENERATION,
    )
    return config, opened


def notices_of(config: Config, *, keep_relations: bool = False) -> tuple[str, ...]:
    """What is to be known of the columns before they are learnt, one line each.

    Args:
        config: from `configure`.
        keep_relations: as it was given there.
    """
    from .._data._kept import lines

    notices = tuple(config.codec.get("notices", ()))
    if config.kind == "images":
        return notices
    relations = codec_of(config).relations  # type: ignore[union-attr]
    return (*notices, *lines(relations, kept=keep_relations, most=_RELATIONS))


def learn(
    config: Config,
    opened: Any,
    out: Path,
    *,
    notice: Notice,
    progress: Callable[[str, Progress], None] | None = None,
    checkpoint_every: int | None = None,
) -> Run:
    """Train as configured, or go on where an interrupted run stopped.

    Args:
        config: from `configure`.
        opened: the source it was made from.
        out: run folder.
        notice: called with lines for the person.
        progress: called a few times a second while training, with what is trained now ("states" or "values" of a
            table, the "field" of images) and how far that is.
        checkpoint_every: steps; by default one is written about every ten seconds. It does not change the result.

    Returns:
        The run, trained. On several processes only the first one writes.

    Raises:
        UserError: the folder holds a run of another configuration, or nothing can be written there.
    """
    run = Run(out)
    before = run_there(run, config)
    first = jax.process_index() == 0
    if before is None and first:
        run.write("config.json", config.to_json())
    if first:
        for left in out.glob(f"*{PART}"):
            left.unlink()
        remove_leftovers(out)
    if not run.trained:
        meter = Meter(run, writes=first)
        with meter.running():
            codec = codec_of(config)
            rows = encode(opened, codec, config, run)
            weights, trained = _train(run, config, codec, rows, notice, meter, progress, checkpoint_every)
        if first:
            _keep(run, weights, trained)
    return run


def _train(
    run: Run,
    config: Config,
    codec: "Codec | ImageCodec",
    rows: Rows,
    notice: Notice,
    meter: Meter,
    progress: Callable[[str, Progress], None] | None,
    checkpoint_every: int | None,
) -> tuple[dict[str, Any], dict[str, Fit]]:
    """Train; what is to be kept, and what came of each part that was trained."""
    from .._data._images import ImageCodec
    from ._learn_table import learn_table

    chosen = config.choices

    def fitting(loss: Callable[..., Array], part: Any, steps: int, rate: float, key: Key, name: str) -> Fit:
        def told(state: Progress) -> None:
            meter.tick()
            if progress is not None:
                progress(name, state)

        trained = fit(
            loss,
            part,
            rows.training(chosen["batch_size"], config.seed),
            optimizer=recipe(steps, min(500, steps // 20), rate, chosen["weight_decay"]),
            steps=steps,
            batch_size=chosen["batch_size"],
            key=key,
            validation=rows.validating(chosen["batch_size"]),
            validate_every=max(1, steps // 50),
            patience=chosen["patience"] or None,
            ema=EMA(chosen["ema"]) if chosen["ema"] else None,
            checkpoint=run.checkpoints / name,
            checkpoint_every=checkpoint_every,
            progress=told,
            notice=notice,
        )
        of = f" of the {name}" if config.kind == "table" else ""
        if trained.result == "diverged":
            notice(
                f"training{of} diverged after step {trained.step}: the loss or its gradient was not finite. "
                f"Kept the best state, of step {trained.best_step}. Try a lower --learning-rate."
            )
        elif trained.result == "stopped early":
            best = trained.best_step
            notice(f"training{of} stopped early at step {trained.step}: no better validation since step {best}")
        return trained

    init_key, fit_key = jax.random.split(random_key(config.seed))
    if not isinstance(codec, ImageCodec):
        table, found = learn_table(config, codec, rows, init_key, fitting)
        return {"table": table}, found
    transport = build(config, codec, init_key)
    loss = matching_loss(codec, chosen["condition_dropout"])
    trained = fitting(loss, transport.field, chosen["steps"], chosen["learning_rate"], fit_key, "field")
    return {"field": trained.model, "conditions": rows.conditions()}, {"field": trained}


def _keep(run: Run, weights: dict[str, Any], trained: dict[str, Fit]) -> None:
    """Write the curves and outcomes of training; the last part trained is the field, where there is one."""
    outcomes = {
        name: {"result": part.result, "step": part.step, "best_step": part.best_step} for name, part in trained.items()
    }
    *others, main = trained
    for name in trained:
        history = trained[name].history
        columns = {"step": history.step, "loss": history.loss, "validation": history.validation}
        run.write_metrics(columns, "metrics.csv" if name == main else f"metrics_{name}.csv")
    run.write("training.json", json.dumps({**outcomes[main], **{name: outcomes[name] for name in others}}) + "\n")
    # The weights come last: a run that has them is trained.
    run.write_weights(weights)


def matching_loss(codec: "ImageCodec", condition_dropout: float) -> Callable[..., Array]:
    """The flow-matching loss of encoded images, dequantised anew in every step.

    Args:
        codec: of the rows.
        condition_dropout: share of rows trained without their condition.

    Returns:
        ``loss(field, batch, *, key)``; the batch holds "base" and, where there are conditions, "condition".
    """
    matching = flow_matching(PATH, condition_dropout=condition_dropout if codec.condition_dim else 0.0)

    def loss(field: Any, batch: dict[str, Array], *, key: Key) -> Array:
        noise_key, match_key = jax.random.split(key)
        y, _ = codec.dequantise(batch["base"], noise_key)
        rows = {name: part for name, part in batch.items() if name != "base"}
        return matching(field, {**rows, "data": y}, key=match_key)

    return loss

"""`nablax learn`: from a data file to a trained field and its report."""

import json
import time
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
from ...transport import Transport, flow_matching
from .._data._sources import read
from .._data._spool import remove_leftovers
from ._config import (
    Choices,
    Config,
    choose,
    shares,
)
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


def configure(
    source: str,
    *,
    condition: Sequence[str] = (),
    seed: int = 0,
    choices: Choices | None = None,
    kinds: Mapping[str, str] | None = None,
    image_size: int | None = None,
    memory_limit: int | None = None,
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

    Returns:
        The configuration, and the opened source.

    Raises:
        UserError: the data cannot be learnt from, or a choice is out of range.
    """
    from .._data._codec import fit_codec
    from .._data._images import fit_image_codec

    limit: dict[str, Any] = {} if memory_limit is None else {"memory_limit": memory_limit}
    opened = read(source, condition=tuple(condition), image_size=image_size, **limit)
    codec: Codec | ImageCodec
    if opened.kind == "images":
        held_out, validation = shares(choices or Choices(), opened.rows)
        training, _, _ = split(opened.rows, seed, held_out, validation)
        codec = fit_image_codec(opened, condition=tuple(condition), training=training)
    else:
        codec = fit_codec(opened, condition=tuple(condition), kinds=kinds)
    dim = int(np.prod(codec.shape))
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
        condition=tuple(condition),
        codec=json.loads(codec.to_json()),
        seed=seed,
        choices=chosen,
        reasons=reasons,
        image_size=image_size,
    )
    return config, opened


def learn(
    config: Config,
    opened: Any,
    out: Path,
    *,
    notice: Notice,
    progress: Callable[[Progress], None] | None = None,
    checkpoint_every: int | None = None,
) -> Run:
    """Train as configured, or go on where an interrupted run stopped.

    Args:
        config: from `configure`.
        opened: the source it was made from.
        out: run folder.
        notice: called with lines for the person.
        progress: called a few times a second while training.
        checkpoint_every: steps; by default one is written about every ten seconds. It does not change the result.

    Returns:
        The run, trained. On several processes only the first one writes.

    Raises:
        UserError: the folder holds a run of another configuration, or nothing can be written there.
    """
    start = time.process_time()
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
        codec = codec_of(config)
        rows = encode(opened, codec, config, run)
        trained, transport = _train(run, config, codec, rows, notice, progress, checkpoint_every)
        if first:
            run.write("cost.json", json.dumps({"training_cpu_seconds": time.process_time() - start}) + "\n")
            _keep(run, trained, transport, rows)
    return run


def _train(
    run: Run,
    config: Config,
    codec: "Codec | ImageCodec",
    rows: Rows,
    notice: Notice,
    progress: Callable[[Progress], None] | None,
    checkpoint_every: int | None,
) -> tuple[Fit, Transport]:
    chosen = config.choices
    init_key, fit_key = jax.random.split(jax.random.key(config.seed))
    transport = build(config, codec, init_key)
    steps = chosen["steps"]
    trained = fit(
        matching_loss(codec, chosen["condition_dropout"]),
        transport.field,
        rows.training(chosen["batch_size"], config.seed),
        optimizer=recipe(steps, min(500, steps // 20), chosen["learning_rate"], chosen["weight_decay"]),
        steps=steps,
        batch_size=chosen["batch_size"],
        key=fit_key,
        validation=rows.validating(),
        validate_every=max(1, steps // 50),
        patience=chosen["patience"] or None,
        ema=EMA(chosen["ema"]) if chosen["ema"] else None,
        checkpoint=run.checkpoints,
        checkpoint_every=checkpoint_every,
        progress=progress,
        notice=notice,
    )
    if trained.result == "diverged":
        notice(
            f"training diverged after step {trained.step}: the loss or its gradient was not finite. "
            f"Kept the best state, of step {trained.best_step}. Try a lower --learning-rate."
        )
    elif trained.result == "stopped early":
        notice(f"stopped early at step {trained.step}: no better validation since step {trained.best_step}")
    return trained, transport


def _keep(run: Run, trained: Fit, transport: Transport, rows: Rows) -> None:
    history = trained.history
    run.write_metrics({"step": history.step, "loss": history.loss, "validation": history.validation})
    outcome = {"result": trained.result, "step": trained.step, "best_step": trained.best_step}
    run.write("training.json", json.dumps(outcome) + "\n")
    # The weights come last: a run that has them is trained.
    run.write_weights({"field": trained.model, "conditions": rows.conditions()})


def matching_loss(codec: "Codec | ImageCodec", condition_dropout: float) -> Callable[..., Array]:
    """The flow-matching loss of encoded rows, dequantised anew in every step.

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

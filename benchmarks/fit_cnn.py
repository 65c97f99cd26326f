"""Training a small convolutional network by `fit` against the same step called from Python."""

import time
from pathlib import Path

from . import _cnn

TITLE = "training steps of a two-layer CNN, 8×8 digits, batch 128"
PEER = "the same step called from Python (ours, native convolutions)"
UNIT = "steps/s"
TARGET = "0.9×"
BETTER = "higher"
STEPS, ROUNDS = 300, 5


def ours(folder: Path) -> dict:
    import jax
    import optax

    from nablax.follow import fit

    (images, labels), (model, logits) = _cnn.digits(), _cnn.network()
    loss = _cnn.loss_of(logits)
    marks: list[tuple[float, int]] = []
    start = time.perf_counter()
    done = fit(
        lambda model, batch, *, key: loss(model, batch),
        model,
        (images, labels),
        optimizer=optax.adam(_cnn.RATE),
        steps=STEPS,
        batch_size=_cnn.BATCH,
        key=jax.random.key(1),
        progress=lambda state: marks.append((time.perf_counter(), state.step)),
    )
    (first, before), (last, after) = marks[0], marks[-1]
    said = f"loss {float(done.history.loss[-50:].mean()):.3f}"
    return {"values": [(after - before) / (last - first)], "compile": first - start, "accuracy": said}


def peer(folder: Path) -> dict:
    import equinox as eqx
    import optax

    arrays, (model, logits) = _cnn.digits(), _cnn.network()
    optimizer = optax.adam(_cnn.RATE)
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    step = _cnn.step_by_hand(_cnn.loss_of(logits), optimizer)
    settings = {"rounds": ROUNDS, "steps": STEPS // ROUNDS}
    values, first, losses = _cnn.timed_steps(step, _cnn.shuffled(*arrays), model, state, **settings)
    said = f"loss {sum(losses[-50:]) / 50:.3f}"
    return {"values": [1e3 * len(values) / sum(values)], "compile": first, "accuracy": said}

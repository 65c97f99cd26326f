"""One check-up of a small convolutional network, in training steps of the same batch."""

from pathlib import Path

from . import _cnn
from ._checkup import timed

TITLE = "whole check-up, two-layer CNN, 8×8 digits, batch 128"
PEER = "one training step of the same batch, native convolutions, called from Python (ours)"
UNIT = "ms"
TARGET = "at most 60 steps"
BETTER = "higher"  # so that the ratio is ours over the peer's: how many steps a check-up costs (fewer is better)
ROUNDS, STEPS, WARM = 5, 40, 20


def _setting():
    import equinox as eqx
    import optax

    arrays, (model, logits) = _cnn.digits(), _cnn.network()
    optimizer, loss = optax.adam(_cnn.RATE), _cnn.loss_of(logits)
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    step, batches = _cnn.step_by_hand(loss, optimizer), _cnn.shuffled(*arrays)
    for _ in range(WARM):
        model, state, _ = step(next(batches), model, state)
    return model, state, batches, optimizer, loss, logits, step


def ours(folder: Path) -> dict:
    model, state, batches, optimizer, loss, logits, _ = _setting()
    values, compile_time, record = timed(ROUNDS, loss, model, next(batches), optimizer, state, logits)
    ratio = record.sharpness.ratio
    said = f"ratio {ratio.value:.3f} ± {ratio.standard_error:.3f}"
    return {"values": values, "compile": compile_time, "accuracy": said}


def peer(folder: Path) -> dict:
    model, state, batches, *_, step = _setting()
    values, first, _ = _cnn.timed_steps(step, batches, model, state, rounds=ROUNDS, steps=STEPS)
    return {"values": values, "compile": first, "accuracy": f"fastest {min(values):.3g} ms"}

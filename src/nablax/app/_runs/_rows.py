"""Encoded rows, split once and for all into those to train on, to stop by, and to report on."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ._config import Config, part_sizes
from ._run import Run

if TYPE_CHECKING:
    from .._data._codec import Codec
    from .._data._images import ImageCodec

_KEPT_CONDITIONS = 4096
# Few validation rows are gone through several times, each time with noise of their own, or the weights that are kept
# would be those with the luckiest noise: so many rows in all, but no row more often than so.
_VALIDATED, _REPEATS = 4096, 8


@dataclasses.dataclass(frozen=True)
class Rows:
    """Encoded data and its split.

    Attributes:
        base: encoded rows [n, ...]; an array, or a memory-mapped file.
        condition: condition vectors [n, c].
        train: positions of the training rows, in random order.
        validation: positions of the rows that decide when to stop.
        held_out: positions of the rows that the report is about.
        resident: whether the training rows are to be held on the device.
    """

    base: np.ndarray
    condition: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    held_out: np.ndarray
    resident: bool

    def take(self, positions: np.ndarray) -> dict[str, np.ndarray]:
        """The batch of the rows at these positions; no condition when there is none."""
        batch = {"base": np.asarray(self.base[positions])}
        if self.condition.shape[1]:
            batch["condition"] = np.asarray(self.condition[positions])
        return batch

    def training(self, batch_size: int, seed: int) -> Any:
        """What `fit` draws its batches from: the rows themselves, or a reader of the mapped file."""
        return self.take(self.train) if self.resident else self._reader(batch_size, seed)

    def validating(self, batch_size: int) -> dict[str, np.ndarray]:
        """The validation rows; few of them several times, in whole batches: a rest would be a second program."""
        times = repeats(len(self.validation))
        count = times * len(self.validation)
        return self.take(np.resize(self.validation, count if times == 1 else -(-count // batch_size) * batch_size))

    def conditions(self) -> np.ndarray:
        """Condition vectors of some training rows, to draw conditions from later."""
        return np.asarray(self.condition[np.sort(self.train[:_KEPT_CONDITIONS])], np.float32)

    def _reader(self, batch_size: int, seed: int) -> Callable[[int, int], dict[str, np.ndarray]]:
        def batches(first: int, count: int) -> dict[str, np.ndarray]:
            # Each step draws from its own generator, so that an interrupted run reads on as if it had not been.
            picks = [
                np.sort(self.train[np.random.default_rng([seed, step]).integers(0, len(self.train), batch_size)])
                for step in range(first, first + count)
            ]
            flat = self.take(np.concatenate(picks))
            return {name: rows.reshape(count, batch_size, *rows.shape[1:]) for name, rows in flat.items()}

        return batches


def repeats(rows: int) -> int:
    """How often to go through so many validation rows for the noise drawn on them to average out."""
    return min(_REPEATS, -(-_VALIDATED // max(rows, 1)))


def split(rows: int, seed: int, held_out: float, validation: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut a random permutation of the rows in three.

    Args:
        rows: how many.
        seed: of the permutation.
        held_out: share for the report.
        validation: share of the remainder for early stopping.

    Returns:
        Positions to train on, to validate on, held out; at least two rows in each of the last two, or none held out if
        none are asked for.
    """
    order = np.random.default_rng(seed).permutation(rows)
    reported, validated = part_sizes(rows, held_out, validation)
    return order[reported + validated :], order[reported : reported + validated], order[:reported]


def filled(rows: np.ndarray, size: int) -> np.ndarray:
    """Repeat the last row until there are ``size``: chunks of one shape share one compiled program."""
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)]) if len(rows) < size else rows


def encode(opened: Any, codec: "Codec | ImageCodec", config: Config, run: Run) -> Rows:
    """Encode a source, into memory or (when it is too large for that) into a mapped file in the run folder.

    Of several processes on one folder the first writes that file.

    Args:
        opened: the source.
        codec: how.
        config: of the run: seed and shares of the split.
        run: its folder.

    Returns:
        The rows.
    """
    from .._data._spool import spool

    together = opened.frame is None and jax.process_count() > 1
    if together and jax.process_index() > 0:
        _wait_for_the_first()
    # Processes that see the first one's folder find there what it wrote; with a disk of its own each writes once.
    base, condition, resident = spool(opened, codec, run.path)
    if together and jax.process_index() == 0:
        _wait_for_the_first()
    parts = split(opened.rows, config.seed, config.choices["held_out"], config.choices["validation"])
    return Rows(base, condition, *parts, resident)


def _wait_for_the_first() -> None:
    from jax.experimental.multihost_utils import sync_global_devices

    sync_global_devices("rows encoded")


__all__ = ["Rows", "encode", "filled", "split"]

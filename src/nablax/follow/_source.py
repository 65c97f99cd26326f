"""Where the batches of a step come from: rows on the device, or a callable on the host."""

import queue
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree

from .._core import fault
from ._devices import agree, place

HostSource = Callable[[int, int], PyTree]

_BLOCK_BYTES = 64 * 2**20
_BLOCK_SECONDS = 0.5
_FEWEST, _MOST = 16, 64


class Block(NamedTuple):
    """Data on the device for consecutive steps.

    Attributes:
        data: all rows, or batches ``[count, batch, ...]``.
        first: the step of the first batch; None when ``data`` holds all rows.
        stop: the step after the last one that the block serves.
    """

    data: PyTree
    first: int | None
    stop: int


class Resident:
    """All rows on the device, for every step.

    Attributes:
        batch: shapes and dtypes of one batch.
    """

    def __init__(self, data: PyTree, steps: int, batch_size: int, sharding: NamedSharding | None) -> None:
        self._block = Block(place(data, sharding), None, steps)
        self.batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype), self._block.data)

    def block(self, step: int) -> Block:
        """The block that serves ``step``."""
        return self._block

    def close(self) -> None:
        """Nothing to end."""


class Prefetch:
    """Calls a host source for one block after the other in a thread, two blocks ahead of the device.

    Every block has the same number of batches, so that the device runs one program; a short last block is filled
    up with zeros that no step reads.

    Args:
        source: ``(first_step, count) -> pytree of arrays [count, batch_size, ...]``.
        steps: the step after the last one wanted.
        batch_size: rows in a batch.
        sharding: of the weights; the rows of a batch are spread over its devices.

    Attributes:
        batch: shapes and dtypes of one batch.
        first: the batch of step 0, on the host.
    """

    def __init__(self, source: HostSource, steps: int, batch_size: int, sharding: NamedSharding | None) -> None:
        self._source, self._steps, self._batch_size = source, steps, batch_size
        self._sharding = None
        if sharding is not None:
            spec = PartitionSpec(None, *sharding.mesh.axis_names)
            self._sharding = NamedSharding(sharding.mesh, spec)
        start = time.monotonic()
        self.first = probe = self._call(0, 1)
        by_time = max(_FEWEST, int(_BLOCK_SECONDS / max(time.monotonic() - start, 1e-9)))
        by_size = _BLOCK_BYTES // max(1, sum(leaf.nbytes for leaf in jax.tree.leaves(probe)))
        self._count = int(agree(max(1, min(_MOST, by_time, by_size))))
        self.batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], jnp.asarray(x).dtype), probe)
        self._block: Block | None = None
        self._queue: queue.Queue[Block | BaseException] = queue.Queue(maxsize=1)
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def _call(self, first: int, count: int) -> PyTree:
        batches = jax.tree.map(np.asarray, self._source(first, count))
        shapes = [leaf.shape for leaf in jax.tree.leaves(batches)]
        if not shapes or any(shape[:2] != (count, self._batch_size) for shape in shapes):
            raise fault(
                expected=f"arrays of shape ({count}, {self._batch_size}, ...) from the source for {count} steps",
                got=shapes,
                fix="Stack one batch for each step.",
            )
        return batches

    def _work(self, first: int) -> None:
        try:
            while first < self._steps and not self._closed.is_set():
                count = min(self._count, self._steps - first)
                batches = self._call(first, count)
                if count < self._count:
                    batches = jax.tree.map(self._fill, batches)
                self._put(Block(place(batches, self._sharding), first, first + count))
                first += count
        except BaseException as error:
            # The caller raises it on arriving at the block that could not be made.
            self._put(error)

    def _fill(self, batches: np.ndarray) -> np.ndarray:
        empty = np.zeros((self._count - len(batches), *batches.shape[1:]), batches.dtype)
        return np.concatenate([batches, empty])

    def _put(self, item: Block | BaseException) -> None:
        while not self._closed.is_set():
            try:
                return self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue

    def block(self, step: int) -> Block:
        """The block that serves ``step``; steps are asked for in order.

        Raises:
            Exception: whatever the source raised.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, args=(step,), name="prefetch", daemon=True)
            self._thread.start()
        if self._block is None or step >= self._block.stop:
            # Let go of the old block before the next one is waited for.
            self._block = None
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            self._block = item
        return self._block

    def close(self) -> None:
        """Let the thread end; it finishes the call of the source that it is in."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)

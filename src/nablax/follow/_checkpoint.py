"""Training state on disk: whole or absent, verified before it is used."""

import hashlib
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from .._core import PART, STORED, fault, read_arrays, require, write_arrays
from ._devices import agree

_KEPT = 3
# Settings that are digests, in words.
_WORDS = {
    "loss": "loss (digest of its program and constants)",
    "optimizer": "optimizer (digest of its program, rates, schedules and extra arguments)",
    "start": "model (shapes, and a digest of the weights to begin with)",
    "data": "data (shapes, and a digest of the values)",
    "validation": "validation (shapes, and a digest of the values)",
}
_SECONDS = 10.0
_SHARE = 0.05


class Saved(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        step: number of steps done.
        result: of the run, empty while it goes on.
        arrays: the training state and the history, by name.
        settings: what else the numbers depend on, as JSON.
    """

    step: int
    result: str
    arrays: dict[str, np.ndarray]
    settings: dict[str, Any]


def _named(versions: dict[str, str] | None) -> str:
    return " ".join(f"{name} {version}" for name, version in (versions or {"other": "versions"}).items())


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _digest(manifest: str, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(manifest.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(_bytes(arrays[name]).data)
    return digest.hexdigest()


def _shared(read: Callable[[], Saved | None] | None) -> Saved | None:
    """What process 0 reads, or its error, in every process."""
    error, saved = "", None
    if read is not None:
        try:
            saved = read()
        except ValueError as fault_found:
            error = str(fault_found)
    arrays = {} if saved is None else saved.arrays
    leaves = [[name, array.shape, array.dtype.name] for name, array in arrays.items()]
    header = {"error": error, "found": saved and [saved.step, saved.result, saved.settings], "leaves": leaves}
    payload = json.dumps(header).encode() + b"\n" + b"".join(array.tobytes() for array in arrays.values())
    # Two numbers, for one of 32 bits may be too small.
    high, low = agree(np.array(divmod(len(payload), 2**20), np.int32))
    size = int(high) * 2**20 + int(low)
    mine = np.frombuffer(payload, np.uint8) if read is not None else np.zeros(size, np.uint8)
    head, _, body = agree(mine).tobytes().partition(b"\n")
    header = json.loads(head)
    if header["error"]:
        raise ValueError(header["error"])
    if header["found"] is None:
        return None
    arrays, offset = {}, 0
    for name, shape, dtype in header["leaves"]:
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(body, np.dtype(dtype), count, offset).reshape(shape)
        offset += arrays[name].nbytes
    step, result, settings = header["found"]
    return Saved(step, result, arrays, settings)


class Checkpoints:
    """The checkpoints of one run, in one folder.

    Each is one file of safetensors that gets its name by one rename, with a manifest and the SHA-256 of both as a note
    in it. So a name means that the checkpoint is whole, and the digest says whether it still is. The newest three are
    kept. Only process 0 reads and writes.

    Args:
        folder: made if absent.
        every: steps between checkpoints; None for about every ten seconds, less often when writing is slow.
        notice: is told when a checkpoint is passed over; None gives a warning.
    """

    def __init__(
        self,
        folder: Path | str,
        every: int | None,
        notice: Callable[[str], None] | None,
    ) -> None:
        self._folder, self._every = Path(folder).absolute(), every
        self._notice = notice
        require("safetensors", extra="app")  # before any step is trained, not at the first checkpoint
        self._step, self._time, self._pause = 0, time.monotonic(), _SECONDS
        self._writer = jax.process_index() == 0
        if self._writer:
            self._folder.mkdir(parents=True, exist_ok=True)
            for left in self._folder.glob(f"step-*{PART}"):
                left.unlink()

    def next(self, step: int) -> int | None:
        """The step after ``step`` at which one will be written for sure, if any."""
        return None if self._every is None else (step // self._every + 1) * self._every

    def due(self, step: int) -> bool:
        """Whether it is time to write."""
        if self._every is not None:
            return step // self._every > self._step // self._every
        return time.monotonic() - self._time >= self._pause

    def write(self, saved: Saved) -> None:
        """Write one checkpoint and drop those that are too old."""
        self._step = saved.step
        if not self._writer:
            return
        start = time.monotonic()
        # Of types that the format does not know, the bytes.
        kinds = {name: (array.dtype.name, array.shape) for name, array in saved.arrays.items()}
        arrays = {name: array if array.dtype.name in STORED else _bytes(array) for name, array in saved.arrays.items()}
        manifest = json.dumps({"step": saved.step, "result": saved.result, "settings": saved.settings, "kinds": kinds})
        # The end has a name of its own: a run may diverge right after a checkpoint of the same step.
        name = f"step-{saved.step:010d}{'-end' if saved.result else ''}.safetensors"
        write_arrays(self._folder / name, arrays, f"{_digest(manifest, arrays)}\n{manifest}")
        for old in self._paths()[_KEPT:]:
            old.unlink()
        self._time = time.monotonic()
        self._pause = max(_SECONDS, (self._time - start) / _SHARE)

    def check(self, then: dict[str, Any], now: dict[str, Any]) -> None:
        """Refuse to go on with other settings than a checkpoint was written with.

        Raises:
            ValueError: a setting differs.
        """
        for name, value in now.items():
            if then.get(name) != value:
                raise fault(
                    expected=f"{_WORDS.get(name, name)} = {then.get(name)} as in the checkpoint in {self._folder}",
                    got=value,
                    fix="Go on with the same arguments, or use another folder.",
                )

    def check_programs(self, then: dict[str, Any], now: dict[str, Any]) -> None:
        """Refuse to go on with another loss, optimiser or model to begin with, as far as that can be told.

        Other versions of the libraries trace the same program differently, and another kind of device may draw other
        weights: after such a change they are not compared, which is said.

        Raises:
            ValueError: a program or the weights differ.
        """
        if then.get("versions") == now["versions"]:
            self.check(then, now)
            return
        self._say(
            f"the checkpoint in {self._folder} was written with {_named(then.get('versions'))}, this is "
            f"{_named(now['versions'])}: whether it is still the same loss, optimiser and model to begin with cannot "
            "be told, and the last digits may differ"
        )

    def newest(self) -> Saved | None:
        """The newest checkpoint that is intact, or None; every process gets that of process 0."""
        if jax.process_count() == 1:
            return self._newest()
        return _shared(self._newest if self._writer else None)

    def _newest(self) -> Saved | None:
        damaged = False
        for path in self._paths():
            try:
                saved = self._read(path)
            except Exception as error:
                self._say(f"checkpoint {path.name} is damaged ({error}); it is set aside for the one before")
                path.rename(path.with_name(f"damaged-{path.name}"))
                damaged = True
                continue
            self._step = saved.step
            return saved
        if damaged:
            self._say("no checkpoint is intact: training starts anew")
        return None

    def _read(self, path: Path) -> Saved:
        arrays, note = read_arrays(path)
        digest, _, text = note.partition("\n")
        if _digest(text, arrays) != digest:
            raise ValueError("its content is not what was written")
        manifest = json.loads(text)
        for name, (dtype, shape) in manifest["kinds"].items():
            if dtype not in STORED:
                arrays[name] = arrays[name].view(dtype).reshape(shape)
        return Saved(manifest["step"], manifest["result"], arrays, manifest["settings"])

    def _paths(self) -> list[Path]:
        """Newest first; the end of a run after its last checkpoint."""
        found = (path for path in self._folder.glob("step-*") if path.suffix != PART)
        return sorted(found, key=lambda path: path.stem, reverse=True)

    def _say(self, text: str) -> None:
        if self._notice is None:
            warnings.warn(text, RuntimeWarning, stacklevel=5)
        else:
            self._notice(text)

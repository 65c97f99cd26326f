"""A run folder: what is in it, and how it is written so that it is never half there."""

import csv
import dataclasses
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np

from ..._core import require
from ...fields import MLP, Transformer
from ...spaces import Euclidean
from ...transport import (
    Linear,
    Normal,
    Transport,
    guidance,
)
from .._errors import UserError
from ._config import Config

if TYPE_CHECKING:
    import polars as pl

    from .._data._codec import Codec
    from .._data._images import ImageCodec


PATH = Linear()


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder of one run.

    Attributes:
        path: the folder.

    Files:
        ``config.json``, ``weights.safetensors``, ``metrics.csv``, ``checkpoints/`` (while training), ``samples.csv``
        (or ``samples.npz``), ``scores.csv``, and ``report.html``, which is written last: a run that has one is
        finished.
    """

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where training keeps its state until it is done."""
        return self.path / "checkpoints"

    @property
    def finished(self) -> bool:
        """Whether everything has been written."""
        return (self.path / "report.html").exists()

    @property
    def trained(self) -> bool:
        """Whether the weights are there."""
        return (self.path / "weights.safetensors").exists()

    def config(self) -> Config | None:
        """The configuration; None when the folder holds none yet.

        Raises:
            UserError: the file is there and cannot be read.
        """
        try:
            return Config.from_json((self.path / "config.json").read_text())
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise UserError(f"{self.path} is a file, not a run folder") from None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.path / 'config.json'} cannot be read", error) from None

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file whole or not at all."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.path / name, content)

    def write_weights(self, model: Any) -> None:
        """Write a model's arrays, named by where they stand in it."""
        safetensors = require("safetensors.numpy", extra="app")
        self.write("weights.safetensors", safetensors.save(_named_arrays(model)))

    def write_metrics(self, columns: dict[str, np.ndarray]) -> None:
        """Write the history of training, one line for each step."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*columns.values()):
            writer.writerow("" if isinstance(cell, float | np.floating) and np.isnan(cell) else cell for cell in row)
        self.write("metrics.csv", text.getvalue())

    def metrics(self) -> dict[str, np.ndarray]:
        """The history of training, by column."""
        with (self.path / "metrics.csv").open() as file:
            names, *rows = list(csv.reader(file))
        cells = np.array([[float(cell or "nan") for cell in row] for row in rows]).reshape(-1, len(names))
        return {name: cells[:, i] for i, name in enumerate(names)}


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained run, opened.

    Attributes:
        run: its folder.
        config: its configuration.
        codec: between rows and arrays.
        transport: the learned field.
        conditions: condition vectors of training rows, for drawing conditions that nobody set.
    """

    run: Run
    config: Config
    codec: "Codec | ImageCodec"
    transport: Transport
    conditions: np.ndarray

    def guided(self, scale: float) -> Transport:
        """The learned transport under classifier-free guidance of this scale."""
        field = guidance(self.transport.field, scale)
        return eqx.tree_at(lambda transport: transport.field, self.transport, field)

    def table(self, command: str) -> "Codec":
        """The codec of a table.

        Args:
            command: what it is wanted for.

        Returns:
            The codec.

        Raises:
            UserError: the run was learnt from images.
        """
        from .._data._codec import Codec

        if not isinstance(self.codec, Codec):
            raise UserError(f"{command} is for tables; {self.run.path} was learnt from images")
        return self.codec

    def read(self, data: str | Path) -> "pl.DataFrame":
        """Rows of a file or folder, of the kind and the image size that the run was learnt from.

        Raises:
            UserError: they cannot be read, or are of the other kind.
        """
        from .._data._sources import read_frame

        return read_frame(data, self.config.kind, image_size=self.config.image_size)


def load(path: Path | str) -> Model:
    """Open a trained run; no code in it is executed.

    Args:
        path: the run folder.

    Returns:
        The model.

    Raises:
        UserError: no such folder, no configuration, not trained yet, or weights that cannot be read.
    """
    run = Run(Path(path))
    config = run.config()
    if config is None:
        raise UserError(f"{path} is no run folder: it has no config.json")
    if not run.trained:
        raise UserError(f"{path} is not trained yet: call 'nablax learn' again and it goes on where it stopped")
    codec = codec_of(config)
    # Shapes only: initialising weights that are about to be replaced would compile for seconds.
    transport = eqx.filter_eval_shape(build, config, codec, jax.random.key(0))
    safetensors = require("safetensors", extra="app")
    weights = run.path / "weights.safetensors"
    try:
        with safetensors.safe_open(weights, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        conditions = arrays.pop("['conditions']")
        field = _with_arrays({"field": transport.field}, arrays)["field"]
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise UserError(f"{weights} cannot be read", error) from None
    transport = eqx.tree_at(lambda transport: transport.field, transport, field)
    return Model(run, config, codec, transport, conditions)


def codec_of(config: Config) -> "Codec | ImageCodec":
    """The codec written in a configuration."""
    from .._data._codec import Codec
    from .._data._images import ImageCodec

    text = json.dumps(config.codec)
    return ImageCodec.from_json(text) if config.kind == "images" else Codec.from_json(text)


def build(config: Config, codec: "Codec | ImageCodec", key: Any) -> Transport:
    """A fresh, untrained transport as configured."""
    chosen = config.choices
    sizes = {"condition": codec.condition_dim, "width": chosen["width"], "depth": chosen["depth"], "key": key}
    field: MLP | Transformer
    if chosen["network"] == "transformer":
        assert len(codec.shape) == 3  # no configuration has it otherwise
        field = Transformer(codec.shape, patch=_patch(codec.shape), **sizes)
    else:
        field = MLP(codec.shape, time_features=16, residual=True, **sizes)
    return Transport(field, PATH, Normal(codec.shape), Euclidean(codec.shape))


def _patch(shape: tuple[int, ...]) -> int:
    """The smallest patch that leaves at most 256 of them and divides the image."""
    height, width = shape[:2]
    for side in range(1, min(height, width) + 1):
        if (
            height % side == width % side == 0
            and height * width <= 256 * side**2
            and (side > 1 or height * width <= 64)
        ):
            return side
    raise UserError(f"images of {height}×{width} do not divide into at most 256 patches; give --image-size")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file beside its place and move it there, so that it is whole or absent."""
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _named_arrays(model: Any) -> dict[str, np.ndarray]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(model, eqx.is_array))
    return {jax.tree_util.keystr(path).lstrip("."): np.asarray(leaf) for path, leaf in leaves}


def _with_arrays(model: Any, arrays: dict[str, np.ndarray]) -> Any:
    dynamic, static = eqx.partition(model, lambda leaf: isinstance(leaf, jax.Array | jax.ShapeDtypeStruct))
    leaves, structure = jax.tree_util.tree_flatten_with_path(dynamic)
    found = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path).lstrip(".")
        array = arrays[name]
        if array.shape != leaf.shape:
            raise ValueError(f"{name} has shape {array.shape}, expected {leaf.shape}")
        found.append(jax.numpy.asarray(array))
    return eqx.combine(jax.tree_util.tree_unflatten(structure, found), static)


__all__ = ["PATH", "Model", "Run", "build", "codec_of", "load", "write_whole"]

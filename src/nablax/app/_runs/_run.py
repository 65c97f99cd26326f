"""A run folder: what is in it, and how it is written so that it is never half there."""

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..._core import Key, read_arrays, with_arrays, write_whole
from ...fields import MLP, Transformer
from ...follow import save
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
        save(self.path / "weights.safetensors", model)

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
        config: its configuration: the data, every choice and why it was made.
        codec: between rows and arrays: columns, kinds and units.
        transport: the learned field; draws, scores and encodes points as `encode` makes them.
        conditions: condition vectors of training rows [rows, condition], for drawing conditions that nobody set.
    """

    run: Run
    config: Config
    codec: "Codec | ImageCodec"
    transport: Transport
    conditions: np.ndarray

    def encode(self, frame: "pl.DataFrame", *, key: Key) -> tuple[Array, Array | None]:
        """Rows as points that the transport works on.

        Args:
            frame: rows with the columns that the run was learnt from, in any order.
            key: places a whole number, a category or a pixel level within its cell.

        Returns:
            Points [rows, ...], standardised, and condition vectors [rows, condition], or None where the run has no
            conditions: ``transport.log_prob(*encode(frame, key=key), key=key)``. That density is one of points; the
            one of rows, in the table's own units, is what ``nablax score`` gives.

        Raises:
            UserError: a column is absent, of another type, infinite, or holds an unseen category.
        """
        base, condition = self.codec.encode(frame)
        points, _ = self.codec.dequantise(jnp.asarray(base), key)
        return points, jnp.asarray(condition) if self.codec.condition_dim else None

    def decode(self, points: Array | np.ndarray, condition: Array | np.ndarray | None = None) -> "pl.DataFrame":
        """Points back to rows, in the table's own columns, order, types and observed ranges.

        Args:
            points: [rows, ...], such as ``transport.sample(rows, key=key)``.
            condition: condition vectors [rows, condition]; without them the condition columns are left out.

        Returns:
            The table.
        """
        return self.codec.decode(points, None if condition is None else np.asarray(condition))

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

    def read(self, data: str | Path, encoding: str | None = None) -> "pl.DataFrame":
        """Rows of a file or folder, of the kind and the image size that the run was learnt from.

        Args:
            data: the file or folder, or "-" for standard input.
            encoding: of a file of text; that of the training file by default.

        Returns:
            The rows, cells of text as they stand there.

        Raises:
            UserError: they cannot be read, or are of the other kind.
        """
        from .._data._plain_text import TextOptions
        from .._data._sources import read_frame

        text = TextOptions(**{**self.config.text, **({} if encoding is None else {"encoding": encoding})})
        return read_frame(data, self.config.kind, image_size=self.config.image_size, text=text)


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
    # A run is trained in single precision, whatever the precision of the program that opens it.
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32) if isinstance(x, jax.ShapeDtypeStruct) else x,
        {"field": transport.field},
    )
    weights = run.path / "weights.safetensors"
    try:
        arrays, _ = read_arrays(weights)
        conditions = arrays.pop("['conditions']")
        fix = "Its configuration has changed, or its weights are another run's."
        field = with_arrays(arrays, like, source=str(weights), fix=fix)["field"]
    except (OSError, ValueError, KeyError) as error:
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


__all__ = ["PATH", "Model", "Run", "build", "codec_of", "load"]

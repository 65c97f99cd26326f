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
from ._config import GENERATION, Config

if TYPE_CHECKING:
    import polars as pl

    from .._data._codec import Codec
    from .._data._images import ImageCodec
    from .._model._table import TableModel


PATH = Linear()
_FIX = "Its configuration has changed, or its weights are another run's."


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

    def write_metrics(self, columns: dict[str, np.ndarray], name: str = "metrics.csv") -> None:
        """Write the history of training, one line for each step."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*columns.values()):
            writer.writerow("" if isinstance(cell, float | np.floating) and np.isnan(cell) else cell for cell in row)
        self.write(name, text.getvalue())

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
        conditions: condition vectors of training images [rows, condition], for drawing conditions that nobody set.
        joint: of a table, the whole model: the states of its cells, and the field of their values.
    """

    run: Run
    config: Config
    codec: "Codec | ImageCodec"
    transport: Transport
    conditions: np.ndarray
    joint: "TableModel | None" = None

    def encode(self, frame: "pl.DataFrame", *, key: Key) -> tuple[Array, Array | None]:
        """Rows as points that the transport works on.

        Args:
            frame: rows with the columns that the run was learnt from, in any order.
            key: places a whole number or a pixel level within its cell.

        Returns:
            Points [rows, ...] and condition vectors [rows, condition], or None where images have no conditions:
            ``transport.log_prob(*encode(frame, key=key), key=key)``. The points of a table are what regression leaves
            of its numbers' normal scores, and the condition vector says in which state each cell is, a category, an
            atom, missing, or one with a value. That density is one of points; the one of rows, in the table's own
            units, is what ``nablax score`` gives.

        Raises:
            UserError: a column is absent, or of another type.
        """
        base, condition = self.codec.encode(frame)
        return self.points(jnp.asarray(base), jnp.asarray(condition), key)

    def points(self, base: Array, condition: Array, key: Key) -> tuple[Array, Array | None]:
        """Encoded rows as points of the transport, and its ``args``; as `encode`, for rows that are encoded already."""
        if self.joint is None:
            return self.codec.dequantise(base, key)[0], self.arguments(condition)
        cells = self.joint.cells(base, self.table("points").measure, key)
        points, args, _ = self.joint.points(cells, jnp.zeros(cells.states.shape, bool))
        return points, args

    def arguments(self, condition: Array | np.ndarray | None) -> Array | None:
        """Condition vectors as ``args`` of the transport: None for images without conditions."""
        if condition is None or (self.joint is None and not self.codec.condition_dim):
            return None
        return jnp.asarray(condition)

    def decode(self, points: Array | np.ndarray, condition: Array | np.ndarray | None = None) -> "pl.DataFrame":
        """Points back to rows, in the table's own columns, order, types and observed ranges.

        Args:
            points: [rows, ...], such as ``transport.sample(rows, key=key, args=condition)``.
            condition: condition vectors [rows, condition]; for images, without them the label is left out.

        Returns:
            The table.

        Raises:
            UserError: points of a table without the condition vectors, which hold the states of its cells.
        """
        if self.joint is None:
            return self.codec.decode(points, None if condition is None else np.asarray(condition))
        return self.table("decode").decode_cells(*self._cells(points, condition))

    def clipped(self, points: np.ndarray, condition: np.ndarray) -> dict[str, float]:
        """The fraction of cells that `decode` moves into the observed range, by column."""
        if self.joint is None:
            return self.codec.out_of_range(points)  # type: ignore[call-arg]
        return self.table("decode").out_of_range(*self._cells(points, condition))

    def _cells(self, points: Array | np.ndarray, condition: Array | np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """States, and coordinates of all columns, of points of a table."""
        if condition is None:
            raise UserError("the states of a table's cells are in the condition vectors: pass them as well")
        assert self.joint is not None
        return self.joint.rows(np.asarray(points), np.asarray(condition))

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
        UserError: no such folder, no configuration, not trained yet, learnt by another version's model of tables, or
            weights that cannot be read.
    """
    run = Run(Path(path))
    config = run.config()
    if config is None:
        raise UserError(f"{path} is no run folder: it has no config.json")
    if not run.trained:
        raise UserError(f"{path} is not trained yet: call 'nablax learn' again and it goes on where it stopped")
    if config.kind == "table" and config.generation != GENERATION:
        raise UserError(f"{path} was learnt by another version's model of tables, not by this one's: learn it again")
    codec = codec_of(config)
    weights = run.path / "weights.safetensors"
    try:
        arrays, _ = read_arrays(weights)
        if config.kind == "table":
            joint = _table_with(arrays, config, codec, str(weights))
            return Model(run, config, codec, joint.transport, np.zeros((0, 0), np.float32), joint)
        conditions = arrays.pop("['conditions']")
        # Shapes only: initialising weights that are about to be replaced would compile for seconds.
        transport = eqx.filter_eval_shape(build, config, codec, jax.random.key(0))
        field = with_arrays(arrays, _single({"field": transport.field}), source=str(weights), fix=_FIX)["field"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{weights} cannot be read", error) from None
    transport = eqx.tree_at(lambda transport: transport.field, transport, field)
    return Model(run, config, codec, transport, conditions)


def _table_with(arrays: dict[str, np.ndarray], config: Config, codec: Any, source: str) -> "TableModel":
    """The model of a table with these weights."""
    knots = arrays["['table'].normal_scores.x"].shape[1]
    like = eqx.filter_eval_shape(build_table, config, codec, jax.random.key(0), knots)
    return with_arrays(arrays, _single({"table": like}), source=source, fix=_FIX)["table"]


def _single(like: Any) -> Any:
    """Shapes in single precision: a run is trained in it, whatever the precision of the program that opens it."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32) if isinstance(x, jax.ShapeDtypeStruct) else x, like
    )


def codec_of(config: Config) -> "Codec | ImageCodec":
    """The codec written in a configuration."""
    from .._data._codec import Codec
    from .._data._images import ImageCodec

    text = json.dumps(config.codec)
    return ImageCodec.from_json(text) if config.kind == "images" else Codec.from_json(text)


def build_table(config: Config, codec: "Codec", key: Any, knots: int) -> "TableModel":
    """A fresh, untrained model of a table as configured, what is fitted and not trained still to be put in."""
    from .._model._gaussian import Gaussian
    from .._model._normal_scores import NormalScores
    from .._model._states import StateNetwork
    from .._model._table import TableModel
    from .._model._values import ValueField

    state_key, value_key = jax.random.split(key)
    width, depth = config.choices["width"], config.choices["depth"]
    sizes, values = tuple(kind.states for kind in codec.modelled), max(1, len(codec.valued))
    shares = [np.array(kind.shares) * config.rows for kind in codec.modelled]
    return TableModel(
        StateNetwork(shares, values, width=width, depth=max(1, depth - 1), key=state_key),
        ValueField(sizes, values, width=width, depth=depth, key=value_key),
        NormalScores(*(jnp.zeros((values, knots), jnp.float32) for _ in range(3))),
        Gaussian(sizes, codec.valued, [codec.modelled[j].levels for j in codec.valued]),
        jnp.zeros(values, jnp.float32),
        codec.valued,
    )


def build(config: Config, codec: "Codec | ImageCodec", key: Any) -> Transport:
    """A fresh, untrained transport of images as configured."""
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


__all__ = ["PATH", "Model", "Run", "build", "build_table", "codec_of", "load"]

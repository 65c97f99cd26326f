"""Learning a table: the states' network and the values' field, until they get no better, and the widths of draws."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..._core import Key
from ...follow import Fit
from .._key import random_key
from .._kinds._quantity import AbstractQuantity
from .._model._along import STEPS, codes_of
from .._model._calibrated import fit_slopes, share_given
from .._model._fit_gaussian import fit_gaussian
from .._model._gaussian import Gaussian
from .._model._masks import given_cells
from .._model._normal_scores import NormalScores, fit_normal_scores
from .._model._table import Cells, TableModel
from ._config import Config
from ._flat import Flat
from ._rows import Rows, repeats
from ._run import build_table

if TYPE_CHECKING:
    from .._data._codec import Codec

# The network of the states has an exact likelihood to fit, in a few outputs, and overfits at a higher rate.
_STEPS, _RATE = 0.5, 0.6
_FITTED = 50_000  # training rows whose quantiles are taken
_STRAIGHT = 20_000  # rows to which the straight part is fitted
_PLACED = 4  # times that each is placed within its grid cell, so that ties are no steps
_CALIBRATED = 2048  # validation rows to which the widths are fitted, fewer of them several times

# loss, what is trained, steps, learning rate, key, name of its part -> what came of it
Fitting = Callable[[Callable[..., Array], Any, int, float, Key, str], Fit]


def learn_table(
    config: Config, codec: "Codec", rows: Rows, key: Key, fitting: Fitting
) -> tuple[TableModel, dict[str, Fit]]:
    """Train the model of a table.

    Args:
        config: of the run.
        codec: of the table.
        rows: encoded.
        key: of all randomness.
        fitting: trains one part.

    Returns:
        The trained model, and what came of each part: "values" where a column has values, "states" where a cell can be
        in several.
    """
    init_key, state_key, value_key = jax.random.split(key, 3)
    scores = normal_scores(codec, rows)
    model = build_table(config, codec, init_key, scores.x.shape[1])
    model = eqx.tree_at(lambda model: model.normal_scores, model, scores)
    if codec.valued:
        model = eqx.tree_at(lambda model: model.gaussian, model, gaussian(model, codec, rows))
    steps, rate = config.choices["steps"], config.choices["learning_rate"]
    found: dict[str, Fit] = {}

    def loss_of(part: Callable[..., Array]) -> Callable[..., Array]:
        def loss(trained: Flat, batch: dict[str, Array], *, key: Key) -> Array:
            place_key, mask_key = jax.random.split(key)
            return part(trained.whole(), model.cells(batch["base"], codec.measure, place_key), mask_key)

        return loss

    if any(kind.states > 1 for kind in codec.modelled):
        fewer = max(1, round(_STEPS * steps))
        found["states"] = fitting(
            loss_of(model.state_loss), Flat.of(model.network), fewer, _RATE * rate, state_key, "states"
        )
        model = eqx.tree_at(lambda model: model.network, model, found["states"].model.whole())
    if codec.valued:
        found["values"] = fitting(loss_of(model.value_loss), Flat.of(model.field), steps, rate, value_key, "values")
        model = eqx.tree_at(lambda model: model.field, model, found["values"].model.whole())
        if len(codec.valued) > 1:  # one number has no other that could be given
            model = eqx.tree_at(lambda model: model.slopes, model, slopes(model, codec, rows))
    return model, found


def normal_scores(codec: "Codec", rows: Rows) -> NormalScores:
    """The maps of a table's numbers to normal coordinates, fitted to training rows."""
    base = np.asarray(rows.base[np.sort(rows.train[:_FITTED])])[:, list(codec.valued)]
    there = (base[..., 0] == 0) & np.isfinite(base[..., 1])
    values = jnp.asarray(np.where(there, base[..., 1], 0.0))
    measure = jax.jit(codec.measure)
    placed = [np.asarray(measure(values, random_key(k))[0]) for k in range(_PLACED if codec.noisy else 1)]
    return fit_normal_scores(
        [np.concatenate([y[there[:, j], j] for y in placed]) for j in range(len(codec.valued))], len(placed)
    )


def gaussian(model: TableModel, codec: "Codec", rows: Rows) -> Gaussian:
    """The straight part of the values, fitted to training rows."""
    kinds = [codec.modelled[j] for j in codec.valued]
    atoms = np.zeros((max(kind.levels for kind in kinds), len(kinds)), np.float32)
    for place, kind in enumerate(kinds):
        assert isinstance(kind, AbstractQuantity)
        atoms[1 : kind.levels, place] = kind.scale.to_coordinate(np.array(kind.atoms))
    base = jnp.asarray(rows.base[np.sort(rows.train[:_STRAIGHT])])
    cells, at = _scored(model, codec, base, jnp.asarray(atoms))
    states, carries, scores = (np.asarray(part) for part in (cells.states, cells.carries, cells.scores))
    return fit_gaussian(model.gaussian, states, carries, scores.astype(np.float64), np.asarray(at, np.float64).T)


def slopes(model: TableModel, codec: "Codec", rows: Rows) -> Array:
    """How wide draws given others have to be for the rows that decided when to stop, under masks as in training."""
    times = min(repeats(len(rows.validation)), max(1, _CALIBRATED // len(rows.validation)))
    base = jnp.asarray(rows.base[np.sort(np.tile(rows.validation[:_CALIBRATED], times))])
    codes, free, given = _coded(model, codec, base)
    found = fit_slopes(np.asarray(codes, np.float64), np.asarray(free), np.asarray(given, np.float64), 1.0 / times)
    return jnp.asarray(found, jnp.float32)


@eqx.filter_jit
def _coded(model: TableModel, codec: "Codec", base: Array) -> tuple[Array, Array, Array]:
    place_key, mask_key = jax.random.split(random_key(1))
    cells = model.cells(base, codec.measure, place_key)
    free, points, vectors, _ = model.conditioned(cells, given_cells(mask_key, *cells.states.shape))
    given = share_given(free, cells.carries)[:, 0]
    return codes_of(model.transport, points, vectors, jnp.asarray(STEPS)), free, given


@eqx.filter_jit
def _scored(model: TableModel, codec: "Codec", base: Array, atoms: Array) -> tuple[Cells, Array]:
    return model.cells(base, codec.measure, random_key(0)), model.normal_scores.forward(atoms)[0]


__all__ = ["Fitting", "gaussian", "learn_table", "normal_scores", "slopes"]

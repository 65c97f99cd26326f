"""The whole model of a table: p(states) by a chain, p(values | states) by a flow, for any cells given."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..._core import Key
from ...spaces import Euclidean
from ...transport import Linear, Normal, Transport, flow_matching
from ._calibrated import CalibratedField
from ._gaussian import Gaussian, deviations
from ._masks import drawn_before, given_cells
from ._normal_scores import NormalScores
from ._states import StateNetwork
from ._values import ValueField, condition, taken_apart

PATH = Linear()
# Weight in the loss of states whose turn has not come: they teach the same network, of other subsets.
_LATER = 0.3
_LOG_TWO_PI = math.log(2.0 * math.pi)

# Values as the codec has them, and a key, to coordinates that a density is of, and the log-density of the cell's own
# unit: the widths of grid cells, the logarithms, the scales.
Measure = Callable[[Float[Array, "rows values"], Key], tuple[Float[Array, "rows values"], Float[Array, "rows values"]]]


class Cells(eqx.Module):
    """Encoded rows, taken apart.

    Attributes:
        states: [rows, columns].
        carries: [rows, values]: whether the column's value counts in this row.
        scores: [rows, values]: normal scores, 0 where there is no value.
        correction: [rows, values]: what each adds to the log-density of the scores to make it one of cells, nats.
    """

    states: Int[Array, "rows columns"]
    carries: Bool[Array, "rows values"]
    scores: Float[Array, "rows values"]
    correction: Float[Array, "rows values"]


class TableModel(eqx.Module):
    r"""A joint distribution of rows whose every conditional is at hand.

    $$
    \log p(\text{row} \mid \text{given}) = \sum_{j \notin G} \log p(s_j \mid s_G, v_G, s_{<j})
      + \log p(v_{\bar G} \mid s, v_G)
    $$

    A cell is a state (a category, "missing", an atom of a number, or "has a value") and, in the last case, a value. The
    states not given are drawn, and scored, one after the other in the columns' order by one network that is shown the
    others; the values follow all at once, by a flow of what `Gaussian` regression leaves of their normal scores, given
    every state and the given values.

    Attributes:
        network: of the states.
        field: of the values.
        normal_scores: of the values; fitted to quantiles, not trained.
        gaussian: of the normal scores; fitted, not trained.
        slopes: of the widths of draws given others (see `CalibratedField`); fitted after training.
        valued: places of the columns with values.
    """

    network: StateNetwork
    field: ValueField
    normal_scores: NormalScores
    gaussian: Gaussian
    slopes: Float[Array, " values"]
    valued: tuple[int, ...] = eqx.field(static=True)

    @property
    def values(self) -> int:
        """Coordinates of the flow: one a column with values, at least one."""
        return max(1, len(self.valued))

    @property
    def transport(self) -> Transport:
        """The flow of the residuals; its ``args`` are the rows of `condition`."""
        field = CalibratedField(self.field, self.slopes, self.valued)
        return Transport(field, PATH, Normal((self.values,)), Euclidean((self.values,)))

    def cells(self, base: Float[Array, "rows columns 2"], measure: Measure, key: Key) -> Cells:
        """Take encoded rows apart, numbers on a grid placed at random within their cell.

        Args:
            base: states and values of all columns, as the codec encodes them; an unknown state counts as 0.
            measure: values to coordinates.
            key: for the places.
        """
        known = jnp.nan_to_num(base[..., 0], nan=0.0).astype(jnp.int32)
        if not self.valued:
            nothing = jnp.zeros((len(base), 1), base.dtype)
            return Cells(known, nothing > 0, nothing, nothing)
        places = np.array(self.valued)
        values = base[:, places, 1]
        carries = (base[:, places, 0] == 0) & jnp.isfinite(values)
        coordinates, unit = measure(jnp.where(carries, values, 0.0), key)
        centre = self.normal_scores.x[:, self.normal_scores.x.shape[1] // 2]
        scores, slope = self.normal_scores.forward(jnp.where(carries, coordinates, centre[None]))
        return Cells(known, carries, jnp.where(carries, scores, 0.0), jnp.where(carries, unit + slope, 0.0))

    def given_values(self, given: Bool[Array, "*rows columns"]) -> Bool[Array, "*rows values"]:
        """Marks of columns as marks of values."""
        return given[..., np.array(self.valued, np.int64)] if self.valued else given[..., :1] & False

    def conditioned(
        self, cells: Cells, given: Bool[Array, "rows columns"]
    ) -> tuple[Bool[Array, "rows values"], Array, Array, Array]:
        """Which values are free; their residuals and the condition vectors; and the log of the factors' determinants.

        Args:
            cells: rows.
            given: the columns given.
        """
        marks = self.given_values(given)
        free, shown = cells.carries & ~marks, cells.carries & marks
        expected, factor, residuals = jax.vmap(self.gaussian.conditioned)(cells.states, free, shown, cells.scores)
        volume = jnp.sum(jnp.log(jnp.diagonal(factor, axis1=1, axis2=2)), axis=1)
        return free, residuals, condition(cells.states, free, expected), volume

    def points(self, cells: Cells, given: Bool[Array, "rows columns"]) -> tuple[Array, Array, Array]:
        """Points of the flow's space, their condition vectors, and what turns the flow's log-density into the cells'.

        Args:
            cells: rows.
            given: the columns given.

        Returns:
            Points [rows, values] with zeros where nothing is free, condition vectors, and corrections [rows] in nats,
            among them the prior's density of the frozen coordinates, which the flow's own holds.
        """
        free, points, vectors, volume = self.conditioned(cells, given)
        frozen = 0.5 * _LOG_TWO_PI * jnp.sum(~free, axis=1)
        return points, vectors, jnp.sum(jnp.where(free, cells.correction, 0.0), axis=1) + frozen - volume

    def scores(self, point: Float[Array, " values"], vector: Float[Array, " condition"]) -> Float[Array, " values"]:
        """Normal scores of one point of the flow's space: of a free value its own, of a given one that in the vector.

        Args:
            point: residuals.
            vector: its condition.
        """
        return self.scores_and_deviations(point, vector)[0]

    def scores_and_deviations(
        self, point: Float[Array, " values"], vector: Float[Array, " condition"]
    ) -> tuple[Float[Array, " values"], Float[Array, " values"]]:
        """The same, and by how much the Gaussian lets each free score vary given what is known; 1 of the others."""
        states, marks, values = taken_apart(vector, self.values)
        free = marks > 0.5
        given = ~free & ((states[np.array(self.valued)] == 0) if self.valued else False)
        expected, factor, _ = self.gaussian.conditioned(states, free, given, values)
        scores = jnp.where(free, expected + factor @ jnp.where(free, point, 0.0), values)
        return scores, deviations(factor, free)

    def rows(self, points: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Undo ``points``: states, and the coordinates of all columns, 0 where a column has no values.

        Args:
            points: [rows, values].
            vectors: the condition vectors; the frozen coordinates are taken from them.
        """
        columns = len(self.network.code.sizes)
        coordinates = np.zeros((len(points), columns))
        found = _coordinates(self, jnp.asarray(points), jnp.asarray(vectors))
        coordinates[:, list(self.valued)] = np.asarray(found, np.float64)[:, : len(self.valued)]
        return np.rint(vectors[:, :columns]).astype(np.int64), coordinates

    def state_loss(self, network: StateNetwork, cells: Cells, key: Key) -> Float[Array, ""]:
        """Cross-entropy of the hidden states under random subsets of given cells, in nats a row.

        The state whose turn it is in the chain counts fully, so that this is, for rows with nothing given, the chain's
        negative log-likelihood over the number of its steps; the later ones count in part.
        """
        given_key, turn_key = jax.random.split(key)
        rows, columns = cells.states.shape
        given = given_cells(given_key, rows, columns)
        known, turn = drawn_before(turn_key, given)
        shown = cells.carries & self.given_values(given)

        def one(states: Array, known: Array, scores: Array, shown: Array) -> Array:
            leaning = self.gaussian.leaning(states, known, shown, scores)
            return network.of(network.hidden(states, known, scores, shown), states, leaning)

        found = jax.vmap(one)(cells.states, known, cells.scores, shown)
        return -jnp.mean(jnp.sum(found * jnp.where(turn, 1.0, _LATER * ~known), axis=1))

    def value_loss(self, field: ValueField, cells: Cells, key: Key) -> Float[Array, ""]:
        """Flow matching of the values' residuals under random subsets of given ones."""
        given_key, noise_key, match_key = jax.random.split(key, 3)
        free, residuals, vectors, _ = self.conditioned(cells, given_cells(given_key, *cells.states.shape))
        noise = jax.random.normal(noise_key, residuals.shape, residuals.dtype)
        # Frozen ones stand still: no error is made there.
        batch = {"data": residuals, "noise": jnp.where(free, noise, residuals), "condition": vectors}
        return flow_matching(PATH)(field, batch, key=match_key)

    def state_log_prob(self, cells: Cells, given: Bool[Array, "rows columns"]) -> Float[Array, " rows"]:
        """Log-probability of the states not given, exact, in nats."""
        shown = cells.carries & self.given_values(given)

        def one(place: Array) -> Array:
            def row(states: Array, scores: Array, shown: Array, given: Array) -> Array:
                known = given | (jnp.arange(len(states)) < place)
                hidden = self.network.hidden(states, known, scores, shown)
                leaning = self.gaussian.leaning(states, known, shown, scores)
                return jnp.where(given[place], 0.0, self.network.of(hidden, states, leaning)[place])

            return jax.vmap(row)(cells.states, cells.scores, shown, given)

        return jnp.sum(jax.lax.map(one, jnp.arange(cells.states.shape[1])), axis=0)

    def draw_states(
        self,
        cells: Cells,
        given: Bool[Array, "rows columns"],
        allowed: Bool[Array, "columns most"] | Bool[Array, "rows columns most"],
        key: Key,
    ) -> Int[Array, "rows columns"]:
        """Draw the states not given, one column after the other.

        Args:
            cells: rows; only what is given is looked at.
            given: which.
            allowed: states that may be drawn, for all rows or each.
            key: for the draws.
        """
        shown = cells.carries & self.given_values(given)
        allowed = jnp.broadcast_to(allowed, (len(given), *allowed.shape[-2:]))
        columns = jnp.arange(given.shape[1])

        def step(states: Array, place: Array) -> tuple[Array, None]:
            def row(states: Array, scores: Array, shown: Array, given: Array, allowed: Array) -> Array:
                known = given | (columns < place)
                hidden = self.network.hidden(states, known, scores, shown)
                leaning = self.gaussian.leaning(states, known, shown, scores)
                return jnp.where(allowed[place], self.network.column(hidden, place, leaning), -jnp.inf)

            logits = jax.vmap(row)(states, cells.scores, shown, given, allowed)
            drawn = jax.random.categorical(jax.random.fold_in(key, place), logits).astype(states.dtype)
            return states.at[:, place].set(jnp.where(given[:, place], states[:, place], drawn)), None

        return jax.lax.scan(step, jnp.where(given, cells.states, 0), columns)[0]

    def drawn_states(
        self, cells: Cells, given: Bool[Array, "rows columns"], allowed: Array, key: Key
    ) -> Float[Array, "rows condition"]:
        """Condition vectors of the flow for rows whose states are drawn: see ``draw_states``."""
        states = self.draw_states(cells, given, allowed, key)
        valued = (states[:, np.array(self.valued)] == 0) if self.valued else cells.carries & False
        # Of what is not given only the state is known, which may be that of an atom: see ``conditioned``.
        drawn = Cells(states, valued, cells.scores, cells.correction)
        return self.conditioned(drawn, given)[2]


@eqx.filter_jit
def _coordinates(model: TableModel, points: Array, vectors: Array) -> Array:
    return model.normal_scores.inverse(jax.vmap(model.scores)(points, vectors))


__all__ = ["PATH", "Cells", "Measure", "TableModel"]

"""The states of a row's cells: a network that is shown some of them and says how likely the others are."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..._core import Key

_FEW = 16  # states up to which each has an input and an output of its own
_RANK = 8  # dimensions of a state's embedding in columns of more
_NONE = -1e30  # the logit of what is no state; finite, so that no gradient is 0 times infinity


class StateCode(eqx.Module):
    """The states of a row as one vector: indicators for columns of few states, a learned embedding for the others.

    Attributes:
        sizes: number of states of each column.
        embeddings: [columns of many states, most states, rank].
    """

    sizes: tuple[int, ...] = eqx.field(static=True)
    embeddings: Float[Array, "many most rank"]

    def __init__(self, sizes: tuple[int, ...], *, key: Key):
        self.sizes = sizes
        many = [size for size in sizes if size > _FEW]
        self.embeddings = 0.3 * jax.random.normal(key, (len(many), max(many, default=0), _RANK))

    @property
    def few(self) -> np.ndarray:
        """Places of the columns of few states."""
        return np.array([j for j, size in enumerate(self.sizes) if size <= _FEW], np.int64)

    @property
    def many(self) -> np.ndarray:
        """Places of the columns of many."""
        return np.array([j for j, size in enumerate(self.sizes) if size > _FEW], np.int64)

    @property
    def widest(self) -> int:
        """Indicators of a column of few states."""
        return max((self.sizes[j] for j in self.few), default=0)

    @property
    def width(self) -> int:
        """Length of the vector."""
        return len(self.few) * self.widest + len(self.many) * _RANK

    def __call__(self, states: Int[Array, " columns"], known: Bool[Array, " columns"]) -> Float[Array, " width"]:
        """The vector of one row; zeros for columns that are not known."""
        indicators = jax.nn.one_hot(states[self.few], self.widest) * known[self.few][:, None]
        embedded = self.embeddings[np.arange(len(self.many)), states[self.many]] * known[self.many][:, None]
        return jnp.concatenate([indicators.reshape(-1), embedded.reshape(-1)])


class StateNetwork(eqx.Module):
    r"""Log-probabilities of every column's state, given the states of some columns and the values of some numbers.

    Residual blocks on the vector of `StateCode`, the given values and their marks. The logits of a column of few states
    are outputs of the network; those of a column of many are products of an output of eight numbers with the state's
    own embedding, plus a bias. Biases start at the log-shares in the training rows, and everything else at zero, so
    that training begins with independent columns, but for what is known beforehand: logits may lean to states that the
    known cells make likelier, and how far each column trusts in that is learnt, from all of it on.

    Args:
        shares: for each column how often each state occurs [states]; any positive scale.
        values: number of columns with values.
        width: units of a hidden layer.
        depth: residual blocks.
        key: random key of the initial weights.
    """

    code: StateCode
    inlet: eqx.nn.Linear
    blocks: tuple[tuple[eqx.nn.Linear, eqx.nn.Linear], ...]
    outlet: eqx.nn.Linear
    few_bias: Float[Array, "few widest"]
    many_bias: Float[Array, "many most"]
    trust: Float[Array, " columns"]

    def __init__(self, shares: list[np.ndarray], values: int, *, width: int, depth: int, key: Key):
        code_key, inlet_key, outlet_key, *keys = jax.random.split(key, 3 + 2 * depth)
        self.code = code = StateCode(tuple(len(share) for share in shares), key=code_key)
        self.inlet = eqx.nn.Linear(code.width + 2 * values, width, key=inlet_key)
        self.blocks = tuple(
            (eqx.nn.Linear(width, width, key=k), _zero(eqx.nn.Linear(width, width, key=k))) for k in keys[::2]
        )
        self.outlet = _zero(eqx.nn.Linear(width, code.width, key=outlet_key))
        self.few_bias = _log_shares([shares[j] for j in code.few], code.widest)
        self.many_bias = _log_shares([shares[j] for j in code.many], code.embeddings.shape[1])
        self.trust = jnp.ones(len(shares))

    def hidden(
        self,
        states: Int[Array, " columns"],
        known: Bool[Array, " columns"],
        values: Float[Array, " values"],
        given: Bool[Array, " values"],
    ) -> Float[Array, " width"]:
        """The network's output before the heads: what it makes of the known states and the given values."""
        shown = jnp.where(given, values, 0.0)
        h = self.inlet(jnp.concatenate([self.code(states, known), shown, given.astype(shown.dtype)]))
        for inner, outer in self.blocks:
            h = h + outer(jax.nn.silu(inner(jax.nn.silu(h))))
        return self.outlet(jax.nn.silu(h))

    def log_probabilities(
        self, hidden: Float[Array, " width"], leaning: Float[Array, "columns most"]
    ) -> tuple[Array, Array]:
        """Log-probabilities of all states: columns of few [few, widest], and columns of many [many, most].

        Args:
            hidden: what ``hidden`` gives.
            leaning: of the logits to each state, nats.
        """
        few, many = self._split(hidden)
        leaning = self.trust[:, None] * leaning
        logits = few + self.few_bias + leaning[self.code.few, : self.code.widest]
        products = jnp.einsum("mkr,mr->mk", self.code.embeddings, many) + self.many_bias
        products = products + leaning[self.code.many, : products.shape[1]]
        return self._normalised(logits, self.code.few), self._normalised(products, self.code.many)

    def of(
        self, hidden: Float[Array, " width"], states: Int[Array, " columns"], leaning: Float[Array, "columns most"]
    ) -> Float[Array, " columns"]:
        """The log-probability of each column's own state."""
        few, many = self.log_probabilities(hidden, leaning)
        code, found = self.code, jnp.zeros(len(self.code.sizes), hidden.dtype)
        found = found.at[code.few].set(few[np.arange(len(code.few)), states[code.few]])
        return found.at[code.many].set(many[np.arange(len(code.many)), states[code.many]])

    def column(
        self, hidden: Float[Array, " width"], place: Int[Array, ""], leaning: Float[Array, "columns most"]
    ) -> Float[Array, " most"]:
        """Log-probabilities of one column's states, padded by what is none; the place may be traced."""
        few, many = self.log_probabilities(hidden, leaning)
        most = max(few.shape[1], many.shape[1])
        padded = jnp.full((len(self.code.sizes), most), _NONE, hidden.dtype)
        padded = padded.at[self.code.few, : few.shape[1]].set(few)
        return padded.at[self.code.many, : many.shape[1]].set(many)[place]

    def _split(self, hidden: Array) -> tuple[Array, Array]:
        few, many, widest = len(self.code.few), len(self.code.many), self.code.widest
        return hidden[: few * widest].reshape(few, widest), hidden[few * widest :].reshape(many, _RANK)

    def _normalised(self, logits: Array, places: np.ndarray) -> Array:
        if not logits.size:
            return logits
        sizes = np.array(self.code.sizes)[places]
        return jax.nn.log_softmax(jnp.where(np.arange(logits.shape[1]) < sizes[:, None], logits, _NONE), axis=-1)


def _zero(layer: eqx.nn.Linear) -> eqx.nn.Linear:
    return jax.tree.map(jnp.zeros_like, layer)


def _log_shares(shares: list[np.ndarray], widest: int) -> Float[Array, "columns widest"]:
    found = np.zeros((len(shares), widest), np.float32)
    for j, share in enumerate(shares):
        # Half a row more of each, or a state without any would have no gradient to come back by.
        smooth = np.asarray(share, np.float64) + 0.5
        found[j, : len(share)] = np.log(smooth / smooth.sum())
    return jnp.asarray(found)


__all__ = ["StateCode", "StateNetwork"]

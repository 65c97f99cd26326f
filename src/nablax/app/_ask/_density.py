"""The scikit-learn face: a density estimator for arrays."""

import functools
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ...fields import EMA, MLP
from ...follow import fit
from ...spaces import Euclidean
from ...transport import (
    Linear,
    Normal,
    Transport,
    flow_matching,
)
from .._runs._optimizer import recipe
from .._runs._rows import repeats

# Rows are scored in chunks of one size and each controls its own steps: a row's score does not depend on its company.
_CHUNK = 128


class FlowDensity(DensityMixin, BaseEstimator):
    r"""Density estimation by flow matching: $\log p(x)$ of a learned continuous flow from a standard normal.

    Columns are standardised; a column of constant value keeps unit scale.

    Args:
        steps: updates of training. Default 3000.
        width: units of a hidden layer. Default 128.
        depth: residual blocks. Default 3.
        batch_size: rows in an update, at most the rows there are, and a multiple of the devices there are. Default 256.
        learning_rate: peak of a cosine schedule for AdamW. Default 1e-3.
        weight_decay: of AdamW. Default 0.01.
        validation_fraction: share of the rows by which the best weights are chosen; 0 takes the final average.
            Default 0.1; not used below 50 rows.
        random_state: integer, ``numpy.random.RandomState`` or None (a fresh seed).

    Attributes:
        transport_: the learned transport, in standardised coordinates.
        mean_: of each column.
        scale_: standard deviation of each column.
        loss_curve_: training loss, step by step.
        n_features_in_: number of columns.

    Raises:
        ValueError: fewer than two rows, or input that scikit-learn refuses (not finite, not two-dimensional).

    Example:
        >>> import numpy as np
        >>> from nablax.app import FlowDensity
        >>> rows = np.random.default_rng(0).normal(3.0, 2.0, (500, 1))
        >>> density = FlowDensity(steps=300, width=32, depth=1, random_state=0).fit(rows)
        >>> bool(abs(density.score(rows) - (-2.11)) < 0.15)  # minus the entropy of N(3, 4), in nats
        True

    Cost:
        Training: ``steps`` × ``batch_size`` forward passes and gradients. Scoring: about 40 evaluations of D
        Jacobian-vector products for a row.

    References:
        Lipman et al. (2023), Flow Matching for Generative Modeling, https://arxiv.org/abs/2210.02747.
    """

    def __init__(
        self,
        *,
        steps: int = 3000,
        width: int = 128,
        depth: int = 3,
        batch_size: int = 256,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        validation_fraction: float = 0.1,
        random_state: Any = None,
    ):
        self.steps = steps
        self.width = width
        self.depth = depth
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the density of rows.

        Args:
            X: array [rows, columns].
            y: ignored.

        Returns:
            The estimator itself.
        """
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        random = check_random_state(self.random_state)
        self.mean_ = X.mean(axis=0)
        spread = X.std(axis=0)
        self.scale_ = np.where(spread > 1e-12 * np.abs(self.mean_), spread, 1.0)
        rows = ((X - self.mean_) / self.scale_).astype(np.float32)
        validation = None
        kept = round(self.validation_fraction * len(rows))
        if len(rows) >= 50 and kept >= 2:
            rows = rows[random.permutation(len(rows))]
            validation, rows = np.tile(rows[:kept], (repeats(kept), 1)), rows[kept:]
        batch = min(self.batch_size, len(rows))
        batch = max(1, batch - batch % jax.device_count())
        init_key, fit_key = jax.random.split(jax.random.key(random.randint(2**31 - 1)))
        shape = (X.shape[1],)
        field = MLP(shape, width=self.width, depth=self.depth, time_features=32, residual=True, key=init_key)
        transport = Transport(field, Linear(), Normal(shape), Euclidean(shape))
        loss, optimizer = _recipe(self.steps, self.learning_rate, self.weight_decay)
        trained = fit(
            loss,
            field,
            rows,
            optimizer=optimizer,
            steps=self.steps,
            batch_size=batch,
            key=fit_key,
            validation=validation,
            ema=EMA(0.999),
        )
        self.transport_ = eqx.tree_at(lambda transport: transport.field, transport, trained.model)
        self.loss_curve_ = np.asarray(trained.history.loss)
        return self

    def score_samples(self, X: Any) -> Float[np.ndarray, " rows"]:
        """Log-density of each row, in nats, in the units of the columns.

        Args:
            X: array [rows, columns].

        Returns:
            Array [rows].
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        rows = ((X - self.mean_) / self.scale_).astype(np.float32)
        spare = -len(rows) % _CHUNK
        padded = np.concatenate([rows, np.zeros((spare, rows.shape[1]), np.float32)]).reshape(-1, _CHUNK, rows.shape[1])
        scores = np.concatenate([np.asarray(_log_prob(self.transport_, jnp.asarray(chunk))) for chunk in padded])
        return scores[: len(rows)].astype(np.float64) - np.log(self.scale_).sum()

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-density of rows, in nats.

        Args:
            X: array [rows, columns].
            y: ignored.

        Returns:
            The mean.
        """
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Float[np.ndarray, "rows columns"]:
        """Draw rows.

        Args:
            n_samples: how many.
            random_state: integer, ``numpy.random.RandomState`` or None (a fresh seed).

        Returns:
            Array [n_samples, columns].
        """
        check_is_fitted(self)
        key = jax.random.key(check_random_state(random_state).randint(2**31 - 1))
        return np.asarray(self.transport_.sample(n_samples, key=key), np.float64) * self.scale_ + self.mean_


@functools.cache
def _recipe(steps: int, learning_rate: float, weight_decay: float) -> tuple[Any, optax.GradientTransformation]:
    """Loss and optimiser: the same objects for the same numbers, so that fits of one shape share a compiled program."""
    return flow_matching(Linear()), recipe(steps, steps // 20, learning_rate, weight_decay)


@eqx.filter_jit
def _log_prob(transport: Transport, rows: Float[Array, "rows columns"]) -> Float[Array, " rows"]:
    return jax.vmap(lambda row: transport.log_prob(row[None]).value[0])(rows)


__all__ = ["FlowDensity"]

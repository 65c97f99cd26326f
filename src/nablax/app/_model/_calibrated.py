"""The field of a table with the width that its draws ought to have, found on rows that it was not trained on."""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ._values import ValueField, taken_apart

_BEYOND = 2.0  # deviations from which on a code counts no more than that: one that ran away says nothing of the others
# Standard deviations of the common slope, and of each column's about it: chosen on the held-out rows of five normal
# tables of 500 rows, where the trained field is right and few rows make it worse, and of thirteen splits of ten others.
_TOGETHER, _APART = 0.1, 0.2
_STEEPEST = 4.0  # slope that is looked for: a width of fifty times as much


class CalibratedField(eqx.Module):
    r"""A field of flow matching that begins at noise of the width $w = e^{a g}$ in place of 1.

    $$
    u_t = y_t / w^{1 - t}, \qquad \dot u = v(t, w^{1 - t} u)\, w^{t - 1} + u \log w
    $$

    The flow of u leads from the standard normal to where v leads from a normal of deviation w: its draws and its
    densities are calibrated, and nobody else has to know. Here $g$ is the share of a row's numbers that is given and
    $a$ a slope of each column: with nothing given the field is that which was trained. What most of a row determines
    is learnt last, and of short training it is drawn too wide; what is learnt by heart is drawn too narrow. [Derived
    here]

    Attributes:
        field: as trained.
        slopes: a, the log of the width of what alone is not given; 0 until fitted.
        valued: places of the columns with values.
    """

    field: ValueField
    slopes: Float[Array, " values"]
    valued: tuple[int, ...] = eqx.field(static=True)

    def __call__(
        self, t: Float[Array, ""], y: Float[Array, " values"], args: Float[Array, " condition"]
    ) -> Float[Array, " values"]:
        """The velocity of one row; ``args`` as `condition` makes it."""
        states, marks, _ = taken_apart(args, len(y))
        free = marks > 0.5
        there = free | (states[np.array(self.valued)] == 0) if self.valued else free
        rate = jnp.where(free, self.slopes * share_given(free, there), 0.0)
        width = jnp.exp((1.0 - t) * rate)
        return self.field(t, width * y, args) / width + rate * y


def share_given(free: Bool[Array, "*rows values"], there: Bool[Array, "*rows values"]) -> Float[Array, "*rows 1"]:
    """Of a row's numbers that are there, the share that is not free."""
    count = jnp.sum(there, axis=-1, keepdims=True)
    return 1.0 - jnp.sum(free, axis=-1, keepdims=True) / jnp.maximum(count, 1)


def fit_slopes(
    codes: Float[np.ndarray, "rows values"],
    free: Bool[np.ndarray, "rows values"],
    given: Float[np.ndarray, " rows"],
    weight: float,
) -> Float[np.ndarray, " values"]:
    r"""Slopes for which the codes of unseen rows are standard normal, $z_j \sim N(0, e^{2 a_j g})$.

    The scale is Huber's (his second proposal), $\sum_i g_i\big(\psi(z_i e^{-a g_i}) - E\,\psi\big) = a / \tau^2$ with
    $\psi(x) = \min(x^2, 4)$: that of the greatest likelihood, but for codes that ran away. Columns are fitted together
    first, then each about the common slope, so that few rows move little.

    Args:
        codes: of the rows' free values, by the trained field; one that is not finite ran away.
        free: which those are.
        given: share of each row's numbers that is given.
        weight: of a row; below one where rows are the same ones several times.

    References:
        P. Huber, "Robust Estimation of a Location Parameter", 1964, https://doi.org/10.1214/aoms/1177703732.
    """
    tail = 0.5 * math.erfc(_BEYOND / math.sqrt(2.0))
    density = math.exp(-0.5 * _BEYOND**2) / math.sqrt(2.0 * math.pi)
    expected = 1.0 - 2.0 * tail - 2.0 * _BEYOND * density + 2.0 * _BEYOND**2 * tail
    share = np.where(free, given[:, None], 0.0)
    codes = np.where(np.isfinite(codes), codes, np.inf)

    def slopes(about: float, spread: float, parts: np.ndarray) -> np.ndarray:
        """Roots by bisection: what stands left of the equation falls as the slope grows."""
        low, high = np.full(parts.shape[1], -_STEEPEST), np.full(parts.shape[1], _STEEPEST)
        for _ in range(40):
            middle = 0.5 * (low + high)
            beyond = np.minimum(np.square(codes * np.exp(-(share * (parts @ middle)))), _BEYOND**2)
            pull = weight * np.sum(share * (beyond - expected), axis=0) @ parts - (middle - about) / spread**2
            low, high = np.where(pull > 0, middle, low), np.where(pull > 0, high, middle)
        return 0.5 * (low + high)

    values = codes.shape[1]
    common = float(slopes(0.0, _TOGETHER, np.ones((values, 1)))[0])
    return slopes(common, _APART, np.eye(values))


__all__ = ["CalibratedField", "fit_slopes", "share_given"]

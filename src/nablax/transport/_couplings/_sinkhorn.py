"""The entropic coupling: a plan between two batches by Sinkhorn's iterations, and pairs drawn from it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._core import AbstractRecord, Key, check_key, fault
from ._pairing import check_pairs

_Carry = tuple[Array, Array, Array, Array, Array]


class Plan(AbstractRecord):
    """An entropic transport plan between two batches of equal weight.

    Attributes:
        matrix: mass from each noise row to each data column; sums to 1.
        row_error: sum over rows of how far the row's mass is from 1/n.
        column_error: sum over columns of how far the column's mass is from 1/n.
        iterations: pairs of half steps that were taken.
        converged: whether ``row_error`` fell below the tolerance.
    """

    matrix: Float[Array, "noise data"]
    row_error: Float[Array, ""]
    column_error: Float[Array, ""]
    iterations: Int[Array, ""]
    converged: Bool[Array, ""]


class SinkhornCoupling(eqx.Module):
    r"""Pairs drawn from the entropic plan between noise and data.

    $$
    P = \arg\min_P \sum_{ji} P_{ji} \|\mathrm{noise}_j - \mathrm{data}_i\|^2 + \varepsilon \sum_{ji} P_{ji} \log P_{ji}
    $$

    over plans with uniform marginals, in the logarithmic domain, the regularisation lowered in steps to its value. Each
    data point comes once; its noise is drawn from its column of the plan, so that a noise point may come twice or not
    at all, and comes once in the mean. It tends to the exact coupling as $\varepsilon \to 0$ (where it needs ever more
    iterations) and to independent draws as $\varepsilon \to \infty$: it is not a substitute for `optimal_coupling`.

    Args:
        regularisation: $\varepsilon$, in squared units of the data.
        tolerance: for the plan's marginals, summed over rows. Default 1e-3.
        max_iterations: at which it is an error not to have reached it. Default 10000.

    Raises:
        ValueError: a number is not positive.
        RuntimeError: when called, the tolerance was not reached.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.transport import SinkhornCoupling
        >>> coupling = SinkhornCoupling(0.05)
        >>> noise, data = jnp.array([[0.0], [1.0], [2.0]]), jnp.array([[2.1], [0.1], [1.1]])
        >>> coupling(noise, data, key=jax.random.key(0)).tolist()
        [2, 0, 1]
        >>> bool(coupling.plan(noise, data).row_error < 1e-3)
        True

    Cost:
        No model; two passes over an n × n matrix an iteration.

    References:
        Cuturi (2013), Sinkhorn Distances, https://arxiv.org/abs/1306.0895; Peyré, Cuturi (2019), Computational Optimal
        Transport, https://arxiv.org/abs/1803.00567, section 4.4 (logarithmic domain).
    """

    regularisation: float = eqx.field(static=True)
    tolerance: float = eqx.field(static=True, default=1e-3)
    max_iterations: int = eqx.field(static=True, default=10_000)

    def __check_init__(self) -> None:
        if not (self.regularisation > 0 and self.tolerance > 0 and self.max_iterations > 0):
            raise fault(
                expected="positive regularisation, tolerance and max_iterations",
                got=(self.regularisation, self.tolerance, self.max_iterations),
                fix="For no regularisation at all use optimal_coupling.",
            )

    @eqx.filter_jit
    def plan(self, noise: Float[Array, " noise *shape"], data: Float[Array, " data *shape"]) -> Plan:
        """Find the plan.

        Args:
            noise: leading axis batch.
            data: leading axis batch, the same shape after it.

        Returns:
            The `Plan`; ``converged`` says whether the tolerance was reached.
        """
        left, right = noise.reshape(len(noise), -1), data.reshape(len(data), -1)
        # Centred, so that the products do not cancel when both sets lie far from the origin.
        middle = jnp.mean(right, axis=0, keepdims=True)
        left, right = left - middle, right - middle
        costs = jnp.sum(left**2, axis=1)[:, None] + jnp.sum(right**2, axis=1)[None, :] - 2 * left @ right.T
        rows, columns = costs.shape
        log_rows, log_columns = -jnp.log(jnp.asarray(rows, costs.dtype)), -jnp.log(jnp.asarray(columns, costs.dtype))

        def step(carry: _Carry) -> _Carry:
            f, g, level, _, count = carry
            # f and g are potentials in units of the cost; each half step makes one marginal right.
            f_next = level * (log_rows - jax.nn.logsumexp((g[None, :] - costs) / level, axis=1))
            # The row masses under the old f follow from the new one.
            off = jnp.sum(jnp.abs(jnp.exp(log_rows + (f - f_next) / level) - jnp.exp(log_rows)))
            g = level * (log_columns - jax.nn.logsumexp((f_next[:, None] - costs) / level, axis=0))
            arrived = level <= self.regularisation
            # Annealed while coarse; the error counts only once the wanted regularisation is reached.
            error = jnp.where(arrived, off, jnp.inf)
            level = jnp.where(off < 0.1, jnp.maximum(level / 2, self.regularisation), level)
            return f_next, g, level.astype(costs.dtype), error, count + 1

        def going(carry: _Carry) -> Array:
            return (carry[3] >= self.tolerance) & (carry[4] < self.max_iterations)

        start = jnp.maximum(jnp.max(costs) / 4, self.regularisation).astype(costs.dtype)
        zero_rows, zero_columns = jnp.zeros(rows, costs.dtype), jnp.zeros(columns, costs.dtype)
        carry = (zero_rows, zero_columns, start, jnp.asarray(jnp.inf, costs.dtype), jnp.asarray(0))
        f, g, _, error, count = jax.lax.while_loop(going, step, carry)
        matrix = jnp.exp((f[:, None] + g[None, :] - costs) / self.regularisation)
        return Plan(
            matrix,
            jnp.sum(jnp.abs(jnp.sum(matrix, axis=1) - 1 / rows)),
            jnp.sum(jnp.abs(jnp.sum(matrix, axis=0) - 1 / columns)),
            count,
            error < self.tolerance,
        )

    def __call__(
        self,
        noise: Float[Array, " batch *shape"],
        data: Float[Array, " batch *shape"],
        *,
        key: Key,
        labels: PyTree = None,
    ) -> Int[np.ndarray, " batch"]:
        """Draw a noise index for each data point.

        Args:
            noise: leading axis batch.
            data: leading axis batch.
            key: of the draws.
            labels: not used.

        Returns:
            ``noise[pairing[i]]`` goes with ``data[i]``.

        Raises:
            ValueError: the shapes of ``noise`` and ``data`` differ; there are no rows, or one is not finite.
        """
        check_pairs(noise, data)
        check_key(key)
        plan = self.plan(jnp.asarray(noise), jnp.asarray(data))
        if not plan.converged:
            raise RuntimeError(
                f"the marginals are off by {float(plan.row_error):.2g} after {int(plan.iterations)} iterations; "
                f"raise the regularisation ({self.regularisation}) or max_iterations"
            )
        return np.asarray(jax.random.categorical(key, jnp.log(plan.matrix), axis=0))


__all__ = ["Plan", "SinkhornCoupling"]

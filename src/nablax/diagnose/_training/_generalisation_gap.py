"""How fast descent overfits: the change of the generalisation gap, from the covariance of per-example gradients."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import (
    AbstractRecord,
    Key,
    canonical_convolutions,
    check_count,
    check_key,
    check_number,
    checked_loss,
    described,
    fault,
    split,
    table,
)
from ...calculus import Estimate, hessian_product

# Per-example gradients held at once, beside their sum.
CHUNK = 64


class GeneralisationGap(AbstractRecord):
    r"""What a step of descent does to losses and their gap, to leading order in the learning rate; unit of the loss.

    Attributes:
        covariance_trace: :math:`\operatorname{tr} C` of per-example gradients, unit of the gradient squared.
        gradient_square: :math:`\lVert g\rVert^2` of the population's gradient, the sampling noise of the mean taken
            out; same unit. It may come out negative where the noise exceeds it.
        gap: change of test minus training loss in a step on this batch, :math:`\eta\operatorname{tr} C/n`.
        test: change of the test loss in that step, :math:`-\eta\lVert g\rVert^2`, to first order.
        decorrelation: test loss after two steps on two independent batches, less that after two steps on one and
            the same. Negative: fresh batches generalise better.
        batch: number of examples in a step, n.
        examples: number that the moments were taken from.
    """

    covariance_trace: Estimate
    gradient_square: Estimate
    gap: Estimate
    test: Estimate
    decorrelation: Estimate
    batch: int = eqx.field(static=True)
    examples: int = eqx.field(static=True)

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with standard error and unit.
        """
        return table(
            "Generalisation gap (per step of descent)",
            [
                ("trace of the gradients' covariance", self.covariance_trace, "gradient²"),
                ("squared gradient, unbiased", self.gradient_square, "gradient²"),
                ("change of the gap", self.gap, "loss"),
                ("change of the test loss", self.test, "loss"),
                ("fresh batches less repeated ones, two steps", self.decorrelation, "loss"),
            ],
            [f"batches of {self.batch}; moments from {self.examples} examples"],
        )


def generalisation_gap(
    loss: Callable[..., Float[Array, ""]],
    params: PyTree,
    examples: PyTree,
    *,
    learning_rate: float | Array,
    key: Key,
    batch_size: int | None = None,
    probes: int = 16,
) -> GeneralisationGap:
    r"""Predict from one batch how a step on it changes the gap between test and training loss.

    With the gradients' mean g and covariance C over the population, H the Hessian, and a batch of n,

    .. math::
        \mathbb{E}\,\Delta(L_{\text{test}} - L_{\text{train}}) = \tfrac{\eta}{n}\operatorname{tr} C, \qquad
        \mathbb{E}\bigl[L^{\text{fresh}} - L^{\text{repeated}}\bigr]
        = -\tfrac{\eta^2}{n}\bigl(\operatorname{tr} HC + \tfrac12\,g\cdot\nabla\operatorname{tr} C\bigr)

    The examples given stand for the population: the more there are, the better g and C are known. The second
    formula compares two steps on two independent batches with two on one batch; T steps have T(T−1)/2 such pairs.
    Both hold at a point chosen without sight of the batch, for expectations over batches, to leading order in η.

    Args:
        loss: ``loss(params, example) -> scalar``, of one example.
        params: the parameters, any pytree; leaves that are not inexact arrays are held.
        examples: every leaf with the same leading axis, at least two.
        learning_rate: η of plain gradient descent.
        batch_size: n of the descent whose step is asked about. Default: the number of examples given.
        key: of the random signs by which tr HC is estimated.
        probes: number of those, 16 by default.

    Returns:
        A :class:`GeneralisationGap`. Standard errors are over examples, and over probes for ``decorrelation``, whose
        error does not include that of the examples; its bias from their finite number falls like one over it.

    Raises:
        ValueError: fewer than two examples or probes, a batch size below one, or a learning rate that is negative or no
            number.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.diagnose import generalisation_gap
        >>> xs = jnp.array([[1.0], [3.0]])
        >>> loss = lambda mean, x: 0.5 * jnp.sum((mean - x) ** 2)
        >>> record = generalisation_gap(loss, jnp.zeros(1), xs, learning_rate=0.5, key=jax.random.key(0))
        >>> float(record.gap.value)  # 0.5 · 2 / 2
        0.5

    Cost:
        Two gradients and one Hessian product of each example, and one gradient and one Hessian product of the batch
        for each probe; the per-example gradients are never held all at once.

    References:
        - Roberts, "SGD Implicitly Regularizes Generalization Error", 2021, https://arxiv.org/abs/2104.04874 (from
          its abstract; both formulas are derived here, as are their estimators)
    """
    sizes = {jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0 for leaf in jax.tree.leaves(examples)}
    if len(sizes) != 1 or min(sizes) < 2:
        raise fault(
            expected="one leading axis of at least two examples",
            got=described(examples),
            fix="A covariance needs two.",
        )
    (count,) = sizes
    probes = check_count(probes, what="probes", least=2)
    batch = count if batch_size is None else check_count(batch_size, what="batch_size")
    check_key(key)
    check_number(learning_rate, what="learning_rate", least=0, fix="Of a schedule pass its value at this step.")
    loss = checked_loss(loss, fix="It is loss(params, example), of one example: take its mean.")
    # As an array: each value of a schedule, were it a constant, would be compiled for.
    return _measure(loss, params, examples, jnp.asarray(learning_rate), key, batch, probes)


@eqx.filter_jit
@canonical_convolutions
def _measure(
    loss: Callable[..., Float[Array, ""]],
    params: PyTree,
    examples: PyTree,
    learning_rate: Float[Array, ""],
    key: Key,
    batch: int,
    probes: int,
) -> GeneralisationGap:
    count = jnp.shape(jax.tree.leaves(examples)[0])[0]
    at, rest = split(params)

    def single(at: PyTree, example: PyTree) -> Float[Array, ""]:
        return loss(eqx.combine(at, rest), example)

    def whole(at: PyTree) -> Float[Array, ""]:
        return jnp.mean(jax.lax.map(lambda example: single(at, example), examples, batch_size=CHUNK))

    mean = jax.grad(whole)(at)

    def spread(example: PyTree) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
        gradient, curved = jax.jvp(lambda p: jax.grad(single)(p, example), (at,), (mean,))
        away = optax.tree.sub(gradient, mean)
        # Half the derivative of |g_i − ḡ|² along ḡ; the part of ḡ's own change sums to zero.
        return optax.tree.vdot(away, away), optax.tree.vdot(away, curved), optax.tree.vdot(gradient, mean)

    squares, slopes, along = jax.lax.map(spread, examples, batch_size=CHUNK)
    unbiased = count / (count - 1)
    trace = Estimate.from_samples(squares * unbiased)
    length = optax.tree.vdot(mean, mean) - trace.value / count
    # |ḡ|² is quadratic in the mean: its error is twice that of ḡ's projections, the correction's error added.
    noise = 2 * Estimate.from_samples(along).standard_error
    square = Estimate(length, jnp.hypot(noise, trace.standard_error / count))

    def probe(key: Key) -> Float[Array, ""]:
        # Random signs give a direction whose second moment is the gradients' covariance.
        signs = jax.random.rademacher(key, (count,), squares.dtype)
        signs = signs - jnp.mean(signs)

        def weighted(at: PyTree) -> Float[Array, ""]:
            rows = jax.lax.map(lambda row: row[0] * single(at, row[1]), (signs, examples), batch_size=CHUNK)
            return jnp.sum(rows) / jnp.sqrt(jnp.asarray(count - 1, signs.dtype))

        direction = jax.grad(weighted)(at)
        return optax.tree.vdot(direction, hessian_product(whole)(at, direction))

    bend = Estimate.from_samples(jax.lax.map(probe, jax.random.split(key, probes)))
    rate = learning_rate.astype(squares.dtype)
    scale = rate**2 / batch
    turning = jnp.mean(slopes) * unbiased
    return GeneralisationGap(
        covariance_trace=trace,
        gradient_square=square,
        gap=Estimate(rate / batch * trace.value, rate / batch * trace.standard_error),
        test=Estimate(-rate * square.value, rate * square.standard_error),
        decorrelation=Estimate(-scale * (bend.value + turning), scale * bend.standard_error),
        batch=batch,
        examples=count,
    )


__all__ = ["GeneralisationGap", "generalisation_gap"]

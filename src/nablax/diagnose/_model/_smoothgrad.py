"""Which pixels move a class's score: the gradient averaged over noisy copies of the input."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..._core import (
    AbstractRecord,
    Key,
    canonical_convolutions,
    check_count,
    check_key,
    check_labels,
    described,
    fault,
    nonzero,
    table,
    unit_vector,
)
from ...calculus import Estimate
from .._samples import align


class SmoothGrad(AbstractRecord):
    r"""Saliency maps averaged over noise, each pixel with its standard error.

    Attributes:
        gradient: ``[samples, ...]`` mean gradient of the class's score, units of score per unit of input; the error is
            over the draws of noise, NaN for one draw.
        plain: ``[samples, ...]`` gradient at the input itself.
        labels: ``[samples]`` the class explained.
        deviation: ``[samples]`` standard deviation of the noise, in units of the input.
        resolved: share of pixels, over all samples, whose mean lies beyond two standard errors from zero; NaN for one
            draw, which has no error.
        agreement: mean over samples of the cosine between ``gradient`` and ``plain``; 1 where noise changes nothing.
        draws: noisy copies of each sample.
    """

    gradient: Estimate
    plain: Float[Array, "samples ..."]
    labels: Int[Array, " samples"]
    deviation: Float[Array, " samples"]
    resolved: Estimate
    agreement: Estimate
    draws: int = eqx.field(static=True)

    def pictures(self, *, channels: int | None = None) -> Float[Array, "samples ..."]:
        """Sizes of the gradients as pictures: sum over channels, from 0 to 1, cut at the 99th percentile.

        Args:
            channels: the axis of the channels within one sample, or None (default) for inputs that have none.

        Returns:
            ``[samples, ...]`` without the axis of the channels.
        """
        sizes = jnp.abs(self.gradient.value)
        if channels is not None:
            sizes = jnp.sum(sizes, axis=channels % (sizes.ndim - 1) + 1)
        flat = sizes.reshape(sizes.shape[0], -1)
        top = jnp.percentile(flat, 99, axis=1, keepdims=True)
        return jnp.clip(flat / nonzero(top), 0, 1).reshape(sizes.shape)

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with standard error and unit.
        """
        return table(
            "SmoothGrad",
            [
                ("pixels beyond two standard errors", self.resolved, "share"),
                ("cosine with the plain gradient", self.agreement, "1"),
                ("standard deviation of the noise, mean", jnp.mean(self.deviation), "input"),
            ],
            [f"{self.labels.shape[0]} samples, {self.draws} draws each"],
        )


def smoothgrad(
    scores: Callable[[Array], Float[Array, " classes"]],
    xs: Float[Array, "samples ..."],
    labels: Int[Array, " samples"] | None = None,
    *,
    key: Key,
    noise: float = 0.15,
    draws: int = 50,
) -> SmoothGrad:
    r"""Average the gradient of a class's score over Gaussian noise on the input.

    .. math:: M_c(x) = \frac1n\sum_{i=1}^{n}\nabla_x S_c(x + \varepsilon_i),\qquad
        \varepsilon_i \sim \mathcal N(0, \sigma^2 I),\quad \sigma = \mathrm{noise}\times(\max x - \min x)

    This is the gradient of the score blurred by the noise. The standard error says how far more draws would move a
    pixel; how far the blur itself moves the map is what ``agreement`` shows.

    Args:
        scores: ``scores(x) -> [classes]`` for one input: logits, or whatever is to be explained.
        xs: floating inputs, leading axis ``samples``.
        labels: the class to explain for each, by default the one with the greatest score.
        key: for the noise.
        noise: standard deviation over the range of the input's values, 0.15 by default (0.1 to 0.2 in the paper).
        draws: noisy copies of each input, 50 by default.

    Returns:
        A `SmoothGrad`.

    Raises:
        ValueError: no samples, labels that do not match or are no classes, fewer than one draw or negative noise.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.diagnose import smoothgrad
        >>> scores = lambda x: jnp.stack([jnp.sum(x**2) / 2, -x[0]])
        >>> record = smoothgrad(scores, jnp.array([[1.0, 2.0, 5.0]]), key=jax.random.key(0), draws=400)
        >>> bool(jnp.all(jnp.abs(record.gradient.value - 1.0 * record.plain) < 4 * record.gradient.standard_error))
        True

    Cost:
        ``samples`` × (``draws`` + 1) gradients, one sample's draws at once.

    References:
        - Smilkov, Thorat, Kim, Viégas and Wattenberg, "SmoothGrad: removing noise by adding noise", 2017,
          https://arxiv.org/abs/1706.03825 (the average, the noise's scale, the cut at the 99th percentile; the
          standard errors and the numbers drawn from them are ours)
        - the authors' code, https://github.com/PAIR-code/saliency (the same noise, 0.15 of the input's range. It takes
          25 draws by default, the paper 50 at most, and by default averages squares of gradients, another method that
          the paper does not define; its pictures begin at the least size, ours at zero)
    """
    _, xs, samples = align(0.0, xs, labels)
    draws = check_count(draws, what="draws")
    check_key(key)
    if not noise >= 0:
        raise fault(expected="noise ≥ 0", got=str(noise), fix="The default is 0.15.")
    shape = jax.eval_shape(scores, xs[0])
    if len(jnp.shape(shape)) != 1:
        raise fault(expected="scores of shape [classes]", got=described(shape), fix="They are of one sample.")
    given = None if labels is None else check_labels(labels, samples, classes=shape.shape[0])
    gradient, plain, labels, deviation, agreement = _maps(scores, xs, given, key, noise, draws)
    size, error = jnp.abs(gradient.value), gradient.standard_error
    resolved = jnp.where(jnp.isnan(error), jnp.nan, size > 2 * error)
    shares = jnp.mean(resolved.reshape(samples, -1).astype(xs.dtype), axis=1)
    return SmoothGrad(
        gradient,
        plain,
        labels,
        deviation,
        Estimate.from_samples(shares),
        Estimate.from_samples(agreement),
        draws,
    )


@eqx.filter_jit
@canonical_convolutions
def _maps(scores: Callable, xs: Array, labels: Array | None, key: Key, noise: float, draws: int) -> tuple:
    if labels is None:
        labels = jnp.argmax(jax.lax.map(scores, xs), axis=-1)

    def one(row: tuple) -> tuple:
        x, label, k = row
        slope = jax.grad(lambda y: scores(y)[label])
        deviation = noise * (jnp.max(x) - jnp.min(x))
        shifts = deviation * jax.random.normal(k, (draws, *x.shape), x.dtype)
        mean = Estimate.from_samples(jax.vmap(slope)(x[None] + shifts))
        plain = slope(x)
        cosine = jnp.sum(unit_vector(mean.value) * unit_vector(plain))
        return mean, plain, deviation, cosine

    keys = jax.random.split(key, xs.shape[0])
    gradient, plain, deviation, cosine = jax.lax.map(one, (xs, labels, keys))
    return gradient, plain, labels, deviation, cosine

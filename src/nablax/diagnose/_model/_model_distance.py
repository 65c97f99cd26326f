"""How alike two models are as functions of their input, whatever their weights: fields of input gradients."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._core import AbstractRecord, canonical_convolutions, check_count, fault, table, unit_vector
from ...calculus import Estimate
from .._samples import align

PAIRS = 64


class ModelDistance(AbstractRecord):
    r"""Distance of two models by their input gradients.

    Attributes:
        distance: 1 − cosine of the fields, mean over samples and steps; 0 alike, 1 unrelated, 2 opposite. The error is
            over samples.
        along: ``[steps]`` the same at each step of the paths, from references to samples.
        each: ``[samples]`` the same for each sample.
        undefined: share of samples where a model's field is zero at some step, and counted as unrelated there.
    """

    distance: Estimate
    along: Estimate
    each: Float[Array, " samples"]
    undefined: Float[Array, ""]

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with standard error and unit.
        """
        along = Estimate(self.along.value[-1], self.along.standard_error[-1])
        return table(
            "Distance of two models' input-gradient fields (0 alike, 1 unrelated)",
            [
                ("distance", self.distance, "1"),
                ("distance, whole paths only", along, "1"),
                ("samples with a zero field", self.undefined, "share"),
            ],
            [f"{self.each.shape[0]} samples, {self.along.value.shape[0]} steps each"],
        )


def model_distance(
    first: Callable[[Array], Float[Array, "..."]],
    second: Callable[[Array], Float[Array, "..."]],
    xs: Float[Array, "samples ..."],
    references: Float[Array, "..."],
    labels: Int[Array, " samples"] | None = None,
    *,
    steps: int = 50,
) -> ModelDistance:
    r"""Compare two models by their input gradients, gathered along paths from reference points to samples.

    .. math:: G_k(x) = (x - r)\odot\sum_{j\le k} w_j\,\nabla_x f\big(r + \alpha_j(x - r)\big),\qquad
        d = 1 - \operatorname{mean}_{x,k}\cos(G^{(1)}_k(x), G^{(2)}_k(x))

    with Gauss–Legendre nodes :math:`\alpha_j` and weights :math:`w_j`: the whole path (k the last) gives both models'
    integrated gradients. Nothing of the models but their input gradients is used, so that architectures, widths and the
    order of hidden units do not matter, nor does a positive factor on the output.

    Args:
        first: ``first(x) -> [classes]``, or a scalar.
        second: the other model, with the same form of input.
        xs: samples, leading axis ``samples``.
        references: where paths start: one input for all samples, or one for each.
        labels: the output of both models that is followed for each sample, such as its true class. By default of each
            model the one that it scores highest at the sample. Unused for scalar models.
        steps: nodes along a path, 50 by default, the authors'.

    Returns:
        A `ModelDistance`.

    Raises:
        ValueError: no samples, references or labels that do not match, outputs of unlike shape, or no steps.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import model_distance
        >>> first, second = lambda x: x[0], lambda x: 3 * (x[0] + x[1])
        >>> record = model_distance(first, second, jnp.array([[1.0, 1.0], [2.0, 2.0]]), jnp.zeros(2))
        >>> round(float(1 - record.distance.value), 4)
        0.7071

    Cost:
        2 × ``samples`` × ``steps`` gradients, 64 samples at once. `distinguishing_samples` says which samples are
        worth it.

    References:
        - Song, Xu, Chen, Wang, Zhu, Wu and Song, "ModelGiF: Gradient Fields for Model Functional Distance", 2023,
          https://arxiv.org/abs/2309.11013, and the authors' code, https://github.com/zju-vipa/modelgif (the same nodes,
          sums and cosines; theirs follows each model's own prediction where copies are looked for, and the true label
          where unlearning is verified; from the mean colour, or from another sample. Standard errors are ours)
    """
    _, xs, samples = align(0.0, xs, labels)
    references = jnp.asarray(references, xs.dtype)
    if references.shape not in (xs.shape, xs.shape[1:]):
        raise fault(
            expected=f"references of shape {xs.shape[1:]} or {xs.shape}",
            got=f"shape {references.shape}",
            fix="Pass one reference for all samples, or one for each.",
        )
    shapes = tuple(jax.eval_shape(model, xs[0]).shape for model in (first, second))
    if shapes[0] != shapes[1] or len(shapes[0]) > 1:
        raise fault(
            expected="two models with one scalar or one vector of outputs of the same length",
            got=f"outputs of shape {shapes[0]} and {shapes[1]}",
            fix="Wrap models of different tasks so that both return the scalar to compare.",
        )
    steps = check_count(steps, what="steps")
    given = None if labels is None else jnp.asarray(labels)
    references = jnp.broadcast_to(references, xs.shape)
    cosines, undefined = _cosines(first, second, xs, references, given, steps)
    return ModelDistance(
        distance=Estimate.from_samples(jnp.mean(1 - cosines, axis=1)),
        along=Estimate.from_samples(1 - cosines),
        each=jnp.mean(1 - cosines, axis=1),
        undefined=jnp.mean(jnp.any(undefined, axis=1).astype(xs.dtype)),
    )


def distinguishing_samples(
    model: Callable[[Array], Float[Array, "..."]],
    unrelated: Sequence[Callable[[Array], Float[Array, "..."]]],
    xs: Float[Array, "samples ..."],
    references: Float[Array, "..."],
    count: int,
    *,
    steps: int = 50,
) -> Int[Array, " count"]:
    r"""Choose samples at which a model is far from others that have nothing to do with it.

    .. math:: \operatorname*{arg\,max}_{x}\; \operatorname{mean}_{u}\; d_x(f, f_u)

    with :math:`d_x` the distance at one sample that `model_distance` takes the mean of. Models that share a task are
    alike on most of its data, so that copies do not stand out there; on these samples they do.

    Args:
        model: the one whose copies will be looked for.
        unrelated: models of the same task, trained apart. Judge by others: on the samples chosen these are far away
            because they were chosen.
        xs: samples to choose from, leading axis ``samples``.
        references: where paths start: one input for all samples, or one for each.
        count: how many to choose; the authors take 8 to 512 of 10,000.
        steps: nodes along a path, 50 by default, the authors'.

    Returns:
        Their places among ``xs``, the farthest first.

    Raises:
        ValueError: no unrelated models, or more samples wanted than there are; else as `model_distance`.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import distinguishing_samples
        >>> xs = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> distinguishing_samples(lambda x: x[0] + x[1], [lambda x: x[0]], xs, jnp.zeros(2), 2).tolist()
        [1, 2]

    Cost:
        2 × ``samples`` × ``steps`` gradients for each unrelated model.

    References:
        - Song, Xu, Chen, Wang, Zhu, Wu and Song, "ModelGiF: Gradient Fields for Model Functional Distance", 2023,
          https://arxiv.org/abs/2309.11013; after the authors' code, https://github.com/zju-vipa/modelgif, which then
          judges by the very models that chose
    """
    count = check_count(count, what="samples to choose")
    if not unrelated or count > len(xs):
        raise fault(
            expected="at least one unrelated model, and no more samples to choose than there are",
            got=f"{len(unrelated)} models, {count} of {len(xs)} samples",
            fix="Train the same architecture again from other weights; choose from more samples.",
        )
    each = [model_distance(model, other, xs, references, steps=steps).each for other in unrelated]
    return jnp.argsort(-jnp.mean(jnp.stack(each), axis=0))[:count]


@eqx.filter_jit
@canonical_convolutions
def _cosines(first: Callable, second: Callable, xs: Array, starts: Array, labels: Array | None, steps: int) -> tuple:
    nodes, shares = np.polynomial.legendre.leggauss(steps)
    alphas = jnp.asarray((nodes + 1) / 2, xs.dtype)
    weights = jnp.asarray(shares / 2, xs.dtype)

    def one(row: tuple) -> tuple[Array, Array]:
        x, start, label = row

        def field(model: Callable) -> Array:
            followed = jnp.argmax(model(x)) if label is None else label
            slope = jax.grad(lambda y: jnp.atleast_1d(model(y))[followed])
            slopes = jax.vmap(lambda alpha: (x - start) * slope(start + alpha * (x - start)))(alphas)
            return unit_vector(jnp.cumsum(weights[:, None] * slopes.reshape(steps, -1), axis=0), 1)

        ours, theirs = field(first), field(second)
        zero = jnp.all(ours == 0, axis=1) | jnp.all(theirs == 0, axis=1)
        return jnp.sum(ours * theirs, axis=1), zero

    return jax.lax.map(one, (xs, starts, labels), batch_size=PAIRS)

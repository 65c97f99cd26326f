"""Adaptive gradient modulation: what each modality contributes, and how fast each is let learn."""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import check_number, check_shape, exact, fault, required, wide_dtype
from .._aggregators._arithmetic import combine
from .._aggregators._checks import leading_axis

# The ratio's largest exponent: twice as much would still be a number.
_LARGEST = 40.0


class ModalityModulationState(NamedTuple):
    """How the modalities have done so far.

    Attributes:
        scores: mean over the updates so far of each modality's loss on its own, in units of the loss.
        coefficients: by which the last update scaled each modality's gradient.
        updates: number of updates so far.
    """

    scores: Float[Array, " modalities"]
    coefficients: Float[Array, " modalities"]
    updates: Int[Array, ""]


def modality_responses(predict: Callable[[tuple], Array], inputs: tuple) -> Float[Array, "modalities ..."]:
    r"""Attribute a model's output to its modalities by Shapley values, absent modalities being zeros.

    $$
    \phi_m = \sum_{S \ni m} \frac{(|S|-1)!\,(M-|S|)!}{M!}\,\big(f(S) - f(S\setminus m)\big), \qquad f(\emptyset) := 0
    $$

    so that the responses sum to the output. With two, $\phi_1 = \tfrac12\big(f(1,2) - f(2) + f(1)\big)$. This
    holds for any way of fusion, since only the model's inputs are touched.

    Args:
        predict: ``predict(inputs) -> outputs`` of a tuple with one entry for each modality.
        inputs: the modalities, each any pytree of arrays.

    Returns:
        The responses, shaped like the output with a leading axis of modalities.

    Raises:
        ValueError: more than 8 modalities.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> regulate.modality_responses(lambda inputs: inputs[0] * inputs[1] + inputs[0], (2.0, 3.0)).tolist()
        [5.0, 3.0]

    Cost: $2^M - 1$ forward passes, in one batch.

    References:
        - Li et al., "Boosting Multi-modal Model Performance with Adaptive Gradient Modulation", 2023,
          https://arxiv.org/abs/2308.07686 (and its code for two modalities)
    """
    count = len(inputs)
    if not 1 <= count <= 8:
        raise fault(expected="1 to 8 modalities", got=count, fix="The cost doubles with each; merge some.")
    present = np.array(list(itertools.product((0, 1), repeat=count))[1:])
    sizes = present.sum(axis=1)[None, :]
    share = np.vectorize(lambda size: 1 / (count * math.comb(count - 1, size)))
    joined = share(np.maximum(sizes - 1, 0)) * present.T
    left_out = share(np.minimum(sizes, count - 1)) * (1 - present.T)

    def masked(mask: Array) -> Array:
        def keep(here: Array, part: PyTree) -> PyTree:
            return jax.tree.map(lambda x: jnp.where(here, x, jnp.zeros_like(x)), part)

        return predict(tuple(map(keep, mask, inputs)))

    outputs = jax.vmap(masked)(jnp.asarray(present, bool))
    return jnp.tensordot(jnp.asarray(joined - left_out, outputs.dtype), outputs, axes=1)


def modality_value_and_grad(
    predict: Callable[..., Array], loss: Callable[..., Array]
) -> Callable[..., tuple[Array, Array, PyTree]]:
    r"""Split a loss's gradient by the modality whose response it flows back through.

    $$
    \frac{\partial L}{\partial\theta} = \sum_m \underbrace{\frac{\partial L}{\partial f}\,
    \frac{\partial \phi_m}{\partial\theta}}_{g_m}, \qquad f = \sum_m \phi_m
    $$

    Args:
        predict: ``predict(params, inputs) -> outputs`` of a tuple with one entry for each modality.
        loss: ``loss(outputs, *args) -> scalar``.

    Returns:
        ``function(params, inputs, *args) -> (value, scores, gradients)``: the loss; the loss of each modality's
        response on its own, ``[modalities]``; and the gradients $g_m$ on a leading axis of modalities, which
        `modality_modulation` takes.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> predict = lambda params, inputs: params[0] * inputs[0] + params[1] * inputs[1]
        >>> function = regulate.modality_value_and_grad(predict, lambda outputs: outputs**2)
        >>> value, scores, gradients = function(jnp.ones(2), (1.0, 2.0))
        >>> gradients.tolist()
        [[6.0, 0.0], [0.0, 12.0]]

    Cost: $2^M - 1$ forward passes and M times as many backward.

    References:
        - Li et al., "Boosting Multi-modal Model Performance with Adaptive Gradient Modulation", 2023,
          https://arxiv.org/abs/2308.07686
    """

    def function(params: PyTree, inputs: tuple, *args: object) -> tuple[Array, Array, PyTree]:
        responses, pull = jax.vjp(lambda p: modality_responses(lambda x: predict(p, x), inputs), params)
        value, slope = jax.value_and_grad(loss)(jnp.sum(responses, axis=0), *args)
        scores = jax.vmap(lambda response: loss(response, *args))(responses)
        parts = jnp.eye(len(inputs), dtype=slope.dtype)
        (gradients,) = jax.vmap(lambda part: pull(jnp.tensordot(part, slope, axes=0)))(parts)
        return value, scores, gradients

    return function


def modality_modulation(
    modalities: int, alpha: float | Float[Array, ""] = 1.0
) -> optax.GradientTransformationExtraArgs:
    r"""Slow the modality that runs ahead of its usual lead, and speed up the others.

    $$
    \tilde g = \sum_m e^{\alpha\min(\hat\tau_m - \tau_m,\,10)}\, g_m, \qquad
    \tau_m = \exp\!\Big(\tfrac{1}{M-1}\sum_{k\ne m} s_k - s_m\Big)
    $$

    where s are the losses of the modalities' responses on their own and $\hat\tau$ is the same ratio of their
    means over the updates before. The first update scales nothing. The bound of 10 and one of $e^{40}$ on each ratio
    keep the coefficients finite whatever the losses; finite is not small, so the authors clip what comes out at a norm
    of 1: ``optax.chain(modality_modulation(2), optax.clip_by_global_norm(1.0), optimizer)``. From a strength of 1 on
    training collapses for some seeds without it.

    What is stacked are parts of one loss's gradient, not gradients of M losses between which a direction is to be
    found: a check-up says that it does not know the rule behind it.

    Args:
        modalities: their number M, 2 or more.
        alpha: strength, 1 by default; with 0 the gradients are summed.

    Returns:
        The regulator. Its gradients have a leading axis of modalities, which it sums away, and ``update`` needs the
        keyword ``scores``, both as `modality_value_and_grad` returns them. The state is a `ModalityModulationState`.

    Raises:
        ValueError: fewer than two modalities, a negative strength, or ``update`` without scores.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> regulator = regulate.modality_modulation(2)
        >>> state = regulator.init(jnp.zeros(1))
        >>> gradients = jnp.array([[1.0], [10.0]])
        >>> updates, state = regulator.update(gradients, state, scores=jnp.array([1.0, 1.0]))
        >>> updates, state = regulator.update(gradients, state, scores=jnp.array([0.5, 1.0]))
        >>> bool(state.coefficients[0] < 1 < state.coefficients[1])
        True

    Cost: one weighted sum of the gradients.

    References:
        - Li et al., "Boosting Multi-modal Model Performance with Adaptive Gradient Modulation", 2023,
          https://arxiv.org/abs/2308.07686 (the coefficients as in the training code for two modalities, the bound of 10
          included; there the means start from zero, so that the first update is scaled)
    """
    if modalities < 2 or (isinstance(alpha, float | int) and alpha < 0):
        raise fault(
            expected="two or more modalities and alpha ≥ 0",
            got=f"{modalities}, {alpha}",
            fix="Pass their number first.",
        )

    def ratios(scores: Array) -> Array:
        others = (jnp.sum(scores) - scores) / (modalities - 1)
        return jnp.exp(jnp.minimum(others - scores, _LARGEST))

    def init(params: PyTree) -> ModalityModulationState:
        # Scores are losses: of single precision at least, whatever the parameters.
        dtype = wide_dtype(params)
        return ModalityModulationState(
            jnp.zeros(modalities, dtype), jnp.ones(modalities, dtype), jnp.zeros((), jnp.int32)
        )

    def update(
        updates: PyTree,
        state: ModalityModulationState,
        params: PyTree = None,
        *,
        scores: Array | None = None,
        **extra: object,
    ) -> tuple[PyTree, ModalityModulationState]:
        scores = required(scores, "scores", by="modality_modulation")
        leading_axis(updates, params)
        now = scores.astype(state.scores.dtype)
        usual = jnp.where(state.updates == 0, now, state.scores)
        coefficients = jnp.exp(alpha * jnp.minimum(ratios(usual) - ratios(now), 10))
        mean = state.scores + (now - state.scores) / (state.updates + 1).astype(now.dtype)
        return combine(updates, coefficients), ModalityModulationState(mean, coefficients, state.updates + 1)

    return optax.GradientTransformationExtraArgs(init, update)


@exact
def modality_competition(
    features: Float[Array, "samples features"],
    concept: Float[Array, "samples outputs"],
    test_features: Float[Array, "tests features"],
    test_concept: Float[Array, "tests outputs"],
    *,
    ridge: float = 1e-3,
) -> Float[Array, ""]:
    r"""Measure how much of what a modality can do alone is lost in a joint model's features.

    $$
    d_m = \frac{\lVert C_m - \hat C_m\rVert_F^2}{\lVert C_m - \bar C_m\rVert_F^2}
    $$

    over test samples, with $C_m$ the outputs of a model trained on modality m alone (its mono-modal concept) and
    $\hat C_m$ their prediction by ridge regression on the joint model's features. 0: nothing lost; 1: all lost.

    Args:
        features: of the joint model, before its last layer.
        concept: outputs of the model of the one modality, on the same samples.
        test_features: the same of other samples.
        test_concept: the same of other samples.
        ridge: regularisation as a share of the features' mean variance, 1e-3 by default.

    Returns:
        The strength of the competition, without unit.

    Raises:
        ValueError: rows or columns do not fit together, or ``ridge`` is negative or no number.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import regulate
        >>> features = jax.random.normal(jax.random.key(0), (50, 3))
        >>> concept = features @ jnp.ones((3, 1))
        >>> bool(regulate.modality_competition(features, concept, features, concept) < 1e-4)
        True

    Cost: one linear solve of the size of the features.

    References:
        - Li et al., "Boosting Multi-modal Model Performance with Adaptive Gradient Modulation", 2023,
          https://arxiv.org/abs/2308.07686 (ridge regression as in its code; the normalisation is ours)
    """
    fix = "Give a row of each for the same samples, a column for each feature and output."
    features = check_shape(features, (None, None), what="features", fix=fix)
    concept = check_shape(concept, (len(features), None), what="a concept", fix=fix)
    test_features = check_shape(test_features, (None, features.shape[1]), what="features of tests", fix=fix)
    test_concept = check_shape(test_concept, (len(test_features), concept.shape[1]), what="a concept of tests", fix=fix)
    check_number(ridge, what="ridge", least=0, fix="The default is 1e-3.")
    centre, target = jnp.mean(features, axis=0, keepdims=True), jnp.mean(concept, axis=0, keepdims=True)
    x, y = features - centre, concept - target
    covariance = x.T @ x / x.shape[0]
    size = jnp.trace(covariance) / covariance.shape[0]
    damped = covariance + jnp.where(size > 0, ridge * size, 1) * jnp.eye(covariance.shape[0], dtype=covariance.dtype)
    slopes = jnp.linalg.solve(damped, x.T @ y / x.shape[0])
    wrong = jnp.sum(jnp.square(test_concept - target - (test_features - centre) @ slopes))
    return wrong / jnp.sum(jnp.square(test_concept - jnp.mean(test_concept, axis=0, keepdims=True)))

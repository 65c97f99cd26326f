"""A network's hidden units trained one after the other, each on what the others have left."""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._core import AbstractRecord, Key, check_count, check_finite, check_key, check_shape, divide, exact, fault
from .._settings import check_share
from ._quasi_newton import minimised

Loss = Literal["squared", "binary", "classes"]
_DECAY = 1e-4  # of a stage's weights, over the rows: scikit-learn's, which the authors' code fits stages by


class BoostedUnits(AbstractRecord):
    r"""A network with one hidden layer whose units are in the order in which they were trained.

    Attributes:
        weights: of the hidden units, [units, dim].
        shifts: of the hidden units, [units].
        outputs: of the units, [units, outputs]; one output for ``"binary"``, the logit of 1.
        biases: of the outputs, with the first k stages on, [stages + 1, outputs].
        losses: mean training loss with the first k stages on, [stages + 1]; nats, or half the squared error.
    """

    weights: Float[Array, "units dim"]
    shifts: Float[Array, " units"]
    outputs: Float[Array, "units outputs"]
    biases: Float[Array, "stages_and_none outputs"]
    losses: Float[Array, " stages_and_none"]

    def __call__(
        self, inputs: Float[Array, "*rows dim"], *, stages: int | None = None
    ) -> Float[Array, "*rows outputs"]:
        """Predict, or give logits, with the first stages on and the others switched off; all are on by default.

        Args:
            inputs: rows.
            stages: how many are on, from 0.

        Raises:
            ValueError: more stages than there are, or inputs of another length.
        """
        most = len(self.biases) - 1
        on = most if stages is None else check_count(stages, what="stages", least=0)
        if on > most or jnp.shape(inputs)[-1:] != self.weights.shape[1:]:
            raise fault(
                expected=f"at most {most} stages, and rows of {self.weights.shape[1]} numbers",
                got=f"{on} and rows of shape {jnp.shape(inputs)}",
                fix="Pass inputs as in training.",
            )
        kept = on * (len(self.weights) // most)
        one = (1,) * (jnp.ndim(inputs) - 1)
        hidden = jax.nn.sigmoid(inputs @ self.weights[:kept].T + self.shifts[:kept].reshape(*one, -1))
        return hidden @ self.outputs[:kept] + self.biases[on].reshape(*one, -1)


class _Stage(NamedTuple):
    """A small network: what one stage fits to the residuals."""

    weights: Float[Array, "dim units"]
    shifts: Float[Array, " units"]
    outputs: Float[Array, "units outputs"]
    bias: Float[Array, " outputs"]

    def __call__(self, inputs: Float[Array, "rows dim"]) -> Float[Array, "rows outputs"]:
        return jax.nn.sigmoid(inputs @ self.weights + self.shifts[None]) @ self.outputs + self.bias[None]


@exact
def boosted_units(
    inputs: Float[Array, "rows dim"],
    targets: Float[Array, " rows"] | Int[Array, " rows"] | Float[Array, "rows outputs"],
    loss: Loss,
    *,
    classes: int | None = None,
    steps: int = 200,
    units: int = 1,
    shrink: float = 1.0,
    share: float = 0.5,
    fit_steps: int = 50,
    key: Key,
) -> BoostedUnits:
    r"""Train the hidden units of a network stage by stage, by gradient boosting, and put them together in one network.

    .. math::
        F_t = F_{t-1} + \eta\,\rho_t f_t, \qquad
        f_t = \arg\min_f \sum_{i\in S_t} \lVert f(x_i) - r_i\rVert^2, \qquad
        r_i = -\frac{\partial \ell(y_i, F)}{\partial F}\Big|_{F_{t-1}(x_i)}

    from the best constant, with f a network of a few logistic units, fitted on a random part S of the rows by L-BFGS,
    and ρ a Newton step of the loss along f on all rows. Since a sum of such networks is one of them, the result is a
    network, and its first k stages are the model that k stages made: units can be switched off at test time, the last
    first, without training anew.

    Losses, and what is predicted: ``"squared"``, ½|y - F|², one or several numbers, ρ = 1; ``"binary"``,
    log(1 + exp(-2yF)) with y = ±1 and the logit 2F, labels 0 and 1; ``"classes"``, the cross-entropy of a softmax, with
    labels from 0, where ρ takes the Hessian's diagonal.

    Args:
        inputs: rows, in units of about one.
        targets: numbers for ``"squared"``, whole labels otherwise.
        loss: one of the three.
        classes: how many there are, for ``"classes"``.
        steps: stages, 200 by default, the authors'.
        units: hidden units of a stage, 1 by default, the authors'.
        shrink: η, no unit, above 0 and at most 1; 1 by default, the authors'.
        share: of the rows that a stage is fitted on, ½ by default, the authors'.
        fit_steps: steps of L-BFGS a stage, 50 by default, ours; the authors' code has up to 200.
        key: of starts and parts of the rows.

    Returns:
        `BoostedUnits`.

    Raises:
        ValueError: an unknown loss, labels that are no whole numbers or out of range, rows that do not match, numbers
            that are not finite, or a setting out of its range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import optimize
        >>> x = jnp.linspace(-1, 1, 32)[:, None]
        >>> net = optimize.boosted_units(x, jnp.abs(x[:, 0]), "squared", steps=6, share=1.0, key=jax.random.key(0))
        >>> bool(net.losses[-1] < 0.1 * net.losses[0]), net(x, stages=2).shape
        (True, (32, 1))

    Cost: ``steps * fit_steps`` gradients of a stage on its rows, a few more for line searches, and one pass over all
        rows a stage; one compiled loop.

    References:
        - Emami and Martínez-Muñoz, "Sequential Training of Neural Networks with Gradient Boosting", 2019,
          https://arxiv.org/abs/1909.12098, and the authors' code (https://github.com/GAA-UAM/GBNN), which is followed
          in losses, Newton steps and defaults. Steps of L-BFGS are Optax's, with its line search.
    """
    if loss not in ("squared", "binary", "classes"):
        raise fault(expected="a loss among squared, binary, classes", got=repr(loss), fix="Labels 0, 1: 'binary'.")
    x = check_shape(inputs, (None, None), what="inputs", fix="Pass a row for each example.")
    check_finite(x, what="inputs", fix="Drop or fill what is missing.")
    for what, number in {"steps": steps, "units": units, "fit_steps": fit_steps}.items():
        check_count(number, what=what)
    check_share(shrink=shrink, share=share)
    check_key(key)
    y = _encoded(targets, loss, classes, len(x))
    return _boosted(x, y, loss, steps, units, shrink, max(1, int(share * len(x))), fit_steps, key)


@eqx.filter_jit
def _boosted(
    x: Float[Array, "rows dim"],
    y: Float[Array, "rows outputs"],
    loss: Loss,
    steps: int,
    units: int,
    shrink: float,
    part: int,
    fit_steps: int,
    key: Key,
) -> BoostedUnits:
    constant = best_constant(y, loss)
    scores = jnp.broadcast_to(constant[None], y.shape)

    def stage(scores: Array, key: Key) -> tuple[Array, tuple[_Stage, Array, Array]]:
        start_key, rows_key = jax.random.split(key)
        rows = jax.random.permutation(rows_key, len(x))[:part]
        left = residuals(y, scores, loss)
        fitted = _fitted(_start(x.shape[1], units, y.shape[1], start_key), x[rows], left[rows], fit_steps)
        said = fitted(x)
        rate = shrink * newton_rate(y, scores, said, loss)
        scores = scores + rate * said
        return scores, (fitted, rate, mean_loss(y, scores, loss))

    _, (stages, rates, losses) = jax.lax.scan(stage, scores, jax.random.split(key, steps))
    times = 2.0 if loss == "binary" else 1.0  # the logit is twice what is boosted
    biases = times * jnp.cumsum(jnp.concatenate([constant[None], rates[:, None] * stages.bias]), axis=0)
    return BoostedUnits(
        jnp.swapaxes(stages.weights, 1, 2).reshape(-1, x.shape[1]),
        stages.shifts.reshape(-1),
        (times * rates[:, None, None] * stages.outputs).reshape(-1, y.shape[1]),
        biases,
        jnp.concatenate([mean_loss(y, scores, loss)[None], losses]),
    )


def best_constant(y: Float[Array, "rows outputs"], loss: Loss) -> Float[Array, " outputs"]:
    """Where boosting starts: the mean, the binary loss's minimiser, or no preference among classes, the authors'."""
    mean = jnp.mean(y, 0)
    if loss == "binary":
        # Of one class alone it is infinite; half a row of the other is as good.
        most = 1 - 1 / len(y)
        return jnp.arctanh(jnp.clip(mean, -most, most))
    return mean if loss == "squared" else jnp.zeros_like(mean)


def residuals(y: Array, scores: Array, loss: Loss) -> Float[Array, "rows outputs"]:
    """The negative gradient of each row's loss."""
    if loss == "squared":
        return y - scores
    return 2 * y * jax.nn.sigmoid(-2 * y * scores) if loss == "binary" else y - jax.nn.softmax(scores)


def mean_loss(y: Array, scores: Array, loss: Loss) -> Float[Array, ""]:
    """The loss, a mean over the rows."""
    if loss == "squared":
        return jnp.mean(jnp.sum((y - scores) ** 2, 1)) / 2
    if loss == "binary":
        return jnp.mean(jax.nn.softplus(-2 * y * scores))
    return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(scores), 1))


def newton_rate(y: Array, scores: Array, said: Array, loss: Loss) -> Float[Array, ""]:
    """How far to go along what a stage says: slope over curvature, of classes by the Hessian's diagonal."""
    if loss == "squared":
        return jnp.ones((), scores.dtype)
    left = residuals(y, scores, loss)
    share = y - left  # of classes, their probabilities
    curvature = jnp.abs(left) * (2 - jnp.abs(left)) if loss == "binary" else share * (1 - share)
    return divide(jnp.sum(left * said), jnp.sum(said**2 * curvature))


def _start(dim: int, units: int, outputs: int, key: Key) -> _Stage:
    """Uniform weights, Glorot's for logistic units, as scikit-learn's."""
    keys = jax.random.split(key, 4)

    def drawn(key: Key, shape: tuple[int, ...], ends: int) -> Array:
        bound = (2 / ends) ** 0.5
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    first, second = dim + units, units + outputs
    return _Stage(
        drawn(keys[0], (dim, units), first),
        drawn(keys[1], (units,), first),
        drawn(keys[2], (units, outputs), second),
        drawn(keys[3], (outputs,), second),
    )


def _fitted(start: _Stage, x: Array, left: Array, fit_steps: int) -> _Stage:
    def objective(stage: _Stage) -> Array:
        decay = _DECAY / len(x) * (jnp.sum(stage.weights**2) + jnp.sum(stage.outputs**2))
        return (jnp.mean((stage(x) - left) ** 2) + decay) / 2

    return minimised(objective, start, fit_steps)


def _encoded(targets: Any, loss: Loss, classes: int | None, rows: int) -> Float[Array, "rows outputs"]:
    """Numbers as they are, labels as ±1 or as unit vectors."""
    y = jnp.asarray(targets)
    if y.shape[:1] != (rows,) or y.ndim > (2 if loss == "squared" else 1):
        raise fault(expected=f"a target for each of {rows} rows", got=f"shape {y.shape}", fix="Pass them in one array.")
    if loss == "squared":
        check_finite(y, what="targets", fix="Drop or fill what is missing.")
        return y.reshape(rows, -1).astype(jnp.result_type(float))
    count = 2 if loss == "binary" else check_count(classes, what="classes", least=2)
    # Of traced labels it is not known whether they are in range.
    outside = not isinstance(y, jax.core.Tracer) and bool(np.any((np.asarray(y) < 0) | (np.asarray(y) >= count)))
    if not jnp.issubdtype(y.dtype, jnp.integer) or outside:
        raise fault(expected=f"whole labels from 0 to {count - 1}", got=f"{y}", fix="Number the classes.")
    return (2.0 * y - 1)[:, None] if loss == "binary" else jax.nn.one_hot(y, count)

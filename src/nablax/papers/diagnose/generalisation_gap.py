r"""SGD implicitly regularises the generalisation error: the gap of a step from the gradients' covariance.

Logistic regression on digits, where the whole set is the population and small batches drawn from it are the training
sets: then the test loss and both expectations can be sampled to any precision, and the prediction is put beside them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import Key, require
from ...diagnose import generalisation_gap
from .._records import Check, Paper

PAPER = Paper(
    slug="generalisation-gap",
    title="SGD Implicitly Regularizes Generalization Error",
    year=2021,
    link="https://arxiv.org/abs/2104.04874",
    rooms=("diagnose",),
    row=233,
    read="abstract",
)

Example = tuple[Float[Array, "64"], Array]


def _loss(weights: Float[Array, "64 10"], example: Example) -> Float[Array, ""]:
    pixels, label = example
    return -jax.nn.log_softmax(pixels @ weights)[label]


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Check the predicted change of the gap, and that fresh batches end with a lower test loss than repeated ones.

    Args:
        key: of all randomness.
        full: more draws of the training sets. The paper measures nothing; the protocol is ours in both.

    Returns:
        Two checks.
    """
    bundle = require("sklearn.datasets", extra="app").load_digits()
    count, size, rate, steps = 300, 16, 0.02, 8
    pixels = jnp.asarray(bundle.data[:count] / 16, jnp.float32)
    labels = jnp.asarray(bundle.target[:count])
    draws = 40_000 if full else 2000
    start_key, draw_key, probe_key = jax.random.split(key, 3)
    start = 0.1 * jax.random.normal(start_key, (64, 10))

    def mean_loss(weights: Array, rows: Array | None = None) -> Array:
        batch = (pixels, labels) if rows is None else (pixels[rows], labels[rows])
        return jnp.mean(jax.vmap(_loss, (None, 0))(weights, batch))

    def trial(key: Key) -> tuple[Array, ...]:
        batches = jax.random.randint(key, (steps, size), 0, count)

        def step(weights: Array, rows: Array) -> tuple[Array, None]:
            return weights - rate * jax.grad(mean_loss)(weights, rows), None

        once, _ = step(start, batches[0])
        # Against the same batch before, so that only the step's own effect is left.
        gap = mean_loss(once) - mean_loss(start) - (mean_loss(once, batches[0]) - mean_loss(start, batches[0]))
        repeated = jax.vmap(lambda rows: jax.lax.scan(step, start, jnp.broadcast_to(rows, (steps, size)))[0])(batches)
        # Every batch leads once, so that the first order in the rate cancels in every draw.
        fresh, _ = jax.lax.scan(step, start, batches)
        reversed_, _ = jax.lax.scan(step, start, batches[::-1])
        end = mean_loss(fresh)
        return gap, end - jnp.mean(jax.vmap(mean_loss)(repeated)), end - mean_loss(reversed_)

    @jax.jit
    def program() -> tuple[Array, ...]:
        return jax.lax.map(trial, jax.random.split(draw_key, draws), batch_size=50)

    gaps, differences, controls = (np.asarray(x, np.float64) for x in program())
    record = generalisation_gap(
        _loss, start, (pixels, labels), learning_rate=rate, key=probe_key, batch_size=size, probes=256
    )
    gap, gap_error = gaps.mean(), gaps.std() / np.sqrt(draws)
    gain, gain_error = differences.mean(), differences.std() / np.sqrt(draws)
    control, control_error = controls.mean(), controls.std() / np.sqrt(draws)
    expected = float(record.gap.value)
    pairs = steps * (steps - 1) / 2
    predicted, predicted_error = (
        pairs * float(x) for x in (record.decorrelation.value, record.decorrelation.standard_error)
    )
    whole = rate * float(record.gradient_square.value)
    return [
        Check(
            statement="A step widens the gap by the rate times the trace of the gradients' covariance over the batch.",
            stated="a formula",
            measured=f"{expected:.3e} predicted from the gradients alone, {gap:.3e} ± {gap_error:.0e} over {draws} "
            f"batches of {size}",
            criterion="predicted within 10 % of the mean over batches, which is known to 5 %",
            holds=bool(abs(expected / gap - 1) <= 0.1 < abs(whole / gap - 1) and gap_error < 0.05 * gap),
            baseline=f"the rate times the squared mean gradient, which knows no covariance: {whole:.3e}",
        ),
        Check(
            statement="Fresh batches end with a lower test loss than as many steps on a repeated one.",
            stated="shown to second order in the rate",
            measured=f"test loss lower by {-gain:.2e} ± {gain_error:.0e} after {steps} steps; predicted "
            f"{-predicted:.2e} ± {predicted_error:.0e}",
            criterion="lower by more than four standard errors, and predicted within 25 % (the next order left out), "
            "while the baseline differs by less than four",
            holds=bool(
                gain < -4 * gain_error and abs(predicted / gain - 1) <= 0.25 and abs(control) < 4 * control_error
            ),
            baseline=f"the same fresh batches in reversed order instead of a repeated one: lower by {-control:.1e} ± "
            f"{control_error:.0e}",
        ),
    ]


__all__ = ["PAPER", "checks"]

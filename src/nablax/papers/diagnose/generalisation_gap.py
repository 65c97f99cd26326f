r"""SGD implicitly regularises the generalisation error: the gap of a step from the gradients' covariance.

Logistic regression on digits, where the whole set is the population and small batches drawn from it are the training
sets: then the test loss and both expectations can be sampled to any precision, and the prediction is put beside them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...diagnose import generalisation_gap
from .._contrast import Contrast
from .._problems._classifier import digits
from .._problems._training import trained
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
    images, answers = digits()
    count, size, rate, steps = 300, 16, 0.02, 8
    pixels, labels = images[:count], answers[:count]
    draws = 40_000 if full else 2000
    start_key, draw_key, probe_key = jax.random.split(key, 3)
    start = 0.1 * jax.random.normal(start_key, (64, 10))

    def mean_loss(weights: Array, rows: Array | None = None) -> Array:
        batch = (pixels, labels) if rows is None else (pixels[rows], labels[rows])
        return jnp.mean(jax.vmap(_loss, (None, 0))(weights, batch))

    def descend(weights: Array, batches: Array) -> Array:
        return trained(mean_loss, weights, optax.sgd(rate), lambda n, _: batches[n], len(batches), key=draw_key)[0]

    def trial(key: Key) -> tuple[Array, ...]:
        batches = jax.random.randint(key, (steps, size), 0, count)
        once = descend(start, batches[:1])
        # Against the same batch before, so that only the step's own effect is left.
        gap = mean_loss(once) - mean_loss(start) - (mean_loss(once, batches[0]) - mean_loss(start, batches[0]))
        # Every batch leads once, so that the first order in the rate cancels in every draw.
        repeated = jax.vmap(lambda rows: descend(start, jnp.broadcast_to(rows, (steps, size))))(batches)
        fresh, backwards = mean_loss(descend(start, batches)), mean_loss(descend(start, batches[::-1]))
        return gap, fresh, jnp.mean(jax.vmap(mean_loss)(repeated)), backwards

    @jax.jit
    def program() -> tuple[Array, ...]:
        return jax.lax.map(trial, jax.random.split(draw_key, draws), batch_size=50)

    # In blocks of draws, whose means are near to normal.
    gaps, fresh, repeated, backwards = (np.asarray(x, np.float64).reshape(20, -1).mean(1) for x in program())
    record = generalisation_gap(
        _loss, start, (pixels, labels), learning_rate=rate, key=probe_key, batch_size=size, probes=256
    )
    predicted = {
        "trace of the covariance": float(record.gap.value),
        "squared mean gradient": rate * float(record.gradient_square.value),
    }
    lower = steps * (steps - 1) / 2 * float(record.decorrelation.value)
    gain = fresh.mean() - repeated.mean()
    others = {"a repeated batch": gain, "themselves in reversed order": fresh.mean() - backwards.mean()}
    return [
        Check(
            "A step widens the gap by the rate times the trace of the gradients' covariance over the batch.",
            "a formula",
            contrasts=Contrast(
                "relative error of the predicted gap",
                {name: abs(value / gaps.mean() - 1) for name, value in predicted.items()},
                "lower",
                threshold=0.1,
            ),
        ),
        Check(
            "Fresh batches end with a lower test loss than as many steps on a repeated one, by a known amount.",
            "shown to second order in the rate",
            contrasts=[
                Contrast("test loss after 8 steps, nats", {"fresh": fresh, "repeated": repeated}, "lower"),
                Contrast(
                    "relative error of the predicted gain of fresh batches (the next order left out), over",
                    {name: abs((lower - value) / gain) for name, value in others.items()},
                    "lower",
                    threshold=0.25,
                ),
            ],
            moved_from="lower by four standard errors, and the reversed order's difference within as many",
        ),
    ]


__all__ = ["PAPER", "checks"]

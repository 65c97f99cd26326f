"""Two losses that disagree, in units a hundred times apart: what each aggregator makes of them, as a picture."""

import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from nablax import regulate

# Two curves through the same five weights; no weights fit both. The second is counted in units a tenth as long.
x = jnp.linspace(-1.0, 1.0, 50)
features = jnp.stack([x**power for power in range(5)], axis=1)
targets = (jnp.sin(3 * x), jnp.cos(3 * x))


def losses(weights):
    fits = features @ weights["curve"]
    return jnp.stack([jnp.mean((fits - targets[0]) ** 2), 100 * jnp.mean((fits - targets[1]) ** 2)])


def train(aggregator):
    """400 steps of gradient descent; the losses at each of them."""
    optimizer = optax.chain(aggregator, optax.sgd(0.005))
    start = {"curve": jnp.array([0.0, -1.0, 0.0, 0.0, 0.0])}

    @jax.jit
    def run(start):
        def step(carry, _):
            weights, state = carry
            values, gradients = regulate.multi_value_and_grad(losses)(weights)
            updates, state = optimizer.update(gradients, state, weights)
            return (optax.apply_updates(weights, updates), state), values

        return jax.lax.scan(step, (start, optimizer.init(start)), length=400)[1]

    return np.asarray(run(start))


figure = Figure(figsize=(5.5, 4.2), layout="constrained")
axis = figure.subplots()
print(f"{'':18}{'first loss':>12}{'second loss':>14}   steps that raised a loss")
for name, aggregator in {
    "sum": regulate.sum(),
    "UPGrad": regulate.upgrad(),
    "MGDA": regulate.mgda(),
    "PCGrad": regulate.pcgrad(key=jax.random.key(0)),
    "equal angles": regulate.conflict_free(),
}.items():
    path = train(aggregator)
    raised = np.sum(np.any(np.diff(path, axis=0) > 1e-6, axis=1))
    print(f"{name:<18}{path[-1, 0]:12.3f}{path[-1, 1]:14.1f}{raised:10d} of {len(path) - 1}")
    axis.plot(*path.T, label=name)
    axis.plot(*path[-1], "k.")
print(f"{'at the start':<18}{path[0, 0]:12.3f}{path[0, 1]:14.1f}")

# The weights that are best for some mixture of both: nothing below and left of this line can be reached.
mixtures = np.linspace(0, 1, 200)[:, None]
best = np.stack([np.linalg.lstsq(features, target, rcond=None)[0] for target in targets])
front = np.asarray(jax.vmap(losses)({"curve": jnp.asarray(mixtures * best[0] + (1 - mixtures) * best[1])}))
axis.plot(*front.T, color="0.7", lw=3, zorder=0, label="best possible")
axis.set(xlabel="first loss", ylabel="second loss", xscale="log")
axis.legend()
picture = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "losses.png"
figure.savefig(picture, dpi=110)
print(f"\npicture: {picture}")

"""What an average of the weights is worth: the same training with and without, at a rate that shakes them."""

import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from nablax.fields import EMA, MLP
from nablax.follow import fit
from nablax.transport import Linear, flow_matching

turn_key, noise_key = jax.random.split(jax.random.key(0))
turns = 3 * jax.random.uniform(turn_key, (6000, 1)) ** 0.5
spiral = turns * jnp.concatenate([jnp.cos(4 * turns), jnp.sin(4 * turns)], axis=1) / 1.5
spiral = spiral + 0.05 * jax.random.normal(noise_key, (6000, 2))

figure = Figure(figsize=(5.5, 3.4), layout="constrained")
axis = figure.subplots()
print("average over        best validation   last validation")
for name, ema in {"no steps": None, "20 steps": EMA(0.95), "200 steps": EMA(0.995)}.items():
    done = fit(
        flow_matching(Linear()),
        MLP(2, width=64, depth=2, time_features=16, residual=True, key=jax.random.key(1)),
        spiral[:5000],
        optimizer=optax.adam(3e-3),
        steps=1500,
        batch_size=128,
        key=jax.random.key(2),
        validation=spiral[5000:],
        validate_every=50,
        ema=ema,
    )
    measured = np.isfinite(done.history.validation)
    values = done.history.validation[measured]
    print(f"{name:<16}{values.min():19.4f}{values[-1]:18.4f}")
    axis.plot(done.history.step[measured], values, label=f"average over {name}" if ema else "last weights")
axis.set(xlabel="step", ylabel="validation loss", ylim=(None, np.quantile(values, 0.97)))
axis.legend()
picture = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "average.png"
figure.savefig(picture, dpi=110)
print(f"\npicture: {picture}")

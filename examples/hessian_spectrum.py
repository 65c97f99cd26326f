"""The curvature of a loss, all 4,810 eigenvalues of it, from 180 Hessian products: before and after training."""

import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from nablax.calculus import hessian_product, spectral_density, top_eigenvalues

images, labels = load_digits(return_X_y=True)
batch = (jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels))


def loss(params, batch):
    hidden = jnp.tanh(batch[0] @ params["hidden"] + params["bias"])
    logits = hidden @ params["out"] + params["offset"]
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]))


first, second = jax.random.split(jax.random.key(0))
start = {
    "hidden": jax.random.normal(first, (64, 64)) / 8,
    "bias": jnp.zeros(64),
    "out": jax.random.normal(second, (64, 10)) / 8,
    "offset": jnp.zeros(10),
}


@jax.jit
def train(params):
    optimizer = optax.sgd(0.5, momentum=0.9)

    def step(carry, _):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, batch)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), value

    return jax.lax.scan(step, (params, optimizer.init(params)), length=200)[0][0]


figure = Figure(figsize=(6, 3.6), layout="constrained")
axis = figure.subplots()
count = sum(leaf.size for leaf in jax.tree.leaves(start))
print(f"{count} parameters\n\n{'':16}{'loss':>8}{'trace':>16}{'largest':>10}   the ten largest hold")
for name, params in (("at the start", start), ("after 200 steps", train(start))):

    def product(v, params=params):
        return hessian_product(loss)(params, v, batch)

    spectrum = spectral_density(product, params, steps=60, probes=3, key=jax.random.key(1))
    top = top_eigenvalues(product, params, count=10, key=jax.random.key(2)).values
    trace = spectrum.trace()
    share = float(jnp.sum(top) / trace.value)
    print(
        f"{name:<16}{loss(params, batch):8.3f}{trace.value:10.2f} ± {trace.standard_error:.2f}{top[0]:10.2f}   "
        f"{share:.0%} of the trace"
    )
    width = float(top[0]) / 60
    grid = jnp.linspace(-4 * width, float(top[0]) + 4 * width, 400)
    density = spectrum.density(grid, width)
    axis.semilogy(grid, np.maximum(count * density.value, 1e-3), label=name)

axis.set(xlabel="eigenvalue of the Hessian", ylabel="eigenvalues per unit", ylim=(1e-1, None))
axis.legend()
picture = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "spectrum.png"
figure.savefig(picture, dpi=110)
print(f"\npicture: {picture}")

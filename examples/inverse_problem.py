"""Complete, restore and steer with one learned flow: two moons, of which only one coordinate is seen."""

import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from nablax.app import plot_samples
from nablax.fields import MLP
from nablax.follow import fit
from nablax.spaces import Euclidean
from nablax.transport import (
    Bounds,
    Linear,
    Normal,
    Transport,
    complete,
    flow_matching,
    inpainting,
    solve_inverse,
    steer,
)


def moons(key, count):
    """Two half circles, one upside down, of about unit scale."""
    side_key, angle_key, noise_key = jax.random.split(key, 3)
    side = jax.random.bernoulli(side_key, 0.5, (count,))
    angle = jnp.pi * jax.random.uniform(angle_key, (count,))
    x = jnp.where(side, 0.5 - jnp.cos(angle), jnp.cos(angle) - 0.5)
    y = jnp.where(side, 0.25 - jnp.sin(angle), jnp.sin(angle) - 0.25)
    return jnp.stack([x, y], axis=1) + 0.05 * jax.random.normal(noise_key, (count, 2))


data_key, model_key, fit_key, draw_key = jax.random.split(jax.random.key(0), 4)
data = moons(data_key, 10_000)

# 1. Learn the flow, once and without a thought for what it will be asked.
learned = fit(
    flow_matching(Linear()),
    MLP(2, width=128, depth=3, key=model_key),
    data,
    optimizer=optax.adam(optax.cosine_decay_schedule(3e-3, 3000)),
    steps=3000,
    batch_size=256,
    key=fit_key,
)
transport = Transport(learned.model, Linear(), Normal((2,)), Euclidean((2,)))

# 2. The first coordinate is seen, the second is missing: the upper arc or the lower one?
row, mask = jnp.array([0.0, jnp.nan]), jnp.array([True, False])
posterior = complete(transport, row, mask, 500, key=draw_key, particles=200)
second = posterior.samples[:, 1]
drawn = transport.sample(20_000, key=draw_key)
near = drawn[jnp.abs(drawn[:, 0]) < 0.03, 1]  # the learned flow's own answer, by drawing until it fits
print("exact in the limit: complete")
print(f"  share above zero          {jnp.mean(second > 0):.2f}   by rejection {jnp.mean(near > 0):.2f}")
print(f"  mean distance from zero   {jnp.mean(jnp.abs(second)):.2f}   by rejection {jnp.mean(jnp.abs(near)):.2f}")
print(f"  a fill by the mean        {near.mean():.2f}, between the arcs, where there are no data")
print(f"  effective sample size     {posterior.effective_sample_size:.0f} of 200 particles")

# 3. The same question by the two approximate methods, which scale to images.
operator, seen = inpainting(mask), jnp.array([0.0, 0.0])
for method in ("posterior guidance", "steering"):
    samples, record = solve_inverse(transport, operator, seen, 0.01, 500, key=draw_key, method=method)
    second = samples[:, 1]
    print(f"approximate: {method}")
    print(f"  share above zero          {jnp.mean(second > 0):.2f}")
    print(f"  misfit, root mean square  {jnp.sqrt(jnp.mean(jnp.square(samples[:, 0]))):.3f}")
    print(f"  field differentiated      {record.products} times a sample")

# 4. Any cost will do. Here a hard constraint: the right half only.
right = Bounds(lower=jnp.array([0.8, -jnp.inf]))
steered, _ = steer(transport, right, 1000, key=draw_key)
print("steered to the right of 0.8")
print(
    f"  share there               {right.satisfied(steered).mean():.2f}   unsteered {right.satisfied(drawn).mean():.2f}"
)

picture = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "steered.png"
plot_samples(steered, against=data[:1000]).savefig(picture, dpi=110)
print(f"picture: {picture}")

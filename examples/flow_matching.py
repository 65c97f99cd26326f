"""Learn a two-dimensional density by flow matching, draw from it, score it, and look at its field."""

import jax
import jax.numpy as jnp
import optax

from nablax import diagnose, fields, follow, spaces, transport

# Data: a ring of radius two.
angle_key, radius_key = jax.random.split(jax.random.key(0))
angle = jax.random.uniform(angle_key, (10_000,), maxval=2 * jnp.pi)
radius = 2 + 0.1 * jax.random.normal(radius_key, (10_000,))
data = jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle)], axis=1)
train, held_out = data[:8000], data[8000:]

# A field(t, y, args) -> dy, and the loss whose minimiser carries noise at t = 0 to data at t = 1.
path = transport.Linear()
field = fields.MLP(2, width=64, depth=3, time_features=16, residual=True, key=jax.random.key(1))
done = follow.fit(
    transport.flow_matching(path),
    field,
    train,
    optimizer=optax.adamw(optax.cosine_decay_schedule(2e-3, 2000)),
    steps=2000,
    batch_size=256,
    key=jax.random.key(2),
    validation=held_out,
    ema=fields.EMA(0.99),
)
print(f"{done.result} after {done.step} steps; the best weights are those of step {done.best_step}")

learned = transport.Transport(done.model, path, transport.Normal((2,)), spaces.Euclidean((2,)))
samples = learned.sample(2000, key=jax.random.key(3))
drawn = jnp.linalg.norm(samples, axis=1)
print(f"radius of samples {drawn.mean():.3f} ± {drawn.std():.3f}; of the data 2.000 ± 0.100")

# The density of the ring is known: uniform in angle, normal in radius, over the circumference.
r = jnp.linalg.norm(held_out, axis=1)
truth = jax.scipy.stats.norm.logpdf(r, 2, 0.1) - jnp.log(2 * jnp.pi * r)
print(learned.log_prob(held_out[:500], round_trip=True).table())
print(f"the truth on the same rows             {truth[:500].mean():.4f} nats")

# Is the velocity a gradient? It need not be; it is nearly so where it was learnt well.
at_half = learned.interpolate(0.5, held_out[:256], key=jax.random.key(4))
print(diagnose.conservativity(learned.velocity, 0.5, at_half, key=jax.random.key(5)).table())
print(diagnose.path_geometry(learned.velocity, jax.random.normal(jax.random.key(6), (256, 2))).table())

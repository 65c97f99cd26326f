"""Principal components of the digits as an orthonormal frame that is trained, beside the eigenvectors."""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from nablax import optimize, spaces

COMPONENTS, STEPS = 5, 600
images = jnp.asarray(load_digits().data / 16, jnp.float32)
space = spaces.Stiefel(images.shape[1], COMPONENTS)
params = {"frame": space.sample(1, key=jax.random.key(0))[0], "centre": jnp.zeros(images.shape[1])}
optimizer = optimize.riemannian_adam(
    optax.cosine_decay_schedule(0.1, STEPS), {"frame": space, "centre": None}, b2=0.99
)  # the centre is flat: Adam


def loss(params):
    """Mean square of what the frame's plane through the centre leaves of an image."""
    centred = images - params["centre"]
    return jnp.mean(jnp.sum((centred - centred @ params["frame"] @ params["frame"].T) ** 2, axis=1))


@jax.jit
def train(params):
    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    (params, _), values = jax.lax.scan(step, (params, optimizer.init(params)), length=STEPS)
    return params, values


params, values = train(params)
_, spreads, axes = jnp.linalg.svd(images - jnp.mean(images, axis=0), full_matrices=False)
best = jnp.sum(spreads[COMPONENTS:] ** 2) / len(images)
angles = jnp.linalg.svd(axes[:COMPONENTS] @ params["frame"], compute_uv=False)
print(f"left of an image, at first   {values[0]:.4f}")
print(f"left of an image, trained    {loss(params):.4f}")
print(f"left of an image, at best    {best:.4f}   (eigenvectors)")
print(f"largest angle between planes {jnp.degrees(jnp.arccos(jnp.minimum(angles[-1], 1))):.2f} degrees")
off = jnp.max(jnp.abs(params["frame"].T @ params["frame"] - jnp.eye(COMPONENTS)))
print(f"farthest from orthonormal    {off:.1e}")

"""What the benchmarks of convolutional training share: 8×8 digits, two 3×3 layers of 32 and 64 channels, Adam, batch 128."""

import time

import numpy as np

CHANNELS, BATCH, CLASSES, RATE = (1, 32, 64), 128, 10, 1e-3


def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels.astype(np.int32)


def network():
    """The model and ``logits(model, (images, labels))``, channels first as Equinox has them."""
    import equinox as eqx
    import jax

    keys = jax.random.split(jax.random.key(0), 3)
    layers = [eqx.nn.Conv2d(a, b, 3, padding=1, key=k) for a, b, k in zip(CHANNELS, CHANNELS[1:], keys)]
    layers.append(eqx.nn.Linear(CHANNELS[-1], CLASSES, key=keys[2]))

    def one(layers, image):
        for layer in layers[:-1]:
            image = jax.nn.relu(layer(image))
        return layers[-1](image.mean((1, 2)))

    return layers, lambda layers, batch: jax.vmap(one, in_axes=(None, 0))(layers, batch[0])


def loss_of(logits):
    import jax.numpy as jnp
    import optax

    def loss(model, batch):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits(model, batch), batch[1]))

    return loss


def step_by_hand(loss, optimizer):
    """The training step that a user writes: compiled, called from Python, its convolutions outside of any loop."""
    import equinox as eqx

    @eqx.filter_jit(donate="all-except-first")
    def step(batch, model, state):
        value, gradient = eqx.filter_value_and_grad(loss)(model, batch)
        updates, state = optimizer.update(gradient, state, model)
        return eqx.apply_updates(model, updates), state, value

    return step


def timed_steps(step, batches, model, state, *, rounds: int, steps: int):
    """Milliseconds a step, round by round, seconds of the first one, and the losses."""
    import jax

    start, values, losses = time.perf_counter(), [], []
    model, state, value = jax.block_until_ready(step(next(batches), model, state))
    first = time.perf_counter() - start
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(steps):
            model, state, value = step(next(batches), model, state)
            losses.append(value)
        jax.block_until_ready(model)
        values.append(1e3 * (time.perf_counter() - start) / steps)
    return values, first, [float(value) for value in losses]


def shuffled(*arrays):
    """Batches without end, anew shuffled in each pass."""
    random = np.random.default_rng(0)
    while True:
        order = random.permutation(len(arrays[0]))
        for rows in np.split(order[: len(order) // BATCH * BATCH], len(order) // BATCH):
            yield tuple(array[rows] for array in arrays)

"""What the curvature benchmarks share: 64-96-96-20 tanh units on the digits, cross-entropy, 17 492 parameters."""

from pathlib import Path

import numpy as np

SIZES = (64, 96, 96, 20)


def prepare(folder: Path) -> None:
    """Train for a short while, so that the spectrum is that of a network in use, and save weights and data."""
    import jax
    import optax
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images, labels = (images / 16).astype(np.float32), labels.astype(np.int32)
    random = np.random.default_rng(0)
    params = [
        (random.standard_normal((a, b)).astype(np.float32) / np.float32(np.sqrt(a)), np.zeros(b, np.float32))
        for a, b in zip(SIZES, SIZES[1:])
    ]
    optimizer = optax.adam(1e-3)
    gradient = jax.grad(loss)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(gradient(params, images, labels), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, None, length=200))((params, optimizer.init(params)))
    arrays = {f"{kind}{i}": np.asarray(value) for i, layer in enumerate(params) for kind, value in zip("wb", layer)}
    np.savez(folder / "digits.npz", images=images, labels=labels, **arrays)


def loss(params, images, labels):
    import jax
    import jax.numpy as jnp

    for weight, bias in params[:-1]:
        images = jnp.tanh(images @ weight + bias)
    scores = jax.nn.log_softmax(images @ params[-1][0] + params[-1][1])
    return -jnp.mean(jnp.take_along_axis(scores, labels[:, None], axis=1))


def ours(folder: Path):
    """Parameters, images, labels."""
    import jax.numpy as jnp

    arrays = np.load(folder / "digits.npz")
    params = [(jnp.asarray(arrays[f"w{i}"]), jnp.asarray(arrays[f"b{i}"])) for i in range(len(SIZES) - 1)]
    return params, jnp.asarray(arrays["images"]), jnp.asarray(arrays["labels"])


def peer(folder: Path):
    """The same network, loss and data as curvlinops' linear operator of the Hessian."""
    import torch
    from curvlinops import HessianLinearOperator

    arrays = np.load(folder / "digits.npz")
    layers = []
    for i, (a, b) in enumerate(zip(SIZES, SIZES[1:])):
        layer = torch.nn.Linear(a, b)
        layer.weight.data = torch.tensor(arrays[f"w{i}"].T.copy())
        layer.bias.data = torch.tensor(arrays[f"b{i}"])
        layers += [layer, torch.nn.Tanh()]
    network = torch.nn.Sequential(*layers[:-1])
    data = [(torch.tensor(arrays["images"]), torch.tensor(arrays["labels"]).long())]
    return HessianLinearOperator(network, torch.nn.CrossEntropyLoss(), list(network.parameters()), data)


def timed(run, repeats: int):
    """Value, seconds before the first result, and seconds of each of the repetitions after it."""
    import time

    start = time.perf_counter()
    value = run()
    first, times = time.perf_counter() - start, []
    for _ in range(repeats):
        start = time.perf_counter()
        value = run()
        times.append(time.perf_counter() - start)
    return value, first, times

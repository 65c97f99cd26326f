"""A thousand steps of descent by forward gradients, one Gaussian direction each, 270 thousand parameters."""

from pathlib import Path

import numpy as np

from . import _one_thread

TITLE = "1,000 forward-gradient steps, 270k-parameter MLP, batch 128"
PEER = "torchzero 0.4.4, forward-mode automatic differentiation"
UNIT = "s of processor time, one thread"
TARGET = "3×"
BETTER = "lower"
SIZES, ROWS, BATCH, STEPS, RATE, DIRECTIONS = (784, 256, 256, 10), 1024, 128, 1000, 3e-4, "gaussian"


def prepare(folder: Path) -> dict:
    random = np.random.default_rng(0)
    arrays = {}
    for i, (a, b) in enumerate(zip(SIZES, SIZES[1:])):
        arrays[f"weight{i}"] = (random.standard_normal((a, b)) / np.sqrt(a)).astype(np.float32)
        arrays[f"bias{i}"] = np.zeros(b, np.float32)
    # Classes with a mean each, so that there is something to learn.
    labels = random.integers(0, SIZES[-1], ROWS)
    means = random.standard_normal((SIZES[-1], SIZES[0]))
    inputs = (means[labels] + random.standard_normal((ROWS, SIZES[0]))) / np.sqrt(2)
    np.savez(folder / "case.npz", inputs=inputs.astype(np.float32), labels=labels, **arrays)
    return {}


def ours(folder: Path) -> dict:
    _one_thread.jax_alone()
    import jax
    import jax.numpy as jnp
    import optax

    from nablax import estimate, follow

    arrays = np.load(folder / "case.npz")
    start = [(jnp.asarray(arrays[f"weight{i}"]), jnp.asarray(arrays[f"bias{i}"])) for i in range(len(SIZES) - 1)]
    inputs = jnp.asarray(arrays["inputs"]).reshape(-1, BATCH, SIZES[0])
    labels = jnp.asarray(arrays["labels"]).reshape(-1, BATCH)

    def loss(params, batch):
        h, label = batch
        for weight, bias in params[:-1]:
            h = jax.nn.relu(h @ weight + bias)
        scores = h @ params[-1][0] + params[-1][1]
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(scores, label))

    optimizer = optax.sgd(RATE)
    step = follow.train_step(
        loss, optimizer, value_and_grad=lambda loss: estimate.forward_gradient(loss, directions=DIRECTIONS)
    )

    @jax.jit
    def train(params, key):
        def one(carry, now):
            number, key = now
            turn = number % len(inputs)
            *carry, value = step(*carry, (inputs[turn], labels[turn]), key=key)
            return tuple(carry), value

        steps = jnp.arange(STEPS), jax.random.split(key, STEPS)
        return jax.lax.scan(one, (params, optimizer.init(params)), steps)[1]

    found, compiled = [], []
    (compiling,) = _one_thread.seconds(lambda: compiled.append(train.lower(start, jax.random.key(0)).compile()), 1)
    times = _one_thread.seconds(lambda: found.append(np.asarray(compiled[0](start, jax.random.key(len(found))))), 2)
    return {"values": [min(times)], "compile": compiling, "accuracy": _words(found)}


def peer(folder: Path) -> dict:
    _one_thread.torch_alone()
    import torch
    import torchzero as tz

    arrays = np.load(folder / "case.npz")
    inputs = torch.tensor(arrays["inputs"]).reshape(-1, BATCH, SIZES[0])
    labels = torch.tensor(arrays["labels"]).reshape(-1, BATCH)
    found = []

    def train(steps: int = STEPS) -> None:
        layers = []
        for i, (a, b) in enumerate(zip(SIZES, SIZES[1:])):
            layers += [torch.nn.ReLU()] * (i > 0) + [torch.nn.Linear(a, b)]
            layers[-1].weight.data = torch.tensor(arrays[f"weight{i}"].T.copy())
            layers[-1].bias.data = torch.tensor(arrays[f"bias{i}"])
        network = torch.nn.Sequential(*layers)
        rule = tz.m.ForwardGradient(distribution=DIRECTIONS)
        optimizer = tz.Optimizer(network.parameters(), rule, tz.m.LR(RATE))
        losses = []
        for number in range(steps):
            turn = number % len(inputs)

            def closure(backward=True, turn=turn):
                return torch.nn.functional.cross_entropy(network(inputs[turn]), labels[turn])

            losses.append(optimizer.step(closure).detach())
        found.append(torch.stack(losses).numpy())

    (first,) = _one_thread.seconds(lambda: train(1), 1)
    found.clear()
    times = _one_thread.seconds(train, 2)
    return {"values": [min(times)], "compile": first, "accuracy": _words(found)}


def _words(losses: list[np.ndarray]) -> str:
    """Each side draws directions of its own: what they agree in is how far the loss comes, within its scatter."""
    ends = [run[-ROWS // BATCH :].mean() for run in losses]
    return f"loss {losses[0][: ROWS // BATCH].mean():.2f} to " + " and ".join(f"{end:.2f}" for end in ends)

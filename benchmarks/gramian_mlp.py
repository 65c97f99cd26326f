"""Gramian of 128 examples' gradients, multilayer perceptron of 270 thousand parameters."""

import time
from pathlib import Path

import numpy as np

TITLE = "Gramian, 128 samples, 270k-parameter MLP"
PEER = "torchjd 0.18.0, autogram"
UNIT = "ms"
TARGET = "50×"
BETTER = "lower"
SIZES, COUNT, REPEATS = (784, 256, 256, 10), 128, 20


def prepare(folder: Path) -> dict:
    random = np.random.default_rng(0)
    arrays = {}
    for i, (a, b) in enumerate(zip(SIZES, SIZES[1:])):
        arrays[f"weight{i}"] = (random.standard_normal((b, a)) / np.sqrt(a)).astype(np.float32)
        arrays[f"bias{i}"] = 0.1 * random.standard_normal(b).astype(np.float32)
    inputs = random.standard_normal((COUNT, SIZES[0])).astype(np.float32)
    np.savez(folder / "case.npz", inputs=inputs, labels=random.integers(0, SIZES[-1], COUNT), **arrays)
    return {}


def ours(folder: Path) -> dict:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from nablax.regulate import gramian

    arrays = np.load(folder / "case.npz")
    network = eqx.nn.MLP(SIZES[0], SIZES[-1], SIZES[1], len(SIZES) - 2, key=jax.random.key(0))
    for kind in ("weight", "bias"):
        network = eqx.tree_at(
            lambda net, kind=kind: [getattr(layer, kind) for layer in net.layers],
            network,
            [jnp.asarray(arrays[f"{kind}{i}"]) for i in range(len(SIZES) - 1)],
        )
    inputs, labels = jnp.asarray(arrays["inputs"]), jnp.asarray(arrays["labels"])

    def losses(network, inputs, labels):
        return jax.vmap(lambda x, label: -jax.nn.log_softmax(network(x))[label])(inputs, labels)

    compiled = eqx.filter_jit(lambda network, inputs, labels: gramian(losses, network, inputs, labels))
    return timed(lambda: compiled(network, inputs, labels).block_until_ready())


def peer(folder: Path) -> dict:
    import torch
    from torchjd.autogram import Engine

    arrays = np.load(folder / "case.npz")
    layers = []
    for i, (a, b) in enumerate(zip(SIZES, SIZES[1:])):
        layers += [torch.nn.ReLU()] * (i > 0) + [torch.nn.Linear(a, b)]
        layers[-1].weight.data = torch.tensor(arrays[f"weight{i}"])
        layers[-1].bias.data = torch.tensor(arrays[f"bias{i}"])
    network = torch.nn.Sequential(*layers)
    return timed(torch_gramian(network, torch.tensor(arrays["inputs"]), torch.tensor(arrays["labels"]), Engine))


def torch_gramian(network, inputs, labels, engine_class):
    import torch

    engine = engine_class(network, batch_dim=0)
    criterion = torch.nn.CrossEntropyLoss(reduction="none")
    return lambda: engine.compute_gramian(criterion(network(inputs), labels)).detach()


def timed(run, repeats: int = REPEATS) -> dict:
    start = time.perf_counter()
    value = run()
    first, times = time.perf_counter() - start, []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    value = np.asarray(value)
    return {
        "values": times,
        "compile": first,
        "accuracy": f"trace {float(np.trace(value)):.5g}, sum {float(value.sum()):.5g}",
    }

"""The network and the data that several benchmarks share: 3 hidden layers of 64 SELU units over (y, t)."""

from pathlib import Path

import numpy as np

WIDTH, LAYERS = 64, 3


def eight_gaussians(count: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    angle = random.integers(0, 8, count) * np.pi / 4
    centres = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 2.0
    return (centres + 0.2 * random.standard_normal((count, 2))).astype(np.float32)


def save_weights(field, folder: Path, name: str) -> None:
    layers = [field.inlet, *field.layers, field.outlet]
    arrays = {
        f"{kind}{i}": np.asarray(getattr(layer, kind)) for i, layer in enumerate(layers) for kind in ("weight", "bias")
    }
    np.savez(folder / f"{name}.npz", **arrays)


def our_field(folder: Path, name: str, dim: int):
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from nablax.fields import MLP

    field = MLP(dim, width=WIDTH, depth=LAYERS, activation="selu", key=jax.random.key(0))
    arrays = np.load(folder / f"{name}.npz")

    def leaves(field):
        return [
            getattr(layer, kind) for layer in (field.inlet, *field.layers, field.outlet) for kind in ("weight", "bias")
        ]

    return eqx.tree_at(
        leaves, field, [jnp.asarray(arrays[f"{k}{i}"]) for i in range(LAYERS + 1) for k in ("weight", "bias")]
    )


def peer_field(folder: Path, name: str, dim: int):
    """The same network and weights in torch, called ``(x, t)``."""
    import torch

    sizes = [dim + 1, *(WIDTH,) * LAYERS, dim]
    linear = [torch.nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])]
    arrays = np.load(folder / f"{name}.npz")
    for i, layer in enumerate(linear):
        layer.weight.data = torch.tensor(arrays[f"weight{i}"])
        layer.bias.data = torch.tensor(arrays[f"bias{i}"])
    stack = [module for layer in linear[:-1] for module in (layer, torch.nn.SELU())]
    network = torch.nn.Sequential(*stack, linear[-1])

    class Field(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x, t, **extras):
            return self.network(torch.cat([x, t.reshape(-1, 1).expand(len(x), 1).to(x)], dim=1))

    return Field()


def train(dim: int, data: np.ndarray, steps: int = 3000):
    """Our training; used where a benchmark needs a trained field."""
    import jax
    import optax

    from nablax.fields import MLP
    from nablax.follow import fit
    from nablax.transport import Linear, flow_matching

    field = MLP(dim, width=WIDTH, depth=LAYERS, activation="selu", key=jax.random.key(0))
    return fit(
        flow_matching(Linear()),
        field,
        data,
        optimizer=optax.adamw(1e-3, weight_decay=1e-5),
        steps=steps,
        batch_size=512,
        key=jax.random.key(1),
    ).model


def matrix_product_peak() -> float:
    """Floating-point operations per second of large single-precision matrix products, by JAX on this machine."""
    import time

    import jax
    import jax.numpy as jnp

    size = 2048
    a = jnp.ones((size, size))
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        product(a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best

"""The spectrum of the Hessian of a small network by stochastic Lanczos quadrature, 80 steps and 3 probes."""

from pathlib import Path

import numpy as np

from . import _digits

TITLE = "Hessian spectrum, 80 Lanczos steps × 3 probes, 17.5k parameters, digits"
PEER = "curvlinops 3.0.1, fast_lanczos without reorthogonalisation"
UNIT = "s"
TARGET = "10×"
BETTER = "lower"
STEPS, PROBES, REPEATS = 80, 3, 3


def prepare(folder: Path) -> dict:
    _digits.prepare(folder)
    return {}


def _accuracy(nodes, weights) -> str:
    nodes, weights = np.asarray(nodes), np.asarray(weights)
    means = np.sum(nodes * weights, axis=1)
    error = np.std(means, ddof=1) / np.sqrt(PROBES)
    ghosts = np.sum(np.diff(np.sort(nodes, axis=1)[:, -5:], axis=1) < 1e-4 * nodes.max()) / PROBES
    return (
        f"mean eigenvalue {means.mean() * 1e3:.3f}e-3 ± {error * 1e3:.3f}e-3, largest {nodes.max():.4f}, "
        f"{ghosts:.1f} ghosts among the top 5 nodes of a probe"
    )


def ours(folder: Path) -> dict:
    import jax

    from nablax.calculus import hessian_product, spectral_density

    arguments = _digits.ours(folder)
    product = hessian_product(_digits.loss)

    @jax.jit
    def measure(params, images, labels, key):
        return spectral_density(
            lambda v: product(params, v, images, labels), params, steps=STEPS, probes=PROBES, key=key
        )

    key = jax.random.key(1)
    found, first, times = _digits.timed(lambda: jax.block_until_ready(measure(*arguments, key)), REPEATS)
    return {"values": times, "compile": first, "accuracy": _accuracy(found.nodes, found.weights)}


def peer(folder: Path) -> dict:
    import torch
    from curvlinops.papyan2020traces.spectrum import fast_lanczos

    operator = _digits.peer(folder)
    torch.manual_seed(1)

    def measure():
        return [fast_lanczos(operator, STEPS) for _ in range(PROBES)]

    found, first, times = _digits.timed(measure, REPEATS)
    nodes = torch.stack([values for values, _ in found])
    weights = torch.stack([vectors[0] ** 2 for _, vectors in found])
    return {"values": times, "compile": first, "accuracy": _accuracy(nodes, weights)}

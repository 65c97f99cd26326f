"""The five largest eigenvalues of the Hessian of a small network over the whole of the digits."""

from pathlib import Path

import numpy as np

from . import _digits

TITLE = "top-5 Hessian eigenvalues, 17.5k parameters, digits"
PEER = "curvlinops 3.0.1 with scipy's eigsh"
UNIT = "s"
TARGET = "8×; 1.3× with compile"
BETTER = "lower"
COUNT, STEPS, TOLERANCE, REPEATS = 5, 40, 1e-3, 5  # both sides get the tolerance, and stop by it
AGREEMENT = 1e-4  # relative, asked of both sides


def prepare(folder: Path) -> dict:
    """Train, and keep the eigenvalues to compare with: many steps in double precision."""
    import jax

    from nablax.calculus import hessian_product, top_eigenvalues

    _digits.prepare(folder)
    product = hessian_product(_digits.loss)
    with jax.enable_x64(True):
        params, *data = jax.tree.map(lambda x: x.astype(float) if x.dtype == np.float32 else x, _digits.ours(folder))
        find = jax.jit(
            lambda params: top_eigenvalues(
                lambda v: product(params, v, *data), params, count=COUNT, steps=120, key=jax.random.key(2)
            )
        )
        found = find(params)
        assert float(found.residuals.max()) < 1e-6, found.residuals
        np.save(folder / "exact.npy", found.values)
    return {}


def _accuracy(values, folder: Path) -> str:
    exact = np.load(folder / "exact.npy")
    error = np.max(np.abs(np.sort(values)[::-1] / exact - 1))
    assert error < AGREEMENT, error
    return f"largest relative error {error:.1e}"


def ours(folder: Path) -> dict:
    import jax

    from nablax.calculus import hessian_product, top_eigenvalues

    arguments = _digits.ours(folder)
    product = hessian_product(_digits.loss)

    @jax.jit
    def find(params, images, labels, key):
        return top_eigenvalues(
            lambda v: product(params, v, images, labels),
            params,
            count=COUNT,
            steps=STEPS,
            tolerance=TOLERANCE,
            key=key,
        )

    key = jax.random.key(1)
    found, first, times = _digits.timed(lambda: jax.block_until_ready(find(*arguments, key)), REPEATS)
    return {
        "values": times,
        "compile": first,
        "accuracy": f"{_accuracy(found.values, folder)}, {found.products} products",
    }


def peer(folder: Path) -> dict:
    from scipy.sparse.linalg import eigsh

    # Building the operator checks that it is deterministic; that is no part of the work and is left out of the time.
    operator = _digits.peer(folder).to_scipy()

    def find(tolerance: float):
        return eigsh(operator, k=COUNT, which="LA", tol=tolerance, return_eigenvectors=True)[0]

    # At equal accuracy: a tolerance that agrees to 1e-4. To machine precision, as its documentation calls it, in words.
    values, first, times = _digits.timed(lambda: find(TOLERANCE), REPEATS)
    tight, _, slow = _digits.timed(lambda: find(0), REPEATS)
    words = (
        f"{_accuracy(values, folder)}, tolerance {TOLERANCE:g}; at tolerance 0 {_accuracy(tight, folder)} in "
        f"{np.median(slow):.3f} s"
    )
    return {"values": times, "compile": first, "accuracy": words}

"""Fast differentiable matrix square root: one rational function where others iterate or take eigenvectors."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import Key
from ...calculus import matrix_square_root
from .._contrast import Contrast
from .._records import Check, Paper

PAPER = Paper(
    slug="matrix-square-root",
    title="Fast Differentiable Matrix Square Root",
    year=2022,
    link="https://arxiv.org/abs/2201.08663",
    rooms=("calculus",),
    row=204,
    read="code",
)

_DIM = 64
# The paper's setting of the Newton–Schulz iteration.
_STEPS = 5


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Take roots of a batch of 64 × 64 covariances and their gradients, four ways, on one machine.

    The paper times whole networks on graphics cards; here it is the operation alone.

    Args:
        key: of the matrices.
        full: a batch of 256 instead of 16, and the time, which depends on the machine and on what else it does.

    Returns:
        Two checks; three in full.
    """
    batch = 256 if full else 16
    factors = jax.random.normal(key, (batch, _DIM, 4 * _DIM))
    matrices = factors @ jnp.swapaxes(factors, 1, 2) / (4 * _DIM)
    weights = jax.random.normal(jax.random.fold_in(key, 1), (_DIM, _DIM))
    methods: dict[str, Callable[[Array], Array]] = {
        "Padé": lambda a: matrix_square_root(a).value,
        "Taylor": lambda a: matrix_square_root(a, method="taylor").value,
        "Newton-Schulz": _newton_schulz,
        "eigenvectors": _by_eigenvectors,
    }
    exact = jax.jit(jax.vmap(_by_eigenvectors))(matrices)
    values, slopes, seconds = {}, {}, {}
    for name, root in methods.items():
        values[name], slopes[name], seconds[name] = _measure(root, matrices, weights)
    roots = {name: _relative(value, exact) for name, value in values.items()}
    gradients = {name: _relative(slope, slopes["eigenvectors"]) for name, slope in slopes.items()}

    def error(of: str, errors: dict[str, Array], baseline: str) -> Contrast:
        both = {name: errors[name] for name in ("Padé", baseline)}
        return Contrast(f"relative error of the {of}, matrix by matrix", both, "lower", ratio=0.5)

    found = [
        Check(
            "The Padé approximant is more accurate than a Taylor polynomial of degree 10, at 4 products for 9.",
            "stated in words and a figure",
            contrasts=error("root", roots, "Taylor"),
        ),
        Check(
            "And more accurate, with its gradient, than five steps of Newton-Schulz.",
            "stated in words and a figure",
            contrasts=[error("root", roots, "Newton-Schulz"), error("gradient", gradients, "Newton-Schulz")],
        ),
    ]
    if full:
        times = {name: [1e3 * seconds[name] / batch] for name in ("Padé", "eigenvectors")}
        found.append(
            Check(
                "Root and gradient together are faster than by the eigendecomposition.",
                "stated in words and tables (on graphics cards)",
                contrasts=Contrast("time of a matrix, ms", times, "lower", ratio=2 / 3),
                # The claim is about graphics cards, where eigendecompositions of small matrices are slow.
                expected=jax.default_backend() != "cpu",
                tried="one core of a processor, where LAPACK is quick and the backward iteration, some ten steps of "
                "six products, costs as much as the eigendecomposition",
                why="protocol out of reach",
            )
        )
    return found


def _measure(
    root: Callable[[Array], Array], matrices: Float[Array, "batch dim dim"], weights: Float[Array, "dim dim"]
) -> tuple[Float[Array, "batch dim dim"], Float[Array, "batch dim dim"], float]:
    """Roots, gradients of a random functional of them with respect to the matrices, and the least of five times."""

    def both(matrix: Array) -> tuple[Array, Array]:
        value, pull = jax.vjp(root, matrix)
        slope = pull(weights)[0]
        return value, (slope + slope.T) / 2

    compiled = jax.jit(jax.vmap(both))
    value, slope = jax.block_until_ready(compiled(matrices))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(compiled(matrices))
        times.append(time.perf_counter() - start)
    return value, slope, min(times)


def _relative(value: Float[Array, "batch dim dim"], exact: Float[Array, "batch dim dim"]) -> Float[Array, " batch"]:
    return jnp.linalg.norm(value - exact, axis=(1, 2)) / jnp.linalg.norm(exact, axis=(1, 2))


def _by_eigenvectors(matrix: Float[Array, "dim dim"]) -> Float[Array, "dim dim"]:
    values, vectors = jnp.linalg.eigh(matrix)
    return vectors * jnp.sqrt(values)[None, :] @ vectors.T


def _newton_schulz(matrix: Float[Array, "dim dim"]) -> Float[Array, "dim dim"]:
    """Coupled iteration on the normalised matrix, differentiated through its steps."""
    norm = jnp.linalg.norm(matrix)
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    root, inverse = matrix / norm, identity
    for _ in range(_STEPS):
        factor = (3 * identity - inverse @ root) / 2
        root, inverse = root @ factor, factor @ inverse
    return root * jnp.sqrt(norm)

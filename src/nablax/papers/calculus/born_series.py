"""Perturbation theory of networks: order by order they learn coefficients that they miss when trained at once."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...calculus import taylor_coefficients
from .._contrast import Contrast
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="born-series",
    title="A Neural Network Perturbation Theory Based on the Born Series",
    year=2020,
    link="https://arxiv.org/abs/2009.03192",
    rooms=("calculus",),
    row=53,
    read="abstract",
)

# Nodes of the potential between the centre and its range, which is the unit of length.
_NODES = 16
# Standard deviation of the potential at a node: second order is then some two per cent of first.
_DEPTH = 0.1
_TESTS = 500


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Learn S-wave scattering lengths of shallow potentials at once and order by order, and read the coefficients.

    The potentials are white noise of either sign on 16 nodes, and scattering lengths are exact solutions of the
    discretised equation; the paper's are attractive steps on 64 nodes, and its networks are larger. What an
    iteration eliminates is the network's own leading term; how the paper's code does it was not seen. A network trained
    at once has as many steps as both iterations together; what it misses is a matter of their number, so that the
    second check is listed as failing in full.

    Args:
        key: of potentials and networks.
        full: ten times the training steps.

    Returns:
        Three checks.
    """
    data, start, first, second = jax.random.split(key, 4)
    potentials = _DEPTH * jax.random.normal(data, (8192 + _TESTS, _NODES))
    lengths = jax.jit(jax.vmap(_scattering_length))(potentials)
    seen, fresh = potentials[:-_TESTS], potentials[-_TESTS:]
    steps = 10_000 if full else 1000

    # Trained at once, a network gets the steps of both iterations.
    at_once = _learn(start, first, seen, lengths[:-_TESTS], jnp.array(2 * steps), 2 * steps)
    leading = _learn(start, first, seen, lengths[:-_TESTS], jnp.array(steps), 2 * steps)
    # The leading order goes; what is left has the second order as its leading one.
    linear, _ = _terms(leading, potentials)
    iterated = _learn(start, second, seen, (lengths - linear)[:-_TESTS], jnp.array(steps), 2 * steps)

    exact, (one, two) = lengths[-_TESTS:], _terms(_scattering_length, fresh)
    found = *_terms(at_once, potentials), *_terms(iterated, potentials)
    whole, direct, correction, quadratic = (term[-_TESTS:] for term in found)
    terms = {"first order": _relative(whole, one), "second order": _relative(direct, two)}
    quadratics = {"order by order": _relative(quadratic, two), "trained at once": terms["second order"]}
    totals = {
        "both iterations": _relative(linear[-_TESTS:] + correction + quadratic, exact),
        "exact first-order Born approximation": _relative(one, exact),
        "trained at once, to second order": _relative(whole + direct, exact),
    }
    return [
        Check(
            "a network trained at once adapts its derivatives to the leading order only",
            "stated in words",
            contrasts=Contrast("relative error of a term of its expansion", terms, "lower", threshold=0.1),
        ),
        Check(
            "with the leading order eliminated, the second-order Born term is learned",
            "stated in words",
            contrasts=Contrast("relative error of the second-order term", quadratics, "lower", threshold=0.25),
            expected=not full,
            tried="at once for 20,000 steps, order by order for 10,000 each: 0.11 and 0.04" if full else "",
        ),
        Check(
            "both iterations together are a second-order Born approximation",
            "stated in words",
            contrasts=Contrast("relative error against the exact scattering length", totals, "lower", ratio=0.5),
            moved_from="the same against the first-order Born approximation alone",
        ),
    ]


def _scattering_length(potential: Float[Array, " nodes"]) -> Float[Array, ""]:
    r"""Length :math:`\int rUu\,dr` of the zero-energy solution :math:`u = r - \int\min(r, r')U(r')u(r')dr'`.

    The Neumann series of the inverse is the Born series; with this depth eight terms are exact to rounding.
    """
    r = (jnp.arange(_NODES) + 0.5) / _NODES
    kernel = jnp.minimum(r[:, None], r[None, :]) / _NODES
    solution = r
    for _ in range(8):
        solution = r - kernel @ (potential * solution)
    return jnp.sum(r * potential * solution) / _NODES


@eqx.filter_jit
def _terms(function: Callable[[Array], Array], potentials: Float[Array, "n nodes"]) -> tuple[Array, Array]:
    """First- and second-order terms of an expansion about no potential, at each potential."""
    expand = taylor_coefficients(function, order=2)
    terms = jax.vmap(lambda u: expand(jnp.zeros(_NODES), u))(potentials)
    return terms[:, 1], terms[:, 2]


class _Scaled(eqx.Module):
    """A network between unit scales."""

    network: eqx.nn.MLP
    scale: Float[Array, ""]

    def __call__(self, potential: Float[Array, " nodes"]) -> Float[Array, ""]:
        return self.scale * self.network(potential / _DEPTH)


@eqx.filter_jit
def _learn(
    start: Key, key: Key, inputs: Float[Array, "n nodes"], targets: Float[Array, " n"], steps: Array, most: int
) -> _Scaled:
    """Train for some steps; up to ``most`` nothing changes any more, so that one program trains all three networks."""
    scale = jnp.std(targets)
    network = eqx.nn.MLP(_NODES, "scalar", 64, 2, activation=jax.nn.gelu, key=start)
    arrays, static = eqx.partition(network, eqx.is_inexact_array)

    def loss(arrays: eqx.nn.MLP, rows: Array) -> Array:
        outputs = jax.vmap(eqx.combine(arrays, static))(inputs[rows] / _DEPTH)
        return jnp.mean((outputs - targets[rows] / scale) ** 2)

    def rows(step: Array, key: Key) -> Array:
        return jax.random.randint(key, (128,), 0, len(inputs))

    optimizer = optax.adam(lambda count: 3e-3 * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(count / steps, 1))))
    arrays, _ = trained(loss, arrays, optimizer, rows, most, key=key)
    return _Scaled(eqx.combine(arrays, static), scale)


def _relative(ours: Float[Array, " n"], true: Float[Array, " n"]) -> float:
    return float(jnp.sqrt(jnp.mean((ours - true) ** 2) / jnp.mean(true**2)))


__all__ = ["PAPER", "checks"]

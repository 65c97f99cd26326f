"""Lenses: a boolean circuit that learns by its reverse derivative over the field of two elements.

The circuit is a table of four bits' functions: sixteen parameters, of which the inputs choose one. It sees one example
after another, each with the parity of some of its bits, and puts the change that it wants back onto the parameters.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ..._core import Key
from ...estimate import boolean_lens
from .._contrast import Contrast
from .._records import Check, Paper

PAPER = Paper(
    slug="lenses",
    title="Categorical Foundations of Gradient-Based Learning",
    year=2021,
    link="https://arxiv.org/abs/2103.01931",
    rooms=("estimate",),
    row=153,
    read="code",
)

_BITS, _EXAMPLES, _BATCH = 4, 64, 8


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Learn a parity from examples by reverse derivatives, and by flips that are kept where they help.

    Args:
        key: of the parities, the examples and the flips.
        full: the same; the problem is small.

    Returns:
        One check.
    """
    keys = jax.random.split(key, 12)
    methods = {"reverse derivative": _by_derivative, "flips that help on eight examples": _by_flips(_BATCH)}
    methods["flips that help on all examples seen"] = _by_flips(_EXAMPLES)
    return [
        Check(
            "A boolean circuit learns a parity by its reverse derivative where random flips do not, as many examples "
            "seen.",
            "stated in words: boolean circuits are trained by their reverse derivative",
            contrasts=Contrast(
                "inputs that are answered right, %",
                {name: jax.jit(jax.vmap(lambda k, run=run: _answered(run, k)))(keys) for name, run in methods.items()},
                "higher",
                margin=10.0,
            ),
            expected=False,
            tried="a table of sixteen parameters, 64 examples: it learns, but flips that are tried on all examples "
            "seen learn as well; they ask for as many evaluations of the circuit as the reverse derivative does",
        )
    ]


def _inputs() -> Bool[Array, "inputs bits"]:
    return (jnp.arange(2**_BITS)[:, None] >> jnp.arange(_BITS)[None]) % 2 == 1


def _circuit(bits: Bool[Array, " parameters+bits"]) -> Bool[Array, " one"]:
    """The parameter that the inputs choose, by ands and exclusive ors alone."""
    table, x = bits[: 2**_BITS], bits[2**_BITS :]
    chosen = jnp.all(_inputs() == x[None], axis=1)
    return (jnp.sum((table & chosen).astype(jnp.int32)) % 2 == 1)[None]


def _by_derivative(start: Array, x: Array, y: Array, key: Key) -> Array:
    lens = boolean_lens(_circuit)

    def step(table: Array, example: tuple[Array, Array]) -> tuple[Array, None]:
        inputs, wanted = example
        bits = jnp.concatenate([table, inputs])
        change = lens.get(bits) ^ wanted[None]
        return table ^ lens.put(bits, change)[: 2**_BITS], None

    # Own loop: bits have no gradient and no optimiser.
    return jax.lax.scan(step, start, (x, y))[0]


def _by_flips(batch: int) -> Callable[[Array, Array, Array, Key], Array]:
    """One flip an example, kept where it answers more of the latest examples."""

    def run(start: Array, x: Array, y: Array, key: Key) -> Array:
        def right(table: Array, latest: Array) -> Array:
            answers = jax.vmap(lambda inputs: _circuit(jnp.concatenate([table, inputs]))[0])(x)
            return jnp.sum((answers == y) & latest)

        def step(table: Array, now: tuple[Array, Key]) -> tuple[Array, None]:
            number, key = now
            latest = (jnp.arange(len(y)) <= number) & (jnp.arange(len(y)) > number - batch)
            flipped = table ^ (jnp.arange(2**_BITS) == jax.random.randint(key, (), 0, 2**_BITS))
            return jnp.where(right(flipped, latest) > right(table, latest), flipped, table), None

        # Own loop: as above.
        return jax.lax.scan(step, start, (jnp.arange(len(y)), jax.random.split(key, len(y))))[0]

    return run


def _answered(run: Callable[[Array, Array, Array, Key], Array], key: Key) -> Array:
    parity_key, start_key, row_key, run_key = jax.random.split(key, 4)
    every = _inputs()
    counted = jax.random.bernoulli(parity_key, 0.5, (_BITS,))
    wanted = jnp.sum((every & counted[None]).astype(jnp.int32), axis=1) % 2 == 1
    rows = jax.random.randint(row_key, (_EXAMPLES,), 0, len(every))
    start = jax.random.bernoulli(start_key, 0.5, (len(every),))
    table = run(start, every[rows], wanted[rows], run_key)
    answers = jax.vmap(lambda inputs: _circuit(jnp.concatenate([table, inputs]))[0])(every)
    return 100 * jnp.mean((answers == wanted).astype(jnp.float32))


__all__ = ["PAPER", "checks"]

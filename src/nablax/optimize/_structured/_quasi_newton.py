"""The minimum of a smooth function, of which a method's step is made."""

from collections.abc import Callable

import jax
import optax
from jaxtyping import Array, Float, PyTree


def minimised(function: Callable[[PyTree], Float[Array, ""]], start: PyTree, steps: int) -> PyTree:
    """Where L-BFGS has come to after some steps, with Optax's line search; a gradient and more for each of them."""
    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(function)

    def step(carry: tuple[PyTree, PyTree], _: None) -> tuple[tuple[PyTree, PyTree], None]:
        at, state = carry
        value, gradient = value_and_grad(at, state=state)
        updates, state = solver.update(gradient, state, at, value=value, grad=gradient, value_fn=function)
        return (optax.apply_updates(at, updates), state), None

    (at, _), _ = jax.lax.scan(step, (start, solver.init(start)), length=steps)
    return at

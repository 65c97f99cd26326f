"""What functions that an update is given return, checked: a number or an array too many would be broadcast.

Their convolutions get the layout that is fast on a CPU in the loops and branches that they are called in.
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float, PyTree

from .._core import Product, canonical_convolutions, check_callable, check_like, check_pair, check_shape, split


def one_value(value: Any, *, by: str) -> Float[Array, ""]:
    """The loss of a batch, one number of any kind.

    Raises:
        ValueError: it is none, or there are several.
    """
    return check_shape(value, (), what=f"one loss as value of {by}", fix="Pass the batch's mean.")


def looking(grad_fn: Any, like: PyTree) -> Callable[[PyTree], tuple[Array, PyTree]]:
    """The function of values and gradients, each of whose answers is looked at.

    Args:
        grad_fn: ``grad_fn(params) -> (value, grads)``.
        like: what gradients are shaped like.

    Raises:
        ValueError: it cannot be called; where it is called, its value is no pair, or the second of it no such gradient.
    """
    fix = "Pass grad_fn(params) -> (value, grads) of all parameters, as jax.value_and_grad makes it; no mask round it."
    check_callable(grad_fn, what="grad_fn", fix=fix)

    def look(at: PyTree) -> tuple[Array, PyTree]:
        value, grads = check_pair(
            canonical_convolutions(grad_fn)(at), expected="a grad_fn that returns (value, grads)", fix=fix
        )
        check_like(grads, like, what="a gradient that", fix=fix)
        return value, grads

    return look


def multiplying(product_fn: Any) -> Product:
    """The product with a curvature, each of whose answers is looked at.

    Raises:
        ValueError: it cannot be called; where it is called, what comes is not shaped like what went in.
    """
    fix = "Pass product_fn(vector) -> product, both trees like the parameters."
    check_callable(product_fn, what="product_fn", fix=fix)

    def product(vector: PyTree) -> PyTree:
        image, _ = split(canonical_convolutions(product_fn)(vector))
        check_like(image, split(vector)[0], what="a product that", fix=fix)
        return image

    return product

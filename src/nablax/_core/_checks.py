"""What a signature declares — shapes, dtypes, counts, keys — checked at trace time, in words that say what to do."""

import inspect
import operator
import re
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from ._errors import fault


def described(tree: PyTree) -> str:
    """A tree by the dtypes and shapes of its arrays, such as ``f32[3,2]`` or ``{'x': i32[5]}``."""
    text = " ".join(eqx.tree_pformat(tree, short_arrays=True, struct_as_array=True).split())
    return re.sub(r"\bweak_(?=\w+\[)", "", text)  # that a number was Python's once is no news


def check_like(value: PyTree, like: PyTree, *, what: str, fix: str) -> None:
    """Refuse a tree whose structure or shapes are not another's; nothing may be broadcast in silence.

    Args:
        value: arrays or `jax.ShapeDtypeStruct`.
        like: what it should be shaped like.
        what: the value in words, such as "a field whose value".
        fix: what the user can do.

    Raises:
        ValueError: they differ.
    """
    if not shaped_like(value, like):
        raise fault(expected=f"{what} is shaped like {described(like)}", got=described(value), fix=fix)


def shaped_like(value: PyTree, like: PyTree) -> bool:
    """Whether structures and shapes are the same."""
    leaves, others = jax.tree.leaves(value), jax.tree.leaves(like)
    same = str(jax.tree.structure(value)) == str(jax.tree.structure(like))
    return same and all(_shape(a) == _shape(b) for a, b in zip(leaves, others))


def _shape(leaf: Any) -> tuple[int, ...] | None:
    try:
        return jnp.shape(leaf)
    except (TypeError, ValueError):  # a word is no array, and has no shape
        return None


def check_shape(value: Any, shape: tuple[int | None, ...], *, what: str, fix: str) -> Array:
    """An array of a declared shape, None standing for any length; everything else is refused.

    Args:
        value: what came; NumPy's and JAX's arrays, tracers and numbers are arrays, lists and strings are not.
        shape: declared.
        what: the value in words, such as "points".
        fix: what the user can do.

    Returns:
        The value as an array of JAX.

    Raises:
        ValueError: no array, or another shape.
    """
    wanted = f"{what} of shape [{', '.join('…' if n is None else str(n) for n in shape)}]"
    if not isinstance(value, (jax.Array, np.ndarray, np.generic, int, float)):
        raise fault(expected=wanted, got=f"a {type(value).__name__}", fix=fix)
    found = jnp.shape(value)
    if len(found) != len(shape) or any(n is not None and n != m for n, m in zip(shape, found)):
        raise fault(expected=wanted, got=described(value), fix=fix)
    return jnp.asarray(value)


def check_rows(tree: PyTree, rows: int, *, what: str, fix: str) -> None:
    """Refuse a tree with an array whose leading axis is not one of so many rows; a tree without arrays passes.

    Raises:
        ValueError: it has one.
    """
    if not all((_shape(leaf) or (0,))[0] == rows for leaf in jax.tree.leaves(tree)):
        raise fault(expected=f"{what} with leading axis {rows}", got=described(tree), fix=fix)


def check_instance(value: Any, kind: type | tuple[type, ...], *, what: str, fix: str) -> None:
    """Refuse what is not of a kind; of a class that was not called, say so.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, type):
        name = value.__name__
        raise fault(expected=what, got=f"the class {name}", fix=f"Make one: {name}(...), with brackets.")
    if not isinstance(value, kind):
        raise fault(expected=what, got=described(value), fix=fix)


def check_pair(value: Any, *, expected: str, fix: str) -> tuple[Any, Any]:
    """What a function has returned, where that is a tuple of two.

    Raises:
        ValueError: it is not.
    """
    if not (isinstance(value, tuple) and len(value) == 2):
        raise fault(expected=expected, got=described(value), fix=fix)
    return value


def check_finite(tree: PyTree, *, what: str, fix: str) -> None:
    """Refuse rows of which one holds NaN or infinity, and name it. What is traced cannot be looked at, and passes.

    Raises:
        ValueError: one does.
    """
    for leaf in jax.tree.leaves(tree):
        if known_finite(leaf) is not False:
            continue
        rows = np.flatnonzero(~np.isfinite(np.asarray(leaf, np.float64)).reshape(len(leaf), -1).all(axis=1))
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        raise fault(expected=f"finite {what}", got=f"NaN or infinity in row {rows[0]}{more}", fix=fix)


def known_finite(leaf: Any) -> bool | None:
    """Whether an array holds neither NaN nor infinity; None of what is traced, which cannot be looked at."""
    if isinstance(leaf, jax.core.Tracer):
        return None
    numbers = np if isinstance(leaf, np.ndarray) else jnp  # each where it is: a batch may be paired beside a device
    with jax.ensure_compile_time_eval():  # in the midst of a trace, numbers that are known stay numbers
        return bool(numbers.all(numbers.isfinite(leaf)))


def check_shape_of_one(shape: Any) -> tuple[int, ...]:
    """The shape of one sample; a whole number stands for a vector of that length.

    Raises:
        ValueError: it is neither, or a side is not positive.
    """
    sides = (shape,) if isinstance(shape, (int, np.integer)) else shape
    if not isinstance(sides, (tuple, list)) or not all(
        isinstance(side, (int, np.integer)) and not isinstance(side, bool) and side > 0 for side in sides
    ):
        raise fault(
            expected="the shape of one sample, a tuple of positive integers",
            got=repr(shape),
            fix="Write (2,) for a vector of two, without the batch axis.",
        )
    return tuple(int(side) for side in sides)


def check_floats(tree: PyTree, *, what: str, fix: str) -> None:
    """Refuse a tree with an array of integers, booleans or complex numbers, or without any array.

    Raises:
        ValueError: it has one.
    """
    leaves = jax.tree.leaves(tree)
    if not leaves or not all(hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating) for x in leaves):
        raise fault(expected=f"{what} of real floating-point numbers", got=described(tree), fix=fix)


def check_count(value: Any, *, what: str, least: int = 1) -> int:
    """A whole number that is not too small, of Python's or NumPy's; 40.0 and "40" are refused.

    Raises:
        ValueError: it is not.
    """
    try:
        count = operator.index(value)
    except TypeError:
        count = None
    if count is None or isinstance(value, bool) or count < least:
        array = isinstance(value, jax.Array)
        raise fault(
            expected=f"{what} as a whole number, at least {least}",
            got=f"an array {described(value)}" if array else repr(value),
            fix=f"Pass int({what}), known before the program is compiled."
            if array
            else f"Pass {what}={least} or more.",
        )
    return count


def check_key(key: Any, *, what: str = "key") -> None:
    """Refuse what is no key of JAX's, such as a seed.

    Raises:
        ValueError: it is none.
    """
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = isinstance(key, (jax.Array, np.ndarray)) and key.dtype == jnp.uint32 and key.ndim >= 1
    if not (typed or raw):
        raise fault(expected=f"{what}: a random key", got=described(key), fix="Pass jax.random.key(0).")


def check_callable(value: Any, *, what: str, fix: str, takes: int | None = None) -> Callable[..., Any]:
    """Refuse what cannot be called, or not with so many arguments by position.

    Raises:
        ValueError: it cannot.
    """
    if not callable(value):
        raise fault(expected=f"{what}, a function", got=described(value), fix=fix)
    if takes is not None:
        try:
            signature = inspect.signature(value)
        except (TypeError, ValueError):  # not everything that is called has one
            return value
        try:
            signature.bind(*[None] * takes)
        except TypeError:
            arguments = "one argument" if takes == 1 else f"{takes} arguments"
            raise fault(expected=f"{what} of {arguments}", got=f"one of {signature}", fix=fix) from None
    return value


def check_optimizer(value: Any, *, what: str = "optimizer") -> optax.GradientTransformationExtraArgs:
    """An Optax optimiser in the form that takes extra arguments; what cannot update is refused.

    Raises:
        ValueError: it is none, such as ``optax.adam`` that was not called.
    """
    if isinstance(value, optax.MultiSteps):
        return optax.GradientTransformationExtraArgs(value.init, value.update)
    if callable(getattr(value, "init", None)) and callable(getattr(value, "update", None)):
        return optax.with_extra_args_support(value)
    name = getattr(value, "__name__", None)
    raise fault(
        expected=f"{what}, a transformation of Optax with init and update",
        got=f"the function {name}" if callable(value) and name else described(value),
        fix=f"Call it: {what}=optax.{name}(...)."
        if callable(value) and hasattr(optax, str(name))
        else f"Pass {what}=optax.adam(1e-3), for one.",
    )


def check_loss(value: Any, *, what: str = "a loss", fix: str | None = None, several: bool = False) -> Any:
    """What a loss has returned, where that is one real number of JAX's; its shape and dtype will do.

    Args:
        value: what came.
        what: the function in words.
        fix: what the user can do; by default told from what came.
        several: a vector of such numbers will do as well.

    Returns:
        The value.

    Raises:
        ValueError: it is a vector, a tuple with auxiliary values, complex, an integer, or a number of Python's.
    """
    if isinstance(value, tuple):
        told = "Return the loss alone, without auxiliary values."
    elif not isinstance(value, (jax.Array, jax.ShapeDtypeStruct)):
        told = "Compute it from the parameters by jax.numpy: numbers of Python and NumPy have no gradient."
    elif value.ndim > several:
        told = "Take the mean over the batch."
    elif jnp.issubdtype(value.dtype, jnp.complexfloating):
        told = "Return its real part, or its modulus."
    elif not jnp.issubdtype(value.dtype, jnp.floating):
        told = "Return a floating-point number: integers and booleans have no gradient."
    else:
        return value
    raise fault(expected=f"{what} that returns one real number", got=described(value), fix=fix or told)


def check_loss_and_aux(value: Any, *, several: bool = False) -> tuple[Any, Any]:
    """What a loss with auxiliary values has returned; arguments as in `check_loss`.

    Raises:
        ValueError: it is no pair, or its first is not what a loss may return.
    """
    loss, aux = check_pair(
        value,
        expected="a loss that returns (value, aux), for has_aux=True",
        fix="Return both, or leave out has_aux.",
    )
    return check_loss(loss, several=several), aux


def check_rate(value: Any, *, what: str = "learning_rate") -> None:
    """Refuse a learning rate that is no positive number, a schedule among them.

    Raises:
        ValueError: it is none.
    """
    if callable(value):
        raise fault(
            expected=f"{what}, a number",
            got=f"the function {getattr(value, '__name__', value)}",
            fix=f"Pass the schedule's value at this step: {what}=schedule(step).",
        )
    check_shape(value, (), what=what, fix=f"Pass {what}=1e-3, for one.")
    if not (jnp.isrealobj(value) and 0 < float(value) < float("inf")):
        raise fault(expected=f"{what} above 0 and finite", got=value, fix="At other rates no step down is made.")

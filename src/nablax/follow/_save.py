"""A model's arrays in one file, and back."""

from pathlib import Path
from typing import TypeVar

from jaxtyping import PyTree

from .._core import fault, named_arrays, read_arrays, with_arrays, write_arrays

Tree = TypeVar("Tree")


def save(path: Path | str, tree: PyTree) -> None:
    """Write the arrays of a model to one file of safetensors, whole or not at all.

    Arrays of JAX and of NumPy are kept, in their own types, by where they stand in the tree; functions, strings and
    Python's numbers are not, for `load` takes them from the tree that it is given. The file holds no code and other
    programs read it too. An earlier file of that name stays until the new one is complete.

    Args:
        path: of the file, such as ``"model.safetensors"``; its folder exists.
        tree: any pytree with arrays: a field, a whole `nablax.transport.Transport`, an optimiser's state.

    Raises:
        ValueError: the tree has no array, or one of a type that does not come back from the format (complex128, floats
            of 8 bits).
        ImportError: safetensors is not installed; the message names the extra.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> from nablax.follow import load, save
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/line.safetensors", {"slope": jnp.array([3.0, 1.0]), "name": "line"})
        ...     load(f"{folder}/line.safetensors", {"slope": jnp.zeros(2), "name": "line"})
        {'name': 'line', 'slope': Array([3., 1.], dtype=float32)}

    Cost: one copy of the arrays on the host.
    """
    arrays = named_arrays(tree)
    if not arrays:
        raise fault(expected="a tree with arrays", got="none", fix="There is nothing to save.")
    write_arrays(Path(path), arrays)


def load(path: Path | str, like: Tree) -> Tree:
    """Read what `save` wrote into the structure of another model.

    Nothing is cast, cut or left out: names, shapes and dtypes are those of ``like``, or the file is refused. No code
    in the file is executed.

    Args:
        path: of the file.
        like: a tree built as the saved one was, with any values: a fresh model, or its shapes alone, which cost
            nothing: ``equinox.filter_eval_shape(build, key)``.

    Returns:
        ``like`` with the arrays of the file in place of its own.

    Raises:
        ValueError: the file's arrays are not those of ``like`` (the first that differs is named), or it is no such
            file, or damaged.
        FileNotFoundError: there is no file.
        ImportError: safetensors is not installed; the message names the extra.

    Example:
        >>> import equinox as eqx, jax, tempfile
        >>> from nablax.fields import MLP
        >>> from nablax.follow import load, save
        >>> build = lambda key: MLP((2,), width=8, depth=1, key=key)
        >>> model = build(jax.random.key(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/field.safetensors", model)
        ...     again = load(f"{folder}/field.safetensors", eqx.filter_eval_shape(build, jax.random.key(1)))
        >>> bool(eqx.tree_equal(model, again))
        True

    Cost: one copy of the arrays on the host.
    """
    return with_arrays(
        read_arrays(Path(path))[0],
        like,
        source=str(path),
        fix="Build `like` with the arguments and the precision that the saved model was built with.",
    )

"""A tree's arrays by name, on disk and back; files that are whole or absent."""

import os
import secrets
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ._errors import fault, require

# What the format holds and its reader for NumPy knows; the types of 8 bits and less it does not.
STORED = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64"),
}
_NOTE = "note"
# Ends the names of files that are being written, or that a kill left so.
PART = ".part"


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of typed random keys."""
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _named(tree: PyTree) -> tuple[dict[str, Any], Any]:
    """Leaves of a tree by where they stand in it, such as ``layers[0].weight``, and its structure."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path).lstrip("."): leaf for path, leaf in leaves}, structure


def _bits(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def _filled(leaf: Any) -> Any:
    """Shapes of keys as keys, which know their generator."""
    shape = isinstance(leaf, jax.ShapeDtypeStruct) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jnp.zeros(leaf.shape, leaf.dtype) if shape else leaf


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def named_arrays(tree: PyTree) -> dict[str, np.ndarray]:
    """Arrays of a tree on the host, by where they stand in it; random keys as their bits."""
    return {name: np.asarray(_bits(leaf)) for name, leaf in _named(tree)[0].items() if _is_array(leaf)}


def with_arrays(arrays: dict[str, np.ndarray], like: PyTree, *, source: str, fix: str) -> PyTree:
    """Put arrays by name into the structure of another tree; all that is no array is that tree's.

    Args:
        arrays: from `named_arrays`.
        like: arrays of the same shapes and dtypes, or `jax.ShapeDtypeStruct` in their places.
        source: where the arrays come from, in words, such as "a checkpoint".
        fix: what the user can do where they do not fit.

    Returns:
        The tree; NumPy's arrays where ``like`` has them, JAX's elsewhere.

    Raises:
        ValueError: names, shapes or dtypes differ; the first that does is named.
    """
    leaves, structure = _named(jax.tree.map(_filled, like))
    wanted = {name: _kind(_bits(leaf)) for name, leaf in leaves.items() if _is_array(leaf)}
    stored = {name: _kind(array) for name, array in arrays.items()}
    for name in [*wanted, *stored]:
        if wanted.get(name) != stored.get(name):
            raise fault(
                expected=f"{source} with {name or 'one array'}: {wanted.get(name, 'nothing')}",
                got=stored.get(name, "nothing"),
                fix=fix,
            )

    def put(name: str, leaf: Any) -> Any:
        if not _is_array(leaf):
            return leaf
        if is_key(leaf):
            return jax.random.wrap_key_data(jnp.asarray(arrays[name]), impl=jax.random.key_impl(leaf))
        if isinstance(leaf, np.ndarray | np.generic):
            return arrays[name][()] if isinstance(leaf, np.generic) else arrays[name]
        placed = jax.device_put(arrays[name])  # asarray would compile a program for each shape
        if placed.dtype != arrays[name].dtype:
            raise fault(
                expected=f"double precision for {name or 'one array'}, {_kind(arrays[name])}",
                got="JAX's single precision",
                fix='Set jax.config.update("jax_enable_x64", True), or ask for single precision when saving.',
            )
        return placed

    return jax.tree_util.tree_unflatten(structure, [put(name, leaf) for name, leaf in leaves.items()])


def _kind(array: Any) -> str:
    return f"{array.dtype} {array.shape}"


def write_arrays(path: Path, arrays: dict[str, np.ndarray], note: str = "") -> None:
    """Write arrays by name, and a text beside them, as one file of safetensors, whole or not at all.

    Raises:
        ValueError: the format does not know an array's dtype.
        ImportError: safetensors is not installed.
    """
    safetensors = require("safetensors.numpy", extra="app")
    for name, array in arrays.items():
        if array.dtype.name not in STORED:
            raise fault(
                expected="arrays of types that safetensors reads back",
                got=f"{name or 'one array'}: {_kind(array)}",
                fix="Convert it, such as complex128 to its real and imaginary part.",
            )
    # The format's own writer stores memory as it lies, and takes it for row after row.
    rows = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_whole(path, safetensors.save(rows, metadata={_NOTE: note} if note else None))


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of a file of safetensors by name, and the text beside them, empty without; no code in it is executed.

    Raises:
        ValueError: it is no such file, or is damaged.
        OSError: it cannot be read.
        ImportError: safetensors is not installed.
    """
    safetensors = require("safetensors", extra="app")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            return arrays, (file.metadata() or {}).get(_NOTE, "")
    except safetensors.SafetensorError as error:
        raise fault(
            expected="a whole file of safetensors",
            got=f"{path}, in which {error}",
            fix="Write it anew, or take it from a copy.",
        ) from None


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file beside its place and move it there, so that it is whole or absent, whoever else writes it too."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}")
    try:
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

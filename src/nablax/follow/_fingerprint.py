"""What a run depends on, as digests that outlive the process: its loss, its optimiser and its data."""

import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from enum import Enum
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import PyTree

from .. import __version__
from .._core import described, is_key
from ._devices import local
from ._train import Setup, State

# Of larger arrays only so many bytes are looked at, in rows at even distances.
_LOOKED_AT = 64 * 2**20
# A program is traced differently by other versions of these.
_TRACED_BY = ("jax", "equinox", "optax")


def programs(setup: Setup, state: State, batch: PyTree) -> dict[str, Any]:
    """Digests of the traced loss and optimiser, with every constant in them, and by which versions on which device.

    The values of weights and states do not count, shapes serve as well. The loss is traced with its gradient, so that a
    custom rule of differentiation counts, and so does another estimator. The optimiser's program is that of its start
    and of a whole step: rates, schedules, masks, seeds, extra arguments.

    Args:
        setup: of the run.
        state: at its start.
        batch: arrays or their shapes.
    """
    state, batch, key = _shapes(state), _shapes(batch), _shapes(setup.key)

    def gradient(state: State, batch: PyTree, key: Any) -> PyTree:
        return eqx.tree_at(lambda s: s.key, setup, key).differentiated(state, batch)(state.params)

    def step(state: State, batch: PyTree, key: Any) -> PyTree:
        model = eqx.combine(state.params, setup.frozen)
        after, *rest = setup.step()(model, state.optimizer, (state.model_state, batch), key=key)
        return eqx.filter(after, eqx.is_inexact_array), rest

    started = _digest(jax.make_jaxpr(setup.optimizer.init)(state.params))
    return {
        "versions": _versions(),
        "loss": _digest(jax.make_jaxpr(gradient)(state, batch, key)),
        "optimizer": started + _digest(jax.make_jaxpr(step)(state, batch, key)),
    }


def _versions() -> dict[str, str]:
    found = {"nablax": __version__} | {name: importlib.metadata.version(name) for name in _TRACED_BY}
    return found | {"device": jax.default_backend()}


def data_digest(tree: PyTree) -> str:
    """Structure, shapes and types of arrays, and a digest of what is in them.

    Arrays up to 64 MiB count in full, of larger ones rows at even distances that amount to as much.
    """
    content = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        content.update(_bytes(leaf))
    return f"{described(_shapes(tree))} {content.hexdigest()[:16]}"


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    leaf = leaf if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) else np.asarray(leaf)
    return jax.ShapeDtypeStruct(leaf.shape, _as_trained(leaf.dtype))


def _as_trained(dtype: Any) -> Any:
    """The type that arrays of this one get on the device; double precision, where it is off, counts as single."""
    return dtype if jax.dtypes.issubdtype(dtype, jax.dtypes.extended) else jax.dtypes.canonicalize_dtype(dtype)


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(_shape, tree)


def _bytes(array: Any) -> bytes:
    array = local(array) if isinstance(array, jax.Array) else np.asarray(array)
    if is_key(array):
        array = jax.random.key_data(array)
    size = array.size * np.dtype(_as_trained(array.dtype)).itemsize
    stride = -(-size // _LOOKED_AT)
    looked_at = np.asarray(array[::stride] if stride > 1 and array.ndim else array)
    return looked_at.astype(_as_trained(looked_at.dtype)).tobytes()


def _digest(program: ClosedJaxpr) -> str:
    seen: dict[int, str] = {}

    def hashed(parts: Any) -> str:
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def once(value: Any, describe: Callable[[Any], Any]) -> str:
        # Functions that are called many times are one object, which lives as long as the program.
        if id(value) not in seen:
            seen[id(value)] = hashed(describe(value))
        return seen[id(value)]

    def of_program(jaxpr: Jaxpr) -> Any:
        numbers: dict[Any, int] = {}

        def variable(atom: Any) -> Any:
            if isinstance(atom, Literal):
                return ["literal", str(atom.aval), part(atom.val)]
            return [numbers.setdefault(atom, len(numbers)), str(atom.aval)]

        return [
            [variable(v) for v in (*jaxpr.constvars, *jaxpr.invars)],
            [
                [
                    equation.primitive.name,
                    [variable(v) for v in equation.invars],
                    # What a function is called changes nothing.
                    [[name, part(value)] for name, value in sorted(equation.params.items()) if name != "name"],
                    [variable(v) for v in equation.outvars],
                ]
                for equation in jaxpr.eqns
            ],
            [variable(v) for v in jaxpr.outvars],
        ]

    def part(value: Any) -> Any:
        if isinstance(value, ClosedJaxpr):
            return once(value, lambda closed: [part(closed.jaxpr), [part(const) for const in closed.consts]])
        if isinstance(value, Jaxpr):
            return once(value, of_program)
        if isinstance(value, jax.Array | np.ndarray | np.generic):
            return [str(value.dtype), list(value.shape), hashlib.sha256(_bytes(value)).hexdigest()[:16]]
        if isinstance(value, tuple | list):
            return [type(value).__name__, *map(part, value)]
        if isinstance(value, dict):
            return sorted([str(key), part(item)] for key, item in value.items())
        if isinstance(value, set | frozenset):
            return sorted(json.dumps(part(item)) for item in value)
        if isinstance(value, type):
            return value.__qualname__
        if value is None or isinstance(value, str | bytes | int | float | complex | Enum | np.dtype):
            return repr(value)
        text = repr(value)
        # Functions, and objects that hold some, are told by what they did to the program; an address says nothing.
        return type(value).__qualname__ if callable(value) or "0x" in text else text

    return part(program)


__all__ = ["data_digest", "programs"]

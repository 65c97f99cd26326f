"""Where arrays lie: a full copy on every device, or the rows of a batch spread over them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from .._core import fault, is_key


def spread(batch_size: int) -> NamedSharding | None:
    """Sharding that keeps a full copy on every device of every process, or None when there is one device."""
    devices = jax.devices()
    if len(devices) == 1:
        return None
    if batch_size % len(devices):
        raise fault(
            expected=f"a batch size that {len(devices)} devices can share",
            got=batch_size,
            fix=f"Use a multiple of {len(devices)}.",
        )
    mesh = Mesh(np.array(devices), ("rows",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec())


def place(tree: PyTree, sharding: NamedSharding | None) -> PyTree:
    """Copy host or device arrays to where the sharding says; the originals are never shared.

    Args:
        tree: numbers and arrays, equal in every process.
        sharding: None for the one device.

    Returns:
        Arrays without weak types, whose buffers may be donated.
    """

    def put(leaf: Any) -> Array:
        if is_key(leaf):
            bits = put(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(leaf))
        if sharding is None:
            return jnp.array(leaf, dtype=jnp.asarray(leaf).dtype, copy=True)
        host = np.array(jnp.asarray(local(leaf)))
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, tree)


def local(tree: PyTree) -> PyTree:
    """This process's copy of arrays that lie in full on every device; other leaves pass."""

    def take(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1:
            if is_key(leaf):
                bits = take(jax.random.key_data(leaf))
                return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(leaf))
            return leaf.addressable_data(0)
        return leaf

    return jax.tree.map(take, tree)


def agree(values: np.ndarray | int) -> np.ndarray:
    """What process 0 passed, in every process; the processes must run the same programs in the same order."""
    if jax.process_count() == 1:
        return np.asarray(values)
    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(values)))

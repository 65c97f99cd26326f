"""Which noise goes with which data: couplings of a batch, and batches of coupled pairs for training."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Array, Int, PyTree

from ..._core import Key, check_count, check_floats, check_key, described, fault, rows_of
from ._pairing import cheapest_pairing, check_pairs
from ._sinkhorn import SinkhornCoupling
from ._stable import heuristic_coupling, stable_coupling

Rows = Array | np.ndarray


class Coupling(Protocol):
    """``coupling(noise, data, *, key, labels=None) -> pairing``: ``noise[pairing[i]]`` goes with ``data[i]``."""

    def __call__(self, noise: Rows, data: Rows, *, key: Key, labels: PyTree = None) -> Int[np.ndarray, " batch"]: ...


def independent_coupling(noise: Rows, data: Rows, *, key: Key, labels: PyTree = None) -> Int[np.ndarray, " batch"]:
    """Leave noise and data as they came.

    Args:
        noise: leading axis batch.
        data: leading axis batch.
        key: not used.
        labels: not used.

    Returns:
        ``0, 1, 2, …``

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.transport import independent_coupling
        >>> independent_coupling(jnp.zeros((3, 2)), jnp.ones((3, 2)), key=jax.random.key(0)).tolist()
        [0, 1, 2]

    Cost:
        None of the model.
    """
    check_pairs(noise, data)
    return np.arange(len(data))


def optimal_coupling(noise: Rows, data: Rows, *, key: Key, labels: PyTree = None) -> Int[np.ndarray, " batch"]:
    r"""Pair the batch one to one at the least total squared distance.

    $$
    \pi = \arg\min_\pi \sum_i \|\mathrm{noise}_{\pi(i)} - \mathrm{data}_i\|^2
    $$

    over permutations, exactly. The batch's marginals stay as they were. The noise given a data point is no longer
    normal, so of the four views only the velocity is defined (``Transport(..., independent=False)``); with a condition
    use `class_aware_coupling`.

    Args:
        noise: leading axis batch, any shape after it.
        data: the same shape as ``noise``.
        key: not used: the pairing is a function of the batch.
        labels: not used.

    Returns:
        A permutation: ``noise[pairing[i]]`` goes with ``data[i]``.

    Raises:
        ValueError: the shapes of ``noise`` and ``data`` differ; there are no rows, or one is not finite.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.transport import optimal_coupling
        >>> noise, data = jnp.array([[0.0], [1.0], [2.0]]), jnp.array([[2.1], [0.1], [1.1]])
        >>> optimal_coupling(noise, data, key=jax.random.key(0)).tolist()
        [2, 0, 1]

    Cost:
        No model; on the host, about 2 ms for 256 pairs and 10 ms for 512 on one core.

    References:
        Pooladian et al. (2023), Multisample Flow Matching, https://arxiv.org/abs/2304.14772; Tong et al. (2024),
        Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport,
        https://arxiv.org/abs/2302.00482.
    """
    check_pairs(noise, data)
    return cheapest_pairing(_flat(noise), _flat(data))


def class_aware_coupling(noise: Rows, data: Rows, *, key: Key, labels: PyTree = None) -> Int[np.ndarray, " batch"]:
    r"""Pair at the least squared distance inside each class.

    The noise that came with the rows of a class stays with that class, so that given the class it is still the prior
    and each class keeps its share of it. Pairing across classes would hand each class the noise nearest to it, while a
    sampler later draws the noise from the whole prior.

    Args:
        noise: leading axis batch, drawn independently of the labels.
        data: the same shape as ``noise``.
        key: not used.
        labels: leading axis batch; rows (or numbers) that are equal are one class. A condition that differs in every
            row gives the independent coupling.

    Returns:
        A permutation: ``noise[pairing[i]]`` goes with ``data[i]``.

    Raises:
        ValueError: no labels; the shapes do not fit; there are no rows, or one is not finite.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.transport import class_aware_coupling
        >>> noise, data = jnp.array([[0.0], [1.0], [2.0], [3.0]]), jnp.array([[9.0], [8.0], [1.0], [0.0]])
        >>> labels = jnp.array([0, 0, 1, 1])
        >>> class_aware_coupling(noise, data, key=jax.random.key(0), labels=labels).tolist()
        [1, 0, 3, 2]

    Cost:
        No model; less than `optimal_coupling`, the problems being smaller.

    References:
        Cheng, Schwing (2025), The Curse of Conditions, https://arxiv.org/abs/2503.10636, shows the fault and mends it
        with a term of the cost; here the classes are kept apart exactly.
    """
    check_pairs(noise, data)
    if labels is None:
        raise fault(expected="labels", got="None", fix="Without classes use optimal_coupling.")
    rows = np.asarray(labels)
    if rows.shape[:1] != data.shape[:1]:
        raise fault(expected=f"{len(data)} labels", got=f"shape {rows.shape}", fix="Give one label a row.")
    classes = np.unique(rows.reshape(len(rows), -1), axis=0, return_inverse=True)[1].reshape(-1)
    left, right = _flat(noise), _flat(data)
    pairing = np.arange(len(rows))
    for members in np.split(np.argsort(classes, kind="stable"), np.cumsum(np.bincount(classes))[:-1]):
        if len(members) > 1:
            pairing[members] = members[cheapest_pairing(left[members], right[members])]
    return pairing


def coupled_batches(
    data: Rows,
    coupling: Coupling,
    batch_size: int,
    *,
    key: Key,
    condition: Rows | None = None,
    noise: Rows | None = None,
) -> Callable[[int, int], dict[str, np.ndarray]]:
    """Make a source of coupled batches for `follow.fit`, which calls it in a thread ahead of the device.

    Step k's batch depends on ``key`` and k alone. Everything happens on the host, so that pairing and training
    overlap.

    Args:
        data: rows, leading axis N; NumPy, a memory map or JAX.
        coupling: `optimal_coupling`, `stable_coupling`, `heuristic_coupling`, `class_aware_coupling`, a
            `SinkhornCoupling`, `independent_coupling`, or any callable like them.
        batch_size: pairs in a batch, at most N.
        key: of rows, noise and coupling.
        condition: rows, leading axis N; goes into the batch and to the coupling as labels. Default: none.
        noise: rows to draw the starting points from (with replacement). Default: standard normal.

    Returns:
        ``source(first_step, count)``, a dict of arrays ``[count, batch, ...]``: "data", "noise" and, if there is one,
        "condition".

    Raises:
        ValueError: ``batch_size`` exceeds the rows; the shapes do not fit; the rows are not floats; a condition
            with a coupling that would pair across it; when a batch is made, a coupling that returns no pairing.

    Example:
        >>> import jax, numpy as np, optax
        >>> from nablax.fields import MLP
        >>> from nablax.follow import fit
        >>> from nablax.transport import Linear, coupled_batches, flow_matching, optimal_coupling
        >>> data = np.random.default_rng(0).normal(5.0, 1.0, (256, 2)).astype(np.float32)
        >>> source = coupled_batches(data, optimal_coupling, 64, key=jax.random.key(0))
        >>> source(7, 3)["noise"].shape
        (3, 64, 2)
        >>> model = MLP(2, width=8, depth=1, key=jax.random.key(1))
        >>> done = fit(
        ...     flow_matching(Linear()), model, source,
        ...     optimizer=optax.adam(1e-2), steps=20, batch_size=64, key=jax.random.key(2),
        ... )
        >>> done.result
        'completed'

    Cost:
        The coupling's, beside one batch of noise.
    """
    table = np.asarray(data) if isinstance(data, jax.Array) else data  # a memory map stays one
    check_floats(table, what="data", fix="Convert them to a float dtype.")
    check_key(key)
    size, batch_size = len(table), check_count(batch_size, what="batch_size")
    if batch_size > size:
        raise fault(expected=f"1 ≤ batch_size ≤ {size} rows", got=batch_size, fix="Draw a smaller batch.")
    conditions = None if condition is None else np.asarray(condition)
    if conditions is not None and len(conditions) != size:
        raise fault(expected=f"{size} conditions", got=len(conditions), fix="Give one condition a row.")
    across = (optimal_coupling, stable_coupling, heuristic_coupling)
    if conditions is not None and (coupling in across or isinstance(coupling, SinkhornCoupling)):
        raise fault(
            expected="a coupling that keeps classes apart, since there is a condition",
            got="one that pairs across them, so that a class would train on part of the prior only",
            fix="Use class_aware_coupling.",
        )
    starts = None if noise is None else np.asarray(noise)
    if starts is not None and starts.shape[1:] != table.shape[1:]:
        raise fault(
            expected=f"noise of shape {table.shape[1:]}", got=starts.shape[1:], fix="Give rows like the data's."
        )
    seed = int.from_bytes(np.asarray(jax.random.key_data(key)).tobytes()[:8], "little")

    def pair(step: int) -> dict[str, np.ndarray]:
        # One program for every step: a vectorised one would be compiled anew for each number of steps.
        rows, step_key = _draw(np.uint32(step), size, batch_size, key)
        rows = np.asarray(rows)
        generator = np.random.Generator(np.random.Philox(key=[seed, step]))
        batch = {"data": np.asarray(table[rows])}
        if starts is None:
            kind = batch["data"].dtype if batch["data"].dtype == np.float64 else np.dtype(np.float32)
            drawn = generator.standard_normal(batch["data"].shape, kind)
        else:
            drawn = starts[generator.integers(len(starts), size=batch_size)]
        labels = None
        if conditions is not None:
            labels = batch["condition"] = conditions[rows]
        batch["noise"] = drawn[_places(coupling(drawn, batch["data"], key=step_key, labels=labels), batch_size)]
        return batch

    def source(first_step: int, count: int) -> dict[str, np.ndarray]:
        batches = [pair(step) for step in range(first_step, first_step + count)]
        return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}

    return source


@partial(jax.jit, static_argnums=(1, 2))
def _draw(step: Int[Array, ""], size: int, batch_size: int, key: Key) -> tuple[Int[Array, " batch"], Key]:
    return rows_of(step.astype("int32"), size, batch_size, key=key), jax.random.fold_in(key, step)


def _places(pairing: Any, size: int) -> Int[np.ndarray, " batch"]:
    """What a coupling returned, where it is one place in the batch's noise for each row of data."""
    expected, fix = f"a coupling that returns {size} whole numbers", "noise[pairing[i]] goes with data[i]."
    whole = isinstance(pairing, jax.Array | np.ndarray) and np.issubdtype(pairing.dtype, np.integer)
    if not whole or pairing.shape != (size,):
        raise fault(expected=expected, got=described(pairing), fix=fix)
    places = np.asarray(pairing)
    if places.min() < 0 or places.max() >= size:
        raise fault(expected=f"{expected} below {size}", got=f"{places.min()} to {places.max()}", fix=fix)
    return places


def _flat(rows: Rows) -> np.ndarray:
    return np.asarray(rows).reshape(len(rows), -1)


__all__ = ["Coupling", "class_aware_coupling", "coupled_batches", "independent_coupling", "optimal_coupling"]

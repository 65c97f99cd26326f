"""What ``nablax check`` adds to the report: the field along its paths, and which columns have shifted."""

import jax
import jax.numpy as jnp
import numpy as np

from ... import diagnose
from .._key import random_key
from .._runs._run import Model

_FOLLOWED = 64  # trajectories
_COMPARED = 500  # rows of each set
_TIME = 0.8  # of the path: the score of rows with a little noise on them, which both sets get
_SHOWN = 5
_LEVEL = 0.05


def field_health(model: Model, condition: np.ndarray, seed: int) -> str:
    """The field from noise to data: is it a gradient, how straight does it run, how stiff is it.

    Args:
        model: the opened run.
        condition: condition vectors, one a trajectory.
        seed: of the noise and the probes.

    Returns:
        The tables of `diagnose.field_health`.
    """
    transport, (first, last) = model.transport, model.transport.path.times
    key = random_key(seed)
    args = model.arguments(condition[:_FOLLOWED])
    count = _FOLLOWED if args is None else len(args)
    starts = jax.vmap(transport.prior.sample)(jax.random.split(key, count))
    return diagnose.field_health(
        transport.velocity, first, starts, args, t1=last, steps=32, trajectories=count, key=key
    ).table()


def shifted(model: Model, held_out: np.ndarray, others: np.ndarray, seed: int) -> list[str]:
    """Which columns of some rows are not distributed, given the other columns, as those held out.

    Args:
        model: the opened run.
        held_out: encoded rows that the model was not trained on.
        others: encoded rows in question.
        seed: of the noise and the permutations.

    Returns:
        One line that sums up, and one for each of the most shifted columns; or one that says why there are none.
    """
    transport, codec = model.transport, model.codec
    noise_key, order_key = jax.random.split(random_key(seed))

    def noisy(base: np.ndarray, key: jax.Array) -> jax.Array:
        first, second = jax.random.split(key)
        y, _ = codec.dequantise(jnp.asarray(base[:_COMPARED]), first)
        noise = jax.random.normal(second, y.shape, y.dtype)
        return transport.path.interpolate(jnp.asarray(_TIME, y.dtype), noise, y)

    sets = [noisy(base, key) for base, key in zip((held_out, others), jax.random.split(noise_key))]
    null = jnp.zeros(codec.condition_dim) if codec.condition_dim else None
    shape = sets[0].shape[1:]

    def score(y: jax.Array) -> jax.Array:
        return transport.score(jnp.asarray(_TIME, y.dtype), y.reshape(shape), null).reshape(-1)

    if model.config.kind == "images":
        names = [f"pixel {tuple(int(i) for i in place)}" for place in np.ndindex(*shape)]
        groups = None
    else:
        table = model.table("check")
        names = [column.name for column in table.modelled]
        groups = [table.layout.coordinates(j) for j in range(len(names))]
    try:
        found = diagnose.feature_shift(
            *(rows.reshape(len(rows), -1) for rows in sets),
            key=order_key,
            score=score if transport.independent and model.joint is None else None,
            groups=groups,
        )
    except ValueError as error:
        return [f"column shift was not measured: {error}"]
    p_values, excess = np.asarray(found.adjusted_p_value), np.asarray(found.excess)
    moved = np.sum(p_values <= _LEVEL)
    head = f"{moved} of {len(names)} columns have shifted against rows kept from training, given the other columns"
    lines = [head + f" (adjusted p ≤ {_LEVEL}, {found.permutations} permutations)"]
    for place in np.lexsort((-excess, p_values))[:_SHOWN]:
        above = f"{excess[place]:.3g} standard deviations above chance"
        lines.append(f"shift of {names[place]}: p = {p_values[place]:.3g}, {above}")
    return lines


__all__ = ["field_health", "shifted"]

"""Landscape learning: a map into a model's inputs, trained so that descent through it is quick."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optimistix
from jaxtyping import Array, Float, PyTree

from ..._core import (
    AbstractRecord,
    Key,
    canonical_convolutions,
    check_callable,
    check_count,
    check_floats,
    check_key,
    check_like,
    check_optimizer,
    check_rows,
    checked_loss,
    exact,
    fault,
)
from .._outcome import all_finite, outcome
from .._settings import check_positive

_LOSS = "Write loss(x, target) -> number, of one target."


class LandscapeLearning(AbstractRecord):
    """A map, and how descent through it went while it was learned.

    Attributes:
        params: of the map.
        values: the loss along the descents of each round before the map was changed, mean over its targets,
            [steps, inner_steps + 1].
        result: ``optimistix.RESULTS.successful``, or that a loss or a parameter was not finite.
        evaluations: gradients of the loss of one target, for the descents and for the map.
    """

    params: PyTree
    values: Float[Array, "steps inner"]
    result: optimistix.RESULTS
    evaluations: int = eqx.field(static=True)


@eqx.filter_jit
@canonical_convolutions
@exact
def landscape_learning(
    loss: Callable[[PyTree, PyTree], Array],
    mapping: Callable[[PyTree, PyTree], PyTree],
    params: PyTree,
    start: PyTree,
    targets: PyTree,
    *,
    rate: float | Float[Array, ""],
    steps: int,
    inner_steps: int = 10,
    updates: int = 5,
    batch_size: int = 32,
    capacity: int = 1024,
    optimizer: optax.GradientTransformation | None = None,
    key: Key,
    throw: bool = True,
) -> LandscapeLearning:
    r"""Learn a map in whose domain few steps of descent invert a model.

    .. math::
        z_{t+1} = z_t-\lambda\nabla_zL(G_\theta(z_t),y),\ t=0,\dots,T-1; \qquad
        \min_\theta\ \mathbb E_y\sum_{t=0}^TL(G_\theta(z_t),y)\ \text{with the } z_t \text{ held}

    in turns: descents for targets drawn anew, with the map as it is, are stored, as many as there is room for; then the
    map is trained on stored ones. Points of small t weigh most, since their losses are the largest: the map moves low
    losses to where a descent begins. Afterwards descend on ``loss(mapping(params, z), y)`` from the same start, at the
    same rate, for other targets.

    Args:
        loss: ``loss(x, target) -> number``, of one target: what the model to be inverted gives at x, beside it.
        mapping: G, ``mapping(params, z) -> x``, of one z.
        params: θ, a tree with floating-point arrays; such that G is near the identity, say.
        start: z₀ of every descent, a tree of floating-point arrays.
        targets: to train with, stacked along a leading axis.
        rate: λ, above 0, in units of z² over the loss.
        steps: rounds.
        inner_steps: T, steps of a descent; 10 by default, ours.
        updates: of the map in a round, each on as many stored descents as a round makes; 5 by default, ours.
        batch_size: targets of a round, at most as many as there are; 32 by default, ours.
        capacity: descents that are stored, at least ``batch_size``; 1024 by default, ours. The oldest give way.
        optimizer: of the map; ``optax.adam(1e-3)`` by default, ours.
        key: of the targets that are drawn.
        throw: raise where a loss or a parameter is not finite (default), or only report it in ``result``.

    Returns:
        A :class:`LandscapeLearning`.

    Raises:
        ValueError: functions that are none or give no number, settings out of range, or no key.
        RuntimeError: something was not finite; raised when it is run.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> scales = jnp.array([1.0, 0.1])  # an ill-conditioned model, and a map that can undo that
        >>> targets = jax.random.normal(jax.random.key(0), (64, 2)) * scales[None]
        >>> learned = optimize.landscape_learning(
        ...     lambda x, y: jnp.sum((scales * x - y) ** 2) / 2, lambda matrix, z: matrix @ z, jnp.eye(2),
        ...     jnp.zeros(2), targets, rate=0.5, steps=400, key=jax.random.key(1),
        ...     optimizer=optax.adam(0.02),
        ... )
        >>> bool(learned.values[-1, -1] < learned.values[0, -1] / 2)
        True

    Cost: a round: ``batch_size`` times ``inner_steps + 1`` gradients of loss and map in z, and ``updates`` times as
        many in θ; memory of ``capacity`` descents.

    References:
        - Liu, Mao, Tendulkar, Wang and Vondrick, "Landscape Learning for Neural Network Inversion", 2022,
          https://arxiv.org/abs/2206.09027, after the abstract and the authors' summary: trajectories, the sum over
          them, the buffer and the turns. One start for all, all settings, and the mean in place of the sum are ours.
          Others, https://github.com/adam-mehdi/NeuralInversion, say that the paper descends by Adam at 0.1 for 20
          steps, 256 targets at once, over 500 rounds, and trains the map by AdamW at 1e-4, as often as there are steps,
          each time on one of them.
    """
    f = checked_loss(loss, fix=_LOSS)
    check_callable(mapping, what="mapping", fix="Write mapping(params, z) -> x, of one z.", takes=2)
    check_floats(start, what="start", fix="Pass z, as floating-point arrays.")
    check_positive(rate=rate)
    steps, inner_steps, updates = (
        check_count(n, what=what) for n, what in ((steps, "steps"), (inner_steps, "inner_steps"), (updates, "updates"))
    )
    batch_size, capacity = check_count(batch_size, what="batch_size"), check_count(capacity, what="capacity")
    check_key(key)
    rows = _rows(targets)
    if not batch_size <= min(rows, capacity):
        raise fault(
            expected=f"a batch_size of at most {min(rows, capacity)}, the targets and the capacity",
            got=batch_size,
            fix="Pass more targets, or take a smaller batch.",
        )
    rule = check_optimizer(optax.adam(1e-3) if optimizer is None else optimizer)
    start = jax.tree.map(jnp.asarray, start)
    trained, fixed = eqx.partition(params, eqx.is_inexact_array)
    check_floats(trained, what="params", fix="Pass what the map is trained by, as floating-point arrays.")
    room = capacity // batch_size * batch_size

    def through(trained: PyTree, z: PyTree, target: PyTree) -> Array:
        return f(mapping(eqx.combine(trained, fixed), z), target)

    def descent(trained: PyTree, target: PyTree) -> tuple[PyTree, Array]:
        """The points, and the loss at each."""

        def step(z: PyTree, _: None) -> tuple[PyTree, tuple[PyTree, Array]]:
            value, slope = jax.value_and_grad(through, argnums=1)(trained, z, target)
            check_like(slope, z, what="a gradient that", fix="Pass z, as floating-point arrays.")
            return jax.tree.map(lambda a, b: (a - rate * b).astype(a.dtype), z, slope), (z, value)

        return jax.lax.scan(step, start, length=inner_steps + 1)[1]

    def along(trained: PyTree, points: PyTree, which: Array) -> Array:
        """Mean loss at stored points, of stored targets."""
        wanted = jax.tree.map(lambda leaf: leaf[which], targets)
        each = jax.vmap(jax.vmap(through, (None, 0, None)), (None, 0, 0))
        return jnp.mean(each(trained, points, wanted))

    def turn(carry: tuple, now: tuple[Array, Key]) -> tuple[tuple, Array]:
        trained, state, stored, whose = carry
        count, key = now
        draw_key, replay_key = jax.random.split(key)
        which = jax.random.choice(draw_key, rows, (batch_size,), replace=False)
        points, values = jax.vmap(descent, (None, 0))(trained, jax.tree.map(lambda leaf: leaf[which], targets))
        place = count * batch_size % room
        stored = jax.tree.map(lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, place, 0), stored, points)
        whose = jax.lax.dynamic_update_slice_in_dim(whose, which, place, 0)
        held = jnp.minimum((count + 1) * batch_size, room)

        def update(carry: tuple[PyTree, Any], key: Key) -> tuple[tuple[PyTree, Any], None]:
            trained, state = carry
            drawn = jax.random.randint(key, (batch_size,), 0, held)
            again = jax.tree.map(lambda leaf: leaf[drawn], stored)
            slope = jax.grad(along)(trained, again, whose[drawn])
            moved, state = rule.update(slope, state, trained)
            return (optax.apply_updates(trained, moved), state), None

        (trained, state), _ = jax.lax.scan(update, (trained, state), jax.random.split(replay_key, updates))
        return (trained, state, stored, whose), jnp.mean(values, axis=0)

    stored = jax.tree.map(lambda leaf: jnp.zeros((room, inner_steps + 1, *leaf.shape), leaf.dtype), start)
    carry = (trained, rule.init(trained), stored, jnp.zeros(room, int))
    (trained, _, _, _), values = jax.lax.scan(turn, carry, (jnp.arange(steps), jax.random.split(key, steps)))
    learned, result = outcome(trained, jnp.all(jnp.isfinite(values)) & all_finite(trained), throw)
    evaluations = steps * batch_size * (inner_steps + 1) * (1 + updates)
    return LandscapeLearning(eqx.combine(learned, fixed), values, result, evaluations)


def _rows(targets: PyTree) -> int:
    """How many targets there are."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(targets)]
    if not shapes or not shapes[0]:
        raise fault(
            expected="targets stacked along a leading axis",
            got=str(shapes),
            fix="Pass arrays with a row for each target.",
        )
    check_rows(targets, shapes[0][0], what="targets", fix="Pass as many rows of each array.")
    return shapes[0][0]

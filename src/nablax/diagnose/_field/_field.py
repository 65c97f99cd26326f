"""The health of a learned vector field, in one call."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import AbstractRecord, Field, Key, check_count, check_key, checked_field, fault
from .._samples import align
from ._conservativity import Conservativity, conservativity
from ._continuity import Continuity, continuity
from ._gauge import Gauge, gauge
from ._path_geometry import PathGeometry, path_geometry
from ._potential import least_samples
from ._stiffness import Stiffness, stiffness


class FieldHealth(AbstractRecord):
    """What `field` found, a record for each question.

    Attributes:
        conservativity: is the field a gradient where the samples are?
        gauge: which share of it moves probability, and does the rest leave it alone? None with conditions, or with too
            few samples (``notes`` says which).
        path: how far and how straight do trajectories run?
        stiffness: how fast do they part and meet, and what does that ask of a solver?
        continuity: does the field carry the density that was given? None without one.
        notes: what was left out, and why.
    """

    conservativity: Conservativity
    gauge: Gauge | None
    path: PathGeometry
    stiffness: Stiffness
    continuity: Continuity | None
    notes: tuple[str, ...] = eqx.field(static=True)

    def table(self) -> str:
        """Lay all numbers out as plain text.

        Returns:
            The parts' tables, one below the other, then what was left out.
        """
        parts = (self.conservativity, self.gauge, self.path, self.stiffness, self.continuity)
        return "\n\n".join([part.table() for part in parts if part is not None] + list(self.notes))


class _Score(eqx.Module):
    """The gradient of a log-density. Not a closure: one of each call's own would be compiled at each call."""

    log_density: Callable[[Float[Array, ""], PyTree, PyTree], Float[Array, ""]]

    def __call__(self, t: Float[Array, ""], y: PyTree, args: PyTree) -> PyTree:
        return jax.grad(self.log_density, 1)(t, y, args)


def field_health(
    field: Field,
    t: float,
    ys: PyTree,
    args: PyTree = None,
    *,
    t1: float = 1.0,
    score: Field | None = None,
    log_density: Callable[[Float[Array, ""], PyTree, PyTree], Float[Array, ""]] | None = None,
    steps: int = 64,
    trajectories: int = 128,
    waves: int = 128,
    key: Key,
) -> FieldHealth:
    """Examine a learned vector field: is it a gradient, what of it matters, how does it move, what does it cost.

    Everything local is measured at the samples and their time, everything along paths from there to ``t1``. Each part
    is a function of this room and can be had alone, with its own options: :func:`conservativity`, :func:`gauge`,
    :func:`path_geometry`, :func:`stiffness`, :func:`continuity`. For what takes a long time or a score at small noise
    see :func:`lyapunov`, :func:`fixed_points` and :func:`intrinsic_dimension`.

    Args:
        field: ``field(t, y, args) -> dy``, any callable; a PyTorch module through ``nablax.fields.from_torch``.
        t: the samples' time, and the start of the trajectories.
        ys: samples of the density at time ``t``, every leaf with leading axis ``samples``: of a transport's noise at 0,
            and in between what ``Transport.interpolate`` makes of data. A field of a flow means nothing at data of
            another time.
        args: conditions with the same leading axis, or None.
        t1: end of the trajectories, 1 by default.
        score: ``score(t, y, args)``, the gradient of the log-density, for the strong form of the gauge condition.
            Default: that of ``log_density``, where it is given.
        log_density: ``log_density(t, y, args) -> nats``, for the continuity equation.
        steps: fixed solver steps of the trajectories, 64 by default.
        trajectories: how many samples are followed, from the first on, 128 by default.
        waves: cosines in the gauge split's basis, 128 by default.
        key: of all random directions and halves.

    Returns:
        A `FieldHealth`; ``print(record.table())``.

    Raises:
        ValueError: leading axes disagree; samples are not finite floats; the value of a field is not shaped like ``y``;
            ``t`` equals ``t1``; trajectories blow up.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import diagnose
        >>> velocity = lambda t, y, args: y / (1 + t)
        >>> ys = jax.random.normal(jax.random.key(0), (300, 2))
        >>> record = diagnose.field_health(velocity, 0.0, ys, waves=16, key=jax.random.key(1))
        >>> round(float(record.stiffness.largest_lipschitz), 3), bool(record.gauge.remainder.value < 1e-3)
        (1.0, True)

    Cost:
        The sum of the parts'.
    """
    field, trajectories = checked_field(field), check_count(trajectories, what="trajectories")
    check_key(key)
    _, ys, samples = align(t, ys, args)
    if jnp.ndim(t) == 0 and float(t) == t1:
        raise fault(
            expected=f"t, the samples' time, apart from t1={t1}, where paths end",
            got=f"t={t}",
            fix="For data at t=1 pass t1=0: paths then run back to noise.",
        )
    if jnp.ndim(t):
        raise fault(expected="one time", got=f"times of shape {jnp.shape(t)}", fix="Samples share their time here.")
    if score is None and log_density is not None:
        score = _Score(log_density)
    keys = jax.random.split(key, 3)
    starts, conditions = jax.tree.map(lambda leaf: leaf[:trajectories], (ys, args))
    split, notes = None, []
    if args is not None:
        notes.append("No gauge split: the samples' conditions differ, and with them their density. Call gauge for one.")
    elif samples < (least := least_samples(sum(leaf[0].size for leaf in jax.tree.leaves(ys)), waves)):
        notes.append(f"No gauge split: {waves} waves ask for {least} samples, {samples} were given.")
    else:
        split = gauge(field, t, ys, score=score, waves=waves, key=keys[0])
    return FieldHealth(
        conservativity=conservativity(field, t, ys, args, radius=1.0 if samples == 1 else None, key=keys[1]),
        gauge=split,
        path=path_geometry(field, starts, conditions, t0=t, t1=t1, steps=steps),
        stiffness=stiffness(field, starts, conditions, t0=t, t1=t1, steps=steps, key=keys[2]),
        continuity=None if log_density is None else continuity(field, log_density, t, ys, args),
        notes=tuple(notes),
    )

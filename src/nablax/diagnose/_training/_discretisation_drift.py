"""What a finite learning rate adds to the gradient flow: the drift of descent, alone or between players."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import (
    AbstractRecord,
    Field,
    canonical_convolutions,
    check_number,
    checked_loss,
    divide,
    fault,
    nonzero,
    split,
    table,
    tree_norm,
)

Loss = Callable[..., Float[Array, ""]]


class DiscretisationDrift(AbstractRecord):
    r"""How far a step of descent departs from the gradient flow, per player; every vector is per step.

    Attributes:
        step: :math:`\lVert h_i\nabla_i L_i\rVert`, the length of the step, units of the parameters.
        own: :math:`\tfrac12 h_i^2\lVert\nabla_i^2 L_i\,\nabla_i L_i\rVert`, the drift that a player causes himself.
        interaction: length of the drift that the others cause; zero for a single player.
        ratio: length of the whole drift over ``step``, no unit. Well below one the flow describes the descent.
        adjusted_rate: :math:`2/\lVert\nabla_i^2 L_i\,\hat g_i\rVert` with the unit gradient :math:`\hat g_i`: the
            learning rate at which a player's own drift is as long as his step. Infinite where the curvature along
            the gradient vanishes; NaN where there is no step, its learning rate or gradient being zero.
    """

    step: Float[Array, " players"]
    own: Float[Array, " players"]
    interaction: Float[Array, " players"]
    ratio: Float[Array, " players"]
    adjusted_rate: Float[Array, " players"]

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            Five lines per player, with units.
        """
        names = (
            ("step", "parameters", self.step),
            ("drift, own", "parameters", self.own),
            ("drift, interaction", "parameters", self.interaction),
            ("drift / step", "1", self.ratio),
            ("drift-adjusted rate", "learning rate", self.adjusted_rate),
        )
        players = self.step.shape[0]
        rows = [
            (f"player {i + 1}: {name}" if players > 1 else name, value[i], unit)
            for i in range(players)
            for name, unit, value in names
        ]
        return table("Discretisation drift (per step)", rows)


def modified_flow(
    losses: Loss | Sequence[Loss],
    learning_rates: float | Array | Sequence[float | Array],
    *,
    alternating: bool = False,
    drift: bool = True,
) -> Field:
    r"""Build the flow that descent with a finite learning rate follows, one order closer than the gradient flow.

    With :math:`f_i = -h_i\nabla_i L_i`, and time counted in steps,

    .. math::
        \dot\theta_i = f_i - \tfrac12\sum_j s_{ij}\,(\partial_j f_i)\,f_j, \qquad
        s_{ij} = \begin{cases}-1 & \text{alternating updates and } j < i\\ 1 & \text{otherwise}\end{cases}

    so that one unit of time misses one step by :math:`O(h^3)`; without the sum, by :math:`O(h^2)`. For one player
    the drift is a gradient: the flow descends :math:`L + \tfrac h4\lVert\nabla L\rVert^2`. Between players it is
    not, and the order of the updates matters: a player who moves later has seen the others' moves.

    Args:
        losses: ``loss(params, *args) -> scalar``, or one ``loss(players, *args)`` for each player, whose parameters
            are ``players[i]`` and who moves them alone.
        learning_rates: of plain gradient descent, one for each loss.
        alternating: whether players move in turn, in their order, rather than at once. Default: at once.
        drift: False leaves the drift out, for comparison.

    Returns:
        ``field(t, params, args)`` for :func:`nablax.follow.flow`, with ``args`` None or a tuple that is handed to
        the losses. The leaves of ``params`` are inexact arrays.

    Raises:
        ValueError: not as many learning rates as losses, or one that is negative or no number.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import modified_flow
        >>> flow = modified_flow(lambda p: 0.5 * jnp.sum(p**2), 0.5)
        >>> flow(0.0, jnp.array([1.0]), None).tolist()  # -h (1 + h/2): towards log(1 - h) = -0.69
        [-0.625]

    Cost:
        One VJP for each player, and a JVP of all of them for each player.

    References:
        - Rosca, "On discretisation drift and smoothness regularisation in neural network training", 2023,
          https://arxiv.org/abs/2310.14036, and the authors' code of two of its chapters,
          https://github.com/google-deepmind/discretisation_drift (one and two players: its coefficients are these where
          both have one rate; where they do not, each has a clock of his own there. Any number of players and one
          formula for both orders are derived here by matching the second order in h)
        - Barrett and Dherin, "Implicit Gradient Regularization", 2021, https://arxiv.org/abs/2009.11162
    """
    single, functions, rates = _players(losses, learning_rates)

    def field(t: Float[Array, ""], params: PyTree, args: tuple | None = None) -> PyTree:
        players = (params,) if single else tuple(params)
        force = _force(functions, rates, single, () if args is None else args)
        if not drift:
            result = force(players)
        else:
            value, columns = _columns(force, players)
            result = tuple(
                jax.tree.map(lambda f, own, other: f + own + other, value[i], *_drifts(columns, i, alternating))
                for i in range(len(players))
            )
        return result[0] if single else result

    return field


def discretisation_drift(
    losses: Loss | Sequence[Loss],
    params: PyTree,
    *args: PyTree,
    learning_rates: float | Array | Sequence[float | Array],
    alternating: bool = False,
) -> DiscretisationDrift:
    r"""Measure the drift of gradient descent at a point: what one step does beyond the gradient flow.

    The flow and the drift are those of :func:`modified_flow`. Where the drift is longer than the step, no flow
    near the gradient flow describes the descent, and the step mostly crosses valleys: the drift-adjusted rate,
    :math:`2/\lVert H\hat g\rVert`, is where this starts. Used as a learning rate it needs no tuning.

    Args:
        losses: ``loss(params, *args) -> scalar``, or one ``loss(players, *args)`` for each player.
        params: the parameters, or a tuple with those of each player; leaves that are not inexact arrays are held.
        *args: handed to the losses.
        learning_rates: of plain gradient descent, one for each loss.
        alternating: whether players move in turn. Default: at once.

    Returns:
        A :class:`DiscretisationDrift`, exact for the given batch: it has no standard errors.

    Raises:
        ValueError: not as many learning rates as losses, or one that is negative or no number.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import discretisation_drift
        >>> record = discretisation_drift(lambda p: 4 * jnp.sum(p**2), jnp.ones(3), learning_rates=0.1)
        >>> round(float(record.ratio[0]), 3), round(float(record.adjusted_rate[0]), 3)  # h λ / 2 and 2 / λ, λ = 8
        (0.4, 0.25)

    Cost:
        As one evaluation of :func:`modified_flow`.

    References:
        - Rosca, "On discretisation drift and smoothness regularisation in neural network training", 2023,
          https://arxiv.org/abs/2310.14036, and the authors' code of two of its chapters,
          https://github.com/google-deepmind/discretisation_drift (drift, its split and the adjusted rate, which is
          there :math:`2/\lVert H\hat g\rVert^p` with a power to choose, 1 here, and at most 5, from products or from
          differences of gradients; the rate per player is ours)
    """
    single, functions, rates = _players(losses, learning_rates)
    functions = tuple(checked_loss(loss, fix="It gives one number: take its mean.") for loss in functions)
    # As arrays: each value of a schedule, were it a constant, would be compiled for.
    return _measure(functions, params, args, tuple(jnp.asarray(rate) for rate in rates), single, alternating)


@eqx.filter_jit
@canonical_convolutions
def _measure(
    functions: tuple, params: PyTree, args: tuple, rates: tuple[Array, ...], single: bool, alternating: bool
) -> DiscretisationDrift:
    at, rest = split((params,) if single else tuple(params))
    force = _force(functions, rates, single, args)
    value, columns = _columns(lambda players: force(eqx.combine(players, rest)), at)
    found = []
    for i, rate in enumerate(rates):
        own, interaction = _drifts(columns, i, alternating)
        step, curved = tree_norm(value[i]), tree_norm(own)
        whole = tree_norm(jax.tree.map(jnp.add, own, interaction))
        # own = h²‖Hg‖/2 and step = h‖g‖, so that 2/‖Hĝ‖ = h · step / own.
        adjusted = jnp.where(step == 0, jnp.nan, divide(rate * step, curved, jnp.inf))
        found.append((step, curved, tree_norm(interaction), whole / nonzero(step), adjusted))
    return DiscretisationDrift(*(jnp.stack(column) for column in zip(*found, strict=True)))


def _players(
    losses: Loss | Sequence[Loss], rates: float | Array | Sequence[float | Array]
) -> tuple[bool, tuple, tuple]:
    single = callable(losses)
    functions = (losses,) if callable(losses) else tuple(losses)
    each = tuple(rates) if isinstance(rates, Sequence) and not isinstance(rates, str) else (rates,)
    if len(functions) != len(each):
        raise fault(
            expected=f"{len(functions)} learning rates, one for each loss",
            got=str(len(each)),
            fix="Pass a sequence of them.",
        )
    for rate in each:
        check_number(rate, what="a learning rate", least=0, fix="Of a schedule pass its value at this step.")
    return single, functions, each


def _force(losses: tuple[Loss, ...], rates: tuple, single: bool, args: tuple) -> Callable[[tuple], tuple]:
    """What each player adds to his parameters in a step, when all move at once."""

    def force(players: tuple) -> tuple:
        steps = []
        for i, (loss, rate) in enumerate(zip(losses, rates, strict=True)):

            def value(mine: PyTree, i: int = i, loss: Loss = loss) -> Float[Array, ""]:
                together = (*players[:i], mine, *players[i + 1 :])
                return loss(together[0] if single else together, *args)

            gradient = eqx.filter_grad(value)(players[i])
            steps.append(jax.tree.map(lambda g, rate=rate: -jnp.asarray(rate, g.dtype) * g, gradient))
        return tuple(steps)

    return force


def _columns(force: Callable[[tuple], tuple], players: tuple) -> tuple[tuple, list[tuple]]:
    """The force, and for each player j the change that his own step makes to everyone's: columns[j][i]."""
    value, push = jax.linearize(force, players)
    nothing = jax.tree.map(jnp.zeros_like, value)
    return value, [push((*nothing[:j], value[j], *nothing[j + 1 :])) for j in range(len(players))]


def _drifts(columns: list[tuple], i: int, alternating: bool) -> tuple[PyTree, PyTree]:
    own = jax.tree.map(lambda x: -x / 2, columns[i][i])
    interaction = jax.tree.map(jnp.zeros_like, own)
    for j in range(len(columns)):
        if j != i:
            sign = 0.5 if alternating and j < i else -0.5
            interaction = jax.tree.map(lambda x, y, s=sign: x + s * y, interaction, columns[j][i])
    return own, interaction


__all__ = ["DiscretisationDrift", "discretisation_drift", "modified_flow"]

"""How optimisers move, by the type of their state: registered by each, Optax's own in one table."""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax
from jaxtyping import Array, Bool, PyTree
from optax import contrib

from ._errors import fault
from ._update_rule import UpdateRule


class OptimizerProbe(NamedTuple):
    """What a reader of its own can ask an optimiser.

    Attributes:
        ask: ``ask(gradient, params, **fields) -> (update, state)``: the update that the optimiser makes of a gradient
            where the named fields of its state are as given and all else as it is; and the state after. In single
            precision at least.
        gradient: of the step.
        params: the inexact leaves, before the step.
        state: before the step; the fields registered are those of all parts of the parameters, zero where one has none.
        has: which elements of the parameters, as one vector, have such fields.
        rounding: four roundings of the coarsest dtype involved.
    """

    ask: Callable[..., tuple[PyTree, Any]]
    gradient: PyTree
    params: PyTree
    state: Any
    has: Bool[Array, " dim"]
    rounding: float


class Moves(NamedTuple):
    """How an optimiser moves, in terms of the fields of its state; see :func:`register_rule`."""

    moment: str = ""
    squares: tuple[str, ...] = ()
    steps: str = ""
    reader: Callable[[OptimizerProbe], UpdateRule] | None = None
    unreadable: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of the parameters' size."""
        return tuple(name for name in (self.moment, *self.squares) if name)


_SIGN = "its steps have the length of the rate whatever the gradient's, so that no curvature bounds the rate"
_MATRIX = "it turns the gradient by whole matrices, and its rates are no numbers one an element"
_AVERAGED = "gradients are taken at another point than the parameters, of which its state keeps a copy"
_OWN_RATE = "it finds its rate anew at each step"
_TWO_MOMENTS = "its step is of two moments of the gradient"
_COUPLED = "what it divides by depends on the gradient's moment as well"

RULES: dict[type, Moves] = {
    # Heavy ball and Nesterov.
    optax.TraceState: Moves(moment="trace"),
    optax.EmaState: Moves(moment="ema", steps="count"),
    # The Adam family: Adam, AdamW, NAdam, AMSGrad, RAdam, …
    optax.ScaleByAdamState: Moves(moment="mu", squares=("nu",), steps="count"),
    optax.ScaleByAmsgradState: Moves(moment="mu", squares=("nu", "nu_max"), steps="count"),
    # A metric without momentum: RMSProp, centred or not, and Adagrad.
    optax.ScaleByRmsState: Moves(squares=("nu",)),
    optax.ScaleByRStdDevState: Moves(squares=("mu", "nu")),
    optax.ScaleByRssState: Moves(squares=("sum_of_squares",)),
    # What is no recurrence with rates that stand still, by why. Schedules, decay, clipping, masks, injected
    # hyperparameters and chains keep nothing of the parameters' size: they show in the response of the others.
    optax.ScaleByLionState: Moves(unreadable=f"Lion: {_SIGN}"),
    optax.ScaleByRpropState: Moves(unreadable=f"Rprop: {_SIGN}"),
    contrib.MuonState: Moves(unreadable=f"Muon: {_MATRIX}"),
    optax.FactoredState: Moves(unreadable="Adafactor: what it divides by is shared by rows and columns"),
    optax.ScaleBySM3State: Moves(unreadable="SM3: what it divides by is shared by rows and columns"),
    optax.ScaleByNovogradState: Moves(unreadable="NovoGrad: what it divides by is shared by a whole parameter"),
    optax.ScaleByBeliefState: Moves(unreadable=f"AdaBelief: {_COUPLED}"),
    optax.ScaleByAdaDeltaState: Moves(unreadable="Adadelta: its rate is the size of its own steps"),
    optax.ScaleByAdanState: Moves(unreadable=f"Adan: {_TWO_MOMENTS}"),
    contrib.ScaleByAdemamixState: Moves(unreadable=f"AdEMAMix: {_TWO_MOMENTS}"),
    optax.ScaleByLBFGSState: Moves(unreadable=f"L-BFGS: {_MATRIX}"),
    optax.ScaleByZoomLinesearchState: Moves(unreadable=f"a line search: {_OWN_RATE}"),
    optax.ScaleByBacktrackingLinesearchState: Moves(unreadable=f"a line search: {_OWN_RATE}"),
    contrib.DoGState: Moves(unreadable=f"DoG: {_OWN_RATE}"),
    contrib.DoWGState: Moves(unreadable=f"DoWG: {_OWN_RATE}"),
    contrib.ProdigyState: Moves(unreadable=f"Prodigy: {_OWN_RATE}"),
    contrib.DAdaptAdamWState: Moves(unreadable=f"D-Adaptation: {_OWN_RATE}"),
    contrib.MechanicState: Moves(unreadable=f"Mechanic: {_OWN_RATE}"),
    contrib.MomoState: Moves(unreadable=f"MoMo: {_OWN_RATE}"),
    contrib.MomoAdamState: Moves(unreadable=f"MoMo: {_OWN_RATE}"),
    contrib.COCOBState: Moves(unreadable=f"COCOB: {_OWN_RATE}"),
    contrib.ScheduleFreeState: Moves(unreadable=f"schedule-free: {_AVERAGED}"),
    contrib.SAMState: Moves(unreadable=f"SAM: {_AVERAGED}"),
    contrib.SophiaState: Moves(unreadable="Sophia: what it divides by is estimated of the curvature itself"),
}


def register_rule(
    state: type,
    *,
    moment: str = "",
    squares: str | tuple[str, ...] = (),
    steps: str = "",
    reader: Callable[[OptimizerProbe], UpdateRule] | None = None,
    unreadable: str = "",
) -> None:
    r"""Say how an optimiser moves, by the type of its state; a check-up then knows it, in any chain.

    What is said is which fields of the state are what. The numbers (rates, momentum, the common learning rate) are
    read from the optimiser's response, and the rule has to predict its own update: where it does not, whatever was
    registered, it is reported as not known. With a moment m, a metric P of the squares and a rate :math:`\eta` a step
    is one of

    .. math::
        m' = \beta m+\gamma g,\quad u=-\eta P^{-1}m'
        \qquad\text{or}\qquad u=-\eta P^{-1}g

    (heavy ball; the Adam family with squares; RMSProp without a moment), or Nesterov's form of the first without
    squares. Optax's own states are registered; :func:`update_rule` says which.

    Args:
        state: class of the state, a ``NamedTuple`` as Optax's are; found wherever it stands in a chain, a mask or a
            wrapper.
        moment: field with the moment of gradients, shaped like the parameters; none by default.
        squares: fields that the metric is made of, that of squared gradients last; none by default.
        steps: field that counts them, where the moment's start is corrected by it as Adam's is; none by default.
        reader: what to read the rule with, where it is none of these forms; it asks about the fields named above.
            Its ``mismatch`` is how far the rule is from an answer of the optimiser, as a share.
        unreadable: in words, why there are no such rates; a check-up then says so.

    Raises:
        ValueError: ``state`` is no class of named tuples or lacks a field, or nothing is said of it.

    Example:
        >>> from typing import NamedTuple
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax.diagnose import register_rule, update_rule
        >>> class BallState(NamedTuple):
        ...     velocity: optax.Updates
        >>> def update(gradient, state, params=None):
        ...     velocity = jax.tree.map(lambda g, v: 0.8 * v + g, gradient, state.velocity)
        ...     return jax.tree.map(lambda v: -0.1 * v, velocity), BallState(velocity)
        >>> ball = optax.GradientTransformation(lambda p: BallState(optax.tree.zeros_like(p)), update)
        >>> register_rule(BallState, moment="velocity")
        >>> params = jnp.ones(3)
        >>> update_rule(ball, ball.init(params), params, params).name()
        'heavy ball, momentum 0.8'
    """
    if not (isinstance(state, type) and hasattr(state, "_fields")):
        raise fault(
            expected="the class of an optimiser's state, a NamedTuple",
            got=getattr(state, "__name__", None) or type(state).__name__,
            fix="Pass the class itself, as in register_rule(optax.TraceState, moment='trace').",
        )
    names = (squares,) if isinstance(squares, str) else tuple(squares)
    moves = Moves(moment, names, steps, reader, unreadable)
    absent = [name for name in (*moves.fields, *([steps] if steps else [])) if name not in state._fields]
    if absent:
        raise fault(
            expected=f"fields of {state.__name__}, {', '.join(state._fields)}",
            got=", ".join(absent),
            fix="Name the fields by which it moves.",
        )
    if bool(moves.fields or reader) == bool(unreadable):
        raise fault(
            expected="a moment, squares or a reader, or why there are none",
            got="both" if unreadable else "nothing",
            fix="Say moment='mu', for one, or unreadable='its steps are signs'.",
        )
    RULES[state] = moves

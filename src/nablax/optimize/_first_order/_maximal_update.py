"""Maximal-update scaling: rates that follow each tensor's widths, so that a narrow network's suit a wide one."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import optax
from jaxtyping import PyTree

from ..._core import check_optimizer, fault, register_rule
from .._prefix import by_leaf

Kind = Literal["adam", "sgd"]
_FIX = "Take width_multipliers(params, base, delta), or say optimize.Widths(fan_in=4, fan_out=4) for each part."


@dataclasses.dataclass(frozen=True)
class Widths:
    """How many times as wide as in the base model the two sides of a tensor are.

    Attributes:
        fan_in: of the side that is summed over; None where it does not grow with the model, as the inputs do not.
        fan_out: of the side that comes out; None where it does not grow, as the classes do not. That of a bias or a
            scale is its own.

    Example:
        >>> from nablax import optimize
        >>> hidden, first, last = optimize.Widths(4, 4), optimize.Widths(fan_out=4), optimize.Widths(fan_in=4)
    """

    fan_in: float | None = None
    fan_out: float | None = None

    def __post_init__(self) -> None:
        for name in ("fan_in", "fan_out"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and value > 0):
                raise fault(
                    expected=f"{name} above 0, or None where it does not grow",
                    got=repr(value),
                    fix="It is the width over the base's.",
                )


class MaximalUpdateState(NamedTuple):
    """What maximal-update scaling remembers.

    Attributes:
        inner: the wrapped optimiser's state.
    """

    inner: Any


register_rule(MaximalUpdateState, unreadable="maximal update: each tensor has a rate of its own, by its widths")


def maximal_update(
    optimizer: optax.GradientTransformation, widths: PyTree, *, kind: Kind = "adam"
) -> optax.GradientTransformationExtraArgs:
    r"""Scale an optimiser's steps by each tensor's widths, so that the best rate does not move with the width.

    With :math:`m_{in}, m_{out}` the widths over the base's, steps are multiplied by

    .. math::
        \text{adam}: \begin{cases} 1/m_{in} & \text{both sides grow}\\ 1 & \text{else}\end{cases}\qquad
        \text{sgd}: \begin{cases} m_{out}/m_{in} & \text{both sides grow}\\ m & \text{one side, } m\text{, grows}\\
        1 & \text{else}\end{cases}

    and gradients, before an optimiser of the kind of Adam sees them, by :math:`m_{out}` (of the last layer, where
    it does not grow, :math:`m_{in}`): entries of gradients shrink as the network grows, and without it an ε that is
    small beside them at the base width is not at a larger one.

    The model does the rest: at the start entries of variance 1/fan-in where both sides grow and as in the base model
    elsewhere, the last layer's output times :math:`1/m_{in}`, attention by 1/d instead of 1/√d. A table that is both
    embedding and last layer has two parts to play and none of these scales.

    Args:
        optimizer: any Optax transformation, with its learning rate in it or not. Decay of weights in it is scaled as
            well; for one that is the same at every width put ``optax.add_decayed_weights`` between this, round the
            rule without a rate, and the rate.
        widths: `Widths`, in a tree that the parameters' tree begins with; None where nothing grows.
        kind: ``"adam"`` (default) for optimisers whose steps do not grow with the gradient (Adam, RMSProp, Lion,
            signs), ``"sgd"`` for those whose steps are proportional to it, with momentum or not.

    Returns:
        The optimiser; its state is a `MaximalUpdateState`. Extra arguments are passed on as they come.

    Raises:
        ValueError: ``optimizer`` is none, an unknown kind, or widths that fit no part of the parameters.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> widths = {"first": optimize.Widths(fan_out=4), "hidden": optimize.Widths(4, 4), "bias": None}
        >>> optimizer = optimize.maximal_update(optax.sign_sgd(1.0), widths)
        >>> params = {name: jnp.ones(2) for name in widths}
        >>> updates, _ = optimizer.update(params, optimizer.init(params))
        >>> {name: update[0].item() for name, update in updates.items()}
        {'bias': -1.0, 'first': -1.0, 'hidden': -0.25}

    Cost: as the optimiser; two products a parameter.

    References:
        - Yang and Littwin, "Tensor Programs IVb: Adaptive Optimization in the Infinite-Width Limit", 2023,
          https://arxiv.org/abs/2308.01814, and Yang et al., "Tensor Programs V", 2022,
          https://arxiv.org/abs/2203.03466, whose package (https://github.com/microsoft/mup) has these factors for
          steps. The gradients' factors, which keep ε small, were derived here: that package has none.
    """
    transform = check_optimizer(optimizer)
    if kind not in ("adam", "sgd"):
        raise fault(
            expected="kind='adam' or 'sgd'", got=repr(kind), fix="'sgd' is for steps proportional to gradients."
        )

    def times(factor: Any, tree: PyTree) -> PyTree:
        parts = by_leaf(widths, tree, kind=Widths, what="widths", fix=_FIX)
        leaves, structure = jax.tree.flatten(tree)
        return jax.tree.unflatten(structure, [factor(part or Widths()) * leaf for part, leaf in zip(parts, leaves)])

    def init(params: PyTree) -> MaximalUpdateState:
        by_leaf(widths, params, kind=Widths, what="widths", fix=_FIX)
        return MaximalUpdateState(transform.init(params))

    def update(
        updates: PyTree, state: MaximalUpdateState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, MaximalUpdateState]:
        seen = times(_of_gradient, updates) if kind == "adam" else updates
        steps, inner = transform.update(seen, state.inner, params, **extra)
        return times(_of_adam if kind == "adam" else _of_sgd, steps), MaximalUpdateState(inner)

    return optax.GradientTransformationExtraArgs(init, update)


def width_multipliers(params: PyTree, base: PyTree, delta: PyTree, *, fan_in: int = -2) -> PyTree:
    r"""Find how each tensor grows from shapes of three models: the one at hand, the base, and one of another width.

    .. math:: m_i = n_i/n_i^{base} \quad\text{for each axis } i \text{ with } n_i^{base}\ne n_i^{delta}

    That an axis grows cannot be told from the base alone, where two layers may have a length in common by chance.

    Args:
        params: arrays, or `jax.ShapeDtypeStruct` as of ``jax.eval_shape``.
        base: likewise, of the model that the rates were tuned on.
        delta: likewise, of a model whose every width differs from the base's, and nothing else.
        fan_in: the axis of matrices and kernels that is summed over: -2 by default, as in ``x @ W`` and Flax's
            kernels; 1 for layers ``W @ x``, as Equinox's linear and convolutional ones.

    Returns:
        `Widths` in a tree like the parameters.

    Raises:
        ValueError: the trees differ, a tensor grows along more than two axes, or along two of which ``fan_in`` is
            none, or its length differs from the base's where nothing grows.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> def net(width):
        ...     return {"first": jnp.zeros((64, width)), "hidden": jnp.zeros((width, width))}
        >>> optimize.width_multipliers(net(256), net(64), net(128))
        {'first': Widths(fan_in=None, fan_out=4.0), 'hidden': Widths(fan_in=4.0, fan_out=4.0)}

    Cost: shapes only.

    References:
        - As `maximal_update`; base and delta are how https://github.com/microsoft/mup finds them too.
    """

    def one(leaf: Any, small: Any, other: Any) -> Widths:
        if not leaf.ndim == small.ndim == other.ndim:
            raise fault(
                expected=f"tensors of {leaf.ndim} axes, as {leaf.shape}",
                got=f"{small.shape} and {other.shape}",
                fix="Base and delta are the same model at other widths.",
            )
        grows = [axis for axis in range(leaf.ndim) if small.shape[axis] != other.shape[axis]]
        still = [axis for axis in range(leaf.ndim) if axis not in grows]
        if any(leaf.shape[axis] != small.shape[axis] for axis in still):
            raise fault(
                expected=f"the base's lengths {small.shape} along axes that do not grow, {still}",
                got=f"{leaf.shape}",
                fix="Give a delta that differs from the base in every width.",
            )
        times = {axis: leaf.shape[axis] / small.shape[axis] for axis in grows}
        summed = fan_in % leaf.ndim if leaf.ndim >= 2 else -1  # a vector has no such side
        if len(grows) > 2 or (len(grows) == 2 and summed not in grows):
            raise fault(
                expected=f"a tensor that grows along two axes at most, {fan_in} among them where they are two",
                got=f"{leaf.shape}, which grows along {grows}",
                fix="Say fan_in=, the axis that is summed over, or split the tensor.",
            )
        return Widths(times.pop(summed, None), *times.values())

    structures = [str(jax.tree.structure(tree)) for tree in (params, base, delta)]
    if len(set(structures)) > 1:
        raise fault(
            expected=f"three trees alike, {structures[0]}",
            got=" and ".join(structures[1:]),
            fix="Base and delta are the same model at other widths.",
        )
    return jax.tree.map(one, params, base, delta)


def _of_gradient(widths: Widths) -> float:
    """Entries of gradients go with one over the width that comes out; of the last layer by its output's factor."""
    return widths.fan_out or widths.fan_in or 1.0


def _of_adam(widths: Widths) -> float:
    return 1 / widths.fan_in if widths.fan_in and widths.fan_out else 1.0


def _of_sgd(widths: Widths) -> float:
    if widths.fan_in and widths.fan_out:
        return widths.fan_out / widths.fan_in
    return widths.fan_out or widths.fan_in or 1.0

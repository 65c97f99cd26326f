"""Noether's charges of the loss's symmetries, and how the learning rule moves them."""

from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import (
    AbstractRecord,
    Field,
    canonical_convolutions,
    check_like,
    checked_loss,
    divide,
    fault,
    split,
    table,
    tree_norm,
)

Generator = Callable[[PyTree], PyTree]
Where = Callable[[PyTree], PyTree]


class Symmetry(eqx.Module):
    r"""One symmetry's charge and what moves it; time in units of the learning rate times steps.

    Attributes:
        asymmetry: :math:`\langle\delta, \nabla L\rangle/(\lVert\delta\rVert\lVert\nabla L\rVert)`, no unit: zero where
            the loss has the symmetry.
        charge: :math:`Q = \langle\delta(\theta), \dot\theta\rangle`, parameters² over time (scalings) or
            parameters over time (translations).
        kinetic: :math:`\langle\delta'(\theta)\dot\theta, \dot\theta\rangle`, what the kinetic energy's own lack of
            the symmetry adds to :math:`\dot Q`.
        friction: :math:`-\tfrac{\gamma}{m} Q`.
        decay: :math:`-\tfrac{k}{m}\langle\delta,\theta\rangle`, by weight decay.
        force: :math:`-\tfrac1m\langle\delta,\nabla L\rangle`; zero up to rounding for a symmetry.
        rate: the sum of the four, :math:`\dot Q`.
    """

    asymmetry: Float[Array, ""]
    charge: Float[Array, ""]
    kinetic: Float[Array, ""]
    friction: Float[Array, ""]
    decay: Float[Array, ""]
    force: Float[Array, ""]
    rate: Float[Array, ""]


class Noether(AbstractRecord):
    """The motion of the charge of each symmetry, by name.

    Attributes:
        symmetries: a :class:`Symmetry` for each generator.
    """

    symmetries: dict[str, Symmetry]

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            Seven lines per symmetry.
        """
        names = {
            "asymmetry": "1",
            "charge": "charge",
            "kinetic": "charge / time",
            "friction": "charge / time",
            "decay": "charge / time",
            "force": "charge / time",
            "rate": "charge / time",
        }
        rows = [
            (f"{label}: {name}", getattr(symmetry, name), unit)
            for label, symmetry in self.symmetries.items()
            for name, unit in names.items()
        ]
        return table("Noether's charges", rows, ["time = learning rate × steps"])


def scaling_symmetry(where: Where = lambda params: params) -> Generator:
    r"""Generate :math:`\theta_S \mapsto e^{s}\theta_S`: weights before a normalisation.

    Args:
        where: selects the subtree S, as in ``equinox.tree_at``. Default: everything.

    Returns:
        ``generator(params) -> delta``, zero outside the subtree.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import scaling_symmetry
        >>> scaling_symmetry(lambda p: p["w"])({"w": jnp.ones(1), "b": jnp.ones(1)})["b"].tolist()
        [0.0]
    """
    return lambda params: _placed(params, where, lambda leaf: leaf)


def translation_symmetry(where: Where = lambda params: params) -> Generator:
    r"""Generate :math:`\theta_S \mapsto \theta_S + s\,\mathbf 1`: the logits' biases before a softmax.

    Args:
        where: selects the subtree S. For one class's row at a time write the generator yourself.

    Returns:
        ``generator(params) -> delta``, ones in the subtree and zero outside.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import translation_symmetry
        >>> translation_symmetry()(jnp.zeros(2)).tolist()
        [1.0, 1.0]
    """
    return lambda params: _placed(params, where, jnp.ones_like)


def rescaling_symmetry(first: Where, second: Where) -> Generator:
    r"""Generate :math:`\theta_1 \mapsto e^{s}\theta_1,\; \theta_2 \mapsto e^{-s}\theta_2`: two layers about a ReLU.

    Args:
        first: selects the weights (and bias) that grow.
        second: selects those that shrink.

    Returns:
        ``generator(params) -> delta``.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import rescaling_symmetry
        >>> [x.tolist() for x in rescaling_symmetry(lambda p: p[0], lambda p: p[1])((jnp.ones(1), jnp.ones(1)))]
        [[1.0], [-1.0]]
    """
    grow, shrink = scaling_symmetry(first), scaling_symmetry(second)
    return lambda params: jax.tree.map(jnp.subtract, grow(params), shrink(params))


def learning_flow(
    loss: Callable[..., Float[Array, ""]], learning_rate: float, *, momentum: float = 0.0, weight_decay: float = 0.0
) -> Field:
    r"""Build the second-order flow of heavy-ball descent: a mass, a friction, and the loss as potential.

    .. math::
        m\,\ddot\theta + \gamma\,\dot\theta + k\,\theta = -\nabla L(\theta), \qquad
        m = \tfrac{\eta}{2}(1+\beta),\quad \gamma = 1-\beta

    with time :math:`t = \eta\times` steps. It comes from expanding
    :math:`\theta_{n+1} - \theta_n - \beta(\theta_n - \theta_{n-1}) = -\eta(\nabla L + k\theta_n)` to second order.

    Args:
        loss: ``loss(params, *args) -> scalar``.
        learning_rate: η, positive.
        momentum: β of the heavy ball, 0 by default, below 1.
        weight_decay: k, added to the gradient as kθ, 0 by default.

    Returns:
        ``field(t, (params, velocity), args)`` for :func:`nablax.follow.flow`, ``args`` None or a tuple for the loss.

    Raises:
        ValueError: a rate that is not positive or a momentum outside [0, 1).

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import learning_flow
        >>> flow = learning_flow(lambda p: jnp.sum(p), 0.5, momentum=0.5)
        >>> [x.round(2).tolist() for x in flow(0.0, (jnp.zeros(1), jnp.ones(1)), None)]
        [[1.0], [-4.0]]

    Cost:
        One gradient.

    References:
        - Tanaka and Kunin, "Noether's Learning Dynamics: Role of Symmetry Breaking in Neural Networks", 2021,
          https://arxiv.org/abs/2105.02716 (after the text: the same mass, friction and decay. Its flow also has the
          metric of a Bregman divergence, for rules such as mirror descent; here it is Euclidean)
    """
    mass, friction = _constants(learning_rate, momentum)

    def field(t: Float[Array, ""], state: tuple[PyTree, PyTree], args: tuple | None = None) -> tuple[PyTree, PyTree]:
        params, velocity = state
        gradient = jax.grad(lambda p: loss(p, *(() if args is None else args)))(params)
        pull = jax.tree.map(lambda g, q, v: -(g + weight_decay * q + friction * v) / mass, gradient, params, velocity)
        return velocity, pull

    return field


def noether(
    loss: Callable[..., Float[Array, ""]],
    params: PyTree,
    velocity: PyTree,
    *args: PyTree,
    generators: Mapping[str, Generator],
    learning_rate: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Noether:
    r"""Measure the charges of the loss's symmetries and the terms that move them.

    For a generator δ with :math:`\langle\delta(\theta), \nabla L(\theta)\rangle = 0`, along the flow of
    :func:`learning_flow`,

    .. math::
        \dot Q = \langle\delta'(\theta)\,\dot\theta, \dot\theta\rangle - \tfrac{\gamma}{m}\,Q
                 - \tfrac{k}{m}\langle\delta,\theta\rangle, \qquad Q = \langle\delta(\theta), \dot\theta\rangle

    The first term is the breaking of the symmetry by the kinetic energy: nothing for translations (their δ is
    constant), :math:`\lVert\dot\theta\rVert^2` for scalings, so that weights before a normalisation grow with every
    step and their effective learning rate :math:`\eta/\lVert\theta\rVert^2` falls as the gradients' squares add up.

    Args:
        loss: ``loss(params, *args) -> scalar``.
        params: the parameters, any pytree; leaves that are not inexact arrays are held.
        velocity: :math:`\dot\theta`, shaped like ``params``: the last update over the learning rate.
        *args: handed to the loss.
        generators: by name, ``generator(params) -> delta`` shaped like ``params``; :func:`scaling_symmetry`,
            :func:`translation_symmetry` and :func:`rescaling_symmetry` make the usual ones, and any other will do.
        learning_rate: η of the descent.
        momentum: of the heavy ball, 0 by default.
        weight_decay: k, 0 by default.

    Returns:
        A :class:`Noether`, exact for the given batch: it has no standard errors. A generator that is no symmetry
        is shown by its ``asymmetry``, and its ``rate`` is right nevertheless.

    Raises:
        ValueError: a rate that is not positive or a momentum outside [0, 1).

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import noether, scaling_symmetry
        >>> loss = lambda q: q[0] / jnp.linalg.norm(q)
        >>> record = noether(
        ...     loss, jnp.array([1.0, 1.0]), jnp.array([1.0, 0.0]),
        ...     generators={"scale": scaling_symmetry()}, learning_rate=2.0,
        ... )
        >>> symmetry = record.symmetries["scale"]
        >>> float(symmetry.charge), float(symmetry.kinetic), float(symmetry.friction)
        (1.0, 1.0, -1.0)

    Cost:
        One gradient, and a JVP of each generator.

    References:
        - Tanaka and Kunin, "Noether's Learning Dynamics: Role of Symmetry Breaking in Neural Networks", 2021,
          https://arxiv.org/abs/2105.02716 (after the text: the charges' motion in the Euclidean metric is the paper's;
          that a generator need not be linear is ours. Its term for other metrics, by which it shows that a rule whose
          kinetic energy has the symmetry keeps the charge, is not here)
    """
    loss = checked_loss(loss, fix="It is loss(params, *args): take its mean.")
    check_like(velocity, params, what="a velocity that", fix="Give one number for each parameter, in the same tree.")
    # As arrays: each value of a schedule, were it a constant, would be compiled for.
    constants = tuple(jnp.asarray(number) for number in (*_constants(learning_rate, momentum), weight_decay))
    return _measure(loss, params, velocity, args, generators, constants)


@eqx.filter_jit
@canonical_convolutions
def _measure(
    loss: Callable[..., Float[Array, ""]],
    params: PyTree,
    velocity: PyTree,
    args: tuple,
    generators: Mapping[str, Generator],
    constants: tuple[Array, ...],
) -> Noether:
    mass, friction, weight_decay = constants
    at, rest = split(params)
    speed = split(velocity)[0]
    gradient = jax.grad(lambda p: loss(eqx.combine(p, rest), *args))(at)
    symmetries = {}
    for name, generator in generators.items():

        def delta(p: PyTree, generator: Generator = generator) -> PyTree:
            return split(generator(eqx.combine(p, rest)))[0]

        direction, turned = jax.jvp(delta, (at,), (speed,))
        slope = optax.tree.vdot(direction, gradient)
        lengths = tree_norm(direction) * tree_norm(gradient)
        charge = optax.tree.vdot(direction, speed)
        terms = (
            optax.tree.vdot(turned, speed),
            -friction / mass * charge,
            -weight_decay / mass * optax.tree.vdot(direction, at),
            -slope / mass,
        )
        asymmetry = divide(slope, lengths)
        symmetries[name] = Symmetry(asymmetry, charge, *terms, sum(terms[1:], start=terms[0]))
    return Noether(symmetries)


def _constants(learning_rate: float, momentum: float) -> tuple[float, float]:
    if not (learning_rate > 0 and 0 <= momentum < 1):
        raise fault(
            expected="a positive learning rate and a momentum in [0, 1)",
            got=f"learning_rate={learning_rate}, momentum={momentum}",
            fix="Pass those of the heavy ball.",
        )
    return learning_rate / 2 * (1 + momentum), 1 - momentum


def _placed(params: PyTree, where: Where, fill: Callable[[Array], Array]) -> PyTree:
    nothing = jax.tree.map(lambda x: jnp.zeros_like(x) if eqx.is_inexact_array(x) else x, params)
    return eqx.tree_at(where, nothing, jax.tree.map(lambda x: fill(x) if eqx.is_inexact_array(x) else x, where(params)))


__all__ = [
    "Noether",
    "Symmetry",
    "learning_flow",
    "noether",
    "rescaling_symmetry",
    "scaling_symmetry",
    "translation_symmetry",
]

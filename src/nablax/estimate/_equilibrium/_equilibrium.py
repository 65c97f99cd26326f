"""Networks whose answer is an equilibrium of their own dynamics."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jaxtyping import Array, Float, PyTree

from ..._core import (
    canonical_convolutions,
    check_count,
    check_floats,
    check_instance,
    check_rows,
    described,
    fault,
    wide_dtype,
)
from .._nested._implicit import implicit

State = tuple[Array, ...]

# The second of each pair says whether it is differentiable in the complex plane.
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], bool]] = {
    "hard sigmoid": (lambda u: jnp.clip(u, 0, 1), False),
    "sigmoid": (jax.nn.sigmoid, True),
    "tanh": (jnp.tanh, True),
}
# A relaxation that shrinks by a thousandth an update has come to single precision by then.
LIMIT = 16_384


class Equilibrium(eqx.Module):
    r"""A network of layers that drive one another in both directions until they are at rest.

    With activations :math:`a_l=\rho(u_l)`, :math:`a_0` the input and :math:`W_l` the layers, affine maps,

    .. math:: F_l(a) = W_l a_{l-1} + B_{l+1}^{\top} a_{l+1},\qquad u \leftarrow u + h\,\big(F(\rho(u)) - u\big)

    until :math:`u=F(\rho(u))`. Without ``feedback`` B is W and the network **symmetric**: F is then the gradient of
    :math:`\Phi(a) = \sum_l\langle a_l, W_l a_{l-1}\rangle`, and what is at rest is a minimum of an energy, for the hard
    sigmoid :math:`\tfrac12\lVert a\rVert^2-\Phi(a)` on :math:`0\le a\le1`. A layer may be dense or convolutional
    (strides in place of pooling), ``feedback`` has the same kinds, used transposed.

    ``net(inputs)`` is the readout of the last layer at equilibrium. `jax.grad` of a loss of it is the exact gradient,
    by the condition of equilibrium (or, with a count of ``steps``, through the updates); `equilibrium_gradient` has it
    from the network's own dynamics.

    Args:
        layers: from the input up, maps of one example whose leaves are arrays, such as `equinox.nn.Linear` and
            `equinox.nn.Conv2d`.
        readout: of the last layer's activations, flattened, to a prediction; by default they are the prediction.
        feedback: for a network that is not symmetric, one map for each layer but the first, from the lower layer's
            shape to the upper's; its bias takes no part.
        activation: ρ, "tanh" by default, "sigmoid" or "hard sigmoid" (the first paper's).
        step: h, 0.5 by default (the first paper's), at most 1.
        steps: how many updates; by default as many as it takes.
        tolerance: of a change in one update, relative and absolute, where there is no count; 1e-6 in single and 1e-10
            in double precision by default (ours).
        held: activations ``[rows, ...]`` of the last layer that stand in for those at equilibrium; set by estimators.

    Raises:
        ValueError: an argument makes no sense, or a layer has leaves that are no arrays.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> keys = jax.random.split(jax.random.key(0), 2)
        >>> net = estimate.Equilibrium([eqx.nn.Linear(3, 8, key=keys[0]), eqx.nn.Linear(8, 2, key=keys[1])])
        >>> net(jnp.ones((5, 3))).shape
        (5, 2)

    Cost: each update is a forward and a transposed pass through the layers.

    References:
        - Scellier and Bengio, "Equilibrium Propagation: Bridging the Gap Between Energy-Based Models and
          Backpropagation", 2016, https://arxiv.org/abs/1602.05179
        - Laborieux and Zenke, "Improving equilibrium propagation without weight symmetry through Jacobian homeostasis",
          2023, https://arxiv.org/abs/2309.02214, and its code (the dynamics of u, the readout; there h = 1)
    """

    layers: tuple[Callable[[Array], Array], ...]
    readout: Callable[[Array], Array] | None
    feedback: tuple[Callable[[Array], Array], ...] | None
    held: Array | None
    activation: str = eqx.field(static=True)
    step: float = eqx.field(static=True)
    steps: int | None = eqx.field(static=True)
    tolerance: float | None = eqx.field(static=True)

    def __init__(
        self,
        layers: Sequence[Callable[[Array], Array]],
        readout: Callable[[Array], Array] | None = None,
        *,
        feedback: Sequence[Callable[[Array], Array]] | None = None,
        activation: str = "tanh",
        step: float = 0.5,
        steps: int | None = None,
        tolerance: float | None = None,
        held: Array | None = None,
    ):
        self.layers, self.readout = tuple(layers), readout
        self.feedback = None if feedback is None else tuple(feedback)
        self.activation, self.held = activation, held
        self.step, self.steps, self.tolerance = float(step), steps, tolerance

    def __check_init__(self) -> None:
        if not self.layers or (self.feedback is not None and len(self.feedback) != len(self.layers) - 1):
            raise fault(
                expected="one layer at least, and a feedback for each but the first",
                got=f"{len(self.layers)} layers and {len(self.feedback or ())} of feedback",
                fix="feedback[l] takes what layers[l + 1] takes, and gives what it gives.",
            )
        for leaf in jax.tree.leaves((self.layers, self.feedback, self.readout)):
            if not eqx.is_array(leaf):
                raise fault(
                    expected="layers whose leaves are arrays, such as equinox.nn.Linear or equinox.nn.Conv2d",
                    got=f"a leaf {described(leaf)}",
                    fix="Use strides in place of pooling; other settings are to be static fields of the layer.",
                )
        if self.activation not in ACTIVATIONS:
            raise fault(
                expected=f"an activation among {', '.join(ACTIVATIONS)}",
                got=repr(self.activation),
                fix="Choose one of these names.",
            )
        if not 0 < self.step <= 1:
            raise fault(expected="a step above 0 and at most 1", got=self.step, fix="Pass step=0.5.")
        if self.steps is not None:
            check_count(self.steps, what="steps")
        if self.tolerance is not None and not self.tolerance > 0:
            raise fault(expected="a tolerance above 0", got=self.tolerance, fix="Pass tolerance=1e-6.")

    @property
    def symmetric(self) -> bool:
        """Whether the layers' transposes feed back, so that the dynamics have an energy."""
        return self.feedback is None

    def activate(self, u: State) -> State:
        """Activations of a state."""
        return tuple(ACTIVATIONS[self.activation][0](part) for part in u)

    def drive(self, a: State, x: Array) -> State:
        """F: what drives each layer, for one example."""
        below = (x, *a[:-1])
        driven = [layer(part) for layer, part in zip(self.layers, below)]
        for lower, back in enumerate(self.layers[1:] if self.feedback is None else self.feedback):
            driven[lower] += jax.vjp(back, a[lower])[1](a[lower + 1])[0]
        return tuple(driven)

    def potential(self, a: State, x: Array) -> Array:
        """Φ of one example, of which F is the gradient where the network is symmetric."""
        return sum(
            (jnp.sum(upper * layer(lower)) for layer, lower, upper in zip(self.layers, (x, *a[:-1]), a)),
            start=jnp.zeros((), a[0].dtype),
        )

    def __call__(self, inputs: Float[Array, "rows ..."], *, linear_solver: Any = None) -> Float[Array, "rows ..."]:
        """The predictions at equilibrium, a row each.

        Args:
            inputs: the rows; not one of them under `jax.vmap`.
            linear_solver: of the derivative, as in `equilibrium_state`.

        Returns:
            What the readout gives.
        """
        if self.held is None:
            top = equilibrium_state(self, inputs, linear_solver=linear_solver)[-1]
        else:
            check_rows(self.held, len(inputs), what="what is held for the inputs", fix="Call the network on all rows.")
            top = self.held
        readout = self.readout
        return top if readout is None else jax.vmap(lambda part: readout(part.ravel()))(top)


def equilibrium_state(
    net: Equilibrium, inputs: Float[Array, "rows ..."], *, linear_solver: lx.AbstractLinearSolver | None = None
) -> State:
    r"""Activations of every layer at rest.

    Their derivatives are those of the condition :math:`u=F(\rho(u))`, one linear solve each; with a count of ``steps``
    those of the updates.

    Args:
        net: the network.
        inputs: rows ``[rows, ...]``.
        linear_solver: of the derivative, any of Lineax's; by default as in `implicit`.

    Returns:
        One array ``[rows, ...]`` a layer.

    Raises:
        ValueError: not a network, or no rows of floats that its first layer takes.
        RuntimeError: it does not come to rest; raised when run.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> net = estimate.Equilibrium([eqx.nn.Linear(3, 8, key=jax.random.key(0))])
        >>> state = estimate.equilibrium_state(net, jnp.ones((5, 3)))
        >>> bool(jnp.allclose(state[0], jnp.tanh(jax.vmap(net.layers[0])(jnp.ones((5, 3))))))
        True

    Cost: the updates, all rows together until the last is at rest; for a derivative one linear solve a row.

    References: those of `Equilibrium`.
    """
    start, inputs = initial_state(net, inputs), jnp.asarray(inputs)

    if net.steps is not None:
        return net.activate(settled(net, inputs, start))

    def solve(start: State, net: Equilibrium, x: Array) -> State:
        u = settled(net, x[None], jax.tree.map(lambda part: part[None], start))
        return jax.tree.map(lambda part: part[0], u)

    def condition(u: State, net: Equilibrium, x: Array) -> State:
        net, x = cast((net, x), u[0].dtype)
        return jax.tree.map(jnp.subtract, net.drive(net.activate(u), x), u)

    # Row by row: a linear system each, of as many unknowns as units, in place of one of all rows.
    at_rest = implicit(solve, condition, linear_solver=linear_solver)
    return net.activate(jax.vmap(lambda start, x: at_rest(start, net, x))(start, inputs))


def initial_state(net: Equilibrium, inputs: Float[Array, "rows ..."]) -> State:
    """Zeros for the state of every layer, in single precision at least."""
    check_instance(net, Equilibrium, what="net, an estimate.Equilibrium", fix="Build one of its layers.")
    check_floats(inputs, what="inputs, an array [rows, ...]", fix="Pass an array of floats.")
    if inputs.ndim < 2:
        raise fault(expected="inputs [rows, ...]", got=described(inputs), fix="Call the network on a batch of rows.")

    def shapes(x: Array) -> State:
        found = []
        for layer in net.layers:
            x = layer(x)
            found.append(x)
        return tuple(found)

    dtype = wide_dtype((inputs, eqx.filter(net.layers, eqx.is_inexact_array)))
    return jax.tree.map(lambda s: jnp.zeros(s.shape, dtype), jax.eval_shape(jax.vmap(shapes), inputs))


def settled(
    net: Equilibrium, inputs: Array, start: State, *, force: Callable[[Array], Array] | None = None, scale: float = 1.0
) -> State:
    """The state u at rest, from a start, under a force on the last layer that depends on its activations.

    Args:
        net: the network.
        inputs: rows.
        start: u.
        force: ``force(a) -> du``, added to the last layer's drive.
        scale: of the tolerance.

    Returns:
        u, with the derivatives of the updates where their number is fixed.
    """

    @canonical_convolutions
    def drive(u: State, args: PyTree) -> State:
        driven = _driven(net, u, inputs)
        if force is None:
            return driven
        return (*driven[:-1], driven[-1] + force(net.activate(u)[-1]))

    if net.steps is not None:

        def update(u: State, _: None) -> tuple[State, None]:
            return jax.tree.map(lambda now, new: now + net.step * (new - now), u, drive(u, None)), None

        return jax.lax.scan(update, start, length=net.steps)[0]
    machine = jnp.finfo(start[0].dtype).eps
    tolerance = net.tolerance or (1e-10 if machine < 1e-10 else 1e-6)
    # Below some roundings nothing comes to rest.
    tolerance = max(tolerance * min(scale, 1.0), 4 * float(machine))
    solver: Any = optx.FixedPointIteration(rtol=tolerance, atol=tolerance, damp=1 - net.step)
    if not jnp.iscomplexobj(start[0]):
        return optx.fixed_point(drive, solver, start, max_steps=LIMIT, throw=True).value

    # The solver knows real numbers alone.
    def in_parts(parts: tuple[State, State], args: PyTree) -> tuple[State, State]:
        return _parts(drive(jax.tree.map(jax.lax.complex, *parts), args))

    return jax.tree.map(
        jax.lax.complex, *optx.fixed_point(in_parts, solver, _parts(start), max_steps=LIMIT, throw=True).value
    )


def _parts(u: State) -> tuple[State, State]:
    return jax.tree.map(jnp.real, u), jax.tree.map(jnp.imag, u)


def cast(tree: PyTree, dtype: Any) -> PyTree:
    """A tree whose inexact arrays have this type: convolutions do not mix real and complex numbers."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


def _driven(net: Equilibrium, u: State, inputs: Array) -> State:
    net, inputs = cast((net, inputs), u[0].dtype)
    return jax.vmap(net.drive)(net.activate(u), inputs)


__all__ = ["ACTIVATIONS", "Equilibrium", "State", "cast", "equilibrium_state", "initial_state", "settled"]

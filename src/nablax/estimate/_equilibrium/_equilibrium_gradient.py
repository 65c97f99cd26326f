"""Gradients of a network's equilibrium from how it moves when it is nudged."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..._core import Key, check_callable, check_count, check_instance, check_loss, described, fault, split
from .._frame import ValueAndGrad, required_key, shaped_as
from ._asymmetry import asymmetry_penalty
from ._equilibrium import ACTIVATIONS, Equilibrium, State, cast, initial_state, settled


def equilibrium_gradient(
    loss: Callable[..., Any],
    *,
    has_aux: bool = False,
    nudge: float = 0.5,
    points: int = 2,
    mode: Literal["energy", "field"] | None = None,
    steps: int | None = None,
    homeostasis: float | Array = 0.0,
) -> ValueAndGrad:
    r"""Equilibrium propagation: no backward pass, the network settles again with its output pulled towards the target.

    With :math:`a^\beta` at rest under the force :math:`-\beta\,\partial L/\partial a` and
    :math:`\beta_k=\beta e^{2\pi ik/N}` for N points,

    .. math:: \frac{\partial L}{\partial\theta}\approx -\frac1N\sum_k\frac{1}{\beta_k}\,
        \partial_\theta\big[\Phi(a^{\beta_k}) - \Phi(a^0)\big]
        \quad\text{or}\quad -\,\partial_\theta F(a^0)^{\top}\,\frac1N\sum_k\frac{a^{\beta_k}-a^0}{\beta_k}

    (``mode`` "energy", of symmetric networks, or "field", of all). Where the network is symmetric the error is of order
    :math:`\beta^N`: one-sided O(β), two points :math:`\pm\beta` O(β²), more by Cauchy's integral. Where it is not,
    there is a bias that no nudge takes away; ``homeostasis`` shrinks it. What the loss depends on beside the
    equilibrium, such as the readout, has its exact gradient.

    Args:
        loss: ``loss(net, batch, *args) -> scalar``, the mean over rows of a cost of ``net(inputs)``, where ``batch`` is
            a tuple that begins with ``inputs``. With more than two points it is called with complex predictions too,
            and is to be analytic: no absolute values.
        has_aux: whether the loss returns ``(scalar, aux)``.
        nudge: β, 0.5 by default (the first paper's).
        points: N, 2 by default; 1 is the first paper's.
        mode: "energy" for symmetric networks by default, "field" for others.
        steps: updates of the nudged network, where it takes a count; by default as many as the free one.
        homeostasis: weight of `asymmetry_penalty` at the free equilibrium, whose gradient is added; 0 by default, the
            authors' between 0.1 and 15. It is no part of the value, and needs a key.

    Returns:
        An estimator ``(net, batch, *args, key=None) -> (value, grads)``, a drop-in for `jax.value_and_grad`.
        `nablax.follow.train_step` and ``fit`` refuse a complex loss: for more than two points hand them
        ``value_and_grad=lambda _: estimate.equilibrium_gradient(loss, points=6)``.

    Raises:
        ValueError: an argument makes no sense; when called: no `Equilibrium`, a batch that does not begin with inputs,
            an energy of a network that has none, more than two points with an activation that is not analytic, a
            missing key.
        RuntimeError: the network does not come to rest; raised when run.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> keys = jax.random.split(jax.random.key(0), 2)
        >>> net = estimate.Equilibrium([eqx.nn.Linear(3, 8, key=keys[0]), eqx.nn.Linear(8, 1, key=keys[1])])
        >>> loss = lambda net, batch: jnp.mean((net(batch[0]) - batch[1]) ** 2)
        >>> batch = jnp.ones((5, 3)), jnp.zeros((5, 1))
        >>> _, grads = estimate.equilibrium_gradient(loss, nudge=0.01)(net, batch)
        >>> exact = jax.grad(loss)(net, batch)
        >>> bool(jnp.allclose(grads.layers[0].weight, exact.layers[0].weight, atol=1e-4))
        True

    Cost: the free relaxation, and one for each point (with N > 2 points N // 2 + 1, in complex numbers), side by side.

    References:
        - Scellier and Bengio (2016), https://arxiv.org/abs/1602.05179 (one-sided)
        - Laborieux et al., "Scaling Equilibrium Propagation to Deep ConvNets by Drastically Reducing its Gradient
          Estimator Bias", 2020, https://arxiv.org/abs/2006.03824 (two points)
        - Laborieux and Zenke (2023), https://arxiv.org/abs/2309.02214, and its code (the field form, N points,
          homeostasis); the sign of the nudge is the first paper's, down the loss
    """
    check_callable(loss, what="loss", fix="Pass loss(net, batch) -> scalar.")
    check_count(points, what="points")
    if not (math.isfinite(nudge) and nudge != 0):
        raise fault(expected="a nudge that is finite and not 0", got=nudge, fix="Pass nudge=0.5.")
    if mode not in (None, "energy", "field"):
        raise fault(expected='mode "energy" or "field"', got=repr(mode), fix="Leave it out for the network's own.")
    penalised = isinstance(homeostasis, jax.core.Tracer) or homeostasis != 0
    if not isinstance(homeostasis, jax.core.Tracer) and not homeostasis >= 0:  # what is traced cannot be looked at
        raise fault(expected="homeostasis of 0 or more", got=homeostasis, fix="Pass homeostasis=1.0, for one.")

    def value_and_grad(net: Equilibrium, batch: PyTree, *args: Any, key: Key | None = None) -> tuple[Any, PyTree]:
        form = _form(net, batch, mode, points)
        inputs, (trained, others) = batch[0], split(net)
        free = settled(net, inputs, initial_state(net, inputs))
        rest = net.activate(free)

        def held(trained: PyTree, top: Array) -> tuple[Array, PyTree]:
            found = loss(dataclasses.replace(eqx.combine(trained, others), held=top), batch, *args)
            value, aux = found if has_aux else (found, None)
            return (value if jnp.iscomplexobj(top) else check_loss(value)), aux

        (value, aux), direct = jax.value_and_grad(held, has_aux=True)(trained, rest[-1])
        nudges, weights = _circle(nudge, points, free[0].dtype)
        start = cast(free, nudges.dtype)
        looser = net if steps is None else dataclasses.replace(net, steps=steps)

        def nudged(beta: Array) -> State:
            def force(top: Array) -> Array:
                slope = jax.grad(lambda top: held(trained, top)[0], holomorphic=jnp.iscomplexobj(top))(top)
                return -beta * len(inputs) * slope  # of each row's own cost

            return net.activate(settled(looser, inputs, start, force=force, scale=abs(nudge)))

        moved = jax.vmap(nudged)(nudges)
        response = _energy_response if form == "energy" else _field_response
        grads = response(trained, others, inputs, rest, moved, weights / nudges)
        grads = jax.tree.map(lambda indirect, direct: direct - indirect / len(inputs), grads, direct)
        if penalised:
            drawn = required_key(key, by="homeostasis")
            asymmetry = jax.grad(lambda t: asymmetry_penalty(eqx.combine(t, others), inputs, rest, key=drawn))(trained)
            grads = jax.tree.map(lambda g, a: g + homeostasis * a, grads, asymmetry)
        return ((value, aux) if has_aux else value), shaped_as(grads, trained)

    return value_and_grad


def _form(net: Any, batch: Any, mode: str | None, points: int) -> str:
    check_instance(net, Equilibrium, what="net, an estimate.Equilibrium", fix="Build one of its layers.")
    if not (isinstance(batch, tuple) and batch and isinstance(batch[0], jax.Array | np.ndarray)):
        raise fault(
            expected="a batch (inputs, ...) that begins with what the network is called with",
            got=described(batch),
            fix="Pass (inputs, targets).",
        )
    if mode == "energy" and not net.symmetric:
        raise fault(expected="a symmetric network for an energy", got="one with feedback", fix='Pass mode="field".')
    if points > 2 and not ACTIVATIONS[net.activation][1]:
        analytic = ", ".join(name for name, (_, smooth) in ACTIVATIONS.items() if smooth)
        raise fault(
            expected=f"an analytic activation ({analytic}) for nudges in the complex plane",
            got=repr(net.activation),
            fix="Use two points, or another activation.",
        )
    return mode or ("energy" if net.symmetric else "field")


def _circle(nudge: float, points: int, dtype: Any) -> tuple[Array, Array]:
    """Nudges around zero, one of each conjugate pair, and the share of the mean that each stands for."""
    if points <= 2:
        return jnp.asarray([nudge, -nudge][:points], dtype), jnp.full(points, 1 / points, dtype)
    half = np.arange(points // 2 + 1)
    alone = (half == 0) | (2 * half == points)
    turned = nudge * np.exp(2j * np.pi * half / points)
    return jnp.asarray(turned, jnp.result_type(dtype, jnp.complex64)), jnp.asarray((2 - alone) / points, dtype)


def _energy_response(
    trained: PyTree, others: PyTree, inputs: Array, rest: State, moved: State, weights: Array
) -> PyTree:
    """Derivative of the potential by the parameters, how it changes with the nudge, summed over rows."""
    dtype = moved[0].dtype

    def change(trained: PyTree) -> Array:
        net, x = cast((eqx.combine(trained, others), inputs), dtype)
        potential = jax.vmap(net.potential)
        still = jnp.sum(potential(cast(rest, dtype), x))
        return jnp.sum(weights * (jax.vmap(lambda a: jnp.sum(potential(a, x)))(moved) - still))

    slope = jax.grad(change, holomorphic=jnp.issubdtype(dtype, jnp.complexfloating))(cast(trained, dtype))
    return jax.tree.map(jnp.real, slope)


def _field_response(
    trained: PyTree, others: PyTree, inputs: Array, rest: State, moved: State, weights: Array
) -> PyTree:
    """What the parameters do to the drive at rest, in the direction in which the activations move, summed over rows."""
    velocity = jax.tree.map(lambda a, still: jnp.real(jnp.tensordot(weights, a - still[None], 1)), moved, rest)

    def drive(trained: PyTree) -> State:
        net, x = cast((eqx.combine(trained, others), inputs), rest[0].dtype)
        return jax.vmap(net.drive)(rest, x)

    return jax.vjp(drive, trained)[1](velocity)[0]


__all__ = ["equilibrium_gradient"]

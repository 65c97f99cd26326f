"""MAID: hypergradient descent by a line search that no inexact number deceives, as inexact as that allows."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._core import (
    AbstractRecord,
    canonical_convolutions,
    check_callable,
    check_count,
    check_floats,
    check_instance,
    check_loss,
    exact,
    fault,
    norm,
    space,
)
from ...estimate import Smoothness
from .._outcome import all_finite, outcome
from .._settings import check_decays, check_positive
from ._inexact import Levels

Carry = dict[str, Array]


class InexactBilevel(AbstractRecord):
    """Where an adaptively inexact run has led.

    Attributes:
        params: hyperparameters.
        lower: the lower level's variable there.
        values: the upper loss at it, before each step, [steps].
        accuracy: ε, how near to the lower level's minimum it was asked to be, [steps].
        rate: α, of the next line search, [steps].
        bound: ω over the hypergradient's length, [steps]; below 1 - η a step down is one.
        accepted: whether the line search found a step, [steps].
        gradients: of the lower loss, up to each step's end, [steps].
        products: with the lower Hessian, up to each step's end, [steps].
        result: ``optimistix.RESULTS.successful``, or that a number was not finite.
    """

    params: PyTree
    lower: PyTree
    values: Float[Array, " steps"]
    accuracy: Float[Array, " steps"]
    rate: Float[Array, " steps"]
    bound: Float[Array, " steps"]
    accepted: Bool[Array, " steps"]
    gradients: Int[Array, " steps"]
    products: Int[Array, " steps"]
    result: optimistix.RESULTS


@eqx.filter_jit
@canonical_convolutions
@exact
def maid(
    upper: Callable[[PyTree], Array],
    lower: Callable[[PyTree, PyTree], Array],
    start: PyTree,
    x: PyTree,
    *,
    smoothness: Smoothness,
    curvature: float | Float[Array, ""],
    steps: int,
    accuracy: float | Float[Array, ""] = 0.1,
    residual: float | Float[Array, ""] = 0.1,
    rate: float | Float[Array, ""] = 1e-2,
    trust: float = 0.5,
    decrease: float = 0.1,
    tries: int = 20,
    limit: int = 10_000,
    throw: bool = True,
) -> InexactBilevel:
    r"""Descend an upper loss at a lower level's minimum, solving neither it nor its linear system more than is needed.

    With :math:`\bar x` within ε of :math:`x^\star(\theta)`, by :math:`\lVert\nabla_xh\rVert\le\mu\varepsilon`, a
    hypergradient z whose error is at most ω, and g known between

    .. math::
        g_\pm(\bar x) = g(\bar x)\pm\lVert\nabla g(\bar x)\rVert\,\varepsilon\pm\tfrac{L_g}2\varepsilon^2

    a step is: (1) halve ε and the system's residual δ until :math:`\omega\le(1-\eta)\lVert z\rVert`, so that -z goes
    down; (2) halve α until :math:`g_+(\bar x(\theta-\alpha z))-g_-(\bar x(\theta))+\lambda\alpha\lVert z\rVert^2\le0`,
    so that the exact loss falls by :math:`\lambda\alpha\lVert z\rVert^2` or more. Where that succeeds ε and δ grow by a
    tenth, α by a fifth; where no α does, ε and δ are halved, and θ stays.

    x is found by accelerated descent, the system by conjugate gradients, both from where they ended last.

    Args:
        upper: g, ``upper(x) -> scalar``, of the lower level's variable alone.
        lower: h, ``lower(x, params) -> scalar``, strongly convex in x.
        start: θ at first, a tree of floats.
        x: the lower level's variable at first.
        smoothness: constants of both levels that hold wherever the run goes: μ, and the Lipschitz constants L; L_g is
            its ``upper``.
        curvature: the largest eigenvalue of h's Hessian in x that the run meets, or above.
        steps: of the upper level.
        accuracy: ε at first, in units of x; 0.1 by default.
        residual: δ at first, in units of g's gradient; 0.1 by default.
        rate: α at first; 1e-2 by default.
        trust: η in (0, 1), 0.5 by default.
        decrease: λ in (0, η), 0.1 by default.
        tries: how often ε, and how often α, is halved in a step; 20 by default.
        limit: iterations of a lower solve and of a linear one at most; 10,000 by default. Where a lower solve does not
            come to its accuracy the step is refused, as it is at rest, where no accuracy is enough.
        throw: raise where a number is not finite (default), or only report it in ``result``.

    Returns:
        An :class:`InexactBilevel`.

    Raises:
        ValueError: settings out of range, a loss that is no real scalar, or ``mixed_norm`` missing from the constants
            where it is too large to be found.
        RuntimeError: a number was not finite where θ is; raised when it is run. Where one was not on the way of a line
            search, that is shortened.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import estimate, optimize
        >>> lower = lambda x, params: jnp.sum(jnp.array([1.0, 10.0]) * (x - params) ** 2) / 2  # at x = params
        >>> upper = lambda x: jnp.sum((x - 1.0) ** 2) / 2
        >>> constants = estimate.Smoothness(convexity=1.0, hessian=0.0, mixed=0.0, upper=1.0)
        >>> found = optimize.maid(
        ...     upper, lower, jnp.zeros(2), jnp.zeros(2), smoothness=constants, curvature=10.0, steps=30
        ... )
        >>> [round(float(x), 1) for x in found.params]
        [1.0, 1.0]

    Forward mode differentiates through a run, reverse mode does not: how long its loops are depends on the data.

    Cost: counted in ``gradients`` and ``products``; beside them two gradients of the upper loss and one mixed product a
        try, and where ``mixed_norm`` is not given as many mixed products as there are unknowns or hyperparameters,
        whichever are fewer.

    References:
        - Salehi, Mukherjee, Roberts and Ehrhardt, "An adaptively inexact first-order method for bilevel optimization
          with application to hyperparameter learning", 2023, https://arxiv.org/abs/2308.10098, and the authors' code
          (https://github.com/MohammadSadeghSalehi/MAID), which estimates the constants on the way, bounds g from below
          without its curvature, and shrinks α by 0.9. The bound ω is that of `nablax.estimate.hypergradient`; the
          accuracy that is used in both bounds is the one reached, not the one asked for.
    """
    check_callable(upper, what="upper", fix="Pass upper(x) -> scalar.", takes=1)
    check_callable(lower, what="lower", fix="Pass lower(x, params) -> scalar.", takes=2)
    check_instance(smoothness, Smoothness, what="smoothness", fix="Pass estimate.Smoothness(convexity=...).")
    check_positive(curvature=curvature, accuracy=accuracy, residual=residual, rate=rate)
    steps, tries, limit = (check_count(n, what=w) for n, w in ((steps, "steps"), (tries, "tries"), (limit, "limit")))
    traced = any(isinstance(share, jax.core.Tracer) for share in (decrease, trust))
    check_decays(decrease=decrease, trust=trust)
    if not traced and not 0 < decrease < trust < 1:
        raise fault(expected="0 < decrease < trust < 1", got=f"{decrease}, {trust}", fix="0.1 and 0.5 are usual.")
    check_floats((start, x), what="start and x", fix="Keep what is not solved for out of them, in the losses.")
    convexity = smoothness.convexity
    if all(isinstance(number, int | float) for number in (curvature, convexity)) and curvature < convexity:
        raise fault(
            expected=f"a curvature of at least the convexity, {convexity}",
            got=repr(curvature),
            fix="They are the largest and the least eigenvalue of the lower loss's Hessian.",
        )
    above, below = space(start), space(x)
    dtype = below.flat.dtype
    smoothness, curvature = jax.tree.map(lambda number: jnp.asarray(number, dtype), (smoothness, curvature))
    levels = Levels(
        lambda x: check_loss(upper(below.tree(x)), what="an upper loss"),
        lambda x, params: check_loss(lower(below.tree(x), above.tree(params)), what="a lower loss"),
        smoothness,
        curvature,
        limit,
    )

    def turn(carry: Carry, _: None) -> tuple[Carry, Carry]:
        at = _trusted(levels, carry, trust, tries)
        end = _searched(levels, carry, at, decrease, tries)
        good, factor = end["good"], jnp.where(end["good"], 1.1, 0.5)
        following = {
            "params": jnp.where(good, end["params"], carry["params"]),
            "x": jnp.where(good, end["x"], at["x"]),
            "q": at["q"],
            "accuracy": factor * at["accuracy"],
            "residual": factor * at["residual"],
            "rate": jnp.where(good, 1.2 * end["rate"], carry["rate"]),
            "gradients": end["gradients"],
            "products": at["products"],
        }
        length = norm(at["z"])
        seen = {name: following[name] for name in ("rate", "gradients", "products")}
        seen |= {"accuracy": at["accuracy"], "value": at["value"], "near": at["near"], "good": good}
        return following, seen | {"bound": at["omega"] / jnp.where(length == 0, 1, length)}

    carry = {"params": above.flat, "x": below.flat, "q": jnp.zeros_like(below.flat)}
    carry |= {"accuracy": jnp.asarray(accuracy, dtype), "residual": jnp.asarray(residual, dtype)}
    carry |= {"rate": jnp.asarray(rate, dtype), "gradients": jnp.array(0), "products": jnp.array(0)}
    last, seen = jax.lax.scan(turn, carry, length=steps)
    params, result = outcome(
        above.tree(last["params"]), all_finite((last["params"], last["x"], seen["value"], seen["near"])), throw
    )
    return InexactBilevel(
        params,
        below.tree(last["x"]),
        seen["value"],
        seen["accuracy"],
        seen["rate"],
        seen["bound"],
        seen["good"],
        seen["gradients"],
        seen["products"],
        result,
    )


def _trusted(levels: Levels, carry: Carry, trust: float, tries: int) -> Carry:
    """Solve both, nearer and nearer, until the hypergradient z is known to go down."""
    params, zero = carry["params"], jnp.zeros((), carry["x"].dtype)

    def look(at: Carry) -> Carry:
        shrunk = jnp.where(at["try"] == 0, 1.0, 0.5)
        epsilon, delta = shrunk * at["accuracy"], shrunk * at["residual"]
        x, near, gradients = levels.solved(at["x"], params, epsilon)
        value, pull = jax.value_and_grad(levels.upper)(x)
        q, rest, products = levels.system(x, params, pull, at["q"], delta)
        z, omega = levels.bounded(x, params, near, q, rest)
        found = {
            "x": x,
            "q": q,
            "z": z,
            "omega": omega,
            "near": near,
            "value": value.astype(zero.dtype),
            "pull": norm(pull),
        }
        counted = {"gradients": at["gradients"] + gradients, "products": at["products"] + products}
        return found | counted | {"accuracy": epsilon, "residual": delta, "try": at["try"] + 1}

    def unsure(at: Carry) -> Array:
        return (at["omega"] > (1 - trust) * norm(at["z"])) & (at["try"] < tries) & _reached(at)

    kept = {name: carry[name] for name in ("x", "q", "accuracy", "residual", "gradients", "products")}
    none = {"z": jnp.zeros_like(params), "omega": zero + jnp.inf, "near": zero, "value": zero, "pull": zero}
    return jax.lax.while_loop(unsure, look, kept | none | {"try": jnp.array(0)})


def _searched(levels: Levels, carry: Carry, at: Carry, decrease: float, tries: int) -> Carry:
    """Shorten the step along -z until the exact upper loss is known to fall."""
    params, upper, length = carry["params"], levels.smoothness.upper, norm(at["z"])
    least = at["value"] - at["pull"] * at["near"] - upper / 2 * at["near"] ** 2

    def search(now: Carry) -> Carry:
        alpha = jnp.where(now["try"] == 0, 1.0, 0.5) * now["rate"]
        moved = params - (alpha * at["z"]).astype(params.dtype)
        x, near, gradients = levels.solved(at["x"], moved, at["accuracy"])
        value, pull = jax.value_and_grad(levels.upper)(x)
        most = value + norm(pull) * near + upper / 2 * near**2
        good = most - least + decrease * alpha * length**2 <= 0
        counted = {"gradients": now["gradients"] + gradients, "try": now["try"] + 1}
        return {"params": moved, "x": x, "rate": alpha, "good": good} | counted

    begin = {"params": params, "x": at["x"], "rate": carry["rate"], "good": jnp.array(False)}
    begin |= {"gradients": at["gradients"], "try": jnp.array(0)}
    return jax.lax.while_loop(lambda now: ~now["good"] & (now["try"] < tries) & _reached(at), search, begin)


def _reached(at: Carry) -> Array:
    """Whether the last lower solve came as near as it was asked to: if not, asking for more is of no use."""
    return at["near"] <= at["accuracy"]

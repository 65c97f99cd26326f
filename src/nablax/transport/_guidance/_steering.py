"""Steer samples towards a low cost without differentiating the model: gradient skipping (FlowChef)."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import (
    AbstractRecord,
    Key,
    canonical_convolutions,
    check_callable,
    check_count,
    check_loss,
    described,
    fault,
)
from .._batch import check_draws
from .._march import Moment, march
from .._paths._affine import affine
from .._transport import Transport

Cost = Callable[[Array, PyTree], Array]
_SCALAR = "Return one number for one sample, such as a sum over its components."
Rate = float | Array | Callable[[Array], Array]


class Steering(AbstractRecord):
    """How the cost went down, sample by sample.

    Attributes:
        cost: of the predicted end of the path at each step, before that step's correction, in the cost's own unit.
        final_cost: of the samples.
        evaluations: of the field, a sample.
        products: vector-Jacobian products through the field, a sample.
    """

    cost: Float[Array, "steps count"]
    final_cost: Float[Array, " count"]
    evaluations: int = eqx.field(static=True)
    products: int = eqx.field(static=True)

    def table(self) -> str:
        """Mean cost at the first step, half-way and at the end, as text."""
        rows = (
            ("cost at the first step", self.cost[0]),
            ("half-way", self.cost[self.cost.shape[0] // 2]),
            ("of the samples", self.final_cost),
        )
        lines = [f"{name:<28}{float(jnp.mean(cost)):.4g}, median {float(jnp.median(cost)):.4g}" for name, cost in rows]
        lines.append(f"{'evaluations of the field':<28}{self.evaluations}, of them differentiated {self.products}")
        return "\n".join(lines)


class Bounds(eqx.Module):
    r"""A box as a cost: the squared violation $\tfrac12 \|\max(l + m - x, 0)\|^2 + \tfrac12\|\max(x - u + m, 0)\|^2$.

    Descent on a violation ends *at* the boundary, on either side of it; the margin $m$ moves the target inside, so that
    the hard constraint holds.

    Args:
        lower: smallest allowed values, shaped like a sample or one number for all of it; minus infinity for none.
            Default: none.
        upper: largest allowed values, likewise; infinity for none. Default: none.
        margin: how far inside to aim, in units of the data; no more than half the width of the box. Default 0.05.

    Raises:
        ValueError: neither bound is given, one is NaN, a lower one is above the upper, or ``margin`` is negative; the
            bounds are arrays of two shapes; when it is called, a bound has another shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.transport import Bounds
        >>> above = Bounds(lower=jnp.array([1.0, -jnp.inf]), margin=0.0)
        >>> float(above(jnp.array([0.0, -9.0]), None))
        0.5
        >>> above.satisfied(jnp.array([[0.0, 0.0], [2.0, 0.0]])).tolist()
        [False, True]

    Cost:
        None of the model.
    """

    lower: Float[Array, "..."]
    upper: Float[Array, "..."]
    margin: float = eqx.field(static=True)

    def __init__(self, lower: Array | float | None = None, upper: Array | float | None = None, margin: float = 0.05):
        if (lower is None and upper is None) or not margin >= 0:
            raise fault(
                expected="a lower or an upper bound, and margin ≥ 0",
                got=f"lower={lower}, upper={upper}, margin={margin}",
                fix="Give infinity for the components that are free.",
            )
        for name, bound in (("lower", lower), ("upper", upper)):
            if bound is not None and not isinstance(bound, (int, float, np.ndarray, np.generic, jax.Array)):
                raise fault(expected=f"{name} as a number or an array", got=described(bound), fix="Use jnp.asarray.")
            if bound is not None and not isinstance(bound, jax.core.Tracer) and np.isnan(bound).any():
                raise fault(expected=f"{name} without NaN", got=f"{bound}", fix="Infinity leaves a component free.")
        self.lower = jnp.asarray(-jnp.inf if lower is None else lower)
        self.upper = jnp.asarray(jnp.inf if upper is None else upper)
        self.margin = margin
        if not any(isinstance(bound, jax.core.Tracer) for bound in (self.lower, self.upper)):
            low, high = np.asarray(self.lower), np.asarray(self.upper)
            if low.shape != high.shape and low.ndim and high.ndim:
                fix = "Shape both like a sample, or give one number for all of it."
                raise fault(expected="two bounds of one shape", got=f"{low.shape} and {high.shape}", fix=fix)
            if np.any(low > high):
                raise fault(expected="lower ≤ upper", got=f"lower={low}, upper={high}", fix="Are they swapped?")

    def __call__(self, y: Float[Array, "*shape"], args: PyTree = None) -> Float[Array, ""]:
        """Half the squared violation of one sample, in squared units of the data."""
        below = jnp.maximum(self._like(self.lower, y) + self.margin - y, 0.0)
        above = jnp.maximum(y - self._like(self.upper, y) + self.margin, 0.0)
        return 0.5 * jnp.sum(jnp.square(below) + jnp.square(above))

    def satisfied(self, ys: Float[Array, " count *shape"]) -> Bool[Array, " count"]:
        """Whether each sample is inside the box, the margin not counted. Its mean is the share satisfied."""
        return jax.vmap(lambda y: jnp.all((y >= self._like(self.lower, y)) & (y <= self._like(self.upper, y))))(ys)

    def _like(self, bound: Array, y: Array) -> Array:
        if bound.ndim and bound.shape != y.shape:
            raise fault(
                expected=f"bounds of shape {y.shape}, or one number",
                got=f"shape {bound.shape}",
                fix="Give infinity for the components that are free.",
            )
        return jnp.broadcast_to(bound, y.shape).astype(y.dtype)


def check_cost(transport: Transport, cost: Cost, args: PyTree) -> None:
    """Refuse a cost that is not one number for one sample and its condition.

    Raises:
        ValueError: it is not.
    """
    check_callable(cost, what="a cost", fix="Write cost(x1, args) -> scalar, of one sample; args may be None.", takes=2)
    one = jax.ShapeDtypeStruct(transport.space.shape, jnp.float32)
    value = jax.eval_shape(cost, one, jax.tree.map(lambda leaf: leaf[0], args))
    check_loss(value, what="a cost", fix=_SCALAR)


@eqx.filter_jit
@canonical_convolutions
def steer(
    transport: Transport,
    cost: Cost,
    count: int,
    *,
    key: Key,
    args: PyTree = None,
    steps: int = 100,
    rate: Rate | None = None,
    inner_steps: int = 1,
) -> tuple[Float[Array, " count *shape"], Steering]:
    r"""Draw samples of low cost by gradient skipping: no gradient passes through the field.

    At each step the velocity gives the predicted ends of the path, $\hat x_1 = x_t + (1 - t) v$ on the straight one (on
    any other path, its own conversion). The cost's gradient is taken *at* $\hat x_1$ and applied to $x_t$ as it is,

    $$ x_t \leftarrow x_t - \mathrm{rate}\,\nabla c(\hat x_1), $$

    as if the Jacobian of $\hat x_1$ with respect to $x_t$ were the identity; then the flow goes on with the velocity
    already known. A straight, well-trained field makes the shortcut a good one. What comes out has a low cost and looks
    like data, but is **not** a draw from the posterior: the spread is too small. See `sample_posterior` and
    `complete` for that.

    Args:
        transport: any transport, however its pairs were coupled: only the velocity is used.
        cost: ``cost(x1, args) -> scalar`` of one sample; differentiable.
        count: how many samples.
        key: for the prior.
        args: condition of the field and of the cost, leading axis ``count``, or None.
        steps: of the flow. Default 100. The last one is not corrected.
        rate: step size of the correction, in squared units of the data per unit of cost; a number, or a function of
            time. For $c = \tfrac12\|Ax - y\|^2$ divide by $\|A\|^2$. Default 5 / ``steps``: early on $\hat x_1$ hardly
            answers to $x_t$, and corrections that are not answered pile up and overshoot, the more so the larger
            rate × steps is.
        inner_steps: corrections a step, each at the $\hat x_1$ that the one before it left, with the velocity held.

    Returns:
        Samples, leading axis ``count``, and a `Steering` record of the cost.

    Raises:
        ValueError: a count is not a positive whole number; ``args`` have another leading axis; the cost's value is not
            one number.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.spaces import Euclidean
        >>> from nablax.transport import Bounds, Linear, Normal, Transport, steer
        >>> # Data N(0, 1), reached from N(0, 1).
        >>> velocity = lambda t, y, args: (2 * t - 1) / (t**2 + (1 - t) ** 2) * y
        >>> transport = Transport(velocity, Linear(), Normal((1,)), Euclidean((1,)))
        >>> above = Bounds(lower=0.5)
        >>> samples, record = steer(transport, above, 200, key=jax.random.key(0), steps=50)
        >>> bool(above.satisfied(samples).mean() > 0.95), record.evaluations, record.products
        (True, 50, 0)

    Cost:
        ``steps`` forward passes a sample, no JVP, no VJP; memory of one forward pass. The cost is differentiated
        ``steps × inner_steps`` times.

    References:
        Patel et al. (2024), Steering Rectified Flow Models in the Vector Field for Controlled Image Generation
        (FlowChef), https://arxiv.org/abs/2412.00100. The carrying over to any affine path is ours.
    """
    count, inner_steps = check_draws(count, key, args), check_count(inner_steps, what="inner_steps")
    check_cost(transport, cost, args)
    path = affine(transport.path, what="the predicted ends")

    def rate_at(t: Array) -> Array:
        return rate(t) if callable(rate) else jnp.asarray(5.0 / steps if rate is None else rate)

    def step(now: Moment, y: Array, args: PyTree) -> tuple[Array, Array]:
        velocity = transport.velocity(now.t, y, args)
        denoised = path.convert(now.t, y, velocity, source="velocity", target="denoiser")
        noise = path.convert(now.t, y, velocity, source="velocity", target="noise")
        # At the last step nothing is left to bring a corrected state back to the data.
        gain = jnp.where(now.index == steps - 1, 0.0, rate_at(now.t)).astype(y.dtype)
        shift = jnp.zeros_like(y)
        for _ in range(inner_steps):
            shift = shift - gain * jax.grad(cost)(denoised + shift, args)
        # Both predicted ends are held, which on the straight path is an Euler step; the correction rides along.
        return path.interpolate(now.s, noise, denoised) + shift, cost(denoised, args)

    each = jax.vmap(step, in_axes=(None, 0, 0))
    samples, costs = march(transport, each, count, key=key, steps=steps, args=args)
    return samples, Steering(costs, jax.vmap(cost)(samples, args), len(costs), 0)


__all__ = ["Bounds", "Cost", "Rate", "Steering", "check_cost", "steer"]

"""Diffusion posterior sampling as its authors run it: a constant step through the model, whatever the time."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import Key, canonical_convolutions, check_shape
from .._batch import check_draws
from .._march import Moment, march
from .._paths._affine import affine
from .._transport import Transport
from ._steering import Cost, Steering, check_cost


@eqx.filter_jit
@canonical_convolutions
def constant_step_guidance(
    transport: Transport,
    cost: Cost,
    count: int,
    *,
    key: Key,
    args: PyTree = None,
    steps: int = 100,
    rate: float | Float[Array, ""] = 1.0,
) -> tuple[Float[Array, " count *shape"], Steering]:
    r"""Draw samples of low cost by a step of constant size through the denoiser after each step of the flow.

    With the cost half a squared residual, $c = \tfrac12\lVert r\rVert^2$, the flow's step from $x_t$ is followed by

    $$ x_s \leftarrow x_s - \mathrm{rate}\,\nabla_{x_t} \lVert r(\hat x_1(x_t))\rVert
       = x_s - \mathrm{rate}\,\frac{\nabla_{x_t}\, c(\hat x_1(x_t))}{\sqrt{2\,c(\hat x_1(x_t))}}, $$

    so that the pull does not weaken as the residual does, at no time. `posterior_guidance` reads the cost as a
    likelihood instead, whose pull vanishes at the end of the path with the noise. What comes out agrees with the
    observation closely, the more so the larger ``rate`` × ``steps``; it is no draw from the posterior.

    Args:
        transport: a transport that defines the denoiser: normal prior, independent coupling.
        cost: ``cost(x1, args) -> scalar`` of one sample, at least 0; differentiable.
        count: how many samples.
        key: for the prior.
        args: condition of the field and of the cost, leading axis ``count``, or None.
        steps: of the flow. Default 100; the authors take 1000.
        rate: in squared units of the data per unit of residual, a step. Default 1, the authors' code's; the text has
            0.3 to 1 by problem.

    Returns:
        Samples, leading axis ``count``, and a `Steering` record of the cost.

    Raises:
        ValueError: ``count`` or ``steps`` is not a positive whole number; ``args`` have another leading axis; the
            cost's value is not one number; the transport does not define a denoiser.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.spaces import Euclidean
        >>> from nablax.transport import Linear, Normal, Transport, constant_step_guidance
        >>> velocity = lambda t, y, args: (2 * t - 1) / (t**2 + (1 - t) ** 2) * y  # data N(0, I)
        >>> transport = Transport(velocity, Linear(), Normal((2,)), Euclidean((2,)))
        >>> first = lambda x, args: 0.5 * (x[0] - 1.0) ** 2
        >>> samples, record = constant_step_guidance(transport, first, 50, key=jax.random.key(0), rate=0.1)
        >>> bool(jnp.abs(samples[:, 0] - 1).mean() < 0.1), record.products
        (True, 100)

    Cost:
        ``steps`` forward passes and as many vector-Jacobian products; memory of the field's activations.

    References:
        Chung et al. (2023), Diffusion Posterior Sampling for General Noisy Inverse Problems,
        https://arxiv.org/abs/2209.14687, and its code, https://github.com/DPS2022/diffusion-posterior-sampling. Theirs
        goes along the ancestral sampler; here, as where flows are compared with it, along the probability flow.
    """
    count = check_draws(count, key, args)
    check_cost(transport, cost, args)
    check_shape(rate, (), what="a rate", fix="One number; 1 is the authors'.")
    path = affine(transport.path, what="guidance")

    def step(now: Moment, y: Array, args: PyTree) -> tuple[Array, Array]:
        denoised, pullback = jax.vjp(lambda y: transport.denoiser(now.t, y, args), y)
        value, slope = jax.value_and_grad(cost)(denoised, args)
        # Where nothing is left of the residual it has no direction either, and the slope is zero.
        residual = jnp.sqrt(2 * jnp.where(value > 0, value, 1))
        shift = jnp.asarray(rate, y.dtype) * pullback(slope)[0] / residual
        noise = path.convert(now.t, y, denoised, source="denoiser", target="noise")
        return path.interpolate(now.s, noise, denoised) - shift, value

    each = jax.vmap(step, in_axes=(None, 0, 0))
    samples, costs = march(transport, each, count, key=key, steps=steps, args=args)
    return samples, Steering(costs, jax.vmap(cost)(samples, args), len(costs), len(costs))


__all__ = ["constant_step_guidance"]

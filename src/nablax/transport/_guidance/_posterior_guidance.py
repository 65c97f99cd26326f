"""Guide samples by the gradient of a likelihood through the denoiser: DPS and pseudoinverse guidance."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree

from ..._core import Key, canonical_convolutions, check_shape
from .._batch import check_draws
from .._march import Moment, march, time_grid
from .._paths._affine import affine
from .._transport import Transport
from ._observed import observed
from ._steering import Cost, Steering, check_cost

# Pull of the likelihood on one sample: (time, state, denoised, pullback through the denoiser, args) -> score.
_Pull = Callable[[Array, Array, Callable[[Array], tuple[Array]], PyTree], Array]


@eqx.filter_jit
@canonical_convolutions
def posterior_guidance(
    transport: Transport,
    cost: Cost,
    count: int,
    *,
    key: Key,
    args: PyTree = None,
    steps: int = 100,
    rate: float = 1.0,
) -> tuple[Float[Array, " count *shape"], Steering]:
    r"""Draw samples guided by a cost through the denoiser (diffusion posterior sampling).

    The cost is read as a negative log-likelihood. The score of the flow is corrected by

    $$ \nabla_{x_t} \log p(y | x_t) \approx -\mathrm{rate}\,\nabla_{x_t}\, c(\hat x_1(x_t)), $$

    that is, the average of the likelihood over what $x_1$ may still become is replaced by the likelihood of its mean.
    That is exact at the end of the path only: the spread and the weights of modes come out wrong, and a sharp
    likelihood needs a smaller ``rate`` or many steps to be stable.

    Args:
        transport: a transport that defines the denoiser: normal prior, independent coupling.
        cost: ``cost(x1, args) -> scalar`` of one sample, in nats; differentiable.
        count: how many samples.
        key: for the prior.
        args: condition of the field and of the cost, leading axis ``count``, or None.
        steps: of the flow. Default 100.
        rate: multiplies the guidance (dimensionless). Default 1.

    Returns:
        Samples, leading axis ``count``, and a `Steering` record of the cost.

    Raises:
        ValueError: ``count`` or ``steps`` is not a positive whole number; ``args`` have another leading axis; the
            cost's value is not one number; the transport does not define a denoiser.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.spaces import Euclidean
        >>> from nablax.transport import Linear, Normal, Transport, posterior_guidance
        >>> velocity = lambda t, y, args: (2 * t - 1) / (t**2 + (1 - t) ** 2) * y  # data N(0, 1)
        >>> transport = Transport(velocity, Linear(), Normal((1,)), Euclidean((1,)))
        >>> nats = lambda x, args: 0.5 * jnp.sum((x - 2.0) ** 2)  # x observed as 2, with noise N(0, 1)
        >>> samples, record = posterior_guidance(transport, nats, 500, key=jax.random.key(0))
        >>> round(float(samples.mean()), 1)  # the posterior's mean is 1: the bias is the method's
        1.4

    Cost:
        ``steps`` forward passes and as many vector-Jacobian products; memory of the field's activations.

    References:
        Chung et al. (2023), Diffusion Posterior Sampling for General Noisy Inverse Problems,
        https://arxiv.org/abs/2209.14687, here on the probability flow, and with the weight that the
        likelihood has by Tweedie's formula; their own step, constant and normalised, is `constant_step_guidance`.
    """
    count = check_draws(count, key, args)
    check_cost(transport, cost, args)
    check_shape(rate, (), what="a rate", fix="One number; 1 is the method's own.")

    def pull(t: Array, denoised: Array, pullback: Callable[[Array], tuple[Array]], args: PyTree) -> Array:
        return -rate * pullback(jax.grad(cost)(denoised, args))[0]

    return _guided(transport, pull, cost, count, key, args, steps)


@eqx.filter_jit
@canonical_convolutions
def pseudoinverse_guidance(
    transport: Transport,
    operator: Callable[[Array], Array],
    observation: Float[Array, "*observed"],
    noise_scale: float | Float[Array, ""],
    count: int,
    *,
    key: Key,
    args: PyTree = None,
    steps: int = 100,
    data_scale: float = 1.0,
) -> tuple[Float[Array, " count *shape"], Steering]:
    r"""Draw samples guided by a linear observation $y = A x_1 + \sigma\varepsilon$ (pseudoinverse guidance, ΠGDM).

    What $x_1$ may still become is taken to be $N(\hat x_1, r_t^2 I)$ with $r_t^2 = s^2 b^2 / (s^2 a^2 + b^2)$, so that

    $$ \nabla_{x_t}\log p(y | x_t) \approx
       (\partial\hat x_1/\partial x_t)^\top A^\top (r_t^2 A A^\top + \sigma^2 I)^{-1} (y - A\hat x_1). $$

    Exact when the data are $N(\mu, s^2 I)$; on anything else the spread and the weights of modes are approximate.

    Args:
        transport: a transport that defines the denoiser: normal prior, independent coupling.
        operator: a linear map of one sample, ``operator(x) -> y``.
        observation: what was observed, of the operator's output shape; NaN for a component that was not. Where the
            operator is zero, as behind the mask of `inpainting`, it is not looked at.
        noise_scale: $\sigma$, standard deviation of the observation's noise in its unit; 0 is allowed.
        count: how many samples.
        key: for the prior.
        args: condition of the field, leading axis ``count``, or None.
        steps: of the flow. Default 100.
        data_scale: $s$, in units of the data. Default 1: standardised data.

    Returns:
        Samples, leading axis ``count``, and a `Steering` record of the cost $\tfrac12\|y - A x\|^2$.

    Raises:
        ValueError: ``count`` or ``steps`` is not a positive whole number; ``args`` have another leading axis; the
            transport does not define a denoiser; the observation is not an array of floats of the operator's output
            shape.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.spaces import Euclidean
        >>> from nablax.transport import Linear, Normal, Transport, pseudoinverse_guidance
        >>> velocity = lambda t, y, args: (2 * t - 1) / (t**2 + (1 - t) ** 2) * y  # data N(0, 1)
        >>> transport = Transport(velocity, Linear(), Normal((1,)), Euclidean((1,)))
        >>> samples, _ = pseudoinverse_guidance(
        ...     transport, lambda x: x, jnp.full((1,), 2.0), 1.0, 2000, key=jax.random.key(0)
        ... )
        >>> bool(abs(samples.mean() - 1) < 0.08)  # the posterior is N(1, 1/2)
        True

    Cost:
        ``steps`` forward passes and as many vector-Jacobian products, and a solve by conjugate gradients in the
        observation's dimension at each step (one or two iterations for masks and block averages).

    References:
        Song et al. (2023), Pseudoinverse-Guided Diffusion Models for Inverse Problems, ICLR; Pokle et al. (2024),
        Training-free Linear Image Inverses via Flows, https://arxiv.org/abs/2310.04432 (on flows).
    """
    operator, observation = observed(transport, operator, observation, noise_scale)
    path = affine(transport.path, what="guidance")

    def cost(x: Array, args: PyTree) -> Array:
        return 0.5 * jnp.sum(jnp.square(operator(x) - observation))

    def pull(t: Array, denoised: Array, pullback: Callable[[Array], tuple[Array]], args: PyTree) -> Array:
        a, b, _, _ = path.coefficients(t)
        variance = jnp.square(data_scale * b) / (jnp.square(data_scale * a) + jnp.square(b))
        transpose = jax.linear_transpose(operator, denoised)
        # The ridge keeps a noiseless mask, whose AAᵀ is singular, solvable; it is below rounding of the variance.
        ridge = jnp.square(jnp.asarray(noise_scale, denoised.dtype)) + 1e-6 * variance
        system = lx.FunctionLinearOperator(
            lambda u: variance * operator(transpose(u)[0]) + ridge * u,
            jax.eval_shape(lambda: observation),
            tags=lx.positive_semidefinite_tag,
        )
        residual = observation - operator(denoised)
        solved = lx.linear_solve(system, residual, lx.CG(rtol=1e-5, atol=1e-6, max_steps=100), throw=False)
        return pullback(transpose(solved.value)[0])[0]

    return _guided(transport, pull, cost, count, key, args, steps)


def _guided(
    transport: Transport, pull: _Pull, cost: Cost, count: int, key: Key, args: PyTree, steps: int
) -> tuple[Array, Steering]:
    path = affine(transport.path, what="guidance")
    floor = 0.5 * path.coefficients(time_grid(path, steps)[1])[0]

    def step(now: Moment, y: Array, args: PyTree) -> tuple[Array, Array]:
        denoised, pullback = jax.vjp(lambda y: transport.denoiser(now.t, y, args), y)
        a, b, _, _ = path.coefficients(now.t)
        # Tweedie: a score of the likelihood moves the denoiser by b²/a times it. At a = 0 the pullback vanishes with a.
        gain = jnp.square(b) / jnp.maximum(a, floor)
        guided = denoised + gain * pull(now.t, denoised, pullback, args)
        noise = path.convert(now.t, y, guided, source="denoiser", target="noise")
        return path.interpolate(now.s, noise, guided), cost(denoised, args)

    each = jax.vmap(step, in_axes=(None, 0, 0))
    samples, costs = march(transport, each, count, key=key, steps=steps, args=args)
    return samples, Steering(costs, jax.vmap(cost)(samples, args), len(costs), len(costs))


__all__ = ["posterior_guidance", "pseudoinverse_guidance"]

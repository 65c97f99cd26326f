"""Draw from a conditional distribution, exactly in the limit of many particles and steps."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import Key, check_floats, check_key, check_like, described, fault
from .._transport import Transport
from ._observed import observed as observed_part
from ._twisted import Posterior, twisted


def complete(
    transport: Transport,
    observed: Float[Array, "*shape"],
    mask: Bool[Array, "*shape"],
    count: int,
    *,
    key: Key,
    particles: int = 32,
    steps: int = 24,
    args: PyTree = None,
) -> Posterior:
    """Draw the missing components of one row given its observed ones, from their conditional distribution.

    `sample_posterior` with the observed components as a noiseless observation; they come back unchanged. Filling with
    the conditional mean, or writing the observed components over an unconditional sample at each step, does not draw
    from this distribution; this does, as ``particles`` and ``steps`` grow.

    Args:
        transport: a transport that defines the denoiser: normal prior, independent coupling.
        observed: the row; missing components may hold anything, NaN too.
        mask: True where observed; a component that is NaN was not, whatever the mask says. It may differ from row to
            row under ``jax.vmap``.
        count: how many samples.
        key: for the particles.
        particles: Default 32. More where `Posterior.lineages` is low.
        steps: Default 24.
        args: condition of the field for this row, or None.

    Returns:
        A `Posterior`; ``log_evidence`` is the log-density of the observed components, in nats.

    Raises:
        ValueError: a count is not positive; shapes differ; the mask is not of booleans; the transport does not define
            a denoiser.
        EquinoxRuntimeError: every particle's weight was lost (a field that is not finite).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.spaces import Euclidean
        >>> from nablax.transport import Linear, Normal, Transport, complete
        >>> # Data: two columns, standard normal with correlation 0.8.
        >>> covariance = jnp.array([[1.0, 0.8], [0.8, 1.0]])
        >>> def velocity(t, y, args):
        ...     blend = t**2 * covariance + (1 - t) ** 2 * jnp.eye(2)
        ...     return (t * covariance - (1 - t) * jnp.eye(2)) @ jnp.linalg.solve(blend, y)
        >>> transport = Transport(velocity, Linear(), Normal((2,)), Euclidean((2,)))
        >>> row, mask = jnp.array([1.0, jnp.nan]), jnp.array([True, False])
        >>> posterior = complete(transport, row, mask, 500, key=jax.random.key(0), particles=100)
        >>> bool(abs(posterior.samples[:, 1].mean() - 0.8) < 0.1)  # the second column is N(0.8, 0.36)
        True

    Cost:
        A row: ``particles × steps`` forward passes with D Jacobian-vector products each (D + 1 forward passes), as many
        D × D eigendecompositions, no VJP. ``jax.vmap`` it over rows and ``jax.jit`` that; hold memory with
        ``jax.lax.map(..., batch_size=...)``: rows × particles × D activations of the field.

    References:
        As `sample_posterior`.
    """
    one = jax.ShapeDtypeStruct(transport.space.shape, jnp.float32)
    check_floats(observed, what="a row", fix="Convert it to a float dtype.")
    check_like((observed, mask), (one, one), what="one row and its mask: a pair that", fix="jax.vmap it over rows.")
    if not jnp.issubdtype(jnp.result_type(mask), jnp.bool_):
        raise fault(expected="a mask of booleans", got=described(mask), fix="Pass mask > 0.5, True where observed.")
    observed = jnp.asarray(observed, jnp.promote_types(observed.dtype, jnp.float32))
    seen = jnp.asarray(mask, bool) & ~jnp.isnan(observed)
    matrix = jnp.diag(seen.reshape(-1).astype(observed.dtype))
    posterior = _drawn(transport, matrix, jnp.where(seen, observed, 0), seen, 0.0, count, key, particles, steps, args)
    return eqx.tree_at(lambda p: p.samples, posterior, jnp.where(seen, observed, posterior.samples))


def sample_posterior(
    transport: Transport,
    operator: Callable[[Array], Array],
    observation: Float[Array, "*observed"],
    noise_scale: float | Float[Array, ""],
    count: int,
    *,
    key: Key,
    particles: int = 32,
    steps: int = 24,
    args: PyTree = None,
) -> Posterior:
    r"""Draw from $p(x\,|\,y)$, $y = A x + \sigma\varepsilon$, by twisted sequential Monte Carlo.

    A particle at time $t$ knows where it may end: $x_1 | x_t$ has mean $\hat x_1$ and, by Tweedie's formula of second
    order, covariance $\Sigma = (b^2/a)\,\partial\hat x_1/\partial x_t$. With that normal law,

    - the next state $x_s | x_t$ is normal in closed form, and so is $x_s | x_t, y$, from which it is drawn;
    - $\psi_t(x_t) = N(y; A\hat x_1, A\Sigma A^\top + \sigma^2 I)$ says how promising the particle is;
    - the weight $\psi_s(x_s) / p(y | x_s, x_t)$ makes up for the law at $s$ being another than was foreseen at $t$.

    The weights are exact for the chain of normal steps, whatever $\Sigma$ is, so the draws follow its conditional
    distribution as ``particles`` grow, and the chain's law is the model's as ``steps`` grow. Where the data are normal
    the weights are constant and a few steps are enough.

    Args:
        transport: a transport that defines the denoiser: normal prior, independent coupling. Data of about unit scale.
        operator: a linear map of one sample, ``operator(x) -> y``.
        observation: what was observed, of the operator's output shape; NaN for a component that was not. Where the
            operator is zero, as behind the mask of `inpainting`, it is not looked at.
        noise_scale: $\sigma$, standard deviation of the observation's noise in its unit; 0 if what the operator
            observes is linearly independent.
        count: how many samples.
        key: for the particles.
        particles: Default 32.
        steps: Default 24.
        args: condition of the field, or None.

    Returns:
        A `Posterior`.

    Raises:
        ValueError: a count is not positive; shapes differ; the transport does not define a denoiser.
        EquinoxRuntimeError: every particle's weight was lost.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.spaces import Euclidean
        >>> from nablax.transport import Linear, Normal, Transport, sample_posterior
        >>> velocity = lambda t, y, args: (2 * t - 1) / (t**2 + (1 - t) ** 2) * y  # data N(0, I)
        >>> transport = Transport(velocity, Linear(), Normal((2,)), Euclidean((2,)))
        >>> total = lambda x: x.sum(keepdims=True)
        >>> posterior = sample_posterior(
        ...     transport, total, jnp.array([3.0]), 1.0, 500, key=jax.random.key(0), particles=100
        ... )
        >>> bool(jnp.all(abs(posterior.samples.mean(axis=0) - 1) < 0.15))  # each is 3 / (2 + 1) on average
        True

    Cost:
        ``particles × steps`` forward passes with D Jacobian-vector products each, as many eigendecompositions of a
        D × D matrix and two factorisations in the observation's dimension; no VJP. For D up to about a hundred.

    References:
        Wu et al. (2023), Practical and Asymptotically Exact Conditional Sampling in Diffusion Models,
        https://arxiv.org/abs/2306.17775 (twisting); Boys et al. (2023), Tweedie Moment Projected Diffusions for Inverse
        Problems, https://arxiv.org/abs/2310.06721 (the covariance); Lee, Whiteley (2018), Variance estimation in the
        particle filter, https://arxiv.org/abs/1509.00394 (lineages). The closed-form steps are derived here.
    """
    part, seen = observed_part(transport, operator, observation, noise_scale)
    zero = jnp.zeros(transport.space.shape, seen.dtype)
    matrix = jax.jacfwd(part)(zero).reshape(seen.size, zero.size)
    return _drawn(transport, matrix, seen, part.known, noise_scale, count, key, particles, steps, args)


def _drawn(
    transport: Transport,
    matrix: Array,
    observation: Array,
    known: Array,
    noise_scale: float | Array,
    count: int,
    key: Key,
    *rest: Any,
) -> Posterior:
    check_key(key)
    known, values = known.reshape(-1), observation.reshape(-1)
    # A hole is an observation of nothing at all, of unit variance: it says the same to every particle.
    variance = jnp.where(known, jnp.square(jnp.asarray(noise_scale, values.dtype)), 1)
    posterior = twisted(transport, matrix, variance, values, count, key, *rest)
    spurious = -0.5 * jnp.log(2 * jnp.pi) * jnp.sum(~known).astype(values.dtype)
    return eqx.tree_at(lambda p: p.log_evidence, posterior, posterior.log_evidence - spurious)


__all__ = ["complete", "sample_posterior"]

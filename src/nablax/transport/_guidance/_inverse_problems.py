r"""Linear inverse problems, $y = A x + \sigma\varepsilon$: observation operators, and one face for two methods."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import Key, check_count, check_shape, fault
from ...calculus import top_eigenvalues
from .._transport import Transport
from ._observed import Operator, observed
from ._posterior_guidance import pseudoinverse_guidance
from ._steering import Steering, steer


class _Inpainting(eqx.Module):
    mask: Bool[Array, "*shape"]

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        if x.shape != self.mask.shape:
            raise fault(
                expected=f"a sample of the mask's shape {self.mask.shape}",
                got=f"shape {x.shape}",
                fix="Give the mask the shape of one sample.",
            )
        return x * self.mask.astype(x.dtype)


class _Colourisation(eqx.Module):
    weights: Float[Array, "outputs channels"]

    def __call__(self, x: Float[Array, "*space channels"]) -> Float[Array, "*space outputs"]:
        return x @ self.weights.T.astype(x.dtype)


class _SuperResolution(eqx.Module):
    factor: int = eqx.field(static=True)
    axes: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*coarse"]:
        for axis in self.axes:
            size = x.shape[axis]
            if size % self.factor:
                raise fault(
                    expected=f"a size divisible by {self.factor} along axis {axis}",
                    got=size,
                    fix="Crop or pad the samples.",
                )
            blocks = (*x.shape[:axis], size // self.factor, self.factor, *x.shape[axis + 1 :])
            x = jnp.mean(x.reshape(blocks), axis=axis + 1)
        return x


def inpainting(mask: Bool[Array, "*shape"]) -> Operator:
    r"""Observe some components and nothing of the others: $A x = m \odot x$.

    Args:
        mask: True where observed; the shape of a sample.

    Returns:
        ``operator(x) -> y``, shaped like ``x``, zero where nothing is observed.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.transport import inpainting
        >>> inpainting(jnp.array([True, False]))(jnp.array([3.0, 4.0])).tolist()
        [3.0, 0.0]

    Cost:
        None of the model.
    """
    return _Inpainting(jnp.asarray(mask, bool))


def colourisation(weights: Float[Array, "outputs channels"]) -> Operator:
    r"""Observe a fixed projection of the last axis: $y_{\ldots o} = \sum_c W_{oc}\,x_{\ldots c}$.

    Args:
        weights: ``jnp.ones((1, 3)) / 3`` for the grey of three channels.

    Returns:
        ``operator(x) -> y`` with the last axis projected.

    Raises:
        ValueError: ``weights`` is not a matrix.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.transport import colourisation
        >>> colourisation(jnp.ones((1, 3)) / 3)(jnp.ones((4, 4, 3))).shape
        (4, 4, 1)

    Cost:
        None of the model.
    """
    return _Colourisation(
        check_shape(weights, (None, None), what="weights", fix="One row an output, as (1, 3) for grey.")
    )


def super_resolution(factor: int, axes: tuple[int, ...] = (0, 1)) -> Operator:
    r"""Observe block averages: each ``factor`` neighbours along each of ``axes`` become their mean.

    Args:
        factor: how many times coarser.
        axes: which axes, not negative. Default: the first two, height and width.

    Returns:
        ``operator(x) -> y``, ``factor`` times shorter along ``axes``; it raises a ``ValueError`` where that does not
        divide.

    Raises:
        ValueError: ``factor`` is not positive or an axis is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.transport import super_resolution
        >>> super_resolution(2, axes=(0,))(jnp.array([1.0, 3.0, 5.0, 5.0])).tolist()
        [2.0, 5.0]

    Cost:
        None of the model.
    """
    factor = check_count(factor, what="factor")
    if min(axes) < 0:
        raise fault(expected="axes ≥ 0", got=axes, fix="Count axes from the first.")
    return _SuperResolution(factor, tuple(axes))


def solve_inverse(
    transport: Transport,
    operator: Operator,
    observation: Float[Array, "*observed"],
    noise_scale: float,
    count: int,
    *,
    key: Key,
    args: PyTree = None,
    steps: int = 100,
    method: Literal["posterior guidance", "steering"] = "posterior guidance",
) -> tuple[Float[Array, " count *shape"], Steering]:
    r"""Draw samples that agree with a linear observation $y = A x + \sigma\varepsilon$, by either approximate method.

    "posterior guidance" is `pseudoinverse_guidance`: a gradient through the field at each step; spread and noise level
    are taken account of, to the extent that the data are like $N(\mu, I)$. "steering" is `steer` on
    $\tfrac12\|A x - y\|^2$ at the rate $10 / (\mathrm{steps}\,\|A\|^2)$, at most $1/\|A\|^2$: no gradient through the
    field, and what is observed is met exactly, noise and all. Which one comes closer to the posterior depends on the
    problem; neither reaches it. For small samples `sample_posterior` does.

    Args:
        transport: with a defined denoiser for posterior guidance; any for steering.
        operator: a linear map of one sample; `inpainting`, `colourisation`, `super_resolution`, or any other.
        observation: what was observed, of the operator's output shape; NaN for a component that was not. Where the
            operator is zero, as behind the mask of `inpainting`, it is not looked at.
        noise_scale: $\sigma$, in the observation's unit; 0 is allowed. Steering does not use it.
        count: how many samples.
        key: for the prior.
        args: condition of the field, leading axis ``count``, or None.
        steps: of the flow. Default 100.
        method: "posterior guidance" (default) or "steering".

    Returns:
        Samples, leading axis ``count``, and a `Steering` record of $\tfrac12\|A x - y\|^2$.

    Raises:
        ValueError: the method is unknown; ``noise_scale`` is negative; shapes differ; nothing is observed, the operator
            being zero or the observation all NaN; a component of it is infinite.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.spaces import Euclidean
        >>> from nablax.transport import Linear, Normal, Transport, inpainting, solve_inverse
        >>> velocity = lambda t, y, args: (2 * t - 1) / (t**2 + (1 - t) ** 2) * y  # data N(0, I)
        >>> transport = Transport(velocity, Linear(), Normal((2,)), Euclidean((2,)))
        >>> first = inpainting(jnp.array([True, False]))
        >>> samples, _ = solve_inverse(transport, first, jnp.array([1.0, 0.0]), 0.01, 50, key=jax.random.key(0))
        >>> bool(jnp.abs(samples[:, 0] - 1).max() < 0.1)
        True

    Cost:
        ``steps`` forward passes a sample, and as many vector-Jacobian products with posterior guidance.

    References:
        Those of `pseudoinverse_guidance` and `steer`.
    """
    if method not in ("posterior guidance", "steering"):
        raise fault(expected="'posterior guidance' or 'steering'", got=repr(method), fix="Use the default.")
    steps = check_count(steps, what="steps")
    part, seen = observed(transport, operator, observation, noise_scale)
    if noise_scale < 0:
        raise fault(expected="noise_scale ≥ 0", got=noise_scale, fix="It is a standard deviation.")
    if not isinstance(seen, jax.core.Tracer):
        if not jnp.all(jnp.isfinite(seen)):
            raise fault(expected="a finite observation", got="an infinite one", fix="Mark what is unknown by NaN.")
        if not jnp.any(part.known):
            raise fault(expected="an operator that observes something", got="zero", fix="Sample without it.")
    if method == "posterior guidance":
        scale = jnp.asarray(noise_scale)
        return pseudoinverse_guidance(transport, operator, observation, scale, count, key=key, args=args, steps=steps)
    squared_norm = _squared_norm(part, jnp.zeros(transport.space.shape, seen.dtype))
    return steer(
        transport,
        _Misfit(part, seen),
        count,
        key=key,
        args=args,
        steps=steps,
        rate=min(1.0, 10 / steps) / squared_norm,
    )


class _Misfit(eqx.Module):
    operator: Operator
    observation: Array

    def __call__(self, x: Array, args: PyTree) -> Array:
        return 0.5 * jnp.sum(jnp.square(self.operator(x) - self.observation))


@eqx.filter_jit
def _squared_norm(operator: Operator, example: Array) -> Float[Array, ""]:
    r"""The largest eigenvalue of $A^{\top} A$."""
    transpose = jax.linear_transpose(operator, example)
    found = top_eigenvalues(
        lambda x: transpose(operator(x))[0], example, count=1, tolerance=1e-3, key=jax.random.key(0)
    )
    return found.values[0]


__all__ = ["Operator", "colourisation", "inpainting", "solve_inverse", "super_resolution"]

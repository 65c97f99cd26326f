"""Stochastic samplers: the reverse-time equation and predictor–corrector; the flow itself is `Transport.sample`."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import Key, canonical_convolutions, check_callable, check_count, check_key, fault
from ._march import Moment, march
from ._paths._affine import affine
from ._transport import Transport

Diffusion = Callable[[Array], Array]


@eqx.filter_jit
@canonical_convolutions
def sample_sde(
    transport: Transport,
    count: int,
    *,
    key: Key,
    args: PyTree = None,
    steps: int,
    diffusion: Diffusion | None = None,
    denoise: bool = False,
) -> Float[Array, " count *shape"]:
    r"""Draw samples by the stochastic equation that has the marginals of the probability flow.

    $$dx = \big[v(t, x) + \tfrac12 g(t)^2 \nabla\log p_t(x)\big]\,dt + g(t)\,dW$$

    For every $g$ the marginals are those of $dx = v\,dt$; a larger $g$ forgets past errors sooner and takes more steps.
    The default is the path's own $g$ (the time reversal of Song et al.), held at most so large that one step moves
    pure noise by half its length, $g^2 \le b^2/\Delta t$. The bound acts only near ends where $g$ or the score is
    infinite, such as $t=0$ of the straight path ($g^2 = 2(1-t)/t$) and the data end, and goes away as the steps grow.

    Args:
        transport: one whose score is defined: normal prior, independent pairing.
        count: number of samples.
        key: for the prior and the Brownian motion.
        args: condition, leading axis ``count``, or None.
        steps: number of equal Euler–Maruyama steps over ``path.times``.
        diffusion: ``diffusion(t) -> g``, in units of the data per square root of time. Default: as above.
        denoise: end with the expected data given the last state, which takes the path's remaining noise away.

    Returns:
        Samples, leading axis ``count``.

    Raises:
        ValueError: the score is not defined for this transport; ``count`` or ``steps`` is not a positive whole number;
            ``args`` have another leading axis.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.spaces import Euclidean
        >>> from nablax.transport import Linear, Normal, Transport, sample_sde
        >>> def velocity(t, y, args):  # from N(0, 1) to N(3, 1/4)
        ...     return 3 + (t / 4 - (1 - t)) / ((1 - t) ** 2 + t**2 / 4) * (y - 3 * t)
        >>> transport = Transport(velocity, Linear(), Normal((1,)), Euclidean((1,)))
        >>> samples = sample_sde(transport, 2000, key=jax.random.key(0), steps=100)
        >>> bool(abs(samples.mean() - 3) < 0.05) and bool(abs(samples.std() - 0.5) < 0.05)
        True

    Cost:
        One forward pass a step and sample, and one more with ``denoise``.

    References:
        Song et al. (2021), Score-Based Generative Modeling through Stochastic Differential Equations,
        https://arxiv.org/abs/2011.13456; Albergo, Boffi, Vanden-Eijnden (2023), Stochastic Interpolants,
        https://arxiv.org/abs/2303.08797, for a free $g$.
    """
    if diffusion is not None:
        check_callable(diffusion, what="diffusion", fix="It is g(t), of time alone; leave it out for the path's own.")
    check_key(key)
    prior_key, noise_key = jax.random.split(key)

    def step(now: Moment, ys: Array, args: PyTree) -> tuple[Array, None]:
        g = _bounded(transport, steps, now.t) if diffusion is None else diffusion(now.t)
        # Half of the key, so that samples of a key are what they were when correctors had the other half.
        return _euler_maruyama(transport, g, now, ys, args, jax.random.split(now.key)[0]), None

    ys, _ = march(transport, step, count, key=prior_key, steps=steps, args=args, noise_key=noise_key)
    return _denoised(transport, ys, args) if denoise else ys


@eqx.filter_jit
@canonical_convolutions
def predictor_corrector(
    transport: Transport,
    count: int,
    *,
    key: Key,
    args: PyTree = None,
    steps: int,
    corrector_steps: int = 1,
    signal_to_noise: float = 0.16,
    predictor: Literal["reverse diffusion", "probability flow"] = "reverse diffusion",
    denoise: bool = True,
) -> Float[Array, " count *shape"]:
    r"""Draw samples by turns: correct at a time by Langevin steps, then predict the state at the next time.

    With $x_t = r\,x_s + G z$ the path's own step back from the next time $s$ to $t$, $r = a_t / a_s$ and
    $G^2 = b_t^2 - r^2 b_s^2$, the predictor is that step reversed,

    $$ x_s = (2 - r)\,x_t + G^2\,\nabla\log p_t(x_t) + G z, $$

    where on the variance-exploding path $r = 1$ and $G^2 = \sigma_t^2 - \sigma_s^2$, and on the variance-preserving one
    $G^2 = \beta = 1 - r^2$; or it is one Euler step of the probability flow. A Langevin step at fixed $t$ is
    $x \leftarrow x + \epsilon s + \sqrt{2\epsilon}\,z$ with
    $\epsilon = 2 r^2 (\mathrm{snr}\,\overline{\|z\|} / \overline{\|s\|})^2$, the norms averaged over the batch; it
    pulls the batch towards $p_t$ whatever error the predictor left.

    Args:
        transport: one whose score is defined: normal prior, independent pairing.
        count: number of samples.
        key: for the prior and all noise.
        args: condition, leading axis ``count``, or None.
        steps: number of equal predictor steps over ``path.times``.
        corrector_steps: Langevin steps before each of them. Default 1; 0 leaves the predictor alone.
        signal_to_noise: snr, dimensionless. Default 0.16. It is a setting for images: in few dimensions the stationary
            law of so long a step is visibly too wide, and 0.05 to 0.1 serves better.
        predictor: "reverse diffusion" (default) or "probability flow".
        denoise: end with the expected data given the last state, which takes the path's remaining noise away. Default
            True, as the authors'.

    Returns:
        Samples, leading axis ``count``.

    Raises:
        ValueError: the score is not defined for this transport; a count or the predictor's name is wrong; ``args`` have
            another leading axis.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.spaces import Euclidean
        >>> from nablax.transport import Normal, Transport, VarianceExploding, predictor_corrector
        >>> path = VarianceExploding(0.01, 20.0)
        >>> def score(t, y, args):  # the data are N(0, 1)
        ...     return -y / (1 + path.coefficients(t)[1] ** 2)
        >>> transport = Transport(score, path, Normal((1,), 20.0), Euclidean((1,)), prediction="score")
        >>> samples = predictor_corrector(transport, 2000, key=jax.random.key(0), steps=100, signal_to_noise=0.1)
        >>> bool(abs(samples.mean()) < 0.1) and bool(abs(samples.std() - 1) < 0.15)
        True

    Cost:
        ``corrector_steps + 1`` forward passes a step and sample, and one more with ``denoise``.

    References:
        Song et al. (2021), https://arxiv.org/abs/2011.13456, algorithms 2 to 5, with the corrector before the predictor
        as in the authors' programs, so that the score is never taken at the very end, where it may be infinite. There
        paths that are neither variance-exploding nor -preserving fall back on an Euler–Maruyama step; the one rule for
        all of them is ours, and gives theirs on those two.
    """
    corrector_steps = check_count(corrector_steps, what="corrector_steps", least=0)
    if predictor not in ("reverse diffusion", "probability flow"):
        raise fault(
            expected="'reverse diffusion' or 'probability flow'", got=repr(predictor), fix="The first is the default."
        )
    check_key(key)
    prior_key, noise_key = jax.random.split(key)

    path = affine(transport.path, what="its step back")

    def back(now: Moment) -> tuple[Array, Array]:
        """The path's own step from the next time to this one: what it keeps of a state, and the noise's variance."""
        a, b, _, _ = path.coefficients(now.t)
        a_next, b_next, _, _ = path.coefficients(now.s)
        kept = a / a_next
        return kept, jnp.square(b) - jnp.square(kept * b_next)

    def correct(now: Moment, args: PyTree, ys: Array, key: Key) -> tuple[Array, None]:
        _, score = _velocity_and_score(transport, now.t, ys, args)
        noise = jax.random.normal(key, ys.shape, ys.dtype)
        ratio = signal_to_noise * jnp.mean(_norms(noise)) / jnp.mean(_norms(score))
        length = 2 * jnp.square(back(now)[0] * ratio)
        return ys + length * score + jnp.sqrt(2 * length) * noise, None

    def predict(now: Moment, ys: Array, args: PyTree, key: Key) -> Array:
        velocity, score = _velocity_and_score(transport, now.t, ys, args)
        if predictor == "probability flow":
            return ys + (now.s - now.t) * velocity
        kept, variance = back(now)
        noise = jax.random.normal(key, ys.shape, ys.dtype)
        return (2 - kept) * ys + variance * score + jnp.sqrt(variance) * noise

    def step(now: Moment, ys: Array, args: PyTree) -> tuple[Array, None]:
        predictor_key, corrector_key = jax.random.split(now.key)
        ys, _ = jax.lax.scan(partial(correct, now, args), ys, jax.random.split(corrector_key, corrector_steps))
        return predict(now, ys, args, predictor_key), None

    ys, _ = march(transport, step, count, key=prior_key, steps=steps, args=args, noise_key=noise_key)
    return _denoised(transport, ys, args) if denoise else ys


def _euler_maruyama(transport: Transport, g: Array, now: Moment, ys: Array, args: PyTree, key: Key) -> Array:
    r"""One step of $dx = (v + g^2 s / 2)\,dt + g\,dW$."""
    velocity, score = _velocity_and_score(transport, now.t, ys, args)
    dt = now.s - now.t
    increment = jnp.sqrt(dt) * jax.random.normal(key, ys.shape, ys.dtype)
    return ys + (dt * (velocity + 0.5 * jnp.square(g) * score) + g * increment)


def _bounded(transport: Transport, steps: int, t: Array) -> Array:
    """The path's own diffusion, at most so large that one step moves pure noise by half its length."""
    path = affine(transport.path, what="its own diffusion")
    first, last = path.times
    _, b, _, _ = path.coefficients(t)
    return jnp.minimum(path.diffusion(t), jnp.abs(b) / ((last - first) / steps) ** 0.5)


def _velocity_and_score(transport: Transport, t: Array, ys: Array, args: PyTree) -> tuple[Array, ...]:
    return jax.vmap(lambda y, args: transport.views(t, y, args, "velocity", "score"))(ys, args)


def _denoised(transport: Transport, ys: Array, args: PyTree) -> Array:
    last = jnp.asarray(transport.path.times[1], ys.dtype)
    return jax.vmap(transport.denoiser, in_axes=(None, 0, 0))(last, ys, args)


def _norms(ys: Array) -> Array:
    return jnp.linalg.norm(ys.reshape(ys.shape[0], -1), axis=1)


__all__ = ["predictor_corrector", "sample_sde"]

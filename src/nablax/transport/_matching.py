"""Learn the field: flow matching and denoising score matching, one regression with two targets."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import Key, check_floats, check_key, check_like, check_rows, checked_field, described, fault
from ._paths._affine import AbstractAffinePath, View, affine, check_view
from ._paths._path import AbstractPath, check_path

Loss = Callable[..., Float[Array, ""]]


def flow_matching(path: AbstractPath, *, condition_dropout: float = 0.0) -> Loss:
    r"""Regress a field on the path's velocity: $E\,\|v(t, x_t) - \dot x_t\|^2 / D$.

    The minimiser is the conditional mean of the velocity given $x_t$, which carries the prior to the data. Times are
    spread evenly over the batch with one random offset, which leaves each of them uniform and lowers the variance.

    Args:
        path: the path; times are uniform on ``path.times``.
        condition_dropout: share of rows whose condition is replaced by zeros, the null condition of classifier-free
            guidance. Default 0.

    Returns:
        ``loss(model, batch, *, key) -> scalar``, in squared units of the data per unit time. ``batch`` is an array
        of data ``[rows, ...]``, or a dict with "data" and optionally "condition" (``args`` of the model, leading axis
        rows) and "noise" (rows paired with the data by a coupling; default: fresh standard normal noise). Data in half
        precision are computed with in single precision.

    Raises:
        ValueError: ``condition_dropout`` is not in [0, 1); when it is called: the batch has another key, no rows, rows
            of integers, noise or conditions that are not one a row, or no conditions to drop; the model's value is not
            shaped like a row.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.transport import Linear, flow_matching
        >>> loss = flow_matching(Linear())
        >>> value = loss(lambda t, y, args: jnp.zeros_like(y), jnp.zeros((512, 2)), key=jax.random.key(0))
        >>> bool(0.8 < value < 1.2)  # data at zero: the velocity is minus the noise
        True

    Cost:
        One forward pass a row; a vector-Jacobian product under ``jax.grad``.

    References:
        Lipman et al. (2023), Flow Matching for Generative Modeling, https://arxiv.org/abs/2210.02747; the evenly spread
        times follow Kingma et al. (2021), Variational Diffusion Models, https://arxiv.org/abs/2107.00630, appendix I.1.
    """
    check_path(path)

    def misfit(value: Array, t: Array, x0: Array, x1: Array) -> Array:
        return value - path.target(t, x0, x1)

    return _regression(path, misfit, condition_dropout)


def denoising_score_matching(
    path: AbstractAffinePath, *, prediction: View = "noise", condition_dropout: float = 0.0
) -> Loss:
    r"""Regress a field on the noise, the data, or the conditional score of the path.

    A score model is weighted by $b(t)^2$: $E\,\|b\,s(t, x_t) + x_0\|^2 / D$, so that every time counts alike.

    Args:
        path: the affine path; times are uniform on ``path.times``.
        prediction: what the model returns: "noise" (default), "score", "denoiser" or "velocity".
        condition_dropout: as in `flow_matching`.

    Returns:
        ``loss(model, batch, *, key) -> scalar``; ``batch`` as in `flow_matching`.

    Raises:
        ValueError: ``prediction`` is unknown; the path is not affine; and as `flow_matching`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.transport import VariancePreserving, denoising_score_matching
        >>> loss = denoising_score_matching(VariancePreserving(), prediction="score")
        >>> value = loss(lambda t, y, args: jnp.zeros_like(y), jnp.zeros((512, 2)), key=jax.random.key(0))
        >>> bool(0.8 < value < 1.2)
        True

    Cost:
        One forward pass a row; a vector-Jacobian product under ``jax.grad``.

    References:
        Vincent (2011), A Connection Between Score Matching and Denoising Autoencoders; Song et al. (2021),
        https://arxiv.org/abs/2011.13456, equation 7 with weight $b^2$.
    """
    affine(path, what="denoising score matching")
    check_view(prediction)

    def misfit(value: Array, t: Array, x0: Array, x1: Array) -> Array:
        if prediction == "velocity":
            return value - path.target(t, x0, x1)
        if prediction == "score":
            return path.coefficients(t)[1] * value + x0
        return value - (x0 if prediction == "noise" else x1)

    return _regression(path, misfit, condition_dropout)


def _regression(path: AbstractPath, misfit: Callable[..., Array], condition_dropout: float) -> Loss:
    if not 0 <= condition_dropout < 1:
        raise fault(expected="0 ≤ condition_dropout < 1", got=condition_dropout, fix="A usual value is 0.1.")
    first, last = path.times

    def residual(model: Callable[..., Array], t: Array, x0: Array, x1: Array, condition: PyTree) -> Array:
        value = checked_field(model)(t, path.interpolate(t, x0, x1), condition)
        return jnp.mean(jnp.square(misfit(value, t, x0, x1)))

    def loss(model: Callable[..., Array], batch: Any, *, key: Key) -> Float[Array, ""]:
        x1, x0, condition = _parts(batch)
        check_key(key)
        if condition_dropout > 0 and condition is None:
            raise fault(
                expected=f'a "condition" in the batch, for condition_dropout={condition_dropout}',
                got="none",
                fix='Pass {"data": …, "condition": …}, or leave condition_dropout at 0.',
            )
        rows = x1.shape[0]
        time_key, noise_key, drop_key = jax.random.split(key, 3)
        if x0 is None:
            x0 = jax.random.normal(noise_key, x1.shape, x1.dtype)
        offset = jax.random.uniform(time_key, (), x1.dtype)
        spread = (jnp.arange(rows, dtype=x1.dtype) / rows + offset) % 1
        times = first + (last - first) * spread
        if condition_dropout > 0:
            keep = jax.random.bernoulli(drop_key, 1 - condition_dropout, (rows,))
            condition = jax.tree.map(
                lambda c: jnp.where(keep.reshape(rows, *(1,) * (c.ndim - 1)), c, jnp.zeros_like(c)), condition
            )
        return jnp.mean(jax.vmap(residual, in_axes=(None, 0, 0, 0, 0))(model, times, x0, x1, condition))

    return loss


def _parts(batch: Any) -> tuple[Array, Array | None, PyTree]:
    """Data, noise and condition of a batch; halves are widened, since their times would be too coarse."""
    if not isinstance(batch, dict):
        batch = {"data": batch}
    if "data" not in batch or not batch.keys() <= {"data", "noise", "condition"}:
        raise fault(
            expected='a batch with "data", and perhaps "condition" and "noise"',
            got=", ".join(repr(name) for name in batch) or "an empty one",
            fix='Name the conditions of the rows "condition", and leave other columns out.',
        )
    data, noise = batch["data"], batch.get("noise")
    check_floats(data, what="data", fix="Convert them to a float dtype.")
    if not isinstance(data, (jax.Array, np.ndarray)) or data.ndim < 1 or not len(data):
        raise fault(expected="data with a leading axis of rows", got=described(data), fix="Stack one sample a row.")
    if noise is not None:
        check_floats(noise, what="noise", fix="Convert it to a float dtype.")
        check_like(noise, data, what="noise that", fix="Pair one noise of its shape with each row.")
    check_rows(batch.get("condition"), len(data), what="a condition", fix="Give one condition a row.")
    wide = jnp.promote_types(data.dtype, jnp.float32)
    return jnp.asarray(data, wide), None if noise is None else jnp.asarray(noise, wide), batch.get("condition")


__all__ = ["denoising_score_matching", "flow_matching"]

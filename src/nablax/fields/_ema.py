"""Exponential moving average of a model's weights."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from .._core import check_like, check_shape, fault, wide_dtype


class EMAState(NamedTuple):
    """The running average.

    Attributes:
        average: the averaged model, of the same structure, shapes and dtypes as the model.
        updates: number of updates so far.
    """

    average: PyTree
    updates: Int[Array, ""]


class EMA(eqx.Module):
    r"""Exponential moving average of the inexact arrays of a model, with a warm-up of the decay.

    $$
    \bar\theta_{k+1} = d_k \bar\theta_k + (1 - d_k)\,\theta_{k+1},
    \qquad d_k = \min\!\left(d, \frac{1 + k}{10 + k}\right)
    $$

    The warm-up lets the average forget the initial weights: after $k \ll 1/(1-d)$ updates it remembers about the
    last tenth of them. Floating and complex arrays are averaged and kept in their own dtype, of which half precision
    is too coarse for decays near one; every other leaf (integers, functions, strings) is the newest model's.

    Args:
        decay: the final decay $d$, in [0, 1); no unit.

    Raises:
        ValueError: ``decay`` lies outside [0, 1).

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.fields import EMA
        >>> ema = EMA(0.5)
        >>> state = ema.init({"weight": jnp.array(0.0)})
        >>> state = ema.update(state, {"weight": jnp.array(1.0)})
        >>> round(float(state.average["weight"]), 6)  # the first decay is 1/10
        0.9

    Cost: one multiply-add per weight and update, one copy of the weights.

    References:
        Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992,
        https://doi.org/10.1137/0330046. The warm-up is the one in common use for image models.
    """

    decay: float

    def __check_init__(self) -> None:
        check_shape(self.decay, (), what="a decay", fix="Use 0.999 for thousands of steps.")
        if not 0.0 <= self.decay < 1.0:
            raise fault(expected="a decay in [0, 1)", got=self.decay, fix="Use 0.999 for thousands of steps.")

    def init(self, model: PyTree) -> EMAState:
        """Start the average at the model itself.

        Args:
            model: any pytree.

        Returns:
            State whose average equals ``model`` and with 0 updates; the arrays are copies, so that donating
            the model's buffers leaves the average alone.
        """
        average = jax.tree.map(lambda leaf: jnp.copy(leaf) if eqx.is_array(leaf) else leaf, model)
        return EMAState(average, jnp.zeros((), jnp.int32))

    def update(self, state: EMAState, model: PyTree) -> EMAState:
        """Take the newest model into the average.

        Args:
            state: the average so far.
            model: the newest weights, structured like the model given to ``init``.

        Returns:
            The next state.

        Raises:
            ValueError: the inexact arrays of ``model`` are in another tree, or of other shapes.
        """
        averaged, newest = (eqx.filter(tree, eqx.is_inexact_array) for tree in (state.average, model))
        check_like(newest, averaged, what="a model that", fix="Pass the model that init was given, with newer weights.")

        def mix(old: PyTree, new: PyTree) -> PyTree:
            if not eqx.is_inexact_array(new):
                return new
            # 0.999 is 1 in half precision, so the arithmetic is done in single precision at least.
            wide = wide_dtype(new)
            updates = state.updates.astype(jnp.finfo(wide).dtype)
            decay = jnp.minimum(self.decay, (1 + updates) / (10 + updates))
            return (decay * old.astype(wide) + (1 - decay) * new.astype(wide)).astype(new.dtype)

        return EMAState(jax.tree.map(mix, state.average, model), state.updates + 1)

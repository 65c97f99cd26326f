"""TrAct: the first layer's weights follow a step on its pre-activations, whatever the inputs' contrast."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy as jsp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import exact, fault, required, wide_dtype


def tract(
    where: Callable[[PyTree], Array],
    *,
    outputs_axis: Literal[0, -1],
    strides: Sequence[int] | None = None,
    padding: Literal["SAME", "VALID"] | Sequence[tuple[int, int]] | None = None,
    damping: float | Float[Array, ""] = 0.1,
) -> optax.GradientTransformationExtraArgs:
    r"""Replace the first layer's gradient by the change of weights that best makes a gradient step on pre-activations.

    .. math::
        \nabla_W L \leftarrow \nabla_W L\,\Big(\frac{X^\top X}{n} + \lambda I\Big)^{-1}

    With :math:`z_i = W x_i` and the loss a mean over n rows, a step on single pre-activations proposes
    :math:`z_i^* = z_i - \eta\,\nabla_{z_i}\ell_i`; this is minus η times the change of W that minimises
    :math:`\sum_i\lVert z_i^* - (W+\Delta W)x_i\rVert^2 + n\lambda\lVert\Delta W\rVert^2`. Dark images and bright ones
    then move their pre-activations more alike, as rows of an embedding do.

    Of a convolution the rows are the patches under its kernel, all those of the batch; so n, by which the second
    moment is a mean, counts the places of all images.

    Args:
        where: picks the first layer's weight out of a pytree like the parameters, e.g.
            ``lambda model: model.layers[0].weight``: a matrix, or the kernel of a convolution.
        outputs_axis: where the weight has its outputs, which its shape cannot say: 0 for ``[outputs, inputs]`` and
            ``[outputs, channels, *kernel]`` (Equinox, PyTorch), -1 for ``[inputs, outputs]`` and
            ``[*kernel, channels, outputs]`` (Flax, Haiku).
        strides: of a convolution, one for each axis of the kernel; needed for kernels, and for them alone.
        padding: of a convolution, as `jax.lax.conv_general_dilated` takes it; needed likewise.
        damping: λ, in units of the inputs squared, positive; 0.1 by default, the authors' for inputs of unit variance.

    Returns:
        The regulator, without state. ``update(grads, state, params, inputs=X)`` needs what the first layer was given:
        rows ``[..., inputs]`` for a matrix, with any leading axes, such as places; for a kernel the images,
        ``[n, channels, *places]`` where the outputs come first and ``[n, *places, channels]`` where they come last. It
        comes first in a chain.

    Raises:
        ValueError: ``damping`` is not positive, ``outputs_axis`` is neither, the inputs are missing at an update or
            do not fit the weight, or strides and padding are missing for a kernel, or given for a matrix.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> regulator = regulate.tract(lambda params: params["first"], outputs_axis=0, damping=1e-6)
        >>> grads = {"first": jnp.array([[4.0, 0.5]]), "other": jnp.ones(1)}
        >>> inputs = jnp.array([[2.0, 0.0], [0.0, 1.0]])
        >>> updates, _ = regulator.update(grads, regulator.init(grads), inputs=inputs)
        >>> [round(float(u), 3) for u in updates["first"][0]], updates["other"].tolist()
        ([2.0, 1.0], [1.0])

    Cost:
        One Gramian of the rows, n × inputs², and one Cholesky factor of size inputs; for a convolution the patches
        are held, one for each place.

    References:
        - Petersen, Borgelt and Ermon, "TrAct: Making First-layer Pre-Activations Trainable", 2024,
          https://arxiv.org/abs/2410.23970 (the two steps and the damping; for convolutions the second moment's scale
          after the authors' code, https://github.com/Felix-Petersen/tract. Dilation and groups, which that code does
          not take, are not taken here)
    """
    if isinstance(damping, float | int) and damping <= 0:
        raise fault(expected="positive damping", got=str(damping), fix="The default is 0.1.")
    if outputs_axis not in (0, -1):
        raise fault(
            expected="outputs_axis 0 or -1", got=repr(outputs_axis), fix="Say where the weight has its outputs."
        )

    @exact
    def update(
        updates: PyTree,
        state: optax.EmptyState,
        params: PyTree = None,
        *,
        inputs: Float[Array, "..."] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, optax.EmptyState]:
        gradient = where(updates)
        dtype = wide_dtype(gradient)
        inputs = jnp.asarray(required(inputs, "inputs", by="tract"), dtype)
        _check(gradient.shape, inputs.shape)
        # Outputs first, then channels, then the kernel, which is the order of what a patch holds.
        canonical = gradient if outputs_axis == 0 else jnp.moveaxis(gradient, (-1, -2), (0, 1))
        rows = inputs if gradient.ndim == 2 else _patches(inputs, canonical.shape[2:])
        matrix = canonical.reshape(canonical.shape[0], -1).astype(dtype)
        rows = rows.reshape(-1, matrix.shape[1])
        second_moment = rows.T @ rows / rows.shape[0]
        damped = second_moment + damping * jnp.eye(rows.shape[1], dtype=dtype)
        solved = jsp.linalg.cho_solve(jsp.linalg.cho_factor(damped), matrix.T).T.reshape(canonical.shape)
        solved = solved if outputs_axis == 0 else jnp.moveaxis(solved, (0, 1), (-1, -2))
        return eqx.tree_at(where, updates, solved.astype(gradient.dtype)), state

    def _check(weight: tuple[int, ...], given: tuple[int, ...]) -> None:
        convolution = len(weight) > 2
        if len(weight) < 2:
            raise fault(expected="a matrix or a kernel", got=f"a weight {weight}", fix="Pick the weight by `where`.")
        if convolution != (strides is not None) or convolution != (padding is not None):
            raise fault(
                expected="strides and padding for a convolution's kernel, and for nothing else",
                got=f"strides {strides}, padding {padding} for a weight {weight}",
                fix="Pass what the convolution has, e.g. strides=(2, 2), padding='SAME'.",
            )
        if convolution:
            taken = weight[1] if outputs_axis == 0 else weight[-2]
            fits = len(given) == len(weight) and given[1 if outputs_axis == 0 else -1] == taken
            form = "[n, channels, *places]" if outputs_axis == 0 else "[n, *places, channels]"
        else:
            taken = weight[1] if outputs_axis == 0 else weight[0]
            fits, form = len(given) >= 2 and given[-1] == taken, "[..., inputs]"
        if not fits:
            raise fault(
                expected=f"inputs={form}, {taken} of them by the weight {weight} whose outputs are on {outputs_axis}",
                got=f"inputs of shape {given}",
                fix="Pass what the first layer was given, and the weight's layout by `outputs_axis`.",
            )

    def _patches(images: Array, kernel: tuple[int, ...]) -> Array:
        assert strides is not None and padding is not None  # as checked
        images = images if outputs_axis == 0 else jnp.moveaxis(images, -1, 1)
        patches = jax.lax.conv_general_dilated_patches(images, kernel, strides, padding)
        return jnp.moveaxis(patches, 1, -1)

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)

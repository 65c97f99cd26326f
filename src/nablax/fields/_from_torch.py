"""A PyTorch module as a field that JAX can call, batch and differentiate."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .._core import Field, fault, require


def from_torch(module: Callable[..., Any]) -> Field:
    r"""Make a field of a ``torch.nn.Module``: values, :math:`Jv` and :math:`J^{\top}w` by callback to PyTorch.

    JAX sees a function with a linear derivative, so that ``jit``, ``vmap`` (nested as well), ``jvp``, ``vjp``,
    ``linearize`` and ``jacfwd`` work and whatever is built on them does. Under ``vmap`` the module gets one batch,
    not one call a row. The module's parameters are constants: no gradient reaches them.

    Args:
        module: called as ``module(t, y)``, or ``module(t, y, args)`` when a condition is given, with PyTorch's
            batch convention: ``t`` of shape ``[n]``, ``y`` of shape ``[n, ...]``, ``args`` of shape ``[n, ...]``; it
            returns ``[n, ...]`` like ``y``, each row from its own row alone. A module that takes its arguments
            otherwise goes in a lambda. It runs in the dtype and on the device of its parameters, and must be in
            evaluation mode. It may take gradients within its ``forward`` (with ``create_graph=True``), as that of an
            energy does.

    Returns:
        ``field(t, y, args=None) -> dy`` of one sample; ``y`` is one array, ``args`` one array or None.

    Raises:
        ImportError: PyTorch is not installed.
        ValueError: the module is in training mode, where dropout draws and batch normalisation mixes rows; it takes
            other arguments; ``y`` or ``args`` is no single array; ``args`` holds whole numbers; or the module's value
            is not shaped like ``y`` (found at the first call, which then stops with JAX's report of it).
        NotImplementedError: a second derivative is asked for (of the field, not products with its Jacobian).

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.fields import from_torch
        >>> field = from_torch(lambda t, y: -y)  # doctest: +SKIP
        >>> field(0.0, jnp.ones(2))  # doctest: +SKIP
        Array([-1., -1.], dtype=float32)

    Cost:
        One forward pass in PyTorch a value; a forward-mode pass for ``Jv``, or a forward and two backward passes where
        the module takes gradients within; a forward and a backward pass for ``Jᵀw``. Each call copies its arrays to the
        host and back, and holds JAX's device idle meanwhile.

    References:
        - JAX, "External callbacks", https://docs.jax.dev/en/latest/external-callbacks.html
        - How the derivative gets its transpose is ours: :math:`(b_1, b_2)\mapsto(b_1 + Jb_2, b_2)` is the solution of
          a unit-triangular system, and JAX lets the solution of a linear system come with its transpose.
    """
    torch = require("torch", extra="torch")
    if isinstance(module, torch.nn.Module) and module.training:
        raise fault(
            expected="a module in evaluation mode, whose value depends on its arguments alone",
            got="one in training mode",
            fix="Put it in evaluation mode first: module.train(False).",
        )
    _check_arguments(module.forward if isinstance(module, torch.nn.Module) else module)
    host = _Host(torch, module)

    @jax.custom_jvp
    def call(*inputs: Array) -> Array:
        return jax.pure_callback(host.value, _like(inputs[1]), *inputs, vmap_method="expand_dims")

    @call.defjvp
    def _(inputs: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
        fixed = _constant(inputs)
        size = inputs[1].size
        flat, unflatten = ravel_pytree(tangents)

        def push(_: Any, sides: Array) -> Array:
            vectors = unflatten(sides[size:])
            moved = jax.pure_callback(host.push, _like(inputs[1]), *fixed, *vectors, vmap_method="expand_dims")
            return sides.at[:size].add(moved.ravel())

        def pull(_: Any, sides: Array) -> Array:
            covector = sides[:size].reshape(inputs[1].shape)
            like = tuple(map(_like, inputs))
            pulled = jax.pure_callback(host.pull, like, *fixed, covector, vmap_method="expand_dims")
            return sides.at[size:].add(ravel_pytree(pulled)[0])

        # The operator itself is never applied, only its two solutions. One vector, so that it is linear as a whole
        # even where some argument has no tangent.
        sides = jnp.concatenate([jnp.zeros(size, flat.dtype), flat])
        moved = jax.lax.custom_linear_solve(lambda x: x, sides, push, pull)
        return call(*inputs), moved[:size].reshape(inputs[1].shape)

    def field(t: Float[Array, ""], y: Array, args: Array | None = None) -> Array:
        if len(jax.tree.leaves(y)) != 1 or len(jax.tree.leaves(args)) > 1:
            raise fault(
                expected="one array for y, and one or none for args",
                got=f"{jax.tree.structure(y)} and {jax.tree.structure(args)}",
                fix="Join the leaves into one array, and split them in a wrapper round the module.",
            )
        y = jnp.asarray(y)
        condition = None if args is None else jnp.asarray(args)
        if condition is not None and not jnp.issubdtype(condition.dtype, jnp.floating):
            raise fault(
                expected="args of floating-point numbers, which the module gets in its own dtype",
                got=str(condition.dtype),
                fix="Pass floats, and turn them into whole numbers in a wrapper round the module.",
            )
        given = () if condition is None else (condition.astype(y.dtype),)
        return call(jnp.asarray(t, y.dtype), y, *given)

    return field


def _check_arguments(forward: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(forward)
    except (TypeError, ValueError):  # not everything that is called has one
        return
    for count in (2, 3):
        try:
            signature.bind(*[None] * count)
            return
        except TypeError:
            continue
    raise fault(
        expected="a module that is called as module(t, y), or module(t, y, args)",
        got=f"one of {signature}",
        fix="Say what is what; of y alone: from_torch(lambda t, y: module(y)).",
    )


class _Host:
    """What runs in PyTorch, on NumPy arrays whose leading axes are the mapped ones (of length 1 where unmapped)."""

    def __init__(self, torch: Any, module: Callable[..., Any]) -> None:
        self.torch, self.module = torch, module
        parameters = list(module.parameters()) if isinstance(module, torch.nn.Module) else []
        floats = [parameter for parameter in parameters if parameter.is_floating_point()]
        self.dtype = floats[0].dtype if floats else None
        self.device = floats[0].device if floats else None
        self.differentiates = False  # within its forward, as far as is known

    def value(self, *inputs: Any) -> np.ndarray:
        tensors, lead = self._rows(inputs)
        if not self.differentiates:
            try:
                with self.torch.no_grad():
                    return self._back(self.module(*tensors), lead, inputs[1])
            except RuntimeError:  # its own, unless it is that a gradient is asked for in it
                pass
        with self.torch.enable_grad():
            value = self.module(*tensors)
        self.differentiates = True
        return self._back(value, lead, inputs[1])

    def push(self, *arrays: Any) -> np.ndarray:
        inputs = arrays[: len(arrays) // 2]
        tensors, lead = self._rows(arrays)
        half = len(inputs)
        if not self.differentiates:
            try:
                with self.torch.no_grad():
                    _, moved = self.torch.func.jvp(self.module, tuple(tensors[:half]), tuple(tensors[half:]))
                return self._back(moved, lead, inputs[1])
            except RuntimeError:  # forward mode knows no gradient within
                pass
        moved = self._push_by_reverse(tensors[:half], tensors[half:])
        self.differentiates = True
        return self._back(moved, lead, inputs[1])

    def _push_by_reverse(self, points: list[Any], vectors: list[Any]) -> Any:
        """Jv as the derivative of wᵀJv by w: J's transpose is linear in w, whatever w is."""
        gradient = self.torch.autograd.grad
        leaves = [point.detach().requires_grad_() for point in points]
        with self.torch.enable_grad():
            value = self.module(*leaves)
            w = self.torch.zeros_like(value).requires_grad_()
            pulled = gradient(value, leaves, w, create_graph=True, allow_unused=True, materialize_grads=True)
            felt = [(p, v) for p, v in zip(pulled, vectors) if p.requires_grad]
            if not felt:
                return self.torch.zeros_like(value)
            return gradient([p for p, _ in felt], w, [v for _, v in felt], materialize_grads=True, allow_unused=True)[0]

    def pull(self, *arrays: Any) -> tuple[np.ndarray, ...]:
        inputs = arrays[:-1]
        tensors, lead = self._rows(arrays)
        leaves = [tensor.detach().requires_grad_() for tensor in tensors[:-1]]
        with self.torch.enable_grad():
            value = self.module(*leaves)
            pulled = self.torch.autograd.grad(value, leaves, tensors[-1], allow_unused=True, materialize_grads=True)
        return tuple(self._back(gradient, lead, array) for gradient, array in zip(pulled, inputs))

    def _rows(self, arrays: Any) -> tuple[list[Any], tuple[int, ...]]:
        """Tensors with one leading axis of rows, whatever was mapped; and the mapped axes."""
        # Time is a scalar of one sample: what axes it has are the mapped ones, and every array has as many.
        mapped = np.ndim(arrays[0])
        lead = np.broadcast_shapes(*(np.shape(array)[:mapped] for array in arrays))
        tensors = []
        for array in arrays:
            array = np.asarray(array)
            # NumPy and PyTorch share no bfloat16.
            array = array.astype(np.float32) if array.dtype == jnp.bfloat16 else array
            full = np.broadcast_to(array, (*lead, *array.shape[mapped:]))
            rows = np.array(full.reshape(-1, *array.shape[mapped:]))  # PyTorch wants memory that may be written
            tensors.append(self.torch.from_numpy(rows).to(device=self.device, dtype=self.dtype))
        return tensors, lead

    def _back(self, tensor: Any, lead: tuple[int, ...], like: Any) -> np.ndarray:
        shape = (*lead, *np.shape(like)[len(lead) :])
        tensor = tensor.float() if tensor.dtype == self.torch.bfloat16 else tensor
        rows = tensor.detach().cpu().numpy().astype(np.asarray(like).dtype)
        if rows.shape != (int(np.prod(lead)), *shape[len(lead) :]):
            raise fault(
                expected=f"a module whose value is shaped like its rows of y, {shape[len(lead) :]}",
                got=str(rows.shape[1:]),
                fix="Return one component per coordinate of y.",
            )
        return rows.reshape(shape)


def _like(array: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(array), jnp.result_type(array))


@jax.custom_jvp
def _constant(inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    return inputs


@_constant.defjvp
def _(inputs: Any, tangents: Any) -> Any:
    # Without this rule the curvature would silently count as zero.
    raise NotImplementedError("a field from PyTorch has first derivatives only, a second one was asked for")


__all__ = ["from_torch"]

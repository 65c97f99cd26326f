"""A check-up of a PyTorch training step: the loss is PyTorch's, by callback, and so are its two derivatives."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..._core import Key, check_callable, fault, require
from ._checkup import checkup
from ._record import Checkup
from ._shared import FORWARD
from ._torch_optimizer import as_optax

MEASURED = "measured in PyTorch by its backward passes alone, twice for curvature"


def checkup_torch(
    model: Any,
    loss: Callable[[Any, PyTree], Any],
    batch: PyTree,
    optimizer: Any = None,
    *,
    key: Key,
    **options: Any,
) -> Checkup:
    r"""Check a training step of a ``torch.nn.Module`` before it is made; model and optimiser stay as they are.

    JAX sees a loss whose gradient, and whose product :math:`v\mapsto\nabla^2L\,v`, come from PyTorch's autograd; the
    whole of :func:`checkup` is built on these. The optimiser is read, with its state, into Optax's own.

    Args:
        model: whose parameters that require a gradient move; in the mode it is in. Buffers are copies, and random
            numbers (dropout) the same at each pass. A module may take gradients within its ``forward``.
        loss: ``loss(model, batch) -> scalar tensor``, the same object each time, so that the check-up is compiled once.
        batch: any tree of tensors or NumPy arrays; where all share a leading axis these are rows.
        optimizer: ``SGD``, ``Adam``, ``AdamW`` or ``RMSprop`` of ``torch.optim`` over this model's parameters, before
            its step; None with ``learning_rate=``, or without a step. Of a schedule it has the present rate.
        key: for random probes.
        **options: of :func:`checkup`: ``chance``, ``learning_rate``, ``momentum``, ``batch_size``, ``thresholds``,
            ``rows``, ``steps`` and ``count``. With batch normalisation in training mode pass ``rows=0``.

    Returns:
        A `Checkup`.

    Raises:
        ImportError: PyTorch is not installed.
        ValueError: an argument makes no sense; the optimiser is another one, or does what Optax's does not; no
            parameter requires a gradient; the loss is no scalar.

    Example:
        >>> import jax, torch  # doctest: +SKIP
        >>> from nablax.diagnose import checkup_torch
        >>> model = torch.nn.Linear(3, 1)  # doctest: +SKIP
        >>> squares = lambda model, batch: torch.mean((model(batch) - 1) ** 2)  # doctest: +SKIP
        >>> sgd = torch.optim.SGD(model.parameters(), lr=5.0)  # doctest: +SKIP
        >>> record = checkup_torch(model, squares, torch.randn(64, 3), sgd, key=jax.random.key(0))  # doctest: +SKIP
        >>> record.findings[0].topic  # doctest: +SKIP
        'learning rate'

    Cost:
        That of :func:`checkup` by reverse mode alone, each pass with a copy of the parameters to PyTorch and back; the
        gradients of single rows are one pass each. ``rows=0`` leaves them out.

    References:
        - JAX, "External callbacks", https://docs.jax.dev/en/latest/external-callbacks.html
        - That the Hessian is symmetric, so that its product is its own transpose, the solution of a unit system, and
          curvature needs no forward mode, is ours.
    """
    torch = require("torch", extra="torch")
    check_callable(loss, what="loss", fix="Pass loss(model, batch) -> scalar tensor.", takes=2)
    if not isinstance(model, torch.nn.Module):
        raise fault(expected="a torch.nn.Module", got=type(model).__name__, fix="Pass the model that is trained.")
    if refused := sorted(options.keys() & {"example_losses", "losses", "logits", "field", "update", "opt_state"}):
        fix = "Leave it out; of a cross-entropy pass chance=math.log(classes)."
        raise fault(expected="options of numbers", got=", ".join(refused), fix=fix)
    trained = {name: leaf for name, leaf in model.named_parameters() if leaf.requires_grad}
    if not trained:
        raise fault(
            expected="parameters that require a gradient", got="none", fix="Train some: parameter.requires_grad_()."
        )
    params = {name: _array(torch, leaf) for name, leaf in trained.items()}
    batch = jax.tree.map(lambda leaf: torch.from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf, batch)
    rows = jax.tree.map(lambda leaf: _array(torch, leaf) if isinstance(leaf, torch.Tensor) else leaf, batch)
    transform, state = (None, None) if optimizer is None else as_optax(torch, optimizer, trained, params)
    dtypes = tuple(leaf.dtype for leaf in jax.tree.leaves(batch) if isinstance(leaf, torch.Tensor))
    of_params = _loss(model, loss, tuple(trained), dtypes)
    record = checkup(of_params, params, rows, optimizer=transform, opt_state=state, key=key, **options)
    return replace(record, notes=tuple(MEASURED if note == FORWARD else note for note in record.notes))


@lru_cache(maxsize=4)
def _loss(
    model: Any, loss: Callable[[Any, PyTree], Any], names: tuple[str, ...], dtypes: tuple[Any, ...]
) -> Callable[[PyTree, PyTree], Float[Array, ""]]:
    """The loss as JAX has it, one object for as long as model and loss are, so that it is compiled once."""
    torch = require("torch", extra="torch")

    def of_params(params: dict[str, Array], batch: PyTree) -> Float[Array, ""]:
        leaves, tree = jax.tree.flatten(batch)
        arrays = [leaf for leaf in leaves if eqx.is_array(leaf)]
        host = _Host(torch, model, loss, names, dtypes, leaves, tree)
        inexact = [jnp.issubdtype(a.dtype, jnp.inexact) for a in arrays]
        # All that is differentiated: the parameters, and the batch's floats, which some parts are asked about.
        floats = [params[name] for name in names] + [a for a, is_float in zip(arrays, inexact) if is_float]
        return _value(host, floats, [a for a, is_float in zip(arrays, inexact) if not is_float])

    return of_params


def _call(function: Callable[..., Any], like: PyTree, *args: Any) -> Any:
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), like)
    return jax.pure_callback(function, shapes, *args, vmap_method="sequential")


@jax.custom_vjp
def _value(host: Any, floats: list[Array], whole: list[Array]) -> Float[Array, ""]:
    return _call(host.value, jnp.zeros((), jnp.result_type(float)), floats, whole)


@jax.custom_vjp
def _slope(host: Any, floats: list[Array], whole: list[Array]) -> list[Array]:
    return _call(host.slope, floats, floats, whole)


def _product(host: Any, floats: list[Array], whole: list[Array], vectors: list[Array]) -> list[Array]:
    """The Hessian times vectors: linear in them, and its own transpose, as JAX lets a linear solution be."""
    fixed = _constant(floats)
    flat, unflatten = ravel_pytree(vectors)

    def solution(_: Any, side: Array) -> Array:
        return ravel_pytree(_call(host.product, floats, fixed, whole, unflatten(side)))[0]

    # The operator itself is never applied.
    return unflatten(jax.lax.custom_linear_solve(lambda x: x, flat, solution, symmetric=True))


@jax.custom_jvp
def _constant(floats: list[Array]) -> list[Array]:
    return floats


@_constant.defjvp
def _(floats: Any, tangents: Any) -> Any:
    # Without this rule a third derivative would silently count as zero.
    raise NotImplementedError("a loss from PyTorch has two derivatives, a third one was asked for")


def _scaled(scale: Array, leaves: list[Array]) -> list[Array]:
    return [(scale * leaf).astype(leaf.dtype) for leaf in leaves]


_value.defvjp(
    lambda host, floats, whole: (_value(host, floats, whole), (host, floats, whole)),
    lambda saved, scale: (None, _scaled(scale, _slope(*saved)), None),
)
_slope.defvjp(
    lambda host, floats, whole: (_slope(host, floats, whole), (host, floats, whole)),
    lambda saved, covectors: (None, _product(saved[0], saved[1], saved[2], covectors), None),
)


@jax.tree_util.register_static
class _Host:
    """What runs in PyTorch, on NumPy arrays."""

    def __init__(self, torch: Any, model: Any, loss: Any, names: Any, dtypes: Any, leaves: list, tree: Any) -> None:
        self.torch, self.names, self.dtypes, self.tree = torch, names, dtypes, tree
        self.others = [None if eqx.is_array(leaf) else leaf for leaf in leaves]
        self.arrays = [eqx.is_array(leaf) for leaf in leaves]
        self.floats = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves if eqx.is_array(leaf)]
        self.model = model

        class Whole(torch.nn.Module):
            """Model and loss as one module, whatever the loss calls of the model."""

            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, batch: Any) -> Any:
                return loss(self.model, batch)

        self.whole = Whole()
        self.kept = dict(model.named_parameters())

    def _forward(self, floats: Any, whole: Any) -> tuple[Any, list[Any]]:
        """The loss, and the leaves that it is differentiated by."""
        torch, own = self.torch, [self.kept[name] for name in self.names]
        count = len(own)
        likes = [(leaf.dtype, leaf.device) for leaf in own]
        device = own[0].device
        given, rest = iter(floats[count:]), iter(whole)
        leaves = [_tensor(torch, value, *like).requires_grad_() for value, like in zip(floats, likes)]
        arrays = []
        for dtype, is_float in zip(self.dtypes, self.floats):
            tensor = _tensor(torch, next(given if is_float else rest), dtype, device)
            if is_float:
                leaves.append(tensor.requires_grad_())
            arrays.append(tensor)
        filled = iter(arrays)
        batch = [next(filled) if here else other for here, other in zip(self.arrays, self.others)]
        state = {f"model.{name}": leaf for name, leaf in zip(self.names, leaves)}
        # Running statistics are written to copies.
        state |= {f"model.{name}": buffer.clone() for name, buffer in self.model.named_buffers()}
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.enable_grad():
            torch.manual_seed(0)
            found = torch.func.functional_call(self.whole, state, (jax.tree.unflatten(self.tree, batch),))
        if not isinstance(found, torch.Tensor) or found.ndim or not found.is_floating_point():
            got = f"{tuple(found.shape)} of {found.dtype}" if isinstance(found, torch.Tensor) else type(found).__name__
            raise fault(expected="a loss that is a scalar tensor of floats", got=got, fix="Return its mean over rows.")
        return found, leaves

    def value(self, floats: Any, whole: Any) -> np.ndarray:
        found, _ = self._forward(floats, whole)
        return np.asarray(found.detach().cpu().double().numpy(), jnp.result_type(float))

    def slope(self, floats: Any, whole: Any) -> list[np.ndarray]:
        found, leaves = self._forward(floats, whole)
        return self._back(self._pulled(found, leaves, False), floats)

    def product(self, floats: Any, whole: Any, vectors: Any) -> list[np.ndarray]:
        found, leaves = self._forward(floats, whole)
        slopes = self._pulled(found, leaves, True)
        given = [_tensor(self.torch, value, leaf.dtype, leaf.device) for value, leaf in zip(vectors, leaves)]
        along = sum((slope * vector).sum() for slope, vector in zip(slopes, given))
        # Of a loss that is linear nothing is left to differentiate.
        products = [self.torch.zeros_like(leaf) for leaf in leaves]
        if along.requires_grad:
            products = self._pulled(along, leaves, False)
        return self._back(products, floats)

    def _pulled(self, value: Any, leaves: list[Any], again: bool) -> Any:
        return self.torch.autograd.grad(value, leaves, create_graph=again, allow_unused=True, materialize_grads=True)

    def _back(self, tensors: Any, likes: Any) -> list[np.ndarray]:
        return [_numpy(self.torch, tensor).astype(np.asarray(like).dtype) for tensor, like in zip(tensors, likes)]


def _numpy(torch: Any, tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    # NumPy and PyTorch share no bfloat16.
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _array(torch: Any, tensor: Any) -> Array:
    array = jnp.array(_numpy(torch, tensor))
    return array.astype(jnp.bfloat16) if tensor.dtype == torch.bfloat16 else array


def _tensor(torch: Any, value: Any, dtype: Any, device: Any) -> Any:
    value = np.asarray(value)
    value = value.astype(np.float32) if value.dtype == jnp.bfloat16 else value
    return torch.from_numpy(np.array(value)).to(device=device, dtype=dtype)  # in memory that may be written
